"""Cuts of a model into stages: against their definitions, against all cuts there are, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pe_sim.config.models.model import count_parameters
from pe_sim.config.plans.plan import Degrees, ParallelPlan, PipelinePlan, StagePlan
from pe_sim.config.step import Decode, Prefill
from pe_sim.errors import InputError
from pe_sim.schedule.system import ArrayPass
from pe_sim.systems.deployment import (
    check_stages,
    checked_bounds,
    least_largest,
    parameter_bounds,
    uniform_bounds,
    uniform_ceil_bounds,
    uniform_floor_bounds,
)
from tests.numeric.cases import bert, gpt2, llama
from tests.systems.cases import MODELS, arrays_like, equal_arrays, script_of, system_of, timed_of

PLAN = ParallelPlan(name="mine", source="mine.json")


def all_cuts(layers: int, stages: int):
    """Bounds of consecutive layers, at least one a stage, the earlier cuts first."""
    return [[0, *inner, layers] for inner in combinations(range(1, layers), stages - 1)]


@given(st.integers(1, 60), st.data())
def test_uniform_cuts_differ_by_one_layer_at_most(layers, data):
    stages = data.draw(st.integers(1, layers))
    for bounds in (uniform_bounds(layers, stages), uniform_floor_bounds(layers, stages)):
        counts = [stop - start for start, stop in pairwise(bounds)]
        assert (bounds[0], bounds[-1], len(counts), sum(counts)) == (0, layers, stages, layers)
        assert set(counts) <= {layers // stages, -(-layers // stages)}
    for at, up in enumerate(uniform_bounds(layers, stages)):
        assert (up - 1) * stages < at * layers <= up * stages


def merak_bounds(layers: int, stages: int, chunk: int) -> list[int]:
    """Merak's partition_uniform restated: chunks in a row, then each of the layers that are left pushes later bounds.

    The first of them pushes the bounds from the third on, the second those from the fourth on, and so forth.
    """
    starts = [min(layers, chunk * stage) for stage in range(stages)]
    for left in range(layers % stages):
        for stage in range(left + 2, stages):
            starts[stage] += 1
    return [*starts, layers]


def test_merak_cuts_as_its_code_does():
    empty = 0
    for layers in range(1, 61):
        for stages in range(1, layers + 1):
            down, up = layers // stages, -(-layers // stages)
            assert uniform_floor_bounds(layers, stages) == merak_bounds(layers, stages, down)
            expected = merak_bounds(layers, stages, up)
            assert uniform_ceil_bounds(layers, stages) == expected
            empty += any(stop <= start for start, stop in pairwise(expected))
    assert empty == 1_410  # of 1,830: what Merak calls uniform leaves a stage without layers


def test_merak_cuts_by_hand():
    assert uniform_floor_bounds(22, 4) == [0, 5, 11, 17, 22]
    assert uniform_floor_bounds(32, 3) == [0, 10, 21, 32]
    assert uniform_floor_bounds(7, 4) == [0, 1, 3, 5, 7]
    assert uniform_ceil_bounds(22, 4) == [0, 6, 13, 20, 22]


def test_a_cut_of_merak_that_leaves_a_stage_empty_is_refused():
    plan = ParallelPlan(name="mine", source="mine.json", pp=4, partition="uniform_ceil")
    step, model = Prefill(1, prompt_len=4), llama(num_hidden_layers=6)
    assert script_of(model, equal_arrays(4), replace(plan, pp=2, tp=2), step)
    with pytest.raises(InputError) as caught:
        script_of(model, equal_arrays(4), plan, step)
    assert str(caught.value) == (
        "mine.json: partition: the bounds do not cut the model: a stage has no layers\n"
        "  given:    [0, 2, 5, 8, 6]\n"
        "  expected: 5 rising numbers from 0 to 6, such as [0, 2, 3, 5, 6]\n"
        "  hint:     uniform_ceil, which is Merak's `uniform`, leaves stages empty here: take uniform_floor, or bounds"
    )


def test_uniform_cuts_by_hand():
    assert uniform_bounds(10, 4) == [0, 3, 5, 8, 10]
    assert uniform_floor_bounds(10, 4) == [0, 2, 5, 8, 10]
    assert uniform_bounds(8, 4) == uniform_floor_bounds(8, 4) == [0, 2, 4, 6, 8]


@given(st.data())
def test_no_cut_has_a_cheaper_costliest_stage(data):
    layers = data.draw(st.integers(1, 8))
    stages = data.draw(st.integers(1, layers))
    weight = data.draw(st.lists(st.integers(0, 9), min_size=layers, max_size=layers))
    first, last = data.draw(st.integers(0, 30)), data.draw(st.integers(0, 30))
    speed = data.draw(st.lists(st.integers(1, 3), min_size=stages, max_size=stages))

    def cost(stage: int, start: int, stop: int) -> int:
        return speed[stage] * (sum(weight[start:stop]) + first * (start == 0) + last * (stop == layers))

    def largest(bounds: list[int]) -> int:
        return max(cost(stage, *cut) for stage, cut in enumerate(pairwise(bounds)))

    found = least_largest(layers, stages, cost)
    best = min(map(largest, all_cuts(layers, stages)))
    assert found in all_cuts(layers, stages)
    assert largest(found) == best
    # Of equal cuts the earlier one: no other best cut has a shorter first stage.
    assert found[1] == min(bounds[1] for bounds in all_cuts(layers, stages) if largest(bounds) == best)


@given(
    st.sampled_from([llama, gpt2, bert]),
    st.integers(1, 9),
    st.booleans(),
    st.sampled_from([1, 41, 400, 4000]),
    st.data(),
)
def test_parameters_are_cut_as_evenly_as_can_be(family, layers, tied, words, data):
    names = {llama: "num_hidden_layers", gpt2: "n_layer", bert: "num_hidden_layers"}
    changes = {names[family]: layers, "vocab_size": words} | ({"tie_word_embeddings": tied} if family is llama else {})
    model = family(**changes)
    stages = data.draw(st.integers(1, layers))
    count = count_parameters(model)
    table = model.vocab_size * model.hidden_size
    # An encoder's norm follows the embedding, a decoder's the last layer; a tied LM head is a second table.
    opens = count.embedding + (0 if model.has_kv_cache else count.norms)
    closes = (count.norms + table) if model.has_kv_cache else count.head

    def largest(bounds: list[int]) -> int:
        return max(
            (stop - start) * count.layer.total + opens * (start == 0) + closes * (stop == layers)
            for start, stop in pairwise(bounds)
        )

    assert largest(parameter_bounds(model, stages)) == min(map(largest, all_cuts(layers, stages)))


def slowest(model, system, plan: ParallelPlan, step) -> int:
    """Cycles of the slowest stage, from the simulation of all of them."""
    timed = timed_of(model, system, plan, step)
    return max(timed.pass_cycles[task.work] for task in timed.program.tasks if isinstance(task, ArrayPass))


@pytest.mark.parametrize("step", [Decode(3, 6), Prefill(1, prompt_len=3)], ids=["decode", "prefill"])
@pytest.mark.parametrize("stages", [2, 3])
def test_no_cut_has_a_faster_slowest_stage_than_the_balanced_one(stages, step):
    model = llama(num_hidden_layers=5, vocab_size=2000)
    system = system_of((arrays_like(4), arrays_like(2), arrays_like(8))[:stages])
    plan = {"pp": stages, "microbatches": 1}
    cuts = [tuple(bounds) for bounds in all_cuts(5, stages)]
    cycles = {cut: slowest(model, system, ParallelPlan(**plan, partition=cut), step) for cut in cuts}
    balanced = ParallelPlan(**plan, partition="balanced")
    found = script_of(model, system, balanced, step)[1].deployment.pipelines[0].stages
    assert cycles[(*(stage.first_layer for stage in found), 5)] == min(cycles.values())
    assert len(set(cycles.values())) > 1


@pytest.mark.parametrize("partition", ["uniform", "uniform_floor", "parameters", "balanced", (0, 1, 3, 4)])
def test_every_way_of_cutting_gives_all_layers_once(partition):
    plan = ParallelPlan(pp=3, partition=partition)
    (line,) = script_of(MODELS["llama"], equal_arrays(3), plan, Decode(2, 3))[1].deployment.pipelines
    assert [stage.first_layer + stage.num_layers for stage in line.stages[:-1]] == [
        stage.first_layer for stage in line.stages[1:]
    ]
    assert (line.stages[0].first_layer, sum(stage.num_layers for stage in line.stages)) == (0, 4)


# ------------------------------------------------------------------------------------------------------------ messages
BOUNDS = {
    (0, 2): "2 bounds for 3 stages",
    (1, 2, 3, 4): "layers 0 to 0 are in no stage",
    (0, 1, 2, 3): "the last stage ends with layer 2 of 4",
    (0, 2, 2, 4): "a stage has no layers",
    (0, 3, 2, 4): "a stage has no layers",
}


@pytest.mark.parametrize("bounds", BOUNDS, ids=str)
def test_bounds_that_do_not_cut_the_model(bounds):
    with pytest.raises(InputError) as caught:
        checked_bounds(PLAN, bounds, 4, 3)
    assert str(caught.value) == (
        f"mine.json: partition: the bounds do not cut the model: {BOUNDS[bounds]}\n"
        f"  given:    {list(bounds)}\n"
        "  expected: 4 rising numbers from 0 to 4, such as [0, 2, 3, 4]"
    )


def test_bounds_of_more_stages_than_layers():
    with pytest.raises(InputError, match=r"3 rising numbers from 0 to 1, such as fewer stages$"):
        checked_bounds(PLAN, (0, 1, 1), 1, 2)


def test_bounds_that_a_plan_gives_reach_the_user():
    with pytest.raises(InputError, match=r"^plan: partition: the bounds do not cut the model: a stage has no layers\n"):
        script_of(MODELS["llama"], equal_arrays(2), ParallelPlan(pp=2, partition=(0, 4, 4)), Decode(1, 3))


def stages(*layers: tuple[int, int]) -> ParallelPlan:
    """Stages of one array each: first layers, and how many."""
    made = (StagePlan((at,), first, count, (Degrees(),) * count) for at, (first, count) in enumerate(layers))
    return ParallelPlan(pipelines=(PipelinePlan(tuple(made)),))


def test_stages_that_skip_a_layer():
    with pytest.raises(InputError) as caught:
        script_of(MODELS["llama"], equal_arrays(2), stages((0, 2), (3, 2)), Decode(1, 3))
    assert str(caught.value) == (
        "plan: pipelines: the stages' layers do not follow each other\n"
        "  given:    [0, 3]\n"
        "  expected: first layers [0, 2], each behind the last of the stage before it"
    )
    with pytest.raises(InputError, match="the last stage ends with layer 2 of 4"):
        script_of(MODELS["llama"], equal_arrays(2), stages((0, 2), (2, 1)), Decode(1, 3))


def test_more_stages_than_layers():
    with pytest.raises(InputError) as caught:
        check_stages(PLAN, 4, 5)
    assert str(caught.value) == (
        "mine.json: pp: there are more stages than layers\n"
        "  given:    5\n"
        "  expected: at most 4, the layers of the model"
    )
