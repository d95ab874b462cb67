"""The critical path: walks back from the step's last event, at every start to what made it start just then.

A stage on a PE starts when its last input has come or the PE's previous stage has ended; at overlap 3 it may start at
the head of a message and has to go on for a while after its tail. A message is granted when its request has reached
the arbiter or the message before it has left the bus; a reduction starts when its last leaf is there or its joints
are free of the one before it; a job at the root waits for its inputs or for the job before it. A hop over
a graph of channels waits for the hops that feed it, then for its channel. So the cycles of a
wait are those of whoever held the resource, and the links cover [0, makespan] without a gap or an overlap. Where the
trace shows no cause, the cycles back to the last thing known to have come before are a link of the resource `wait`.

Where layers repeat each other, and the walk enters one as it entered a later one, what lies between is not walked over
again as long as the layers are the same: its links repeat too.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import overload

import numpy as np

from pe_sim.config.networks.network import Bus
from pe_sim.report.analysis.hop_causes import Activity, Cause, RoutedCauses, as_ints, previous_rows
from pe_sim.report.analysis.message_times import Moments
from pe_sim.report.analysis.timeline import Timeline, resource_of, tag_of
from pe_sim.schedule.stages import MessageStage, PeStage, Resource, RootStage, RoutedStage, Tag, TreeStage
from pe_sim.units import IntArray

WAIT = "wait"

_Label = tuple[int, int | None, str, str, str, str]  # order, layer, name, operator, resource, tag of a link


def critical_path(timeline: Timeline) -> Sequence[Link]:
    """The links in order of time."""
    pieces = _Walk(timeline).pieces()
    return Links(pieces) if len(pieces) > 1 else pieces[0].links


class _Walk:
    """One walk over one trace."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline, self._moments = timeline, Moments(timeline)
        self._stages, self._spans = timeline.stages, timeline.trace.spans
        uses = timeline.trace.channel_use
        self._stage_of_row, self._starts, self._ends = as_ints(uses.stage), as_ints(uses.start), as_ints(uses.end)
        self._previous_row = as_ints(previous_rows(uses))
        self._routed = RoutedCauses(self._moments, self._stages, uses, self._previous_row, self._fed_sender)
        self._pe_orders = array("q", (order for order, stage in enumerate(self._stages) if isinstance(stage, PeStage)))
        self._released: dict[Resource, dict[int, Activity]] = {}

    def pieces(self) -> list[Piece]:
        """From the last event back to cycle 0: pieces in order of time, the first and the last not repeated."""
        until, activity = self._timeline.trace.makespan_cycles, self._last()
        found: list[Link] = []  # since the last repetition, the latest first
        done: list[Piece] = []
        runs, run = self._timeline.trace.runs, -1
        met: dict[tuple[int, int, int, int], tuple[int, int]] = {}  # ways into a run: the last one, links found by then
        while activity is not None and until > 0:
            ended = self._end(activity)
            if ended < until:
                found.append(self._wait(activity, ended, until))
                until = ended
            begin, cause, travel = self._explain(activity, until)
            if begin < until:
                found.append(self._link(activity, begin, until, travel))
                until = begin
            if cause is None and until > 0:
                ended, cause = self._nearest(activity, until)
                found.append(self._wait(activity, ended, until))
                until = ended
            activity = cause
            if runs is None or activity is None or (entered := runs.run_of(activity.order)) == run:
                continue
            run, place = entered, self._place_in_stage(activity)
            way = int(runs.record[run]), activity.order - int(runs.first[run]), place, until - int(runs.base[run])
            later, since = met.get(way, (run, len(found)))
            met[way] = run, len(found)
            times = runs.repeats(run, later - run) if later > run else 0
            if times:
                shift = Shift(*(int(column[later] - column[run]) for column in (runs.first, runs.layer, runs.base)))
                earliest = [shifted(link, shift, -times) for link in reversed(found[since:])]
                done += [Piece(tuple(reversed(found))), Piece(tuple(earliest), times, shift)]
                activity = self._in_stage(activity.order - times * shift.orders, place)
                until, run, found = until - times * shift.cycles, run - times * (later - run), []
                met.clear()
        return [Piece(tuple(reversed(found))), *reversed(done)]

    def _place_in_stage(self, activity: Activity) -> int:
        """Which PE, part, or burst of the stage it is."""
        on_bus = resource_of(self._stages[activity.order]) is Resource.BUS
        return int(np.searchsorted(self._moments.rows(activity.order), activity.place)) if on_bus else activity.place

    def _in_stage(self, order: int, place: int) -> Activity:
        """The activity with such a place in its stage."""
        on_bus = resource_of(self._stages[order]) is Resource.BUS
        return Activity(order, int(self._moments.rows(order)[place]) if on_bus else place)

    def _link(self, activity: Activity, start: int, end: int, travel: int) -> Link:
        order, place = activity
        label = self._label(order)
        if label[4]:
            stage = self._stages[order]
            channel = self._routed.channel(activity, stage) if isinstance(stage, RoutedStage) else ""
            return Link(*label, None, start, end, travel, channel)
        return Link(*label[:4], self._timeline.resource_of(order, place).value, "", place, start, end, travel)

    def _wait(self, activity: Activity, start: int, end: int) -> Link:
        """Cycles beside an activity's own that nothing in the trace explains."""
        pe = activity.place if isinstance(self._stages[activity.order], PeStage) else None
        return Link(*self._label(activity.order)[:4], WAIT, "", pe, start, end, end - start)

    def _label(self, order: int) -> _Label:
        """What all links of a stage share; its resource is empty where that depends on the PE."""
        span, stage = self._spans[order], self._stages[order]
        tag = tag_of(stage)
        resource = "" if isinstance(stage, PeStage) else span.resource
        return order, span.layer, span.name, span.operator, resource, tag.value if tag else ""

    def _last(self) -> Activity | None:
        """What ends last, of several the latest in program order."""
        found = max(self._spans, key=lambda span: (span.end, span.order), default=None)
        if found is None or found.end <= 0:
            return None
        order = found.order
        if isinstance(self._stages[order], PeStage):
            return Activity(order, int(self._moments.on_pes(order).argmax()))
        return self._part(order, int(self._moments.parts(order).complete.argmax()))

    def _end(self, activity: Activity) -> int:
        """When the last of it was where it went."""
        order, place = activity
        stage = self._stages[order]
        if isinstance(stage, PeStage):
            return self._moments.on_pe(order, place)
        if isinstance(stage, MessageStage) and stage.channel is Resource.BUS:
            return self._ends[place] + self._bus.latency_cycles
        if isinstance(stage, RoutedStage):
            return self._routed.end(activity, stage)
        return int(self._moments.parts(order).complete[place])

    def _part(self, order: int, part: int, *, first: bool = False) -> Activity:
        """The activity of a message, a reduction or a job; of a message in bursts the last one, or the first."""
        rows = self._moments.parts(order)
        if isinstance(self._stages[order], RoutedStage):
            return Activity(order, part)
        chosen = rows.first_row if first else rows.last_row
        return Activity(order, int(chosen[part]) if len(chosen) else part)

    def _explain(self, activity: Activity, until: int) -> Cause:
        stage = self._stages[activity.order]
        if isinstance(stage, PeStage):
            return self._explain_on_pe(activity, stage)
        if isinstance(stage, MessageStage) and stage.channel is Resource.BUS:
            return self._explain_on_bus(activity, stage)
        if isinstance(stage, RoutedStage):
            return self._routed.explain(activity, stage, until)
        parts = self._moments.parts(activity.order)
        begin, ready = int(parts.grant[activity.place]), int(parts.ready[activity.place])
        cause = self._fed(activity, ready) if ready == begin else None
        if cause is None and isinstance(stage, RootStage):
            cause = self._before_at_root(stage.resource, begin)
        elif cause is None:
            assert isinstance(stage, MessageStage | TreeStage)
            cause = self._before_in_joints(activity, stage, begin)
        return Cause(begin, cause)

    def _explain_on_pe(self, activity: Activity, stage: PeStage) -> Cause:
        order, pe = activity
        span, moments = self._spans[order], self._moments
        begin, end = span.bounds_on(pe)
        streams = stage.tail_cycles is not None
        if stage.tail_cycles is not None:
            for source in span.inputs:
                tail = moments.on_pe(source, pe)
                if tail > begin and tail + int(stage.tail_cycles[pe]) == end:
                    return Cause(tail, self._maker(source, pe, tail))
        for source in sorted(span.inputs, reverse=True):
            if moments.on_pe(source, pe, heads=streams) == begin:
                return Cause(begin, self._maker(source, pe, begin))
        ended, before = self._before_on_pe(activity)
        return Cause(begin, before if ended == begin else None)

    def _explain_on_bus(self, activity: Activity, stage: MessageStage) -> Cause:
        order, row = activity
        parts, begin = self._moments.parts(order), self._starts[row]
        message = int(self._moments.part_of_row[row])
        if parts.ready[message] == begin and parts.first_row[message] == row:
            travel = self._travel(stage, message)
            return Cause(begin - travel, self._fed(activity, begin - travel), travel)
        before = self._previous_row[row]
        if before >= 0 and self._ends[before] == begin:
            return Cause(begin, Activity(self._stage_of_row[before], before))
        return Cause(begin, None)

    @property
    def _bus(self) -> Bus:
        return self._timeline.schedule.array.bus_tree.bus

    def _travel(self, stage: MessageStage, message: int) -> int:
        """How long a request travels to the bus; the root's do not."""
        return self._bus.request_cycles if stage.rank[message] >= 0 else 0

    def _fed(self, activity: Activity, cycle: int) -> Activity | None:
        """What brought, at `cycle`, an input of a message, a reduction or a job."""
        order, index = activity
        stage = self._stages[order]
        if isinstance(stage, TreeStage):
            scope = np.arange(int(stage.first_pe[index]), int(stage.last_pe[index]))
            return self._brought(order, scope[stage.active[scope]], cycle)
        if isinstance(stage, MessageStage):
            message = int(self._moments.part_of_row[index]) if stage.channel is Resource.BUS else index
            if stage.from_pe:
                return self._brought(order, stage.source[message : message + 1], cycle)
            if stage.tag is Tag.WEIGHT_STREAM:
                return self._brought(order, None, cycle)
            early = int(stage.early_cycles[message]) if stage.early_cycles is not None else 0
            return self._brought_to_hub(order, int(stage.source[message]), cycle + early)
        return self._brought_to_hub(order, index, cycle)

    def _fed_sender(self, order: int, sender: int, cycle: int) -> Activity | None:
        """What brought, at `cycle`, an input to a sender of a routed stage."""
        stage = self._stages[order]
        assert isinstance(stage, RoutedStage)
        if stage.from_pe:
            return self._brought(order, np.array([sender], dtype=np.int64), cycle)
        if stage.tag is Tag.WEIGHT_STREAM:
            return self._brought(order, None, cycle)
        early = int(stage.early_cycles[sender]) if stage.early_cycles is not None else 0
        return self._brought_to_hub(order, sender, cycle + early)

    def _brought(self, order: int, pes: IntArray | None, cycle: int) -> Activity | None:
        """What brought an input to one of some PEs, or to whatever place there is, at `cycle`."""
        for source in sorted(self._spans[order].inputs, reverse=True):
            there = self._moments.anywhere(source) if pes is None else self._moments.on_pes(source)[pes]
            hits = np.flatnonzero(there == cycle)
            if len(hits):
                return self._maker(source, int(hits[0] if pes is None else pes[hits[0]]), cycle)
        return None

    def _brought_to_hub(self, order: int, hub: int, cycle: int) -> Activity | None:
        for source in sorted(self._spans[order].inputs, reverse=True):
            there = self._moments.at_hubs(source)
            at = hub if len(there) > 1 else 0
            if there[at] == cycle:
                return self._maker(source, at, cycle)
        return None

    def _maker(self, order: int, place: int, cycle: int) -> Activity | None:
        """What of a stage was there at `cycle`, on a PE or at a hub; at an earlier one than its tail, its head."""
        stage = self._stages[order]
        if isinstance(stage, PeStage):
            return Activity(order, place)
        if isinstance(stage, RoutedStage):
            return self._routed.maker(order, stage, place, cycle)
        if not isinstance(stage, MessageStage):
            return self._part(order, place)
        target = place if stage.to_root else int(self._moments.target_of_pe(stage)[place])
        sent, complete = np.flatnonzero(stage.target == target), self._moments.parts(order).complete
        if not len(sent):
            return None
        tails = sent[complete[sent] == cycle]
        return self._part(order, int(tails[-1])) if len(tails) else self._part(order, int(sent[0]), first=True)

    def _before_on_pe(self, activity: Activity) -> tuple[int, Activity | None]:
        """The end of the PE's stage before this one, and that stage."""
        order, pe = activity
        for at in range(bisect_left(self._pe_orders, order) - 1, -1, -1):
            span = self._spans[self._pe_orders[at]]
            if span.on_pes is not None and span.on_pes.working[pe]:
                return span.bounds_on(pe)[1], Activity(span.order, pe)
        return 0, None

    def _before_in_joints(self, activity: Activity, stage: MessageStage | TreeStage, begin: int) -> Activity | None:
        """The passage before it that made it start at `begin`: behind a slower one, which leaves their joints later."""
        moments, part = self._moments, activity.place
        mine = moments.passages(stage)
        first, last = int(mine.first[part]), int(mine.last[part])
        users = moments.users_of[Resource.TREE if isinstance(stage, TreeStage) else stage.channel]
        for at in range(bisect_right(users, activity.order) - 1, -1, -1):
            order, other = users[at], self._stages[users[at]]
            assert isinstance(other, MessageStage | TreeStage)
            parts, theirs = moments.parts(order), moments.passages(other)
            shared = (theirs.first < last) & (theirs.last > first) & (parts.grant >= 0)
            if order == activity.order:
                shared[part:] = False
            if not shared.any():
                continue
            later = (theirs.combine_cycles - mine.combine_cycles) * min(theirs.levels, mine.levels)
            hits = np.flatnonzero(shared & (parts.release + max(later, 0) == begin))
            if len(hits):
                return Activity(order, int(hits[-1]))
            if theirs.levels >= mine.levels and bool((shared & (theirs.first <= first) & (theirs.last >= last)).any()):
                return None  # whatever passed before that left earlier
        return None

    def _before_at_root(self, unit: Resource, begin: int) -> Activity | None:
        """The job that left a unit of the root at `begin`."""
        if unit not in self._released:
            self._released[unit] = released = {}
            for order in self._moments.users_of[unit]:
                stage = self._stages[order]
                assert isinstance(stage, RootStage)
                ends = self._moments.parts(order).release.tolist()
                released.update({ends[job]: Activity(order, job) for job in np.flatnonzero(stage.cycles).tolist()})
        return self._released[unit].get(begin)

    def _nearest(self, activity: Activity, until: int) -> tuple[int, Activity | None]:
        """The last thing that came before an activity nothing explains, and its end; cycle 0 if there is none."""
        order, index = activity
        stage, moments = self._stages[order], self._moments
        found: list[tuple[int, Activity | None]] = [(0, None)]
        if isinstance(stage, PeStage):
            arrivals = [(moments.on_pe(source, index), source) for source in self._spans[order].inputs]
            found += [(cycle, self._maker(source, index, cycle)) for cycle, source in arrivals]
            found.append(self._before_on_pe(activity))
        elif isinstance(stage, MessageStage) and stage.channel is Resource.BUS:
            message, before = int(moments.part_of_row[index]), self._previous_row[index]
            asked = int(moments.parts(order).ready[message]) - self._travel(stage, message)
            found.append((asked, self._fed(activity, asked)))
            if before >= 0:
                found.append((self._ends[before], Activity(self._stage_of_row[before], before)))
        elif isinstance(stage, RoutedStage):
            found += self._routed.nearest(activity, stage)
        else:
            ready = int(moments.parts(order).ready[index])
            found.append((ready, self._fed(activity, ready)))
        known = [(ended, cause) for ended, cause in found if cause is not None and 0 < ended < until]
        return max(known, default=(0, None))


