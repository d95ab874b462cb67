"""Small arrays of every kind of interconnect, and searches by brute force to hold closed forms against."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import networkx as nx

from pe_sim.config.arrays.array import ArrayConfig
from pe_sim.config.arrays.load import load_array
from pe_sim.config.files.loading import load_mapping, resolve
from pe_sim.network.topology.topology import Topology

LINK = {"bytes_per_cycle": 64, "latency_cycles": "auto", "overhead_cycles": 1}
_BUS = {"bytes_per_cycle": 64, "latency_cycles": "auto", "overhead_cycles": 2, "request_cycles": "auto"}
_TREE = {"arity": 2, "bytes_per_cycle": 64, "latency_cycles": "auto"}

SECTIONS: dict[str, dict[str, Any]] = {
    "bus_tree": {"bus": _BUS, "tree": {**_TREE, "combine_cycles": 2}},
    "hierarchical_bus": {
        "cluster_pes": 4,
        "cluster": {"bus": _BUS, "tree": _TREE},
        "top": {"bus": _BUS, "tree": _TREE},
    },
    "h_tree": {"link": LINK},
    "fat_tree": {"link": LINK, "growth": 2.0},
    "line": {"link": LINK},
    "ring": {"link": LINK},
    "mesh": {"link": LINK},
    "torus": {"link": LINK},
    "hypercube": {"link": LINK},
    "butterfly": {"link": LINK},
    "crossbar": {"link": LINK},
    "graph": {"link": LINK},
}
POWERS = ("hypercube", "butterfly")  # kinds that want a power of two


def star(num_pes: int) -> dict[str, Any]:
    """A user's graph: every PE at one switch, and the root too."""
    nodes = [{"id": "root"}, {"id": "hub"}, *({"id": f"pe{pe}"} for pe in range(num_pes))]
    edges = [{"source": "hub", "target": node["id"]} for node in nodes if node["id"] != "hub"]
    return {"directed": False, "nodes": nodes, "edges": edges}


def array_of(kind: str, num_pes: int, **section: Any) -> ArrayConfig:
    """bus-tree-256 with `num_pes` PEs and this network; keywords change its section."""
    network = {"kind": kind, **SECTIONS[kind], **section}
    if kind == "graph" and not {"graph", "file"} & set(section):
        network["graph"] = star(num_pes)
    return load_array({**load_mapping(resolve("arrays", "bus-tree-256")), "num_pes": num_pes, "network": network})


def sizes_of(kind: str) -> tuple[int, ...]:
    """Numbers of PEs that fit."""
    return (1, 2, 4, 8, 16, 64) if kind in POWERS else (1, 2, 3, 5, 6, 8, 9, 12, 16, 17, 30, 64)


def hops(topology: Topology) -> nx.DiGraph:
    """The graph with the number of channels as weights: a bus is entered at 1 and left at 0."""
    graph = nx.DiGraph()
    for source, target, channel in topology.graph.edges(data="channel"):
        graph.add_edge(source, target, weight=0 if channel < 0 else 1)
    return graph


def counted_diameter(topology: Topology) -> int:
    """By shortest paths between all PEs."""
    graph, pes = hops(topology), range(topology.num_pes)
    far = 0
    for pe in pes:
        lengths = nx.single_source_dijkstra_path_length(graph, pe)
        far = max(far, *(lengths[other] for other in pes))
    return far


def searched_bisection(topology: Topology) -> int:
    """By maximum flows between all halves of the PEs."""
    graph, channels = nx.DiGraph(), topology.channels
    for source, target, channel in topology.graph.edges(data="channel"):
        if topology.graph.nodes[target]["kind"] == "bus":
            graph.add_edge(source, ("shared", target))
            graph.add_edge(("shared", target), target, capacity=int(channels.bytes_per_cycle[channel]))
        elif channel < 0:
            graph.add_edge(source, target)
        else:
            graph.add_edge(source, target, capacity=int(channels.bytes_per_cycle[channel]))
    pes = set(range(topology.num_pes))
    widths = []
    for half in combinations(sorted(pes), len(pes) // 2):
        for first, second in ((set(half), pes - set(half)), (pes - set(half), set(half))):
            graph.add_edges_from(("from", pe) for pe in first)
            graph.add_edges_from((pe, "to") for pe in second)
            widths.append(nx.maximum_flow_value(graph, "from", "to"))
            graph.remove_nodes_from(["from", "to"])
    return min(widths)
