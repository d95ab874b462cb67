"""JSON, CSV and traces: pure, whole, the same every time, and only what was asked for."""

import csv
import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import files


@pytest.mark.parametrize(
    "args",
    [
        ("run", "tiny.json"),
        ("run", "tiny.json", "--phase", "prefill", "--prompt", "3,5", "--context", "7", "--logits", "all"),
        ("compare", "tiny.json", "--workflows", "workflow-1,megatron"),
        ("collective", "all-reduce", "--bytes", "16k"),
        ("collective", "gather", "--bytes", "8,64"),
        ("gemm", "-m", "1", "-k", "4096", "-n", "16"),
    ],
    ids=lambda args: " ".join(args[:2]),
)
def test_standard_output_holds_the_json_alone_and_the_same_every_time(call, tiny, args):
    first, second = call(*args, "--json", "-"), call(*args, "--json", "-")
    assert first.exit_code == 0, first.output
    assert json.loads(first.stdout)
    assert first.stdout.endswith("\n")
    assert first.stderr, "the readable form goes to standard error"
    assert first.stdout_bytes == second.stdout_bytes
    to_file = call(*args, "--json", "out.json")
    assert Path("out.json").read_bytes() == first.stdout_bytes
    assert to_file.stdout == first.stderr
    assert to_file.stderr == ""


def test_all_files_at_once(call, tiny):
    before = files()
    result = call("run", tiny, "--json", "out.json", "--csv", "out.csv", "--trace", "out.trace.json")
    assert result.exit_code == 0, result.output
    assert files() - before == {Path("out.json"), Path("out.csv"), Path("out.trace.json")}
    assert "cycles" in result.stdout
    json.loads(Path("out.trace.json").read_text(encoding="utf-8"))
    operators = json.loads(Path("out.json").read_text(encoding="utf-8"))["operators"]
    with open("out.csv", encoding="utf-8", newline="") as text:
        rows = list(csv.DictReader(text))
    assert [row["name"] for row in rows] == [operator["name"] for operator in operators]
    assert [row["cycles"] for row in rows] == [str(operator["cycles"]) for operator in operators]


