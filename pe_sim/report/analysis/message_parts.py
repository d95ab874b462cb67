"""What the stages of a trace consist of: messages, reductions and jobs with their cycles, and how they pass joints."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from pe_sim.network.routing.hops import Hops
from pe_sim.network.topology.topology import Channels
from pe_sim.schedule.stages import Resource, RootStage, RoutedStage
from pe_sim.trace import NOT_ACTIVE
from pe_sim.units import IntArray

NO_ROWS: IntArray = np.empty(0, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Parts:
    """The messages, reductions or jobs of one stage; arrays are (parts,), NOT_ACTIVE where one does not happen.

    Args:
        ready: when it was asked for: the request at the arbiter, the last contribution, the last input at the root.
        grant, release: when it first got its channel or unit, and last left it.
        complete: when its last byte had arrived.
        first_row, last_row: on the bus, rows of the trace's channel uses: its first and last burst.
    """

    ready: IntArray
    grant: IntArray
    release: IntArray
    complete: IntArray
    first_row: IntArray
    last_row: IntArray


@dataclass(frozen=True, slots=True)
class Passages:
    """How the parts of one stage pass joints: over leaves first .. last - 1, the lowest `levels` levels of them."""

    first: IntArray
    last: IntArray
    levels: int
    combine_cycles: int


@dataclass(slots=True)
class Joints:
    """The joints of a tree while its passages are gone through once more: (levels + 1, leaves) as in the engines."""

    free: IntArray
    waiting: Iterator[int]
    starts: dict[int, IntArray] = field(default_factory=dict)

    def passed(self, passages: Passages, ready: IntArray, beats: IntArray) -> IntArray:
        """Starts of one stage's parts: side by side, or one after the other through all joints."""
        starts = np.full(len(ready), NOT_ACTIVE, dtype=np.int64)
        used = np.flatnonzero(beats > 0)
        rows = passages.levels + 1
        shift = passages.combine_cycles * np.arange(rows, dtype=np.int64)[:, None]
        is_whole = bool((passages.last - passages.first == len(self.free[0])).all())
        for parts in np.split(used, len(used)) if is_whole and len(used) else [used]:
            leaves = leaves_of(passages.first[parts], passages.last[parts])
            joints = self.free[:rows, leaves]
            starts[parts] = np.maximum(ready[parts], (joints.max(axis=2) - shift).max(axis=0))
            self.free[:rows, leaves] = (starts[parts] + beats[parts] + shift)[:, :, None]
        return starts


def leaves_of(first: IntArray, last: IntArray) -> IntArray:
    """(parts, leaves of the largest) leaves first .. last - 1 of each part; a smaller one repeats its last."""
    size = int((last - first).max(initial=1))
    leaves: IntArray = np.minimum(first[:, None] + np.arange(size), last[:, None] - 1)
    return leaves


def first_come_first_served(stages: dict[int, RootStage], ready: dict[int, IntArray]) -> dict[int, IntArray]:
    """By stage, (jobs,) starts at the root's units; ties go to the earlier stage, then the earlier job."""
    begun, free = {order: arrivals.copy() for order, arrivals in ready.items()}, dict.fromkeys(Resource, 0)
    worked = [(order, job) for order, stage in stages.items() for job in np.flatnonzero(stage.cycles).tolist()]
    for arrival, order, job in sorted((int(ready[order][job]), order, job) for order, job in worked):
        unit = stages[order].resource
        begun[order][job] = max(arrival, free[unit])
        free[unit] = int(begun[order][job] + stages[order].cycles[job])
    return begun


# ---- The hops of a routed stage in a trace: takes a stage and its channel uses, says which hop each of them was.
#
# A trace gives the grants of a channel in their order. The routes tell what each hop waits for, and channels serve in
# the order of requests; so the grants are handed out once more, along the routes. Where an array's arbitration is
# another
# one the grants are still the trace's, but hops of one stage on one channel may be taken for each other.


_NEVER = int(np.iinfo(np.int64).min) // 4


@dataclass(frozen=True, slots=True)
class RoutedParts(Parts):
    """The hops of a stage; `first_row` and `last_row` are each one's row, NOT_ACTIVE where nothing was carried.

    Args:
        head, tail: (hops,) when head and last beat came out at the far end; `complete`: when they were of use there.
        sent: (senders,) when each sender had what it sends.
        there, shown: (targets,) when each has its last value whole, and the head of it; 0 where it gets nothing.
    """

    head: IntArray
    tail: IntArray
    sent: IntArray
    there: IntArray
    shown: IntArray

    def later(self, cycles: int) -> RoutedParts:
        """The same at its time, from what was worked out for time 0."""
        return replace(
            self,
            ready=self.ready + cycles,
            grant=self.grant + cycles,
            release=self.release + cycles,
            complete=self.complete + cycles,
            head=self.head + cycles,
            tail=self.tail + cycles,
            there=np.where(self.there > _NEVER, self.there + cycles, 0),
            shown=np.where(self.shown > _NEVER, self.shown + cycles, 0),
        )


