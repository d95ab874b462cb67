"""A row holds what `simulate` says, and its key is of the resolved config and nothing else."""

import pytest

import pe_sim as ps
from pe_sim.config.arrays.load import array_to_dict
from pe_sim.studies import grid as keys_module
from pe_sim.studies import rows
from pe_sim.studies.resolve import Resolver
from pe_sim.studies.rows import FAULT, INPUT, key_of, row_of
from tests.studies.samples import BASE, TINY

BUS = "network.bus.bytes_per_cycle"
NAMED = {"memory": "memory.", "utilization": "utilization.", "bounds": "bounds."}


def figures(**settings):
    row = row_of({**BASE, **settings}, Resolver(None))
    assert row.error is None, row.error
    return row.figures


def key(**settings):
    return key_of({name: value for name, value in {**BASE, **settings}.items() if value is not None}, Resolver(None))


@pytest.mark.parametrize(
    ("settings", "step"),
    [
        ({}, ps.Decode(1, 16)),
        ({"batch": 3, "context": 20, "overlap": 2, BUS: 16}, ps.Decode(3, 20)),
        ({"context": [3, 9], "workflow": "batch-stream"}, ps.Decode(context_len=[3, 9])),
        (
            {"phase": "prefill", "prompt": 7, "context": 2, "logits": "all"},
            ps.Prefill(1, prompt_len=7, context_len=2, logits="all"),
        ),
        ({"array": "mesh-256", "num_pes": 16, "workflow": "workflow-2"}, ps.Decode(1, 16)),
        ({"engine": "event", "dtypes.weight": "int8", "model.num_layers": 3}, ps.Decode(1, 16)),
    ],
)
def test_figures_are_those_of_the_report(settings, step):
    found = figures(**settings)
    said = {**BASE, **settings}
    array = {path: value for path, value in said.items() if path in ("num_pes", "overlap", BUS, "dtypes.weight")}
    model = ps.load_model(TINY, {"num_layers": 3} if "model.num_layers" in said else None)
    report = ps.simulate(model, ps.load_array(said["array"], array), step, said["workflow"], said.get("engine", "fast"))
    told = report.to_dict()
    assert found["cycles"] == report.latency_cycles
    assert found["seconds"] == report.latency_seconds
    assert found["tokens_per_second"] == report.tokens_per_second
    assert (found["phase"], found["batch"], found["num_pes"]) == (step.phase, step.batch_size, said["num_pes"])
    for tag, use in told["traffic"].items():
        assert [found[f"{what}.{tag}"] for what in ("messages", "bytes", "busy_cycles")] == list(use.values())
    for section, prefix in NAMED.items():
        mine = {name.removeprefix(prefix): value for name, value in found.items() if name.startswith(prefix)}
        assert mine
        assert mine == {name: told[section][name] for name in mine}
    assert set(told["bounds"]) - {name.removeprefix("bounds.") for name in found} == {"critical_path"}
    assert found["energy_joules"] == told["energy"]["total_joules"]
    for component, joules in told["energy"]["by_component"].items():
        assert found[f"energy_joules.{component}"] == joules
    assert found["joules_per_token"] == told["energy"]["per_token_joules"]
    assert found["average_watts"] == told["energy"]["average_watts"]
    assert found["area_mm2"] == told["area"]["total_mm2"]
    for component, mm2 in told["area"]["by_component"].items():
        assert found[f"area_mm2.{component}"] == mm2
    assert found["accuracy.envelope"] == told["accuracy"]["envelope"]
    assert found["accuracy.percent"] == told["accuracy"]["percent"]


def test_a_situation_is_the_sum_of_its_steps():
    situation = {"description": "x", "batch_sequences": 2, "prompt_tokens": [8, 24], "output_tokens": [2, 5]}
    found = figures(context=None, situation=situation)
    loaded = ps.load_situation(situation)
    array = ps.load_array(BASE["array"], {"num_pes": BASE["num_pes"]})
    reports = [(ps.simulate(TINY, array, step, BASE["workflow"]), weight) for step, weight in loaded.steps]
    assert len(reports) > 2
    assert found["cycles"] == sum(weight * report.latency_cycles for report, weight in reports)
    assert found["bytes.broadcast"] == sum(weight * report.traffic["broadcast"].bytes for report, weight in reports)
    assert found["energy_joules"] == pytest.approx(sum(w * r.energy["total_joules"] for r, w in reports))
    assert found["memory.peak_bytes_per_pe"] == max(r.memory["peak_bytes_per_pe"] for r, _ in reports)
    busy = sum(weight * report.utilization["bus"] * report.latency_cycles for report, weight in reports)
    assert found["utilization.bus"] == pytest.approx(busy / found["cycles"])
    assert found["tokens_per_second"] == pytest.approx(7 / found["seconds"])
    assert found["joules_per_token"] == pytest.approx(found["energy_joules"] / 7)
    assert found["average_watts"] == pytest.approx(found["energy_joules"] / found["seconds"])
    assert found["area_mm2"] == reports[0][0].area.total_mm2


