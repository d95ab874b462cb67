"""Overlap 3 (machine model, section 5): the root forwards before the tail, a GEMM starts at a message's head."""

import pytest

from pe_sim.api import ENGINES
from pe_sim.config.step import Decode
from pe_sim.schedule.collectives import collective_schedule
from tests.helpers import schedule_of, small_array, tiny_llama

engines = pytest.mark.parametrize("run", ENGINES.values(), ids=ENGINES)


@engines
def test_worked_example_of_the_contract(run):
    array = small_array(256, overlap=3)
    trace = run(collective_schedule("all-reduce", array, 16384).schedule)
    reduce, broadcast = trace.spans
    assert reduce.end == 24 + 256
    assert broadcast.start == 24 + 128  # head + (beats of the tree - beats of the bus)
    assert trace.makespan_cycles == 286
    assert trace.traffic["broadcast"].busy_cycles == 2 + 128  # the bus never starves


@engines
@pytest.mark.parametrize(("bus", "tree"), [(64, 64), (16, 64), (64, 16), (8, 128)])
@pytest.mark.parametrize("num_bytes", [4, 1000, 4096])
def test_request_is_never_before_the_head(run, bus, tree, num_bytes):
    array = small_array(16, overlap=3, width=bus, tree_width=tree)
    trace = run(collective_schedule("all-reduce", array, num_bytes).schedule)
    tree_beats, bus_beats = -(-num_bytes // tree), -(-(num_bytes // 2) // bus)
    head = 4 * 3
    assert trace.spans[1].start == head + max(0, tree_beats - bus_beats)
    assert trace.makespan_cycles == head + max(0, tree_beats - bus_beats) + 2 + 4 + bus_beats


@engines
def test_gemm_starts_at_the_head_and_ends_after_the_tail(run):
    array = small_array(4, {"pe.matrix.outputs": 5, "pe.matrix.depth": 7}, overlap=3, width=1)
    trace = run(schedule_of(tiny_llama(num_hidden_layers=1), array, Decode(context_len=3), "workflow-1"))
    spans = {span.name: span for span in trace.spans if span.layer == 0}
    broadcast, down = spans["broadcast activated"], spans["down"]
    head = broadcast.start + 2 + 4
    assert int(down.pe_start.min()) == head
    rest = -(-16 // 5) + 8  # m ceil(n / R) + Lm: hidden 64 in four slices of 16
    assert int(down.pe_end.max()) == broadcast.end + rest


@engines
def test_norm_waits_for_the_tail(run):
    array = small_array(4, overlap=3, width=1)
    trace = run(schedule_of(tiny_llama(num_hidden_layers=1), array, Decode(context_len=3), "megatron"))
    spans = [span for span in trace.spans if span.layer == 0]
    position = next(i for i, span in enumerate(spans) if span.name == "broadcast middle")
    assert int(spans[position + 1].pe_start.min()) == spans[position].end


@engines
def test_root_operator_breaks_the_stream(run):
    array = small_array(4, overlap=3)
    trace = run(schedule_of(tiny_llama(num_hidden_layers=1), array, Decode(context_len=3), "workflow-1"))
    spans = {span.name: span for span in trace.spans if span.layer == 0}
    assert spans["silu_mul"].start == spans["reduce gate+up"].end
    assert spans["broadcast activated"].start == spans["silu_mul"].end
