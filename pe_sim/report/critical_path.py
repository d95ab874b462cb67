"""The critical path: walks back from the step's last event, at every start to what made it start just then.

A stage on a PE starts when its last input has come or the PE's previous stage has ended. A message is granted
when its request has reached the arbiter or the previous message has left the channel; a reduction enters the tree
in the same way; a job at the root waits for its inputs or for the job before it. So the cycles of a wait are those
of whoever held the resource, and the links cover [0, makespan] without a gap or an overlap.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from pe_sim.report.timeline import Timeline, tag_of
from pe_sim.schedule.stages import MessageStage, PeStage, Resource, RootStage, Stage, TreeStage
from pe_sim.trace import NOT_ACTIVE


@dataclass(frozen=True, slots=True)
class Link:
    """One stretch of the critical path.

    Args:
        order, layer, name, operator: of the stage.
        resource: what it was limited by; for matrix stages pe_memory or pe_matrix.
        tag: of a message or a reduction, else empty.
        pe: the PE it happened on; None for the network and the root.
        start, end: cycles.
        wait_cycles: how many at its beginning only waited: for the request to reach the arbiter, or for something
            the trace does not tell.
    """

    order: int
    layer: int | None
    name: str
    operator: str
    resource: str
    tag: str
    pe: int | None
    start: int
    end: int
    wait_cycles: int = 0

    @property
    def cycles(self) -> int:
        """Its length."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class _Activity:
    """Something with a start and an end: a stage on one PE, one use of a channel, or one job at the root."""

    order: int
    start: int
    end: int
    pe: int | None = None
    channel: int | None = None
    release: int = NOT_ACTIVE


def critical_path(timeline: Timeline) -> tuple[Link, ...]:
    """The links in order of time."""
    links = list(_Walk(timeline).links())
    return tuple(reversed(links))


