"""What a joint of the tree does with the arrays of its children: sum, max, and the merge of softmax partials."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from pe_sim.numeric.arrays import Array

# A softmax partial is (rows, heads * (2 + head_dim)): per row and head the maximum, the sum and the weighted values.
Combine = Callable[[Array, Array], Array]


def combiner(op: str, head_dim: int) -> Combine:
    """The function of a joint; `head_dim` tells where softmax partials of heads begin."""
    if op == "softmax":
        return lambda left, right: merge_softmax(left, right, head_dim)
    return {"sum": add, "max": larger}[op]


def combine_tree(arrays: Sequence[Array], arity: int, combine: Combine) -> Array:
    """Level by level, `arity` neighbours at a joint; at least one array."""
    level = list(arrays)
    while len(level) > 1:
        level = [_combine_all(level[first : first + arity], combine) for first in range(0, len(level), arity)]
    return level[0]


def add(left: Array, right: Array) -> Array:
    """The sum; of candidates, slices of which are zero elsewhere, field by field."""
    if left.dtype.names is None:
        total: Array = left + right
        return total
    both = left.copy()
    for name in left.dtype.names:
        both[name] += right[name]
    return both


def larger(left: Array, right: Array) -> Array:
    """The better candidate: the larger value, of equal ones the lower index; what is not a number wins."""
    wins = (right["value"] > left["value"]) | (np.isnan(right["value"]) & ~np.isnan(left["value"]))
    tied = (right["value"] == left["value"]) & (right["index"] < left["index"])
    chosen: Array = np.where(wins | tied, right, left)
    return chosen


def merge_softmax(left: Array, right: Array, head_dim: int) -> Array:
    """Two softmax partials over disjoint tokens as one over both; a maximum of -inf marks one without tokens."""
    shape = (len(left), left.shape[1] // (head_dim + 2), head_dim + 2)
    parts = [part.reshape(shape) for part in (left, right)]
    maximum = np.maximum(parts[0][..., :1], parts[1][..., :1])
    merged = np.zeros_like(parts[0])
    for part in parts:
        empty = part[..., :1] == -np.inf
        less = np.where(empty, 0, part[..., :1]) - np.where(empty, 0, maximum)
        merged[..., 1:] += np.where(empty, 0, np.exp(less)) * part[..., 1:]
    merged[..., :1] = maximum
    return merged.reshape(left.shape)


def _combine_all(arrays: Sequence[Array], combine: Combine) -> Array:
    result = arrays[0]
    for other in arrays[1:]:
        result = combine(result, other)
    return result
