"""Graphs of hops: messages on their way over channels; a hop waits for other hops and then for its channel.

One `Hops` is a whole collective: multicast trees, reduction trees and rounds of messages between end points alike. What
it leaves open is how many bytes each message has and when its senders are ready.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pe_sim.host_memory import require_memory
from pe_sim.network.topology.topology import Channels
from pe_sim.units import BoolArray, IntArray, ceil_div

# Measured peaks of collectives alone, of all kinds, were 200 to 290 bytes a hop; 50 are taken once it is laid out.
_BYTES_PER_HOP, _LAID_OUT_BYTES = 150, 50
_LEVERS = (
    "fewer PEs (num_pes) or smaller groups need less, and so may another algorithm (network.collectives) or an"
    " interconnect with shorter ways"
)


def require_hops(num_hops: int, laid_out: int = 0) -> None:
    """Raises if a program of so many hops, `laid_out` of them laid out already, cannot fit this machine's memory.

    Raises:
        OutOfMemoryError: it cannot.
    """
    num_bytes = _BYTES_PER_HOP * num_hops - _LAID_OUT_BYTES * laid_out
    require_memory(num_bytes, f"a collective of {num_hops:,} hops", _LEVERS)


@dataclass(frozen=True, slots=True)
class Wave:
    """Hops whose predecessors are all in earlier waves.

    Args:
        hops: (wave,) in order of their channels.
        sources, fed: which of the senders feed which positions of `hops`.
        before: (links,) hops of earlier waves that those of this one wait for, in the order of their followers.
        stored: (links,) whether for their tails; else for their heads.
        first_link, linked: where each follower's links begin, and its position in `hops`.
        shared: whether several hops are on one channel.
        first_on_channel: where the hops of each channel begin.
    """

    hops: IntArray
    sources: IntArray
    fed: IntArray
    before: IntArray
    stored: BoolArray
    first_link: IntArray
    linked: IntArray
    shared: bool
    first_on_channel: IntArray


@dataclass(frozen=True, eq=False)
class Hops:
    """A graph of hops; arrays are (hops,), (links,), (starts,), (ends,) or (kept,).

    Args:
        channel: channel of each hop.
        message: message of each hop.
        wait_cycles: cycles from the last event that a hop waits for to its request.
        before, after: hop `after` waits for hop `before`.
        stored: whether it waits for its tail, as an end point does; else for its head.
        source, first_hop: a hop waits for a sender to be ready.
        last_hop, target, end_cycles: a target has a value `end_cycles` after the hop's tail.
        kept_source, kept_target, kept_cycles: a target has a sender's value without any channel.
        wave: (hops,) hops wait for hops of lower waves alone.
        num_sources, num_targets, num_messages: how many there are.
        known_waves: `waves`, from a builder that knows them.
    """

    channel: IntArray
    message: IntArray
    wait_cycles: IntArray
    before: IntArray
    after: IntArray
    stored: BoolArray
    source: IntArray
    first_hop: IntArray
    last_hop: IntArray
    target: IntArray
    end_cycles: IntArray
    kept_source: IntArray
    kept_target: IntArray
    kept_cycles: IntArray
    wave: IntArray
    num_sources: int
    num_targets: int
    num_messages: int
    known_waves: tuple[Wave, ...] | None = None

    def __len__(self) -> int:
        """Number of hops."""
        return len(self.channel)

    def occupancy(self, channels: Channels, num_bytes: IntArray, source_rate: int = 0) -> tuple[IntArray, IntArray]:
        """(hops,) beats of each hop, and cycles that it holds its channel, from the bytes of each message.

        A message of no bytes takes its way, but no channel. Beats go at the sender's rate if that is less than the
        channel's (0: no limit).
        """
        width = channels.bytes_per_cycle[self.channel]
        if source_rate:
            width = np.minimum(width, source_rate)
        sent = num_bytes[self.message]
        beats = ceil_div(sent, width)
        return beats, np.where(sent > 0, beats + channels.overhead_cycles[self.channel], 0)

    @cached_property
    def waves(self) -> tuple[Wave, ...]:
        """The hops in waves, such that all hops of a channel are in the same one, if no channels wait for each other.

        First come, first served is then exact within the collective. Otherwise the waves are those of the builder.
        """
        if self.known_waves is not None:
            return self.known_waves
        level = self._channel_levels()
        order = self.wave if level is None else level[self.channel]
        hops = np.lexsort((self.channel, order))
        bounds = np.flatnonzero(np.diff(order[hops])) + 1
        position = np.empty(len(self), dtype=np.int64)
        position[hops] = np.arange(len(self))
        links = np.argsort(position[self.after], kind="stable")
        starts = np.argsort(position[self.first_hop], kind="stable")
        link_bounds = np.searchsorted(position[self.after][links], bounds)
        start_bounds = np.searchsorted(position[self.first_hop][starts], bounds)
        parts = zip(np.split(hops, bounds), np.split(links, link_bounds), np.split(starts, start_bounds), strict=True)
        return tuple(self._wave(of_wave, links, starts, position) for of_wave, links, starts in parts if len(of_wave))

    def _wave(self, hops: IntArray, links: IntArray, starts: IntArray, position: IntArray) -> Wave:
        offset = int(position[hops[0]])
        linked, first_link = np.unique(position[self.after[links]] - offset, return_index=True)
        channels = self.channel[hops]
        first_on_channel = np.concatenate([[0], np.flatnonzero(np.diff(channels)) + 1]).astype(np.int64)
        return Wave(
            hops=hops,
            sources=self.source[starts],
            fed=position[self.first_hop[starts]] - offset,
            before=self.before[links],
            stored=self.stored[links],
            first_link=first_link,
            linked=linked,
            shared=len(first_on_channel) < len(hops),
            first_on_channel=first_on_channel,
        )

    def _channel_levels(self) -> IntArray | None:
        """(channels,) longest chain of channels that each waits for; None if channels wait for each other."""
        num_channels = int(self.channel.max(initial=-1)) + 1
        pairs = np.unique(self.channel[self.before] * num_channels + self.channel[self.after])
        source, target = np.divmod(pairs, num_channels)
        level = np.zeros(num_channels, dtype=np.int64)
        waiting = np.bincount(target, minlength=num_channels)
        ready, done, depth = np.flatnonzero(waiting == 0), 0, 0
        first = np.searchsorted(source, np.arange(num_channels + 1))
        while len(ready):
            level[ready] = depth
            done, depth = done + len(ready), depth + 1
            sizes = first[ready + 1] - first[ready]
            offsets = np.arange(int(sizes.sum())) - np.repeat(np.cumsum(sizes) - sizes, sizes)
            followers, counts = np.unique(target[np.repeat(first[ready], sizes) + offsets], return_counts=True)
            waiting[followers] -= counts
            ready = followers[waiting[followers] == 0]
        return level if done == num_channels else None


class HopBuilder:
    """Collects hops piece by piece; a piece is arrays of one length."""

    def __init__(self) -> None:
        self._hops: list[tuple[IntArray, IntArray, IntArray, IntArray]] = []
        self._links: list[tuple[IntArray, ...]] = []
        self._starts: list[tuple[IntArray, IntArray]] = []
        self._ends: list[tuple[IntArray, IntArray, IntArray]] = []
        self._kept: list[tuple[IntArray, IntArray, IntArray]] = []
        self._count = self._foreseen = 0

    def expect(self, num_hops: int, laid_out: int = 0) -> None:
        """Announces about how many hops will be added.

        Raises:
            OutOfMemoryError: they exceed this machine's memory.
        """
        require_hops(num_hops, laid_out)
        self._foreseen = num_hops

    def add(self, channel: IntArray, message: IntArray, wait_cycles: IntArray, wave: IntArray) -> IntArray:
        """Adds hops; returns their numbers."""
        first = self._count
        self._count += len(channel)
        if self._count > 2 * self._foreseen:
            self.expect(self._count, laid_out=self._count)
        self._hops.append((channel, message, wait_cycles, wave))
        return np.arange(first, self._count, dtype=np.int64)

    def link(self, before: IntArray, after: IntArray, *, stored: bool = False) -> None:
        """Makes each hop `after` wait for the head of hop `before`, or for its tail if that is `stored` on the way."""
        self._links.append((before, after, np.full(len(before), int(stored))))

    def start(self, source: IntArray, hop: IntArray) -> None:
        """Makes each hop wait for its sender to be ready."""
        self._starts.append((source, hop))

    def end(self, hop: IntArray, target: IntArray, cycles: IntArray) -> None:
        """Makes each hop bring its target a value, `cycles` after its tail."""
        self._ends.append((hop, target, cycles))

    def keep(self, source: IntArray, target: IntArray, cycles: IntArray) -> None:
        """Gives each target what a sender has, `cycles` after that is ready, without a channel."""
        self._kept.append((source, target, cycles))

    def build(self, num_sources: int, num_targets: int, num_messages: int) -> Hops:
        """The graph of all hops that were added."""
        channel, message, wait_cycles, wave = _joined(self._hops, 4)
        before, after, stored = _joined(self._links, 3)
        source, first_hop = _joined(self._starts, 2)
        last_hop, target, end_cycles = _joined(self._ends, 3)
        kept_source, kept_target, kept_cycles = _joined(self._kept, 3)
        return Hops(
            channel=channel,
            message=message,
            wait_cycles=wait_cycles,
            before=before,
            after=after,
            stored=stored.astype(bool),
            source=source,
            first_hop=first_hop,
            last_hop=last_hop,
            target=target,
            end_cycles=end_cycles,
            kept_source=kept_source,
            kept_target=kept_target,
            kept_cycles=kept_cycles,
            wave=wave,
            num_sources=num_sources,
            num_targets=num_targets,
            num_messages=num_messages,
        )


def _joined(pieces: Sequence[tuple[IntArray, ...]], columns: int) -> list[IntArray]:
    if not pieces:
        return [np.zeros(0, dtype=np.int64) for _ in range(columns)]
    return [np.concatenate(column) for column in zip(*pieces, strict=True)]


@dataclass(frozen=True, eq=False)
class Program:
    """The hops of a collective, and what its messages carry.

    Args:
        rank: (messages,) the lower goes first if requests arrive together.
        payload: numbers of the payloads that messages carry, in order of the messages.
        begin: (messages + 1,) where the payloads of each message begin and end; None: each carries one.
    """

    hops: Hops
    rank: IntArray
    payload: IntArray
    begin: IntArray | None = None

    @classmethod
    def whole(cls, hops: Hops, rank: IntArray) -> Program:
        """A program whose message i carries payload i."""
        return cls(hops, rank, np.arange(hops.num_messages, dtype=np.int64))

    def message_bytes(self, payload_bytes: IntArray) -> IntArray:
        """(messages,) bytes of each message, from the bytes of each payload."""
        carried = payload_bytes[self.payload]
        if self.begin is None:
            return carried
        before = np.concatenate([[0], np.cumsum(carried)])
        num_bytes: IntArray = before[self.begin[1:]] - before[self.begin[:-1]]
        return num_bytes
