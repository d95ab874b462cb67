"""Collectives of the command line on every interconnect that is a graph: engines, traffic, bytes, overlap, speed."""

import json
from dataclasses import replace

import pytest
from click.testing import CliRunner

from pe_sim import api
from pe_sim.cli import cli
from pe_sim.engine.event.run import run_event
from pe_sim.engine.fast.run import run_fast
from pe_sim.errors import InputError
from pe_sim.schedule.collectives import KINDS, collective_schedule, named_way, ways_of
from pe_sim.schedule.routed_moves import collective_planner
from tests.helpers import diagonal, some_of, traffic_of
from tests.network.networks import SECTIONS, array_of

GRAPHS = tuple(kind for kind in SECTIONS if kind != "bus_tree")
SIZES = {"hypercube": (1, 2, 8), "butterfly": (1, 2, 8), "hierarchical_bus": (5, 8)}  # one cluster is a bus_tree


def each_way(kind, array, num_bytes):
    """(name, schedule) of every way that fits, and the best one."""
    for name in (*ways_of(kind, array, num_bytes), "best"):
        yield name, collective_schedule(kind, named_way(kind, array, name), num_bytes).schedule


@pytest.mark.parametrize(("kind", "graph"), diagonal(KINDS, GRAPHS))
def test_both_engines_give_the_plans_cycles_and_the_same_traffic(graph, kind):
    for num_pes in SIZES.get(graph, (1, 3, 8)):
        array = array_of(graph, num_pes)
        for num_bytes in (1, 100):
            planner = collective_planner(kind, array, num_bytes)
            for name, schedule in each_way(kind, array, num_bytes):
                fast, event = run_fast(schedule), run_event(schedule)
                assert fast.makespan_cycles == event.makespan_cycles, (num_pes, num_bytes, name)
                assert traffic_of(fast) == traffic_of(event)
                if schedule.blocks[0].stages:
                    plan = planner.plan(kind.replace("-", "_"), name)
                    assert planner.cycles(plan) == fast.makespan_cycles, (num_pes, num_bytes, name)


def counted(kind, way, graph="mesh", num_pes=4, num_bytes=100):
    array = named_way(kind, array_of(graph, num_pes), way)
    traffic = run_fast(collective_schedule(kind, array, num_bytes).schedule).traffic
    return {tag: (use.messages, use.bytes) for tag, use in traffic.items() if use.messages}


def test_what_is_counted():
    """Section 9: a reduction and a broadcast once, whatever brings them about; messages of PEs one by one."""
    both = {"reduce": (1, 100), "broadcast": (1, 50)}
    for way in ("reduce_broadcast", "ring", "halving_doubling", "dimension_wise"):
        assert counted("all-reduce", way) == both
    assert counted("all-reduce", "recursive_doubling") == {"reduce": (1, 100)}
    for way in ("multicast", "star", "chain", "tree"):
        assert counted("broadcast", way) == {"broadcast": (1, 100)}
    for way in ("in_network", "star", "chain", "tree"):
        assert counted("reduce", way) == {"reduce": (1, 100)}
    for way in ("serial", "ring", "recursive_doubling", "dimension_wise"):
        assert counted("all-gather", way) == {"all-gather": (4, 400)}
    assert counted("all-gather", "by_reduction") == {"reduce": (1, 400), "broadcast": (1, 400)}
    assert counted("scatter", "serial") == {"scatter": (4, 400)}
    assert counted("scatter", "by_broadcast") == {"broadcast": (1, 400)}
    assert counted("gather", "serial") == {"gather": (4, 400)}
    assert counted("gather", "by_reduction") == {"reduce": (1, 400)}
    assert counted("reduce-scatter", "ring") == {"reduce": (1, 800)}
    assert counted("reduce-scatter", "serial") == {"reduce": (1, 800), "scatter": (4, 400)}
    assert counted("all-to-all", "pairwise") == {"all-to-all": (12, 1200)}


@pytest.mark.parametrize("kind", ["all-reduce", "all-gather", "reduce-scatter", "all-to-all"])
def test_one_pe_has_nothing_to_move(kind):
    planned = collective_schedule(kind, array_of("mesh", 1), 100)
    assert planned.algorithm == "nothing to move"
    assert run_fast(planned.schedule).makespan_cycles == 0


