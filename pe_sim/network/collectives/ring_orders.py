"""Orders in which to go through PEs so that neighbours in the order are neighbours in the interconnect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from pe_sim.network.routing.routes import Coordinates
from pe_sim.units import IntArray


@dataclass(frozen=True, slots=True)
class Side:
    """One dimension of a box: its length, the distance of neighbours' numbers, and whether its ends are neighbours."""

    length: int
    stride: int
    closed: bool


def box_of(coordinates: Coordinates | None, pes: IntArray) -> tuple[Side, ...] | None:
    """The sides longer than 1 of neighbouring PEs that fill a box of a grid; None if they do not."""
    if coordinates is None or not len(pes):
        return None
    first, count, sides = int(pes[0]), len(pes), []
    for size, stride in zip(coordinates.sizes, coordinates.strides, strict=True):
        if size == 1:
            continue
        length = min(size, count // stride)
        if length <= 1:
            break
        sides.append(Side(length, stride, coordinates.wraps and length == size))
        if length < size and first // stride % size + length > size:
            return None
        if length == size and first % (stride * size):
            return None
    filled = prod(side.length for side in sides) == count
    return tuple(sides) if filled and first % (sides[-1].stride if sides else 1) == 0 else None


def path_order(coordinates: Coordinates | None, pes: IntArray) -> IntArray:
    """The PEs in the order of a path: as numbered, row by row forth and back, or by a Gray code."""
    box = box_of(coordinates, pes)
    if box is None:
        return _row_by_row(coordinates, pes)
    order: IntArray = pes[0] + _snake(box)
    return order


def ring_order(coordinates: Coordinates | None, pes: IntArray) -> IntArray:
    """The PEs in the order of a ring, which goes from the last one back to the first.

    On a line 0, 2, 4, ... 5, 3, 1, so that neighbours are at most two apart; on a grid along its rows and back along
    a column, if a grid has such a way; on a hypercube by a Gray code; as numbered where there are no coordinates.
    """
    box = box_of(coordinates, pes)
    if box is None:
        return pes if coordinates is None else folded(_row_by_row(coordinates, pes))
    around = _around(box)
    order: IntArray = pes[0] + (folded(_snake(box)) if around is None else around)
    return order


def folded(path: IntArray) -> IntArray:
    """A path as a ring: every second one forth, the others back."""
    return np.concatenate([path[::2], path[1::2][::-1]])


def side_ring(side: Side) -> IntArray:
    """(length,) positions along one side of a box in the order of a ring."""
    along = np.arange(side.length, dtype=np.int64)
    return along if side.closed else folded(along)


def _row_by_row(coordinates: Coordinates | None, pes: IntArray) -> IntArray:
    """The PEs forth and back along the rows of a grid, some of which they may fill only in part; else as numbered."""
    if coordinates is None or len(coordinates.sizes) != 2:
        return pes
    rows = pes // coordinates.strides[1]
    pieces = [pes[rows == row] for row in np.unique(rows)]
    return np.concatenate([piece[::-1] if index % 2 else piece for index, piece in enumerate(pieces)])


def _snake(box: Sequence[Side]) -> IntArray:
    """Offsets from a box's first PE, each a neighbour of the one before: a reflected Gray code over the sides."""
    order = np.zeros(1, dtype=np.int64)
    for side in box:
        pieces = [(order[::-1] if digit % 2 else order) + digit * side.stride for digit in range(side.length)]
        order = np.concatenate(pieces)
    return order


def _around(box: Sequence[Side]) -> IntArray | None:
    """Offsets from a box's first PE in the order of a ring of neighbours; None if no such ring is known."""
    if not box:
        return np.zeros(1, dtype=np.int64)
    if len(box) == 1:
        side = box[0]
        return np.arange(side.length, dtype=np.int64) * side.stride if side.closed or side.length == 2 else None
    if len(box) > 2:  # a hypercube: the last number of a reflected Gray code is a neighbour of the first
        return _snake(box) if all(side.length == 2 for side in box) else None
    across, down = box
    if down.length % 2 == 0:
        return _comb(across, down)
    if across.length % 2 == 0:
        return _comb(down, across)
    if across.closed and down.closed:
        return _spiral(across, down) if across.length <= down.length else _spiral(down, across)
    return None


def _comb(across: Side, down: Side) -> IntArray:
    """A ring forth and back along all rows without their first places, then back along these; `down` is even."""
    inner = np.arange(1, across.length, dtype=np.int64) * across.stride
    rows = [(inner[::-1] if row % 2 else inner) + row * down.stride for row in range(down.length)]
    back = np.arange(down.length - 1, -1, -1, dtype=np.int64) * down.stride
    return np.concatenate([*rows, back])


def _spiral(across: Side, down: Side) -> IntArray:
    """A ring on a torus of odd sides: once around every row from where the last one ended, some forth and some back.

    A row forth ends one place before its start, a row back one after it. `across.length` is not above `down.length`,
    both are odd, so that many rows forth in excess of those back bring the last row's end below the first's start.
    """
    forth = (down.length + across.length) // 2
    here, rows = 0, []
    for row in range(down.length):
        step = 1 if row < forth else -1
        columns = (here + step * np.arange(across.length, dtype=np.int64)) % across.length
        rows.append(columns * across.stride + row * down.stride)
        here = int(columns[-1])
    return np.concatenate(rows)
