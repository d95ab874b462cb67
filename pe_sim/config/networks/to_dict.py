"""A network of channels as text: takes a GraphNetwork, gives its plain mapping, and the words for a listing."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any

from pe_sim.config.networks.network import GraphNetwork
from pe_sim.config.networks.shapes import (
    BusLevel,
    ButterflyShape,
    CrossbarShape,
    CubeShape,
    GridShape,
    HierarchicalBusShape,
    Link,
    PathShape,
    Shape,
    SwitchTreeShape,
    UserGraphShape,
)


def network_to_dict(network: GraphNetwork) -> dict[str, Any]:
    """The network in the shape of its YAML section; `auto` stays, and a user's graph is written out in it."""
    plain: dict[str, Any] = {"kind": network.kind, **_shape_to_dict(network.shape, network.kind)}
    for each in fields(network):
        if each.name not in ("kind", "shape"):
            plain.setdefault(each.name, getattr(network, each.name))  # a tree of switches has an arity of its own
    return {**plain, "collectives": asdict(network.collectives)}


def _shape_to_dict(shape: Shape, kind: str) -> dict[str, Any]:
    match shape:
        case UserGraphShape():
            return {"graph": graph_to_dict(shape)}
        case HierarchicalBusShape():
            return {
                "cluster_pes": shape.cluster_pes,
                "cluster": _bus_level_to_dict(shape.cluster),
                "top": _bus_level_to_dict(shape.top),
            }
        case SwitchTreeShape() if kind == "h_tree":  # which does not grow
            return {"arity": shape.arity, "link": asdict(shape.link)}
    return asdict(shape)


def _bus_level_to_dict(level: BusLevel) -> dict[str, Any]:
    bus = {key: value for key, value in asdict(level.bus).items() if key != "ramp_cycles"}
    tree = {
        "arity": level.arity,
        "bytes_per_cycle": level.tree.bytes_per_cycle,
        "latency_cycles": level.tree.latency_cycles,
        "downlink": level.downlink,
    }
    return {"bus": bus, "tree": tree}


def graph_to_dict(shape: UserGraphShape) -> dict[str, Any]:
    """A user's graph in the node-link form, with an edge for every direction."""
    nodes, edges = [], []
    for node in shape.nodes:
        place = {"pe": node.pe} if node.pe >= 0 else {}
        facts = {"combines": node.combines, "x_mm": node.x_mm, "y_mm": node.y_mm}
        link = asdict(node.link) if node.link else {}
        given = {key: value for key, value in facts.items() if value is not None}
        nodes.append({"id": node.name, "kind": node.kind, **place, **given, **link})
    for edge in shape.edges:
        link = asdict(edge.link) if edge.link else {}
        length = {} if edge.length_mm is None else {"length_mm": edge.length_mm}
        edges.append({"source": edge.source, "target": edge.target, **link, **length})
    return {"directed": True, "nodes": nodes, "edges": edges}


def describe_links(network: GraphNetwork) -> str:
    """The structure of links between arrays in a few words, as `describe_network` without the root's place."""
    return describe_network(network).partition(", root at PE ")[0].replace("PEs", "arrays")


def describe_network(network: GraphNetwork) -> str:
    """The structure of a network in a few words, with the width and latency of its channels."""
    match network.shape:
        case PathShape(link, root_at):
            return f"{network.kind}, {_link(link)}, root at PE {root_at}"
        case GridShape(rows, cols, link, root_at):
            return f"{rows} x {cols} {network.kind}, {_link(link)}, root at PE {root_at}"
        case CubeShape(link, root_at):
            return f"hypercube, {_link(link)}, root at PE {root_at}"
        case ButterflyShape(radix, link):
            return f"butterfly of radix {radix}, {_link(link)}"
        case CrossbarShape(link):
            return f"crossbar, {_link(link, 'ports')}"
        case SwitchTreeShape(arity, growth, link):
            wider = f" growing {growth:g} x a level" if growth > 1 else ""
            return f"{arity}-ary {network.kind.replace('_', '-')}, {_link(link)}{wider}"
        case HierarchicalBusShape(cluster_pes, cluster, top):
            return (
                f"clusters of {cluster_pes} PEs with bus {_width(cluster.bus)} and {cluster.arity}-ary tree"
                f" {_width(cluster.tree)}, above them bus {_width(top.bus)} and {top.arity}-ary tree {_width(top.tree)}"
            )
        case UserGraphShape(_, nodes, edges):
            return f"a graph of {len(nodes)} nodes and {len(edges)} directed edges"
    link = getattr(network.shape, "link", None)  # of an installed package
    return f"{network.kind}, {_link(link)}" if isinstance(link, Link) else network.kind


def _link(link: Link, noun: str = "links") -> str:
    return f"{noun} {_width(link)} latency {link.latency_cycles}"


def _width(link: Link) -> str:
    return f"{link.bytes_per_cycle} B/cycle"
