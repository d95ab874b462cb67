"""Published figures of other simulators: reproduced where the machine is the same, explained where it is not."""

import pytest

import pe_sim as ps
from experiments import aim_banks, other_simulators, published_figures, published_rooflines
from experiments.study import RESULTS
from tests.experiments.studies import (
    assert_pictures,
    assert_same_rows,
    assert_schema,
    committed,
    run,
)

experiment = published_figures  # what `quick` runs


@pytest.fixture(scope="module")
def table(quick):
    return quick[0]


@pytest.fixture(scope="module")
def aim():
    return ps.load_array("aim-gddr6-16")


class TestAim:
    @pytest.mark.parametrize(("columns", "cycles"), [(1, 59), (2, 61), (64, 185)])
    def test_one_row(self, aim, columns, cycles):
        assert aim_banks.mac_cycles(aim, columns) == cycles

    def test_two_rows(self, aim):
        assert aim_banks.mac_cycles(aim, 64, rows=2) == 411

    def test_whole_gemv(self, aim):
        assert aim_banks.gemv_cycles(aim, 1024, 1024) == 18432

    def test_its_parts(self, aim):
        assert aim_banks.row_cycles(aim, 64) == 226
        assert ps.collective("broadcast", aim, 2048).cycles == 64 * 2
        assert ps.collective("scatter", aim, 2).cycles + ps.collective("gather", aim, 2).cycles == 60

    @pytest.mark.parametrize("columns", range(1, 65))
    def test_rows_of_any_length(self, aim, columns):
        assert aim_banks.row_cycles(aim, columns) == 56 + 2 * (columns - 1) + 12 + 32

    @pytest.mark.parametrize("inputs", [1, 16, 17, 100, 1023, 1024, 1025, 2048, 4096, 5000])
    @pytest.mark.parametrize("outputs", [1, 16, 17, 1024, 11008])
    def test_other_gemvs(self, aim, inputs, outputs):
        assert aim_banks.gemv_cycles(aim, inputs, outputs) == aim_banks.predicted_gemv(inputs, outputs)

    def test_it_scales_with_the_constants(self):
        slow = ps.load_array("aim-gddr6-16", {"pe.memory.column_cycles": 4, "network.bus.bytes_per_cycle": 8})
        assert aim_banks.mac_cycles(slow, 64) == 56 + 64 * 4 + 1
        assert aim_banks.row_cycles(slow, 64) == 56 + 63 * 4 + 12 + 32
        assert ps.collective("broadcast", slow, 2048).cycles == 256


class TestTheirForms:
    def test_stonne(self):
        assert [other_simulators.stonne_dot(2**level) for level in range(2, 11)] == list(range(6, 15))
        assert [other_simulators.stonne_dot(256, rate) for rate in (256, 8, 1)] == [12, 75, 523]
        assert other_simulators.stonne_gemv(4096, 4096) == 527_360

    def test_scale_sim(self):
        assert other_simulators.scale_sim_output_stationary(1, 4096, 4096) == 532_223
        assert other_simulators.scale_sim_weight_stationary(1, 4096, 4096) == 1_556_479


