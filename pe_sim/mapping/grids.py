"""Grids of PEs: X neighbours in a row and N / X rows, over which a matrix is cut both ways.

The hidden dim is cut along the rows (x), the FFN's dim over them (y): a PE holds one tile of the matrix. What the PEs
of one row have to add up, the tree adds in their own subtree, which asks for rows that are aligned to it.
"""

from __future__ import annotations

import re

import numpy as np

from pe_sim.config.array import ArrayConfig
from pe_sim.config.network import GraphNetwork
from pe_sim.mapping.groups import PeGroups, even_counts
from pe_sim.mapping.placement import Shard
from pe_sim.units import BoolArray, IntArray

GRID = "grid-X"  # what people call the distribution, X being a number
_NAME = re.compile(r"grid-([1-9][0-9]{0,6})")


def grid_name(ways: int) -> str:
    """The distribution that cuts the hidden dim so many ways."""
    return f"grid-{ways}"


def grid_ways(name: str) -> int | None:
    """How many ways a distribution of this name cuts the hidden dim; None if it is no grid."""
    match = _NAME.fullmatch(name)
    return int(match.group(1)) if match else None


def fits_grid(array: ArrayConfig, groups: PeGroups, ways: int) -> bool:
    """Whether a group's PEs stand in rows of `ways`, all of them alive, each with a joint of its own."""
    if groups.size % ways or (groups.has_dead and ways not in (1, groups.size)):
        return False
    return isinstance(array.network, GraphNetwork) or ways == groups.size or groups.joint_levels(ways) is not None


def fitting_grids(array: ArrayConfig, groups: PeGroups) -> tuple[int, ...]:
    """All ways that fit, from 1 (the FFN's dim alone is cut) to the group's PEs (the hidden dim alone)."""
    return tuple(ways for ways in range(1, groups.size + 1) if fits_grid(array, groups, ways))


def grid_slices(size: int, num_pes: int, shard: Shard) -> tuple[IntArray, IntArray]:
    """(PEs of a group,) first column and number of columns of the slice each has of a dim cut over a grid."""
    rank = np.arange(num_pes, dtype=np.int64)
    along, over = rank % shard.grid, rank // shard.grid
    rows = num_pes // shard.grid
    first_cut, at, second_cut, then = (
        (shard.grid, along, rows, over) if shard.axis in ("x", "xy") else (rows, over, shard.grid, along)
    )
    counts = even_counts(size, first_cut)
    first, count = (np.cumsum(counts) - counts)[at], counts[at]
    if len(shard.axis) == 1:
        return first, count
    base, extra = count // second_cut, count % second_cut
    return first + then * base + np.minimum(then, extra), base + (then < extra)


def first_holders(num_pes: int, shard: Shard) -> BoolArray:
    """(PEs of a group,) one PE of those that hold the same slice."""
    rank = np.arange(num_pes, dtype=np.int64)
    if shard.axis not in ("x", "y"):
        return np.ones(num_pes, dtype=bool)
    other = rank // shard.grid if shard.axis == "x" else rank % shard.grid
    return np.asarray(other == 0)
