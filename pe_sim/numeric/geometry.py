"""The rows and columns that every PE and every copy at the root holds, as slices and indices into whole tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pe_sim.graph.operators import Rows, Tensor
from pe_sim.mapping.groups import first_holders
from pe_sim.mapping.layouts import Layouts
from pe_sim.mapping.placed import Value
from pe_sim.mapping.placement import Joint, Partial, Placement, Root, Scope, Shard
from pe_sim.numeric.arrays import PlacementError
from pe_sim.numeric.attention import PeAttention
from pe_sim.units import IntArray

_SHAPELESS_DIMS = (
    "score",
    "weight",
)  # the size of scores depends on the tokens that rows see; "weight" is a streamed matrix


class PePieces(tuple[Any, ...]):
    """The pieces of a value on PEs: an array (rows, columns) each, None for PEs that take no part.

    Scores are flat; the cache and softmax weights are records of `attention`.
    """

    __slots__ = ()


class HubPieces(tuple[Any, ...]):
    """The pieces of a value at the root or at joints: a whole array for each scope."""

    __slots__ = ()


Pieces = PePieces | HubPieces


@dataclass
class Geometry:
    """Rows and columns of holders, from the layouts; rows count from the first row of the block's own sequences."""

    layouts: Layouts
    _columns: dict[tuple[str, int, Placement, int], IntArray] = field(default_factory=dict)
    _bounds: dict[tuple[Rows, bool], list[tuple[int, int]]] = field(default_factory=dict)
    _shapes: dict[tuple[Rows, str, int, Placement], tuple[tuple[int, int] | None, ...]] = field(default_factory=dict)
    _attention: dict[tuple[str, int, bool], PeAttention] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.groups = self.layouts.groups
        self.members: list[int] = self.groups.members.tolist()
        self._prefixes = {rows: self.layouts.row_prefix(rows).tolist() for rows in Rows}

    def scopes(self, scope: Scope) -> list[list[int]]:
        """The PEs that take part, by scope: a group, or its PEs with one query head or in one row of a grid."""
        firsts, lasts, _ = (np.asarray(each).tolist() for each in self.layouts.scopes(scope))
        return [
            [pe for pe in range(first, last) if self.layouts.is_member[pe]]
            for first, last in zip(firsts, lasts, strict=True)
        ]

    def is_whole_array(self, scope: Scope) -> bool:
        """Whether one scope is the whole array, dead PEs included."""
        return self.layouts.scope_size(scope) >= self.groups.num_pes

    def attention(self, distribution: str, pe: int, *, causal: bool) -> PeAttention:
        """One PE's part of attention: all of it where each group is one PE."""
        key = (distribution, pe, causal)
        if key not in self._attention:
            split = self.layouts.attention_split("replicate" if self.groups.is_lone else distribution)
            self._attention[key] = PeAttention(split, pe, causal)
        return self._attention[key]

    def map(self, placement: Placement, piece_of: Callable[[int], Any]) -> Pieces:
        """The pieces that `piece_of` gives for each holder of a placement: a member PE, or a group at the root."""
        if isinstance(placement, Root):
            return HubPieces(piece_of(group) for group in range(self.groups.num_groups))
        pieces: list[Any] = [None] * self.groups.num_pes
        for pe in self.members:
            pieces[pe] = piece_of(pe)
        return PePieces(pieces)

    def rows(self, rows: Rows, placement: Placement, holder: int) -> slice:
        """The rows that a PE, or a group's copy at the root, works on."""
        if isinstance(placement, Root):
            return self.group_rows(rows, holder)
        key = (rows, placement == Shard("batch"))
        if key not in self._bounds:
            first, last = self.layouts.row_bounds(rows, placement)
            self._bounds[key] = list(zip(first.tolist(), last.tolist(), strict=True))
        return slice(*self._bounds[key][holder])

    def group_rows(self, rows: Rows, group: int) -> slice:
        """The rows of one group."""
        bounds, prefix = self.groups.sequence_bounds, self._prefixes[rows]
        return slice(prefix[bounds[group]], prefix[bounds[group + 1]])

    def rows_in_group(self, rows: Rows, placement: Placement, pe: int) -> slice:
        """The rows of a PE, counted from the first row of its group."""
        mine, all_rows = self.rows(rows, placement, pe), self.group_rows(rows, self.group_of(pe))
        return slice(mine.start - all_rows.start, mine.stop - all_rows.start)

    def group_of(self, pe: int) -> int:
        """The group of a member."""
        return int(self.groups.group_of_pe[pe])

    def sequences(self, placement: Placement, holder: int) -> range:
        """The sequences whose rows a PE or a group's copy at the root works on."""
        if placement == Shard("batch"):
            split = self.layouts.batch_split
            return range(int(split.sequence_first[holder]), int(split.sequence_last[holder]))
        group = holder if isinstance(placement, Root) else self.group_of(holder)
        bounds = self.groups.sequence_bounds
        return range(int(bounds[group]), int(bounds[group + 1]))

    def columns(self, dim: str, size: int, placement: Placement, holder: int) -> IntArray:
        """The columns that a PE (or the root) holds, in the order it holds them."""
        if isinstance(placement, Root | Joint):
            return np.arange(size)
        key = (dim, size, placement, holder)
        if key not in self._columns:
            self._columns[key] = self.layouts.column_indices(dim, size, placement, holder)
        return self._columns[key]

    def columns_of(self, value: Value, holder: int) -> IntArray:
        """The columns of a value that a PE (or the root) holds."""
        return self.columns(value.tensor.dim, value.tensor.size, value.placement, holder)

    def own_slice(self, tensor: Tensor, pe: int, placement: Partial | None = None) -> IntArray:
        """The columns of a tensor that are a PE's own: an even slice, or its part of the slice it has a term of."""
        own = Shard(tensor.dim) if placement is None else placement.own_part(tensor.dim)
        return self.columns(tensor.dim, tensor.size, own, pe)

    def is_first_holder(self, placement: Placement, pe: int) -> bool:
        """Whether no PE before this one in its group holds the same slice."""
        if not isinstance(placement, Shard):
            return True
        return bool(first_holders(self.groups.size, placement)[self.groups.rank_of_pe[pe]])

    def check(self, value: Value, pieces: Pieces, who: str) -> None:
        """Raises unless every holder holds as many rows and columns as the placement says.

        Raises:
            PlacementError: one does not.
        """
        tensor, placement = value.tensor, value.placement
        if isinstance(pieces, HubPieces) != isinstance(placement, Root | Joint):
            raise PlacementError(f"{who}: {tensor.name} is not {placement}")
        if tensor.dim in _SHAPELESS_DIMS or tensor.size == 0 or isinstance(placement, Joint):
            return
        shapes = self._expected_shapes(tensor, placement)
        if len(pieces) != len(shapes):
            raise PlacementError(f"{who}: {tensor.name} is not {placement}")
        for holder, (piece, shape) in enumerate(zip(pieces, shapes, strict=True)):
            if shape is not None and (piece is None or piece.shape != shape):
                given = "nothing" if piece is None else f"an array of shape {piece.shape}"
                where = f"group {holder}'s copy at the root" if isinstance(placement, Root) else f"PE {holder}"
                problem = f"{who}: {where} holds {given} of {tensor.name}, which as {placement} has shape {shape}"
                raise PlacementError(problem)

    def _expected_shapes(self, tensor: Tensor, placement: Placement) -> tuple[tuple[int, int] | None, ...]:
        """(rows, columns) of every holder; None for PEs that take no part."""
        key = (tensor.rows, tensor.dim, tensor.size, placement)
        if key not in self._shapes:
            self._shapes[key] = self.map(placement, lambda at: self._expected_shape(tensor, placement, at))
        return self._shapes[key]

    def _expected_shape(self, tensor: Tensor, placement: Placement, holder: int) -> tuple[int, int]:
        rows = self.rows(tensor.rows, placement, holder)
        columns = tensor.size
        if isinstance(placement, Shard | Partial) and placement != Shard("batch"):
            columns = len(self.columns(tensor.dim, tensor.size, placement, holder))
        return rows.stop - rows.start, columns
