"""Puts the pieces of a value together to the whole tensor, for people and proofs: it moves and counts nothing."""

from __future__ import annotations

import numpy as np

from pe_sim.mapping.placed import Value
from pe_sim.mapping.placement import Joint, Partial, Replicate, Root, Shard
from pe_sim.numeric.arrays import Array
from pe_sim.numeric.combine import combine_tree, combiner
from pe_sim.numeric.geometry import Geometry, Pieces

_SKIPPED_DIMS = ("score", "weight", "softmax_partial")


def assemble(geometry: Geometry, value: Value, pieces: Pieces) -> Array | None:
    """(rows of the block, size), or None for what has no such form (scores, caches, streamed matrices)."""
    tensor, placement = value.tensor, value.placement
    if tensor.dim in _SKIPPED_DIMS or tensor.size == 0:
        return None
    if isinstance(placement, Joint) and placement.scope != "group":
        return None
    if isinstance(placement, Root | Joint):
        return np.concatenate(pieces)
    if isinstance(placement, Replicate):
        return np.concatenate([pieces[pe] for pe in geometry.groups.lowest.tolist()])
    if isinstance(placement, Partial) and placement.held is not None:
        return _from_shards(geometry, value, placement, pieces)
    if isinstance(placement, Partial):
        combine = combiner(placement.op, geometry.layouts.shape.head_dim)
        return np.concatenate(
            [combine_tree([pieces[pe] for pe in pes], 2, combine) for pes in geometry.scopes("group")]
        )
    return _from_shards(geometry, value, placement, pieces)


def _from_shards(geometry: Geometry, value: Value, placement: Shard | Partial, pieces: Pieces) -> Array:
    """The slices where they belong; terms of one slice are added up."""
    tensor = value.tensor
    rows = int(geometry.layouts.row_prefix(tensor.rows)[-1])
    whole = np.zeros((rows, tensor.size), dtype=pieces[geometry.members[0]].dtype)
    for pe in geometry.members:
        columns = slice(None) if placement == Shard("batch") else geometry.columns_of(value, pe)
        place = geometry.rows(tensor.rows, placement, pe), columns
        whole[place] = whole[place] + pieces[pe] if isinstance(placement, Partial) else pieces[pe]
    return whole
