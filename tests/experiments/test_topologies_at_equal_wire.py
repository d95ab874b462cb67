"""Topologies at equal wire: the same wire, the same work, the committed figures; and what the tables say of them."""

from dataclasses import replace

import pytest

import pe_sim as ps
from experiments import equal_wire_tables as tables
from experiments import topologies_at_equal_wire as experiment
from experiments.equal_wire_arrays import DESIGNS, base_array, base_mapping, wired
from experiments.equal_wire_plot import figures
from experiments.equal_wire_steps import EVENTS, FAST, LEFT_OUT, simulate, waiting_share
from experiments.study import RESULTS
from pe_sim.network.metrics import wire_bits_mm
from pe_sim.report.step import parts
from tests.experiments.studies import assert_pictures, assert_same_rows, assert_schema, committed, run

STEP = ps.Decode(context_len=2048)
KEYS = ["pes", "workflow", "topology"]


@pytest.fixture(scope="module")
def model():
    return ps.load_model("llama-2-7b")


@pytest.fixture(scope="module")
def table(quick):
    return quick[0]


class TestFiles:
    def test_quick(self, quick):
        table, done, folder = quick
        assert_pictures(folder, ["cycles"])
        assert "64 PEs, equal wire: 202,752 bit mm" in done.stdout
        assert "64 PEs, mesh" in done.stderr
        expected = {"cycles": "int64", "multicasts": "int64", "budget_wire_bit_mm": "double", "simulated": "string"}
        assert_schema(experiment.STUDY, folder, expected)
        assert tuple(table) == tuple(tables.COLUMNS)

    def test_committed_figures_are_what_comes_out(self, table):
        assert_same_rows(table, committed(experiment.STUDY), KEYS)
        assert_pictures(RESULTS / experiment.NAME, ["cycles"])

    def test_committed_figures_are_complete(self):
        known = committed(experiment.STUDY)
        asked = {(pes, flow) for pes in experiment.PES for flow in experiment.WORKFLOWS}
        names = {design.name for design in DESIGNS.values()}
        assert set(known[KEYS].itertuples(index=False, name=None)) == {
            (*pair, name) for pair in asked for name in names
        }
        assert len(known) == len(asked) * len(names)

    def test_a_part_of_ones_own_at_equal_width(self, tmp_path):
        given = ("--pes", 32, "--topologies", "bus-tree,mesh", "--workflows", "workflow-2", "--model", "llama-3.2-1b")
        done = run(experiment.NAME, *given, "--equal-width", "--context", 100, "--out", tmp_path)
        assert done.returncode == 0, done.stderr
        assert "32 PEs, widths as in the presets" in done.stdout
        assert "llama-3.2-1b, one decode step at a context of 100 tokens" in done.stdout
        again = run(experiment.NAME, "--plot-only", "--out", tmp_path)
        assert again.returncode == 0, again.stderr
        assert "32 PEs, widths as in the presets" in again.stdout


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

    def test_the_table_of_wire(self, table):
        text = tables.format_wire(table)
        assert "64 PEs, equal wire: 202,752 bit mm" in text
        (mesh,) = [line.split() for line in text.splitlines() if line.startswith("  mesh ")]
        each = experiment.wiring(DESIGNS["mesh"], 64, equal_wire=True)
        assert mesh[-3:] == [each.width, f"{each.reached_bits_mm:,.0f}", f"{each.reached_bits_mm / 202752:.1%}"]


class TestSteps:
    def test_all_by_the_fast_engine(self, table):
        assert set(table["simulated"]) == {FAST}

    def test_the_plain_array_is_what_pe_sim_run_gives(self, table):
        own = table[table["topology"] == "bus-tree"].set_index("workflow")["cycles"]
        assert set(own.index) == set(experiment.WORKFLOWS)
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
        rows = [
            tables.row_of("llama-2-7b", 2048, each) for each in (left, replace(left, cycles=1000, simulated=EVENTS))
        ]
        table = tables.table_of(rows)
        assert table["cycles"].isna().tolist() == [True, False]
        text = tables.format_points(table)
        assert LEFT_OUT in text
        assert "* simulated event by event" in text
        assert len(figures(table)["cycles"].axes) == 1
        assert len(figures(table.head(1))["cycles"].axes) == 1
        assert tables.findings(table.head(1)) == "Findings"

    def test_the_step_needs_no_more_of_less_wire(self, model):
        budget = wire_bits_mm(base_array(64))
        cycles = [
            simulate(model, STEP, wired(DESIGNS["mesh"], 64, share * budget), "megatron").cycles
            for share in (0.1, 1.0, 10.0)
        ]
        assert cycles == sorted(cycles, reverse=True)
        assert len(set(cycles)) == 3


class TestTables:
    def test_best_first(self, table):
        for workflow in tables.workflows_of(table):
            cycles = tables.ranked(table, 64, workflow)["cycles"]
            assert cycles.is_monotonic_increasing
            assert len(cycles) == len(DESIGNS)

    def test_findings_name_what_is_fastest(self, table):
        text = tables.findings(table)
        best = table.loc[table["cycles"].idxmin()]
        assert f"of all, {best['topology']} under {best['workflow']} with {best['cycles']:,} cycles" in text
        assert "without multicasts to groups of PEs 1.000 under workflow-2" in text
        assert "a downlink in the tree, paid for with narrower channels" in text
        assert "each under its best workflow: fat-tree (8 to 256 B/cycle)" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--topologies", "mash"), "did you mean 'mesh'?"),
        (("--pes", "64,x"), "'x' is not a whole number from 1 on"),
        (("--pes", "64,64"), "has a number twice"),
        (("--pes", "60", "--topologies", "hypercube"), "expected: a power of 2"),
        (("--model", "nope"), "error: "),
        (("--workflows", "workflow-3"), "did you mean 'workflow-"),
        (("--workflows", "megatron,"), "is not a list of different names"),
        (("--pes", "16", "--topologies", "bus-tree"), "error: "),
        (("--context", "0"), "'0' is not a whole number from 1 on"),
    ],
)
def test_bad_input(arguments, message, tmp_path):
    done = run(experiment.NAME, *arguments, "--out", tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())
