"""The critical path: walks back from the step's last event, at every start to what made it start just then.

A stage on a PE starts when its last input has come or the PE's previous stage has ended; at overlap 3 it may start at
the head of a message and has to go on for a while after its tail. A message is granted when its request has reached
the arbiter or the message before it has left the bus; a reduction starts when its last leaf is there or its joints
are free of the one before it; a job at the root waits for its inputs or for the job before it. A hop over a graph of
channels waits for the hops that feed it, then for its channel. So the cycles of a wait are those of whoever held the
resource, and the links cover [0, makespan] without a gap or an overlap. Where the trace shows no cause, the cycles
back to the last thing known to have come before are a link of the resource `wait`.

Where layers repeat each other, and the walk enters one as it entered a later one, what lies between is not walked over
again as long as the layers are the same: its links repeat too.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import overload

from pe_sim.report.analysis.causes import Activity, Causes
from pe_sim.report.analysis.timeline import Timeline
from pe_sim.schedule.stages import tag_of

WAIT = "wait"

_Label = tuple[int, int | None, str, str, str, str]  # order, layer, name, operator, resource, tag of a link


def critical_path(timeline: Timeline) -> Sequence[Link]:
    """The links of a step's critical path in order of time."""
    pieces = _Walk(timeline).pieces()
    return Links(pieces) if len(pieces) > 1 else pieces[0].links


class _Walk:
    """One walk over one trace."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline, self._causes = timeline, Causes(timeline)

    def pieces(self) -> list[Piece]:
        """The critical path as pieces in order of time; the first and the last are not repeated."""
        causes, until, activity = self._causes, self._timeline.trace.makespan_cycles, self._causes.last()
        found: list[Link] = []  # since the last repetition, the latest first
        done: list[Piece] = []
        runs, run = self._timeline.trace.runs, -1
        met: dict[tuple[int, int, int, int], tuple[int, int]] = {}  # ways into a run: the last one, links found by then
        while activity is not None and until > 0:
            ended = causes.end(activity)
            if ended < until:
                found.append(self._wait(activity, ended, until))
                until = ended
            begin, cause, travel = causes.explain(activity, until)
            if begin < until:
                found.append(self._link(activity, begin, until, travel))
                until = begin
            if cause is None and until > 0:
                ended, cause = causes.nearest(activity, until)
                found.append(self._wait(activity, ended, until))
                until = ended
            activity = cause
            if runs is None or activity is None or (entered := runs.run_of(activity.order)) == run:
                continue
            run, place = entered, activity.place
            way = int(runs.record[run]), activity.order - int(runs.first[run]), place, until - int(runs.base[run])
            later, since = met.get(way, (run, len(found)))
            met[way] = run, len(found)
            times = runs.repeats(run, later - run) if later > run else 0
            if times:
                shift = Shift(*(int(column[later] - column[run]) for column in (runs.first, runs.layer, runs.base)))
                earliest = [shifted(link, shift, -times) for link in reversed(found[since:])]
                done += [Piece(tuple(reversed(found))), Piece(tuple(earliest), times, shift)]
                activity = causes.activity(activity.order - times * shift.orders, place)
                until, run, found = until - times * shift.cycles, run - times * (later - run), []
                met.clear()
        return [Piece(tuple(reversed(found))), *reversed(done)]

    def _link(self, activity: Activity, start: int, end: int, travel: int) -> Link:
        order, place, _ = activity
        if not self._timeline.trace.spans[order].on_pes:
            return Link(*self._label(order), None, start, end, travel, self._causes.channel(activity))
        return Link(*self._label(order, self._timeline.resource_of(order, place).value), place, start, end, travel)

    def _wait(self, activity: Activity, start: int, end: int) -> Link:
        """A link of resource `wait`: cycles next to an activity that nothing in the trace explains."""
        order, place, _ = activity
        pe = place if self._timeline.trace.spans[order].on_pes else None
        return Link(*self._label(order, WAIT), pe, start, end, end - start)

    def _label(self, order: int, resource: str = "") -> _Label:
        """The fields that all links of a stage share; the tag is shown only where its own resource limits the stage."""
        span, tag = self._timeline.trace.spans[order], tag_of(self._timeline.stages[order])
        shown = tag.value if tag and not resource else ""
        return order, span.layer, span.name, span.operator, resource or span.resource, shown


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
        wait_cycles: cycles at its beginning in which its request travelled to the arbiter; all cycles of a `wait`.
        channel: the name of its channel on a graph of channels; else empty.
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
        """Length of the link in cycles."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Shift:
    """Distance of a repetition from the one before it, in stages, layers and cycles."""

    orders: int
    layers: int
    cycles: int


@dataclass(frozen=True, slots=True)
class Piece:
    """Links in order of time that occur `times` times, `shift` apart; `links` are those of the first time."""

    links: tuple[Link, ...]
    times: int = 1
    shift: Shift = Shift(0, 0, 0)

    def __len__(self) -> int:
        """Number of links, repetitions included."""
        return len(self.links) * self.times

    def link(self, number: int) -> Link:
        """Link number `number`, repetitions counted."""
        time, at = divmod(number, len(self.links))
        link = self.links[at]
        return link if not time else shifted(link, self.shift, time)


class Links(Sequence[Link]):
    """The links of several pieces in order of time, each made when it is asked for."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self.pieces = tuple(pieces)
        self._first = [0, *accumulate(len(piece) for piece in pieces)]

    def __len__(self) -> int:
        """Number of links, repetitions included."""
        return self._first[-1]

    @overload
    def __getitem__(self, number: int) -> Link: ...

    @overload
    def __getitem__(self, number: slice) -> tuple[Link, ...]: ...

    def __getitem__(self, number: int | slice) -> Link | tuple[Link, ...]:
        """One link, or the links of a slice."""
        if isinstance(number, slice):
            return tuple(self[each] for each in range(len(self))[number])
        number = range(len(self))[number]
        at = bisect_right(self._first, number) - 1
        return self.pieces[at].link(number - self._first[at])


def counted(links: Sequence[Link]) -> Iterator[tuple[Link, int]]:
    """Yields each link with how often it occurs; its repetitions differ only in cycles, layer and order."""
    if isinstance(links, Links):
        for piece in links.pieces:
            yield from ((link, piece.times) for link in piece.links)
    else:
        yield from ((link, 1) for link in links)


def shifted(link: Link, shift: Shift, times: int) -> Link:
    """The same link `times` repetitions later."""
    cycles, layer = times * shift.cycles, link.layer
    return replace(
        link,
        order=link.order + times * shift.orders,
        layer=None if layer is None else layer + times * shift.layers,
        start=link.start + cycles,
        end=link.end + cycles,
    )
