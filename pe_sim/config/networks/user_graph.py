"""The user's own interconnect: takes a graph file, gives a checked UserGraphShape."""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree

from pe_sim.config.files.loading import parse_json
from pe_sim.config.files.schema import MAX_CYCLES, MAX_RATE, number_advice
from pe_sim.config.networks.schema import EdgeDefaultsFile
from pe_sim.config.networks.shapes import AUTO, Link, UserEdge, UserGraphShape, UserNode, user_graph
from pe_sim.errors import InputError, did_you_mean, printable

KINDS: Final = ("pe", "root", "switch", "joint", "bus")
_LINK: Final = ("bytes_per_cycle", "latency_cycles", "overhead_cycles", "request_cycles", "ramp_cycles")
_NODE_KEYS: Final = ("kind", "pe", "combines", "x_mm", "y_mm", *_LINK)
_EDGE_KEYS: Final = (*_LINK, "length_mm")
# Words in other tools' attributes, what they may stand for here, and its unit.
_MEANT: Final = (
    (
        {
            "bandwidth",
            "bw",
            "rate",
            "datarate",
            "throughput",
            "speed",
            "capacity",
            "width",
            "gbps",
            "mbps",
            "bits",
            "bytes",
        },
        "bytes_per_cycle",
        "whole bytes a cycle: GB/s over the clock in GHz",
    ),
    ({"latency", "delay", "cycles"}, "latency_cycles", "cycles of the array's clock"),
    ({"overhead"}, "overhead_cycles", "cycles of the array's clock"),
    ({"length", "distance"}, "length_mm", "millimetres"),
)
_WORD: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_PE_NAME: Final = re.compile(r"(?:pe)?([0-9]{1,7})")
_MAX_NAME: Final = 100
_MAX_MM: Final = 1e6


def read_graph(path: Path, num_pes: int, defaults: EdgeDefaultsFile) -> UserGraphShape:
    """The interconnect that a graph file describes.

    Args:
        path: GraphML or node-link JSON.
        num_pes: the number of PEs that it must have.
        defaults: parameters of edges that state none of their own.

    Raises:
        InputError: the file cannot be read, or the graph is no interconnect of `num_pes` PEs.
    """
    source = str(path)
    return _Reader(parse_graph(read_graph_text(path), source), num_pes, defaults, source).shape()


def inline_graph(raw: Mapping[str, Any], num_pes: int, defaults: EdgeDefaultsFile, source: str) -> UserGraphShape:
    """The interconnect that a node-link mapping describes; arguments and errors as in `read_graph`."""
    return _Reader(node_link(raw, source), num_pes, defaults, source).shape()


