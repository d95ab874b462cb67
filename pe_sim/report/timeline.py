"""A trace beside the schedule it ran: what limits each stage, when data was where, which message a channel carried.

A trace says when every PE worked and when every channel was held, but not by which message, reduction or job of a
stage. That follows from the machine model: the bus and the root's units serve in the order of requests, the joints of
a tree in program order. So `Moments` needs no more than the trace, whichever engine wrote it.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from pe_sim.schedule.stages import MessageStage, PeStage, Resource, RootStage, Schedule, Stage, Tag, TreeStage
from pe_sim.trace import NOT_ACTIVE, StageSpan, Trace
from pe_sim.units import BoolArray, IntArray


@dataclass(frozen=True)
class Timeline:
    """Spans and stages by order; `stages[i]` is what `trace.spans[i]` executed."""

    schedule: Schedule
    trace: Trace

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """The stages in program order, a layer's once for each layer."""
        blocks, sequence = self.schedule.blocks, self.schedule.sequence
        return tuple(stage for run in sequence for stage in blocks[run.block].stages)

    @cached_property
    def _streams_longer(self) -> dict[int, BoolArray]:
        return {}

    def active(self) -> Iterator[tuple[StageSpan, Stage]]:
        """Spans with their stages, those left out in which nothing happened."""
        for span, stage in zip(self.trace.spans, self.stages, strict=True):
            if span.start != NOT_ACTIVE:
                yield span, stage

    def resource_of(self, order: int, pe: int | None = None) -> Resource:
        """What limits a stage: its resource, for matrix stages the memory port where streaming takes no less time.

        Args:
            order: of the span.
            pe: whose work decides; None: that of the PE that works longest.
        """
        stage = self.stages[order]
        if isinstance(stage, PeStage) and stage.matrix is not None:
            at = pe if pe is not None else _longest_pe(stage, self.trace.spans[order])
            return Resource.PE_MEMORY if self._memory_bound(stage)[at] else Resource.PE_MATRIX
        return _resource_of(stage)

    def _memory_bound(self, stage: PeStage) -> BoolArray:
        """(PEs,) worked out once for all layers that repeat the stage."""
        matrix = stage.matrix
        assert matrix is not None
        if id(matrix) not in self._streams_longer:
            streaming = (matrix.full_passes + 1) * matrix.pass_memory_cycles
            self._streams_longer[id(matrix)] = streaming >= matrix.compute_cycles
        return self._streams_longer[id(matrix)]


def tag_of(stage: Stage) -> Tag | None:
    """What the stage's messages are counted under; None for work."""
    if isinstance(stage, MessageStage):
        return stage.tag
    return Tag.REDUCE if isinstance(stage, TreeStage) else None


def _resource_of(stage: Stage) -> Resource:
    if isinstance(stage, PeStage | RootStage):
        return stage.resource
    return stage.channel if isinstance(stage, MessageStage) else Resource.TREE


def _longest_pe(stage: PeStage, span: StageSpan) -> int:
    if span.pe_start is None or span.pe_end is None:
        return int(np.flatnonzero(stage.active)[0])
    return int((span.pe_end - span.pe_start).argmax())


