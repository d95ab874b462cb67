"""Spans and channel uses of the fast engine's blocks, written out when a report asks for them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np

from pe_sim.engine.fast.block_pass import BlockRecord, StageRecord
from pe_sim.engine.fast.block_plan import BlockPlan
from pe_sim.engine.fast.recurrences import NEVER
from pe_sim.host_memory import require_memory
from pe_sim.mapping.placed import BlockRun
from pe_sim.schedule.stages import (
    CHANNELS,
    TAGS,
    MessageStage,
    PeStage,
    RoutedStage,
    Stage,
    TreeStage,
    bounds_of,
    parts_of,
    resource_of,
    tag_of,
)
from pe_sim.trace import NOT_ACTIVE, ChannelUse, PartCycles, Runs, StageSpan
from pe_sim.units import IntArray


@dataclass(frozen=True, slots=True)
class Visit:
    """One run of a block: the record of its pass, whose cycles count from `base` (..., 1)."""

    plan: BlockPlan
    record: BlockRecord
    base: IntArray
    run: BlockRun


USE_BYTES = 72  # for each use of a channel in a report: 56 in its table, the rest to sort that
USE_LEVERS = "fewer PEs (num_pes) or layers (model.num_layers) send less, and so may another workflow or interconnect"
_RECENT_VISITS = 32  # a walk over a step stays within a few layers at a time


@dataclass(frozen=True, slots=True)
class _Written:
    """Spans and uses that all visits with one record share: cycles from a visit's base, stages counted from its first.

    An input k stands for the k-th stage of the visit, or for what enters it where it is -1 or less: ~k is which.

    Args:
        spans: spans of the first layer that has the record, with inputs as above.
        uses: (7, uses) channel, tag, stage, start, end, bytes, part.
    """

    spans: tuple[StageSpan, ...]
    exits: tuple[int, ...]
    uses: IntArray


class Spans(Sequence[StageSpan]):
    """The spans of visits in program order, each written out when it is asked for; and the uses of channels."""

    def __init__(self, visits: Sequence[Visit]) -> None:
        self._visits = visits
        self._known: dict[int, _Written] = {}
        self._recent: dict[int, list[StageSpan]] = {}  # of the visits that were asked for last
        self._first = [0]  # order of each visit's first stage, and of what would come next
        self._entering: list[tuple[int, ...]] = []  # orders of what enters each visit
        carried: dict[int, tuple[int, ...]] = {}
        for visit in visits:
            written, first = self._written(visit), self._first[-1]
            entering = carried.get(visit.run.lane, ()) if visit.plan.block.entries else ()
            self._entering.append(entering)
            carried[visit.run.lane] = _orders(written.exits, first, entering)
            self._first.append(first + len(written.spans))

    def __len__(self) -> int:
        """Number of stages."""
        return self._first[-1]

    @overload
    def __getitem__(self, order: int) -> StageSpan: ...

    @overload
    def __getitem__(self, order: slice) -> tuple[StageSpan, ...]: ...

    def __getitem__(self, order: int | slice) -> StageSpan | tuple[StageSpan, ...]:
        """The span of one stage, or the spans of a slice of them."""
        if isinstance(order, slice):
            return tuple(self[each] for each in range(len(self))[order])
        if not 0 <= order < self._first[-1]:
            order = range(len(self))[order]
        number = bisect_right(self._first, order) - 1
        if number not in self._recent:
            if len(self._recent) == _RECENT_VISITS:
                del self._recent[next(iter(self._recent))]
            self._recent[number] = self._spans_of(number)
        return self._recent[number][order - self._first[number]]

    def __iter__(self) -> Iterator[StageSpan]:
        """All spans in program order."""
        for number in range(len(self._visits)):
            yield from self._spans_of(number)

    def uses(self) -> IntArray:
        """(7, uses) channel, tag, stage, start, end, bytes and part of each use of a channel, by start."""
        counts = [self._written(visit).uses.shape[1] for visit in self._visits]
        require_memory(USE_BYTES * sum(counts), f"a report of {sum(counts):,} uses of channels", USE_LEVERS)
        table, last = np.empty((7, sum(counts)), dtype=np.int64), 0
        for visit, count, order in zip(self._visits, counts, self._first, strict=False):
            rows = table[:, last : last + count]
            rows[:] = self._written(visit).uses
            rows[2] += order
            rows[3:5] += visit.base[0]
            last += count
        in_turn = np.lexsort((table[5], table[4], table[0], table[2], table[3]))  # equals: the earlier part first
        for column in table:  # one by one: a copy of the whole would double what is held
            column[:] = column[in_turn]
        return table

    def _spans_of(self, number: int) -> list[StageSpan]:
        visit, first, entering = self._visits[number], self._first[number], self._entering[number]
        base, layer = int(visit.base[0]), visit.run.layer
        return [
            StageSpan(
                first + span.order,
                layer,
                span.name,
                span.operator,
                span.distribution,
                span.resource,
                base + span.start if span.start > NEVER else NOT_ACTIVE,
                base + span.end if span.start > NEVER else NOT_ACTIVE,
                _orders(span.inputs, first, entering),
                span.parts,
                span.on_pes,
                base,
            )
            for span in self._written(visit).spans
        ]

    def _written(self, visit: Visit) -> _Written:
        if id(visit.record) not in self._known:
            self._known[id(visit.record)] = _write(visit)
        return self._known[id(visit.record)]


def runs_of(visits: Sequence[Visit]) -> Runs:
    """The visits as runs of blocks."""
    records: dict[int, int] = {}
    sizes = [len(visit.plan.block.stages) for visit in visits]
    return Runs(
        np.cumsum([0, *sizes[:-1]]),
        np.array([records.setdefault(id(visit.record), len(records)) for visit in visits]),
        np.array([NOT_ACTIVE if visit.run.layer is None else visit.run.layer for visit in visits]),
        np.array([int(visit.base[0]) for visit in visits]),
    )


def write_details(visits: Sequence[Visit], channels: tuple[str, ...]) -> tuple[Spans, ChannelUse]:
    """Spans in program order, and channel uses in order of their start."""
    spans = Spans(visits)
    return spans, ChannelUse(channels, tuple(t.value for t in TAGS), *spans.uses())


def _orders(numbers: tuple[int, ...], first: int, entering: tuple[int, ...]) -> tuple[int, ...]:
    return tuple([first + number if number >= 0 else entering[~number] for number in numbers])


def _write(visit: Visit) -> _Written:
    block = visit.plan.block
    producers = {slot: ~number for number, slot in enumerate(block.entries)}
    spans, uses = list[StageSpan](), [np.empty((7, 0), dtype=np.int64)]
    columns = zip(block.stages, visit.plan.stages, visit.record.stages, strict=True)
    for order, (stage, plan, record) in enumerate(columns):
        inputs = tuple(producers[slot] for slot in stage.inputs)
        named = stage.name, stage.operator, stage.distribution, resource_of(stage).value
        parts = _parts(stage, record)
        bounds, on_pes = bounds_of(stage, parts) or (NEVER, NEVER), isinstance(stage, PeStage)
        spans.append(StageSpan(order, visit.run.layer, *named, *bounds, inputs, parts, on_pes))
        if isinstance(stage, MessageStage | TreeStage | RoutedStage):
            uses.append(_uses(order, stage, parts, plan.busy))
        producers[stage.output] = order
    return _Written(tuple(spans), tuple(producers[slot] for slot in block.exits), np.concatenate(uses, axis=1))


def _parts(stage: Stage, record: StageRecord) -> PartCycles:
    start, end, working = record.start, record.end, record.working
    if isinstance(stage, RoutedStage) and record.sent is not None:
        kept = record.sent[stage.hops.kept_source]
        start, end = np.concatenate([start, kept]), np.concatenate([end, kept + stage.hops.kept_cycles])
    if working is None:
        working = np.ones(len(start), dtype=bool) if isinstance(stage, PeStage) else parts_of(stage)
    return PartCycles(working, start, end)


def _uses(order: int, stage: MessageStage | TreeStage | RoutedStage, parts: PartCycles, busy: IntArray) -> IntArray:
    """(7, uses) channel, tag, stage, start, end, bytes and part of each use of a channel by one stage."""
    tag, num_bytes = tag_of(stage), stage.num_bytes
    assert tag is not None
    if isinstance(stage, RoutedStage):
        channel, num_bytes = stage.hops.channel, num_bytes[stage.hops.message]
    else:
        channel = np.array(CHANNELS.index(resource_of(stage)))
    held = np.flatnonzero(parts.working)
    alike = (np.broadcast_to(value, num_bytes.shape)[held] for value in (channel, TAGS.index(tag), order))
    start = parts.start[held]
    return np.stack([*alike, start, start + np.broadcast_to(busy, num_bytes.shape)[held], num_bytes[held], held])
