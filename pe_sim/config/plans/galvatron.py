"""Galvatron's strategy JSON of both generations: takes the mapping, gives a plan with degrees of each layer.

Inside a stage of W arrays a layer has tp neighbours that share its operators (or, with use_sp, its tokens), cp shares
of the tokens, and W / (tp * cp) shares of the batch. The file does not say W; it is num_arrays / pp_deg. Missing keys
have the defaults of Galvatron's config2strategy and get_hybrid_parallel_configs_api, and null counts as left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from pe_sim.config.files.foreign import KeyRules
from pe_sim.config.plans.checks import bounds_of, ignored_line, require, sort_plan_keys, whole, whole_list
from pe_sim.config.plans.plan import Degrees, ParallelPlan
from pe_sim.errors import InputError

_PER_LAYER: Final = ("tp_sizes_enc", "tp_consecutive_flags", "use_sp", "cp_sizes_enc")
_PER_LAYER_IGNORED: Final = ("dp_types_enc", "checkpoint")
_EXPERTS: Final = ("ep_sizes_enc", "tp_of_ep_sizes_enc")
_KNOWN: Final = (*_PER_LAYER, *_PER_LAYER_IGNORED, *_EXPERTS, "pp_deg", "pp_division", "chunks", "vtp", "vsp", "vcp")
_KEYS: Final = KeyRules(
    ignored=frozenset(
        {"global_bsz", "pipeline_type", "default_dp_type", "embed_sdp", "vocab_sdp", "dispatcher", "mixed_precision"}
    )
)


def is_galvatron_plan(raw: Mapping[str, object]) -> bool:
    """Whether the mapping has a key by which Galvatron's strategies are known."""
    return "pp_deg" in raw or "tp_sizes_enc" in raw


def read_galvatron_plan(raw: Mapping[str, object], name: str, num_arrays: int | None = None) -> ParallelPlan:
    """The plan that a strategy describes.

    Args:
        raw: the mapping of the file.
        name: name of the plan.
        num_arrays: number of arrays that take part; None: as few as its degrees need.

    Raises:
        InputError: an unknown or wrong entry, lists of different lengths, stages that are not all layers, degrees that
            do not fit the number of arrays, or experts.
    """
    stated, ignored = sort_plan_keys(raw, _KNOWN, _KEYS)
    values = {key: value for key, value in stated.items() if value is not None}
    for key in ("pp_deg", "tp_sizes_enc"):
        require(values, key)
    pp = whole(values["pp_deg"], "pp_deg")
    lists = _lists(values)
    _check_experts(lists)
    shares = _layer_shares(lists)
    head = _head_shares(values)
    width, note = _stage_arrays(shares, head, pp, num_arrays)
    num_layers = len(shares)
    return ParallelPlan(
        name=name,
        pp=pp,
        partition=_partition(values, pp, num_layers),
        microbatches=whole(values["chunks"], "chunks") if "chunks" in values else None,
        layers=tuple(_complete(share, width, f"tp_sizes_enc, layer {index}") for index, share in enumerate(shares)),
        head=_complete(head, width, "vtp"),
        num_layers=num_layers,
        ignored=(*note, *(ignored_line(key, raw[key]) for key in _PER_LAYER_IGNORED if key in raw), *ignored),
    )


def _lists(values: Mapping[str, object]) -> dict[str, tuple[int, ...]]:
    """Every list with an entry for each layer, by key, checked to have the same length."""
    lists: dict[str, tuple[int, ...]] = {}
    for key in (*_PER_LAYER, *_PER_LAYER_IGNORED, *_EXPERTS):
        if key in values:
            lists[key] = whole_list(values[key], key, least=1 if "sizes" in key else 0)
    num_layers = len(lists["tp_sizes_enc"])
    for key, entries in lists.items():
        if len(entries) != num_layers:
            raise InputError(
                f"{len(entries)} entries",
                path=key,
                given=values[key],
                expected=f"{num_layers}, one for each layer, as in tp_sizes_enc",
            )
        if key in ("tp_consecutive_flags", "use_sp"):
            for index, entry in enumerate(entries):
                if entry > 1:
                    raise InputError("not a flag", path=f"{key}.{index}", given=entry, expected="0 or 1")
    return lists


