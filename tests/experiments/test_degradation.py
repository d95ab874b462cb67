"""Dead PEs: rows are what a simulation gives, the sets are what they are called, the text says what the table says."""

import pytest

import pe_sim as ps
from experiments import degradation as experiment
from experiments.degradation_plot import NEIGHBOURS, NONE, ONE_A_BLOCK, RANDOM, medians
from tests.experiments.studies import ROOT, assert_pictures, assert_same_rows, assert_schema, committed

KEYS = list(experiment.KEYS)


@pytest.fixture(scope="module")
def table():
    return committed(experiment.STUDY)


def test_files(quick):
    _, done, folder = quick
    assert_pictures(folder, ["latency", "tokens_per_second"])
    assert "decode, megatron" in done.stdout
    expected = {"dead": "int64", "draw": "int64", "cycles": "int64", "slowdown": "double", "placement": "string"}
    assert_schema(experiment.STUDY, folder, expected)


def test_the_committed_table_is_what_comes_out(quick, table):
    assert_same_rows(quick[0], table, KEYS)


def test_every_point_is_there(table):
    sets = 1 + len(experiment.DEAD) * (experiment.DRAWS + 2)
    assert len(table) == len(experiment.STEPS) * len(experiment.WORKFLOWS) * sets
    assert not table.duplicated(KEYS).any()
    assert table["error"].isna().all()


@pytest.mark.parametrize("dead", experiment.DEAD)
def test_the_sets(dead):
    sets = {(placement, draw): pes for placement, draw, pes in experiment.dead_sets(dead, experiment.DRAWS)}
    assert all(len(set(pes)) == dead and pes == sorted(pes) for pes in sets.values())
    assert all(0 <= pe < experiment.NUM_PES for pes in sets.values() for pe in pes)
    drawn = [tuple(pes) for (placement, _), pes in sets.items() if placement == RANDOM]
    assert len(set(drawn)) == len(drawn) == experiment.DRAWS
    assert sets[NEIGHBOURS, 0] == list(range(dead))
    lost = [pe // experiment.BLOCK for pe in sets[ONE_A_BLOCK, 0]]
    most = -(-dead // (experiment.NUM_PES // experiment.BLOCK))
    assert max(lost.count(block) for block in lost) == most


def test_nothing_dead_is_the_base(table):
    assert (table.loc[table["placement"] == NONE, "slowdown"] == 1).all()
    assert (table.loc[table["placement"] != NONE, "slowdown"] > 1).all()


def test_a_row_is_what_simulate_gives(table):
    ((*_, pes),) = [each for each in experiment.dead_sets(8, 3) if each[:2] == (RANDOM, 2)]
    overrides = {"dead_pes": pes, "pe.memory.capacity_bytes": experiment.CAPACITY_MIB * 2**20}
    array = ps.load_array(experiment.ARRAY, overrides=overrides)
    report = ps.simulate(experiment.MODEL, array, ps.Decode(1, 2048), "megatron")
    row = table.set_index(KEYS).loc[("decode", "megatron", RANDOM, 8, 2)]
    assert row["cycles"] == report.latency_cycles
    assert row["slowdown"] == report.degradation["slowdown"]


def test_by_token_and_even_slices_it_does_not_matter_which_pes_are_dead(table):
    rows = table[table["workflow"] == "workflow-2"]
    assert (rows.groupby(["step", "dead"])["cycles"].nunique() == 1).all()


def test_the_text_says_what_the_table_says(table):
    readme, page = (
        " ".join((ROOT / folder / name).read_text(encoding="utf-8").split())
        for folder, name in (("experiments", "README.md"), ("docs", "experiments.md"))
    )
    slower = table.set_index(KEYS)["slowdown"] - 1
    median = medians(table) - 1

    def said(value):
        return f"{value:.1%}".replace("%", " %")

    even = said(experiment.NUM_PES / (experiment.NUM_PES - 32) - 1)
    by_token = [said(median["decode", "workflow-2", dead]) for dead in (1, 32)]
    assert f"{by_token[0]} longer with one dead PE and {by_token[1]} with 32, where the others have {even}" in readme
    one, four = median["decode", "megatron", 1], slower["decode", "megatron", NEIGHBOURS, 4, 0]
    many = median["decode", "megatron", 64]
    assert said(one) == said(median["decode", "megatron", 4]) == said(slower["decode", "megatron", ONE_A_BLOCK, 4, 0])
    assert f"costs `megatron` {said(one)} in decode, and so do four" in readme
    assert f"four neighbours cost {said(four)}, 64 PEs at random {said(many)} in the median" in readme
    assert f"Prefill pays at once: {said(median['prefill of 512', 'workflow-1', 1])} under `workflow-1`" in readme
    assert f"llama-2-7b {said(one)} under megatron, four neighbours {said(four)}" in page
