"""Collectives against N: simulated points are the closed forms, and the committed figures are what comes out."""

import csv
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import pe_sim as ps
from experiments import closed_forms as forms
from experiments import collectives_against_n as experiment

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def points():
    return experiment.collect()


class TestClosedForms:
    def test_the_worked_examples_of_the_contract(self):
        array = ps.load_array("bus-tree-256", overrides={"network.bus.request_cycles": 0})
        machine = forms.Machine.of(array)
        assert machine.broadcast(8192) == 134
        assert machine.scatter(32) == machine.gather(32) == 772
        assert machine.reduce(16384) == 280
        assert machine.all_reduce(16384) == 414

    def test_every_point_is_its_closed_form(self, points):
        assert [point for point in points if point.cycles != point.closed_form] == []
        assert experiment.verdict(points) == f"All {len(points)} simulated points equal their closed form to the cycle."

    @pytest.mark.parametrize(
        ("array", "vector_bytes", "part_bytes"), [("bus-tree-16-large", 1000, 7), ("aim-gddr6-16", 96, 2)]
    )
    def test_on_other_machines_and_sizes(self, array, vector_bytes, part_bytes):
        found = experiment.collect(array, 8, vector_bytes, part_bytes)
        assert len(found) == 2 * 3 * len(forms.SERIES)
        assert [point for point in found if point.cycles != point.closed_form] == []

    def test_the_event_engine_agrees(self, points):
        for point in points:
            if point.pes == 16:
                array = experiment.array_of(experiment.ARRAY, 16, point.series.way)
                assert ps.collective(point.series.collective, array, point.num_bytes, "event").cycles == point.cycles

    def test_a_difference_is_named(self, points):
        wrong = [*points[:3], replace(points[3], cycles=1)]
        assert experiment.verdict(wrong).splitlines() == [
            "1 of 4 points DIFFER from their closed form:",
            f"  vector of 8 KiB, scatter, serial, 2 PEs: 1, not {points[3].closed_form}",
        ]


class TestMotivation:
    def test_flat_logarithmic_linear(self, points):
        each = experiment.panel_names(points)[1]
        sent, added, spread = (
            experiment.curve(points, each, one) for one in (forms.BROADCAST, forms.REDUCE, forms.SCATTER)
        )
        assert {point.cycles - point.machine.flight for point in sent} == {3}
        assert [point.cycles - point.machine.hops for point in added] == [1] * len(added)
        assert all(point.cycles - point.machine.flight == 3 * point.pes for point in spread)

    def test_findings_are_of_the_figures(self, points):
        text = experiment.findings(points)
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
    assert experiment.apart(heights, 0.5) == pytest.approx(expected)


def test_the_committed_table_is_what_comes_out(points, tmp_path):
    experiment.write_table(points, tmp_path / "table.csv")
    committed = experiment.RESULTS / f"{experiment.NAME}.csv"
    assert (tmp_path / "table.csv").read_text(encoding="utf-8") == committed.read_text(encoding="utf-8")
    with committed.open(encoding="utf-8", newline="") as stream:
        assert tuple(next(csv.reader(stream))) == experiment.COLUMNS


def test_the_picture(tmp_path):
    titles = [panel.title for panel in experiment.panels(64, 8)]
    experiment.draw(experiment.collect(up_to=4, vector_bytes=64, part_bytes=8), titles, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


def run(*arguments):
    command = [sys.executable, "-m", "experiments.collectives_against_n", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_command(tmp_path):
    done = run("--up-to", "8", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "All 54 simulated points equal their closed form to the cycle." in done.stdout
    assert "messages of 32 B, 8 PEs" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "collectives_against_n.csv",
        "collectives_against_n.png",
    ]


def test_help_teaches():
    done = run("--help")
    for word in ("--up-to", "--part-bytes", "--no-files", "For instance", "closed form"):
        assert word in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--array", "mesh-256"), "mesh-256 is a mesh; the closed forms are those of a bus_tree"),
        (("--bytes", "1000"), "--bytes 1000 cannot be cut into 4096 equal parts"),
        (("--up-to", "2"), "--up-to is at least 4"),
        (("--part-bytes", "0"), "--bytes and --part-bytes are at least 1"),
    ],
)
def test_bad_input(arguments, message):
    done = run(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
