"""Reads the text of a user's graph: takes GraphML or node-link JSON, gives nodes and edges with their attributes."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree

from pe_sim.config.loading import parse_json
from pe_sim.errors import InputError, printable

MAX_FILE_BYTES: Final = 2**26
MAX_NODES: Final = 2**17
MAX_EDGES: Final = 2**19
_CASTS: Final[dict[str, type]] = {
    **dict.fromkeys(("int", "integer", "long"), int),
    **dict.fromkeys(("float", "double"), float),
    "string": str,
}


@dataclass(slots=True)
class RawEdge:
    """An edge as it was written; `label` is what messages call it."""

    source: str
    target: str
    directed: bool
    attributes: dict[str, Any]

    @property
    def label(self) -> str:
        """As messages call it."""
        return f"edge {self.source} {'->' if self.directed else '--'} {self.target}"


@dataclass(slots=True)
class RawGraph:
    """Nodes by name and edges as they were written."""

    nodes: dict[str, dict[str, Any]] = field(default_factory=dict)
    edges: list[RawEdge] = field(default_factory=list)


def read_graph_text(path: Path) -> str:
    """The text of the file of a graph.

    Raises:
        InputError: no such file, not a plain file, larger than 64 MiB, or not UTF-8.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise InputError("not a plain file", source=str(path), expected="a GraphML or a node-link JSON file")
        with open(path, "rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        hint = "network.file is relative to the folder of the array's file; with --set, to where you are"
        raise InputError("no such file", source=str(path), path=None, hint=hint) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"the file cannot be read: {reason}", source=str(path)) from None
    if len(data) > MAX_FILE_BYTES:
        raise InputError("the file is too large", source=str(path), expected=f"at most {MAX_FILE_BYTES} bytes (64 MiB)")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        problem = f"not UTF-8 text: byte 0x{data[error.start]:02x} at offset {error.start}"
        raise InputError(problem, source=str(path), expected="a GraphML or a node-link JSON file") from None


def parse_graph(text: str, source: str) -> RawGraph:
    """The graph of a GraphML or node-link JSON text, told apart by the first character.

    Raises:
        InputError: malformed, or neither of the two.
    """
    start = text.lstrip()[:1]
    if start == "<":
        return _parse_graphml(text, source)
    if start == "{":
        return node_link(parse_json(text, source), source)
    problem = "the file is empty" if not start else "neither GraphML nor node-link JSON"
    raise InputError(problem, source=source, expected="<graphml ...> or a JSON object with nodes and edges")


def node_link(raw: Mapping[str, Any], source: str) -> RawGraph:
    """The graph of a node-link mapping as networkx.node_link_data writes it, its edges under `edges` or `links`.

    Raises:
        InputError: it is none.
    """
    directed = raw.get("directed", False)
    if not isinstance(directed, bool):
        raise InputError("not a boolean", source=source, path="directed", given=directed, expected="true or false")
    nodes = raw.get("nodes")
    edges = raw.get("edges", raw.get("links"))
    if not isinstance(nodes, list) or not isinstance(edges, list):
        missing = "edges" if isinstance(nodes, list) else "nodes"
        raise InputError("not a graph", source=source, path=missing, expected="two lists, nodes and edges (or links)")
    graph = RawGraph()
    for index, node in enumerate(nodes):
        entry = _entry(node, f"nodes.{index}", source)
        _add_node(graph, _name(entry, "id", f"nodes.{index}", source), entry, source)
    for index, edge in enumerate(edges):
        entry = _entry(edge, f"edges.{index}", source)
        ends = [_name(entry, end, f"edges.{index}", source) for end in ("source", "target")]
        entry.pop("key", None)  # of a multigraph
        _add_edge(graph, RawEdge(ends[0], ends[1], directed, entry), source)
    return graph


