"""Checks of a plan or of a plan's file: gives what it took, or raises with the field and what would fit."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate, pairwise
from typing import Final, get_args

from pe_sim.config.files.foreign import KeyRules, sort_keys
from pe_sim.config.plans.plan import PARTITIONS, Degrees, ParallelPlan, PipelinePlan, StagePlan
from pe_sim.config.workflow_schema import Matrix
from pe_sim.errors import InputError, did_you_mean

MATRICES: Final = ("q", "k", "v", "o", "gate", "up", "down")
SPLITS: Final = tuple(name for name in get_args(Matrix) if name in ("row", "col"))
_DEGREES: Final = ("dp", "tp", "pp", "cp")
_OVERLAPS: Final = range(4)


def check_plan(plan: ParallelPlan) -> ParallelPlan:
    """`plan` itself if its parts agree; paths in errors are those of a plan file.

    Raises:
        InputError: degrees that do not multiply, bounds that skip a layer or do not rise, a rank named twice, a list
            of the wrong length, or a value out of range.
    """
    for path, value in _at_least_one(plan):
        if value < 1:
            raise InputError("too small", path=path, given=value, expected="a whole number from 1")
    if plan.overlap is not None and plan.overlap not in _OVERLAPS:
        raise InputError("no such level", path="overlap", given=plan.overlap, expected="0, 1, 2 or 3")
    _check_partition(plan)
    _check_layers(plan)
    _check_matrices(plan)
    distinct(plan.unused, "unused_arrays")
    if plan.pipelines:
        _check_pipelines(plan)
    return plan


def _at_least_one(plan: ParallelPlan) -> Iterator[tuple[str, int]]:
    for name in _DEGREES:
        yield name, getattr(plan, name)
    if plan.microbatches is not None:
        yield "microbatches", plan.microbatches
    if plan.num_layers is not None:
        yield "num_layers", plan.num_layers
    parts = [(f"layers.{index}", degrees) for index, degrees in enumerate(plan.layers)]
    for path, degrees in [*parts, *([("head", plan.head)] if plan.head else [])]:
        yield from ((f"{path}.{name}", getattr(degrees, name)) for name in ("dp", "tp", "cp"))


def check_bounds(bounds: tuple[int, ...], num_stages: int, num_layers: int | None, path: str) -> tuple[int, ...]:
    """The bounds (0, ..., number of layers) themselves if they suit `num_stages` stages.

    Raises:
        InputError: too many or too few, layers left out at either end, or bounds that do not rise.
    """

    def refuse(problem: str, expected: str) -> InputError:
        return InputError(problem, path=path, given=list(bounds), expected=expected)

    if len(bounds) != num_stages + 1:
        raise refuse(f"{len(bounds)} bounds", f"{num_stages + 1}: one more than the {num_stages} stages")
    if bounds[0] != 0:
        raise refuse(f"the bounds begin with {bounds[0]} and skip the layers before", "0 as the first")
    for lower, upper in pairwise(bounds):
        if upper <= lower:
            raise refuse(f"{upper} after {lower} leaves a stage without layers", "bounds that rise")
    if num_layers is not None and bounds[-1] != num_layers:
        raise refuse(
            f"the bounds end with {bounds[-1]}, and there are {num_layers} layers", f"{num_layers} as the last"
        )
    return bounds


def _check_partition(plan: ParallelPlan) -> None:
    if isinstance(plan.partition, tuple):
        check_bounds(plan.partition, plan.pp, plan.num_layers, "partition")
    elif plan.partition not in PARTITIONS:
        raise InputError(
            "not one of the known methods",
            path="partition",
            given=plan.partition,
            expected=f"{', '.join(PARTITIONS)}, or a list of bounds",
            hint=did_you_mean(str(plan.partition), PARTITIONS),
        )
    if plan.num_layers is not None and plan.num_layers < plan.pp:
        raise InputError(
            f"{plan.num_layers} layers do not fill {plan.pp} stages",
            path="pp",
            given=plan.pp,
            expected=f"at most {plan.num_layers}",
        )


def _check_layers(plan: ParallelPlan) -> None:
    """Checks degrees of single layers: one for each layer, all with the same number of arrays."""
    if not plan.layers:
        return
    for name in ("dp", "tp", "cp"):
        if getattr(plan, name) != 1:
            problem = f"{name} beside degrees of each layer"
            raise InputError(
                problem,
                path=name,
                given=getattr(plan, name),
                expected=f"1, or no layers: {name} is in them",
            )
    if plan.num_layers is not None and len(plan.layers) != plan.num_layers:
        raise InputError(
            f"degrees of {len(plan.layers)} layers",
            path="layers",
            given=len(plan.layers),
            expected=f"{plan.num_layers}, as num_layers says",
        )
    width = plan.layers[0].num_arrays
    for index, degrees in enumerate(plan.layers):
        _check_product(degrees, width, f"layers.{index}", "as under layer 0")
    if plan.head is not None:
        _check_product(plan.head, width, "head", "as under the layers")


def _check_product(degrees: Degrees, arrays: int, path: str, why: str) -> None:
    if degrees.num_arrays != arrays:
        raise InputError(
            f"{degrees} is {degrees.num_arrays} arrays",
            path=path,
            given=str(degrees),
            expected=f"degrees that multiply to {arrays}, {why}",
        )


def _check_matrices(plan: ParallelPlan) -> None:
    distinct_names: set[str] = set()
    for name, split in plan.matrices:
        if name not in MATRICES or name in distinct_names:
            problem = "unknown operator" if name not in MATRICES else "an operator named twice"
            raise InputError(problem, path=f"matrices.{name}", given=split, hint=did_you_mean(name, MATRICES))
        distinct_names.add(name)
        if split not in SPLITS:
            raise InputError(
                "not one of the known values",
                path=f"matrices.{name}",
                given=split,
                expected=" or ".join(SPLITS),
            )


def _check_pipelines(plan: ParallelPlan) -> None:
    for name in _DEGREES:
        if getattr(plan, name) != 1:
            raise InputError(
                f"{name} beside pipelines, which name the arrays of every stage",
                path=name,
                given=getattr(plan, name),
                expected="1, or no pipelines",
            )
    if plan.layers:
        problem, expected = "degrees of each layer beside pipelines", "degrees in the stages"
        raise InputError(problem, path="layers", given=len(plan.layers), expected=expected)
    used: dict[int, str] = dict.fromkeys(plan.unused, "unused_arrays")
    total = plan.num_layers
    for index, pipeline in enumerate(plan.pipelines):
        path = f"pipelines.{index}"
        ends = _check_stages(pipeline, path)
        if total is not None and ends != total:
            why = "as num_layers says" if plan.num_layers is not None else "as pipelines.0 has"
            raise InputError(
                f"its stages have {ends} layers",
                path=path,
                given=[item.num_layers for item in pipeline.stages],
                expected=f"{total} in all, {why}",
            )
        total = ends
        _check_ranks(pipeline, path, used)
    if plan.head is not None:
        for index, pipeline in enumerate(plan.pipelines):
            last = f"pipelines.{index}.stages.{len(pipeline.stages) - 1}"
            _check_product(plan.head, len(pipeline.stages[-1].arrays), "head", f"as in {last}")


def _check_stages(pipeline: PipelinePlan, path: str) -> int:
    """Number of layers of the pipeline, whose stages are checked to follow one another without a gap."""
    if not pipeline.stages:
        raise InputError("no stages", path=f"{path}.stages", given=[], expected="at least one")
    ends = 0
    for index, item in enumerate(pipeline.stages):
        at = f"{path}.stages.{index}"
        if item.first_layer != ends or item.num_layers < 1:
            verb = "skips to" if item.first_layer > ends else "repeats from"
            problem = f"{verb} layer {item.first_layer}" if item.first_layer != ends else "a stage without layers"
            raise InputError(
                problem,
                path=f"{at}.layers",
                given=[item.first_layer, item.first_layer + item.num_layers],
                expected=f"at least one layer, from layer {ends} on",
            )
        if len(item.degrees) != item.num_layers:
            raise InputError(
                f"degrees of {len(item.degrees)} layers",
                path=f"{at}.degrees",
                given=len(item.degrees),
                expected=f"{item.num_layers}, one for each layer of the stage",
            )
        for degrees in dict.fromkeys(item.degrees):
            _check_product(degrees, len(item.arrays), at, "the arrays of the stage")
        ends += item.num_layers
    return ends


def _check_ranks(pipeline: PipelinePlan, path: str, used: dict[int, str]) -> None:
    """Checks that no rank works in two places, except on stages that share tokens (see `may_stay`)."""
    here: dict[int, tuple[str, StagePlan]] = {}
    for index, item in enumerate(pipeline.stages):
        at = f"{path}.stages.{index}.arrays"
        for rank in distinct(item.arrays, at):
            before, earlier = here.get(rank, (used.get(rank), None))
            if before is not None and not (earlier is not None and may_stay(earlier, item)):
                raise InputError(
                    f"rank {rank} is named twice, first in {before}",
                    path=at,
                    given=list(item.arrays),
                    expected="ranks that nothing else names",
                )
            here[rank] = (at, item)
    used.update({rank: at for rank, (at, _) in here.items()})


def may_stay(earlier: StagePlan, later: StagePlan) -> bool:
    """Whether an array may work on two stages of a pipeline.

    Only if both share tokens: of the arrays that share a sequence, some may go on while the layers of another move to
    its next array (Hetu's cp_list over pipelines that are cut at different layers).
    """
    return all(degrees.cp > 1 for item in (earlier, later) for degrees in item.degrees)


# ---- What readers of foreign plans share: strict values, and lines on keys that are ignored.


MAX_COUNT: Final = 2**20  # far above any real number of arrays, layers or parts
_LONGEST_VALUE: Final = 60


def whole(value: object, path: str, *, least: int = 1) -> int:
    """`value` as a whole number, checked to be at least `least`.

    Raises:
        InputError: it has another type (true is no number), or is out of range.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputError("not a whole number", path=path, given=value, expected="a whole number")
    if not least <= value <= MAX_COUNT:
        problem = "too small" if value < least else "too large"
        raise InputError(problem, path=path, given=value, expected=f"a whole number from {least} to {MAX_COUNT}")
    return value


def whole_list(value: object, path: str, *, least: int = 0) -> tuple[int, ...]:
    """`value`, a list or a text with commas between, as whole numbers.

    Raises:
        InputError: it is neither, or an entry is no whole number.
    """
    entries: object = value
    if isinstance(value, str):
        entries = [int(part) if part.strip().isdecimal() else part for part in value.split(",")]
    if not isinstance(entries, list | tuple):
        expected = "whole numbers: a list, or a text with commas between"
        raise InputError("not a list", path=path, given=value, expected=expected)
    return tuple(whole(entry, f"{path}.{index}", least=least) for index, entry in enumerate(entries))


def require(raw: Mapping[str, object], key: str, *, path: str = "") -> object:
    """The value under `key`.

    Args:
        raw: the mapping.
        key: a key that has no default.
        path: path of the key in the file, if the mapping is only a part of it.

    Raises:
        InputError: there is no such key.
    """
    if key not in raw:
        raise InputError("missing", path=path or key, hint=f"state {key}; it has no default")
    return raw[key]


def distinct(ranks: Iterable[int], path: str, what: str = "rank") -> tuple[int, ...]:
    """The ranks themselves, checked to be distinct.

    Raises:
        InputError: a rank is named twice.
    """
    seen: set[int] = set()
    listed = tuple(ranks)
    for rank in listed:
        if rank in seen:
            problem = f"{what} {rank} is named twice"
            raise InputError(problem, path=path, given=list(listed), expected="each once")
        seen.add(rank)
    return listed


def flag(value: object, path: str) -> bool:
    """`value` itself, checked to be true or false, not a number.

    Raises:
        InputError: it is no boolean.
    """
    if isinstance(value, bool):
        return value
    raise InputError("not a boolean", path=path, given=value, expected="true or false")


def ignored_line(key: str, value: object, reason: str = "") -> str:
    """A line `key: value` on an ignored key, shortened if long, with the reason if there is one."""
    text = json.dumps(value, default=str)
    if len(text) > _LONGEST_VALUE:
        text = text[: _LONGEST_VALUE - 3] + "..."
    return f"{key}: {text}" + (f" ({reason})" if reason else "")


def sort_plan_keys(
    raw: Mapping[str, object], known: Iterable[str], rules: KeyRules
) -> tuple[dict[str, object], tuple[str, ...]]:
    """The entries that matter, and a line for each ignored one; errors as `sort_keys` raises them."""
    values, ignored = sort_keys(raw, known, rules)
    return values, tuple(ignored_line(key, raw[key]) for key in ignored)


def bounds_of(counts: Iterable[int]) -> tuple[int, ...]:
    """Counts (such as the layers of each stage) as bounds: (0, ..., sum of the counts)."""
    return (0, *accumulate(counts))


def stage(arrays: Iterable[int], first_layer: int, num_layers: int, degrees: Degrees) -> StagePlan:
    """A stage whose layers all have the same degrees."""
    return StagePlan(tuple(arrays), first_layer, num_layers, (degrees,) * num_layers)
