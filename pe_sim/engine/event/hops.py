"""Collectives over graphs of channels in the event engine: a hop waits for what feeds it, then for its channel."""

from __future__ import annotations

from functools import partial

import numpy as np

from pe_sim.config.arrays.array import ArrayConfig
from pe_sim.engine.event.collectives import Delivering
from pe_sim.engine.event.machine import Machine, call_at, when_all
from pe_sim.engine.event.pe import Delivery, HubSource
from pe_sim.network.interconnect import interconnect_of
from pe_sim.schedule.stages import RoutedStage, Tag
from pe_sim.units import IntArray

_NEVER = -1


class RoutedRun(Delivering):
    """One run of a stage's hops; `network.routing.hop_times` gives the same times by recurrences."""

    def __init__(self, machine: Machine, stage: RoutedStage, order: int, array: ArrayConfig) -> None:
        super().__init__(machine, order, array.num_pes)
        self._stage, hops = stage, stage.hops
        channels = interconnect_of(array).topology.channels
        beats, busy = hops.occupancy(channels, stage.num_bytes, stage.source_rate)
        self._channel, self._wait = hops.channel.tolist(), hops.wait_cycles.tolist()
        self._beats, self._busy = beats.tolist(), busy.tolist()
        self._latency = channels.latency_cycles[hops.channel].tolist()
        self._head_delay = (channels.overhead_cycles + channels.latency_cycles)[hops.channel].tolist()
        self._rank = stage.rank[hops.message].tolist()
        self._bytes = stage.num_bytes[hops.message].tolist()
        self._waits_for = (
            np.bincount(hops.after, minlength=len(hops)) + np.bincount(hops.first_hop, minlength=len(hops))
        ).tolist()
        self._tail_in = [_NEVER] * len(hops)
        self._links_of_hop = _grouped(hops.before, np.arange(len(hops.before)))
        self._after, self._stored = hops.after.tolist(), hops.stored.tolist()
        self._hops_of_source = _grouped(hops.source, hops.first_hop)
        self._kept_of_source = _grouped(hops.kept_source, np.arange(len(hops.kept_source)))
        self._ends_of_hop = _grouped(hops.last_hop, np.arange(len(hops.last_hop)))
        self._end_target, self._end_cycles = hops.target.tolist(), hops.end_cycles.tolist()
        self._kept_target, self._kept_cycles = hops.kept_target.tolist(), hops.kept_cycles.tolist()
        expected = np.bincount(hops.target, minlength=hops.num_targets)
        expected += np.bincount(hops.kept_target, minlength=hops.num_targets)
        self._left, self._unforeseen = expected.tolist(), expected.tolist()
        self._last_tail = [_NEVER] * hops.num_targets
        self.result = self._make_result(hops.num_targets)
        self._finished = machine.expect(int(expected.sum()))
        machine.recorder.messages(stage.tag, stage.counted_bytes.tolist(), int(busy.sum()))

    def _make_result(self, num_targets: int) -> Delivery | HubSource:
        env = self._machine.env
        if self._stage.to_pes is None:
            return HubSource(env, self.order, num_targets)
        own = np.where(self._stage.to_pes, np.arange(num_targets), -1)
        return Delivery(env, self.order, own.tolist(), num_targets, streams=self._stage.streams)

    def open(self) -> None:
        """Makes targets that get nothing ready at once; the others wait for their senders."""
        self._release_idle(streams=self._stage.streams)
        if self._stage.from_pe:
            self._start_from_pes()
            self._send_zeros()
            return
        for hub in sorted({*self._hops_of_source, *self._kept_of_source}):
            self._open_hub(hub)

    def _send_zeros(self) -> None:
        """Sends at once the zeros of PEs on which the layer before made nothing."""
        for pe in sorted({*self._hops_of_source, *self._kept_of_source}):
            if self._has_pe_inputs and self._pending[pe] == 0:
                self._send(pe)

    def _open_hub(self, hub: int) -> None:
        if self._stage.early_cycles is not None:
            early = int(self._stage.early_cycles[hub])
            self.hub_inputs[0].watch_tail(hub, partial(self._send_early, hub, early))
            return
        gate = self._gate() if self._stage.tag is Tag.WEIGHT_STREAM else []
        when_all([*self._hub_events(hub, self._stage.tag), *gate], partial(self._send, hub))

    def _send_early(self, hub: int, early: int, tail: int) -> None:
        call_at(self._machine.env, tail - early, partial(self._send, hub))

    def _pe_ready(self, pe: int) -> None:
        if self._stage.from_pe:
            self._send(pe)
        else:
            self._pe_done()

    def _send(self, source: int) -> None:
        now = int(self._machine.env.now)
        for hop in self._hops_of_source.get(source, ()):
            self._feed(hop, now)
        for kept in self._kept_of_source.get(source, ()):
            target, cycle = self._kept_target[kept], now + self._kept_cycles[kept]
            self._machine.recorder.part(self.order, len(self._busy) + kept, now, cycle)
            self._foresee(target, cycle)
            call_at(self._machine.env, cycle, partial(self._complete, target))
            if self._stage.streams:
                call_at(self._machine.env, cycle, partial(self._show, target))

    def _feed(self, hop: int, tail: int) -> None:
        """Says that one more of what the hop waits for is there now, whose tail comes at `tail`."""
        self._tail_in[hop] = max(self._tail_in[hop], tail)
        self._waits_for[hop] -= 1
        if self._waits_for[hop] == 0:
            wait = self._wait[hop]
            if wait:
                call_at(self._machine.env, int(self._machine.env.now) + wait, partial(self._request, hop))
            else:
                self._request(hop)

    def _request(self, hop: int) -> None:
        server = self._machine.channel(self._channel[hop])
        server.request(self.order, self._rank[hop], self._busy[hop], partial(self._granted, hop), index=hop)

    def _granted(self, hop: int, grant: int) -> None:
        env, recorder = self._machine.env, self._machine.recorder
        head = grant + self._head_delay[hop]
        tail = max(head + self._beats[hop], self._tail_in[hop] + self._wait[hop] + self._latency[hop])
        recorder.part(self.order, hop, grant, tail)
        if self._busy[hop]:
            channel, release = self._channel[hop], grant + self._busy[hop]
            recorder.channel_use(channel, self._stage.tag, self.order, grant, release, self._bytes[hop], hop)
        links = self._links_of_hop.get(hop, ())
        at_head = [self._after[link] for link in links if not self._stored[link]]
        if at_head:
            call_at(env, head, partial(self._feed_all, at_head, tail))
        at_tail = [self._after[link] for link in links if self._stored[link]]
        if at_tail:
            call_at(env, tail, partial(self._feed_all, at_tail, tail))
        for end in self._ends_of_hop.get(hop, ()):
            target, cycle = self._end_target[end], tail + self._end_cycles[end]
            self._foresee(target, cycle)
            call_at(env, cycle, partial(self._complete, target))
            if self._stage.streams:
                call_at(env, head + self._end_cycles[end], partial(self._show, target))

    def _feed_all(self, hops: list[int], tail: int) -> None:
        for hop in hops:
            self._feed(hop, tail)

    def _foresee(self, target: int, tail: int) -> None:
        """Says that one more of what a target gets is under way; once all is, the target's tail is known."""
        self._last_tail[target] = max(self._last_tail[target], tail)
        self._unforeseen[target] -= 1
        if self._unforeseen[target] == 0 and isinstance(self.result, HubSource):
            self.result.foretell_tail(target, self._last_tail[target])

    def _show(self, target: int) -> None:
        assert isinstance(self.result, Delivery)
        self.result.heads[target].succeed()


def _grouped(keys: IntArray, values: IntArray) -> dict[int, list[int]]:
    """The values of each key, in the order given."""
    groups: dict[int, list[int]] = {}
    for key, value in zip(keys.tolist(), values.tolist(), strict=True):
        groups.setdefault(key, []).append(value)
    return groups
