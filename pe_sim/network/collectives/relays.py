"""Broadcasts and reductions that PEs relay to each other: in a chain, or in a binomial tree."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pe_sim.network.collectives.direct import hub_ranks
from pe_sim.network.collectives.programs import Pattern
from pe_sim.network.collectives.ring_orders import path_order
from pe_sim.network.collectives.rounds import Costs, RoundsBuilder
from pe_sim.network.interconnect import Interconnect
from pe_sim.network.routing.flows import NONE
from pe_sim.network.routing.hops import HopBuilder, Program
from pe_sim.units import BoolArray, IntArray


def chain_reduce(interconnect: Interconnect, pattern: Pattern) -> Program:
    """A reduction along a chain: each PE adds its own value while the message streams through.

    Senders: PEs; targets: hubs; payload: a scope's.

    Every end point that adds costs its ramps and `combine_cycles`, the hub included: over P end points of a line with
    ramps T_R and one cycle to add B + (2 T_R + 2)(P - 1) (Near-Optimal Wafer-Scale Reduce, HPDC 2024).
    """
    arms = [arm for scope in range(pattern.num_scopes) for arm in _arms(interconnect, pattern, scope, pattern.sends)]
    chain = _Chain.of(arms)
    # Away from the hub in the arms, towards it in the messages: message i is sent by `far` and follows message i + 1.
    paths = interconnect.flows.paths(chain.far, chain.near)
    builder = HopBuilder()
    wave = chain.lengths_beyond(np.bincount(paths.message, minlength=len(chain.far)))
    wait = np.zeros(len(chain.far), dtype=np.int64)
    feeding = np.flatnonzero(chain.feeds != NONE)
    np.maximum.at(wait, chain.feeds[feeding], paths.end_cycles[feeding] + pattern.combine_cycles)
    first, last = paths.add_to(builder, np.arange(len(chain.far)), wave[paths.message], wait)
    builder.link(last[feeding], first[chain.feeds[feeding]])
    builder.start(chain.far, first)
    ending = np.flatnonzero(chain.feeds == NONE)
    builder.end(last[ending], chain.scope[ending], paths.end_cycles[ending] + pattern.combine_cycles)
    _keep_hubs(builder, interconnect, pattern)
    hops = builder.build(interconnect.topology.num_pes, pattern.num_scopes, len(chain.far))
    return Program(hops, chain.far, chain.scope)


def chain_broadcast(interconnect: Interconnect, pattern: Pattern) -> Program:
    """A broadcast along a chain: each PE passes on to the next what streams through.

    Senders: hubs; targets: PEs; payload: a scope's.
    """
    everyone = np.ones(interconnect.topology.num_pes, dtype=bool)
    scopes = np.flatnonzero(pattern.sends).tolist()
    arms = [arm for scope in scopes for arm in _arms(interconnect, pattern, scope, everyone)]
    chain = _Chain.of(arms)
    paths = interconnect.flows.paths(chain.near, chain.far)
    builder = HopBuilder()
    wave = chain.lengths_before(np.bincount(paths.message, minlength=len(chain.far)))
    follows = np.flatnonzero(chain.feeds != NONE)
    wait = np.full(len(chain.far), interconnect.topology.forward_cycles, dtype=np.int64)
    wait[follows] += paths.end_cycles[chain.feeds[follows]]
    first, last = paths.add_to(builder, np.arange(len(chain.far)), wave[paths.message], wait)
    builder.link(last[chain.feeds[follows]], first[follows])
    starting = np.flatnonzero(chain.feeds == NONE)
    builder.start(chain.scope[starting], first[starting])
    builder.end(last, chain.far, paths.end_cycles)
    for scope in scopes:
        _keep_hub_pe(builder, pattern, scope)
    hops = builder.build(pattern.num_scopes, interconnect.topology.num_pes, len(chain.far))
    return Program(hops, _ranks(interconnect, pattern, chain.near, chain.scope), chain.scope)


def tree_reduce(interconnect: Interconnect, pattern: Pattern) -> Program:
    """A reduction by a binomial tree: in round r every second end point left sends to the one 2^r before it.

    Values are stored, then added, which costs ramps and `combine_cycles`. Senders: PEs; targets: hubs; payload: a
    scope's. On a line the sum of the rounds over P end points is B log P + P - 1 + (2 T_R + 1) log P.
    """
    ends = _Ends.of(interconnect, pattern)
    sources = np.full(len(ends.nodes), NONE, dtype=np.int64)
    pes, _ = pattern.members()
    pes = pes[pattern.sends[pes]]
    sources[pes] = pes
    sources[ends.hubs] = np.where(ends.hub_sends, pattern.hub, NONE)
    builder = RoundsBuilder(interconnect, ends.nodes, sources, Costs(receive=pattern.combine_cycles))
    orders = [ends.ranked(scope, pattern.sends) for scope in range(pattern.num_scopes)]
    for distance in tree_distances(orders):
        add_round(builder, orders, distance, towards_hub=True)
    scopes = np.arange(pattern.num_scopes, dtype=np.int64)
    hops = builder.finish(ends.hubs, scopes, interconnect.topology.num_pes, pattern.num_scopes)
    return builder.program(hops, ends.ranks)


def tree_broadcast(interconnect: Interconnect, pattern: Pattern) -> Program:
    """A broadcast by a binomial tree, far partners first, stored on the way.

    Senders: hubs; targets: PEs; payload: a scope's.
    """
    ends, topology = _Ends.of(interconnect, pattern), interconnect.topology
    everyone = np.ones(topology.num_pes, dtype=bool)
    scopes = np.flatnonzero(pattern.sends)
    sources = np.full(len(ends.nodes), NONE, dtype=np.int64)
    sources[ends.hubs] = np.arange(pattern.num_scopes)
    builder = RoundsBuilder(interconnect, ends.nodes, sources, Costs(send=topology.forward_cycles))
    orders = [ends.ranked(scope, everyone) for scope in range(pattern.num_scopes)]
    orders = [order if sends else order[:0] for order, sends in zip(orders, pattern.sends.tolist(), strict=True)]
    for distance in tree_distances(orders)[::-1]:
        add_round(builder, orders, distance, towards_hub=False)
    receivers = np.concatenate([order[1:] for order in orders])
    own = scopes[ends.hub_inside[scopes]]
    reached, targets = np.concatenate([receivers, ends.hubs[own]]), np.concatenate([receivers, pattern.hub[own]])
    hops = builder.finish(reached, targets, pattern.num_scopes, topology.num_pes)
    return builder.program(hops, ends.ranks)


@dataclass(frozen=True, eq=False, slots=True)
class _Ends:
    """The end points of trees: PEs by number, and behind them the hub of every scope, which several may share.

    Args:
        nodes, ranks: (ends,) the node of each, and its rank among those that ask at once.
        hubs: (scopes,) the end point of each hub.
        hub_inside: (scopes,) whether the hub is a PE of its scope.
        hub_sends: (scopes,) whether it then has a value of its own.
    """

    interconnect: Interconnect
    pattern: Pattern
    nodes: IntArray
    ranks: IntArray
    hubs: IntArray
    hub_inside: BoolArray
    hub_sends: BoolArray

    @classmethod
    def of(cls, interconnect: Interconnect, pattern: Pattern) -> _Ends:
        """The end points of a pattern, whose `sends` are by PE or by scope."""
        pes, hub = np.arange(interconnect.topology.num_pes, dtype=np.int64), pattern.hub
        inside = (hub >= pattern.first_pe) & (hub < pattern.last_pe)
        sends = inside.copy()
        if len(pattern.sends) == len(pes):
            sends[inside] = pattern.sends[hub[inside]]
        ranks = np.concatenate([pes, hub_ranks(interconnect, pattern)])
        hubs = len(pes) + np.arange(pattern.num_scopes, dtype=np.int64)
        return cls(interconnect, pattern, np.concatenate([pes, hub]), ranks, hubs, inside, sends)

    def ranked(self, scope: int, takes_part: BoolArray) -> IntArray:
        """A scope's ends by their place in a binomial tree: the hub, then PEs along a row from the end nearer to it."""
        pes, hub = self.pattern.pes(scope), int(self.pattern.hub[scope])
        order = path_order(self.interconnect.flows.routes.coordinates, pes)
        order = order[takes_part[order] & (order != hub)]
        if len(order):
            distances = self.interconnect.flows.distances_to(hub, order[[0, -1]])
            order = order[::-1] if distances[1] < distances[0] else order
        return np.concatenate([self.hubs[scope : scope + 1], order])


