"""First-order area: by hand, what it must follow, and the largest array that fits."""

from typing import Any

import pytest
from hypothesis import strategies as st

from pe_sim.config.arrays.array import ArrayConfig
from pe_sim.config.arrays.load import load_array
from pe_sim.errors import InputError
from pe_sim.network.area import AreaReport, area_of, at_area
from pe_sim.network.metrics import wire_bits_mm
from tests.helpers import given_in_both

ROUND: dict[str, Any] = {
    "area.mac_um2.bf16": 1000,
    "area.vector_lane_um2": 2000,
    "area.local_mm2_per_mib": 0.01,
    "area.local_layers": 0,
    "area.buffer_mm2_per_mib": 0.5,
    "area.root_mm2_per_mib": 0,
    "area.joint_lane_um2": 500,
}
KINDS = (
    "bus-tree",
    "hier-bus",
    "h-tree",
    "fat-tree",
    "line",
    "ring",
    "mesh",
    "torus",
    "hypercube",
    "butterfly",
    "crossbar",
)


def array_of(name: str = "bus-tree-256", **overrides: Any) -> ArrayConfig:
    return load_array(name, {**ROUND, **{key.replace("__", "."): value for key, value in overrides.items()}})


def test_the_whole_is_the_same_on_every_python():
    """From 3.12 on the built-in sum makes up for what rounding loses, before that it does not."""
    assert AreaReport({f"part {number}": 0.1 for number in range(10)}, 1.0, 1.0).total_mm2 == 1.0


def test_by_hand() -> None:
    """256 PEs of 256 MACs, 32 lanes, 128 MiB and 320 KiB; 64 B/cycle are 16 fp32 elements; 256 lanes at the root."""
    found = area_of(array_of())
    assert found.by_component == pytest.approx(
        {
            "pe_matrix": 256 * 256 * 1000e-6,
            "pe_vector": 256 * 32 * 2000e-6,
            "pe_memory": 256 * 128 * 0.01,
            "pe_buffer": 256 * 320 / 1024 * 0.5,
            "joints": 255 * 16 * 500e-6,
            "wires": 0.0,
            "root": 256 * 2000e-6,
        }
    )
    assert found.total_mm2 == pytest.approx(sum(found.by_component.values()))
    assert found.pe_mm2 == pytest.approx(0.256 + 0.064 + 1.28 + 0.15625 + 255 * 16 * 500e-6 / 256)
    assert found.pitch_mm2 == pytest.approx(1.44)
    assert not found.fits_pitch


def test_stacked_memory_needs_no_room_beside_the_logic() -> None:
    beside, over, high = (area_of(array_of(area__local_layers=layers)) for layers in (0, 1, 4))
    assert beside.total_mm2 == over.total_mm2 == high.total_mm2
    assert over.pe_mm2 == pytest.approx(1.28)
    assert high.pe_mm2 == pytest.approx(beside.pe_mm2 - 1.28)  # a layer of 0.32 mm2 is smaller than the logic
    assert over.fits_pitch
    assert high.fits_pitch


def test_the_note_names_a_pitch_that_would_do() -> None:
    note = area_of(array_of()).note
    assert note is not None
    assert note.startswith(
        "a PE takes 1.76 mm2, and the floor plan's pitch leaves it 1.44 mm2: floorplan.pe_pitch_mm of "
    )
    pitch = float(note.split("pe_pitch_mm of ")[1].split()[0])
    assert area_of(array_of(floorplan__pe_pitch_mm=pitch)).note is None
    assert area_of(array_of(floorplan__pe_pitch_mm=pitch - 0.01)).note is not None


def test_the_widest_dtype_decides_how_large_a_multiplier_is() -> None:
    narrow = {"dtypes__weight": "int8", "dtypes__activation": "int8"}
    sizes = {"area__mac_um2__int8": 100}
    all_int8 = area_of(array_of(**narrow, **sizes, dtypes__kv_cache="int8")).by_component["pe_matrix"]
    wide_cache = area_of(array_of(**narrow, **sizes)).by_component["pe_matrix"]
    assert wide_cache == pytest.approx(10 * all_int8)


