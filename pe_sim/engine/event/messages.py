"""Messages in the event engine: requested when their senders' data is there, one after another on the bus."""

from __future__ import annotations

from functools import partial
from itertools import groupby

import numpy as np
from simpy import Environment, Event

from pe_sim.config.arrays.array import ArrayConfig
from pe_sim.engine.event.collectives import Delivering
from pe_sim.engine.event.machine import Machine, Passage, call_at, when_all
from pe_sim.engine.event.pe import Delivery, HubSource
from pe_sim.network.bus_tree import burst_sizes, occupancy_of
from pe_sim.schedule.stages import CHANNELS, MessageStage, Resource


class MessageRun(Delivering):
    """One run of a stage's messages: each is requested when its data is ready; a target is ready with its last one."""

    def __init__(self, machine: Machine, stage: MessageStage, order: int, array: ArrayConfig) -> None:
        super().__init__(machine, order, array.num_pes)
        self._stage, self._bus_config = stage, array.bus_tree.bus
        self._tree_width = array.bus_tree.tree.bytes_per_cycle
        self._sources, self._targets = stage.source.tolist(), stage.target.tolist()
        self._bytes, self._ranks = stage.num_bytes.tolist(), stage.rank.tolist()
        num_targets = len(stage.first_pe)
        self._left = np.bincount(stage.target, minlength=num_targets).tolist()
        self.result = self._make_result(machine.env, num_targets, array.num_pes)
        self._finished = machine.expect(len(self._bytes))
        self._messages_of: dict[int, list[int]] = {}
        for message, source in enumerate(self._sources):
            self._messages_of.setdefault(source, []).append(message)
        self._passages = self._announce() if stage.channel is Resource.DOWNLINK else []
        self._headed: set[int] = set()

    def _make_result(self, env: Environment, num_targets: int, num_pes: int) -> Delivery | HubSource:
        if self._stage.to_root:
            return HubSource(env, self.order, num_targets)
        target_of_pe = np.full(num_pes, -1, dtype=np.int64)
        ranges = zip(self._stage.first_pe.tolist(), self._stage.last_pe.tolist(), strict=True)
        for target, (first, last) in enumerate(ranges):
            target_of_pe[first:last] = target
        return Delivery(env, self.order, target_of_pe.tolist(), num_targets, streams=self._stage.streams)

    def _announce(self) -> list[Passage]:
        passages = []
        for message, target in enumerate(self._targets):
            leaves = int(self._stage.first_pe[target]), int(self._stage.last_pe[target])
            beats = -(-self._bytes[message] // self._tree_width)
            passage = Passage(leaves[0], leaves[1], beats, partial(self._goes_down, message, beats))
            self._machine.downlink.announce(passage)
            passages.append(passage)
        return passages

    def open(self) -> None:
        """Makes targets nobody sends to ready at once; the others wait for their senders."""
        self._release_idle(streams=self._stage.streams)
        if self._stage.from_pe:
            self._start_from_pes()
        elif self._stage.early_cycles is not None:
            for hub, messages in self._messages_of.items():
                self.hub_inputs[0].watch_tail(hub, partial(self._send_early, messages))
        else:
            for hub, messages in self._messages_of.items():
                when_all([*self._hub_events(hub, self._stage.tag), *self._gate()], partial(self._send_all, messages))

    def _pe_ready(self, pe: int) -> None:
        if self._stage.from_pe:
            self._send_all(self._messages_of.get(pe, []))
        else:
            self._pe_done()

    def _send_all(self, messages: list[int]) -> None:
        """Sends the messages of one sender, which ask together, so that nothing can come between them."""
        if self._passages:
            for message in messages:
                self._machine.downlink.ready(self._passages[message], int(self._machine.env.now))
            return
        if not messages:
            return
        bursts = [
            (message, size) for message in messages for size in burst_sizes(self._bus_config, self._bytes[message])
        ]
        travel = 0 if self._ranks[messages[0]] < 0 else self._bus_config.request_cycles
        if len(bursts) == len(messages):
            trains = [bursts]
        else:
            trains = [list(train) for _, train in groupby(bursts, key=lambda burst: burst[0])]
        for train in trains:
            if travel:
                call_at(self._machine.env, int(self._machine.env.now) + travel, partial(self._request, train))
            else:
                self._request(train)

    def _send_early(self, messages: list[int], tail: int) -> None:
        """Makes the root forward a reduced vector, whose tail comes at `tail`, without waiting for that."""
        assert self._stage.early_cycles is not None
        early = int(self._stage.early_cycles[messages[0]])
        call_at(self._machine.env, tail - early, partial(self._send_all, messages))

    def _request(self, train: list[tuple[int, int]]) -> None:
        """Asks for the bus: for whole messages at once, for bursts of one message one by one."""
        message = train[0][0]
        one_by_one = len(train) > 1 and train[1][0] == message
        busy = [self._occupancy(size) for _, size in (train[:1] if one_by_one else train)]
        granted = partial(self._granted, train, busy)
        self._machine.bus.request(self.order, self._ranks[message], sum(busy), granted, index=message)

    def _occupancy(self, num_bytes: int) -> int:
        return occupancy_of(self._bus_config, num_bytes, self._stage.source_rate)

    def _granted(self, train: list[tuple[int, int]], busy: list[int], grant: int) -> None:
        recorder, tag = self._machine.recorder, self._stage.tag
        self._show_heads(train, busy, grant)
        arrivals: list[tuple[int, int]] = []
        start, bus = grant, CHANNELS.index(Resource.BUS)
        for (message, size), cycles in zip(train, busy, strict=False):
            release = start + cycles
            arrival = release + self._bus_config.latency_cycles
            recorder.channel_use(bus, tag, self.order, start, release, size, message)
            recorder.part(self.order, message, start, arrival)
            arrivals.append((arrival, message))
            start = release
        if len(busy) < len(train):  # a burst that is not its message's last
            recorder.busy(tag, busy[0])
            call_at(self._machine.env, start, partial(self._request, train[1:]))
            return
        for (_, message), cycles in zip(arrivals, busy, strict=True):
            recorder.message(tag, self._bytes[message], cycles)
        self._await_arrivals(arrivals, 0)

    def _show_heads(self, train: list[tuple[int, int]], busy: list[int], grant: int) -> None:
        """Announces each message's head at its receivers, ω + λ after its first burst was granted."""
        if not self._stage.streams:
            return
        assert isinstance(self.result, Delivery)
        bus, start = self._bus_config, grant
        for (message, _), cycles in zip(train, busy, strict=False):
            target = self._targets[message]
            if target not in self._headed:
                self._headed.add(target)
                head = self.result.heads[target]
                call_at(self._machine.env, start + bus.overhead_cycles + bus.latency_cycles, partial(_succeed, head))
            start += cycles

    def _await_arrivals(self, arrivals: list[tuple[int, int]], position: int) -> None:
        """Completes one message after the other, each in its cycle."""
        cycle, message = arrivals[position]

        def complete() -> None:
            self._complete(self._targets[message])
            if position + 1 < len(arrivals):
                self._await_arrivals(arrivals, position + 1)

        call_at(self._machine.env, cycle, complete)

    def _goes_down(self, message: int, beats: int, start: int) -> None:
        end = start + int(self._stage.hop_cycles[self._targets[message]]) + beats
        recorder, tag, num_bytes = self._machine.recorder, self._stage.tag, self._bytes[message]
        recorder.part(self.order, message, start, end)
        recorder.message(tag, num_bytes, beats)
        downlink = CHANNELS.index(Resource.DOWNLINK)
        recorder.channel_use(downlink, tag, self.order, start, start + beats, num_bytes, message)
        call_at(self._machine.env, end, lambda: self._complete(self._targets[message]))


def _succeed(event: Event) -> None:
    event.succeed()
