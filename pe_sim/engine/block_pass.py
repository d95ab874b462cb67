"""One pass over a block's stages in program order: readiness of every slot from the readiness of its inputs."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from pe_sim.config.array import ArrayConfig
from pe_sim.engine.block_plan import BlockPlan, StagePlan
from pe_sim.engine.recurrences import NEVER, ChannelState, OutOfOrderError, TreeState, matrix_times
from pe_sim.schedule.stages import MessageStage, PeStage, Resource, RootStage, Tag, TreeStage
from pe_sim.units import BoolArray, IntArray

Ready = IntArray | int  # of a slot: a cycle per PE or hub, or one that holds for all


@dataclass(slots=True)
class MachineState:
    """Everything a block's future depends on, beside the values it takes."""

    pe_free: IntArray
    port_free: IntArray
    bus: ChannelState
    root: dict[Resource, ChannelState]
    tree: TreeState
    downlink: TreeState


@dataclass(slots=True)
class StageRecord:
    """Cycles of one stage: over all, per PE, and of each use of a channel."""

    start: int = NEVER
    end: int = NEVER
    pe_start: IntArray | None = None
    pe_end: IntArray | None = None
    use_start: IntArray | None = None
    use_end: IntArray | None = None


@dataclass(slots=True)
class BlockRecord:
    """What one pass found; `memory_busy` is what depended on the state of the ports.

    `exits` are the values that leave, `exit_heads` the heads of those that were streamed (None: not streamed).
    """

    stages: list[StageRecord] = field(default_factory=list)
    exits: list[Ready] = field(default_factory=list)
    exit_heads: list[Ready | None] = field(default_factory=list)
    last_end: int = 0
    memory_busy: IntArray | None = None


