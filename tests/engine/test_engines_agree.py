"""One semantics: the fast engine gives what the event engine gives, to the cycle and the byte."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pe_sim.config.arrays import load_array
from pe_sim.config.models import load_model
from pe_sim.config.step import Decode, Prefill
from pe_sim.engine.event import run_event
from pe_sim.engine.fast import run_fast
from pe_sim.mapping.mapper import place
from pe_sim.mapping.workflow import WORKFLOWS
from pe_sim.schedule.lowering import lower
from tests.helpers import small_array, tiny_llama

SPAN_FIELDS = ("order", "layer", "name", "operator", "distribution", "resource", "start", "end", "inputs")


def assert_same(event, fast):
    """Cycles, every stage's start and end on every PE, traffic, busy cycles, channel uses."""
    assert fast.makespan_cycles == event.makespan_cycles
    for expected, given_span in zip(event.spans, fast.spans, strict=True):
        for name in SPAN_FIELDS:
            assert getattr(given_span, name) == getattr(expected, name), (expected.name, expected.layer, name)
        assert (given_span.pe_start is None) == (expected.pe_start is None)
        if expected.pe_start is not None:
            np.testing.assert_array_equal(given_span.pe_start, expected.pe_start)
            np.testing.assert_array_equal(given_span.pe_end, expected.pe_end)
    assert fast.traffic == event.traffic
    assert list(fast.traffic) == list(event.traffic)
    for tag, use in event.traffic.items():
        assert fast.traffic[tag].busy_cycles == use.busy_cycles
    assert fast.root_busy == event.root_busy
    assert fast.read_bytes == event.read_bytes
    for resource, busy in event.pe_busy.items():
        np.testing.assert_array_equal(fast.pe_busy[resource], busy)
    for column in ("channel", "tag", "stage", "start", "end", "num_bytes"):
        np.testing.assert_array_equal(getattr(fast.channel_use, column), getattr(event.channel_use, column))


def compare(model, array, step, workflow):
    """Runs both; returns whether the fast engine had to go event by event."""
    schedule = lower(place(model, array, step, workflow))
    fast = run_fast(schedule)
    assert fast.engine == "fast"
    if fast.notes:
        assert "event by event" in fast.notes[0]
    assert_same(run_event(schedule), fast)
    return bool(fast.notes)


models = st.builds(
    lambda kv_heads, share, head_dim, ffn, layers: tiny_llama(
        hidden_size=kv_heads * share * head_dim,
        num_attention_heads=kv_heads * share,
        num_key_value_heads=kv_heads,
        head_dim=head_dim,
        intermediate_size=ffn,
        num_hidden_layers=layers,
    ),
    st.integers(1, 4),
    st.integers(1, 3),
    st.sampled_from([2, 6, 16]),
    st.integers(1, 130),
    st.integers(1, 5),
)
steps = st.one_of(
    st.lists(st.integers(0, 90), min_size=1, max_size=5).map(lambda lens: Decode(context_len=lens)),
    st.tuples(
        st.lists(st.integers(1, 12), min_size=1, max_size=3),
        st.integers(0, 9),
        st.sampled_from(["last", "all"]),
        st.sampled_from(["skip", "full"]),
    ).map(lambda t: Prefill(prompt_len=t[0], context_len=t[1], logits=t[2], causal=t[3])),
)
knobs = st.fixed_dictionaries(
    {
        "overlap": st.integers(0, 3),
        "network.tree.arity": st.sampled_from([2, 3, 4]),
        "network.tree.downlink": st.booleans(),
        "network.tree.combine_cycles": st.integers(0, 5),
        "network.tree.bytes_per_cycle": st.sampled_from([4, 64]),
        "network.bus.bytes_per_cycle": st.sampled_from([1, 16, 256]),
        "network.bus.request_cycles": st.integers(0, 6),
        "network.collectives.gather": st.sampled_from(["serial", "by_reduction", "best"]),
        "network.collectives.scatter": st.sampled_from(["serial", "by_reduction", "best"]),
        "pe.memory": st.deferred(lambda: memories),
        "pe.buffer.prefetch_bytes": st.sampled_from([0, 100, 65536]),
        "pe.buffer.capacity_bytes": st.sampled_from([600, 262144]),
    }
)

