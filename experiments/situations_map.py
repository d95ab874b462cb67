"""Points of the map: one decode step at a batch and a context, under every named workflow on one array."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import pe_sim as ps
from pe_sim.config.arrays.array import ArrayConfig
from pe_sim.config.models.model import ModelConfig
from pe_sim.errors import InfeasibleError, InputError
from pe_sim.mapping.footprint import footprint
from pe_sim.mapping.mapper import place

# batch-lockstep is left out: on the map it is megatron under another name.
PIPELINE = "block-pipeline"
WORKFLOWS = (  # the pipeline last: it is only simulated where the others are no better
    "workflow-1",
    "workflow-2",
    "alternating",
    "megatron",
    "all-row",
    "all-col",
    "batch-stream",
    "batch-block",
    PIPELINE,
)
USUAL = "megatron"
STRAIGHT_FROM = 3  # sequences from which a pipeline is full enough to grow in a straight line


@dataclass(frozen=True, slots=True)
class Spot:
    """One square of the map.

    Args:
        cycles: by workflow, of those that were simulated.
        at_least: by workflow, of those that cannot be the best: what they take at least.
        continued: workflows whose cycles are those of few sequences, continued in a straight line.
        reasons: by workflow, why it cannot do the step.
    """

    model: str
    array: str
    batch: int
    context: int
    cycles: Mapping[str, int]
    at_least: Mapping[str, int] = field(default_factory=dict)
    continued: tuple[str, ...] = ()
    reasons: Mapping[str, str] = field(default_factory=dict)

    @property
    def ranking(self) -> list[str]:
        """The simulated workflows, the fastest first."""
        return sorted(self.cycles, key=lambda name: (self.cycles[name], WORKFLOWS.index(name)))

    @property
    def best(self) -> str:
        """The fastest workflow; empty where none fits."""
        return self.ranking[0] if self.cycles else ""

    def gain_over(self, other: str) -> float | None:
        """How many cycles the best saves, as a fraction of those of `other`, or of the "second" best."""
        if other == "second":
            other = self.ranking[1] if len(self.cycles) > 1 else ""
        return 1 - self.cycles[self.best] / self.cycles[other] if other in self.cycles else None

    @property
    def reason(self) -> str:
        """Where nothing fits: what comes nearest."""
        others = [reason for name, reason in self.reasons.items() if name != PIPELINE]
        return "" if self.cycles else min(others, key=_needed)


def _needed(reason: str) -> int:
    digits = "".join(character for character in reason.partition(" bytes")[0] if character.isdigit())
    return int(digits or "0")


@dataclass(eq=False)
class Pipeline:
    """What block-pipeline takes on one array.

    Its stages pass on one sequence after the other, and simulating hundreds of them takes minutes. So it is only
    simulated where it may win: it takes at least what one sequence takes, and for every further one what its slowest
    stage takes, which is no less than at the shortest context.
    """

    model: ModelConfig
    array: ArrayConfig
    shortest: int
    known: dict[tuple[int, int], int] = field(default_factory=dict)
    misfits: dict[int, str] = field(default_factory=dict)

    def cycles(self, batch: int, context: int) -> int:
        """Of one step: simulated for few sequences, else continued from those."""
        if batch <= STRAIGHT_FROM:
            return self._simulated(batch, context)
        first, second = self._simulated(STRAIGHT_FROM - 1, context), self._simulated(STRAIGHT_FROM, context)
        return second + (batch - STRAIGHT_FROM) * (second - first)

    def at_least(self, batch: int, context: int) -> int:
        """A lower bound of the same."""
        one = self._simulated(1, context)
        if batch == 1:
            return one
        few = [self._simulated(sequences, self.shortest) for sequences in range(1, STRAIGHT_FROM + 1)]
        slowest = min(more - less for less, more in pairwise(few))
        return one + (batch - 1) * slowest

    def misfit(self, batch: int, context: int) -> str:
        """Why so many sequences do not fit; empty if they do. Where few do not fit, more do not either."""
        known = self.misfits.get(context)
        if known is None:
            placed = place(self.model, self.array, ps.Decode(batch, context), ps.load_workflow(PIPELINE))
            try:
                footprint(placed, placed.graph.shape).check()
            except InputError as error:
                known = self.misfits[context] = reason_of(error)
        return known or ""

    def _simulated(self, batch: int, context: int) -> int:
        key = batch, context
        if key not in self.known:
            step = ps.Decode(batch, context)
            report = ps.simulate(self.model, self.array, step, PIPELINE, allow_overflow=True)
            self.known[key] = report.latency_cycles
        return self.known[key]


def load(model_name: str, longest_context: int) -> ModelConfig:
    """The model, with positions for the longest context: the map asks what the array does, not what was trained."""
    model = ps.load_model(model_name)
    if model.max_position_embeddings > longest_context:
        return model
    return ps.load_model(model_name, overrides={"max_position_embeddings": longest_context + 1})


def spots_of(model_name: str, array_name: str, batches: Sequence[int], contexts: Sequence[int]) -> list[Spot]:
    """The map of one model on one array."""
    model, array = load(model_name, max(contexts)), ps.load_array(array_name)
    pipeline = Pipeline(model, array, min(contexts))
    return [_spot(model, array, batch, context, pipeline) for context in contexts for batch in sorted(batches)]


def _spot(model: ModelConfig, array: ArrayConfig, batch: int, context: int, pipeline: Pipeline) -> Spot:
    step = ps.Decode(batch, context)
    cycles: dict[str, int] = {}
    reasons: dict[str, str] = {}
    for workflow in WORKFLOWS[:-1]:
        try:
            cycles[workflow] = ps.simulate(model, array, step, workflow).latency_cycles
        except InputError as error:
            reasons[workflow] = reason_of(error)
    at_least: dict[str, int] = {}
    continued: tuple[str, ...] = ()
    bound = pipeline.at_least(batch, context) if cycles else 0
    if cycles and bound > min(cycles.values()):
        at_least[PIPELINE] = bound
    elif misfit := pipeline.misfit(batch, context):
        reasons[PIPELINE] = misfit
    else:
        cycles[PIPELINE] = pipeline.cycles(batch, context)
        continued = (PIPELINE,) if batch > STRAIGHT_FROM else ()
    return Spot(model.name, array.name, batch, context, cycles, at_least, continued, reasons)


def reason_of(error: InputError) -> str:
    """Why a workflow cannot do a step, in a few words."""
    if isinstance(error, InfeasibleError):
        return f"needs {error.demand:,} {error.unit} of a PE, which has {error.bound:,}"
    return str(error).splitlines()[0]
