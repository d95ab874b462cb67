"""Places a whole step: one block per distinct (plan, entering values), reused wherever it repeats."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache

from pe_sim.config.array import ArrayConfig, Network
from pe_sim.config.dtypes import Dtypes
from pe_sim.config.model import ModelConfig
from pe_sim.graph.families import Step, build_graph
from pe_sim.graph.graph import OperatorGraph
from pe_sim.graph.operators import Operator
from pe_sim.mapping.groups import PeGroups
from pe_sim.mapping.layouts import Layouts
from pe_sim.mapping.pipeline import place_pipeline
from pe_sim.mapping.placed import BlockRun, PlacedBlock, PlacedGraph, Value
from pe_sim.mapping.placer import BlockPlacer, BlockPlan
from pe_sim.mapping.plans import end_plan, layer_plan
from pe_sim.mapping.transforms import Transforms
from pe_sim.mapping.workflow import LayerPlan, Workflow

_KEPT_GRAPHS = 16  # a sweep over memories, units or clocks places its step once


def place(model: ModelConfig, array: ArrayConfig, step: Step, workflow: Workflow) -> PlacedGraph:
    """The placed graph of `step` on `model` under `workflow`.

    Raises:
        InputError: the step does not fit the model, or the workflow does not apply.
    """
    what_matters = _PlacementInputs(array.num_pes, array.overlap, array.dtypes, array.network, array)
    return replace(_place(model, what_matters, step, workflow), array=array)


@dataclass(frozen=True, slots=True)
class _PlacementInputs:
    """What a placement depends on of an array: equal ones share their placed graphs."""

    num_pes: int
    overlap: int
    dtypes: Dtypes
    network: Network
    array: ArrayConfig = field(compare=False)


@lru_cache(maxsize=_KEPT_GRAPHS)
def _place(model: ModelConfig, inputs: _PlacementInputs, step: Step, workflow: Workflow) -> PlacedGraph:
    array = inputs.array
    graph = build_graph(model, step)
    workflow.check(graph.num_layers)
    if workflow.pipelined:
        return place_pipeline(graph, array, workflow)
    groups = PeGroups.of_array(
        array.num_pes,
        workflow.groups,
        array.network.tree.arity,
        len(graph.shape.new_lens),
        source=workflow.source or workflow.name,
    )
    layouts = Layouts(groups, graph.shape, array.dtypes, graph.selected_per_sequence)
    return _StepPlacer(graph, array, workflow, layouts).run()


@dataclass
class _StepPlacer:
    graph: OperatorGraph
    array: ArrayConfig
    workflow: Workflow
    layouts: Layouts
    blocks: list[PlacedBlock] = field(default_factory=list)
    sequence: list[BlockRun] = field(default_factory=list)

    def run(self) -> PlacedGraph:
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
        return PlacedGraph(self.array, self.graph, tuple(self.blocks), tuple(self.sequence))

    def _append(
        self, operators: tuple[Operator, ...], plan: BlockPlan, entering: tuple[Value, ...], layer: int | None
    ) -> tuple[Value, ...]:
        placer = BlockPlacer(operators, plan, self.layouts, Transforms(self.array, self.layouts))
        block = placer.place(entering)
        self.blocks.append(block)
        self.sequence.append(BlockRun(len(self.blocks) - 1, layer))
        return block.exits
