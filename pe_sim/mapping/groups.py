"""How the PEs are divided: groups that split the batch, PEs inside each, sequences of each."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pe_sim.errors import InputError
from pe_sim.units import BoolArray, IntArray


@dataclass(frozen=True)
class PeGroups:
    """Contiguous groups of equal size; group i owns a contiguous share of the sequences.

    Args:
        num_pes: PEs of the array.
        size: PEs of one group.
        num_groups: groups, side by side from `first_member` on; PEs outside them are idle.
        arity: of the reduction tree, which decides which groups are aligned to it.
        num_sequences: sequences of the batch; shares differ by at most one, lower groups get the larger.
        first_member: lowest PE that takes part.
    """

    num_pes: int
    size: int
    num_groups: int
    arity: int
    num_sequences: int
    first_member: int = 0

    @classmethod
    def of_array(
        cls, num_pes: int, num_groups: int, arity: int, num_sequences: int, *, source: str | None = None
    ) -> PeGroups:
        """The whole array in `num_groups` groups.

        Raises:
            InputError: the PEs do not divide evenly.
        """
        if num_groups < 1 or num_pes % num_groups:
            raise InputError(
                f"{num_pes} PEs do not divide into {num_groups} equal groups",
                source=source,
                path="groups",
                given=num_groups,
                expected=f"a divisor of {num_pes}",
            )
        return cls(num_pes, num_pes // num_groups, num_groups, arity, num_sequences)

    @cached_property
    def members(self) -> IntArray:
        """The PEs that take part, in order."""
        return self.first_member + np.arange(self.size * self.num_groups, dtype=np.int64)

    @cached_property
    def is_member(self) -> BoolArray:
        """(PEs,) whether each PE takes part."""
        mask = np.zeros(self.num_pes, dtype=bool)
        mask[self.members] = True
        return mask

    @cached_property
    def first_pe(self) -> IntArray:
        """(groups,) lowest PE of each group."""
        return self.first_member + np.arange(self.num_groups, dtype=np.int64) * self.size

    @cached_property
    def group_of_pe(self) -> IntArray:
        """(PEs,) the group each member belongs to; 0 for the others."""
        groups = np.zeros(self.num_pes, dtype=np.int64)
        groups[self.members] = (self.members - self.first_member) // self.size
        return groups

    @cached_property
    def rank_of_pe(self) -> IntArray:
        """(PEs,) position inside the group; 0 for PEs outside."""
        return self.spread(np.arange(self.size, dtype=np.int64))

    @cached_property
    def sequence_bounds(self) -> IntArray:
        """(groups + 1,) group i owns sequences bounds[i] .. bounds[i + 1] - 1."""
        return np.concatenate(([0], np.cumsum(even_counts(self.num_sequences, self.num_groups))))

    @property
    def is_whole_array(self) -> bool:
        """Whether one group is all there is."""
        return self.size == self.num_pes

    def joint_levels(self, scope_size: int) -> int | None:
        """Levels of the tree above `scope_size` neighbours if all such scopes of the groups are aligned, else None."""
        if self.first_member % scope_size or (self.num_groups > 1 and self.size % scope_size):
            return None
        return aligned_levels(0, scope_size, self.arity)

    def spread(self, one_group: IntArray) -> IntArray:
        """(PEs,) the (size,) values of one group for every group, 0 for PEs outside."""
        values = np.zeros(self.num_pes, dtype=np.int64)
        values[self.members] = np.tile(one_group, self.num_groups)
        return values


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
