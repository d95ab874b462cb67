"""Which way a message takes: one path between any two nodes, such that the paths from or to a node form a tree.

Meshes, tori, rings and hypercubes route in the order of their dimensions; everything else takes the path of least
latency, which in a tree is the only one. A message prefers a shared bus, a reduction the links on which nodes can
combine.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from pe_sim.network.channels import TAP
from pe_sim.network.coordinates import Coordinates
from pe_sim.network.only_paths import OnlyPaths, only_paths
from pe_sim.network.topology import Topology
from pe_sim.units import BoolArray, IntArray

if TYPE_CHECKING:
    from scipy.sparse import csr_array

UNREACHED = -1
_MOST_KEPT = 1 << 25  # entries of trees, of 16 bytes each
_BUSES, _LINKS, _ALL = "buses", "links", "all"  # which edges a path may take


@dataclass(frozen=True, slots=True)
class Tree:
    """The paths from one node to all others, or from all others to it.

    Args:
        edge: (nodes,) of each node the edge by which it is reached, or by which it leaves; UNREACHED at the tree's own
            node and where no path leads.
        depth: (nodes,) edges between each node and the tree's own; UNREACHED where no path leads.
        outward: whether the paths come from the tree's own node; else they lead to it.
    """

    edge: IntArray
    depth: IntArray
    outward: bool


@dataclass(frozen=True, eq=False)
class Routes:
    """The routes of one topology; trees are kept, of very many nodes the latest."""

    topology: Topology
    coordinates: Coordinates | None
    known: dict[tuple[int, bool, str], Tree] = field(default_factory=dict, repr=False)
    graphs: dict[tuple[bool, str], csr_array] = field(default_factory=dict, repr=False)

    def outward(self, source: int, nodes: IntArray, *, over_buses: bool = True) -> Tree:
        """Paths from a node to some others: over buses, or around them, where that leads to all of them."""
        return self._preferred(source, nodes, outward=True, over_buses=over_buses)

    def inward(self, target: int, nodes: IntArray, *, over_buses: bool = False) -> Tree:
        """Paths from some nodes to one."""
        return self._preferred(target, nodes, outward=False, over_buses=over_buses)

    def meeting_point(self, nodes: IntArray) -> int:
        """The node where the paths of some nodes to the root first are one: the joint of a group of PEs."""
        tree = self.inward(self.topology.num_pes, nodes)
        targets = self.topology.edges[:, 1]
        here = np.unique(nodes)
        while len(here) > 1:
            depth = tree.depth[here]
            deepest = depth == depth.max()
            here = np.unique(np.where(deepest, targets[tree.edge[here]], here))
        return int(here[0])

    def _preferred(self, node: int, nodes: IntArray, *, outward: bool, over_buses: bool) -> Tree:
        if not self.topology.is_bus.any():
            return self._tree(node, outward, _ALL)
        tree = self._tree(node, outward, _BUSES if over_buses else _LINKS)
        if (tree.depth[nodes] == UNREACHED).any():
            return self._tree(node, outward, _ALL)
        return tree

    def _tree(self, node: int, outward: bool, plane: str) -> Tree:
        key = (node, outward, _ALL if self.coordinates or self._only_paths else plane)
        if key not in self.known:
            tree = self._by_coordinates(node, outward) or self._along_only_paths(node, outward)
            if self.known and (len(self.known) + 1) * len(self.topology.nodes) > _MOST_KEPT:
                del self.known[next(iter(self.known))]
            self.known[key] = tree or self._by_latency(node, outward, plane)
        return self.known[key]

    # ------------------------------------------------------------------------------------------------------- in a tree
    @cached_property
    def _only_paths(self) -> OnlyPaths | None:
        return None if self.topology.is_bus.any() else only_paths(self.topology.edges, len(self.topology.nodes))

    @property
    def is_tree(self) -> bool:
        """Whether there is one path between any two nodes, so that routes take no search."""
        return self._only_paths is not None

    def _along_only_paths(self, node: int, outward: bool) -> Tree | None:
        if self._only_paths is None:
            return None
        return Tree(*self._only_paths.seen_from(node, outward=outward), outward)

    # ------------------------------------------------------------------------------------------ in order of dimensions
    def _by_coordinates(self, node: int, outward: bool) -> Tree | None:
        if self.coordinates is None:
            return None
        topology, root = self.topology, self.topology.num_pes
        gate = self._gate
        pe = gate if node == root else node
        pes = np.arange(topology.num_pes, dtype=np.int64)
        beside, depth = self.coordinates.neighbours(pe, outward=outward)
        edge = np.full(len(topology.nodes), UNREACHED, dtype=np.int64)
        edge[:root] = np.where(pes == pe, UNREACHED, self._edges(beside, pes) if outward else self._edges(pes, beside))
        depths = np.append(depth + (node == root), 0 if node == root else depth[gate] + 1)
        if node == root:
            edge[pe] = self._edge(root, pe) if outward else self._edge(pe, root)
        else:
            edge[root] = self._edge(gate, root) if outward else self._edge(root, gate)
        return Tree(edge, depths, outward)

    @cached_property
    def _gate(self) -> int:
        """The PE that the root is attached to."""
        edges, root = self.topology.edges, self.topology.num_pes
        return int(edges[edges[:, 0] == root, 1][0])

    @cached_property
    def _edge_keys(self) -> tuple[IntArray, IntArray]:
        keys = self.topology.edges[:, 0] * len(self.topology.nodes) + self.topology.edges[:, 1]
        order = np.argsort(keys)
        return keys[order], order

    def _edges(self, sources: IntArray, targets: IntArray) -> IntArray:
        """Edges between pairs of neighbours; anything where they are none."""
        keys, order = self._edge_keys
        found = np.searchsorted(keys, sources * len(self.topology.nodes) + targets)
        edges: IntArray = order[np.minimum(found, len(order) - 1)]
        return edges

    def direct_edges(self, sources: IntArray, targets: IntArray) -> tuple[IntArray, IntArray]:
        """Edges between those pairs that have one, and which pairs these are."""
        edges, found = self._edges(sources, targets), self.topology.edges
        here = np.flatnonzero((found[edges, 0] == sources) & (found[edges, 1] == targets))
        return edges[here], here

    def _edge(self, source: int, target: int) -> int:
        return int(self._edges(np.array([source]), np.array([target]))[0])

    # ------------------------------------------------------------------------------------------------- by least latency
    def _by_latency(self, node: int, outward: bool, plane: str) -> Tree:
        """Dijkstra's algorithm; of several shortest paths the one over lower nodes."""
        from scipy.sparse.csgraph import dijkstra

        weight, before = dijkstra(self._graph(outward, plane), indices=node, return_predecessors=True)
        before = before.astype(np.int64)
        nodes = np.arange(len(before), dtype=np.int64)
        reached = before >= 0
        edge = np.where(reached, self._edges(*((before, nodes) if outward else (nodes, before))), UNREACHED)
        weight = np.where(np.isfinite(weight), weight, 0.0).astype(np.int64)
        depth = np.where(reached | (nodes == node), weight % len(nodes), UNREACHED)  # see `_weights`
        return Tree(edge, depth, outward)

    def _graph(self, outward: bool, plane: str) -> csr_array:
        """The edges a path may take, forwards or backwards, with their weights; kept."""
        if (outward, plane) not in self.graphs:
            # Imported here: a third of a second that arrays with one bus and one tree do without.
            from scipy.sparse import csr_array

            allowed = {_BUSES: self._touches_bus, _LINKS: ~self._touches_bus}.get(plane)
            kept = slice(None) if allowed is None else allowed
            first, last = self.topology.edges[kept, :2].T if outward else self.topology.edges[kept, 1::-1].T
            shape = (len(self.topology.nodes), len(self.topology.nodes))
            self.graphs[outward, plane] = csr_array((self._weights[kept].astype(float), (first, last)), shape=shape)
        return self.graphs[outward, plane]

    @cached_property
    def _touches_bus(self) -> BoolArray:
        is_bus, edges = self.topology.is_bus, self.topology.edges
        return is_bus[edges[:, 0]] | is_bus[edges[:, 1]]

    @cached_property
    def _weights(self) -> IntArray:
        """(edges,) cycles of a head, then one: the fewest edges win among equals, a path's remainder counts them."""
        channels, channel = self.topology.channels, self.topology.edges[:, 2]
        cycles = (channels.overhead_cycles + channels.latency_cycles)[channel]
        return np.where(channel == TAP, 0, cycles) * len(self.topology.nodes) + 1
