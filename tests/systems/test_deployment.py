"""Which arrays do what, and the words in which a plan that fits nothing is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pe_sim.config.plans.plan import Degrees, ParallelPlan, PipelinePlan, StagePlan
from pe_sim.config.step import Decode, Prefill
from pe_sim.errors import InputError
from pe_sim.mapping.workflow import WORKFLOWS
from pe_sim.systems.microbatches import Place, place_of
from pe_sim.systems.simulation import prepared
from tests.numeric.cases import llama
from tests.systems.cases import MODELS, equal_arrays

STEP = Decode(4, context_len=5)
P = ParallelPlan


def deployment(plan, model="llama", count=4, step=STEP, workflow="workflow-1", dead=()):
    """The deployment of a plan on some arrays in a ring."""
    model = MODELS[model] if isinstance(model, str) else model
    return prepared(model, equal_arrays(count, dead=dead), step, plan, WORKFLOWS[workflow])[1]


def stages(*groups: tuple[int, ...], layers: tuple[int, ...] = ()) -> P:
    """A plan of one pipeline that names its ranks."""
    counts = layers or (4 // len(groups),) * len(groups)
    made, first = [], 0
    for ranks, count in zip(groups, counts, strict=True):
        made.append(StagePlan(ranks, first, count, (Degrees(tp=len(ranks)),) * count))
        first += count
    return P(pipelines=(PipelinePlan(tuple(made)),))


# -------------------------------------------------------------------------------------------------------------- places
def test_ranks_follow_the_degrees():
    """Rank ((p * dp + d) * cp + c) * tp + t is array (c, t) of stage p of pipeline d."""
    found = deployment(P(dp=2, pp=2, cp=2, tp=2), count=16)
    for d, line in enumerate(found.pipelines):
        assert list(line.sequences) == [2 * d, 2 * d + 1]
        for p, stage in enumerate(line.stages):
            assert (stage.first_layer, stage.num_layers) == (2 * p, 2)
            assert stage.arrays == tuple(((p * 2 + d) * 2 + c) * 2 + t for c in range(2) for t in range(2))
    assert found.used == tuple(range(16))


def test_dead_and_unused_ranks_are_passed_over():
    found = deployment(P(tp=2, pp=2, unused=(4,)), count=6, dead=(1,))
    assert [stage.arrays for stage in found.pipelines[0].stages] == [(0, 2), (3, 5)]
    assert found.used == (0, 2, 3, 5)


def test_an_array_of_two_stages_is_used_once():
    """Arrays that share tokens may go on while the layers of another move."""
    halves = (Degrees(cp=2),) * 2
    made = StagePlan((0, 1), 0, 2, halves), StagePlan((0, 2), 2, 2, halves)
    assert deployment(P(pipelines=(PipelinePlan(made),))).used == (0, 1, 2)


@pytest.mark.parametrize("consecutive", [True, False])
def test_places_are_each_taken_once(consecutive):
    degrees = Degrees(2, 3, 4, consecutive)
    places = [place_of(degrees, index) for index in range(24)]
    assert [place.index(degrees) for place in places] == list(range(24))
    assert set(places) == {Place(d, c, t) for d in range(2) for c in range(3) for t in range(4)}
    neighbours = (places[0], places[1])
    assert neighbours == ((Place(0, 0, 0), Place(0, 0, 1)) if consecutive else (Place(0, 0, 0), Place(0, 1, 0)))


# ------------------------------------------------------------------------------------------------------------ messages
REFUSED = {
    "degrees that are too few": (
        {"plan": P(tp=2)},
        "plan: dp, tp, pp, cp: the degrees do not multiply to the arrays\n"
        "  given:    'dp 1 x tp 2 x pp 1 x cp 1 = 2'\n"
        "  expected: 4, the arrays of ring of 4\n"
        "  hint:     a system of 2 arrays, or unused_arrays for the others",
    ),
    "degrees that are too many": (
        {"plan": P(tp=3, pp=2), "dead": (1,)},
        "plan: dp, tp, pp, cp: the degrees do not multiply to the arrays\n"
        "  given:    'dp 1 x tp 3 x pp 2 x cp 1 = 6'\n"
        "  expected: 3, the arrays of ring of 4 without 1 that are not used\n"
        "  hint:     a system of 7 arrays",
    ),
    "layers that are too many": (
        {"plan": P(pp=2, layers=(Degrees(1, 1, 4),) * 4)},
        "plan: dp, tp, pp, cp: the degrees do not multiply to the arrays\n"
        "  given:    'pp 2 x (dp 1 x tp 4 x cp 1) = 8'\n"
        "  expected: 4, the arrays of ring of 4\n"
        "  hint:     a system of 8 arrays",
    ),
    "layers that do not multiply to their stage": (
        {"plan": P(layers=(Degrees(1, 1, 4), Degrees(1, 1, 2), Degrees(1, 1, 4), Degrees(1, 1, 4)))},
        "plan: dp, tp, cp: the degrees do not multiply to the stage\n"
        "  given:    'dp 1 x tp 2 x cp 1'\n"
        "  expected: 4, the arrays of the stage",
    ),
    "an LM head that does not": (
        {"plan": P(tp=2, pp=2, head=Degrees(1, 1, 4))},
        "plan: head: the degrees of the LM head do not multiply to the stage\n"
        "  given:    'dp 1 x tp 4 x cp 1'\n"
        "  expected: 2",
    ),
    "another number of layers": (
        {"plan": P(tp=4, num_layers=32)},
        "plan: num_layers: the plan is for another number of layers\n"
        "  given:    32\n"
        "  expected: 4, the layers of the model",
    ),
    "a rank in two pipelines": (
        {
            "plan": P(
                pipelines=(*stages((0,), (1,)).pipelines, *stages((2,), (1,)).pipelines),
            )
        },
        "plan: arrays: an array has two places in the plan\n"
        "  given:    1\n"
        "  expected: every array once in a stage, and in one pipeline",
    ),
    "a rank twice in a stage": (
        {"plan": stages((0, 0), (1,))},
        "plan: arrays: an array has two places in the plan\n"
        "  given:    0\n"
        "  expected: every array once in a stage, and in one pipeline",
    ),
    "a dead rank": (
        {"plan": stages((0,), (2,)), "dead": (2,)},
        "plan: arrays: the plan uses an array that is dead\n  given:    2\n  expected: one of 0, 1, 3",
    ),
    "a rank that is not there": (
        {"plan": stages((0,), (4,))},
        "plan: arrays: there is no such array\n  given:    4\n  expected: 0 to 3, the arrays of ring of 4",
    ),
    "more pipelines than sequences": (
        {"plan": P(dp=4), "step": Decode(3, 5)},
        "plan: dp: the batch has fewer sequences than the plan has pipelines\n"
        "  given:    4\n"
        "  expected: at most 3, the sequences of the step\n"
        "  hint:     a larger batch (--batch), or a smaller dp",
    ),
    "heads that do not go over the arrays": (
        {"plan": P(tp=3, unused=(0,)), "model": "gqa"},
        "plan: tp: the heads of model cannot be shared out over 3 arrays\n"
        "  given:    3\n"
        "  expected: up to 2 (its kv heads), or a multiple of that up to 8 (its heads)\n"
        "  hint:     the nearest that fits is 2",
    ),
    "fewer FFN columns than arrays": (
        {"plan": P(tp=4), "model": llama(num_key_value_heads=4, intermediate_size=3)},
        "plan: tp: the FFN of model has 3 columns for 4 arrays\n  given:    4\n  expected: at most 3",
    ),
    "fewer words than arrays": (
        {"plan": P(tp=4), "model": llama(num_key_value_heads=4, vocab_size=3)},
        "plan: tp: the vocabulary of model has 3 words for 4 arrays\n"
        "  given:    4\n"
        "  expected: at most 3\n"
        "  hint:     a whole LM head on every array: split_vocabulary: false",
    ),
    "more stages than layers": (
        {"plan": P(pp=5), "count": 5},
        "plan: pp: there are more stages than layers\n  given:    5\n  expected: at most 4, the layers of the model",
    ),
    "shared tokens and groups of PEs": (
        {"plan": P(cp=4), "workflow": "grouped"},
        "grouped.yaml: groups: where arrays share tokens, all PEs of an array serve all its sequences\n"
        "  given:    2\n"
        "  expected: 1\n"
        "  hint:     split the batch over arrays instead (dp)",
    ),
    "a pipeline of PEs in a stage": (
        {"plan": P(pp=4), "workflow": "block-pipeline"},
        "block-pipeline: workflow: a pipeline of PEs inside an array needs whole layers, first to last, on that array\n"
        "  given:    'block-pipeline'\n"
        "  expected: another workflow, or a plan of dp alone\n"
        "  hint:     stages of arrays are a pipeline already: take megatron inside them",
    ),
    "a pipeline of PEs in parts": (
        {"plan": P(dp=4, microbatches=2), "workflow": "block-pipeline"},
        "plan: microbatches: a pipeline of PEs inside an array takes the sequences one by one, without microbatches\n"
        "  given:    2\n"
        "  expected: 1",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_plan_that_does_not_fit_is_refused_in_these_words(name, monkeypatch):
    grouped = replace(WORKFLOWS["megatron"], name="grouped", groups=2, source="grouped.yaml")
    monkeypatch.setitem(WORKFLOWS, "grouped", grouped)
    given, words = REFUSED[name]
    with pytest.raises(InputError) as caught:
        deployment(**given)
    assert str(caught.value) == words


def test_a_message_names_the_plans_file():
    with pytest.raises(
        InputError, match=r"^my/plan\.json: tp: the heads of model cannot be shared out over 3 arrays\n"
    ):
        deployment(P(tp=3, unused=(0,), source="my/plan.json"), "gqa")


def test_what_is_wrong_with_the_step_is_said_first():
    with pytest.raises(InputError, match="it has no KV cache and does not decode"):
        deployment(P(tp=3), "bert")
    with pytest.raises(InputError, match="64"):
        deployment(P(tp=4), step=Prefill(prompt_len=65))


def test_an_encoder_has_no_vocabulary_to_share():
    assert deployment(P(tp=2, pp=2), "bert", step=Prefill(2, prompt_len=4)).used == (0, 1, 2, 3)
