"""A plan on a system: which arrays hold which layers, where stages are cut, and which sequences they serve."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from math import ceil
from typing import NamedTuple

from pe_sim.config.models.model import ModelConfig, count_parameters
from pe_sim.config.plans.checks import bounds_of
from pe_sim.config.plans.plan import Degrees, ParallelPlan, PipelinePlan, StagePlan
from pe_sim.config.step import Step
from pe_sim.config.systems.system import SystemConfig
from pe_sim.errors import InputError
from pe_sim.graph.shares import OperatorShare, model_share
from pe_sim.report.system.metrics import Pipeline


@dataclass(frozen=True, slots=True)
class Deployment:
    """A plan with everything resolved.

    Args:
        plan: what it was made of.
        pipelines: with stages whose layers are known.
        head: how the arrays of the last stages share the end of the model; None: as their last layer.
    """

    plan: ParallelPlan
    pipelines: tuple[Pipeline, ...]
    head: Degrees | None

    @property
    def used(self) -> tuple[int, ...]:
        """Ranks that take part, in order, each once."""
        return tuple(sorted({rank for line in self.pipelines for stage in line.stages for rank in stage.arrays}))

    def vocabulary(self, degrees: Degrees, index: int, model: ModelConfig) -> OperatorShare:
        """The share of the LM head of the array that has share `index` of the operators."""
        if not self.plan.split_vocabulary or not model.has_lm_head:
            return OperatorShare()
        return OperatorShare(index, degrees.tp)


class LayerSpan(NamedTuple):
    """Layers first .. last - 1 of a stage, and how its arrays share them."""

    degrees: Degrees
    first: int
    last: int


def runs_of(plan: StagePlan) -> tuple[LayerSpan, ...]:
    """Consecutive layers of a stage that are shared in the same way."""
    runs: list[LayerSpan] = []
    for layer, degrees in enumerate(plan.degrees):
        if runs and runs[-1].degrees == degrees:
            runs[-1] = LayerSpan(degrees, runs[-1].first, layer + 1)
        else:
            runs.append(LayerSpan(degrees, layer, layer + 1))
    return tuple(runs)


def laid_out(plan: ParallelPlan, system: SystemConfig, num_layers: int) -> tuple[PipelinePlan, ...]:
    """The arrays of every stage, before layers are cut; stages whose layers the plan leaves open have none.

    Raises:
        InputError: degrees that do not multiply to the arrays, a rank that is named twice, dead or not there.
    """
    if plan.num_layers is not None and plan.num_layers != num_layers:
        raise _fault(
            plan,
            "the plan is for another number of layers",
            "num_layers",
            plan.num_layers,
            f"{num_layers}, the layers of the model",
        )
    lines = plan.pipelines or _from_degrees(plan, system)
    _check_ranks(plan, system, lines)
    return lines


def _from_degrees(plan: ParallelPlan, system: SystemConfig) -> tuple[PipelinePlan, ...]:
    dead = {*system.dead_arrays, *plan.unused}
    ranks = [rank for rank in range(system.num_arrays) if rank not in dead]
    inside = plan.layers[0] if plan.layers else Degrees(1, plan.cp, plan.tp)
    per_stage = inside.num_arrays
    wanted = plan.pp * plan.dp * per_stage
    if wanted != len(ranks):
        fewer = ", or unused_arrays for the others" if wanted < len(ranks) else ""
        product = f"dp {plan.dp} x tp {plan.tp} x pp {plan.pp} x cp {plan.cp} = {wanted}"
        if plan.layers:
            product = f"pp {plan.pp} x ({inside}) = {wanted}"
        raise _fault(
            plan,
            "the degrees do not multiply to the arrays",
            "dp, tp, pp, cp",
            product,
            f"{len(ranks)}, the arrays of {system.name}" + (f" without {len(dead)} that are not used" if dead else ""),
            hint=f"a system of {wanted + len(dead)} arrays{fewer}",
        )
    lines = []
    for line in range(plan.dp):
        starts = [(stage * plan.dp + line) * per_stage for stage in range(plan.pp)]
        groups = [tuple(ranks[start : start + per_stage]) for start in starts]
        lines.append(PipelinePlan(tuple(StagePlan(group, 0, 0, (inside,)) for group in groups)))
    return tuple(lines)


def _check_ranks(plan: ParallelPlan, system: SystemConfig, lines: Sequence[PipelinePlan]) -> None:
    of_stages = Counter(rank for line in lines for stage in line.stages for rank in dict.fromkeys(stage.arrays))
    of_lines = Counter(rank for line in lines for rank in {rank for stage in line.stages for rank in stage.arrays})
    named = [rank for line in lines for stage in line.stages for rank in stage.arrays]
    twice = [rank for rank, times in Counter(named).items() if times > of_stages[rank] or of_lines[rank] > 1]
    if twice:
        expected = "every array once in a stage, and in one pipeline"
        raise _fault(plan, "an array has two places in the plan", "arrays", twice[0], expected)
    for rank in named:
        if not 0 <= rank < system.num_arrays:
            expected = f"0 to {system.num_arrays - 1}, the arrays of {system.name}"
            raise _fault(plan, "there is no such array", "arrays", rank, expected)
        if system.arrays[rank].dtypes != system.arrays[named[0]].dtypes:
            raise _fault(
                plan,
                f"arrays {named[0]} and {rank} hold numbers in different dtypes, and cannot add up one another's",
                "arrays",
                rank,
                "arrays of equal dtypes",
                hint="--set array.dtypes.weight=... sets that of all arrays; kv_cache, activation and partial likewise",
            )
        if rank in system.dead_arrays:
            expected = "one of " + ", ".join(map(str, system.alive))
            raise _fault(plan, "the plan uses an array that is dead", "arrays", rank, expected)


def deployed(
    plan: ParallelPlan, model: ModelConfig, step: Step, lines: Sequence[PipelinePlan], bounds: Sequence[Sequence[int]]
) -> Deployment:
    """The deployment of a plan whose stages have been given their layers.

    Args:
        lines: the pipelines with their arrays.
        bounds: of each pipeline, first layers of its stages and the number of layers.

    Raises:
        InputError: the model or the batch cannot be shared out so.
    """
    batch = step.batch_size
    if len(lines) > batch:
        raise _fault(
            plan,
            "the batch has fewer sequences than the plan has pipelines",
            "dp",
            len(lines),
            f"at most {batch}, the sequences of the step",
            hint="a larger batch (--batch), or a smaller dp",
        )
    pipelines = []
    for at, (line, cuts) in enumerate(zip(lines, bounds, strict=True)):
        stages = tuple(
            _with_layers(plan, stage, first, last)
            for stage, first, last in zip(line.stages, cuts, cuts[1:], strict=False)
        )
        for stage in stages:
            _check_shares(plan, model, stage)
        _check_vocabulary(plan, model, plan.head or next(iter(stages[-1].degrees[-1:]), Degrees()))
        sequences = OperatorShare(at, len(lines)).part(batch)
        pipelines.append(Pipeline(stages, sequences, plan.microbatches or len(stages)))
    head = plan.head
    if head is not None:
        for pipeline in pipelines:
            count = len(pipeline.stages[-1].arrays)
            if head.num_arrays != count:
                raise _fault(plan, "the degrees of the LM head do not multiply to the stage", "head", str(head), count)
    return Deployment(plan, tuple(pipelines), head)


def _with_layers(plan: ParallelPlan, stage: StagePlan, first: int, last: int) -> StagePlan:
    if plan.layers:
        degrees = plan.layers[first:last]
    elif len(stage.degrees) == last - first:
        degrees = stage.degrees
    else:
        degrees = stage.degrees[:1] * (last - first)
    for one in degrees:
        if one.num_arrays != len(stage.arrays):
            expected = f"{len(stage.arrays)}, the arrays of the stage"
            raise _fault(plan, "the degrees do not multiply to the stage", "dp, tp, cp", str(one), expected)
    return replace(stage, first_layer=first, num_layers=last - first, degrees=tuple(degrees))


def _check_shares(plan: ParallelPlan, model: ModelConfig, stage: StagePlan) -> None:
    for degrees in dict.fromkeys(stage.degrees):
        try:
            model_share(model, OperatorShare(degrees.tp - 1, degrees.tp), stage.num_layers)
        except InputError as error:
            raise _of_plan(error, plan) from None


def _check_vocabulary(plan: ParallelPlan, model: ModelConfig, degrees: Degrees) -> None:
    """Refuses more shares of the LM head than the vocabulary has words."""
    if plan.split_vocabulary and model.has_lm_head and degrees.tp > model.vocab_size:
        raise _fault(
            plan,
            f"the vocabulary of {model.name} has {model.vocab_size} words for {degrees.tp} arrays",
            "tp",
            degrees.tp,
            f"at most {model.vocab_size}",
            hint="a whole LM head on every array: split_vocabulary: false",
        )


def _of_plan(error: InputError, plan: ParallelPlan) -> InputError:
    """The error with the plan's file as its source."""
    source = plan.source or plan.name
    facts = {"path": error.path, "given": error.given, "expected": error.expected, "hint": error.hint}
    return InputError(error.problem, source=source, **facts)


