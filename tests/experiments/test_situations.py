"""Situations: the committed map is what comes out, it is what it says, and the searched mapping is never worse."""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import pe_sim as ps
from experiments import situations as experiment
from experiments import situations_tables as tables
from experiments.situations_map import PIPELINE, STRAIGHT_FROM, USUAL, WORKFLOWS, Pipeline, Spot, load
from experiments.situations_plot import COLOURS, boundaries, draw, middle_context, place_of_label, regions
from experiments.situations_search import NAMED, SEARCHED, best_named, by_case, serve_all
from pe_sim import api

ROOT = Path(__file__).resolve().parents[2]
ARRAYS = experiment.QUICK["arrays"].split(",")


@pytest.fixture(scope="module")
def spots():
    return experiment.spots(["llama-2-7b"], ARRAYS, experiment.QUICK_BATCHES, experiment.QUICK_CONTEXTS)


@pytest.fixture(scope="module")
def case():
    return serve_all("llama-2-7b", "bus-tree-64", "one-short")


def committed(name, columns):
    with (experiment.RESULTS / f"{name}.csv").open(encoding="utf-8", newline="") as stream:
        header, *rows = csv.reader(stream)
    assert tuple(header) == columns
    return rows


class TestMap:
    def test_committed_figures_are_what_comes_out(self, spots):
        rows = committed(experiment.MAP_NAME, tables.MAP_COLUMNS)
        assert [row for row in map(tables.map_cells, spots) if row not in rows] == []

    def test_committed_figures_are_complete(self):
        rows = committed(experiment.MAP_NAME, tables.MAP_COLUMNS)
        areas = [(model, array) for model in experiment.MODELS.split(",") for array in experiment.ARRAYS.split(",")]
        places = {(str(batch), str(context)) for batch in experiment.BATCHES for context in experiment.CONTEXTS}
        assert {tuple(row[:4]) for row in rows} == {(*area, *place) for area in areas for place in places}
        assert len(rows) == len(areas) * len(places)

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

    def test_the_table_holds_the_map(self, spots, tmp_path):
        tables.write_map(spots, tmp_path / "map.csv")
        again = tables.read_map(tmp_path / "map.csv")
        assert [tables.map_cells(spot) for spot in again] == [tables.map_cells(spot) for spot in spots]


class TestPicture:
    def test_files(self, spots, tmp_path):
        paths = [tmp_path / "map.png", tmp_path / "map.svg"]
        draw(spots, "llama-2-7b", [ps.load_situation("mixed")], paths)
        first = [path.read_bytes() for path in paths]
        assert first[0].startswith(b"\x89PNG")
        assert b"</svg>" in first[1]
        draw(spots, "llama-2-7b", [ps.load_situation("mixed")], paths)
        assert [path.read_bytes() for path in paths] == first

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


class TestSearched:
    def test_never_worse_than_a_named_workflow(self, case):
        found, named = case[-1], case[:-1]
        assert [each.workflow for each in case] == [*NAMED, SEARCHED]
        assert all(found.cycles <= each.cycles for each in named if each.step_cycles)
        assert found.cycles < best_named(case).cycles
        assert [each.workflow for each in named if each.reason] == ["batch-block"]

    def test_committed_figures_of_the_named_are_what_comes_out(self, case):
        rows = committed(experiment.SEARCH_NAME, tables.SITUATION_COLUMNS)
        mine = [row for row in rows if tuple(row[:3]) == ("llama-2-7b", "bus-tree-64", "one-short")]
        *named, found = tables.situation_cells(case)
        assert [row[:7] for row in mine[:-1]] == [row[:7] for row in named]
        assert float(found[6]) <= float(mine[-1][6])  # a better search is no fault: write the table anew

    def test_committed_figures_are_complete_and_never_worse(self):
        rows = committed(experiment.SEARCH_NAME, tables.SITUATION_COLUMNS)
        arrays, situations = experiment.ARRAYS.split(","), experiment.SITUATIONS.split(",")
        places = {(array, name) for array in arrays for name in situations}
        assert {tuple(row[1:3]) for row in rows if row[0] == "llama-2-7b"} == places
        for row in rows:
            assert row[7] == "" or float(row[7]) >= 0
            assert row[6] or row[8].startswith("needs ")

    def test_the_table(self, case):
        text = tables.format_situations(case)
        assert "bus-tree-64   one-short" in text
        assert "* the best of the named ones" in text
        assert list(by_case(case)) == [("llama-2-7b", "bus-tree-64", "one-short")]

    def test_what_does_not_fit(self):
        case = serve_all("llama-2-7b", "bus-tree-16-large", "one-short")
        text = tables.format_situations(case)
        assert case[-1].step_cycles or "does not fit: needs " in text


def run(*arguments):
    command = [sys.executable, "-m", "experiments.situations", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_command(tmp_path):
    done = run("--quick", "--arrays", "bus-tree-64", "--no-search", "--jobs", "1", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "llama-2-7b on bus-tree-64: of 9 squares 6 fit" in done.stdout
    names = ["situations_map.csv", "situations_map_llama-2-7b.png", "situations_map_llama-2-7b.svg"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    again = run("--draw-only", "--out", str(tmp_path))
    assert again.returncode == 0, again.stderr


def test_help_teaches():
    done = run("--help")
    for word in ("--quick", "--draw-only", "For instance", "straight line", "batch-lockstep is megatron"):
        assert word in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--models", "nope"), "error: unknown model"),
        (("--arrays", "bus-tre-64"), "did you mean"),
        (("--situations", "one-shrt"), "did you mean 'one-short'?"),
        (("--jobs", "0"), "--jobs 0: at least 1"),
    ],
)
def test_bad_input(arguments, message):
    done = run("--quick", "--no-files", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