def _check_experts(lists: Mapping[str, tuple[int, ...]]) -> None:
    for key in _EXPERTS:
        if any(entry != 1 for entry in lists.get(key, ())):
            raise InputError(
                "not supported: a mixture of experts",
                path=key,
                given=list(lists[key]),
                expected="1 for each layer, or no such key",
            )


def _layer_shares(lists: Mapping[str, tuple[int, ...]]) -> list[Degrees]:
    """The tp and cp of each layer; dp follows later from the number of arrays."""
    sizes = lists["tp_sizes_enc"]
    ones, zeros = (1,) * len(sizes), (0,) * len(sizes)
    rows = zip(
        sizes,
        lists.get("tp_consecutive_flags", ones),
        lists.get("use_sp", zeros),
        lists.get("cp_sizes_enc", ones),
        strict=True,
    )
    return [_share(size, cp, sequence == 1, near == 1) for size, near, sequence, cp in rows]


def _share(size: int, cp: int, sequence: bool, consecutive: bool) -> Degrees:
    return Degrees(1, cp * size, 1, consecutive) if sequence else Degrees(1, cp, size, consecutive)


def _head_shares(values: Mapping[str, object]) -> Degrees:
    """The tp and cp of the LM head, which by default is whole on every array; vsp is a flag, as use_sp."""
    size, cp = whole(values.get("vtp", 1), "vtp"), whole(values.get("vcp", 1), "vcp")
    sequence = whole(values.get("vsp", 0), "vsp", least=0)
    if sequence > 1:
        raise InputError(
            "not a flag",
            path="vsp",
            given=sequence,
            expected="0 or 1: whether the vtp arrays share the tokens, not the vocabulary",
        )
    return _share(size, cp, sequence == 1, True)


def _stage_arrays(shares: list[Degrees], head: Degrees, pp: int, num_arrays: int | None) -> tuple[int, tuple[str, ...]]:
    """Number of arrays of a stage, and a line that tells it if neither the file nor the caller does."""
    if num_arrays is None:
        width = max(share.num_arrays for share in (*shares, head))
        return width, (f"num_arrays: {width * pp} (not in the file: the largest degrees times pp_deg)",)
    if num_arrays % pp:
        raise InputError(
            f"{num_arrays} arrays are not {pp} equal stages",
            path="pp_deg",
            given=pp,
            expected=f"a divisor of {num_arrays}",
        )
    return num_arrays // pp, ()


def _complete(share: Degrees, width: int, path: str) -> Degrees:
    """The degrees with dp chosen to fill the stage; `consecutive` is False only where that makes a difference."""
    part = share.num_arrays
    if width % part:
        raise InputError(
            f"{part} arrays a share do not fill a stage of {width}",
            path=path,
            given=part,
            expected=f"a divisor of {width}",
            hint="the arrays of a stage are num_arrays / pp_deg",
        )
    scattered = not share.consecutive and part < width
    if scattered and share.cp > 1:
        raise InputError(
            "not supported: shares of the tokens on arrays that are not neighbours",
            path=path.replace("tp_sizes_enc", "tp_consecutive_flags"),
            given=0,
            expected="1",
        )
    return replace(share, dp=width // part, consecutive=not (scattered and share.tp > 1))


def _partition(values: Mapping[str, object], pp: int, num_layers: int) -> tuple[int, ...]:
    """The bounds of the stages; by default equal ones, with the remainder in the last."""
    if "pp_division" not in values:
        each = num_layers // pp
        return (*(at * each for at in range(pp)), num_layers)
    given = values["pp_division"]
    counts = whole_list([given] if isinstance(given, int) else given, "pp_division", least=1)
    if len(counts) != pp:
        raise InputError(
            f"layers of {len(counts)} stages",
            path="pp_division",
            given=given,
            expected=f"{pp} numbers, as pp_deg says",
        )
    if sum(counts) != num_layers:
        raise InputError(
            f"the stages have {sum(counts)} layers",
            path="pp_division",
            given=given,
            expected=f"{num_layers} in all, as tp_sizes_enc has entries",
        )
    return bounds_of(counts)
