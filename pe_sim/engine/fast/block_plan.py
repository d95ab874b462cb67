"""Plans of blocks: masks, occupancies and counts that the fast engine works out once, however often a block runs.

Arrays over PEs end in an axis of PEs, or of classes of PEs behind an axis of steps (see `Schedule.classes`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from pe_sim.config.arrays.array import ArrayConfig
from pe_sim.engine.fast.recurrences import MatrixTimes, matrix_times
from pe_sim.mapping.classes import PeClasses
from pe_sim.network.bus_tree import occupancy_cycles
from pe_sim.schedule.builders import PREFETCHING_OVERLAP
from pe_sim.schedule.memory_timing import memory_timing
from pe_sim.schedule.stages import (
    Block,
    MessageStage,
    PeStage,
    Resource,
    RootStage,
    RoutedStage,
    Stage,
    Tag,
    TreeStage,
)
from pe_sim.trace import TagTraffic
from pe_sim.units import BoolArray, IntArray, ceil_div

_NONE: BoolArray = np.zeros(0, dtype=bool)
_NOWHERE: IntArray = np.zeros(0, dtype=np.int64)


@dataclass(slots=True)
class StagePlan:
    """Figures of a stage that do not depend on time; stages that share their arrays share one plan.

    Args:
        everywhere: whether all PEs work in a stage on PEs, or contribute to a reduction.
        working: (PEs,) those that work; others may pass a term of a sum on.
        times: times of a matrix operator whose duration does not depend on the state of its memory.
        first: (scopes,) where the PEs of each reduction or target begin.
        end: where the PEs of the last one end.
        busy: cycles that each message or reduction holds its channel.
        combine_cycles: cycles that a reduction's joints take to combine.
        levels: levels of joints that a reduction passes.
        beats: beats of each hop over a channel of a graph.
        covers_all: whether the only target of a stage's messages is every PE.
        by_target: (messages,) messages in the order of their targets.
        first_of_target: where the messages of each target begin in that order, of targets that have any.
        reached: the targets that have any; None if each target has one message, in order.
        target_of_pe: (PEs,) the target each PE belongs to, -1 for none.
    """

    everywhere: bool = False
    working: BoolArray = field(default_factory=lambda: _NONE)
    times: MatrixTimes | None = None
    first: IntArray = field(default_factory=lambda: _NOWHERE)
    end: int = 0
    busy: IntArray = field(default_factory=lambda: _NOWHERE)
    combine_cycles: int = 0
    levels: int = 0
    covers_all: bool = False
    beats: IntArray = field(default_factory=lambda: _NOWHERE)
    by_target: IntArray = field(default_factory=lambda: _NOWHERE)
    first_of_target: IntArray = field(default_factory=lambda: _NOWHERE)
    reached: IntArray | None = None
    target_of_pe: IntArray | None = None


@dataclass(slots=True)
class BlockPlan:
    """A block ready to be run many times.

    Args:
        starts_alone: whether some stage waits for nothing.
        takes_part: (PEs,) PEs that some stage of the block runs on.
    """

    block: Block
    stages: list[StagePlan]
    starts_alone: bool
    takes_part: BoolArray


class Planner:
    """Plans the blocks of one schedule, which share the times of equal matrix operators."""

    def __init__(self, array: ArrayConfig, classes: PeClasses | None) -> None:
        self._array, self._classes = array, classes
        self._num_steps = classes.num_steps if classes else 1
        self._width = classes.num_classes if classes else array.num_pes
        self._times: dict[int, MatrixTimes] = {}
        self._known: dict[tuple[object, ...], StagePlan] = {}

    def plan(self, block: Block) -> BlockPlan:
        """The plan of a block."""
        alone = any(not stage.inputs for stage in block.stages)
        plan = BlockPlan(
            block, [self._stage(stage) for stage in block.stages], alone, np.zeros(self._width, dtype=bool)
        )
        for stage, entry in zip(block.stages, plan.stages, strict=True):
            if isinstance(stage, PeStage):
                plan.takes_part = plan.takes_part | stage.active
                if entry.everywhere:
                    break
        return plan

    def _stage(self, stage: Stage) -> StagePlan:
        match stage:
            case PeStage():
                same = (stage.active, stage.cycles, stage.matrix)
                return self._recall(same, lambda: self._on_pes(stage))
            case TreeStage():
                return self._recall((stage.active, stage.num_bytes, stage.first_pe), lambda: self._reduction(stage))
            case MessageStage():
                return self._recall((stage.num_bytes, stage.target, stage.first_pe), lambda: self._messages(stage))
            case RoutedStage():
                return self._recall((stage.num_bytes, stage.hops), lambda: self._routed(stage))
        return StagePlan()

    def _recall(self, same: tuple[object, ...], make: Callable[[], StagePlan]) -> StagePlan:
        key = tuple(map(id, same))  # of what the schedule keeps
        if key not in self._known:
            self._known[key] = make()
        return self._known[key]

    def matrix_times(self, stage: PeStage) -> MatrixTimes:
        """The times of a matrix operator of which nothing was prefetched."""
        assert stage.matrix is not None
        if id(stage.matrix) not in self._times:
            self._times[id(stage.matrix)] = matrix_times(stage.matrix, self._array, None)
        return self._times[id(stage.matrix)]

    def _on_pes(self, stage: PeStage) -> StagePlan:
        if stage.matrix is None:
            working = stage.active & (stage.cycles > 0)
            return StagePlan(bool(working.all()), working)
        fetches = stage.matrix.static and self._array.overlap >= PREFETCHING_OVERLAP
        waits = memory_timing(self._array.pe.memory).closing_cycles > 0
        times = None if fetches or waits else self.matrix_times(stage)
        return StagePlan(bool(stage.active.all()), stage.active, times)

    def _reduction(self, stage: TreeStage) -> StagePlan:
        tree = self._array.bus_tree.tree
        plan = StagePlan(bool(stage.active.all()), busy=ceil_div(stage.num_bytes, tree.bytes_per_cycle))
        plan.first, plan.end = self._entries(stage.first_pe), self._end(stage.last_pe)
        plan.combine_cycles = stage.combine_cycles(tree)
        return plan

    def _messages(self, stage: MessageStage) -> StagePlan:
        if stage.channel is Resource.DOWNLINK:
            busy = ceil_div(stage.num_bytes, self._array.bus_tree.tree.bytes_per_cycle)
        else:
            busy = occupancy_cycles(self._array.bus_tree.bus, stage.num_bytes, stage.source_rate)
        plan = StagePlan(busy=busy)
        num_targets = len(stage.first_pe)
        plan.covers_all = num_targets == 1 and int(stage.last_pe[0] - stage.first_pe[0]) == self._array.num_pes
        if plan.covers_all and not stage.to_root:
            return plan
        if not np.array_equal(stage.target, np.arange(num_targets)):
            plan.by_target = np.argsort(stage.target, kind="stable")
            plan.reached, plan.first_of_target = np.unique(stage.target[plan.by_target], return_index=True)
        if not stage.to_root:
            plan.target_of_pe = self._targets_of_pes(stage)
        return plan

    def _routed(self, stage: RoutedStage) -> StagePlan:
        from pe_sim.network.interconnect import interconnect_of  # loads networkx

        channels = interconnect_of(self._array).topology.channels
        beats, busy = stage.hops.occupancy(channels, stage.num_bytes, stage.source_rate)
        return StagePlan(beats=beats, busy=busy)

    def _targets_of_pes(self, stage: MessageStage) -> IntArray:
        targets = np.full(self._width, -1, dtype=np.int64)
        first, last = self._entries(stage.first_pe), self._entries(stage.last_pe)
        sizes = last - first
        offsets = np.arange(int(sizes.sum())) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        targets[np.repeat(first, sizes) + offsets] = np.repeat(np.arange(len(sizes)), sizes)
        return targets

    def _entries(self, pes: IntArray) -> IntArray:
        return pes if self._classes is None else self._classes.first_class(pes)

    def _end(self, last_pe: IntArray) -> int:
        return int(self._entries(last_pe[-1:])[0])

    def traffic(self, plan: BlockPlan) -> dict[str, TagTraffic]:
        """Traffic of one run of a block by tag, over all steps."""
        traffic: dict[str, TagTraffic] = {}
        for stage, entry in zip(plan.block.stages, plan.stages, strict=True):
            match stage:
                case TreeStage(num_bytes=num_bytes):
                    self._count(traffic, Tag.REDUCE, num_bytes, entry.busy)
                case MessageStage(tag=tag, num_bytes=num_bytes) | RoutedStage(tag=tag, counted_bytes=num_bytes):
                    self._count(traffic, tag, num_bytes, entry.busy)
        return traffic

    def _count(self, traffic: dict[str, TagTraffic], tag: Tag, num_bytes: IntArray, busy: IntArray) -> None:
        repeats = self._num_steps if num_bytes.ndim == 1 else 1
        sent = repeats * int(np.count_nonzero(num_bytes))
        if sent:
            total = traffic.setdefault(tag.value, TagTraffic())
            total.messages += sent
            total.bytes += repeats * int(num_bytes.sum())
            total.busy_cycles += repeats * int(busy.sum())


@dataclass(slots=True)
class BlockTotals:
    """Busy cycles of each run of a block that do not depend on time: (PEs,) by resource of the PEs, and of the root."""

    pe_busy: dict[str, IntArray]
    root_busy: dict[str, int]


def block_totals(plan: BlockPlan, num_pes: int) -> BlockTotals:
    """The totals of a block: sums over its stages."""
    names = (Resource.PE_MATRIX.value, Resource.PE_VECTOR.value, Resource.PE_MEMORY.value)
    totals = BlockTotals(
        {name: np.zeros(num_pes, dtype=np.int64) for name in names},
        {Resource.ROOT_VECTOR.value: 0, Resource.ROOT_MEMORY.value: 0},
    )
    for stage, entry in zip(plan.block.stages, plan.stages, strict=True):
        if isinstance(stage, RootStage):
            totals.root_busy[stage.resource.value] += int(stage.cycles.sum())
        elif isinstance(stage, PeStage) and stage.matrix is None:
            totals.pe_busy[stage.resource.value] += stage.cycles * stage.active
        elif isinstance(stage, PeStage) and stage.matrix is not None:
            totals.pe_busy[Resource.PE_MATRIX.value] += stage.matrix.compute_cycles * stage.active
            if entry.times is not None:
                totals.pe_busy[Resource.PE_MEMORY.value] += entry.times.memory_busy * stage.active
    return totals
