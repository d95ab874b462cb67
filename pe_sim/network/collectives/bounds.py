"""Lower bounds of the cycles of algorithms, cheap to compute, so that `best` need not try what cannot win.

A bound that holds for every target of the largest scope adds up with that of the program that follows. The other kind,
from what a channel or a cut has to carry, holds for the whole program.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from pe_sim.network.collectives.programs import Bound, Pattern
from pe_sim.network.collectives.ring_orders import box_of, ring_order
from pe_sim.network.interconnect import Interconnect
from pe_sim.network.routing.hops import Program
from pe_sim.network.routing.routes import Coordinates
from pe_sim.network.topology.topology import TAP
from pe_sim.units import IntArray, ceil_div

Cycles = Callable[[Interconnect, Pattern], int]


def combining(_interconnect: Interconnect, pattern: Pattern) -> int:
    """Cycles that an end point takes to add a message to what it has."""
    return pattern.combine_cycles


def forwarding(interconnect: Interconnect, _pattern: Pattern) -> int:
    """Cycles that an end point takes before it passes a message on."""
    return interconnect.topology.forward_cycles


def ring(cycles: Cycles) -> Callable[[Interconnect, Pattern, IntArray], Bound]:
    """Bound of a ring: a part takes P - 1 hops, one after another, over all pairs of neighbours but the farthest.

    `cycles` are those at an end point: `combining` or `forwarding`; so below.
    """

    def bound(interconnect: Interconnect, pattern: Pattern, payload_bytes: IntArray) -> Bound:
        pes, coordinates = pattern.pes(_largest(pattern)), interconnect.flows.routes.coordinates
        facts, hops = _facts(interconnect), len(pes) - 1
        order = ring_order(coordinates, pes)
        if coordinates is not None and hops:
            ways = distances(coordinates, order, np.roll(order, -1)) * facts.flight
            flights = int(ways.sum() - ways.max())
        elif interconnect.flows.routes.is_tree and hops:
            flights = _flights_around(interconnect, order)
        else:
            flights = hops * facts.flight
        stored = facts.beats(int(payload_bytes[pes].min())) + cycles(interconnect, pattern)
        return Bound(flights + hops * stored)

    return bound


def blocks(cycles: Cycles) -> Callable[[Interconnect, Pattern, IntArray], Bound]:
    """Bound of recursive halving or doubling: log2 P rounds, with messages of 1, 2, 4, ... parts in some order."""

    def bound(interconnect: Interconnect, pattern: Pattern, payload_bytes: IntArray) -> Bound:
        pes, facts = pattern.pes(_largest(pattern)), _facts(interconnect)
        part, stored = int(payload_bytes[pes].min()), cycles(interconnect, pattern)
        sizes = _doublings(pes)
        crossing = [facts.cut(pes[:size], size * size * part) for size in sizes]
        flights = _flights(interconnect, pes, sizes)
        beats = sum(stored + facts.beats(part * size) for size in sizes)
        return Bound(flights + beats, max(crossing, default=0))

    return bound


def doubling(interconnect: Interconnect, pattern: Pattern, payload_bytes: IntArray) -> Bound:
    """Bound of an all-reduce by recursive doubling: log2 P rounds, with messages of the whole value."""
    scope, facts = _largest(pattern), _facts(interconnect)
    pes, whole = pattern.pes(scope), int(payload_bytes[scope])
    sizes = _doublings(pes)
    stored = pattern.combine_cycles + facts.beats(whole)
    crossing = [facts.cut(pes[:size], size * whole) for size in sizes]
    return Bound(_flights(interconnect, pes, sizes) + len(sizes) * stored, max(crossing, default=0))


def dimensions(cycles: Cycles) -> Callable[[Interconnect, Pattern, IntArray], Bound]:
    """Bound of rings along each dimension: a message carries a part for each PE of the dimensions still to come."""

    def bound(interconnect: Interconnect, pattern: Pattern, payload_bytes: IntArray) -> Bound:
        pes, facts = pattern.pes(_largest(pattern)), _facts(interconnect)
        part, total, inner = int(payload_bytes[pes].min()), 0, len(pes)
        for side in box_of(interconnect.flows.routes.coordinates, pes) or ():
            inner //= side.length
            each = facts.flight + cycles(interconnect, pattern) + facts.beats(part * inner)
            total += (side.length - 1) * each
        return Bound(total)

    return bound


def star_in(interconnect: Interconnect, pattern: Pattern, payload_bytes: IntArray) -> Bound:
    """Bound of a reduction by unicasts: the channels into the hub carry a message from each PE."""
    scope, facts = _largest(pattern), _facts(interconnect)
    hub, others = int(pattern.hub[scope]), int(pattern.sizes[scope]) - 1
    return Bound(0, others * facts.busy(int(payload_bytes[scope])) // max(1, int(facts.degrees[hub, 1])))


def star_out(interconnect: Interconnect, pattern: Pattern, payload_bytes: IntArray) -> Bound:
    """Bound of a broadcast by unicasts: the channels out of the hub carry one for each PE, lower PEs first.

    Each then still has its way to its PE before it.
    """
    scope, facts = _largest(pattern), _facts(interconnect)
    hub, pes = int(pattern.hub[scope]), pattern.pes(scope)
    pes = pes[pes != hub]
    if not len(pes):
        return Bound()
    sent = np.arange(len(pes)) * facts.busy(int(payload_bytes[scope])) // max(1, int(facts.degrees[hub, 0]))
    taps = 2 if interconnect.topology.is_bus.any() else 1  # of two edges one may be a tap, which costs nothing
    return Bound(0, int((sent + interconnect.flows.distances_to(hub, pes) // taps * facts.least_flight).max()))


def serial(interconnect: Interconnect, pattern: Pattern, payload_bytes: IntArray) -> Bound:
    """Bound of an all-gather by multicasts: the channels into a PE carry a message from every other."""
    facts, pes = _facts(interconnect), pattern.pes(_largest(pattern))
    received = int(payload_bytes[pes].sum() - payload_bytes[pes].max())
    return Bound(received // (facts.width * max(1, int(facts.degrees[pes, 1].max()))))


def load(interconnect: Interconnect, program: Program, payload_bytes: IntArray) -> int:
    """Cycles that the busiest channel of a program is occupied."""
    channels, hops = interconnect.topology.channels, program.hops
    _, busy = hops.occupancy(channels, program.message_bytes(payload_bytes))
    return int(np.bincount(hops.channel, weights=busy).max(initial=0))


def distances(coordinates: Coordinates, first: IntArray, second: IntArray) -> IntArray:
    """(pairs,) number of channels between pairs of PEs of a grid."""
    total = np.zeros(len(first), dtype=np.int64)
    for size, stride in zip(coordinates.sizes, coordinates.strides, strict=True):
        away = np.abs(first // stride % size - second // stride % size)
        total += np.minimum(away, size - away) if coordinates.wraps else away
    return total


def _flights_around(interconnect: Interconnect, order: IntArray) -> int:
    """Cycles in which a message's head goes around a ring, without the pair of neighbours that is farthest apart."""
    channels = interconnect.topology.channels
    paths = interconnect.flows.paths(order, np.roll(order, -1))
    flight = (channels.overhead_cycles + channels.latency_cycles)[paths.channel]
    ways = np.bincount(paths.message, weights=flight)
    return int(ways.sum() - ways.max())


