"""What the fast engine works out once for a block, whenever it runs: masks, occupancies, counts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pe_sim.config.array import ArrayConfig
from pe_sim.engine.recorder import read_bytes_of
from pe_sim.engine.recurrences import MatrixTimes, matrix_times
from pe_sim.network.bus_tree import occupancy_cycles
from pe_sim.schedule.stages import Block, MessageStage, PeStage, Resource, RootStage, Stage, Tag, TreeStage
from pe_sim.trace import TagTraffic
from pe_sim.units import IntArray, ceil_div


@dataclass(slots=True)
class StagePlan:
    """One stage with what does not depend on time.

    Args:
        everywhere: whether all PEs take part in a stage on PEs.
        times: of a matrix operator whose duration does not depend on the state of its port.
        busy: cycles each message or reduction holds its channel.
        combine_cycles: of a reduction's joints.
        levels: of the joints a reduction passes.
        covers_all: whether the only target of a stage's messages is every PE.
        target_of_pe: (PEs,) the target each PE belongs to, -1 for none.
    """

    stage: Stage
    everywhere: bool = False
    times: MatrixTimes | None = None
    busy: IntArray | None = None
    combine_cycles: int = 0
    levels: int = 0
    covers_all: bool = False
    target_of_pe: IntArray | None = None


@dataclass(slots=True)
class BlockPlan:
    """A block ready to be run many times.

    Args:
        matrix_busy, vector_busy, memory_busy: (PEs,) busy cycles that do not depend on time.
        starts_alone: whether some stage waits for nothing.
    """

    block: Block
    stages: list[StagePlan]
    traffic: dict[str, TagTraffic]
    matrix_busy: IntArray
    vector_busy: IntArray
    memory_busy: IntArray
    root_busy: dict[str, int]
    read_bytes: int
    starts_alone: bool


def plan_block(block: Block, array: ArrayConfig) -> BlockPlan:
    """Everything about a block that is the same each time it runs."""
    nothing = np.zeros(array.num_pes, dtype=np.int64)
    plan = BlockPlan(
        block,
        [_plan_stage(stage, array) for stage in block.stages],
        {},
        nothing,
        nothing.copy(),
        nothing.copy(),
        {Resource.ROOT_VECTOR.value: 0, Resource.ROOT_MEMORY.value: 0},
        sum(read_bytes_of(stage) for stage in block.stages),
        any(not stage.inputs for stage in block.stages),
    )
    for entry in plan.stages:
        _count(plan, entry)
    return plan


def _plan_stage(stage: Stage, array: ArrayConfig) -> StagePlan:
    plan = StagePlan(stage)
    tree = array.network.tree
    match stage:
        case PeStage():
            plan.everywhere = bool(stage.active.all())
            if stage.matrix is not None and (array.overlap < 2 or not stage.matrix.static):
                plan.times = matrix_times(stage.matrix, array, None)
        case TreeStage():
            plan.busy = ceil_div(stage.num_bytes, tree.bytes_per_cycle)
            plan.levels = tree.num_levels if stage.whole_tree else _levels_above(stage, tree.arity)
            links = sum(tree.level_latency_cycles[: plan.levels])
            plan.combine_cycles = (int(stage.hop_cycles[0]) - links) // max(plan.levels, 1)
        case MessageStage():
            plan.busy = _message_busy(stage, array)
            plan.covers_all = len(stage.first_pe) == 1 and int(stage.last_pe[0] - stage.first_pe[0]) == array.num_pes
            plan.target_of_pe = _targets_of_pes(stage, array.num_pes)
    return plan


def _targets_of_pes(stage: MessageStage, num_pes: int) -> IntArray:
    targets = np.full(num_pes, -1, dtype=np.int64)
    sizes = stage.last_pe - stage.first_pe
    offsets = np.arange(int(sizes.sum())) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    targets[np.repeat(stage.first_pe, sizes) + offsets] = np.repeat(np.arange(len(sizes)), sizes)
    return targets


def _levels_above(stage: TreeStage | MessageStage, arity: int) -> int:
    size, levels = int(stage.last_pe[0] - stage.first_pe[0]), 0
    while arity**levels < size:
        levels += 1
    return levels


def _message_busy(stage: MessageStage, array: ArrayConfig) -> IntArray:
    bus = array.network.bus
    if stage.channel is Resource.DOWNLINK:
        return ceil_div(stage.num_bytes, array.network.tree.bytes_per_cycle)
    return occupancy_cycles(bus, stage.num_bytes, stage.source_rate)


def _count(plan: BlockPlan, entry: StagePlan) -> None:
    match entry.stage:
        case PeStage(matrix=None) as stage:
            busy = np.where(stage.active, stage.cycles, 0)
            if stage.resource is Resource.PE_MEMORY:
                plan.memory_busy += busy
            else:
                plan.vector_busy += busy
        case PeStage(matrix=matrix) as stage:
            assert matrix is not None
            plan.matrix_busy += np.where(stage.active, matrix.compute_cycles, 0)
            if entry.times is not None:
                plan.memory_busy += np.where(stage.active, entry.times.memory_busy, 0)
        case RootStage() as stage:
            plan.root_busy[stage.resource.value] += int(stage.cycles.sum())
        case TreeStage() as stage:
            _count_messages(plan, Tag.REDUCE, stage.num_bytes, entry.busy)
        case MessageStage() as stage:
            _count_messages(plan, stage.tag, stage.num_bytes, entry.busy)


def _count_messages(plan: BlockPlan, tag: Tag, num_bytes: IntArray, busy: IntArray | None) -> None:
    assert busy is not None
    sent = int(np.count_nonzero(num_bytes))
    if sent:
        traffic = plan.traffic.setdefault(tag.value, TagTraffic())
        traffic.messages += sent
        traffic.bytes += int(num_bytes.sum())
        traffic.busy_cycles += int(busy.sum())
