"""Workflow files: what good ones mean, and what wrong ones are told, word by word."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from pe_sim.api import simulate
from pe_sim.config.step import Decode
from pe_sim.errors import InputError
from pe_sim.mapping.workflow import WORKFLOWS, LayerPlan, load_workflow
from tests.helpers import small_array, tiny_llama

SPELLED_OUT = """
schema_version: 1
name: my own
summary: everything said
lm_head: col
groups: 2
layers:
  - qkv: row
    attention: head
    o: col
    gate_up: col
    down: row
  - {layers: 1, attention: token, stream: replicate, ffn_norm: root}
  - {layers: 1-1, k: replicate, up: row}
"""


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write(text, name="mine.yaml"):
    Path(name).write_text(text, encoding="utf-8")
    return name


def load(text):
    return load_workflow(write(text))


def based(text, base="megatron"):
    return load(f"schema_version: 1\nbase: {base}\n{text}")


def message(call, *args):
    with pytest.raises(InputError) as caught:
        call(*args)
    return str(caught.value)


def run(workflow, num_pes=8, batch_size=1, **model):
    array = small_array(num_pes, {"pe.memory.capacity_bytes": 2**30})
    return simulate(tiny_llama(**model), array, Decode(batch_size, 9), workflow)


# ----------------------------------------------------------------------------------------------------------- good files
def test_everything_spelled_out():
    workflow = load(SPELLED_OUT)
    assert (workflow.name, workflow.summary) == ("my own", "everything said")
    assert (workflow.lm_head, workflow.groups) == ("col", 2)
    first = LayerPlan("row", "row", "row", "head", "col", "col", "col", "row")
    assert workflow.plan(0) == workflow.plan(2) == first
    assert workflow.plan(1) == replace(
        first, k="replicate", attention="token", up="row", stream="replicate", ffn_norm="root"
    )


def test_what_is_left_out():
    workflow = load("schema_version: 1\nbase: workflow-2\n")
    assert workflow == replace(WORKFLOWS["workflow-2"], name="mine", summary="a workflow of your own")


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_base_alone_is_the_base(name):
    of_file, named = based("", base=name), WORKFLOWS[name]
    assert [of_file.plan(layer) for layer in range(4)] == [named.plan(layer) for layer in range(4)]
    assert (of_file.stream_weights, of_file.local_ends, of_file.pipelined, of_file.lm_head) == (
        named.stream_weights,
        named.local_ends,
        named.pipelined,
        named.lm_head,
    )


def test_json_and_yaml_say_the_same():
    said = {
        "schema_version": 1,
        "base": "megatron",
        "layers": [{"layers": "0-1", "o": "row"}, {"layers": 3, "o": "col"}],
    }
    path = write(json.dumps(said), "mine.json")
    assert load_workflow(path).pattern == WORKFLOWS["megatron"].pattern
    of_yaml = based("layers: [{layers: 0-1, o: row}, {layers: 3, o: col}]")
    assert [load_workflow(path).plan(layer) for layer in range(5)] == [of_yaml.plan(layer) for layer in range(5)]
    assert load_workflow(Path("mine.json")) == load_workflow(path)


@pytest.mark.parametrize(
    ("layers", "chosen"),
    [("all", [0, 1, 2, 3]), (2, [2]), ('"2"', [2]), ("1-2", [1, 2]), ('"0-3"', [0, 1, 2, 3]), ("3-3", [3])],
)
def test_ranges_are_inclusive_from_0(layers, chosen):
    workflow = based(f"layers: [{{layers: {layers}, o: row}}]")
    assert [layer for layer in range(4) if workflow.plan(layer).o == "row"] == chosen


def test_later_entries_win_and_a_shorthand_yields_to_a_name():
    workflow = based("layers: [{o: row}, {layers: 1, o: replicate}, {qkv: col, q: row}]")
    assert [workflow.plan(layer).o for layer in range(3)] == ["row", "replicate", "row"]
    plan = workflow.plan(0)
    assert (plan.q, plan.k, plan.v) == ("row", "col", "col")


def test_a_range_starts_from_the_alternating_base():
    workflow = based("layers: [{layers: 1, down: row}]", base="alternating")
    named = WORKFLOWS["alternating"]
    assert workflow.plan(1) == replace(named.plan(1), down="row")
    assert [workflow.plan(layer) for layer in (0, 2, 3)] == [named.plan(layer) for layer in (0, 2, 3)]


def test_a_file_that_spells_a_named_workflow_out_is_timed_alike():
    for name in ("workflow-1", "workflow-2", "megatron", "all-row", "all-col"):
        plan = WORKFLOWS[name].plan(0).to_dict()
        workflow = load("schema_version: 1\nlayers: [" + json.dumps(plan) + "]\n")
        assert run(workflow).latency_cycles == run(WORKFLOWS[name]).latency_cycles


def test_groups_of_one_pe_only_send_in_and_gather_the_end():
    """One PE holds all of its group's model: nothing moves between embedding and argmax."""
    traffic = run(based("groups: 8"), batch_size=8).traffic
    assert sum(use.messages for use in traffic.values()) <= 8 + 8
    assert not any(use.messages for use in run("batch-block", batch_size=8).traffic.values())


def test_groups_without_sequences_have_nothing_to_do():
    assert run(based("groups: 4"), batch_size=1).latency_cycles > 0