def layer_bounds(plan: ParallelPlan, stages: Sequence[StagePlan]) -> list[int] | None:
    """Bounds of stages that name their layers; None where they leave them open.

    Raises:
        InputError: a stage begins with another layer than the one behind the stage before it.
    """
    if not any(stage.num_layers for stage in stages):
        return None
    bounds = list(bounds_of(stage.num_layers for stage in stages))
    firsts = [stage.first_layer for stage in stages]
    if firsts != bounds[:-1]:
        expected = f"{bounds[:-1]}, each behind the last of the stage before it"
        raise _fault(
            plan, "the stages' layers do not follow each other", "pipelines", firsts, f"first layers {expected}"
        )
    return bounds


def _fault(
    plan: ParallelPlan, message: str, path: str, given: object, expected: object, hint: str | None = None
) -> InputError:
    return InputError(
        message, source=plan.source or plan.name, path=path, given=given, expected=str(expected), hint=hint
    )


# ---- Which layers each stage of a pipeline gets: by number, by parameters, or by simulated time.


Cost = Callable[[int, int, int], int]  # (stage, first layer, one past the last) -> what it takes


def uniform_bounds(num_layers: int, num_stages: int) -> list[int]:
    """Bounds where stage p begins with layer ceil(p layers / stages): earlier stages get what does not divide."""
    return [ceil(at * num_layers / num_stages) for at in range(num_stages + 1)]


