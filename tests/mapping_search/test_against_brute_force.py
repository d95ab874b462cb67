"""The search against simulating every combination of choices, on machines and models small enough for that."""

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pe_sim as ps
from pe_sim.errors import InputError
from pe_sim.mapping.workflow import AUTO, LayerRule, Workflow
from pe_sim.mapping_search.space import plan_of
from tests.helpers import small_array, tiny_llama

MATRIX = ("row", "col", "replicate")
VECTOR = ("replicate", "shard", "root")
FIELDS = {
    **dict.fromkeys(("q", "k", "v", "o", "gate", "up", "down"), MATRIX),
    "attention": ("head", "token", "replicate"),
    **dict.fromkeys(("attention_norm", "ffn_norm", "activation"), VECTOR),
    **dict.fromkeys(("attention_add", "ffn_add"), ("follow", *VECTOR)),
    "stream": ("follow", "replicate", "shard"),
}
FFN = ("gate", "up", "down")
MOST = 60  # combinations that brute force goes through


def grids_of(array):
    """Rows of neighbours that have a joint of their own: fewer than all PEs, a power of the tree's arity."""
    num_pes, arity = array.num_pes, array.bus_tree.tree.arity
    powers = (arity**exponent for exponent in range(1, num_pes))
    return tuple(f"grid-{ways}" for ways in powers if ways < num_pes and num_pes % ways == 0)


def fields_of(array):
    """By field, what it may be on an array."""
    return FIELDS | {name: FIELDS[name] + grids_of(array) for name in FFN}


@st.composite
def plans(draw, arrays, most, first=()):
    """An array, fields that stay open, those named first, and values of all the others."""
    array = draw(arrays)
    fields = fields_of(array)
    names = [*first, *draw(st.permutations([name for name in fields if name not in first]))]
    is_open = []
    while math.prod(len(fields[name]) for name in (*is_open, names[0])) <= most:
        is_open.append(names.pop(0))
    return array, (tuple(is_open), {name: draw(st.sampled_from(fields[name])) for name in names})


def machines_of(num_pes, **more):
    """Arrays of these sizes; `more` says what else may vary, or otherwise."""
    varied = {"overlap": st.sampled_from([0, 1]), **more}
    return st.builds(
        small_array,
        num_pes,
        width=st.sampled_from([1, 4, 16, 64]),
        latency=st.integers(1, 20),
        overhead=st.integers(0, 8),
        request=st.integers(0, 6),
        arity=st.sampled_from([2, 3]),
        tree_width=st.sampled_from([2, 8, 64]),
        hop=st.integers(1, 6),
        combine=st.integers(1, 6),
        softmax_combine=st.integers(6, 20),
        gather=st.sampled_from(["best", "serial", "by_reduction"]),
        **varied,
    )


machines = machines_of(st.sampled_from([2, 3, 4, 8]))
models = st.fixed_dictionaries(
    {
        "num_key_value_heads": st.sampled_from([1, 2, 4]),
        "intermediate_size": st.sampled_from([40, 96, 200]),
        "vocab_size": st.sampled_from([50, 300]),
    }
)
steps = st.one_of(
    st.builds(ps.Decode, st.just(1), st.integers(0, 60)),
    st.builds(lambda prompt: ps.Prefill(1, prompt_len=prompt), st.integers(1, 8)),
)


def least_of_all(model, array, step, is_open, given_fields, layers):
    """The least cycles over all combinations of the open fields in every layer; None if none can be placed."""
    fields = fields_of(array)
    choices = [
        plan_of(given_fields | dict(zip(is_open, values, strict=True)))
        for values in itertools.product(*(fields[name] for name in is_open))
    ]
    cycles = []
    for pattern in itertools.product(choices, repeat=layers):
        try:
            report = ps.simulate(model, array, step, Workflow("tried", "", pattern))
        except (InputError, ValueError):
            continue
        cycles.append(report.latency_cycles)
    return min(cycles, default=None)


def search(model, array, step, given_fields, max_simulations=50_000):
    rule = LayerRule(0, None, tuple(given_fields.items()), "given")
    workflow = Workflow("given", "", (), lm_head="row", searched=True, rules=(rule,))
    return ps.search(model, array, step, workflow=workflow, max_simulations=max_simulations)


def check(model, array, step, fields, layers):
    """An exhaustive search finds the best of all; a short one says how far away it can be."""
    is_open, given_fields = fields
    best = least_of_all(model, array, step, is_open, given_fields, layers)
    if best is None:
        with pytest.raises(InputError):
            search(model, array, step, given_fields)
        return
    found = search(model, array, step, given_fields)
    assert found.best.cycles == best
    assert found.proof == "exact"
    short = search(model, array, step, given_fields, 8)
    assert short.bound_cycles <= best <= short.best.cycles
    assert short.proof != "exact" or short.best.cycles == best


@settings(max_examples=4)
@given(changes=models, step=steps, case=plans(machines_of(st.sampled_from([2, 3, 4])), 12))
def test_one_layer_with_few_fields_open(changes, step, case):
    array, fields = case
    check(tiny_llama(num_hidden_layers=1, **changes), array, step, fields, 1)


@pytest.mark.slow
@settings(max_examples=25)
@given(changes=models, step=steps, case=plans(machines, MOST))
def test_one_layer(changes, step, case):
    array, fields = case
    check(tiny_llama(num_hidden_layers=1, **changes), array, step, fields, 1)


@pytest.mark.slow
@settings(max_examples=10)
@given(changes=models, step=steps, case=plans(machines, 16))
def test_two_layers_that_need_not_be_alike(changes, step, case):
    array, fields = case
    check(tiny_llama(num_hidden_layers=2, **changes), array, step, fields, 2)


@pytest.mark.slow
@settings(max_examples=4)
@given(changes=models, step=steps, case=plans(machines_of(st.just(4)), 4 * 4 * 4 * 3, (*FFN, "activation")))
def test_the_whole_ffn_open(changes, step, case):
    array, fields = case
    check(tiny_llama(num_hidden_layers=1, **changes), array, step, fields, 1)


def test_auto_is_the_search_with_nothing_given():
    model, array, step = tiny_llama(num_hidden_layers=1), small_array(4), ps.Decode(1, 20)
    assert ps.search(model, array, step).best.cycles == ps.search(model, array, step, workflow=AUTO).best.cycles
