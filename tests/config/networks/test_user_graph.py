"""The user's own graph: both formats, what it may leave out, and every way to get it wrong."""

from __future__ import annotations

import json
import math
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import networkx as nx
import pytest
from hypothesis import strategies as st

from pe_sim.config.arrays.load import array_to_dict, load_array
from pe_sim.config.files.loading import load_mapping, resolve
from pe_sim.config.networks.shapes import Link
from pe_sim.errors import InputError
from tests.helpers import given_in_both

FULL = {"bytes_per_cycle": 16, "latency_cycles": 2, "overhead_cycles": 1, "request_cycles": 3, "ramp_cycles": 4}


def raw(num_pes: int, **network: Any) -> dict[str, Any]:
    array = {**load_mapping(resolve("arrays", "bus-tree-256")), "num_pes": num_pes}
    return {**array, "network": {"kind": "graph", "link": {"bytes_per_cycle": 16}, **network}}


def graph(nodes: list[Any], edges: list[Any], **more: Any) -> dict[str, Any]:
    """Node-link: a node is a name or a mapping, an edge (source, target) or (source, target, attributes)."""
    return {
        "nodes": [node if isinstance(node, dict) else {"id": node} for node in nodes],
        "edges": [
            {"source": edge[0], "target": edge[1], **(edge[2] if len(edge) > 2 else {})}
            if isinstance(edge, tuple)
            else edge
            for edge in edges
        ],
        **more,
    }


def shape(array: dict[str, Any]) -> Any:
    network: Any = load_array(array).network
    return network.shape


def refusal(array: dict[str, Any]) -> str:
    with pytest.raises(InputError) as caught:
        load_array(array)
    return str(caught.value)


PAIR = (["root", "pe0", "pe1"], [("root", "pe0"), ("pe0", "pe1")])


def test_edges_say_it_themselves_or_take_the_defaults() -> None:
    found = shape(raw(2, graph=graph(PAIR[0], [("root", "pe0", FULL), ("pe0", "pe1", {"length_mm": 3})])))
    assert [(edge.source, edge.target) for edge in found.edges] == [
        ("root", "pe0"),
        ("pe0", "root"),
        ("pe0", "pe1"),
        ("pe1", "pe0"),
    ]
    assert found.edges[0].link == found.edges[1].link == Link(16, 2, 1, 3, 4)
    assert found.edges[2].link == Link(16, "auto", 0, 0, 0)
    assert found.edges[2].length_mm == 3.0


@pytest.mark.parametrize("names", [[0, 1], ["0", "1"], ["pe0", "pe1"], [{"id": "a", "pe": 0}, {"id": "b", "pe": 1}]])
def test_names_of_pes(names: list[Any]) -> None:
    first, second = ({"id": name} if not isinstance(name, dict) else name for name in names)
    found = shape(raw(2, graph=graph(["root", first, second], [("root", first["id"]), (first["id"], second["id"])])))
    assert [node.pe for node in found.nodes] == [-1, 0, 1]


@pytest.mark.parametrize("form", ["json", "links.json", "graphml"])
def test_files_that_networkx_writes(form: str, tmp_path: Path) -> None:
    made = nx.DiGraph() if form == "links.json" else nx.Graph()
    made.add_nodes_from((pe, {"pe": pe}) for pe in range(4))
    made.add_node("top", kind="root", x_mm=1.5, y_mm=-2.0)
    made.add_node("hub", combines=False, label="the hub")
    for node in (*range(4), "top"):
        made.add_edge("hub", node, **FULL, weight=0.5)
        if made.is_directed():
            made.add_edge(node, "hub", **FULL)
    path = tmp_path / f"mine.{form}"
    if form == "graphml":
        nx.write_graphml(made, path)
    else:
        path.write_text(json.dumps(nx.node_link_data(made, edges="links" if form == "links.json" else "edges")))
    array = raw(4, file=path.name)
    (tmp_path / "array.json").write_text(json.dumps(array))
    loaded = load_array(tmp_path / "array.json")  # relative to the array's file
    found: Any = loaded.network
    assert {node.name: (node.kind, node.combines) for node in found.shape.nodes}["hub"] == ("switch", False)
    assert len(found.shape.edges) == 10
    assert {edge.link for edge in found.shape.edges} == {Link(16, 2, 1, 3, 4)}
    again = load_array(json.loads(json.dumps(array_to_dict(loaded))))  # the file is not needed any more
    assert again == loaded


