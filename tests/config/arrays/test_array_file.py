"""The array file: defaults, every kind of bad value, and the words the user reads."""

from __future__ import annotations

import dataclasses
import json
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pe_sim.config.arrays.array import DEFAULT_CYCLES_PER_ELEMENT, ArrayConfig
from pe_sim.config.arrays.load import array_to_dict, load_array
from pe_sim.config.arrays.schema import ArrayFile, CyclesPerElementFile
from pe_sim.config.dtypes import Dtype
from pe_sim.config.files.loading import load_mapping, resolve
from pe_sim.config.files.schema import Section, subsection
from pe_sim.errors import InputError

INTEGERS = {  # path -> smallest accepted value
    "num_pes": 1,
    "overlap": 0,
    "pe.matrix.outputs": 1,
    "pe.matrix.depth": 1,
    "pe.matrix.latency_cycles": 0,
    "pe.vector.lanes": 1,
    "pe.vector.latency_cycles": 0,
    "pe.vector.cycles_per_element.softmax": 1,
    "root.vector.cycles_per_element.add": 1,
    "pe.memory.capacity_bytes": 1,
    "pe.memory.bytes_per_cycle": 1,
    "pe.memory.latency_cycles": 0,
    "pe.buffer.capacity_bytes": 1,
    "pe.buffer.prefetch_bytes": 0,
    "root.memory.capacity_bytes": 1,
    "network.bus.bytes_per_cycle": 1,
    "network.bus.latency_cycles": 0,
    "network.bus.overhead_cycles": 0,
    "network.bus.request_cycles": 0,
    "network.bus.burst_bytes": 1,
    "network.tree.arity": 2,
    "network.tree.bytes_per_cycle": 1,
    "network.tree.latency_cycles": 1,
    "network.tree.combine_cycles": 0,
    "network.tree.softmax_combine_cycles": 0,
}
FLOATS = ("clock_ghz", "floorplan.pe_pitch_mm", "floorplan.mm_per_cycle")


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


def without(path: str) -> dict[str, Any]:
    raw = with_value(path, None)
    *parents, last = path.split(".")
    section = raw
    for name in parents:
        section = section[name]
    del section[last]
    return raw


def refusal(raw: dict[str, Any]) -> str:
    with pytest.raises(InputError) as caught:
        load_array(raw)
    message = str(caught.value)
    assert "pydantic" not in message
    assert "http" not in message
    return message


@pytest.mark.parametrize("path", INTEGERS)
@pytest.mark.parametrize("bad", ["16", True, False, "1e9", 1.0, 1.5, math.nan, math.inf, None, {}, [True], -1, 2**63])
def test_integers_are_strict(path: str, bad: object) -> None:
    if bad is None and path == "network.bus.burst_bytes":  # null is how a file says: no bursts
        assert load_array(with_value(path, bad)).network.bus.burst_bytes is None
        return
    assert refusal(with_value(path, bad)).startswith(f"array: {path}: ")


@pytest.mark.parametrize(("path", "smallest"), INTEGERS.items())
def test_integers_have_a_smallest_value(path: str, smallest: int) -> None:
    load_array(with_value(path, smallest))
    assert refusal(with_value(path, smallest - 1)).startswith(f"array: {path}: ")


@pytest.mark.parametrize("path", FLOATS)
@pytest.mark.parametrize("bad", ["1.0", "1e9", True, math.nan, math.inf, -math.inf, 0, 0.0, -1.5, None, [1.0]])
def test_floats_are_strict(path: str, bad: object) -> None:
    problem = "too small" if bad in (0, -1.5) and type(bad) is not bool else "not a"
    assert refusal(with_value(path, bad)).startswith(f"array: {path}: {problem}")


def test_floats_take_whole_numbers() -> None:
    array = load_array(with_value("clock_ghz", 2))
    assert array.clock_ghz == 2.0
    assert type(array.clock_ghz) is float


@pytest.mark.parametrize(
    ("entry", "where", "problem"),
    [
        ({"dtype": "bf16", "group_size": 128}, ".group_size", "bf16 is not quantised and has no groups"),
        ({"dtype": "int4", "group_size": 0}, ".group_size", "too small"),
        ({"dtype": "int4", "group_size": "128"}, ".group_size", "not a whole number"),
        ({"dtype": "int4", "zero_point": True}, ".zero_point", "a zero point belongs to a group"),
        ({"dtype": "int4", "group_size": 8, "zero_point": 1}, ".zero_point", "not a boolean"),
        ({"dtype": "int5"}, ".dtype", "not one of the known values"),
        ({"group_size": 8}, ".dtype", "missing"),
        ({"dtype": "int4", "groupsize": 8}, ".groupsize", "unknown key"),
    ],
)
def test_bad_dtype_mappings(entry: dict[str, object], where: str, problem: str) -> None:
    for role in ("weight", "kv_cache"):
        assert refusal(with_value(f"dtypes.{role}", entry)).startswith(f"array: dtypes.{role}{where}: {problem}")


def test_dtypes() -> None:
    entry = {"dtype": "int4", "group_size": 128, "zero_point": True}
    assert load_array(with_value("dtypes.weight", entry)).dtypes.weight == Dtype("int4", 128, True)
    assert load_array(with_value("dtypes.kv_cache", {"dtype": "int8"})).dtypes.kv_cache == Dtype("int8")
    assert load_array(with_value("dtypes.activation", "int4")).dtypes.activation == Dtype("int4")