@pytest.mark.slow
def test_a_searched_workflow_is_that_of_the_search():
    row = row_of({**BASE, "workflow": "auto"}, Resolver(None))
    array = ps.load_array(BASE["array"], {"num_pes": BASE["num_pes"]})
    assert row.figures["cycles"] == ps.search(TINY, array, ps.Decode(1, 16)).report.latency_cycles
    assert '"layers":[{' in row.configs["workflow"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"num_pes": 0}, "--set num_pes: too small"),
        ({"num_pes": "many"}, "not a whole number"),
        ({"context": 10**6}, "positions"),
        ({"context": None}, "context: missing"),
        ({"context": 1.5}, "context_len: not a whole number"),
        ({"prompt": 3}, "only prefill has this"),
        ({"phase": "prefill"}, "prompt: missing"),
        ({"situation": "one-long"}, "a situation has its own steps"),
        ({"pe.memory.capacity_bytes": 100}, "too small for weights"),
        ({"allow_overflow": "yes"}, "true or false"),
        ({"model.num_heads": 3}, "overrides"),
        ({"workflow": ["megatron"]}, "not a workflow"),
    ],
)
def test_what_is_wrong_with_a_point_is_in_its_row(settings, words):
    row = row_of({**BASE, **settings}, Resolver(None))
    assert row.error is not None
    assert words in row.error
    assert row.error_kind == INPUT
    assert not row.figures
    assert row.key == key_of({**BASE, **settings}, Resolver(None))


def test_a_fault_of_ours_is_a_row_too(monkeypatch):
    monkeypatch.setattr(rows.api, "simulate", lambda *_, **__: 1 // 0)
    row = row_of(BASE, Resolver(None))
    assert (row.error_kind, row.error) == (FAULT, "ZeroDivisionError: integer division or modulo by zero")


def test_overflow_is_simulated_where_it_is_allowed():
    small = {"pe.memory.capacity_bytes": 100}
    assert figures(**small, allow_overflow=True)["cycles"] > 0


def test_equal_configs_have_equal_keys():
    assert key() == key()
    assert key(**{BUS: 64}) == key()  # what the preset has already
    resolved = ps.load_array("bus-tree-64", {"num_pes": BASE["num_pes"]})
    assert key(array=array_to_dict(resolved), num_pes=None) == key()
    assert key(engine="fast", batch=1, phase="decode", allow_overflow=False) == key()


def test_any_change_is_another_key(monkeypatch):
    changes = [
        {},
        {BUS: 65},
        {"num_pes": 5},
        {"name": "other"},
        {"clock_ghz": 2.0},
        {"overlap": 0},
        {"model.num_layers": 3},
        {"model.rope_theta": 5.0},
        {"context": 17},
        {"context": [16, 16]},
        {"batch": 3},
        {"phase": "prefill", "prompt": 3},
        {"phase": "prefill", "prompt": 3, "causal": "full"},
        {"workflow": "workflow-1"},
        {"workflow": "auto"},
        {"engine": "event"},
        {"allow_overflow": True},
        {"context": None, "situation": "one-short"},
        {"process": "45nm"},
        {"num_pes": -1},
        {"num_pes": -2},
    ]
    found = [key(**change) for change in changes]
    assert len(set(found)) == len(found)
    monkeypatch.setattr(keys_module, "__version__", "0.0.0")
    assert key() not in found
    monkeypatch.setattr(keys_module, "SCHEMA", "pe-sim.sweep/0")
    assert key() not in found


def test_a_workflow_file_counts_by_what_it_says(tmp_path):
    for folder, text in (("a", "base: megatron\n"), ("b", "base: megatron\n"), ("c", "base: workflow-1\n")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.yaml").write_text(text, encoding="utf-8")
    a, b, c = (key(workflow=str(tmp_path / folder / "mine.yaml")) for folder in "abc")
    assert a == b
    assert a != c


def test_what_is_kept_is_kept_for_the_same_text_only():
    resolver = Resolver(None)
    each = [{**BASE, BUS: 64}, {**BASE, BUS: 64.0}, {**BASE, BUS: "64"}, {**BASE, BUS: True}, {**BASE, BUS: 64}]
    assert [row_of(settings, resolver).error is None for settings in each] == [True, False, False, False, True]


def test_rows_do_not_depend_on_what_came_before():
    together = Resolver(None)
    points = [{**BASE, "num_pes": num_pes, "context": context} for num_pes in (4, 7, 4) for context in (5, 9)]
    assert [row_of(point, together) for point in points] == [row_of(point, Resolver(None)) for point in points]
