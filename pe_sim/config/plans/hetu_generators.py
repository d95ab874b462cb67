"""Arguments of Hetu's generators of parallel configs: takes them, gives the plan they mean, or the configs.

The names and defaults are those of `generate_llama_4d_config` and `generate_llama_hetero_4d_config`; those of the
`ds_parallel` section of a run's YAML are those of Hetu's class StrategyConfig. In both, null counts as left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from pe_sim.config.files.foreign import KeyRules
from pe_sim.config.plans.checks import (
    bounds_of,
    distinct,
    flag,
    ignored_line,
    require,
    sort_plan_keys,
    whole,
    whole_list,
)
from pe_sim.config.plans.hetu import Lane, Piece, pipelines_of
from pe_sim.config.plans.plan import ParallelPlan
from pe_sim.errors import InputError, told_of

_DEFAULTS: Final = {"num_layers": 32, "num_gpus": 8, "dp": 2, "cp": 1, "tp": 2, "pp": 2}
_SECTION: Final = "ds_parallel"
_SECTION_DEFAULTS: Final = dict.fromkeys(_DEFAULTS, 1)
# Keys that StrategyConfig has and the generators do not.
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
    """The layout of layers on devices that the arguments mean.

    Args:
        members: the pieces of each member of the union.
        cp_list: the numbers of consecutive replicas that share tokens.
        devices: all devices, unused ones too.
        num_layers: layers of the model.
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
    """Whether the mapping has a `ds_parallel` section or a key that only generator arguments have."""
    section = raw.get(_SECTION)
    if isinstance(section, Mapping):
        return True
    return "num_gpus" in raw or any(key in raw for key in (*_HETERO_ONLY, *_SECTION_ONLY))


def read_hetu_arguments(raw: Mapping[str, object], name: str, num_arrays: int | None = None) -> ParallelPlan:
    """The plan that the generator's config of these arguments would be read as.

    Args:
        raw: the keyword arguments of either generator; or a run's YAML, of which the section `ds_parallel` is read.
        name: name of the plan.
        num_arrays: unused; num_gpus says it.

    Raises:
        InputError: an unknown or wrong argument, or numbers that do not agree; see `layout_4d` and `hetero_layout`.
    """
    section = raw.get(_SECTION)
    if isinstance(section, Mapping):
        rest = tuple(ignored_line(key, value) for key, value in raw.items() if key != _SECTION)
        with told_of(_SECTION):
            plan = read_hetu_arguments({"hetero": None, **section}, name)
        return replace(plan, source=_SECTION, ignored=(*plan.ignored, *rest))
    stated, ignored = sort_plan_keys(raw, ("hetero", *_DEFAULTS, *_HETERO_ONLY), _KEYS)
    defaults = _DEFAULTS if _SECTION_ONLY.isdisjoint(raw) and "hetero" not in raw else _SECTION_DEFAULTS
    values = {**defaults, **{key: value for key, value in stated.items() if value is not None}}
    hetero = flag(values.pop("hetero", any(key in values for key in _HETERO_ONLY)), "hetero")
    layout = _hetero(values) if hetero else _homogeneous(values)
    unused = ("pp", *(["cp"] if "cp_list" in values else [])) if hetero else ()
    overruled = tuple(ignored_line(key, stated[key], "the lists say it") for key in unused if key in stated)
    return ParallelPlan(
        name=name,
        pipelines=pipelines_of(layout.members, layout.cp_list),
        unused=layout.unused,
        num_layers=layout.num_layers,
        ignored=(*overruled, *ignored),
    )


def _numbers(values: Mapping[str, object], names: Sequence[str]) -> dict[str, int]:
    return {name: whole(values.get(name, _DEFAULTS[name]), name) for name in names}


def layout_4d(values: Mapping[str, object]) -> HetuLayout:
    """The layout of equal stages: one member, whose groups are consecutive devices, one group for each stage.

    Raises:
        InputError: dp * cp * tp * pp is not num_gpus, or the stages do not divide the layers.
    """
    n = _numbers(values, tuple(_DEFAULTS))
    product = n["dp"] * n["cp"] * n["tp"] * n["pp"]
    if product != n["num_gpus"]:
        raise InputError(
            f"dp {n['dp']} x cp {n['cp']} x tp {n['tp']} x pp {n['pp']} is {product} devices",
            path="num_gpus",
            given=n["num_gpus"],
            expected=f"{product}, or degrees that multiply to {n['num_gpus']}",
        )
    if n["num_layers"] % n["pp"]:
        raise InputError(
            f"{n['num_layers']} layers are not {n['pp']} equal stages",
            path="pp",
            given=n["pp"],
            expected=f"a divisor of {n['num_layers']}",
            hint="generate_llama_hetero_4d_config takes uneven stages",
        )
    depth, width = n["num_layers"] // n["pp"], product // n["pp"]
    lane = tuple(Piece(tuple(range(s * width, (s + 1) * width)), s * depth, depth, n["tp"]) for s in range(n["pp"]))
    return HetuLayout((lane,), (n["cp"],) * n["dp"], tuple(range(n["num_gpus"])), n["num_layers"])


