"""Ways of messages: as short as any, the same from either end, and orders whose neighbours are near."""

import itertools

import networkx as nx
import numpy as np
import pytest

from pe_sim.network.collectives.ring_orders import box_of, path_order, ring_order
from pe_sim.network.interconnect import interconnect_of
from pe_sim.network.routing import routes
from pe_sim.network.routing.routes import Coordinates, Routes, only_paths
from tests.network.networks import SECTIONS, array_of, hops, star
from tests.network.programs import small

SIZES = {"hypercube": (1, 2, 16), "butterfly": (1, 2, 16)}


def arrays():
    for kind in SECTIONS:
        for num_pes in SIZES.get(kind, (1, 2, 5, 12, 16)):
            yield array_of(kind, num_pes)


def labelled(array):
    return f"{array.network.kind}-{array.num_pes}"


@pytest.mark.parametrize("array", list(arrays()), ids=labelled)
def test_paths_lead_from_end_to_end_over_as_few_cycles_as_any(array):
    interconnect = interconnect_of(array)
    topology, flows = interconnect.topology, interconnect.flows
    ends = np.arange(array.num_pes + 1)
    pairs = np.array([pair for pair in itertools.product(ends, ends) if pair[0] != pair[1]], dtype=np.int64)
    paths = flows.paths(pairs[:, 0], pairs[:, 1])
    graph, channels = hops(topology), topology.channels
    for source, target, channel in topology.graph.edges(data="channel"):
        cost = 0 if channel < 0 else int(channels.latency_cycles[channel] + channels.overhead_cycles[channel])
        graph.edges[source, target]["cost"] = cost
    least = dict(nx.all_pairs_dijkstra_path_length(graph, weight="cost"))
    cost = (channels.latency_cycles + channels.overhead_cycles)[paths.channel]
    found = np.bincount(paths.message, weights=cost, minlength=len(pairs))
    on_bus = topology.is_bus.any()
    grid = flows.routes.coordinates is not None  # dimension by dimension: as few hops, whatever the wires
    few = dict(nx.all_pairs_dijkstra_path_length(graph))
    for index, (first, second) in enumerate(pairs.tolist()):
        one, other = topology.nodes[first], topology.nodes[second]
        if grid:
            assert (paths.message == index).sum() == few[one][other]
        elif not on_bus:
            assert found[index] == least[one][other]
        steps = paths.step[paths.message == index]
        assert steps.tolist() == list(range(len(steps)))
        assert paths.message[paths.last[index]] == paths.message[paths.first[index]] == index


@pytest.mark.parametrize("kind", ["h_tree", "fat_tree", "crossbar", "line", "graph"])
def test_the_only_paths_of_a_tree_are_those_that_a_search_finds(kind):
    topology = interconnect_of(array_of(kind, 9)).topology
    tree = only_paths(topology.edges, len(topology.nodes))
    searched = Routes(topology, None)
    graphs = searched._by_latency
    for node in range(len(topology.nodes)):
        for outward in (True, False):
            edge, depth = tree.seen_from(node, outward=outward)
            found = graphs(node, outward, "all")
            assert edge.tolist() == found.edge.tolist()
            assert depth.tolist() == found.depth.tolist()


@pytest.mark.parametrize("kind", ["ring", "mesh", "torus", "hypercube", "butterfly", "bus_tree"])
def test_graphs_with_cycles_have_no_only_paths(kind):
    topology = interconnect_of(array_of(kind, 16)).topology
    assert only_paths(topology.edges, len(topology.nodes)) is None


def test_many_to_one_and_one_to_many_take_the_same_ways_as_one_by_one():
    for kind in ("mesh", "fat_tree", "crossbar"):
        flows = interconnect_of(array_of(kind, 16)).flows
        others = np.arange(1, 16)
        for senders, receivers in ((others, np.zeros(15, dtype=int)), (np.zeros(15, dtype=int), others)):
            together = flows.paths(senders, receivers)
            for index in range(15):
                alone = flows.paths(senders[[index]], receivers[[index]])
                assert together.channel[together.message == index].tolist() == alone.channel.tolist()


def test_a_scope_whose_ways_meet_at_a_switch_that_cannot_combine_has_a_pe_as_its_hub():
    bounds = np.array([4]), np.array([8])
    combining, forwarding = (
        interconnect_of(small("fat_tree", 8, growth=2.0, in_network_reduction=combines)) for combines in (True, False)
    )
    assert combining.topology.nodes[combining.flows.hubs(*bounds)[0]] == "switch 2.1"
    assert forwarding.flows.hubs(*bounds).tolist() == [4]


