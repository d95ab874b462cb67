"""Collectives against N: simulated points are the closed forms, and the committed figures are what comes out."""

import pandas as pd
import pytest

import pe_sim as ps
from experiments import closed_forms as forms
from experiments import collectives_against_n as experiment
from experiments import collectives_against_n_table as tables
from experiments.collectives_against_n_plot import apart
from experiments.study import RESULTS, Ask
from tests.experiments.studies import assert_pictures, assert_same_rows, assert_schema, committed, run

QUIET = Ask(quick=False, jobs=1, tell=lambda text: None)


@pytest.fixture(scope="module")
def table():
    return experiment.collect(experiment.Setting(), QUIET)


class TestFiles:
    def test_quick(self, quick, table):
        found, done, folder = quick
        assert_pictures(folder, ["cycles"])
        assert "All 144 simulated points equal their closed form to the cycle." in done.stdout
        assert "256 PEs" in done.stderr
        expected = {"way": "string", "cycles": "int64", "closed_form_cycles": "int64", "flight_cycles": "int64"}
        assert_schema(experiment.STUDY, folder, expected)
        assert_same_rows(found, table, ["panel", "collective", "way", "pes"])

    def test_the_committed_table_is_what_comes_out(self, table):
        pd.testing.assert_frame_equal(table, committed(experiment.STUDY))
        assert tuple(table) == tables.COLUMNS
        assert_pictures(RESULTS / experiment.NAME, ["cycles"])

    def test_a_part_of_ones_own(self, tmp_path):
        given = ("--up-to", 8, "--array", "aim-gddr6-16", "--bytes", 96, "--part-bytes", 2, "--jobs", 2)
        done = run(experiment.NAME, *given, "--out", tmp_path)
        assert done.returncode == 0, done.stderr
        assert "messages of 2 B, 2 to 8 PEs" in done.stdout
        assert "All 54 simulated points" in done.stdout


class TestClosedForms:
    def test_the_worked_examples_of_the_contract(self):
        array = ps.load_array("bus-tree-256", overrides={"network.bus.request_cycles": 0})
        machine = forms.Machine.of(array)
        assert machine.broadcast(8192) == 134
        assert machine.scatter(32) == machine.gather(32) == 772
        assert machine.reduce(16384) == 280
        assert machine.all_reduce(16384) == 414

    def test_every_point_is_its_closed_form(self, table):
        assert (table["cycles"] == table["closed_form_cycles"]).all()
        assert tables.verdict(table) == f"All {len(table)} simulated points equal their closed form to the cycle."

    @pytest.mark.parametrize(
        ("array", "vector_bytes", "part_bytes"), [("bus-tree-16-large", 1000, 7), ("aim-gddr6-16", 96, 2)]
    )
    def test_on_other_machines_and_sizes(self, array, vector_bytes, part_bytes):
        found = experiment.collect(experiment.Setting(array, 8, vector_bytes, part_bytes), QUIET)
        assert len(found) == 2 * 3 * len(forms.SERIES)
        assert (found["cycles"] == found["closed_form_cycles"]).all()

    def test_the_event_engine_agrees(self, table):
        for row in table[table["pes"] == 16].to_dict("records"):
            array = experiment.array_of(experiment.ARRAY, 16, row["way"])
            assert ps.collective(row["collective"], array, row["bytes"], "event").cycles == row["cycles"]

    def test_a_difference_is_named_and_fails(self, table):
        wrong = table.head(4).copy()
        wrong.loc[3, "cycles"] = 1
        assert tables.verdict(wrong).splitlines() == [
            "1 of 4 points DIFFER from their closed form:",
            f"  vector of 8 KiB, scatter, serial, 2 PEs: 1, not {wrong['closed_form_cycles'][3]}",
        ]
        assert not experiment.STUDY.holds(wrong)
        assert experiment.STUDY.holds(table)


class TestMotivation:
    def test_flat_logarithmic_linear(self, table):
        each = tables.panel_names(table)[1]
        sent, added, spread = (tables.curve(table, each, one) for one in (forms.BROADCAST, forms.REDUCE, forms.SCATTER))
        assert set(sent["cycles"] - sent["flight_cycles"]) == {3}
        hops = [forms.Machine.of(experiment.array_of(experiment.ARRAY, pes)).hops for pes in added["pes"]]
        assert (added["cycles"] == [1 + each for each in hops]).all()
        assert (spread["cycles"] - spread["flight_cycles"] == 3 * spread["pes"]).all()

    def test_findings_are_of_the_figures(self, table):
        text = tables.findings(table)
        assert "4 to 19 cycles, of which 1 to 16 are time of flight" in text
        assert "12,304 : 146" in text

    def test_numbers_of_pes(self):
        assert experiment.powers(2) == [2]
        assert experiment.powers(100) == [2, 4, 8, 16, 32, 64]
        assert experiment.powers(128)[-1] == 128


@pytest.mark.parametrize(
    ("heights", "expected"),
    [
        ([], []),
        ([1.0, 2.0], [1.0, 2.0]),
        ([1.0, 1.0], [0.75, 1.25]),
        ([0.0, 1.0, 1.2, 1.4, 3.0], [0.0, 0.7, 1.2, 1.7, 3.0]),
    ],
)
def test_labels_are_kept_apart(heights, expected):
    assert apart(heights, 0.5) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--array", "mesh-256"), "mesh-256 is a mesh; the closed forms are those of a bus_tree"),
        (("--array", "bus-tre"), "did you mean 'bus-tree-64'?"),
        (("--bytes", "1000"), "--bytes: cannot be cut into 4096 equal parts"),
        (("--up-to", "2"), "--up-to: a curve has two points"),
        (("--part-bytes", "0"), "--part-bytes: nothing to send"),
        (("--plot-only", "--up-to", "8"), "--up-to is for computing one"),
    ],
)
def test_bad_input(arguments, message, tmp_path):
    done = run(experiment.NAME, *arguments, "--out", tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())
