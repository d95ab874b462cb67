"""What a schedule has of the placed nodes alone: takes placed blocks, gives slots, who reads what and what costs alike.

Nothing here depends on the array or on the sizes of the tensors' slices, so that one outline serves a whole sweep.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pe_sim.mapping.likeness import likeness
from pe_sim.mapping.placed import Move, MoveKind, Node, PlacedBlock, Value, Work
from pe_sim.mapping.placement import Partial, Placement, Replicate, Shard

_PASSING = ("add", "bias")  # a PE hands its term of a sum on even if it has nothing to add


@dataclass(frozen=True, slots=True)
class Task:
    """A node that takes time: one stage to be.

    Args:
        node: the work or the move.
        job: equal for tasks of all blocks that cost the same, names aside.
        inputs, output: slots.
        terms: slots of terms of a sum that a PE passes on even if it has nothing to add to them.
    """

    node: Node
    job: int
    inputs: tuple[int, ...]
    output: int
    terms: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class BlockOutline:
    """One block.

    Args:
        tasks: in program order.
        num_slots, entries, exits: as of a `Block`.
        entering: the values of the entries.
        support: which slice of a Partial value is not zero, by the value's key.
    """

    tasks: tuple[Task, ...]
    num_slots: int
    entries: tuple[int, ...]
    exits: tuple[int, ...]
    entering: tuple[Value, ...]
    support: Mapping[int, Placement]


def outline_of(
    blocks: tuple[PlacedBlock, ...], jobs: dict[tuple[object, ...], int] | None = None
) -> tuple[BlockOutline, ...]:
    """The outlines of a placed graph's blocks; `jobs` are numbered on from those that are known."""
    jobs = {} if jobs is None else jobs
    return tuple(_BlockOutliner(id(block.layouts), jobs).outline(block) for block in blocks)


@dataclass
class _BlockOutliner:
    """Numbers the slots of one block; `slots` and `support` are by the key of a value."""

    layouts: int
    jobs: dict[tuple[object, ...], int]
    tasks: list[Task] = field(default_factory=list)
    slots: dict[int, int] = field(default_factory=dict)
    support: dict[int, Placement] = field(default_factory=dict)
    num_slots: int = 0

    def outline(self, block: PlacedBlock) -> BlockOutline:
        entries = tuple(self._new_slot((value,)) for value in block.entries)
        for node in block.nodes:
            if isinstance(node, Move) and node.kind is MoveKind.LOCAL:
                self._alias(node)
            elif isinstance(node, Work) and node.function == "select":
                self._alias_select(node)
            else:
                self._append(node)
        exits = tuple(self.slots[value.key] for value in block.exits)
        return BlockOutline(tuple(self.tasks), self.num_slots, entries, exits, block.entries, self.support)

    def _alias(self, node: Move) -> None:
        """A free move: the data is where it was, and for a Partial only a slice of it is not zero."""
        for source, target in zip(node.inputs, node.outputs, strict=True):
            self.slots[target.key] = self.slots[source.key]
            if isinstance(source.placement, Partial):
                if source.placement.held is not None:
                    self.support[target.key] = source.placement.held
            elif isinstance(target.placement, Partial):
                whole = isinstance(source.placement, Replicate)
                self.support[target.key] = Shard(source.tensor.dim) if whole else source.placement

    def _alias_select(self, node: Work) -> None:
        source, target = node.inputs[0], node.outputs[0]
        self.slots[target.key] = self.slots[source.key]
        if source.key in self.support:
            self.support[target.key] = self.support[source.key]

    def _append(self, node: Node) -> None:
        waits_for = node.after if isinstance(node, Move) and node.kind is MoveKind.WEIGHT_STREAM else node.inputs
        inputs = tuple(dict.fromkeys(self.slots[value.key] for value in waits_for))
        terms = self._terms(node)
        self.tasks.append(Task(node, self._job(node), inputs, self._new_slot(node.outputs), terms))

    def _terms(self, node: Node) -> tuple[int, ...]:
        if isinstance(node, Move) or node.function not in _PASSING:
            return ()
        if not isinstance(node.outputs[0].placement, Partial):
            return ()
        return tuple(self.slots[value.key] for value in node.inputs if not self._is_even(value))

    def _is_even(self, value: Value) -> bool:
        """Whether a PE's term is but its even slice: such an add has something to do on every PE that has a term."""
        slice_of = self.support.get(value.key)
        return slice_of is not None and not (isinstance(slice_of, Shard) and slice_of.grid)

    def _job(self, node: Node) -> int:
        return self.jobs.setdefault((self.layouts, *likeness(node, self.support)), len(self.jobs))

    def _new_slot(self, values: tuple[Value, ...]) -> int:
        for value in values:
            self.slots[value.key] = self.num_slots
        self.num_slots += 1
        return self.num_slots - 1
