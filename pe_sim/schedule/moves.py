"""Lowers one primitive move to messages on the bus or reductions in the tree."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pe_sim.config.array import ArrayConfig
from pe_sim.mapping.groups import aligned_levels
from pe_sim.mapping.layouts import Layouts
from pe_sim.mapping.placed import Move, MoveKind
from pe_sim.mapping.placement import Root
from pe_sim.network.bus_tree import hop_cycles
from pe_sim.schedule.stages import MessageStage, Resource, Stage, Tag, TreeStage
from pe_sim.units import BoolArray, IntArray, ceil_div

ROOT_RANK = -1


def lower_move(
    node: Move, inputs: tuple[int, ...], output: int, senders: BoolArray, array: ArrayConfig, layouts: Layouts
) -> Stage:
    """The stage of a move; `senders` are the PEs that hold some of its input."""
    lowering = _MoveLowering(node, inputs, output, senders, array, layouts)
    kinds: dict[MoveKind, Callable[[], Stage]] = {
        MoveKind.REDUCE: lowering.reduce,
        MoveKind.BROADCAST: lowering.broadcast,
        MoveKind.SCATTER: lowering.scatter,
        MoveKind.GATHER: lowering.gather,
        MoveKind.ALL_GATHER: lowering.all_gather,
        MoveKind.UNICAST: lowering.unicast,
    }
    return kinds[node.kind]()


@dataclass(frozen=True)
class _MoveLowering:
    node: Move
    inputs: tuple[int, ...]
    output: int
    senders: BoolArray
    array: ArrayConfig
    layouts: Layouts

    def reduce(self) -> TreeStage:
        first, size = self._scopes()
        at_root = isinstance(self.node.outputs[0].placement, Root)
        tree = self.array.network.tree
        levels = tree.num_levels if at_root else aligned_levels(0, size, tree.arity)
        assert levels is not None
        hops = hop_cycles(tree, levels, softmax=self.node.combine == "softmax")
        payload = self._scope_bytes(partial=self.node.partial_dtype)
        return TreeStage(
            *self._labels(),
            active=self.senders,
            first_pe=first,
            last_pe=first + size,
            num_bytes=payload,
            hop_cycles=np.full(len(first), hops, dtype=np.int64),
            whole_tree=at_root,
            at_root=at_root,
        )

    def broadcast(self) -> MessageStage:
        first, size = self._scopes()
        from_root = isinstance(self.node.inputs[0].placement, Root)
        tree = self.array.network.tree
        down = tree.downlink and not from_root
        levels = aligned_levels(0, size, tree.arity) if down else 0
        hops = sum(tree.level_latency_cycles[:levels])
        sent = self._scope_bytes(partial=False)
        entries = np.flatnonzero(sent > 0)
        return self._messages(
            Tag.BROADCAST if size == self.layouts.groups.num_pes else Tag.MULTICAST,
            channel=Resource.DOWNLINK if down else Resource.BUS,
            from_pe=False,
            source=entries,
            rank=np.full(len(entries), ROOT_RANK) if from_root else first[entries],
            num_bytes=sent[entries],
            target=entries,
            ranges=(first, first + size),
            hop_cycles=np.full(len(first), hops, dtype=np.int64),
        )

    def scatter(self) -> MessageStage:
        groups = self.layouts.groups
        sent = self._pe_bytes(outputs=True)
        receivers = np.flatnonzero(sent > 0)
        from_root = isinstance(self.node.inputs[0].placement, Root)
        source = groups.group_of_pe[receivers]
        every = np.arange(groups.num_pes, dtype=np.int64)
        return self._messages(
            Tag.SCATTER,
            from_pe=False,
            source=source,
            rank=np.full(len(receivers), ROOT_RANK) if from_root else groups.first_pe[source],
            num_bytes=sent[receivers],
            target=receivers,
            ranges=(every, every + 1),
        )

    def gather(self) -> MessageStage:
        return self._from_pes(Tag.GATHER, self._pe_bytes(outputs=False), to_root=True)

    def all_gather(self) -> MessageStage:
        return self._from_pes(Tag.ALL_GATHER, self._pe_bytes(outputs=False), to_root=False)

    def unicast(self) -> MessageStage:
        groups = self.layouts.groups
        sent = np.zeros(groups.num_pes, dtype=np.int64)
        sent[groups.first_pe] = self._scope_bytes(partial=False)
        return self._from_pes(Tag.UNICAST, sent, to_root=True)

    def _from_pes(self, tag: Tag, sent: IntArray, *, to_root: bool) -> MessageStage:
        groups = self.layouts.groups
        senders = np.flatnonzero(sent > 0)
        return self._messages(
            tag,
            from_pe=True,
            source=senders,
            rank=senders,
            num_bytes=sent[senders],
            target=groups.group_of_pe[senders],
            ranges=(groups.first_pe, groups.first_pe + groups.size),
            to_root=to_root,
        )

    def _messages(
        self,
        tag: Tag,
        *,
        from_pe: bool,
        source: IntArray,
        rank: IntArray,
        num_bytes: IntArray,
        target: IntArray,
        ranges: tuple[IntArray, IntArray],
        channel: Resource = Resource.BUS,
        to_root: bool = False,
        hop_cycles: IntArray | None = None,
    ) -> MessageStage:
        first_pe, last_pe = ranges
        return MessageStage(
            *self._labels(),
            channel=channel,
            tag=tag,
            from_pe=from_pe,
            source=source,
            rank=rank,
            num_bytes=num_bytes,
            target=target,
            to_root=to_root,
            first_pe=first_pe,
            last_pe=last_pe,
            hop_cycles=np.zeros(len(first_pe), dtype=np.int64) if hop_cycles is None else hop_cycles,
        )

    def _labels(self) -> tuple[str, str, str, tuple[int, ...], int]:
        return self.node.label, self.node.operator.name, "", self.inputs, self.output

    def _scopes(self) -> tuple[IntArray, int]:
        """First PE of each scope, and PEs a scope: the groups, or the PEs that share a query head."""
        groups = self.layouts.groups
        if self.node.scope == "group":
            return groups.first_pe, groups.size
        split = self.layouts.head_split
        size = split.head_group_size
        heads = np.arange(split.shape.num_heads, dtype=np.int64) * size
        return (groups.first_pe[:, None] + heads[None, :]).reshape(-1), size

    def _scope_bytes(self, *, partial: bool) -> IntArray:
        """(scopes,) bytes of the whole message of each scope."""
        values = self.node.inputs
        if self.node.scope == "group":
            return np.sum([self.layouts.group_bytes(value.tensor, partial=partial) for value in values], axis=0)
        first, _ = self._scopes()
        elements = self.layouts.head_split.row_sum(1)[first]
        bits = self.layouts.element_bits(values[0].tensor, partial=partial)
        return ceil_div(elements * bits, 8)

    def _pe_bytes(self, *, outputs: bool) -> IntArray:
        values = self.node.outputs if outputs else self.node.inputs
        return np.sum([self.layouts.pe_bytes(value.tensor, value.placement) for value in values], axis=0)
