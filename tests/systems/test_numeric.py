"""The proof on several arrays: logits and greedy tokens of the unsharded reference, and the traffic that was timed."""

from __future__ import annotations

import pytest

from pe_sim.config.plans.plan import Degrees, ParallelPlan, PipelinePlan, StagePlan
from pe_sim.config.step import Decode, Prefill
from pe_sim.engine.system_engines import run_system_fast
from pe_sim.engine.system_event import run_system_event
from pe_sim.mapping.workflow import WORKFLOWS
from pe_sim.schedule.system import ArrayPass
from pe_sim.systems.script import MeetingAction
from tests.helpers import diagonal, some_of
from tests.systems.cases import (
    LINK_KINDS,
    MODELS,
    SHARED_WORKFLOWS,
    arrays_like,
    equal_arrays,
    prove,
    script_of,
    system_of,
    timed_of,
)

STEPS = {
    "decode": Decode(4, context_len=[5, 0, 9, 3]),
    "prefill": Prefill(4, prompt_len=[5, 1, 6, 3]),
    "chunk": Prefill(2, prompt_len=[5, 7], context_len=[3, 0], logits="all"),
    "full": Prefill(3, prompt_len=[4, 6, 1], causal="full"),
}
ENCODED = {"prefill": STEPS["prefill"], "two": Prefill(2, prompt_len=[7, 2])}
WORKFLOW_OF_STEP = ("workflow-1", "megatron", "workflow-2", "batch-block")
TWO, FOUR = Degrees(2, 1, 2), Degrees(1, 2, 2)


def steps_of(model: str):
    """By name, those that the model can do."""
    return ENCODED if model == "bert" else STEPS


def check(model: str, system, plan: ParallelPlan, step, workflow) -> None:
    proof = prove(MODELS[model], system, plan, step, workflow)
    assert proof.is_the_model, proof
    assert proof.executed == proof.timed


# ---------------------------------------------------------------------------------------------------- every workflow
@pytest.mark.parametrize(("phase", "workflow"), diagonal(["decode", "chunk"], SHARED_WORKFLOWS))
def test_every_workflow_in_stages_that_share_operators_and_tokens(workflow, phase):
    check("llama", equal_arrays(8), ParallelPlan(tp=2, cp=2, pp=2), STEPS[phase], workflow)


@pytest.mark.parametrize(
    ("plan", "workflow"), diagonal([ParallelPlan(tp=3), ParallelPlan(cp=3), ParallelPlan(pp=3)], SHARED_WORKFLOWS)
)
def test_every_workflow_on_three_arrays(plan, workflow):
    check("bias", equal_arrays(3), plan, STEPS["decode"], workflow)


@pytest.mark.parametrize(("phase", "workflow"), diagonal(list(STEPS), list(WORKFLOWS)))
def test_every_workflow_on_one_array_and_on_copies_of_it(workflow, phase):
    check("llama", equal_arrays(1), ParallelPlan(), STEPS[phase], workflow)
    check("llama", equal_arrays(2), ParallelPlan(dp=2), STEPS[phase], workflow)


def test_a_pipeline_of_pes_takes_an_encoder_and_matrices_from_the_plan():
    check("bert", equal_arrays(2), ParallelPlan(dp=2), ENCODED["prefill"], "block-pipeline")
    check("llama", equal_arrays(1), ParallelPlan(matrices=(("q", "row"),)), STEPS["decode"], "block-pipeline")


# ------------------------------------------------------------------------------------------------------ every degree
DEGREES = [
    (dp, tp, pp, cp)
    for dp in (1, 2, 4)
    for tp in (1, 2, 3, 4, 6)
    for pp in (1, 2, 3, 4)
    for cp in (1, 2, 3, 5)
    if 1 < dp * tp * pp * cp <= 8 and tp != 4
]


@pytest.mark.parametrize("degrees", some_of(DEGREES, 6), ids=lambda degrees: "x".join(map(str, degrees)))
def test_every_product_of_degrees(degrees):
    dp, tp, pp, cp = degrees
    plan = ParallelPlan(dp=dp, tp=tp, pp=pp, cp=cp)
    at = sum(degrees)
    workflow = SHARED_WORKFLOWS[at % len(SHARED_WORKFLOWS)]
    chunk = Prefill(4, prompt_len=[5, 1, 6, 3], context_len=[0, 2, 1, 4], logits="all")
    step = STEPS["decode"] if at % 2 else chunk
    check("llama", equal_arrays(dp * tp * pp * cp, LINK_KINDS[at % len(LINK_KINDS)]), plan, step, workflow)


