"""Lowers a placed graph to a schedule: every block once, in program order."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import reduce

import numpy as np

from pe_sim.config.array import ArrayConfig
from pe_sim.mapping.classes import ClassLayouts, PeClasses
from pe_sim.mapping.layouts import Layouts
from pe_sim.mapping.placed import Move, MoveKind, PlacedBlock, PlacedGraph, Value, Work
from pe_sim.mapping.placement import Partial, Placement, Replicate, Root, Shard
from pe_sim.schedule.builders import streamed
from pe_sim.schedule.local_work import LocalWork, local_work, root_cycles
from pe_sim.schedule.moves import lower_move
from pe_sim.schedule.stages import Block, MessageStage, PeStage, RootStage, Schedule, Stage
from pe_sim.units import BoolArray

_PASSING = ("add", "bias")  # a PE hands its term of a sum on even if it has nothing to add


def lower(placed: PlacedGraph) -> Schedule:
    """The schedule of a placed step."""
    shared: dict[tuple[object, ...], LocalWork] = {}
    blocks = tuple(_BlockLowering(placed.array, block.layouts, shared).lower(block) for block in placed.blocks)
    return Schedule(placed.array, blocks, placed.sequence)


def lower_steps(placed: PlacedGraph, classes: PeClasses) -> Schedule:
    """One schedule of a placed decode step and those that follow it, over classes of PEs."""
    layouts = {id(block.layouts): ClassLayouts(block.layouts, classes) for block in placed.blocks}
    shared: dict[tuple[object, ...], LocalWork] = {}
    blocks = tuple(
        _BlockLowering(placed.array, layouts[id(block.layouts)], shared).lower(block) for block in placed.blocks
    )
    return Schedule(placed.array, blocks, placed.sequence, classes)


@dataclass
class _BlockLowering:
    """Lowers one block; `slots` maps a value's key to its slot, `active` a slot to the PEs that hold data."""

    array: ArrayConfig
    layouts: Layouts
    shared: dict[tuple[object, ...], LocalWork]
    stages: list[Stage] = field(default_factory=list)
    producers: dict[int, Stage] = field(default_factory=dict)
    slots: dict[int, int] = field(default_factory=dict)
    active: list[BoolArray] = field(default_factory=list)
    support: dict[int, Placement] = field(default_factory=dict)

    def lower(self, block: PlacedBlock) -> Block:
        for value in block.entries:
            self.slots[value.key] = self._new_slot(self.layouts.is_member)
        entries = tuple(self.slots[value.key] for value in block.entries)
        for node in block.nodes:
            if isinstance(node, Work):
                self._lower_work(node)
            elif node.kind is MoveKind.LOCAL:
                self._alias(node)
            else:
                self._lower_move(node)
        exits = tuple(self.slots[value.key] for value in block.exits)
        return Block(tuple(self.stages), len(self.active), entries, exits)

    def _alias(self, node: Move) -> None:
        """A free move: the data is where it was, and for a Partial only a slice of it is not zero."""
        for source, target in zip(node.inputs, node.outputs, strict=True):
            self.slots[target.key] = self.slots[source.key]
            if isinstance(target.placement, Partial):
                whole = isinstance(source.placement, Replicate)
                self.support[target.key] = Shard(source.tensor.dim) if whole else source.placement

    def _lower_work(self, node: Work) -> None:
        if node.function == "select":
            self._alias_select(node)
        elif isinstance(node.outputs[0].placement, Root):
            self._lower_root_work(node)
        else:
            self._lower_pe_work(node)

    def _alias_select(self, node: Work) -> None:
        source, target = node.inputs[0], node.outputs[0]
        self.slots[target.key] = self.slots[source.key]
        if source.key in self.support:
            self.support[target.key] = self.support[source.key]

    def _lower_root_work(self, node: Work) -> None:
        resource, cycles, read_bytes = root_cycles(node, self.array, self.layouts)
        output = self._new_slot(self.layouts.nowhere)
        labels = (node.function, node.operator.name, node.distribution)
        stage = RootStage(*labels, self._input_slots(node.inputs), output, resource, cycles, read_bytes)
        self._emit(stage, node.outputs)

    def _lower_pe_work(self, node: Work) -> None:
        work = self._local_work(node)
        active = work.active | self._holds_terms(node) if node.function in _PASSING else work.active
        output = self._new_slot(active)
        name = node.function if work.matrix is None else node.operator.name
        labels = (name, node.operator.name, node.distribution, self._input_slots(node.inputs), output)
        stage = PeStage(*labels, work.resource, active, work.cycles, work.matrix, work.read_bytes, work.tail_cycles)
        self._emit(stage, node.outputs)

    def _local_work(self, node: Work) -> LocalWork:
        """What the work costs; blocks that repeat an operator in the same placements share it."""
        places = tuple((value.placement, self.support.get(value.key)) for value in (*node.inputs, *node.outputs))
        key = (id(self.layouts), id(node.operator), node.function, places)
        if key not in self.shared:
            self.shared[key] = local_work(node, self.array, self.layouts, self.support)
        return self.shared[key]

    def _holds_terms(self, node: Work) -> BoolArray:
        """(PEs,) PEs that pass a term of a sum on although they have nothing to add to it."""
        if not isinstance(node.outputs[0].placement, Partial):
            return self.layouts.nowhere
        held = [self.active[self.slots[value.key]] for value in node.inputs if value.key not in self.support]
        return reduce(np.logical_or, held) if held else self.layouts.nowhere

    def _lower_move(self, node: Move) -> None:
        inputs = self._input_slots(node.after if node.kind is MoveKind.WEIGHT_STREAM else node.inputs)
        senders = reduce(np.logical_or, [self.active[slot] for slot in inputs] or [self.layouts.is_member])
        output = self._new_slot(self.layouts.is_member)
        stage = lower_move(node, inputs, output, senders, self.array, self.layouts)
        if isinstance(stage, MessageStage):
            fed_by = self.producers.get(inputs[0]) if len(inputs) == 1 else None
            stage = streamed(stage, self.array, fed_by)
        self._emit(stage, node.outputs)

    def _emit(self, stage: Stage, outputs: tuple[Value, ...]) -> None:
        self.stages.append(stage)
        self.producers[stage.output] = stage
        for value in outputs:
            self.slots[value.key] = stage.output

    def _input_slots(self, values: tuple[Value, ...]) -> tuple[int, ...]:
        return tuple(dict.fromkeys(self.slots[value.key] for value in values))

    def _new_slot(self, active: BoolArray) -> int:
        self.active.append(active)
        return len(self.active) - 1