def test_a_file_named_by_set_is_looked_up_where_the_user_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.json").write_text(json.dumps(graph(*PAIR)))
    (tmp_path / "sub").mkdir()
    Path("sub/array.json").write_text(json.dumps(raw(2, file="gone.json")))
    assert load_array("sub/array.json", {"network.file": "mine.json"}).num_pes == 2
    with pytest.raises(InputError) as caught:
        load_array("sub/array.json")
    assert str(caught.value) == (
        "sub/gone.json: no such file\n"
        "  hint:     network.file is relative to the folder of the array's file; with --set, to where you are"
    )


def test_a_bus_has_its_parameters_on_the_node() -> None:
    bus = {"id": "bus", "kind": "bus", **FULL}
    found = shape(raw(2, graph=graph(["root", 0, 1, bus], [("root", "bus"), (0, "bus"), (1, "bus")])))
    assert found.nodes[3].link == Link(16, 2, 1, 3, 4)
    assert {edge.link for edge in found.edges} == {None}


SWITCH = {"id": "s"}
BUS = {"id": "bus", "kind": "bus"}
MESSAGES: list[tuple[dict[str, Any], str]] = [
    (graph(["root", 0, 1], [("root", 0)]), "PE 1 cannot be reached from the root"),
    (
        graph(["root", *range(20)], [("root", 0)]),
        "PEs 1, 2, 3, 4, 5, 6, 7, 8 and 11 more cannot be reached from the root",
    ),
    (
        graph(["root", 0, 1], [("root", 0), (0, "root"), (0, 1)], directed=True),
        "PE 1 does not reach the root\n  expected: ways from the root to every PE and back\n"
        "  hint:     add the missing edges; an undirected edge is a channel each way",
    ),
    (graph([0, 1], [(0, 1)]), "the graph has no root\n  expected: one node called root, or with kind: root"),
    (
        graph(["root", {"id": "r", "kind": "root"}, 0, 1], [("root", 0), ("r", 1), (0, 1)]),
        "the graph has 2 roots: root, r\n  expected: one node called root, or with kind: root",
    ),
    (
        graph(["root", "s"], [("root", "s")]),
        "the graph has no PEs\n  expected: nodes called pe0, pe1, ..., or with pe: i",
    ),
    (graph(["root", 1, 2], [("root", 1), (1, 2)]), "the PEs are not numbered 0 to N - 1: PE 0 is missing"),
    (graph(["root", 0, 9999999], [("root", 0)]), "the PEs are not numbered 0 to N - 1: PE 9999999 of 2"),
    (
        graph(["root", 0, 1, 2], [("root", 0), (0, 1), (1, 2)]),
        "the graph has 3 PEs, the array 2\n  expected: as many as num_pes says\n  hint:     set num_pes to 3",
    ),
    (
        graph(["root", 0, {"id": "a", "pe": 0}], []),
        "nodes 0 and a: two nodes are PE 0\n  expected: one node a PE",
    ),
    (graph(["root", 0, 0], []), "two nodes are called '0'\n  expected: a name of its own for every node"),
    (graph(["root", 0, 1], [("root", 0), (0, 2)]), "edge 0 -- 2: there is no node '2'"),
    (graph(["root", 0, 1], [(0, 0)]), "edge 0 -- 0: an edge from a node to itself\n  hint:     leave it out"),
    (
        graph(["root", 0, 1], [("root", 0), (0, 1), (1, 0)]),
        "edge 1 -> 0: two channels from one node to the same other one\n"
        "  hint:     add up their widths, or put a switch into one of them",
    ),
    (
        graph(["root", 0, 1], [("root", 0, {"bytes_per_cycle": 0})]),
        "edge root -- 0: bytes_per_cycle: not a width\n  given:    0\n  expected: a whole number from 1 to 4294967296",
    ),
    (
        graph(["root", 0, 1], [("root", 0, {"bytes_per_cycle": "16"})]),
        "edge root -- 0: bytes_per_cycle: not a width\n  given:    '16'\n"
        "  expected: a whole number from 1 to 4294967296\n"
        "  hint:     this is text, not a number: write 16 without quotes",
    ),
    (
        graph(["root", 0, 1], [("root", 0, {"latency_cycles": -1})]),
        "edge root -- 0: latency_cycles: not a number of cycles\n  given:    -1\n"
        "  expected: a whole number from 0 to 1048576, or auto",
    ),
    (
        graph(["root", 0, 1], [("root", 0, {"byte_per_cycle": 8})]),
        "edge root -- 0: byte_per_cycle: unknown attribute\n  hint:     did you mean 'bytes_per_cycle'?",
    ),
    (
        graph(["root", 0, 1], [("root", 0, {"length_mm": -1.0})]),
        "edge root -- 0: length_mm: not a length\n  given:    -1.0\n  expected: millimetres from 0 to 1e+06",
    ),
    (
        graph(["root", 0, 1, {"id": "s", "kind": "swich"}], []),
        "node s: kind: unknown kind of node\n  given:    'swich'\n  expected: pe or root or switch or joint or bus\n"
        "  hint:     did you mean 'switch'?",
    ),
    (
        graph(["root", 0, {"id": "s", "pe": "1"}], []),
        "node s: pe: not a PE's number\n  given:    '1'\n  expected: 0 to N - 1\n"
        "  hint:     this is text, not a number: write 1 without quotes",
    ),
    (
        graph(["root", 0, {"id": "s", "kind": "pe"}], []),
        "node s: a PE without a number\n  hint:     add pe: i, or call the node pe<i>",
    ),
    (
        graph(["root", 0, {"id": "s", "kind": "bus", "pe": 1}], []),
        "node s: a bus with the number of a PE\n  given:    1\n  hint:     leave pe out",
    ),
    (
        graph(["root", 0, {"id": "s", "x_mm": 1.0}], []),
        "node s: half a position\n  expected: x_mm and y_mm, or neither",
    ),
    (
        graph(["root", 0, {"id": "s", "combines": 1}], []),
        "node s: combines: not a boolean\n  given:    1\n  expected: true or false",
    ),
    (
        graph(["root", 0, {"id": "s", "bytes_per_cycle": 8}], []),
        "node s: only a bus has bytes_per_cycle; of other nodes the edges have it",
    ),
    (
        graph(["root", 0, 1, BUS], [("root", "bus"), (0, "bus", {"bytes_per_cycle": 8})]),
        "edge 0 -- bus: an edge of a bus has no bytes_per_cycle\n  hint:     set it on the node bus, once",
    ),
    (
        graph(["root", 0, 1, BUS, {"id": "b", "kind": "bus"}], [("b", "bus")]),
        "edge b -- bus: an edge between two buses\n  hint:     put a switch between them",
    ),
    (graph(["root", {"id": "x" * 101}, 0], []), "the name of a node is too long\n  given:    "),
    ({"nodes": []}, "edges: not a graph\n  expected: two lists, nodes and edges (or links)"),
    ({"edges": [], "nodes": {}}, "nodes: not a graph\n  expected: two lists, nodes and edges (or links)"),
    (graph([{}], []), "nodes.0.id: missing\n  expected: a node's name, text or a whole number"),
    (graph([{"id": 1.5}], []), "nodes.0.id: not a node's name\n  given:    1.5\n"),
    (
        graph(["root"], [{"source": "root"}]),
        "edges.0.target: missing\n  expected: a node's name, text or a whole number",
    ),
    (graph(["root"], [3]), "edges.0: not a mapping\n  given:    3\n  expected: a mapping of attributes"),
    (graph([], [], directed="yes"), "directed: not a boolean\n  given:    'yes'\n  expected: true or false"),
]


