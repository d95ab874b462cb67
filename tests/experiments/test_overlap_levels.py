"""Overlap levels: what each gains, the one array where a level loses, and the committed table is what comes out."""

import numpy as np
import pytest

import pe_sim as ps
from experiments import overlap_levels as experiment
from experiments.overlap_levels_plot import LEVELS_STUDY, lost, saved
from tests.experiments.studies import assert_pictures, assert_same_rows, assert_schema, committed

KEYS = [*experiment.ACROSS, "overlap"]


@pytest.fixture(scope="module")
def table():
    return committed(experiment.STUDY)


@pytest.fixture(scope="module")
def levels(table):
    return table[table["study"] == LEVELS_STUDY]


def test_files(quick):
    _, done, folder = quick
    assert_pictures(folder, ["levels", "prefetch"])
    assert "level 2 is slower than level 1 in 0 of these" in done.stdout
    expected = {"cycles": "int64", "overlap": "int64", "speedup_over_0": "double", "speedup_over_below": "double"}
    assert_schema(experiment.STUDY, folder, expected)


def test_the_committed_table_is_what_comes_out(quick, table):
    assert_same_rows(quick[0], table, KEYS)


def test_every_point_is_there(table):
    steps = len(experiment.MODELS) * len(experiment.WORKFLOWS) * len(experiment.STEPS) * len(experiment.PES)
    buffers = len(experiment.LATENCIES) * len(experiment.PREFETCH_BYTES)
    assert len(table) == (steps + buffers) * len(experiment.LEVELS)
    assert not table.duplicated(KEYS).any()
    assert table["error"].isna().all()


def test_no_level_is_slower_than_none(table):
    assert (table["speedup_over_0"] >= 1).all()
    assert (table.loc[table["overlap"] == 0, "speedup_over_0"] == 1).all()


def test_on_the_presets_no_level_is_slower_than_the_one_below(levels):
    above = levels[levels["overlap"] > 0]
    assert (above["speedup_over_below"] >= 1).all()
    assert levels.loc[levels["overlap"] == 0, "speedup_over_below"].isna().all()


def test_speedups_are_those_of_the_cycles(table):
    cycles = table["cycles"].to_numpy().reshape(-1, len(experiment.LEVELS)).astype(float)
    assert np.array_equal(table["speedup_over_0"], (cycles[:, :1] / cycles).ravel())
    product = table["speedup_over_below"].fillna(1.0).to_numpy().reshape(cycles.shape).prod(axis=1)
    assert np.allclose(product, cycles[:, 0] / cycles[:, -1], rtol=1e-12)


def test_what_is_saved_adds_up(levels):
    rows = levels[(levels["model"] == "llama-2-7b") & (levels["workflow"] == "megatron")]
    rows = rows[rows["step"] == "prefill of 512"]
    cycles = rows.pivot(index="pes", columns="overlap", values="cycles")
    assert np.allclose(saved(rows).sum(axis=1), (1 - cycles[3] / cycles[0]) * 100)


def test_level_2_loses_where_there_is_nothing_to_hide(table):
    """Golden: 64 cycles, 2 for each of the 32 layers, with 64 bytes of buffer and no first-access latency."""
    more = lost(table).set_index(["memory_latency_cycles", "prefetch_bytes"])["cycles"]
    assert more[0, 64] == 64
    assert (more.drop(index=(0, 64)) < 0).all()
    overrides = {
        path: value for path, value in experiment.PREFETCH_POINT.items() if path.startswith(("pe.", "dtypes."))
    }
    overrides |= {"pe.memory.latency_cycles": 0, "pe.buffer.prefetch_bytes": 64, "pe.memory.capacity_bytes": 2**30}
    cycles = []
    for level in (1, 2):
        array = ps.load_array(experiment.ARRAY, overrides={**overrides, "overlap": level})
        report = ps.simulate("llama-2-7b", array, ps.Decode(8, 100), "workflow-2", engine="event")
        cycles.append(report.latency_cycles)
    assert cycles[1] - cycles[0] == 64