REQUIRED = (
    "schema_version",
    "clock_ghz",
    "num_pes",
    "dtypes",
    "dtypes.partial",
    "floorplan",
    "pe",
    "pe.matrix",
    "pe.matrix.latency_cycles",
    "pe.vector.lanes",
    "pe.memory.technology",
    "pe.buffer.prefetch_bytes",
    "root",
    "root.memory",
    "network",
    "network.kind",
    "network.bus.latency_cycles",
    "network.tree.arity",
    "network.tree.combine_cycles",
)


@pytest.mark.parametrize("path", REQUIRED)
def test_required_values(path: str) -> None:
    assert refusal(without(path)).startswith(f"array: {path}: missing\n  expected: ")


@pytest.mark.parametrize(
    ("path", "read", "default"),
    [
        ("name", lambda a: a.name, "array"),
        ("overlap", lambda a: a.overlap, 1),
        ("pe.vector.cycles_per_element", lambda a: a.pe.vector.cycles_per_element, DEFAULT_CYCLES_PER_ELEMENT),
        ("root.vector.cycles_per_element", lambda a: a.root.vector.cycles_per_element, DEFAULT_CYCLES_PER_ELEMENT),
        ("network.bus.request_cycles", lambda a: a.network.bus.request_cycles, 0),
        ("network.bus.burst_bytes", lambda a: a.network.bus.burst_bytes, None),
        ("network.tree.softmax_combine_cycles", lambda a: a.network.tree.softmax_combine_cycles, 12),
        ("network.tree.downlink", lambda a: a.network.tree.downlink, False),
        ("network.collectives", lambda a: dataclasses.astuple(a.network.collectives), ("best", "best")),
        ("network.collectives.scatter", lambda a: a.network.collectives.scatter, "best"),
    ],
)
def test_defaults(path: str, read: Callable[[ArrayConfig], object], default: object) -> None:
    assert read(load_array(without(path))) == default


def test_costs_are_merged_over_the_default_table() -> None:
    vector = load_array(with_value("pe.vector.cycles_per_element", {"gelu": 3})).pe.vector
    assert vector.cycles_per_element == DEFAULT_CYCLES_PER_ELEMENT | {"gelu": 3}


def test_the_schema_knows_every_function_with_its_default() -> None:
    assert CyclesPerElementFile().model_dump() == DEFAULT_CYCLES_PER_ELEMENT


def test_every_field_is_described() -> None:
    def check(schema: type[Section]) -> int:
        count = 0
        for name, field in schema.model_fields.items():
            assert field.description, f"{schema.__name__}.{name}"
            inner = subsection(field)
            count += 1 + (check(inner) if inner else 0)
        return count

    assert check(ArrayFile) > 80


def test_a_file_without_a_name_is_called_after_its_stem(tmp_path: Path) -> None:
    raw = without("name")
    path = tmp_path / "my-array.json"
    path.write_text(json.dumps(raw))
    assert load_array(path).name == "my-array"
    assert load_array(str(path)) == load_array(path)


def test_a_fault_in_a_file_names_the_file(tmp_path: Path) -> None:
    text = resolve("arrays", "bus-tree-256").read_text(encoding="utf-8")
    assert text.count("num_pes: 256") == 1
    path = tmp_path / "a.yaml"
    path.write_text(text.replace("num_pes: 256", "num_pes: 1e3"), encoding="utf-8")
    with pytest.raises(InputError) as caught:
        load_array(path)
    assert str(caught.value) == (
        f"{path}: num_pes: not a whole number\n  given:    '1e3'\n  expected: a whole number from 1 to 1048576\n"
        "  hint:     YAML reads 1e3 as text, not as a number: write 1000"
    )


def test_the_given_mapping_is_not_changed_and_not_shared() -> None:
    raw, same = raw_file(), raw_file()
    load_array(raw, {"num_pes": 3, "pe.vector.cycles_per_element.add": 9})
    assert raw == same
    first, second = load_array(raw), load_array(raw)
    assert first == second
    assert first.pe.vector.cycles_per_element is not second.pe.vector.cycles_per_element


def test_the_resolved_dict_is_json() -> None:
    array = load_array("bus-tree-16-large", {"dtypes.weight": {"dtype": "int4", "group_size": 64, "zero_point": True}})
    plain = array_to_dict(array)
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert plain["dtypes"]["weight"] == {"dtype": "int4", "group_size": 64, "zero_point": True}
    assert plain["dtypes"]["partial"] == "fp32"
    assert plain["network"]["tree"]["latency_cycles"] == [2, 2, 3, 3]


def test_what_is_no_array() -> None:
    with pytest.raises(InputError) as caught:
        load_array(256)  # type: ignore[arg-type]  # the fault under test
    assert str(caught.value) == (
        "not an array\n  given:    256\n  expected: a preset's name, a path, or a file's mapping"
    )


def test_an_array_survives_a_process_pool() -> None:
    array = load_array("bus-tree-64")
    assert pickle.loads(pickle.dumps(array)) == array