def _homogeneous(values: Mapping[str, Any]) -> HetuLayout:
    """The layout of equal stages; raises if arguments of the hetero generator ask for anything else."""
    for key in _HETERO_ONLY:
        value = values.get(key)
        if value in (None, [], {}) or (
            isinstance(value, Mapping) and all(str(rank) == str(at) for rank, at in value.items())
        ):
            continue
        if key != "cp_list" or value != [values["cp"]] * values["dp"]:
            raise _wrong(key, value, "says something where hetero is false", "null, or hetero: true")
    return layout_4d(values)


def _hetero(values: Mapping[str, Any]) -> HetuLayout:
    """The layout of uneven stages; a missing `cp_list` has cp for every share of the batch, as in StrategyConfig."""
    require(values, "hetero_layers")
    n = _numbers(values, ("cp", "dp"))
    return hetero_layout({"cp_list": [n["cp"]] * n["dp"], **values})


def hetero_layout(values: Mapping[str, Any]) -> HetuLayout:
    """The layout of uneven stages: one member for each pipeline.

    Stage s of pipeline p has rank (accumulate_hetero_stages[p] + s) * tp and the tp - 1 after it, without unused ones.
    `rank_to_device_mapping`, `unused_rank` and `accumulate_hetero_stages` may be None: each rank is its own device, all
    are used, and the sums are worked out.

    Raises:
        InputError: numbers that do not agree with each other, a rank out of range or named twice, or a stage whose
            ranks are all unused.
    """
    n = _numbers(values, ("num_layers", "num_gpus", "dp", "tp"))
    cp_list = whole_list(values["cp_list"], "cp_list", least=1)
    if len(cp_list) != n["dp"]:
        raise _wrong("cp_list", list(cp_list), f"{len(cp_list)} entries", f"{n['dp']}, as dp says")
    pipelines = _hetero_layers(values["hetero_layers"], sum(cp_list), n["num_layers"])
    starts = _starts(values.get("accumulate_hetero_stages"), pipelines)
    needed = starts[-1] * n["tp"]
    if needed != n["num_gpus"]:
        words = f"{starts[-1]} stages x tp {n['tp']} are {needed} ranks"
        raise _wrong("num_gpus", n["num_gpus"], words, f"{needed}")
    devices = _devices(values.get("rank_to_device_mapping"), needed)
    unused = _unused_ranks(values.get("unused_rank"), needed)
    members = []
    for index, counts in enumerate(pipelines):
        bounds = bounds_of(counts)
        pieces = []
        for s, count in enumerate(counts):
            first_rank = (starts[index] + s) * n["tp"]
            ranks = [rank for rank in range(first_rank, first_rank + n["tp"]) if rank not in unused]
            if not ranks:
                words = f"stage {s} of pipeline {index} has no rank left"
                raise _wrong("unused_rank", sorted(unused), words, "at least one rank of each stage used")
            arrays = tuple(devices[rank] for rank in ranks)
            pieces.append(Piece(arrays, bounds[s], count, len(arrays)))
        members.append(tuple(pieces))
    return HetuLayout(tuple(members), cp_list, tuple(sorted(devices)), n["num_layers"])


def _wrong(path: str, given: object, problem: str, expected: str) -> InputError:
    return InputError(problem, path=path, given=given, expected=expected)


def _hetero_layers(given: object, num_pipelines: int, num_layers: int) -> list[tuple[int, ...]]:
    path = "hetero_layers"
    if not isinstance(given, list | tuple):
        raise _wrong(path, given, "not a list", "the layers of each stage, a list for each pipeline")
    if len(given) != num_pipelines:
        raise _wrong(path, given, f"{len(given)} pipelines", f"{num_pipelines}, the sum of cp_list")
    pipelines = []
    for index, entry in enumerate(given):
        counts = whole_list(entry, f"{path}.{index}", least=1)
        if sum(counts) != num_layers:
            words = f"its stages have {sum(counts)} layers"
            raise _wrong(f"{path}.{index}", entry, words, f"{num_layers} in all, as num_layers says")
        pipelines.append(counts)
    return pipelines


