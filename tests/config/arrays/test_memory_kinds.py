"""The kinds of a PE's memory: a flat one, and a DRAM bank with rows."""

import pytest

from pe_sim.config.arrays.array import DramBank, Memory
from pe_sim.config.arrays.load import array_to_dict, describe_array, load_array
from pe_sim.errors import InputError

BANK = {
    "kind": "dram_bank",
    "technology": "GDDR6",
    "capacity_bytes": 33554432,
    "row_bytes": 2048,
    "column_bytes": 32,
    "column_cycles": 2,
    "activate_cycles": 56,
    "precharge_cycles": 32,
    "read_to_precharge_cycles": 12,
}


def refusal(overrides, array="bus-tree-64"):
    with pytest.raises(InputError) as caught:
        load_array(array, overrides)
    return str(caught.value)


def test_a_bank_in_place_of_a_flat_memory():
    array = load_array("bus-tree-64", {"pe.memory": BANK})
    assert array.pe.memory == DramBank("GDDR6", 33554432, 2048, 32, 2, 56, 32, 12)
    assert array.pe.memory.row_cycles == 56 + 63 * 2 + 12 + 32
    assert isinstance(array.root.memory, Memory)
    assert array_to_dict(array)["pe"]["memory"] == BANK
    assert load_array(array_to_dict(array)) == array
    assert "at 9.06 B/cycle of whole rows" in describe_array(array)


def test_on_any_interconnect():
    array = load_array("mesh-256", {"pe.memory": BANK})
    assert array.pe.memory.row_bytes == 2048
    assert load_array(array_to_dict(array)) == array


def test_one_value_of_a_bank():
    assert load_array("aim-gddr6-16", {"pe.memory.activate_cycles": 40}).pe.memory.row_cycles == 226 - 16
    assert load_array("bus-tree-64", {"pe.memory.kind": "sram"}) == load_array("bus-tree-64")


def test_the_kind_alone_is_not_enough():
    message = refusal({"pe.memory.kind": "dram_bank"})
    assert "the file's memory is of kind flat, whose values a memory of kind dram_bank does not take" in message
    assert "replace the whole section: --set 'pe.memory={kind: dram_bank, technology: ..., ...}'" in message
    assert "of kind dram_bank, whose values a memory of kind flat" in refusal(
        {"pe.memory.kind": "flat"}, "aim-gddr6-16"
    )


def test_a_value_of_the_other_kind():
    assert "unknown path" in refusal({"pe.memory.bytes_per_cycle": 64}, "aim-gddr6-16")
    message = refusal({"pe.memory": {**BANK, "latency_cycles": 3}})
    assert "pe.memory.latency_cycles: unknown key" in message or "latency_cycles" in message


def test_the_root_has_a_flat_memory():
    message = refusal({"root.memory": BANK})
    assert "root.memory.kind: not one of the known values" in message
    assert "expected: flat or sram" in message


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("row_bytes", 2050, ("a row is no whole number of columns", "expected: a multiple of column_bytes, 32")),
        ("column_bytes", 0, ("too small", "expected: a whole number from 1 to 16777216")),
        ("activate_cycles", 0, ("too small", "expected: a whole number from 1 to 4096")),
        ("precharge_cycles", 5000, ("too large", "expected: a whole number from 0 to 4096")),
        ("column_cycles", "2", ("not a whole number", "write 2 without quotes")),
        ("precharge_cycles", True, ("not a whole number", "true and false are no numbers")),
    ],
)
def test_wrong_values(name, value, words):
    message = refusal({"pe.memory": {**BANK, name: value}})
    assert f"pe.memory.{name}" in message or "--set pe.memory" in message
    for text in words:
        assert text in message


def test_a_missing_value_is_named():
    message = refusal({"pe.memory": {key: value for key, value in BANK.items() if key != "precharge_cycles"}})
    assert "precharge_cycles: missing" in message
    assert "from a precharge to the next activation, tRP" in message


def test_an_unknown_kind():
    message = refusal({"pe.memory.kind": "dram"})
    assert "--set pe.memory.kind: not one of the known values" in message
    assert "expected: flat or sram or dram_bank" in message
