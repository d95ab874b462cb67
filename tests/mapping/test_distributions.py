"""Conformance: every registered distribution with every operator of every family that it says it applies to."""

import itertools
from dataclasses import replace
from typing import get_args

import pytest

from pe_sim.config.files.loading import preset_names
from pe_sim.config.models.load import load_model
from pe_sim.config.step import Decode, Prefill
from pe_sim.config.workflow_schema import Attention, Matrix, check_workflow_file
from pe_sim.errors import InputError
from pe_sim.graph.families import FAMILIES, build_graph
from pe_sim.graph.operators import AttentionOperator, Linear, Norm
from pe_sim.mapping.distributions import DISTRIBUTIONS, Grid, distribution_for
from pe_sim.mapping.groups import PeGroups
from pe_sim.mapping.layouts import Layouts
from pe_sim.mapping.mapper import place
from pe_sim.mapping.placement import Partial, Replicate, Root, Shard
from pe_sim.mapping.transforms import Transforms
from pe_sim.mapping.workflow import WORKFLOWS
from tests.helpers import small_array, tiny_llama

ATTENTIONS = get_args(Attention)
PLACEMENTS = (Replicate, Shard, Partial, Root)


def smallest_presets():
    """One preset of each family, whatever families there are."""
    found = {}
    for name in preset_names("models"):
        model = load_model(name)
        if model.family not in found or model.num_parameters < found[model.family].num_parameters:
            found[model.family] = model
    return found


def distributed_operators():
    """Every operator that a distribution can be asked for: (family and name, operator)."""
    found = {}
    for family, model in smallest_presets().items():
        graph = build_graph(model, Prefill(1, prompt_len=3))
        for _, operator in graph.instances():
            if isinstance(operator, Linear | AttentionOperator):
                found[f"{family}-{operator.name}"] = operator
    return found


OPERATORS = distributed_operators()
PAIRS = [
    pytest.param(distribution, operator, id=f"{distribution.name}-{name}")
    for distribution in (*DISTRIBUTIONS.values(), Grid(4))  # as registered a grid has one PE in a row
    for name, operator in OPERATORS.items()
    if distribution.applies_to(operator)
]
MATRIX_PAIRS = [pair for pair in PAIRS if isinstance(pair.values[1], Linear)]
MISFITS = [
    pytest.param(distribution.name, operator, id=f"{distribution.name}-{name}")
    for distribution in DISTRIBUTIONS.values()
    for name, operator in OPERATORS.items()
    if not distribution.applies_to(operator)
]


def test_operators_of_every_family_are_here():
    assert {name.partition("-")[0] for name in OPERATORS} == set(FAMILIES)


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_names_and_summaries(name):
    distribution = DISTRIBUTIONS[name]
    assert distribution.name == name
    assert distribution.summary
    assert "\n" not in distribution.summary
    assert {distribution: name}[distribution] == name  # frozen values, as plans are
    assert any(distribution.applies_to(operator) for operator in OPERATORS.values())


def test_files_can_name_exactly_the_registered_ones():
    matrices = {name for name, each in DISTRIBUTIONS.items() if each.applies_to(OPERATORS["llama-q"])}
    attentions = {name for name, each in DISTRIBUTIONS.items() if each.applies_to(OPERATORS["llama-scores"])}
    assert set(get_args(Matrix)) == matrices
    assert set(ATTENTIONS) == attentions
    assert matrices | attentions == set(DISTRIBUTIONS) - {"grid-X"}  # of which a file says a number, for an FFN's alone
    given = ["row", "col", "batch", "replicate", "grid-1", "grid-64"]
    layers = [{"gate_up": name, "gate": name, "up": name, "down": name} for name in given]
    assert [entry.down for entry in check_workflow_file({"layers": layers}, "mine").layers] == given
    assert {name for name, each in DISTRIBUTIONS.items() if each.applies_to(OPERATORS["llama-gate"])} == {
        *given[:4],
        "grid-X",
    }