def _doublings(pes: IntArray) -> list[int]:
    """1, 2, 4, ... below the number of PEs."""
    return [1 << bit for bit in range((len(pes) - 1).bit_length())]


def _flights(interconnect: Interconnect, pes: IntArray, sizes: list[int]) -> int:
    """Least cycles that heads of messages fly in exchanges at these distances, one after the other."""
    coordinates, flight = interconnect.flows.routes.coordinates, _facts(interconnect).flight
    if coordinates is None:
        return len(sizes) * flight
    places = np.arange(len(pes), dtype=np.int64)
    partners = [(places ^ size) for size in sizes]
    return sum(
        flight * int(distances(coordinates, pes[there < len(pes)], pes[there[there < len(pes)]]).min())
        for there in partners
    )


class _Facts:
    """Figures of an interconnect that bounds need: extremes over its channels, and edges out of and into each node."""

    def __init__(self, interconnect: Interconnect) -> None:
        topology = interconnect.topology
        channels, edges, num_pes = topology.channels, topology.edges, topology.num_pes
        self._edges, self._widths, self._num_pes = edges, channels.bytes_per_cycle, num_pes
        self.overhead = int(channels.overhead_cycles.min(initial=0))
        flight = channels.overhead_cycles + channels.latency_cycles
        self.least_flight = int(flight.min(initial=0))
        carrying = edges[edges[:, 2] != TAP]
        leaving, entering = carrying[carrying[:, 0] < num_pes], edges[edges[:, 1] < num_pes]
        self.width = int(channels.bytes_per_cycle.max(initial=1))
        self.out_width = int(channels.bytes_per_cycle[leaving[:, 2]].max(initial=1))
        self.flight = int(flight[leaving[:, 2]].min()) if len(leaving) else 0
        if len(entering) and not (leaving[:, 1] < num_pes).any():  # over at least one node between
            self.flight += int(np.where(entering[:, 2] == TAP, 0, flight[entering[:, 2]]).min())
        nodes = len(topology.nodes)
        self.degrees = np.stack(
            [np.bincount(edges[:, 0], minlength=nodes), np.bincount(edges[:, 1], minlength=nodes)], axis=1
        )

    def busy(self, num_bytes: int) -> int:
        """Least cycles that a message occupies a channel, whichever it is."""
        return self.overhead + ceil_div(num_bytes, self.width)

    def beats(self, num_bytes: int) -> int:
        """Least beats of a message on a channel that leaves a PE."""
        return ceil_div(num_bytes, self.out_width)

    def cut(self, pes: IntArray, num_bytes: int) -> int:
        """Least cycles in which so many bytes can leave a set of PEs, over all channels out of it."""
        inside = np.zeros(len(self.degrees), dtype=bool)
        inside[pes] = True
        leaving = inside[self._edges[:, 0]] & ~inside[self._edges[:, 1]] & (self._edges[:, 2] != TAP)
        return num_bytes // max(1, int(self._widths[self._edges[leaving, 2]].sum()))


@lru_cache(maxsize=32)
def _facts(interconnect: Interconnect) -> _Facts:
    return _Facts(interconnect)


def _largest(pattern: Pattern) -> int:
    return int(np.argmax(pattern.sizes))
