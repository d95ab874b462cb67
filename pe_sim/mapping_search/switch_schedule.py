"""The schedule of a switch between two mappings: takes what moves layer by layer, gives stages for the engines.

With overlap (level 1 and up) everything that can be is hidden behind the bus: memories give and take at the bus's
rate, or the bus waits for them; the first access opens the first messages, later ones are opened while the bus carries
another. Without overlap each layer's share is read, sent and written, one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from pe_sim.config.array import ArrayConfig
from pe_sim.mapping.placed import BlockRun
from pe_sim.schedule.memory_timing import memory_timing
from pe_sim.schedule.stages import Block, MessageStage, PeStage, Resource, Schedule, Stage, Tag
from pe_sim.units import BoolArray, IntArray

_ROOT_RANK = -1
_NO_OVERLAP = 0


@dataclass(frozen=True, eq=False, slots=True)
class Leg:
    """What moves at one point: every sender concatenates what it has for it.

    Args:
        name: for people.
        sent: (PEs,) bytes of each PE's message; everybody hears it and keeps what it lacks.
        from_root: bytes of the root's message.
        lacking: bytes of the root's message if it sent all of it from a copy of its own; 0: it can have none.
        received, dropped: (PEs,) bytes that each PE keeps, and that it then no longer needs.
    """

    name: str
    sent: IntArray
    from_root: int
    lacking: int
    received: IntArray
    dropped: IntArray

    @property
    def by_root(self) -> Leg:
        """The same with the root as the only sender of what it can have."""
        if not self.lacking:
            return self
        return replace(self, sent=np.zeros_like(self.sent), from_root=self.lacking)

    @property
    def num_bytes(self) -> int:
        """On the bus."""
        return int(self.sent.sum()) + self.from_root


def switch_schedule(array: ArrayConfig, legs: Sequence[Leg]) -> Schedule:
    """The legs in their order, everything ready at cycle 0."""
    return _Builder(array).build([leg for leg in legs if leg.num_bytes])


@dataclass
class _Builder:
    array: ArrayConfig
    stages: list[Stage] = field(default_factory=list)

    def build(self, legs: Sequence[Leg]) -> Schedule:
        if self.array.overlap == _NO_OVERLAP:
            for leg in legs:
                self._one_after_the_other(leg)
        else:
            self._all_at_once(legs)
        block = Block(tuple(self.stages), len(self.stages))
        return Schedule(self.array, (block,), (BlockRun(0, None),))

    def _all_at_once(self, legs: Sequence[Leg]) -> None:
        first = memory_timing(self.array.pe.memory).latency_cycles
        senders = np.any([leg.sent > 0 for leg in legs], axis=0) if legs else np.zeros(0, dtype=bool)
        opened: tuple[int, ...] = ()
        if senders.any():
            opened = (self._at_ports("first access", senders, np.where(senders, first, 0), ()),)
        for leg in legs:
            self._messages(leg, opened, self._rate)

    def _one_after_the_other(self, leg: Leg) -> None:
        timing = memory_timing(self.array.pe.memory)
        read: tuple[int, ...] = ()
        if leg.sent.any():
            cycles = timing.read_cycles(leg.sent, _one_piece(leg.sent))
            read = (self._at_ports(f"read {leg.name}", leg.sent > 0, cycles, (), int(leg.sent.sum())),)
        heard = self._messages(leg, read, 0)
        cycles = timing.write_cycles(leg.received, _one_piece(leg.received))
        self._at_ports(f"write {leg.name}", leg.received > 0, cycles, heard)

    @property
    def _rate(self) -> int:
        """Bytes a cycle of the PEs' ports, if the bus is faster; 0: it is not."""
        rate = max(int(self.array.pe.memory.bytes_per_cycle), 1)
        return rate if rate < self.array.bus_tree.bus.bytes_per_cycle else 0

    def _at_ports(
        self, name: str, active: BoolArray, cycles: IntArray, inputs: tuple[int, ...], read_bytes: int = 0
    ) -> int:
        labels = (name, "switch", "", inputs, len(self.stages))
        self.stages.append(PeStage(*labels, Resource.PE_MEMORY, active, cycles, None, read_bytes))
        return len(self.stages) - 1

    def _messages(self, leg: Leg, ready: tuple[int, ...], rate: int) -> tuple[int, ...]:
        heard: list[int] = []
        if leg.from_root:
            rates = [each for each in (rate, self.array.root.memory.bytes_per_cycle) if each]
            sent = np.array([leg.from_root], dtype=np.int64)
            heard.append(self._on_bus(f"root {leg.name}", Tag.WEIGHT_STREAM, sent, (), min(rates)))
        if leg.sent.any():
            heard.append(self._on_bus(leg.name, Tag.MULTICAST, leg.sent, ready, rate))
        return tuple(heard)

    def _on_bus(self, name: str, tag: Tag, num_bytes: IntArray, inputs: tuple[int, ...], rate: int) -> int:
        """A message of each sender, which all PEs hear."""
        from_pe = tag is Tag.MULTICAST
        source = np.flatnonzero(num_bytes > 0)
        zero = np.zeros(1, dtype=np.int64)
        stage = MessageStage(
            name,
            "switch",
            "",
            inputs,
            len(self.stages),
            channel=Resource.BUS,
            tag=tag,
            from_pe=from_pe,
            source=source,
            rank=source if from_pe else np.full(1, _ROOT_RANK),
            num_bytes=num_bytes[source],
            target=np.zeros_like(source),
            to_root=False,
            first_pe=zero,
            last_pe=zero + self.array.num_pes,
            hop_cycles=zero,
            source_rate=rate,
        )
        self.stages.append(stage)
        return stage.output


def _one_piece(num_bytes: IntArray) -> Callable[[Callable[[IntArray], IntArray]], IntArray]:
    """What is read or written lies together."""
    return lambda cycles_of: cycles_of(num_bytes)