# ---- Links of a critical path; those of layers that repeat each other are kept once.


@dataclass(frozen=True, slots=True)
class Link:
    """One stretch of the critical path.

    Args:
        order, layer, name, operator: of the stage.
        resource: what it was limited by; for matrix stages pe_memory or pe_matrix; `wait` beside the stage's own work
            where the trace does not tell what was waited for.
        tag: of a message or a reduction, else empty.
        pe: the PE it happened on; None for the network and the root.
        start, end: cycles.
        wait_cycles: how many at its beginning only waited: for the request to reach the arbiter, or all of `wait`.
        channel: on a graph of channels, the name of the one it was on; else empty.
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
    channel: str = ""

    @property
    def cycles(self) -> int:
        """Its length."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Shift:
    """How far a repetition is from the one before it."""

    orders: int
    layers: int
    cycles: int


@dataclass(frozen=True, slots=True)
class Piece:
    """Some links in order of time, `times` times, each `shift` behind the last; `links` are of the first."""

    links: tuple[Link, ...]
    times: int = 1
    shift: Shift = Shift(0, 0, 0)

    def __len__(self) -> int:
        """How many links there are in all."""
        return len(self.links) * self.times

    def link(self, number: int) -> Link:
        """One of them."""
        time, at = divmod(number, len(self.links))
        link = self.links[at]
        return link if not time else shifted(link, self.shift, time)