LIKE_OURS = [
    *(
        (key, "bytes_per_cycle")
        for key in ("bandwidth", "bw", "Link_BW", "capacity", "LinkSpeedRaw", "linkSpeed", "dataRate")
    ),
    *((key, "latency_cycles") for key in ("latency", "delay", "Delay_ns", "propDelay")),
    ("overhead", "overhead_cycles"),
    ("distance", "length_mm"),
]


@pytest.mark.parametrize(("key", "ours"), LIKE_OURS)
def test_attributes_that_look_like_ours_are_refused(key: str, ours: str) -> None:
    found = refusal(raw(2, graph=graph(PAIR[0], [("root", "pe0"), ("pe0", "pe1", {key: 16})])))
    assert found.startswith(
        f"array: network.graph: edge pe0 -- pe1: {key}: unknown attribute\n  given:    16\n"
        f"  hint:     did you mean '{ours}'"
    )
    stated = {**FULL, "length_mm": 1, key: 16}
    noted = load_array(raw(2, graph=graph(PAIR[0], [("root", "pe0"), ("pe0", "pe1", stated)]))).network.notes
    assert noted == (f"attributes of the graph that are not used: {key} (1 edge)",)


def test_the_unit_of_what_was_meant_is_told() -> None:
    assert refusal(raw(2, graph=graph(PAIR[0], [("root", "pe0", {"bandwidth": 16}), ("pe0", "pe1")]))) == (
        "array: network.graph: edge root -- pe0: bandwidth: unknown attribute\n"
        "  given:    16\n"
        "  hint:     did you mean 'bytes_per_cycle', in whole bytes a cycle: GB/s over the clock in GHz?"
        " Or take the attribute out: it is not used"
    )


