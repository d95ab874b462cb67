"""Which elements of every parameter and of the KV cache each PE holds under a mapping: takes a placed step.

A PE always holds a box: some indices along each dim, and all elements whose indices are among them. Indices are kept as
spans (or as residues, for tokens), so that nothing grows with the number of elements.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from pe_sim.config.dtypes import Dtype
from pe_sim.graph.operators import Embedding, KvAppend, Linear, Norm
from pe_sim.mapping.attention_split import AttentionSplit
from pe_sim.mapping.head_blocks import pair_width
from pe_sim.mapping.layouts import Layouts
from pe_sim.mapping.placed import Move, MoveKind, PlacedBlock, PlacedGraph, Work
from pe_sim.mapping.placement import Partial, Placement, Root
from pe_sim.units import IntArray


@dataclass(frozen=True, eq=False, slots=True)
class Spans:
    """PE pe[i] holds indices first[i] .. last[i] - 1 of `size`; a PE can have several spans or none.

    Spans of parameters with one `key` are the same.
    """

    size: int
    pe: IntArray
    first: IntArray
    last: IntArray
    key: Hashable = None


@dataclass(frozen=True, eq=False, slots=True)
class Residues:
    """PE p holds indices residue[p], residue[p] + stride[p], ... of `size`; a stride that all have is a number."""

    size: int
    stride: int | IntArray
    residue: IntArray


Dim = Spans | Residues


@dataclass(frozen=True, eq=False, slots=True)
class Holding:
    """Who holds what of one tensor.

    Args:
        name: the operator, and which of its parameters.
        dims: of the tensor, the inner one last.
        dtype: of its elements; shared scales run along the inner dim.
        copies: parameters of the same size that lie alike (a LayerNorm's gain and bias; K and V).
    """

    name: str
    dims: tuple[Dim, ...]
    dtype: Dtype
    copies: int = 1

    @property
    def key(self) -> Hashable:
        """The same for parameters that are held alike, whatever their names."""
        return (self.dtype, self.copies, *(dim.key for dim in self.dims if isinstance(dim, Spans)))


@dataclass(frozen=True, eq=False, slots=True)
class CachePart:
    """The cache of sequences first .. last - 1 of one layer, and how attention divides it."""

    first: int
    last: int
    split: AttentionSplit


def parameters_of(placed: PlacedGraph) -> dict[int | None, Mapping[str, Holding]]:
    """By layer (None: outside the layers) and name, what PEs keep; what the root has for them is left out."""
    known: dict[int, Mapping[str, Holding]] = {}
    found: dict[int | None, dict[str, Holding]] = {}
    spans = _Cuts()
    for run in placed.sequence:
        if run.lane == 0:
            if run.block not in known:
                known[run.block] = dict(_parameters(placed.blocks[run.block], placed, spans))
            found.setdefault(run.layer, {}).update(known[run.block])
    return {layer: found[layer] for layer in sorted(found, key=lambda layer: (layer is None, layer or 0))}


def caches_of(placed: PlacedGraph) -> dict[int, list[CachePart]]:
    """By layer the parts of the KV cache, in the order of the sequences."""
    found: dict[int, list[CachePart]] = {}
    for run in placed.sequence:
        block = placed.blocks[run.block]
        for node in block.nodes:
            if isinstance(node, Work) and isinstance(node.operator, KvAppend) and run.layer is not None:
                alone = block.layouts.groups.is_lone
                split = block.layouts.attention_split("replicate" if alone else node.distribution)
                found.setdefault(run.layer, []).append(CachePart(run.lane, run.lane + len(split.shape.new_lens), split))
    return {layer: sorted(parts, key=lambda part: part.first) for layer, parts in sorted(found.items())}


def cache_holding(part: CachePart, first: int, last: int, tokens: int, dtype: Dtype) -> Holding:
    """Who holds what of K and V of sequences first .. last - 1, each with `tokens` tokens in the cache."""
    split, width = part.split, pair_width(part.split.shape.head_dim)
    half = split.shape.head_dim // 2
    sequences = _spans(last - first, *(_clipped(each + part.first - first, last - first) for each in _bounds(split)))
    heads = _spans(split.shape.num_kv_heads, split.kv_first, split.kv_first + split.kv_heads)
    pairs = [split.pair_first + piece * half for piece in range(width)]
    dims = _joined([_spans(split.shape.head_dim, start, start + split.pair_count) for start in pairs])
    return Holding("kv", (sequences, heads, Residues(tokens, split.token_stride, split.token_residue), dims), dtype, 2)


def _bounds(split: AttentionSplit) -> tuple[IntArray, IntArray]:
    return split.sequence_first, split.sequence_last


def _clipped(indices: IntArray, size: int) -> IntArray:
    clipped: IntArray = np.clip(indices, 0, size)
    return clipped


def _spans(size: int, first: IntArray, last: IntArray) -> Spans:
    """One span for each PE that has any."""
    pe = np.flatnonzero(last > first)
    return Spans(size, pe, first[pe], last[pe])


def _joined(parts: list[Spans]) -> Spans:
    pe, first, last = (np.concatenate([getattr(part, name) for part in parts]) for name in ("pe", "first", "last"))
    return Spans(parts[0].size, pe, first, last)


def _parameters(block: PlacedBlock, placed: PlacedGraph, cuts: _Cuts) -> Iterator[tuple[str, Holding]]:
    streamed = {
        node.operator.name for node in block.nodes if isinstance(node, Move) and node.kind is MoveKind.WEIGHT_STREAM
    }
    for node in block.nodes:
        if not isinstance(node, Work) or isinstance(node.outputs[0].placement, Root) or node.operator.name in streamed:
            continue
        for holding in _of_work(node, block.layouts, placed.array.dtypes.weight, cuts):
            yield holding.name, holding


def _of_work(node: Work, layouts: Layouts, dtype: Dtype, cuts: _Cuts) -> Iterator[Holding]:
    operator, place = node.operator, node.outputs[0].placement
    if isinstance(operator, Linear) and node.function == "matrix":
        outer = cuts.cut(layouts, operator.out_dim, operator.out_size, place)
        inner = cuts.cut(layouts, operator.in_dim, operator.in_size, node.inputs[0].placement)
        yield Holding(operator.name, (outer, inner), dtype)
    elif isinstance(operator, Linear):
        yield Holding(f"{operator.name} bias", (cuts.bias(layouts, operator, place),), _plain(dtype))
    elif isinstance(operator, Embedding):
        for index, rows in enumerate(operator.table_rows):
            whole = (cuts.whole(layouts, size) for size in (rows, operator.hidden_size))
            yield Holding(f"{operator.name} table {index}", tuple(whole), dtype)
    elif isinstance(operator, Norm) and node.function != "sum_of_squares":
        gain = cuts.cut(layouts, "hidden", operator.size, place)
        yield Holding(operator.name, (gain,), _plain(dtype), 2 if operator.function == "layernorm" else 1)


def _plain(dtype: Dtype) -> Dtype:
    """Vectors have no scales."""
    return Dtype(dtype.name)


class _Cuts:
    """Spans along feature dims, each worked out once."""

    def __init__(self) -> None:
        self._known: dict[Hashable, Spans] = {}

    def cut(self, layouts: Layouts, dim: str, size: int, placement: Placement) -> Spans:
        """The columns of a placement."""
        if (layouts.pe_columns(dim, size, placement) == size * layouts.is_member).all():
            return self.whole(layouts, size)
        heads = (layouts.shape.num_heads, layouts.shape.num_kv_heads, layouts.shape.head_dim)
        key = (layouts.groups, heads, dim, size, placement)
        return self._recall(key, lambda: _columns(layouts, dim, size, placement))

    def whole(self, layouts: Layouts, size: int) -> Spans:
        """All of it on every member."""

        def make() -> Spans:
            members = layouts.groups.members
            return Spans(size, members, np.zeros_like(members), np.full_like(members, size))

        return self._recall((layouts.groups, size), make)

    def bias(self, layouts: Layouts, operator: Linear, placement: Placement) -> Spans:
        """The entries of a PE's outputs, or its own part of them where outputs are partial sums."""
        own = placement.own_part(operator.out_dim) if isinstance(placement, Partial) else placement
        return self.cut(layouts, operator.out_dim, operator.out_size, own)

    def _recall(self, key: Hashable, make: Callable[[], Spans]) -> Spans:
        if key not in self._known:
            self._known[key] = replace(make(), key=key)
        return self._known[key]


def _columns(layouts: Layouts, dim: str, size: int, placement: Placement) -> Spans:
    """The runs of neighbouring columns of each PE."""
    pes: list[IntArray] = []
    firsts: list[IntArray] = []
    lasts: list[IntArray] = []
    for pe in layouts.groups.members.tolist():
        columns = np.sort(layouts.column_indices(dim, size, placement, pe))
        if len(columns):
            breaks = np.flatnonzero(np.diff(columns) > 1)
            firsts.append(columns[np.concatenate(([0], breaks + 1))])
            lasts.append(columns[np.append(breaks, len(columns) - 1)] + 1)
            pes.append(np.full(len(breaks) + 1, pe, dtype=np.int64))
    if not pes:
        nothing = np.zeros(0, dtype=np.int64)
        return Spans(size, nothing, nothing, nothing)
    return Spans(size, np.concatenate(pes), np.concatenate(firsts), np.concatenate(lasts))
