"""Why something happened when it did: takes a timeline, gives when results were where, and what was waited for.

An engine says when each message, hop, reduction and job ran, and which of them held a channel; where its results went,
and what it needed for that, the schedule says.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

import numpy as np

from pe_sim.network.topology.topology import Channels
from pe_sim.report.analysis.timeline import Timeline
from pe_sim.schedule.stages import MessageStage, PeStage, Resource, RootStage, RoutedStage, Tag, TreeStage, resource_of
from pe_sim.trace import NOT_ACTIVE
from pe_sim.units import IntArray, ceil_div

_RECENT = 16  # stages kept; a walk over a step stays with a few at a time
_WINDOW = 256  # uses of channels searched at first


class Activity(NamedTuple):
    """A stage's work on one PE, or one of its messages, hops, reductions or jobs.

    Args:
        place: the PE, or the part of the stage as its span lists them.
        row: on the bus, the row of the trace's uses of channels, for a message may hold it several times.
    """

    order: int
    place: int
    row: int = NOT_ACTIVE


class Cause(NamedTuple):
    """Why a link begins at cycle `begin`: because of `activity`; its first `travel` cycles only carry its request."""

    begin: int
    activity: Activity | None
    travel: int = 0


class Arrivals:
    """Cycles at which the results of stages arrived where they went."""

    def __init__(self, timeline: Timeline) -> None:
        self._stages, self._spans = timeline.stages, timeline.trace.spans
        self._array = timeline.schedule.array
        self._recent: dict[tuple[int, bool], IntArray] = {}

    @cached_property
    def channels(self) -> Channels:
        """The channels of an array whose interconnect is a graph."""
        from pe_sim.network.interconnect import interconnect_of  # loads networkx

        return interconnect_of(self._array).topology.channels

    def there(self, order: int, places: IntArray, *, heads: bool = False) -> IntArray:
        """(places,) cycles at which a stage's result was at the given PEs or hubs; NOT_ACTIVE where it never is.

        Args:
            heads: for streamed data, give the arrival of its head, not of its tail.
        """
        span = self._spans[order]
        if span.on_pes:
            ends = span.parts.end[places].astype(np.int64) + span.base
            return np.where(span.parts.working[places], ends, NOT_ACTIVE)
        at = self.targets(order, places)
        return np.where(at >= 0, self.at_targets(order, heads=heads)[at], NOT_ACTIVE)

    def places(self, order: int) -> IntArray:
        """Indices of all PEs, or of all hubs, at which a stage's result may be."""
        stage = self._stages[order]
        if self._spans[order].on_pes or (isinstance(stage, MessageStage) and not stage.to_root):
            return np.arange(self._array.num_pes)
        return np.arange(len(self.at_targets(order)))

    def targets(self, order: int, places: IntArray) -> IntArray:
        """(places,) index of the target that each PE or hub belongs to in a stage; NOT_ACTIVE for a PE in none."""
        stage = self._stages[order]
        if isinstance(stage, MessageStage) and not stage.to_root:
            target = np.searchsorted(stage.first_pe, places, side="right") - 1
            return np.where((target >= 0) & (places < stage.last_pe[target]), target, NOT_ACTIVE)
        if isinstance(stage, RoutedStage) and stage.to_pes is not None:
            return np.where(stage.to_pes[places], places, NOT_ACTIVE)
        return np.minimum(places, len(self.at_targets(order)) - 1)  # one hub alone serves them all

    def at_targets(self, order: int, *, heads: bool = False) -> IntArray:
        """(targets,) cycles at which each target had all that it gets; 0 for one that gets nothing."""
        key = order, heads
        if key not in self._recent:
            if len(self._recent) == _RECENT:
                del self._recent[next(iter(self._recent))]
            self._recent[key] = self._at_targets(order, heads=heads)
        return self._recent[key]

    def _at_targets(self, order: int, *, heads: bool) -> IntArray:
        stage, span = self._stages[order], self._spans[order]
        ends = span.parts.end + span.base
        if isinstance(stage, RoutedStage):
            hops = stage.hops
            out = self.heads(order, hops.last_hop) if heads and stage.streams else ends[hops.last_hop]
            found = np.zeros(hops.num_targets, dtype=np.int64)
            np.maximum.at(found, hops.target, out + hops.end_cycles)
            np.maximum.at(found, hops.kept_target, ends[len(hops) :])
        elif isinstance(stage, MessageStage):
            out = self.heads(order, np.arange(len(ends))) if heads and stage.streams else ends
            found = np.zeros(len(stage.first_pe), dtype=np.int64)
            np.maximum.at(found, stage.target, out)
        elif isinstance(stage, TreeStage):
            found = np.where(span.parts.working, ends, 0)
        else:
            found = np.maximum(ends, 0)
        return found

    def heads(self, order: int, parts: IntArray) -> IntArray:
        """(parts,) cycles at which the heads of the given bus messages or hops came out at the far end."""
        stage, span = self._stages[order], self._spans[order]
        grants = span.parts.start[parts] + span.base
        if isinstance(stage, RoutedStage):
            on = stage.hops.channel[parts]
            return grants + self.channels.overhead_cycles[on] + self.channels.latency_cycles[on]
        bus = self._array.bus_tree.bus
        return grants + bus.overhead_cycles + bus.latency_cycles


