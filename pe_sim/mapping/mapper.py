"""Places a whole step, a step of a block pipeline, or one pass of one of several arrays; what repeats is placed once.

A sweep places the same step on many arrays. What nodes a step has depends on the array only through the questions that
`Transforms` answers, so for a new array these are put again, and where the answers are the same the nodes are too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache

import numpy as np

from pe_sim.config.arrays.array import ArrayConfig
from pe_sim.config.dtypes import Dtypes
from pe_sim.config.models.model import ModelConfig
from pe_sim.config.networks.network import GraphNetwork, Network
from pe_sim.errors import InputError
from pe_sim.graph.families import Step, build_graph
from pe_sim.graph.graph import STREAM, OperatorGraph
from pe_sim.graph.operators import (
    AttentionOperator,
    AttentionShape,
    Operator,
    Receive,
    Select,
    Send,
    Tensor,
)
from pe_sim.mapping.groups import PeGroups, even_counts
from pe_sim.mapping.layouts import Layouts, layouts_of
from pe_sim.mapping.magnitudes import Magnitudes
from pe_sim.mapping.placed import (
    BlockRun,
    Kept,
    Memo,
    Move,
    MoveKind,
    Node,
    PlacedBlock,
    PlacedGraph,
    Value,
)
from pe_sim.mapping.placement import Placement, Replicate
from pe_sim.mapping.placer import BlockPlacer, BlockPlan, end_plan, layer_plan
from pe_sim.mapping.transforms import Question, Transforms
from pe_sim.mapping.workflow import LayerPlan, Workflow

_KEPT_STEPS = 64  # steps, without arrays over PEs: some 100 KB each
_KEPT_VARIANTS = 8  # ways to place one step
_FEW_PES = 512
_KEPT_SMALL = 16  # divisions of `_FEW_PES` or less, with all that stays with them some 3 MB each
_KEPT_LARGE = 2
_KEPT_PIPELINES = 8  # 6 MB each: every stage has its own layouts


def place(model: ModelConfig, array: ArrayConfig, step: Step, workflow: Workflow) -> PlacedGraph:
    """The placed graph of `step` on `model` under `workflow`.

    Raises:
        InputError: the step does not fit the model or is too large to be counted, or the workflow does not apply.
    """
    placements = _placements(model, step, workflow, workflow.source)
    placements.magnitudes.check(array)
    if workflow.pipelined:
        what_matters = _PipelineInputs(array.num_pes, array.dead_pes, array.overlap, array.dtypes, array.network, array)
        return replace(_place_pipeline(placements, what_matters), array=array)
    layouts = layouts_of(array, workflow.groups, placements.graph.shape, None, source=workflow.source or workflow.name)
    divided = _divided_small if array.num_pes <= _FEW_PES else _divided_large
    return divided(placements, layouts.groups, array.dtypes, layouts.block_size).place(array)


@dataclass(frozen=True, eq=False)
class _Variant:
    """One way to place a step; there is no array of PEs in it."""

    answers: dict[Question, object]
    blocks: tuple[tuple[tuple[Node, ...], tuple[Value, ...], tuple[Value, ...]], ...]
    sequence: tuple[BlockRun, ...]
    nodes: Memo = field(default_factory=lambda: Memo(1))


@dataclass(frozen=True, eq=False)
class _Placements:
    """The placements of one step that have been asked for."""

    graph: OperatorGraph
    workflow: Workflow
    variants: list[_Variant] = field(default_factory=list)

    @cached_property
    def magnitudes(self) -> Magnitudes:
        """The sizes of the step, which say whether it can be counted."""
        return Magnitudes.of(self.graph)

    def variant(self, array: ArrayConfig, layouts: Layouts) -> _Variant:
        """The variant for this array and division of its PEs, a known one or placed anew."""
        transforms = Transforms(array, layouts)
        for known in self.variants:
            if transforms.agrees(known.answers):
                return known
        placed = _StepPlacer(self.graph, self.workflow, Transforms(array, layouts)).run()
        self.variants.insert(0, placed)
        del self.variants[_KEPT_VARIANTS:]
        return placed


@dataclass(frozen=True, eq=False)
class _Divided:
    """A step on one division of the PEs; networks, PEs and overlaps may differ."""

    placements: _Placements
    layouts: Layouts
    placed: Memo = field(default_factory=lambda: Memo(_KEPT_VARIANTS))

    def place(self, array: ArrayConfig) -> PlacedGraph:
        """The placed graph for this array."""
        what_matters = (array.network, array.floorplan, array.overlap)
        variant = self.placed.recall(what_matters, self.placements.variant, array, self.layouts)
        return replace(self.placed.recall(variant, self._on_layouts, variant, array), array=array)

    def _on_layouts(self, variant: _Variant, array: ArrayConfig) -> PlacedGraph:
        blocks = tuple(PlacedBlock(*parts, self.layouts) for parts in variant.blocks)
        kept = Kept.of(blocks, array.num_pes, variant.nodes)
        return PlacedGraph(array, self.placements.graph, blocks, variant.sequence, kept=kept)


@lru_cache(maxsize=_KEPT_STEPS)
def _placements(model: ModelConfig, step: Step, workflow: Workflow, source: str) -> _Placements:
    """The placements of a step, none as yet; `source` is the workflow's, which equal ones need not share."""
    graph = build_graph(model, step)
    workflow.check(graph.num_layers)
    return _Placements(graph, workflow)


