"""Schedules written by hand, stage by stage, each with its commands, its data and what has to come of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pe_sim.config.arrays.array import ArrayConfig
from pe_sim.mapping.placed import BlockRun
from pe_sim.schedule.builders import Labels, Scopes, hub_to_scopes, pes_to_scopes, reduction
from pe_sim.schedule.stages import Block, MessageStage, PeStage, Resource, RootStage, Schedule, Stage, Tag
from tests.rtl.commands import Combine, Function, Op
from tests.rtl.hardware import Hardware
from tests.rtl.programs.lowering import (
    BUFFER_BYTES,
    Case,
    Passage,
    Piece,
    Ready,
    Space,
    add_messages,
    add_reductions,
    add_work,
    delivered_waits,
)

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Reduced:
    """The results of a stage's reductions, by their lowest PE, at one address."""

    slot: int
    address: int
    contents: dict[int, Bytes]


@dataclass
class Script:
    """Adds stages to one block; a stage's slot is its place in it. Nothing that is written is overwritten."""

    array: ArrayConfig
    seed: int
    stages: list[Stage] = field(default_factory=list)
    ready: list[Ready] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.hardware = Hardware.of(self.array)
        self.rng = np.random.default_rng(self.seed)
        self.case = Case.of(Schedule(self.array, (), ()))
        self.space = Space("buffer", BUFFER_BYTES)

    @property
    def whole(self) -> Scopes:
        """All PEs as one scope."""
        return Scopes.of_array(self.array.num_pes)

    def groups(self, size: int) -> Scopes:
        """All PEs in scopes of `size`."""
        return Scopes.of_array(self.array.num_pes, size)

    def finish(self) -> Case:
        """The case of all stages."""
        block = Block(tuple(self.stages), len(self.stages))
        self.case.schedule = Schedule(self.array, (block,), (BlockRun(0, None),))
        return self.case

    def wait(self, steps: Sequence[int], inputs: tuple[int, ...] = ()) -> int:
        """Every PE's vector unit is busy for its own number of steps, and its latency."""
        cycles = np.array(steps, dtype=np.int64) + self.hardware.vector_latency
        order, active = len(self.stages), np.ones(self.array.num_pes, dtype=bool)
        self.stages.append(PeStage("wait", "wait", "", inputs, order, Resource.PE_VECTOR, active, cycles))
        sources = [self.ready[slot] for slot in inputs]
        for pe, taken in enumerate(cycles.tolist()):
            self._wait(pe, order, steps[pe], taken, sources)
        self.ready.append(Ready(dict.fromkeys(range(self.array.num_pes), (order + 1, 1))))
        return order

    def root_wait(self, steps: int, inputs: tuple[int, ...] = ()) -> int:
        """The root's vector unit is busy."""
        order, cycles = len(self.stages), steps + self.hardware.root_vector_latency
        taken = np.array([cycles], dtype=np.int64)
        self.stages.append(RootStage("root wait", "wait", "", inputs, order, Resource.ROOT_VECTOR, taken))
        self._wait(self.case.root, order, steps, cycles, [self.ready[slot] for slot in inputs])
        self.ready.append(Ready({self.case.root: (order + 1, 1)}))
        return order

    def _wait(self, unit: int, order: int, steps: int, cycles: int, inputs: list[Ready]) -> None:
        fields = {"op": Op.VECTOR, "operation": Function.COPY, "steps": steps, "step_cycles": 1}
        waits = delivered_waits(inputs, unit)
        if unit == self.case.root:
            waits = tuple(ready.waits[unit] for ready in inputs)
        add_work(self.case, unit, order, "vector", fields, waits, cycles, "wait")

    def reduce(
        self,
        scopes: Scopes,
        num_bytes: int,
        inputs: tuple[int, ...],
        combine: Combine = Combine.SUM32,
        *,
        at_root: bool = False,
        softmax: bool = False,
        active: NDArray[np.bool_] | None = None,
    ) -> Reduced:
        """One reduction a scope of random data; results at the root are read back, as all that PEs have."""
        order, num_pes = len(self.stages), self.array.num_pes
        active = np.ones(num_pes, dtype=bool) if active is None else active
        sizes = np.full(len(scopes.first_pe), num_bytes, dtype=np.int64)
        labels = Labels(f"reduce {order}", "reduce", inputs, order)
        stage = reduction(labels, self.array, scopes, sizes, active, at_root=at_root, softmax=softmax)
        self.stages.append(stage)
        in_addr, out_addr = self.space.take(num_bytes), self.space.take(num_bytes)
        given = {pe: self._given(combine, num_bytes) for pe in np.flatnonzero(active).tolist()}
        for pe, data in given.items():
            self.case.program.units[pe].buffer.append((in_addr, data.tobytes()))
        pieces = {pe: Piece(in_addr, 0, num_bytes) for pe in given}
        sources = [self.ready[slot] for slot in inputs]
        self.ready.append(add_reductions(self.case, stage, order, sources, pieces, out_addr, combine, merges=softmax))
        contents = {}
        for first in scopes.first_pe.tolist():
            members = [given[pe] for pe in range(first, first + scopes.size) if pe in given]
            contents[first] = combined(combine, members)
            unit = self.case.root if at_root else first
            self.case.read(f"reduction {order}", unit, out_addr, contents[first].tobytes())
        return Reduced(order, out_addr, contents)

    def _given(self, combine: Combine, num_bytes: int) -> Bytes:
        if combine is not Combine.ARGMAX64:
            return self.rng.integers(0, 256, num_bytes, dtype=np.uint8)
        pairs = np.empty((num_bytes // 8, 2), dtype="<i4")
        pairs[:, 0] = self.rng.integers(-3, 4, len(pairs))  # ties are common
        pairs[:, 1] = self.rng.permutation(1 << 16)[: len(pairs)]
        return pairs.view(np.uint8).reshape(-1)

    def multicast(self, reduced: Reduced, scopes: Scopes) -> int:
        """The result of every scope's reduction from its joint to its PEs, to where it is at the joint's own."""
        order, (num_bytes, *_) = len(self.stages), [len(data) for data in reduced.contents.values()]
        sizes = np.full(len(scopes.first_pe), num_bytes, dtype=np.int64)
        labels = Labels(f"multicast {order}", "multicast", (reduced.slot,), order)
        stage = hub_to_scopes(labels, self.array, scopes, sizes, from_root=False)
        out_addr = self.space.take(num_bytes)
        passages = [Passage(reduced.address, out_addr)] * len(sizes)
        self._send(stage, passages)
        for first, data in reduced.contents.items():
            for pe in range(first, first + scopes.size):
                self.case.read(f"multicast {order}", pe, out_addr, data.tobytes())
        return order

    def broadcast(self, num_bytes: int, inputs: tuple[int, ...]) -> int:
        """Random bytes from the root to all PEs."""
        order, sizes = len(self.stages), np.array([num_bytes], dtype=np.int64)
        labels = Labels(f"broadcast {order}", "broadcast", inputs, order)
        stage = hub_to_scopes(labels, self.array, self.whole, sizes, from_root=True)
        data = self.rng.integers(0, 256, num_bytes, dtype=np.uint8)
        in_addr, out_addr = self.space.take(num_bytes), self.space.take(num_bytes)
        self.case.program.root.buffer.append((in_addr, data.tobytes()))
        self._send(stage, [Passage(in_addr, out_addr)])
        for pe in range(self.array.num_pes):
            self.case.read(f"broadcast {order}", pe, out_addr, data.tobytes())
        return order

    def gather(self, sizes: Sequence[int], inputs: tuple[int, ...], scopes: Scopes, *, to_root: bool) -> int:
        """Random bytes, `sizes` of every PE, one behind the other to the root or to all PEs of the sender's scope."""
        order, tag = len(self.stages), Tag.GATHER if to_root else Tag.ALL_GATHER
        labels = Labels(f"{tag.value} {order}", tag.value, inputs, order)
        scope_of_pe = np.arange(self.array.num_pes, dtype=np.int64) // scopes.size
        sent = np.array(sizes, dtype=np.int64)
        stage = pes_to_scopes(labels, tag, scope_of_pe, scopes, sent, to_root=to_root)
        in_addr, out_addr = self.space.take(max(sizes)), self.space.take(sum(sizes))
        arriving: dict[int, list[bytes]] = {target: [] for target in range(len(scopes.first_pe))}
        passages = []
        for pe, target in zip(stage.source.tolist(), stage.target.tolist(), strict=True):
            data = self.rng.integers(0, 256, sizes[pe], dtype=np.uint8).tobytes()
            self.case.program.units[pe].buffer.append((in_addr, data))
            passages.append(Passage(in_addr, out_addr + len(b"".join(arriving[target]))))
            arriving[target].append(data)
        self._send(stage, passages)
        for target, parts in arriving.items():
            first = int(scopes.first_pe[target])
            for unit in [self.case.root] if to_root else range(first, first + scopes.size):
                self.case.read(f"{tag.value} {order}", unit, out_addr, b"".join(parts))
        return order

    def _send(self, stage: MessageStage, passages: Sequence[Passage]) -> None:
        sources = [self.ready[slot] for slot in stage.inputs]
        self.ready.append(add_messages(self.case, stage, len(self.stages), sources, passages))
        self.stages.append(stage)


def combined(combine: Combine, payloads: Sequence[Bytes]) -> Bytes:
    """What the tree makes of the payloads of all PEs that contribute."""
    stacked = np.array(payloads)
    match combine:
        case Combine.SUM32:
            return np.asarray(stacked.view("<u4").sum(axis=0, dtype=np.uint32)).view(np.uint8)
        case Combine.SUM16:
            return np.asarray(stacked.view("<u2").sum(axis=0, dtype=np.uint16)).view(np.uint8)
        case Combine.MAX32:
            return np.asarray(stacked.view("<i4").max(axis=0)).view(np.uint8)
        case _:
            pairs = stacked.view("<i4").reshape(len(payloads), -1, 2)
            order = np.lexsort((pairs[..., 1], -pairs[..., 0]), axis=0)[0]  # the largest value, then the lowest index
            return np.ascontiguousarray(pairs[order, np.arange(pairs.shape[1])]).view(np.uint8).reshape(-1)
