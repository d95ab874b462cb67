"""Collectives in rounds: in each, an end point sends at most one message and gets at most one, stored on arrival."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pe_sim.network.interconnect import Interconnect
from pe_sim.network.routing.flows import NONE, Paths
from pe_sim.network.routing.hops import Hops, Program, Wave, require_hops
from pe_sim.units import IntArray

_NO_ENTRIES = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Costs:
    """Cycles that messages cost at end points.

    Args:
        send: cycles before every message.
        receive: cycles from the arrival of a message to its use.
    """

    send: int = 0
    receive: int = 0


@dataclass(frozen=True, slots=True)
class _Feeds:
    """(feeds,) what a round's messages wait for: `message` for all of hop `before` + round * `shift`."""

    before: IntArray
    shift: IntArray
    message: IntArray


class RoundsBuilder:
    """Collects rounds of messages into hops; an end point sends when it has what it got before.

    Within a run of equal rounds (`repeat`) a message waits for the one its sender got in the round before; across
    `settle` it waits for the last message of every run before.
    """

    def __init__(self, interconnect: Interconnect, nodes: IntArray, source_of: IntArray, costs: Costs) -> None:
        """Begins without any rounds.

        Args:
            interconnect: the interconnect over which messages go.
            nodes: (ends,) node of each end point.
            source_of: (ends,) entry among the senders that has to be ready before it sends; NONE: none.
            costs: costs at end points.
        """
        self._interconnect, self._nodes, self._source_of, self._costs = interconnect, nodes, source_of, costs
        self._latest = np.full(len(nodes), NONE, dtype=np.int64)
        self._settled: list[IntArray] = []
        self._ramp = np.zeros(len(nodes), dtype=np.int64)
        self._hops: list[tuple[IntArray, ...]] = []
        self._links: list[tuple[IntArray, ...]] = []
        self._starts: list[tuple[IntArray, ...]] = []
        self._messages: list[tuple[IntArray, ...]] = []
        self._waves: list[Wave] = []
        self._num_hops = self._num_messages = self._num_waves = 0

    def repeat(self, senders: IntArray, receivers: IntArray, carried: IntArray) -> None:
        """Adds rounds with the same senders and receivers, as many as `carried` has.

        Args:
            senders, receivers: (messages,) end points, each at most once.
            carried: (rounds, messages, k) payloads.
        """
        if not carried.size or not len(senders):
            return
        paths = self._interconnect.flows.paths(self._nodes[senders], self._nodes[receivers])
        run = _Run(paths, senders, receivers, carried.shape[0], self._num_hops)
        require_hops(self._num_hops + run.rounds * run.hops)
        late, first_round, later = self._feeds(run)
        self._add_hops(run, late)
        self._add_links(run, first_round, later)
        self._messages.append((np.tile(senders, run.rounds), carried.reshape(-1), _sizes(carried)))
        self._add_waves(run, first_round, later)
        last = run.last_round + paths.last
        self._latest[receivers] = last
        self._num_hops += run.rounds * run.hops
        self._num_messages += run.rounds * len(senders)

    def settle(self) -> None:
        """Makes all that is added from now on wait for everything that its senders got so far."""
        self._settled.append(self._latest)
        self._latest = np.full_like(self._latest, NONE)

    def finish(self, ends: IntArray, targets: IntArray, num_sources: int, num_targets: int) -> Hops:
        """The hops of all rounds; `targets` are the targets at the `ends`, whole when all that they get has arrived.

        An end point that is a sender too is done no sooner than it is ready.
        """
        arrived = self._arrivals(ends)
        channel, message, wait, wave = _joined(self._hops, 4)
        before, after, stored = _joined(self._links, 3)
        source, first_hop = _joined(self._starts, 2)
        own = np.flatnonzero(self._source_of[ends] != NONE)
        got = np.zeros(len(ends), dtype=bool)
        for position, _, _ in arrived:
            got[position] = True
        return Hops(
            channel=channel,
            message=message,
            wait_cycles=wait,
            before=before,
            after=after,
            stored=stored.astype(bool),
            source=source,
            first_hop=first_hop,
            last_hop=_column(arrived, 1),
            target=targets[_column(arrived, 0)],
            end_cycles=_column(arrived, 2),
            kept_source=self._source_of[ends[own]],
            kept_target=targets[own],
            kept_cycles=np.where(got[own], self._costs.receive, 0),
            wave=wave,
            num_sources=num_sources,
            num_targets=num_targets,
            num_messages=self._num_messages,
            known_waves=tuple(self._waves),
        )

    def program(self, hops: Hops, rank_of: IntArray) -> Program:
        """The program of finished hops; `rank_of`: (ends,) ranks of those that ask at once."""
        senders, payload, sizes = _joined(self._messages, 3)
        begin = None if (sizes == 1).all() else np.concatenate([[0], np.cumsum(sizes)])
        return Program(hops, rank_of[senders], payload, begin)

    def _arrivals(self, ends: IntArray) -> list[tuple[IntArray, IntArray, IntArray]]:
        """The hops that brought the ends what they have: (position in `ends`, hop, cycles until use) per `settle`."""
        found = []
        for latest in self._settled:
            got = np.flatnonzero(latest[ends] != NONE)
            found.append((got, latest[ends[got]], self._ramp[ends[got]] + self._costs.receive))
        return found

    def _feeds(self, run: _Run) -> tuple[IntArray, _Feeds, _Feeds]:
        """(2, messages) cycles before the first hop of each message, and what messages wait for.

        Both are given for the first round of a run and for later ones.
        """
        settled = [latest[run.senders] for latest in self._settled]
        carried_on = self._latest[run.senders]
        incoming = np.full(len(self._ramp), NONE, dtype=np.int64)
        incoming[run.receivers] = np.arange(len(run.receivers))
        incoming = incoming[run.senders]
        before = [np.flatnonzero(hop != NONE) for hop in settled]
        fixed_hop = [hop[got] for hop, got in zip(settled, before, strict=True)]
        old, new = np.flatnonzero(carried_on != NONE), np.flatnonzero(incoming != NONE)
        first_round = _feeds_of([*fixed_hop, carried_on[old]], [*before, old])
        last = run.paths.last[incoming[new]] + run.base - run.hops
        later = _feeds_of([*fixed_hop, last], [*before, new], len(new), run.hops)
        costs = np.full((2, len(run.senders)), self._costs.send, dtype=np.int64)
        for row, feeds in ((0, first_round), (1, later)):
            if row:
                self._ramp[run.receivers] = np.maximum(self._ramp[run.receivers], run.paths.end_cycles)
            waiting = np.unique(feeds.message)
            costs[row, waiting] += self._ramp[run.senders[waiting]] + self._costs.receive
        return costs, first_round, later

    def _add_hops(self, run: _Run, costs: IntArray) -> None:
        paths, turns = run.paths, np.arange(run.rounds, dtype=np.int64)[:, None]
        wait = np.tile(paths.wait_cycles, (run.rounds, 1))
        wait[0, paths.first] += costs[0]
        wait[1:, paths.first] += costs[1]
        message = self._num_messages + turns * len(run.senders) + paths.message
        wave = self._num_waves + turns * run.steps + paths.step
        self._hops.append((np.tile(paths.channel, run.rounds), message.ravel(), wait.ravel(), wave.ravel()))

    def _add_links(self, run: _Run, first_round: _Feeds, later: _Feeds) -> None:
        paths, offsets = run.paths, run.base + np.arange(run.rounds, dtype=np.int64)[:, None] * run.hops
        before, after = (paths.before + offsets).ravel(), (paths.after + offsets).ravel()
        self._links.append((before, after, np.zeros(len(before), dtype=np.int64)))
        for feeds, turns in ((first_round, np.arange(1)), (later, np.arange(1, run.rounds))):
            before = feeds.before + feeds.shift * turns[:, None]
            after = paths.first[feeds.message] + run.base + run.hops * turns[:, None]
            self._links.append((before.ravel(), after.ravel(), np.ones(before.size, dtype=np.int64)))
        source = self._source_of[run.senders]
        ready = np.flatnonzero(source != NONE)
        self._starts.append((np.tile(source[ready], run.rounds), (paths.first[ready] + offsets).ravel()))

    def _add_waves(self, run: _Run, first_round: _Feeds, later: _Feeds) -> None:
        source = self._source_of[run.senders]
        inside = _inner_waves(run.paths)
        start = {True: _first_wave(run.paths, source, first_round), False: _first_wave(run.paths, source, later)}
        for turn in range(run.rounds):
            offset = run.base + turn * run.hops
            feeds, (wave, links) = (later, start[False]) if turn else (first_round, start[True])
            before = (feeds.before + feeds.shift * turn)[links]
            self._waves.append(_shifted(wave, offset, before))
            self._waves += [_shifted(wave, offset, wave.before + offset) for wave in inside]
        self._num_waves += run.rounds * run.steps


