"""Both engines agree to the cycle on every task of a step: passes by one against the other, and the program, too."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from pe_sim.config.plans.plan import ParallelPlan
from pe_sim.config.step import Decode, Prefill
from pe_sim.engine.system_engines import run_system_fast
from pe_sim.engine.system_event import run_system_event
from pe_sim.schedule.system import ArrayPass, SystemTimes
from pe_sim.systems.timing import TimedScript, Timer
from tests.helpers import diagonal
from tests.systems.cases import LINK_KINDS, MODELS, equal_arrays, script_of, timed_of
from tests.systems.draws import cases

PLANS = {
    "all": (8, ParallelPlan(dp=2, tp=2, pp=2), Decode(4, [5, 0, 9, 3])),
    "tokens": (8, ParallelPlan(tp=2, cp=2, pp=2, microbatches=4), Decode(5, [5, 0, 9, 3, 7])),
    "chunks": (4, ParallelPlan(tp=2, pp=2), Prefill(3, prompt_len=[6, 3, 4])),
    "operators": (6, ParallelPlan(tp=6), Prefill(2, prompt_len=[3, 2], logits="all")),
}


def agreed(script) -> tuple[TimedScript, SystemTimes]:
    """The program and its times, if the engines agree on every pass and every task."""
    timed, events = Timer("fast").timed(script), Timer("event").timed(script)
    assert timed.pass_cycles == events.pass_cycles
    fast = run_system_fast(timed.program, timed.pass_cycles)
    event = run_system_event(events.program, events.pass_cycles)
    np.testing.assert_array_equal(fast.start, event.start)
    np.testing.assert_array_equal(fast.end, event.end)
    return timed, fast


def check_order(timed: TimedScript, times: SystemTimes) -> None:
    """What holds of any program: tasks wait, an array works on one pass at a time, nothing takes less than alone."""
    tasks, works = timed.program.tasks, timed.pass_cycles
    latest: dict[int, int] = {}
    for index, task in enumerate(tasks):
        alone = works[task.work] if isinstance(task, ArrayPass) else timed.program.operations[task.operation].cycles
        assert times.end[index] == times.start[index] + alone
        assert all(times.end[other] <= times.start[index] for other in task.after)
        if isinstance(task, ArrayPass):
            assert times.start[index] >= latest.get(task.array, 0)
            latest[task.array] = times.end[index]


@pytest.mark.parametrize(("kind", "name"), diagonal(LINK_KINDS, list(PLANS)))
def test_fixed_plans_on_all_kinds_of_links(name, kind):
    count, plan, step = PLANS[name]
    check_order(*agreed(script_of(MODELS["llama"], equal_arrays(count, kind), plan, step)[1]))


@settings(max_examples=5)
@given(cases())
def test_any_plan_on_any_system(case):
    check_order(*agreed(script_of(case.model, case.system, case.plan, case.step, case.workflow)[1]))


@pytest.mark.slow
@settings(max_examples=300)
@given(cases())
def test_any_plan_on_any_system_many_times(case):
    check_order(*agreed(script_of(case.model, case.system, case.plan, case.step, case.workflow)[1]))


def test_what_an_array_does_again_is_simulated_once():
    """Of four stages the two in the middle do the same with every part, and all parts are alike."""
    timed = timed_of(MODELS["llama"], equal_arrays(4), ParallelPlan(pp=4), Decode(4, 6))
    assert len(timed.works) == 3
    assert sum(isinstance(task, ArrayPass) for task in timed.program.tasks) == 16
