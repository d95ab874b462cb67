"""What every kind of interconnect has to hold, and what each of them is."""

from __future__ import annotations

import subprocess
import sys

import networkx as nx
import numpy as np
import pytest

from pe_sim.config.arrays.load import array_to_dict, describe_array, load_array
from pe_sim.config.networks.bus_tree_schema import KINDS as FILE_KINDS
from pe_sim.config.networks.schema import SECTIONS as FILE_SECTIONS
from pe_sim.errors import InputError
from pe_sim.network.topology.assembly import Plan
from pe_sim.network.topology.kinds import KINDS, build_topology
from pe_sim.network.topology.topology import ROOT, TAP
from pe_sim.network.topology.trees import HierarchicalBus
from tests.network.networks import LINK, POWERS, SECTIONS, array_of, sizes_of

CASES = [(kind, num_pes) for kind in KINDS for num_pes in sizes_of(kind)]


def edges_of(topology, *, tree=None):
    """(source, target, name of the channel) without taps, of names with `tree` in them."""
    rows = topology.graph.edges(data="channel")
    names = topology.channels.name
    return [(a, b, names[c]) for a, b, c in rows if c >= 0 and (tree is None or tree in names[c])]


def test_the_registry_the_schema_and_these_tests_know_the_same_kinds():
    assert set(KINDS) == set(FILE_KINDS) == set(SECTIONS) == {"bus_tree", *FILE_SECTIONS}


@pytest.mark.parametrize(("kind", "num_pes"), CASES)
def test_conformance(kind, num_pes):
    array = array_of(kind, num_pes)
    topology = build_topology(array)
    graph, channels = topology.graph, topology.channels
    one_cluster = kind == "hierarchical_bus" and num_pes <= 4
    expected = "bus_tree" if one_cluster else kind
    assert (topology.kind, topology.num_pes, topology.root) == (expected, num_pes, ROOT)
    assert topology.nodes[: num_pes + 1] == (*range(num_pes), ROOT)
    assert [graph.nodes[pe]["kind"] for pe in range(num_pes)] == ["pe"] * num_pes
    assert graph.nodes[ROOT]["kind"] == "root"
    for _, data in graph.nodes(data=True):
        assert set(data) == {"kind", "x_mm", "y_mm", "combines"}
        assert data["kind"] in ("pe", "root", "switch", "joint", "bus")
        assert not (data["kind"] == "bus" and data["combines"])
    ends = {*range(num_pes), ROOT}
    for end in ends:  # everybody reaches everybody
        assert ends <= {end} | nx.descendants(graph, end)

    assert len(set(channels.name)) == len(channels) > 0
    used = [channel for _, _, channel in graph.edges(data="channel")]
    assert set(used) - {TAP} == set(range(len(channels)))
    for column in (channels.bytes_per_cycle, channels.latency_cycles, channels.overhead_cycles):
        assert column.shape == (len(channels),)
        assert column.dtype == np.int64
    assert channels.bytes_per_cycle.min() >= 1
    assert channels.latency_cycles.min() >= 1
    assert channels.length_mm.min() >= 0
    assert channels.length_mm.sum() > 0
    for source, target, channel in graph.edges(data="channel"):
        if graph.nodes[source]["kind"] == "bus":
            assert channel == TAP
        else:
            assert channel != TAP
            shared = graph.nodes[target]["kind"] == "bus"
            assert shared or used.count(channel) == 1
    assert topology.edges.shape == (graph.number_of_edges(), 3)
    index = topology.node_index
    assert topology.edges.tolist() == [[index[a], index[b], c] for a, b, c in graph.edges(data="channel")]
    assert topology.is_bus.sum() == sum(data["kind"] == "bus" for _, data in graph.nodes(data=True))