class _Walk:
    """Indices of the trace by the cycle in which something ends."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._stages, self._spans = timeline.stages, timeline.trace.spans
        self._bus = timeline.schedule.array.network.bus
        self._uses_of: dict[int, list[_Activity]] = {}
        self._released: dict[tuple[int, int], list[_Activity]] = {}
        self._ends_on_pe: dict[int, dict[int, _Activity]] = {}
        self._index_uses()

    def links(self) -> Iterator[Link]:
        """From the last event back to cycle 0."""
        until = self._timeline.trace.makespan_cycles
        activity = self._last(until)
        while activity is not None and until > 0:
            wait, cause = self._explain(activity)
            start = activity.start - wait if cause is not None else 0
            link = self._link(activity, start, until)
            yield replace(link, wait_cycles=activity.start - start)
            activity, until = cause, start

    def _link(self, activity: _Activity, start: int, end: int) -> Link:
        span, stage = self._spans[activity.order], self._stages[activity.order]
        resource = self._timeline.resource_of(activity.order, activity.pe).value
        tag = tag_of(stage)
        label = tag.value if tag is not None else ""
        return Link(span.order, span.layer, span.name, span.operator, resource, label, activity.pe, start, end)

    def _last(self, makespan: int) -> _Activity | None:
        orders = range(len(self._spans))
        found = self._ending_at(orders, makespan, None)
        return found or max(self._before(orders, makespan + 1, None), key=_by_end, default=None)

    def _explain(self, activity: _Activity) -> tuple[int, _Activity | None]:
        """How long the activity waited before its start, and what ended (or streamed) when that wait began."""
        stage, begin = self._stages[activity.order], activity.start
        travel = _request_cycles(stage, self._bus.request_cycles)
        inputs, pes = self._spans[activity.order].inputs, _senders(stage, activity.pe)
        cause = self._ending_at(inputs, begin - travel, pes)
        if cause is not None:
            return travel, cause
        cause = self._holder(activity, stage)
        if cause is not None:
            return 0, cause
        streaming = self._streaming(inputs, begin - travel)
        if streaming is not None:
            return travel, streaming
        earlier = [*self._before(inputs, begin, pes), *self._before_on_pe(activity)]
        nearest = max(earlier, key=_by_end, default=None)
        return (begin - nearest.end, nearest) if nearest is not None else (0, None)

    def _ending_at(self, orders: range | tuple[int, ...], cycle: int, pes: list[int] | None) -> _Activity | None:
        """The latest stage of `orders`, on one of `pes` if it is on PEs, that is complete at `cycle`."""
        for order in sorted(orders, reverse=True):
            for activity in self._activities(order, pes, cycle):
                if activity.end == cycle and activity.start < cycle:
                    return activity
        return None

    def _before(self, orders: range | tuple[int, ...], cycle: int, pes: list[int] | None) -> list[_Activity]:
        found = (activity for order in orders for activity in self._activities(order, pes, None))
        return [activity for activity in found if activity.start < activity.end < cycle]

    def _before_on_pe(self, activity: _Activity) -> list[_Activity]:
        if activity.pe is None:
            return []
        return [other for end, other in self._on_pe(activity.pe).items() if end < activity.start]

    def _streaming(self, orders: tuple[int, ...], cycle: int) -> _Activity | None:
        """A message of `orders` that was under way at `cycle`: overlap 3 starts at its head."""
        uses = [use for order in orders for use in self._uses_of.get(order, ()) if use.start < cycle < use.end]
        return max(uses, key=_by_end, default=None)

    def _holder(self, activity: _Activity, stage: Stage) -> _Activity | None:
        """Who held the activity's resource until it started."""
        if activity.pe is not None:
            return self._on_pe(activity.pe).get(activity.start)
        if activity.channel is not None:
            released = self._released.get((activity.channel, activity.start), [])
            return max(released, key=lambda use: (use.order <= activity.order, use.order), default=None)
        assert isinstance(stage, RootStage)
        span = self._spans[activity.order]
        if activity.start > span.start:  # behind another job of its own stage
            return self._root_job(activity.order, activity.start)
        others = [
            order
            for order, other in enumerate(self._stages)
            if isinstance(other, RootStage) and other.resource is stage.resource
        ]
        return self._ending_at(tuple(others), activity.start, None)

    def _activities(self, order: int, pes: list[int] | None, cycle: int | None) -> list[_Activity]:
        """What a stage did; for PEs and the root only what ended at `cycle`, if one is given."""
        span, stage = self._spans[order], self._stages[order]
        if span.start == NOT_ACTIVE:
            return []
        if isinstance(stage, RootStage):
            job = self._root_job(order, span.end if cycle is None else cycle)
            return [job] if job is not None else []
        if span.pe_start is None or span.pe_end is None:
            return self._uses_of.get(order, [])
        ends = span.pe_end if pes is None else span.pe_end[pes]
        wanted = int(ends.max(initial=NOT_ACTIVE)) if cycle is None else cycle
        hits = np.flatnonzero(ends == wanted)
        if wanted == NOT_ACTIVE or not len(hits):
            return []
        pe = int(hits[0]) if pes is None else pes[int(hits[0])]
        return [_Activity(order, int(span.pe_start[pe]), wanted, pe)]

    def _root_job(self, order: int, end: int) -> _Activity | None:
        """The job of a root stage that ended at `end`, the one whose inputs came when it started if jobs differ."""
        span, stage = self._spans[order], self._stages[order]
        assert isinstance(stage, RootStage)
        lengths = sorted({cycles for cycles in stage.cycles.tolist() if cycles > 0})
        jobs = [_Activity(order, end - cycles, end) for cycles in lengths if span.start <= end - cycles < span.end]
        if not jobs or end > span.end:
            return None
        if len(jobs) == 1:
            return jobs[0]
        fed = [job for job in jobs if job.start == span.start or self._ending_at(span.inputs, job.start, None)]
        return (fed or jobs)[0]

    def _on_pe(self, pe: int) -> dict[int, _Activity]:
        """What ended on a PE, by cycle."""
        if pe not in self._ends_on_pe:
            self._ends_on_pe[pe] = {
                int(span.pe_end[pe]): _Activity(span.order, int(span.pe_start[pe]), int(span.pe_end[pe]), pe)
                for span in self._spans
                if span.pe_start is not None and span.pe_end is not None and span.pe_end[pe] > span.pe_start[pe]
            }
        return self._ends_on_pe[pe]

    def _index_uses(self) -> None:
        uses = self._timeline.trace.channel_use
        columns = (uses.channel, uses.stage, uses.start, uses.end, uses.num_bytes)
        for channel, order, start, release, num_bytes in zip(*(column.tolist() for column in columns), strict=True):
            flight = self._flight_cycles(order, num_bytes)
            use = _Activity(order, start, release + flight, channel=channel, release=release)
            self._uses_of.setdefault(order, []).append(use)
            self._released.setdefault((channel, release), []).append(replace(use, end=release))

    def _flight_cycles(self, order: int, num_bytes: int) -> int:
        """From the release of a channel to the arrival of the tail."""
        stage = self._stages[order]
        if isinstance(stage, TreeStage):
            hops = stage.hop_cycles[stage.num_bytes == num_bytes]
        elif isinstance(stage, MessageStage) and stage.channel is Resource.DOWNLINK:
            hops = stage.hop_cycles[stage.target[stage.num_bytes == num_bytes]]
        else:
            return self._bus.latency_cycles
        return int(hops[0])


def _by_end(activity: _Activity) -> tuple[int, int]:
    return activity.end, activity.order


def _request_cycles(stage: Stage, travel: int) -> int:
    """How long the stage's requests travel: the root's and those of other channels take no time."""
    on_bus = isinstance(stage, MessageStage) and stage.channel is Resource.BUS
    return travel if on_bus and isinstance(stage, MessageStage) and bool((stage.rank >= 0).any()) else 0


def _senders(stage: Stage, pe: int | None) -> list[int] | None:
    """The PEs whose work a stage waits for; None: of all."""
    senders: list[int] | None = None
    if isinstance(stage, PeStage):
        senders = None if pe is None else [pe]
    elif isinstance(stage, TreeStage):
        senders = np.flatnonzero(stage.active).tolist()
    elif isinstance(stage, MessageStage) and stage.from_pe:
        senders = sorted(set(stage.source.tolist()))
    return senders