def _divide(placements: _Placements, groups: PeGroups, dtypes: Dtypes, block_size: int) -> _Divided:
    graph = placements.graph
    return _Divided(placements, Layouts(groups, graph.shape, dtypes, graph.selected_per_sequence, block_size))


_divided_small = lru_cache(maxsize=_KEPT_SMALL)(_divide)
_divided_large = lru_cache(maxsize=_KEPT_LARGE)(_divide)


@dataclass(frozen=True, slots=True)
class _PipelineInputs:
    """All of an array that the placement of a pipeline depends on: equal ones share their placed graphs."""

    num_pes: int
    dead_pes: tuple[int, ...]
    overlap: int
    dtypes: Dtypes
    network: Network | GraphNetwork
    array: ArrayConfig = field(compare=False)


@lru_cache(maxsize=_KEPT_PIPELINES)
def _place_pipeline(placements: _Placements, inputs: _PipelineInputs) -> PlacedGraph:
    return place_pipeline(placements.graph, inputs.array, placements.workflow)


@dataclass
class _StepPlacer:
    graph: OperatorGraph
    workflow: Workflow
    transforms: Transforms
    blocks: list[PlacedBlock] = field(default_factory=list)
    sequence: list[BlockRun] = field(default_factory=list)

    def run(self) -> _Variant:
        first = end_plan(self.workflow, self.workflow.plan(0), prologue=True)
        leaving = self._append(self.graph.prologue, first, (), None)
        known: dict[tuple[LayerPlan, tuple[object, ...]], int] = {}
        for layer in range(self.graph.num_layers):
            plan = self.workflow.plan(layer)
            key = (plan, tuple((value.tensor, value.placement) for value in leaving))
            if key in known:
                self.sequence.append(BlockRun(known[key], layer))
                leaving = self.blocks[known[key]].exits
            else:
                leaving = self._append(self.graph.layer, layer_plan(self.workflow, plan), leaving, layer)
                known[key] = len(self.blocks) - 1
        last = end_plan(self.workflow, self.workflow.plan(self.graph.num_layers - 1), prologue=False)
        self._append(self.graph.epilogue, last, leaving, None)
        parts = tuple((block.nodes, block.entries, block.exits) for block in self.blocks)
        return _Variant(self.transforms.answers, parts, tuple(self.sequence))

    def _append(
        self, operators: tuple[Operator, ...], plan: BlockPlan, entering: tuple[Value, ...], layer: int | None
    ) -> tuple[Value, ...]:
        placer = BlockPlacer(operators, plan, self.transforms.layouts, self.transforms)
        block = placer.place(entering)
        self.blocks.append(block)
        self.sequence.append(BlockRun(len(self.blocks) - 1, layer))
        return block.exits


# ---- block-pipeline: consecutive layers on a stage of PEs each, sequences moving on from stage to stage.


def place_pipeline(graph: OperatorGraph, array: ArrayConfig, workflow: Workflow) -> PlacedGraph:
    """The placed graph with one lane per sequence and one stage per group of PEs.

    There are as many stages as layers, or as PEs if those are fewer; PEs that do not divide evenly stay idle. A stage
    whose PEs are all dead is left out, and its layers go to the others. Lanes run in waves: in wave t stage s works on
    sequence t - s, so that reductions enter the tree in the order they happen.
    """
    return _PipelinePlacer(graph, array, workflow).run()


