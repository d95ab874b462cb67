"""Algorithms for collectives: their patterns, programs and bounds; and times of programs, alone and in a row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pe_sim.network.interconnect import Interconnect
from pe_sim.network.routing.hop_times import ChannelTimes, HopTimes, Work, by_arrival, run_hops
from pe_sim.network.routing.hops import HopBuilder, Hops, Program
from pe_sim.units import BoolArray, IntArray

ROOT_RANK = -1


@dataclass(frozen=True, eq=False)
class Pattern:
    """The PEs that take part: disjoint scopes of consecutive PEs that act at the same time, each with its hub.

    A hub is where a value of the whole scope starts or ends: the root, or the node where the scope's ways to the root
    meet.

    Args:
        first_pe, last_pe: (scopes,) PEs first_pe .. last_pe - 1.
        hub: (scopes,) nodes.
        sends: (PEs,) PEs that contribute to a reduction, or (scopes,) scopes that have something to send.
        combine_cycles: cycles that a node takes to combine what meets there.
    """

    first_pe: IntArray
    last_pe: IntArray
    hub: IntArray
    sends: BoolArray
    combine_cycles: int = 0

    @classmethod
    def of_scopes(
        cls,
        interconnect: Interconnect,
        first_pe: IntArray,
        last_pe: IntArray,
        sends: BoolArray,
        *,
        at_root: bool,
        softmax: bool = False,
    ) -> Pattern:
        """A pattern whose hubs are the root (`at_root`), or the nodes where the ways of a scope's PEs to it meet."""
        flows, topology = interconnect.flows, interconnect.topology
        hub = np.full(len(first_pe), flows.root, dtype=np.int64) if at_root else flows.hubs(first_pe, last_pe)
        cycles = topology.softmax_combine_cycles if softmax else topology.combine_cycles
        return cls(first_pe, last_pe, hub, sends, cycles)

    @property
    def num_scopes(self) -> int:
        """Number of scopes."""
        return len(self.first_pe)

    @property
    def sizes(self) -> IntArray:
        """(scopes,) number of PEs of each."""
        return self.last_pe - self.first_pe

    def pes(self, scope: int) -> IntArray:
        """The PEs of a scope."""
        return np.arange(int(self.first_pe[scope]), int(self.last_pe[scope]), dtype=np.int64)

    def members(self) -> tuple[IntArray, IntArray]:
        """All PEs of all scopes, and the scope of each."""
        scopes = np.repeat(np.arange(self.num_scopes, dtype=np.int64), self.sizes)
        starts = np.cumsum(self.sizes) - self.sizes
        return np.arange(len(scopes)) - starts[scopes] + self.first_pe[scopes], scopes

    def key(self) -> tuple[object, ...]:
        """The whole pattern as a hashable key."""
        arrays = (self.first_pe, self.last_pe, self.hub, self.sends)
        return (*(array.tobytes() for array in arrays), self.combine_cycles)


def _no_misfit(_interconnect: Interconnect, _pattern: Pattern) -> str:
    return ""


@dataclass(frozen=True, slots=True)
class Bound:
    """Lower bounds of the cycles of a program.

    Args:
        every_target: no target of the largest scope is complete before; adds up over programs in a row.
        last_target: the last target is not complete before.
    """

    every_target: int = 0
    last_target: int = 0


def _no_bound(_interconnect: Interconnect, _pattern: Pattern, _payload_bytes: IntArray) -> Bound:
    return Bound()


@dataclass(frozen=True, slots=True)
class Algorithm:
    """A way to do a collective with one program.

    Args:
        name: what users call it.
        build: gives the program of a pattern on an interconnect.
        misfit: gives why an interconnect cannot run it; empty if it can.
        bound: gives a lower bound of its cycles, cheaper to compute than the program.
    """

    name: str
    build: Callable[[Interconnect, Pattern], Program]
    misfit: Callable[[Interconnect, Pattern], str] = _no_misfit
    bound: Callable[[Interconnect, Pattern, IntArray], Bound] = _no_bound


def program_of(interconnect: Interconnect, algorithm: Algorithm, pattern: Pattern) -> Program:
    """The program of an algorithm, which the interconnect keeps."""
    return interconnect.program((algorithm.build, *pattern.key()), lambda: algorithm.build(interconnect, pattern))


def isolated_times(
    interconnect: Interconnect, program: Program, payload_bytes: IntArray, source_rate: int = 0
) -> HopTimes:
    """Times of a program when everything is ready at 0 and nothing else runs."""
    state = ChannelTimes.idle(len(interconnect.topology.channels))
    ready = np.zeros(program.hops.num_sources, dtype=np.int64)
    return timed(interconnect, program, payload_bytes, ready, state, source_rate)


def timed(
    interconnect: Interconnect,
    program: Program,
    payload_bytes: IntArray,
    ready: IntArray,
    state: ChannelTimes,
    source_rate: int = 0,
) -> HopTimes:
    """Times of a program whose senders are ready at the cycles `ready`, on channels whose `state` it updates."""
    channels, hops = interconnect.topology.channels, program.hops
    beats, busy = hops.occupancy(channels, program.message_bytes(payload_bytes), source_rate)
    return run_hops(hops, channels, beats, busy, program.rank, ready, state)


def isolated_cycles(interconnect: Interconnect, program: Program, payload_bytes: IntArray) -> int:
    """Completion cycle of the collective when everything is ready at 0 and nothing else runs."""
    return int(isolated_times(interconnect, program, payload_bytes).complete.max(initial=0))