@pytest.mark.parametrize("kind", KINDS)
def test_round_trip_and_determinism(kind):
    array = array_of(kind, 16)
    again = load_array(array_to_dict(array))
    assert again == array
    assert hash(again.network) == hash(array.network)
    assert array_to_dict(again) == array_to_dict(array)
    first = build_topology(array)
    assert build_topology(again) is first  # cached by value
    assert describe_array(array).count("\n") == 0
    build = KINDS[kind].build
    from pe_sim.network.topology.kinds import plan_of

    second = build(plan_of(array))
    assert list(second.graph.edges(data="channel")) == list(first.graph.edges(data="channel"))
    assert list(second.graph.nodes(data=True)) == list(first.graph.nodes(data=True))
    assert second.channels.name == first.channels.name


@pytest.mark.parametrize("kind", KINDS)
def test_channels_grow_in_proportion_to_the_pes(kind):
    few, many = (len(build_topology(array_of(kind, num_pes)).channels) for num_pes in (256, 1024))
    assert many <= 5 * few  # 4 times the PEs with 10 channels each for 8, as on a hypercube


@pytest.mark.parametrize("kind", POWERS)
def test_other_numbers_are_refused_with_what_fits(kind):
    with pytest.raises(InputError) as caught:
        array_of(kind, 48)
    what = {"hypercube": "a hypercube", "butterfly": "a butterfly of radix 2"}[kind]
    assert str(caught.value) == (
        f"array: num_pes: the number of PEs does not fit {what}\n  given:    48\n  expected: a power of 2\n"
        "  hint:     the nearest that fit are 32 and 64"
    )


def test_neighbours():
    assert set(build_topology(array_of("line", 4)).graph[1]) == {0, 2}
    assert set(build_topology(array_of("ring", 5)).graph[0]) == {1, 4, ROOT}
    assert set(build_topology(array_of("mesh", 12)).graph[5]) == {1, 4, 6, 9}  # 3 x 4
    assert set(build_topology(array_of("torus", 12)).graph[0]) == {1, 3, 4, 8, ROOT}
    assert set(build_topology(array_of("hypercube", 8)).graph[5]) == {4, 7, 1}
    assert len(build_topology(array_of("ring", 2)).channels) == 4  # one pair, and the root's
    assert len(build_topology(array_of("torus", 4)).channels) == 8 + 2


def test_names_and_levels():
    mesh = build_topology(array_of("mesh", 20)).channels  # 4 x 5
    assert "mesh (3,4)->(2,4)" in mesh.name
    assert list(dict.fromkeys(mesh.level)) == ["link", "root link"]
    bus = build_topology(array_of("bus_tree", 16)).channels
    assert bus.name[0] == bus.level[0] == "bus"
    assert "tree 12 up" in bus.name
    tree = build_topology(array_of("fat_tree", 4)).channels
    assert list(dict.fromkeys(tree.level)) == ["level 0", "level 1", "root link"]
    assert tree.bytes_per_cycle[[tree.level.index(level) for level in dict.fromkeys(tree.level)]].tolist() == [
        64,
        128,
        128,
    ]


def test_the_bus_is_one_channel_with_taps():
    topology = build_topology(array_of("bus_tree", 8))
    senders = {source for source, target, name in edges_of(topology) if name == "bus"}
    joints = {node for node, kind in topology.graph.nodes(data="kind") if kind == "joint"}
    assert len(joints) == 4 + 2
    assert senders == {*range(8), ROOT, *joints}
    assert set(topology.graph["bus"]) == {*range(8), ROOT}
    assert topology.channels.request_cycles[0] == topology.channels.latency_cycles[0] == 1
    assert topology.channels.overhead_cycles.tolist() == [2] + [0] * 14


@pytest.mark.parametrize("downlink", [False, True])
def test_the_tree_leads_down_only_with_downlinks(downlink):
    array = array_of(
        "bus_tree",
        8,
        tree={"arity": 2, "bytes_per_cycle": 64, "latency_cycles": 3, "combine_cycles": 2, "downlink": downlink},
    )
    topology = build_topology(array)
    tree = nx.DiGraph((a, b) for a, b, _ in edges_of(topology, tree="tree"))
    assert all(nx.has_path(tree, pe, ROOT) for pe in range(8))
    assert nx.has_path(tree, ROOT, 0) == downlink
    assert {nx.shortest_path_length(tree, pe, ROOT) for pe in range(8)} == {3}
    assert set(topology.channels.latency_cycles[1:].tolist()) == {3}


