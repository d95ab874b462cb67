"""Views and walks that were made before: arrays, stages and parts that do the same share one."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cache

from pe_sim.config.arrays.array import ArrayConfig
from pe_sim.config.models.model import ModelConfig
from pe_sim.config.plans.plan import Degrees
from pe_sim.config.step import Step
from pe_sim.config.systems.system import SystemConfig
from pe_sim.graph.families import build_graph
from pe_sim.graph.shares import Meeting, OperatorShare, cut_layer, head_share, model_share
from pe_sim.mapping.mapper import PlacedPass, place
from pe_sim.mapping.placed import PlacedGraph
from pe_sim.mapping.workflow import LayerPlan, Workflow
from pe_sim.systems.array_view import Local, View, end_local, local_of, own_step, uncut_local
from pe_sim.systems.passes import Bench, LayerRun, LocalPass, PassRun, Walker, walk_end


@dataclass
class Shop:
    """Makes the views, walks and placed graphs for one model, step and workflow on one system, equal ones once.

    Args:
        matrices: distributions that the plan gives to matrices of all layers.
    """

    model: ModelConfig
    step: Step
    workflow: Workflow
    system: SystemConfig
    matrices: tuple[tuple[str, str], ...] = ()
    _locals: dict[View, Local] = field(default_factory=dict)
    _benches: dict[View, Bench] = field(default_factory=dict)
    _walks: dict[tuple[View, LayerRun], tuple[PassRun | None, ...]] = field(default_factory=dict)
    _ends: dict[tuple[int, tuple[int, ...], OperatorShare], PassRun] = field(default_factory=dict)
    _wholes: dict[tuple[object, ...], PlacedGraph] = field(default_factory=dict)
    _plans: dict[int, LayerPlan] = field(default_factory=dict)
    _shares: dict[OperatorShare, OperatorShare] = field(default_factory=dict)

    def __post_init__(self) -> None:
        firsts: dict[int, int] = {}
        self._like = [firsts.setdefault(id(array), rank) for rank, array in enumerate(self.system.arrays)]
        self.model_share = cache(self._model_share)
        self.meetings = cache(self._meetings)

    def walk(self, view: View, run: LayerRun) -> tuple[PassRun | None, ...]:
        """The passes of an array through a run of layers."""
        like = replace(view, array=self._like[view.array], share=self._alike(view.share))
        if run.closes is not None:
            run = replace(run, closes=self._same_vocabulary(run.closes))
        key = (like, run)
        if key not in self._walks:
            if like not in self._locals:
                array = self.system.arrays[like.array]
                self._locals[like] = local_of(self.model, self.step, self.workflow, array, like)
            bench = self._benches.setdefault(like, Bench())
            walker = Walker(self._locals[like], self.workflow, run, bench)
            self._walks[key] = (self._whole_step(like),) if self.workflow.pipelined else walker.passes()
        return self._walks[key]

    def end(self, rank: int, counts: tuple[int, ...], vocabulary: OperatorShare) -> PassRun:
        """The pass of an array that works on the end of the model alone, for so many rows of each sequence."""
        key = (self._like[rank], counts, self._same_vocabulary(vocabulary))
        if key not in self._ends:
            local = end_local(self.model, self.step, self.workflow, self.system.arrays[rank], counts)
            self._ends[key] = walk_end(local, self.workflow, self.plan(self.model.num_layers - 1), key[2])
        return self._ends[key]

    def whole(
        self,
        rank: int,
        index: int,
        shares: int,
        lengths: tuple[tuple[int, int], ...],
        plans: tuple[LayerPlan, ...],
        opens: bool,
        closes: OperatorShare | None,
    ) -> PlacedGraph:
        """The placed graph of what an array keeps of some layers, as if no other array had a part in it.

        Args:
            index, shares: which share of the operators it has, and of how many.
            lengths: (new, cached) tokens of the sequences it holds.
        """
        share = self._alike(OperatorShare(index, shares))
        closes = None if closes is None else self._same_vocabulary(closes)
        key = (self._like[rank], share, lengths, plans, opens, closes)
        if key not in self._wholes:
            array = self.system.arrays[rank]
            if self.workflow.pipelined:
                self._wholes[key] = self._pipeline(array, lengths)
                return self._wholes[key]
            local = uncut_local(self.model, self.step, self.workflow, array, share, lengths or ((1, 0),))
            (run,) = Walker(local, self.workflow, LayerRun(0, plans, opens, closes)).passes()
            assert run is not None
            self._wholes[key] = run.does.work.placed
        return self._wholes[key]

    def _whole_step(self, view: View) -> PassRun | None:
        """The one pass of an array that has all layers, which go over its PEs as a pipeline."""
        local = self._locals[view]
        if local.layouts is None:
            return None
        work = PlacedPass(self._pipeline(local.array, view.own), {})
        return PassRun(LocalPass(work, local, local.layouts, (), (), ""), 0, "all layers")

    def _pipeline(self, array: ArrayConfig, lengths: tuple[tuple[int, int], ...]) -> PlacedGraph:
        """The placed graph of all layers on one array, for sequences of (new, cached) tokens."""
        workflow = replace(self.workflow, pattern=self.plans(0, self.model.num_layers), rules=())
        return place(self.model, array, own_step(self.step, lengths), workflow)

    def plans(self, first: int, last: int) -> tuple[LayerPlan, ...]:
        """The plans of layers first .. last - 1 of the model."""
        return tuple(self.plan(layer) for layer in range(first, last))

    def plan(self, layer: int) -> LayerPlan:
        """The plan of a layer of the model, with what the parallel plan says of matrices."""
        if layer not in self._plans:
            self._plans[layer] = replace(self.workflow.plan(layer), **dict(self.matrices))
        return self._plans[layer]

    def _model_share(self, share: OperatorShare) -> ModelConfig:
        return model_share(self.model, share, self.model.num_layers)

    def _meetings(self, degrees: Degrees) -> tuple[tuple[Meeting, str], ...]:
        """What arrays of a stage exchange in a layer, in order."""
        graph = build_graph(self.model, self.step)
        segments = cut_layer(graph.layer, shares_operators=degrees.tp > 1, shares_tokens=degrees.cp > 1)
        return tuple((segment.meeting, segment.sends) for segment in segments if segment.meeting is not None)

    def _alike(self, share: OperatorShare) -> OperatorShare:
        """The first share of the same sizes, that adds biases if this one does."""
        if share not in self._shares:
            adds = share.index == 0 or not (self.model.attention_bias or self.model.mlp_bias)
            others = range(0 if adds else 1, share.of)
            sizes = self._sizes(share)
            self._shares[share] = next(
                other for at in others if self._sizes(other := OperatorShare(at, share.of)) == sizes
            )
        return self._shares[share]

    def _same_vocabulary(self, share: OperatorShare) -> OperatorShare:
        """The first share of the vocabulary of the same size."""
        words = self.model.vocab_size
        size = len(share.part(words))
        return next(other for at in range(share.of) if len((other := OperatorShare(at, share.of)).part(words)) == size)

    def _sizes(self, share: OperatorShare) -> tuple[int, ...]:
        if share.of == 1:
            return ()
        heads = head_share(self.model, share)
        return len(heads.query), len(heads.kv), len(share.part(self.model.ffn_size))
