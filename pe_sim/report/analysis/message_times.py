"""When data was where, and which message a channel carried: takes a timeline, gives the parts of its stages.

A trace says when every PE worked and when every channel was held, but not by which message, reduction or job of a
stage. That follows from the machine model: the bus and the root's units serve in the order of requests, the joints of
a tree in program order. So `Moments` needs no more than the trace, whichever engine wrote it.
"""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Sequence
from functools import cached_property

import numpy as np

from pe_sim.config.networks.network import Bus, Tree
from pe_sim.report.analysis.message_parts import (
    NO_ROWS,
    Joints,
    Parts,
    Passages,
    RoutedParts,
    RoutedStages,
    first_come_first_served,
    leaves_of,
)
from pe_sim.report.analysis.timeline import Timeline, resource_of
from pe_sim.schedule.stages import MessageStage, PeStage, Resource, RootStage, RoutedStage, Tag, TreeStage
from pe_sim.trace import NOT_ACTIVE
from pe_sim.units import IntArray

_ROUNDS = 100
_MOST_KEPT = 1 << 22  # messages, reductions, jobs and hops; each has some ten columns


class Moments:
    """When data was where, and which part of a stage held which channel; worked out stage by stage when asked for."""

    def __init__(self, timeline: Timeline) -> None:
        self._stages, self._spans = timeline.stages, timeline.trace.spans
        self._array = timeline.schedule.array
        self._num_pes = self._array.num_pes
        uses = timeline.trace.channel_use
        self._use_channel, self._use_start, self._use_end = uses.channel, uses.start, uses.end
        self._row_order = np.argsort(uses.stage, kind="stable")
        self._row_bounds = np.searchsorted(uses.stage[self._row_order], np.arange(len(self._stages) + 1))
        self.part_of_row = np.full(len(uses.stage), NOT_ACTIVE, dtype=np.int64)  # known for stages asked for
        self._parts: dict[int, Parts] = {}
        self._num_kept = 0
        self._arrivals: dict[tuple[int, bool], tuple[Parts, IntArray]] = {}
        self._targets: dict[int, IntArray] = {}
        self.users_of = {resource: array("q") for resource in Resource}  # orders of its stages
        for order, stage in enumerate(self._stages):
            self.users_of[resource_of(stage)].append(order)
        self._joints: dict[bool, Joints] = {}
        self._begun: dict[int, IntArray] | None = None  # jobs at the root; while they are worked out, guesses:
        self._serving, self._guesses, self._guessed = False, 0, dict[int, Parts]()

    @property
    def _bus(self) -> Bus:
        return self._array.bus_tree.bus

    @property
    def _tree(self) -> Tree:
        return self._array.bus_tree.tree

    @cached_property
    def routes(self) -> RoutedStages:
        """What works out the hops of routed stages."""
        from pe_sim.network.interconnect import interconnect_of  # loads networkx

        return RoutedStages(interconnect_of(self._array).topology.channels)

    def parts(self, order: int) -> Parts:
        """What a stage of the network or the root consists of."""
        found = self._parts.get(order)
        if found is None and order in self._guessed:
            self._guesses += 1
            return self._guessed[order]
        if found is None:
            guesses, stage = self._guesses, self._stages[order]
            if isinstance(stage, RootStage):
                found = self._jobs(order, stage)
            elif isinstance(stage, MessageStage) and stage.channel is Resource.BUS:
                found = self._messages(order, stage)
            elif isinstance(stage, RoutedStage):
                found = self._hops(order, stage)
            else:
                assert isinstance(stage, MessageStage | TreeStage)
                found = self._through_joints(order, stage)
            if self._guesses == guesses or not self._serving:
                self._keep(order, found)
            else:
                self._guessed[order] = found
        return found

    def _keep(self, order: int, found: Parts) -> None:
        """Remembers what was asked for last: whoever walks over a step does not come back to layers long past."""
        self._parts[order] = found
        self._num_kept += len(found.ready)
        while self._num_kept > _MOST_KEPT and len(self._parts) > 1 and not self._serving:
            oldest = next(iter(self._parts))
            self._num_kept -= len(self._parts.pop(oldest).ready)
            self._arrivals.pop((oldest, False), None)
            self._arrivals.pop((oldest, True), None)

    def on_pes(self, order: int) -> IntArray:
        """(PEs,) when a stage's result is on each PE, NOT_ACTIVE where it never is."""
        stage, span = self._stages[order], self._spans[order]
        if isinstance(stage, PeStage):
            ends = span.pe_end
            return ends if ends is not None else np.full(self._num_pes, NOT_ACTIVE, dtype=np.int64)
        if isinstance(stage, RoutedStage) and stage.to_pes is not None:
            return np.where(stage.to_pes, self.hops(order).there, NOT_ACTIVE)
        if not isinstance(stage, MessageStage) or stage.to_root:
            return np.full(self._num_pes, NOT_ACTIVE, dtype=np.int64)
        targets = self.target_of_pe(stage)
        return np.where(targets >= 0, self._arrived(order, stage)[targets], NOT_ACTIVE)

    def on_pe(self, order: int, pe: int, *, heads: bool = False) -> int:
        """As `on_pes` for one PE; or, of what was streamed to it, when its head was there."""
        stage, span = self._stages[order], self._spans[order]
        if span.on_pes is not None:
            return span.bounds_on(pe)[1]
        if isinstance(stage, RoutedStage) and stage.to_pes is not None:
            hops = self.hops(order)
            return int((hops.shown if heads and stage.streams else hops.there)[pe]) if stage.to_pes[pe] else NOT_ACTIVE
        if not isinstance(stage, MessageStage) or stage.to_root:
            return NOT_ACTIVE
        target = int(self.target_of_pe(stage)[pe])
        return int(self._arrived(order, stage, heads=heads)[target]) if target >= 0 else NOT_ACTIVE

    def at_hubs(self, order: int) -> IntArray:
        """(hubs,) when a stage's result is at each hub; one alone serves them all."""
        stage = self._stages[order]
        if isinstance(stage, MessageStage):
            return self._arrived(order, stage)
        if isinstance(stage, RoutedStage):
            return self.hops(order).there
        return np.maximum(self.parts(order).complete, 0)  # an empty reduction is there from the beginning

    def anywhere(self, order: int) -> IntArray:
        """(PEs or hubs,) when a stage's result is where it goes."""
        stage = self._stages[order]
        if isinstance(stage, RoutedStage):
            on_pes = stage.to_pes is not None
        else:
            on_pes = isinstance(stage, PeStage) or (isinstance(stage, MessageStage) and not stage.to_root)
        return self.on_pes(order) if on_pes else self.at_hubs(order)

    def hops(self, order: int) -> RoutedParts:
        """The hops of a routed stage."""
        found = self.parts(order)
        assert isinstance(found, RoutedParts)
        return found

    def _arrived(self, order: int, stage: MessageStage, *, heads: bool = False) -> IntArray:
        """(targets,) when the last of each target's messages is there; at once where none is sent."""
        parts = self.parts(order)
        known, found = self._arrivals.get((order, heads), (None, NO_ROWS))
        if known is not parts:
            head = self._bus.overhead_cycles + self._bus.latency_cycles
            found = np.zeros(len(stage.first_pe), dtype=np.int64)
            np.maximum.at(found, stage.target, parts.grant + head if heads and stage.streams else parts.complete)
            self._arrivals[order, heads] = parts, found
        return found

    def target_of_pe(self, stage: MessageStage) -> IntArray:
        """(PEs,) the target each PE belongs to."""
        if id(stage) not in self._targets:
            targets = np.full(self._num_pes, NOT_ACTIVE, dtype=np.int64)
            for target, (first, last) in enumerate(zip(stage.first_pe.tolist(), stage.last_pe.tolist(), strict=True)):
                targets[first:last] = target
            self._targets[id(stage)] = targets
        return self._targets[id(stage)]

    def passages(self, stage: TreeStage | MessageStage) -> Passages:
        """The joints that a stage's reductions, or multicasts down the tree, pass."""
        if isinstance(stage, MessageStage):
            return Passages(stage.first_pe[stage.target], stage.last_pe[stage.target], 0, 0)
        first, last = stage.first_pe, stage.last_pe
        if stage.whole_tree:
            first, last = np.zeros_like(first), np.full_like(last, self._num_pes)
        return Passages(first, last, stage.levels, stage.combine_cycles(self._tree))

    def rows(self, order: int) -> IntArray:
        """The stage's rows in the trace's channel uses, in order of their grants."""
        return self._row_order[self._row_bounds[order] : self._row_bounds[order + 1]]

    def _hops(self, order: int, stage: RoutedStage) -> RoutedParts:
        """Sent as soon as their senders have what they send."""
        rows = self.rows(order)
        sent = self._sent(order, stage, np.arange(stage.hops.num_sources))
        found = self.routes.parts(stage, sent, rows, self._use_channel[rows], self._use_start[rows])
        carrying = np.flatnonzero(found.first_row >= 0)
        self.part_of_row[found.first_row[carrying]] = carrying
        return found

    def _messages(self, order: int, stage: MessageStage) -> Parts:
        """Requests of one stage are served in the order of their arrival, then rank, then as listed."""
        ready, rows, count = self._asked_for(order, stage), self.rows(order), len(stage.source)
        if count == len(rows) == 1:
            first = last = rows
            self.part_of_row[rows] = 0
        elif count == len(rows):
            queue = np.lexsort((np.arange(count), stage.rank, ready))
            first = last = np.empty_like(rows)
            first[queue] = rows
            self.part_of_row[rows] = queue
        else:
            first, last = self._take_turns(stage, ready, rows.tolist())
        release = self._use_end[last]
        return Parts(ready, self._use_start[first], release, release + self._bus.latency_cycles, first, last)

    def _take_turns(self, stage: MessageStage, ready: IntArray, rows: list[int]) -> tuple[IntArray, IntArray]:
        """Rows of first and last bursts: a message asks for its next one when the one before it has left the bus."""
        assert self._bus.burst_bytes is not None
        left = (-(-stage.num_bytes // self._bus.burst_bytes)).tolist()
        first, last = np.full((2, len(left)), NOT_ACTIVE, dtype=np.int64)
        waiting = list(zip(ready.tolist(), stage.rank.tolist(), range(len(left)), strict=True))
        heapq.heapify(waiting)
        for row in rows:
            _, rank, message = heapq.heappop(waiting)
            first[message] = row if first[message] < 0 else first[message]
            self.part_of_row[row], last[message] = message, row
            left[message] -= 1
            if left[message]:
                heapq.heappush(waiting, (int(self._use_end[row]), rank, message))
        return first, last

    def _asked_for(self, order: int, stage: MessageStage) -> IntArray:
        """(messages,) when each message's request is at its channel."""
        ready = self._sent(order, stage, stage.source)
        on_bus = stage.channel is Resource.BUS
        return ready + np.where(stage.rank >= 0, self._bus.request_cycles, 0) if on_bus else ready

    def _sent(self, order: int, stage: MessageStage | RoutedStage, source: IntArray) -> IntArray:
        """(messages,) when each sender has what it sends, or enough of it to begin."""
        if stage.from_pe:
            ready = self._inputs_on_pes(order)[source]
        elif stage.tag is Tag.WEIGHT_STREAM:
            inputs = self._spans[order].inputs
            ready = np.full(len(source), max((int(self.anywhere(each).max()) for each in inputs), default=0))
        else:
            ready = self._at_hubs_of(self._spans[order].inputs, source)
        return ready if stage.early_cycles is None else ready - stage.early_cycles

    def _inputs_on_pes(self, order: int) -> IntArray:
        """(PEs,) when each PE has all of a stage's inputs that it has a part in."""
        inputs = self._spans[order].inputs
        ready = np.full(self._num_pes, NOT_ACTIVE if inputs else 0, dtype=np.int64)
        for source in inputs:
            ready = np.maximum(ready, self.on_pes(source))
        return ready

    def _at_hubs_of(self, inputs: Sequence[int], hubs: IntArray) -> IntArray:
        ready = np.full(len(hubs), NOT_ACTIVE if inputs else 0, dtype=np.int64)
        for source in inputs:
            there = self.at_hubs(source)
            ready = np.maximum(ready, there[hubs] if len(there) > 1 else there[0])
        return ready

    def _through_joints(self, order: int, stage: TreeStage | MessageStage) -> Parts:
        """Reductions, or multicasts down the tree."""
        ready, starts = self._contributed(order, stage), self._use_start[self.rows(order)]
        beats = -(-stage.num_bytes // self._tree.bytes_per_cycle)
        grant = np.full(len(beats), NOT_ACTIVE, dtype=np.int64)
        used = beats > 0
        in_a_row = isinstance(stage, TreeStage) and stage.whole_tree
        if in_a_row or not len(starts) or int(starts[0]) == int(starts[-1]):
            grant[used] = starts
        elif int(starts.sum()) == int(ready[used].sum()):  # none starts before it is ready: so each starts just then
            grant[used] = ready[used]
        else:
            grant[used] = self._replayed(order, stage)[used]
        hops = stage.hop_cycles[stage.target] if isinstance(stage, MessageStage) else stage.hop_cycles
        release = np.where(used, grant + beats, NOT_ACTIVE)
        return Parts(ready, grant, release, np.where(used, release + hops, NOT_ACTIVE), NO_ROWS, NO_ROWS)

    def _contributed(self, order: int, stage: TreeStage | MessageStage) -> IntArray:
        """(parts,) when all that a passage carries is there."""
        if isinstance(stage, MessageStage):
            return self._asked_for(order, stage)
        given = np.where(stage.active, self._inputs_on_pes(order), NOT_ACTIVE)
        ready: IntArray = given[leaves_of(stage.first_pe, stage.last_pe)].max(axis=1)
        return ready

    def _replayed(self, order: int, stage: TreeStage | MessageStage) -> IntArray:
        """(parts,) starts of a stage whose parts wait for those that pass its joints before them."""
        down = isinstance(stage, MessageStage)
        if down not in self._joints:
            free = np.zeros((self._tree.num_levels + 1, self._num_pes), dtype=np.int64)
            users = self.users_of[Resource.DOWNLINK if down else Resource.TREE]
            self._joints[down] = Joints(free, iter(users))
        joints = self._joints[down]
        while order not in joints.starts:
            following = next(joints.waiting)
            user = self._stages[following]
            assert isinstance(user, TreeStage | MessageStage)
            beats = -(-user.num_bytes // self._tree.bytes_per_cycle)
            joints.starts[following] = joints.passed(self.passages(user), self._contributed(following, user), beats)
        return joints.starts[order]

    def _jobs(self, order: int, stage: RootStage) -> Parts:
        span, worked = self._spans[order], stage.cycles > 0
        ready = self._at_hubs_of(span.inputs, np.arange(len(worked)))
        grant = np.where(worked, span.start, ready)
        if np.count_nonzero(worked) > 1:
            grant = self._served().get(order, ready)
            self._guesses += self._serving
        release = grant + stage.cycles
        return Parts(ready, grant, release, release, NO_ROWS, NO_ROWS)

    def _served(self) -> dict[int, IntArray]:
        """By stage, (jobs,) when the root began each.

        Jobs may wait for what the root did before. Their starts are guessed, and the guesses followed, until they
        agree with what follows: each round is right for longer than the one before it.
        """
        if self._begun is None:
            self._begun, self._serving = {}, True
            stages = {order: stage for order, stage in enumerate(self._stages) if isinstance(stage, RootStage)}
            for _ in range(_ROUNDS):
                guesses, before = self._guesses, self._begun
                self._joints, self._guessed = {}, {}
                jobs = {order: np.arange(len(stage.cycles)) for order, stage in stages.items()}
                ready = {order: self._at_hubs_of(self._spans[order].inputs, jobs[order]) for order in stages}
                self._begun = first_come_first_served(stages, ready)
                same = before and all(bool((before[order] == self._begun[order]).all()) for order in stages)
                if same or self._guesses == guesses:
                    break
            self._joints, self._guessed, self._serving = {}, {}, False
        return self._begun
