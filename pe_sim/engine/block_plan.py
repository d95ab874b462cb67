"""What the fast engine works out once for a block, whenever it runs: masks, occupancies, counts."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from pe_sim.config.array import ArrayConfig, Tree
from pe_sim.engine.recorder import read_bytes_of
from pe_sim.engine.recurrences import MatrixTimes, matrix_times
from pe_sim.network.bus_tree import occupancy_cycles
from pe_sim.schedule.stages import Block, MessageStage, PeStage, Resource, RootStage, Stage, Tag, TreeStage
from pe_sim.trace import TagTraffic
from pe_sim.units import BoolArray, IntArray, ceil_div


@dataclass(slots=True)
class StagePlan:
    """One stage with what does not depend on time.

    Args:
        everywhere: whether all PEs work in a stage on PEs.
        working: (PEs,) those that do; others may hand a term of a sum on.
        times: of a matrix operator whose duration does not depend on the state of its port.
        busy: cycles each message or reduction holds its channel.
        combine_cycles: of a reduction's joints.
        levels: of the joints a reduction passes.
        covers_all: whether the only target of a stage's messages is every PE.
        target_of_pe: (PEs,) the target each PE belongs to, -1 for none.
    """

    stage: Stage
    everywhere: bool = False
    working: BoolArray = field(default_factory=lambda: np.zeros(0, dtype=bool))
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
        takes_part: (PEs,) PEs that some stage of the block runs on.
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
    takes_part: BoolArray


def plan_block(block: Block, array: ArrayConfig, known_times: dict[int, MatrixTimes]) -> BlockPlan:
    """Everything about a block that is the same each time it runs.

    Args:
        known_times: by the identity of a matrix work; blocks share what they have in common.
    """
    nothing = np.zeros(array.num_pes, dtype=np.int64)
    plan = BlockPlan(
        block,
        [],
        {},
        nothing,
        nothing.copy(),
        nothing.copy(),
        {Resource.ROOT_VECTOR.value: 0, Resource.ROOT_MEMORY.value: 0},
        0,
        any(not stage.inputs for stage in block.stages),
        np.zeros(array.num_pes, dtype=bool),
    )
    for stage in block.stages:
        entry = StagePlan(stage)
        match stage:
            case PeStage():
                _plan_on_pes(plan, entry, stage, array, known_times)
            case RootStage():
                plan.root_busy[stage.resource.value] += int(stage.cycles.sum())
            case TreeStage():
                _plan_reduction(entry, stage, array.network.tree)
                _count_messages(plan, Tag.REDUCE, stage.num_bytes, entry.busy)
            case MessageStage():
                _plan_messages(entry, stage, array)
                _count_messages(plan, stage.tag, stage.num_bytes, entry.busy)
        plan.stages.append(entry)
        plan.read_bytes += read_bytes_of(stage)
    return plan


def _plan_on_pes(
    plan: BlockPlan, entry: StagePlan, stage: PeStage, array: ArrayConfig, known_times: dict[int, MatrixTimes]
) -> None:
    matrix = stage.matrix
    entry.working = stage.active if matrix is not None else stage.active & (stage.cycles > 0)
    entry.everywhere = bool(entry.working.all())
    plan.takes_part |= stage.active
    if matrix is None:
        busy = plan.memory_busy if stage.resource is Resource.PE_MEMORY else plan.vector_busy
        busy += stage.cycles * stage.active
        return
    plan.matrix_busy += matrix.compute_cycles * stage.active
    if array.overlap < 2 or not matrix.static:
        if id(matrix) not in known_times:
            known_times[id(matrix)] = matrix_times(matrix, array, None)
        entry.times = known_times[id(matrix)]
        plan.memory_busy += entry.times.memory_busy * stage.active


def _plan_reduction(entry: StagePlan, stage: TreeStage, tree: Tree) -> None:
    entry.busy = ceil_div(stage.num_bytes, tree.bytes_per_cycle)
    entry.levels = tree.num_levels if stage.whole_tree else _levels_above(stage, tree.arity)
    links = sum(tree.level_latency_cycles[: entry.levels])
    entry.combine_cycles = (int(stage.hop_cycles[0]) - links) // max(entry.levels, 1)


def _plan_messages(entry: StagePlan, stage: MessageStage, array: ArrayConfig) -> None:
    if stage.channel is Resource.DOWNLINK:
        entry.busy = ceil_div(stage.num_bytes, array.network.tree.bytes_per_cycle)
    else:
        entry.busy = occupancy_cycles(array.network.bus, stage.num_bytes, stage.source_rate)
    entry.covers_all = len(stage.first_pe) == 1 and int(stage.last_pe[0] - stage.first_pe[0]) == array.num_pes
    if not entry.covers_all and not stage.to_root:
        entry.target_of_pe = _targets_of_pes(stage, array.num_pes)


def _targets_of_pes(stage: MessageStage, num_pes: int) -> IntArray:
    targets = np.full(num_pes, -1, dtype=np.int64)
    sizes = stage.last_pe - stage.first_pe
    offsets = np.arange(int(sizes.sum())) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    targets[np.repeat(stage.first_pe, sizes) + offsets] = np.repeat(np.arange(len(sizes)), sizes)
    return targets


def _levels_above(stage: TreeStage, arity: int) -> int:
    size, levels = int(stage.last_pe[0] - stage.first_pe[0]), 0
    while arity**levels < size:
        levels += 1
    return levels


def _count_messages(plan: BlockPlan, tag: Tag, num_bytes: IntArray, busy: IntArray | None) -> None:
    assert busy is not None
    sent = int(np.count_nonzero(num_bytes))
    if sent:
        traffic = plan.traffic.setdefault(tag.value, TagTraffic())
        traffic.messages += sent
        traffic.bytes += int(num_bytes.sum())
        traffic.busy_cycles += int(busy.sum())
