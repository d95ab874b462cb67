"""`--set`: the parsing of one argument, its way into the raw mapping, and what the user reads when it is wrong."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from pe_sim.config.arrays.load import load_array
from pe_sim.config.arrays.schema import ArrayFile
from pe_sim.config.files.overrides import apply_overrides, parse_override
from pe_sim.config.files.schema import known_paths, scalar_keys
from pe_sim.errors import InputError

PATHS = ("a", "b.c", "b.d", "e", "e.kind", "e.size")


def refusal(overrides: dict[str, object]) -> str:
    with pytest.raises(InputError) as caught:
        load_array("bus-tree-256", overrides)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("num_pes=64", ("num_pes", 64)),
        (" num_pes =64", ("num_pes", 64)),
        ("clock_ghz=1.5", ("clock_ghz", 1.5)),
        ("name=a=b", ("name", "a=b")),
        ("name=no", ("name", "no")),
        ("network.bus.latency_cycles=auto", ("network.bus.latency_cycles", "auto")),
        ("network.tree.latency_cycles=[1, 2]", ("network.tree.latency_cycles", [1, 2])),
        ("network.tree.downlink=true", ("network.tree.downlink", True)),
        ("network.bus.burst_bytes=null", ("network.bus.burst_bytes", None)),
        ("dtypes.weight={dtype: int4}", ("dtypes.weight", {"dtype": "int4"})),
        ("pe.memory.capacity_bytes=1e9", ("pe.memory.capacity_bytes", "1e9")),
        ("model.max_position_embeddings=32768", ("model.max_position_embeddings", 32768)),
    ],
)
def test_parse(text: str, parsed: tuple[str, object]) -> None:
    assert parse_override(text) == parsed


@pytest.mark.parametrize("text", ["num_pes", "=3", " =3", "a..b=3", ".a=3", "a.=3", ""])
def test_parse_refuses_what_is_no_assignment(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_override(text)
    assert str(caught.value) == (
        f"--set: not a path with a value\n  given:    {text!r}\n  expected: dotted.path=value, for instance num_pes=64"
    )


def test_parse_refuses_no_value_and_no_yaml() -> None:
    with pytest.raises(InputError, match=r"^--set num_pes: no value after the ="):
        parse_override("num_pes= ")
    with pytest.raises(InputError, match=r"^--set num_pes: malformed YAML at line 2, column 1: while parsing a flow"):
        parse_override("num_pes=[1")


def test_apply_returns_a_changed_copy() -> None:
    raw: dict[str, Any] = {"a": 1, "b": {"c": [1, 2]}, "e": "small"}
    before = copy.deepcopy(raw)
    given = [3]
    result = apply_overrides(raw, {"b.c": given, "b.d": 4, "a": 5}, PATHS)
    assert result == {"a": 5, "b": {"c": [3], "d": 4}, "e": "small"}
    result["b"]["c"].append(9)
    assert raw == before
    assert given == [3]


def test_apply_makes_missing_sections_and_keeps_the_order_of_overrides() -> None:
    assert apply_overrides({}, {"b.c": 1}, PATHS) == {"b": {"c": 1}}
    assert apply_overrides({}, {"e": "x", "e.size": 2}, PATHS, {"e": "kind"}) == {"e": {"kind": "x", "size": 2}}
    assert apply_overrides({}, {"e.size": 2, "e": "x"}, PATHS, {"e": "kind"}) == {"e": "x"}
    assert apply_overrides({}, {"b": {"c": 1}, "b.d": 2}, PATHS) == {"b": {"c": 1, "d": 2}}


def test_apply_refuses_to_set_inside_what_is_no_section() -> None:
    with pytest.raises(InputError) as caught:
        apply_overrides({"b": 3}, {"b.c": 1}, PATHS)
    assert str(caught.value) == "--set b.c: cannot be set: the file has no section b\n  given:    3"


def test_known_paths_hold_the_optional_ones_too() -> None:
    paths = known_paths(ArrayFile)
    for path in ("num_pes", "network.bus.burst_bytes", "root.vector.cycles_per_element.gelu", "dtypes.weight"):
        assert path in paths
    assert "pe" not in paths
    assert "pe.memory" not in paths
    assert scalar_keys(ArrayFile) == {
        f"dtypes.{role}": "dtype" for role in ("weight", "activation", "kv_cache", "partial")
    }


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("num_pse", "did you mean 'num_pes'?"),
        ("pe.memory.capacity", "did you mean 'pe.memory.capacity_bytes'?"),
        ("network.bus.burst_byte", "did you mean 'network.bus.burst_bytes'?"),
        ("pe.vector.cycles_per_element.sofmax", "did you mean 'pe.vector.cycles_per_element.softmax'?"),
        ("lanes", "did you mean 'pe.vector.lanes' or 'root.vector.lanes'?"),
        ("floorplan.zzzzzzzzzzzzzzzzzzzzzz", "known: floorplan.mm_per_cycle, floorplan.pe_pitch_mm"),
        (
            "qqqqqqq",
            "known: area, clock_ghz, dead_pes, dtypes, energy, floorplan, name, network, num_pes, overlap, pe, process,"
            " root, schema_version",
        ),
    ],
)
def test_unknown_path(path: str, hint: str) -> None:
    assert refusal({path: 1}) == f"--set {path}: unknown path\n  hint:     {hint}"


def test_a_section_is_no_value() -> None:
    assert refusal({"floorplan": 3}) == (
        "--set floorplan: this is a section, not a value\n  given:    3\n"
        "  expected: a value inside it, below floorplan.mm_per_cycle, floorplan.pe_pitch_mm"
    )


def test_value_faults_name_the_flag() -> None:
    assert refusal({"pe.memory.capacity_bytes": parse_override("x=1e9")[1]}) == (
        "--set pe.memory.capacity_bytes: not a whole number\n  given:    '1e9'\n"
        "  expected: a whole number from 1 to 281474976710656\n"
        "  hint:     YAML reads 1e9 as text, not as a number: write 1000000000"
    )
    assert refusal({"floorplan": {"pe_pitch_mm": 1.0}}) == (
        "--set floorplan: floorplan.mm_per_cycle: missing\n"
        "  expected: a number above 0, at most 1e+06\n"
        "  hint:     mm_per_cycle means: how far a signal travels on a wire in one cycle, mm"
    )


def test_overrides_reach_the_array_and_leave_the_preset_alone() -> None:
    changed = load_array(
        "bus-tree-256",
        {
            "num_pes": 64,
            "pe.vector.cycles_per_element.gelu": 5,
            "dtypes.weight": "int4",
            "dtypes.weight.group_size": 128,
            "network.bus.burst_bytes": 256,
        },
    )
    assert changed.num_pes == 64
    assert changed.network.tree.num_levels == 6
    assert changed.network.bus.latency_cycles == 2  # (8 + 8) * 1.2 mm / 10 mm
    assert changed.network.bus.burst_bytes == 256
    assert changed.pe.vector.cycles_per_element["gelu"] == 5
    assert changed.root.vector.cycles_per_element["gelu"] == 8
    assert (changed.dtypes.weight.name, changed.dtypes.weight.group_size) == ("int4", 128)
    untouched = load_array("bus-tree-256")
    assert (untouched.num_pes, untouched.dtypes.weight.name, untouched.network.bus.burst_bytes) == (256, "bf16", None)
