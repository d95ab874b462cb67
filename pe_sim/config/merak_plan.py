"""Merak's arguments as a flat JSON (degrees, MerakArguments and set_tp_layer_lists): takes the mapping, gives a plan.

Row and column are Megatron's words there: what is column parallel has its outputs sharded, which is `row` here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from pe_sim.config.layer_names import operators_of
from pe_sim.config.merak_keys import MERAK_KEYS, MERAK_ONLY, SCHEDULES
from pe_sim.config.plan import ParallelPlan, Partition
from pe_sim.config.plan_checks import check_bounds, check_plan
from pe_sim.config.plan_values import MAX_COUNT, flag, ignored_line, sort_plan_keys, whole
from pe_sim.errors import InputError, did_you_mean

_DEGREES: Final = ("dp", "tp", "pp")
# Of layers_partition.py there; the fields' defaults are those of the class, which its documents do not always repeat.
_METHODS: Final[dict[str, Partition]] = {
    "uniform": "uniform_ceil",
    "uniform_floor": "uniform_floor",
    "parameters": "parameters",
}
_DEFAULT_METHOD: Final = "uniform_floor"
_DEFAULT_OVERLAP: Final = 0
_LISTS: Final = ("col_para_list", "row_para_list", "input_output_mapping")
_MINE: Final = (
    "partition_method",
    "custom_partition",
    "train_schedule",
    "tp_overlapping_level",
    "sequence_parallel",
    "parallel_vocab",
    *_LISTS,
    "seq_length",
    "out_seq_length",
    "num_heads",
)
# These are also words of ours or of others; they do not tell that a file is Merak's.
_SHARED: Final = (*_DEGREES, "num_layers", "hidden_size")
_REASONS: Final = {
    "train_schedule": "inference has forward passes alone",
    "sequence_parallel": "it moves where norms run, not what they give",
    "seq_length": "the step says it",
    "out_seq_length": "the step says it",
    "num_heads": "the model says it",
    "hidden_size": "the model says it",
}
# Megatron's style -> the distribution here.
_STYLES: Final = {"col": "row", "row": "col"}
# (inputs, outputs) in units of the hidden size -> the operators of that shape.
_SHAPES: Final = {(1, 3): ("q", "k", "v"), (1, 1): ("o",), (1, 4): ("gate", "up"), (4, 1): ("down",)}


def is_merak_plan(raw: Mapping[str, object]) -> bool:
    """Whether the mapping has a key that only Merak's arguments have."""
    return any(key in raw for key in _MINE) or not MERAK_ONLY.isdisjoint(raw)


def read_merak_plan(raw: Mapping[str, object], source: str, name: str, num_arrays: int | None = None) -> ParallelPlan:
    """The plan the arguments describe; what is left out or null has MerakArguments' default.

    Args:
        raw: the mapping of the file.
        source: what errors call it.
        name: of the plan.
        num_arrays: unused; the degrees say it.

    Raises:
        InputError: an unknown or wrong entry, bounds that do not fit the stages, or a layer with two styles.
    """
    stated, ignored = sort_plan_keys(raw, (*_SHARED, *_MINE), MERAK_KEYS, source)
    values = {key: value for key, value in stated.items() if value is not None}
    dp, tp, pp = (whole(values.get(degree, 1), degree, source) for degree in _DEGREES)
    num_layers = _optional(values, "num_layers", source)
    partition = _partition(values, pp, num_layers, source)
    if isinstance(partition, tuple):
        num_layers = partition[-1]
    plan = ParallelPlan(
        name=name,
        source=source,
        dp=dp,
        tp=tp,
        pp=pp,
        partition=partition,
        overlap=_overlap(values, source),
        matrices=_matrices(values, source),
        split_vocabulary=flag(values.get("parallel_vocab", False), "parallel_vocab", source),
        num_layers=num_layers,
        ignored=(*_checked_and_ignored(values, source), *ignored),
    )
    return check_plan(plan, source)


def _optional(values: Mapping[str, object], key: str, source: str) -> int | None:
    return whole(values[key], key, source) if key in values else None


def _checked_and_ignored(values: Mapping[str, object], source: str) -> tuple[str, ...]:
    schedule = values.get("train_schedule", SCHEDULES[0])
    if schedule not in SCHEDULES:
        raise InputError(
            "unknown schedule",
            source=source,
            path="train_schedule",
            given=schedule,
            expected=", ".join(SCHEDULES),
            hint=did_you_mean(str(schedule), SCHEDULES),
        )
    flag(values.get("sequence_parallel", False), "sequence_parallel", source)
    for key in ("seq_length", "out_seq_length", "hidden_size"):
        _optional(values, key, source)
    return tuple(ignored_line(key, values[key], why) for key, why in _REASONS.items() if key in values)


