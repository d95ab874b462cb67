"""Lowers a placed graph to a schedule: every block once, in program order.

Local work and moves are lowered apart: work depends on the PEs and the root, moves on the interconnect and on which PEs
have something to send. A sweep that changes only one of them takes the other from what is kept with the placed graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce

import numpy as np

from pe_sim.config.arrays.array import ArrayConfig
from pe_sim.config.networks.network import GraphNetwork
from pe_sim.host_memory import require_memory
from pe_sim.mapping.classes import ClassLayouts, PeClasses
from pe_sim.mapping.layouts import Layouts
from pe_sim.mapping.placed import Move, MoveKind, Node, PlacedBlock, PlacedGraph, Value, Work, likeness
from pe_sim.mapping.placement import Partial, Placement, Replicate, Root, Shard
from pe_sim.schedule.builders import streamed
from pe_sim.schedule.local_work import LocalWork, holders, local_work, root_work
from pe_sim.schedule.moves import lower_move
from pe_sim.schedule.stages import Block, MessageStage, PeStage, RootStage, RoutedStage, Schedule, Stage
from pe_sim.units import BoolArray

# Peaks of whole steps with their reports (fast engine, one bus and one tree, 256 to 65,536 PEs, 32 to 10,000 layers)
# were 21 to 49 bytes for each node of the distinct blocks and PE, and 158 to 298 for each node of every run of a block.
_NODE_BYTES_PER_PE = 20
_RUN_BYTES_PER_NODE = 150
_LEVERS = "fewer PEs (num_pes), layers (model.num_layers) or groups need less, and so do fewer programs at a time"


def lower(placed: PlacedGraph) -> Schedule:
    """The schedule of a placed step.

    Raises:
        OutOfMemoryError: to simulate it takes more than this machine's memory.
    """
    require_memory(least_bytes(placed), "this step", _LEVERS)
    array, kept = placed.array, placed.kept
    outline = kept.nodes.recall(None, outline_of, placed.blocks)
    layouts = tuple(block.layouts for block in placed.blocks)
    common = (array.overlap, array.dtypes, array.root)
    work = kept.layouts.recall((*common, array.pe), _lower_work, array, layouts, outline)
    memo = kept.heavy if isinstance(array.network, GraphNetwork) else kept.layouts
    key = (*common, array.network, array.floorplan, [senders.tobytes() for senders in work.senders])
    moves = memo.recall(key, _lower_moves, array, layouts, outline, work.senders)
    return Schedule(array, _blocks(outline, work, moves), placed.sequence)


def least_bytes(placed: PlacedGraph) -> int:
    """Lower bound of the bytes that lowering, simulating and reporting a step takes; its peak is up to twice that.

    On an interconnect that is a graph its messages' hops come on top; their memory is checked where they are made.
    """
    sizes = [len(block.nodes) for block in placed.blocks]
    in_all = sum(sizes[run.block] for run in placed.sequence)
    return _NODE_BYTES_PER_PE * placed.array.num_pes * sum(sizes) + _RUN_BYTES_PER_NODE * in_all


def lower_steps(placed: PlacedGraph, classes: PeClasses) -> Schedule:
    """One schedule for a placed decode step and those that follow it, over classes of PEs."""
    of_classes = {id(block.layouts): ClassLayouts(block.layouts, classes) for block in placed.blocks}
    layouts = tuple(of_classes[id(block.layouts)] for block in placed.blocks)
    outline = placed.kept.nodes.recall(None, outline_of, placed.blocks)
    work = _lower_work(placed.array, layouts, outline)
    moves = _lower_moves(placed.array, layouts, outline, work.senders)
    return Schedule(placed.array, _blocks(outline, work, moves), placed.sequence, classes)


@dataclass(frozen=True, eq=False, slots=True)
class PieceLowering:
    """Lowers parts of blocks one by one, all on one array with one division of its PEs; what is alike is lowered once.

    Args:
        jobs, costs, moves: what was lowered so far: numbers of nodes that cost alike, local work, and stages of moves.
    """

    array: ArrayConfig
    layouts: Layouts
    jobs: dict[tuple[object, ...], int] = field(default_factory=dict)
    costs: dict[int, LocalWork] = field(default_factory=dict)
    moves: dict[tuple[int, bytes], Stage] = field(default_factory=dict)

    def lower(self, piece: PlacedBlock, entering: Sequence[BoolArray | None]) -> tuple[Block, tuple[BoolArray, ...]]:
        """The lowered piece, and for each value that leaves it (PEs,) whether each PE holds some of it.

        Args:
            entering: for each value that enters, (PEs,) whether each PE holds some of it; None: as its placement says.

        Raises:
            OutOfMemoryError: it exceeds this machine's memory.
        """
        num_bytes = _NODE_BYTES_PER_PE * self.array.num_pes * len(piece.nodes)
        require_memory(num_bytes, "a part of a layer", _LEVERS)
        own = (self.layouts,)
        outline = outline_of((piece,), self.jobs)
        active = _entering(outline[0], self.layouts)
        for slot, mask in zip(outline[0].entries, entering, strict=True):
            if mask is not None:
                active[slot] = mask
        work = _lower_work(self.array, own, outline, self.costs, [active])
        moves = _lower_moves(self.array, own, outline, work.senders, self.moves)
        (block,) = _blocks(outline, work, moves)
        return block, tuple(active[slot] for slot in block.exits)


@dataclass(frozen=True, slots=True)
class _LoweredWork:
    """The stages of all work, and for every move the PEs that hold some of its input; both in program order."""

    stages: tuple[Stage, ...]
    senders: tuple[BoolArray, ...]


def _blocks(outline: tuple[BlockOutline, ...], work: _LoweredWork, moves: tuple[Stage, ...]) -> tuple[Block, ...]:
    works, moved = iter(work.stages), iter(moves)
    blocks: list[Block] = []
    for block in outline:
        stages = tuple([next(moved if isinstance(task.node, Move) else works) for task in block.tasks])
        blocks.append(Block(stages, block.num_slots, block.entries, block.exits))
    return tuple(blocks)


def _lower_work(
    array: ArrayConfig,
    layouts: tuple[Layouts, ...],
    outline: tuple[BlockOutline, ...],
    costs: dict[int, LocalWork] | None = None,
    held_by: list[list[BoolArray]] | None = None,
) -> _LoweredWork:
    """The lowered local work of all blocks.

    Args:
        costs: local work by job, to which new jobs are added.
        held_by: for each block and slot, (PEs,) whether each PE holds some of it; updated.
    """
    costs = {} if costs is None else costs
    stages: list[Stage] = []
    senders: list[BoolArray] = []
    masks = [_entering(block, own) for block, own in zip(outline, layouts, strict=True)] if held_by is None else held_by
    for block, own, active in zip(outline, layouts, masks, strict=True):
        for task in block.tasks:
            if isinstance(task.node, Move):
                senders.append(_any_of([active[slot] for slot in task.inputs] or [own.is_member]))
            elif isinstance(task.node.outputs[0].placement, Root):
                active[task.output] = own.nowhere
                stages.append(_root_stage(task, task.node, array, own))
            else:
                if task.job not in costs:
                    costs[task.job] = local_work(task.node, array, own, block.support)
                stage = _pe_stage(task, task.node, costs[task.job], active)
                active[task.output] = stage.active
                stages.append(stage)
    return _LoweredWork(tuple(stages), tuple(senders))


def _entering(block: BlockOutline, layouts: Layouts) -> list[BoolArray]:
    """For each slot, (PEs,) whether each PE holds some of it before the block; all do of slots still to write."""
    active = [layouts.is_member] * block.num_slots
    for slot, value in zip(block.entries, block.entering, strict=True):
        active[slot] = holders(value, layouts)
    return active


def _root_stage(task: Task, node: Work, array: ArrayConfig, layouts: Layouts) -> RootStage:
    resource, cycles, read_bytes, operations = root_work(node, array, layouts)
    labels = (node.function, node.operator.name, node.distribution)
    return RootStage(*labels, task.inputs, task.output, resource, cycles, read_bytes, operations)


def _pe_stage(task: Task, node: Work, work: LocalWork, active: list[BoolArray]) -> PeStage:
    works = _any_of([work.active, *(active[slot] for slot in task.terms)]) if task.terms else work.active
    name = node.function if work.matrix is None else node.operator.name
    labels = (name, node.operator.name, node.distribution, task.inputs, task.output)
    counts = (work.written_bytes, work.operations, work.input_bytes, work.output_bytes)
    return PeStage(*labels, work.resource, works, work.cycles, work.matrix, work.read_bytes, work.tail_cycles, *counts)


def _lower_moves(
    array: ArrayConfig,
    layouts: tuple[Layouts, ...],
    outline: tuple[BlockOutline, ...],
    senders: tuple[BoolArray, ...],
    known: dict[tuple[int, bytes], Stage] | None = None,
) -> tuple[Stage, ...]:
    stages: list[Stage] = []
    known = {} if known is None else known
    sending = iter(senders)
    for block, own in zip(outline, layouts, strict=True):
        producers: dict[int, Stage] = {}
        for task in block.tasks:
            if isinstance(task.node, Move):
                stage = _move_stage(task, task.node, next(sending), array, own, known)
                fed_by = producers.get(task.inputs[0]) if len(task.inputs) == 1 else None
                producers[task.output] = streams = _streamed(stage, array, fed_by)
                stages.append(streams)
    return tuple(stages)


def _move_stage(
    task: Task,
    node: Move,
    senders: BoolArray,
    array: ArrayConfig,
    layouts: Layouts,
    known: dict[tuple[int, bytes], Stage],
) -> Stage:
    """The stage of a move; one that differs from an earlier one in nothing but names and slots is a copy of it."""
    key = (task.job, senders.tobytes())
    if key in known:
        operator = node.operator.name
        return replace(known[key], name=node.label, operator=operator, inputs=task.inputs, output=task.output)
    if isinstance(array.network, GraphNetwork):
        from pe_sim.schedule.routed_moves import lower_routed_move  # loads networkx

        known[key] = lower_routed_move(node, task.inputs, task.output, senders, array, layouts)
    else:
        known[key] = lower_move(node, task.inputs, task.output, senders, array, layouts)
    return known[key]


def _streamed(stage: Stage, array: ArrayConfig, fed_by: Stage | None) -> Stage:
    if isinstance(stage, RoutedStage):
        from pe_sim.schedule.routed_moves import routed_stream  # loads networkx

        return routed_stream(stage, array, fed_by)
    return streamed(stage, array, fed_by) if isinstance(stage, MessageStage) else stage


def _any_of(masks: list[BoolArray]) -> BoolArray:
    """(PEs,) whether each PE is in at least one of the masks."""
    return reduce(np.logical_or, masks)


# ---- Outlines of placed blocks: slots, the tasks that read and write them, and which tasks cost alike.
#
# Nothing here depends on the array or on the sizes of the tensors' slices, so that one outline serves a whole sweep.


_PASSING = ("add", "bias")  # a PE passes its term of a sum on even if it has nothing to add


@dataclass(frozen=True, slots=True)
class Task:
    """A node that takes time and becomes one stage.

    Args:
        node: the work or the move.
        job: equal for tasks of all blocks that cost the same, names aside.
        inputs, output: slots.
        terms: slots of terms of a sum that a PE passes on even if it has nothing to add to them.
    """

    node: Node
    job: int
    inputs: tuple[int, ...]
    output: int
    terms: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class BlockOutline:
    """The tasks of one block, with its slots.

    Args:
        tasks: in program order.
        num_slots, entries, exits: as of a `Block`.
        entering: the values of the entries.
        support: which slice of a Partial value is not zero, by the value's key.
    """

    tasks: tuple[Task, ...]
    num_slots: int
    entries: tuple[int, ...]
    exits: tuple[int, ...]
    entering: tuple[Value, ...]
    support: Mapping[int, Placement]


def outline_of(
    blocks: tuple[PlacedBlock, ...], jobs: dict[tuple[object, ...], int] | None = None
) -> tuple[BlockOutline, ...]:
    """The outlines of a placed graph's blocks; new jobs are added to `jobs` and numbered on."""
    jobs = {} if jobs is None else jobs
    return tuple(_BlockOutliner(id(block.layouts), jobs).outline(block) for block in blocks)


