"""One semantics on every interconnect: recurrences over hops give what the event engine gives."""

from dataclasses import replace

import pytest

from pe_sim.config.step import Decode
from pe_sim.engine.event.run import run_event
from pe_sim.engine.fast.run import run_fast
from pe_sim.mapping.placed import BlockRun
from pe_sim.mapping.workflow import WORKFLOWS
from pe_sim.schedule.stages import Block, Schedule
from tests.engine.draws import KINDS
from tests.engine.test_engines_agree import compare
from tests.helpers import tiny_llama
from tests.network.networks import POWERS, array_of
from tests.network.programs import one_brings_about_another


@pytest.mark.parametrize("arbitration", ["round_robin", "priority"])
@pytest.mark.parametrize("kind", ["bus_tree", "mesh", "ring", "crossbar"])
def test_other_arbitrations_go_event_by_event(kind, arbitration):
    array = array_of(kind, 16, arbitration=arbitration)
    assert compare(tiny_llama(), array, Decode(context_len=[3, 9]), WORKFLOWS["all-row"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("workflow", ["workflow-1", "workflow-2", "megatron"])
def test_whole_steps_need_no_fallback(kind, workflow):
    assert not compare(tiny_llama(), array_of(kind, 16), Decode(context_len=[3, 70]), WORKFLOWS[workflow])


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "hierarchical_bus"])
@pytest.mark.parametrize("workflow", ["all-row", "workflow-1"])
def test_channels_without_latency_need_no_fallback(kind, workflow):
    """A head asks for its next channel in the cycle in which it was granted the one before; sizes divide by nothing."""
    free = {"bytes_per_cycle": 64, "latency_cycles": 0, "overhead_cycles": 0}
    array = array_of(kind, 8 if kind in POWERS else 7, link=free)
    model = tiny_llama(hidden_size=15, num_attention_heads=4, num_key_value_heads=2, head_dim=4, intermediate_size=24)
    assert not compare(model, array, Decode(context_len=5), WORKFLOWS[workflow])


@pytest.mark.parametrize("run", [run_event, run_fast])
def test_what_was_granted_in_one_cycle_is_told_apart(run):
    array, stage, grants = one_brings_about_another()
    trace = run(Schedule(array, (Block((stage,), 1),), (BlockRun(0, None),)))
    assert trace.spans[0].part_start.tolist() == grants
    assert trace.channel_use.part.tolist() == [0, 2, 1]


@pytest.mark.parametrize("kind", ["ring", "mesh", "h_tree"])
def test_partial_sums_that_leave_a_layer_with_idle_pes(kind):
    """More PEs than hidden features: some have nothing of the stream that the next block reduces, and never arrive."""
    sizes = {"hidden_size": 2, "num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 2}
    model = tiny_llama(**sizes, intermediate_size=1, num_hidden_layers=2)
    pattern = tuple(replace(plan, gate="row", up="row", down="col") for plan in WORKFLOWS["workflow-1"].pattern)
    workflow = replace(WORKFLOWS["workflow-1"], name="partial stream", pattern=pattern)
    compare(model, array_of(kind, 6), Decode(1, 0), workflow)
