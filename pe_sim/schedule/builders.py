"""Builds network stages from byte counts: reductions over scopes, messages from hubs and from PEs.

A *scope* is a range of neighbouring PEs that acts together: a group, or the PEs that share a query head.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pe_sim.config.arrays.array import ArrayConfig
from pe_sim.config.networks.network import Tree
from pe_sim.mapping.groups import aligned_levels
from pe_sim.network.bus_tree import hop_cycles
from pe_sim.schedule.stages import MessageStage, Resource, Stage, Tag, TreeStage
from pe_sim.units import BoolArray, IntArray, ceil_div

ROOT_RANK = -1
PREFETCHING_OVERLAP = 2  # the level from which static weights are fetched before their operator starts
STREAMING_OVERLAP = 3  # the level from which a GEMM starts at the heads of messages


@dataclass(frozen=True, slots=True)
class Labels:
    """The fields that every stage has: names, and the slots it reads and writes."""

    name: str
    operator: str
    inputs: tuple[int, ...]
    output: int

    def fields(self) -> tuple[str, str, str, tuple[int, ...], int]:
        """The fields in the order of `Stage`; a move has no distribution."""
        return self.name, self.operator, "", self.inputs, self.output


@dataclass(frozen=True, slots=True)
class Scopes:
    """Scopes of PEs `first_pe` .. `last_pe` - 1, (scopes,); `size` is the number of leaves below a scope's joint."""

    first_pe: IntArray
    last_pe: IntArray
    size: int

    @classmethod
    def of_array(cls, num_pes: int, size: int | None = None) -> Scopes:
        """The scopes of `size` PEs that all PEs divide into; without `size` one scope."""
        first = np.arange(0, num_pes, size or num_pes, dtype=np.int64)
        return cls(first, first + (size or num_pes), size or num_pes)


def reduction(
    labels: Labels,
    array: ArrayConfig,
    scopes: Scopes,
    num_bytes: IntArray,
    active: BoolArray,
    *,
    at_root: bool,
    softmax: bool = False,
) -> TreeStage:
    """Stage of one reduction a scope: to its own joint, or all the way to the root."""
    tree = array.bus_tree.tree
    levels = _levels(tree, scopes, at_root=at_root)
    hops = hop_cycles(tree, levels, softmax=softmax)
    return TreeStage(
        *labels.fields(),
        active=active,
        first_pe=scopes.first_pe,
        last_pe=scopes.last_pe,
        num_bytes=num_bytes,
        levels=levels,
        hop_cycles=np.full(num_bytes.shape[-1], hops, dtype=np.int64),
        whole_tree=at_root,
        at_root=at_root,
        softmax=softmax,
    )


def hub_to_scopes(
    labels: Labels, array: ArrayConfig, scopes: Scopes, num_bytes: IntArray, *, from_root: bool
) -> MessageStage:
    """Stage of one message a scope, from the root or the scope's joint to all its PEs."""
    tree = array.bus_tree.tree
    down = tree.downlink and not from_root
    hops = sum(tree.level_latency_cycles[: _levels(tree, scopes, at_root=False)]) if down else 0
    sent = np.flatnonzero(num_bytes.reshape(-1, num_bytes.shape[-1])[0] > 0)  # the same in every step
    return MessageStage(
        *labels.fields(),
        channel=Resource.DOWNLINK if down else Resource.BUS,
        tag=Tag.BROADCAST if scopes.size >= array.num_pes else Tag.MULTICAST,
        from_pe=False,
        source=sent,
        rank=np.full(len(sent), ROOT_RANK) if from_root else scopes.first_pe[sent],
        num_bytes=num_bytes[..., sent],
        target=sent,
        to_root=False,
        first_pe=scopes.first_pe,
        last_pe=scopes.last_pe,
        hop_cycles=np.full(num_bytes.shape[-1], hops, dtype=np.int64),
    )


def hub_to_pes(
    labels: Labels, scope_of_pe: IntArray, scopes: Scopes, num_bytes: IntArray, *, from_root: bool
) -> MessageStage:
    """Stage of a scatter: one message a PE, from the root or the joint of the PE's scope."""
    every = np.arange(len(num_bytes), dtype=np.int64)
    receivers = np.flatnonzero(num_bytes > 0)
    source = scope_of_pe[receivers]
    return MessageStage(
        *labels.fields(),
        channel=Resource.BUS,
        tag=Tag.SCATTER,
        from_pe=False,
        source=source,
        rank=np.full(len(receivers), ROOT_RANK) if from_root else scopes.first_pe[source],
        num_bytes=num_bytes[receivers],
        target=receivers,
        to_root=False,
        first_pe=every,
        last_pe=every + 1,
        hop_cycles=np.zeros(len(num_bytes), dtype=np.int64),
    )


