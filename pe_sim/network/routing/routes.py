"""Routes of messages: one path between any two nodes, such that the paths from or to a node form a tree.

Meshes, tori, rings and hypercubes route in the order of their dimensions; everything else takes the path of least
latency, which in a tree is the only one. A message prefers a shared bus, a reduction the links on which nodes can
combine.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from pe_sim.config.networks.network import GraphNetwork
from pe_sim.config.networks.shapes import CubeShape, GridShape, PathShape
from pe_sim.network.topology.topology import TAP, Topology
from pe_sim.units import BoolArray, IntArray

if TYPE_CHECKING:
    from scipy.sparse import csr_array


# ---- Graphs without cycles: there is one path between any two nodes, which takes no search.


_NONE = -1


@dataclass(frozen=True, eq=False, slots=True)
class OnlyPaths:
    """A graph without cycles as a tree below node 0; arrays are (nodes,).

    Args:
        parent: the node above; -1 for node 0.
        depth: edges to node 0.
        up, down: the edges to the parent and from it.
        levels: the nodes of each depth, from 1 on.
    """

    parent: IntArray
    depth: IntArray
    up: IntArray
    down: IntArray
    levels: tuple[IntArray, ...]

    def seen_from(self, node: int, *, outward: bool) -> tuple[IntArray, IntArray]:
        """(nodes,) the edge by which each is reached from `node`, or leaves towards it; and the distance in edges."""
        path = [node]
        while self.parent[path[-1]] != _NONE:
            path.append(int(self.parent[path[-1]]))
        towards, away = (self.down, self.up) if outward else (self.up, self.down)
        edge = towards.copy()  # each node is reached from above, except the nodes above `node`: these from below
        edge[path[1:]] = away[path[:-1]]
        edge[node] = _NONE
        meeting = np.zeros(len(edge), dtype=np.int64)  # the depth of the node where the ways up from both meet
        above = np.zeros(len(edge), dtype=bool)
        above[path] = True
        for level in self.levels:
            meeting[level] = np.where(above[level], self.depth[level], meeting[self.parent[level]])
        return edge, self.depth + self.depth[node] - 2 * meeting


def only_paths(edges: IntArray, num_nodes: int) -> OnlyPaths | None:
    """The tree of (edges, 2 or 3) pairs of nodes; None if it has cycles, is in parts, or an edge goes one way only."""
    if len(edges) != 2 * (num_nodes - 1):
        return None
    keys = edges[:, 0] * num_nodes + edges[:, 1]
    order = np.argsort(keys)
    sources, targets = edges[order, 0], edges[order, 1]
    first = np.searchsorted(sources, np.arange(num_nodes + 1))
    parent = np.full(num_nodes, _NONE, dtype=np.int64)
    depth = np.full(num_nodes, _NONE, dtype=np.int64)
    depth[0] = 0
    here, levels = np.zeros(1, dtype=np.int64), []
    while len(here):
        sizes = first[here + 1] - first[here]
        positions = np.arange(int(sizes.sum())) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        found = targets[np.repeat(first[here], sizes) + positions]
        before = np.repeat(here, sizes)
        new = depth[found] == _NONE
        here, before = found[new], before[new]
        parent[here], depth[here] = before, depth[before] + 1
        if len(here):
            levels.append(here)
    if (depth == _NONE).any():
        return None
    nodes = np.arange(1, num_nodes, dtype=np.int64)
    up = np.full(num_nodes, _NONE, dtype=np.int64)
    down = up.copy()
    for edge, wanted in ((up, nodes * num_nodes + parent[1:]), (down, parent[1:] * num_nodes + nodes)):
        found = np.minimum(np.searchsorted(keys[order], wanted), len(order) - 1)
        if (keys[order][found] != wanted).any():
            return None
        edge[1:] = order[found]
    return OnlyPaths(parent, depth, up, down, tuple(levels))


# ---- PEs that have coordinates, where a path goes dimension by dimension.


@dataclass(frozen=True, slots=True)
class Coordinates:
    """Coordinates of the PEs of a grid: PE i has coordinate i // stride mod size in each dimension.

    Args:
        sizes, strides: sizes and strides of the dimensions, in the order in which a message travels them.
        wraps: whether the ends of a dimension are neighbours.
    """

    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    wraps: bool

    def neighbours(self, pe: int, *, outward: bool) -> tuple[IntArray, IntArray]:
        """(PEs,) the PE before each on its path from `pe`, or after it on its path to `pe`; and (PEs,) its distance.

        A ring is travelled the shorter way, upwards if both are as short. The neighbour of `pe` is `pe` itself.
        """
        pes = np.arange(int(np.prod(self.sizes)), dtype=np.int64)
        beside, depth = pes.copy(), np.zeros_like(pes)
        settled = np.zeros(len(pes), dtype=bool)
        # A path from `pe` takes its last step in the last dimension; a path to it takes its first in the first one.
        for size, stride in self._dimensions(outward):
            here, origin = pes // stride % size, pe // stride % size
            offset = here - origin
            step, distance = self._step(offset, size, outward)
            moved = pes + ((here + step) % size - here) * stride
            depth += distance
            beside = np.where(~settled & (offset != 0), moved, beside)
            settled |= offset != 0
        return beside, depth

    def _dimensions(self, outward: bool) -> list[tuple[int, int]]:
        dimensions = list(zip(self.sizes, self.strides, strict=True))
        return dimensions[::-1] if outward else dimensions

    def _step(self, offset: IntArray, size: int, outward: bool) -> tuple[IntArray, IntArray]:
        """The step in one dimension that brings a PE nearer to `pe`, and the distance, from its offset from `pe`."""
        if not self.wraps:
            return -np.sign(offset), np.abs(offset)
        up = offset % size  # steps upwards from pe to here
        down = (size - up) % size
        back = up <= down if outward else up < down  # a path upwards wins a tie: from pe, or from here
        return np.where(up == 0, 0, np.where(back, -1, 1)), np.minimum(up, down)


def coordinates_of(network: GraphNetwork, num_pes: int) -> Coordinates | None:
    """The coordinates of the PEs of a line, ring, mesh, torus or hypercube; None for other kinds."""
    match network.shape:
        case PathShape():
            return _coordinates((num_pes,), wraps=network.kind == "ring")
        case GridShape(rows=rows, cols=cols):
            return _coordinates((cols, rows), wraps=network.kind == "torus")
        case CubeShape():
            return _coordinates((2,) * (num_pes.bit_length() - 1), wraps=False)
    return None


def _coordinates(sizes: tuple[int, ...], *, wraps: bool) -> Coordinates:
    strides = [1]
    for size in sizes:
        strides.append(strides[-1] * size)
    return Coordinates(sizes, tuple(strides[:-1]), wraps)


UNREACHED = -1
_MOST_KEPT = 1 << 25  # entries of trees, of 16 bytes each
_BUSES, _LINKS, _ALL = "buses", "links", "all"  # which edges a path may take


@dataclass(frozen=True, slots=True)
class Tree:
    """The paths from one node to all others, or from all others to it.

    Args:
        edge: (nodes,) the edge by which each node is reached, or by which its path leaves it; UNREACHED at the tree's
            own node and where no path leads.
        depth: (nodes,) edges between each node and the tree's own; UNREACHED where no path leads.
        outward: whether the paths come from the tree's own node; else they lead to it.
    """

    edge: IntArray
    depth: IntArray
    outward: bool


@dataclass(frozen=True, eq=False)
class Routes:
    """The routes of one topology; it keeps trees, where nodes are very many only the latest."""

    topology: Topology
    coordinates: Coordinates | None
    known: dict[tuple[int, bool, str], Tree] = field(default_factory=dict, repr=False)
    graphs: dict[tuple[bool, str], csr_array] = field(default_factory=dict, repr=False)

    def outward(self, source: int, nodes: IntArray, *, over_buses: bool = True) -> Tree:
        """Paths from a node to some others: over buses, or around them, if that leads to all of `nodes`."""
        return self._preferred(source, nodes, outward=True, over_buses=over_buses)

    def inward(self, target: int, nodes: IntArray, *, over_buses: bool = False) -> Tree:
        """Paths from some nodes to `target`; buses are used as in `outward`."""
        return self._preferred(target, nodes, outward=False, over_buses=over_buses)

    def meeting_point(self, nodes: IntArray) -> int:
        """The first node that the paths of all these nodes to the root share: the joint of a group of PEs."""
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
        """(pairs,) the edge between each pair of neighbours; any edge where they are none."""
        keys, order = self._edge_keys
        found = np.searchsorted(keys, sources * len(self.topology.nodes) + targets)
        edges: IntArray = order[np.minimum(found, len(order) - 1)]
        return edges

    def direct_edges(self, sources: IntArray, targets: IntArray) -> tuple[IntArray, IntArray]:
        """The edges between those pairs that have one, and the numbers of these pairs."""
        edges, found = self._edges(sources, targets), self.topology.edges
        here = np.flatnonzero((found[edges, 0] == sources) & (found[edges, 1] == targets))
        return edges[here], here

    def _edge(self, source: int, target: int) -> int:
        return int(self._edges(np.array([source]), np.array([target]))[0])

    # ------------------------------------------------------------------------------------------------- by least latency
    def _by_latency(self, node: int, outward: bool, plane: str) -> Tree:
        """The tree of least latency by Dijkstra's algorithm; of several shortest paths the one over lower nodes."""
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
        """Matrix of weights of the edges that a path may take, forwards or backwards; kept."""
        if (outward, plane) not in self.graphs:
            # Imported here because it takes a third of a second, and arrays with one bus and one tree never need it.
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
        """(edges,) weight of each edge: cycles of a head times the number of nodes, plus 1.

        Among paths of equal latency the one of the fewest edges wins; the remainder of a path's weight counts them.
        """
        channels, channel = self.topology.channels, self.topology.edges[:, 2]
        cycles = (channels.overhead_cycles + channels.latency_cycles)[channel]
        return np.where(channel == TAP, 0, cycles) * len(self.topology.nodes) + 1