def _entry(value: Any, path: str, source: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError("not a mapping", source=source, path=path, given=value, expected="a mapping of attributes")
    return {str(key): inner for key, inner in value.items() if inner is not None}


def _name(entry: dict[str, Any], key: str, path: str, source: str) -> str:
    """Takes the name under `key` out of the entry."""
    name = entry.pop(key, None)
    if isinstance(name, bool) or not isinstance(name, int | str) or name == "":
        facts: dict[str, Any] = {} if name is None else {"given": name}
        raise InputError(
            "missing" if name is None else "not a node's name",
            source=source,
            path=f"{path}.{key}",
            expected="a node's name, text or a whole number",
            **facts,
        )
    return str(name)


def _add_node(graph: RawGraph, name: str, attributes: dict[str, Any], source: str) -> None:
    if name in graph.nodes:
        raise InputError(f"two nodes are called {name!r}", source=source, expected="a name of its own for every node")
    if len(graph.nodes) == MAX_NODES:
        raise InputError("too many nodes", source=source, expected=f"at most {MAX_NODES}")
    graph.nodes[name] = attributes


def _add_edge(graph: RawGraph, edge: RawEdge, source: str) -> None:
    for end in (edge.source, edge.target):
        if end not in graph.nodes:
            raise InputError(f"there is no node {end!r}", source=source, path=edge.label)
    if edge.source == edge.target:
        raise InputError("an edge from a node to itself", source=source, path=edge.label, hint="leave it out")
    if len(graph.edges) == MAX_EDGES:
        raise InputError("too many edges", source=source, expected=f"at most {MAX_EDGES}")
    graph.edges.append(edge)


@dataclass(frozen=True, slots=True)
class _Key:
    name: str
    kind: str
    default: str | None


def _parse_graphml(text: str, source: str) -> RawGraph:
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise InputError("a document type has no place in GraphML", source=source, hint="delete the <!DOCTYPE ...>")
    try:
        top = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        line, column = error.position
        problem = f"malformed XML at line {line}, column {column + 1}: {str(error).partition(':')[0]}"
        raise InputError(problem, source=source) from None
    except (ValueError, LookupError) as error:  # an encoding declared that does not exist
        raise InputError(f"malformed XML: {error}", source=source) from None
    graphs = [child for child in top if _tag(child) == "graph"]
    if _tag(top) != "graphml" or len(graphs) != 1:
        raise InputError("not GraphML", source=source, expected="one <graph> inside <graphml>")
    keys = {
        key.get("id", ""): _Key(_key_name(key), key.get("attr.type", "string"), key.findtext("{*}default"))
        for key in top
        if _tag(key) == "key"
    }
    directed = graphs[0].get("edgedefault", "undirected") == "directed"
    targets = {key.get("id", ""): key.get("for", "all") for key in top if _tag(key) == "key"}
    graph, found = RawGraph(), list(graphs[0])
    for element in found:
        if _tag(element) == "node":
            name = printable(element.get("id", ""))
            if not name:
                raise InputError("a node without an id", source=source)
            if any(_tag(inner) == "graph" for inner in element):
                raise InputError("a graph inside a node", source=source, path=f"node {name}", hint="flatten it")
            _add_node(graph, name, _data(element, "node", keys, targets, f"node {name}", source), source)
        elif _tag(element) == "hyperedge":
            raise InputError("a hyperedge", source=source, hint="make it a node of kind bus, with an edge to each end")
    for element in found:
        if _tag(element) == "edge":
            one_way = {"true": True, "false": False}.get(element.get("directed", ""), directed)
            ends = [printable(element.get(end, "")) for end in ("source", "target")]
            edge = RawEdge(ends[0], ends[1], one_way, {})
            edge.attributes = _data(element, "edge", keys, targets, edge.label, source)
            _add_edge(graph, edge, source)
    return graph


def _key_name(key: ElementTree.Element) -> str:
    """Of an attribute; what yEd draws with has a type in place of a name."""
    return printable(key.get("attr.name") or key.get("yfiles.type") or key.get("id") or "")


def _tag(element: ElementTree.Element) -> str:
    return str(element.tag).rpartition("}")[2]


def _data(
    element: ElementTree.Element, sort: str, keys: dict[str, _Key], targets: dict[str, str], where: str, source: str
) -> dict[str, Any]:
    """The attributes of a node or an edge, defaults included."""
    texts = {
        name: key.default for name, key in keys.items() if key.default is not None and targets[name] in (sort, "all")
    }
    for child in element:
        if _tag(child) == "data":
            name = child.get("key", "")
            if name not in keys:
                raise InputError(
                    "data under a key that no <key> declares",
                    source=source,
                    path=where,
                    given=name,
                    expected=f"a <key id={name!r} for={sort!r} attr.name=... attr.type=...> at the top of the file",
                )
            texts[name] = child.text or ""
    return {keys[name].name: _value(text, keys[name], where, source) for name, text in texts.items()}


def _value(text: str, key: _Key, where: str, source: str) -> Any:
    plain = text.strip()
    if key.kind == "boolean" and plain.lower() in ("true", "false", "1", "0"):
        return plain.lower() in ("true", "1")
    try:
        return _CASTS[key.kind](plain if len(plain) < 4000 or key.kind == "string" else "too long")
    except (KeyError, ValueError):
        raise InputError(
            f"not of the type {key.kind} that its <key> declares",
            source=source,
            path=f"{where}: {key.name}",
            given=plain,
            expected="a value of attr.type int, long, float, double, boolean or string",
        ) from None