@dataclass(frozen=True, eq=False, slots=True)
class _Run:
    """Equal rounds: their paths, senders and receivers, how many there are, and their first hop's number (`base`)."""

    paths: Paths
    senders: IntArray
    receivers: IntArray
    rounds: int
    base: int

    @property
    def hops(self) -> int:
        """Number of hops of one round."""
        return len(self.paths.channel)

    @property
    def steps(self) -> int:
        """Number of hops of the longest path."""
        return int(self.paths.step.max()) + 1

    @property
    def last_round(self) -> int:
        """Number of the first hop of the last round."""
        return self.base + (self.rounds - 1) * self.hops


def _feeds_of(hops: Sequence[IntArray], messages: Sequence[IntArray], moving: int = 0, shift: int = 0) -> _Feeds:
    """Feeds of messages by hops, of which the last `moving` move on by `shift` a round."""
    before, message = np.concatenate(hops), np.concatenate(messages)
    shifts = np.zeros(len(before), dtype=np.int64)
    shifts[len(before) - moving :] = shift
    return _Feeds(before, shifts, message)


def _first_wave(paths: Paths, source: IntArray, feeds: _Feeds) -> tuple[Wave, IntArray]:
    """The wave of the first hops of a round, and the order in which it lists the round's feeds."""
    order = np.argsort(paths.channel[paths.first], kind="stable")
    position = np.empty(len(order), dtype=np.int64)
    position[order] = np.arange(len(order))
    links = np.argsort(position[feeds.message], kind="stable")
    linked, first_link = np.unique(position[feeds.message][links], return_index=True)
    ready = np.flatnonzero(source != NONE)
    hops = paths.first[order]
    starts = _first_on_channel(paths.channel[hops])
    wave = Wave(
        hops=hops,
        sources=source[ready],
        fed=position[ready],
        before=_NO_ENTRIES,
        stored=np.ones(len(links), dtype=bool),
        first_link=first_link,
        linked=linked,
        shared=len(starts) < len(hops),
        first_on_channel=starts,
    )
    return wave, links