def test_names_say_what_was_chosen():
    def name(kind, **section):
        return collective_schedule(kind, array_of("mesh", 16, **section), 4096).algorithm

    assert name("all-reduce", collectives={"all_reduce": "reduce_broadcast"}) == (
        "reduce_broadcast (in_network + multicast)"
    )
    chosen = {"all_reduce": "reduce_broadcast", "reduce": "tree", "broadcast": "chain"}
    assert name("all-reduce", collectives=chosen) == "reduce_broadcast (tree + chain)"
    assert name("all-reduce", collectives={"all_reduce": "ring"}) == "ring"
    assert name("scatter", collectives={"scatter": "by_reduction"}) == "by_broadcast (multicast)"
    assert name("gather", collectives={"gather": "serial"}) == "serial"


def test_the_root_forwards_what_it_reduces_at_overlap_3():
    """As on a bus and a tree: requested at the reduction's head, behind what would let the channel starve."""
    for reduce in ("in_network", "star", "chain", "tree"):
        array = array_of("line", 8, collectives={"all_reduce": "reduce_broadcast", "reduce": reduce})
        later, sooner = (
            run_fast(collective_schedule("all-reduce", replace(array, overlap=overlap), 64000).schedule).makespan_cycles
            for overlap in (1, 3)
        )
        assert later - sooner == 500  # the broadcast's beats are half of those of the reduction, which is 32-bit


@pytest.mark.parametrize("graph", some_of(SECTIONS, 3))
@pytest.mark.parametrize("num_bytes", [4, *(pytest.param(more, marks=pytest.mark.slow) for more in (16384, 2**20))])
def test_an_all_reduce_on_1024_pes(graph, num_bytes):
    trace = run_fast(collective_schedule("all-reduce", array_of(graph, 1024), num_bytes).schedule)
    assert trace.makespan_cycles > 0
    assert trace.notes == ()


def invoke(*args):
    return CliRunner().invoke(cli, ["collective", *args])


def rows_of(result):
    assert result.exit_code == 0, result.output
    return [line.split() for line in result.stdout.splitlines() if not line.startswith("#")]


def test_the_table_of_all_algorithms_marks_the_best():
    options = ("all-reduce", "--array", "mesh-256", "--set", "num_pes=16", "--bytes", "64,64k", "--algorithm", "all")
    rows = rows_of(invoke(*options))
    ways = ["reduce_broadcast", "ring", "recursive_doubling", "halving_doubling", "dimension_wise"]
    assert [row[8] for row in rows] == ways * 2
    for size in ("64", "65536"):
        mine = [row for row in rows if row[0] == size]
        least = min(int(row[2]) for row in mine)
        assert [row[-1] == "best" for row in mine] == [int(row[2]) == least for row in mine]


@pytest.mark.parametrize(
    ("kind", "total", "factor"),
    [("all-reduce", 6400, 2 * 15 / 16), ("all-gather", 102400, 15 / 16), ("all-to-all", 1536000, 1 / 16),
     ("reduce-scatter", 102400, 15 / 16), ("broadcast", 6400, 1), ("gather", 102400, 1)],
)  # fmt: skip
def test_bus_bandwidth_is_that_of_nccl_tests(kind, total, factor):
    (row,) = rows_of(invoke(kind, "--array", "mesh-256", "--set", "num_pes=16", "--bytes", "6400"))
    assert int(row[1]) == total
    seconds = int(row[2]) / 1e9
    assert float(row[5]) == pytest.approx(total / seconds / 1e9, abs=0.01)
    assert float(row[6]) == pytest.approx(factor * total / seconds / 1e9, abs=0.01)


def test_json_of_one_algorithm():
    result = invoke("reduce", "--array", "mesh-256", "--bytes", "64", "--algorithm", "chain", "--json", "-")
    plain = json.loads(result.stdout)
    array = api.load_array("mesh-256")
    assert plain["cycles"] == api.collective("reduce", named_way("reduce", array, "chain"), 64).cycles
    assert plain["algorithm"] == "chain"


@pytest.mark.parametrize("name", ["best", "all"])
def test_a_bus_and_a_tree_have_one_way(name):
    asked = ("reduce", "--array", "bus-tree-64", "--bytes", "64")
    assert invoke(*asked, "--algorithm", name).stdout == invoke(*asked).stdout


def test_what_cannot_be_chosen():
    refused = invoke("all-reduce", "--array", "crossbar-256", "--bytes", "64", "--algorithm", "ring")
    assert refused.exit_code == 2
    assert "ring does not fit this crossbar: it is a star" in refused.stderr
    refused = invoke("reduce", "--array", "bus-tree-256", "--bytes", "64", "--algorithm", "chain")
    assert refused.exit_code == 2
    assert "--algorithm: algorithms are chosen by name on interconnects that are graphs" in refused.stderr
    with pytest.raises(InputError, match="no such collective"):
        ways_of("all-reduced", array_of("mesh", 4), 64)
