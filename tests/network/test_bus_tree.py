"""Closed forms of the bus and the tree in isolation against sections 2 and 3."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pe_sim.network.bus_tree import (
    burst_sizes,
    downlink_cycles,
    hop_cycles,
    occupancy_cycles,
    occupancy_of,
    reduce_cycles,
    serial_cycles,
)
from tests.helpers import ceil, small_array

BURSTS = st.sampled_from([None, 1, 60, 64, 100, 4096, 10**9])


@given(st.lists(st.integers(0, 9000), max_size=6), BURSTS, st.integers(0, 4))
def test_occupancy(sizes, burst, overhead):
    bus = small_array(4, burst=burst, overhead=overhead).network.bus
    cut = [[min(burst or size, size - at) for at in range(0, size, burst or size)] if size else [] for size in sizes]
    for source_rate in (0, 7, 16, 64, 100):
        width = min(64, source_rate or 64)
        held = [sum(overhead + ceil(part, width) for part in parts) for parts in cut]
        assert occupancy_cycles(bus, np.array(sizes, dtype=np.int64), source_rate).tolist() == held
        one_by_one = [sum(occupancy_of(bus, part, source_rate) for part in parts) for parts in cut]
        assert one_by_one == held
    expected = [sum(overhead + ceil(part, 64) for part in parts) for parts in cut]
    assert all(burst_sizes(bus, size) == parts for size, parts in zip(sizes, cut, strict=True) if size)
    total = serial_cycles(bus, np.array(sizes, dtype=np.int64), from_root=True)
    assert total == (sum(expected) + 4 if any(sizes) else 0)


def test_only_pes_wait_for_their_request():
    bus = small_array(4, request=9).network.bus
    sizes = np.array([64, 0, 65])
    assert serial_cycles(bus, sizes, from_root=True) == 3 + 4 + 4
    assert serial_cycles(bus, sizes, from_root=False) == 9 + 3 + 4 + 4
    assert serial_cycles(bus, sizes * 0, from_root=False) == 0


@pytest.mark.parametrize(("levels", "plain", "softmax"), [(0, 0, 0), (1, 3, 13), (3, 9, 39)])
def test_hops(levels, plain, softmax):
    tree = small_array(8).network.tree
    assert hop_cycles(tree, levels) == plain
    assert hop_cycles(tree, levels, softmax=True) == softmax


def test_hops_by_level():
    tree = small_array(8, {"network.tree.latency_cycles": [1, 2, 4]}).network.tree
    assert [hop_cycles(tree, levels) for levels in range(4)] == [0, 3, 7, 13]


def test_side_by_side_or_one_after_another():
    tree = small_array(8).network.tree
    sizes = np.array([64, 0, 640, 65])
    assert reduce_cycles(tree, sizes, 2, parallel=True) == 6 + 10
    assert reduce_cycles(tree, sizes, 3, parallel=False) == 9 + 1 + 10 + 2
    assert reduce_cycles(tree, sizes * 0, 3, parallel=False) == 0
    assert downlink_cycles(tree, sizes, 2) == 2 + 10
