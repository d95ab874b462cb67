"""The sections of the interconnects: defaults, what is derived from N, and the words the user reads."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from pe_sim.config.arrays.load import array_to_dict, describe_array, load_array
from pe_sim.config.arrays.schemas import schema_with
from pe_sim.config.files.loading import load_mapping, resolve
from pe_sim.config.files.schema import Section, subsection
from pe_sim.config.networks.network import GraphNetwork
from pe_sim.config.networks.schema import SECTIONS, GraphCollectivesFile
from pe_sim.errors import InputError
from pe_sim.network.collectives.plans import BEST, WAYS

LINK = {"bytes_per_cycle": 64, "latency_cycles": "auto"}
KINDS = "bus_tree, hierarchical_bus, h_tree, fat_tree, line, ring, mesh, torus, hypercube, butterfly, crossbar, graph"


def raw(num_pes: int = 16, **network: Any) -> dict[str, Any]:
    return {**load_mapping(resolve("arrays", "bus-tree-256")), "num_pes": num_pes, "network": network}


def refusal(given: object, overrides: dict[str, object] | None = None) -> str:
    with pytest.raises(InputError) as caught:
        load_array(given, overrides)  # type: ignore[arg-type]
    assert "pydantic" not in str(caught.value)
    return str(caught.value)


def test_defaults() -> None:
    network = load_array(raw(kind="line", link=LINK)).network
    assert isinstance(network, GraphNetwork)
    assert (network.combine_cycles, network.softmax_combine_cycles, network.forward_cycles) == (2, 12, 0)
    assert (network.arity, network.arbitration, network.in_network_reduction) == (2, "fifo", True)
    collectives = array_to_dict(load_array(raw(kind="line", link=LINK)))["network"]["collectives"]
    names = "gather scatter broadcast reduce all_reduce all_gather reduce_scatter all_to_all"
    assert collectives == dict.fromkeys(names.split(), "best")
    assert load_array("bus-tree-64").network.arbitration == "fifo"
    assert load_array("bus-tree-64", {"network.arbitration": "priority"}).network.arbitration == "priority"


def test_arity_is_the_trees_or_a_parameter() -> None:
    assert load_array("bus-tree-64", {"network.tree.arity": 4}).network.arity == 4
    assert load_array("mesh-256", {"network.arity": 4}).network.arity == 4
    assert load_array("h-tree-256", {"network.arity": 4}).network.arity == 4


@pytest.mark.parametrize(
    ("num_pes", "sides"), [(1, (1, 1)), (2, (1, 2)), (7, (1, 7)), (12, (3, 4)), (36, (6, 6)), (1000, (25, 40))]
)
def test_the_most_square_sides(num_pes: int, sides: tuple[int, int]) -> None:
    shape: Any = load_array(raw(num_pes, kind="torus", link=LINK)).network
    assert (shape.shape.rows, shape.shape.cols) == sides


def test_one_side_gives_the_other() -> None:
    for given in ({"rows": 2}, {"cols": 8}, {"rows": 2, "cols": 8}):
        shape: Any = load_array(raw(16, kind="mesh", link=LINK, **given)).network
        assert (shape.shape.rows, shape.shape.cols) == (2, 8)


def test_overrides_reach_every_kind() -> None:
    network: Any = load_array("mesh-256", {"num_pes": 64, "network.rows": 2, "network.link.bytes_per_cycle": 8}).network
    assert (network.shape.rows, network.shape.cols, network.shape.link.bytes_per_cycle) == (2, 32, 8)
    network = load_array("mesh-256", {"network.kind": "torus"}).network  # the same keys
    assert network.kind == "torus"
    network = load_array(
        "bus-tree-256", {"network": {"kind": "ring", "link": LINK}, "network.root_at": "center"}
    ).network
    assert (network.kind, network.shape.root_at) == ("ring", 128)
    network = load_array("hier-bus-256", {"network.top.bus.bytes_per_cycle": 128}).network
    assert network.shape.top.bus.bytes_per_cycle == 128


def test_every_field_is_described() -> None:
    def check(schema: type[Section]) -> None:
        for name, field in schema.model_fields.items():
            assert field.description, f"{schema.__name__}.{name}"
            inner = subsection(field)
            if inner:
                check(inner)

    for kind in SECTIONS:
        check(schema_with(kind))


@pytest.mark.parametrize("field", ["broadcast", "reduce", "all_reduce", "all_gather", "reduce_scatter", "all_to_all"])
def test_the_names_of_algorithms_are_those_that_there_are(field: str) -> None:
    names = get_args(GraphCollectivesFile.model_fields[field].annotation)
    assert names[0] == BEST
    assert set(names[1:]) == set(WAYS[field])


def test_a_wrong_algorithm_is_refused_when_the_array_is_loaded() -> None:
    message = refusal("mesh-256", {"network.collectives.reduce": "in_netwrok"})
    assert message == (
        "--set network.collectives.reduce: not one of the known values\n"
        "  given:    'in_netwrok'\n"
        "  expected: best or in_network or star or chain or tree\n"
        "  hint:     did you mean 'in_network'?"
    )


MESSAGES: list[tuple[dict[str, Any], str]] = [
    (
        {"kind": "mseh", "link": LINK},
        f"network.kind: unknown kind of network\n  given:    'mseh'\n  expected: one of {KINDS}\n"
        "  hint:     did you mean 'mesh'?",
    ),
    ({"kind": 3}, f"network.kind: unknown kind of network\n  given:    3\n  expected: one of {KINDS}"),
    (
        {"kind": "mesh"},
        "network.link: missing\n  expected: a mapping with bytes_per_cycle, latency_cycles, overhead_cycles,"
        " request_cycles, ramp_cycles\n  hint:     link means: every link, one channel each way",
    ),
    (
        {"kind": "mesh", "link": {**LINK, "bytes_per_cycle": 0}},
        "network.link.bytes_per_cycle: too small\n  given:    0\n  expected: a whole number from 1 to 4294967296\n"
        "  hint:     bytes_per_cycle means: width of a channel",
    ),
    (
        {"kind": "mesh", "link": {**LINK, "latency_cycles": "atuo"}},
        "network.link.latency_cycles: not a latency\n  given:    'atuo'\n"
        "  expected: a whole number of cycles from 0 to 1048576, or auto\n  hint:     did you mean 'auto'?",
    ),
    (
        {"kind": "mesh", "link": LINK, "rows": 3, "cols": 5},
        "network.rows and network.cols: rows times columns is not the number of PEs, 16\n  given:    [3, 5]\n"
        "  expected: rows x cols = 16: 4 x 4, 2 x 8, 1 x 16\n  hint:     left out, they are 4 x 4",
    ),
    (
        {"kind": "torus", "link": LINK, "cols": 5},
        "network.cols: rows times columns is not the number of PEs, 16\n  given:    5\n"
        "  expected: rows x cols = 16: 4 x 4, 2 x 8, 1 x 16\n  hint:     left out, they are 4 x 4",
    ),
    (
        {"kind": "line", "link": LINK, "root_at": 16},
        "network.root_at: there is no such PE\n  given:    16\n  expected: a PE from 0 to 15",
    ),
    (
        {"kind": "line", "link": LINK, "root_at": "centre"},
        "network.root_at: not a place for the root\n  given:    'centre'\n"
        "  expected: the number of a PE, or center\n  hint:     did you mean 'center'?",
    ),
    (
        {"kind": "butterfly", "link": LINK, "radix": 3},
        "num_pes: the number of PEs does not fit a butterfly of radix 3\n  given:    16\n  expected: a power of 3\n"
        "  hint:     the nearest that fit are 9 and 27",
    ),
    (
        {"kind": "fat_tree", "link": {**LINK, "bytes_per_cycle": 2**31}, "growth": 8.0},
        "network.growth: the links at the top get too wide\n  given:    8.0\n"
        "  expected: links of at most 4294967296 bytes per cycle\n  hint:     lower growth or link.bytes_per_cycle",
    ),
    (
        {"kind": "line", "link": LINK, "arbitration": "round-robin"},
        "network.arbitration: not one of the known values\n  given:    'round-robin'\n"
        "  expected: fifo or round_robin or priority\n  hint:     did you mean 'round_robin'?",
    ),
    (
        {"kind": "line", "link": LINK, "rows": 4},
        "network.rows: unknown key\n  given:    4\n  hint:     known: arbitration, arity, collectives, combine_cycles,"
        " forward_cycles, in_network_reduction, kind, link, root_at, softmax_combine_cycles",
    ),
    (
        {"kind": "graph"},
        "network: the graph is missing\n"
        "  expected: either file: with the path of a GraphML or node-link JSON file, or graph: with nodes and edges",
    ),
    (
        {"kind": "graph", "graph": [1]},
        "network.graph: not a graph\n  given:    [1]\n  expected: a mapping with nodes and edges: the node-link form\n"
        "  hint:     or name a file: file: my.graphml",
    ),
]


@pytest.mark.parametrize(("network", "message"), MESSAGES)
def test_messages_word_by_word(network: dict[str, Any], message: str) -> None:
    assert refusal(raw(16, **network)) == f"array: {message}"


def test_another_kind_needs_other_keys() -> None:
    assert refusal("bus-tree-64", {"network.kind": "mesh"}) == (
        "--set network.kind: the file's network is of kind bus_tree, and a network of kind mesh has no bus\n"
        "  given:    'mesh'\n"
        "  hint:     replace the whole section, for instance --set 'network={kind: mesh, ...}', or start from a preset"
        " of this kind"
    )
    assert refusal("bus-tree-64", {"network.kind": "bus-tree"}).startswith(
        "--set network.kind: unknown kind of network\n  given:    'bus-tree'\n"
    )


@pytest.mark.parametrize("network", [None, 3, [], "mesh", {}, {"kind": None}, {"kind": ["mesh"]}, {"kind": {}}])
def test_what_is_no_network(network: object) -> None:
    assert refusal({**raw(), "network": network}).startswith("array: network")


@pytest.mark.parametrize("kind", SECTIONS)
@pytest.mark.parametrize("bad", [None, 3, "x", [], {"x": 1}])
def test_no_section_takes_anything(kind: str, bad: object) -> None:
    assert refusal(raw(16, kind=kind, link=bad, cluster=bad, graph=bad, file=bad)).startswith("array: network")


def test_descriptions() -> None:
    def words(name: str) -> str:
        return describe_array(load_array(name)).split("(32.00 GiB in all), ")[-1]

    assert words("mesh-256") == "16 x 16 mesh, links 64 B/cycle latency auto, root at PE 0, bf16 weights, 1 GHz"
    assert words("fat-tree-256") == (
        "2-ary fat-tree, links 64 B/cycle latency auto growing 2 x a level, bf16 weights, 1 GHz"
    )
