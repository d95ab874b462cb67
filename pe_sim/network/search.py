"""Metrics of any graph, where no closed form is known: the diameter by counting, the bisection by trying cuts."""

from __future__ import annotations

from itertools import combinations
from typing import Final

import numpy as np

from pe_sim.network.assembly import Bisection
from pe_sim.network.topology import Topology
from pe_sim.units import BoolArray, IntArray

EXACT_PES: Final = 8  # up to 70 halves, each a maximum flow
EXACT_NODES: Final = 64
SPECTRAL_NODES: Final = 1024  # an eigenvector of so many takes a second
SWAP_PES: Final = 64


def count_diameter(topology: Topology) -> int:
    """Channels on the longest of the shortest ways between two PEs; a bus is one."""
    num_pes, nodes = topology.num_pes, len(topology.nodes)
    after: list[list[int]] = [[] for _ in range(nodes)]
    for source, target, _ in topology.edges.tolist():
        after[source].append(target)
    is_bus = topology.is_bus.tolist()
    everyone = (1 << num_pes) - 1
    heard = [1 << node if node < num_pes else 0 for node in range(nodes)]  # the PEs whose news have come here
    fresh = {node: heard[node] for node in range(num_pes)}
    hops = 0
    while any(mask != everyone for mask in heard[:num_pes]):
        assert fresh, "some PE does not reach another"
        hops += 1
        arrivals: dict[int, int] = {}
        for node, mask in fresh.items():
            for target in after[node]:
                arrivals[target] = arrivals.get(target, 0) | mask
        for bus in [node for node in arrivals if is_bus[node]]:  # whoever listens hears it at once
            mask = arrivals.pop(bus)
            for target in after[bus]:
                arrivals[target] = arrivals.get(target, 0) | mask
        fresh = {}
        for node, mask in arrivals.items():
            news = mask & ~heard[node]
            if news:
                heard[node] |= news
                fresh[node] = news
    return hops


def search_bisection(topology: Topology) -> Bisection:
    """The least width from one half of the PEs to the other: exact for few PEs, else the best cut that was tried."""
    if topology.num_pes < 2:
        return Bisection(0, "exact")
    if topology.num_pes <= EXACT_PES and len(topology.nodes) <= EXACT_NODES:
        return Bisection(_exact(topology), "exact: the maximum flow between every two halves")
    cuts = _Cuts(topology)
    tried = [cuts.width(cuts.improved(half)) for half in _candidates(topology)]
    return Bisection(min(tried), f"upper bound: the best of {len(tried)} cuts (orders of the PEs, spectral, swaps)")


def _exact(topology: Topology) -> int:
    import networkx

    flow = networkx.DiGraph()
    for source, target, channel in topology.edges.tolist():
        if topology.is_bus[target]:  # a bus carries what all its senders send
            flow.add_edge(source, ("in", target))
            width = int(topology.channels.bytes_per_cycle[channel])
            flow.add_edge(("in", target), target, capacity=width)
        elif channel < 0:
            flow.add_edge(source, target)
        else:
            flow.add_edge(source, target, capacity=int(topology.channels.bytes_per_cycle[channel]))
    pes, least = set(range(topology.num_pes)), np.iinfo(np.int64).max
    for size in {len(pes) // 2, len(pes) - len(pes) // 2}:
        for half in combinations(sorted(pes), size):
            flow.add_edges_from(("from", pe) for pe in half)
            flow.add_edges_from((pe, "to") for pe in pes.difference(half))
            least = min(least, networkx.maximum_flow_value(flow, "from", "to"))
            flow.remove_nodes_from(["from", "to"])
    return int(least)


class _Cuts:
    """The widths of cuts of one topology; a cut says of each node whether it is on the first side."""

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        edges = topology.edges
        widths = np.append(topology.channels.bytes_per_cycle, 0)
        self._sources, self._targets, self._channels = edges.T
        self._bus_of = np.where(topology.is_bus[self._targets], self._targets, -1)
        self._widths: IntArray = widths[self._channels]

    def width(self, side: BoolArray) -> int:
        """Bytes per cycle across the cut, in the direction that has fewer."""
        return min(self._one_way(side), self._one_way(~side))

    def _one_way(self, side: BoolArray) -> int:
        plain = (self._bus_of < 0) & side[self._sources] & ~side[self._targets]
        total = int(self._widths[plain].sum())
        for bus in np.flatnonzero(self._topology.is_bus).tolist():
            into, out = self._targets == bus, self._sources == bus
            if side[self._sources[into]].any() and not side[self._targets[out]].all():
                total += int(self._widths[into].max())
        return total

    def improved(self, half: BoolArray) -> BoolArray:
        """Switches go to the side that most of their width leads to; few PEs are also swapped while that helps."""
        side = self._settled(half)
        if self._topology.num_pes > SWAP_PES:
            return side
        best = self.width(side)
        for first in range(self._topology.num_pes):
            for second in range(first):
                if side[first] != side[second]:
                    swapped = side[: self._topology.num_pes].copy()
                    swapped[[first, second]] = swapped[[second, first]]
                    after = self._settled(swapped)
                    width = self.width(after)
                    if width < best:
                        best, side = width, after
        return side

    def _settled(self, half: BoolArray) -> BoolArray:
        num_pes, nodes = self._topology.num_pes, len(self._topology.nodes)
        pull = np.zeros(nodes, dtype=np.int64)
        pull[:num_pes] = np.where(half, 1, -1)
        for _ in range(16):
            ahead = np.zeros(nodes, dtype=np.int64)
            np.add.at(ahead, self._targets, self._widths * np.sign(pull[self._sources]))
            np.add.at(ahead, self._sources, self._widths * np.sign(pull[self._targets]))
            ahead[:num_pes] = pull[:num_pes]
            if np.array_equal(np.sign(ahead), np.sign(pull)):
                break
            pull = ahead
        side: BoolArray = pull > 0
        return side


def _candidates(topology: Topology) -> list[BoolArray]:
    num_pes, nodes = topology.num_pes, len(topology.nodes)
    orders = [np.arange(num_pes), np.arange(num_pes) % 2 * num_pes + np.arange(num_pes)]
    places = [(data["x_mm"], data["y_mm"]) for _, data in topology.graph.nodes(data=True)][:num_pes]
    orders += [np.array([place[axis] for place in places]) for axis in (0, 1)]
    if nodes <= SPECTRAL_NODES:
        weights = np.zeros((nodes, nodes))
        for source, target, channel in topology.edges.tolist():
            width = topology.channels.bytes_per_cycle[channel] if channel >= 0 else 1.0
            weights[source, target] += width
            weights[target, source] += width
        laplacian = np.diag(weights.sum(axis=1)) - weights
        _, vectors = np.linalg.eigh(laplacian)
        orders += [vectors[:num_pes, column] for column in range(1, min(4, nodes))]
    halves = []
    for order in orders:
        half = np.zeros(num_pes, dtype=np.bool_)
        half[np.argsort(np.round(order, 9), kind="stable")[: num_pes // 2]] = True
        halves.append(half)
    return halves
