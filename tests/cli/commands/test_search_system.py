"""`pe-sim search --arrays`: the table, the files that read back, and what is refused word by word."""

import json
from pathlib import Path

import pytest

import pe_sim as ps
from pe_sim.systems.search.search import search_system
from tests.cli.conftest import TINY_MODEL

SYSTEM = ("--arrays", "ring-of-4-bus-tree-1024", "--set", "array.num_pes=4", "--set", "arrays.0.count=2")
STEP = ("--context", "50", "--workflow", "megatron", "--simulations", "4")


def answer(result):
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def found(tiny):
    system = ps.load_system("ring-of-4-bus-tree-1024", {"array.num_pes": 4, "arrays.0.count": 2})
    return search_system(tiny, system, ps.Decode(1, 50), workflow="megatron", max_simulations=4)


def test_text_has_the_best_marked_and_what_was_refused(call, tiny, found):
    text = answer(call("search", tiny, *SYSTEM, *STEP))
    assert " ".join(text.split()).startswith(" ".join(found.headline().split()))
    rows = text[text.index("The best plans") :].split("\n\n")[0].splitlines()[3:]
    assert rows[0].startswith("megatron *")
    assert f"{found.best.cycles:,}" in rows[0]
    assert not any("*" in row for row in rows[1:])
    assert "dp 2 for a batch of 1: 1 plan\n" in text


def test_json_and_files(call, tiny, found):
    files = ("--plan-out", "plan.yaml", "--write", "inside.yaml", "--json", "-")
    result = call("search", tiny, *SYSTEM, *STEP, *files)
    told = json.loads(answer(result))
    assert told | {"used_seconds": None} == found.to_dict(5) | {"used_seconds": None}  # a clock's
    assert told["schema"] == "pe-sim.system-search/1"
    assert Path("inside.yaml").read_text(encoding="utf-8") == found.workflow_text()
    run = call("run", tiny, *SYSTEM, "--context", "50", "--plan", "plan.yaml", "--workflow", "inside.yaml")
    assert f"{found.best.cycles:,} cycles" in answer(run)


def test_only_the_degrees_that_are_allowed(call, tiny):
    told = json.loads(answer(call("search", tiny, *SYSTEM, *STEP, "--tp", "1", "--pp", "1,2", "--json", "-")))
    assert {row["tp"] for row in told["candidates"]} == {1}
    assert {row["pp"] for row in told["candidates"]} <= {1, 2}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--tp", "2"), "error: --tp: a plan is for several arrays, and there is one"),
        (("--plan-out", "p.yaml"), "error: --plan-out: a plan is for several arrays, and there is one"),
        ((*SYSTEM, "--tp", "2,x"), "error: --tp: not degrees"),
        ((*SYSTEM, "--pareto"), "error: --pareto: only a search on one array has this"),
        ((*SYSTEM, "--html", "a.html"), "error: --html: only a search on one array has this"),
        ((*SYSTEM, "--array", "bus-tree-64"), "error: --arrays: --array and --arrays exclude each other"),
        ((*SYSTEM, "--situation", "mixed"), "error: --situation: a plan is searched for one step"),
        ((*SYSTEM, "--objective", "energy"), "error: objective: unknown objective"),
    ],
)
def test_refusals(call, tiny, arguments, message):
    result = call("search", tiny, *arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith(message)


def test_nothing_fits(call):
    Path("big.json").write_text(json.dumps({**TINY_MODEL, "num_hidden_layers": 8}), encoding="utf-8")
    result = call("search", "big.json", *SYSTEM, "--context", "9", "--set", "array.pe.memory.capacity_bytes=1024")
    assert result.exit_code == 2
    assert "no plan fits the memories of ring-of-4-bus-tree-1024; the least hungry is" in result.stderr
    assert "memories of at least x" in result.stderr