def test_a_kind_under_another_name_is_refused() -> None:
    found = refusal(raw(2, graph=graph(["root", 0, 1, {"id": "s", "type": "Joint"}], [("root", 0)])))
    assert found.startswith("array: network.graph: node s: type: unknown attribute\n  given:    'Joint'\n")
    assert "did you mean 'kind'?" in found


def test_what_is_not_used_is_noted() -> None:
    nodes = [{"id": "root", "label": "R", "pos": [0, 1], "viz": None}, {"id": "pe0", "label": "first"}, "pe1"]
    edges = [("root", "pe0", {"weight": 3, "color": "red", "penwidth": 2}), ("pe0", "pe1", {"weight": 1})]
    array = load_array(raw(2, graph=graph(nodes, edges)))
    assert array.network.notes == (
        "attributes of the graph that are not used: label (2 nodes), pos (1 node), weight (2 edges), color (1 edge),"
        " penwidth (1 edge)",
    )
    assert array.network == load_array(raw(2, graph=graph(*PAIR))).network
    assert load_array(raw(2, graph=graph(*PAIR))).network.notes == ()
    assert load_array("bus-tree-64").network.notes == ()
    many = {f"k{index}": index for index in range(20)}
    noted = load_array(raw(2, graph=graph(PAIR[0], [("root", "pe0", many), ("pe0", "pe1")]))).network.notes
    assert noted[0].endswith("k7 (1 edge) and 12 more")


def test_numbers_that_a_writer_of_doubles_gives() -> None:
    edges = [
        ("root", "a", {**FULL, "bytes_per_cycle": 32.0, "latency_cycles": 2.0}),
        ("a", "b", {"latency_cycles": None}),
    ]
    nodes = ["root", {"id": "a", "pe": 0.0}, {"id": "b", "pe": 1.0}]
    found = shape(raw(2, graph=graph(nodes, edges)))
    assert found.edges[0].link == Link(32, 2, 1, 3, 4)
    assert [type(value) for value in (found.edges[0].link.bytes_per_cycle, found.nodes[1].pe)] == [int, int]
    assert "not a width" in refusal(raw(2, graph=graph(nodes, [("root", "a", {"bytes_per_cycle": 32.5}), ("a", "b")])))


