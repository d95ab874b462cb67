"""A system of one array does what the array does alone: the same cycles, traffic and memories."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pe_sim.api import simulate
from pe_sim.config.plans.plan import ParallelPlan
from pe_sim.config.step import Decode, Prefill
from pe_sim.config.systems.load import system_of_one
from pe_sim.engine.engines import engine_named
from pe_sim.mapping.footprint import footprint
from pe_sim.mapping.mapper import place
from pe_sim.mapping.workflow import WORKFLOWS
from pe_sim.schedule.lowering import lower
from pe_sim.systems.simulation import run_system
from tests.helpers import diagonal
from tests.systems.cases import MODELS, arrays_like, equal_arrays

STEPS = {
    "decode": Decode(4, context_len=[3, 5, 0, 9]),
    "prefill": Prefill(3, prompt_len=[3, 4, 1], logits="all"),
    "chunk": Prefill(2, prompt_len=[3, 4], context_len=[2, 6], causal="full"),
}


def uses(traffic):
    """{tag: (messages, bytes, busy cycles)}."""
    return {tag: (use.messages, use.bytes, use.busy_cycles) for tag, use in traffic.items()}


@pytest.mark.parametrize(("phase", "workflow"), diagonal(list(STEPS), list(WORKFLOWS)))
def test_cycles_traffic_and_memories_are_those_of_the_array_alone(workflow, phase):
    model, step = MODELS["llama"], STEPS[phase]
    for overlap in range(4):
        array = replace(arrays_like(4), overlap=overlap)
        ran = run_system(model, system_of_one(array), step, ParallelPlan(), WORKFLOWS[workflow], "fast")
        placed = place(model, array, step, WORKFLOWS[workflow])
        alone = engine_named("fast")(lower(placed))
        assert ran.times.makespan_cycles == simulate(model, array, step, workflow).latency_cycles
        assert len(ran.timed.program.tasks) == len(ran.timed.works) == 1
        assert ran.timed.program.operations == ()
        assert uses(ran.timed.works[0].trace.traffic) == uses(alone.traffic)
        held, (memory,) = footprint(placed, placed.graph.shape), ran.memory
        np.testing.assert_array_equal(memory.weight_bytes_per_pe, held.weight_bytes_per_pe)
        np.testing.assert_array_equal(memory.kv_cache_bytes_per_pe, held.kv_cache_bytes_per_pe)
        assert memory.root_bytes == held.root_bytes
        assert memory.peak_bytes_per_pe == held.peak_bytes_per_pe


@pytest.mark.parametrize("model", ["gpt2", "bert", "bias", "uneven"])
def test_every_family(model):
    step, array = Prefill(2, prompt_len=[5, 2]), arrays_like(6, dead_pes=(2,))
    for workflow in WORKFLOWS.values():
        ran = run_system(MODELS[model], system_of_one(array), step, ParallelPlan(), workflow, "event")
        assert ran.times.makespan_cycles == simulate(MODELS[model], array, step, workflow, "event").latency_cycles


@pytest.mark.parametrize("workflow", WORKFLOWS)
def test_copies_take_as_long_as_the_slowest_of_them(workflow):
    """Shares of the batch have nothing to do with each other."""
    model, contexts = MODELS["llama"], [3, 5, 0, 9, 2]
    ran = run_system(
        model, equal_arrays(2), Decode(context_len=contexts), ParallelPlan(dp=2), WORKFLOWS[workflow], "fast"
    )
    shares = [Decode(context_len=contexts[:3]), Decode(context_len=contexts[3:])]
    alone = [simulate(model, arrays_like(4), step, workflow).latency_cycles for step in shares]
    assert sorted(ran.times.end.tolist()) == sorted(alone)


def test_the_plan_sets_the_overlap_and_the_distribution_of_matrices():
    model, array, step = MODELS["llama"], arrays_like(4), STEPS["decode"]
    plan = ParallelPlan(overlap=3, matrices=(("o", "row"), ("down", "col")))
    (layer,) = WORKFLOWS["megatron"].pattern
    workflow = replace(WORKFLOWS["megatron"], pattern=(replace(layer, o="row", down="col"),))
    ran = run_system(model, system_of_one(array), step, plan, WORKFLOWS["megatron"], "fast")
    expected = simulate(model, replace(array, overlap=3), step, workflow).latency_cycles
    assert ran.times.makespan_cycles == expected
    assert expected != simulate(model, array, step, "megatron").latency_cycles