GRIDS = [
    ((5,), False), ((6,), True), ((4, 4), False), ((4, 3), False), ((3, 4), False), ((3, 5), True), ((5, 3), True),
    ((5, 5), True), ((2,) * 5, False), ((8, 8), True), ((2, 2), False), ((1, 4), False), ((4, 1), True), ((2, 3), True),
]  # fmt: skip


def grid(sizes, wraps):
    strides = [1]
    for size in sizes:
        strides.append(strides[-1] * size)
    return Coordinates(tuple(sizes), tuple(strides[:-1]), wraps)


def apart(coordinates, first, second):
    total = 0
    for size, stride in zip(coordinates.sizes, coordinates.strides, strict=True):
        away = abs(first // stride % size - second // stride % size)
        total += min(away, size - away) if coordinates.wraps else away
    return total


@pytest.mark.parametrize(("sizes", "wraps"), GRIDS)
def test_orders_go_from_neighbour_to_neighbour(sizes, wraps):
    coordinates, count = grid(sizes, wraps), int(np.prod(sizes))
    pes = np.arange(count)
    path, ring = path_order(coordinates, pes).tolist(), ring_order(coordinates, pes).tolist()
    assert sorted(path) == sorted(ring) == pes.tolist()
    assert all(apart(coordinates, *pair) == 1 for pair in itertools.pairwise(path))
    long_sides = [size for size in sizes if size > 1]
    closed = wraps or (len(long_sides) > 1 and any(size % 2 == 0 for size in long_sides))
    farthest = max((apart(coordinates, *pair) for pair in zip(ring, [*ring[1:], ring[0]], strict=True)), default=0)
    assert farthest <= (1 if closed else 2)


@pytest.mark.parametrize(("sizes", "wraps"), GRIDS)
def test_orders_of_any_range_take_every_pe_once(sizes, wraps):
    coordinates, count = grid(sizes, wraps), min(int(np.prod(sizes)), 32)
    for first, last in itertools.combinations(range(count + 1), 2):
        pes = np.arange(first, last)
        assert sorted(path_order(coordinates, pes)) == sorted(ring_order(coordinates, pes)) == pes.tolist()
        box = box_of(coordinates, pes)
        if box is not None:
            offsets = [
                sum(place) for place in itertools.product(*(range(0, s.length * s.stride, s.stride) for s in box))
            ]
            assert sorted(first + offset for offset in offsets) == pes.tolist()


def test_the_ring_of_a_line_is_folded():
    assert ring_order(grid((6,), False), np.arange(6)).tolist() == [0, 2, 4, 5, 3, 1]
    assert ring_order(grid((6,), True), np.arange(6)).tolist() == [0, 1, 2, 3, 4, 5]


def test_a_star_of_pes_is_a_star():
    from pe_sim.network.collectives.algorithms import middle_of_star

    def middle(kind, num_pes, **section):
        return middle_of_star(interconnect_of(array_of(kind, num_pes, **section)))

    nodes = [{"id": "root"}, *({"id": f"pe{pe}"} for pe in range(5))]
    edges = [{"source": "pe0", "target": node["id"]} for node in nodes if node["id"] != "pe0"]
    of_pes = {"directed": False, "nodes": nodes, "edges": edges}
    assert middle("graph", 5, graph=of_pes) == "PE 0"
    assert middle("graph", 4, graph=star(4)) == "node hub"
    assert middle("crossbar", 4) == "node crossbar"
    assert middle("bus_tree", 4) == "node bus"
    assert middle("h_tree", 4, arity=4) == "node switch 1.0"
    for kind in ("line", "ring", "mesh", "torus", "hypercube", "butterfly", "h_tree", "fat_tree"):
        assert middle(kind, 8) is None
        assert middle(kind, 4) is None
        assert middle(kind, 2) is None


def test_of_very_many_trees_only_the_latest_are_kept_and_a_path_is_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tree for every node would take memory that grows with the square of the PEs."""
    array = array_of("mesh", 16)
    every, few = (Routes(own.topology, own.flows.routes.coordinates) for own in [interconnect_of(array)] * 2)
    nodes = np.arange(16)
    trees = [every.outward(pe, nodes) for pe in range(16)]
    monkeypatch.setattr(routes, "_MOST_KEPT", 3 * len(every.topology.nodes))
    for pe in [*range(16), *range(16)]:
        found = few.outward(pe, nodes)
        assert np.array_equal(found.edge, trees[pe].edge)
        assert np.array_equal(found.depth, trees[pe].depth)
        assert len(few.known) <= 3
