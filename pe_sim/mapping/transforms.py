"""Which primitive moves bring a tensor from one placement to another (machine model, section 7)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar, TypeVarTuple, cast

from pe_sim.config.arrays.array import ArrayConfig
from pe_sim.graph.operators import Tensor
from pe_sim.mapping.groups import fits_grid
from pe_sim.mapping.layouts import Layouts
from pe_sim.mapping.placed import MoveKind
from pe_sim.mapping.placement import Joint, Partial, Placement, Replicate, Root, Scope, Shard
from pe_sim.network.bus_tree import downlink_cycles, reduce_cycles, serial_cycles
from pe_sim.units import IntArray, total

_T = TypeVar("_T")
_About = TypeVarTuple("_About")
Question = tuple[Callable[..., object], tuple[object, ...]]  # a function of `Transforms`, and its other arguments


@dataclass(frozen=True, slots=True)
class Step:
    """One primitive of a transform, before it is bound to values."""

    kind: MoveKind
    source: Placement
    target: Placement
    partial_dtype: bool = False
    combine: str = ""


@dataclass(frozen=True)
class Transforms:
    """Chooses the steps of each transform on one array and division of the PEs.

    A block's placement learns of both from it alone, and it remembers its answers: where they are the same, so is the
    placement.

    Args:
        answers: to the questions so far, in their order.
    """

    array: ArrayConfig
    layouts: Layouts
    answers: dict[Question, object] = field(default_factory=dict, repr=False, compare=False)

    def agrees(self, answers: Mapping[Question, object]) -> bool:
        """Whether questions that were put elsewhere have the same answers here.

        They are asked in the same order, up to the first difference, so that none is asked that placing anew would not
        ask.
        """
        return all(question(self, *about) == answer for (question, about), answer in answers.items())

    @property
    def is_lone(self) -> bool:
        """Whether there is one PE a group, for which Partial, Shard and Replicate are the same thing."""
        return self._ask(_is_lone)

    @property
    def head_group_size(self) -> int:
        """PEs that share one query head."""
        return self._ask(_head_group_size)

    def fits_grid(self, ways: int) -> bool:
        """Whether a group's PEs stand in rows of `ways` neighbours, each with a joint of its own."""
        return self._ask(_fits_grid, ways)

    def is_one_row(self, ways: int) -> bool:
        """Whether a row of `ways` neighbours is a whole group."""
        return self._ask(_is_one_row, ways)

    @property
    def matrices_held(self) -> int:
        """Matrices from the root that a PE has room for at once."""
        return self._ask(_matrices_held)

    def steps(self, tensors: Sequence[Tensor], source: Placement, target: Placement) -> tuple[Step, ...]:
        """The primitive moves that turn `source` into `target`; the tensors travel concatenated.

        Raises:
            ValueError: no rule leads from `source` to `target`.
        """
        if source == target:
            return ()
        if self.is_lone and Root() not in (source, target):
            return (Step(MoveKind.LOCAL, source, target),)
        match source, target:
            case Partial(held=Shard()), _:
                return self._from_slices(tensors, source, target)
            case (Replicate(), Shard() | Partial()) | (Shard(), Partial(scope="group")):
                return (Step(MoveKind.LOCAL, source, target),)
            case Replicate(), Root():
                return (Step(MoveKind.UNICAST, source, target),)
            case Root(), Replicate():
                return (Step(MoveKind.BROADCAST, source, target),)
            case Root(), Shard():
                return self._spread(tensors, Root(), target)
            case Partial(), Root():
                return (self._reduce(source, Root()),)
            case Partial(), Replicate():
                hub = self.hub(source.scope)
                return (self._reduce(source, hub), Step(MoveKind.BROADCAST, hub, target))
            case Partial(scope="head"), Shard(dim="head"):
                hub = self.hub("head")
                return (self._reduce(source, hub), Step(MoveKind.BROADCAST, hub, target))
            case Partial(), Shard():
                hub = self.hub(source.scope)
                return (self._reduce(source, hub), *self._spread(tensors, hub, target))
            case Shard(), Replicate():
                return self._collect(tensors, source, target, MoveKind.ALL_GATHER)
            case Shard(), Root():
                return self._collect(tensors, source, target, MoveKind.GATHER)
            case Shard(), Shard():
                return (
                    *self._collect(tensors, source, Replicate(), MoveKind.ALL_GATHER),
                    Step(MoveKind.LOCAL, Replicate(), target),
                )
        raise ValueError(f"no transform leads from {source} to {target}")

    def _from_slices(self, tensors: Sequence[Tensor], source: Partial, target: Placement) -> tuple[Step, ...]:
        """Steps from terms of slices: a grid's row adds up its own if that is wanted; else they are of the whole."""
        if target == source.held and source.scope != "group":
            hub = self.hub(source.scope)
            return (self._reduce(source, hub), Step(MoveKind.BROADCAST, hub, target))
        whole = Partial(source.op)
        return (Step(MoveKind.LOCAL, source, whole), *self.steps(tensors, whole, target))

    def hub(self, scope: Scope) -> Placement:
        """Where a reduction over each group (or head group) leaves its result: its joint, or the root.

        Over the whole array it ends at the root; over groups that are not aligned to the tree it uses all of the tree
        and ends there, too.
        """
        return self._ask(_hub, scope)

    @property
    def _is_graph(self) -> bool:
        return self.array.network.is_graph

    def cycles(self, tensors: Sequence[Tensor], steps: Sequence[Step]) -> int:
        """Cycles of the steps one after another, in isolation, for all groups at once, in closed form."""
        return sum(int(self._step_cycles(tensors, step)) for step in steps)

    def _spread(self, tensors: Sequence[Tensor], hub: Placement, target: Shard) -> tuple[Step, ...]:
        by_broadcast = (Step(MoveKind.BROADCAST, hub, Replicate()), Step(MoveKind.LOCAL, Replicate(), target))
        serial = (Step(MoveKind.SCATTER, hub, target),)
        return self._choose("scatter", tensors, serial, by_broadcast)

    def _collect(
        self, tensors: Sequence[Tensor], source: Shard, target: Placement, serial_kind: MoveKind
    ) -> tuple[Step, ...]:
        hub = Root() if isinstance(target, Root) else self.hub("group")
        by_reduction: tuple[Step, ...] = (
            Step(MoveKind.LOCAL, source, Partial("sum")),
            Step(MoveKind.REDUCE, Partial("sum"), hub, combine="sum"),
        )
        if not isinstance(target, Root):
            by_reduction += (Step(MoveKind.BROADCAST, hub, target),)
        if source.grid:
            return by_reduction  # several PEs hold the same slice
        serial = (Step(serial_kind, source, target),)
        return self._choose("gather", tensors, serial, by_reduction)

    def _choose(
        self, collective: str, tensors: Sequence[Tensor], serial: tuple[Step, ...], by_reduction: tuple[Step, ...]
    ) -> tuple[Step, ...]:
        return serial if self._ask(_is_serial, collective, tuple(tensors), serial, by_reduction) else by_reduction

    def _reduce(self, source: Partial, hub: Placement) -> Step:
        return Step(MoveKind.REDUCE, source, hub, partial_dtype=True, combine=source.op)

    def joint_levels(self, scope: Scope) -> int | None:
        """Levels of the tree below the joint of each scope; None where scopes have no joints of their own."""
        if self._is_graph:
            return 1  # every scope has a node where its ways meet
        return self.layouts.groups.joint_levels(self.layouts.scope_size(scope))

    def _step_cycles(self, tensors: Sequence[Tensor], step: Step) -> int | IntArray:
        if self._is_graph:
            return 0 if step.kind is MoveKind.LOCAL else self._routed_cycles(tensors, step)
        bus, tree = self.array.bus_tree.bus, self.array.bus_tree.tree
        match step.kind:
            case MoveKind.LOCAL:
                return 0
            case MoveKind.REDUCE:
                parallel = isinstance(step.target, Joint)
                levels = (self.joint_levels("group") if parallel else None) or tree.num_levels
                payload = self._group_bytes(tensors, partial=step.partial_dtype)
                return reduce_cycles(tree, payload, levels, parallel=parallel, softmax=step.combine == "softmax")
            case MoveKind.BROADCAST:
                payload = self._group_bytes(tensors, partial=False)
                from_root = isinstance(step.source, Root)
                if tree.downlink and not from_root:
                    return downlink_cycles(tree, payload, self.joint_levels("group") or 0)
                return serial_cycles(bus, payload, from_root=from_root)
            case MoveKind.SCATTER:
                shards = self._pe_bytes(tensors, step.target)
                return serial_cycles(bus, shards, from_root=isinstance(step.source, Root))
            case MoveKind.GATHER | MoveKind.ALL_GATHER:
                return serial_cycles(bus, self._pe_bytes(tensors, step.source), from_root=False)
            case _:
                return serial_cycles(bus, self._group_bytes(tensors, partial=False), from_root=False)

    def takes_at_least(self, tensors: Sequence[Tensor], step: Step, cycles: int) -> bool:
        """Whether a step is known, without a look at all its messages, to take as long as that."""
        if not self._is_graph or step.kind is not MoveKind.ALL_GATHER:
            return False
        from pe_sim.mapping.routed_costs import all_gather_bound  # loads networkx

        return all_gather_bound(self.array, self.layouts, tensors, step.source) >= cycles

    def _routed_cycles(self, tensors: Sequence[Tensor], step: Step) -> int:
        from pe_sim.mapping.routed_costs import routed_cycles  # loads networkx

        ends, softmax = (step.source, step.target), step.combine == "softmax"
        return routed_cycles(
            self.array, self.layouts, tensors, step.kind, ends, partial_dtype=step.partial_dtype, softmax=softmax
        )

    def _group_bytes(self, tensors: Sequence[Tensor], *, partial: bool) -> IntArray:
        return total(self.layouts.group_bytes(tensor, partial=partial) for tensor in tensors)

    def _pe_bytes(self, tensors: Sequence[Tensor], placement: Placement) -> IntArray:
        return total(self.layouts.pe_bytes(tensor, placement) for tensor in tensors)

    def _ask(self, question: Callable[[Transforms, *_About], _T], *about: *_About) -> _T:
        key = (question, about)
        if key not in self.answers:
            self.answers[key] = question(self, *about)
        return cast(_T, self.answers[key])


