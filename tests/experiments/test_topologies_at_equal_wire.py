"""Topologies at equal wire: the same wire, the same work, the committed figures; and what the tables say of them."""

import csv
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import pe_sim as ps
from experiments import equal_wire_tables as tables
from experiments import topologies_at_equal_wire as experiment
from experiments.equal_wire_arrays import DESIGNS, base_array, base_mapping, wired
from experiments.equal_wire_plot import draw
from experiments.equal_wire_steps import EVENTS, FAST, LEFT_OUT, simulate, waiting_share
from pe_sim.network.wire import wire_bits_mm
from pe_sim.report.breakdown import parts

ROOT = Path(__file__).resolve().parents[2]
STEP = ps.Decode(context_len=2048)
# Enough to be quick, of every family, with a fat tree that loses most to rounding.
SOME = ("bus-tree", "bus-tree-downlink", "h-tree", "fat-tree", "ring", "mesh", "hypercube", "butterfly")


@pytest.fixture(scope="module")
def model():
    return ps.load_model("llama-2-7b")


@pytest.fixture(scope="module")
def points(model):
    arrays = experiment.wirings([64], [DESIGNS[name] for name in SOME], equal_wire=True)
    return list(experiment.points(model, STEP, arrays, experiment.WORKFLOWS.split(",")))


