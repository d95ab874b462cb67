"""The search on arrays with dead PEs: its bounds are bounds, and what it finds is the best there is."""

from dataclasses import replace

import pytest
from hypothesis import assume
from hypothesis import strategies as st

import pe_sim as ps
from pe_sim.errors import InputError
from pe_sim.graph.families import build_graph
from pe_sim.mapping.groups import PeGroups, groups_alive
from pe_sim.mapping.layouts import Layouts
from pe_sim.mapping.workflow import WORKFLOWS, Workflow
from pe_sim.mapping_search.fragments import Scene
from tests.helpers import given_in_both, small_array, tiny_llama
from tests.mapping_search import test_against_brute_force as brute_force
from tests.mapping_search import test_bounds as bounds


@st.composite
def damaged(draw, arrays):
    """An array with some dead PEs."""
    array = draw(arrays)
    dead = draw(st.sets(st.integers(0, array.num_pes - 1), min_size=1, max_size=max(1, array.num_pes // 2)))
    assume(len(dead) < array.num_pes)
    return replace(array, dead_pes=tuple(sorted(dead)))


@given_in_both(
    10, 60, data=st.data(), array=damaged(bounds.machines), step=bounds.steps, kv_heads=st.sampled_from([1, 4])
)
def test_no_mapping_is_faster_than_its_bound(data, array, step, kv_heads):
    model = tiny_llama(num_key_value_heads=kv_heads)
    groups = data.draw(st.sampled_from([n for n in groups_alive(array.num_pes, array.dead_pes) if n < array.num_pes]))
    graph = build_graph(model, step)
    sequences, dead = len(graph.shape.new_lens), array.dead_pes
    division = PeGroups.of_array(array.num_pes, groups, array.network.arity, sequences, dead)
    scene = Scene(array, graph, Layouts.on(array, division, graph.shape, graph.selected_per_sequence))
    plans = data.draw(st.lists(bounds.layer_plans(scene), min_size=2, max_size=2))
    assume((plans[0].stream == "batch") == (plans[-1].stream == "batch"))
    try:
        report = ps.simulate(model, array, step, Workflow("tried", "", tuple(plans), groups=groups, lm_head="row"))
    except (InputError, ValueError):
        assume(False)
    assert bounds.bound_of(scene, plans)[0] <= report.latency_cycles


@given_in_both(
    3,
    12,
    changes=brute_force.models,
    step=brute_force.steps,
    case=brute_force.plans(damaged(brute_force.machines_of(st.sampled_from([3, 4, 8]))), 30),
)
def test_it_finds_the_best_of_all(changes, step, case):
    array, fields = case
    brute_force.check(tiny_llama(num_hidden_layers=1, **changes), array, step, fields, 1)


@pytest.mark.slow
@pytest.mark.parametrize("dead", [[0], [3], [1, 2, 6]])
def test_never_worse_than_a_named_workflow(dead):
    model, array = tiny_llama(), small_array(8, {"dead_pes": dead})
    step = ps.Decode(context_len=[20, 5])
    found = ps.search(model, array, step, max_simulations=2)
    assert found.best.cycles <= min(ps.simulate(model, array, step, name).latency_cycles for name in WORKFLOWS)
    assert ps.simulate(model, array, step, found.workflow).latency_cycles == found.best.cycles


@pytest.mark.parametrize(
    ("num_pes", "dead"), [(4, [1]), pytest.param(8, [2, 3], marks=pytest.mark.slow)], ids=["one-pe", "two-pes"]
)
def test_groups_that_are_dead_as_a_whole_are_not_tried(num_pes, dead):
    array = small_array(num_pes, {"dead_pes": dead})
    step = ps.Decode(context_len=[9] * num_pes)
    found = ps.search(tiny_llama(num_hidden_layers=1), array, step, max_simulations=2)
    assert found.best.workflow.groups in (1, 2)