def test_named_workflows_name_registered_ones():
    for workflow in WORKFLOWS.values():
        for plan in workflow.pattern:
            for name in ("q", "k", "v", "o", "gate", "up", "down"):
                assert DISTRIBUTIONS[getattr(plan, name)].applies_to(OPERATORS[f"llama-{name}"])
            assert DISTRIBUTIONS[plan.attention].applies_to(OPERATORS["llama-scores"])
        assert DISTRIBUTIONS[workflow.lm_head].applies_to(OPERATORS["llama-lm_head"])


@pytest.mark.parametrize(("distribution", "operator"), PAIRS)
def test_one_placement_for_every_input_and_output(distribution, operator):
    for attention, head_group_size in itertools.product(ATTENTIONS, (1, 4)):
        placed = distribution.place(operator, attention, head_group_size)
        assert len(placed.inputs) == len(operator.inputs)
        assert len(placed.outputs) == len(operator.outputs)
        # Not Joint: a place on the way, never one to be asked for.
        assert all(isinstance(placement, PLACEMENTS) for placement in (*placed.inputs, *placed.outputs))
        assert placed == distribution.place(operator, attention, head_group_size)


@pytest.mark.parametrize(("distribution", "operator"), MATRIX_PAIRS)
def test_every_placement_can_be_reached_and_left(distribution, operator):
    """From wherever a tensor may be, a transform leads to what a matrix needs, and on from what it gives."""
    array = small_array(8)
    shape = build_graph(load_model("llama-3.2-1b"), Prefill(1, prompt_len=3)).shape
    layouts = Layouts.on(array, PeGroups.of_array(8, 1, 2, 1), shape, 1)
    transforms = Transforms(array, layouts)
    placed = distribution.place(operator, "head", 1)
    (needed,), (given,), (output,) = placed.inputs, placed.outputs, operator.outputs
    for source in (Replicate(), Root(), Shard(operator.in_dim), Partial("sum")):
        assert transforms.steps([output], source, needed) or source == needed
    for target in (Replicate(), Root()):
        assert transforms.steps([output], given, target) or given == target


@pytest.mark.parametrize(("distribution", "operator"), PAIRS)
def test_what_fits_is_found(distribution, operator):
    assert distribution_for(operator, distribution.name, "mine", "layers") == distribution


@pytest.mark.parametrize(("name", "operator"), MISFITS)
def test_what_does_not_fit_is_refused_with_what_does(name, operator):
    fitting = sorted(other for other, each in DISTRIBUTIONS.items() if each.applies_to(operator))
    with pytest.raises(InputError) as caught:
        distribution_for(operator, name, "mine.yaml", f"layers.0.{operator.name}")
    assert str(caught.value) == (
        f"mine.yaml: layers.0.{operator.name}: operator {operator.name!r} cannot be distributed by {name!r}\n"
        f"  given:    {name!r}\n"
        f"  expected: one of {', '.join(fitting)}"
    )


def test_a_name_that_does_not_exist_is_refused_alike():
    with pytest.raises(InputError) as caught:
        distribution_for(OPERATORS["llama-o"], "rwo", "mine.yaml", "o")
    assert str(caught.value) == (
        "mine.yaml: o: operator 'o' cannot be distributed by 'rwo'\n"
        "  given:    'rwo'\n"
        "  expected: one of batch, col, replicate, row"
    )


def test_vector_operators_are_not_distributed_but_follow():
    (norm,) = (
        operator
        for operator in build_graph(load_model("llama-3.2-1b"), Prefill(1, prompt_len=3)).layer
        if isinstance(operator, Norm) and operator.name == "ffn_norm"
    )
    assert not any(distribution.applies_to(norm) for distribution in DISTRIBUTIONS.values())


@pytest.mark.parametrize(("field", "given"), [("attention", "row"), ("q", "head")])
def test_a_plan_says_which_field_of_it_is_wrong(field, given):
    """All of attention is one field of a plan, whichever of its operators cannot be distributed so."""
    megatron = WORKFLOWS["megatron"]
    plan = replace(megatron.pattern[0], **{field: given})
    with pytest.raises(InputError) as caught:
        place(tiny_llama(), small_array(8), Decode(context_len=3), replace(megatron, pattern=(plan,)))
    assert caught.value.path == field
    assert f"cannot be distributed by {given!r}" in caught.value.problem