class TestOurs:
    @pytest.mark.parametrize("level", range(2, 11))
    def test_dot_products_with_all_operands_at_once(self, level):
        assert other_simulators.our_dot(2**level) == level + 4

    @pytest.mark.parametrize("rate", [1, 2, 4, 8, 16, 32, 64, 128])
    def test_dot_products_delivered_bit_by_bit(self, rate):
        assert other_simulators.our_dot(256, rate) == other_simulators.stonne_dot(256, rate) == 512 // rate + 11

    def test_gemvs_are_bound_by_the_delivery_of_the_weights(self):
        stream = 4096 * 4096
        assert other_simulators.our_gemv(4096, 4096, 16, 64, 1) == 64 + stream // 64 + 1 + 6 + 64
        assert other_simulators.our_gemv(4096, 4096, 16, 64, 0) == 64 + stream // 64 + stream // 256 + 6 + 64
        assert other_simulators.our_gemv(4096, 4096, 32, 32, 1) == 128 + stream // 32 + 1 + 7 + 128

    def test_llm_viewer_in_the_digits_it_prints(self, table):
        published = table[(table["source"] == published_rooflines.LLM_VIEWER) & ~table["predicted"]]
        rows = published.itertuples()
        digits = [(f"{row.ours:.1e}" if row.unit != "operations/s" else f"{row.ours:.2e}") for row in rows]
        assert digits == ["3.4e+07", "3.4e+07", "7.68e+11", "6.9e+10", "6.7e+07", "1.55e+14"]

    @pytest.mark.parametrize(("phase", "rows"), [("decode", 1), ("prefill", 2048)])
    def test_llm_viewer_counts_two_tensors_of_an_add_and_of_a_norm(self, table, phase, rows):
        found = table[table["case"].str.startswith(f"{phase}, ") & table["predicted"]]
        of_adds = found[found["case"].str.contains(" add ")]
        assert of_adds["ours"].to_list() == 2 * [rows * 4096, 2 * rows * 4096 * 2]
        assert of_adds["published"].to_list() == of_adds["ours"].to_list()
        of_norm = found[found["case"].str.contains(" norm ")]
        assert of_norm["ours"].to_list() == of_norm["published"].to_list() == [7 * rows * 4096, 2 * rows * 4096 * 2]
        step = ps.Decode(context_len=2048) if rows == 1 else ps.Prefill(prompt_len=2048)
        add = published_rooflines.operators(step)["attention_add"]
        assert add.bytes == 3 * rows * 4096 * 2  # our own convention stays what it is

    @pytest.mark.parametrize("devices", [2, 4, 8, 16, 32, 72])
    @pytest.mark.parametrize("flits", [1, 2, 100])
    def test_cent_in_whole_flits(self, devices, flits):
        array, part = published_rooflines.star(devices), flits * published_rooflines.PAYLOAD_BYTES
        cycle_ns = 1 / array.clock_ghz
        broadcast = ps.collective("broadcast", array, part).cycles * cycle_ns
        assert broadcast == pytest.approx(published_rooflines.cent_ns(devices, flits), abs=cycle_ns)
        gather = ps.collective("gather", array, part).cycles * cycle_ns
        assert gather == pytest.approx(published_rooflines.cent_ns(devices, flits * (devices - 1)), abs=cycle_ns)


def test_equal_means_equal(table):
    for row in table.itertuples():
        if row.reason.startswith("equal:"):
            assert row.ours == row.published, row
        else:
            assert row.reason
    assert (table["ours_over_published"] == table["ours"] / table["published"]).all()
    assert table["ours_over_published"].between(0.3, 1.1).all()


def test_predictions_are_marked(table):
    assert (table["predicted"] == table["formula"].str.startswith("predicted")).all()
    assert 0 < table["predicted"].sum() < len(table)


def test_the_committed_table_is_what_comes_out(table):
    known = committed(published_figures.STUDY)
    assert_same_rows(table, known, ["source", "case", "unit"])
    assert len(table) == len(known)
    assert tuple(known) == published_figures.COLUMNS
    assert_pictures(RESULTS / published_figures.NAME, ["ratios"])


def test_files(quick):
    _, done, folder = quick
    assert_pictures(folder, ["ratios"])
    expected = {"published": "double", "ours": "double", "predicted": "bool", "reason": "string"}
    assert_schema(published_figures.STUDY, folder, expected)
    assert "LLM-Viewer, CENT" in done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["GEMV", "1024", "->", "1024", "18432", "18432", "1.000"] in lines
    assert "* predicted" in done.stdout


def test_help_of_the_banks_teaches():
    done = run("aim_banks", "--help")
    assert done.returncode == 0
    for word in ("--inputs", "--outputs", "For instance"):
        assert word in done.stdout


def test_an_array_without_banks_is_refused():
    done = run("aim_banks", "--array", "bus-tree-64")
    assert done.returncode == 2
    assert "bus-tree-64 has no memory of kind dram_bank" in done.stderr
