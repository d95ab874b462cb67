"""Reductions and jobs at the root in the event engine: what they wait for, what they occupy and what they wake."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial

import numpy as np
from simpy import Event

from pe_sim.config.arrays.array import ArrayConfig
from pe_sim.engine.event.machine import Machine, Passage, call_at, when_all
from pe_sim.engine.event.pe import Delivery, HubSource
from pe_sim.schedule.stages import CHANNELS, Resource, RootStage, Tag, TreeStage


class Collective(ABC):
    """Base of what waits for PEs: it counts down, per PE, the inputs that are not ready yet."""

    def __init__(self, machine: Machine, order: int, num_pes: int) -> None:
        self._machine = machine
        self.order = order
        self._pending = [0] * num_pes
        self._has_pe_inputs = False
        self.deliveries: list[Delivery] = []
        self.hub_inputs: list[HubSource] = []

    def expect_from(self, active: list[bool]) -> None:
        """Announces one more input, which is made on, or delivered to, the active PEs."""
        self._has_pe_inputs = True
        for pe, takes_part in enumerate(active):
            self._pending[pe] += takes_part

    def arrive(self, pe: int) -> None:
        """Says that one input is ready on `pe`."""
        self._pending[pe] -= 1
        if self._pending[pe] == 0:
            self._pe_ready(pe)

    @abstractmethod
    def open(self) -> None:
        """Starts what waits for nothing, and watches what the rest waits for."""

    @abstractmethod
    def missing(self) -> str:
        """Description of what has not come yet, for error messages; empty if nothing."""

    @abstractmethod
    def _pe_ready(self, pe: int) -> None: ...

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

    def _gate(self) -> list[Event]:
        """The event that all PEs are done with what messages of the root wait for, as a list; empty if they are."""
        self._late = sum(count > 0 for count in self._pending)
        if not self._late:
            return []
        self._all_done = Event(self._machine.env)
        self._start_from_pes()
        return [self._all_done]

    def _pe_done(self) -> None:
        self._late -= 1
        if self._late == 0:
            self._all_done.succeed()

    def _delivered(self, pes: list[int], _: Event) -> None:
        for pe in pes:
            self.arrive(pe)


class Delivering(Collective):
    """A collective with targets: each is ready when nothing that it gets is left."""

    result: Delivery | HubSource
    _left: list[int]
    _finished: Callable[[], None]

    def _release_idle(self, *, streams: bool) -> None:
        """Makes targets that get nothing ready at once."""
        for target, count in enumerate(self._left):
            if count == 0:
                self.result.events[target].succeed()
                if streams and isinstance(self.result, Delivery):
                    self.result.heads[target].succeed()

    def _complete(self, target: int) -> None:
        """Says that one more of what a target gets is there."""
        self._left[target] -= 1
        if self._left[target] == 0:
            if isinstance(self.result, Delivery):
                self.result.tail_at[target] = int(self._machine.env.now)
            self.result.events[target].succeed()
        self._finished()

    def _hub_events(self, hub: int, tag: Tag) -> list[Event]:
        """The events of inputs that a hub waits for: its own, or those of all hubs where weights are streamed."""
        if tag is Tag.WEIGHT_STREAM:
            return [event for source in self.hub_inputs for event in source.events]
        return [source.event_of(hub) for source in self.hub_inputs]

    def missing(self) -> str:
        """Description of the targets that have not got everything yet, for error messages; empty if none."""
        late = [target for target, count in enumerate(self._left) if count > 0]
        return f"messages to targets {late[:8]}{' ...' if len(late) > 8 else ''}" if late else ""


class RootRun:
    """Work at the root: jobs queue at its vector unit or its memory."""

    def __init__(self, machine: Machine, stage: RootStage, order: int, inputs: list[HubSource]) -> None:
        self._machine, self._stage, self._inputs = machine, stage, inputs
        self.order = order
        self.hubs = HubSource(machine.env, order, len(stage.cycles))
        self._finished = [machine.expect() for _ in self.hubs.events]

    def open(self) -> None:
        """Makes each job start when its inputs are at the root."""
        for job, cycles in enumerate(self._stage.cycles.tolist()):
            sources = [source.event_of(job) for source in self._inputs]
            when_all(sources, partial(self._request, job, cycles))

    def missing(self) -> str:
        """Description of what has not come yet, for error messages; empty if nothing."""
        return "" if all(event.triggered for event in self.hubs.events) else "its inputs at the root"

    def _request(self, job: int, cycles: int) -> None:
        if cycles == 0:  # a group without rows
            now = int(self._machine.env.now)
            self._machine.recorder.part(self.order, job, now, now)
            self._complete(job)
            return
        server = self._machine.root[self._stage.resource]
        server.request(self.order, job, cycles, lambda grant: self._granted(job, grant, cycles))

    def _granted(self, job: int, grant: int, cycles: int) -> None:
        self._machine.recorder.part(self.order, job, grant, grant + cycles)
        call_at(self._machine.env, grant + cycles, lambda: self._complete(job))

    def _complete(self, job: int) -> None:
        self.hubs.events[job].succeed()
        self._finished[job]()


class TreeRun(Collective):
    """Reductions: each waits for the PEs that contribute, then passes the joints in program order."""

    def __init__(self, machine: Machine, stage: TreeStage, order: int, array: ArrayConfig) -> None:
        super().__init__(machine, order, array.num_pes)
        self._stage = stage
        self._tree = array.bus_tree.tree
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
        combine_cycles = self._stage.combine_cycles(self._tree)
        passage = Passage(leaves[0], leaves[1], beats, started, self._stage.levels, combine_cycles)
        self._machine.tree.announce(passage)
        return passage

    def open(self) -> None:
        """Counts the PEs that contribute to each reduction, and starts reductions whose data is there."""
        for pe, index in enumerate(self._reduction_of_pe.tolist()):
            self._left[index] += index >= 0 and self._contributes(pe)
        for event, passage in zip(self.hubs.events, self._passages, strict=True):
            if passage is None:  # a group without rows has nothing to wait for
                event.succeed()
        self._start_from_pes()

    def missing(self) -> str:
        """Description of the PEs or reductions that are waited for, for error messages; empty if none."""
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
        recorder.part(self.order, index, start, end)
        recorder.message(Tag.REDUCE, num_bytes, beats)
        tree = CHANNELS.index(Resource.TREE)
        recorder.channel_use(tree, Tag.REDUCE, self.order, start, start + beats, num_bytes, index)
        self.hubs.foretell_tail(index, end)
        call_at(self._machine.env, end, lambda: self._complete(index, finished))

    def _complete(self, index: int, finished: Callable[[], None]) -> None:
        self.hubs.events[index].succeed()
        finished()