@pytest.mark.parametrize("num_pes", [1, 2, 5, 16, 17])
def test_one_cluster_is_a_bus_tree(num_pes):
    several = array_of("hierarchical_bus", 128, cluster_pes=64)
    one = HierarchicalBus().build(Plan(num_pes, several.network, several.floorplan)).channels
    other = build_topology(array_of("bus_tree", num_pes)).channels
    for column in (
        "bytes_per_cycle",
        "latency_cycles",
        "overhead_cycles",
        "request_cycles",
        "ramp_cycles",
        "length_mm",
    ):
        assert getattr(one, column).tolist() == getattr(other, column).tolist(), column


def test_one_cluster_is_simulated_as_a_bus_and_a_tree():
    one = array_of("hierarchical_bus", 16, cluster_pes=16)
    assert one.network == array_of("bus_tree", 16).network
    for what in ({"in_network_reduction": False}, {"forward_cycles": 3}, {"collectives": {"reduce": "chain"}}):
        assert array_of("hierarchical_bus", 16, cluster_pes=16, **what).network.kind == "hierarchical_bus"


def test_clusters():
    topology = build_topology(array_of("hierarchical_bus", 18))
    graph = topology.graph
    assert set(graph["cluster bus 4"]) == {16, 17, "cluster 4"}
    assert set(graph["top bus"]) == {ROOT, *(f"cluster {index}" for index in range(5))}
    assert nx.shortest_path_length(graph, 0, 17) == 6  # three buses, each with a tap
    tree = nx.DiGraph((a, b) for a, b, _ in edges_of(topology, tree="tree"))
    assert {nx.shortest_path_length(tree, pe, ROOT) for pe in range(18)} == {2 + 3}


@pytest.mark.parametrize("kind", ["mesh", "line"])
def test_a_mesh_of_one_row_is_a_line(kind):
    line, mesh = build_topology(array_of("line", 30)).channels, build_topology(array_of("mesh", 30, rows=1)).channels
    for column in ("bytes_per_cycle", "latency_cycles", "overhead_cycles", "length_mm"):
        assert sorted(getattr(mesh, column).tolist()) == sorted(getattr(line, column).tolist())


def test_a_fat_tree_that_does_not_grow_is_an_h_tree():
    fat, plain = (
        build_topology(array_of(kind, 20, **more)) for kind, more in (("fat_tree", {"growth": 1.0}), ("h_tree", {}))
    )
    assert list(fat.graph.edges(data="channel")) == list(plain.graph.edges(data="channel"))
    assert fat.channels.bytes_per_cycle.tolist() == plain.channels.bytes_per_cycle.tolist()


@pytest.mark.parametrize("radix", [2, 4, 8])
def test_every_pe_reaches_every_pe_in_one_pass_of_the_butterfly(radix):
    topology = build_topology(array_of("butterfly", 64, radix=radix))
    stages = {2: 6, 4: 3, 8: 2}[radix]
    lengths = dict(nx.all_pairs_shortest_path_length(topology.graph))
    assert {lengths[a][b] for a in range(64) for b in range(64) if a != b} == {stages + 1}
    switches = [node for node in topology.nodes if str(node).startswith("switch")]
    assert len(switches) == stages * 64 // radix
    for node in switches:
        extra = ROOT in {*topology.graph.predecessors(node), *topology.graph.successors(node)}
        assert topology.graph.in_degree(node) + topology.graph.out_degree(node) == 2 * radix + extra


