"""Which elements each PE holds under a mapping, and which have to move for it to hold those of another.

A PE always holds a box: some indices along each dim, and all elements whose indices are among them. Indices are kept as
spans (or as residues, for tokens), so that nothing grows with the number of elements.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import reduce
from math import lcm
from typing import Any

import numpy as np
import numpy.typing as npt

from pe_sim.config.dtypes import SCALE_BITS, Dtype
from pe_sim.graph.operators import Embedding, KvAppend, Linear, Norm
from pe_sim.mapping.attention_split import AttentionSplit, held_tokens, pair_width
from pe_sim.mapping.layouts import Layouts
from pe_sim.mapping.placed import Move, MoveKind, PlacedBlock, PlacedGraph, Work
from pe_sim.mapping.placement import Partial, Placement, Root
from pe_sim.units import BoolArray, IntArray, ceil_div


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
    """What each PE holds of one tensor.

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
        """Key that is the same for parameters that are held alike, whatever their names."""
        return (self.dtype, self.copies, *(dim.key for dim in self.dims if isinstance(dim, Spans)))


@dataclass(frozen=True, eq=False, slots=True)
class CachePart:
    """The cache of sequences first .. last - 1 of one layer, and how attention divides it."""

    first: int
    last: int
    split: AttentionSplit


def parameters_of(placed: PlacedGraph) -> dict[int | None, Mapping[str, Holding]]:
    """The parameters that PEs keep, by layer (None: outside the layers) and name; those at the root are left out."""
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
    """What each PE holds of K and V of sequences first .. last - 1, each with `tokens` tokens in the cache."""
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
    """The dtype without scales, which vectors do not have."""
    return Dtype(dtype.name)


class _Cuts:
    """Spans along feature dims, each worked out once."""

    def __init__(self) -> None:
        self._known: dict[Hashable, Spans] = {}

    def cut(self, layouts: Layouts, dim: str, size: int, placement: Placement) -> Spans:
        """The columns that each PE holds under a placement."""
        if (layouts.pe_columns(dim, size, placement) == size * layouts.is_member).all():
            return self.whole(layouts, size)
        heads = (layouts.shape.num_heads, layouts.shape.num_kv_heads, layouts.shape.head_dim)
        key = (layouts.groups, heads, dim, size, placement)
        return self._recall(key, lambda: _columns(layouts, dim, size, placement))

    def whole(self, layouts: Layouts, size: int) -> Spans:
        """All columns on every member of the groups."""

        def make() -> Spans:
            members = layouts.groups.members
            return Spans(size, members, np.zeros_like(members), np.full_like(members, size))

        return self._recall((layouts.groups, size), make)

    def bias(self, layouts: Layouts, operator: Linear, placement: Placement) -> Spans:
        """The bias entries that each PE holds: of its outputs, or its own part of them where these are partial sums."""
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


# ---- What has to move of one tensor for every PE to hold what another mapping wants: takes two holdings.
#
# Along each dim the indices fall into *atoms*, the longest pieces that no PE divides under either mapping; a
# combination of one atom a dim is held, or not, as a whole. Of what somebody lacks, the lowest PE that holds it sends
# it once.


NOBODY = -1  # in place of a sender: no PE holds it, the root has to send it


@dataclass(frozen=True, eq=False, slots=True)
class Axis:
    """The atoms of one dim.

    Args:
        sizes: (atoms,) indices in each.
        before, after: (PEs, atoms) who holds them under the two mappings.
    """

    sizes: IntArray
    before: BoolArray
    after: BoolArray


@dataclass(frozen=True, eq=False, slots=True)
class Transfer:
    """What moves of one tensor; arrays are (PEs,) bytes.

    Args:
        sent: what each PE sends, in one message.
        rootward: what no PE holds, so that the root sends it.
        lacking: all that somebody lacks, each element once.
        received: what each PE keeps of what it hears.
        dropped: what each PE no longer needs.
    """

    sent: IntArray
    rootward: int
    lacking: int
    received: IntArray
    dropped: IntArray

    @property
    def is_empty(self) -> bool:
        """Whether nobody lacks anything."""
        return self.lacking == 0


def transfer(before: Holding | None, after: Holding | None, num_pes: int) -> Transfer:
    """What moves from `before` to `after`; None: no PE holds anything of the tensor."""
    known = before or after
    assert known is not None, "a tensor is held by somebody under one mapping"
    axes = axes_of(before, after, num_pes)
    weights = [axis.sizes for axis in axes[:-1]] + [_inner_bits(axes[-1].sizes, known.dtype)]
    held, wanted, kept = (
        _product([_summed(mask, bits) for mask, bits in zip(masks, weights, strict=True)])
        for masks in zip(*((axis.before, axis.after, axis.before & axis.after) for axis in axes), strict=True)
    )
    received, dropped = wanted - kept, held - kept
    sent = np.zeros(num_pes + 1, dtype=np.int64)  # the last one is the root's
    if received.any():
        lacking, sender = senders(axes)
        sizes = reduce(np.multiply.outer, weights)
        sizes *= lacking
        sums = np.bincount(sender.reshape(-1) + 1, weights=sizes.reshape(-1), minlength=num_pes + 1)
        sent = np.roll(sums.astype(np.int64), -1)  # NOBODY last; bits of a tensor are exact far beyond the largest
    total = known.copies * ceil_div(sent, 8)
    whole = known.copies * ceil_div(int(sent.sum()), 8)
    received, dropped = (known.copies * ceil_div(bits, 8) for bits in (received, dropped))
    return Transfer(total[:-1], int(total[-1]), whole, received, dropped)