def test_names_in_graphml_do_not_steer_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / "graph.graphml"
    text = '<key id="d" attr.name="a\u202e" for="edge"/><graph><node id="root"/><node id="pe0"/><node id="s\u202e"/>'
    text += (
        '<edge source="root" target="pe0"><data key="d">x</data></edge><edge source="pe0" target="s\u202e"/></graph>'
    )
    path.write_text(GRAPHML.format(text), encoding="utf-8")
    network: Any = load_array(raw(1, file=str(path))).network
    assert network.notes == ("attributes of the graph that are not used: a\\u202e (1 edge)",)
    assert [node.name for node in network.shape.nodes] == ["root", "pe0", "s\\u202e"]


@pytest.mark.parametrize("kind", ["int", "integer", "long", "float", "double"])
def test_types_of_graphml_that_are_whole_numbers(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "graph.graphml"
    text = '<key id="d" attr.name="bytes_per_cycle" attr.type="{}" for="edge"/><key id="y" yfiles.type="edgegraphics"/>'
    text += '<graph><node id="root"/><node id="pe0"/>'
    text += '<edge source="root" target="pe0"><data key="d">32</data><data key="y"/></edge></graph>'
    path.write_text(GRAPHML.format(text.format(kind)), encoding="utf-8")
    network: Any = load_array(raw(1, file=str(path))).network
    assert network.shape.edges[0].link.bytes_per_cycle == 32
    assert network.notes == ("attributes of the graph that are not used: edgegraphics (1 edge)",)


@pytest.mark.parametrize(("given", "message"), MESSAGES)
def test_messages_word_by_word(given: dict[str, Any], message: str) -> None:
    num_pes = 20 if len(given.get("nodes", ())) == 21 else 2
    found = refusal(raw(num_pes, graph=given))
    assert found.startswith(f"array: network.graph: {message}")


def test_a_width_that_nobody_gives() -> None:
    array = raw(2, graph=graph(*PAIR))
    del array["network"]["link"]
    assert refusal(array) == (
        "array: network.graph: edge root -- pe0: bytes_per_cycle: missing\n"
        "  expected: a whole number from 1 to 4294967296\n"
        "  hint:     set it there, or for all edges as network.link.bytes_per_cycle"
    )


GRAPHML = '<graphml xmlns="http://graphml.graphdrawing.org/xmlns">{}</graphml>'
TEXTS = [
    ("", "the file is empty"),
    ("  \n", "the file is empty"),
    ("nodes: []", "neither GraphML nor node-link JSON"),
    ("[1]", "neither GraphML nor node-link JSON"),
    ("{", "malformed JSON at line 1"),
    ('{"nodes": [NaN]}', "edges: not a graph"),
    ("<graphml>", "malformed XML at line 1, column 10: no element found"),
    ("<svg></svg>", "not GraphML"),
    (GRAPHML.format(""), "not GraphML"),
    (GRAPHML.format("<graph/><graph/>"), "not GraphML"),
    ('<?xml version="1.0" encoding="klingon"?><graphml/>', "not GraphML"),
    ('<!DOCTYPE a [<!ENTITY b "c">]><graphml/>', "a document type has no place in GraphML"),
    (GRAPHML.format('<graph><node id="root"/><hyperedge/></graph>'), "a hyperedge"),
    (GRAPHML.format('<graph><node id="root"><graph/></node></graph>'), "node root: a graph inside a node"),
    (GRAPHML.format("<graph><node/></graph>"), "a node without an id"),
    (GRAPHML.format('<graph><node id="root"/><edge source="root"/></graph>'), "edge root -- : there is no node ''"),
    (
        GRAPHML.format('<graph><node id="a"><data key="d10">16</data></node></graph>'),
        "node a: data under a key that no <key> declares\n  given:    'd10'\n  expected: a <key id='d10' for='node' ",
    ),
    (
        GRAPHML.format(
            '<key id="d" attr.name="pe" attr.type="int"/><graph><node id="a"><data key="d">x</data></node></graph>'
        ),
        "node a: pe: not of the type int that its <key> declares\n  given:    'x'",
    ),
    (
        GRAPHML.format(
            '<key id="d" attr.name="pe" attr.type="int"/><graph><node id="a"><data key="d">'
            + "9" * 5000
            + "</data></node></graph>"
        ),
        "node a: pe: not of the type int",
    ),
]


@pytest.mark.parametrize(("text", "message"), TEXTS)
def test_malformed_files(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "graph"
    path.write_text(text, encoding="utf-8")
    assert refusal(raw(2, file=str(path))).startswith(f"{path}: {message}")


def test_files_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert refusal(raw(2, file=str(tmp_path))).startswith(f"{tmp_path}: not a plain file")
    os.mkfifo(tmp_path / "pipe")  # nobody would ever write into it
    assert refusal(raw(2, file=str(tmp_path / "pipe"))).startswith(f"{tmp_path / 'pipe'}: not a plain file")
    assert refusal(raw(2, file="/dev/zero")).startswith("/dev/zero: not a plain file")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    assert refusal(raw(2, file=str(tmp_path / "binary"))).startswith(f"{tmp_path / 'binary'}: not UTF-8 text")
    assert refusal(raw(2, file="\0")).startswith("\\x00: no such file")
    monkeypatch.setattr("pe_sim.config.networks.user_graph.MAX_FILE_BYTES", 10)
    (tmp_path / "large").write_text("{" + " " * 20)
    assert refusal(raw(2, file=str(tmp_path / "large"))).startswith(f"{tmp_path / 'large'}: the file is too large")


def test_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pe_sim.config.networks.user_graph.MAX_NODES", 2)
    assert refusal(raw(2, graph=graph(*PAIR))) == "array: network.graph: too many nodes\n  expected: at most 2"
    monkeypatch.setattr("pe_sim.config.networks.user_graph.MAX_NODES", 9)
    monkeypatch.setattr("pe_sim.config.networks.user_graph.MAX_EDGES", 1)
    assert refusal(raw(2, graph=graph(*PAIR))) == "array: network.graph: too many edges\n  expected: at most 1"


def test_both_or_neither() -> None:
    assert refusal(raw(2, graph=graph(*PAIR), file="x")).startswith(
        "array: network: a network of kind graph is given in one place"
    )
    assert refusal(raw(2)).startswith("array: network: the graph is missing")


ANY = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from(["root", "pe0", "pe1", "bus", "auto", "s"])
    | st.floats(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "id",
                    "kind",
                    "pe",
                    "source",
                    "target",
                    "bytes_per_cycle",
                    "latency_cycles",
                    "x_mm",
                    "y_mm",
                    "length_mm",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given_in_both(40, 150, st.lists(ANY, max_size=4), st.lists(ANY, max_size=4), ANY)
def test_no_graph_ends_in_a_traceback(nodes: list[Any], edges: list[Any], directed: Any) -> None:
    with suppress(InputError):
        load_array(raw(2, graph={"nodes": nodes, "edges": edges, "directed": directed}))


@pytest.mark.parametrize(
    ("key", "fine", "wrong"),
    [
        ("length_mm", [0, 0.0, 5, 1e6], [-1e-9, 1e6 + 1e-9, math.nan, math.inf, True, "3"]),
        ("x_mm", [-1e6, 0, 1e6], [-1e6 - 1e-9, 1e6 + 1e-9, -math.inf, False]),
    ],
)
def test_lengths_up_to_their_bounds(key: str, fine: list[Any], wrong: list[Any]) -> None:
    def described(value: Any) -> dict[str, Any]:
        of_edge, of_node = ({key: value}, {}) if key == "length_mm" else ({}, {key: value, "y_mm": 0})
        return raw(1, graph=graph([{"id": "root", **of_node}, "pe0"], [("root", "pe0", of_edge)]))

    for value in fine:
        found = shape(described(value))
        assert (found.edges[0].length_mm if key == "length_mm" else found.nodes[0].x_mm) == value
    for value in wrong:
        assert f"{key}: not a length" in refusal(described(value))