# ---- Programs in a row: each begins, at every PE or hub, when the one before has brought it what it sends on.


_TURN_BITS = 21  # ranks are -1 and numbers of PEs; programs that come first go first
_NO_ENTRIES = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, eq=False, slots=True)
class Loaded:
    """A program with the bytes of its payloads."""

    program: Program
    payload_bytes: IntArray


@dataclass(frozen=True, eq=False, slots=True)
class RowTimes:
    """Times of programs in a row.

    Args:
        channel, grant, release: (hops,) of all programs, one after the other.
        cycles: completion cycle of the last one.
    """

    channel: IntArray
    grant: IntArray
    release: IntArray
    cycles: int


def cycles_in_a_row(interconnect: Interconnect, programs: Sequence[Loaded]) -> int:
    """Completion cycle of the last program when everything is ready at 0 and nothing else runs."""
    return times_in_a_row(interconnect, programs).cycles


def times_in_a_row(interconnect: Interconnect, programs: Sequence[Loaded]) -> RowTimes:
    """Times of all programs when everything is ready at 0 and nothing else runs."""
    state = ChannelTimes.idle(len(interconnect.topology.channels))
    ready = np.zeros(programs[0].program.hops.num_sources, dtype=np.int64)
    found = []
    for each in programs:
        found.append(timed(interconnect, each.program, each.payload_bytes, ready, state))
        ready = found[-1].complete
    if state.overtaken:  # some PE begins the next program before others are done with channels that it wants
        return _joined_times(interconnect, programs)
    return RowTimes(
        np.concatenate([each.program.hops.channel for each in programs]),
        np.concatenate([times.grant for times in found]),
        np.concatenate([times.release for times in found]),
        int(ready.max(initial=0)),
    )


def _joined_times(interconnect: Interconnect, programs: Sequence[Loaded]) -> RowTimes:
    """Times of programs joined into one.

    What a target gets goes over a channel of its own, which takes no time, to the sender that passes it on.
    """
    channels = interconnect.topology.channels
    join = _Join(len(channels))
    head, flight, beats, busy, rank = ([_NO_ENTRIES] for _ in range(5))
    for turn, each in enumerate(programs):
        hops = each.program.hops
        own_beats, own_busy = hops.occupancy(channels, each.program.message_bytes(each.payload_bytes))
        latency = channels.latency_cycles[hops.channel]
        passed = join.add(hops)
        free = np.zeros(passed, dtype=np.int64)
        head += [channels.overhead_cycles[hops.channel] + latency, free]
        flight += [latency, free]
        beats += [own_beats, free]
        busy += [own_busy, free]
        rank += [each.program.rank[hops.message] + (turn << _TURN_BITS), free]
    hops = join.builder.build(join.num_sources, 0, 1)
    work = Work(
        hops,
        head_cycles=np.concatenate(head),
        latency_cycles=np.concatenate(flight),
        beats=np.concatenate(beats),
        busy=np.concatenate(busy),
        rank=np.concatenate(rank),
        ready=np.zeros(join.num_sources, dtype=np.int64),
    )
    times = by_arrival(work, ChannelTimes.idle(join.num_channels))
    real = hops.channel < len(channels)
    grant = times.grant[real]
    return RowTimes(hops.channel[real], grant, grant + work.busy[real], int(times.tail[join.last].max(initial=0)))


class _Join:
    """Joins the hops of programs in a row into one set of hops."""

    def __init__(self, num_channels: int) -> None:
        self.builder, self.num_channels, self.num_sources = HopBuilder(), num_channels, 0
        self.last = _NO_ENTRIES  # hops that bring the targets of the program that was added last what they get
        self._target = _NO_ENTRIES

    def add(self, hops: Hops) -> int:
        """Adds a program; returns the number of hops that were added to bring its targets what they get."""
        message = np.zeros(len(hops), dtype=np.int64)
        offset = int(self.builder.add(hops.channel, message, hops.wait_cycles, message)[0]) if len(hops) else 0
        for stored in (False, True):
            mine = hops.stored == stored
            self.builder.link(hops.before[mine] + offset, hops.after[mine] + offset, stored=stored)
        self._feed(hops.source, hops.first_hop + offset, hops.num_sources)
        cycles = np.concatenate([hops.end_cycles, hops.kept_cycles])
        private = self.num_channels + np.arange(len(cycles), dtype=np.int64)
        self.num_channels += len(cycles)
        free = np.zeros(len(cycles), dtype=np.int64)
        passing = self.builder.add(private, free, cycles, free)
        ended, kept = passing[: len(hops.end_cycles)], passing[len(hops.end_cycles) :]
        self.builder.link(hops.last_hop + offset, ended, stored=True)
        self._feed(hops.kept_source, kept, hops.num_sources)
        self.last, self._target = passing, np.concatenate([hops.target, hops.kept_target])
        return len(cycles)

    def _feed(self, source: IntArray, hop: IntArray, num_sources: int) -> None:
        """Makes hops wait for their senders: for what the program before brought them, or for the start."""
        if not len(self.last):
            self.num_sources = num_sources
            self.builder.start(source, hop)
            return
        order = np.argsort(self._target, kind="stable")
        first = np.searchsorted(self._target[order], np.arange(num_sources + 1))
        counts = (first[1:] - first[:-1])[source]
        starts = np.repeat(first[source] - (np.cumsum(counts) - counts), counts)
        before = self.last[order[starts + np.arange(int(counts.sum()))]]
        self.builder.link(before, np.repeat(hop, counts), stored=True)
