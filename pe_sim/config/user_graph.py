"""The user's own interconnect: takes a graph file, gives a checked UserGraphShape."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from pe_sim.config.array_file import MAX_CYCLES, MAX_RATE
from pe_sim.config.graph_text import RawEdge, RawGraph, node_link, parse_graph, read_graph_text
from pe_sim.config.network_file import EdgeDefaultsFile
from pe_sim.config.network_shapes import AUTO, Link, UserEdge, UserGraphShape, UserNode, user_graph
from pe_sim.config.schema import number_advice
from pe_sim.errors import InputError, did_you_mean

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
    """The graph of a file.

    Args:
        path: GraphML or node-link JSON.
        num_pes: the number of PEs it has to have.
        defaults: parameters of the edges that give none themselves.

    Raises:
        InputError: the file cannot be read, or the graph is no interconnect of so many PEs.
    """
    source = str(path)
    return _Reader(parse_graph(read_graph_text(path), source), num_pes, defaults, source).shape()


def inline_graph(raw: Mapping[str, Any], num_pes: int, defaults: EdgeDefaultsFile, source: str) -> UserGraphShape:
    """The graph of a node-link mapping; as `read_graph`."""
    return _Reader(node_link(raw, source), num_pes, defaults, source).shape()


class _Reader:
    """Checks a raw graph part by part."""

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
        """The kind of a node, and its number if it is a PE."""
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
        """The one or two directions of an edge."""
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
        """Refuse what is nearly a name we know, or may stand for one; labels, colours and weights are noted."""
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
    """The attribute of ours that one of another name may stand for, and its unit; empty where there is none."""
    if sort == "node" and isinstance(value, str) and value.lower() in KINDS:
        return "kind", ""
    words = {word.lower() for word in _WORD.findall(key)}
    return next(((ours, unit) for known, ours, unit in _MEANT if words & known), ("", ""))


def _whole(value: Any) -> Any:
    """A whole number as an int: some writers, igraph's for one, know doubles alone."""
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