def axes_of(before: Holding | None, after: Holding | None, num_pes: int) -> list[Axis]:
    """The atoms of every dim."""
    known = before or after
    assert known is not None
    nothing = [_nowhere(dim) for dim in known.dims]
    sides = ((side.dims if side else nothing) for side in (before, after))
    return [_axis(old, new, num_pes) for old, new in zip(*sides, strict=True)]


def senders(axes: list[Axis]) -> tuple[BoolArray, npt.NDArray[np.int32]]:
    """For every combination of atoms, whether a PE lacks it, and the lowest PE that holds it before (or NOBODY)."""
    shape = tuple(len(axis.sizes) for axis in axes)
    sender = np.full(shape, NOBODY, dtype=np.int32)  # can be large
    for pe in reversed(_first_of_each([axis.before for axis in axes])):
        sender[np.ix_(*(axis.before[pe] for axis in axes))] = pe
    lacking = np.zeros(shape, dtype=bool)
    for pe in _first_of_each([side for axis in axes for side in (axis.after, axis.before)]):
        wanted = [np.flatnonzero(axis.after[pe]) for axis in axes]
        missing = np.ones(tuple(len(each) for each in wanted), dtype=bool)
        missing[np.ix_(*(axis.before[pe][each] for axis, each in zip(axes, wanted, strict=True)))] = False
        lacking[np.ix_(*wanted)] |= missing
    return lacking, sender


def _first_of_each(masks: list[BoolArray]) -> list[int]:
    """The lowest PE of each set of PEs that hold the same, in order; PEs that hold nothing are left out."""
    packed = np.ascontiguousarray(np.packbits(np.concatenate(masks, axis=1), axis=1))
    seen: dict[bytes, int] = {}
    for pe in np.flatnonzero(masks[0].any(axis=1)).tolist():
        seen.setdefault(packed[pe].tobytes(), pe)
    return list(seen.values())


def _axis(before: Dim, after: Dim, num_pes: int) -> Axis:
    if isinstance(before, Residues) or isinstance(after, Residues):
        strides = {
            each for dim in (before, after) if isinstance(dim, Residues) for each in np.unique(dim.stride).tolist()
        }
        period = min(lcm(*strides), before.size)
        atoms = np.arange(period, dtype=np.int64)
        sizes = held_tokens(before.size, atoms, period)
        return Axis(sizes, *(_of_residues(dim, atoms, num_pes) for dim in (before, after)))
    cuts = np.unique(np.concatenate(([0, before.size], before.first, before.last, after.first, after.last)))
    return Axis(np.diff(cuts), *(_of_spans(dim, cuts, num_pes) for dim in (before, after)))


def _of_residues(dim: Dim, atoms: IntArray, num_pes: int) -> BoolArray:
    if isinstance(dim, Spans):  # nowhere
        return np.zeros((num_pes, len(atoms)), dtype=bool)
    mask: BoolArray = atoms[None, :] % np.reshape(dim.stride, (-1, 1)) == dim.residue[:, None]
    return mask


def _of_spans(dim: Dim, cuts: IntArray, num_pes: int) -> BoolArray:
    assert isinstance(dim, Spans)
    mask = np.zeros((num_pes, len(cuts) - 1), dtype=bool)
    firsts, lasts = (np.searchsorted(cuts, each).tolist() for each in (dim.first, dim.last))
    for pe, first, last in zip(dim.pe.tolist(), firsts, lasts, strict=True):
        mask[pe, first:last] = True
    return mask


def _nowhere(dim: Dim) -> Spans:
    nothing = np.zeros(0, dtype=np.int64)
    return Spans(dim.size, nothing, nothing, nothing)


def _inner_bits(sizes: IntArray, dtype: Dtype) -> IntArray:
    """Bits of each piece of a row, with a scale for every group it begins."""
    if dtype.group_size is None:
        return sizes * dtype.bits
    per_group = SCALE_BITS + (dtype.bits if dtype.zero_point else 0)
    return sizes * dtype.bits + ceil_div(sizes, dtype.group_size) * per_group


def _summed(mask: BoolArray, bits: IntArray) -> IntArray:
    """(PEs,) bits of the atoms each PE holds."""
    sums = np.where(mask.all(axis=1), bits.sum(), 0)
    some = np.flatnonzero((sums == 0) & mask.any(axis=1))
    row, atom = np.nonzero(mask[some])
    sums[some] = np.bincount(row, weights=bits[atom], minlength=len(some)).astype(np.int64)
    return sums


def _product(factors: list[npt.NDArray[Any]]) -> IntArray:
    product: IntArray = reduce(np.multiply, factors)
    return product
