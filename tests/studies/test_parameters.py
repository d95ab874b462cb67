"""Parameters that scale together in whole numbers, and arrays that are loaded again with other values."""

import math
from dataclasses import fields
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pe_sim.config.arrays.load import load_array
from pe_sim.config.files.loading import preset_names
from pe_sim.network.interconnect import interconnect_of
from pe_sim.studies.parameters import EVERY_LATENCY, PES, WIRES, Kind, Parameter, Setting, Source, parameters_of

PES_OF_GRAPH = [f"pe{pe}" for pe in range(3)]
WIRE = {"id": "wire", "kind": "bus", "bytes_per_cycle": 8, "latency_cycles": 1}
GRAPH = {
    "nodes": [{"id": "root"}, *({"id": pe} for pe in PES_OF_GRAPH), WIRE],
    "edges": [
        {"source": "root", "target": "pe0", "latency_cycles": 3},
        {"source": "pe0", "target": "pe1"},
        *({"source": pe, "target": "wire"} for pe in PES_OF_GRAPH),
    ],
}
USER_GRAPH = {
    "num_pes": 3,
    "network": {"kind": "graph", "graph": GRAPH, "link": {"bytes_per_cycle": 16, "latency_cycles": 2}},
}


def known(array, overrides=None):
    source = Source.of(array, overrides)
    parameters, left_out = parameters_of(source, source.load())
    return source, {each.name: each for each in parameters}, left_out


@given(
    st.lists(st.integers(1, 10**6), min_size=1, max_size=5), st.fractions(Fraction(1, 1000), 3), st.sampled_from(Kind)
)
def test_scales_keep_every_number_whole_and_reach_the_nearest(numbers, change, kind):
    parameter = Parameter("some", kind, "", tuple(Setting(f"at.{i}", number) for i, number in enumerate(numbers)))
    whole = math.gcd(*numbers)
    up, down = parameter.scales(change)
    assert up > 1
    for scale in (up, down):
        if scale is None:
            assert whole == 1  # nothing whole is left below
            continue
        assert scale != 1
        assert scale > 0
        values = parameter.overrides(scale).values()
        assert [Fraction(value) for value in values] == [scale * number for number in numbers]
    aimed = max(change, Fraction(1)) if kind is Kind.COUNT else change
    step = Fraction(1, whole)
    assert up - 1 == step or abs(up - 1 - aimed) <= step / 2
    if down is not None:
        assert 1 - down == step or abs(down - 1 / (1 + aimed)) <= step / 2


def test_numbers_that_are_no_whole_ones_move_exactly():
    clock = Parameter("clock", Kind.CLOCK, "GHz", (Setting("clock_ghz", 1.5),))
    up, down = clock.scales(Fraction(1, 100))
    assert (up, down) == (Fraction(101, 100), Fraction(100, 101))
    assert clock.overrides(up) == {"clock_ghz": pytest.approx(1.515)}


def channels_of(array):
    """What every channel is, with `auto` worked out."""
    channels = interconnect_of(array).topology.channels
    return [getattr(channels, field.name) for field in fields(channels) if field.name not in ("name", "level")]


@pytest.mark.parametrize("name", [name for name in preset_names("arrays") if "4096" not in name])
def test_every_parameter_of_every_preset_can_be_moved(name):
    """And moves something; taken times one, it is what it was."""
    source, parameters, left_out = known(name)
    array = source.load()
    assert not set(parameters) & set(left_out)
    for parameter in parameters.values():
        up = Fraction(4) if parameter.name == PES else parameter.scales(Fraction(1, 100))[0]  # a butterfly's powers
        assert source.load(parameter.overrides(up)) != array, parameter.name
        same = source.load(parameter.overrides(Fraction(1)))
        assert (same.pe, same.root, same.num_pes, same.clock_ghz) == (
            array.pe,
            array.root,
            array.num_pes,
            array.clock_ghz,
        )
        for before, after in zip(channels_of(array), channels_of(same), strict=True):
            np.testing.assert_array_equal(before, after)


