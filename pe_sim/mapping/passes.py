"""Passes: what one array does between two meetings with others, placed as blocks of their own.

A pass begins with tensors that are there already (from other arrays, or left by the pass before it) and ends with
tensors that stay, and perhaps one that leaves for other arrays from the root.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from pe_sim.config.array import ArrayConfig
from pe_sim.graph.graph import OperatorGraph
from pe_sim.graph.operators import AttentionShape, Operator, Receive, Send
from pe_sim.graph.tensors import Tensor
from pe_sim.mapping.kept import Kept
from pe_sim.mapping.layouts import Layouts, layouts_of
from pe_sim.mapping.placed import BlockRun, PlacedBlock, PlacedGraph, Value
from pe_sim.mapping.placement import Placement
from pe_sim.mapping.placer import BlockPlacer, BlockPlan
from pe_sim.mapping.transforms import Transforms
from pe_sim.mapping.workflow import Workflow


@dataclass(frozen=True, slots=True)
class Arrival:
    """A tensor that is there when a pass begins.

    Args:
        tensor: what it is.
        placement: where it is; None: at the root, from other arrays.
        to_all: whether what comes to the root is needed by every PE.
    """

    tensor: Tensor
    placement: Placement | None = None
    to_all: bool = False


@dataclass(frozen=True, slots=True)
class Part:
    """Operators of a pass that are one block.

    Args:
        operators: in program order.
        plan: what they are given.
        layer: in which layer of the array they are, counted from 0; None outside the layers.
        leaving: tensors that live after it, by name; empty: it is a whole layer, and the stream does.
        ends: the layer's last operator, if the part ends the layer.
    """

    operators: tuple[Operator, ...]
    plan: BlockPlan
    layer: int | None
    leaving: tuple[str, ...] = ()
    ends: Operator | None = None


@dataclass(frozen=True, slots=True, eq=False)
class PlacedPass:
    """A pass on an array; `leaving` are the values that are there when it is done, by name."""

    placed: PlacedGraph
    leaving: Mapping[str, Value]


@dataclass(slots=True)
class PassPlacer:
    """Places one pass of one array.

    Args:
        array: where.
        graph: of the array's share of the step.
        layouts: of its PEs and rows.
        blocks, sequence, known: what has been placed so far.
    """

    array: ArrayConfig
    graph: OperatorGraph
    layouts: Layouts
    blocks: list[PlacedBlock] = field(default_factory=list)
    sequence: list[BlockRun] = field(default_factory=list)
    known: dict[tuple[object, ...], int] = field(default_factory=dict)

    def place(self, arrivals: Sequence[Arrival], parts: Sequence[Part]) -> PlacedPass:
        """The pass; what arrives stands before the first part's operators."""
        transforms = Transforms(self.array, self.layouts)
        first = parts[0]
        held = {arrival.tensor.name: arrival.placement for arrival in arrivals if arrival.placement is not None}
        received = tuple(_receive(arrival, self.graph) for arrival in arrivals)
        opened = replace(first, operators=(*received, *first.operators), plan=replace(first.plan, held=held))
        entering: tuple[Value, ...] = ()
        for part in (opened, *parts[1:]):
            entering = self._append(part, entering, transforms)
        blocks = tuple(self.blocks)
        placed = PlacedGraph(
            self.array, self.graph, blocks, tuple(self.sequence), kept=Kept.of(blocks, self.array.num_pes)
        )
        return PlacedPass(placed, {value.tensor.name: value for value in entering})

    def _append(self, part: Part, entering: tuple[Value, ...], transforms: Transforms) -> tuple[Value, ...]:
        places = tuple((value.tensor, value.placement) for value in entering)
        key = (id(part.operators), id(part.plan), part.leaving, part.ends is None, places)
        if key not in self.known:
            self.known[key] = len(self.blocks)
            placer = BlockPlacer(part.operators, part.plan, self.layouts, transforms)
            block = placer.place_part(entering, part.leaving, part.ends) if part.leaving else placer.place(entering)
            self.blocks.append(block)
        index = self.known[key]
        self.sequence.append(BlockRun(index, part.layer))
        return self.blocks[index].exits


def divide(array: ArrayConfig, workflow: Workflow, shape: AttentionShape, selected: int | None) -> Layouts:
    """The layouts of an array's PEs for rows of this geometry; `selected` as of `Layouts`.

    Raises:
        InputError: the PEs do not divide into the workflow's groups.
    """
    return layouts_of(array, workflow.groups, shape, selected, source=workflow.source or workflow.name)


def sent(name: str, rows: int) -> Send:
    """The operator that brings a tensor to the root, from where it leaves."""
    return Send(f"send_{name}", (name,), (), rows)


def _receive(arrival: Arrival, graph: OperatorGraph) -> Receive:
    tensor = arrival.tensor
    return Receive(f"receive_{tensor.name}", (), (tensor,), sum(graph.shape.new_lens), arrival.to_all)
