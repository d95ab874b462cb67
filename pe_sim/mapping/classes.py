"""PEs with equal work as one class: what a generation's steps are lowered to, all of them at once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pe_sim.graph.operators import Rows
from pe_sim.mapping.attention_split import AttentionSplit
from pe_sim.mapping.layouts import Layouts
from pe_sim.mapping.placed import Move, MoveKind, PlacedGraph
from pe_sim.mapping.placement import Placement
from pe_sim.units import BoolArray, IntArray

# Moves of one message a PE: their PEs differ in when they get on the bus.
_PER_PE = (MoveKind.SCATTER, MoveKind.GATHER, MoveKind.ALL_GATHER, MoveKind.UNICAST, MoveKind.FORWARD)


@dataclass(frozen=True, eq=False)
class PeClasses:
    """Runs of neighbouring PEs that do the same in a step, for each of several decode steps.

    The PEs are cut into cells that are the same in every step. A cell has `per_cell` classes, whose borders may move
    from step to step with the tokens; a class that is empty in a step repeats its neighbour, which changes no maximum.

    Args:
        cell_start: (cells,) lowest PE of each cell.
        per_cell: classes of a cell.
        representative: (steps, classes) a PE that stands for each class, or (1, classes) if no border moves.
        later: (steps, 1) tokens in the cache beyond those of the step that was placed.
    """

    cell_start: IntArray
    per_cell: int
    representative: IntArray
    later: IntArray

    @property
    def num_steps(self) -> int:
        """Steps that are lowered together."""
        return len(self.later)

    @property
    def num_classes(self) -> int:
        """Classes in each step."""
        return int(self.representative.shape[1])

    def first_class(self, pes: IntArray) -> IntArray:
        """The first class of the cell that begins with each PE; one past the last for a PE past the last."""
        cells: IntArray = np.searchsorted(self.cell_start, pes)
        return cells * self.per_cell

    def of_steps(self, first: int, last: int) -> PeClasses:
        """The classes of steps first .. last - 1 alone."""
        moving = len(self.representative) > 1
        representative = self.representative[first:last] if moving else self.representative
        return PeClasses(self.cell_start, self.per_cell, representative, self.later[first:last])


class ClassLayouts(Layouts):
    """Layouts whose arrays have an entry for each class of each step, (steps, classes), in place of each PE."""

    def __init__(self, every: Layouts, classes: PeClasses) -> None:
        super().__init__(every.groups, every.shape, every.dtypes, every.selected_per_sequence, every.block_size)
        object.__setattr__(self, "_every", every)
        object.__setattr__(self, "_classes", classes)

    _every: Layouts
    _classes: PeClasses

    @cached_property
    def nothing(self) -> IntArray:
        """(steps, classes) zeros."""
        return np.zeros(self._classes.representative.shape, dtype=np.int64)

    @cached_property
    def nowhere(self) -> BoolArray:
        """(steps, classes) a mask that no class is in."""
        return np.zeros(self._classes.representative.shape, dtype=bool)

    @cached_property
    def is_member(self) -> BoolArray:
        """(steps, classes) whether each class takes part."""
        return self._every.is_member[self._classes.representative]

    @cached_property
    def head_split(self) -> AttentionSplit:
        """The split of attention by head."""
        return self._of_classes(self._every.head_split)

    @cached_property
    def token_split(self) -> AttentionSplit:
        """The split of attention by token."""
        return self._of_classes(self._every.token_split)

    @cached_property
    def batch_split(self) -> AttentionSplit:
        """The split of attention by batch."""
        return self._of_classes(self._every.batch_split)

    @cached_property
    def whole_split(self) -> AttentionSplit:
        """The split of attention that is replicated in each group."""
        return self._of_classes(self._every.whole_split)

    def first_entry(self, pes: IntArray) -> IntArray:
        """The first class of the cell that begins with each PE."""
        return self._classes.first_class(pes)

    def pe_rows(self, rows: Rows, placement: Placement) -> IntArray:
        """(steps, classes) rows each class holds."""
        return self._every.pe_rows(rows, placement)[self._classes.representative]

    def pe_columns(self, dim: str, size: int, placement: Placement) -> IntArray:
        """(steps, classes) elements of a row each class holds."""
        return self._every.pe_columns(dim, size, placement)[self._classes.representative]

    def _of_classes(self, split: AttentionSplit) -> AttentionSplit:
        return split.of(self._classes.representative, self._classes.later)


def classes_of(placed: PlacedGraph, num_steps: int) -> PeClasses:
    """The classes of a decode step that has been lowered before, and of the steps that follow it.

    Step i has i more tokens of every sequence in its cache. Where PEs send or receive messages of their own, each of
    them is a class.
    """
    later = np.arange(num_steps, dtype=np.int64)[:, None]
    layouts = list({id(block.layouts): block.layouts for block in placed.blocks}.values())
    moves = [node for block in placed.blocks for node in block.nodes if isinstance(node, Move)]
    if any(move.kind in _PER_PE for move in moves):
        return _every_pe(placed.array.num_pes, later)
    borders = [values for layout in layouts for values in _borders(layout)]
    starts = np.unique(np.concatenate([np.zeros(1, dtype=np.int64), *borders]))
    cuts = [cut for layout in layouts if layout.splits_tokens for cut in _token_cuts(layout, starts, later)]
    if not cuts:
        return PeClasses(starts, 1, starts[None, :], later)
    ends = np.append(starts[1:], placed.array.num_pes)
    first = np.clip(np.sort(np.stack([np.broadcast_to(starts, cuts[0].shape), *cuts], axis=-1)), starts[:, None], None)
    representative = np.minimum(first, ends[:, None] - 1).reshape(num_steps, -1)
    if representative.shape[1] >= placed.array.num_pes:
        return _every_pe(placed.array.num_pes, later)
    return PeClasses(starts, first.shape[-1], representative, later)


def _every_pe(num_pes: int, later: IntArray) -> PeClasses:
    every = np.arange(num_pes, dtype=np.int64)
    return PeClasses(every, 1, every[None, :], later)


def _borders(layouts: Layouts) -> list[IntArray]:
    """Arrays of PEs that differ from the PE below in something a lowering asked for, or begin or follow a group."""
    ends = layouts.groups.first_pe + layouts.groups.size
    borders = [np.flatnonzero(np.diff(values)) + 1 for values in layouts.distinctions()]
    return [*borders, layouts.groups.first_pe, ends[ends < layouts.groups.num_pes]]


def _token_cuts(layouts: Layouts, starts: IntArray, later: IntArray) -> list[IntArray]:
    """(steps, cells) for each distinct length the PE of the cell's group that takes the new token, and the next PE.

    PEs below the one that takes the new token hold one token more than those above it.
    """
    groups = layouts.groups
    group = groups.group_of_pe[starts]
    size = groups.living[group]
    contexts = np.array(layouts.shape.context_lens, dtype=np.int64)
    sizes = np.unique(groups.living)
    _, different = np.unique(contexts[:, None] % sizes, axis=0, return_index=True)
    cuts = [groups.at_rank(group, (context + later) % size) for context in contexts[different].tolist()]
    return [*cuts, *(cut + 1 for cut in cuts)]