def _overlap(values: Mapping[str, object], source: str) -> int:
    """The level; Merak's documents call it a float, so 1.0 is fine, too."""
    level = values.get("tp_overlapping_level", _DEFAULT_OVERLAP)
    if isinstance(level, int | float) and not isinstance(level, bool) and level in (0, 1, 2, 3):
        return int(level)
    raise InputError("no such level", source=source, path="tp_overlapping_level", given=level, expected="0, 1, 2 or 3")


def _partition(
    values: Mapping[str, object], pp: int, num_layers: int | None, source: str
) -> Partition | tuple[int, ...]:
    bounds = values.get("custom_partition")
    method = values.get("partition_method", _DEFAULT_METHOD if bounds is None else "custom")
    method = method.lower() if isinstance(method, str) else method
    if method == "custom":
        if bounds is None:
            problem, hint = "this key is missing", "partition_method custom needs the bounds of the stages"
            raise InputError(
                problem,
                source=source,
                path="custom_partition",
                expected=f"{pp + 1} bounds: [0, ..., layers]",
                hint=hint,
            )
        return check_bounds(_bounds(bounds, source), pp, num_layers, "custom_partition", source)
    if bounds is not None:
        raise InputError(
            f"bounds beside partition_method {method!r}",
            source=source,
            path="custom_partition",
            given=bounds,
            expected="null, or partition_method custom",
        )
    if isinstance(method, str) and method in _METHODS:
        return _METHODS[method]
    known = (*_METHODS, "custom")
    raise InputError(
        "unknown method",
        source=source,
        path="partition_method",
        given=method,
        expected=", ".join(known),
        hint=did_you_mean(str(method), known),
    )


def _bounds(given: object, source: str) -> tuple[int, ...]:
    """Numbers or texts, as Merak documents them, or all in one text, as its code reads them: ["0,17,32"]."""
    if isinstance(given, list | tuple) and len(given) == 1 and isinstance(given[0], str):
        given = given[0]
    if isinstance(given, str):
        given = given.split(",")
    if not isinstance(given, list | tuple):
        problem, expected = "not a list", "bounds of the stages: [0, ..., layers]"
        raise InputError(problem, source=source, path="custom_partition", given=given, expected=expected)
    bounds = []
    for index, entry in enumerate(given):
        value = int(entry) if isinstance(entry, str) and entry.strip().isdecimal() else entry
        if isinstance(value, float) and value.is_integer() and 0 <= value <= MAX_COUNT:
            value = int(value)
        bounds.append(whole(value, f"custom_partition.{index}", source, least=0))
    return tuple(bounds)


def _matrices(values: Mapping[str, object], source: str) -> tuple[tuple[str, str], ...]:
    """The distribution of each operator that the lists name, in the order of the lists."""
    found: dict[str, tuple[str, str]] = {}
    for operator, style, path, given in _styles(values, source):
        split = _STYLES[style]
        before = found.setdefault(operator, (split, path))
        if before[0] != split:
            raise InputError(
                f"operator {operator} is column parallel and row parallel at once, the other in {before[1]}",
                source=source,
                path=path,
                given=given,
                expected="each layer in one list",
            )
    return tuple((operator, split) for operator, (split, _) in found.items())


def _styles(values: Mapping[str, object], source: str) -> Iterator[tuple[str, str, str, object]]:
    """(operator, Megatron's style, path, what is there) of every entry of the lists."""
    for key in _LISTS:
        entries = values.get(key)
        if entries is None:
            continue
        if not isinstance(entries, list | tuple):
            raise InputError("not a list", source=source, path=key, given=entries, expected="a list")
        for index, entry in enumerate(entries):
            path = f"{key}.{index}"
            if key == "input_output_mapping":
                operators, style = _of_shape(entry, path, source)
            else:
                operators, style = operators_of(entry, path, source), key[:3]
            for operator in operators:
                yield operator, style, path, entry


def _of_shape(entry: object, path: str, source: str) -> tuple[tuple[str, ...], str]:
    if isinstance(entry, list | tuple) and len(entry) == 3:
        for (inputs, outputs), operators in _SHAPES.items():
            for style in _STYLES:
                if tuple(entry) == (inputs, outputs, style):
                    return operators, style
    shapes = " or ".join(f"({inputs}, {outputs})" for inputs, outputs in _SHAPES)
    raise InputError(
        "no known shape of a linear layer",
        source=source,
        path=path,
        given=entry,
        expected=f"(inputs, outputs, 'row' or 'col') with inputs and outputs {shapes}",
    )
