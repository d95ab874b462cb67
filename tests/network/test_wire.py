"""Scaling to a budget of wire."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import strategies as st

from pe_sim.config.arrays.load import array_to_dict, load_array
from pe_sim.errors import InputError
from pe_sim.network.metrics import scale_to_wire, scaled_to_wire, wire_bits_mm
from pe_sim.network.topology.kinds import KINDS, build_topology
from tests.helpers import given_in_both
from tests.network.networks import array_of, star

KIND = st.sampled_from(sorted(KINDS))


def with_widths_of_one(array):
    """The same with every width in its description set to 1."""

    def narrowed(part):
        if isinstance(part, dict):
            return {key: 1 if key == "bytes_per_cycle" else narrowed(value) for key, value in part.items()}
        return [narrowed(each) for each in part] if isinstance(part, list) else part

    described = array_to_dict(array)
    return load_array({**described, "network": narrowed(described["network"])})


@given_in_both(15, 60, KIND, st.floats(0.001, 50.0))
def test_never_above_the_budget(kind, factor):
    array = array_of(kind, 16)
    budget = factor * wire_bits_mm(array)
    least = wire_bits_mm(with_widths_of_one(array))
    if budget < least * (1 - 1e-9):
        with pytest.raises(InputError, match="takes more wire than that even with channels of 1 byte per cycle"):
            scale_to_wire(array, budget)
        return
    scaling = scale_to_wire(array, budget)
    widths = build_topology(scaling.array).channels.bytes_per_cycle
    assert scaling.reached_bits_mm == wire_bits_mm(scaling.array)
    assert scaling.reached_bits_mm <= budget * (1 + 1e-9)
    if factor * 64 > 20:  # of widths of 20 and more, rounding down takes little
        assert scaling.reached_bits_mm > 0.94 * budget
    assert widths.min() >= 1


@pytest.mark.parametrize("kind", KINDS)
def test_the_own_budget_changes_nothing(kind):
    array = array_of(kind, 16)
    assert scaled_to_wire(array, wire_bits_mm(array)) == array


@pytest.mark.parametrize("kind", KINDS)
def test_twice_the_budget_is_twice_the_width_and_round_trips(kind):
    array = array_of(kind, 16)
    scaled = scaled_to_wire(array, 2 * wire_bits_mm(array))
    before, after = build_topology(array).channels, build_topology(scaled).channels
    assert after.bytes_per_cycle.tolist() == (2 * before.bytes_per_cycle).tolist()
    assert after.latency_cycles.tolist() == before.latency_cycles.tolist()
    assert load_array(array_to_dict(scaled)) == scaled


def test_ratios_are_kept():
    array = array_of("bus_tree", 16, tree={"arity": 2, "bytes_per_cycle": 16, "latency_cycles": 1, "combine_cycles": 2})
    network = scaled_to_wire(array, wire_bits_mm(array) / 4).network
    assert (network.bus.bytes_per_cycle, network.tree.bytes_per_cycle) == (16, 4)


@pytest.mark.parametrize("share", [0.041, 0.1, 0.3])
def test_the_bus_gives_way_where_the_tree_cannot(share):
    """A tree of 2 bytes per cycle can only become one of 1: from there on the bus alone gets narrower."""
    array = load_array("bus-tree-256", {"network.tree.bytes_per_cycle": 2})
    budget = share * wire_bits_mm(array)
    scaling = scale_to_wire(array, budget)
    network = scaling.array.bus_tree
    assert network.tree.bytes_per_cycle == 1
    a_byte_more = replace(network, bus=replace(network.bus, bytes_per_cycle=network.bus.bytes_per_cycle + 1))
    assert scaling.reached_bits_mm <= budget < 1.01 * wire_bits_mm(replace(scaling.array, network=a_byte_more))


def test_what_cannot_be_made_equal_is_refused():
    array = load_array("bus-tree-256")
    least = wire_bits_mm(with_widths_of_one(array))
    assert scale_to_wire(array, least).array == with_widths_of_one(array)
    with pytest.raises(InputError) as caught:
        scale_to_wire(array, 0.9 * least, source="--equal wire")
    assert str(caught.value).splitlines() == [
        "--equal wire: bus-tree-256 takes more wire than that even with channels of 1 byte per cycle",
        f"  given:    {0.9 * least!r}",
        f"  expected: at least {least:,.0f} bit mm",
    ]
    graph = star(4)
    graph["edges"] = [{**edge, "length_mm": 0.0} for edge in graph["edges"]]
    with pytest.raises(InputError, match="has no wire, whatever its widths"):
        scale_to_wire(array_of("graph", 4, graph=graph), 1.0)


def test_it_says_what_it_reached():
    array = load_array("mesh-256")
    assert str(scale_to_wire(array, 300_000)) == ("mesh-256: widths x 0.5076, wire 295,526 of 300,000 bit mm (98.5%)")


@pytest.mark.parametrize("budget", [0, -1, float("nan"), float("inf")])
def test_no_budget(budget):
    with pytest.raises(InputError, match=r"^not an amount of wire"):
        scale_to_wire(array_of("line", 4), budget)