def test_auto_latencies_stay_derived():
    source, parameters, _ = known("bus-tree-256")
    larger = source.load(parameters[PES].overrides(Fraction(4)))
    assert larger == load_array("bus-tree-256", {"num_pes": 1024})
    assert larger.bus_tree.bus.latency_cycles == 8
    slower = source.load(parameters["bus latency"].overrides(Fraction(5, 4))).bus_tree.bus
    assert (slower.latency_cycles, slower.request_cycles) == (5, 5)
    assert "bus request" not in parameters


def test_latencies_that_are_given_stay_given():
    given_ones = {"network.bus.latency_cycles": 9, "network.bus.request_cycles": 7, "network.tree.latency_cycles": 3}
    source, parameters, _ = known("bus-tree-256", given_ones)
    larger = source.load(parameters[PES].overrides(Fraction(2))).bus_tree
    assert (larger.bus.latency_cycles, larger.bus.request_cycles) == (9, 7)
    assert larger.tree.level_latency_cycles == (3,) * 9
    assert source.load(parameters["bus latency"].overrides(Fraction(10, 9))).bus_tree.bus.request_cycles == 7
    assert WIRES not in parameters


@pytest.mark.parametrize("name", ["bus-tree-256", "mesh-256", "hier-bus-256", "torus-256", "aim-gddr6-16"])
def test_a_finished_array_is_taken_as_its_file(name):
    """Its `auto`s are found again: it moves as the preset does."""
    source, _, _ = known(load_array(name))
    again, _, _ = known(name)
    assert source.load() == again.load()
    for num_pes in (16, 64, 1024):
        assert source.load({"num_pes": num_pes}) == again.load({"num_pes": num_pes})


def test_latencies_move_as_one():
    source, parameters, _ = known("bus-tree-64")
    every = parameters[EVERY_LATENCY]
    array, moved = source.load(), source.load(every.overrides(Fraction(3)))
    for path in ("pe.memory", "pe.matrix", "pe.vector", "root.memory", "root.vector"):
        old, new = (each for each in (array, moved))
        for name in path.split("."):
            old, new = getattr(old, name), getattr(new, name)
        assert new.latency_cycles == 3 * old.latency_cycles, path
    assert moved.bus_tree.bus.overhead_cycles == 3 * array.bus_tree.bus.overhead_cycles
    assert moved.bus_tree.bus.request_cycles == 3 * array.bus_tree.bus.request_cycles
    tree, slower = array.bus_tree.tree, moved.bus_tree.tree
    assert slower.level_latency_cycles == tuple(3 * hop for hop in tree.level_latency_cycles)
    assert slower.softmax_combine_cycles == 3 * tree.softmax_combine_cycles


def test_a_bank_has_its_own_times():
    _, parameters, _ = known("aim-gddr6-16")
    assert {"PE memory column time", "PE memory row opening"} <= set(parameters)
    assert "PE memory bandwidth" not in parameters
    paths = [setting.path for setting in parameters[EVERY_LATENCY].settings]
    assert "pe.memory.activate_cycles" in paths
    assert "pe.memory.column_cycles" not in paths


def test_a_graph_of_ones_own_moves_as_a_whole():
    source, parameters, left_out = known("bus-tree-64", USER_GRAPH)
    wider = source.load(parameters["link width"].overrides(Fraction(2))).graph_network.shape
    assert {edge.link.bytes_per_cycle for edge in wider.edges if edge.link} == {32}
    assert [node.link.bytes_per_cycle for node in wider.nodes if node.link] == [16]
    every = source.load(parameters[EVERY_LATENCY].overrides(Fraction(2))).graph_network.shape
    assert {edge.link.latency_cycles for edge in every.edges if edge.link} == {4, 6}
    assert [node.link.latency_cycles for node in every.nodes if node.link] == [2]
    assert "link ramp" in left_out


def test_a_hierarchy_of_one_cluster_is_one_bus():
    source, parameters, _ = known("hier-bus-256", {"num_pes": 16})
    assert "bus width" in parameters
    assert source.load(parameters["bus width"].overrides(Fraction(2))).bus_tree.bus.bytes_per_cycle == 128


def test_wires_of_several_lengths_have_no_latency_to_scale():
    _, parameters, left_out = known("h-tree-256", {"floorplan.mm_per_cycle": 1.0})
    assert "link latency" not in parameters
    assert "wire speed" in left_out["link latency"]
    assert "link latency" in left_out[EVERY_LATENCY]
    assert WIRES in parameters
