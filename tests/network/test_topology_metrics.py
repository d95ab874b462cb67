"""Diameter, bisection and wire: closed forms against the books, and against brute force."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pe_sim.network.metrics import count_diameter, search_bisection, topology_metrics
from pe_sim.network.topology.assembly import grid_bisection, tree_bisection
from pe_sim.network.topology.kinds import KINDS, build_topology
from tests.helpers import given_in_both
from tests.network.networks import LINK, array_of, counted_diameter, searched_bisection, sizes_of, star

W = LINK["bytes_per_cycle"]


@pytest.mark.parametrize(
    ("kind", "num_pes", "diameter", "links"),
    [
        ("bus_tree", 256, 1, 1),
        ("hierarchical_bus", 256, 3, 1),
        ("h_tree", 256, 16, 1),
        ("fat_tree", 256, 16, 128),
        ("line", 256, 255, 1),
        ("ring", 256, 128, 2),
        ("mesh", 256, 30, 16),
        ("torus", 256, 16, 32),
        ("hypercube", 256, 8, 128),
        ("butterfly", 256, 9, 128),
        ("crossbar", 256, 2, 128),
        ("mesh", 15, 6, 4),  # 3 x 5: the cut has a step
        ("mesh", 12, 5, 3),  # 3 x 4
        ("torus", 12, 3, 6),
        ("ring", 2, 1, 1),
        ("torus", 4, 2, 2),
        ("h_tree", 1, 0, 0),
        ("crossbar", 1, 0, 0),
    ],
)
def test_closed_forms(kind, num_pes, diameter, links):
    metrics = topology_metrics(array_of(kind, num_pes))
    assert (metrics.diameter_hops, metrics.bisection_bytes_per_cycle) == (diameter, links * W)


@pytest.mark.parametrize(("kind", "num_pes"), [(kind, n) for kind in KINDS for n in sizes_of(kind) if n <= 30])
def test_diameters_by_shortest_paths(kind, num_pes):
    array = array_of(kind, num_pes)
    topology = build_topology(array)
    counted = counted_diameter(topology)
    assert topology_metrics(array).diameter_hops == counted
    assert count_diameter(topology) == counted


@pytest.mark.parametrize("num_pes", [2, 3, 4, 5, 6, *(pytest.param(more, marks=pytest.mark.slow) for more in (7, 8))])
@pytest.mark.parametrize("kind", KINDS)
def test_bisections_by_maximum_flows(kind, num_pes):
    if kind in ("hypercube", "butterfly") and num_pes not in (2, 4, 8):
        return
    array = array_of(kind, num_pes)
    topology = build_topology(array)
    found = searched_bisection(topology)
    assert topology_metrics(array).bisection_bytes_per_cycle == found
    assert search_bisection(topology).bytes_per_cycle == found


@pytest.mark.parametrize(("rows", "cols"), [(2, 4), (3, 3), (2, 5), (1, 7)])
@pytest.mark.parametrize("kind", ["mesh", "torus"])
def test_bisections_of_grids(kind, rows, cols):
    array = array_of(kind, rows * cols, rows=rows, cols=cols)
    assert topology_metrics(array).bisection_bytes_per_cycle == searched_bisection(build_topology(array))


@pytest.mark.parametrize(
    ("section", "num_pes"),
    [({"arity": 3}, 8), ({"arity": 3, "growth": 1.5}, 7), ({"arity": 4, "growth": 4.0}, 8), ({"arity": 8}, 6)],
)
def test_bisections_of_trees(section, num_pes):
    array = array_of("fat_tree", num_pes, **section)
    assert topology_metrics(array).bisection_bytes_per_cycle == searched_bisection(build_topology(array))


@pytest.mark.parametrize("num_pes", [5, 6, *(pytest.param(more, marks=pytest.mark.slow) for more in (7, 8))])
@pytest.mark.parametrize(("cluster_pes", "top_width"), [(2, 16), (2, 64), (2, 200), (3, 64), (3, 256), (4, 300)])
def test_bisections_of_clusters(num_pes, cluster_pes, top_width):
    top = {
        "bus": {"bytes_per_cycle": top_width, "latency_cycles": 1, "overhead_cycles": 0},
        "tree": {"bytes_per_cycle": 64, "latency_cycles": 1},
    }
    array = array_of("hierarchical_bus", num_pes, cluster_pes=cluster_pes, top=top)
    assert topology_metrics(array).bisection_bytes_per_cycle == searched_bisection(build_topology(array))


def test_downlinks_count():
    tree = {"arity": 2, "bytes_per_cycle": 16, "latency_cycles": 1, "combine_cycles": 2, "downlink": True}
    array = array_of("bus_tree", 8, tree=tree)
    assert topology_metrics(array).bisection_bytes_per_cycle == 64 + 16 == searched_bisection(build_topology(array))


@given_in_both(8, 30, st.integers(2, 40), st.integers(2, 5), st.data())
def test_a_tree_is_never_cut_wider_than_at_its_leaves(leaves, arity, data):
    levels = 0
    while arity**levels < leaves:
        levels += 1
    widths = data.draw(st.lists(st.integers(1, 9), min_size=levels, max_size=levels))
    cut = tree_bisection(leaves, arity, widths)
    assert 1 <= cut <= leaves // 2 * widths[0]


@given(st.integers(1, 40), st.integers(1, 40), st.booleans())
def test_grids_are_symmetric(rows, cols, wrapped):
    assert grid_bisection(rows, cols, wrapped=wrapped) == grid_bisection(cols, rows, wrapped=wrapped)


def test_large_user_graphs_get_an_upper_bound_and_say_so():
    nodes = [{"id": "root"}, *({"id": pe} for pe in range(36))]
    edges = [{"source": "root", "target": 0}]
    for pe in range(36):  # a 6 x 6 mesh
        for other in ([pe + 1] if pe % 6 < 5 else []) + ([pe + 6] if pe < 30 else []):
            edges.append({"source": pe, "target": other})
    array = array_of("graph", 36, graph={"nodes": nodes, "edges": edges})
    metrics = topology_metrics(array)
    assert metrics.bisection_bytes_per_cycle == 6 * W
    assert metrics.bisection_how.startswith("upper bound: the best of ")
    assert metrics.diameter_hops == 10
    star_metrics = topology_metrics(array_of("graph", 100, graph=star(100)))
    assert (star_metrics.diameter_hops, star_metrics.bisection_bytes_per_cycle) == (2, 50 * W)


@pytest.mark.parametrize(
    ("kind", "num_pes", "pitches"),
    [
        ("line", 16, 2 * 15 + 2 * 1),  # both ways; the root one pitch beside
        ("ring", 16, 2 * 16 + 2),
        ("mesh", 16, 2 * 24 + 2),
        ("torus", 16, 2 * (8 * (1 + 2 + 2 + 1)) + 2),  # folded rings of 4: 1 + 2 + 2 + 1
        ("hypercube", 16, 16 * (1 + 1 + 2 + 2) + 2),
        ("h_tree", 16, 2 * (16 * 0.5 + 8 * 0.5 + 4 * 1 + 2 * 1) + 2 * 2.5),
        ("bus_tree", 4, (4 + 2) + 4 * 0.5 + 2 * (1.5 + 0.5)),  # the bus along 2 rows, leaves, 2 joints to the root
        ("crossbar", 4, 2 * 4 * 1 + 2 * 1.5),
    ],
)
def test_wire(kind, num_pes, pitches):
    array = array_of(kind, num_pes)
    metrics = topology_metrics(array)
    assert metrics.wire_mm == pytest.approx(1.2 * pitches)
    assert metrics.wire_bits_mm == pytest.approx(metrics.wire_mm * 8 * W)
    assert sum(level.wire_bits_mm for level in metrics.levels) == pytest.approx(metrics.wire_bits_mm)
    assert sum(level.channels for level in metrics.levels) == metrics.num_channels


@pytest.mark.parametrize("num_pes", range(2, 40))
def test_no_step_of_a_ring_is_longer_than_its_floor_plan_says(num_pes):
    channels = build_topology(array_of("ring", num_pes)).channels
    assert channels.length_mm.max() <= 2.4 + 1e-9