class Groups:
    """The positions at which each key stands."""

    def __init__(self, keys: IntArray, count: int) -> None:
        self._order = np.argsort(keys, kind="stable")
        self._first = np.searchsorted(keys[self._order], np.arange(count + 1)).tolist()

    def of(self, key: int) -> IntArray:
        """Those of one key, in their order."""
        return self._order[self._first[key] : self._first[key + 1]]


@dataclass(frozen=True, slots=True)
class Ways:
    """The graph of hops by what is asked of it: links and senders of a hop, last hops and senders of a target."""

    links_to: Groups
    senders_of: Groups
    ends_at: Groups
    kept_at: Groups


@dataclass(frozen=True, slots=True)
class _Work:
    """Of each hop: cycles from grant to head, time of flight, beats, occupancy, who goes first."""

    head_cycles: IntArray
    latency_cycles: IntArray
    beats: IntArray
    busy: IntArray
    rank: IntArray


class RoutedStages:
    """Works out the hops of stages; layers that repeat each other at another time are worked out once."""

    def __init__(self, channels: Channels) -> None:
        self.channels = channels
        self._work: dict[int, _Work] = {}
        self._ways: dict[int, Ways] = {}
        self._known: dict[tuple[int, bytes, bytes], RoutedParts] = {}

    def parts(
        self, stage: RoutedStage, sent: IntArray, rows: IntArray, channel: IntArray, start: IntArray
    ) -> RoutedParts:
        """The hops with their cycles.

        Args:
            sent: (senders,) when each has what it sends.
            rows: (uses,) the stage's rows of the trace, in order of their grants.
            channel, start: (uses,) of those rows.
        """
        senders = np.concatenate([stage.hops.source, stage.hops.kept_source])
        base = int(start[0]) if len(start) else 0
        key = (id(stage), (sent[senders] - base).tobytes(), (start - base).tobytes())
        if key not in self._known:
            self._known[key] = self._found(stage, sent - base, channel, start - base)
        found = self._known[key].later(base)
        own_rows = np.where(found.first_row >= 0, _picked(rows, found.first_row), NOT_ACTIVE)
        return replace(found, sent=sent, first_row=own_rows, last_row=own_rows)

    def ways(self, hops: Hops) -> Ways:
        """Who feeds which hop, and who serves which target."""
        if id(hops) not in self._ways:
            self._ways[id(hops)] = Ways(
                Groups(hops.after, len(hops)),
                Groups(hops.first_hop, len(hops)),
                Groups(hops.target, hops.num_targets),
                Groups(hops.kept_target, hops.num_targets),
            )
        return self._ways[id(hops)]

    def head_and_beats(self, stage: RoutedStage, hop: int) -> tuple[int, int]:
        """A hop's cycles from its grant to its head, and its beats."""
        work = self._work_of(stage)
        return int(work.head_cycles[hop]), int(work.beats[hop])

    def _work_of(self, stage: RoutedStage) -> _Work:
        if id(stage) not in self._work:
            hops, channels = stage.hops, self.channels
            beats, busy = hops.occupancy(channels, stage.num_bytes, stage.source_rate)
            latency = channels.latency_cycles[hops.channel]
            head_cycles = channels.overhead_cycles[hops.channel] + latency
            self._work[id(stage)] = _Work(head_cycles, latency, beats, busy, stage.rank[hops.message])
        return self._work[id(stage)]

    def _found(self, stage: RoutedStage, sent: IntArray, channel: IntArray, start: IntArray) -> RoutedParts:
        work, hops = self._work_of(stage), stage.hops
        in_turn = np.lexsort((start, channel))
        first = np.searchsorted(channel[in_turn], np.arange(len(self.channels)))
        replayed = None
        if work.head_cycles.all():  # else a head comes out in the cycle of its grant
            replayed = _by_wave(hops, work, sent, in_turn, first, start)
        if replayed is None or _overtaken(hops, work, replayed, start):
            replayed = _by_arrival(hops, work, sent, in_turn, first, start)
        arrival, row, head, tail = replayed
        grant = head - work.head_cycles
        complete = tail.copy()
        np.maximum.at(complete, hops.last_hop, tail[hops.last_hop] + hops.end_cycles)
        there, shown = np.zeros((2, hops.num_targets), dtype=np.int64) + _NEVER
        for known, cycles in ((there, tail), (shown, head)):
            np.maximum.at(known, hops.target, cycles[hops.last_hop] + hops.end_cycles)
            np.maximum.at(known, hops.kept_target, sent[hops.kept_source] + hops.kept_cycles)
        return RoutedParts(arrival, grant, grant + work.busy, complete, row, row, head, tail, sent, there, shown)


