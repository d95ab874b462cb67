"""What is not worth looking at: options whose own work, with the least of everything else, is more than is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from pe_sim.graph.operators import Linear
from pe_sim.graph.tensors import Rows
from pe_sim.mapping.distributions import feature_shard
from pe_sim.mapping.grids import grid_ways
from pe_sim.mapping.placement import Placement, Replicate, Shard
from pe_sim.mapping_search.grids import matrix_columns
from pe_sim.mapping_search.isolation import matrix_cycles
from pe_sim.mapping_search.pieces import Scene
from pe_sim.mapping_search.space import ATTENTION, matrix_options
from pe_sim.schedule.matrix import gemm_work, scores_work, values_work
from pe_sim.units import IntArray

_ATTENTIONS = ("head", "token")  # how the heads' features can be cut


@dataclass(frozen=True, slots=True)
class Load:
    """Of one option of one operator: cycles and bytes on the watched PE."""

    cycles: float
    held_bytes: int


Loads = Mapping[str, Mapping[str, Load]]  # by field and option


def loads_of(scene: Scene, grids: tuple[str, ...], *, lone: bool) -> dict[str, dict[str, Load]]:
    """Of the matrices and attention of one layer, and of the LM head; `grids` cut both dims of an FFN's matrices."""
    loads: dict[str, dict[str, Load]] = {}
    for operator in (*scene.graph.layer, *scene.graph.epilogue):
        if isinstance(operator, Linear):
            name = operator.name if operator in scene.graph.layer else "lm_head"
            options = ("replicate",) if lone else matrix_options(operator, grids)
            loads[name] = {option: _linear(scene, operator, option) for option in options}
    loads["attention"] = {option: _attention(scene, option) for option in (("replicate",) if lone else ATTENTION)}
    return loads


def least(loads: Loads, layers: int, figure: Callable[[Load], float]) -> float:
    """Of all layers and the LM head, each operator at its best."""
    smallest = {name: min(figure(load) for load in options.values()) for name, options in loads.items()}
    return layers * sum(value for name, value in smallest.items() if name != "lm_head") + smallest.get("lm_head", 0)


def worth_trying(loads: Loads, figure: Callable[[Load], float], spare: float) -> dict[str, set[str]]:
    """By field, the options that take no more than `spare` beyond the best one."""
    kept: dict[str, set[str]] = {}
    for name, options in loads.items():
        best = min(figure(load) for load in options.values())
        kept[name] = {option for option, load in options.items() if figure(load) - best <= spare}
    return kept


def _linear(scene: Scene, operator: Linear, option: str) -> Load:
    layouts, array, pe = scene.layouts, scene.array, scene.watched_pe
    tensor_rows = operator.outputs[0].rows
    place: Placement = Shard("batch") if option == "batch" else Replicate()
    rows = layouts.pe_rows(tensor_rows, place)[pe : pe + 1]

    def columns(dim: str, size: int, *, cut: bool) -> IntArray:
        if not cut:
            return np.array([size], dtype=np.int64)
        cuts = [layouts.pe_columns(dim, size, feature_shard(dim, attention)) for attention in _ATTENTIONS]
        return np.minimum(*(cut[pe : pe + 1] for cut in cuts))

    if grid_ways(option) is None:
        inner = columns(operator.in_dim, operator.in_size, cut=option == "col")
        outer = columns(operator.out_dim, operator.out_size, cut=option == "row")
    else:
        inner, outer = (columns[pe : pe + 1] for columns in matrix_columns(operator, layouts, option))
    work = gemm_work(array, rows, inner, outer)
    cycles = int(matrix_cycles(work, array)[0]) if rows[0] * inner[0] * outer[0] else 0
    return Load(cycles, int(np.asarray(array.dtypes.weight.matrix_bytes(outer, inner))[0]))


def _attention(scene: Scene, option: str) -> Load:
    layouts, array, pe = scene.layouts, scene.array, scene.watched_pe
    split = layouts.attention_split(option)
    works = (scores_work(array, split), values_work(array, split))
    busy = bool(split.q_heads[pe]) and bool(
        layouts.pe_rows(Rows.ALL, Shard("batch") if option == "batch" else Replicate())[pe]
    )
    cycles = sum(int(matrix_cycles(work, array)[pe]) for work in works) if busy else 0
    if not scene.graph.keeps_cache:
        return Load(cycles, 0)
    rows = split.cached_tokens() * split.kv_heads
    return Load(cycles, 2 * int(np.asarray(array.dtypes.kv_cache.matrix_bytes(rows, split.dims))[pe]))