@pytest.mark.parametrize(("kind", "center"), [("line", 8), ("ring", 8), ("mesh", 10), ("torus", 10)])
def test_where_the_root_is(kind, center):
    for root_at, pe in ((0, 0), (7, 7), ("center", center)):
        topology = build_topology(array_of(kind, 16, root_at=root_at))
        assert list(topology.graph[ROOT]) == list(topology.graph.predecessors(ROOT)) == [pe]
        assert topology.channels.name[-2:] == ("root up", "root down")


def test_who_combines():
    def combining(kind, **more):
        topology = build_topology(array_of(kind, 8, **more))
        return {data["kind"] for _, data in topology.graph.nodes(data=True) if data["combines"]}

    assert combining("mesh") == {"pe", "root"}
    assert combining("fat_tree") == {"switch", "root"}
    assert combining("bus_tree") == combining("hierarchical_bus") == {"joint", "root"}
    assert combining("butterfly") == combining("crossbar") == {"switch", "root"}
    assert combining("mesh", in_network_reduction=False) == set()
    topology = build_topology(array_of("mesh", 8, in_network_reduction=False, combine_cycles=5, forward_cycles=3))
    assert (topology.in_network_reduction, topology.combine_cycles, topology.forward_cycles) == (False, 5, 3)


def test_latencies_follow_the_wires():
    link = {**LINK, "ramp_cycles": 2}
    line = build_topology(array_of("line", 9, link=link)).channels
    assert set(line.ramp_cycles.tolist()) == {2}
    array = array_of("crossbar", 400)  # 1.2 mm a PE, 10 mm a cycle
    channels = build_topology(array).channels
    expected = [max(1, int(-(-round(length * 1000) // 10000))) for length in channels.length_mm]
    assert channels.latency_cycles.tolist() == expected
    assert max(expected) == 3
    fixed = build_topology(array_of("crossbar", 400, link={**LINK, "latency_cycles": 0})).channels
    assert set(fixed.latency_cycles.tolist()) == {0}


def test_a_wire_beyond_all_bounds_is_refused():
    from dataclasses import replace

    array = array_of("line", 4)
    with pytest.raises(InputError, match=r"^network: the floorplan makes a wire of 1 PE pitches longer than"):
        build_topology(replace(array, floorplan=replace(array.floorplan, mm_per_cycle=1e-300)))


def test_a_bus_tree_never_imports_networkx():
    code = (
        "import sys, pe_sim as ps; ps.simulate('gpt2', 'bus-tree-64', ps.Decode(1, 64), workflow='megatron');"
        "assert 'networkx' not in sys.modules; assert 'pe_sim.config.networks.schema' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_users_graph_with_a_bus():
    nodes = [
        {"id": "root", "combines": False},
        {"id": "hub", "x_mm": 3.0, "y_mm": 4.5},
        *({"id": pe} for pe in range(4)),
        {"id": "wire", "kind": "bus", "bytes_per_cycle": 8, "latency_cycles": "auto", "request_cycles": "auto"},
    ]
    edges = [
        {"source": "root", "target": "hub", "length_mm": 25},
        {"source": "hub", "target": 0},
        *({"source": "wire", "target": end} for end in ("hub", 1, 2, 3)),
    ]
    topology = build_topology(array_of("graph", 4, graph={"nodes": nodes, "edges": edges}))
    graph, channels = topology.graph, topology.channels
    assert (graph.nodes["hub"]["x_mm"], graph.nodes["hub"]["y_mm"]) == pytest.approx((3.0, 4.5))
    assert not graph.nodes[ROOT]["combines"]
    assert graph.nodes["hub"]["combines"]
    wire = channels.name.index("wire")
    assert [graph.edges[end, "wire"]["channel"] for end in ("hub", 1, 2, 3)] == [wire] * 4
    assert [graph.edges["wire", end]["channel"] for end in ("hub", 1, 2, 3)] == [TAP] * 4
    assert channels.request_cycles[wire] == channels.latency_cycles[wire] == 1
    down = channels.name.index("root->hub")
    assert (channels.length_mm[down], channels.latency_cycles[down]) == (pytest.approx(25.0), 3)
