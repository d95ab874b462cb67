"""Energy and area in array files: defaults by process, technology and dtypes, and what is refused."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pe_sim.config.arrays.array import Memory
from pe_sim.config.arrays.floorplan import bus_wire_pitches, tree_hop_pitches
from pe_sim.config.arrays.load import array_to_dict, load_array
from pe_sim.config.arrays.schema import AreaFile, ByDtypeFile, EnergyFile
from pe_sim.config.arrays.technology import (
    DRAM_BANK_PJ_PER_BIT,
    PROCESSES,
    memory_pj_per_bit,
    sram_pj_per_bit,
)
from pe_sim.config.dtypes import BITS, wider
from pe_sim.config.files.loading import preset_names
from pe_sim.errors import InputError
from pe_sim.network.topology.kinds import build_topology

MIB = 2**20


def refusal(overrides: dict[str, Any]) -> str:
    with pytest.raises(InputError) as caught:
        load_array("bus-tree-64", overrides)
    return str(caught.value)


def test_an_array_that_says_nothing_gets_everything() -> None:
    plain = {key: value for key, value in array_to_dict(load_array("bus-tree-256")).items() if key != "name"}
    left_out = {key: value for key, value in plain.items() if key not in ("process", "energy", "area")}
    array = load_array(left_out)
    assert array.process == "45nm"
    # Horowitz: an fp16 product 1.1 and an fp32 sum 0.9; an int8 product 0.2 and an int32 sum 0.1.
    assert array.energy.mac_pj == {"fp32": 4.6, "bf16": 2.0, "fp16": 2.0, "fp8": 2.0, "int8": 0.3, "int4": 0.3}
    assert array.energy.local_read_pj_per_bit == array.energy.local_write_pj_per_bit == 0.55
    assert array.energy.root_read_pj_per_bit == 4.0  # LPDDR
    assert array.energy.wire_pj_per_bit_mm == 0.12
    assert array.energy.joint_add_pj == 0.9
    assert array.energy.joint_softmax_pj == 8.3
    assert array.energy.static_watts == 0.0
    assert array.area.mac_um2["int8"] == 282 + 137
    assert array.area.mac_um2["bf16"] == 1640 + 4184
    assert array.area.vector_lane_um2 == 7700 + 4184
    assert array.area.wire_pitch_um == 0.0
    assert array.area.local_layers == 0


def test_the_process_changes_logic_and_sram_and_not_dram() -> None:
    old, new = (load_array("bus-tree-256", {"process": process}) for process in ("45nm", "7nm"))
    assert new.energy.mac_pj["bf16"] == 0.59  # 0.21 + 0.38
    for name in ("vector_pj", "buffer_read_pj_per_bit", "wire_pj_per_bit_mm", "joint_add_pj"):
        assert getattr(new.energy, name) < getattr(old.energy, name), name
    for name in ("vector_lane_um2", "buffer_mm2_per_mib", "joint_lane_um2"):
        assert getattr(new.area, name) < getattr(old.area, name), name
    assert new.energy.local_read_pj_per_bit == old.energy.local_read_pj_per_bit
    assert new.area.local_mm2_per_mib == old.area.local_mm2_per_mib


@pytest.mark.parametrize(
    ("device", "pj"),
    [("dram_bank", 0.55), ("hbm", 3.6), ("lpddr", 4.0), ("gddr", 6.5), ("ddr", 20.3), ("sram", 100 / 64)],
)
def test_devices(device: str, pj: float) -> None:
    memory = Memory("any words", 64 * MIB, 64, 10, device)
    assert memory_pj_per_bit(PROCESSES["45nm"], memory) == pj
    array = load_array("bus-tree-256", {"process": "45nm", "pe.memory.device": device, "root.memory.device": device})
    assert array.energy.local_read_pj_per_bit == array.energy.root_read_pj_per_bit == pj


def test_what_a_file_leaves_out_is_assumed_and_told() -> None:
    plain = array_to_dict(load_array("bus-tree-256"))
    for memory in (plain["pe"]["memory"], plain["root"]["memory"]):
        del memory["device"]
        memory["technology"] = "SRAM, HBM and DDR5"
    left_out = {key: value for key, value in plain.items() if key not in ("process", "energy", "area")}
    array = load_array(left_out)
    assert array.assumed == ("process", "pe.memory.device", "root.memory.device")
    assert (array.energy.local_read_pj_per_bit, array.energy.root_read_pj_per_bit) == (0.55, 3.6)
    assert array.cost_basis == "45nm logic (assumed), dram_bank in the PEs (assumed), hbm at the root (assumed)"
    assert array.cost_basis_note == (
        f"energy and area of bus-tree-256 are those of {array.cost_basis};"
        " to say otherwise: process, pe.memory.device, root.memory.device"
    )
    said = load_array(left_out, {"process": "45nm", "pe.memory.device": "dram_bank", "root.memory.device": "hbm"})
    assert said == array
    assert (said.assumed, said.cost_basis_note) == ((), None)
    assert load_array(left_out, {"pe.memory.kind": "sram"}).pe.memory.device == "sram"
    assert load_array(plain).assumed == ()  # all constants are given: nothing follows from what is left out


@pytest.mark.parametrize("name", preset_names("arrays"))
def test_presets_leave_nothing_to_assume(name: str) -> None:
    assert load_array(name).assumed == ()


def test_a_bank_is_read_at_the_bank() -> None:
    assert load_array("aim-gddr6-16").energy.local_read_pj_per_bit == DRAM_BANK_PJ_PER_BIT


@pytest.mark.parametrize(("process", "pj"), [("45nm", (10, 20, 100)), ("7nm", (7.5, 8.5, 14))])
def test_sram_at_the_published_sizes_and_beyond(process: str, pj: tuple[float, ...]) -> None:
    of = PROCESSES[process]
    for kib, each in zip((8, 32, 1024), pj, strict=True):
        assert sram_pj_per_bit(of, kib * 1024) == pytest.approx(each / 64, abs=1e-6)
    assert sram_pj_per_bit(of, 1) == sram_pj_per_bit(of, 8 * 1024)
    assert sram_pj_per_bit(of, 2**40) == sram_pj_per_bit(of, MIB)
    assert sram_pj_per_bit(of, 16 * 1024) == pytest.approx((pj[0] * pj[1]) ** 0.5 / 64, abs=1e-6)


@given(st.sampled_from(sorted(PROCESSES)), st.integers(1, 2**32), st.integers(1, 2**32))
def test_a_larger_sram_never_costs_less(process: str, first: int, second: int) -> None:
    small, large = sorted((first, second))
    assert sram_pj_per_bit(PROCESSES[process], small) <= sram_pj_per_bit(PROCESSES[process], large)


def test_every_dtype_has_its_numbers() -> None:
    assert set(ByDtypeFile.model_fields) == set(BITS)
    for process in PROCESSES.values():
        assert set(process.multiply_pj) == set(process.multiply_um2) == set(BITS)
        assert set(process.add_pj) == set(process.add_um2)


def test_the_wider_dtype_of_a_product() -> None:
    assert wider("int4", "bf16") == wider("bf16", "int4") == "bf16"
    assert wider("fp8", "int8") == "fp8"
    assert wider("bf16", "fp32") == "fp32"


def test_what_is_given_counts_and_the_rest_stays() -> None:
    overrides = {
        "energy.mac_pj.int8": 0.01,
        "energy.wire_pj_per_bit_mm": 1,
        "area.local_layers": 3,
        "area.mac_um2.fp8": 5,
    }
    before, after = load_array("bus-tree-256"), load_array("bus-tree-256", overrides)
    assert after.energy.mac_pj == {**before.energy.mac_pj, "int8": 0.01}
    assert after.energy.wire_pj_per_bit_mm == 1
    assert after.energy.vector_pj == before.energy.vector_pj
    assert after.area.mac_um2 == {**before.area.mac_um2, "fp8": 5}
    assert after.area.local_layers == 3
    assert load_array(array_to_dict(after)) == after


def test_a_whole_section_can_be_given() -> None:
    array = load_array("bus-tree-256", {"energy": {"static_watts": 12, "mac_pj": {"bf16": 1}}})
    assert (array.energy.static_watts, array.energy.mac_pj["bf16"]) == (12, 1)


def test_every_constant_can_be_given() -> None:
    plain = array_to_dict(load_array("bus-tree-256"))
    assert set(plain["energy"]) == set(EnergyFile.model_fields)
    assert set(plain["area"]) == set(AreaFile.model_fields)


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        (
            {"energy.mac_pj.bf61": 1},
            "--set energy.mac_pj.bf61: unknown path\n  hint:     did you mean 'energy.mac_pj.bf16'?",
        ),
        ({"energy.wire_pj_per_bit_mm": -0.1}, "--set energy.wire_pj_per_bit_mm: too small\n  given:    -0.1\n"),
        ({"energy.vector_pj": "3"}, "--set energy.vector_pj: not a number\n  given:    '3'\n"),
        ({"energy.vector_pj": True}, "--set energy.vector_pj: not a number\n  given:    True\n"),
        ({"energy.static_watts": float("inf")}, "--set energy.static_watts: not a finite number\n"),
        ({"energy.static_watts": 1e10}, "--set energy.static_watts: too large\n"),
        ({"energy.mac_pj": 2.0}, "--set energy.mac_pj: this is a section, not a value\n"),
        ({"area.local_layers": 1.5}, "--set area.local_layers: not a whole number\n"),
        (
            {"area": {"mac_um": 1}},
            "--set area: area.mac_um: unknown key\n  given:    1\n  hint:     did you mean 'mac_um2'?",
        ),
        (
            {"pe.memory.device": "HBM3"},
            "--set pe.memory.device: not one of the known values\n  given:    'HBM3'\n  expected: sram or dram_bank"
            " or hbm or lpddr or gddr or ddr\n",
        ),
        (
            {"process": "7 nm"},
            "--set process: not one of the known values\n  given:    '7 nm'\n  expected: 45nm or 7nm\n",
        ),
    ],
)
def test_refusals(overrides: dict[str, Any], text: str) -> None:
    assert refusal(overrides).startswith(text)


@pytest.mark.parametrize("num_pes", [1, 2, 7, 64, 100])
def test_the_wire_that_energy_pays_for_is_that_of_the_topology(num_pes: int) -> None:
    array = load_array("bus-tree-256", {"num_pes": num_pes})
    channels = build_topology(array).channels
    of_bus = channels.length_mm[list(channels.level).index("bus")]
    assert of_bus == pytest.approx(bus_wire_pitches(num_pes) * array.floorplan.pe_pitch_mm)


def test_hops_of_a_tree_double_with_every_fourfold() -> None:
    assert [tree_hop_pitches(level, 2) for level in range(6)] == [1, 1, 2, 2, 4, 4]
    assert [tree_hop_pitches(level, 4) for level in range(4)] == [1, 2, 4, 8]
    assert tree_hop_pitches(0, 2, leaf_pes=16) == 4
