"""Which layers each stage of a pipeline gets: by number, by parameters, or by simulated time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from math import ceil

from pe_sim.config.model import ModelConfig
from pe_sim.config.parameters import count_parameters
from pe_sim.config.plan import ParallelPlan
from pe_sim.errors import InputError

Cost = Callable[[int, int, int], int]  # (stage, first layer, one past the last) -> what it takes


def uniform_bounds(num_layers: int, num_stages: int) -> list[int]:
    """Stage p begins with layer ceil(p layers / stages): what does not divide goes to the earlier stages."""
    return [ceil(at * num_layers / num_stages) for at in range(num_stages + 1)]


def uniform_floor_bounds(num_layers: int, num_stages: int) -> list[int]:
    """Every stage has floor(layers / stages); what is left goes to the stages after the first, one to each: Merak's."""
    return _with_the_rest(num_layers, num_stages, num_layers // num_stages)


def uniform_ceil_bounds(num_layers: int, num_stages: int) -> list[int]:
    """What Merak calls `uniform`: as `uniform_floor`, from ceil(layers / stages); the last stages may be left empty."""
    return _with_the_rest(num_layers, num_stages, -(-num_layers // num_stages))


def _with_the_rest(num_layers: int, num_stages: int, each: int) -> list[int]:
    rest = num_layers % num_stages
    starts = [min(at * each, num_layers) + min(max(at - 1, 0), rest) for at in range(num_stages)]
    return [*starts, num_layers]


def parameter_bounds(model: ModelConfig, num_stages: int) -> list[int]:
    """The largest stage has as few parameters as can be; the first has the embedding, the last the LM head."""
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

    Exact for costs that do not fall as layers are added; of equal cuts the earlier one.
    """

    @cache
    def best(stage: int, start: int) -> tuple[int, int]:
        """The least costliest stage from `stage` on with the layers from `start` on, and where it ends."""
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