def test_files_are_replaced_and_keep_their_mode_and_links(call):
    Path("real.json").write_text("old", encoding="utf-8")
    Path("real.json").chmod(0o600)
    Path("link.json").symlink_to("real.json")
    assert call("gemm", "-m", "1", "-k", "8", "-n", "8", "--json", "link.json").exit_code == 0
    assert Path("link.json").is_symlink()
    assert json.loads(Path("real.json").read_text(encoding="utf-8"))["cycles"] > 0
    assert Path("real.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("array", ["bus-tree-64", "mesh-256"])
def test_channels_as_a_table_and_as_a_picture(call, tiny, array):
    args = ("run", tiny, "--array", array, "--set", "num_pes=16")
    result = call(*args, "--channels", "channels.csv", "--heat", "heat.png", "--json", "out.json")
    assert result.exit_code == 0, result.output
    assert Path("heat.png").read_bytes().startswith(b"\x89PNG")
    report = json.loads(Path("out.json").read_text(encoding="utf-8"))
    with open("channels.csv", encoding="utf-8", newline="") as text:
        rows = list(csv.DictReader(text))
    assert len(rows) == report["channels"]["count"]
    assert max(int(row["busy_cycles"]) for row in rows) == report["bounds"]["network_cycles"]
    hottest = report["channels"]["hottest"][0]
    assert next(row for row in rows if row["name"] == hottest["name"])["bytes"] == str(hottest["bytes"])


def test_the_same_picture_twice_is_the_same_file(call, tiny):
    for name in ("first.png", "second.png"):
        call("run", tiny, "--array", "torus-256", "--set", "num_pes=16", "--heat", name)
    assert Path("first.png").read_bytes() == Path("second.png").read_bytes()


def test_a_run_on_one_bus_and_one_tree_loads_no_graphs_and_no_pictures(tiny):
    code = (
        "import sys; from pe_sim.cli import main; sys.argv = ['pe-sim', 'run', 'tiny.json', '--json', 'out.json']\n"
        "try: main()\nexcept SystemExit as done: assert not done.code\n"
        "assert not {'networkx', 'scipy', 'matplotlib', 'pandas'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_device_is_written_to_and_not_replaced(call, tiny):
    before = os.stat(os.devnull)
    result = call("run", tiny, "--json", os.devnull, "--csv", os.devnull, "--trace", os.devnull)
    assert result.exit_code == 0, result.output
    assert os.stat(os.devnull).st_ino == before.st_ino
    assert not os.path.isfile(os.devnull)


def test_nothing_is_left_when_a_file_cannot_be_written(refused, tiny, monkeypatch):
    Path("out.json").write_text("old", encoding="utf-8")

    def full(self, path, *, pes):
        Path(path).write_text("half", encoding="utf-8")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pe_sim.report.report.Report.save_trace", full)
    message = refused("run", tiny, "--json", "out.json", "--csv", "out.csv", "--trace", "out.trace")
    assert "out.trace: the file cannot be written: No space left on device" in message
    assert Path("out.json").read_text(encoding="utf-8") == "old"


def test_nothing_is_left_after_a_fault(call, tiny, monkeypatch):
    before = files()
    monkeypatch.setattr("pe_sim.report.report.Report.to_json", lambda self: 1 / 0)
    assert call("run", tiny, "--json", "out.json").exit_code == 1
    assert files() == before


@pytest.mark.parametrize(
    "args",
    [
        ("run", "--context", "40"),
        ("run", "--situation", "two.yaml"),
        ("run", "--arrays", "ring-of-4-bus-tree-1024", "--tp", "4", "--set", "array.num_pes=4"),
        ("compare", "--workflows", "workflow-1,megatron", "--context", "40"),
        ("compare", "--workflows", "workflow-1,megatron", "--situation", "two.yaml"),
        ("generate", "--prompt", "8", "--output", "3"),
        ("generate", "--prompt", "8", "--output", "3", "--decode-workflow", "megatron"),
        ("sensitivity", "--parameters", "clock", "--context", "40"),
    ],
    ids=lambda args: " ".join(args[:2]),
)
def test_what_does_not_fit_says_so_in_words_and_in_json(call, tiny, args):
    steps = "description: two\nbatch_sequences: 2\nprompt_tokens: [8, 24]\noutput_tokens: [2, 5]\n"
    Path("two.yaml").write_text(steps, encoding="utf-8")
    command, *rest = args
    path = "array.pe.memory.capacity_bytes" if "--arrays" in args else "pe.memory.capacity_bytes"
    told = call(command, tiny, *rest, "--allow-overflow", "--set", f"{path}=1000", "--json", "-")
    assert told.exit_code == 0, told.output
    assert "DOES NOT FIT" in told.stderr
    fitting = call(command, tiny, *rest, "--allow-overflow", "--json", "-")
    assert "DOES NOT FIT" not in fitting.stderr
    assert "does_not_fit" not in fitting.stdout
    answer = json.loads(told.stdout)
    for each in answer.get("reports") or answer.get("results") or [answer]:
        lacks = each["does_not_fit"]
        assert lacks["bound"] == 1000 < lacks["demand"]
        assert f"needs {lacks['demand']:,} bytes, has 1,000 bytes" in lacks["problem"]
        assert lacks["unit"] == "bytes"


@pytest.mark.parametrize("where", [(), ("--arrays", "ring-of-4-bus-tree-1024", "--tp", "4")], ids=["one", "several"])
def test_a_proof_says_what_does_not_fit(call, tiny, where):
    path = "array." if where else ""
    small = ("--set", f"{path}num_pes=2", "--set", f"{path}pe.memory.capacity_bytes=1000", "--json", "-")
    done = call("verify", tiny, "--workflow", "megatron", *where, *small)
    assert done.exit_code == 0, done.output
    assert "DOES NOT FIT: the memory of PE 0" in done.stderr
    assert json.loads(done.stdout)["does_not_fit"]["bound"] == 1000


def test_bounds_are_not_set_against_what_does_not_fit(call, tiny):
    args = ("compare", tiny, "--workflows", "megatron", "--reference", "h100")
    fits = call(*args).stdout
    lacks = call(*args, "--allow-overflow", "--set", "pe.memory.capacity_bytes=1000").stdout
    of_machine = [next(line for line in text.splitlines() if "H100" in line).split() for text in (fits, lacks)]
    assert float(of_machine[0][-2]) > 0
    assert of_machine[1][-2] == "-"
