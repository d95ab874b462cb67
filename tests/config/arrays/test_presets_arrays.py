"""The array presets: each loads, has the capacity it promises, and is found by name or path."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from pe_sim.config.arrays.array import ArrayConfig
from pe_sim.config.arrays.load import array_to_dict, describe_array, load_array
from pe_sim.config.files.loading import is_preset, preset_folder, preset_names, resolve
from pe_sim.errors import InputError

NAMES = (
    "aim-gddr6-16",
    "bus-tree-1024",
    "bus-tree-16-large",
    "bus-tree-256",
    "bus-tree-4096",
    "bus-tree-64",
    "butterfly-256",
    "crossbar-256",
    "fat-tree-256",
    "h-tree-256",
    "hier-bus-256",
    "hypercube-256",
    "line-256",
    "mesh-256",
    "ring-256",
    "torus-256",
    "wafer-line-512",
)
BESIDE_BUS_TREE_256 = tuple(name for name in NAMES if name.endswith("-256") and name != "bus-tree-256")
SPARE = 0.85  # shards are uneven by a unit, so a sixth stays free

# bf16 bytes of all layers and the LM head: parameters without the embedding table, times 2.
LLAMA_2_7B = 2 * (6_738_415_616 - 32_000 * 4096)
LLAMA_2_13B = 2 * (13_015_864_320 - 32_000 * 5120)
LLAMA_2_70B = 2 * (68_976_648_192 - 32_000 * 8192)
LLAMA_3_70B = 2 * (70_553_706_496 - 128_256 * 8192)
KV_7B, KV_13B, KV_70B = 524_288, 2 * 40 * 5120 * 2, 2 * 80 * 8 * 128 * 2  # bytes a token


def test_names() -> None:
    assert preset_names("arrays") == NAMES
    assert preset_folder("arrays").name == "topologies"
    assert is_preset("arrays", "bus-tree-64")
    assert not is_preset("arrays", "bus-tree-64.yaml")


@pytest.mark.parametrize("name", NAMES)
def test_every_preset_loads_under_its_own_name_and_round_trips(name: str) -> None:
    array = load_array(name)
    assert array.name == name
    assert load_array(array_to_dict(array)) == array
    assert str(array.num_pes) in describe_array(array)
    assert "\n" not in describe_array(array)
    assert array.clock_ghz == {"wafer-line-512": 0.85, "aim-gddr6-16": 2.0}.get(name, 1.0)


@pytest.mark.parametrize("name", NAMES)
def test_every_number_of_a_preset_has_a_source_beside_it(name: str) -> None:
    lines = resolve("arrays", name).read_text(encoding="utf-8").splitlines()
    bare = ("schema_version", "arity")
    for index, line in enumerate(lines):
        key, _, value = line.strip().partition(":")
        if line.lstrip().startswith("#") or not value.strip()[:1].isdigit() or key in bare:
            continue
        above = lines[index - 1] if index else ""
        shares = key in ("depth", "mm_per_cycle")  # depth stands below outputs, which speaks for both
        assert "#" in line or "#" in above or shares, f"{name}: {line}"


@pytest.mark.parametrize(
    ("name", "weights", "kv_per_token", "tokens"),
    [
        ("bus-tree-64", LLAMA_2_7B, KV_7B, 4096),
        ("bus-tree-256", LLAMA_2_7B, KV_7B, 4096),
        ("bus-tree-1024", LLAMA_2_13B, KV_13B, 4096),
        ("bus-tree-4096", LLAMA_2_70B, KV_70B, 4096),
        ("bus-tree-4096", LLAMA_3_70B, KV_70B, 8192),
    ],
)
def test_the_promised_models_fit(name: str, weights: int, kv_per_token: int, tokens: int) -> None:
    array = load_array(name)
    assert weights + kv_per_token * tokens < SPARE * array.num_pes * array.pe.memory.capacity_bytes


@pytest.mark.parametrize(("weights", "kv_per_token"), [(LLAMA_2_7B, KV_7B), (LLAMA_2_13B, KV_13B)])
def test_one_large_pe_holds_a_whole_model(weights: int, kv_per_token: int) -> None:
    assert weights + 2048 * kv_per_token < SPARE * load_array("bus-tree-16-large").pe.memory.capacity_bytes


def test_bus_tree_256_is_the_example_of_the_interface_page() -> None:
    raw = yaml.safe_load(resolve("arrays", "bus-tree-256").read_text(encoding="utf-8"))
    technologies = [raw["pe"]["memory"].pop("technology"), raw["root"]["memory"].pop("technology")]
    assert all(technologies)
    assert (raw["pe"]["memory"].pop("device"), raw["root"]["memory"].pop("device")) == ("dram_bank", "lpddr")
    assert (raw.pop("process"), raw.pop("area")) == ("7nm", {"local_layers": 4})  # what the page leaves to defaults
    memory_bytes = 134217728
    assert raw == {
        "schema_version": 1,
        "name": "bus-tree-256",
        "clock_ghz": 1.0,
        "num_pes": 256,
        "overlap": 1,
        "dtypes": {"weight": "bf16", "activation": "bf16", "kv_cache": "bf16", "partial": "fp32"},
        "floorplan": {"pe_pitch_mm": 1.2, "mm_per_cycle": 10.0},
        "pe": {
            "matrix": {"outputs": 16, "depth": 16, "latency_cycles": 8},
            "vector": {"lanes": 32, "latency_cycles": 4},
            "memory": {"capacity_bytes": memory_bytes, "bytes_per_cycle": 64, "latency_cycles": 20},
            "buffer": {"capacity_bytes": 262144, "prefetch_bytes": 65536},
        },
        "root": {
            "vector": {"lanes": 256, "latency_cycles": 4},
            "memory": {"capacity_bytes": 68719476736, "bytes_per_cycle": 512, "latency_cycles": 100},
        },
        "network": {
            "kind": "bus_tree",
            "bus": {"bytes_per_cycle": 64, "latency_cycles": "auto", "overhead_cycles": 2, "request_cycles": "auto"},
            "tree": {
                "arity": 2,
                "bytes_per_cycle": 64,
                "latency_cycles": "auto",
                "combine_cycles": 2,
                "softmax_combine_cycles": 12,
                "downlink": False,
            },
            "collectives": {"gather": "best", "scatter": "best"},
        },
    }


@pytest.mark.parametrize(
    ("name", "bus", "tree"),
    [
        ("bus-tree-64", 4, (1,) * 6),
        ("bus-tree-256", 4, (1,) * 8),
        ("bus-tree-1024", 8, (1,) * 8 + (2,) * 2),
        ("bus-tree-4096", 16, (1,) * 8 + (2, 2, 4, 4)),
        ("bus-tree-16-large", 12, (2, 2, 3, 3)),
    ],
)
def test_auto_latencies_of_the_presets(name: str, bus: int, tree: tuple[int, ...]) -> None:
    network = load_array(name).network
    assert (network.bus.latency_cycles, network.bus.request_cycles) == (bus, bus)
    assert network.tree.level_latency_cycles == tree


def test_a_preset_is_read_once_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_array("bus-tree-64")
    monkeypatch.setattr("pe_sim.config.arrays.load.load_mapping", None)  # a second reading would fail
    assert load_array("bus-tree-64", {"num_pes": 32}).num_pes == 32
    assert load_array("bus-tree-64") == first


def test_bus_tree_64_is_the_silicon_of_256_cut_coarser() -> None:
    fine, coarse = load_array("bus-tree-256"), load_array("bus-tree-64")
    assert coarse.root == fine.root
    totals: tuple[Callable[[ArrayConfig], int], ...] = (
        lambda a: a.num_pes * a.pe.memory.capacity_bytes,
        lambda a: a.num_pes * a.pe.memory.bytes_per_cycle,
        lambda a: a.num_pes * a.pe.matrix.outputs * a.pe.matrix.depth,
        lambda a: a.num_pes * a.pe.vector.lanes,
        lambda a: a.num_pes * a.pe.buffer.capacity_bytes,
        lambda a: a.num_pes * a.pe.buffer.prefetch_bytes,
    )
    for total in totals:
        assert total(coarse) == total(fine)


@pytest.mark.parametrize("name", BESIDE_BUS_TREE_256)
def test_only_the_interconnect_differs(name: str) -> None:
    base = load_array("bus-tree-256")
    assert replace(load_array(name), name=base.name, network=base.network) == base


def test_wafer_line_is_the_papers() -> None:
    network = array_to_dict(load_array("wafer-line-512"))["network"]
    assert network["link"] == {
        "bytes_per_cycle": 4,
        "latency_cycles": 1,
        "overhead_cycles": 0,
        "request_cycles": 0,
        "ramp_cycles": 2,
    }
    assert (network["combine_cycles"], network["forward_cycles"], network["root_at"]) == (1, 1, 0)


def test_describe() -> None:
    assert describe_array(load_array("bus-tree-256")) == (
        "bus-tree-256: 256 PEs of 16 x 16 MACs and 128.00 MiB at 64 B/cycle (32.00 GiB in all),"
        " bus 64 B/cycle latency 4, 2-ary tree 8 levels 64 B/cycle hop 1, bf16 weights, 1 GHz"
    )


def test_resolve_takes_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mine"
    file.touch()
    assert resolve("arrays", file) == file
    assert resolve("arrays", str(file)) == file
    monkeypatch.chdir(tmp_path)
    assert resolve("arrays", "mine") == Path("mine")


def test_a_preset_wins_over_a_file_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bus-tree-64").mkdir()
    monkeypatch.chdir(tmp_path)
    assert resolve("arrays", "bus-tree-64").name == "bus-tree-64.yaml"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            "bus-tree-265",
            "unknown array\n  given:    'bus-tree-265'\n"
            "  expected: the name of a preset array or the path of a file\n"
            "  hint:     did you mean 'bus-tree-256'?",
        ),
        (
            "xyz",
            "unknown array\n  given:    'xyz'\n  expected: the name of a preset array or the path of a file\n"
            "  hint:     known: " + ", ".join(NAMES),
        ),
        ("a/b", "a/b: no such file\n  expected: a file or the name of a preset array"),
        ("b.yaml", "b.yaml: no such file\n  expected: a file or the name of a preset array"),
        (
            "bus-tree-64.yaml",
            "bus-tree-64.yaml: no such file\n  expected: a file or the name of a preset array\n"
            "  hint:     the preset is called 'bus-tree-64', without folder and ending",
        ),
    ],
)
def test_resolve_refusals(given: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name_or_path in (given, Path(given)):
        with pytest.raises(InputError) as caught:
            resolve("arrays", name_or_path)
        assert str(caught.value) == message


def test_a_version_number_is_no_file_ending() -> None:
    with pytest.raises(InputError, match=r"^unknown model\n"):
        resolve("models", "llama-3.9-1b")


@pytest.mark.parametrize("given", ["", "\0", "x" * 5000, "\ud800"])
def test_impossible_names(given: str) -> None:
    with pytest.raises(InputError, match=r"^unknown array"):
        resolve("arrays", given)


def test_a_folder_is_no_array(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        load_array(tmp_path)
    assert str(caught.value) == f"{tmp_path}: this is a folder\n  expected: a file"
