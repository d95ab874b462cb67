"""Systems of several arrays: the presets, files of one's own, overrides, and what is refused in which words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pe_sim.config.arrays.load import array_to_dict, load_array
from pe_sim.config.files.loading import load_mapping, preset_folder, resolve
from pe_sim.config.networks.shapes import CrossbarShape, GridShape, PathShape
from pe_sim.config.systems.load import (
    describe_system,
    list_systems,
    load_system,
    system_of_one,
    system_to_dict,
)
from pe_sim.config.systems.system import SystemConfig
from pe_sim.errors import InputError
from pe_sim.network.interconnect import links_of

LINK = {"bytes_per_cycle": 64, "latency_cycles": 9, "overhead_cycles": 1}
NAMES = (
    "mesh-of-16-bus-tree-1024",
    "ring-of-4-bus-tree-1024",
    "ring-of-8-bus-tree-1024",
    "switch-of-64-bus-tree-1024",
)


def mine(**changed: object) -> dict[str, object]:
    """Four small arrays in a ring; None leaves a key out."""
    file = {
        "schema_version": 1,
        "arrays": [{"array": "bus-tree-64", "count": 4}],
        "links": {"kind": "ring", "link": LINK},
        "floorplan": {"array_pitch_mm": 50.0, "mm_per_cycle": 10.0},
    }
    return {key: value for key, value in {**file, **changed}.items() if value is not None}


def refusal(source: object, overrides: dict[str, object] | None = None) -> str:
    with pytest.raises(InputError) as caught:
        load_system(source, overrides)
    return str(caught.value)


# ------------------------------------------------------------------------------------------------------------- presets
def test_the_presets() -> None:
    assert list_systems() == NAMES
    assert preset_folder("systems").relative_to(preset_folder("arrays")) == Path("systems")


@pytest.mark.parametrize(
    ("name", "arrays", "channels"), list(zip(NAMES, (16, 4, 8, 64), (50, 10, 18, 130), strict=True))
)
def test_a_preset_has_its_arrays_and_links(name: str, arrays: int, channels: int) -> None:
    system = load_system(name)
    assert system.name == name
    assert system.num_arrays == arrays
    assert system.alive == tuple(range(arrays))
    assert {id(array) for array in system.arrays} == {id(system.arrays[0])}
    assert system.arrays[0] == load_array("bus-tree-1024")
    assert system.clock_ghz == 1.0
    assert len(links_of(system).topology.channels) == channels
    assert links_of(system).topology.num_pes == arrays


@pytest.mark.parametrize("name", NAMES)
def test_every_constant_of_a_preset_has_its_source(name: str) -> None:
    lines = resolve("systems", name).read_text(encoding="utf-8").splitlines()
    numbers = [line for line in lines if line.startswith("  ") and any(digit in line for digit in "0123456789")]
    bare = [line for line in numbers if "#" not in line and not line.strip().startswith(("- {array", "rows", "cols"))]
    assert not bare


def test_405b_fits_the_largest() -> None:
    system = load_system("switch-of-64-bus-tree-1024")
    whole = sum(array.num_pes * array.pe.memory.capacity_bytes for array in system.arrays)
    assert whole > 2 * 405e9


@pytest.mark.parametrize("name", NAMES)
def test_a_system_as_a_dict_is_the_same_system(name: str) -> None:
    system = load_system(name)
    again = load_system(json.loads(json.dumps(system_to_dict(system))))
    assert again == system


# ------------------------------------------------------------------------------------------------------- one's own file
def test_a_file_names_arrays_beside_it(tmp_path: Path) -> None:
    (tmp_path / "tiles").mkdir()
    tile = {**load_mapping(resolve("arrays", "bus-tree-64")), "num_pes": 16}
    (tmp_path / "tiles" / "mine.json").write_text(json.dumps(tile), encoding="utf-8")
    entries = [{"array": "tiles/mine.json"}, {"array": "bus-tree-64", "count": 2}, {"array": tile}]
    (tmp_path / "pair.json").write_text(json.dumps(mine(arrays=entries)), encoding="utf-8")
    system = load_system(tmp_path / "pair.json")
    assert system.name == "pair"
    assert [array.num_pes for array in system.arrays] == [16, 64, 64, 16]
    assert load_system(system_to_dict(system)) == system


def test_equal_arrays_are_one_object() -> None:
    entries = [
        {"array": "bus-tree-64"},
        {"array": "bus-tree-256"},
        {"array": load_mapping(resolve("arrays", "bus-tree-64"))},
    ]
    entries[2]["array"]["name"] = "bus-tree-64"
    first, other, same = load_system(mine(arrays=entries)).arrays
    assert first is same
    assert first != other


def test_an_entry_changes_its_arrays() -> None:
    entries = [{"array": "bus-tree-64", "set": {"overlap": 3}}, {"array": "bus-tree-64", "count": 2}]
    system = load_system(mine(arrays=entries))
    assert [array.overlap for array in system.arrays] == [3, 1, 1]


def test_a_user_s_graph_is_looked_up_beside_the_file(tmp_path: Path) -> None:
    edges = [{"source": "a", "target": "b"}, {"source": "a", "target": "root"}]
    nodes = [{"id": "a", "pe": 0}, {"id": "b", "pe": 1}, {"id": "root"}]
    (tmp_path / "wires.json").write_text(
        json.dumps({"directed": False, "nodes": nodes, "edges": edges}), encoding="utf-8"
    )
    links = {"kind": "graph", "file": "wires.json", "link": LINK}
    (tmp_path / "two.json").write_text(
        json.dumps(mine(arrays=[{"array": "bus-tree-64", "count": 2}], links=links)), encoding="utf-8"
    )
    assert len(links_of(load_system(tmp_path / "two.json")).topology.channels) == 4


@pytest.mark.parametrize(
    ("links", "shape"),
    [
        ({"kind": "switch", "link": LINK}, CrossbarShape),
        ({"kind": "crossbar", "link": LINK}, CrossbarShape),
        ({"kind": "mesh", "link": LINK}, GridShape),
        ({"kind": "line", "link": LINK}, PathShape),
    ],
)
def test_kinds_of_links(links: dict[str, object], shape: type) -> None:
    assert isinstance(load_system(mine(links=links)).links.shape, shape)


def test_auto_latencies_follow_the_floorplan_of_the_system() -> None:
    system = load_system(mine(links={"kind": "ring", "link": {**LINK, "latency_cycles": "auto"}}))
    # 2 x 2 arrays, 50 mm apart: 5 cycles of 10 mm.
    assert set(links_of(system).topology.channels.latency_cycles[:8].tolist()) == {5}
    slower = load_system(system, {"floorplan.mm_per_cycle": 1.0})
    assert set(links_of(slower).topology.channels.latency_cycles[:8].tolist()) == {50}


def test_a_system_of_one_array() -> None:
    array = load_array("bus-tree-64")
    alone = system_of_one(array)
    assert (alone.name, alone.arrays, alone.links, alone.num_arrays, alone.alive) == (
        array.name,
        (array,),
        None,
        1,
        (0,),
    )
    assert load_system(system_to_dict(alone)) == alone
    file = {"schema_version": 1, "name": "bus-tree-64", "arrays": [{"array": "bus-tree-64"}]}
    assert load_system(file) == alone
    with_links = {**file, "links": {"kind": "ring", "link": LINK}, "floorplan": mine()["floorplan"]}
    assert load_system(with_links).links is None


def test_what_is_loaded_is_taken_as_it_is() -> None:
    system = load_system(mine())
    assert load_system(system) is system
    assert isinstance(system, SystemConfig)


def test_dead_arrays() -> None:
    system = load_system(mine(dead_arrays=[3, 1]))
    assert system.dead_arrays == (3, 1)
    assert system.alive == (0, 2)
    assert describe_system(system) == "system: 4 x bus-tree-64, ring, links 64 B/cycle latency 9, 1 GHz, dead: 3, 1"


# ----------------------------------------------------------------------------------------------------------- overrides
def test_overrides_reach_links_entries_and_all_arrays() -> None:
    entries = [{"array": "bus-tree-64", "set": {"overlap": 0, "num_pes": 32}}, {"array": "bus-tree-64", "count": 2}]
    changes = {
        "links.link.latency_cycles": 77,
        "array.overlap": 2,
        "arrays.1.count": 3,
        "arrays.1.set.overlap": 3,
        "arrays.1.set.pe.buffer.capacity_bytes": 4096,
        "dead_arrays": [2],
    }
    system = load_system(mine(arrays=entries), changes)
    assert [array.overlap for array in system.arrays] == [2, 3, 3, 3]
    assert [array.num_pes for array in system.arrays] == [32, 64, 64, 64]
    assert [array.pe.buffer.capacity_bytes for array in system.arrays][1:] == [4096] * 3
    assert set(links_of(system).topology.channels.latency_cycles.tolist()) == {77}
    assert system.alive == (0, 1, 3)


def test_overrides_replace_arrays_and_links() -> None:
    system = load_system(mine(), {"arrays.0.array": "bus-tree-256", "links": {"kind": "switch", "link": LINK}})
    assert system.arrays[0].num_pes == 256
    assert system.links.kind == "crossbar"
    assert load_system(mine(), {"links.kind": "switch"}).links.kind == "crossbar"
    assert load_system(mine(), {"arrays": [{"array": "bus-tree-64", "count": 3}]}).num_arrays == 3


def test_a_file_s_mapping_is_not_changed() -> None:
    given = mine()
    before = json.dumps(given)
    load_system(given, {"arrays.0.count": 3, "arrays.0.set.overlap": 2, "links.kind": "switch"})
    assert json.dumps(given) == before


# ------------------------------------------------------------------------------------------------------------ refusals
def test_arrays_of_two_clocks() -> None:
    entries = [{"array": "bus-tree-64"}, {"array": "bus-tree-64", "set": {"clock_ghz": 2.0}}]
    assert refusal(mine(arrays=entries)) == (
        "system: arrays.1: clock_ghz: the arrays of a system have one clock\n"
        "  given:    2.0\n"
        "  expected: 1, as of arrays.0\n"
        "  hint:     set: {clock_ghz: 1}, if its other constants hold at that clock"
    )


@pytest.mark.parametrize(
    ("dead", "problem"),
    [([1, 1], "a rank stands there twice"), ([4], "there is no such array"), ([0, 1, 2, 3], "no array is left")],
)
def test_dead_arrays_that_are_none(dead: list[int], problem: str) -> None:
    assert refusal(mine(dead_arrays=dead)) == (
        f"system: dead_arrays: {problem}\n  given:    {dead}\n  expected: different ranks from 0 to 3, not all of them"
    )


@pytest.mark.parametrize("dead", [True, "1", [1.0], [True], ["1"]])
def test_dead_arrays_of_another_type(dead: object) -> None:
    assert "system: dead_arrays: " in refusal(mine(dead_arrays=dead))


def test_several_arrays_need_links() -> None:
    assert refusal(mine(links=None)).startswith("system: links: 4 arrays need links\n  expected: a mapping with a kind")


def test_links_need_a_floorplan() -> None:
    assert refusal(mine(floorplan=None)) == (
        "system: floorplan: missing\n"
        "  expected: a mapping with array_pitch_mm, mm_per_cycle\n"
        "  hint:     floorplan means: what auto latencies are derived from"
    )


def test_too_many_arrays() -> None:
    entries = [{"array": "bus-tree-64", "count": 4096}, {"array": "bus-tree-64"}]
    assert refusal(mine(arrays=entries)) == (
        "system: arrays: too many arrays\n  given:    4097\n  expected: at most 4096 in all"
    )


@pytest.mark.parametrize("count", [0, 4097, True, 2.0, "2"])
def test_counts(count: object) -> None:
    assert "system: arrays.0.count: " in refusal(mine(arrays=[{"array": "bus-tree-64", "count": count}]))


@pytest.mark.parametrize("arrays", [[], {}, "bus-tree-64", None])
def test_no_list_of_arrays(arrays: object) -> None:
    assert "system: arrays: " in refusal({**mine(), "arrays": arrays})


def test_an_unknown_kind_of_links() -> None:
    assert refusal(mine(), {"links.kind": "rinng"}) == (
        "--set links.kind: unknown kind of links\n"
        "  given:    'rinng'\n"
        "  expected: one of hierarchical_bus, h_tree, fat_tree, line, ring, mesh, torus, hypercube, butterfly,"
        " crossbar, graph, switch\n"
        "  hint:     did you mean 'ring'?"
    )
    assert "unknown kind of links" in refusal(mine(links={"kind": "bus_tree"}))
    assert refusal(mine(links={"link": LINK})).startswith("system: links.kind: missing")
    assert refusal(mine(links="ring")).startswith("system: links: not a mapping")


def test_links_that_do_not_fit_the_arrays() -> None:
    assert refusal(mine(links={"kind": "hypercube", "link": LINK}), {"arrays.0.count": 6}) == (
        "system: arrays: the number of arrays does not fit a hypercube\n"
        "  given:    6\n"
        "  expected: a power of 2\n"
        "  hint:     the nearest that fit are 4 and 8"
    )
    assert refusal(mine(links={"kind": "ring", "link": LINK, "root_at": 4})) == (
        "system: links.root_at: there is no such array\n  given:    4\n  expected: an array from 0 to 3"
    )
    assert "links.rows: rows times columns is not the number of arrays, 4" in refusal(
        mine(links={"kind": "mesh", "link": LINK, "rows": 3})
    )


def test_links_without_any_time() -> None:
    free = {"bytes_per_cycle": 64, "latency_cycles": 0, "overhead_cycles": 0}
    assert refusal(mine(links={"kind": "ring", "link": free})) == (
        "system: links: a message would arrive in the cycle in which it leaves\n"
        "  expected: latency_cycles or overhead_cycles of at least 1, for every link"
    )


def test_choices_that_links_do_not_have() -> None:
    assert refusal(mine(), {"links.arbitration": "priority"}) == (
        "system: links.arbitration: links serve first come, first served\n  given:    'priority'\n  expected: fifo"
    )
    assert "links.collectives.all_reduce: the algorithm of an exchange" in refusal(
        mine(), {"links.collectives.all_reduce": "ring"}
    )


def test_faults_of_arrays_say_where_they_come_from() -> None:
    wrong = mine(arrays=[{"array": "bus-tree-64"}, {"array": "bus-tree-64", "set": {"overlap": 9}}])
    assert refusal(wrong).startswith("system: arrays.1.set.overlap: too large\n  given:    9")
    assert (
        refusal(mine(), {"array.overlpa": 2})
        == "--set array.overlpa: unknown path\n  hint:     did you mean 'overlap'?"
    )
    assert refusal(mine(), {"arrays.0.set.overlap": 4}).startswith("--set arrays.0.set.overlap: too large")
    assert refusal(mine(arrays=[{"array": "bus-tree-46"}])).startswith(
        "system: arrays.0: unknown array\n  given:    'bus-tree-46'"
    )
    inside = {**array_to_dict(load_array("bus-tree-64")), "num_pes": 0}
    assert refusal(mine(arrays=[{"array": inside}])).startswith("system: arrays.0: array: num_pes: too small")


def test_overrides_that_go_nowhere() -> None:
    assert refusal(mine(), {"arrays.1.count": 2}) == (
        "--set arrays.1.count: there is no such entry\n  given:    1\n  expected: an entry of arrays from 0 to 0"
    )
    for path in ("arrays.count", "arrays.x.count", "arrays.0", "arrays.0.cuont", "arrays.0.count.x", "arrays.-1.count"):
        assert refusal(mine(), {path: 2}).startswith(f"--set {path}: unknown path\n  expected: arrays.N.array")
    assert refusal(mine(), {"links.link.latency": 2}).startswith("--set links.link.latency: unknown path")
    assert refusal(mine(), {"overlap": 2}).startswith("--set overlap: unknown path")


def test_what_is_no_system() -> None:
    assert refusal(3).startswith("not a system\n  given:    3")
    assert refusal("ring-of-5").startswith("unknown system\n  given:    'ring-of-5'")
    assert refusal({**mine(), "schema_version": 2}).startswith("system: schema_version: unknown schema version")
    assert refusal({**mine(), "array": []}).startswith("system: array: unknown key")
