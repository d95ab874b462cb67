"""Times of the hops of a collective on its channels, by vector recurrences, wave by wave."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

import numpy as np

from pe_sim.network.routing.hops import Hops, Wave
from pe_sim.network.topology.topology import Channels
from pe_sim.units import BoolArray, IntArray

NEVER = -(1 << 60)  # the ready cycle of what takes no part; any other cycle is later


@dataclass(slots=True)
class ChannelTimes:
    """First-come-first-served channels between collectives; arrays are (channels,).

    Args:
        free_at: when each is free.
        last_arrival: the latest request each has served.
        overtaken: whether a request came before one that was served already, so that what followed is not exact.
    """

    free_at: IntArray
    last_arrival: IntArray
    overtaken: bool = False

    @classmethod
    def idle(cls, num_channels: int) -> ChannelTimes:
        """Channels that are free from cycle 0 on."""
        return cls(np.zeros(num_channels, dtype=np.int64), np.full(num_channels, NEVER, dtype=np.int64))

    def copy(self) -> ChannelTimes:
        """A copy to go back to (`restore`)."""
        return ChannelTimes(self.free_at.copy(), self.last_arrival.copy(), self.overtaken)

    def restore(self, before: ChannelTimes) -> None:
        """Takes over the state of a copy that `copy` gave before."""
        self.free_at, self.last_arrival, self.overtaken = before.free_at, before.last_arrival, before.overtaken

    def shifted(self, cycles: IntArray, floor: int) -> ChannelTimes:
        """A copy with all times moved by `cycles`, and those before `floor` lifted to it."""
        last = np.where(self.last_arrival > NEVER, self.last_arrival + cycles, NEVER)
        return ChannelTimes(np.maximum(self.free_at + cycles, floor), np.maximum(last, floor), self.overtaken)


@dataclass(slots=True)
class HopTimes:
    """Times of a collective.

    Args:
        grant, release: (hops,) when each hop's channel was granted and released.
        head, tail: (hops,) when its head and its last beat came out at the far end.
        complete, shown: (targets,) when each target has its last value whole, and the head of it; 0 for one that
            gets nothing.
    """

    grant: IntArray
    release: IntArray
    head: IntArray
    tail: IntArray
    complete: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    shown: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))


def run_hops(
    hops: Hops,
    channels: Channels,
    beats: IntArray,
    busy: IntArray,
    ranks: IntArray,
    ready: IntArray,
    state: ChannelTimes,
) -> HopTimes:
    """Times of a collective on channels whose `state` it updates.

    A channel that is granted to a hop at cycle g is held during [g, g + ω + beats); the head comes out at g + ω + λ,
    the tail beats later, or λ after it came in if a slower channel upstream delays it (machine model, section 8).

    Args:
        beats, busy: (hops,) beats of each hop, and cycles that it holds its channel.
        ranks: (messages,) of requests that arrive together the one of the lower rank goes first, then the lower hop.
        ready: (sources,) when each sender is ready.
    """
    overhead, latency = channels.overhead_cycles[hops.channel], channels.latency_cycles[hops.channel]
    work = Work(hops, overhead + latency, latency, beats, busy, ranks[hops.message], ready)
    before = state.copy()
    if not work.head_cycles.all():  # a head may come out in the cycle of its grant, which makes an order by waves wrong
        times = by_arrival(work, state)
    else:
        times = _wave_by_wave(work, state)
        if state.overtaken and not before.overtaken:  # by a hop of an earlier collective, or of an earlier wave?
            state.restore(before)
            times = by_arrival(work, state)
    times.release = times.grant + busy
    times.complete, times.shown = _ends(hops, times, ready)
    return times


@dataclass(frozen=True, eq=False, slots=True)
class Work:
    """Hops and what `run_hops` needs of each, (hops,); `busy` is its channel's occupancy, `ready` is (sources,)."""

    hops: Hops
    head_cycles: IntArray
    latency_cycles: IntArray
    beats: IntArray
    busy: IntArray
    rank: IntArray
    ready: IntArray


def _wave_by_wave(work: Work, state: ChannelTimes) -> HopTimes:
    hops = work.hops
    times = HopTimes(*(np.zeros(len(hops), dtype=np.int64) for _ in range(4)))
    served = np.zeros(len(state.free_at), dtype=bool)
    for wave in hops.waves:
        at = wave.hops
        head, tail = _arrivals(wave, hops, times, work.ready)
        grant = _serve(wave, hops.channel[at], head, work.rank[at], work.busy[at], state, served)
        times.grant[at] = grant
        out = grant + work.head_cycles[at]
        times.head[at] = out
        times.tail[at] = np.maximum(out + work.beats[at], tail + work.latency_cycles[at])
    return times


def _arrivals(wave: Wave, hops: Hops, times: HopTimes, ready: IntArray) -> tuple[IntArray, IntArray]:
    """(wave,) cycles in which the head, and the tail, of what each hop sends can be sent."""
    head = np.full(len(wave.hops), NEVER, dtype=np.int64)
    if len(wave.fed):
        np.maximum.at(head, wave.fed, ready[wave.sources])
    tail = head.copy()
    if len(wave.before):
        whole = times.tail[wave.before]
        first = np.where(wave.stored, whole, times.head[wave.before])
        head[wave.linked] = np.maximum(head[wave.linked], np.maximum.reduceat(first, wave.first_link))
        tail[wave.linked] = np.maximum(tail[wave.linked], np.maximum.reduceat(whole, wave.first_link))
    wait = hops.wait_cycles[wave.hops]
    return head + wait, tail + wait


