"""What `pe-sim search` answers, and what the other commands make of `--workflow auto`."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

import pe_sim as ps
from tests.cli.conftest import TINY_MODEL

SMALL = ("--set", "num_pes=4", "--context", "32")
SITUATION = """\
schema_version: 1
description: a short question and a short answer
batch_sequences: 1
prompt_tokens: 8
output_tokens: 4
"""


def answer(result):
    assert result.exit_code == 0, result.output
    return result.stdout


def in_json(result):
    return json.loads(answer(result))


def table(text, title):
    """The rows of one table, by their first column."""
    rows = text[text.index(title) :].split("\n\n")[0].splitlines()[3:]
    return {row.split("  ")[0].strip(): row.split("  ")[1:] for row in rows}


@pytest.fixture(scope="module")
def found():
    model = ps.load_model({**TINY_MODEL, "_name_or_path": "tiny"})
    return ps.search(model, ps.load_array("bus-tree-256", {"num_pes": 4}), ps.Decode(1, 32))


def test_text(call, tiny, found):
    text = answer(call("search", tiny, *SMALL))
    assert text.startswith(f"tiny on bus-tree-256, decode: {found.best.cycles:,} cycles, {found.proof_in_words()}")
    assert "fewer cycles than" in text
    assert set(found.workflow.plan(0).to_dict()) == set(table(text, "Distribution of every operator"))
    shown = table(text, "The best candidates")
    assert next(iter(shown)) == found.table["name"].iloc[0]


def test_json_alone_on_stdout(call, tiny, found):
    result = call("search", tiny, *SMALL, "--json", "-")
    told = in_json(result)
    assert (told["schema"], told["cycles"], told["proof"]) == ("pe-sim.search/1", found.best.cycles, found.proof)
    assert "The best candidates" in result.stderr
    assert "explanation" not in told


def test_top(call, tiny):
    assert len(in_json(call("search", tiny, *SMALL, "--top", "2", "--json", "-"))["candidates"]) == 2
    best, *named = table(answer(call("search", tiny, *SMALL, "--top", "1")), "The best candidates")
    assert best.startswith("one group")
    assert len(named) == 1  # the best named workflow is always shown


def test_pareto(call, tiny, found):
    text = answer(call("search", tiny, *SMALL, "--pareto", "--top", "100"))
    shown = table(text, "Not beaten in cycles, energy and memory at once")
    assert list(shown) == [one.name for one in found.pareto]
    assert "The best candidates" not in text


def test_the_written_file_gives_the_same_cycles(call, tiny, found):
    answer(call("search", tiny, *SMALL, "--write", "best.yaml"))
    report = in_json(call("run", tiny, *SMALL, "--workflow", "best.yaml", "--json", "-"))
    assert report["latency"]["cycles"] == found.best.cycles


def test_some_given(call, tiny):
    Path("mine.yaml").write_text("base: auto\nlayers:\n  - {layers: all, attention: token}\n", encoding="utf-8")
    told = in_json(call("search", tiny, *SMALL, "--workflow", "mine.yaml", "--simulations", "4", "--json", "-"))
    assert {layer["attention"] for layer in told["reports"][0]["workflow"]["layers"]} == {"token"}


def test_a_situation_is_searched_for_all_its_steps(call, tiny, monkeypatch):
    Path("short.yaml").write_text(SITUATION, encoding="utf-8")
    found, asked = ps.search(tiny, ps.load_array("bus-tree-64", {"num_pes": 1}), ps.Decode(1, 3)), []
    monkeypatch.setattr("pe_sim.api.search", lambda model, array, steps, *_, **__: asked.append(steps) or found)
    told = in_json(call("search", tiny, "--situation", "short.yaml", "--json", "-"))
    assert asked == [ps.load_situation("short.yaml").steps]
    assert told["cycles"] == found.best.cycles


@pytest.mark.slow
def test_several_steps(call, tiny):
    Path("short.yaml").write_text(SITUATION, encoding="utf-8")
    given = (tiny, "--set", "num_pes=4", "--situation", "short.yaml", "--simulations", "4", "--json", "-")
    told = in_json(call("search", *given))
    steps = ps.load_situation("short.yaml").steps
    cycles = [report["latency"]["cycles"] for report in told["reports"]]
    assert told["cycles"] == sum(weight * each for (_, weight), each in zip(steps, cycles, strict=True))


def test_explain(call, tiny, found):
    result = call("search", tiny, *SMALL, "--explain", "megatron", "--json", "-")
    told, text = in_json(result), result.stderr
    explanation = found.explain("megatron")
    assert explanation.headline() in " ".join(text.split())
    assert text.splitlines()[-1].split()[0] == "latency"
    assert told["explanation"] == explanation.to_dict()
    assert sum(each["saved_cycles"] for each in told["explanation"]["differences"]) == explanation.saved_cycles


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--objective", "speed"), "unknown objective"),
        (("--objective", "energie"), "did you mean 'energy'?"),
        (("--workflow", "megatron"), "leaves nothing to search"),
        (("--explain", "megatronn"), "did you mean 'megatron'?"),
        (("--explain", "auto"), "has to be searched itself"),
        (("--seconds", "0"), "no time for a search"),
        (("--seconds", "-1"), "no time for a search"),
        (("--seconds", "nan"), "no time for a search"),
        (("--seconds", "abc"), "no time for a search"),
        (("--seconds", "1e400"), "no time for a search"),
        (("--situation", "short", "--batch", "2"), "--batch"),
        (("--write", "nowhere/best.yaml"), "the folder of this file does not exist"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_bad_input(refused, tiny, args, message):
    assert message in refused("search", tiny, "--set", "num_pes=4", *args)


def test_nothing_fits(refused, tiny):
    message = refused("search", tiny, *SMALL, "--set", "pe.memory.capacity_bytes=65536", "--json", "-")
    assert message.startswith("no mapping fits the PEs' memories; the leanest one holds ")
    assert "--set pe.memory.capacity_bytes=" in message
    assert message.count("the leanest mapping: needs") == 1


class TestAuto:
    def test_run(self, call, tiny, found):
        report = in_json(call("run", tiny, *SMALL, "--workflow", "auto", "--json", "-"))
        assert report["workflow"]["name"] == "auto"
        assert report["latency"]["cycles"] == found.best.cycles

    def test_compare(self, call, tiny, found):
        result = call("compare", tiny, *SMALL, "--workflows", "auto,megatron", "--json", "-")
        told = in_json(result)
        cycles = {report["workflow"]["name"]: report["latency"]["cycles"] for report in told["reports"]}
        assert told["best"] == "auto"
        assert cycles["auto"] == found.best.cycles < cycles["megatron"]
        assert "* auto" in result.stderr

    @pytest.mark.slow
    def test_compare_over_a_situation(self, call, tiny):
        Path("short.yaml").write_text(SITUATION, encoding="utf-8")
        given = ("compare", tiny, "--set", "num_pes=4", "--situation", "short.yaml", "--workflows", "auto,megatron")
        told = in_json(call(*given, "--json", "-"))
        assert told["best"] == "auto"
        used = [step["report"]["workflow"]["layers"] for step in told["results"][0]["steps"]]
        assert used[0] == used[1]

    @pytest.mark.slow
    def test_verify(self, call, tiny):
        assert in_json(call("verify", tiny, "--set", "num_pes=4", "--workflow", "auto", "--json", "-"))["holds"]


def test_ctrl_c_delivers_the_best_so_far(call, tiny, monkeypatch, found):
    best = replace(found, stopped="interrupted", used_seconds=7.0)
    monkeypatch.setattr("pe_sim.api.search", lambda *args, **kwargs: best)
    result = call("search", tiny, *SMALL, "--json", "-", "--write", "best.yaml")
    assert result.exit_code == 130
    assert json.loads(result.stdout)["stopped"] == "interrupted"
    assert "the best so far" in result.stderr
    assert "stopped after 7 s by Ctrl-C" in result.stderr
    assert ps.load_workflow("best.yaml").plan(0) == found.workflow.plan(0)


def test_the_time_it_has_is_told(call, tiny):
    told = in_json(call("search", tiny, *SMALL, "--seconds", "inf", "--json", "-"))
    assert (told["stopped"], told["budget_seconds"]) == (None, None)
    assert in_json(call("search", tiny, *SMALL, "--seconds", "600", "--json", "-"))["budget_seconds"] == 600
