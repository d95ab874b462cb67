"""One pass over a block's stages in program order, which finds when each slot is ready from when its inputs are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pe_sim.config.arrays.array import ArrayConfig
from pe_sim.engine.fast.block_plan import BlockPlan, StagePlan
from pe_sim.engine.fast.recurrences import NEVER, ChannelState, OutOfOrderError, TreeState, matrix_times
from pe_sim.network.routing.hop_times import ChannelTimes, run_hops
from pe_sim.schedule.builders import PREFETCHING_OVERLAP
from pe_sim.schedule.memory_timing import memory_timing
from pe_sim.schedule.stages import MessageStage, PeStage, Resource, RootStage, RoutedStage, Stage, Tag, TreeStage
from pe_sim.units import BoolArray, IntArray

_WORTH_A_LOOK = 4096  # PEs; cycles of fewer take too little memory to be compacted
Ready = IntArray  # ready cycles of a slot: (..., PEs) or (..., hubs), or (..., 1) where all have the same


@dataclass(slots=True)
class MachineState:
    """State of the machine when a block is entered: all that its cycles depend on, beside the values that enter it."""

    pe_free: IntArray
    port_free: IntArray
    bus: ChannelState
    root: dict[Resource, ChannelState]
    tree: TreeState
    downlink: TreeState
    channels: ChannelTimes

    @property
    def overtaken(self) -> BoolArray:
        """(..., 1) whether requests reached a channel in another order than the program's."""
        overtaken = self.bus.overtaken | self.channels.overtaken
        for channel in self.root.values():
            overtaken = overtaken | channel.overtaken
        return overtaken


@dataclass(slots=True)
class StageRecord:
    """Start and end cycles of one stage's parts, as a trace has them: of all, or of those that are `working`.

    For hops, values that need no channel are left out; `sent` is when each sender had what it sends.
    """

    start: IntArray
    end: IntArray
    working: BoolArray | None = None
    sent: IntArray | None = None


@dataclass(slots=True)
class BlockRecord:
    """The cycles that one pass over a block found.

    `exits` are the values that leave, `exit_heads` the heads of those that were streamed (None: not streamed). Where
    several steps are run together nothing is kept of single stages. `last_end` is (..., 1). `memory_busy` are the busy
    cycles that depended on the state of the ports.
    """

    stages: list[StageRecord] = field(default_factory=list)
    exits: list[Ready] = field(default_factory=list)
    exit_heads: list[Ready | None] = field(default_factory=list)
    last_end: IntArray = field(default_factory=lambda: np.zeros(1, dtype=np.int64))
    memory_busy: IntArray | None = None