def _serve(
    wave: Wave,
    channel: IntArray,
    arrival: IntArray,
    rank: IntArray,
    busy: IntArray,
    state: ChannelTimes,
    served: BoolArray,
) -> IntArray:
    """(wave,) grant of each hop; requests of one channel are served in the order of their arrival.

    Args:
        served: (channels,) whether earlier waves used it: a request in the same cycle as theirs may have to go first.
    """
    if not wave.shared:
        state.overtaken |= bool((arrival < state.last_arrival[channel] + served[channel]).any())
        served[channel] = True
        state.last_arrival[channel] = arrival
        grant: IntArray = np.maximum(arrival, state.free_at[channel])
        state.free_at[channel] = grant + busy
        return grant
    order = np.lexsort((rank, arrival, channel))
    arrival, busy = arrival[order], busy[order]
    first = wave.first_on_channel
    sizes = np.diff(np.append(first, len(order)))
    used = channel[order][first]
    last = first + sizes - 1
    state.overtaken |= bool((arrival[first] < state.last_arrival[used] + served[used]).any())
    served[used] = True
    done = np.cumsum(busy)
    done -= np.repeat(done[first] - busy[first], sizes)  # from the first request of the channel on
    slack = arrival - done + busy
    slack[first] = np.maximum(slack[first], state.free_at[used])
    release = done + _running_maximum(slack, sizes)
    state.last_arrival[used] = arrival[last]
    state.free_at[used] = release[last]
    grants = np.empty_like(release)
    grants[order] = release - busy
    return grants


def by_arrival(work: Work, state: ChannelTimes) -> HopTimes:
    """Times of hops taken one by one in the order in which they ask for their channels, whatever their waves.

    Of those that ask in one cycle, on whichever channels, the lowest rank asks first; requests that follow from it in
    the same cycle join those that are still to ask.
    """
    hops = work.hops
    times = HopTimes(*(np.zeros(len(hops), dtype=np.int64) for _ in range(4)))
    followers, after = _by_hop(hops.before, len(hops)), hops.after.tolist()
    stored, wait, channel = hops.stored.tolist(), hops.wait_cycles.tolist(), hops.channel.tolist()
    head_cycles, latency, beats = work.head_cycles.tolist(), work.latency_cycles.tolist(), work.beats.tolist()
    busy, rank = work.busy.tolist(), work.rank.tolist()
    missing = np.bincount(hops.after, minlength=len(hops)).tolist()
    head_in, tail_in = _fed_by_senders(hops, work.ready)
    free_at, last = state.free_at.tolist(), state.last_arrival.tolist()
    waiting = [(head_in[hop] + wait[hop], rank[hop], hop) for hop in range(len(hops)) if not missing[hop]]
    heapq.heapify(waiting)
    while waiting:
        arrival, _, hop = heapq.heappop(waiting)
        on = channel[hop]
        state.overtaken |= arrival < last[on]
        last[on] = arrival
        grant = max(arrival, free_at[on])
        free_at[on] = grant + busy[hop]
        head = grant + head_cycles[hop]
        tail = max(head + beats[hop], tail_in[hop] + wait[hop] + latency[hop])
        times.grant[hop], times.head[hop], times.tail[hop] = grant, head, tail
        for link in followers[hop]:
            follower = after[link]
            head_in[follower] = max(head_in[follower], tail if stored[link] else head)
            tail_in[follower] = max(tail_in[follower], tail)
            missing[follower] -= 1
            if not missing[follower]:
                heapq.heappush(waiting, (head_in[follower] + wait[follower], rank[follower], follower))
    state.free_at, state.last_arrival = np.array(free_at, dtype=np.int64), np.array(last, dtype=np.int64)
    return times


def _fed_by_senders(hops: Hops, ready: IntArray) -> tuple[list[int], list[int]]:
    fed = np.full(len(hops), NEVER, dtype=np.int64)
    np.maximum.at(fed, hops.first_hop, ready[hops.source])
    return fed.tolist(), fed.tolist()


def _by_hop(hop_of_link: IntArray, count: int) -> list[list[int]]:
    links: list[list[int]] = [[] for _ in range(count)]
    for link, hop in enumerate(hop_of_link.tolist()):
        links[hop].append(link)
    return links


def _running_maximum(values: IntArray, sizes: IntArray) -> IntArray:
    """The running maximum within each of the consecutive parts of these `sizes`.

    Each part is lifted above all that come before it, so that one pass does.
    """
    low = int(values.min())
    span = int(values.max()) - low + 1
    lift = np.repeat(np.arange(len(sizes), dtype=np.int64) * span, sizes)
    running: IntArray = np.maximum.accumulate(values - low + lift) - lift + low
    return running


def _ends(hops: Hops, times: HopTimes, ready: IntArray) -> tuple[IntArray, IntArray]:
    complete = np.zeros(hops.num_targets, dtype=np.int64)
    np.maximum.at(complete, hops.target, times.tail[hops.last_hop] + hops.end_cycles)
    np.maximum.at(complete, hops.kept_target, ready[hops.kept_source] + hops.kept_cycles)
    shown = np.zeros(hops.num_targets, dtype=np.int64)
    np.maximum.at(shown, hops.target, times.head[hops.last_hop] + hops.end_cycles)
    np.maximum.at(shown, hops.kept_target, ready[hops.kept_source] + hops.kept_cycles)
    return complete, shown