@pytest.fixture(scope="module")
def committed():
    with (experiment.RESULTS / f"{experiment.NAME}.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.reader(stream))


class TestWire:
    @pytest.mark.parametrize("pes", [64, 256, 16])
    @pytest.mark.parametrize("name", DESIGNS)
    def test_all_have_the_same_wire_but_for_whole_bytes(self, name, pes):
        budget = wire_bits_mm(base_array(pes))
        each = wired(DESIGNS[name], pes, budget)
        assert each.reached_bits_mm == wire_bits_mm(each.array) <= budget * (1 + 1e-9)
        lost = budget - each.reached_bits_mm
        assert lost < each.unscaled_bits_mm / 64  # a byte more everywhere would be too much

    def test_the_bus_and_tree_stay_as_they_are(self):
        budget = wire_bits_mm(base_array(256))
        each = wired(DESIGNS["bus-tree"], 256, budget)
        assert (each.width, each.factor) == ("64", 1.0)
        assert replace(each.array, name="bus-tree-256") == ps.load_array("bus-tree-256")

    @pytest.mark.parametrize("name", DESIGNS)
    def test_only_the_interconnect_differs(self, name):
        base, each = base_array(256), wired(DESIGNS[name], 256, None).array
        assert replace(each, name=base.name, network=base.network) == base

    def test_machines_of_other_sizes(self):
        assert base_array(64) == ps.load_array("bus-tree-64")
        assert base_array(16) == ps.load_array("bus-tree-256", overrides={"num_pes": 16, "name": "bus-tree-16"})
        assert base_mapping(1024)["name"] == "bus-tree-1024"

    def test_the_table_of_wire(self):
        arrays = experiment.wirings([64], [DESIGNS["mesh"]], equal_wire=True)
        assert "64 PEs, equal wire: 202,752 bit mm" in tables.format_wire(arrays)
        alone = experiment.wirings([64], [DESIGNS["mesh"]], equal_wire=False)
        assert "64 PEs, widths as in the presets" in tables.format_wire(alone)


class TestSteps:
    def test_all_by_the_fast_engine(self, points):
        assert {point.simulated for point in points} == {FAST}

    def test_the_plain_array_is_what_pe_sim_run_gives(self, points):
        own = {point.workflow: point.cycles for point in points if point.topology == "bus-tree"}
        for workflow, cycles in own.items():
            assert cycles == ps.simulate("llama-2-7b", "bus-tree-64", STEP, workflow).latency_cycles

    @pytest.mark.parametrize("name", ["bus-tree", "mesh", "h-tree"])
    def test_waiting_is_the_critical_path_in_the_network(self, model, name):
        array = wired(DESIGNS[name], 64, wire_bits_mm(base_array(64))).array
        report = ps.simulate(model, array, STEP, "megatron")
        sent = sum(part.cycles for part in parts(report) if part.communication)
        assert waiting_share(report) == pytest.approx(sent / report.latency_cycles, abs=0.003)

    def test_what_overtakes_is_said_or_left_out(self, model):
        each = wired(DESIGNS["ring"], 64, None)
        fair = replace(each.array, network=replace(each.array.network, arbitration="round_robin"))
        left = simulate(model, STEP, replace(each, array=fair), "workflow-2", event_by_event=False)
        assert (left.simulated, left.cycles) == (LEFT_OUT, 0)
        assert tables.cells(left)[-1] == LEFT_OUT
        assert len(tables.cells(left)) == len(tables.COLUMNS)
        said = replace(left, cycles=1000, simulated=EVENTS)
        text = tables.format_points([left, said], "title")
        assert LEFT_OUT in text
        assert "* simulated event by event" in text

    def test_the_step_needs_no_more_of_less_wire(self, model):
        budget = wire_bits_mm(base_array(64))
        cycles = [
            simulate(model, STEP, wired(DESIGNS["mesh"], 64, share * budget), "megatron").cycles
            for share in (0.1, 1.0, 10.0)
        ]
        assert cycles == sorted(cycles, reverse=True)
        assert len(set(cycles)) == 3


class TestTables:
    def test_committed_figures_are_what_comes_out(self, points, committed):
        header, *rows = committed
        assert tuple(header) == tables.COLUMNS
        assert [row for row in map(tables.cells, points) if row not in rows] == []

    def test_committed_figures_are_complete(self, committed):
        _, *rows = committed
        asked = {(pes, flow) for pes in experiment.PES.split(",") for flow in experiment.WORKFLOWS.split(",")}
        names = {design.name for design in DESIGNS.values()}
        assert {tuple(row[:3]) for row in rows} == {(*pair, name) for pair in asked for name in names}

    def test_best_first(self, points):
        for workflow in tables.workflows_of(points):
            cycles = [point.cycles for point in tables.ranked(points, 64, workflow)]
            assert cycles == sorted(cycles)

    def test_findings_name_what_is_fastest(self, points):
        text = tables.findings(points)
        best = min(points, key=lambda point: point.cycles)
        assert f"of all, {best.topology} under {best.workflow} with {best.cycles:,} cycles" in text
        assert "without multicasts to groups of PEs 1.000 under workflow-2" in text
        assert "a downlink in the tree, paid for with narrower channels" in text

    def test_files(self, points, tmp_path):
        tables.write_table(points, tmp_path / "table.csv")
        draw(points[:9], "title", tmp_path / "picture.png")
        assert (tmp_path / "table.csv").read_text(encoding="utf-8").count("\n") == len(points) + 1
        assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


def run(*arguments):
    command = [sys.executable, "-m", "experiments.topologies_at_equal_wire", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_command(tmp_path):
    small = ("--pes", "64", "--topologies", "bus-tree,mesh", "--workflows", "workflow-2")
    done = run(*small, "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "equal wire: 202,752 bit mm" in done.stdout
    assert "64 PEs, mesh, workflow-2: " in done.stderr
    done = run(*small, "--equal-width", "--out", str(tmp_path))
    assert "widths as in the presets" in done.stdout
    stems = [f"{name}.{kind}" for name in (experiment.NAME_OF_WIDTHS, experiment.NAME) for kind in ("csv", "png")]
    assert sorted(path.name for path in tmp_path.iterdir()) == stems


def test_help_teaches():
    done = run("--help")
    for word in ("Equal wire is the default", "--equal-width", "--event-limit", "For instance", "bus-tree-downlink"):
        assert word in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--topologies", "mash"), 2, "no topology mash; there are bus-tree,"),
        (("--pes", "64,x"), 2, "--pes 64,x: numbers above 1"),
        (("--pes", "60", "--topologies", "hypercube"), 2, "expected: a power of 2"),
        (("--model", "nope"), 2, "error: "),
        (("--pes", "16", "--topologies", "bus-tree"), 2, "error: "),
    ],
)
def test_bad_input(arguments, code, message):
    done = run(*arguments, "--no-files")
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr
