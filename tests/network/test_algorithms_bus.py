"""One cluster of a hierarchical bus, and a bus and a tree as a graph, against the closed forms of a bus and a tree."""

import numpy as np
import pytest

from pe_sim.network.bus_tree import reduce_cycles, serial_cycles
from tests.network.networks import array_of
from tests.network.programs import planner_of

BUS = {"bytes_per_cycle": 64, "latency_cycles": 4, "overhead_cycles": 2, "request_cycles": 3}
TREE = {"arity": 2, "bytes_per_cycle": 32, "latency_cycles": 1}


def arrays(num_pes):
    """A bus and a tree; the same as a graph of channels, and as the only cluster of a hierarchy."""
    flat = array_of("bus_tree", num_pes, bus=BUS, tree={**TREE, "combine_cycles": 2})
    level = {"bus": BUS, "tree": TREE}
    one = array_of("hierarchical_bus", num_pes, cluster_pes=max(num_pes, 2), cluster=level, top=level, combine_cycles=2)
    return flat, (flat, one)


def hub_at_root(planner):
    return int(planner.pattern.hub[0]) == planner.interconnect.flows.root


@pytest.mark.parametrize("num_pes", [1, 2, 3, 5, 8, 16, 33])
@pytest.mark.parametrize("num_bytes", [1, 64, 65, 1000])
def test_closed_forms(num_pes, num_bytes):
    flat, graphs = arrays(num_pes)
    bus, tree = flat.bus_tree.bus, flat.bus_tree.tree
    shards = np.full(num_pes, num_bytes)
    whole = shards.sum(keepdims=True)
    for array in graphs:
        planner = planner_of(array, [(0, num_pes)], num_bytes)
        assert hub_at_root(planner) or num_pes == 1

        def cycles(kind, way, planner=planner):
            return planner.cycles(planner.plan(kind, way))

        if num_pes > 1:
            assert cycles("reduce", "in_network") == reduce_cycles(tree, whole, tree.num_levels, parallel=False)
            assert cycles("broadcast", "multicast") == serial_cycles(bus, whole, from_root=True)
            assert cycles("gather", "serial") == serial_cycles(bus, shards, from_root=False)
            assert cycles("scatter", "serial") == serial_cycles(bus, shards, from_root=True)
            assert cycles("all_gather", "serial") == serial_cycles(bus, shards, from_root=False)
            pairs = np.full(num_pes * (num_pes - 1), num_bytes)
            assert cycles("all_to_all", "pairwise") == serial_cycles(bus, pairs, from_root=False)


def test_aligned_groups_reduce_side_by_side():
    flat, graphs = arrays(16)
    tree = flat.bus_tree.tree
    for array in graphs:
        for size, levels in ((2, 1), (4, 2), (8, 3)):
            bounds = [(first, first + size) for first in range(0, 16, size)]
            planner = planner_of(array, bounds, 100)
            sent = np.full(16 // size, 100 * size)
            expected = reduce_cycles(tree, sent, levels, parallel=True)
            assert planner.cycles(planner.plan("reduce", "in_network")) == expected


def test_two_clusters_take_two_buses_but_the_same_joints():
    level = {"bus": BUS, "tree": TREE}
    planners = [
        planner_of(array_of("hierarchical_bus", 16, cluster_pes=size, cluster=level, top=level), [(0, 16)], 10)
        for size in (16, 8)
    ]
    one, two = ([each.cycles(each.plan(kind, "best")) for kind in ("reduce", "broadcast")] for each in planners)
    assert one[0] == two[0]
    assert one[1] < two[1]