@dataclass
class _BlockOutliner:
    """Builds the outline of one block; `slots` and `support` are by the key of a value."""

    layouts: int
    jobs: dict[tuple[object, ...], int]
    tasks: list[Task] = field(default_factory=list)
    slots: dict[int, int] = field(default_factory=dict)
    support: dict[int, Placement] = field(default_factory=dict)
    num_slots: int = 0

    def outline(self, block: PlacedBlock) -> BlockOutline:
        entries = tuple(self._new_slot((value,)) for value in block.entries)
        for node in block.nodes:
            if isinstance(node, Move) and node.kind is MoveKind.LOCAL:
                self._alias(node)
            elif isinstance(node, Work) and node.function == "select":
                self._alias_select(node)
            else:
                self._append(node)
        exits = tuple(self.slots[value.key] for value in block.exits)
        return BlockOutline(tuple(self.tasks), self.num_slots, entries, exits, block.entries, self.support)

    def _alias(self, node: Move) -> None:
        """Takes in a free move: the data stays where it is, and for a Partial only a slice of it is not zero."""
        for source, target in zip(node.inputs, node.outputs, strict=True):
            self.slots[target.key] = self.slots[source.key]
            if isinstance(source.placement, Partial):
                if source.placement.held is not None:
                    self.support[target.key] = source.placement.held
            elif isinstance(target.placement, Partial):
                whole = isinstance(source.placement, Replicate)
                self.support[target.key] = Shard(source.tensor.dim) if whole else source.placement

    def _alias_select(self, node: Work) -> None:
        source, target = node.inputs[0], node.outputs[0]
        self.slots[target.key] = self.slots[source.key]
        if source.key in self.support:
            self.support[target.key] = self.support[source.key]

    def _append(self, node: Node) -> None:
        waits_for = node.after if isinstance(node, Move) and node.kind is MoveKind.WEIGHT_STREAM else node.inputs
        inputs = tuple(dict.fromkeys(self.slots[value.key] for value in waits_for))
        terms = self._terms(node)
        self.tasks.append(Task(node, self._job(node), inputs, self._new_slot(node.outputs), terms))

    def _terms(self, node: Node) -> tuple[int, ...]:
        if isinstance(node, Move) or node.function not in _PASSING:
            return ()
        if not isinstance(node.outputs[0].placement, Partial):
            return ()
        return tuple(self.slots[value.key] for value in node.inputs if not self._is_even(value))

    def _is_even(self, value: Value) -> bool:
        """Whether a PE's term is only its even slice, so that an add has something to do on every PE with a term."""
        slice_of = self.support.get(value.key)
        return slice_of is not None and not (isinstance(slice_of, Shard) and slice_of.grid)

    def _job(self, node: Node) -> int:
        return self.jobs.setdefault((self.layouts, *likeness(node, self.support)), len(self.jobs))

    def _new_slot(self, values: tuple[Value, ...]) -> int:
        for value in values:
            self.slots[value.key] = self.num_slots
        self.num_slots += 1
        return self.num_slots - 1
