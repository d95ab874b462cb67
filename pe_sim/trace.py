"""Traces of steps, which engines write and reports read: spans of stages, uses of channels, busy cycles."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

import numpy as np

from pe_sim.units import BoolArray, IntArray

NOT_ACTIVE = -1
_AROUND = 64  # runs; a stage waits for what came just before it: its own layer, the one before, or other groups' parts
_K = TypeVar("_K")


@dataclass(frozen=True, eq=False)
class PartCycles:
    """Start and end of the parts of a stage, (parts,) cycles from its span's base; layers that repeat share them.

    The parts of a stage on PEs are the PEs. Else they are its messages, reductions or jobs, as the schedule lists them;
    or its hops, followed by the values that a target has from its sender without a channel.

    Args:
        working: whether a PE has a part, or a part keeps a channel or a unit busy. For other PEs `start` and `end` mean
            nothing. For messages and jobs without content, and values without a channel, they say when these were
            passed on; if these waited for nothing, that is some cycle early enough for what waits for them.
        start: of a part that is not on PEs, its grant; of a message in bursts, the first grant.
        end: when the last of it arrived; of a hop, when its last beat came out at the far end.
    """

    working: BoolArray
    start: IntArray
    end: IntArray

    @cached_property
    def longest(self) -> int:
        """Index of the part that takes longest; of several, the first."""
        return int(np.where(self.working, self.end - self.start, 0).argmax())


@dataclass(frozen=True, slots=True)
class StageSpan:
    """The span of one stage of one layer.

    Args:
        order: position in program order.
        layer: None outside the layers.
        name, operator, distribution, resource: as in the schedule.
        start, end: first start and last end over its PEs or messages, in cycles.
        inputs: orders of the stages whose results it waits for.
        parts: cycles of its PEs, messages, hops, reductions or jobs, from `base` on.
        on_pes: whether it is a stage on PEs.
    """

    order: int
    layer: int | None
    name: str
    operator: str
    distribution: str
    resource: str
    start: int
    end: int
    inputs: tuple[int, ...]
    parts: PartCycles
    on_pes: bool
    base: int = 0

    @property
    def part_start(self) -> IntArray:
        """(parts,) start cycle of each part, NOT_ACTIVE where there is none; computed at each call."""
        return self._absolute(self.parts.start)

    @property
    def part_end(self) -> IntArray:
        """(parts,) end cycle of each part, NOT_ACTIVE where there is none; computed at each call."""
        return self._absolute(self.parts.end)

    @property
    def pe_start(self) -> IntArray | None:
        """(PEs,) start cycles, NOT_ACTIVE where a PE has no part; None if not on PEs. Computed at each call."""
        return self.part_start if self.on_pes else None

    @property
    def pe_end(self) -> IntArray | None:
        """(PEs,) end cycles, NOT_ACTIVE where a PE has no part; None if not on PEs. Computed at each call."""
        return self.part_end if self.on_pes else None

    def bounds_on(self, part: int) -> tuple[int, int]:
        """Start and end cycle of one part, for instance one PE; NOT_ACTIVE where there is none."""
        if not self.parts.working[part]:
            return NOT_ACTIVE, NOT_ACTIVE
        return self.base + int(self.parts.start[part]), self.base + int(self.parts.end[part])

    def _absolute(self, cycles: IntArray) -> IntArray:
        return np.where(self.parts.working, cycles.astype(np.int64) + self.base, NOT_ACTIVE)


@dataclass(slots=True)
class TagTraffic:
    """Messages counted under one tag; busy cycles are of the channel that carried them.

    Two are equal if messages and bytes are equal: an execution with real arrays counts those, and knows no time.
    """

    messages: int = 0
    bytes: int = 0
    busy_cycles: int = field(default=0, compare=False)

    def add(self, num_bytes: int, busy_cycles: int) -> None:
        """Counts one message."""
        self.messages += 1
        self.bytes += num_bytes
        self.busy_cycles += busy_cycles


def total_traffic(parts: Iterable[tuple[Mapping[_K, TagTraffic], int]]) -> dict[_K, TagTraffic]:
    """The sum of several counts by tag, each times its factor; only tags that are in one of them."""
    totals: dict[_K, TagTraffic] = {}
    for part, times in parts:
        for tag, use in part.items():
            total = totals.setdefault(tag, TagTraffic())
            total.messages += times * use.messages
            total.bytes += times * use.bytes
            total.busy_cycles += times * use.busy_cycles
    return totals


def traffic_to_dict(traffic: Mapping[str, TagTraffic]) -> dict[str, dict[str, int]]:
    """Traffic by tag, JSON-ready."""
    return {
        tag: {"messages": use.messages, "bytes": use.bytes, "busy_cycles": use.busy_cycles}
        for tag, use in traffic.items()
    }


@dataclass(frozen=True, slots=True)
class ChannelUse:
    """Occupancies of channels in order of their grants; one row a burst, arrays are (uses,).

    `stage` is the order of the stage, `start` the grant, `end` the release, `channel` and `tag` index
    `channels` and `tags`; `part` is the message, reduction or hop of the stage that held the channel, as in its span.
    """

    channels: tuple[str, ...]
    tags: tuple[str, ...]
    channel: IntArray
    tag: IntArray
    stage: IntArray
    start: IntArray
    end: IntArray
    num_bytes: IntArray
    part: IntArray


@dataclass(frozen=True, eq=False)
class Runs:
    """The runs of blocks of stages in program order, (runs,) each; an engine that repeats no layer has none.

    Args:
        first: order of its first stage.
        record: number of its record; equal for runs that differ only in the cycle at which they begin.
        layer: NOT_ACTIVE outside the layers.
        base: cycle that the times of its record count from.
    """

    first: IntArray
    record: IntArray
    layer: IntArray
    base: IntArray

    def run_of(self, order: int) -> int:
        """The run a stage belongs to."""
        return int(np.searchsorted(self.first, order, side="right")) - 1

    def repeats(self, run: int, distance: int) -> int:
        """Number of steps of `distance` runs back from `run` that lead to runs with the same surroundings; may be 0.

        Surroundings are the runs up to `_AROUND` and two distances before and after: they are the same if they have the
        same records, equally far apart.
        """
        margin = _AROUND + 2 * distance
        low, last = run - margin, run + margin
        if low - distance < 0 or last + distance >= len(self.first) or self.record[run] != self.record[run + distance]:
            return 0
        differs = self._differs(run, distance, low - distance, last)
        if differs.any():
            return 0
        breaks = np.flatnonzero(self._differs(run, distance, 0, low))
        lowest = int(breaks[-1]) + 1 if len(breaks) else 0
        return (low - lowest) // distance

    def _differs(self, run: int, distance: int, low: int, last: int) -> BoolArray:
        """(last - low + 1,) whether run i and run i + `distance` differ otherwise than `run` and `run` + `distance`."""
        found = np.zeros(last - low + 1, dtype=bool)
        for column in (self.first, self.record, self.layer, self.base):
            apart = column[low + distance : last + distance + 1] - column[low : last + 1]
            found |= apart != column[run + distance] - column[run]
        return found


@dataclass(slots=True)
class Totals:
    """Totals of a step: busy cycles and bytes read.

    Args:
        pe_busy: (PEs,) busy cycles by resource (pe_matrix, pe_vector, pe_memory).
        root_busy: busy cycles by resource of the root.
        read_bytes: bytes read from all local memories and the root's.
    """

    pe_busy: dict[str, IntArray]
    root_busy: dict[str, int]
    read_bytes: int = 0


@dataclass(frozen=True, eq=False)
class Trace:
    """The trace of a step, from which reports are made; times are cycles.

    Args:
        engine: name of the engine that wrote it.
        makespan_cycles: the step's last event.
        details: gives the spans and the uses of channels, which a fast engine writes out only when they are asked for.
        counts: gives the traffic per tag, only of tags that were used, likewise.
        totals: gives busy cycles and bytes read, likewise.
        notes: remarks for the reader on how the trace came about.
        blocks: gives the runs of blocks, for readers that look only once at layers that repeat each other.
    """

    engine: str
    makespan_cycles: int
    details: Callable[[], tuple[Sequence[StageSpan], ChannelUse]]
    counts: Callable[[], dict[str, TagTraffic]]
    totals: Callable[[], Totals]
    notes: tuple[str, ...] = ()
    blocks: Callable[[], Runs] | None = None

    @cached_property
    def _summed(self) -> Totals:
        return self.totals()

    @cached_property
    def traffic(self) -> dict[str, TagTraffic]:
        """Traffic by tag, only tags that were used."""
        return self.counts()

    @property
    def pe_busy(self) -> dict[str, IntArray]:
        """(PEs,) busy cycles by resource of a PE (pe_matrix, pe_vector, pe_memory)."""
        return self._summed.pe_busy

    @property
    def root_busy(self) -> dict[str, int]:
        """Busy cycles by resource of the root."""
        return self._summed.root_busy

    @property
    def read_bytes(self) -> int:
        """Bytes read from all local memories and the root's."""
        return self._summed.read_bytes

    @cached_property
    def _written(self) -> tuple[Sequence[StageSpan], ChannelUse]:
        return self.details()

    @property
    def runs(self) -> Runs | None:
        """The runs of blocks; None if the engine repeats none."""
        return self.blocks() if self.blocks else None

    @property
    def spans(self) -> Sequence[StageSpan]:
        """The span of every stage of every layer in program order."""
        return self._written[0]

    @property
    def channel_use(self) -> ChannelUse:
        """All uses of channels in order of their start."""
        return self._written[1]