def test_simulate_takes_a_path():
    write("schema_version: 1\nbase: megatron\nlayers: [{attention: token}]\n")
    report = run("mine.yaml")
    assert report.workflow.name == "mine"
    assert report.to_dict()["workflow"]["name"] == "mine"
    distributions = {row.name: row.distribution for row in report.operators if row.layer == 1}
    assert (distributions["scores"], distributions["q"]) == ("token", "row")


# ---------------------------------------------------------------------------------------------------------- wrong files
@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "layers: [{attenton: token}]",
            "mine.yaml: layers.0.attenton: unknown key\n  given:    'token'\n  hint:     did you mean 'attention'?",
        ),
        ("grops: 2", "mine.yaml: grops: unknown key\n  given:    2\n  hint:     did you mean 'groups'?"),
        (
            "layers: [{o: head}]",
            "mine.yaml: layers.0.o: not one of the known values\n  given:    'head'\n"
            "  expected: row or col or batch or replicate\n  hint:     known: batch, col, replicate, row",
        ),
        (
            "layers: [{o: row}, {attention: rwo}]",
            "mine.yaml: layers.1.attention: not one of the known values\n  given:    'rwo'\n"
            "  expected: head or token or batch or replicate\n  hint:     known: batch, head, replicate, token",
        ),
        (
            "lm_head: token",
            "mine.yaml: lm_head: not one of the known values\n  given:    'token'\n"
            "  expected: row or col or batch or replicate\n  hint:     known: batch, col, replicate, row",
        ),
        (
            "layers: [{stream: shrad}]",
            "mine.yaml: layers.0.stream: not one of the known values\n  given:    'shrad'\n"
            "  expected: follow or replicate or shard or batch\n  hint:     did you mean 'shard'?",
        ),
        (
            'groups: "4"',
            "mine.yaml: groups: not a whole number\n  given:    '4'\n"
            "  expected: a whole number from 1 to 1048576\n"
            "  hint:     this is text, not a number: write 4 without quotes",
        ),
        (
            "groups: 0",
            "mine.yaml: groups: too small\n  given:    0\n  expected: a whole number from 1 to 1048576\n"
            "  hint:     groups means: groups of PEs that split the batch, the workflow in each",
        ),
        (
            "groups: true",
            "mine.yaml: groups: not a whole number\n  given:    True\n"
            "  expected: a whole number from 1 to 1048576\n  hint:     true and false are no numbers",
        ),
    ],
)
def test_wrong_entries(text, told):
    assert message(based, text) == told


@pytest.mark.parametrize("layers", ["5-2", "-1", "1-", "a-b", "every", "1-2-3"])
def test_what_is_no_range(layers):
    assert message(based, f'layers: [{{o: row}}, {{layers: "{layers}", o: row}}]') == (
        f"mine.yaml: layers.1.layers: this is no range of layers\n  given:    {layers!r}\n"
        "  expected: 'all', 7 or '0-15'"
    )


def test_several_faults_are_told_at_once():
    told = message(based, "layers: [{attenton: token}, {o: head}]")
    assert told.splitlines()[-2:] == [
        "  1 more fault:",
        "    layers.1.o: not one of the known values, given 'head', expected row or col or batch or replicate"
        " (known: batch, col, replicate, row)",
    ]


def test_a_range_beyond_the_model():
    workflow = based("layers: [{layers: 0-1, o: row}, {layers: 1-2, o: col}]")
    assert message(run, workflow) == (
        "mine.yaml: layers.1.layers: the rule names layers that the model does not have\n"
        "  given:    '1-2'\n"
        "  expected: layers 0 to 1"
    )
    assert run(workflow, num_hidden_layers=3).latency_cycles > 0


def test_no_base_and_nothing_said():
    assert message(load, "schema_version: 1\n") == (
        "mine.yaml: layers: the workflow gives no layer anything\n  hint:     name a `base`"
    )


def test_no_base_and_something_left_out():
    workflow = load(
        "schema_version: 1\nlayers: [{qkv: row, attention: head, o: col}, {layers: 0, gate_up: row, down: col}]"
    )
    assert workflow.plan(0).down == "col"
    assert re.fullmatch(
        r"mine(\.yaml)?: layers: layer 1 has no distribution for gate, up, down\n"
        r"  hint:     give them for this layer, or name a `base` workflow that fills what is left out",
        message(run, workflow),
    )


def test_a_base_that_does_not_exist():
    told = message(based, "", "megatrn")
    assert "no workflow is called 'megatrn'" in told
    assert told.endswith("hint:     did you mean 'megatron'?")


def test_groups_that_do_not_divide():
    assert message(run, based("groups: 3")) == (
        "mine.yaml: groups: 8 PEs do not divide into 3 equal groups\n  given:    3\n  expected: a divisor of 8"
    )


def test_another_version_is_refused():
    assert load("base: megatron\n") == load("schema_version: 1\nbase: megatron\n")
    assert message(load, "schema_version: 2\nbase: megatron\n").startswith(
        "mine.yaml: schema_version: not one of the known values\n  given:    2\n  expected: 1"
    )


def test_no_mapping_and_no_file():
    assert message(load, "- a\n").startswith("mine.yaml: the top level is not a mapping\n")
    assert message(load, "layers: [\n").startswith("mine.yaml: ")
    assert message(load_workflow, "other.yaml") == (
        "workflow: no such file\n  given:    'other.yaml'\n  expected: a name or a workflow file's path"
    )
    assert message(load_workflow, "megatrn") == (
        "workflow: no workflow is called 'megatrn'\n  given:    'megatrn'\n"
        "  expected: a name or the path of a workflow file\n  hint:     did you mean 'megatron'?"
    )
