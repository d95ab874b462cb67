"""What the user reads when an array file is wrong, word by word."""

from __future__ import annotations

import math
import pickle
from typing import Any

import pytest

from pe_sim.config.arrays.load import load_array
from pe_sim.config.files.loading import load_mapping, resolve
from pe_sim.errors import InputError


def raw_file() -> dict[str, Any]:
    return load_mapping(resolve("arrays", "bus-tree-256"))


def with_value(path: str, value: object) -> dict[str, Any]:
    """The example file with one value changed in place, without the help of overrides."""
    raw = raw_file()
    *parents, last = path.split(".")
    section = raw
    for name in parents:
        section = section.setdefault(name, {})
    section[last] = value
    return raw


def refusal(raw: dict[str, Any]) -> str:
    with pytest.raises(InputError) as caught:
        load_array(raw)
    message = str(caught.value)
    assert "pydantic" not in message
    assert "http" not in message
    return message


@pytest.mark.parametrize(
    ("path", "bad", "message"),
    [
        (
            "num_pes",
            "16",
            "not a whole number\n  given:    '16'\n  expected: a whole number from 1 to 1048576\n"
            "  hint:     this is text, not a number: write 16 without quotes",
        ),
        (
            "num_pes",
            True,
            "not a whole number\n  given:    True\n  expected: a whole number from 1 to 1048576\n"
            "  hint:     true and false are no numbers",
        ),
        (
            "pe.memory.capacity_bytes",
            "1e9",
            "not a whole number\n  given:    '1e9'\n  expected: a whole number from 1 to 281474976710656\n"
            "  hint:     YAML reads 1e9 as text, not as a number: write 1000000000",
        ),
        (
            "pe.memory.capacity_bytes",
            1e9,
            "not a whole number\n  given:    1000000000.0\n  expected: a whole number from 1 to 281474976710656\n"
            "  hint:     write it without point and exponent: 1000000000",
        ),
        (
            "pe.memory.capacity_bytes",
            "1e999",
            "not a whole number\n  given:    '1e999'\n  expected: a whole number from 1 to 281474976710656\n"
            "  hint:     YAML reads 1e999 as text, not as a number: write a whole number",
        ),
        (
            "floorplan.mm_per_cycle",
            "1e9",
            "not a number\n  given:    '1e9'\n  expected: a number above 0, at most 1e+06\n"
            "  hint:     YAML reads 1e9 as text, not as a number: write 1.0e+9",
        ),
        (
            "floorplan.mm_per_cycle",
            "2.5e-1",
            "not a number\n  given:    '2.5e-1'\n  expected: a number above 0, at most 1e+06\n"
            "  hint:     YAML reads 2.5e-1 as text, not as a number: write 2.5e-1",
        ),
        (
            "clock_ghz",
            math.nan,
            "not a finite number\n  given:    nan\n  expected: a number above 0, at most 1000\n"
            "  hint:     clock_ghz means: clock of the whole machine, GHz",
        ),
        (
            "clock_ghz",
            0,
            "too small\n  given:    0\n  expected: a number above 0, at most 1000\n"
            "  hint:     clock_ghz means: clock of the whole machine, GHz",
        ),
        (
            "overlap",
            4,
            "too large\n  given:    4\n  expected: a whole number from 0 to 3\n"
            "  hint:     overlap means: 0 none, 1 in the operator, 2 prefetch, 3 streaming",
        ),
        (
            "network.bus.latency_cycles",
            "atuo",
            "not a latency\n  given:    'atuo'\n  expected: a whole number of cycles from 0 to 1048576, or auto\n"
            "  hint:     did you mean 'auto'?",
        ),
        (
            "network.bus.latency_cycles",
            "1e3",
            "not a latency\n  given:    '1e3'\n  expected: a whole number of cycles from 0 to 1048576, or auto\n"
            "  hint:     YAML reads 1e3 as text, not as a number: write 1000",
        ),
        (
            "network.tree.latency_cycles",
            [1, 0],
            "not a latency\n  given:    [1, 0]\n"
            "  expected: a whole number of cycles from 1 to 1048576, or auto, or a list with one number a level\n"
            "  hint:     auto derives it from the floorplan",
        ),
        (
            "network.tree.downlink",
            "yes",
            "not a boolean\n  given:    'yes'\n  expected: true or false\n  hint:     YAML 1.2 has no yes: write true",
        ),
        (
            "network.collectives.gather",
            "bset",
            "not one of the known values\n  given:    'bset'\n  expected: serial or by_reduction or best\n"
            "  hint:     did you mean 'best'?",
        ),
        (
            "pe.memory.kind",
            "dram",
            "not one of the known values\n  given:    'dram'\n  expected: flat or sram or dram_bank\n"
            "  hint:     did you mean 'sram'?",
        ),
        (
            "name",
            False,
            "not text\n  given:    False\n  expected: text\n"
            "  hint:     name means: the array's name; default: the file's",
        ),
        (
            "pe.memory.technology",
            "",
            "empty\n  given:    ''\n  expected: text\n"
            "  hint:     technology means: the technology the numbers come from, for people: nothing depends on it",
        ),
        (
            "floorplan",
            3,
            "not a mapping\n  given:    3\n  expected: a mapping with pe_pitch_mm, mm_per_cycle\n"
            "  hint:     floorplan means: what auto latencies are derived from",
        ),
        ("num_pse", 3, "unknown key\n  given:    3\n  hint:     did you mean 'num_pes'?"),
        (
            "pe.memory.capacity_byte",
            3,
            "unknown key\n  given:    3\n  hint:     did you mean 'capacity_bytes'?",
        ),
        (
            "pe.vector.cycles_per_element.sofmax",
            3,
            "unknown key\n  given:    3\n  hint:     did you mean 'softmax'?",
        ),
        (
            "dtypes.weight",
            "bf17",
            "unknown dtype\n  given:    'bf17'\n"
            "  expected: a dtype's name, or a mapping with dtype, group_size and zero_point\n"
            "  hint:     did you mean 'bf16'?",
        ),
        (
            "dtypes.weight",
            16,
            "unknown dtype\n  given:    16\n"
            "  expected: a dtype's name, or a mapping with dtype, group_size and zero_point\n"
            "  hint:     known: bf16, fp16, fp32, fp8, int4, int8",
        ),
        (
            "dtypes.partial",
            "int4",
            "partial sums do not fit int4\n  given:    'int4'\n  expected: fp32, bf16, fp16, fp8 or int8\n"
            "  hint:     fp32 is the usual one",
        ),
        (
            "dtypes.activation",
            {"dtype": "int8", "group_size": 64},
            "only weight and kv_cache can have groups\n  given:    {'dtype': 'int8', 'group_size': 64}\n"
            "  hint:     leave group_size and zero_point out",
        ),
        (
            "schema_version",
            2,
            "unknown schema version\n  given:    2\n  expected: 1, the one version this program knows",
        ),
        (
            "schema_version",
            True,
            "unknown schema version\n  given:    True\n  expected: 1, the one version this program knows",
        ),
    ],
)
def test_messages_word_by_word(path: str, bad: object, message: str) -> None:
    assert refusal(with_value(path, bad)) == f"array: {path}: {message}"


def test_several_faults_in_one_message() -> None:
    raw = raw_file()
    raw["num_pes"] = "16"
    raw["overlap"] = 7
    del raw["pe"]["matrix"]["depth"]
    raw["network"]["bus"]["width"] = 3
    assert refusal(raw) == (
        "array: num_pes: not a whole number\n"
        "  given:    '16'\n"
        "  expected: a whole number from 1 to 1048576\n"
        "  hint:     this is text, not a number: write 16 without quotes\n"
        "  3 more faults:\n"
        "    overlap: too large, given 7, expected a whole number from 0 to 3"
        " (overlap means: 0 none, 1 in the operator, 2 prefetch, 3 streaming)\n"
        "    pe.matrix.depth: missing, expected a whole number from 1 to 16777216"
        " (depth means: multipliers of each dot-product unit, C)\n"
        "    network.bus.width: unknown key, given 3 (known: burst_bytes, bytes_per_cycle, latency_cycles,"
        " overhead_cycles, request_cycles)"
    )


def test_the_message_survives_a_process_pool() -> None:
    raw = raw_file() | {"num_pes": 0, "overlap": 9}
    with pytest.raises(InputError) as caught:
        load_array(raw)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    assert caught.value.path == "num_pes"
    assert caught.value.given == 0
