"""Collectives alone as programs of the RTL: commands from the stages of their schedules, values from NumPy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pe_sim.config.arrays.array import ArrayConfig
from pe_sim.schedule.collectives import collective_schedule
from pe_sim.schedule.stages import CollectiveSchedule, MessageStage, TreeStage
from pe_sim.units import ceil_div
from tests.rtl.commands import Combine
from tests.rtl.hardware import Hardware, UnfitError
from tests.rtl.programs.lowering import (
    BUFFER_BYTES,
    Case,
    Passage,
    Piece,
    Ready,
    Space,
    add_messages,
    add_reductions,
)

SHIFT = 15  # of sums that are narrowed: some saturate
_ELEMENT_BYTES = {"all-reduce": 4, "reduce-scatter": 2}  # what a payload has to be a multiple of

Bytes = NDArray[np.uint8]


def collective_program(kind: str, array: ArrayConfig, num_bytes: int, seed: int = 0) -> Case:
    """Collective `kind` of `num_bytes`, as `pe_sim.schedule.collectives` plans it; read back wherever it arrives.

    Partial sums are int32 and results int16, shifted right by SHIFT; what is only moved are bytes.

    Raises:
        UnfitError: the RTL cannot do it.
    """
    Hardware.of(array)
    element = _ELEMENT_BYTES.get(kind, 1)
    if num_bytes % element:
        raise UnfitError(f"the RTL has no {kind} of elements of other than {element} bytes")
    planned = collective_schedule(kind, array, num_bytes)
    lowered = _Lowering(planned, np.random.default_rng(seed))
    lowered.run()
    by_slice = planned.algorithm.endswith("broadcast + slice")  # everybody has the whole, and takes its slice of it
    for unit, expected in _expected(kind, array.num_pes, lowered.given, num_bytes):
        address = lowered.result_addr + (unit * num_bytes if by_slice else 0)
        lowered.case.read(kind, unit, address, expected.tobytes())
    return lowered.case


@dataclass
class _Lowering:
    """One chain of stages; `given` is what every unit holds before."""

    planned: CollectiveSchedule
    rng: np.random.Generator
    given: dict[int, Bytes] = field(default_factory=dict)
    result_addr: int = 0

    def __post_init__(self) -> None:
        self.case = Case.of(self.planned.schedule)
        self.space = Space("buffer", BUFFER_BYTES)

    def run(self) -> None:
        """Lowers the stages."""
        ready: list[Ready] = []
        before: TreeStage | None = None
        for order, stage in enumerate(self.planned.schedule.blocks[0].stages):
            inputs = [ready[slot] for slot in stage.inputs]
            if isinstance(stage, TreeStage):
                ready.append(self._reduction(stage, order, inputs))
                before = stage
            else:
                assert isinstance(stage, MessageStage)
                ready.append(self._messages(stage, order, inputs, before))

    def _reduction(self, stage: TreeStage, order: int, inputs: list[Ready]) -> Ready:
        num_pes, payload = self.case.array.num_pes, int(stage.num_bytes[0])
        slices = self.planned.algorithm.startswith("reduction of slices")
        size = payload // num_pes if slices else payload
        address = self._give(range(num_pes), [size] * num_pes)
        pieces = {pe: Piece(address, pe * size if slices else 0, size) for pe in range(num_pes)}
        self.result_addr = self.space.take(payload)
        combine = Combine.SUM16 if slices else Combine.SUM32
        return add_reductions(self.case, stage, order, inputs, pieces, self.result_addr, combine)

    def _messages(self, stage: MessageStage, order: int, inputs: list[Ready], before: TreeStage | None) -> Ready:
        sent = int(stage.num_bytes.sum())
        address = self.result_addr
        if before is None:
            sizes = {int(source): sum(parts) for source, parts in _by(stage, stage.source).items()}
            units = list(sizes) if stage.from_pe else [self.case.root]
            address = self._give(units, list(sizes.values()))
        narrows = before is not None and int(before.num_bytes[0]) == 2 * sent
        arriving = max(sum(parts) for parts in _by(stage, stage.target).values())
        self.result_addr = self.space.take(arriving)
        passages = [
            Passage(
                address + (2 * taken if narrows else taken), self.result_addr + put, narrows, SHIFT if narrows else 0
            )
            for taken, put in zip(_offsets(stage, stage.source), _offsets(stage, stage.target), strict=True)
        ]
        return add_messages(self.case, stage, order, inputs, passages)

    def _give(self, units: range | list[int], sizes: list[int]) -> int:
        """Random bytes for these units, at one address."""
        address = self.space.take(max(sizes))
        for unit, size in zip(units, sizes, strict=True):
            self.given[unit] = self.rng.integers(0, 256, size, dtype=np.uint8)
            self.case.program.units[unit].buffer.append((address, self.given[unit].tobytes()))
        return address


def _by(stage: MessageStage, ends: NDArray[np.int64]) -> dict[int, list[int]]:
    """Bytes of the messages of every sender (or target)."""
    parts: dict[int, list[int]] = {}
    for end, num_bytes in zip(ends.tolist(), stage.num_bytes.tolist(), strict=True):
        parts.setdefault(end, []).append(num_bytes)
    return parts


def _offsets(stage: MessageStage, ends: NDArray[np.int64]) -> Iterator[int]:
    """A sender's messages are cut from one piece, a target's are put together, both in the messages' order."""
    used: dict[int, int] = {}
    for end, num_bytes in zip(ends.tolist(), stage.num_bytes.tolist(), strict=True):
        yield used.get(end, 0)
        used[end] = used.get(end, 0) + num_bytes


def _expected(kind: str, num_pes: int, given: dict[int, Bytes], size: int) -> Iterator[tuple[int, Bytes]]:
    """(unit, bytes) wherever something has to be in the end; `size` is what the collective was asked for."""
    root, pes = num_pes, range(num_pes)
    if kind in ("gather", "all-gather"):
        whole = np.concatenate([given[pe] for pe in pes])
        yield from ((unit, whole) for unit in ([root] if kind == "gather" else pes))
    elif kind == "broadcast":
        yield from ((pe, given[root]) for pe in pes)
    elif kind == "scatter":
        yield from ((pe, given[root][pe * size : (pe + 1) * size]) for pe in pes)
    elif kind == "all-to-all":
        blocks = {pe: given[pe].reshape(num_pes - 1, size) for pe in pes}  # a PE has none for itself
        for pe in pes:
            yield pe, np.concatenate([blocks[other][pe - (pe > other)] for other in pes if other != pe])
    else:
        total = sum_of([given[pe] for pe in pes])
        if kind == "reduce":
            yield root, total[: len(given[0])]
        else:
            result = narrowed(total, SHIFT)
            parts = [result] * num_pes if kind == "all-reduce" else result.reshape(num_pes, size)
            yield from zip(pes, parts, strict=True)


def sum_of(payloads: list[Bytes]) -> Bytes:
    """Sums of int32, modulo 2**32; what the last one lacks is zero."""
    padded = int(ceil_div(len(payloads[0]), 4)) * 4
    words = [np.pad(payload, (0, padded - len(payload))).view("<u4") for payload in payloads]
    total = np.sum(words, axis=0, dtype=np.uint64).astype("<u4")
    return total.view(np.uint8)


def narrowed(sums: Bytes, shift: int) -> Bytes:
    """int16 of int32: shifted right, saturated."""
    shifted = sums.view("<i4") >> shift
    result: Bytes = np.clip(shifted, -(1 << 15), (1 << 15) - 1).astype("<i2").view(np.uint8)
    return result