P = ParallelPlan
PLANS = {
    "kv heads in two parts": ("gqa", 4, P(tp=4)),
    "kv heads in four parts": ("gqa", 8, P(tp=8)),
    "parts of kv heads and tokens": ("gqa", 8, P(tp=4, cp=2)),
    "nothing divides": ("uneven", 6, P(tp=3, cp=2)),
    "nothing divides, five ways": ("uneven", 5, P(tp=5)),
    "biases": ("bias", 6, P(tp=3, pp=2)),
    "biases of tokens": ("bias", 4, P(cp=4)),
    "biases of q, k and v": ("qkv-bias", 8, P(tp=4, pp=2)),
    "biases of q, k and v, tokens": ("qkv-bias", 4, P(tp=2, cp=2)),
    "gpt2": ("gpt2", 4, P(tp=2, pp=2)),
    "gpt2, tokens": ("gpt2", 6, P(tp=3, cp=2)),
    "bert": ("bert", 8, P(tp=2, pp=2, cp=2)),
    "bert, batch": ("bert", 6, P(dp=2, tp=3)),
    "whole vocabulary": ("llama", 6, P(tp=3, pp=2, split_vocabulary=False)),
    "three parts over four stages": ("llama", 4, P(pp=4, microbatches=3)),
    "more parts than there can be": ("llama", 4, P(tp=2, pp=2, microbatches=9)),
    "one part": ("llama", 4, P(cp=2, pp=2, microbatches=1)),
    "parts of one stage": ("llama", 2, P(cp=2, microbatches=3)),
    "stages as given": ("llama", 4, P(tp=2, pp=2, partition=(0, 3, 4))),
    "stages by parameters": ("llama", 3, P(pp=3, partition="parameters")),
    "stages by time": ("llama", 6, P(pp=3, tp=2, partition="balanced")),
    "layer by layer": ("llama", 4, P(layers=(Degrees(4, 1, 1), Degrees(2, 1, 2), Degrees(1, 2, 2), Degrees(1, 4, 1)))),
    "operators not of neighbours": (
        "llama",
        4,
        P(layers=(Degrees(2, 1, 2, False), Degrees(2, 1, 2), Degrees(1, 2, 2, False), Degrees(1, 4, 1))),
    ),
    "layer by layer in stages": ("llama", 8, P(pp=2, layers=(TWO, FOUR, FOUR, Degrees(4, 1, 1)))),
    "head over the batch": ("llama", 4, P(layers=(TWO,) * 4, head=Degrees(4, 1, 1))),
    "head over the words": ("llama", 4, P(layers=(TWO,) * 4, head=Degrees(1, 1, 4))),
    "head over the rows": ("llama", 4, P(layers=(TWO,) * 4, head=Degrees(1, 4, 1))),
    "head behind tokens": ("llama", 8, P(tp=2, cp=2, pp=2, head=Degrees(1, 2, 2, False))),
    "matrices": ("llama", 2, P(tp=2, matrices=(("q", "col"), ("o", "row"), ("down", "col")))),
}


@pytest.mark.parametrize("name", some_of(PLANS, 8))
def test_plans_of_every_form(name):
    model, count, plan = PLANS[name]
    steps = list(steps_of(model).values())
    for at in (0, 2) if len(name) % 2 else (1, 3):
        check(model, equal_arrays(count), plan, steps[at % len(steps)], WORKFLOW_OF_STEP[at])


@pytest.mark.slow
@pytest.mark.parametrize("phase", STEPS)
@pytest.mark.parametrize("name", PLANS)
def test_plans_of_every_form_in_every_phase(name, phase):
    model, count, plan = PLANS[name]
    steps = steps_of(model)
    if phase in steps:
        for workflow in SHARED_WORKFLOWS:
            check(model, equal_arrays(count), plan, steps[phase], workflow)


# -------------------------------------------------------------------------------------------- arrays that are not alike
def stage(ranks, first: int, layers: int, degrees: Degrees | None = None) -> StagePlan:
    """A stage whose layers are all shared alike."""
    return StagePlan(tuple(ranks), first, layers, (degrees or Degrees(tp=len(ranks)),) * layers)


UNLIKE = P(
    pipelines=(
        PipelinePlan((stage([6, 0], 0, 1), stage([3], 1, 3))),
        PipelinePlan((stage([1, 4, 5], 0, 4, Degrees(cp=3)),)),
        PipelinePlan((stage([2], 0, 2), stage([7], 2, 1), stage([2], 3, 1))),
    )
)