def _inner_waves(paths: Paths) -> list[Wave]:
    """The waves of the second, third, ... hops of a round's messages."""
    order = np.lexsort((paths.channel, paths.step))
    bounds = np.flatnonzero(np.diff(paths.step[order])) + 1
    return [_inner_wave(paths, hops) for hops in np.split(order, bounds)[1:]]


def _inner_wave(paths: Paths, hops: IntArray) -> Wave:
    every, starts = np.arange(len(hops)), _first_on_channel(paths.channel[hops])
    return Wave(
        hops=hops,
        sources=_NO_ENTRIES,
        fed=_NO_ENTRIES,
        before=hops - 1,
        stored=np.zeros(len(hops), dtype=bool),
        first_link=every,
        linked=every,
        shared=len(starts) < len(hops),
        first_on_channel=starts,
    )


def _shifted(wave: Wave, offset: int, before: IntArray) -> Wave:
    return Wave(
        wave.hops + offset,
        wave.sources,
        wave.fed,
        before,
        wave.stored,
        wave.first_link,
        wave.linked,
        wave.shared,
        wave.first_on_channel,
    )


def _first_on_channel(channel: IntArray) -> IntArray:
    return np.concatenate([[0], np.flatnonzero(np.diff(channel)) + 1]).astype(np.int64)


def _sizes(carried: IntArray) -> IntArray:
    return np.full(carried.shape[0] * carried.shape[1], carried.shape[2], dtype=np.int64)


def _joined(pieces: Sequence[tuple[IntArray, ...]], columns: int) -> list[IntArray]:
    if not pieces:
        return [_NO_ENTRIES for _ in range(columns)]
    return [np.concatenate(column) for column in zip(*pieces, strict=True)]


def _column(pieces: Sequence[tuple[IntArray, ...]], column: int) -> IntArray:
    return np.concatenate([_NO_ENTRIES, *(piece[column] for piece in pieces)])