_ROUNDS = 100
_NO_ROWS: IntArray = np.empty(0, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Parts:
    """The messages, reductions or jobs of one stage; arrays are (parts,), NOT_ACTIVE where one does not happen.

    Args:
        ready: when it was asked for: the request at the arbiter, the last contribution, the last input at the root.
        grant, release: when it first got its channel or unit, and last left it.
        complete: when its last byte had arrived.
        first_row, last_row: on the bus, rows of the trace's channel uses: its first and last burst.
    """

    ready: IntArray
    grant: IntArray
    release: IntArray
    complete: IntArray
    first_row: IntArray
    last_row: IntArray


@dataclass(frozen=True, slots=True)
class Passages:
    """How the parts of one stage pass joints: over leaves first .. last - 1, the lowest `levels` levels of them."""

    first: IntArray
    last: IntArray
    levels: int
    combine_cycles: int


class Moments:
    """When data was where, and which part of a stage held which channel; worked out stage by stage when asked for."""

    def __init__(self, timeline: Timeline) -> None:
        self._stages, self._spans = timeline.stages, timeline.trace.spans
        self._num_pes, network = timeline.schedule.array.num_pes, timeline.schedule.array.network
        self._bus, self._tree = network.bus, network.tree
        uses = timeline.trace.channel_use
        self._use_start, self._use_end = uses.start, uses.end
        self._row_order = np.argsort(uses.stage, kind="stable")
        self._row_bounds = np.searchsorted(uses.stage[self._row_order], np.arange(len(self._stages) + 1)).tolist()
        self.part_of_row = np.full(len(uses.stage), NOT_ACTIVE, dtype=np.int64)  # known for stages asked for
        self._parts: dict[int, Parts] = {}
        self._arrivals: dict[tuple[int, bool], tuple[Parts, IntArray]] = {}
        self._targets: dict[int, IntArray] = {}
        self.users_of: dict[Resource, list[int]] = {resource: [] for resource in Resource}  # orders of its stages
        for order, stage in enumerate(self._stages):
            self.users_of[_resource_of(stage)].append(order)
        self._joints: dict[bool, _Joints] = {}
        self._begun: dict[int, IntArray] | None = None  # jobs at the root; while they are worked out, guesses:
        self._serving, self._guesses, self._guessed = False, 0, dict[int, Parts]()

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
            else:
                assert isinstance(stage, MessageStage | TreeStage)
                found = self._through_joints(order, stage)
            (self._parts if self._guesses == guesses or not self._serving else self._guessed)[order] = found
        return found

    def on_pes(self, order: int) -> IntArray:
        """(PEs,) when a stage's result is on each PE, NOT_ACTIVE where it never is."""
        stage, span = self._stages[order], self._spans[order]
        if isinstance(stage, PeStage):
            return span.pe_end if span.pe_end is not None else np.full(self._num_pes, NOT_ACTIVE, dtype=np.int64)
        if not isinstance(stage, MessageStage) or stage.to_root:
            return np.full(self._num_pes, NOT_ACTIVE, dtype=np.int64)
        targets = self.target_of_pe(stage)
        return np.where(targets >= 0, self._arrived(order, stage)[targets], NOT_ACTIVE)

    def on_pe(self, order: int, pe: int, *, heads: bool = False) -> int:
        """As `on_pes` for one PE; or, of what was streamed to it, when its head was there."""
        stage, ends = self._stages[order], self._spans[order].pe_end
        if ends is not None:
            return int(ends[pe])
        if not isinstance(stage, MessageStage) or stage.to_root:
            return NOT_ACTIVE
        target = int(self.target_of_pe(stage)[pe])
        return int(self._arrived(order, stage, heads=heads)[target]) if target >= 0 else NOT_ACTIVE

    def at_hubs(self, order: int) -> IntArray:
        """(hubs,) when a stage's result is at each hub; one alone serves them all."""
        stage = self._stages[order]
        if isinstance(stage, MessageStage):
            return self._arrived(order, stage)
        return np.maximum(self.parts(order).complete, 0)  # an empty reduction is there from the beginning

    def anywhere(self, order: int) -> IntArray:
        """(PEs or hubs,) when a stage's result is where it goes."""
        stage = self._stages[order]
        on_pes = isinstance(stage, PeStage) or (isinstance(stage, MessageStage) and not stage.to_root)
        return self.on_pes(order) if on_pes else self.at_hubs(order)

    def _arrived(self, order: int, stage: MessageStage, *, heads: bool = False) -> IntArray:
        """(targets,) when the last of each target's messages is there; at once where none is sent."""
        parts = self.parts(order)
        known, found = self._arrivals.get((order, heads), (None, _NO_ROWS))
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
            return Passages(stage.first_pe[stage.target], stage.last_pe[stage.target], 1, 0)
        levels, first, last = self._tree.num_levels, stage.first_pe, stage.last_pe
        if stage.whole_tree:
            first, last = np.zeros_like(first), np.full_like(last, self._num_pes)
        else:
            size = int(last[0] - first[0])
            levels = next(level for level in range(levels + 1) if self._tree.arity**level >= size)
        links = sum(self._tree.level_latency_cycles[:levels])
        combine = (int(stage.hop_cycles[0]) - links) // max(levels, 1)
        return Passages(first, last, max(levels, 1), combine)

    def _rows(self, order: int) -> IntArray:
        """The stage's rows in the trace's channel uses, in order of their grants."""
        return self._row_order[self._row_bounds[order] : self._row_bounds[order + 1]]

    def _messages(self, order: int, stage: MessageStage) -> Parts:
        """Requests of one stage are served in the order of their arrival, then rank, then as listed."""
        ready, rows, count = self._asked_for(order, stage), self._rows(order), len(stage.source)
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
        count = len(stage.source)
        if stage.from_pe:
            ready = self._inputs_on_pes(order)[stage.source]
        elif stage.tag is Tag.WEIGHT_STREAM:
            inputs = self._spans[order].inputs
            ready = np.full(count, max((int(self.anywhere(source).max()) for source in inputs), default=0))
        else:
            ready = self._at_hubs_of(self._spans[order].inputs, stage.source)
        if stage.early_cycles is not None:
            ready = ready - stage.early_cycles
        on_bus = stage.channel is Resource.BUS
        return ready + np.where(stage.rank >= 0, self._bus.request_cycles, 0) if on_bus else ready

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
        ready, starts = self._contributed(order, stage), self._use_start[self._rows(order)]
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
        return Parts(ready, grant, release, np.where(used, release + hops, NOT_ACTIVE), _NO_ROWS, _NO_ROWS)

    def _contributed(self, order: int, stage: TreeStage | MessageStage) -> IntArray:
        """(parts,) when all that a passage carries is there."""
        if isinstance(stage, MessageStage):
            return self._asked_for(order, stage)
        given = np.where(stage.active, self._inputs_on_pes(order), NOT_ACTIVE)
        size = int(stage.last_pe[0] - stage.first_pe[0])
        ready: IntArray = given[stage.first_pe[:, None] + np.arange(size)].max(axis=1)
        return ready

    def _replayed(self, order: int, stage: TreeStage | MessageStage) -> IntArray:
        """(parts,) starts of a stage whose parts wait for those that pass its joints before them."""
        down = isinstance(stage, MessageStage)
        if down not in self._joints:
            free = np.zeros((max(self._tree.num_levels, 1), self._num_pes), dtype=np.int64)
            users = self.users_of[Resource.DOWNLINK if down else Resource.TREE]
            self._joints[down] = _Joints(free, iter(users))
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
        return Parts(ready, grant, release, release, _NO_ROWS, _NO_ROWS)

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
                self._begun = _first_come_first_served(stages, ready)
                same = before and all(bool((before[order] == self._begun[order]).all()) for order in stages)
                if same or self._guesses == guesses:
                    break
            self._joints, self._guessed, self._serving = {}, {}, False
        return self._begun


@dataclass(slots=True)
class _Joints:
    """The joints of a tree while its passages are gone through once more: (levels, leaves) when each is free."""

    free: IntArray
    waiting: Iterator[int]
    starts: dict[int, IntArray] = field(default_factory=dict)

    def passed(self, passages: Passages, ready: IntArray, beats: IntArray) -> IntArray:
        """Starts of one stage's parts, all of one size: side by side, or one after the other through all joints."""
        starts = np.full(len(ready), NOT_ACTIVE, dtype=np.int64)
        used = np.flatnonzero(beats > 0)
        shift = passages.combine_cycles * np.arange(passages.levels, dtype=np.int64)[:, None]
        size = int(passages.last[0] - passages.first[0])
        for parts in [used] if size < len(self.free[0]) else np.split(used, len(used)):
            leaves = passages.first[parts, None] + np.arange(size)
            joints = self.free[: passages.levels, leaves]
            starts[parts] = np.maximum(ready[parts], (joints.max(axis=2) - shift).max(axis=0))
            self.free[: passages.levels, leaves] = (starts[parts] + beats[parts] + shift)[:, :, None]
        return starts


def _first_come_first_served(stages: dict[int, RootStage], ready: dict[int, IntArray]) -> dict[int, IntArray]:
    """By stage, (jobs,) starts at the root's units; ties go to the earlier stage, then the earlier job."""
    begun, free = {order: arrivals.copy() for order, arrivals in ready.items()}, dict.fromkeys(Resource, 0)
    worked = [(order, job) for order, stage in stages.items() for job in np.flatnonzero(stage.cycles).tolist()]
    for arrival, order, job in sorted((int(ready[order][job]), order, job) for order, job in worked):
        unit = stages[order].resource
        begun[order][job] = max(arrival, free[unit])
        free[unit] = int(begun[order][job] + stages[order].cycles[job])
    return begun