@dataclass
class _PipelinePlacer:
    graph: OperatorGraph
    array: ArrayConfig
    workflow: Workflow
    blocks: list[PlacedBlock] = field(default_factory=list)
    sequence: list[BlockRun] = field(default_factory=list)
    known: dict[tuple[object, ...], int] = field(default_factory=dict)

    def run(self) -> PlacedGraph:
        lanes = len(self.graph.shape.new_lens)
        stages = len(self.ranges)
        bounds = np.concatenate(([0], np.cumsum(even_counts(self.graph.num_layers, stages)))).tolist()
        leaving: dict[int, tuple[Value, ...]] = {}
        for wave in range(lanes + stages - 1):
            for stage in range(min(wave, stages - 1), -1, -1):
                lane = wave - stage
                if lane < lanes:
                    first, last = bounds[stage], bounds[stage + 1]
                    leaving[lane] = self._run_stage(stage, lane, leaving.get(lane, ()), first, last)
        return PlacedGraph(self.array, self.graph, tuple(self.blocks), tuple(self.sequence), lanes)

    @cached_property
    def ranges(self) -> tuple[PeGroups, ...]:
        """The PEs of each stage; a range whose PEs are all dead is left out."""
        array = self.array
        most = min(array.num_pes, self.graph.num_layers)
        size = array.num_pes // most
        ranges = (
            PeGroups(array.num_pes, size, 1, array.network.arity, 1, place * size, array.dead_pes)
            for place in range(most)
        )
        living = tuple(groups for groups in ranges if groups.living[0])
        if not living:
            raise InputError(
                f"no pipeline stage has a living PE: {most} stages of {size} {'PE' if size == 1 else 'PEs'} each",
                source=self.workflow.source or self.workflow.name,
                path="dead_pes",
                given=list(array.dead_pes),
                expected=f"a living PE below {most * size}",
            )
        return living

    def _run_stage(
        self, stage: int, lane: int, entering: tuple[Value, ...], first: int, last: int
    ) -> tuple[Value, ...]:
        layouts = self._layouts(stage, lane)
        if first == 0:
            plan = end_plan(self.workflow, self.workflow.plan(0), prologue=True)
            leaving = self._append(self._of_lane(self.graph.prologue, layouts), plan, layouts, lane, (), None)
        else:
            sender = int(self.ranges[stage - 1].lowest[0])
            leaving = self._forward(layouts, lane, entering, first, sender)
        for layer in range(first, last):
            plan = layer_plan(self.workflow, self.workflow.plan(layer))
            if layer == last - 1 < self.graph.num_layers - 1:
                plan = replace(plan, stream="replicate")  # one PE has to hold all that it sends on
            leaving = self._append(self._of_lane(self.graph.layer, layouts), plan, layouts, lane, leaving, layer)
        if last == self.graph.num_layers:
            plan = end_plan(self.workflow, self.workflow.plan(last - 1), prologue=False)
            self._append(self._of_lane(self.graph.epilogue, layouts), plan, layouts, lane, leaving, None)
        return leaving

    def _forward(
        self, layouts: Layouts, lane: int, entering: tuple[Value, ...], layer: int, sender: int
    ) -> tuple[Value, ...]:
        """Moves the stream from the lowest PE of the stage before to all PEs of this one; gives the values there."""
        source = Value(0, entering[0].tensor, Replicate())
        target = Value(1, entering[0].tensor, Replicate())
        reader = next(operator for operator in self.graph.layer if STREAM in operator.inputs)
        move = Move(reader, MoveKind.FORWARD, "group", (source,), (target,), sender=sender)
        block = PlacedBlock((move,), (source,), (target,), layouts)
        return self._record((layouts.groups, layouts.shape, "forward"), lambda: block, layer, lane)

    def _append(
        self,
        operators: tuple[Operator, ...],
        plan: BlockPlan,
        layouts: Layouts,
        lane: int,
        entering: tuple[Value, ...],
        layer: int | None,
    ) -> tuple[Value, ...]:
        placer = BlockPlacer(operators, plan, layouts, Transforms(self.array, layouts))
        entry = entering[0].placement if entering else None
        key = (layouts.groups, layouts.shape, operators, self.workflow.plan(layer or 0), entry)
        return self._record(key, lambda: placer.place(entering), layer, lane)

    def _record(
        self, key: tuple[object, ...], make: Callable[[], PlacedBlock], layer: int | None, lane: int
    ) -> tuple[Value, ...]:
        """Notes one run of a block, which is placed only if no equal one was; gives the values that leave it."""
        if key not in self.known:
            self.known[key] = len(self.blocks)
            self.blocks.append(make())
        index = self.known[key]
        self.sequence.append(BlockRun(index, layer, lane))
        return self.blocks[index].exits

    def _layouts(self, stage: int, lane: int) -> Layouts:
        shape = replace(
            self.graph.shape,
            new_lens=self.graph.shape.new_lens[lane : lane + 1],
            context_lens=self.graph.shape.context_lens[lane : lane + 1],
        )
        return Layouts.on(self.array, self.ranges[stage], shape, self.graph.selected_per_sequence)

    def _of_lane(self, operators: tuple[Operator, ...], layouts: Layouts) -> tuple[Operator, ...]:
        """The operators with the rows of one lane."""
        rows = sum(layouts.shape.new_lens)
        selected = layouts.selected_per_sequence or rows
        narrowed: list[Operator] = []
        in_epilogue = any(isinstance(operator, Select) for operator in operators)
        for operator in operators:
            own = replace(operator, num_rows=selected if in_epilogue else rows)
            narrowed.append(replace(own, shape=layouts.shape) if isinstance(own, AttentionOperator) else own)
        return tuple(narrowed)


# ---- Passes: what one array does between two meetings with others, placed as blocks of their own.
#
# A pass begins with tensors that are there already (from other arrays, or left by the pass before it) and ends with
# tensors that stay, and perhaps one that leaves for other arrays from the root.


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
        plan: their distributions.
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
        array: that the pass is on.
        graph: the array's share of the step.
        layouts: of the array's PEs and rows.
        blocks, sequence, known: what has been placed so far.
    """

    array: ArrayConfig
    graph: OperatorGraph
    layouts: Layouts
    blocks: list[PlacedBlock] = field(default_factory=list)
    sequence: list[BlockRun] = field(default_factory=list)
    known: dict[tuple[object, ...], int] = field(default_factory=dict)

    def place(self, arrivals: Sequence[Arrival], parts: Sequence[Part]) -> PlacedPass:
        """The placed pass; what arrives stands before the first part's operators."""
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
