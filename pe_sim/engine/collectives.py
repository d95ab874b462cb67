"""The event engine's collectives: who they wait for, what they occupy, whom they wake."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
from simpy import Environment, Event

from pe_sim.config.array import ArrayConfig
from pe_sim.engine.late import call_at, when_all
from pe_sim.engine.pipeline import Passage, TreePipeline
from pe_sim.engine.server import Server
from pe_sim.network.bus_tree import burst_sizes, occupancy_of
from pe_sim.schedule.stages import MessageStage, Resource, RootStage, Tag, TreeStage

if TYPE_CHECKING:
    from typing import Protocol

    from pe_sim.engine.recorder import Recorder

    class Machine(Protocol):
        """What a collective needs of the run it belongs to."""

        env: Environment
        bus: Server
        tree: TreePipeline
        downlink: TreePipeline
        root: dict[Resource, Server]
        recorder: Recorder

        def expect(self, count: int = 1) -> Callable[[], None]:
            """Announces things that have to finish; the returned call says that one of them did."""
            ...


class Delivery:
    """Readiness of data on PEs: one event a target range."""

    def __init__(self, env: Environment, order: int, target_of_pe: list[int], num_targets: int) -> None:
        self.order = order
        self.events = [Event(env) for _ in range(num_targets)]
        self._target_of_pe = target_of_pe

    def event_of(self, pe: int) -> Event:
        """The event that `pe`'s data is there."""
        return self.events[self._target_of_pe[pe]]

    def pes_of(self, target: int) -> list[int]:
        """The PEs of one target."""
        return [pe for pe, index in enumerate(self._target_of_pe) if index == target]


class HubSource:
    """Readiness of data at hubs (the root's copies or joints): one event each."""

    def __init__(self, env: Environment, order: int, num_hubs: int) -> None:
        self.order = order
        self.events = [Event(env) for _ in range(num_hubs)]

    def event_of(self, hub: int) -> Event:
        """The event that hub's data is there; a single job serves every group."""
        return self.events[hub if len(self.events) > 1 else 0]


class _Collective:
    """Counts down, per PE, the inputs that are not ready yet."""

    def __init__(self, machine: Machine, order: int, num_pes: int) -> None:
        self._machine = machine
        self.order = order
        self._pending = [0] * num_pes
        self._has_pe_inputs = False
        self.deliveries: list[Delivery] = []
        self.hub_inputs: list[HubSource] = []

    def expect_from(self, active: list[bool]) -> None:
        """One more input that is made on, or delivered to, the active PEs."""
        self._has_pe_inputs = True
        for pe, takes_part in enumerate(active):
            self._pending[pe] += takes_part

    def arrive(self, pe: int) -> None:
        """One input is ready on `pe`."""
        self._pending[pe] -= 1
        if self._pending[pe] == 0:
            self._pe_ready(pe)

    def _pe_ready(self, pe: int) -> None:
        raise NotImplementedError

    def _start_from_pes(self) -> None:
        """Watches inputs that come over the network; without any input every PE is ready at once."""
        if not self._has_pe_inputs:
            for pe in range(len(self._pending)):
                self._pe_ready(pe)
        for delivery in self.deliveries:
            for target, event in enumerate(delivery.events):
                pes = delivery.pes_of(target)
                assert event.callbacks is not None
                event.callbacks.append(partial(self._delivered, pes))

    def _delivered(self, pes: list[int], _: Event) -> None:
        for pe in pes:
            self.arrive(pe)


class RootRun:
    """Work at the root: jobs queue at its vector unit or its memory."""

    def __init__(self, machine: Machine, stage: RootStage, order: int, inputs: list[HubSource]) -> None:
        self._machine, self._stage, self._inputs = machine, stage, inputs
        self.order = order
        self.hubs = HubSource(machine.env, order, len(stage.cycles))
        self._finished = [machine.expect() for _ in self.hubs.events]

    def open(self) -> None:
        """Lets each job start when its inputs are at the root."""
        for job, cycles in enumerate(self._stage.cycles.tolist()):
            sources = [source.event_of(job) for source in self._inputs]
            when_all(sources, partial(self._request, job, cycles))

    def missing(self) -> str:
        """What has not come yet, for messages."""
        return "" if all(event.triggered for event in self.hubs.events) else "its inputs at the root"

    def _request(self, job: int, cycles: int) -> None:
        if cycles == 0:  # a group without rows
            self._complete(job)
            return
        server = self._machine.root[self._stage.resource]
        server.request(self.order, job, cycles, lambda grant: self._granted(job, grant, cycles))

    def _granted(self, job: int, grant: int, cycles: int) -> None:
        self._machine.recorder.extend(self.order, grant, grant + cycles)
        call_at(self._machine.env, grant + cycles, lambda: self._complete(job))

    def _complete(self, job: int) -> None:
        self.hubs.events[job].succeed()
        self._finished[job]()


