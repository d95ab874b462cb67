"""Arrays with dead PEs: one semantics in both engines, alone and in generations, and nothing on a dead PE."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pe_sim.config.arrays.load import array_to_dict, load_array
from pe_sim.config.step import Decode, Prefill
from pe_sim.engine.event.run import run_event
from pe_sim.engine.fast.run import run_fast
from pe_sim.mapping.attention_split import block_sizes
from pe_sim.mapping.groups import PeGroups, groups_alive
from pe_sim.mapping.mapper import place
from pe_sim.mapping.workflow import WORKFLOWS
from pe_sim.schedule.lowering import lower
from pe_sim.schedule.stages import MessageStage, PeStage, TreeStage
from pe_sim.trace import NOT_ACTIVE
from tests.engine.draws import KINDS, knobs, models, steps
from tests.engine.test_decode_steps import compare_steps
from tests.engine.test_engines_agree import compare
from tests.helpers import blocks_of, given_in_both, small_array, tiny_llama
from tests.network.networks import array_of, sizes_of

NUM_STEPS = 5


@st.composite
def dead_sets(draw, num_pes, model):
    """Some PEs, but never all of those that a pipeline uses; and a number of groups that each have a living one."""
    stages = min(num_pes, model.num_layers)
    used = num_pes // stages * stages
    dead = tuple(sorted(draw(st.sets(st.integers(0, num_pes - 1), min_size=1, max_size=min(num_pes - 1, 6)))))
    assume(not set(range(used)).issubset(dead))
    return dead, draw(st.sampled_from(groups_alive(num_pes, dead)[:4]))


def in_groups(name, groups):
    """A named workflow on so many groups, if it takes any."""
    chosen = WORKFLOWS[name]
    return chosen if chosen.pipelined else replace(chosen, groups=groups)


@given_in_both(10, 40, models, steps, knobs, st.sampled_from(sorted(WORKFLOWS)), st.integers(2, 32), st.data())
def test_random_steps(model, step, overrides, workflow, num_pes, data):
    dead, groups = data.draw(dead_sets(num_pes, model))
    array = small_array(num_pes, {**overrides, "dead_pes": list(dead)})
    compare(model, array, step, in_groups(workflow, groups))


@given_in_both(8, 40, models, steps, knobs, st.integers(2, 32), st.booleans(), st.data())
def test_blocks_of_any_size(model, step, overrides, num_pes, some_dead, data):
    """Heads shared by any number of neighbours: several heads a block, blocks that the array's end cuts off."""
    dead, groups = data.draw(dead_sets(num_pes, model)) if some_dead else ((), 1)
    array = small_array(num_pes, {**overrides, "dead_pes": list(dead)})
    division = PeGroups.of_array(num_pes, groups, array.network.arity, groups, dead)
    workflow = replace(WORKFLOWS[data.draw(st.sampled_from(["megatron", "workflow-2"]))], groups=groups)
    with blocks_of(data.draw(st.sampled_from(block_sizes(division)))):
        compare(model, array, step, workflow)
        if isinstance(step, Decode):
            compare_steps(model, array, step.context_len, workflow, NUM_STEPS)


@given_in_both(
    8, 40, models, steps, st.sampled_from(KINDS), st.integers(0, 3), st.sampled_from(sorted(WORKFLOWS)), st.data()
)
def test_random_steps_on_graphs_of_channels(model, step, kind, overlap, workflow, data):
    num_pes = data.draw(st.sampled_from([size for size in sizes_of(kind) if 2 <= size <= 32]))
    dead, groups = data.draw(dead_sets(num_pes, model))
    changes = {"overlap": overlap, "dead_pes": list(dead)}
    array = load_array(array_to_dict(array_of(kind, num_pes)), overrides=changes)
    compare(model, array, step, in_groups(workflow, groups))


@settings(max_examples=40)
@given(
    models,
    st.lists(st.integers(0, 90), min_size=1, max_size=5),
    knobs,
    st.sampled_from(sorted(WORKFLOWS)),
    st.integers(2, 32),
    st.data(),
)
def test_random_generations(model, lengths, overrides, workflow, num_pes, data):
    dead, groups = data.draw(dead_sets(num_pes, model))
    array = small_array(num_pes, {**overrides, "dead_pes": list(dead)})
    compare_steps(model, array, lengths, in_groups(workflow, groups), NUM_STEPS)


@pytest.mark.parametrize("run", [run_event, run_fast])
@pytest.mark.parametrize("step", [Decode(context_len=[9, 30]), Prefill(prompt_len=[7, 2])])
@pytest.mark.parametrize("workflow", sorted(WORKFLOWS))
def test_a_dead_pe_works_nothing_and_sends_nothing(workflow, step, run):
    dead = (0, 5, 6)
    schedule = lower(place(tiny_llama(), small_array(16, {"dead_pes": list(dead)}), step, WORKFLOWS[workflow]))
    trace = run(schedule)
    for busy in trace.pe_busy.values():
        assert not busy[list(dead)].any()
    assert trace.pe_busy["pe_matrix"].any()
    for block in schedule.blocks:
        for stage in block.stages:
            if isinstance(stage, PeStage | TreeStage):
                assert not stage.active[list(dead)].any()
            if isinstance(stage, MessageStage) and stage.from_pe:
                assert not np.isin(stage.source, dead).any()
    for span in trace.spans:
        if isinstance(stage_of(schedule, span), PeStage):
            assert (span.pe_start[list(dead)] == NOT_ACTIVE).all()


def stage_of(schedule, span):
    """The stage that a span is of, by its place in program order."""
    stages = [stage for run in schedule.sequence for stage in schedule.blocks[run.block].stages]
    return stages[span.order]


def test_an_array_whose_other_pes_are_all_dead_is_one_pe_at_another_place():
    """No reduction, no slice that is smaller: what one PE alone does, but for the longer way up."""
    one = small_array(1)
    last = small_array(8, {"dead_pes": [0, 1, 2, 3, 4, 6, 7]})
    step = Decode(context_len=20)
    for workflow in ("workflow-1", "megatron", "all-row"):
        traces = [run_fast(lower(place(tiny_llama(), array, step, WORKFLOWS[workflow]))) for array in (one, last)]
        assert traces[0].traffic == traces[1].traffic
        assert traces[0].pe_busy["pe_matrix"][0] == traces[1].pe_busy["pe_matrix"][5]
