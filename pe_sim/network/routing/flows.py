"""Flows over an interconnect: paths of unicasts, trees of multicasts, and reductions that combine on their way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

import numpy as np

from pe_sim.network.routing.hops import HopBuilder
from pe_sim.network.routing.routes import Routes, Tree
from pe_sim.network.topology.topology import TAP
from pe_sim.units import BoolArray, IntArray

NONE = -1  # no hop, no sender, no target
_EMPTY: Final = np.zeros(0, dtype=np.int64)
_TREES_AT_ONCE: Final = 256  # routes from so many nodes are held as one table


class CannotCombineError(Exception):
    """Several values meet at a node that cannot combine them."""


@dataclass(frozen=True, eq=False)
class Paths:
    """The hops of unicasts, to be added to a builder, also more than once; arrays: (hops,), (links,) or (messages,).

    Args:
        channel, message, wait_cycles, step: of each hop; `step` counts hops from the sender on.
        before, after: hop `after` waits for the head of hop `before`.
        first, last: the first and the last hop of each message.
        end_cycles: cycles from the last hop's tail to the receiver.
    """

    channel: IntArray
    message: IntArray
    wait_cycles: IntArray
    step: IntArray
    before: IntArray
    after: IntArray
    first: IntArray
    last: IntArray
    end_cycles: IntArray

    def add_to(
        self, builder: HopBuilder, message: IntArray, wave: int | IntArray, delay: IntArray | None = None
    ) -> tuple[IntArray, IntArray]:
        """Adds the hops; returns the first and the last hop of each message.

        Args:
            message: (messages,) their numbers.
            wave: the wave of the first hops, or (hops,) those of the messages' first hops.
            delay: (messages,) cycles before each goes on its way.
        """
        wait = self.wait_cycles
        if delay is not None:
            wait = wait.copy()
            wait[self.first] += delay
        hops = builder.add(self.channel, message[self.message], wait, wave + self.step)
        offset = int(hops[0]) if len(hops) else 0
        builder.link(self.before + offset, self.after + offset)
        return self.first + offset, self.last + offset


@dataclass(frozen=True, eq=False)
class Flows:
    """Flows along the routes of one topology."""

    routes: Routes
    known_hubs: dict[tuple[int, int], int] = field(default_factory=dict, repr=False)

    @cached_property
    def _sources(self) -> IntArray:
        return self.routes.topology.edges[:, 0]

    @cached_property
    def _targets(self) -> IntArray:
        return self.routes.topology.edges[:, 1]

    @cached_property
    def _channels(self) -> IntArray:
        return self.routes.topology.edges[:, 2]

    @property
    def root(self) -> int:
        """Index of the root's node."""
        return self.routes.topology.num_pes

    @cached_property
    def is_joint(self) -> BoolArray:
        """(nodes,) whether each is a joint of a reduction tree, which takes its cycles even for one value alone."""
        topology = self.routes.topology
        kinds = [kind for _, kind in topology.graph.nodes(data="kind")]
        joints = np.array([kind == "joint" for kind in kinds], dtype=bool)
        joints[self.root] = bool(topology.is_bus.any())  # beside a bus stands a tree, whose top joint the root is
        return joints

    def hubs(self, first_pe: IntArray, last_pe: IntArray) -> IntArray:
        """(scopes,) hub of each scope: the node where its PEs' ways to the root meet, if it can hold a value.

        A switch that cannot combine passes messages on and no more: there the lowest PE takes its place. So it does
        where several scopes would meet at one node, as in a butterfly, whose neighbours part at the first switch.
        """
        bounds = zip(first_pe.tolist(), last_pe.tolist(), strict=True)
        hubs = np.array([self._hub(first, last) for first, last in bounds], dtype=np.int64)
        nodes, scopes = np.unique(hubs, return_counts=True)
        return np.where(np.isin(hubs, nodes[scopes > 1]), first_pe, hubs)

    def _hub(self, first: int, last: int) -> int:
        if (first, last) not in self.known_hubs:
            node = self.routes.meeting_point(np.arange(first, last))
            holds = node <= self.root or self.routes.topology.combines[node]
            self.known_hubs[first, last] = node if holds else first
        return self.known_hubs[first, last]

    def leads_to_root(self, channels: IntArray) -> bool:
        """Whether each of some channels ends at the root."""
        into_root = self._channels[self._targets == self.root]
        return bool(np.isin(channels, into_root).all())

    def distances_to(self, node: int, others: IntArray) -> IntArray:
        """(others,) number of edges from each to `node`."""
        return self.routes.inward(node, others, over_buses=True).depth[others]

    def nodes_between(self, sender: int, receiver: int) -> list[int]:
        """The nodes on the path of a message, both ends included: the sender first, the others by index."""
        receivers = np.array([receiver], dtype=np.int64)
        tree = self.routes.outward(sender, receivers)
        return [sender, *self._ancestors(tree, receivers, sender).tolist()]

    def passes_bus(self, sender: int, receivers: IntArray) -> bool:
        """Whether messages from a node to some others go over a shared bus."""
        tree = self.routes.outward(sender, receivers)
        return bool(self.routes.topology.is_bus[self._ancestors(tree, receivers, sender)].any())

    def paths(self, senders: IntArray, receivers: IntArray) -> Paths:
        """Paths of one message from each sender to its receiver, another node; `forward_cycles` are not included."""
        message, step, edges = self._walks(senders, receivers)
        lengths = np.bincount(message, minlength=len(senders))
        first = np.cumsum(lengths) - lengths
        followers = np.flatnonzero(step > 0)
        channel = self._channels[edges]
        last = first + lengths - 1
        entering = (step == 0) & (senders[message] <= self.root)
        return Paths(
            channel=channel,
            message=message,
            wait_cycles=self._request_cycles(edges) + np.where(entering, self._ramps(channel), 0),
            step=step,
            before=followers - 1,
            after=followers,
            first=first,
            last=last,
            end_cycles=np.where(receivers <= self.root, self._ramps(channel[last]), 0),
        )

    def _walks(self, senders: IntArray, receivers: IntArray) -> tuple[IntArray, IntArray, IntArray]:
        """(hops,) message, step and edge of every hop over a channel, in order of the messages."""
        inward = 2 * len(np.unique(receivers)) < len(np.unique(senders))  # fewer trees to look for
        ends, here = (receivers, senders) if inward else (senders, receivers)
        message, edge, walked = [_EMPTY], [_EMPTY], [_EMPTY]
        near, number = self._beside(senders, receivers)
        message.append(number)
        edge.append(near)
        walked.append(np.zeros_like(number))
        far = np.ones(len(senders), dtype=bool)
        far[number] = False
        for some in _in_parts(np.unique(ends[far]), _TREES_AT_ONCE):
            mine = np.flatnonzero(far & np.isin(ends, some))
            trees = [self._tree_between(int(end), here[mine[ends[mine] == end]], inward=inward) for end in some]
            edge_of = np.stack([tree.edge for tree in trees])
            row, node, step = np.searchsorted(some, ends[mine]), here[mine], 0
            while len(mine):
                taken = edge_of[row, node]
                message.append(mine)
                edge.append(taken)
                walked.append(np.full(len(mine), step, dtype=np.int64))
                node = (self._targets if inward else self._sources)[taken]
                going = node != ends[mine]
                mine, row, node, step = mine[going], row[going], node[going], step + 1
        numbers, edges, steps = np.concatenate(message), np.concatenate(edge), np.concatenate(walked)
        costs = self._channels[edges] != TAP
        numbers, edges, steps = numbers[costs], edges[costs], steps[costs]
        order = np.lexsort((steps if inward else -steps, numbers))
        numbers, edges = numbers[order], edges[order]
        first = np.searchsorted(numbers, numbers)
        return numbers, np.arange(len(numbers)) - first, edges

    def _beside(self, senders: IntArray, receivers: IntArray) -> tuple[IntArray, IntArray]:
        """The edges of messages between neighbours on a grid (no route is shorter), and these messages' numbers."""
        if self.routes.coordinates is None:
            return _EMPTY, _EMPTY
        return self.routes.direct_edges(senders, receivers)

    def _tree_between(self, end: int, others: IntArray, *, inward: bool) -> Tree:
        return self.routes.inward(end, others, over_buses=True) if inward else self.routes.outward(end, others)

    def multicast(
        self,
        builder: HopBuilder,
        sender: int,
        receivers: IntArray,
        message: int,
        source: int,
        targets: IntArray,
        *,
        wave: int = 0,
        after: IntArray | None = None,
    ) -> IntArray:
        """Adds one message to many receivers, which uses each channel once.

        Args:
            sender, receivers: nodes; a receiver that is the sender keeps what it has.
            source: the entry among the senders that has to be ready; NONE: only `after` is waited for.
            targets: (receivers,) the entries that get it; NONE: nobody waits for it.
            after: hops that bring the sender what it passes on; it waits for their tails.

        Returns:
            (receivers,) the last hop to each; NONE for the sender itself.
        """
        topology = self.routes.topology
        over_buses = not (self.is_joint[sender] and sender != self.root)
        tree = self.routes.outward(sender, receivers, over_buses=over_buses)
        nodes = self._ancestors(tree, receivers, sender)
        edges = tree.edge[nodes]
        on_channel = self._channels[edges] != TAP
        carrying, edges = nodes[on_channel], edges[on_channel]
        before_node = self._sources[edges]
        is_first = before_node == sender
        wait = self._request_cycles(edges)
        many = len(receivers) > 1 or after is not None
        starting = self._ramps(self._channels[edges]) * self._is_end_point(sender)
        wait += np.where(is_first, starting + (topology.forward_cycles if many else 0), 0)
        number = np.full(len(carrying), message, dtype=np.int64)
        hops = builder.add(self._channels[edges], number, wait, wave + tree.depth[carrying] - 1)
        hop_of = np.full(len(topology.nodes), NONE, dtype=np.int64)
        hop_of[carrying] = hops
        ramp_into = np.zeros(len(topology.nodes), dtype=np.int64)
        ramp_into[carrying] = self._ramps(self._channels[edges])
        taps = nodes[~on_channel]
        for depth in np.unique(tree.depth[taps]):
            heard = taps[tree.depth[taps] == depth]
            buses = self._sources[tree.edge[heard]]
            hop_of[heard], ramp_into[heard] = hop_of[buses], ramp_into[buses]
        builder.link(hop_of[before_node[~is_first]], hops[~is_first])
        self._begin(builder, hops[is_first], source, after)
        last = hop_of[receivers]
        reached = (last != NONE) & (targets != NONE)
        builder.end(last[reached], targets[reached], ramp_into[receivers][reached])
        kept = targets[(last == NONE) & (targets != NONE)]
        builder.keep(np.full(len(kept), source, dtype=np.int64), kept, np.zeros(len(kept), dtype=np.int64))
        return last

    def reduction(
        self,
        builder: HopBuilder,
        sink: int,
        contributors: IntArray,
        message: int,
        sources: IntArray,
        target: int,
        combine_cycles: int,
    ) -> None:
        """Adds a reduction of one value from many nodes, combined wherever two of them meet.

        Args:
            sink: the node where the result is.
            contributors: nodes, each once; the sink may be one.
            sources: (contributors,) entries among the senders that have to be ready.

        Raises:
            CannotCombineError: values meet at a node that cannot combine them.
        """
        topology = self.routes.topology
        tree = self.routes.inward(sink, contributors)
        nodes = self._ancestors(tree, contributors, sink)
        parents = self._targets[tree.edge[nodes]]
        own = np.zeros(len(topology.nodes), dtype=bool)
        own[contributors] = True
        inputs = np.bincount(parents, minlength=len(topology.nodes)) + own
        if ((inputs > 1) & ~topology.combines).any():
            raise CannotCombineError
        combining = (inputs > 1) | (self.is_joint & (inputs > 0))
        in_pe = (own | combining) & (np.arange(len(topology.nodes)) <= self.root)
        channel = self._channels[tree.edge[nodes]]
        on_channel = channel != TAP
        carrying = nodes[on_channel]
        ramp_in = np.zeros(len(topology.nodes), dtype=np.int64)
        np.maximum.at(ramp_in, parents[on_channel], self._ramps(channel[on_channel]))
        wait = combine_cycles * combining[carrying] + self._ramps(channel[on_channel]) * in_pe[carrying]
        wait += np.where(in_pe[carrying] & combining[carrying], ramp_in[carrying], 0)
        wait += self._request_cycles(tree.edge[carrying])
        number = np.full(len(carrying), message, dtype=np.int64)
        depth = tree.depth[carrying]
        hops = builder.add(channel[on_channel], number, wait, int(depth.max(initial=0)) - depth)
        hop_of = np.full(len(topology.nodes), NONE, dtype=np.int64)
        hop_of[carrying] = hops
        taps = nodes[~on_channel]
        for node in taps[np.argsort(-tree.depth[taps], kind="stable")].tolist():
            hop_of[node] = hop_of[nodes[parents == node][0]]  # one value alone passes a bus
        follows = (parents != sink) & (hop_of[parents] != hop_of[nodes])
        builder.link(hop_of[nodes[follows]], hop_of[parents[follows]])
        entry = np.full(len(topology.nodes), NONE, dtype=np.int64)
        entry[contributors] = sources
        starting = carrying[own[carrying]]
        builder.start(entry[starting], hop_of[starting])
        arriving = hop_of[nodes[parents == sink]]
        cycles = combine_cycles * int(combining[sink]) + int(ramp_in[sink]) * int(self._is_end_point(sink))
        builder.end(arriving, np.full(len(arriving), target), np.full(len(arriving), cycles))
        if own[sink]:
            at_sink = combine_cycles * int(combining[sink])
            builder.keep(entry[sink : sink + 1], np.array([target]), np.array([at_sink]))

    def _begin(self, builder: HopBuilder, hops: IntArray, source: int, after: IntArray | None) -> None:
        if source != NONE:
            builder.start(np.full(len(hops), source, dtype=np.int64), hops)
        if after is not None and len(after):
            builder.link(np.repeat(after, len(hops)), np.tile(hops, len(after)), stored=True)

    def _ancestors(self, tree: Tree, nodes: IntArray, end: int) -> IntArray:
        """The nodes on the paths between `nodes` and the tree's own node `end`, which is left out."""
        marked = np.zeros(len(tree.edge), dtype=bool)
        ahead = self._sources if tree.outward else self._targets
        here = np.unique(nodes)
        while True:
            here = here[(here != end) & ~marked[here]]
            if not len(here):
                return np.flatnonzero(marked)
            marked[here] = True
            here = np.unique(ahead[tree.edge[here]])

    def _request_cycles(self, edges: IntArray) -> IntArray:
        """(edges,) request cycles ρ of each edge's channel; 0 where the root drives it."""
        request = self.routes.topology.channels.request_cycles[self._channels[edges]]
        return np.where(self._sources[edges] == self.root, 0, request)

    def _ramps(self, channel: IntArray) -> IntArray:
        return self.routes.topology.channels.ramp_cycles[channel]

    def _is_end_point(self, node: int) -> bool:
        return node <= self.root


def _in_parts(values: IntArray, size: int) -> Iterator[IntArray]:
    for start in range(0, len(values), size):
        yield values[start : start + size]