def _is_lone(transforms: Transforms) -> bool:
    return transforms.layouts.groups.is_lone


def _head_group_size(transforms: Transforms) -> int:
    return transforms.layouts.head_split.head_group_size


def _fits_grid(transforms: Transforms, ways: int) -> bool:
    return fits_grid(transforms.array, transforms.layouts.groups, ways)


def _is_one_row(transforms: Transforms, ways: int) -> bool:
    return transforms.layouts.groups.size == ways


def _matrices_held(transforms: Transforms) -> int:
    return 1 if transforms.array.overlap == 0 else 2


def _hub(transforms: Transforms, scope: Scope) -> Placement:
    if scope == "group" and transforms.layouts.groups.is_whole_array:
        return Root()
    return Joint(scope) if transforms.joint_levels(scope) is not None else Root()


def _is_serial(
    transforms: Transforms,
    collective: str,
    tensors: tuple[Tensor, ...],
    serial: tuple[Step, ...],
    by_reduction: tuple[Step, ...],
) -> bool:
    ways = transforms.array.network.collectives
    way = ways.scatter if collective == "scatter" else ways.gather
    if way == "best":
        reduced = transforms.cycles(tensors, by_reduction)
        return not transforms.takes_at_least(tensors, serial[0], reduced) and (
            transforms.cycles(tensors, serial) < reduced
        )
    return way == "serial"
