"""Places a whole step: one block per distinct (plan, entry placement), reused wherever it repeats."""

from __future__ import annotations

from dataclasses import dataclass, field

from pe_sim.config.array import ArrayConfig
from pe_sim.config.model import ModelConfig
from pe_sim.graph.families import Step, build_graph
from pe_sim.graph.graph import OperatorGraph
from pe_sim.graph.llama import attention_shape
from pe_sim.graph.operators import Operator
from pe_sim.mapping.groups import PeGroups
from pe_sim.mapping.layouts import Layouts
from pe_sim.mapping.placed import PlacedBlock, PlacedGraph
from pe_sim.mapping.placement import Placement
from pe_sim.mapping.placer import BlockPlacer, BlockPlan
from pe_sim.mapping.transforms import Transforms
from pe_sim.mapping.workflow import LayerPlan, Workflow


def place(model: ModelConfig, array: ArrayConfig, step: Step, workflow: Workflow) -> PlacedGraph:
    """The placed graph of `step` on `model` under `workflow`.

    Raises:
        InputError: the step does not fit the model, or the workflow does not apply.
    """
    graph = build_graph(model, step)
    shape = attention_shape(model, step)
    groups = PeGroups(array.num_pes, workflow.groups, array.network.tree.arity, len(step.sequences))
    per_sequence = None if step.logits_rows == step.num_rows else 1
    return _StepPlacer(graph, array, workflow, Layouts(groups, shape, array.dtypes, per_sequence)).run()


@dataclass
class _StepPlacer:
    graph: OperatorGraph
    array: ArrayConfig
    workflow: Workflow
    layouts: Layouts
    blocks: list[PlacedBlock] = field(default_factory=list)
    sequence: list[tuple[int, int | None]] = field(default_factory=list)

    def run(self) -> PlacedGraph:
        plan = self.workflow.plan(0)
        outside = BlockPlan({"lm_head": self.workflow.lm_head}, plan.attention, "follow", self.workflow.name)
        stream = self._append(self.graph.prologue, outside, None, None)
        known: dict[tuple[LayerPlan, Placement | None], int] = {}
        for layer in range(self.graph.num_layers):
            plan = self.workflow.plan(layer)
            index = known.get((plan, stream))
            if index is None:
                stream_in = stream
                stream = self._append(self.graph.layer, self._block_plan(plan), stream_in, layer)
                known[plan, stream_in] = len(self.blocks) - 1
            else:
                self.sequence.append((index, layer))
                stream = _exit_of(self.blocks[index])
        self._append(self.graph.epilogue, outside, stream, None)
        return PlacedGraph(self.array, self.graph, self.layouts, tuple(self.blocks), tuple(self.sequence))

    def _block_plan(self, plan: LayerPlan) -> BlockPlan:
        matrices = plan.to_dict()
        return BlockPlan(matrices, plan.attention, plan.stream, self.workflow.name)

    def _append(
        self, operators: tuple[Operator, ...], plan: BlockPlan, entry: Placement | None, layer: int | None
    ) -> Placement | None:
        placer = BlockPlacer(operators, plan, self.layouts, Transforms(self.array, self.layouts))
        block = placer.place(entry)
        self.blocks.append(block)
        self.sequence.append((len(self.blocks) - 1, layer))
        return _exit_of(block)


def _exit_of(block: PlacedBlock) -> Placement | None:
    return block.exit.placement if block.exit is not None else None
