"""A whole placed step as a program of the RTL, with the values of the integer model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from pe_sim.config.arrays.array import ArrayConfig
from pe_sim.config.models.model import ModelConfig
from pe_sim.config.step import Decode, Prefill
from pe_sim.mapping.mapper import place
from pe_sim.mapping.placed import Move, MoveKind, PlacedBlock, Work
from pe_sim.mapping.workflow import Workflow, load_workflow
from pe_sim.schedule.lowering import BlockOutline, Task, lower, outline_of
from pe_sim.schedule.stages import Block, PeStage, Stage
from tests.rtl.hardware import UnfitError
from tests.rtl.layer import layer_vectors as vectors
from tests.rtl.layer.integer_model import integer_step, random_inputs, random_weights
from tests.rtl.layer.layer_attention import Scores, lower_scores, lower_softmax, lower_values
from tests.rtl.layer.layer_cache import Cache, lower_append
from tests.rtl.layer.layer_matrices import lower_embedding, lower_matrix
from tests.rtl.layer.layer_moves import lower_local, lower_move, lower_select
from tests.rtl.layer.layer_values import Held, Job, StepLowering
from tests.rtl.programs.lowering import Case, Ready, slot_of

_FUNCTIONS: Mapping[str, Callable[[StepLowering, Job], None]] = {
    "embedding": lower_embedding,
    "matrix": lower_matrix,
    "rmsnorm": vectors.lower_copy,
    "scale": vectors.lower_copy,
    "sum_of_squares": vectors.lower_sum_of_squares,
    "add": vectors.lower_add,
    "silu_mul": vectors.lower_silu_mul,
    "softmax_merge": vectors.lower_softmax_merge,
    "rope": vectors.lower_rope,
    "argmax": vectors.lower_argmax,
}
_ATTENTION = ("kv_append", "scores", "softmax", "values")


def layer_program(
    model: ModelConfig, array: ArrayConfig, step: Decode | Prefill, workflow: Workflow | str, seed: int = 0
) -> Case:
    """A decode step, or a prefill with causal="full", of one sequence on random integers.

    Raises:
        UnfitError: the RTL cannot do it.
    """
    if model.family != "llama" or len(step.sequences) != 1:
        raise UnfitError("only steps of one sequence of a LLaMA model are lowered to the RTL")
    placed = place(model, array, step, load_workflow(workflow) if isinstance(workflow, str) else workflow)
    if placed.lanes > 1 or any(block.layouts.groups.num_groups > 1 for block in placed.blocks):
        raise UnfitError("the RTL has no second copy at the root")
    rng = np.random.default_rng(seed)
    weights, inputs = random_weights(model, rng), random_inputs(model, step, rng)
    case = Case.of(lower(placed))
    lowering = StepLowering(placed, model, weights, inputs, integer_step(model, step, weights, inputs), case)
    _Walk(lowering).run()
    lowering.ask_for_reads()
    return case


@dataclass
class _Walk:
    """Goes through the nodes in program order, one block after the other."""

    step: StepLowering
    order: int = 0  # of the next stage
    caches: dict[int, Cache] = field(default_factory=dict)  # of the block, by the value's key
    scores: dict[int, Scores] = field(default_factory=dict)
    ready: dict[int, Ready] = field(default_factory=dict)  # by the block's slot

    def run(self) -> None:
        """All runs of all blocks."""
        placed, schedule = self.step.placed, self.step.case.schedule
        outlines = outline_of(placed.blocks)
        leaving: list[tuple[Held, Ready]] = []
        for run in placed.sequence:
            self.step.layer = run.layer
            block, outline = placed.blocks[run.block], outlines[run.block]
            self._enter(block, outline, leaving)
            self._block(block, outline, schedule.blocks[run.block])
            leaving = [
                (self.step.values[value.key], self.ready[slot])
                for value, slot in zip(block.exits, outline.exits, strict=True)
            ]

    def _enter(self, block: PlacedBlock, outline: BlockOutline, leaving: list[tuple[Held, Ready]]) -> None:
        """Values and slots are numbered anew in each block."""
        self.step.values, self.ready, self.caches, self.scores = {}, {}, {}, {}
        entries = zip(block.entries, outline.entries, strict=True)
        for (value, slot), (held, ready) in zip(entries, leaving, strict=True):
            self.step.values[value.key] = held
            self.ready[slot] = ready

    def _block(self, block: PlacedBlock, outline: BlockOutline, lowered: Block) -> None:
        tasks = iter(zip(outline.tasks, lowered.stages, strict=True))
        for node in block.nodes:
            if isinstance(node, Move) and node.kind is MoveKind.LOCAL:
                lower_local(self.step, node, block.layouts, outline.support)
            elif isinstance(node, Work) and node.function == "select":
                lower_select(self.step, node, block.layouts)
            else:
                task, stage = next(tasks)
                assert task.node is node
                inputs = [self.ready[slot] for slot in task.inputs]
                self._task(task, stage, Job(node, stage, self.order, inputs, block.layouts, outline.support))
                self.order += 1

    def _task(self, task: Task, stage: Stage, job: Job) -> None:
        if isinstance(job.node, Move):
            self.ready[task.output] = lower_move(self.step, job)
            return
        self._work(job, job.node)
        units = np.flatnonzero(stage.active).tolist() if isinstance(stage, PeStage) else [self.step.root]
        orders = self.step.case.work_orders
        self.ready[task.output] = Ready({unit: (slot_of(job.order), orders[unit].count(job.order)) for unit in units})

    def _work(self, job: Job, node: Work) -> None:
        if node.function in _ATTENTION:
            self._attention(job, node)
        elif node.function in _FUNCTIONS:
            _FUNCTIONS[node.function](self.step, job)
        else:
            raise UnfitError(f"the RTL has no {node.function}")

    def _attention(self, job: Job, node: Work) -> None:
        result = node.outputs[0].key
        if node.function == "kv_append":
            lower_append(self.step, job, self.caches)
        elif node.function == "scores":
            self.scores[result] = lower_scores(self.step, job, self.caches[node.inputs[1].key])
        elif node.function == "softmax":
            self.scores[result] = lower_softmax(self.step, job, self.scores[node.inputs[0].key])
        else:
            lower_values(self.step, job, self.scores[node.inputs[0].key])
