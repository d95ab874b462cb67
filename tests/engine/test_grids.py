"""FFNs over grids of PEs: both engines agree, generations run together, and the borders are the 1-D workflows."""

from dataclasses import replace

import pytest
from hypothesis import strategies as st

from pe_sim.config.models.load import load_model
from pe_sim.config.step import Decode, Prefill
from pe_sim.engine.fast.run import run_decode_steps, run_fast
from pe_sim.mapping.groups import PeGroups, fitting_grids, grid_name
from pe_sim.mapping.mapper import place
from pe_sim.mapping.workflow import WORKFLOWS
from pe_sim.schedule.lowering import lower
from tests.engine.draws import knobs, models, steps
from tests.engine.test_engines_agree import compare
from tests.helpers import given_in_both, small_array, tiny_llama
from tests.network.networks import array_of

NAMES = ("llama-3.2-1b", "gpt2", "bert-base-uncased")
BASES = ("megatron", "workflow-1", "workflow-2")


def with_ffn(base, gate_up, down):
    workflow = WORKFLOWS[base]
    plans = tuple(replace(plan, gate=gate_up, up=gate_up, down=down) for plan in workflow.pattern)
    return replace(workflow, name=f"{gate_up}+{down}", pattern=plans)


def drawn(data, array, num_groups):
    fitting = fitting_grids(array, PeGroups.of_array(array.num_pes, num_groups, array.network.arity, 1))
    names = st.sampled_from(["row", "col", *map(grid_name, fitting), *map(grid_name, fitting[1:-1])])
    base = data.draw(st.sampled_from([*BASES, "all-row", "all-col", "batch-stream"]))
    return replace(with_ffn(base, data.draw(names), data.draw(names)), groups=num_groups)


@given_in_both(
    15, 100, models, steps, knobs, st.sampled_from([2, 4, 8, 9, 16, 27, 64]), st.sampled_from([1, 1, 2, 3]), st.data()
)
def test_random_steps(model, step, overrides, size, num_groups, data):
    array = small_array(size * num_groups, overrides)
    compare(model, array, step, drawn(data, array, num_groups))


@given_in_both(
    8,
    60,
    models,
    steps,
    st.sampled_from(["ring", "torus", "mesh", "h_tree", "hierarchical_bus", "crossbar"]),
    st.sampled_from([6, 8, 12, 16]),
    st.data(),
)
def test_random_steps_on_other_interconnects(model, step, kind, num_pes, data):
    array = array_of(kind, num_pes)
    compare(model, array, step, drawn(data, array, 1))


@given_in_both(
    15,
    60,
    models,
    st.lists(st.integers(0, 60), min_size=1, max_size=4),
    knobs,
    st.sampled_from([8, 9, 16, 64]),
    st.data(),
)
def test_generations(model, lengths, overrides, num_pes, data):
    array = small_array(num_pes, overrides)
    workflow = drawn(data, array, 1)
    each = [Decode(context_len=[length + later for length in lengths]) for later in range(4)]
    alone = [run_fast(lower(place(model, array, step, workflow))) for step in each]
    (together,) = run_decode_steps(place(model, array, each[0], workflow), 4)
    for index, trace in enumerate(alone):
        if together.exact[index]:
            assert together.makespan_cycles[index] == trace.makespan_cycles
    for tag, use in together.traffic.items():
        for count in ("messages", "bytes", "busy_cycles"):
            assert getattr(use, count) == sum(getattr(trace.traffic[tag], count) for trace in alone)


@pytest.mark.parametrize("overlap", [0, 1, 2, 3])
@pytest.mark.parametrize("ways", [2, 4, 8])
def test_one_group_needs_no_fallback(ways, overlap):
    workflow = with_ffn("megatron", grid_name(ways), grid_name(ways))
    assert not compare(tiny_llama(), small_array(16, overlap=overlap), Decode(context_len=[3, 70]), workflow)


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["bus_tree", "ring"])
def test_one_pe_in_a_row_is_megatron_and_one_row_is_the_other_way_round(kind, name, base):
    model = load_model(name, {"num_layers": 2})
    step = Prefill(2, prompt_len=3) if name.startswith("bert") else Decode(2, context_len=9)
    array = array_of(kind, 16)
    cycles = {
        names: run_fast(lower(place(model, array, step, with_ffn(base, *names)))).makespan_cycles
        for names in (("grid-1", "grid-1"), ("row", "col"), ("grid-16", "grid-16"), ("col", "row"))
    }
    assert cycles["grid-1", "grid-1"] == cycles["row", "col"]
    assert cycles["grid-16", "grid-16"] == cycles["col", "row"]