def pes_to_scopes(
    labels: Labels, tag: Tag, scope_of_pe: IntArray, scopes: Scopes, num_bytes: IntArray, *, to_root: bool
) -> MessageStage:
    """Stage of messages on the bus from PEs with something to send: to the root's copy for their scope, or its PEs."""
    senders = np.flatnonzero(num_bytes > 0)
    return MessageStage(
        *labels.fields(),
        channel=Resource.BUS,
        tag=tag,
        from_pe=True,
        source=senders,
        rank=senders,
        num_bytes=num_bytes[senders],
        target=scope_of_pe[senders],
        to_root=to_root,
        first_pe=scopes.first_pe,
        last_pe=scopes.last_pe,
        hop_cycles=np.zeros(len(scopes.first_pe), dtype=np.int64),
    )


def forward(labels: Labels, array: ArrayConfig, sender: int, scopes: Scopes, num_bytes: IntArray) -> MessageStage:
    """Stage of one PE's message to the next pipeline stage, whose PEs all hear it: one unicast a boundary."""
    sent = np.zeros(array.num_pes, dtype=np.int64)
    sent[sender] = num_bytes[0]
    scope_of_pe = np.zeros(array.num_pes, dtype=np.int64)
    return pes_to_scopes(labels, Tag.UNICAST, scope_of_pe, scopes, sent, to_root=False)


def weight_stream(labels: Labels, array: ArrayConfig, num_bytes: IntArray) -> MessageStage:
    """Stage of one message from the root's memory to all PEs, at the memory's rate or the bus's, whichever is less."""
    whole = Scopes.of_array(array.num_pes)
    stage = hub_to_scopes(labels, array, whole, num_bytes, from_root=True)
    return replace(stage, tag=Tag.WEIGHT_STREAM, source_rate=array.root.memory.bytes_per_cycle)


def streamed(stage: MessageStage, array: ArrayConfig, fed_by: Stage | None) -> MessageStage:
    """The stage as overlap 3 runs it: receivers may start at its head, and the root does not wait for a tail.

    The root forwards what the reduction `fed_by` brings it: it asks for the bus at head + max(0, beats of the tree -
    beats of the bus), so that the bus never starves.
    """
    if array.overlap < STREAMING_OVERLAP or stage.channel is not Resource.BUS or stage.tag is Tag.WEIGHT_STREAM:
        return stage
    alone = len(stage.target) == len(np.unique(stage.target))
    early = None
    if isinstance(fed_by, TreeStage) and fed_by.at_root and not stage.from_pe and stage.tag is not Tag.SCATTER:
        tree_beats = ceil_div(fed_by.num_bytes[..., stage.source], array.bus_tree.tree.bytes_per_cycle)
        early = np.minimum(tree_beats, ceil_div(stage.num_bytes, array.bus_tree.bus.bytes_per_cycle))
    return replace(stage, streams=alone and not stage.to_root, early_cycles=early)


def pairs(labels: Labels, members: BoolArray, num_bytes: int) -> MessageStage:
    """Stage of an all-to-all: each of `members` (PEs,) sends `num_bytes` to every other, lower receivers first."""
    num_pes, pes = len(members), np.flatnonzero(members)
    sender, receiver = np.repeat(pes, len(pes)), np.tile(pes, len(pes))
    others = (sender != receiver) & (num_bytes > 0)
    every = np.arange(num_pes, dtype=np.int64)
    return MessageStage(
        *labels.fields(),
        channel=Resource.BUS,
        tag=Tag.ALL_TO_ALL,
        from_pe=True,
        source=sender[others],
        rank=sender[others],
        num_bytes=np.full(int(others.sum()), num_bytes, dtype=np.int64),
        target=receiver[others],
        to_root=False,
        first_pe=every,
        last_pe=every + 1,
        hop_cycles=np.zeros(num_pes, dtype=np.int64),
    )


def _levels(tree: Tree, scopes: Scopes, *, at_root: bool) -> int:
    levels = tree.num_levels if at_root else aligned_levels(0, scopes.size, tree.arity)
    assert levels is not None, "only scopes aligned to the tree have a joint of their own"
    return levels