@dataclass(frozen=True, eq=False, slots=True)
class _Chain:
    """Messages between neighbours of chains, from the hub outwards; arrays are (messages,).

    Args:
        near, far: the ends, `near` the one on the hub's side.
        scope: the scope of the message.
        feeds: the message between `near` and the end point before it; NONE if `near` is the hub.
    """

    near: IntArray
    far: IntArray
    scope: IntArray
    feeds: IntArray

    @classmethod
    def of(cls, arms: list[_Arm]) -> _Chain:
        """The messages of arms, of which one that branches off comes after the one it branches off from."""
        near: list[int] = []
        far: list[int] = []
        scope: list[int] = []
        feeds: list[int] = []
        reached_by: dict[int, int] = {}
        for arm in arms:
            for first, second in zip(arm.nodes[:-1], arm.nodes[1:], strict=True):
                feeds.append(reached_by.get(first, NONE))
                reached_by[second] = len(near)
                near.append(first)
                far.append(second)
                scope.append(arm.scope)
        return cls(*(np.array(column, dtype=np.int64) for column in (near, far, scope, feeds)))

    def lengths_before(self, lengths: IntArray) -> IntArray:
        """(messages,) hops from the hub to the begin of each message, whose own hops are `lengths`."""
        before = [0] * len(lengths)
        for message, feeds in enumerate(self.feeds.tolist()):
            if feeds != NONE:
                before[message] = before[feeds] + int(lengths[feeds])
        return np.array(before, dtype=np.int64)

    def lengths_beyond(self, lengths: IntArray) -> IntArray:
        """(messages,) the most hops from an outer end of the chain to each message, whose own hops are `lengths`."""
        beyond = [0] * len(lengths)
        for message in range(len(lengths) - 1, -1, -1):
            feeds = int(self.feeds[message])
            if feeds != NONE:
                beyond[feeds] = max(beyond[feeds], beyond[message] + int(lengths[message]))
        return np.array(beyond, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class _Arm:
    """One arm of a chain: its end points from the hub, or from where it branches off, outwards."""

    scope: int
    nodes: list[int]


def _arms(interconnect: Interconnect, pattern: Pattern, scope: int, takes_part: BoolArray) -> list[_Arm]:
    """The arms of a scope's chain: from the hub, or the PE nearest to it, both ways through the PEs that take part."""
    pes, hub = pattern.pes(scope), int(pattern.hub[scope])
    order = path_order(interconnect.flows.routes.coordinates, pes)
    order = order[takes_part[order] & (order != hub)]
    if not len(order):
        return []
    if hub in pes:
        at = int(np.count_nonzero(_place(interconnect, pes, order) < _place(interconnect, pes, np.array([hub]))[0]))
        arms = [[hub, *order[at:].tolist()], [hub, *order[:at][::-1].tolist()]]
    else:
        distance = interconnect.flows.distances_to(hub, order)
        at = int(np.argmin(distance))
        gate = int(order[at])
        arms = [[hub, gate, *order[at + 1 :].tolist()], [gate, *order[:at][::-1].tolist()]]
    return [_Arm(scope, nodes) for nodes in arms if len(nodes) > 1]


def _place(interconnect: Interconnect, pes: IntArray, of: IntArray) -> IntArray:
    """Positions of the PEs `of` in the path order of all `pes`."""
    order = path_order(interconnect.flows.routes.coordinates, pes)
    place: IntArray = np.argsort(order)[of - pes[0]]
    return place


def tree_distances(orders: list[IntArray]) -> list[int]:
    """Distances 1, 2, 4, ... below the number of end points of the largest tree."""
    most = max((len(order) for order in orders), default=0)
    return [1 << bit for bit in range(max(most - 1, 0).bit_length())]


def add_round(builder: RoundsBuilder, orders: list[IntArray], distance: int, *, towards_hub: bool) -> None:
    """Adds one round of binomial trees, between end points `distance` apart.

    `orders` are the end points of each scope, from the hub on.
    """
    near, far, scopes = [], [], []
    for scope, order in enumerate(orders):
        outer = order[distance :: 2 * distance]
        far.append(outer)
        near.append(order[:: 2 * distance][: len(outer)])
        scopes.append(np.full(len(outer), scope, dtype=np.int64))
    ends = [np.concatenate(far), np.concatenate(near)]
    senders, receivers = ends if towards_hub else ends[::-1]
    builder.repeat(senders, receivers, np.concatenate(scopes)[None, :, None])
    builder.settle()


def _keep_hubs(builder: HopBuilder, interconnect: Interconnect, pattern: Pattern) -> None:
    """Adds what hubs that are PEs contribute themselves to their own reductions."""
    inside = (pattern.hub >= pattern.first_pe) & (pattern.hub < pattern.last_pe)
    scopes = np.flatnonzero(inside)
    scopes = scopes[pattern.sends[pattern.hub[scopes]]]
    cycles = np.where(pattern.sizes[scopes] > 1, pattern.combine_cycles, 0)
    builder.keep(pattern.hub[scopes], scopes, cycles)


def _keep_hub_pe(builder: HopBuilder, pattern: Pattern, scope: int) -> None:
    """Adds that a hub which is a PE of its scope has what it sends."""
    hub = pattern.hub[scope : scope + 1]
    if pattern.first_pe[scope] <= hub[0] < pattern.last_pe[scope]:
        builder.keep(np.array([scope], dtype=np.int64), hub, np.zeros(1, dtype=np.int64))


def _ranks(interconnect: Interconnect, pattern: Pattern, senders: IntArray, scopes: IntArray) -> IntArray:
    """(messages,) ranks of senders: of a PE its number, of a hub as `hub_ranks` says."""
    return np.where(senders == pattern.hub[scopes], hub_ranks(interconnect, pattern)[scopes], senders)
