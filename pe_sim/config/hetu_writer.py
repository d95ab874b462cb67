"""Writes Hetu's ds_parallel_config: takes the arguments of Hetu's generators, gives what its JSON files hold.

`load_plan` reads the result back. Beside Hetu's own keys it holds `cp_list`, which Hetu passes over: its files do not
say which replicas share tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from pe_sim.config.hetu_arguments import HetuLayout, hetero_layout, layout_4d
from pe_sim.config.hetu_pipelines import Piece
from pe_sim.config.plan_values import flag, whole_list
from pe_sim.errors import InputError

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
    """Hetu's config of equal stages, in a list of one, as Hetu's models take it.

    Args:
        recompute_layers: layers whose activations training recomputes.
        num_layers: of the model.
        num_gpus: devices; dp * cp * tp * pp.
        dp, cp, tp, pp: shares of the batch, of the tokens, of the operators, and stages.
        zero: whether optimizer states are sharded (ZeRO-1); off where dp is 1.

    Raises:
        InputError: degrees that do not multiply to num_gpus, stages that do not divide the layers, no such layer.
    """
    values = {"num_layers": num_layers, "num_gpus": num_gpus, "dp": dp, "cp": cp, "tp": tp, "pp": pp}
    return [_config(layout_4d(values, _UNIFORM), recompute_layers, flag(zero, "zero", _UNIFORM) and dp > 1, _UNIFORM)]


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
    """Hetu's config of pipelines with stages of their own, in a list of one, as Hetu's models take it.

    Args:
        cp_list: of each share of the batch, how many pipelines in a row share its tokens.
        rank_to_device_mapping: the device of each rank; None: its own.
        unused_rank: ranks that take no part; None: none.
        hetero_layers: of each pipeline, the layers of its stages.
        accumulate_hetero_stages: stages before each pipeline, and of all; None: worked out.
        recompute_layers: layers whose activations training recomputes, of all pipelines or a list for each.
        num_layers: of the model.
        num_gpus: devices; tp times all stages.
        dp: shares of the batch; entries of cp_list.
        tp: ranks of a stage.
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
    return [_config(hetero_layout(values, _HETERO), recompute_layers, flag(zero, "zero", _HETERO) and dp > 1, _HETERO)]


def _config(
    layout: HetuLayout, recompute_layers: Sequence[int] | Sequence[Sequence[int]], zero: bool, source: str
) -> dict[str, object]:
    recompute = _recompute(recompute_layers, layout, source)
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
    """What each member does the layer on."""
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
    """Of each member, copies over the whole union, so that split * dup = devices * members."""
    return [piece.replicas * len(pieces) for piece in pieces]


def _split(pieces: list[Piece], dim: int) -> Tensor:
    """A weight that the arrays that share operators share along `dim`."""
    return {
        "split": {str(dim): [piece.tp for piece in pieces]},
        "dup": _copies(pieces),
        "device_group_union": [list(piece.arrays) for piece in pieces],
        "type": "variable",
    }


def _batch(pieces: list[Piece]) -> Tensor:
    """An input that the replicas share along the batch."""
    return {
        "split": {"0": _copies(pieces)},
        "dup": [piece.tp for piece in pieces],
        "device_group_union": [list(piece.arrays) for piece in pieces],
        "type": "placeholder",
    }


def _plain(value: object) -> object:
    """Ranges and other sequences as lists, as JSON would have them."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(entry) for entry in value]
    return value


def _recompute(
    layers: Sequence[int] | Sequence[Sequence[int]], layout: HetuLayout, source: str
) -> list[frozenset[int]]:
    """Of each member, the layers to recompute; one list stands for all."""
    path, given, count = "recompute_layers", _plain(layers), len(layout.members)
    if isinstance(given, list) and any(isinstance(entry, list) for entry in given):
        if len(given) != count:
            raise InputError(
                f"{len(given)} lists",
                source=source,
                path=path,
                given=given,
                expected=f"{count}, one for each group, or one list of layers",
            )
        lists = [whole_list(entry, f"{path}.{index}", source) for index, entry in enumerate(given)]
    else:
        lists = [whole_list(given, path, source)] * count
    for layer in sorted({layer for entries in lists for layer in entries}):
        if layer >= layout.num_layers:
            expected = f"layers from 0 to {layout.num_layers - 1}"
            raise InputError(f"no layer {layer}", source=source, path=path, given=given, expected=expected)
    return [frozenset(entries) for entries in lists]
