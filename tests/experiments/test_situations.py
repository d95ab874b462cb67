"""The map of situations: the committed map is what comes out, and it is what it says."""

import numpy as np
import pytest

import pe_sim as ps
from experiments import situations as experiment
from experiments import situations_tables as tables
from experiments.situations_map import PIPELINE, STRAIGHT_FROM, USUAL, WORKFLOWS, Pipeline, Spot, load
from experiments.situations_plot import COLOURS, boundaries, middle_context, place_of_label, regions
from experiments.study import RESULTS, Ask
from pe_sim import api
from tests.experiments.studies import assert_pictures, assert_same_rows, assert_schema, committed, run

KEYS = ["model", "array", "batch", "context"]


@pytest.fixture(scope="module")
def table(quick):
    return quick[0]


@pytest.fixture(scope="module")
def spots():
    quiet = Ask(quick=True, jobs=1, tell=lambda text: None)
    batches, contexts = experiment.QUICK_BATCHES, experiment.QUICK_CONTEXTS
    return experiment.spots(experiment.QUICK_MODELS, experiment.QUICK_ARRAYS, batches, contexts, quiet)


class TestFiles:
    def test_quick(self, quick):
        table, done, folder = quick
        assert_pictures(folder, ["map_llama-2-7b"])
        assert "llama-2-7b on bus-tree-64: of 9 squares 6 fit" in done.stdout
        assert "llama-2-7b on bus-tree-256" in done.stderr
        expected = {"best": "string", "cycles.megatron": "int64", tables.CONTINUED: "bool", "reason": "string"}
        assert_schema(experiment.STUDY, folder, expected)
        assert tuple(table) == tuple(tables.COLUMNS)

    def test_committed_figures_are_what_comes_out(self, table):
        assert_same_rows(table, committed(experiment.STUDY), KEYS)
        assert_pictures(RESULTS / experiment.NAME, [f"map_{model}" for model in experiment.MODELS])

    def test_committed_figures_are_complete(self):
        known = committed(experiment.STUDY)
        places = {(m, a, b, c) for m in experiment.MODELS for a in experiment.ARRAYS for b in experiment.BATCHES
                  for c in experiment.CONTEXTS}  # fmt: skip
        assert set(known[KEYS].itertuples(index=False, name=None)) == places
        assert len(known) == len(places)
        assert (known["best"].isna() == known["reason"].notna()).all()

    def test_the_table_holds_the_map(self, spots, table):
        again = tables.spots_in(table)
        for mine, theirs in zip(spots, again, strict=True):
            for name in ("model", "array", "batch", "context", "cycles", "at_least", "continued", "best", "reason"):
                assert getattr(mine, name) == getattr(theirs, name), name


class TestMap:
    def test_a_square_is_what_pe_sim_run_gives(self, spots):
        (spot,) = [each for each in spots if (each.array, each.batch, each.context) == ("bus-tree-256", 8, 2048)]
        for workflow, cycles in spot.cycles.items():
            step = ps.Decode(8, 2048)
            assert cycles == ps.simulate("llama-2-7b", "bus-tree-256", step, workflow).latency_cycles

    def test_what_is_left_out_is_megatron(self):
        assert set(api.WORKFLOWS) - set(WORKFLOWS) == {"batch-lockstep"}
        step = ps.Decode(8, 100)
        left_out, usual = (ps.simulate("llama-2-7b", "bus-tree-64", step, name) for name in ("batch-lockstep", USUAL))
        assert left_out.latency_cycles == usual.latency_cycles

    def test_every_workflow_has_cycles_or_a_bound_or_a_reason(self, spots):
        for spot in spots:
            assert sorted([*spot.cycles, *spot.at_least, *spot.reasons]) == sorted(WORKFLOWS)
            assert (not spot.cycles) == bool(spot.reason) == (not spot.best)
            assert all(bound > spot.cycles[spot.best] for bound in spot.at_least.values())

    def test_what_nothing_fits_is_marked_with_the_nearest_miss(self, spots):
        spot = next(each for each in spots if not each.cycles)
        assert spot.reason.startswith("needs ")
        assert "bytes of a PE, which has 536,870,912" in spot.reason

    def test_gains(self):
        spot = Spot("m", "a", 1, 1, {"megatron": 100, "all-row": 50, "workflow-1": 80})
        assert (spot.best, spot.gain_over("second"), spot.gain_over("megatron")) == ("all-row", 0.375, 0.5)
        assert spot.gain_over("all-col") is None
        assert Spot("m", "a", 1, 1, {"all-row": 50}).gain_over("second") is None

    def test_a_pipeline_grows_in_a_straight_line(self):
        array = ps.load_array("bus-tree-64", overrides={"num_pes": 8})
        model = ps.load_model("llama-3.2-1b", overrides={"num_layers": 4})
        pipeline = Pipeline(model, array, 64)
        for batch in (1, STRAIGHT_FROM, 9, 17):
            for context in (64, 300):
                step = ps.Decode(batch, context)
                report = ps.simulate(model, array, step, PIPELINE, allow_overflow=True)
                assert pipeline.cycles(batch, context) == report.latency_cycles
                assert pipeline.at_least(batch, context) <= report.latency_cycles

    def test_positions_for_the_longest_context(self):
        assert load("llama-2-7b", 4000) == ps.load_model("llama-2-7b")
        assert load("llama-2-7b", 32768).max_position_embeddings == 32769

    def test_findings_count_the_squares(self, spots):
        text = tables.findings(spots)
        assert text.startswith("llama-2-7b on bus-tree-64: of 9 squares 6 fit; the best is ")
        assert "fewer cycles than megatron (batch 1, context 32,768)" in text


class TestPicture:
    def test_a_colour_each(self):
        assert set(COLOURS) == set(WORKFLOWS)
        assert len(set(COLOURS.values())) == len(WORKFLOWS)

    def test_regions_and_boundaries(self):
        winners = np.array([[0, 0, 1], [0, 1, 1]])
        assert regions(winners == 0) == [[(0, 0), (0, 1), (1, 0)]]
        assert len(boundaries(winners)) == 3

    def test_labels_keep_clear_of_marks(self):
        squares = [(row, column) for row in range(3) for column in range(5)]
        assert place_of_label(squares, "name") == (2.0, 1.0, 5)
        assert place_of_label(squares, "name", [(2.0, 1.0)])[1] in (0.0, 2.0)

    def test_situations_lie_in_the_middle_of_their_answers(self):
        assert middle_context(ps.load_situation("one-long")) == 3584 + 511 / 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--models", "nope"), "error: unknown model"),
        (("--arrays", "bus-tre-64"), "did you mean"),
        (("--arrays", "bus-tree-64,bus-tree-64"), "is not a list of different names"),
        (("--jobs", "0"), "'0' is not a whole number"),
    ],
)
def test_bad_input(arguments, message, tmp_path):
    done = run(experiment.NAME, "--quick", *arguments, "--out", tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())