memories = st.one_of(
    st.fixed_dictionaries(
        {
            "technology": st.just("flat"),
            "capacity_bytes": st.just(2**27),
            "bytes_per_cycle": st.sampled_from([1, 8, 64]),
            "latency_cycles": st.sampled_from([0, 20, 300]),
        }
    ),
    st.fixed_dictionaries(
        {
            "kind": st.just("dram_bank"),
            "technology": st.just("bank"),
            "capacity_bytes": st.just(2**27),
            "row_bytes": st.sampled_from([32, 96, 2048]),
            "column_bytes": st.sampled_from([8, 32]),
            "column_cycles": st.integers(1, 4),
            "activate_cycles": st.sampled_from([1, 20, 56]),
            "precharge_cycles": st.sampled_from([0, 1, 32]),
            "read_to_precharge_cycles": st.sampled_from([0, 2, 12]),
        }
    ),
)


@settings(max_examples=150)
@given(models, steps, knobs, st.sampled_from(sorted(WORKFLOWS)), st.integers(1, 64), st.data())
def test_random_steps(model, step, overrides, workflow, num_pes, data):
    divisors = [count for count in range(1, num_pes + 1) if num_pes % count == 0]
    groups = data.draw(st.sampled_from(divisors[:4]))
    chosen = WORKFLOWS[workflow]
    if not chosen.pipelined:
        chosen = replace(chosen, groups=groups)
    compare(model, small_array(num_pes, overrides), step, chosen)


@pytest.mark.parametrize("burst", [64, 100])
def test_bursts_go_event_by_event(burst):
    assert compare(
        tiny_llama(), small_array(8, burst=burst, gather="serial"), Decode(context_len=9), WORKFLOWS["all-row"]
    )


@pytest.mark.parametrize("overlap", [0, 1, 2, 3])
@pytest.mark.parametrize("workflow", ["workflow-1", "workflow-2", "alternating", "megatron", "all-row", "all-col"])
def test_one_group_needs_no_fallback(workflow, overlap):
    array = small_array(16, overlap=overlap)
    assert not compare(tiny_llama(num_hidden_layers=6), array, Decode(context_len=[3, 70]), WORKFLOWS[workflow])


@pytest.mark.parametrize("family", ["gpt2", "bert-base-uncased"])
@pytest.mark.parametrize("workflow", sorted(WORKFLOWS))
def test_other_families(family, workflow):
    model = load_model(family, {"num_layers": 3})
    step = Prefill(3, prompt_len=7)
    compare(model, small_array(12, overlap=2), step, WORKFLOWS[workflow])


LARGE = [
    ("llama-2-7b", "bus-tree-256", Decode(context_len=2048), "workflow-1", {}),
    ("llama-2-7b", "bus-tree-1024", Decode(context_len=2048), "workflow-1", {"overlap": 3}),
    ("llama-2-7b", "bus-tree-1024", Decode(context_len=2047), "workflow-2", {"overlap": 2}),
    ("llama-3-8b", "bus-tree-256", Prefill(prompt_len=100), "alternating", {"overlap": 2}),
    ("gpt2-xl", "bus-tree-64", Decode(context_len=[900, 3, 511]), "megatron", {"num_pes": 97}),
    ("llama-2-13b", "bus-tree-1024", Decode(4, 700), "all-row", {}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("model", "array", "step", "workflow", "overrides"), LARGE)
def test_large_steps(model, array, step, workflow, overrides):
    assert not compare(load_model(model), load_array(array, overrides), step, WORKFLOWS[workflow])
