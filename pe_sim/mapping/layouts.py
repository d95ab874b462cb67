"""How much of every tensor each PE holds, and exactly which elements."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from pe_sim.config.arrays.array import ArrayConfig
from pe_sim.config.dtypes import Dtypes
from pe_sim.graph.operators import AttentionShape, Element, Rows, Tensor
from pe_sim.mapping.attention_split import (
    AttentionSplit,
    HeadBlocks,
    block_size,
    head_blocks,
    pair_width,
    split_by_batch,
    split_by_head,
    split_by_token,
    unsplit,
)
from pe_sim.mapping.groups import PeGroups, even_counts, grid_slices
from pe_sim.mapping.placement import Partial, Placement, Scope, Shard
from pe_sim.units import BoolArray, IntArray, ceil_div

FP32_BITS = 32
CANDIDATE_BITS = 64  # fp32 value and int32 index
_SPLITS = {"head": "head_split", "token": "token_split", "batch": "batch_split", "replicate": "whole_split"}
SOFTMAX_STATISTICS = 2  # a softmax partial carries (max, sum) beside its weighted values


@dataclass(frozen=True)
class Layouts:
    """Sizes and indices of placed tensors, for one step on one division of the PEs.

    Args:
        groups: the division of PEs and batch.
        shape: attention geometry of the whole batch.
        dtypes: those of the array.
        selected_per_sequence: rows of each sequence that the epilogue works on; None: every new row.
        block_size: places of a block of PEs that share query heads.
        known_prefixes, known_rows, known_columns: arrays that were asked for before.
    """

    groups: PeGroups
    shape: AttentionShape
    dtypes: Dtypes
    selected_per_sequence: int | None
    block_size: int
    known_prefixes: dict[Rows, IntArray] = field(default_factory=dict, repr=False, compare=False)
    known_rows: dict[tuple[Rows, bool], IntArray] = field(default_factory=dict, repr=False, compare=False)
    known_columns: dict[tuple[str, int, Placement], IntArray] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def on(cls, array: ArrayConfig, groups: PeGroups, shape: AttentionShape, selected: int | None) -> Layouts:
        """The layouts of an array on one division of its PEs."""
        return cls(groups, shape, array.dtypes, selected, block_size(array, groups, shape))

    @cached_property
    def nothing(self) -> IntArray:
        """(PEs,) zeros."""
        return np.zeros(self.groups.num_pes, dtype=np.int64)

    @cached_property
    def nowhere(self) -> BoolArray:
        """(PEs,) a mask that no PE is in."""
        return np.zeros(self.groups.num_pes, dtype=bool)

    @property
    def is_member(self) -> BoolArray:
        """(PEs,) whether each PE takes part."""
        return self.groups.is_member

    @cached_property
    def head_split(self) -> AttentionSplit:
        """The split of attention by head."""
        return split_by_head(self.shape, self.groups, self.head_blocks)

    @cached_property
    def head_blocks(self) -> HeadBlocks:
        """The PEs that share each query head."""
        units = self.shape.head_dim // pair_width(self.shape.head_dim)
        return head_blocks(self.groups, self.shape.num_heads, units, self.block_size)

    @cached_property
    def token_split(self) -> AttentionSplit:
        """The split of attention by token."""
        return split_by_token(self.shape, self.groups)

    @cached_property
    def batch_split(self) -> AttentionSplit:
        """The split of attention by batch."""
        return split_by_batch(self.shape, self.groups)

    @cached_property
    def whole_split(self) -> AttentionSplit:
        """The split of attention that is replicated in each group."""
        return unsplit(self.shape, self.groups)

    def attention_split(self, distribution: str) -> AttentionSplit:
        """The split of an attention distribution: head, token, batch or replicate."""
        split: AttentionSplit = getattr(self, _SPLITS[distribution])
        return split

    def first_entry(self, pes: IntArray) -> IntArray:
        """Indices of these PEs' values in the arrays over PEs."""
        return pes

    @property
    def splits_tokens(self) -> bool:
        """Whether attention by token has been asked for."""
        return "token_split" in self.__dict__

    def distinctions(self) -> Iterator[IntArray]:
        """(PEs,) arrays; PEs that are equal in all of them are equal in everything that has been asked for so far.

        The tokens of a split by token, which change from step to step, are left out.
        """
        yield self.groups.is_member.astype(np.int64)
        yield self.groups.group_of_pe
        yield from self.known_rows.values()
        yield from self.known_columns.values()
        for name in _SPLITS.values():
            if name in self.__dict__:
                yield from getattr(self, name).distinctions()
        for grid in {place.grid for _, _, place in self.known_columns if isinstance(place, Shard) and place.grid}:
            yield self.groups.rank_of_pe // grid  # the rows of a grid, each of which is reduced together

    def scopes(self, scope: Scope) -> tuple[IntArray, IntArray, int]:
        """(scopes,) first PE and one past the last of each scope; and how many places its joint has below it."""
        size = self.scope_size(scope)
        if scope == "head":
            return self.head_blocks.first_pe, self.head_blocks.last_pe, size
        inside = np.arange(self.groups.size // size, dtype=np.int64) * size
        first = (self.groups.first_pe[:, None] + inside[None, :]).reshape(-1)
        return first, first + size, size

    def scope_speakers(self, scope: Scope) -> IntArray:
        """(scopes,) the lowest PE of each scope that takes part."""
        if scope == "group":
            return self.groups.lowest
        if scope == "head":
            return self.head_blocks.lowest
        return self.scopes(scope)[0]  # the rows of a grid have no dead PE

    def scope_size(self, scope: Scope) -> int:
        """Number of PEs in each scope."""
        if isinstance(scope, int):
            return scope
        return self.groups.size if scope == "group" else self.head_split.head_group_size

    def row_prefix(self, rows: Rows) -> IntArray:
        """(sequences + 1,) rows before each sequence."""
        if rows not in self.known_prefixes:
            self.known_prefixes[rows] = self._sum_rows(rows)
        return self.known_prefixes[rows]

    def _sum_rows(self, rows: Rows) -> IntArray:
        new = np.asarray(self.shape.new_lens, dtype=np.int64)
        if rows is Rows.SELECTED and self.selected_per_sequence is not None:
            new = np.full(len(new), self.selected_per_sequence, dtype=np.int64)
        return np.concatenate(([0], np.cumsum(new)))

    def row_bounds(self, rows: Rows, placement: Placement) -> tuple[IntArray, IntArray]:
        """(PEs,) first row and one past the last row each PE works on."""
        prefix = self.row_prefix(rows)
        if placement == Shard("batch"):
            split = self.batch_split
            return prefix[split.sequence_first], prefix[split.sequence_last]
        bounds = self.groups.sequence_bounds
        group = self.groups.group_of_pe
        return prefix[bounds[group]], prefix[bounds[group + 1]]

    def group_rows(self, rows: Rows) -> IntArray:
        """(groups,) rows of each group."""
        bounds = self.row_prefix(rows)[self.groups.sequence_bounds]
        return bounds[1:] - bounds[:-1]

    def pe_rows(self, rows: Rows, placement: Placement) -> IntArray:
        """(PEs,) rows each PE holds."""
        by_batch = placement == Shard("batch")
        key = (rows, by_batch)
        if key not in self.known_rows:
            first, last = self.row_bounds(rows, placement)
            self.known_rows[key] = (last - first) * self.groups.is_member
        return self.known_rows[key]

    def pe_columns(self, dim: str, size: int, placement: Placement) -> IntArray:
        """(PEs,) elements of feature dim `dim` each PE holds of a row."""
        key = (dim, size, placement)
        if key not in self.known_columns:
            self.known_columns[key] = self._count_columns(dim, size, placement)
        return self.known_columns[key]

    def _count_columns(self, dim: str, size: int, placement: Placement) -> IntArray:
        if isinstance(placement, Partial) and placement.held is not None:
            return self.pe_columns(dim, size, placement.held)
        if not isinstance(placement, Shard) or placement.dim == "batch":
            return size * self.groups.is_member.astype(np.int64)
        if placement.grid:
            return self.groups.spread(lambda pes: grid_slices(size, pes, placement)[1])
        if placement.dim == "head":
            split = self.head_split
            return (split.q_heads if dim == "query" else split.kv_heads) * split.dims
        return self.groups.spread(lambda pes: even_counts(size, pes))

    def column_indices(self, dim: str, size: int, placement: Placement, pe: int) -> IntArray:
        """The columns PE `pe` holds, in the order it holds them."""
        if isinstance(placement, Partial) and placement.held is not None:
            placement = placement.held
        if not isinstance(placement, Shard) or placement.dim == "batch":
            return np.arange(size)
        if placement.dim == "head":
            return self._head_columns(dim, pe)
        rank = int(self.groups.rank_of_pe[pe])
        pes = int(self.groups.living[self.groups.group_of_pe[pe]])
        if placement.grid:
            starts, widths = grid_slices(size, pes, placement)
            return np.arange(starts[rank], starts[rank] + widths[rank])
        counts = even_counts(size, pes)
        first = int(counts[:rank].sum())
        return np.arange(first, first + int(counts[rank]))

    def _head_columns(self, dim: str, pe: int) -> IntArray:
        split, head_dim = self.head_split, self.shape.head_dim
        first, count = (split.q_first, split.q_heads) if dim == "query" else (split.kv_first, split.kv_heads)
        width = pair_width(head_dim)
        pairs = split.pair_first[pe] + np.arange(split.pair_count[pe])
        dims = np.concatenate([pairs + part * (head_dim // 2) for part in range(width)])
        heads = first[pe] + np.arange(count[pe])
        columns: IntArray = (heads[:, None] * head_dim + dims[None, :]).reshape(-1)
        return columns

    def element_bits(self, tensor: Tensor, *, partial: bool) -> int:
        """Bits of one element on the wire: partial sums in the partial dtype, results in the activation dtype."""
        if tensor.element is Element.STATISTIC:
            return FP32_BITS
        if tensor.element is Element.CANDIDATE:
            return CANDIDATE_BITS
        partial = partial or tensor.element is Element.TERM
        return self.dtypes.partial.bits if partial else self.dtypes.activation.bits

    def group_bytes(self, tensor: Tensor, *, partial: bool) -> IntArray:
        """(groups,) bytes of the group's whole tensor."""
        elements = self.group_rows(tensor.rows) * tensor.size
        return ceil_div(elements * self.element_bits(tensor, partial=partial), 8)

    def pe_bytes(self, tensor: Tensor, placement: Placement) -> IntArray:
        """(PEs,) bytes of each PE's slice."""
        elements = self.pe_rows(tensor.rows, placement) * self.pe_columns(tensor.dim, tensor.size, placement)
        return ceil_div(elements * self.element_bits(tensor, partial=isinstance(placement, Partial)), 8)


def softmax_partial(attended: Tensor, shape: AttentionShape) -> Tensor:
    """The tensor that attention by token sends: per row (max, sum, weighted values) of every query head."""
    size = shape.num_heads * (shape.head_dim + SOFTMAX_STATISTICS)
    return Tensor(f"{attended.name}_partial", "softmax_partial", size, attended.rows)


def layouts_of(
    array: ArrayConfig, num_groups: int, shape: AttentionShape, selected: int | None, *, source: str
) -> Layouts:
    """The layouts of an array whose PEs are divided evenly.

    Args:
        array: the array.
        num_groups: into how many groups.
        shape: attention geometry of the whole batch.
        selected: `selected_per_sequence` of `Layouts`.
        source: what errors call the one who asks for so many groups.

    Raises:
        InputError: the PEs do not divide so, or all PEs of a group are dead.
    """
    arity, sequences = array.network.arity, len(shape.new_lens)
    groups = PeGroups.of_array(array.num_pes, num_groups, arity, sequences, array.dead_pes, source=source)
    return Layouts.on(array, groups, shape, selected)
