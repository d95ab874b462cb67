"""How the PEs are divided: groups that split the batch, and grids over which a matrix is cut both ways."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pe_sim.config.arrays.array import ArrayConfig
from pe_sim.errors import InputError
from pe_sim.mapping.placement import Shard
from pe_sim.units import BoolArray, IntArray


@dataclass(frozen=True)
class PeGroups:
    """Contiguous groups of equal size; group i owns a contiguous share of the sequences.

    A group is a range of places, so that it stays aligned to the joints; dead PEs keep theirs and take no part.

    Args:
        num_pes: PEs of the array.
        size: PEs of one group, dead ones among them.
        num_groups: groups, side by side from `first_member` on; PEs outside them are idle.
        arity: of the reduction tree, which decides which groups are aligned to it.
        num_sequences: sequences of the batch; shares differ by at most one, lower groups get the larger.
        first_member: where the first group begins.
        dead_pes: of the array, in order.
    """

    num_pes: int
    size: int
    num_groups: int
    arity: int
    num_sequences: int
    first_member: int = 0
    dead_pes: tuple[int, ...] = ()

    @classmethod
    def of_array(
        cls,
        num_pes: int,
        num_groups: int,
        arity: int,
        num_sequences: int,
        dead_pes: tuple[int, ...] = (),
        *,
        source: str | None = None,
    ) -> PeGroups:
        """The whole array in `num_groups` groups.

        Raises:
            InputError: the PEs do not divide evenly, or all PEs of a group are dead.
        """
        if num_groups < 1 or num_pes % num_groups:
            raise InputError(
                f"{num_pes} PEs do not divide into {num_groups} equal groups",
                source=source,
                path="groups",
                given=num_groups,
                expected=f"a divisor of {num_pes}",
            )
        size = num_pes // num_groups
        groups = cls(num_pes, size, num_groups, arity, num_sequences, dead_pes=dead_pes)
        if not groups.living.all():
            first = int(groups.first_pe[groups.living.argmin()])
            alive = map(str, groups_alive(num_pes, dead_pes))
            raise InputError(
                f"PEs {first} to {first + size - 1}, one of {num_groups} groups, are all in dead_pes",
                source=source,
                path="groups",
                given=num_groups,
                expected="groups with a living PE each: " + ", ".join(alive),
            )
        return groups

    @cached_property
    def places(self) -> IntArray:
        """The PEs of all groups, dead ones among them, in order."""
        return self.first_member + np.arange(self.size * self.num_groups, dtype=np.int64)

    @cached_property
    def members(self) -> IntArray:
        """The PEs that take part, in order."""
        if not self.dead_pes:
            return self.places
        dead = np.zeros(self.num_pes, dtype=bool)
        dead[list(self.dead_pes)] = True
        living: IntArray = self.places[~dead[self.places]]
        return living

    @cached_property
    def living(self) -> IntArray:
        """(groups,) number of PEs of each group that take part."""
        if not self.dead_pes:
            return np.full(self.num_groups, self.size, dtype=np.int64)
        return np.bincount((self.members - self.first_member) // self.size, minlength=self.num_groups)

    @cached_property
    def is_even(self) -> bool:
        """Whether the same number of PEs takes part in every group."""
        return not self.dead_pes or bool((self.living == self.living[0]).all())

    @cached_property
    def has_dead(self) -> bool:
        """Whether a PE of a group is dead."""
        return bool(self.dead_pes) and len(self.members) < len(self.places)

    @cached_property
    def is_lone(self) -> bool:
        """Whether there is one PE a group."""
        return int(self.living.max()) == 1

    @cached_property
    def is_member(self) -> BoolArray:
        """(PEs,) whether each PE takes part."""
        mask = np.zeros(self.num_pes, dtype=bool)
        mask[self.members] = True
        return mask

    @cached_property
    def first_pe(self) -> IntArray:
        """(groups,) where each group begins."""
        return self.first_member + np.arange(self.num_groups, dtype=np.int64) * self.size

    @cached_property
    def lowest(self) -> IntArray:
        """(groups,) lowest PE of each group that takes part."""
        return self.at_rank(np.arange(self.num_groups), np.zeros(self.num_groups, dtype=np.int64))

    def at_rank(self, group: IntArray, rank: IntArray) -> IntArray:
        """The PEs of these ranks in these groups."""
        if not self.has_dead:
            return self.first_pe[group] + rank
        before = np.cumsum(self.living) - self.living
        found: IntArray = self.members[before[group] + rank]
        return found

    @cached_property
    def group_of_pe(self) -> IntArray:
        """(PEs,) the group each member belongs to; 0 for the others."""
        groups = np.zeros(self.num_pes, dtype=np.int64)
        groups[self.members] = (self.members - self.first_member) // self.size
        return groups

    @cached_property
    def rank_of_pe(self) -> IntArray:
        """(PEs,) position among those of the group that take part; 0 for the others."""
        return self.spread(lambda size: np.arange(size, dtype=np.int64))

    @cached_property
    def sequence_bounds(self) -> IntArray:
        """(groups + 1,) bounds of the groups' sequences: group i owns bounds[i] .. bounds[i + 1] - 1."""
        return np.concatenate(([0], np.cumsum(even_counts(self.num_sequences, self.num_groups))))

    @property
    def is_whole_array(self) -> bool:
        """Whether one group has all PEs of the array."""
        return self.size == self.num_pes

    def joint_levels(self, scope_size: int) -> int | None:
        """Levels of the tree from `scope_size` neighbours to their joint, if all such scopes are aligned, else None."""
        if self.first_member % scope_size or (self.num_groups > 1 and self.size % scope_size):
            return None
        return aligned_levels(0, scope_size, self.arity)

    def spread(self, of_group: Callable[[int], IntArray]) -> IntArray:
        """(PEs,) for every group the values of its PEs by rank, 0 for PEs that take no part.

        Args:
            of_group: from the number of PEs that take part in a group to their values.
        """
        values = np.zeros(self.num_pes, dtype=np.int64)
        if self.is_even:
            values[self.members] = np.tile(of_group(int(self.living[0])), self.num_groups)
            return values
        size_of_member = np.repeat(self.living, self.living)
        for size in np.unique(self.living).tolist():
            pes = self.members[size_of_member == size]
            values[pes] = np.tile(of_group(size), len(pes) // size)
        return values

    def dealt(self, shares: IntArray) -> IntArray:
        """(PEs,) the (groups,) units of each group dealt to its PEs; they differ by at most one."""
        counts = np.zeros(self.num_pes, dtype=np.int64)
        pairs = zip(shares.tolist(), self.living.tolist(), strict=True)
        counts[self.members] = np.concatenate([even_counts(share, size) for share, size in pairs])
        return counts


def groups_alive(num_pes: int, dead_pes: tuple[int, ...]) -> tuple[int, ...]:
    """The numbers of equal groups into which the array divides so that none is dead as a whole."""
    divisors = (count for count in range(1, num_pes + 1) if num_pes % count == 0)
    return tuple(count for count in divisors if _each_has_one(num_pes, count, dead_pes))


def _each_has_one(num_pes: int, num_groups: int, dead_pes: tuple[int, ...]) -> bool:
    """Whether no group is dead as a whole."""
    size = num_pes // num_groups
    dead = np.bincount(np.array(dead_pes, dtype=np.int64) // size, minlength=num_groups)
    return bool((dead < size).all())


def even_counts(size: int, parts: int) -> IntArray:
    """(parts,) units per part; they differ by at most one and lower indices get the larger."""
    base, extra = divmod(size, parts)
    return base + (np.arange(parts, dtype=np.int64) < extra)


def aligned_levels(first: int, size: int, arity: int) -> int | None:
    """j if PEs first .. first + size - 1 are an aligned group of arity^j neighbours, else None."""
    levels, span = 0, 1
    while span < size:
        span *= arity
        levels += 1
    return levels if span == size and first % size == 0 else None


def largest_power(arity: int, limit: int) -> int:
    """The largest power of `arity` that is at most `limit` (at least 1)."""
    power = 1
    while power * arity <= limit:
        power *= arity
    return power


# ---- Grids of PEs: X neighbours in a row and N / X rows, over which a matrix is cut both ways.
#
# The hidden dim is cut along the rows (x), the FFN's dim over them (y): a PE holds one tile of the matrix. What the PEs
# of one row have to add up, the tree adds in their own subtree, which asks for rows that are aligned to it.


GRID = "grid-X"  # what people call the distribution, X being a number
_NAME = re.compile(r"grid-([1-9][0-9]{0,6})")


def grid_name(ways: int) -> str:
    """Name of the distribution that cuts the hidden dim so many ways."""
    return f"grid-{ways}"


def grid_ways(name: str) -> int | None:
    """How many ways a distribution of this name cuts the hidden dim; None if it is no grid."""
    match = _NAME.fullmatch(name)
    return int(match.group(1)) if match else None


def fits_grid(array: ArrayConfig, groups: PeGroups, ways: int) -> bool:
    """Whether a group's PEs stand in rows of `ways`, all of them alive, each with a joint of its own."""
    if groups.size % ways or (groups.has_dead and ways not in (1, groups.size)):
        return False
    return array.network.is_graph or ways == groups.size or groups.joint_levels(ways) is not None


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
    """(PEs of a group,) whether each is the first of those that hold the same slice."""
    rank = np.arange(num_pes, dtype=np.int64)
    if shard.axis not in ("x", "y"):
        return np.ones(num_pes, dtype=bool)
    other = rank // shard.grid if shard.axis == "x" else rank % shard.grid
    return np.asarray(other == 0)
