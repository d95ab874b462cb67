"""The proof bites: whichever exchange between arrays is left out or cut short, it is noticed."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest

from pe_sim.config.plans.plan import Degrees, ParallelPlan
from pe_sim.config.step import Decode, Prefill
from pe_sim.numeric.arrays import PlacementError
from pe_sim.systems.script import MeetingAction
from tests.helpers import some_of
from tests.numeric.cases import bert, llama
from tests.systems.cases import equal_arrays, executed, script_of

LLAMA = llama(num_hidden_layers=2, num_attention_heads=6, num_key_value_heads=6, head_dim=4)
TWO = Degrees(1, 1, 2)
SCRIPTS = {
    "operators in stages": (LLAMA, 4, ParallelPlan(tp=2, pp=2), Decode(4, context_len=[5, 0, 9, 3])),
    "operators and tokens": (LLAMA, 4, ParallelPlan(tp=2, cp=2), Decode(3, context_len=[5, 4, 9])),
    "tokens in stages": (
        LLAMA,
        6,
        ParallelPlan(cp=3, pp=2, microbatches=1),
        Prefill(2, prompt_len=[6, 7], context_len=[3, 0], logits="all"),
    ),
    "layers and head": (
        LLAMA,
        4,
        ParallelPlan(layers=(Degrees(4, 1, 1), Degrees(2, 1, 2)), head=Degrees(1, 1, 4)),
        Prefill(4, prompt_len=[3, 1, 4, 2]),
    ),
    "head over the rows": (
        LLAMA,
        2,
        ParallelPlan(tp=2, head=Degrees(1, 2, 1)),
        Prefill(2, prompt_len=[3, 4], logits="all"),
    ),
    "chunks": (LLAMA, 2, ParallelPlan(pp=2, microbatches=3), Prefill(2, prompt_len=[5, 3])),
    "an encoder": (bert(), 4, ParallelPlan(tp=2, cp=2), Prefill(2, prompt_len=[5, 3])),
}


@cache
def written(name: str):
    """The script."""
    model, count, plan, step = SCRIPTS[name]
    return script_of(model, equal_arrays(count), plan, step)[1]


def is_noticed(script) -> bool:
    """Whether the script cannot be executed, or gives wrong numbers."""
    try:
        _, error, agree = executed(script)
    except PlacementError:
        return True
    return error > 1e-4 or not agree


def with_action(script, at: int, *changed):
    """The script with other actions instead of one."""
    return replace(script, actions=(*script.actions[:at], *changed, *script.actions[at + 1 :]))


def meetings(script):
    """(index, exchange) of every exchange."""
    return [(at, action) for at, action in enumerate(script.actions) if isinstance(action, MeetingAction)]


@pytest.mark.parametrize("name", some_of(SCRIPTS, 3))
def test_an_untouched_script_computes_its_model(name):
    assert not is_noticed(written(name))


@pytest.mark.parametrize("name", some_of(SCRIPTS, 3))
def test_an_exchange_that_is_left_out_is_noticed(name):
    script = written(name)
    for at, action in meetings(script):
        assert is_noticed(with_action(script, at)), f"nobody missed {action.kind} {action.tensor} at {at}"


@pytest.mark.parametrize("name", some_of(SCRIPTS, 3))
def test_a_move_that_is_left_out_is_noticed(name):
    script = written(name)
    for at, action in meetings(script):
        for gone in range(len(action.moves)):
            moves = action.moves[:gone] + action.moves[gone + 1 :]
            changed = (replace(action, moves=moves),) if moves else ()
            assert is_noticed(with_action(script, at, *changed)), f"nobody missed move {gone} of {action.kind} at {at}"


@pytest.mark.parametrize("name", some_of(SCRIPTS, 3))
def test_a_member_that_is_left_out_is_noticed(name):
    script = written(name)
    for at, action in meetings(script):
        if action.moves or len(action.members) < 2:
            continue
        # Choices without the last member are right where the others have the best word.
        for gone in range(len(action.members) if action.kind != "choices" else 1):
            members = action.members[:gone] + action.members[gone + 1 :]
            rows = action.rows[:gone] + action.rows[gone + 1 :]
            changed = with_action(script, at, replace(action, members=members, rows=rows))
            assert is_noticed(changed), f"nobody missed {action.members[gone]} in {action.kind} at {at}"


def test_a_move_from_the_wrong_array_is_noticed():
    script = written("operators in stages")
    for at, action in meetings(script):
        if action.kind != "tokens":
            continue
        (first, *others) = action.moves
        other = 3 - first.source if first.source < 2 else 5 - first.source
        changed = replace(action, moves=(replace(first, source=other), *others))
        with pytest.raises(PlacementError, match="is not chosen where it is sent from"):
            executed(with_action(script, at, changed))


def test_the_scripts_have_every_kind_of_exchange():
    kinds = {action.kind for name in SCRIPTS for _, action in meetings(written(name))}
    assert kinds == {"sum", "queries", "attention", "stream", "choices", "tokens"}
