"""What users give and get of several arrays: loose inputs, foreign plans, and the proof of a plan."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import pe_sim as ps
from pe_sim.config.plans.plan import Degrees, ParallelPlan
from pe_sim.config.plans.schema import plan_to_dict
from pe_sim.config.systems.load import as_system, system_of_one, system_to_dict
from pe_sim.graph.shares import OperatorShare, head_share
from pe_sim.mapping.workflow import WORKFLOWS
from pe_sim.numeric.reference import run_reference
from pe_sim.numeric.state_dict import random_weights, read_weights
from pe_sim.systems import execution
from pe_sim.systems.api import as_plan
from tests.helpers import calls_in
from tests.report.samples import TINY, array_of
from tests.report.system_samples import DECODE, MODEL, system_of

FOREIGN = Path(__file__).resolve().parents[1] / "data" / "foreign"
HETU = ("dp1_tp2_pp2", "dp2_tp1_pp2", "dp1_tp4_pp1")
GALVATRON = FOREIGN / "galvatron/strategy/galvatron_config_llama2-7b_1nodes_8gpus_per_node_36GB_bf16.json"
PLAN = ParallelPlan(tp=2, pp=2)


# ------------------------------------------------------------------------------------------------------- loose inputs
def test_what_is_exported():
    names = {"load_system", "load_plan", "simulate_system", "execute_system", "verify_system", "SystemReport"}
    assert names | {"generate_llama_4d_config", "generate_llama_hetero_4d_config"} <= set(ps.__all__)
    assert all(callable(getattr(ps, name)) for name in names)


def test_systems_by_name_path_mapping_and_array(tmp_path):
    system = system_of(4)
    path = tmp_path / "system.json"
    path.write_text(json.dumps(system_to_dict(system)), encoding="utf-8")
    expected = ps.simulate_system(MODEL, system, DECODE, PLAN).to_json()
    for given in (path, str(path), system_to_dict(system)):
        assert ps.simulate_system(MODEL, given, DECODE, PLAN).to_json() == expected
    assert as_system("ring-of-4-bus-tree-1024").num_arrays == 4
    assert as_system(array_of(6)) == system_of_one(array_of(6))


def test_the_functions_for_one_array_take_several():
    system, step, inside = system_of(4, "ring", 3), ps.Decode(2, 7), "megatron"
    report = ps.simulate(MODEL, system, step, inside, plan=PLAN)
    assert isinstance(report, ps.SystemReport)
    assert report.to_json() == ps.simulate_system(MODEL, system, step, PLAN, inside).to_json()
    weights, tokens = random_weights(MODEL, 3), [[1] * 8] * 2
    done = ps.execute(MODEL, system, step, inside, plan=PLAN, weights=weights, tokens=tokens)
    same = ps.execute_system(MODEL, system, step, PLAN, inside, weights=weights, tokens=tokens)
    np.testing.assert_array_equal(done.logits, same.logits)
    assert done.traffic == same.traffic
    assert str(ps.verify(MODEL, system, inside, plan=PLAN)) == str(ps.verify_system(MODEL, system, PLAN, inside))
    found = ps.search(MODEL, system, step, workflow=inside, max_simulations=2)
    own = ps.search_system(MODEL, system, step, workflow=inside, max_simulations=2)
    assert (found.headline(), found.table.to_csv()) == (own.headline(), own.table.to_csv())


def test_a_plan_for_one_array_makes_it_a_system():
    report = ps.simulate(MODEL, array_of(6), DECODE, plan=ParallelPlan(name="alone"))
    assert report.plan.name == "alone"
    assert report.latency_cycles == ps.simulate(MODEL, array_of(6), DECODE).latency_cycles


@pytest.mark.parametrize("do", [ps.verify, lambda *given: ps.execute(*given[:2], DECODE, weights={}, tokens=[])])
def test_several_arrays_are_proved_and_executed_by_a_plan(do):
    with pytest.raises(ps.InputError, match=r"^plan: several arrays need a plan\n"):
        do(MODEL, system_of(4))


def test_both_reports_are_one_kind_of_result():
    one, several = ps.simulate(MODEL, array_of(6), DECODE), ps.simulate(MODEL, system_of(4), DECODE, plan=PLAN)
    for report in (one, several):
        told = report.to_dict()
        assert json.loads(report.to_json()) == told
        assert [row.to_dict() for row in report.operators] == told["operators"]
        assert len(report.to_frame()) == len(report.operators)
        assert report.latency_seconds == report.latency_cycles / (report.machine.clock_ghz * 1e9)
    assert set(one.energy) == set(several.energy)


def test_plans_by_path_and_mapping(tmp_path):
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(plan_to_dict(PLAN)), encoding="utf-8")
    expected = ps.simulate_system(MODEL, system_of(4), DECODE, PLAN)
    for given in (path, str(path), plan_to_dict(PLAN), {"tp": 2, "pp": 2}):
        report = ps.simulate_system(MODEL, system_of(4), DECODE, given)
        assert report.latency_cycles == expected.latency_cycles
        assert report.lines == expected.lines


def test_models_by_mapping():
    model = {**TINY, "num_hidden_layers": 5}
    report = ps.simulate_system(model, system_of(4), DECODE, PLAN)
    assert report.latency_cycles == ps.simulate_system(MODEL, system_of(4), DECODE, PLAN).latency_cycles


def test_one_array_needs_no_plan():
    array = array_of(6)
    report = ps.simulate_system(MODEL, array, DECODE)
    assert report.plan.name == "one array"
    assert report.latency_cycles == ps.simulate(MODEL, array, DECODE).latency_cycles


def test_several_arrays_without_a_plan_get_one_that_is_searched():
    system = system_of(2)
    report = ps.simulate_system(MODEL, system, DECODE, workflow="megatron")
    assert {rank for line in report.lines for stage in line.stages for rank in stage.arrays} <= {0, 1}
    given = [ParallelPlan(dp=2), ParallelPlan(tp=2), ParallelPlan(pp=2), ParallelPlan(cp=2)]
    others = [ps.simulate_system(MODEL, system, DECODE, plan, "megatron").latency_cycles for plan in given]
    assert report.latency_cycles <= min(others)


@pytest.mark.slow
def test_a_searched_workflow_is_no_worse_than_named_ones():
    model, system = replace(MODEL, num_layers=2), system_of(4, "ring", 3)
    found = ps.simulate_system(model, system, DECODE, PLAN, "auto").latency_cycles
    for name in ("workflow-1", "workflow-2", "megatron"):
        assert found <= ps.simulate_system(model, system, DECODE, PLAN, name).latency_cycles


def test_a_dead_array_takes_no_part():
    system = replace(system_of(4), dead_arrays=(1,))
    report = ps.simulate_system(MODEL, system, DECODE, ParallelPlan(pp=3))
    assert [each.rank for each in report.holdings] == [0, 2, 3]
    with pytest.raises(ps.InputError, match="without 1 that are not used"):
        ps.simulate_system(MODEL, system, DECODE, PLAN)


def test_overlap_of_a_plan_counts():
    plain = ps.simulate_system(MODEL, system_of(4), DECODE, PLAN)
    report = ps.simulate_system(MODEL, system_of(4), DECODE, replace(PLAN, overlap=3))
    assert plain.overlaps == (1,)
    assert report.overlaps == (3,)
    assert report.to_dict()["overlap"] == 3
    assert report.latency_cycles != plain.latency_cycles


def test_progress_tells_of_every_pass():
    told = []
    report = ps.simulate_system(MODEL, system_of(4), DECODE, PLAN, progress=lambda *news: told.append(news))
    assert [what for what, _, _ in told] == ["passes"] * len(report.works)
    assert [done for _, done, _ in told] == list(range(len(report.works)))
    assert {of for _, _, of in told} == {len(report.works)}


def test_work_grows_with_the_batch_and_not_with_its_square():
    def run(batch):
        ps.simulate_system(MODEL, system_of(4), ps.Decode(batch, 16), ParallelPlan(tp=2, dp=2), allow_overflow=True)

    run(100)  # imports
    few, more, most = (calls_in(lambda batch=batch: run(batch)) for batch in (100, 200, 400))
    assert most - more <= 2.2 * (more - few)


# ---------------------------------------------------------------------------------------------------- foreign plans
@pytest.mark.parametrize("name", HETU)
def test_hetu_plans_run(name):
    model = ps.load_model("llama-7b", {"hidden_size": 256, "num_heads": 8, "num_kv_heads": 8, "ffn_size": 344})
    path = FOREIGN / "hetu" / f"{name}.json"
    report = ps.simulate_system(model, system_of(4), ps.Decode(4, 16), path, "megatron")
    words = dict(zip(("dp", "tp", "pp"), (int(part[2:]) for part in name.split("_")), strict=True))
    assert len(report.lines) == words["dp"]
    assert [len(line.stages) for line in report.lines] == [words["pp"]] * words["dp"]
    assert {one.tp for line in report.lines for stage in line.stages for one in stage.degrees} == {words["tp"]}
    assert len(report.holdings) == 4
    assert report.plan.name == name


def test_galvatron_strategy_runs():
    model = ps.load_model("llama-2-7b", {"hidden_size": 256, "num_heads": 8, "num_kv_heads": 8, "ffn_size": 344})
    report = ps.simulate_system(model, system_of(8), ps.Decode(8, 16), GALVATRON, "megatron")
    assert len(report.holdings) == 8
    assert sum(stage.num_layers for stage in report.lines[0].stages) == 32
    with pytest.raises(ps.InputError):
        ps.simulate_system(model, system_of(3), ps.Decode(8, 16), GALVATRON, "megatron")


# ------------------------------------------------------------------------------------------------------- real numbers
def test_execute_gives_the_reference_and_the_simulated_traffic():
    weights = random_weights(MODEL, 3)
    step = ps.Decode(3, 7)
    tokens = np.random.default_rng(3).integers(0, MODEL.vocab_size, (3, 8)).tolist()
    done = ps.execute_system(MODEL, system_of(4), step, PLAN, "megatron", weights=weights, tokens=tokens)
    read = read_weights(MODEL, weights)
    references = run_reference(MODEL, read, [np.array(row) for row in tokens], [np.zeros(8, dtype=np.int64)] * 3)
    for given, expected in zip(done.logits, references, strict=True):
        np.testing.assert_allclose(given[0], expected.output[-1], atol=1e-4)
    timed = ps.simulate_system(MODEL, system_of(4), step, PLAN, "megatron").traffic
    assert dict(done.traffic) == {tag: use for tag, use in timed.items() if use.messages}


@pytest.mark.parametrize(
    ("model", "count", "plan", "workflow"),
    [
        ("llama-3-8b", 4, {"tp": 2, "pp": 2}, "megatron"),
        ("llama-3-8b", 4, {"dp": 2, "cp": 2}, "workflow-2"),
        ("gpt2", 3, {"tp": 3}, "alternating"),
        ("bert-base-uncased", 4, {"tp": 2, "pp": 2}, "workflow-1"),
        ("llama-2-7b", 2, {"dp": 2}, "batch-lockstep"),
    ],
)
def test_plans_are_proven(model, count, plan, workflow):
    found = ps.verify_system(model, system_of(count, "ring", 4), plan, workflow)
    assert found.holds
    assert len(found.verdicts) == (1 if "bert" in model else 4)
    assert all(verdict.traffic_differences == () for verdict in found.verdicts.values())
    assert f"on {count} arrays" in str(found)
    assert str(found).endswith("proven")
    assert found.num_pes == 4 * count
    assert json.loads(json.dumps(found.to_dict()))["holds"] is True


def test_own_weights_are_taken():
    found = ps.verify_system(MODEL, system_of(4, "ring", 3), PLAN, weights=random_weights(MODEL, 1))
    assert found.holds
    assert found.model == MODEL


def test_wrong_numbers_and_traffic_are_seen(monkeypatch):
    def spoilt(script, *args, **kwargs):
        done = execute(script, *args, **kwargs)
        return replace(done, logits=done.logits + 1, traffic={})

    execute = execution.execute_script
    monkeypatch.setattr(execution, "execute_script", spoilt)
    found = ps.verify_system(MODEL, system_of(4, "ring", 3), PLAN)
    assert not found.holds
    assert "NOT proven" in str(found)
    assert "reduce: 0 messages of 0 bytes were moved" in str(found)


def test_a_plan_that_names_its_layers_keeps_them():
    model = ps.load_model("gpt2", {"num_layers": 7})
    for plan in (
        {"pp": 3, "tp": 1, "partition": [0, 1, 4, 7]},
        {"pp": 3, "num_layers": 7},
        {"pp": 3, "layers": [{"tp": 1, "times": 7}]},
        {"pipelines": [{"stages": [{"arrays": [0], "layers": 5}, {"arrays": [1, 2], "layers": 2}]}]},
    ):
        found = ps.verify_system(model, system_of(3, "ring", 2), plan, "megatron")
        assert found.holds
        assert found.model.num_layers == 7
    assert ps.verify_system(model, system_of(3, "ring", 3), {"pp": 3}).model.num_layers == 4


@pytest.mark.parametrize("ways", [[1], [2], [2, 4], [3], [8], [16], [2, 16], [64]])
@pytest.mark.parametrize("name", ["llama-3.1-405b", "llama-2-70b", "llama-2-7b", "gpt2"])
def test_small_models_fit_the_degrees(name, ways):
    model = ps.load_model(name)

    def fits(one, of):
        try:
            head_share(one, OperatorShare(0, of))
        except ps.InputError:
            return False
        return True

    if not all(fits(model, of) for of in ways):
        return
    plan = ParallelPlan(layers=tuple(Degrees(ways[-1] // of, 1, of) for of in (*ways,) * model.num_layers))
    plan = replace(plan, layers=plan.layers[: model.num_layers])
    system = system_of(ways[-1], "switch", 2) if ways[-1] > 1 else system_of_one(array_of(2))
    deployment = execution._deployment(model, system, as_plan(plan, system), WORKFLOWS["megatron"])
    small = execution.small_model(model, system, plan, WORKFLOWS["megatron"], deployment)
    assert all(fits(small, of) for of in ways)
    assert small.num_heads <= model.num_heads
    assert (small.num_kv_heads == small.num_heads) == (model.num_kv_heads == model.num_heads)
    assert small.ffn_size > ways[-1]
    assert small.hidden_size == small.num_heads * small.head_dim


# ------------------------------------------------------------------------------------------------------------- errors
def test_wrong_input_is_named():
    with pytest.raises(ps.InputError, match="unknown system"):
        ps.simulate_system(MODEL, "ring-of-five", DECODE, PLAN)
    with pytest.raises(ps.InputError, match="no such file"):
        ps.simulate_system(MODEL, system_of(4), DECODE, "plan.yaml")
    with pytest.raises(ps.InputError, match="not a plan"):
        ps.simulate_system(MODEL, system_of(4), DECODE, 3)
    with pytest.raises(ps.InputError, match="no such engine"):
        ps.simulate_system(MODEL, system_of(4), DECODE, PLAN, engine="quick")
    with pytest.raises(ps.InputError, match="no workflow is called"):
        ps.simulate_system(MODEL, system_of(4), DECODE, PLAN, "quick")
    with pytest.raises(ps.InfeasibleError, match="of array 0"):
        ps.simulate_system("llama-2-7b", system_of(4), DECODE, PLAN)
    assert ps.simulate_system("llama-2-7b", system_of(4), DECODE, PLAN, allow_overflow=True).latency_cycles > 0