_Replayed = tuple[IntArray, IntArray, IntArray, IntArray]  # (hops,) arrival, row, head, tail


def _by_wave(hops: Hops, work: _Work, sent: IntArray, in_turn: IntArray, first: IntArray, start: IntArray) -> _Replayed:
    arrival, head, tail = np.full((3, len(hops)), _NEVER, dtype=np.int64)
    row = np.full(len(hops), NOT_ACTIVE, dtype=np.int64)
    taken = first.copy()
    for wave in hops.waves:
        at = wave.hops
        head_in = np.full(len(at), _NEVER, dtype=np.int64)
        np.maximum.at(head_in, wave.fed, sent[wave.sources])
        tail_in = head_in.copy()
        if len(wave.before):
            whole = tail[wave.before]
            shown = np.where(wave.stored, whole, head[wave.before])
            head_in[wave.linked] = np.maximum(head_in[wave.linked], np.maximum.reduceat(shown, wave.first_link))
            tail_in[wave.linked] = np.maximum(tail_in[wave.linked], np.maximum.reduceat(whole, wave.first_link))
        wait, channel = hops.wait_cycles[at], hops.channel[at]
        arrival[at] = grant = head_in + wait
        used = np.flatnonzero(work.busy[at] > 0)
        queue = used[np.lexsort((at[used], work.rank[at[used]], grant[used], channel[used]))]
        if len(queue):
            asked = channel[queue]
            firsts = np.concatenate([[0], np.flatnonzero(np.diff(asked)) + 1])
            sizes = np.diff(np.append(firsts, len(asked)))
            position = taken[asked] + np.arange(len(asked)) - np.repeat(firsts, sizes)
            taken[asked[firsts]] += sizes
            row[at[queue]] = in_turn[position]
            grant = grant.copy()
            grant[queue] = start[in_turn[position]]
        head[at] = grant + work.head_cycles[at]
        tail[at] = np.maximum(head[at] + work.beats[at], tail_in + wait + work.latency_cycles[at])
    return arrival, row, head, tail


def _overtaken(hops: Hops, work: _Work, replayed: _Replayed, start: IntArray) -> bool:
    """Whether a hop got its channel before one that had come first, which was in a later wave."""
    arrival, row, _, _ = replayed
    used = np.flatnonzero(row >= 0)
    in_turn = used[np.lexsort((start[row[used]], hops.channel[used]))]
    same = np.diff(hops.channel[in_turn]) == 0
    came = np.diff(np.lexsort((in_turn, work.rank[in_turn], arrival[in_turn], hops.channel[in_turn])))
    return bool((came[same] < 0).any())


def _by_arrival(
    hops: Hops, work: _Work, sent: IntArray, in_turn: IntArray, first: IntArray, start: IntArray
) -> _Replayed:
    """Hop by hop in the order in which they ask for their channels."""
    arrival, head, tail, head_in, tail_in = np.full((5, len(hops)), _NEVER, dtype=np.int64)
    row, taken = np.full(len(hops), NOT_ACTIVE, dtype=np.int64), first.copy()
    np.maximum.at(head_in, hops.first_hop, sent[hops.source])
    np.maximum.at(tail_in, hops.first_hop, sent[hops.source])
    missing, followers = np.bincount(hops.after, minlength=len(hops)), Groups(hops.before, len(hops))
    ready = head_in + hops.wait_cycles
    waiting = [(int(ready[hop]), int(work.rank[hop]), hop) for hop in np.flatnonzero(missing == 0).tolist()]
    heapq.heapify(waiting)
    while waiting:
        asked, _, hop = heapq.heappop(waiting)
        arrival[hop] = grant = asked
        if work.busy[hop]:
            channel = hops.channel[hop]
            row[hop] = in_turn[taken[channel]]
            taken[channel] += 1
            grant = int(start[row[hop]])
        head[hop] = grant + work.head_cycles[hop]
        passed_on = tail_in[hop] + hops.wait_cycles[hop] + work.latency_cycles[hop]
        tail[hop] = max(head[hop] + work.beats[hop], passed_on)
        for link in followers.of(hop).tolist():
            after = int(hops.after[link])
            head_in[after] = max(head_in[after], tail[hop] if hops.stored[link] else head[hop])
            tail_in[after] = max(tail_in[after], tail[hop])
            missing[after] -= 1
            if not missing[after]:
                arrived = int(head_in[after] + hops.wait_cycles[after])
                heapq.heappush(waiting, (arrived, int(work.rank[after]), after))
    return arrival, row, head, tail


def _picked(values: IntArray, at: IntArray) -> IntArray:
    """The values at some positions; where a position is negative, anything."""
    return values[at] if len(values) else np.full(len(at), NOT_ACTIVE, dtype=np.int64)
