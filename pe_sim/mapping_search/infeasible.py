"""When nothing fits: what each constraint excludes, and the smallest changes that would help, all worked out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pe_sim.config.arrays.array import ArrayConfig
from pe_sim.config.dtypes import Dtypes
from pe_sim.config.networks.network import GraphNetwork
from pe_sim.errors import InfeasibleError, InputError
from pe_sim.graph.graph import OperatorGraph
from pe_sim.graph.operators import Linear, Norm
from pe_sim.mapping.distributions import feature_shard
from pe_sim.mapping.groups import PeGroups, grid_ways
from pe_sim.mapping.layouts import Layouts
from pe_sim.mapping.placement import Placement, Replicate, Shard
from pe_sim.mapping_search.candidates import Wanted
from pe_sim.mapping_search.grid_dominance import bias_columns, grid_options, matrix_columns
from pe_sim.mapping_search.result import Excluded
from pe_sim.mapping_search.space import matrix_options
from pe_sim.units import IntArray, ceil_div, format_bytes, last_that_fits

_MOST_PES = 2**18
_SMALLER = ("int8", "int4")
_ATTENTIONS = ("head", "token", "batch")


def nothing_fits(wanted: Wanted, graphs: Sequence[OperatorGraph], excluded: Sequence[Excluded]) -> InputError:
    """The error that says why no mapping can be taken, and what would help."""
    misfits = [one for one in excluded if isinstance(one.error, InfeasibleError) or one.error is None]
    others = [one for one in excluded if one not in misfits]
    if not misfits:
        reasons = "\n".join(f"  {one.name}: {one.reason}" for one in others)
        return InputError(f"no mapping can do this step\n{reasons}")
    array = wanted.array
    capacity = array.pe.memory.capacity_bytes
    need = min([_leanest(graphs, array), *_demands(misfits, capacity)])
    if need <= capacity:
        reasons = "\n".join(f"  {one.name}: {one.reason}" for one in excluded)
        return InputError(f"no mapping was found that fits the memories\n{reasons}")
    listed = "\n".join(f"  excluded: {one.name}: {one.reason}" for one in excluded)
    return InfeasibleError(
        f"no mapping fits the PEs' memories; the leanest one holds {format_bytes(need)} a PE, a PE has"
        f" {format_bytes(capacity)}\n{listed}\nthe leanest mapping",
        demand=need,
        bound=capacity,
        unit="bytes a PE",
        levers=_levers(array, graphs, need),
    )


def _demands(misfits: Sequence[Excluded], capacity: int) -> list[int]:
    """Bytes that named workflows need on the fullest PE; those that stream weights can need less than `_leanest`."""
    errors = [one.error for one in misfits if isinstance(one.error, InfeasibleError)]
    return [int(error.demand) for error in errors if error.bound == capacity and "memory of PE" in error.problem]


def _levers(array: ArrayConfig, graphs: Sequence[OperatorGraph], need: int) -> list[str]:
    """The smallest change of each kind that lets the leanest mapping fit."""
    capacity = array.pe.memory.capacity_bytes
    levers = [f"capacity x{need / capacity:.2f} (--set pe.memory.capacity_bytes={need})"]
    pes = _fewest_pes(array, graphs)
    if pes is not None:
        levers.append(f"N >= {pes:,} PEs (--set num_pes={pes})")
    for change in _dtype_changes(array.dtypes):
        if _leanest(graphs, replace(array, dtypes=change.dtypes)) <= capacity:
            levers.append(f"{change.text} ({change.setting})")
            break
    shorter = _longest(array, graphs)
    if shorter is not None:
        levers.append(f"at most {shorter:,} tokens a sequence")
    return levers


@dataclass(frozen=True, slots=True)
class _DtypeChange:
    text: str
    setting: str
    dtypes: Dtypes


def _dtype_changes(dtypes: Dtypes) -> list[_DtypeChange]:
    """Changes to narrower dtypes: of the weights alone, the cache alone, then both; the wider ones first."""
    found = []
    for fields in (("weight",), ("kv_cache",), ("weight", "kv_cache")):
        for name in _SMALLER:
            narrower = {field: replace(getattr(dtypes, field), name=name) for field in fields}
            if all(narrower[field].bits < getattr(dtypes, field).bits for field in fields):
                setting = " ".join(f"--set dtypes.{field}={name}" for field in fields)
                found.append(
                    _DtypeChange(
                        " and ".join(f"{field} {name}" for field in fields), setting, replace(dtypes, **narrower)
                    )
                )
    return found


def _fewest_pes(array: ArrayConfig, graphs: Sequence[OperatorGraph]) -> int | None:
    """The fewest PEs with which the leanest mapping fits, by doubling and halving; None if too many, or on a graph.

    On a graph more PEs are another graph, of other sides or powers, with other costs of sharing heads.
    """
    if isinstance(array.network, GraphNetwork):
        return None

    def fits(num_pes: int) -> bool:
        return _leanest(graphs, array, num_pes) <= array.pe.memory.capacity_bytes

    low, high = array.num_pes, array.num_pes * 2
    while not fits(high):
        low, high = high, high * 2
        if high > _MOST_PES:
            return None
    return 1 + last_that_fits(lambda num_pes: not fits(num_pes), low, high)


def _longest(array: ArrayConfig, graphs: Sequence[OperatorGraph]) -> int | None:
    """Most tokens a sequence, cached and new, that the leanest mapping can hold; None if not one, or no cache grows."""
    if not graphs[0].keeps_cache:
        return None

    def fits(total: int) -> bool:
        shorter = [_with_lengths(graph, total) for graph in graphs]
        return _leanest(shorter, array) <= array.pe.memory.capacity_bytes

    longest = max(
        n + c for graph in graphs for n, c in zip(graph.shape.new_lens, graph.shape.context_lens, strict=True)
    )
    if not fits(1):
        return None
    return last_that_fits(fits, 1, longest)


def _with_lengths(graph: OperatorGraph, total: int) -> OperatorGraph:
    shape = graph.shape
    lengths = [min(n + c, total) for n, c in zip(shape.new_lens, shape.context_lens, strict=True)]
    return replace(graph, shape=replace(shape, new_lens=tuple(lengths), context_lens=(0,) * len(lengths)))


def _leanest(graphs: Sequence[OperatorGraph], array: ArrayConfig, num_pes: int | None = None) -> int:
    """Bytes of the fullest PE under the leanest mapping: every operator's distribution leaves least on that PE.

    One group of PEs: more of them keep more copies of the matrices.
    """
    count = num_pes or array.num_pes
    of_steps = []
    for graph in graphs:
        groups = PeGroups.of_array(count, 1, array.network.arity, len(graph.shape.new_lens), array.dead_pes)
        of_steps.append((graph, Layouts.on(array, groups, graph.shape, graph.selected_per_sequence)))
    return min(
        max(_leanest_step(graph, layouts, array, attention) for graph, layouts in of_steps) for attention in _ATTENTIONS
    )


def _leanest_step(graph: OperatorGraph, layouts: Layouts, array: ArrayConfig, attention: str) -> int:
    """Bytes of the fullest PE in one step, at the leanest with this attention: it decides where matrices by row are."""
    held = layouts.nothing
    for operator in graph.layer:
        if isinstance(operator, Linear):
            held = held + _least_matrix(operator, layouts, array, attention)
    held = graph.num_layers * held + _least_ends(graph, layouts, array)
    layers = graph.num_layers if graph.keeps_cache else 1
    return int((held + layers * _cache_bytes(layouts, array, attention)).max())


def _least_matrix(operator: Linear, layouts: Layouts, array: ArrayConfig, attention: str) -> IntArray:
    ways = [_matrix(operator, layouts, array, attention, row=row) for row in (True, False)]
    grids = [name for name in matrix_options(operator, grid_options(array, layouts.groups)) if grid_ways(name)]
    held = min(ways, key=_fullest)
    first = {grid: _first_tile_bytes(operator, layouts, array, grid) for grid in grids}
    leanest = min(first, key=first.__getitem__, default=None)
    if leanest is None or first[leanest] >= _fullest(held):
        return held
    return _tile(operator, layouts, array, leanest)


def _fullest(held: IntArray) -> int:
    return int(held.max())


def _first_tile_bytes(operator: Linear, layouts: Layouts, array: ArrayConfig, grid: str) -> int:
    """Bytes that PE 0 holds of a matrix cut both ways: it has the largest tile, so the others need no look."""
    ways = grid_ways(grid) or 1
    cuts = {"hidden": ways, "ffn": layouts.groups.size // ways}
    inner, outer = (
        ceil_div(operator.in_size, cuts[operator.in_dim]),
        ceil_div(operator.out_size, cuts[operator.out_dim]),
    )
    bias = ceil_div(outer, cuts[operator.in_dim]) if operator.bias else 0
    weight = array.dtypes.weight
    return int(weight.matrix_bytes(outer, inner)) + int(weight.num_bytes(bias))


def _tile(operator: Linear, layouts: Layouts, array: ArrayConfig, grid: str) -> IntArray:
    """(PEs,) bytes of a matrix that is cut both ways, and of its share of the bias."""
    inner, outer = matrix_columns(operator, layouts, grid)
    held = np.asarray(array.dtypes.weight.matrix_bytes(outer, inner))
    if operator.bias:
        held = held + np.asarray(array.dtypes.weight.num_bytes(bias_columns(operator, layouts, grid)))
    return held


def _matrix(operator: Linear, layouts: Layouts, array: ArrayConfig, attention: str, *, row: bool) -> IntArray:
    """(PEs,) bytes of a matrix by row or by column, and of its share of the bias."""
    whole = Replicate()
    by_row, by_col = (feature_shard(dim, attention) for dim in (operator.out_dim, operator.in_dim))
    outer = layouts.pe_columns(operator.out_dim, operator.out_size, by_row if row else whole)
    inner = layouts.pe_columns(operator.in_dim, operator.in_size, whole if row else by_col)
    held = np.asarray(array.dtypes.weight.matrix_bytes(outer, inner))
    if operator.bias:
        place = by_row if row else Shard(operator.out_dim)
        share = layouts.pe_columns(operator.out_dim, operator.out_size, place)
        held = held + np.asarray(array.dtypes.weight.num_bytes(share))
    return held


def _least_ends(graph: OperatorGraph, layouts: Layouts, array: ArrayConfig) -> IntArray:
    """(PEs,) fewest bytes of parameters outside the layers; norms there, unlike those of layers, are never at the root.

    A norm before the LM head is placed as the head wants its input: whole by row, in slices by column.
    """
    first, ways = layouts.nothing, []
    for operator in graph.prologue:
        if isinstance(operator, Norm):
            first = first + _norm(operator, layouts, array, Replicate())
    for row in (True, False):
        held = layouts.nothing
        for operator in graph.epilogue:
            if isinstance(operator, Linear):
                held = held + _matrix(operator, layouts, array, _ATTENTIONS[0], row=row)
            elif isinstance(operator, Norm):
                held = held + _norm(operator, layouts, array, Replicate() if row else Shard("hidden"))
        ways.append(held)
    return first + min(ways, key=lambda held: int(held.max()))


def _norm(operator: Norm, layouts: Layouts, array: ArrayConfig, place: Placement) -> IntArray:
    parameters = 2 if operator.function == "layernorm" else 1
    return np.asarray(array.dtypes.weight.num_bytes(parameters * layouts.pe_columns("hidden", operator.size, place)))


def _cache_bytes(layouts: Layouts, array: ArrayConfig, distribution: str) -> IntArray:
    split = layouts.attention_split(distribution)
    rows = split.cached_tokens() * split.kv_heads
    return 2 * np.asarray(array.dtypes.kv_cache.matrix_bytes(rows, split.dims))