class BlockPass:
    """Runs a planned block on a machine state, which it moves on."""

    def __init__(
        self,
        plan: BlockPlan,
        array: ArrayConfig,
        state: MachineState,
        entries: list[Ready],
        entry_heads: list[Ready | None],
    ) -> None:
        self._plan, self._array, self._state = plan, array, state
        self._slots: dict[int, Ready] = dict(zip(plan.block.entries, entries, strict=True))
        heads = zip(plan.block.entries, entry_heads, strict=True)
        self._heads: dict[int, Ready] = {slot: head for slot, head in heads if head is not None}
        self._record = BlockRecord()

    def run(self) -> BlockRecord:
        """The cycles of every stage.

        Raises:
            OutOfOrderError: requests of different stages reach a channel in another order than the program's.
        """
        for plan in self._plan.stages:
            match plan.stage:
                case PeStage() as stage:
                    done = self._on_pes(plan, stage)
                case RootStage() as stage:
                    done = self._at_root(stage)
                case TreeStage() as stage:
                    done = self._through_tree(plan, stage)
                case MessageStage() as stage:
                    done = self._as_messages(plan, stage)
                case _:
                    raise TypeError(f"the fast engine has no recurrence for a {type(plan.stage).__name__}")
            self._record.stages.append(done)
            self._record.last_end = max(self._record.last_end, done.end)
        self._record.exits = [self._slots[slot] for slot in self._plan.block.exits]
        self._record.exit_heads = [self._heads.get(slot) for slot in self._plan.block.exits]
        return self._record

    def _on_pes(self, plan: StagePlan, stage: PeStage) -> StageRecord:
        state = self._state
        start = state.pe_free
        arrivals = self._slots if stage.tail_cycles is None else self._slots | self._heads
        for slot in stage.inputs:
            start = np.maximum(start, arrivals[slot])
        end = start + (stage.cycles if stage.matrix is None else self._matrix_duration(plan, stage, start))
        if stage.tail_cycles is not None:
            for slot in stage.inputs:
                if slot in self._heads:
                    end = np.maximum(end, self._slots[slot] + stage.tail_cycles)
        if stage.resource is Resource.PE_MEMORY and self._array.overlap >= 2:
            state.port_free = np.where(stage.active, end, state.port_free)
        if plan.everywhere:
            state.pe_free = self._slots[stage.output] = end
            return StageRecord(int(start.min()), int(end.max()), start, end)
        active = stage.active
        state.pe_free = np.where(active, end, state.pe_free)
        self._slots[stage.output] = np.where(active, end, NEVER)
        working = plan.working
        if not working.any():
            return StageRecord(pe_start=np.full_like(end, NEVER), pe_end=np.full_like(end, NEVER))
        began, done = np.where(working, start, NEVER), np.where(working, end, NEVER)
        return StageRecord(int(start[working].min()), int(done.max()), began, done)

    def _matrix_duration(self, plan: StagePlan, stage: PeStage, start: IntArray) -> IntArray:
        state, times = self._state, plan.times
        assert stage.matrix is not None
        if times is None:
            times = matrix_times(stage.matrix, self._array, start - state.port_free)
            busy = np.where(stage.active, times.memory_busy, 0)
            known = self._record.memory_busy
            self._record.memory_busy = busy if known is None else known + busy
        if self._array.overlap >= 2:
            ends = start + times.stream_end
            state.port_free = ends if plan.everywhere else np.where(stage.active, ends, state.port_free)
        return times.duration

    def _at_root(self, stage: RootStage) -> StageRecord:
        jobs = len(stage.cycles)
        ready = np.full(jobs, NEVER if stage.inputs else 0, dtype=np.int64)
        for slot in stage.inputs:
            ready = np.maximum(ready, self._hubs(slot, np.arange(jobs)))
        worked = np.flatnonzero(stage.cycles > 0)
        ends = ready.copy()
        record = StageRecord()
        if len(worked):
            server = self._state.root[stage.resource]
            grants, releases = server.serve(ready[worked], worked, stage.cycles[worked])
            ends[worked] = releases
            record = StageRecord(int(grants.min()), int(releases.max()), use_start=grants, use_end=releases)
        self._slots[stage.output] = ends
        return record

    def _through_tree(self, plan: StagePlan, stage: TreeStage) -> StageRecord:
        assert plan.busy is not None
        size = int(stage.last_pe[0] - stage.first_pe[0])
        contributing = np.where(stage.active, self._ready_on_pes(stage.inputs), NEVER)
        latest = contributing[stage.first_pe[:, None] + np.arange(size)].max(axis=1)
        if stage.whole_tree:
            starts = np.zeros(len(latest), dtype=np.int64)
            for index in np.flatnonzero(plan.busy > 0).tolist():
                beats = int(plan.busy[index])
                starts[index] = self._state.tree.pass_whole(int(latest[index]), beats, plan.combine_cycles)
        else:
            starts = self._state.tree.pass_side_by_side(
                latest, plan.busy, stage.first_pe, size, plan.levels, plan.combine_cycles
            )
        ends = starts + stage.hop_cycles + plan.busy
        self._slots[stage.output] = np.where(plan.busy > 0, ends, 0)
        return _channel_record(starts, starts + plan.busy, ends, plan.busy > 0)

    def _as_messages(self, plan: StagePlan, stage: MessageStage) -> StageRecord:
        assert plan.busy is not None
        if not len(stage.source):
            self._slots[stage.output] = self._delivered(plan, stage, stage.source)
            return StageRecord()
        ready = self._senders(stage)
        if stage.channel is Resource.DOWNLINK:
            return self._down_subtrees(plan, stage, ready)
        bus = self._array.network.bus
        if bus.burst_bytes is not None and int(stage.num_bytes.max()) > bus.burst_bytes:
            raise OutOfOrderError  # bursts of several messages take turns
        arrivals = ready + np.where(stage.rank >= 0, bus.request_cycles, 0)
        grants, releases = self._state.bus.serve(arrivals, _rank_and_index(stage), plan.busy)
        complete = releases + bus.latency_cycles
        self._slots[stage.output] = self._delivered(plan, stage, complete)
        if stage.streams:
            heads = grants + bus.overhead_cycles + bus.latency_cycles
            self._heads[stage.output] = self._delivered(plan, stage, heads)
        return StageRecord(int(grants.min()), int(complete.max()), use_start=grants, use_end=releases)

    def _down_subtrees(self, plan: StagePlan, stage: MessageStage, ready: IntArray) -> StageRecord:
        assert plan.busy is not None
        size, count = int(stage.last_pe[0] - stage.first_pe[0]), len(stage.first_pe)
        latest, beats = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int64)
        latest[stage.target], beats[stage.target] = ready, plan.busy
        starts = self._state.downlink.pass_side_by_side(latest, beats, stage.first_pe, size, 1, 0)
        starts = starts[stage.target]
        complete = starts + stage.hop_cycles[stage.target] + plan.busy
        self._slots[stage.output] = self._delivered(plan, stage, complete)
        return _channel_record(starts, starts + plan.busy, complete, plan.busy > 0)

    def _senders(self, stage: MessageStage) -> IntArray:
        """(messages,) when each sender has what it sends."""
        if stage.from_pe:
            return self._ready_on_pes(stage.inputs)[stage.source]
        ready = np.full(len(stage.source), NEVER if stage.inputs else 0, dtype=np.int64)
        for slot in stage.inputs:
            if stage.tag is Tag.WEIGHT_STREAM:  # waits until all PEs are done with something
                ready = np.maximum(ready, int(np.max(self._slots[slot])))
            else:
                ready = np.maximum(ready, self._hubs(slot, stage.source))
        return ready if stage.early_cycles is None else ready - stage.early_cycles

    def _delivered(self, plan: StagePlan, stage: MessageStage, complete: IntArray) -> Ready:
        """A target is ready with its last message; one that nobody sends to is ready at once."""
        if plan.covers_all and not stage.to_root:
            return int(complete.max()) if len(complete) else 0
        arrived = np.zeros(len(stage.first_pe), dtype=np.int64)
        np.maximum.at(arrived, stage.target, complete)
        if stage.to_root:
            return arrived
        assert plan.target_of_pe is not None
        return np.where(plan.target_of_pe >= 0, arrived[plan.target_of_pe], NEVER)

    def _ready_on_pes(self, inputs: tuple[int, ...]) -> IntArray:
        """(PEs,) when each PE has all its parts of the inputs; 0 everywhere if there are none."""
        ready = np.full(self._array.num_pes, NEVER if inputs else 0, dtype=np.int64)
        for slot in inputs:
            ready = np.maximum(ready, self._slots[slot])
        return ready

    def _hubs(self, slot: int, hubs: IntArray) -> IntArray | int:
        """(hubs,) readiness at hubs; a single job serves every group."""
        ready = self._slots[slot]
        if isinstance(ready, int):
            return ready
        return ready[hubs] if len(ready) > 1 else int(ready[0])


def _rank_and_index(stage: MessageStage) -> IntArray:
    """One number that orders a stage's messages: by rank, then as listed."""
    return stage.rank * (len(stage.rank) + 1) + np.arange(len(stage.rank), dtype=np.int64)


def _channel_record(starts: IntArray, releases: IntArray, ends: IntArray, used: BoolArray) -> StageRecord:
    if not used.any():
        return StageRecord()
    starts, releases, ends = starts[used], releases[used], ends[used]
    return StageRecord(int(starts.min()), int(ends.max()), use_start=starts, use_end=releases)
