"""Interconnects: the front is a front, costs are those of the arrays, and the committed table is what comes out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pe_sim as ps
from experiments import interconnect_pareto as experiment
from experiments.interconnect_pareto import COSTS, DESIGN, array_settings, on_front
from pe_sim.network.metrics import wire_bits_mm
from tests.experiments.studies import assert_pictures, assert_same_rows, assert_schema, committed

KEYS = ["phase", *DESIGN]
FRONTS = [f"front.{cost}" for cost in COSTS]


@pytest.fixture(scope="module")
def table():
    return committed(experiment.STUDY)


def test_files(quick):
    _, done, folder = quick
    assert_pictures(folder, ["pareto"])
    assert "designs are on the front" in done.stdout
    expected = {"cycles": "int64", "pes": "int64", "area_mm2": "double", "phase": "string"}
    assert_schema(experiment.STUDY, folder, expected | dict.fromkeys(FRONTS, "bool"))


def test_the_committed_table_is_what_comes_out(quick, table):
    assert_same_rows(quick[0], table, KEYS, leave_out=FRONTS)  # a front of fewer designs has others on it


def test_every_design_is_there(table):
    several = experiment.PES, experiment.WIDTHS, experiment.ARITIES
    assert len(table) == 2 * np.prod([len(each) for each in several])
    assert not table.duplicated(KEYS).any()
    assert table["error"].isna().all()


def dominated(cost, seconds, one):
    """Whether another design is at most as dear and at most as slow, and better in one of the two."""
    no_worse = (cost <= cost[one]) & (seconds <= seconds[one])
    return bool((no_worse & ((cost < cost[one]) | (seconds < seconds[one]))).any())


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=30))
def test_fronts_by_brute_force(designs):
    cost, seconds = np.array(designs, dtype=float).T
    front = on_front(cost, seconds)
    best = [not dominated(cost, seconds, one) for one in range(len(designs))]
    assert all(best[one] for one in np.flatnonzero(front))
    kept = {designs[one] for one in np.flatnonzero(front)}
    assert kept == {designs[one] for one in range(len(designs)) if best[one]}
    assert len(kept) == front.sum(), "of equal designs one"


def test_the_fronts_of_the_table(table):
    for cost in COSTS:
        for _, rows in table.groupby("phase"):
            found = rows[f"front.{cost}"].to_numpy()
            front = [not dominated(rows[cost].to_numpy(), rows["seconds"].to_numpy(), one) for one in range(len(rows))]
            assert found.any()
            assert not (found & ~np.array(front)).any()
            ordered = rows[found].sort_values(cost)["seconds"]
            assert ordered.is_monotonic_decreasing
            assert rows.loc[rows["seconds"].idxmin(), "seconds"] == ordered.iloc[-1]


def test_wider_channels_are_never_slower(table):
    for _, rows in table.sort_values("bytes_per_cycle").groupby(["phase", "pes", "arity"]):
        assert rows["seconds"].is_monotonic_decreasing
        assert rows["wire_bit_mm"].is_monotonic_increasing


def test_all_designs_have_the_same_memory_and_fit_their_pitch():
    for pes in experiment.PES:
        settings = array_settings(pes, 512, 2)
        array = ps.load_array(experiment.ARRAY, overrides=settings)
        assert array.pe.memory.capacity_bytes * pes == experiment.MEMORY_GIB * 2**30
        area = experiment.area_of(array)
        assert area.fits_pitch
        assert array.floorplan.pe_pitch_mm - area.pe_mm2**0.5 < experiment.PITCH_STEP_MM + 1e-9


def test_a_row_is_what_simulate_gives(table):
    row = table[(table["phase"] == "prefill") & (table["pes"] == 256) & (table["arity"] == 4)].iloc[2]
    design = [int(row[name]) for name in DESIGN]
    array = ps.load_array(experiment.ARRAY, overrides=array_settings(*design))
    step = ps.Prefill(batch_size=1, prompt_len=512)
    reports = {name: ps.simulate(experiment.MODEL, array, step, name) for name in experiment.WORKFLOWS}
    best = min(reports, key=lambda name: reports[name].latency_cycles)
    assert (row["workflow"], row["cycles"]) == (best, reports[best].latency_cycles)
    assert row["area_mm2"] == pytest.approx(reports[best].area.total_mm2, rel=1e-12)
    assert row["wire_bit_mm"] == pytest.approx(wire_bits_mm(array), rel=1e-12)
    assert row["joules_per_token"] == pytest.approx(reports[best].energy["per_token_joules"], rel=1e-12)
