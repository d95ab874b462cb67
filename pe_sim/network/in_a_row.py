"""Programs in a row: each begins, at every PE or hub, when the one before has brought it what it sends on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pe_sim.network.hop_times import ChannelTimes, Work, by_arrival
from pe_sim.network.hops import HopBuilder, Hops
from pe_sim.network.interconnect import Interconnect
from pe_sim.network.programs import Program, timed
from pe_sim.units import IntArray

_TURN_BITS = 21  # ranks are -1 and numbers of PEs; programs that come first go first
_NO_ENTRIES = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, eq=False, slots=True)
class Loaded:
    """A program with the bytes of its payloads."""

    program: Program
    payload_bytes: IntArray


@dataclass(frozen=True, eq=False, slots=True)
class RowTimes:
    """What programs in a row took.

    Args:
        channel, grant, release: (hops,) of all of them, program by program.
        cycles: completion of the last one.
    """

    channel: IntArray
    grant: IntArray
    release: IntArray
    cycles: int


def cycles_in_a_row(interconnect: Interconnect, programs: Sequence[Loaded]) -> int:
    """Completion of the last one when everything is ready at 0 and nothing else runs."""
    return times_in_a_row(interconnect, programs).cycles


def times_in_a_row(interconnect: Interconnect, programs: Sequence[Loaded]) -> RowTimes:
    """When everything is ready at 0 and nothing else runs."""
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
    """All programs as one: what a target gets goes over a free channel of its own to who sends it on."""
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
    """Puts the hops of programs one behind the other."""

    def __init__(self, num_channels: int) -> None:
        self.builder, self.num_channels, self.num_sources = HopBuilder(), num_channels, 0
        self.last = _NO_ENTRIES  # hops that bring the targets of the program that was added last what they get
        self._target = _NO_ENTRIES

    def add(self, hops: Hops) -> int:
        """Adds a program; gives how many hops were added to bring its targets what they get."""
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
        """Hops wait for senders: for what the program before brought them, or for the start."""
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