def uniform_floor_bounds(num_layers: int, num_stages: int) -> list[int]:
    """Bounds with floor(layers / stages) a stage; the rest goes to the stages after the first, one to each: Merak's."""
    return _with_the_rest(num_layers, num_stages, num_layers // num_stages)


def uniform_ceil_bounds(num_layers: int, num_stages: int) -> list[int]:
    """Bounds that Merak calls `uniform`: as `uniform_floor`, from ceil(layers / stages); last stages may be empty."""
    return _with_the_rest(num_layers, num_stages, -(-num_layers // num_stages))


def _with_the_rest(num_layers: int, num_stages: int, each: int) -> list[int]:
    rest = num_layers % num_stages
    starts = [min(at * each, num_layers) + min(max(at - 1, 0), rest) for at in range(num_stages)]
    return [*starts, num_layers]


def parameter_bounds(model: ModelConfig, num_stages: int) -> list[int]:
    """Bounds whose largest stage has the fewest parameters; the first has the embedding, the last the LM head."""
    counted = count_parameters(model)
    layer, first, head = counted.layer.total, counted.embedding, counted.head
    if model.has_kv_cache:
        head += counted.norms
        if model.has_lm_head and model.tie_word_embeddings:
            head += model.vocab_size * model.hidden_size  # kept there, too
    else:
        first += counted.norms

    def cost(_: int, start: int, stop: int) -> int:
        return (stop - start) * layer + (first if start == 0 else 0) + (head if stop == model.num_layers else 0)

    return least_largest(model.num_layers, num_stages, cost)


def least_largest(num_layers: int, num_stages: int, cost: Cost) -> list[int]:
    """Bounds of consecutive layers, at least one a stage, whose costliest stage costs as little as can be.

    They are exact for costs that do not fall as layers are added; of equal cuts the earlier one is taken.
    """

    @cache
    def best(stage: int, start: int) -> tuple[int, int]:
        """Least cost of the costliest stage from `stage` on, with layers from `start` on; and where `stage` ends."""
        left = num_stages - stage - 1
        if not left:
            return cost(stage, start, num_layers), num_layers
        found: tuple[int, int] | None = None
        for stop in range(start + 1, num_layers - left + 1):
            own = cost(stage, start, stop)
            if found is not None and own >= found[0]:
                break  # more layers cost no less
            candidate = max(own, best(stage + 1, stop)[0]), stop
            found = candidate if found is None or candidate[0] < found[0] else found
        assert found is not None
        return found

    bounds = [0]
    for stage in range(num_stages):
        bounds.append(best(stage, bounds[-1])[1])
    return bounds


def checked_bounds(
    plan: ParallelPlan, bounds: Sequence[int], num_layers: int, num_stages: int, hint: str | None = None
) -> list[int]:
    """Bounds that a plan gives; `hint`: what to do where they are wrong.

    Raises:
        InputError: they skip a layer, do not rise, or are not one more than the stages.
    """
    wrong = ""
    if len(bounds) != num_stages + 1:
        wrong = f"{len(bounds)} bounds for {num_stages} stages"
    elif bounds[0] != 0:
        wrong = f"layers 0 to {bounds[0] - 1} are in no stage"
    elif bounds[-1] != num_layers:
        wrong = f"the last stage ends with layer {bounds[-1] - 1} of {num_layers}"
    elif any(stop <= start for start, stop in pairwise(bounds)):
        wrong = "a stage has no layers"
    if wrong:
        raise InputError(
            f"the bounds do not cut the model: {wrong}",
            source=plan.source or plan.name,
            path="partition",
            given=list(bounds),
            expected=f"{num_stages + 1} rising numbers from 0 to {num_layers}, such as "
            + str(uniform_bounds(num_layers, num_stages) if num_stages <= num_layers else "fewer stages"),
            hint=hint,
        )
    return list(bounds)


def check_stages(plan: ParallelPlan, num_layers: int, num_stages: int) -> None:
    """Raises InputError where stages outnumber layers."""
    if num_stages > num_layers:
        raise InputError(
            "there are more stages than layers",
            source=plan.source or plan.name,
            path="pp",
            given=num_stages,
            expected=f"at most {num_layers}, the layers of the model",
        )