class BlockPass:
    """Runs a planned block on a machine state, which it updates.

    Args:
        shape: (PEs,) for one step, (steps, classes) for several.
        check: called before every stage.
    """

    def __init__(
        self,
        plan: BlockPlan,
        array: ArrayConfig,
        shape: tuple[int, ...],
        state: MachineState,
        entries: list[Ready],
        entry_heads: list[Ready | None],
        check: Callable[[], None] | None = None,
    ) -> None:
        self._check = check
        self._plan, self._array, self._state = plan, array, state
        self._shape, self._steps = shape, shape[:-1]
        self._closing = memory_timing(array.pe.memory).closing_cycles
        self._port_matters = array.overlap >= PREFETCHING_OVERLAP or self._closing > 0
        self._slots: dict[int, Ready] = dict(zip(plan.block.entries, entries, strict=True))
        heads = zip(plan.block.entries, entry_heads, strict=True)
        self._heads: dict[int, Ready] = {slot: head for slot, head in heads if head is not None}
        self._record = BlockRecord()
        self._ends: list[IntArray] = []

    def run(self) -> BlockRecord:
        """The record of the block: the cycles of every stage."""
        for stage, plan in zip(self._plan.block.stages, self._plan.stages, strict=True):
            if self._check is not None:
                self._check()
            self._take(stage, plan)
        return self._finished()

    def _take(self, stage: Stage, plan: StagePlan) -> None:
        match stage:
            case PeStage():
                self._on_pes(plan, stage)
            case RootStage():
                self._at_root(stage)
            case TreeStage():
                self._through_tree(plan, stage)
            case MessageStage():
                self._as_messages(plan, stage)
            case RoutedStage():
                self._over_graph(plan, stage)
            case _:
                raise TypeError(f"the fast engine has no recurrence for a {type(stage).__name__}")

    def _finished(self) -> BlockRecord:
        # A PE is free when its last work is done, so that the ends of its work need not be looked at one by one.
        ends = np.concatenate([*self._ends, self._state.pe_free], axis=-1)
        self._record.last_end = np.maximum.reduce(ends, axis=-1, keepdims=True)
        self._record.exits = [self._slots[slot] for slot in self._plan.block.exits]
        self._record.exit_heads = [self._heads.get(slot) for slot in self._plan.block.exits]
        return self._record

    def _on_pes(self, plan: StagePlan, stage: PeStage) -> None:
        state = self._state
        start = state.pe_free
        arrivals = self._slots if stage.tail_cycles is None else self._slots | self._heads
        for slot in stage.inputs:
            start = np.maximum(start, arrivals[slot])
        end = start + (
            self._duration(stage, start) if stage.matrix is None else self._matrix_duration(plan, stage, start)
        )
        if stage.tail_cycles is not None:
            for slot in stage.inputs:
                if slot in self._heads:
                    end = np.maximum(end, self._slots[slot] + stage.tail_cycles)
        if stage.resource is Resource.PE_MEMORY and self._port_matters:
            state.port_free = np.where(stage.active, end + self._closing, state.port_free)
        if plan.everywhere:
            state.pe_free = self._slots[stage.output] = end
        else:
            state.pe_free = np.where(stage.active, end, state.pe_free)
            self._slots[stage.output] = np.where(stage.active, end, NEVER)
        self._note_pes(plan, start, end)

    def _note_pes(self, plan: StagePlan, start: IntArray, end: IntArray) -> None:
        if not self._steps:
            working = None if plan.everywhere else plan.working
            self._record.stages.append(StageRecord(_compact(start, working), _compact(end, working), working))

    def _duration(self, stage: PeStage, start: IntArray) -> IntArray:
        """(..., PEs) cycles of work that is no matrix operator, with its wait until a memory that it uses is free."""
        if stage.resource is not Resource.PE_MEMORY or not self._closing:
            return stage.cycles
        return np.where(stage.cycles > 0, stage.cycles + np.maximum(0, self._state.port_free - start), 0)

    def _matrix_duration(self, plan: StagePlan, stage: PeStage, start: IntArray) -> IntArray:
        state, times = self._state, plan.times
        assert stage.matrix is not None
        if times is None:
            times = matrix_times(stage.matrix, self._array, start - state.port_free)
            busy = np.where(stage.active, times.memory_busy, 0)
            known = self._record.memory_busy
            self._record.memory_busy = busy if known is None else known + busy
        if self._port_matters:
            ends = start + times.stream_end + self._closing
            state.port_free = ends if plan.everywhere else np.where(stage.active, ends, state.port_free)
        return times.duration

    def _at_root(self, stage: RootStage) -> None:
        jobs = len(stage.cycles)
        ready = np.full((*self._steps, jobs), NEVER if stage.inputs else 0, dtype=np.int64)
        for slot in stage.inputs:
            ready = np.maximum(ready, self._hubs(slot, np.arange(jobs)))
        worked = np.flatnonzero(stage.cycles > 0)
        if len(worked):
            root = self._state.root[stage.resource]
            _, ready[..., worked] = root.serve(ready[..., worked], worked, stage.cycles[worked])
        self._slots[stage.output] = ready
        self._note_parts(ready - stage.cycles, ready)

    def _note_parts(self, starts: IntArray, ends: IntArray) -> None:
        """Notes (..., parts) cycles at which each part was granted its channel or unit, and complete."""
        self._ends.append(ends)
        if not self._steps:
            self._record.stages.append(StageRecord(starts, ends))

    def _through_tree(self, plan: StagePlan, stage: TreeStage) -> None:
        contributing = self._ready_on_pes(stage.inputs)
        if not plan.everywhere:
            contributing = np.where(stage.active, contributing, NEVER)
        latest = _largest(contributing, plan.first, plan.end)
        if stage.whole_tree:
            starts = self._one_after_another(plan, latest)
        else:
            starts = self._state.tree.pass_side_by_side(
                latest, plan.busy, (stage.first_pe, stage.last_pe), stage.levels, plan.combine_cycles
            )
        ends = np.where(plan.busy > 0, starts + stage.hop_cycles + plan.busy, 0)
        self._slots[stage.output] = ends
        self._note_parts(starts, ends)

    def _one_after_another(self, plan: StagePlan, latest: IntArray) -> IntArray:
        if plan.busy.shape == (1,) and plan.busy[0]:
            return self._state.tree.pass_whole(latest, plan.busy, plan.combine_cycles)
        starts = np.zeros_like(latest)
        sent = np.atleast_2d(plan.busy)[0] > 0
        for index in np.flatnonzero(sent).tolist():
            one = slice(index, index + 1)
            starts[..., one] = self._state.tree.pass_whole(latest[..., one], plan.busy[..., one], plan.combine_cycles)
        return starts

    def _as_messages(self, plan: StagePlan, stage: MessageStage) -> None:
        if not len(stage.source):
            nothing = np.zeros((*self._steps, 0), dtype=np.int64)
            self._slots[stage.output] = self._delivered(plan, stage, nothing)
            self._note_parts(nothing, nothing)
            return
        ready = self._senders(stage)
        if stage.channel is Resource.DOWNLINK:
            self._down_subtrees(plan, stage, ready)
            return
        bus = self._array.bus_tree.bus
        if bus.burst_bytes is not None and int(stage.num_bytes.max()) > bus.burst_bytes:
            raise OutOfOrderError  # bursts of several messages take turns
        arrivals = ready + np.where(stage.rank >= 0, bus.request_cycles, 0)
        grants, releases = self._state.bus.serve(arrivals, _rank_and_index(stage), plan.busy)
        complete = releases + bus.latency_cycles
        self._slots[stage.output] = self._delivered(plan, stage, complete)
        if stage.streams:
            heads = grants + bus.overhead_cycles + bus.latency_cycles
            self._heads[stage.output] = self._delivered(plan, stage, heads)
        self._note_parts(grants, complete)

    def _over_graph(self, plan: StagePlan, stage: RoutedStage) -> None:
        from pe_sim.network.interconnect import interconnect_of  # loads networkx

        channels = interconnect_of(self._array).topology.channels
        sent = self._graph_senders(stage)
        times = run_hops(stage.hops, channels, plan.beats, plan.busy, stage.rank, sent, self._state.channels)
        self._slots[stage.output] = self._on_targets(stage, times.complete)
        if stage.streams:
            self._heads[stage.output] = self._on_targets(stage, times.shown)
        if len(times.complete):
            self._ends.append(times.complete)
        self._record.stages.append(StageRecord(times.grant, times.tail, sent=sent))

    def _graph_senders(self, stage: RoutedStage) -> IntArray:
        """(senders,) cycle at which each PE or hub has what it sends."""
        if stage.from_pe:
            return self._ready_on_pes(stage.inputs)
        hubs = np.arange(stage.hops.num_sources)
        ready = np.full(len(hubs), NEVER if stage.inputs else 0, dtype=np.int64)
        for slot in stage.inputs:
            if stage.tag is Tag.WEIGHT_STREAM:
                ready = np.maximum(ready, self._slots[slot].max())
            else:
                ready = np.maximum(ready, self._hubs(slot, hubs))
        return ready if stage.early_cycles is None else ready - stage.early_cycles

    def _on_targets(self, stage: RoutedStage, cycles: IntArray) -> IntArray:
        return cycles if stage.to_pes is None else np.where(stage.to_pes, cycles, NEVER)

    def _down_subtrees(self, plan: StagePlan, stage: MessageStage, ready: IntArray) -> None:
        count = len(stage.first_pe)
        latest = np.zeros((*self._steps, count), dtype=np.int64)
        beats = np.zeros((*plan.busy.shape[:-1], count), dtype=np.int64)
        latest[..., stage.target], beats[..., stage.target] = ready, plan.busy
        starts = self._state.downlink.pass_side_by_side(latest, beats, (stage.first_pe, stage.last_pe), 0, 0)
        starts = starts[..., stage.target]
        complete = starts + stage.hop_cycles[stage.target] + plan.busy
        self._slots[stage.output] = self._delivered(plan, stage, complete)
        self._note_parts(starts, complete)

    def _senders(self, stage: MessageStage) -> IntArray:
        """(..., messages) cycle at which the sender of each has what it sends."""
        if stage.from_pe:
            return self._ready_on_pes(stage.inputs)[..., stage.source]
        ready = np.full((*self._steps, len(stage.source)), NEVER if stage.inputs else 0, dtype=np.int64)
        for slot in stage.inputs:
            if stage.tag is Tag.WEIGHT_STREAM:  # waits until all PEs are done with something
                ready = np.maximum(ready, self._slots[slot].max(axis=-1, keepdims=True))
            else:
                ready = np.maximum(ready, self._hubs(slot, stage.source))
        return ready if stage.early_cycles is None else ready - stage.early_cycles

    def _delivered(self, plan: StagePlan, stage: MessageStage, complete: IntArray) -> Ready:
        """Readiness of a stage's output from when its messages are complete.

        A target is ready with its last message; one that nobody sends to is ready at once.
        """
        if plan.covers_all and not stage.to_root:
            last: IntArray = np.maximum.reduce(complete, axis=-1, keepdims=True, initial=0)
            return last
        arrived = complete
        if plan.reached is not None:
            arrived = np.zeros((*complete.shape[:-1], len(stage.first_pe)), dtype=np.int64)
            if len(plan.reached):
                in_order = complete[..., plan.by_target]
                arrived[..., plan.reached] = np.maximum.reduceat(in_order, plan.first_of_target, axis=-1)
        if stage.to_root:
            return arrived
        assert plan.target_of_pe is not None
        return np.where(plan.target_of_pe >= 0, arrived[..., plan.target_of_pe], NEVER)

    def _ready_on_pes(self, inputs: tuple[int, ...]) -> IntArray:
        """(..., PEs) cycle at which each PE has all its parts of the inputs; 0 if there are none."""
        if len(inputs) == 1 and self._slots[inputs[0]].shape == self._shape:
            return self._slots[inputs[0]]
        ready = np.full(self._shape, NEVER if inputs else 0, dtype=np.int64)
        for slot in inputs:
            ready = np.maximum(ready, self._slots[slot])
        return ready

    def _hubs(self, slot: int, hubs: IntArray) -> Ready:
        """(..., hubs) readiness at hubs; a single job serves every group."""
        ready = self._slots[slot]
        return ready[..., hubs] if ready.shape[-1] > 1 else ready


def _largest(values: IntArray, first: IntArray, end: int) -> IntArray:
    """(..., scopes) the largest value of each scope; values between two scopes take no part and are NEVER."""
    if len(first) == 1:
        alone: IntArray = np.maximum.reduce(values[..., int(first[0]) : end], axis=-1, keepdims=True)
        return alone
    largest: IntArray = np.maximum.reduceat(values[..., :end], first, axis=-1)
    return largest


def _rank_and_index(stage: MessageStage) -> IntArray:
    """(messages,) numbers that order a stage's messages: by rank, then as listed."""
    return stage.rank * (len(stage.rank) + 1) + np.arange(len(stage.rank), dtype=np.int64)


def _compact(cycles: IntArray, working: BoolArray | None) -> IntArray:
    """The same cycles of PEs that work in less memory: one number if all are equal, else 32 bits if these suffice."""
    if len(cycles) < _WORTH_A_LOOK:
        return cycles
    if (cycles == cycles[0]).all():
        return np.broadcast_to(cycles[:1].copy(), cycles.shape)
    narrow: npt.NDArray[Any] = cycles.astype(np.int32)
    kept = narrow == cycles if working is None else (narrow == cycles) | ~working
    return narrow if kept.all() else cycles