class _Reader:
    """A checker of one raw graph, which gives the shape."""

    def __init__(self, graph: RawGraph, num_pes: int, defaults: EdgeDefaultsFile, source: str) -> None:
        self._graph, self._num_pes, self._source = graph, num_pes, source
        self._defaults = defaults.model_dump()
        self._links: dict[tuple[object, ...], Link] = {}
        self._unused: Counter[tuple[str, str]] = Counter()  # (attribute, node or edge)

    def shape(self) -> UserGraphShape:
        nodes = tuple(self._node(name, attributes) for name, attributes in self._graph.nodes.items())
        self._check_pes(nodes)
        self._check_root(nodes)
        buses = frozenset(node.name for node in nodes if node.kind == "bus")
        edges = tuple(edge for raw in self._graph.edges for edge in self._edges(raw, buses))
        self._check_edges(edges, nodes)
        unused = tuple(
            f"{key} ({count} {sort}{'s' if count > 1 else ''})" for (key, sort), count in self._unused.items()
        )
        return replace(user_graph(nodes, edges), unused=unused)

    def _fault(self, problem: str, where: str | None, **facts: Any) -> InputError:
        return InputError(problem, source=self._source, path=where, **facts)

    def _node(self, name: str, attributes: dict[str, Any]) -> UserNode:
        where = f"node {name}"
        if len(name) > _MAX_NAME:
            raise self._fault("the name of a node is too long", None, given=name, expected=f"{_MAX_NAME} characters")
        self._check_keys(attributes, _NODE_KEYS, "node", where)
        kind, pe = self._kind(name, attributes, where)
        combines = attributes.get("combines")
        if combines is not None and not isinstance(combines, bool):
            raise self._fault("not a boolean", f"{where}: combines", given=combines, expected="true or false")
        x_mm, y_mm = (self._millimetres(attributes, key, where, -_MAX_MM) for key in ("x_mm", "y_mm"))
        if (x_mm is None) != (y_mm is None):
            raise self._fault("half a position", where, expected="x_mm and y_mm, or neither")
        if kind != "bus" and any(key in attributes for key in _LINK):
            key = next(key for key in _LINK if key in attributes)
            raise self._fault(f"only a bus has {key}; of other nodes the edges have it", where)
        link = self._link(attributes, where) if kind == "bus" else None
        return UserNode(name, kind, pe, combines, x_mm, y_mm, link)

    def _kind(self, name: str, attributes: dict[str, Any], where: str) -> tuple[str, int]:
        """The kind of a node, and its number if it is a PE, else -1."""
        kind, pe = attributes.get("kind"), _whole(attributes.get("pe"))
        if kind is not None and (not isinstance(kind, str) or kind not in KINDS):
            hint = did_you_mean(kind, KINDS) if isinstance(kind, str) else None
            raise self._fault(
                "unknown kind of node", f"{where}: kind", given=kind, expected=" or ".join(KINDS), hint=hint
            )
        if pe is not None:
            if isinstance(pe, bool) or not isinstance(pe, int) or pe < 0:
                hint = number_advice(pe, whole=True)
                raise self._fault("not a PE's number", f"{where}: pe", given=pe, expected="0 to N - 1", hint=hint)
            if kind not in (None, "pe"):
                raise self._fault(f"a {kind} with the number of a PE", where, given=pe, hint="leave pe out")
            return "pe", pe
        match = _PE_NAME.fullmatch(name)
        if kind == "pe" or (kind is None and match):
            if match is None:
                raise self._fault("a PE without a number", where, hint="add pe: i, or call the node pe<i>")
            return "pe", int(match[1])
        return kind or ("root" if name == "root" else "switch"), -1

    def _check_pes(self, nodes: tuple[UserNode, ...]) -> None:
        names: dict[int, str] = {}
        for node in nodes:
            if node.pe >= 0 and names.setdefault(node.pe, node.name) != node.name:
                raise self._fault(
                    f"two nodes are PE {node.pe}", f"nodes {names[node.pe]} and {node.name}", expected="one node a PE"
                )
        if not names:
            raise self._fault("the graph has no PEs", None, expected="nodes called pe0, pe1, ..., or with pe: i")
        missing = sorted(set(range(max(names) + 1)) - set(names)) if max(names) < 2 * self._num_pes + 64 else []
        if missing or max(names) >= len(names):
            lacking = f"PE {_listed(missing)} is missing" if missing else f"PE {max(names)} of {len(names)}"
            raise self._fault(f"the PEs are not numbered 0 to N - 1: {lacking}", None)
        if len(names) != self._num_pes:
            raise self._fault(
                f"the graph has {len(names)} PEs, the array {self._num_pes}",
                None,
                expected="as many as num_pes says",
                hint=f"set num_pes to {len(names)}",
            )

    def _check_root(self, nodes: tuple[UserNode, ...]) -> None:
        roots = [node.name for node in nodes if node.kind == "root"]
        if len(roots) != 1:
            problem = f"the graph has {len(roots)} roots: {_listed(roots)}" if roots else "the graph has no root"
            raise self._fault(problem, None, expected="one node called root, or with kind: root")

    def _edges(self, raw: RawEdge, buses: frozenset[str]) -> list[UserEdge]:
        """The edge in its one or two directions."""
        where, attributes = raw.label, raw.attributes
        self._check_keys(attributes, _EDGE_KEYS, "edge", where)
        ends = [end for end in (raw.source, raw.target) if end in buses]
        if len(ends) == 2:
            raise self._fault("an edge between two buses", where, hint="put a switch between them")
        if ends:
            key = next((key for key in _EDGE_KEYS if key in attributes), None)
            if key is not None:
                raise self._fault(f"an edge of a bus has no {key}", where, hint=f"set it on the node {ends[0]}, once")
            link, length = None, None
        else:
            link = self._link(attributes, where)
            length = self._millimetres(attributes, "length_mm", where, 0.0)
        edges = [UserEdge(raw.source, raw.target, link, length)]
        return edges if raw.directed else [*edges, UserEdge(raw.target, raw.source, link, length)]

    def _check_edges(self, edges: tuple[UserEdge, ...], nodes: tuple[UserNode, ...]) -> None:
        after: dict[str, list[str]] = {node.name: [] for node in nodes}
        before: dict[str, list[str]] = {node.name: [] for node in nodes}
        pairs: set[tuple[str, str]] = set()
        for edge in edges:
            if (edge.source, edge.target) in pairs:
                raise self._fault(
                    "two channels from one node to the same other one",
                    f"edge {edge.source} -> {edge.target}",
                    hint="add up their widths, or put a switch into one of them",
                )
            pairs.add((edge.source, edge.target))
            after[edge.source].append(edge.target)
            before[edge.target].append(edge.source)
        root = next(node.name for node in nodes if node.kind == "root")
        for neighbours, one, many in (
            (after, "cannot be reached from the root", "cannot be reached from the root"),
            (before, "does not reach the root", "do not reach the root"),
        ):
            reached = _reachable(root, neighbours)
            lost = sorted(node.pe for node in nodes if node.pe >= 0 and node.name not in reached)
            if lost:
                noun, verb = ("PE", one) if len(lost) == 1 else ("PEs", many)
                raise self._fault(
                    f"{noun} {_listed(lost)} {verb}",
                    None,
                    expected="ways from the root to every PE and back",
                    hint="add the missing edges; an undirected edge is a channel each way",
                )

    def _check_keys(self, attributes: dict[str, Any], known: Collection[str], sort: str, where: str) -> None:
        """Refuses unknown attributes that resemble or may stand for known ones; counts others as unused."""
        for key, value in attributes.items():
            if key in known:
                continue
            if get_close_matches(key, known, n=1, cutoff=0.8):
                raise self._fault("unknown attribute", f"{where}: {key}", hint=did_you_mean(key, known))
            meant, unit = _meant(key, value, sort)
            if meant and meant not in attributes:
                hint = f"did you mean {meant!r}{unit and f', in {unit}'}? Or take the attribute out: it is not used"
                raise self._fault("unknown attribute", f"{where}: {key}", given=value, hint=hint)
            self._unused[key, sort] += 1

    def _link(self, attributes: dict[str, Any], where: str) -> Link:
        values: dict[str, Any] = {}
        for key in _LINK:
            value = _whole(attributes.get(key, self._defaults[key]))
            lowest, highest = (1, MAX_RATE) if key == "bytes_per_cycle" else (0, MAX_CYCLES)
            auto = key in ("latency_cycles", "request_cycles")
            if value is None:
                raise self._fault(
                    "missing",
                    f"{where}: {key}",
                    expected=f"a whole number from {lowest} to {highest}",
                    hint=f"set it there, or for all edges as network.link.{key}",
                )
            if isinstance(value, str) and value == AUTO and auto:
                pass
            elif isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
                raise self._fault(
                    "not a width" if key == "bytes_per_cycle" else "not a number of cycles",
                    f"{where}: {key}",
                    given=value,
                    expected=f"a whole number from {lowest} to {highest}" + (", or auto" if auto else ""),
                    hint=number_advice(value, whole=True),
                )
            values[key] = value
        return self._links.setdefault(tuple(values.values()), Link(**values))

    def _millimetres(self, attributes: dict[str, Any], key: str, where: str, lowest: float) -> float | None:
        value = attributes.get(key)
        if value is None:
            return None
        good = isinstance(value, int | float) and not isinstance(value, bool)
        if not good or not lowest <= value <= _MAX_MM:
            raise self._fault(
                "not a length",
                f"{where}: {key}",
                given=value,
                expected=f"millimetres from {lowest:g} to {_MAX_MM:g}",
                hint=number_advice(value, whole=False),
            )
        return float(value)


