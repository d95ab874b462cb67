"""Utilization, bounds and the table of operators."""

from itertools import pairwise

import pytest

from pe_sim.config.step import Decode, Prefill
from pe_sim.report.analysis.channels import joint_busy
from pe_sim.report.report import Report
from pe_sim.schedule.stages import Resource
from tests.helpers import blocks_of
from tests.report.samples import WORKFLOWS, simulate_tiny, tiny

SIZES = (1, 3, 8, 16)
BUS_TAGS = ("broadcast", "multicast", "scatter", "gather", "all-gather", "all-to-all", "unicast", "weight-stream")


@pytest.mark.parametrize("workflow", WORKFLOWS)
@pytest.mark.parametrize("num_pes", SIZES)
def test_nothing_is_busier_than_the_step_is_long(workflow: str, num_pes: int) -> None:
    report = tiny(workflow, num_pes)
    assert all(0.0 <= value <= 1.0 for value in report.utilization.values())
    bounds = [value for name, value in report.bounds.items() if name != "critical_path"]
    assert len(bounds) == 5
    assert all(0 <= bound <= report.latency_cycles for bound in bounds)


@pytest.mark.parametrize("workflow", WORKFLOWS)
@pytest.mark.parametrize("num_pes", SIZES)
def test_utilization_is_busy_over_elapsed(workflow: str, num_pes: int) -> None:
    report = tiny(workflow, num_pes)
    elapsed, busy = report.latency_cycles, report.trace.pe_busy
    on_bus = sum(report.traffic[tag].busy_cycles for tag in BUS_TAGS)
    assert report.utilization["bus"] * elapsed == pytest.approx(on_bus)
    assert report.bounds["bus_cycles"] == on_bus
    for unit in ("pe_matrix", "pe_vector", "pe_memory"):
        assert report.utilization[unit] * elapsed * num_pes == pytest.approx(int(busy[unit].sum()))
    assert report.bounds["network_cycles"] == max(on_bus, report.bounds["tree_cycles"])
    assert report.bounds["compute_cycles"] == max(busy["pe_matrix"].tolist())
    assert report.bounds["memory_cycles"] == max(busy["pe_memory"].tolist())
    assert report.utilization["root_memory"] * elapsed == pytest.approx(report.trace.root_busy["root_memory"])


def test_reductions_of_the_whole_array_keep_every_joint_busy() -> None:
    report = tiny("workflow-2", 8)
    busy = report.traffic["reduce"].busy_cycles
    assert busy > 0
    assert joint_busy(report.schedule, Resource.TREE).tolist() == [busy] * 8
    assert report.bounds["tree_cycles"] == busy


def test_reductions_in_disjoint_subtrees_do_not_add_up() -> None:
    report = tiny("workflow-1", 16)  # four heads on sixteen PEs: four groups reduce their scores side by side
    per_joint = joint_busy(report.schedule, Resource.TREE)
    grouped = [stage for block in report.schedule.blocks for stage in block.stages if stage.name == "reduce scores"]
    assert grouped
    assert report.bounds["tree_cycles"] == per_joint.max() < report.traffic["reduce"].busy_cycles


def test_the_downlink_shows_where_there_is_one() -> None:
    assert "downlink" not in tiny("workflow-1", 16).utilization
    report = simulate_tiny("workflow-1", 16, network__tree__downlink=True)
    assert 0.0 < report.utilization["downlink"] <= 1.0


@pytest.mark.parametrize("workflow", WORKFLOWS)
@pytest.mark.parametrize("num_pes", SIZES)
def test_operators_are_the_graphs_and_tile_the_step(workflow: str, num_pes: int) -> None:
    report = tiny(workflow, num_pes)
    rows = report.operators
    assert [(row.layer, row.name) for row in rows] == [(layer, op.name) for layer, op in report.graph.instances()]
    assert min(row.start for row in rows) == 0
    assert max(row.end for row in rows) == report.latency_cycles
    assert all(row.cycles == row.end - row.start >= 0 for row in rows)
    reached, gaps = 0, set()
    for row in sorted(rows, key=lambda row: row.start):
        gaps.add(max(0, row.start - reached))
        reached = max(reached, row.end)
    assert gaps <= {0, report.array.bus_tree.bus.request_cycles}  # nothing but requests on their way


@pytest.mark.parametrize("workflow", WORKFLOWS)
def test_all_stages_belong_to_an_operator_of_the_graph(workflow: str) -> None:
    report = tiny(workflow)
    known = {(layer, op.name) for layer, op in report.graph.instances()}
    assert {(span.layer, span.operator) for span in report.trace.spans} <= known


def test_operators_say_what_they_are_and_how_they_are_distributed() -> None:
    report = tiny("workflow-1", 8)
    rows = {(row.layer, row.name): row for row in report.operators}
    down = rows[1, "down"]
    assert (down.distribution, down.flops, down.bytes) == ("row", 2 * 64 * 160, 2 * (64 * 160 + 64 + 160))
    assert rows[0, "gate"].distribution == "col"
    assert rows[0, "scores"].distribution == "head"
    free = rows[None, "select"]
    assert (free.cycles, free.bound_by) == (0, "free")
    assert all(before.end <= after.start for before, after in pairwise([rows[1, "up"], rows[None, "lm_head"]]))


def bound_by(report: Report, name: str) -> str:
    return next(row.bound_by for row in report.operators if row.name == name)


def test_bound_by_follows_the_machine() -> None:
    assert bound_by(tiny("workflow-1", 1), "down") == "memory"
    fast_memory = {"pe__memory__bytes_per_cycle": 100_000, "pe__matrix__outputs": 1, "pe__matrix__depth": 1}
    assert bound_by(simulate_tiny("workflow-1", 1, **fast_memory), "down") == "compute"
    assert bound_by(tiny("workflow-1", 8), "rope") == "vector"
    assert bound_by(tiny("workflow-1", 8), "embedding") == "root"
    slow_bus = {"network__bus__bytes_per_cycle": 1}
    assert bound_by(simulate_tiny("workflow-1", 8, **slow_bus), "embedding") == "bus"
    assert bound_by(simulate_tiny("workflow-2", 8, network__tree__bytes_per_cycle=1), "rope") == "tree"


def test_a_stage_whose_pes_start_late_is_not_taken_for_a_slow_one() -> None:
    slow_bus = {"network__bus__bytes_per_cycle": 1}  # one multicast of the scores a head, one after another
    with blocks_of(4):
        report = simulate_tiny("workflow-1", 16, Decode(context_len=1000), **slow_bus)
    softmax = [span for span in report.trace.spans if span.name == "softmax"]
    assert softmax
    assert bound_by(report, "softmax") == "bus"


def test_tokens_per_second_counts_new_tokens_in_decode_and_prompt_tokens_in_prefill() -> None:
    decode = simulate_tiny("megatron", 4, Decode(batch_size=3, context_len=10))
    prefill = simulate_tiny("megatron", 4, Prefill(batch_size=2, prompt_len=[5, 9]))
    assert decode.tokens_per_second == pytest.approx(3 / decode.latency_seconds)
    assert prefill.tokens_per_second == pytest.approx(14 / prefill.latency_seconds)
    half_clock = simulate_tiny("megatron", 4, Decode(batch_size=3, context_len=10), clock_ghz=0.5)
    assert half_clock.latency_cycles == decode.latency_cycles
    assert half_clock.latency_seconds == pytest.approx(2 * decode.latency_seconds)
