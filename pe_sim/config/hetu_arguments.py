"""Arguments of Hetu's generators of parallel configs: takes them, gives the members they mean, or the plan.

The names and defaults are those of `generate_llama_4d_config` and `generate_llama_hetero_4d_config`; those of the
`ds_parallel` section of a run's YAML are those of Hetu's class StrategyConfig. In both, null is as if left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from pe_sim.config.hetu_pipelines import Lane, Piece, pipelines_of
from pe_sim.config.model_fields import KeyRules
from pe_sim.config.plan import ParallelPlan
from pe_sim.config.plan_checks import check_plan
from pe_sim.config.plan_values import (
    bounds_of,
    distinct,
    flag,
    ignored_line,
    require,
    sort_plan_keys,
    whole,
    whole_list,
)
from pe_sim.errors import InputError

_DEFAULTS: Final = {"num_layers": 32, "num_gpus": 8, "dp": 2, "cp": 1, "tp": 2, "pp": 2}
_SECTION: Final = "ds_parallel"
_SECTION_DEFAULTS: Final = dict.fromkeys(_DEFAULTS, 1)
# What StrategyConfig has and the generators do not.
_SECTION_ONLY: Final = frozenset(
    {
        "ds_parallel_config_path",
        "ds_parallel_config_name",
        "gpus_per_stage",
        "micro_batch_num_list",
        "seq_len_list",
        "recompute",
    }
)
_HETERO_ONLY: Final = (
    "cp_list",
    "rank_to_device_mapping",
    "unused_rank",
    "hetero_layers",
    "accumulate_hetero_stages",
)
_KEYS: Final = KeyRules(
    ignored=_SECTION_ONLY
    | {
        "zero",
        "recompute_layers",
        "recompute_granularity",
        "recompute_method",
        "recompute_num_layers",
        "recompute_layer_idxs_list",
    }
)


@dataclass(frozen=True, slots=True)
class HetuLayout:
    """What the arguments mean.

    Args:
        members: of each member of the union its pieces.
        cp_list: how many replicas in a row share the tokens.
        devices: all of them, unused ones too.
        num_layers: of the model.
    """

    members: tuple[Lane, ...]
    cp_list: tuple[int, ...]
    devices: tuple[int, ...]
    num_layers: int

    @property
    def unused(self) -> tuple[int, ...]:
        """Devices that take no part."""
        used = {device for member in self.members for piece in member for device in piece.arrays}
        return tuple(device for device in self.devices if device not in used)


def is_hetu_arguments(raw: Mapping[str, object]) -> bool:
    """Whether the mapping, or its `ds_parallel` section, has a key that only arguments have; a config has a root."""
    section = raw.get(_SECTION)
    if isinstance(section, Mapping):
        return True
    return "num_gpus" in raw or any(key in raw for key in (*_HETERO_ONLY, *_SECTION_ONLY))


def read_hetu_arguments(
    raw: Mapping[str, object], source: str, name: str, num_arrays: int | None = None
) -> ParallelPlan:
    """The plan that the generator's config of these arguments would be read as.

    Args:
        raw: the keyword arguments, with those of the hetero generator or of the other; or a run's YAML, of which the
            section `ds_parallel` is read.
        source: what errors call it.
        name: of the plan.
        num_arrays: unused; num_gpus says it.

    Raises:
        InputError: an unknown or wrong argument, or numbers that do not agree; see `layout_4d` and `hetero_layout`.
    """
    section = raw.get(_SECTION)
    if isinstance(section, Mapping):
        rest = tuple(ignored_line(key, value) for key, value in raw.items() if key != _SECTION)
        plan = read_hetu_arguments({"hetero": None, **section}, f"{source}: {_SECTION}", name)
        return replace(plan, ignored=(*plan.ignored, *rest))
    stated, ignored = sort_plan_keys(raw, ("hetero", *_DEFAULTS, *_HETERO_ONLY), _KEYS, source)
    defaults = _DEFAULTS if _SECTION_ONLY.isdisjoint(raw) and "hetero" not in raw else _SECTION_DEFAULTS
    values = {**defaults, **{key: value for key, value in stated.items() if value is not None}}
    hetero = flag(values.pop("hetero", any(key in values for key in _HETERO_ONLY)), "hetero", source)
    layout = _hetero(values, source) if hetero else _homogeneous(values, source)
    unused = ("pp", *(["cp"] if "cp_list" in values else [])) if hetero else ()
    overruled = tuple(ignored_line(key, stated[key], "the lists say it") for key in unused if key in stated)
    plan = ParallelPlan(
        name=name,
        source=source,
        pipelines=pipelines_of(layout.members, layout.cp_list, source),
        unused=layout.unused,
        num_layers=layout.num_layers,
        ignored=(*overruled, *ignored),
    )
    return check_plan(plan, source)


def _numbers(values: Mapping[str, object], names: Sequence[str], source: str) -> dict[str, int]:
    return {name: whole(values.get(name, _DEFAULTS[name]), name, source) for name in names}


def layout_4d(values: Mapping[str, object], source: str) -> HetuLayout:
    """The members of equal stages: one, whose groups are the stages' devices in a row.

    Raises:
        InputError: dp * cp * tp * pp is not num_gpus, or the stages do not divide the layers.
    """
    n = _numbers(values, tuple(_DEFAULTS), source)
    product = n["dp"] * n["cp"] * n["tp"] * n["pp"]
    if product != n["num_gpus"]:
        raise InputError(
            f"dp {n['dp']} x cp {n['cp']} x tp {n['tp']} x pp {n['pp']} is {product} devices",
            source=source,
            path="num_gpus",
            given=n["num_gpus"],
            expected=f"{product}, or degrees that multiply to {n['num_gpus']}",
        )
    if n["num_layers"] % n["pp"]:
        raise InputError(
            f"{n['num_layers']} layers are not {n['pp']} equal stages",
            source=source,
            path="pp",
            given=n["pp"],
            expected=f"a divisor of {n['num_layers']}",
            hint="generate_llama_hetero_4d_config takes uneven stages",
        )
    depth, width = n["num_layers"] // n["pp"], product // n["pp"]
    lane = tuple(Piece(tuple(range(s * width, (s + 1) * width)), s * depth, depth, n["tp"]) for s in range(n["pp"]))
    return HetuLayout((lane,), (n["cp"],) * n["dp"], tuple(range(n["num_gpus"])), n["num_layers"])


def _homogeneous(values: Mapping[str, Any], source: str) -> HetuLayout:
    """Equal stages, where nothing else is asked for; Hetu passes over what the hetero generator alone has."""
    for key in _HETERO_ONLY:
        value = values.get(key)
        if value in (None, [], {}) or (
            isinstance(value, Mapping) and all(str(rank) == str(at) for rank, at in value.items())
        ):
            continue
        if key != "cp_list" or value != [values["cp"]] * values["dp"]:
            raise _wrong(key, value, "says something where hetero is false", "null, or hetero: true", source)
    return layout_4d(values, source)


def _hetero(values: Mapping[str, Any], source: str) -> HetuLayout:
    """Uneven stages; a `cp_list` that is left out has cp for every pipeline, as StrategyConfig has it."""
    require(values, "hetero_layers", source)
    n = _numbers(values, ("cp", "dp"), source)
    return hetero_layout({"cp_list": [n["cp"]] * n["dp"], **values}, source)


def hetero_layout(values: Mapping[str, Any], source: str) -> HetuLayout:
    """The members of uneven stages, one for each pipeline.

    Stage s of pipeline p has ranks (accumulate_hetero_stages[p] + s) * tp and the tp - 1 after it, but for unused ones.
    `rank_to_device_mapping`, `unused_rank` and `accumulate_hetero_stages` may be None: each rank is its own device, all
    are used, and the sums are worked out.

    Raises:
        InputError: numbers that do not agree with each other, a rank out of range or named twice, or a stage whose
            ranks are all unused.
    """
    n = _numbers(values, ("num_layers", "num_gpus", "dp", "tp"), source)
    cp_list = whole_list(values["cp_list"], "cp_list", source, least=1)
    if len(cp_list) != n["dp"]:
        raise _wrong("cp_list", list(cp_list), f"{len(cp_list)} entries", f"{n['dp']}, as dp says", source)
    pipelines = _hetero_layers(values["hetero_layers"], sum(cp_list), n["num_layers"], source)
    starts = _starts(values.get("accumulate_hetero_stages"), pipelines, source)
    needed = starts[-1] * n["tp"]
    if needed != n["num_gpus"]:
        words = f"{starts[-1]} stages x tp {n['tp']} are {needed} ranks"
        raise _wrong("num_gpus", n["num_gpus"], words, f"{needed}", source)
    devices = _devices(values.get("rank_to_device_mapping"), needed, source)
    unused = _unused_ranks(values.get("unused_rank"), needed, source)
    members = []
    for index, counts in enumerate(pipelines):
        bounds = bounds_of(counts)
        pieces = []
        for s, count in enumerate(counts):
            first_rank = (starts[index] + s) * n["tp"]
            ranks = [rank for rank in range(first_rank, first_rank + n["tp"]) if rank not in unused]
            if not ranks:
                words = f"stage {s} of pipeline {index} has no rank left"
                raise _wrong("unused_rank", sorted(unused), words, "at least one rank of each stage used", source)
            arrays = tuple(devices[rank] for rank in ranks)
            pieces.append(Piece(arrays, bounds[s], count, len(arrays)))
        members.append(tuple(pieces))
    return HetuLayout(tuple(members), cp_list, tuple(sorted(devices)), n["num_layers"])


def _wrong(path: str, given: object, problem: str, expected: str, source: str) -> InputError:
    return InputError(problem, source=source, path=path, given=given, expected=expected)


def _hetero_layers(given: object, num_pipelines: int, num_layers: int, source: str) -> list[tuple[int, ...]]:
    path = "hetero_layers"
    if not isinstance(given, list | tuple):
        raise _wrong(path, given, "not a list", "the layers of each stage, a list for each pipeline", source)
    if len(given) != num_pipelines:
        raise _wrong(path, given, f"{len(given)} pipelines", f"{num_pipelines}, the sum of cp_list", source)
    pipelines = []
    for index, entry in enumerate(given):
        counts = whole_list(entry, f"{path}.{index}", source, least=1)
        if sum(counts) != num_layers:
            words = f"its stages have {sum(counts)} layers"
            raise _wrong(f"{path}.{index}", entry, words, f"{num_layers} in all, as num_layers says", source)
        pipelines.append(counts)
    return pipelines


def _starts(given: object, pipelines: list[tuple[int, ...]], source: str) -> tuple[int, ...]:
    """Stages before each pipeline, and of all of them."""
    sums = bounds_of(map(len, pipelines))
    if given is not None and whole_list(given, "accumulate_hetero_stages", source) != sums:
        problem = "not the sums of the pipelines' stages"
        raise _wrong("accumulate_hetero_stages", given, problem, f"{list(sums)}, or no such key", source)
    return sums


def _devices(given: object, num_ranks: int, source: str) -> tuple[int, ...]:
    """The device of each rank; JSON writes the ranks as texts."""
    path = "rank_to_device_mapping"
    if given is None:
        return tuple(range(num_ranks))
    if not isinstance(given, Mapping):
        raise _wrong(path, given, "not a mapping", "a device for each rank: {0: 0, 1: 1}", source)
    devices: dict[int, int] = {}
    for key, device in given.items():
        rank = int(key) if isinstance(key, str) and key.isdecimal() else key
        devices[whole(rank, path, source, least=0)] = whole(device, f"{path}.{key}", source, least=0)
    for rank in range(num_ranks):
        if rank not in devices:
            raise _wrong(path, given, f"no device for rank {rank}", f"one for each of the {num_ranks} ranks", source)
    return distinct((devices[rank] for rank in range(num_ranks)), path, source, "device")


def _unused_ranks(given: object, num_ranks: int, source: str) -> frozenset[int]:
    path = "unused_rank"
    ranks = distinct(whole_list([] if given is None else given, path, source), path, source)
    for rank in ranks:
        if rank >= num_ranks:
            raise _wrong(path, list(ranks), f"no rank {rank}", f"ranks from 0 to {num_ranks - 1}", source)
    return frozenset(ranks)