def _starts(given: object, pipelines: list[tuple[int, ...]]) -> tuple[int, ...]:
    """Number of stages before each pipeline, and of all stages."""
    sums = bounds_of(map(len, pipelines))
    if given is not None and whole_list(given, "accumulate_hetero_stages") != sums:
        problem = "not the sums of the pipelines' stages"
        raise _wrong("accumulate_hetero_stages", given, problem, f"{list(sums)}, or no such key")
    return sums


def _devices(given: object, num_ranks: int) -> tuple[int, ...]:
    """The device of each rank; ranks may be texts, as JSON writes them."""
    path = "rank_to_device_mapping"
    if given is None:
        return tuple(range(num_ranks))
    if not isinstance(given, Mapping):
        raise _wrong(path, given, "not a mapping", "a device for each rank: {0: 0, 1: 1}")
    devices: dict[int, int] = {}
    for key, device in given.items():
        rank = int(key) if isinstance(key, str) and key.isdecimal() else key
        devices[whole(rank, path, least=0)] = whole(device, f"{path}.{key}", least=0)
    for rank in range(num_ranks):
        if rank not in devices:
            raise _wrong(path, given, f"no device for rank {rank}", f"one for each of the {num_ranks} ranks")
    return distinct((devices[rank] for rank in range(num_ranks)), path, "device")


def _unused_ranks(given: object, num_ranks: int) -> frozenset[int]:
    path = "unused_rank"
    ranks = distinct(whole_list([] if given is None else given, path), path)
    for rank in ranks:
        if rank >= num_ranks:
            raise _wrong(path, list(ranks), f"no rank {rank}", f"ranks from 0 to {num_ranks - 1}")
    return frozenset(ranks)


# ---- Writes Hetu's ds_parallel_config: takes the arguments of Hetu's generators, gives what its JSON files hold.
#
# `load_plan` reads the result back. In addition to Hetu's own keys it holds `cp_list`, which Hetu ignores: its files do
# not say which replicas share tokens.


_UNIFORM: Final = "generate_llama_4d_config"
_HETERO: Final = "generate_llama_hetero_4d_config"
Tensor = dict[str, object]


def generate_llama_4d_config(
    recompute_layers: Sequence[int] | Sequence[Sequence[int]],
    num_layers: int = 32,
    num_gpus: int = 8,
    dp: int = 2,
    cp: int = 1,
    tp: int = 2,
    pp: int = 2,
    zero: bool = True,
) -> list[dict[str, object]]:
    """Hetu's config of equal stages, as the only entry of a list, which is what Hetu's models take.

    Args:
        recompute_layers: layers whose activations training recomputes.
        num_layers: layers of the model.
        num_gpus: number of devices: dp * cp * tp * pp.
        dp, cp, tp, pp: numbers of shares of the batch, of the tokens, of the operators, and of stages.
        zero: whether optimizer states are sharded (ZeRO-1); off where dp is 1.

    Raises:
        InputError: degrees that do not multiply to num_gpus, stages that do not divide the layers, no such layer.
    """
    values = {"num_layers": num_layers, "num_gpus": num_gpus, "dp": dp, "cp": cp, "tp": tp, "pp": pp}
    with told_of(_UNIFORM):
        return [_config(layout_4d(values), recompute_layers, flag(zero, "zero") and dp > 1)]


