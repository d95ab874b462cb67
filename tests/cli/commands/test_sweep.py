"""`pe-sim sweep`: what it prints and writes, and what it refuses."""

import json
from pathlib import Path

import pytest

import pe_sim as ps
from tests.studies.samples import sweep_of

SWEEP = """
base: {model: tiny.json, array: bus-tree-64, workflow: megatron, num_pes: 4}
grid:
  context: {from: 8, to: 32, times: 2}
  network.bus.bytes_per_cycle: [16, 64]
"""


@pytest.fixture
def swept(tiny):
    """A sweep's file of six points."""
    Path("swept.yaml").write_text(SWEEP, encoding="utf-8")
    return "swept.yaml"


def changed(before, after):
    Path("swept.yaml").write_text(SWEEP.replace(before, after), encoding="utf-8")


def test_a_sweep(call, swept):
    done = call("sweep", swept, "--out", "out", "--jobs", "1")
    assert done.exit_code == 0, done.output
    assert done.stdout == "6 points, 0 failed, 0 reused\ntable: out/results.parquet\n"
    assert done.stderr == ""
    again = ps.sweep(swept, "out", jobs=1, resume=True)
    frame = again.to_frame()
    assert list(frame.context) == [8, 8, 16, 16, 32, 32]
    array = ps.load_array("bus-tree-64", {"num_pes": 4, "network.bus.bytes_per_cycle": 64})
    assert frame.cycles[5] == ps.simulate("tiny.json", array, ps.Decode(1, 32), "megatron").latency_cycles


def test_json_stands_alone(call, swept):
    done = call("sweep", swept, "--out", "out", "--jobs", "1", "--json", "-")
    told = json.loads(done.stdout)
    assert done.stderr == "6 points, 0 failed, 0 reused\ntable: out/results.parquet\n"
    assert told == {
        "schema": "pe-sim.sweep/1",
        "pe_sim_version": ps.__version__,
        "name": "swept",
        "points": 6,
        "failed": 0,
        "reused": 0,
        "errors": [],
        "results": "out/results.parquet",
        "configs": "out/configs.parquet",
        "set_aside": [],
    }


def test_resume(call, swept, refused):
    call("sweep", swept, "--out", "out", "--jobs", "1")
    words = refused("sweep", swept, "--out", "out", "--jobs", "1")
    assert words.startswith("--out: the folder holds this sweep already\n")
    assert call("sweep", swept, "--out", "out", "--jobs", "1", "--resume").stdout.startswith("6 points, 0 failed, 6 re")
    Path("out/parts/part-00000001.parquet").write_bytes(b"rubbish")
    done = call("sweep", swept, "--out", "out", "--jobs", "1", "--resume")
    assert (
        "could not be read, and its points were computed again: out/parts/part-00000001.parquet.unreadable"
        in done.stdout
    )


def test_errors_are_counted(call, swept):
    changed("[16, 64]", "[16, 64, -1, zero]")
    done = call("sweep", swept, "--out", "out", "--jobs", "1")
    assert done.exit_code == 0
    assert done.stdout == (
        "12 points, 6 failed, 0 reused\n"
        "  3 x --set network.bus.bytes_per_cycle: too small\n"
        "  3 x --set network.bus.bytes_per_cycle: not a whole number\n"
        "table: out/results.parquet\n"
    )


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("bus.bytes_per", "bus.byte_per", "swept.yaml: grid.network.bus.byte_per_cycle: unknown path\n  hint:"),
        ("[16, 64]", "[]", "swept.yaml: grid.network.bus.bytes_per_cycle: an empty list"),
        ("to: 32", "too: 32", "swept.yaml: grid.context.too: unknown key of a range"),
        ("times: 2", "times: two", "swept.yaml: grid.context.times: not a number"),
        ("grid:", "gird:", "swept.yaml: gird: unknown key\n"),
        ("bus-tree-64", "bus-tree-65", "swept.yaml: base.array: unknown array\n"),
        ("tiny.json", "tine.json", "swept.yaml: base.model: no such file\n"),
        ("base: {", "base: [", "swept.yaml: malformed YAML at line 2"),
        ("{from: 8, to: 32, times: 2}", "{from: 1, to: 1000001, step: 1}", "swept.yaml: 2,000,002 points are many"),
    ],
)  # fmt: skip
def test_files_that_are_refused(refused, swept, before, after, words):
    changed(before, after)
    assert refused("sweep", swept, "--out", "out", "--jobs", "1").startswith(words)


@pytest.mark.parametrize(
    ("before", "after", "hint"),
    [
        ("model:", "modle:", "is base.modle meant to be 'model'?"),
        ("workflow:", "worklfow:", "is base.worklfow meant to be 'workflow'?"),
        ("context:", "contxt:", "is grid.contxt meant to be 'context'?"),
    ],
)
def test_a_misspelt_name_that_is_needed(refused, swept, before, after, hint):
    changed(before, after)
    assert hint in refused("sweep", swept, "--out", "out", "--jobs", "1")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--out", ""), "--out: not a folder"),
        (("--out", "swept.yaml"), "--out: the folder cannot be written: File exists"),
        (("--out", "."), "--out: the folder is not empty, and holds no sweep: swept.yaml, tiny.json"),
        (("--out", "out", "--jobs", "two"), "--jobs: not a whole number"),
        (("--out", "out", "--jobs", "0"), "--jobs: not a number of processes"),
        (("--out", "out", "--backend", "dusk"), "--backend: no such backend"),
        (("--out", "out", "--scheduler", "tcp://127.0.0.1:9"), "--scheduler: only Dask has a scheduler"),
        (("--out", "out", "--json", "no/such/folder.json"), "--json: the folder of this file does not exist"),
    ],
)
def test_options_that_are_refused(refused, swept, options, words):
    assert refused("sweep", swept, *options).startswith(words)


def test_no_file(refused):
    assert refused("sweep", "nothing.yaml", "--out", "out").startswith("nothing.yaml: no such file")


def test_an_interrupted_sweep_says_how_to_go_on(call, swept, monkeypatch):
    def interrupt(*args, progress, **options):
        progress(ps.studies.sweep.Progress(2, 0, 6))
        raise KeyboardInterrupt

    monkeypatch.setattr("pe_sim.studies.sweep.sweep", interrupt)
    monkeypatch.setattr("sys.argv", ["pe-sim", "sweep", swept, "--out", "my out"])
    done = call("sweep", swept, "--out", "my out")
    assert done.exit_code == 130
    assert done.stderr.rstrip("\n") == (
        "interrupted: 2 of 6 points are done and kept in my out; to go on:\n"
        "  pe-sim sweep swept.yaml --out 'my out' --resume"
    )


def test_help_teaches(call):
    text = call("sweep", "--help").stdout
    for words in ("base:", "grid:", "times: 2", "--resume", "model.num_layers", "docs/sweeps.md"):
        assert words in text


def test_python_and_file_make_the_same_points(swept):
    named = {"context": [8, 16, 32], "network.bus.bytes_per_cycle": [16, 64]}
    in_python = sweep_of(named, model="tiny.json", context=None)
    del in_python["base"]["context"]
    frames = [ps.sweep(sweep, name, jobs=1).to_frame() for name, sweep in (("a", swept), ("b", in_python))]
    assert list(frames[0].key) == list(frames[1].key)
