"""Why an algorithm cannot run on an interconnect, in words; empty if it can."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from pe_sim.network.direct import in_network
from pe_sim.network.flows import CannotCombineError
from pe_sim.network.interconnect import Interconnect
from pe_sim.network.orders import box_of
from pe_sim.network.programs import Algorithm, Pattern, program_of
from pe_sim.network.topology import Topology

_FEWEST_ARMS = 3  # of a star; a line of three PEs is none


def cannot_combine(interconnect: Interconnect, pattern: Pattern) -> str:
    """Values have to meet at nodes that can combine them."""
    if not interconnect.topology.in_network_reduction:
        return "its nodes do not combine (network.in_network_reduction is false)"
    try:
        program_of(interconnect, Algorithm("in_network", in_network), pattern)
    except CannotCombineError:
        return "values meet at a node that cannot combine them"
    return ""


def no_neighbours(interconnect: Interconnect, pattern: Pattern) -> str:
    """PEs that exchange messages all at once need ways of their own: no shared bus."""
    if not interconnect.topology.is_bus.any():
        return ""
    for scope in np.flatnonzero(pattern.sizes > 1).tolist():
        pes = pattern.pes(scope)
        if interconnect.flows.passes_bus(int(pes[0]), pes):
            return "its PEs reach each other over a shared bus, one message at a time"
    return ""


def no_ring(interconnect: Interconnect, pattern: Pattern) -> str:
    """A ring needs neighbours: where all messages pass the same node, no two PEs are closer than others."""
    if not (pattern.sizes > 1).any():
        return ""
    middle = middle_of_star(interconnect)
    if middle is not None:
        return f"it is a star, in which all messages pass {middle}"
    return no_neighbours(interconnect, pattern)


def no_powers_of_two(_interconnect: Interconnect, pattern: Pattern) -> str:
    """Halving takes powers of two."""
    sizes = pattern.sizes
    odd = sizes[(sizes & (sizes - 1)) != 0]
    return f"{odd[0]} PEs are no power of two" if len(odd) else ""


def no_halving(interconnect: Interconnect, pattern: Pattern) -> str:
    """Exchanges at doubling distances."""
    return no_powers_of_two(interconnect, pattern) or no_neighbours(interconnect, pattern)


def no_dimensions(interconnect: Interconnect, pattern: Pattern) -> str:
    """Rings along each dimension take a grid of at least two."""
    coordinates = interconnect.flows.routes.coordinates
    if coordinates is None:
        return "its PEs have no coordinates"
    for scope in range(pattern.num_scopes):
        box = box_of(coordinates, pattern.pes(scope))
        if box is None:
            return f"PEs {pattern.first_pe[scope]} to {pattern.last_pe[scope] - 1} fill no box of its grid"
        if len(box) == 1:
            return "it has one dimension, for which there is ring"
    return ""


@lru_cache(maxsize=32)
def middle_of_star(interconnect: Interconnect) -> str | None:
    """The node that all messages between other PEs pass, if three or more PEs hang there; a bus is one too."""
    topology = interconnect.topology
    if topology.num_pes < _FEWEST_ARMS:
        return None
    for node in interconnect.flows.nodes_between(0, 1):
        if _is_middle(topology, node):
            return f"PE {node}" if node < topology.num_pes else f"node {topology.nodes[node]}"
    return None


def _is_middle(topology: Topology, node: int) -> bool:
    """Whether no two other PEs reach each other without the node."""
    # Imported here: a third of a second that who never asks does without.
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    edges, num_nodes, num_pes = topology.edges, len(topology.nodes), topology.num_pes
    left = edges[(edges[:, 0] != node) & (edges[:, 1] != node)]
    graph = csr_array((np.ones(len(left)), (left[:, 0], left[:, 1])), shape=(num_nodes, num_nodes))
    _, part = connected_components(graph, directed=True, connection="strong")
    parts = np.delete(part[:num_pes], node) if node < num_pes else part[:num_pes]
    return len(parts) >= _FEWEST_ARMS and len(np.unique(parts)) == len(parts)
