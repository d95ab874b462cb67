"""How wide the cut between two halves is: exact for trees, closed forms for grids."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pe_sim.units import IntArray


def tree_bisection(num_leaves: int, arity: int, widths: Sequence[int]) -> int:
    """The least width cut, in one direction, that leaves two halves of the leaves (equal, or one leaf apart).

    Args:
        num_leaves: of a tree as `trees.grow_tree` makes it.
        arity: children of a joint.
        widths: of the links of each level, from the leaves up.
    """
    if num_leaves < 2:
        return 0
    # Per joint of one level: the least cut below it with so many of its leaves on the joint's own side. Joints over as
    # many leaves are alike, and all but the last have the same number.
    costs = {1: np.array([np.iinfo(np.int64).max // 4, 0], dtype=np.int64)}
    size = 1
    for width in widths:
        rest = num_leaves % (size * arity) or min(size * arity, num_leaves)
        costs = {total: _joined(total, size, costs, width) for total in {min(size * arity, num_leaves), rest}}
        size *= arity
    whole = costs[num_leaves]
    half = num_leaves // 2
    return int(min(whole[half], whole[num_leaves - half]))


def _joined(total: int, size: int, costs: dict[int, IntArray], width: int) -> IntArray:
    """Of a joint over `total` leaves whose children have `size` each, the last one what remains."""
    children = [min(size, total - start) for start in range(0, total, size)]
    result = np.zeros(1, dtype=np.int64)
    for child in children:
        own = costs[child]
        result = _min_plus(result, np.minimum(own, own[::-1] + width))  # on its parent's side, or cut off from it
    return result


def _min_plus(first: IntArray, second: IntArray) -> IntArray:
    short, long = sorted((first, second), key=len)
    result = np.full(len(short) + len(long) - 1, np.iinfo(np.int64).max // 2, dtype=np.int64)
    for shift, cost in enumerate(short):
        part = result[shift : shift + len(long)]
        np.minimum(part, long + cost, out=part)
    return result


def grid_bisection(rows: int, cols: int, *, wrapped: bool) -> int:
    """Links in one direction between two halves of a grid, across its rows or its columns, whichever are fewer.

    Where the side is odd, the cut has a step in the middle line, and crosses that line too.
    """

    def crossings(length: int) -> int:
        return 0 if length < 2 else 2 if wrapped and length > 2 else 1

    def across(length: int, other: int) -> int:
        step = crossings(other) if length % 2 and other > 1 else 0
        return other * crossings(length) + step

    return min((across(length, other) for length, other in ((rows, cols), (cols, rows)) if length > 1), default=0)