class TreeRun(_Collective):
    """Reductions: each waits for the PEs that contribute, then passes the joints in program order."""

    def __init__(self, machine: Machine, stage: TreeStage, order: int, array: ArrayConfig) -> None:
        super().__init__(machine, order, array.num_pes)
        self._stage = stage
        self._tree = array.network.tree
        self._width = self._tree.bytes_per_cycle
        self._firsts, self._lasts = stage.first_pe.tolist(), stage.last_pe.tolist()
        self.hubs = HubSource(machine.env, order, len(self._firsts))
        self._left = [0] * len(self._firsts)
        self._reduction_of_pe = np.full(array.num_pes, -1, dtype=np.int64)
        for index, (first, last) in enumerate(zip(self._firsts, self._lasts, strict=True)):
            self._reduction_of_pe[first:last] = index
        self._passages = [self._announce(index, array.num_pes) for index in range(len(self._firsts))]

    def _announce(self, index: int, num_pes: int) -> Passage | None:
        num_bytes = int(self._stage.num_bytes[index])
        if num_bytes == 0:
            return None
        leaves = (0, num_pes) if self._stage.whole_tree else (self._firsts[index], self._lasts[index])
        beats = -(-num_bytes // self._width)
        finished = self._machine.expect()
        started = partial(self._started, index, beats, finished)
        levels, combine_cycles = self._joints(index, leaves[1] - leaves[0])
        passage = Passage(leaves[0], leaves[1], beats, started, levels, combine_cycles)
        self._machine.tree.announce(passage)
        return passage

    def _joints(self, index: int, num_leaves: int) -> tuple[int, int]:
        """Levels that a reduction passes, and the cycles a joint of it takes beside its link."""
        levels = self._tree.num_levels
        if not self._stage.whole_tree:
            levels = next(level for level in range(levels + 1) if self._tree.arity**level >= num_leaves)
        links = sum(self._tree.level_latency_cycles[:levels])
        return levels, (int(self._stage.hop_cycles[index]) - links) // max(levels, 1)

    def open(self) -> None:
        """Counts who contributes to each reduction, and lets those whose data is there begin."""
        for pe, index in enumerate(self._reduction_of_pe.tolist()):
            self._left[index] += index >= 0 and self._contributes(pe)
        for event, passage in zip(self.hubs.events, self._passages, strict=True):
            if passage is None:  # a group without rows has nothing to wait for
                event.succeed()
        self._start_from_pes()

    def missing(self) -> str:
        """PEs that have not contributed yet, for messages."""
        late = [pe for pe, count in enumerate(self._pending) if count > 0 and self._stage.active[pe]]
        if late:
            return f"PEs {late[:8]}{' ...' if len(late) > 8 else ''}"
        stuck = [passage for passage in self._passages if passage is not None and not passage.has_started]
        if any(passage.ready_at is None for passage in stuck):
            return "PEs, but none contributes"
        return "the reductions before it at its joints" if stuck else ""

    def _pe_ready(self, pe: int) -> None:
        index = int(self._reduction_of_pe[pe])
        if index < 0 or not self._stage.active[pe]:
            return
        self._left[index] -= 1
        passage = self._passages[index]
        if self._left[index] == 0 and passage is not None:
            self._machine.tree.ready(passage, int(self._machine.env.now))

    def _contributes(self, pe: int) -> bool:
        return bool(self._stage.active[pe]) and (self._pending[pe] > 0 or not self._has_pe_inputs)

    def _started(self, index: int, beats: int, finished: Callable[[], None], start: int) -> None:
        end = start + int(self._stage.hop_cycles[index]) + beats
        recorder = self._machine.recorder
        num_bytes = int(self._stage.num_bytes[index])
        recorder.extend(self.order, start, end)
        recorder.message(Tag.REDUCE, num_bytes, beats)
        recorder.channel_use(Resource.TREE, Tag.REDUCE, self.order, start, start + beats, num_bytes)
        call_at(self._machine.env, end, lambda: self._complete(index, finished))

    def _complete(self, index: int, finished: Callable[[], None]) -> None:
        self.hubs.events[index].succeed()
        finished()


class MessageRun(_Collective):
    """Messages: each is requested when its sender's data is ready; a target is ready with its last message."""

    def __init__(self, machine: Machine, stage: MessageStage, order: int, array: ArrayConfig) -> None:
        super().__init__(machine, order, array.num_pes)
        self._stage, self._bus_config = stage, array.network.bus
        self._tree_width = array.network.tree.bytes_per_cycle
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

    def _make_result(self, env: Environment, num_targets: int, num_pes: int) -> Delivery | HubSource:
        if self._stage.to_root:
            return HubSource(env, self.order, num_targets)
        target_of_pe = np.full(num_pes, -1, dtype=np.int64)
        ranges = zip(self._stage.first_pe.tolist(), self._stage.last_pe.tolist(), strict=True)
        for target, (first, last) in enumerate(ranges):
            target_of_pe[first:last] = target
        return Delivery(env, self.order, target_of_pe.tolist(), num_targets)

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
        """Targets nobody sends to are ready at once; the others wait for their senders."""
        for target, count in enumerate(self._left):
            if count == 0:
                self.result.events[target].succeed()
        if self._stage.from_pe:
            self._start_from_pes()
        else:
            for hub, messages in self._messages_of.items():
                sources = [source.event_of(hub) for source in self.hub_inputs]
                when_all([*sources, *self._gate()], partial(self._send_all, messages))

    def _gate(self) -> list[Event]:
        """For the root's messages that wait for PEs to be done with something: the event that all are."""
        self._late = sum(count > 0 for count in self._pending)
        if not self._late:
            return []
        self._all_done = Event(self._machine.env)
        self._start_from_pes()
        return [self._all_done]

    def missing(self) -> str:
        """Who has not sent yet, for messages."""
        unsent = [target for target, count in enumerate(self._left) if count > 0]
        return f"messages to targets {unsent[:8]}{' ...' if len(unsent) > 8 else ''}" if unsent else ""

    def _pe_ready(self, pe: int) -> None:
        if self._stage.from_pe:
            self._send_all(self._messages_of.get(pe, []))
            return
        self._late -= 1
        if self._late == 0:
            self._all_done.succeed()

    def _send_all(self, messages: list[int]) -> None:
        """Sends what one sender has for this stage: nothing can come between messages that ask together."""
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
        arrivals: list[tuple[int, int]] = []
        start = grant
        for (message, size), cycles in zip(train, busy, strict=False):
            release = start + cycles
            recorder.channel_use(Resource.BUS, tag, self.order, start, release, size)
            arrivals.append((release + self._bus_config.latency_cycles, message))
            start = release
        if len(busy) < len(train):  # a burst that is not its message's last
            recorder.extend(self.order, grant, start)
            recorder.busy(tag, busy[0])
            call_at(self._machine.env, start, partial(self._request, train[1:]))
            return
        recorder.extend(self.order, grant, arrivals[-1][0])
        for (_, message), cycles in zip(arrivals, busy, strict=True):
            recorder.message(tag, self._bytes[message], cycles)
        self._await_arrivals(arrivals, 0)

    def _await_arrivals(self, arrivals: list[tuple[int, int]], position: int) -> None:
        """Completes one message after the other, each in its cycle."""
        cycle, message = arrivals[position]

        def complete() -> None:
            self._complete(message)
            if position + 1 < len(arrivals):
                self._await_arrivals(arrivals, position + 1)

        call_at(self._machine.env, cycle, complete)

    def _goes_down(self, message: int, beats: int, start: int) -> None:
        end = start + int(self._stage.hop_cycles[self._targets[message]]) + beats
        recorder = self._machine.recorder
        recorder.extend(self.order, start, end)
        recorder.message(self._stage.tag, self._bytes[message], beats)
        recorder.channel_use(Resource.DOWNLINK, self._stage.tag, self.order, start, start + beats, self._bytes[message])
        call_at(self._machine.env, end, lambda: self._complete(message))

    def _complete(self, message: int) -> None:
        target = self._targets[message]
        self._left[target] -= 1
        if self._left[target] == 0:
            self.result.events[target].succeed()
        self._finished()