def _meant(key: str, value: object, sort: str) -> tuple[str, str]:
    """The known attribute that another name may stand for, and its unit; both empty if there is none."""
    if sort == "node" and isinstance(value, str) and value.lower() in KINDS:
        return "kind", ""
    words = {word.lower() for word in _WORD.findall(key)}
    return next(((ours, unit) for known, ours, unit in _MEANT if words & known), ("", ""))


def _whole(value: Any) -> Any:
    """The value, as an int if it is a whole float: some writers (igraph's) know doubles only."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _reachable(start: str, neighbours: Mapping[str, list[str]]) -> set[str]:
    seen, stack = {start}, [start]
    while stack:
        for node in neighbours[stack.pop()]:
            if node not in seen:
                seen.add(node)
                stack.append(node)
    return seen


def _listed(items: Collection[object], most: int = 8) -> str:
    shown = [str(item) for item in items][:most]
    more = len(items) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


# ---- Reads the text of a user's graph: takes GraphML or node-link JSON, gives nodes and edges with their attributes.


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
    """An edge as written in the file."""

    source: str
    target: str
    directed: bool
    attributes: dict[str, Any]

    @property
    def label(self) -> str:
        """The name of the edge in messages."""
        return f"edge {self.source} {'->' if self.directed else '--'} {self.target}"


@dataclass(slots=True)
class RawGraph:
    """A graph as written in the file: nodes by name, and edges."""

    nodes: dict[str, dict[str, Any]] = field(default_factory=dict)
    edges: list[RawEdge] = field(default_factory=list)


def read_graph_text(path: Path) -> str:
    """The text of a graph's file.

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
    """The graph in a GraphML or node-link JSON text, told apart by the first character.

    Raises:
        InputError: the text is malformed, or neither of the two.
    """
    start = text.lstrip()[:1]
    if start == "<":
        return _parse_graphml(text, source)
    if start == "{":
        return node_link(parse_json(text, source), source)
    problem = "the file is empty" if not start else "neither GraphML nor node-link JSON"
    raise InputError(problem, source=source, expected="<graphml ...> or a JSON object with nodes and edges")


def node_link(raw: Mapping[str, Any], source: str) -> RawGraph:
    """The graph in a node-link mapping as networkx.node_link_data writes it, with its edges under `edges` or `links`.

    Raises:
        InputError: it is no such mapping.
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
    """The node's name under `key`, which is removed from the entry."""
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
    """The name of a GraphML attribute; those that yEd draws with have a type instead of a name."""
    return printable(key.get("attr.name") or key.get("yfiles.type") or key.get("id") or "")


def _tag(element: ElementTree.Element) -> str:
    return str(element.tag).rpartition("}")[2]


def _data(
    element: ElementTree.Element, sort: str, keys: dict[str, _Key], targets: dict[str, str], where: str, source: str
) -> dict[str, Any]:
    """The attributes of a node or an edge, with defaults filled in."""
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
