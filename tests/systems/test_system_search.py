"""The search over plans: against all plans there are, under the memories, and what it says of what it leaves out."""

from dataclasses import replace
from itertools import product

import pytest
from hypothesis import assume

import pe_sim as ps
from pe_sim.config.plans.load import load_plan
from pe_sim.config.plans.plan import ParallelPlan
from pe_sim.config.step import Decode, Prefill
from pe_sim.errors import InfeasibleError, InputError
from pe_sim.mapping.workflow import WORKFLOWS, load_workflow
from pe_sim.mapping_search.budget import Budget
from pe_sim.systems.search.search import best_plan, period_cycles, resolved_workflow, search_system
from pe_sim.systems.search.space import Allowed, Shape, Space
from pe_sim.systems.search.workflows import Option, Workflows
from pe_sim.systems.simulation import run_system
from tests.helpers import given_in_both, some_of
from tests.mapping_search.test_search import Clock
from tests.systems import draws
from tests.systems.cases import MODELS, arrays_like, equal_arrays, system_of

NAMES = ("workflow-2", "megatron")
DECODE, PREFILL = Decode(3, 20), Prefill(2, prompt_len=(9, 6))
EVERYTHING = 10_000


def every_plan(model, system, step):
    """All degrees on all or a part of the arrays, by loops of its own; microbatches as the search has them."""
    count = len(system.alive)
    for dp, tp, pp, cp in product(range(1, count + 1), repeat=4):
        used = dp * tp * pp * cp
        if used > count or (count % used and used & (used - 1)) or dp > step.batch_size or pp > model.num_layers:
            continue
        largest = -(-step.batch_size // dp)
        parts = largest if isinstance(step, Decode) else max(span.new_len for span in step.sequences[:largest])
        wanted = [1, 2, 4, 8, 16, pp, 2 * pp] if pp > 1 else [1]
        for microbatches in {min(each, parts) for each in wanted if each <= 2 * pp}:
            yield ParallelPlan(
                dp=dp, tp=tp, pp=pp, cp=cp, microbatches=microbatches, unused=system.alive[used:], name="searched"
            )


def cycles_of(model, system, step, plan, workflow):
    try:
        return run_system(model, system, step, plan, WORKFLOWS[workflow], "fast").times.makespan_cycles
    except InputError:
        return None


@pytest.mark.parametrize(
    ("name", "count", "step", "kind"),
    [
        pytest.param("llama", 4, Decode(2, 20), "ring", marks=pytest.mark.slow),
        pytest.param("llama", 3, PREFILL, "crossbar", marks=pytest.mark.slow),
        ("uneven", 2, DECODE, "ring"),
    ],
)
def test_is_the_best_of_all_plans(name, count, step, kind):
    model, system = MODELS[name], equal_arrays(count, kind)
    found = search_system(
        model, system, step, workflows=NAMES, max_simulations=EVERYTHING, max_searches=0, varied=0,
        workflow=WORKFLOWS["workflow-2"],
    )  # fmt: skip
    every = {plan: cycles_of(model, system, step, plan, "workflow-2") for plan in every_plan(model, system, step)}
    best = min(cycles for cycles in every.values() if cycles is not None)
    assert found.bound_cycles <= found.best.cycles == best == found.report.latency_cycles
    for one in found.tried:
        assert every[one.plan] == one.cycles, one.plan
    left = [cycles for plan, cycles in every.items() if plan not in {one.plan for one in found.tried}]
    assert all(cycles is None or cycles >= best for cycles in left)
    assert found.counts.ruled_out + len(found.tried) == sum(cycles is not None for cycles in every.values())


@pytest.mark.parametrize("step", some_of([DECODE, PREFILL, Decode(1, 40)], 1))
@pytest.mark.parametrize(("name", "workflow"), [("gqa", "megatron"), ("uneven", "workflow-2")])
def test_bounds_hold_for_every_plan(name, workflow, step):
    model, system = MODELS[name], equal_arrays(3)
    space = Space(model, system, step, Allowed())
    for shape in space.shapes[0]:
        run = run_system(model, system, step, shape.plan(system), WORKFLOWS[workflow], "fast")
        assert space.busy_cycles(shape) <= space.least_cycles(shape) <= run.times.makespan_cycles, shape
        assert space.least_bytes_per_pe(shape) <= max(each.peak_bytes_per_pe for each in run.memory), shape


@given_in_both(20, 150, draws.cases())
def test_no_plan_keeps_its_arrays_less_busy_than_its_bound(case):
    """Of any workflow, with weights from the root or not, an LM head elsewhere and layers cut in any way."""
    plan = case.plan
    assume(not plan.layers and not plan.pipelines)
    shape = Shape(plan.dp, plan.tp, plan.pp, plan.cp)
    try:
        run = run_system(case.model, case.system, case.step, plan, case.workflow, "fast")
    except InputError:
        assume(False)
    least = Space(case.model, case.system, case.step, Allowed()).busy_cycles(shape)
    assert least <= period_cycles(run) <= run.times.makespan_cycles


def test_few_simulations_find_what_all_find_here():
    """The order of the estimates is good enough to have the best among the first few."""
    model, system = MODELS["llama"], equal_arrays(3, "crossbar")
    chosen = WORKFLOWS["megatron"]
    every = search_system(model, system, DECODE, workflow=chosen, max_simulations=EVERYTHING, varied=0)
    few = search_system(model, system, DECODE, workflow=chosen, max_simulations=3, varied=0)
    assert len(few.tried) <= 3 < len(every.tried)
    assert few.best.cycles == every.best.cycles
    assert few.counts.estimated >= few.counts.possible > 3


@pytest.mark.slow
def test_is_deterministic_and_orders_what_it_tried():
    model, system = MODELS["gqa"], equal_arrays(2)
    step = Decode(1, 20)
    first, second = (search_system(model, system, step, max_simulations=3, max_searches=1) for _ in range(2))
    assert first.table.equals(second.table)
    assert first.plan == second.plan
    assert first.refused == second.refused
    cycles = [one.cycles for one in first.tried]
    assert cycles == sorted(cycles)
    assert first.best is first.tried[0]


@pytest.mark.slow
def test_one_array_takes_what_ps_search_takes():
    model, array, step = MODELS["gqa"], arrays_like(4), Decode(1, 20)
    alone = ps.search(model, array, step, max_simulations=4)
    found = search_system(model, system_of((array,)), step, max_simulations=4)
    assert found.best.cycles == alone.best.cycles
    named = search_system(model, array, step, workflow="megatron")
    assert named.best.cycles == ps.simulate(model, array, step, "megatron").latency_cycles
    assert named.headline().endswith(
        "dp 1 x tp 1 x pp 1 x cp 1 under megatron takes"
        f" {named.best.cycles:,} cycles, best of 1 simulated"
        " (1 possible, 0 estimated, 0 ruled out by a bound, 0 refused),"
        f" at most {named.gap:.2%} above the optimum"
    )


def with_capacity(system, num_bytes):
    array = system.arrays[0]
    memory = replace(array.pe.memory, capacity_bytes=num_bytes)
    smaller = replace(array, pe=replace(array.pe, memory=memory))
    return replace(system, arrays=(smaller,) * system.num_arrays)


def test_memory_decides_what_can_be():
    model, system = MODELS["llama"], equal_arrays(3)
    chosen = WORKFLOWS["megatron"]
    free = search_system(model, system, DECODE, workflow=chosen, max_simulations=EVERYTHING, varied=0)
    peaks = sorted({one.peak_bytes_per_pe for one in free.tried})
    capacity = peaks[len(peaks) // 2]
    found = search_system(
        model, with_capacity(system, capacity), DECODE, workflow=chosen, max_simulations=EVERYTHING, varied=0
    )
    assert found.best.peak_bytes_per_pe <= capacity
    assert found.best.cycles == min(one.cycles for one in free.tried if one.peak_bytes_per_pe <= capacity)
    short = [one for one in found.refused if one.reason == "memory of a PE"]
    assert short
    assert all(one.needed > one.available == capacity for one in short)


def test_nothing_fits_says_what_would():
    system = with_capacity(equal_arrays(2), 100)
    with pytest.raises(
        InfeasibleError, match="no plan fits the memories of ring of 2; the least hungry is dp 1 x"
    ) as told:
        search_system(MODELS["llama"], system, Decode(1, 8))
    error = told.value
    assert error.bound == 100 < error.demand
    assert error.levers[0] == (
        f"memories of at least x{error.demand / 100:.2f} (--set array.pe.memory.capacity_bytes={error.demand})"
    )
    assert error.levers[1].endswith("arrays like these")


def test_refusals_are_listed_with_their_reasons():
    model, system = MODELS["gqa"], equal_arrays(4)
    found = search_system(model, system, Decode(1, 3), workflow="workflow-1", max_simulations=2, varied=0)
    reasons = {(one.shape, one.reason) for one in found.refused}
    assert ("dp 2 x tp 2 x pp 1 x cp 1", "dp 2 for a batch of 1") in reasons
    assert ("dp 1 x tp 1 x pp 4 x cp 1", "pp 4 for 3 layers") in reasons
    three = search_system(model, equal_arrays(3), Decode(1, 3), workflow="workflow-1", max_simulations=2, varied=0)
    (heads,) = [one for one in three.refused if one.shape == "dp 1 x tp 3 x pp 1 x cp 1"]
    assert heads.reason == f"the heads of {model.name} cannot be shared out over 3 arrays"


def test_only_what_is_allowed():
    model, system = MODELS["llama"], equal_arrays(4)
    allowed = Allowed(tp=(2,), arrays=(4,), microbatches=(2,))
    found = search_system(model, system, DECODE, workflow="megatron", allowed=allowed, varied=0)
    assert {one.num_arrays for one in found.tried} == {4}
    assert {one.plan.tp for one in found.tried} == {2}
    assert {one.plan.microbatches for one in found.tried if one.plan.pp > 1} == {2}
    with pytest.raises(InputError, match=r"no degrees are allowed that make use of the arrays\n  given:    'tp \d"):
        search_system(model, system, DECODE, allowed=Allowed(tp=(3,), arrays=(4,)))
    with pytest.raises(InputError, match=r"allowed\.dp: not a number of shares"):
        Allowed(dp=(0,))


@pytest.mark.slow
def test_variations_are_never_worse():
    model, system = MODELS["gqa"], equal_arrays(2)
    plain, varied = (
        search_system(model, system, DECODE, workflow="megatron", allowed=Allowed(dp=(1,)), varied=count)
        for count in (0, 3)
    )
    assert varied.best.cycles <= plain.best.cycles
    assert any(one.plan.head is not None for one in varied.tried)
    assert {one.plan for one in plain.tried} < {one.plan for one in varied.tried}


def test_throughput_makes_the_period_least():
    model, system = MODELS["llama"], equal_arrays(2, "crossbar")
    chosen = WORKFLOWS["workflow-2"]
    fast = search_system(model, system, PREFILL, workflow=chosen, max_simulations=EVERYTHING, varied=0)
    many = search_system(model, system, PREFILL, "throughput", workflow=chosen, max_simulations=EVERYTHING, varied=0)
    assert many.best.period_cycles <= min(one.period_cycles for one in fast.tried)
    assert all(one.period_cycles <= one.cycles for one in many.tried)
    space = Space(model, system, PREFILL, Allowed())
    for one in many.tried:
        plan = one.plan
        assert space.least_period(Shape(plan.dp, plan.tp, plan.pp, plan.cp, plan.microbatches)) <= one.period_cycles


def test_files_read_back_and_simulate_to_the_same(tmp_path):
    model, system = MODELS["gqa"], equal_arrays(2)
    step = Decode(1, 20)
    found = search_system(model, system, step, max_simulations=3, max_searches=1)
    found.save_plan(tmp_path / "plan.yaml")
    found.save_workflow(tmp_path / "inside.yaml")
    plan, inside = load_plan(tmp_path / "plan.yaml"), load_workflow(tmp_path / "inside.yaml")
    assert replace(plan, source="") == found.plan
    assert run_system(model, system, step, plan, inside, "fast").times.makespan_cycles == found.best.cycles


def test_plan_and_workflow_that_others_ask_for():
    model, system, step = MODELS["gqa"], equal_arrays(2), Decode(1, 20)
    plan = best_plan(model, system, step, WORKFLOWS["megatron"])
    assert cycles_of(model, system, step, plan, "megatron") is not None
    given = ParallelPlan(tp=2)
    workflow = resolved_workflow(model, system, step, given, ps.load_workflow("auto"))
    cycles = run_system(model, system, step, given, workflow, "fast").times.makespan_cycles
    named = [cycles_of(model, system, step, given, name) for name in NAMES]
    assert cycles <= min(one for one in named if one is not None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective": "energy"}, "objective: unknown objective"),
        ({"max_simulations": 0}, "max_simulations: a search simulates at least one plan"),
        ({"workflows": ("megatrn",)}, "workflows: no workflow is called 'megatrn'"),
        ({"step": 3}, "step: this is no step"),
    ],
)
def test_wrong_input(changes, message):
    given = {"step": DECODE, **changes}
    with pytest.raises(InputError) as told:
        search_system(MODELS["llama"], equal_arrays(2), **given)
    assert str(told.value).startswith(message)


def test_searches_for_shares_are_counted_once_each(monkeypatch):
    options = Workflows(MODELS["llama"], equal_arrays(2), load_workflow("auto"), ("megatron",), 3)
    monkeypatch.setattr(Workflows, "_search", lambda self, *share: Option("searched", WORKFLOWS["megatron"]))
    assert options.num_searched == 0
    for tp, step in ((1, Decode(1, 9)), (2, Decode(1, 9)), (2, Decode(1, 9)), (2, Decode(1, 4))):
        assert options.of_share(tp, step, 1).label == "searched"
    assert options.num_searched == 3


@pytest.mark.slow
def test_a_stopped_search_tells_its_gap(monkeypatch):
    """Stopped by a clock that counts how often it is read, at several places; a plan is there all the same."""
    model, system, step = MODELS["gqa"], equal_arrays(2), Decode(2, 20)
    whole = search_system(model, system, step, max_simulations=3, max_searches=1)
    assert whole.stopped is None
    assert f"at most {whole.gap:.2%} above the optimum" in whole.headline()
    assert 0 <= whole.gap < 1
    for seconds in (2, 200):
        monkeypatch.setattr("pe_sim.systems.search.search.budget_of", lambda seconds: Budget(seconds, Clock()))
        found = search_system(model, system, step, max_simulations=3, max_searches=1, seconds=seconds)
        assert found.stopped == "time"
        assert found.best.cycles >= whole.best.cycles
        assert found.best.cycles == found.report.latency_cycles
        assert found.headline().endswith(f", at most {found.gap:.2%} above the optimum; stopped after {seconds} s")
        told = found.to_dict()
        assert (told["stopped"], told["gap"]) == ("time", 1 - told["bound_cycles"] / told["cycles"])
        assert told["bound_cycles"] == whole.bound_cycles <= whole.best.cycles
