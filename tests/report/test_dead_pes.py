"""What reports say of dead PEs: what they cost, whose utilization is meant, and how far to trust it."""

import json

import pytest

import pe_sim as ps
from pe_sim.report.plots.roofline import ceilings_of
from tests.helpers import render_report, small_array, tiny_llama

STEP = ps.Decode(context_len=[40, 7])


def reported(dead, workflow="megatron", engine="fast"):
    return ps.simulate(tiny_llama(), small_array(8, {"dead_pes": dead}), STEP, workflow, engine)


@pytest.mark.parametrize("engine", ["fast", "event"])
def test_the_cost_is_that_beside_the_same_step_with_all_pes_alive(engine):
    damaged, whole = reported([2, 5], engine=engine), reported([], engine=engine)
    assert damaged.latency_cycles > whole.latency_cycles
    assert damaged.to_dict()["degradation"] == {
        "dead_pes": [2, 5],
        "cycles_all_alive": whole.latency_cycles,
        "slowdown": damaged.latency_cycles / whole.latency_cycles,
    }
    assert json.loads(damaged.to_json())["array"]["dead_pes"] == [2, 5]


def test_without_dead_pes_nothing_is_said():
    report = reported([])
    assert report.degradation is None
    assert "degradation" not in report.to_dict()
    assert "dead" not in render_report(report)


def test_the_line_in_the_table_and_on_the_page():
    damaged, whole = reported([2, 5]), reported([]).latency_cycles
    more = damaged.latency_cycles / whole - 1
    text = " ".join(render_report(damaged).split())
    assert f"dead PEs 2 of 8 PEs: 2, 5; {whole:,} cycles with all alive: {more:+.1%}" in text
    assert "2 dead PEs (compared: none)" in text
    assert "2 of 8 PEs: 2, 5" in damaged._repr_html_()


@pytest.mark.slow
def test_a_searched_mapping_is_compared_with_itself():
    model, array = tiny_llama(num_hidden_layers=1), small_array(4, {"dead_pes": [1]})
    found = ps.search(model, array, STEP, max_simulations=2)
    report = ps.simulate(model, array, STEP, found.workflow)
    whole = ps.simulate(model, small_array(4), STEP, found.workflow)
    assert report.degradation["cycles_all_alive"] == whole.latency_cycles


def test_utilization_is_that_of_the_living():
    report = reported([2, 5])
    for name, busy in report.trace.pe_busy.items():
        assert report.utilization[name] == pytest.approx(busy.sum() / 6 / report.latency_cycles, rel=1e-12)


def test_the_roofs_are_those_of_the_living():
    whole, damaged = (ceilings_of(small_array(8, {"dead_pes": dead})) for dead in ([], [2, 5]))
    assert damaged.flops_per_second == whole.flops_per_second * 6 / 8
    assert damaged.memory_bytes_per_second == whole.memory_bytes_per_second * 6 / 8
    assert damaged.shared_bytes_per_second == whole.shared_bytes_per_second


def test_dead_silicon_is_there_and_leaks():
    whole, damaged = (
        ps.simulate(
            tiny_llama(), small_array(8, {"dead_pes": dead, "energy.static_watts": 2.0}), STEP, "megatron"
        )
        for dead in ([], [2, 5])
    )  # fmt: skip
    assert damaged.area.to_dict() == whole.area.to_dict()
    assert damaged.energy["by_component"]["static"] == pytest.approx(2.0 * damaged.latency_seconds)


def test_every_export_can_be_made(tmp_path):
    for array in (small_array(8, {"dead_pes": [0, 5]}), ps.load_array("mesh-256", {"num_pes": 9, "dead_pes": [4]})):
        report = ps.simulate(tiny_llama(), array, STEP, "workflow-1")
        report.save_html(tmp_path / "a.html")
        report.save_trace(tmp_path / "a.json", pes="all")
        report.save_channel_heat(tmp_path / "a.png")
        assert sum(link.cycles for link in report.critical_path()) == report.latency_cycles


def test_a_generation():
    array = small_array(8, {"dead_pes": [2]})
    done = ps.generate(tiny_llama(), array, 5, 4, 2, "workflow-2")
    steps = [ps.Decode(2, 5 + later) for later in range(3)]
    alone = [ps.simulate(tiny_llama(), array, step, "workflow-2").latency_cycles for step in steps]
    assert list(done.decode_cycles) == alone
