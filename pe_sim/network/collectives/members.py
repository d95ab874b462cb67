"""Programs of exchanges among some PEs that are given one by one, in any order.

Senders and targets are members by their place; part i is member i's. The rounds are those of `exchanges` and `relays`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pe_sim.network.collectives.exchanges import blocks, doublings, turns
from pe_sim.network.collectives.programs import Pattern
from pe_sim.network.collectives.relays import add_round, tree_distances
from pe_sim.network.collectives.ring_orders import folded, path_order, ring_order
from pe_sim.network.collectives.rounds import Costs, RoundsBuilder
from pe_sim.network.interconnect import Interconnect
from pe_sim.network.routing.hops import HopBuilder, Program
from pe_sim.network.routing.routes import Coordinates
from pe_sim.units import IntArray


@dataclass(frozen=True, eq=False)
class Members:
    """Some PEs of an interconnect, each once.

    Args:
        nodes: (members,) PEs.
        combine_cycles: cycles that a member takes to add what it gets to what it has.
    """

    interconnect: Interconnect
    nodes: IntArray
    combine_cycles: int

    @property
    def count(self) -> int:
        """Number of members."""
        return len(self.nodes)

    @property
    def places(self) -> IntArray:
        """All places: 0 .. members - 1."""
        return np.arange(len(self.nodes), dtype=np.int64)

    @property
    def pattern(self) -> Pattern:
        """A pattern with all places as its one scope."""
        zero, every = np.zeros(1, dtype=np.int64), np.ones(len(self.nodes), dtype=bool)
        return Pattern(zero, zero + len(self.nodes), zero, every, self.combine_cycles)

    @cached_property
    def ring(self) -> IntArray:
        """The places around a ring: as given, or along the interconnect, whichever loads its channels least.

        Of orders that load them alike the one with the shorter longest way, then the first.
        """
        path = self.path
        orders = [self.places, self._along(ring_order), path, folded(path)]
        costs = [self._ring_cost(order) for order in orders]
        return orders[costs.index(min(costs))]

    @cached_property
    def path(self) -> IntArray:
        """The places in the order in which a path through all PEs passes them."""
        return self._along(path_order)

    def _along(self, order: Callable[[Coordinates | None, IntArray], IntArray]) -> IntArray:
        coordinates = self.interconnect.flows.routes.coordinates
        every = order(coordinates, np.arange(self.interconnect.topology.num_pes, dtype=np.int64))
        return np.argsort(np.argsort(every)[self.nodes])

    def _ring_cost(self, order: IntArray) -> tuple[int, int]:
        nodes = self.nodes[order]
        paths = self.interconnect.flows.paths(nodes, np.roll(nodes, -1))
        return int(np.bincount(paths.channel).max()), int(np.bincount(paths.message).max())

    @cached_property
    def ring_hops(self) -> int:
        """Hops of one round of messages around the ring."""
        nodes = self.nodes[self.ring]
        return len(self.interconnect.flows.paths(nodes, np.roll(nodes, -1)).channel)

    @cached_property
    def mean_hops(self) -> float:
        """Hops of a message from another member to the first one, on average."""
        return float(self.interconnect.flows.distances_to(int(self.nodes[0]), self.nodes[1:]).mean())


def unicasts(
    members: Members, senders: IntArray, receivers: IntArray, payload: IntArray, *, combine: bool = False
) -> Program:
    """Program of unicasts that start together.

    Args:
        senders, receivers: (messages,) places; no member sends to itself.
        payload: (messages,) number of the payload that each carries.
        combine: whether receivers add what they get to what they have.
    """
    builder, every = HopBuilder(), np.arange(len(senders), dtype=np.int64)
    cycles = members.combine_cycles if combine else 0
    paths = members.interconnect.flows.paths(members.nodes[senders], members.nodes[receivers])
    first, last = paths.add_to(builder, every, 0)
    builder.start(senders, first)
    builder.end(last, receivers, paths.end_cycles + cycles)
    builder.keep(members.places, members.places, np.where(np.isin(members.places, receivers), cycles, 0))
    hops = builder.build(members.count, members.count, len(senders))
    return Program(hops, members.nodes[senders], payload)


def pairs(members: Members, sends: IntArray) -> tuple[IntArray, IntArray]:
    """(messages,) pairs of places: each of `sends` with every other place, the next one first and so on around."""
    away = np.arange(1, members.count, dtype=np.int64)[:, None]
    return np.tile(sends, len(away)), ((sends + away) % members.count).ravel()


def direct_reduce_scatter(members: Members, parts: IntArray) -> Program:
    """Program in which everybody sends each of the others its term of that one's part.

    `parts` are the places whose parts are not empty.
    """
    receivers, senders = pairs(members, parts)
    return unicasts(members, senders, receivers, receivers, combine=True)


def direct_all_gather(members: Members, parts: IntArray) -> Program:
    """Program in which everybody sends its part to each of the others; `parts`: places whose parts are not empty."""
    senders, receivers = pairs(members, parts)
    return unicasts(members, senders, receivers, senders)


def ring_reduce_scatter(members: Members) -> Program:
    """`exchanges.ring_reduce_scatter` around `Members.ring`."""
    away = np.arange(members.count - 1, dtype=np.int64) + 1
    return _adding(members, lambda builder: _once(builder, members, away, forth=True))


def ring_all_gather(members: Members) -> Program:
    """`exchanges.ring_all_gather` around `Members.ring`."""
    forth = members.interconnect.flows.routes.coordinates is None
    away = np.arange(members.count - 1, dtype=np.int64)
    return _passing(members, lambda builder: _once(builder, members, away, forth=forth))


def recursive_halving(members: Members) -> Program:
    """`exchanges.recursive_halving` among the members, a power of two."""
    return _adding(members, lambda builder: blocks(builder, members.pattern, halving=True))


def recursive_doubling(members: Members) -> Program:
    """`exchanges.recursive_doubling` among the members, a power of two."""
    return _passing(members, lambda builder: blocks(builder, members.pattern, halving=False))


def doubling_all_reduce(members: Members) -> Program:
    """`exchanges.doubling_all_reduce` among the members, a power of two. Payload: the whole."""
    return _adding(members, lambda builder: doublings(builder, members.pattern, np.zeros_like(members.places)))


def tree_reduce(members: Members, target: int) -> Program:
    """A reduction by a binomial tree to a place, in the rounds of `relays.tree_reduce`. Payload: the whole."""
    orders = [_from_place(members, target)]

    def fill(builder: RoundsBuilder) -> None:
        for distance in tree_distances(orders):
            add_round(builder, orders, distance, towards_hub=True)

    return _adding(members, fill)


def tree_broadcast(members: Members, source: int) -> Program:
    """A broadcast by a binomial tree from a place, in the rounds of `relays.tree_broadcast`. Payload: the whole."""
    orders = [_from_place(members, source)]

    def fill(builder: RoundsBuilder) -> None:
        for distance in tree_distances(orders)[::-1]:
            add_round(builder, orders, distance, towards_hub=False)

    return _passing(members, fill)


def _once(builder: RoundsBuilder, members: Members, away: IntArray, *, forth: bool) -> None:
    turns(builder, [members.ring], away, forth=forth)
    builder.settle()


def _from_place(members: Members, place: int) -> IntArray:
    """All places in the order of `Members.path`, from this one on and around."""
    path = members.path
    return np.roll(path, -int(np.flatnonzero(path == place)[0]))


def _adding(members: Members, fill: Callable[[RoundsBuilder], None]) -> Program:
    return _in_rounds(members, Costs(receive=members.combine_cycles), fill)


def _passing(members: Members, fill: Callable[[RoundsBuilder], None]) -> Program:
    return _in_rounds(members, Costs(send=members.interconnect.topology.forward_cycles), fill)


def _in_rounds(members: Members, costs: Costs, fill: Callable[[RoundsBuilder], None]) -> Program:
    places = members.places
    builder = RoundsBuilder(members.interconnect, members.nodes, places, costs)
    fill(builder)
    return builder.program(builder.finish(places, places, members.count, members.count), members.nodes)
