"""Why a hop of a routed stage happened when it did: takes the hops of a trace, gives what each of them waited for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from pe_sim.network.topology.topology import Channels
from pe_sim.report.analysis.message_times import Moments
from pe_sim.schedule.stages import RoutedStage, Stage
from pe_sim.trace import NOT_ACTIVE, ChannelUse
from pe_sim.units import IntArray


class Activity(NamedTuple):
    """A stage's work on one PE, a row of the trace's uses of the bus, a passage of a tree, a job at the root, or a hop.

    Of a routed stage, -1 - k is the k-th value that a target has without any channel.
    """

    order: int
    place: int


class Cause(NamedTuple):
    """Why a link begins where it does: `activity` made it so, and then `travel` cycles of its own were only waiting."""

    begin: int
    activity: Activity | None
    travel: int = 0


def as_ints(column: IntArray) -> Sequence[int]:
    """The column for who wants one number at a time, as Python's: quicker than an array, without a list's objects."""
    return np.ascontiguousarray(column).data


def previous_rows(uses: ChannelUse) -> IntArray:
    """(uses,) the row before each on the same channel, NOT_ACTIVE for the first."""
    in_turn = np.lexsort((uses.start, uses.channel))
    same = np.flatnonzero(np.diff(uses.channel[in_turn]) == 0)
    previous = np.full(len(in_turn), NOT_ACTIVE, dtype=np.int64)
    previous[in_turn[same + 1]] = in_turn[same]
    return previous


class RoutedCauses:
    """Causes of hops.

    Args:
        fed: takes a stage's order, one of its senders and a cycle; gives what brought that sender its input just then.
    """

    def __init__(
        self,
        moments: Moments,
        stages: tuple[Stage, ...],
        uses: ChannelUse,
        previous_row: Sequence[int],
        fed: Callable[[int, int, int], Activity | None],
    ) -> None:
        self._moments, self._stages, self._uses = moments, stages, uses
        self._previous_row, self._fed = previous_row, fed

    def end(self, activity: Activity, stage: RoutedStage) -> int:
        """When the last of it was where it went."""
        order, hop = activity
        if hop < 0:
            return self._kept_from(activity, stage)[1] + int(stage.hops.kept_cycles[-1 - hop])
        return int(self._moments.parts(order).complete[hop])

    def explain(self, activity: Activity, stage: RoutedStage, until: int) -> Cause:
        """What made a hop happen when it did; `until`: whether its head or its tail is asked for."""
        order, hop = activity
        if hop < 0:
            sender, begin = self._kept_from(activity, stage)
            return Cause(begin, self._fed(order, sender, begin))
        parts, hops = self._moments.hops(order), stage.hops
        begin, tail, wait = int(parts.grant[hop]), int(parts.tail[hop]), int(hops.wait_cycles[hop])
        head_cycles, beats = self._moments.routes.head_and_beats(stage, hop)
        if begin + head_cycles + beats < tail <= until:  # a slower channel upstream delayed the tail
            flight = tail - wait - int(self._channels.latency_cycles[hops.channel[hop]])
            for before in self._before(stage, hop):
                if parts.tail[before] == flight:
                    return Cause(flight, Activity(order, before))
        if parts.ready[hop] == begin:
            cause = self._asked_by(order, stage, hop, begin - wait)
            if cause is not None:
                travel = min(wait, int(self._channels.request_cycles[hops.channel[hop]]))
                return Cause(begin - wait, cause, travel)
        return Cause(begin, self._held_by(order, hop, begin))

    def maker(self, order: int, stage: RoutedStage, target: int, cycle: int) -> Activity | None:
        """What gave a target its value at `cycle`, or else showed it its head then."""
        parts, hops = self._moments.hops(order), stage.hops
        ways = self._moments.routes.ways(hops)
        ends = ways.ends_at.of(target)
        for known in (parts.tail, parts.head):
            hits = ends[known[hops.last_hop[ends]] + hops.end_cycles[ends] == cycle]
            if len(hits):
                return Activity(order, int(hops.last_hop[hits[-1]]))
        for kept in ways.kept_at.of(target).tolist():
            if self.end(Activity(order, -1 - kept), stage) == cycle:
                return Activity(order, -1 - kept)
        return None

    def nearest(self, activity: Activity, stage: RoutedStage) -> Iterator[tuple[int, Activity | None]]:
        """Everything that a hop may have waited for, and when it was over."""
        order, hop = activity
        if hop < 0:
            return
        parts = self._moments.hops(order)
        for before in self._before(stage, hop):
            yield int(parts.head[before]), Activity(order, before)
        for sender in self._senders(stage, hop):
            cycle = int(parts.sent[sender])
            yield cycle, self._fed(order, sender, cycle)
        row = int(parts.first_row[hop])
        before = self._previous_row[row] if row >= 0 else NOT_ACTIVE
        if before >= 0:
            yield int(self._uses.end[before]), self._of_row(before)

    def channel(self, activity: Activity, stage: RoutedStage) -> str:
        """The channel of a hop; none for a value that needs none."""
        return self._channels.name[stage.hops.channel[activity.place]] if activity.place >= 0 else ""

    @property
    def _channels(self) -> Channels:
        return self._moments.routes.channels

    def _kept_from(self, activity: Activity, stage: RoutedStage) -> tuple[int, int]:
        """The sender of a value that needs no channel, and when it had it."""
        sender = int(stage.hops.kept_source[-1 - activity.place])
        return sender, int(self._moments.hops(activity.order).sent[sender])

    def _asked_by(self, order: int, stage: RoutedStage, hop: int, cycle: int) -> Activity | None:
        """What came to a hop, to be carried on, at `cycle`."""
        parts, ways = self._moments.hops(order), self._moments.routes.ways(stage.hops)
        for link in ways.links_to.of(hop).tolist():
            before = int(stage.hops.before[link])
            if (parts.tail if stage.hops.stored[link] else parts.head)[before] == cycle:
                return Activity(order, before)
        for sender in self._senders(stage, hop):
            if parts.sent[sender] == cycle:
                return self._fed(order, sender, cycle)
        return None

    def _held_by(self, order: int, hop: int, begin: int) -> Activity | None:
        """What left the hop's channel at `begin`."""
        row = int(self._moments.parts(order).first_row[hop])
        before = self._previous_row[row] if row >= 0 else NOT_ACTIVE
        return self._of_row(before) if before >= 0 and self._uses.end[before] == begin else None

    def _of_row(self, row: int) -> Activity:
        order = int(self._uses.stage[row])
        self._moments.parts(order)  # says which hop the row is
        return Activity(order, int(self._moments.part_of_row[row]))

    def _before(self, stage: RoutedStage, hop: int) -> list[int]:
        links = self._moments.routes.ways(stage.hops).links_to.of(hop)
        before: list[int] = stage.hops.before[links].tolist()
        return before

    def _senders(self, stage: RoutedStage, hop: int) -> list[int]:
        starts = self._moments.routes.ways(stage.hops).senders_of.of(hop)
        senders: list[int] = stage.hops.source[starts].tolist()
        return senders
