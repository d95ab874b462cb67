"""How the PEs are divided: groups that split the batch, PEs inside each, sequences of each."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pe_sim.errors import InputError
from pe_sim.units import IntArray


@dataclass(frozen=True)
class PeGroups:
    """`num_groups` contiguous groups of equal size; group i owns a contiguous share of the sequences.

    Args:
        num_pes: PEs of the array.
        num_groups: groups; divides `num_pes`.
        arity: of the reduction tree, which decides which groups are aligned to it.
        num_sequences: sequences of the batch; shares differ by at most one, lower groups get the larger.
    """

    num_pes: int
    num_groups: int
    arity: int
    num_sequences: int

    def __post_init__(self) -> None:
        if self.num_groups < 1 or self.num_pes % self.num_groups:
            raise InputError(
                f"{self.num_pes} PEs do not divide into {self.num_groups} equal groups",
                path="groups",
                given=self.num_groups,
                expected=f"a divisor of {self.num_pes}",
            )

    @property
    def size(self) -> int:
        """PEs of one group."""
        return self.num_pes // self.num_groups

    @cached_property
    def first_pe(self) -> IntArray:
        """(groups,) lowest PE of each group."""
        return np.arange(self.num_groups, dtype=np.int64) * self.size

    @cached_property
    def group_of_pe(self) -> IntArray:
        """(PEs,) the group each PE belongs to."""
        return np.arange(self.num_pes, dtype=np.int64) // self.size

    @cached_property
    def sequence_bounds(self) -> IntArray:
        """(groups + 1,) group i owns sequences bounds[i] .. bounds[i + 1] - 1."""
        return np.concatenate(([0], np.cumsum(even_counts(self.num_sequences, self.num_groups))))


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