class Causes:
    """The causes of activities: what made each of them begin when it did."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline, self._arrivals = timeline, Arrivals(timeline)
        self._stages, self._spans = timeline.stages, timeline.trace.spans
        self._uses = timeline.trace.channel_use
        self._sorted: dict[int, tuple[IntArray, IntArray]] = {}
        self._released: dict[Resource, dict[int, Activity]] = {}

    def last(self) -> Activity | None:
        """The activity that ends last (of several, the latest in program order); None if nothing happened."""
        found = max(self._spans, key=lambda span: (span.end, span.order), default=None)
        if found is None or found.end <= 0:
            return None
        stage, ends = self._stages[found.order], found.part_end
        if isinstance(stage, RoutedStage):
            np.maximum.at(ends, stage.hops.last_hop, ends[stage.hops.last_hop] + stage.hops.end_cycles)
        return self.activity(found.order, int(ends.argmax()))

    def activity(self, order: int, place: int, *, first: bool = False) -> Activity:
        """The activity of a stage at a place; for a message sent in bursts its last burst, or its first."""
        on_bus = resource_of(self._stages[order]) is Resource.BUS
        return Activity(order, place, int(self._rows(order, place)[0 if first else -1]) if on_bus else NOT_ACTIVE)

    def end(self, activity: Activity) -> int:
        """Cycle at which the activity's last byte had arrived, or its work was done."""
        order, place, row = activity
        stage, span = self._stages[order], self._spans[order]
        end = span.base + int(span.parts.end[place])
        if isinstance(stage, RoutedStage):
            ends = self._positions(stage.hops.last_hop, place)
            return end + int(stage.hops.end_cycles[ends].max(initial=0))
        if isinstance(stage, MessageStage) and stage.channel is Resource.BUS:
            return int(self._uses.end[row]) + self._timeline.schedule.array.bus_tree.bus.latency_cycles
        return end

    def channel(self, activity: Activity) -> str:
        """Name of the channel that a hop over a graph of channels takes; empty for any other activity."""
        stage = self._stages[activity.order]
        if not isinstance(stage, RoutedStage) or activity.place >= len(stage.hops):
            return ""
        name: str = self._arrivals.channels.name[stage.hops.channel[activity.place]]
        return name

    def explain(self, activity: Activity, until: int) -> Cause:
        """The cause that an activity began when it did.

        Args:
            until: the cycle up to which it is explained; it tells whether a hop's head or its tail is asked for.
        """
        order, place, row = activity
        stage, span = self._stages[order], self._spans[order]
        if isinstance(stage, PeStage):
            return self._explain_on_pe(activity, stage)
        begin = int(self._uses.start[row]) if row >= 0 else span.base + int(span.parts.start[place])
        delayed = self._delayed_tail(activity, stage, begin, until) if isinstance(stage, RoutedStage) else None
        if delayed is not None:
            return delayed
        wait, travel = self._waits(activity)
        if not span.inputs and begin == wait:
            return Cause(0, None, travel)
        cause = next((cause for cycle, cause in self._awaited(activity) if cycle == begin - wait), None)
        if cause is not None:
            return Cause(begin - wait, cause, travel)
        return Cause(begin, self._held_by(activity, begin))

    def nearest(self, activity: Activity, until: int) -> tuple[int, Activity | None]:
        """End and activity of the last thing known to precede an activity that nothing explains; (0, None) if none."""
        found = list(self._awaited(activity))
        if isinstance(self._stages[activity.order], PeStage):
            found.append(self._before_on_pe(activity))
        else:
            found += self._before_on_channel(activity)
        known = [(ended, cause) for ended, cause in found if cause is not None and 0 < ended < until]
        return max(known, default=(0, None))

    def _explain_on_pe(self, activity: Activity, stage: PeStage) -> Cause:
        order, pe, _ = activity
        span = self._spans[order]
        begin, end = span.bounds_on(pe)
        if stage.tail_cycles is not None:
            for source in span.inputs:
                tail = int(self._arrivals.there(source, np.array([pe]))[0])
                if tail > begin and tail + int(stage.tail_cycles[pe]) == end:
                    return Cause(tail, self._maker(source, pe, tail))
        for cycle, cause in self._awaited(activity, heads=stage.tail_cycles is not None):
            if cycle == begin:
                return Cause(begin, cause)
        ended, before = self._before_on_pe(activity)
        return Cause(begin, before if ended == begin else None)

    def _delayed_tail(self, activity: Activity, stage: RoutedStage, begin: int, until: int) -> Cause | None:
        """The cause of a hop's late tail, if it waited for a slower channel upstream; None if not, or for its head."""
        order, hop, _ = activity
        hops, span, channels = stage.hops, self._spans[order], self._arrivals.channels
        tail = span.base + int(span.parts.end[hop])
        if hop >= len(hops) or tail > until:
            return None
        on, before = hops.channel[hop], hops.before[self._positions(hops.after, hop)]
        latency, overhead = int(channels.latency_cycles[on]), int(channels.overhead_cycles[on])
        flight = tail - int(hops.wait_cycles[hop]) - latency
        late = before[span.parts.end[before] + span.base == flight]
        if not len(late) or tail == begin + overhead + latency:
            return None
        row = self._rows(order, hop)
        held = int(self._uses.end[row[0]]) - begin if len(row) else overhead
        return Cause(flight, self.activity(order, int(late[0]))) if begin + held + latency < tail else None

    def _waits(self, activity: Activity) -> tuple[int, int]:
        """Cycles from an activity's last input until it may be granted, and how many of them its request travels."""
        order, place, row = activity
        stage = self._stages[order]
        if isinstance(stage, RoutedStage) and place < len(stage.hops):
            wait, channel = int(stage.hops.wait_cycles[place]), stage.hops.channel[place]
            return wait, min(wait, int(self._arrivals.channels.request_cycles[channel]))
        if isinstance(stage, MessageStage) and row >= 0 and stage.rank[place] >= 0:  # the root's do not travel
            wait = self._timeline.schedule.array.bus_tree.bus.request_cycles
            return wait, wait
        return 0, 0

    def _awaited(self, activity: Activity, *, heads: bool = False) -> Iterator[tuple[int, Activity | None]]:
        """Yields (cycle it was there, activity) of all that an activity waited for, in the order of the search."""
        order, place, _ = activity
        stage, span = self._stages[order], self._spans[order]
        senders = [np.array([place])]
        if isinstance(stage, RoutedStage) and place < len(stage.hops):
            hops = stage.hops
            links = self._positions(hops.after, place)
            before = hops.before[links]
            heads_in = self._arrivals.heads(order, before)
            shown = np.where(hops.stored[links], span.parts.end[before] + span.base, heads_in)
            yield from (
                (cycle, self.activity(order, hop)) for cycle, hop in zip(shown.tolist(), before.tolist(), strict=True)
            )
            senders = [hops.source[[start]] for start in self._positions(hops.first_hop, place).tolist()]
        elif isinstance(stage, RoutedStage):
            senders = [stage.hops.kept_source[[place - len(stage.hops)]]]
        elif isinstance(stage, MessageStage):
            senders = [stage.source[[place]]]
        elif isinstance(stage, TreeStage):
            scope = np.arange(int(stage.first_pe[place]), int(stage.last_pe[place]))
            senders = [scope[stage.active[scope]]]
        for places in senders:
            yield from self._inputs(activity, places, heads=heads)

    def _inputs(self, activity: Activity, places: IntArray, *, heads: bool) -> Iterator[tuple[int, Activity | None]]:
        """Yields (cycle, activity) of the last arrival of each input at the given places, the latest stage first."""
        stage, early = self._stages[activity.order], 0
        if isinstance(stage, MessageStage | RoutedStage) and stage.early_cycles is not None:
            early = int(stage.early_cycles[places[0] if isinstance(stage, RoutedStage) else activity.place])
        streams = isinstance(stage, MessageStage | RoutedStage) and stage.tag is Tag.WEIGHT_STREAM and not stage.from_pe
        for source in sorted(self._spans[activity.order].inputs, reverse=True):
            asked = self._arrivals.places(source) if streams else places
            there = self._arrivals.there(source, asked, heads=heads)
            last = int(there.argmax())
            if there[last] != NOT_ACTIVE:
                yield int(there[last]) - early, self._maker(source, int(asked[last]), int(there[last]))

    def _maker(self, order: int, place: int, cycle: int) -> Activity | None:
        """The activity of a stage whose tail, or else whose head, was on a PE or at a hub at `cycle`."""
        stage, span = self._stages[order], self._spans[order]
        if isinstance(stage, PeStage):
            return Activity(order, place)
        target = int(self._arrivals.targets(order, np.array([place]))[0])
        if isinstance(stage, RoutedStage):
            return self._maker_over_graph(order, stage, target, cycle)
        if not isinstance(stage, MessageStage):
            return Activity(order, target)
        sent = np.flatnonzero(stage.target == target)
        if not len(sent):
            return None
        tails = sent[span.parts.end[sent] + span.base == cycle]
        return self.activity(order, int(tails[-1] if len(tails) else sent[0]), first=not len(tails))

    def _maker_over_graph(self, order: int, stage: RoutedStage, target: int, cycle: int) -> Activity | None:
        hops, span = stage.hops, self._spans[order]
        ends = self._positions(hops.target, target)
        last = hops.last_hop[ends]
        for out in (span.parts.end[last] + span.base, self._arrivals.heads(order, last)):
            hits = last[out + hops.end_cycles[ends] == cycle]
            if len(hits):
                return self.activity(order, int(hits[-1]))
        for kept in self._positions(hops.kept_target, target).tolist():
            if span.base + span.parts.end[len(hops) + kept] == cycle:
                return Activity(order, len(hops) + kept)
        return None

    def _held_by(self, activity: Activity, begin: int) -> Activity | None:
        """The activity that left this one's channel, joints or unit at cycle `begin`; None if there is none."""
        stage = self._stages[activity.order]
        if isinstance(stage, RootStage):
            return self._before_at_root(stage.resource, begin)
        if isinstance(stage, TreeStage) or (isinstance(stage, MessageStage) and activity.row < 0):
            return self._before_in_joints(activity, stage, begin)
        return next((before for ended, before in self._before_on_channel(activity) if ended == begin), None)

    def _before_on_channel(self, activity: Activity) -> Iterator[tuple[int, Activity]]:
        """Yields (end, activity) of the use before this one of the bus or channel that a message or hop took."""
        uses, rows = self._uses, [activity.row] if activity.row >= 0 else self._rows(activity.order, activity.place)[:1]
        for row in rows:
            before = self._row_before(int(row))
            if before >= 0:
                order, part = int(uses.stage[before]), int(uses.part[before])
                on_bus = activity.row >= 0
                yield int(uses.end[before]), Activity(order, part, before if on_bus else NOT_ACTIVE)

    def _before_on_pe(self, activity: Activity) -> tuple[int, Activity | None]:
        """The end of the PE's stage before this one, and that stage."""
        pe = activity.place
        for order in range(activity.order - 1, -1, -1):
            if isinstance(self._stages[order], PeStage) and self._spans[order].parts.working[pe]:
                return self._spans[order].bounds_on(pe)[1], Activity(order, pe)
        return 0, None

    def _before_in_joints(self, activity: Activity, mine: MessageStage | TreeStage, begin: int) -> Activity | None:
        """The earlier passage through the same joints that kept this one from starting before cycle `begin`, if any."""
        part = activity.place
        own_first, own_last = self._leaves(mine)
        first, last = int(own_first[part]), int(own_last[part])
        own_levels, own_combine = self._joints(mine)
        for order in range(activity.order, -1, -1):
            other = self._stages[order]
            if resource_of(other) is not resource_of(mine):
                continue
            assert isinstance(other, MessageStage | TreeStage)
            firsts, lasts = self._leaves(other)
            levels, combine = self._joints(other)
            shared = (firsts < last) & (lasts > first) & (other.num_bytes > 0)
            if order == activity.order:
                shared[part:] = False
            if not shared.any():
                continue
            beats = ceil_div(other.num_bytes, self._timeline.schedule.array.bus_tree.tree.bytes_per_cycle)
            later = (combine - own_combine) * min(levels, own_levels)
            hits = np.flatnonzero(shared & (self._spans[order].part_start + beats + max(later, 0) == begin))
            if len(hits):
                return Activity(order, int(hits[-1]))
            if levels >= own_levels and bool((shared & (firsts <= first) & (lasts >= last)).any()):
                return None  # whatever passed before that left earlier
        return None

    def _leaves(self, stage: MessageStage | TreeStage) -> tuple[IntArray, IntArray]:
        """(parts,) first and last: each passage takes joints above the leaves first .. last - 1."""
        if isinstance(stage, MessageStage):
            return stage.first_pe[stage.target], stage.last_pe[stage.target]
        if stage.whole_tree:
            return np.zeros_like(stage.first_pe), np.full_like(stage.last_pe, self._timeline.schedule.array.num_pes)
        return stage.first_pe, stage.last_pe

    def _joints(self, stage: MessageStage | TreeStage) -> tuple[int, int]:
        """Number of tree levels that a stage passes, and cycles that each joint takes to combine."""
        if isinstance(stage, MessageStage):
            return 0, 0
        return stage.levels, stage.combine_cycles(self._timeline.schedule.array.bus_tree.tree)

    def _before_at_root(self, unit: Resource, begin: int) -> Activity | None:
        """The job that left a unit of the root at cycle `begin`; None if there is none."""
        if unit not in self._released:
            self._released[unit] = released = {}
            for order, stage in enumerate(self._stages):
                if isinstance(stage, RootStage) and stage.resource is unit:
                    ends = self._spans[order].part_end.tolist()
                    released.update({ends[job]: Activity(order, job) for job in np.flatnonzero(stage.cycles).tolist()})
        return self._released[unit].get(begin)

    def _rows(self, order: int, part: int) -> IntArray:
        """The rows of the trace's uses in which a message or hop held the bus or its channel, in order."""
        span, uses = self._spans[order], self._uses
        bounds = np.array([span.parts.start[part], span.parts.end[part]]) + span.base
        first, last = np.searchsorted(uses.start, bounds).tolist()
        rows: IntArray = first + np.flatnonzero((uses.stage[first:last] == order) & (uses.part[first:last] == part))
        return rows

    def _row_before(self, row: int) -> int:
        """The previous row of the trace's uses on the same channel; NOT_ACTIVE if there is none."""
        column, last, width = self._uses.channel, row, _WINDOW
        while last > 0:
            first = max(last - width, 0)
            same = np.flatnonzero(column[first:last] == column[row])
            if len(same):
                return first + int(same[-1])
            last, width = first, 2 * width
        return NOT_ACTIVE

    def _positions(self, keys: IntArray, key: int) -> IntArray:
        """Indices at which a key stands in an array of the schedule; each array is sorted once and remembered."""
        if id(keys) not in self._sorted:
            in_order = np.argsort(keys, kind="stable")
            bounds = np.searchsorted(keys[in_order], np.arange(int(keys.max(initial=-1)) + 2))
            self._sorted[id(keys)] = in_order, bounds
        in_order, bounds = self._sorted[id(keys)]
        return in_order[bounds[key] : bounds[key + 1]] if key + 1 < len(bounds) else in_order[:0]
