"""Workflows side by side: all of them, their parts add up, and the committed table is what comes out."""

import pytest

import pe_sim as ps
from experiments import workflows_side_by_side as experiment
from experiments.cases import CAUSES
from experiments.workflows_side_by_side_plot import format_mebibytes, format_milliseconds, mebibytes, milliseconds
from tests.experiments.studies import assert_pictures, assert_same_rows, assert_schema, committed

KEYS = ["model", "step", "workflow"]


@pytest.fixture(scope="module")
def table():
    return committed(experiment.STUDY)


def test_files(quick):
    _, done, folder = quick
    assert_pictures(folder, ["time", "traffic"])
    assert "is best" in done.stdout
    whole = ("cycles", "ideal_cycles", "messages.broadcast", "bytes.weight-stream", "path.memory", "path.wait")
    expected = dict.fromkeys(whole, "int64") | {"workflow": "string", "seconds": "double", "fits": "bool"}
    assert_schema(experiment.STUDY, folder, expected)


def test_the_committed_table_is_what_comes_out(quick, table):
    assert_same_rows(quick[0], table, KEYS)


def test_every_workflow_is_there(table):
    expected = {
        (model, step, name)
        for model in experiment.CAPACITY_MIB
        for step in experiment.STEPS
        for name in experiment.WORKFLOWS
    }
    assert {tuple(row) for row in table[KEYS].itertuples(index=False)} == expected
    assert len(table) == len(expected)


def test_the_parts_add_up(table):
    assert (table[[f"path.{cause}" for cause in CAUSES]].sum(axis=1) == table["cycles"]).all()
    total = milliseconds(table).sum(axis=1)
    assert (total / (table["seconds"] * 1e3) - 1).abs().max() < 1e-12
    sent = [name for name in table if name.startswith("bytes.")]
    assert (mebibytes(table).sum(axis=1) * 2**20 == table[sent].sum(axis=1)).all()
    assert (table["cycles"] >= table["ideal_cycles"]).all()


def test_nothing_of_the_critical_path_is_unexplained(table):
    assert not table["path.wait"].any()


def test_lockstep_is_megatron(table):
    rows = table.set_index(KEYS).drop(columns=["phase"]).swaplevel("workflow", "model").sort_index()
    for name in ("cycles", "path.bus", "bytes.reduce", "energy_joules"):
        assert (rows[name]["batch-lockstep"] == rows[name]["megatron"]).all()


def test_batch_workflows_send_what_they_say(table):
    rows = table.set_index("workflow")
    sent = [name for name in rows if name.startswith("bytes.") and name != "bytes.gather"]
    assert (rows.loc["batch-block", sent] == 0).all().all()
    assert (rows.loc["batch-stream", "bytes.weight-stream"] > 10**10).all()
    assert not rows.loc[["batch-block", "batch-stream"], "fits"].any()


def test_a_row_is_what_simulate_gives(table):
    row = table[(table["model"] == "llama-2-7b") & (table["workflow"] == "all-row")].iloc[1]
    report = ps.simulate("llama-2-7b", experiment.ARRAY, ps.Decode(1, 4095), "all-row")
    assert (row["step"], row["cycles"]) == ("decode, context 4,095", report.latency_cycles)
    for tag, use in report.traffic.items():
        assert (row[f"messages.{tag}"], row[f"bytes.{tag}"]) == (use.messages, use.bytes)


def test_amounts():
    assert format_milliseconds(17_700.0) == "17.7 s"
    assert format_milliseconds(26.04) == "26 ms"
    assert format_mebibytes(2048.0) == "2 GiB"
