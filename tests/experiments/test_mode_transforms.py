"""Mode transforms: each takes what the mapper expects, and the committed figures are what comes out."""

import pandas as pd
import pytest

import pe_sim as ps
from experiments import mode_transforms as experiment
from experiments import mode_transforms_table as tables
from experiments.mode_transforms_plot import short
from experiments.study import RESULTS
from pe_sim.engine.engines import engine_named
from pe_sim.graph.operators import Tensor
from pe_sim.mapping.placement import Replicate, Root, Shard
from pe_sim.mapping.transforms import Transforms
from tests.experiments.studies import assert_pictures, assert_same_rows, assert_schema, committed

KEYS = ["tensor", "pes", "from", "to"]


@pytest.fixture(scope="module")
def table(quick):
    return quick[0]


def test_files(quick):
    table, done, folder = quick
    assert_pictures(folder, ["cycles"])
    assert "All 180 transforms of vectors take what the mapper chooses their ways by, to the cycle." in done.stdout
    assert "KV, 32 MiB, 64 PEs" in done.stderr
    assert_schema(experiment.STUDY, folder, {"way": "string", "cycles": "int64", "closed_form_cycles": "int64"})
    assert tuple(table) == tables.COLUMNS


def test_the_committed_table_is_what_comes_out(table):
    known = committed(experiment.STUDY)
    assert_same_rows(table, known, KEYS)
    vectors, caches = 3 * 6 * 5, 4 * 3
    assert len(known) == (vectors + caches) * len(experiment.NUMBERS)
    assert not known.duplicated(KEYS).any()
    assert set(known["pes"]) == set(experiment.NUMBERS)
    assert_pictures(RESULTS / experiment.NAME, ["cycles"])


def test_every_transform_of_a_vector_is_what_the_mapper_expects(table):
    known = table[table["closed_form_cycles"].notna()]
    assert len(known) == 2 * 3 * 6 * 5
    assert (known["cycles"] == known["closed_form_cycles"]).all()
    assert tables.verdict(table).startswith(f"All {len(known)} transforms of vectors")
    assert experiment.STUDY.holds(table)


def test_a_difference_is_named_and_fails(table):
    wrong = table.head(4).copy()
    wrong.loc[3, "cycles"] = 1
    assert tables.verdict(wrong).splitlines() == [
        "1 of 4 transforms DIFFER from what the mapper expects:",
        f"  4 KiB, 16 PEs, Root -> Shard(batch): 1, not {table['cycles'][3]}",
    ]
    assert not experiment.STUDY.holds(wrong)


def test_the_matrix(table):
    names, cycles = tables.matrix(table, "4 KiB", 16)
    assert names == [str(each) for each in experiment.PLACEMENTS]
    assert (cycles.diagonal() == -1).all()
    one = table[(table["tensor"] == "4 KiB") & (table["pes"] == 16)].set_index(["from", "to"])["cycles"]
    assert cycles[0, 1] == one["Root", "Replicate"]
    assert cycles[5, 0] == one["Partial(sum)", "Root"]


def test_by_hand(table):
    """The formulas of the contract on 16 PEs of the preset: bus and tree of 64 B/cycle, bf16 and fp32."""
    found = table[table["pes"] == 16].set_index(["tensor", "from", "to"])
    network = ps.load_array("bus-tree-256", overrides={"num_pes": 16}).bus_tree
    bus, tree = network.bus, network.tree
    hops = sum(tree.level_latency_cycles) + 4 * tree.combine_cycles
    broadcast = bus.overhead_cycles + 4096 // 64 + bus.latency_cycles
    reduce = hops + 8192 // 64
    cycles = found["cycles"]["4 KiB"]
    assert cycles["Root", "Replicate"] == broadcast
    assert cycles["Partial(sum)", "Root"] == reduce
    assert cycles["Partial(sum)", "Replicate"] == reduce + broadcast
    gathered = 16 * (bus.overhead_cycles + 256 // 64) + bus.request_cycles + bus.latency_cycles
    assert cycles["Shard(hidden)", "Replicate"] == gathered
    assert found["messages"]["4 KiB", "Shard(hidden)", "Replicate"] == 16
    free = found.loc[("4 KiB", "Replicate", "Shard(head)")]
    assert (free["cycles"], free["messages"], free["bytes"], free["way"]) == (0, 0, 0, "local")
    relaid = found.loc[("KV, 32 MiB", "Shard(head)", "Shard(token)")]
    assert (relaid["messages"], relaid["bytes"]) == (16, 32 * 2**20 * 15 // 16)
    assert pd.isna(relaid["closed_form_cycles"])


def test_the_event_engine_agrees():
    array, kind = experiment.array_of(16), tables.KINDS[2]
    layouts = experiment.layouts_of(kind, array)
    tensor = Tensor("vector", "query", kind.heads * kind.head_dim)
    for source in experiment.PLACEMENTS:
        for target in experiment.PLACEMENTS:
            steps = experiment.steps_of(Transforms(array, layouts), tensor, source, target) if source != target else ()
            schedule = experiment.schedule_of(array, layouts, tensor, steps)
            if schedule.blocks[0].stages:
                cycles = {engine_named(name)(schedule).makespan_cycles for name in ("fast", "event")}
                assert len(cycles) == 1


def test_what_has_no_way_of_its_own_goes_through_replicate():
    array, kind = experiment.array_of(16), tables.KINDS[0]
    transforms = Transforms(array, experiment.layouts_of(kind, array))
    tensor = Tensor("vector", "query", 2048)
    partial = experiment.PLACEMENTS[-1]
    assert [step.target for step in experiment.steps_of(transforms, tensor, Root(), partial)] == [Replicate(), partial]
    assert experiment.steps_of(transforms, tensor, Replicate(), Shard("head"))[0].kind.value == "local"


@pytest.mark.parametrize(
    ("cycles", "text"),
    [(-1, ""), (0, "0"), (999, "999"), (1000, "1.00k"), (12345, "12.3k"), (524342, "524k"), (10**6, "1.00M")],
)
def test_cells(cycles, text):
    assert short(cycles) == text