def generate_llama_hetero_4d_config(
    cp_list: Sequence[int],
    rank_to_device_mapping: Mapping[int, int] | None,
    unused_rank: Sequence[int] | None,
    hetero_layers: Sequence[Sequence[int]],
    accumulate_hetero_stages: Sequence[int] | None,
    recompute_layers: Sequence[int] | Sequence[Sequence[int]],
    num_layers: int = 32,
    num_gpus: int = 8,
    dp: int = 2,
    tp: int = 2,
    zero: bool = True,
) -> list[dict[str, object]]:
    """Hetu's config of pipelines with their own stages, as the only entry of a list, as Hetu's models take it.

    Args:
        cp_list: for each share of the batch, how many consecutive pipelines share its tokens.
        rank_to_device_mapping: the device of each rank; None: the device of the same number.
        unused_rank: ranks that take no part; None: none.
        hetero_layers: for each pipeline, the numbers of layers of its stages.
        accumulate_hetero_stages: the numbers of stages before each pipeline, and of all; None: worked out.
        recompute_layers: layers whose activations training recomputes: one list for all pipelines, or one for each.
        num_layers: layers of the model.
        num_gpus: number of devices: tp times the number of all stages.
        dp: number of shares of the batch, and of entries of cp_list.
        tp: number of ranks of a stage.
        zero: whether optimizer states are sharded (ZeRO-1); off where dp is 1.

    Raises:
        InputError: arguments that do not agree, see `hetero_layout`, or no such layer.
    """
    values = {
        "cp_list": _plain(cp_list),
        "rank_to_device_mapping": rank_to_device_mapping,
        "unused_rank": _plain(unused_rank),
        "hetero_layers": _plain(hetero_layers),
        "accumulate_hetero_stages": _plain(accumulate_hetero_stages),
        "num_layers": num_layers,
        "num_gpus": num_gpus,
        "dp": dp,
        "tp": tp,
    }
    with told_of(_HETERO):
        return [_config(hetero_layout(values), recompute_layers, flag(zero, "zero") and dp > 1)]


def _config(
    layout: HetuLayout, recompute_layers: Sequence[int] | Sequence[Sequence[int]], zero: bool
) -> dict[str, object]:
    recompute = _recompute(recompute_layers, layout)
    first, last = _pieces(layout, 0), _pieces(layout, layout.num_layers - 1)
    blocks = {f"blocks{layer}": _block(layer, _pieces(layout, layer), recompute) for layer in range(layout.num_layers)}
    return {
        "zero": zero,
        "devices": list(layout.devices),
        "cp_list": list(layout.cp_list),
        "input": _batch(first),
        "llama": {"wte": _split(first, 0), "blocks": blocks, "rmsnorm_final": _split(last, 0)},
        "lm_head": _split(last, 1),
        "label": _batch(last),
    }


def _pieces(layout: HetuLayout, layer: int) -> list[Piece]:
    """The piece of each member that holds the layer."""
    return [next(piece for piece in member if piece.first_layer <= layer < piece.end) for member in layout.members]


def _block(layer: int, pieces: list[Piece], recompute: list[frozenset[int]]) -> dict[str, object]:
    return {
        "range": [layer],
        "recompute": [layer in layers for layers in recompute],
        "rmsnorm1": _split(pieces, 0),
        "attn": {"qkv": _split(pieces, 1), "dense": _split(pieces, 0)},
        "rmsnorm2": _split(pieces, 0),
        "mlp": {"dense_h_to_4h": _split(pieces, 1), "dense_4h_to_h": _split(pieces, 0)},
    }


def _copies(pieces: list[Piece]) -> list[int]:
    """For each member its copies over the whole union, so that split * dup = devices * members."""
    return [piece.replicas * len(pieces) for piece in pieces]


def _split(pieces: list[Piece], dim: int) -> Tensor:
    """The tensor of a weight that arrays which share operators split along `dim`."""
    return {
        "split": {str(dim): [piece.tp for piece in pieces]},
        "dup": _copies(pieces),
        "device_group_union": [list(piece.arrays) for piece in pieces],
        "type": "variable",
    }


def _batch(pieces: list[Piece]) -> Tensor:
    """The tensor of an input that replicas split along the batch."""
    return {
        "split": {"0": _copies(pieces)},
        "dup": [piece.tp for piece in pieces],
        "device_group_union": [list(piece.arrays) for piece in pieces],
        "type": "placeholder",
    }


def _plain(value: object) -> object:
    """The value with all sequences as lists, as JSON would have them."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(entry) for entry in value]
    return value


def _recompute(layers: Sequence[int] | Sequence[Sequence[int]], layout: HetuLayout) -> list[frozenset[int]]:
    """For each member, the set of layers to recompute; a single list holds for all members."""
    path, given, count = "recompute_layers", _plain(layers), len(layout.members)
    if isinstance(given, list) and any(isinstance(entry, list) for entry in given):
        if len(given) != count:
            raise InputError(
                f"{len(given)} lists",
                path=path,
                given=given,
                expected=f"{count}, one for each group, or one list of layers",
            )
        lists = [whole_list(entry, f"{path}.{index}") for index, entry in enumerate(given)]
    else:
        lists = [whole_list(given, path)] * count
    for layer in sorted({layer for entries in lists for layer in entries}):
        if layer >= layout.num_layers:
            expected = f"layers from 0 to {layout.num_layers - 1}"
            raise InputError(f"no layer {layer}", path=path, given=given, expected=expected)
    return [frozenset(entries) for entries in lists]
