"""block-pipeline: consecutive layers on a stage of PEs each, sequences moving on from stage to stage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from pe_sim.config.array import ArrayConfig
from pe_sim.errors import InputError
from pe_sim.graph.graph import STREAM, OperatorGraph
from pe_sim.graph.operators import AttentionOperator, Operator, Select
from pe_sim.mapping.groups import PeGroups, even_counts
from pe_sim.mapping.layouts import Layouts
from pe_sim.mapping.placed import BlockRun, Move, MoveKind, PlacedBlock, PlacedGraph, Value
from pe_sim.mapping.placement import Replicate
from pe_sim.mapping.placer import BlockPlacer, BlockPlan
from pe_sim.mapping.plans import end_plan, layer_plan
from pe_sim.mapping.transforms import Transforms
from pe_sim.mapping.workflow import Workflow


def place_pipeline(graph: OperatorGraph, array: ArrayConfig, workflow: Workflow) -> PlacedGraph:
    """The placed graph with one lane per sequence and one stage per group of PEs.

    As many stages as there are layers, or PEs if those are fewer; what PEs do not divide stay idle. A stage whose PEs
    are all dead is left out, and its layers go to the others. Lanes run in
    waves: in wave t stage s works on sequence t - s, so that reductions enter the tree in the order they happen.
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
        """The PEs of each stage; a range of PEs that are all dead is none."""
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
        """The stream goes from the lowest PE of the stage before to all PEs of this one."""
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
