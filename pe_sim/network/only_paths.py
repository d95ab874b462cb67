"""Graphs without cycles, where there is one path between any two nodes: seen from any node without a search."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pe_sim.units import IntArray

_NONE = -1


@dataclass(frozen=True, eq=False, slots=True)
class OnlyPaths:
    """A graph without cycles, hung up at node 0; arrays are (nodes,).

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
        """(nodes,) the edge by which each node is reached from `node`, or leaves towards it; and how far it is."""
        path = [node]
        while self.parent[path[-1]] != _NONE:
            path.append(int(self.parent[path[-1]]))
        towards, away = (self.down, self.up) if outward else (self.up, self.down)
        edge = towards.copy()  # from above, but for the nodes above `node`: from the one below them
        edge[path[1:]] = away[path[:-1]]
        edge[node] = _NONE
        meeting = np.zeros(len(edge), dtype=np.int64)  # the depth of the node where the ways up from both meet
        above = np.zeros(len(edge), dtype=bool)
        above[path] = True
        for level in self.levels:
            meeting[level] = np.where(above[level], self.depth[level], meeting[self.parent[level]])
        return edge, self.depth + self.depth[node] - 2 * meeting


def only_paths(edges: IntArray, num_nodes: int) -> OnlyPaths | None:
    """Of (edges, 2 or 3) pairs of nodes; None if there are cycles, ways that lead one way only, or parts apart."""
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
