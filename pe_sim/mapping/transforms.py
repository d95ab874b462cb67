"""Which primitive moves bring a tensor from one placement to another (machine model, section 7)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pe_sim.config.array import ArrayConfig
from pe_sim.graph.tensors import Tensor
from pe_sim.mapping.layouts import Layouts
from pe_sim.mapping.placed import MoveKind
from pe_sim.mapping.placement import Joint, Partial, Placement, Replicate, Root, Shard
from pe_sim.network.bus_tree import downlink_cycles, reduce_cycles, serial_cycles
from pe_sim.units import IntArray, total


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
    """Chooses the steps of each transform on one array and division of the PEs."""

    array: ArrayConfig
    layouts: Layouts

    def steps(self, tensors: Sequence[Tensor], source: Placement, target: Placement) -> tuple[Step, ...]:
        """The primitive moves that turn `source` into `target`; the tensors travel concatenated.

        Raises:
            ValueError: no rule leads from `source` to `target`.
        """
        if source == target or (self.layouts.groups.size == 1 and Root() not in (source, target)):
            return () if source == target else (Step(MoveKind.LOCAL, source, target),)
        match source, target:
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

    def hub(self, scope: str) -> Placement:
        """Where a reduction over each group (or head group) leaves its result: its joint, or the root.

        The whole array ends at the root; groups that are not aligned to the tree use all of it and end there too.
        """
        groups = self.layouts.groups
        if scope == "group" and groups.is_whole_array:
            return Root()
        return Joint(scope) if self._joint_levels(scope) is not None else Root()

    def cycles(self, tensors: Sequence[Tensor], steps: Sequence[Step]) -> int:
        """Closed form of the steps one after another, in isolation, for all groups at once."""
        return sum(self._step_cycles(tensors, step) for step in steps)

    def _spread(self, tensors: Sequence[Tensor], hub: Placement, target: Shard) -> tuple[Step, ...]:
        by_broadcast = (Step(MoveKind.BROADCAST, hub, Replicate()), Step(MoveKind.LOCAL, Replicate(), target))
        serial = (Step(MoveKind.SCATTER, hub, target),)
        return self._choose(self.array.network.collectives.scatter, tensors, serial, by_broadcast)

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
        serial = (Step(serial_kind, source, target),)
        return self._choose(self.array.network.collectives.gather, tensors, serial, by_reduction)

    def _choose(
        self, way: str, tensors: Sequence[Tensor], serial: tuple[Step, ...], by_reduction: tuple[Step, ...]
    ) -> tuple[Step, ...]:
        if way == "best":
            way = "serial" if self.cycles(tensors, serial) < self.cycles(tensors, by_reduction) else "by_reduction"
        return serial if way == "serial" else by_reduction

    def _reduce(self, source: Partial, hub: Placement) -> Step:
        return Step(MoveKind.REDUCE, source, hub, partial_dtype=True, combine=source.op)

    def _joint_levels(self, scope: str) -> int | None:
        groups = self.layouts.groups
        return groups.joint_levels(groups.size if scope == "group" else self.layouts.head_split.head_group_size)

    def _step_cycles(self, tensors: Sequence[Tensor], step: Step) -> int:
        bus, tree = self.array.network.bus, self.array.network.tree
        match step.kind:
            case MoveKind.LOCAL:
                return 0
            case MoveKind.REDUCE:
                parallel = isinstance(step.target, Joint)
                levels = (self._joint_levels("group") if parallel else None) or tree.num_levels
                payload = self._group_bytes(tensors, partial=step.partial_dtype)
                return reduce_cycles(tree, payload, levels, parallel=parallel, softmax=step.combine == "softmax")
            case MoveKind.BROADCAST:
                payload = self._group_bytes(tensors, partial=False)
                from_root = isinstance(step.source, Root)
                if tree.downlink and not from_root:
                    return downlink_cycles(tree, payload, self._joint_levels("group") or 0)
                return serial_cycles(bus, payload, from_root=from_root)
            case MoveKind.SCATTER:
                shards = self._pe_bytes(tensors, step.target)
                return serial_cycles(bus, shards, from_root=isinstance(step.source, Root))
            case MoveKind.GATHER | MoveKind.ALL_GATHER:
                return serial_cycles(bus, self._pe_bytes(tensors, step.source), from_root=False)
            case _:
                return serial_cycles(bus, self._group_bytes(tensors, partial=False), from_root=False)

    def _group_bytes(self, tensors: Sequence[Tensor], *, partial: bool) -> IntArray:
        return total(self.layouts.group_bytes(tensor, partial=partial) for tensor in tensors)

    def _pe_bytes(self, tensors: Sequence[Tensor], placement: Placement) -> IntArray:
        return total(self.layouts.pe_bytes(tensor, placement) for tensor in tensors)