@pytest.mark.parametrize("phase", STEPS)
def test_pipelines_of_different_stages_one_of_which_comes_by_an_array_twice(phase):
    step = STEPS[phase] if phase != "chunk" else Prefill(3, prompt_len=[5, 7, 2], context_len=[3, 0, 1], logits="all")
    check("llama", equal_arrays(8, "mesh"), UNLIKE, step, "workflow-1")


MIXED = (
    arrays_like(4),
    arrays_like(6, dead_pes=(0, 3)),
    arrays_like(1),
    arrays_like(4, kind="mesh"),
    arrays_like(5),
    arrays_like(8, kind="ring"),
)


@pytest.mark.parametrize(("phase", "plan"), diagonal(list(STEPS), [P(tp=6), P(cp=6), P(tp=2, pp=3), P(pp=2, cp=3)]))
def test_arrays_of_different_sizes_networks_and_dead_pes(plan, phase):
    check("llama", system_of(MIXED, "torus"), plan, STEPS[phase], "workflow-1")


@pytest.mark.parametrize("workflow", some_of(SHARED_WORKFLOWS, 2))
def test_arrays_of_one_pe_share_tokens(workflow):
    alone = system_of((arrays_like(1), arrays_like(3, dead_pes=(0, 2)), arrays_like(2)))
    for phase in ("decode", "chunk"):
        check("llama", alone, P(cp=3), STEPS[phase], workflow)


@pytest.mark.parametrize("kind", some_of(LINK_KINDS, 2))
def test_dead_arrays_and_those_that_a_plan_leaves_out(kind):
    system = equal_arrays(8, kind, dead=(0, 5))
    for plan in (P(tp=2, cp=2, unused=(1, 6)), P(tp=3, pp=2), P(dp=2, pp=2, unused=(3, 4))):
        check("llama", system, plan, STEPS["decode"], "megatron")


def test_a_batch_of_fewer_sequences_than_shares():
    plan = P(layers=(Degrees(4, 1, 1), Degrees(1, 4, 1), Degrees(2, 2, 1), TWO))
    for step in (Decode(1, 3), Prefill(1, prompt_len=2), Prefill(2, prompt_len=[1, 2], logits="all")):
        check("llama", equal_arrays(4), plan, step, "workflow-2")


def test_arrays_that_have_no_token_take_no_part():
    """Of a sequence of one token all but one array have nothing to do, and nobody waits for them."""
    system = equal_arrays(4)
    for step in (Decode(1, 0), Prefill(1, prompt_len=1), Decode(2, context_len=[0, 1])):
        check("llama", system, P(cp=4), step, "workflow-1")
        check("llama", system, P(tp=2, cp=2), step, "megatron")
    timed = timed_of(MODELS["llama"], system, P(cp=4), Decode(1, 0))
    assert {task.array for task in timed.program.tasks if isinstance(task, ArrayPass)} == {0}
    alone = run_system_fast(timed.program, timed.pass_cycles)
    assert alone.end.tolist() == run_system_event(timed.program, timed.pass_cycles).end.tolist()


def test_tokens_of_the_next_step_go_to_where_they_are_looked_up():
    """Position p of sequence s is array (p + s) mod cp's; who has chosen a token already gets it from nobody."""

    def token_moves(plan, step):
        script = script_of(MODELS["llama"], equal_arrays(plan.tp * plan.pp * plan.cp), plan, step)[1]
        meetings = [each for each in script.actions if isinstance(each, MeetingAction) and each.kind == "tokens"]
        return [(move.source, move.target, move.rows) for each in meetings for move in each.moves]

    assert token_moves(P(), Decode(1, 4)) == []
    assert token_moves(P(pp=2), Decode(1, 4)) == [(1, 0, ((0, 5),))]
    assert token_moves(P(tp=2), Decode(1, 4)) == [(0, 1, ((0, 5),))]  # candidates meet at the first
    assert token_moves(P(tp=2, split_vocabulary=False), Decode(1, 4)) == []  # both have chosen it
    head = {"cp": 2, "head": Degrees(1, 2, 1)}
    # All logits of three rows: the last row is array 0's, and so is the choice; position 3 is array 1's.
    assert token_moves(P(**head), Prefill(1, prompt_len=3, logits="all")) == [(0, 1, ((0, 3),))]