class Links(Sequence[Link]):
    """Links in order of time, each written out when it is asked for."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self.pieces = tuple(pieces)
        self._first = [0, *accumulate(len(piece) for piece in pieces)]

    def __len__(self) -> int:
        """How many links there are."""
        return self._first[-1]

    @overload
    def __getitem__(self, number: int) -> Link: ...

    @overload
    def __getitem__(self, number: slice) -> tuple[Link, ...]: ...

    def __getitem__(self, number: int | slice) -> Link | tuple[Link, ...]:
        """One link, or some."""
        if isinstance(number, slice):
            return tuple(self[each] for each in range(len(self))[number])
        number = range(len(self))[number]
        at = bisect_right(self._first, number) - 1
        return self.pieces[at].link(number - self._first[at])


def counted(links: Sequence[Link]) -> Iterator[tuple[Link, int]]:
    """Links with how often each is there, at other cycles and in other layers; every other figure is the same."""
    if isinstance(links, Links):
        for piece in links.pieces:
            yield from ((link, piece.times) for link in piece.links)
    else:
        yield from ((link, 1) for link in links)


def shifted(link: Link, shift: Shift, times: int) -> Link:
    """The same link so many repetitions later."""
    cycles, layer = times * shift.cycles, link.layer
    return replace(
        link,
        order=link.order + times * shift.orders,
        layer=None if layer is None else layer + times * shift.layers,
        start=link.start + cycles,
        end=link.end + cycles,
    )
