"""`--situation`: its steps in place of one, and what they take together."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from pe_sim import api

SMALL = """
description: two that end at different times
batch_sequences: 2
prompt_tokens: [8, 24]
output_tokens: [2, 5]
"""
FILES = ("--trace", "--csv", "--channels", "--heat")


@pytest.fixture
def small() -> str:
    Path("small.yaml").write_text(SMALL, encoding="utf-8")
    return "small.yaml"


def test_listing(call):
    lines = call("situations").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["batch-long", "batch-short", "mixed", "one-long", "one-short"]


def test_run_gives_a_report_a_step(call, tiny, small):
    result = call("run", tiny, "--situation", small, "--workflow", "megatron", "--json", "-")
    assert result.exit_code == 0, result.output
    whole = json.loads(result.stdout)
    steps = api.load_situation(small).steps
    cycles = [api.simulate(tiny, "bus-tree-256", step, "megatron").latency_cycles for step, _ in steps]
    assert whole["schema"] == "pe-sim.situation/1"
    assert [(one["weight"], one["report"]["latency"]["cycles"]) for one in whole["steps"]] == [
        (weight, each) for (_, weight), each in zip(steps, cycles, strict=True)
    ]
    total = sum(weight * each for (_, weight), each in zip(steps, cycles, strict=True))
    assert whole["latency"]["cycles"] == total
    assert whole["throughput"]["tokens_per_second"] == pytest.approx(7 / whole["latency"]["seconds"])
    text = call("run", tiny, "--situation", small, "--workflow", "megatron").stdout
    assert "Step 3 of 4, counted 1.5 times: --phase decode --batch 1 --context 25\n" in text
    assert f"{total:,.0f} cycles = " in text


def test_one_step_can_have_files(call, tiny):
    Path("prefill.yaml").write_text(SMALL + "phases: prefill\n", encoding="utf-8")
    targets = [part for option in FILES for part in (option, f"out{option}")]
    assert call("run", tiny, "--situation", "prefill.yaml", *targets).exit_code == 0
    assert all(Path(f"out{option}").is_file() for option in FILES)


@pytest.mark.parametrize("option", FILES)
def test_several_steps_cannot(refused, tiny, small, option):
    words = refused("run", tiny, "--situation", small, option, "out")
    assert "this file holds one step, and the situation small has 4" in words
    assert "--phase prefill --batch 2 --prompt 8,24, or --phase decode --batch 2 --context 8,24, or " in words


def test_compare(call, tiny, small):
    args = ("compare", tiny, "--situation", small, "--workflows", "megatron,workflow-2")
    whole = json.loads(call(*args, "--json", "-").stdout)
    assert whole["schema"] == "pe-sim.situation-comparison/1"
    cycles = {one["workflow"]: one["latency"]["cycles"] for one in whole["results"]}
    assert cycles[whole["best"]] == min(cycles.values())
    text = call(*args).stdout
    assert f"* {whole['best']}" in text.split("Step 1")[0]
    assert "Step 4 of 4" in text


def test_what_does_not_fit_has_its_reason(call, small):
    result = call("compare", "llama-2-7b", "--situation", small, "--workflows", "megatron,batch-block", "--json", "-")
    (failed,) = json.loads(result.stdout)["failed"]
    assert failed["workflow"] == "batch-block"
    assert "is too small for weights" in failed["reason"]


def test_one_searched_mapping_serves_all_steps(call, tiny, small, monkeypatch):
    asked = []

    def search(model, array, step, **others):
        asked.append(step)
        return SimpleNamespace(uninterrupted=SimpleNamespace(workflow=api.load_workflow("workflow-2")))

    monkeypatch.setattr(api, "search", search)
    result = call("run", tiny, "--situation", small, "--workflow", "auto", "--json", "-")
    assert result.exit_code == 0, result.output
    assert asked == [api.load_situation(small).steps]
    assert {one["report"]["workflow"]["name"] for one in json.loads(result.stdout)["steps"]} == {"workflow-2"}


@pytest.mark.parametrize(
    "options", [("--phase", "decode"), ("--batch", "2"), ("--context", "9"), ("--prompt", "3"), ("--logits", "all")]
)
def test_no_options_of_a_step_beside_it(refused, tiny, options):
    assert refused("run", tiny, "--situation", "mixed", *options).startswith(
        f"{options[0]}: a situation has its own steps\n"
    )


def test_unknown(refused, tiny):
    assert "did you mean 'one-long'?" in refused("compare", tiny, "--situation", "one-lng")
    few = "model.max_position_embeddings=64"
    assert "model.max_position_embeddings=4095" in refused("run", tiny, "--situation", "one-long", "--set", few)
