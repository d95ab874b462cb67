"""Scaling: rows are what a simulation gives, none beats the peak of the PEs, the committed table is what comes out."""

import pytest

import pe_sim as ps
from experiments import scaling as experiment
from experiments.cases import CAUSES, SHARDED
from experiments.scaling_table import WEAK_STUDIES, efficiency, share_of_peak
from tests.experiments.studies import assert_pictures, assert_same_rows, assert_schema, committed

PATHS = [f"path.{cause}" for cause in CAUSES]


@pytest.fixture(scope="module")
def table():
    return committed(experiment.STUDY)


def test_files(quick):
    _, done, folder = quick
    assert_pictures(folder, ["strong_decode", "strong_prefill", "weak", "memory"])
    assert "points under all workflows" in done.stderr
    whole = ("pes", "sequences", "context", "new_tokens", "cycles", "ideal_cycles", "memory.peak_bytes_per_pe", *PATHS)
    texts = ("study", "model", "weights", "phase", "workflow", "bound", "error")
    fractions = ("seconds", "tokens_per_second", "joules_per_token", "area_mm2")
    kinds = {"int64": whole, "string": texts, "double": fractions, "bool": ("fits_preset",)}
    assert_schema(experiment.STUDY, folder, {name: kind for kind, names in kinds.items() for name in names})


def test_the_committed_table_is_what_comes_out(quick, table):
    assert_same_rows(quick[0], table, experiment.BY)


def test_the_committed_table_is_complete(table):
    models, numbers = experiment.CAPACITY_MIB, experiment.PES
    per_model = 2 * len(numbers) + 3 * len(numbers) + 2 + len(experiment.WEIGHTS) * len(numbers)
    assert len(table) == len(models) * per_model
    assert not table.duplicated(list(experiment.BY)).any()


def test_the_critical_path_is_the_latency(table):
    done = table[table["error"].isna()]
    assert (done[PATHS].sum(axis=1) == done["cycles"]).all()
    largest = done[PATHS].astype(float).idxmax(axis=1).str.removeprefix("path.")
    assert (largest == done["bound"]).all()


def test_nothing_is_faster_than_the_pes_at_their_peak(table):
    done = table[table["error"].isna()]
    assert (done["cycles"] >= done["ideal_cycles"]).all()


def test_more_pes_never_give_more_than_their_number(table):
    for _, rows in table[table["study"] == "strong"].groupby(["model", "phase"]):
        assert (efficiency(rows) <= 1).all()
        assert rows["cycles"].is_monotonic_decreasing, "the fastest workflow of each: none is lost with more PEs"
        assert (efficiency(rows).iloc[-1] * share_of_peak(rows).iloc[0]) <= 1


def test_work_grows_with_the_pes(table):
    for select in WEAK_STUDIES.values():
        for (_, phase), rows in select(table).groupby(["model", "phase"]):
            if len(rows) > 1 and phase == "prefill":
                per_pe = rows["ideal_cycles"].astype(float)
                assert per_pe.max() / per_pe.min() < 1.001


def test_a_row_is_what_simulate_gives(table):
    row = table[(table["study"] == "strong") & (table["phase"] == "decode") & (table["pes"] == 256)].iloc[0]
    capacity = experiment.CAPACITY_MIB[row["model"]] * 2**20
    array = ps.load_array(experiment.ARRAY, overrides={"pe.memory.capacity_bytes": capacity})
    reports = {name: ps.simulate(row["model"], array, ps.Decode(1, 2048), name) for name in SHARDED}
    best = min(reports, key=lambda name: reports[name].latency_cycles)
    assert (row["workflow"], row["cycles"]) == (best, reports[best].latency_cycles)
    assert row["joules_per_token"] == pytest.approx(reports[best].energy["per_token_joules"], rel=1e-12)
    assert row["area_mm2"] == pytest.approx(reports[best].area.total_mm2, rel=1e-12)
    assert row["memory.peak_bytes_per_pe"] == reports[best].memory["peak_bytes_per_pe"]


def test_what_does_not_fit_says_so(table):
    rows = table[table["study"] == "memory"]
    misfits = rows[rows["error"].notna()]
    assert set(rows["memory.capacity_bytes_per_pe"]) == {experiment.PRESET_MIB * 2**20}
    assert len(misfits) > 0
    assert misfits["error"].str.contains("needs .* bytes, has 134,217,728 bytes").all()
    assert misfits["cycles"].isna().all()
    assert not misfits["fits_preset"].any()
    fitting = rows[rows["error"].isna()]
    assert fitting["fits_preset"].all()
    fits = rows.set_index(["model", "pes", "weights"])["error"].isna().unstack()
    assert (fits["bf16"] <= fits["int8"]).all(), "what fits in bf16 fits in int8"
    assert (fits["int8"] <= fits["int4"]).all()


def test_larger_memories_are_marked(table):
    rows = table[(table["study"] == "strong") & table["error"].isna()]
    assert (rows["fits_preset"] == (rows["memory.peak_bytes_per_pe"] <= 2**27)).all()
    assert (rows["memory.peak_bytes_per_pe"] <= rows["memory.capacity_bytes_per_pe"]).all()
    assert 0 < rows["fits_preset"].sum() < len(rows)