def test_wires_take_room_only_where_they_are_given_a_pitch() -> None:
    array = array_of(area__wire_pitch_um=0.2)
    # The bus: 256 + 16 pitches; the tree: links by level times their length.
    links = sum(256 // 2**level * 2 ** (level // 2) for level in range(8))
    millimetres = (272 + links) * 1.2
    assert area_of(array).by_component["wires"] == pytest.approx(512 * millimetres * 0.2e-3)
    both_ways = array_of(area__wire_pitch_um=0.2, network__tree__downlink=True)
    assert area_of(both_ways).by_component["wires"] == pytest.approx(512 * (272 + 2 * links) * 1.2 * 0.2e-3)


@pytest.mark.parametrize("kind", KINDS[1:])
def test_wires_of_a_graph_are_those_of_its_topology(kind: str) -> None:
    clusters = {"network__cluster_pes": 4} if kind == "hier-bus" else {}
    array = array_of(f"{kind}-256", num_pes=16, area__wire_pitch_um=0.3, **clusters)
    assert area_of(array).by_component["wires"] == pytest.approx(wire_bits_mm(array) * 0.3e-3)


def test_joints_of_a_hierarchy_add_as_many_elements_as_one_tree() -> None:
    """All terms but one are added, in whatever tree."""
    clusters = {"network__cluster_pes": 4, "num_pes": 16}
    assert area_of(array_of("hier-bus-256", **clusters)).by_component["joints"] == pytest.approx(
        area_of(array_of("bus-tree-256", num_pes=16)).by_component["joints"]
    )


def test_routers_that_only_forward_have_no_adders() -> None:
    assert area_of(array_of("mesh-256", network__in_network_reduction=False)).by_component["joints"] == 0
    # A corner's router has 2 or, with the root, 3 links in; an edge's 3; all PEs add what they have themselves.
    two_by_two = array_of("mesh-256", num_pes=4)
    assert area_of(two_by_two).by_component["joints"] == pytest.approx((4 * 2 + 1) * 16 * 500e-6)


@given_in_both(
    8,
    25,
    kind=st.sampled_from(["bus-tree", "hier-bus", "line", "mesh", "hypercube", "butterfly"]),
    area_mm2=st.floats(10, 100),
)
def test_one_more_would_not_fit(kind: str, area_mm2: float) -> None:
    overrides = {**ROUND, **({"network.cluster_pes": 4} if kind == "hier-bus" else {})}
    array = at_area(f"{kind}-256", area_mm2, overrides)
    assert area_of(array).total_mm2 <= area_mm2
    factor = {"hypercube": 2, "butterfly": 4}.get(kind, 1)  # the butterfly's radix is 4
    more = array.num_pes * factor if factor > 1 else array.num_pes + 1
    while kind == "mesh" and not _squarish(more):
        more += 1
    assert area_of(load_array(f"{kind}-256", {**overrides, "num_pes": more})).total_mm2 > area_mm2


def _squarish(number: int) -> bool:
    return any(
        number % side == 0 and number // side <= 2 * side for side in range(1, number + 1) if side * side <= number
    )


def test_switches_are_as_large_as_their_wires_ask() -> None:
    """Bits in times bits out at a pitch: 64 B/cycle are 512 wires a port, and a router's own PE is a port too."""
    side = 512 * 0.08e-3
    assert "switches" not in area_of(array_of()).by_component
    assert area_of(array_of("hier-bus-256")).by_component["switches"] == 0  # joints that only add
    crossbar = area_of(array_of("crossbar-256")).by_component["switches"]
    assert crossbar == pytest.approx((257 * side) ** 2)  # 256 PEs and the root
    assert crossbar == pytest.approx(110, rel=0.01)
    wide = array_of("crossbar-256", network__link__bytes_per_cycle=128, area__switch_pitch_um=0.16)
    assert area_of(wide).by_component["switches"] == pytest.approx(16 * crossbar)
    # Corners have two links and their PE, one of them the root besides; the end of a line has one link and no choice.
    corners = area_of(array_of("mesh-256", num_pes=4)).by_component["switches"]
    assert corners == pytest.approx((3 * 3**2 + 4**2) * side**2)
    line = area_of(array_of("line-256", num_pes=4)).by_component["switches"]
    assert line == pytest.approx(3 * 3**2 * side**2)
    cube = area_of(array_of("hypercube-256")).by_component["switches"]
    assert cube == pytest.approx((255 * 9**2 + 10**2) * side**2)


def test_each_level_of_a_fat_tree_has_as_much_switch() -> None:
    """Twice the width, half as many, each made of twice as many small ones: 4 x 64 B in and out for every two PEs."""
    side = 512 * 0.08e-3
    for num_pes in (16, 64, 256):
        found = area_of(array_of("fat-tree-256", num_pes=num_pes)).by_component["switches"]
        of_level = num_pes / 2 * (4 * side) ** 2
        below_the_top = num_pes.bit_length() - 2
        # The top has the root's channel in place of two upward ones.
        assert below_the_top * of_level < found < (below_the_top + 1) * of_level


def test_an_array_fits_its_own_area() -> None:
    for kind in ("bus-tree", "mesh", "hypercube"):
        array = load_array(f"{kind}-256")
        assert at_area(f"{kind}-256", area_of(array).total_mm2) == array


def test_latencies_follow_the_number_of_pes() -> None:
    small = at_area("bus-tree-4096", area_of(load_array("bus-tree-256")).total_mm2)
    assert small.num_pes == 256
    assert small.bus_tree.bus.latency_cycles < load_array("bus-tree-4096").bus_tree.bus.latency_cycles


@pytest.mark.parametrize("area_mm2", [0, -1, float("nan"), float("inf"), "12"])
def test_what_is_no_area(area_mm2: Any) -> None:
    with pytest.raises(InputError, match="not an area"):
        at_area("bus-tree-256", area_mm2)


def test_what_cannot_be_made_to_fit() -> None:
    with pytest.raises(InputError) as caught:
        at_area("bus-tree-256", 3)
    assert str(caught.value) == (
        "no array like bus-tree-256 is so small\n  given:    '3 mm2'\n"
        "  expected: at least 5.79 mm2, which a single PE and the root take"
    )
    with pytest.raises(InputError, match="the area decides the number of PEs"):
        at_area("bus-tree-256", 100, {"num_pes": 5})
    graph = {"nodes": [{"id": "a", "pe": 0}, {"id": "r", "kind": "root"}], "edges": [{"source": "a", "target": "r"}]}
    network = {"kind": "graph", "graph": graph, "link": {"bytes_per_cycle": 4}}
    with pytest.raises(InputError, match="a graph with a number of PEs of its own"):
        at_area({**_plain("bus-tree-256"), "num_pes": 1, "network": network}, 1000)


def _plain(name: str) -> dict[str, Any]:
    from pe_sim.config.arrays.load import array_to_dict

    return array_to_dict(load_array(name))


@pytest.mark.parametrize(
    "name", [f"{kind}-256" for kind in KINDS] + ["bus-tree-16-large", "aim-gddr6-16", "wafer-line-512"]
)
def test_the_pes_of_every_preset_fit_their_pitch(name: str) -> None:
    assert area_of(load_array(name)).note is None
