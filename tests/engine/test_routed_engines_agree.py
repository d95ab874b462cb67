"""One semantics on every interconnect: recurrences over hops give what the event engine gives."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pe_sim.config.arrays import array_to_dict, load_array
from pe_sim.config.step import Decode
from pe_sim.mapping.workflow import WORKFLOWS
from tests.engine.test_engines_agree import compare, models, steps
from tests.helpers import tiny_llama
from tests.network.networks import SECTIONS, array_of, sizes_of

KINDS = sorted(set(SECTIONS) - {"bus_tree"})
links = st.fixed_dictionaries(
    {
        "bytes_per_cycle": st.sampled_from([1, 4, 64]),
        "latency_cycles": st.integers(1, 7),
        "overhead_cycles": st.integers(0, 3),
        "request_cycles": st.integers(0, 4),
        "ramp_cycles": st.integers(0, 3),
    }
)
sections = st.fixed_dictionaries(
    {
        "combine_cycles": st.integers(0, 4),
        "forward_cycles": st.integers(0, 3),
        "softmax_combine_cycles": st.integers(0, 9),
    }
)
pes = st.fixed_dictionaries(
    {
        "overlap": st.integers(0, 3),
        "pe.memory.bytes_per_cycle": st.sampled_from([1, 8, 64]),
        "pe.memory.latency_cycles": st.sampled_from([0, 20, 300]),
        "pe.buffer.prefetch_bytes": st.sampled_from([0, 100, 65536]),
        "network.collectives.gather": st.sampled_from(["serial", "by_reduction", "best"]),
        "network.collectives.scatter": st.sampled_from(["serial", "by_reduction", "best"]),
    }
)


@settings(max_examples=120)
@given(models, steps, st.sampled_from(KINDS), links, sections, pes, st.sampled_from(sorted(WORKFLOWS)), st.data())
def test_random_steps(model, step, kind, link, section, knobs, workflow, data):
    num_pes = data.draw(st.sampled_from(sizes_of(kind)))
    section = dict(section)
    if kind != "hierarchical_bus":
        section["link"] = link
    array = load_array(array_to_dict(array_of(kind, num_pes, **section)), overrides=knobs)
    chosen = WORKFLOWS[workflow]
    if not chosen.pipelined:
        divisors = [count for count in range(1, num_pes + 1) if num_pes % count == 0]
        chosen = replace(chosen, groups=data.draw(st.sampled_from(divisors[:4])))
    compare(model, array, step, chosen)


@pytest.mark.parametrize("arbitration", ["round_robin", "priority"])
@pytest.mark.parametrize("kind", ["bus_tree", "mesh", "crossbar"])
def test_other_arbitrations_go_event_by_event(kind, arbitration):
    array = array_of(kind, 16, arbitration=arbitration)
    assert compare(tiny_llama(), array, Decode(context_len=[3, 9]), WORKFLOWS["all-row"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("workflow", ["workflow-1", "workflow-2", "megatron"])
def test_whole_steps_need_no_fallback(kind, workflow):
    assert not compare(tiny_llama(), array_of(kind, 16), Decode(context_len=[3, 70]), WORKFLOWS[workflow])


@pytest.mark.parametrize("kind", ["ring", "mesh", "h_tree"])
def test_partial_sums_that_leave_a_layer_with_idle_pes(kind):
    """More PEs than hidden features: some have nothing of the stream that the next block reduces, and never arrive."""
    sizes = {"hidden_size": 2, "num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 2}
    model = tiny_llama(**sizes, intermediate_size=1, num_hidden_layers=2)
    pattern = tuple(replace(plan, gate="row", up="row", down="col") for plan in WORKFLOWS["workflow-1"].pattern)
    workflow = replace(WORKFLOWS["workflow-1"], name="partial stream", pattern=pattern)
    compare(model, array_of(kind, 6), Decode(1, 0), workflow)
