"""The objective energy: parts add up to the whole to the last unit, and the search finds the least of all."""

import itertools
from fractions import Fraction

import pytest
from hypothesis import assume, given, settings

import pe_sim as ps
from pe_sim.config.arrays.load import array_to_dict
from pe_sim.errors import InputError
from pe_sim.graph.families import build_graph
from pe_sim.mapping.groups import PeGroups
from pe_sim.mapping.layouts import Layouts
from pe_sim.mapping.workflow import WORKFLOWS, LayerRule, Workflow
from pe_sim.mapping_search.candidates import whole_shares
from pe_sim.mapping_search.fragments import Scene
from pe_sim.mapping_search.shortest_paths import Paths
from pe_sim.mapping_search.space import parts_of, plan_of
from tests.helpers import given_in_both, small_array, tiny_llama
from tests.mapping_search.test_against_brute_force import fields_of, machines, models, plans, steps

COSTS = {
    "energy.wire_pj_per_bit_mm": 3.1,  # so that wires, buffers and memories pull in different directions
    "energy.buffer_write_pj_per_bit": 0.37,
    "energy.local_read_pj_per_bit": 0.0913,
    "energy.joint_softmax_pj": 77.7,
}


def searched(model, array, step, given_fields):
    rule = LayerRule(0, None, tuple(given_fields.items()), "given")
    workflow = Workflow("given", "", (), lm_head="row", searched=True, rules=(rule,))
    return ps.search(model, array, step, "energy", workflow=workflow, max_simulations=50_000)


def tried(model, array, step, is_open, given_fields, layers):
    """(energy, cycles) of every combination of the open fields in every layer."""
    fields = fields_of(array)
    choices = [
        plan_of(given_fields | dict(zip(is_open, values, strict=True)))
        for values in itertools.product(*(fields[name] for name in is_open))
    ]
    for pattern in itertools.product(choices, repeat=layers):
        try:
            report = ps.simulate(model, array, step, Workflow("tried", "", pattern))
        except (InputError, ValueError):
            continue
        yield report.energy_units, report.latency_cycles


@pytest.mark.slow
@settings(max_examples=20)
@given(changes=models, step=steps, case=plans(machines, 30))
def test_the_least_energy_of_one_layer(changes, step, case):
    check(tiny_llama(num_hidden_layers=1, **changes), case, step, 1)


@given_in_both(3, 8, changes=models, step=steps, case=plans(machines, 5))
def test_the_least_energy_of_two_layers(changes, step, case):
    check(tiny_llama(num_hidden_layers=2, **changes), case, step, 2)


def check(model, case, step, layers):
    array, (is_open, given_fields) = case
    array = ps.load_array(array_to_dict(array), overrides=COSTS)
    everything = list(tried(model, array, step, is_open, given_fields, layers))
    assume(everything)
    found = searched(model, array, step, given_fields)
    assert found.proof == "exact"
    assert (found.best.energy, found.best.cycles) == min(everything)


@pytest.mark.parametrize("kind", ["bus-tree", "mesh", "hier-bus", "h-tree"])
@pytest.mark.parametrize("name", ["workflow-2", "megatron"])
def test_the_parts_of_a_mapping_add_up_to_all_of_it(kind, name):
    model, step = tiny_llama(), ps.Decode(1, 40)
    clusters = {"network.cluster_pes": 4} if kind == "hier-bus" else {}
    array = ps.load_array(f"{kind}-256", {"num_pes": 8, **clusters, **COSTS})
    plan = plan_of(WORKFLOWS[name].plan(0).to_dict() | {"attention_norm": "replicate", "ffn_norm": "replicate"})
    graph = build_graph(model, step)
    groups = PeGroups.of_array(8, 1, array.network.arity, 1)
    layouts = Layouts.on(array, groups, graph.shape, graph.selected_per_sequence)
    parts = parts_of(graph, (), batched=False, lone=False)
    allowed = ({field: (value,) for field, value in plan.to_dict().items()},) * 2
    (found,) = Paths((Scene(array, graph, layouts),), (1.0,), parts, allowed, ("row",), by_energy=True).best()
    assert found.energy == ps.simulate(model, array, step, name).energy_units > 0


@pytest.mark.slow
def test_one_mapping_for_several_steps_weighs_their_energies():
    model, array = tiny_llama(), small_array(4)
    found = ps.search(model, array, [(ps.Decode(1, 20), 0.3), (ps.Prefill(1, prompt_len=5), 2)], "energy")
    shares = whole_shares((0.3, 2.0))
    assert Fraction(shares[0], shares[1]) == Fraction(0.3) / 2
    units = [report.energy_units for report in found.reports]
    assert found.best.energy == shares[0] * units[0] + shares[1] * units[1]
    assert found.best.energy == min(one.energy for one in found.candidates)
    assert found.proof == "exact"


def test_equal_weights_stay_small_numbers():
    assert whole_shares((1.0,)) == (1,)
    assert whole_shares((0.5, 2.0, 1.25)) == (2, 8, 5)
