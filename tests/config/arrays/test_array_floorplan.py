"""`auto` latencies against independent computations, over many sizes and arities."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pe_sim.config.arrays.array import Floorplan
from pe_sim.config.arrays.floorplan import (
    auto_bus_latency_cycles,
    auto_tree_latency_cycles,
    grid_shape,
    num_tree_levels,
)
from pe_sim.config.arrays.load import array_to_dict, load_array
from pe_sim.errors import InputError

SIZES = [*range(1, 300), 1000, 1023, 1024, 1025, 4095, 4096, 4097, 65536, 2**20 - 1, 2**20]


def array(**overrides: Any) -> Any:
    return load_array("bus-tree-256", {key.replace("__", "."): value for key, value in overrides.items()})


@pytest.mark.parametrize("num_pes", SIZES)
def test_grid_is_the_smallest_square_with_empty_rows_dropped(num_pes: int) -> None:
    cols, rows = grid_shape(num_pes)
    side = next(side for side in range(1, 1025) if side * side >= num_pes)
    assert cols == side
    assert (rows - 1) * cols < num_pes <= rows * cols


@pytest.mark.parametrize("arity", [2, 3, 4, 5, 8, 16, 100])
def test_levels_are_the_fewest_that_reach_every_leaf(arity: int) -> None:
    for num_pes in SIZES:
        levels = num_tree_levels(num_pes, arity)
        assert arity**levels >= num_pes
        assert levels == 0 or arity ** (levels - 1) < num_pes


@pytest.mark.parametrize("pitch", [0.1, 0.3, 1.2, 2.5, 7.0])
@pytest.mark.parametrize("reach", [0.1, 0.7, 3.0, 10.0])
def test_bus_latency_is_the_first_cycle_that_covers_the_way(pitch: float, reach: float) -> None:
    for num_pes in (1, 2, 3, 5, 7, 16, 17, 64, 100, 256, 300):
        cycles = auto_bus_latency_cycles(num_pes, Floorplan(pitch, reach))
        side = math.ceil(math.sqrt(num_pes))
        way = (side + math.ceil(num_pes / side)) * round(pitch * 10)  # tenths of a millimetre: whole numbers
        step = round(reach * 10)
        assert cycles * step >= way
        assert cycles == 1 or (cycles - 1) * step < way


@pytest.mark.parametrize("arity", [2, 3, 4, 5, 6, 7, 8, 9, 16, 17, 64])
def test_tree_latency_doubles_as_the_largest_power_of_four_that_fits(arity: int) -> None:
    for level in range(20):
        power = max(e for e in range(64) if 4**e <= arity**level)
        exact = Fraction(3, 10) * 2**power / Fraction(7, 10)
        expected = max(1, -(-exact.numerator // exact.denominator))
        assert auto_tree_latency_cycles(level, arity, Floorplan(0.3, 0.7)) == expected


@pytest.mark.parametrize("arity", [3, 5, 6, 7, 10])
def test_tree_latency_agrees_with_the_formula_where_floats_are_safe(arity: int) -> None:
    # log2 of these arities is irrational: from level 1 on no exponent sits on a whole number
    for level in range(1, 12):
        power = math.floor(level * math.log2(arity) / 2)
        assert auto_tree_latency_cycles(level, arity, Floorplan(1.0, 1.0)) == 2**power


def test_no_binary_float_moves_a_ceiling() -> None:
    # 2 * 3 * 0.1 / 0.2 is 3.0000000000000004 in floats and 3 in decimals
    assert auto_bus_latency_cycles(9, Floorplan(0.1, 0.2)) == 3
    assert auto_bus_latency_cycles(1, Floorplan(1e-05, 1e-05)) == 2


def test_worked_example_of_256() -> None:
    network = array().network
    assert network.bus.latency_cycles == network.bus.request_cycles == 4
    assert network.tree.level_latency_cycles == (1,) * 8


def test_request_follows_the_resolved_bus_latency() -> None:
    assert array(network__bus__latency_cycles=9).network.bus.request_cycles == 9
    assert array(network__bus__request_cycles=0).network.bus.request_cycles == 0
    assert array(network__bus__latency_cycles=0).network.bus.latency_cycles == 0


def test_request_defaults_to_zero() -> None:
    raw = array_to_dict(array())
    del raw["network"]["bus"]["request_cycles"]
    assert load_array(raw).network.bus.request_cycles == 0


def test_explicit_tree_latency_is_the_same_at_every_level() -> None:
    assert array(network__tree__latency_cycles=3, num_pes=100).network.tree.level_latency_cycles == (3,) * 7


def test_one_pe_has_no_tree() -> None:
    latencies: tuple[object, ...] = ("auto", 3, [])
    for latency in latencies:
        assert array(num_pes=1, network__tree__latency_cycles=latency).network.tree.level_latency_cycles == ()


def test_a_list_needs_one_number_a_level() -> None:
    assert array(num_pes=8, network__tree__latency_cycles=[1, 2, 5]).network.tree.level_latency_cycles == (1, 2, 5)
    with pytest.raises(InputError) as caught:
        array(network__tree__latency_cycles=[1, 2, 5])
    assert str(caught.value) == (
        "preset bus-tree-256: network.tree.latency_cycles: wrong number of levels\n  given:    [1, 2, 5]\n"
        "  expected: 8 numbers: 256 PEs in a tree of arity 2 have 8 levels\n"
        "  hint:     auto fits every number of PEs"
    )


def test_an_absurd_floorplan_is_refused() -> None:
    with pytest.raises(InputError) as caught:
        array(floorplan__mm_per_cycle=1e-300)
    assert str(caught.value) == (
        "preset bus-tree-256: network.bus.latency_cycles: the floorplan makes this latency longer than 1048576 cycles\n"
        "  given:    'auto'\n  expected: at most 1048576 cycles\n"
        "  hint:     check floorplan.pe_pitch_mm and floorplan.mm_per_cycle"
    )


CYCLES = st.integers(0, 2**20)
SIZE = st.integers(1, 2**48)
RATE = st.integers(1, 2**32)
LENGTH = st.floats(0.01, 100.0)
QUANTISED = st.fixed_dictionaries(
    {"dtype": st.sampled_from(["fp8", "int8", "int4"])},
    optional={"group_size": st.integers(1, 4096), "zero_point": st.just(False)},
) | st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["int8", "int4"]),
        "group_size": st.integers(1, 4096),
        "zero_point": st.booleans(),
    }
)
NAME = st.sampled_from(["fp32", "bf16", "fp16", "fp8", "int8"])
OVERRIDES = st.fixed_dictionaries(
    {"num_pes": st.integers(1, 5000)},
    optional={
        "name": st.text(min_size=1),
        "clock_ghz": st.floats(0.001, 10.0),
        "overlap": st.integers(0, 3),
        "dtypes.weight": QUANTISED | NAME | st.just("int4"),
        "dtypes.kv_cache": QUANTISED | NAME,
        "dtypes.activation": NAME | st.just("int4"),
        "dtypes.partial": NAME,
        "floorplan.pe_pitch_mm": LENGTH,
        "floorplan.mm_per_cycle": st.floats(0.05, 100.0),  # below, auto latencies may pass what is allowed
        "pe.matrix.outputs": st.integers(1, 4096),
        "pe.matrix.latency_cycles": CYCLES,
        "pe.vector.cycles_per_element.softmax": st.integers(1, 100),
        "root.vector.cycles_per_element": st.dictionaries(st.sampled_from(["add", "gelu"]), st.integers(1, 9)),
        "pe.memory.capacity_bytes": SIZE,
        "pe.memory.technology": st.text(min_size=1),
        "pe.buffer.prefetch_bytes": st.integers(0, 2**48),
        "root.memory.bytes_per_cycle": RATE,
        "network.bus.latency_cycles": CYCLES | st.just("auto"),
        "network.bus.request_cycles": CYCLES | st.just("auto"),
        "network.bus.burst_bytes": SIZE | st.none(),
        "network.tree.arity": st.integers(2, 70),
        "network.tree.latency_cycles": st.integers(1, 2**20) | st.just("auto"),
        "network.tree.downlink": st.booleans(),
        "network.collectives.gather": st.sampled_from(["serial", "by_reduction", "best"]),
    },
)


@given(overrides=OVERRIDES)
def test_the_resolved_dict_gives_the_same_array_again(overrides: dict[str, object]) -> None:
    first = load_array("bus-tree-256", overrides)
    assert first.num_pes == overrides["num_pes"]
    plain = array_to_dict(first)
    again = load_array(plain)
    assert again == first
    assert array_to_dict(again) == plain
