"""What a reader of the contract found: one port is one port, and a streamed matrix is there before it is used."""

import pytest

from pe_sim.api import ENGINES, simulate
from pe_sim.config.step import Decode, Prefill
from pe_sim.report.analysis.channels import channel_table
from tests.helpers import bus_uses, ceil, schedule_of, small_array, tiny_llama

overlaps = pytest.mark.parametrize("overlap", [0, 1, 2, 3])
engines = pytest.mark.parametrize("run", ENGINES.values(), ids=ENGINES)


@engines
@overlaps
def test_no_gemm_begins_before_its_streamed_weights_are_complete(run, overlap):
    trace = run(schedule_of(tiny_llama(), small_array(4, overlap=overlap), Decode(4, 5), "batch-stream"))
    arrivals = {(span.layer, span.operator): span.end for span in trace.spans if span.name.startswith("weight-stream")}
    gemms = [span for span in trace.spans if span.resource == "pe_matrix" and (span.layer, span.name) in arrivals]
    assert len(gemms) == len(arrivals) == 2 * 7 + 1
    for span in gemms:
        assert span.start >= arrivals[span.layer, span.name]
        assert span.end - span.start >= 20  # the first access pays the port's latency: nothing was prefetched


@engines
@pytest.mark.parametrize("burst", [None, 10**9, 64 * 96 * 2, 1000, 100])
@pytest.mark.parametrize("rate", [3, 16, 64, 512])
def test_a_root_slower_than_the_bus_holds_it_at_its_own_rate(run, rate, burst):
    """Whole messages and bursts greater than, equal to and smaller than a matrix, each rounded up on its own."""
    array, model = small_array(4, {"root.memory.bytes_per_cycle": rate}, burst=burst), tiny_llama()
    schedule = schedule_of(model, array, Decode(4, 5), "batch-stream")
    trace = run(schedule)
    layer = 4 * [64 * 64 * 2] + 3 * [64 * 96 * 2]
    matrices = [*(2 * layer), 50 * 64 * 2]
    cut = [min(burst or size, size - at) for size in matrices for at in range(0, size, burst or size)]
    uses = [(end - start, size) for start, end, stage, size in bus_uses(trace) if is_streamed(trace, stage)]
    assert sorted(uses) == sorted((2 + ceil(size, min(rate, 64)), size) for size in cut)
    held = sum(cycles for cycles, _ in uses)
    assert trace.traffic["weight-stream"].busy_cycles == held <= trace.makespan_cycles
    table = channel_table(schedule, trace.makespan_cycles)
    assert table.row(0)["by_tag"]["weight-stream"] == {"messages": 15, "bytes": sum(matrices), "busy_cycles": held}


def is_streamed(trace, stage):
    return trace.spans[stage].name.startswith("weight-stream")


@engines
@overlaps
def test_nothing_is_prefetched_while_a_lookup_holds_the_port(run, overlap):
    slow = {"pe.memory.bytes_per_cycle": 1, "pe.memory.latency_cycles": 0}
    array = small_array(1, {**slow, "overlap": overlap})
    trace = run(schedule_of(tiny_llama(), array, Decode(1, 0), "batch-block"))
    assert trace.makespan_cycles >= int(trace.pe_busy["pe_memory"].max())


@pytest.mark.parametrize("workflow", ["all-col", "block-pipeline", "workflow-1"])
@pytest.mark.parametrize("num_pes", [6, 7, 33])
def test_reports_of_both_engines_have_the_same_operators(workflow, num_pes):
    config = {
        "model_type": "bert",
        "hidden_size": 16,
        "intermediate_size": 20,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "vocab_size": 30,
        "max_position_embeddings": 16,
        "type_vocab_size": 2,
    }
    array = small_array(num_pes, overlap=2)
    found = [simulate(config, array, Prefill(1, prompt_len=5), workflow, engine).to_dict() for engine in ENGINES]
    for report in found:
        del report["engine"]
    assert found[0] == found[1]
