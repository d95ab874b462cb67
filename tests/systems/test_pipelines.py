"""Closed forms of stages in a row, and what more microbatches never change."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import strategies as st

from pe_sim.config.plans.plan import ParallelPlan
from pe_sim.config.step import Decode, Prefill
from pe_sim.engine.system_engines import run_system_fast
from pe_sim.schedule.system import ArrayPass, LinkTask
from tests.helpers import given_in_both
from tests.systems.cases import MODELS, counts_of, equal_arrays, timed_of

MODEL = MODELS["llama"]


def stage_cycles(timed) -> list[int]:
    """Cycles of each stage's pass, which are those of every part."""
    found: dict[int, set[int]] = {}
    for task in timed.program.tasks:
        if isinstance(task, ArrayPass):
            found.setdefault(task.stage, set()).add(timed.pass_cycles[task.work])
    assert all(len(cycles) == 1 for cycles in found.values())
    return [found[stage].pop() for stage in sorted(found)]


def link_cycles(timed, name: str) -> list[int]:
    """Cycles of each exchange of that name, by (stage, part)."""
    tasks = (task for task in timed.program.tasks if isinstance(task, LinkTask))
    used = [(task.stage, timed.program.operations[task.operation]) for task in tasks]
    of_stage = {stage: operation.cycles for stage, operation in used if operation.name == name}
    return [of_stage[stage] for stage in sorted(of_stage)]


def makespan(timed) -> int:
    """The last event."""
    return run_system_fast(timed.program, timed.pass_cycles).makespan_cycles


@pytest.mark.parametrize("workflow", ["workflow-1", "megatron", "workflow-2", "batch-stream"])
@pytest.mark.parametrize("parts", [1, 2, 5])
@pytest.mark.parametrize("stages", [2, 3, 4])
def test_a_pipeline_takes_its_filling_and_its_slowest_stage_for_every_other_part(stages, parts, workflow):
    """Sum of stages and transfers + (M - 1) times the slowest; then the last token goes to the first array."""
    step = Decode(parts, context_len=6)
    timed = timed_of(MODEL, equal_arrays(stages), ParallelPlan(pp=stages, microbatches=parts), step, workflow)
    passes, transfers = stage_cycles(timed), link_cycles(timed, "stream")
    (token,) = link_cycles(timed, "tokens")
    assert len(passes) == stages
    assert len(transfers) == stages - 1
    assert max(transfers) <= max(passes)
    assert makespan(timed) == sum(passes) + sum(transfers) + (parts - 1) * max(passes) + token


@pytest.mark.parametrize("stages", [2, 3, 4])
def test_stages_that_are_really_equal(stages):
    """(P - 1)(t + x) + M t, as the machine model says, and the token's way back; every array idles the rest."""
    parts, cycles = 5, 1000
    timed = timed_of(
        MODEL, equal_arrays(stages), ParallelPlan(pp=stages, microbatches=parts), Decode(parts, context_len=6)
    )
    times = run_system_fast(timed.program, [cycles] * len(timed.works))
    transfers = link_cycles(timed, "stream")
    (token,) = link_cycles(timed, "tokens")
    assert len(set(transfers)) == 1
    passed = (stages - 1) * (cycles + transfers[0]) + parts * cycles
    assert times.makespan_cycles == passed + token
    for stage in range(stages):
        own = [at for at, task in enumerate(timed.program.tasks) if isinstance(task, ArrayPass) and task.stage == stage]
        assert times.start[own[0]] == stage * (cycles + transfers[0])
        assert times.end[own].tolist() == [int(times.start[own[0]]) + cycles * (at + 1) for at in range(parts)]
        assert passed - parts * cycles == (stages - 1) * (cycles + transfers[0])  # the bubble of each


def test_a_slow_link_sets_the_pace():
    """A transfer that takes longer than every stage is one more stage, as long as its channel is occupied."""
    stages, parts = 3, 6
    timed = timed_of(
        MODEL, equal_arrays(stages), ParallelPlan(pp=stages, microbatches=parts), Decode(parts, context_len=6)
    )
    times = run_system_fast(timed.program, [1] * len(timed.works))
    (operation,) = [each for each in timed.program.operations if each.name == "stream" and each.members == (0, 1)]
    (busy,) = operation.busy_cycles.tolist()
    (token,) = link_cycles(timed, "tokens")
    assert busy > 1
    transfers = link_cycles(timed, "stream")
    assert times.makespan_cycles == stages + sum(transfers) + (parts - 1) * busy + token


def exchanged(timed) -> dict[str, int]:
    """Bytes between arrays by the name of the exchange."""
    found: dict[str, int] = {}
    for task in timed.program.tasks:
        if isinstance(task, LinkTask):
            operation = timed.program.operations[task.operation]
            num_bytes = sum(count for leg in operation.legs for _, _, count in leg.counted)
            found[operation.name] = found.get(operation.name, 0) + num_bytes
    return found


@given_in_both(
    4,
    15,
    st.sampled_from([ParallelPlan(pp=2), ParallelPlan(tp=2, pp=2), ParallelPlan(tp=3), ParallelPlan(tp=2, pp=3)]),
    st.lists(st.integers(0, 9), min_size=1, max_size=6),
    st.integers(1, 8),
)
def test_parts_never_change_what_rows_move(plan, contexts, parts):
    """Decode: bytes between arrays are those of the rows, in however many parts they come."""
    count = plan.tp * plan.pp * plan.cp
    step = Decode(context_len=contexts)
    whole = timed_of(MODEL, equal_arrays(count), replace(plan, microbatches=1), step)
    parted = timed_of(MODEL, equal_arrays(count), replace(plan, microbatches=parts), step)
    assert exchanged(parted) == exchanged(whole)


@pytest.mark.parametrize("parts", [1, 2, 3, 6])
def test_a_transfer_is_one_message_a_part(parts):
    timed = timed_of(MODEL, equal_arrays(3), ParallelPlan(pp=3, microbatches=parts), Prefill(2, prompt_len=[6, 6]))
    transfers = [
        operation
        for task in timed.program.tasks
        if isinstance(task, LinkTask) and (operation := timed.program.operations[task.operation]).name != "tokens"
    ]
    assert len(transfers) == 2 * parts
    assert exchanged(timed)["stream"] == 2 * 12 * MODEL.hidden_size * 2  # transfers, rows, bf16
    assert counts_of(timed)["unicast"][0] >= 2 * parts


def test_pipelines_of_a_plan_have_nothing_to_do_with_each_other():
    """Each takes as long as a plan of it alone; their links do not meet on a crossbar."""
    contexts = [3, 5, 0, 9]
    both = timed_of(MODEL, equal_arrays(4, "crossbar"), ParallelPlan(dp=2, pp=2), Decode(context_len=contexts))
    times = run_system_fast(both.program, both.pass_cycles)
    for line in range(2):
        own = [at for at, task in enumerate(both.program.tasks) if task.pipeline == line]
        alone = timed_of(
            MODEL,
            equal_arrays(4, "crossbar"),
            ParallelPlan(pp=2, unused=(1 - line, 3 - line)),
            Decode(context_len=contexts[2 * line : 2 * line + 2]),
        )
        assert int(times.end[own].max()) == makespan(alone)
