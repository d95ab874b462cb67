"""`pe-sim sensitivity`, `run --roofline` and `compare --reference`: what they write, say and refuse."""

import csv
import json
from pathlib import Path

import pytest

from tests.cli.conftest import files

SMALL = ("--set", "num_pes=4", "--context", "64", "--workflow", "megatron")


def table_of(output):
    return {line.split("  ")[0]: line for line in output.splitlines()}


def test_the_table(call, tiny):
    result = call("sensitivity", tiny, *SMALL)
    assert result.exit_code == 0, result.output
    rows = table_of(result.stdout)
    assert "63, 65" in rows["bus width"]
    assert "-0.9901%   +1.0101%" in rows["clock"]
    assert "2, 8" in rows["number of PEs"]
    assert "Sum of the elasticities" in result.stdout


def test_files(call, tiny):
    before = files()
    result = call("sensitivity", tiny, *SMALL, "--png", "t.png", "--csv", "t.csv", "--json", "t.json")
    assert result.exit_code == 0, result.output
    assert files() - before == {Path("t.png"), Path("t.csv"), Path("t.json")}
    assert Path("t.png").read_bytes().startswith(b"\x89PNG")
    told = json.loads(Path("t.json").read_text(encoding="utf-8"))
    with open("t.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["parameter"] for row in rows] == [row["parameter"] for row in told["parameters"]]
    assert float(rows[0]["elasticity"]) == told["parameters"][0]["elasticity"]
    again = call("sensitivity", tiny, *SMALL, "--png", "u.png", "--json", "u.json")
    assert again.exit_code == 0
    assert Path("u.json").read_bytes() == Path("t.json").read_bytes()
    assert Path("u.png").read_bytes() == Path("t.png").read_bytes()


def test_json_alone_on_standard_output(call, tiny):
    result = call("sensitivity", tiny, *SMALL, "--parameters", "clock,bus-width", "--json", "-")
    told = json.loads(result.stdout)
    assert told["schema"] == "pe-sim.sensitivity/1"
    assert {row["parameter"] for row in told["parameters"]} == {"clock", "bus width"}
    assert "What one per cent" in result.stderr


def test_the_change(call, tiny):
    result = call("sensitivity", tiny, *SMALL, "--change", "50%", "--parameters", "bus-width", "--json", "-")
    (row,) = json.loads(result.stdout)["parameters"]
    assert (row["less"]["value"], row["more"]["value"]) == ("43", "96")


def test_a_situation(call, tiny):
    situation = "description: short\nbatch_sequences: 1\nprompt_tokens: 8\noutput_tokens: 3\nschema_version: 1\n"
    Path("short.yaml").write_text(situation, encoding="utf-8")
    args = ("--set", "num_pes=4", "--situation", "short.yaml", "--parameters", "clock", "--json", "-")
    told = json.loads(call("sensitivity", tiny, *args).stdout)
    assert [step["phase"] for step in told["steps"]] == ["prefill", "decode", "decode"]


def test_the_array_moves_from_what_was_set(call, tiny):
    result = call("sensitivity", tiny, *SMALL, "--set", "network.bus.bytes_per_cycle=32", "--json", "-")
    rows = {row["parameter"]: row for row in json.loads(result.stdout)["parameters"]}
    assert (rows["bus width"]["value"], rows["bus width"]["more"]["value"]) == ("32", "33")


@pytest.mark.parametrize("change", ["1", "0%", "-1%", "x", "1e3%", ""])
def test_changes_that_are_none(refused, tiny, change):
    assert "--change: not a change in per cent" in refused("sensitivity", tiny, "--change", change)


def test_refusals(refused, tiny):
    assert "did you mean 'bus width'?" in refused("sensitivity", tiny, *SMALL, "--parameters", "bus-widht")
    assert "an empty name" in refused("sensitivity", tiny, "--parameters", "clock,")
    assert "did you mean 'megatron'?" in refused("sensitivity", tiny, "--workflow", "megatrom")
    assert "--png: the folder of this file does not exist" in refused("sensitivity", tiny, "--png", "no/x.png")
    assert "the same file" in refused("sensitivity", tiny, "--png", "x", "--csv", "x")
    assert "only prefill" in refused("sensitivity", tiny, "--prompt", "3")
    assert "relative change" in refused("sensitivity", tiny, *SMALL, "--change", "99999999%")


def test_the_roofline_of_a_run(call, tiny):
    before = files()
    result = call("run", tiny, *SMALL, "--roofline", "r.svg")
    assert result.exit_code == 0, result.output
    assert files() - before == {Path("r.svg")}
    assert "<svg" in Path("r.svg").read_text(encoding="utf-8")


def test_rooflines_that_are_refused(refused, tiny):
    message = refused("run", tiny, "--roofline", "r.jpg")
    assert "--roofline: the ending does not say which kind of picture" in message
    assert ".png or .svg" in message
    assert "--roofline" in refused("run", tiny, "--roofline", "no/r.png")


def test_compare_sets_known_machines_apart(call, tiny):
    args = ("compare", tiny, "--set", "num_pes=4", "--context", "64", "--workflows", "megatron,workflow-2")
    result = call(*args)
    simulated, _, known = result.stdout.partition("Known machines at their roofline: bounds, not measurements")
    assert "megatron" in simulated
    assert "NVIDIA" not in simulated
    assert [name in known for name in ("A100", "H100", "Groq LPU", "A6000")] == [True, True, True, False]
    told = json.loads(call(*args, "--reference", "a6000,a100", "--json", "-").stdout)
    ((first, second),) = told["references"]
    assert (first["machine"], second["machine"]) == ("a6000", "a100")
    assert first["what"] == "a roofline bound, not a measurement"


def test_compare_without_references(call, tiny):
    args = ("compare", tiny, "--set", "num_pes=4", "--context", "64", "--workflows", "megatron", "--reference", "none")
    assert "Known machines" not in call(*args).stdout
    assert "references" not in json.loads(call(*args, "--json", "-").stdout)


def test_a_machine_without_the_dtype_is_named(call, tiny):
    wide = ("--set", "dtypes.weight=fp32", "--set", "dtypes.activation=fp32")
    args = ("compare", tiny, "--set", "num_pes=4", "--context", "64", "--workflows", "megatron", *wide)
    result = call(*args)
    assert result.exit_code == 0, result.output
    assert "groq-lpu is left out: no peak is known for fp32" in result.stdout
    only = call(*args, "--reference", "groq-lpu")
    assert only.exit_code == 0, only.output
    assert "groq-lpu is left out" in only.stdout


def test_references_that_are_refused(refused, tiny):
    assert "did you mean 'h100'?" in refused("compare", tiny, "--reference", "h10")
    assert "none stands alone" in refused("compare", tiny, "--reference", "none,a100")
    assert "an empty name" in refused("compare", tiny, "--reference", "")
    Path("mine.yaml").write_text("description: mine\n", encoding="utf-8")
    assert "mine.yaml: memory_technology: missing" in refused("compare", tiny, "--reference", "mine.yaml")
