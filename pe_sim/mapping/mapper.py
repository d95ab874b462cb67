"""Places a whole step: one block per distinct (plan, entering values), reused wherever it repeats.

A sweep places the same step on many arrays. What nodes a step has depends on the array only through the questions that
`Transforms` answers, so for a new array these are put again, and where the answers are the same the nodes are too.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache

from pe_sim.config.array import ArrayConfig, Network
from pe_sim.config.dtypes import Dtypes
from pe_sim.config.model import ModelConfig
from pe_sim.config.network import GraphNetwork
from pe_sim.graph.families import Step, build_graph
from pe_sim.graph.graph import OperatorGraph
from pe_sim.graph.operators import Operator
from pe_sim.mapping.groups import PeGroups
from pe_sim.mapping.kept import Kept, Memo
from pe_sim.mapping.layouts import Layouts, layouts_of
from pe_sim.mapping.magnitudes import Magnitudes
from pe_sim.mapping.pipeline import place_pipeline
from pe_sim.mapping.placed import BlockRun, Node, PlacedBlock, PlacedGraph, Value
from pe_sim.mapping.placer import BlockPlacer, BlockPlan
from pe_sim.mapping.plans import end_plan, layer_plan
from pe_sim.mapping.transforms import Question, Transforms
from pe_sim.mapping.workflow import LayerPlan, Workflow

_KEPT_STEPS = 64  # without arrays: some 100 KB each
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
        """How large the step is."""
        return Magnitudes.of(self.graph)

    def variant(self, array: ArrayConfig, layouts: Layouts) -> _Variant:
        """The one for this array and division of its PEs."""
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
    """The step before anything is known of an array; `source` is the workflow's, which equal ones need not share."""
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
    """What the placement of a pipeline depends on of an array: equal ones share their placed graphs."""

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
