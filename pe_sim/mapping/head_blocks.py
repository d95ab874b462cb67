"""Which PEs share a query head where PEs outnumber heads: blocks of neighbours, each below a joint of its own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pe_sim.mapping.groups import PeGroups, even_counts, largest_power
from pe_sim.units import BoolArray, IntArray


@dataclass(frozen=True, eq=False, slots=True)
class HeadBlocks:
    """The blocks of all groups.

    Args:
        size: places of a block, a power of the tree's arity; 1 where no PEs share a head.
        first_pe: (groups, heads) where the PEs of each head begin, if they share it.
        alive: (groups, heads, size) which of them are not dead.
    """

    size: int
    first_pe: IntArray
    alive: BoolArray

    @property
    def lowest(self) -> IntArray:
        """(groups, heads) the lowest living PE of each."""
        found: IntArray = self.first_pe + self.alive.argmax(axis=-1)
        return found

    def slices(self, units: int) -> tuple[IntArray, IntArray]:
        """(groups, heads, size) first unit and number of units of each PE, dealt evenly to the living of a block."""
        living = self.alive.sum(axis=-1)
        first, count = (np.zeros(self.alive.shape, dtype=np.int64) for _ in range(2))
        for size in np.unique(living).tolist():
            dealt = even_counts(units, size)
            mine = self.alive & (living == size)[:, :, None]
            blocks = int(mine.sum()) // size
            count[mine] = np.tile(dealt, blocks)
            first[mine] = np.tile(np.cumsum(dealt) - dealt, blocks)
        return first, count


def head_blocks(groups: PeGroups, num_heads: int) -> HeadBlocks:
    """One block for each head: as many living PEs as can be for the head with the fewest, in as small a block.

    Of the blocks of one size those with the most living PEs are taken; without dead PEs the first ones.
    """
    largest = largest_power(groups.arity, max(1, groups.size // num_heads))
    if not groups.has_dead:
        return _first_blocks(groups, num_heads, largest)
    best, most, size = _first_blocks(groups, num_heads, 1), 1, groups.arity
    while size <= largest:
        blocks = _fullest_blocks(groups, num_heads, size)
        fewest = int(blocks.alive.sum(axis=-1).min())
        if fewest > most:
            best, most = blocks, fewest
        size *= groups.arity
    return best


def _first_blocks(groups: PeGroups, num_heads: int, size: int) -> HeadBlocks:
    first = groups.first_pe[:, None] + size * np.arange(num_heads, dtype=np.int64)[None, :]
    return HeadBlocks(size, first, np.ones((*first.shape, size), dtype=bool))


def _fullest_blocks(groups: PeGroups, num_heads: int, size: int) -> HeadBlocks:
    """What is left over at the end of a group is no block."""
    blocks = groups.size // size
    alive = groups.is_member[groups.places].reshape(groups.num_groups, groups.size)[:, : blocks * size]
    alive = alive.reshape(groups.num_groups, blocks, size)
    chosen = np.sort(np.argsort(-alive.sum(axis=-1), axis=1, kind="stable")[:, :num_heads], axis=1)
    first = groups.first_pe[:, None] + size * chosen
    return HeadBlocks(size, first, np.take_along_axis(alive, chosen[:, :, None], axis=1))
