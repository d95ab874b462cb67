"""What the commands answer."""

import json
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest

import pe_sim
from pe_sim import api
from pe_sim.config.files.loading import preset_names
from pe_sim.errors import DeadlockError, InputError

COMMANDS = ("run", "compare", "collective", "gemm", "models", "arrays", "workflows")


def answer(result):
    assert result.exit_code == 0, result.output
    return result.stdout


def in_json(result):
    return json.loads(answer(result))


def test_run_is_what_simulate_gives(call, tiny):
    args = ("--batch", "2", "--context", "100", "--workflow", "megatron", "--set", "num_pes=16", "--overlap", "2")
    expected = api.simulate(
        api.load_model(tiny, {"num_layers": 1}),
        api.load_array("bus-tree-256", {"num_pes": 16, "overlap": 2}),
        api.Decode(2, 100),
        "megatron",
    )
    assert answer(call("run", tiny, *args, "--set", "model.num_layers=1", "--json", "-")) == expected.to_json()


def test_run_without_options(call, tiny):
    report = in_json(call("run", tiny, "--json", "-"))
    assert report["step"] == {"phase": "decode", "batch_size": 1, "context_len": 2048}
    assert report["workflow"]["name"] == "workflow-1"
    assert report["array"]["name"] == "bus-tree-256"
    assert report["overlap"] == 1


def test_steps(call, tiny):
    def step(*args):
        return in_json(call("run", tiny, *args, "--json", "-"))["step"]

    assert step("--context", "100,200") == {"phase": "decode", "batch_size": 2, "context_len": [100, 200]}
    assert step("--context", "100,200", "--batch", "2")["batch_size"] == 2
    chunk = step("--phase", "prefill", "--prompt", "8", "--context", "16", "--logits", "all", "--causal", "full")
    assert chunk == {
        "phase": "prefill",
        "batch_size": 1,
        "prompt_len": 8,
        "context_len": 16,
        "logits": "all",
        "causal": "full",
    }
    assert step("--phase", "prefill", "--prompt", "8")["context_len"] == 0


def test_the_last_setting_counts(call, tiny):
    report = in_json(call("run", tiny, "--set", "num_pes=4", "--set", "num_pes=8", "--json", "-"))
    assert report["array"]["num_pes"] == 8


def test_compare(call, tiny):
    comparison = in_json(call("compare", tiny, "--context", "64", "--json", "-"))
    assert comparison["schema"] == "pe-sim.comparison/1"
    names = [report["workflow"]["name"] for report in comparison["reports"]]
    assert names + [failed["workflow"] for failed in comparison["failed"]] == list(api.WORKFLOWS)
    cycles = {report["workflow"]["name"]: report["latency"]["cycles"] for report in comparison["reports"]}
    assert cycles[comparison["best"]] == min(cycles.values())
    table = answer(call("compare", tiny, "--workflows", "megatron,workflow-1,megatron"))
    assert table.index("megatron") < table.index("workflow-1")


LARGE_BATCH = ("--array", "bus-tree-1024", "--batch", "16", "--context", "2000", "--workflows", "megatron,workflow-2")


def test_compare_says_when_groups_are_faster(call):
    args = ("compare", "llama-3.2-1b", *LARGE_BATCH)
    told = in_json(call(*args, "--json", "-"))
    faster = told["in_groups"]
    assert (faster["workflow"], faster["groups"]) == ("workflow-2", 4)
    report = api.simulate(
        "llama-3.2-1b", "bus-tree-1024", api.Decode(16, 2000), replace(api.WORKFLOWS["workflow-2"], groups=4)
    )
    assert faster["cycles"] == report.latency_cycles
    best = min(report["latency"]["cycles"] for report in told["reports"])
    assert faster["percent_fewer"] == pytest.approx(100 * (1 - report.latency_cycles / best))
    words = f"workflow-2 with groups: 4 takes {report.latency_cycles:,} cycles, {faster['percent_fewer']:.1f}% fewer"
    assert words in answer(call(*args))
    found = pe_sim.compare("llama-3.2-1b", "bus-tree-1024", api.Decode(16, 2000), ["megatron", "workflow-2"])
    assert found.in_groups is not None
    assert found.in_groups.to_dict() == faster
    printed = StringIO()
    found.print(printed)
    found.save_html("page.html")
    answer(call(*args, "--html", "cli.html"))
    for text in (printed.getvalue(), found._repr_html_(), Path("page.html").read_text(), Path("cli.html").read_text()):
        assert words in text.replace("&#39;", "'")


@pytest.mark.parametrize(
    ("batch", "context", "names"),
    [("1", "64", "megatron,workflow-2"), ("4", "64", "megatron,workflow-2"), ("2", "64", "batch-block")],
    ids=["one sequence", "groups are slower", "no groups can be made"],
)
def test_compare_is_silent_about_groups_that_do_not_win(call, tiny, batch, context, names):
    args = ("compare", tiny, "--set", "num_pes=8", "--batch", batch, "--context", context, "--workflows", names)
    told = in_json(call(*args, "--json", "-"))
    assert "in_groups" not in told
    assert "groups:" not in answer(call(*args))


def test_compare_names_what_cannot_be_done_and_why(call, tiny, monkeypatch):
    simulate = api.simulate

    def some(model, array, step, workflow, *args, **kwargs):
        if workflow.name != "megatron":
            raise InputError(f"{workflow.name} does not fit", hint="more PEs")
        return simulate(model, array, step, workflow, *args, **kwargs)

    monkeypatch.setattr(api, "simulate", some)
    result = call("compare", tiny, "--workflows", "workflow-1,megatron")
    assert "workflow-1 cannot do this step:\n  workflow-1 does not fit\n    hint:     more PEs\n" in answer(result)
    comparison = in_json(call("compare", tiny, "--workflows", "workflow-1,megatron", "--json", "-"))
    assert comparison["best"] == "megatron"
    assert [failed["workflow"] for failed in comparison["failed"]] == ["workflow-1"]


def test_compare_fails_when_no_workflow_works(refused, tiny, monkeypatch):
    def none(model, array, step, workflow, *args, **kwargs):
        raise InputError(f"{workflow.name} does not fit")

    monkeypatch.setattr(api, "simulate", none)
    message = refused("compare", tiny, "--workflows", "workflow-1,megatron", "--json", "-")
    assert "none of the workflows" in message
    assert "workflow-1 does not fit" in message
    assert "megatron does not fit" in message


def test_compare_says_a_shared_reason_once(refused, tiny):
    assert refused("compare", tiny, "--context", "5000").count("4,096 positions") == 1


def test_collectives_of_the_worked_examples(call):
    options = ("--array", "bus-tree-256", "--set", "network.tree.latency_cycles=1", "--json", "-")

    def cycles(kind, size):
        return in_json(call("collective", kind, "--bytes", size, *options))["cycles"]

    assert cycles("broadcast", "8k") == 134
    assert cycles("reduce", "16384") == 280
    assert cycles("all-reduce", "16k") == 414
    assert [result["cycles"] for result in in_json(call("collective", "reduce", "--bytes", "64,16k", *options))] == [
        25,
        280,
    ]


def test_table_of_a_collective(call):
    table = answer(call("collective", "broadcast", "--bytes", "64,8k"))
    assert "GB/s" in table
    rows = [line.split() for line in table.splitlines() if not line.startswith("#")]
    assert [row[:3] for row in rows] == [["64", "64", "7"], ["8192", "8192", "134"]]
    assert rows[1][3:8] == ["134.00", "ns", "61.13", "61.13", "1"]
    table = answer(call("collective", "scatter", "--bytes", "32", "--set", "network.collectives.scatter=serial"))
    assert table.splitlines()[-1].split() == ["32", "8192", "772", "772.00", "ns", "10.61", "10.61", "256", "serial"]
    table = answer(call("collective", "all-to-all", "--bytes", "32", "--set", "num_pes=4"))
    assert table.splitlines()[-1].split()[:2] == ["32", "384"]


def test_help_of_collective_names_every_kind(call):
    text = " ".join(answer(call("collective", "--help")).replace("-\n", "-").split()).replace("- ", "-")
    assert all(kind in text for kind in api.COLLECTIVE_KINDS)


def test_gemm_of_the_worked_example(call):
    sizes = ("-m", "1", "-k", "4096", "-n", "16")
    assert in_json(call("gemm", *sizes, "--json", "-"))["cycles"] == 2077
    assert in_json(call("gemm", *sizes, "--overlap", "0", "--json", "-"))["cycles"] == 2332
    assert "2,077" in answer(call("gemm", *sizes))


def test_listings(call):
    def first_words(command):
        return [line.split()[0] for line in answer(call(command)).splitlines()]

    assert sorted(first_words("models")) == sorted(preset_names("models"))
    assert first_words("models").index("llama-2-7b") < first_words("models").index("llama-2-13b")
    trees = [name for name in first_words("arrays") if name.startswith("bus-tree") and not name.endswith("large")]
    assert trees == ["bus-tree-64", "bus-tree-256", "bus-tree-1024", "bus-tree-4096"]
    assert first_words("workflows") == [*api.WORKFLOWS, "auto"]


def test_every_command_teaches(call):
    overview = answer(call("--help"))
    for command in COMMANDS:
        assert f"\n  {command} " in overview
        text = answer(call(command, "--help"))
        assert "Example" in text
        assert f"pe-sim {command}" in text.partition("Example")[2]


def test_version(call):
    assert answer(call("--version")) == f"pe-sim {pe_sim.__version__}\n"


@pytest.mark.parametrize(
    ("fault", "words"), [(KeyError("x"), "KeyError: 'x'"), (DeadlockError(["PE 3 waits"]), "deadlock")]
)
def test_an_internal_fault_is_told_as_one(call, tiny, monkeypatch, fault, words):
    def broken(*_, **__):
        raise fault

    monkeypatch.setattr(api, "simulate", broken)
    result = call("run", tiny, "--json", "out.json")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("internal fault: ")
    assert words in result.stderr
    assert "not of the input" in result.stderr
    assert "Traceback" not in result.stderr
    assert not Path("out.json").exists()
    monkeypatch.setenv("PE_SIM_TRACEBACK", "1")
    assert "Traceback" in call("run", tiny).stderr


def test_an_interrupt_is_quiet(call, tiny, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(api, "simulate", interrupted)
    result = call("run", tiny)
    assert result.exit_code == 130
    assert result.output.strip() == ""


def test_every_answer_says_how_far_it_is_to_be_trusted(call, tiny):
    keys = ["against", "envelope", "percent", "outside"]
    small = ("--set", "num_pes=4")
    answers = {
        ("run", tiny, "--workflow", "megatron"): "percent",
        ("collective", "reduce", "--bytes", "64"): "percent",
        ("gemm", "-m", "1", "-k", "16", "-n", "16"): "percent",
        ("run", tiny, "--workflow", "all-row"): "outside",
    }
    for args, told in answers.items():
        accuracy = in_json(call(*args, *small, "--json", "-"))["accuracy"]
        assert list(accuracy) == keys
        assert accuracy["against"] == "RTL"
        assert (accuracy["percent"] is None) == bool(accuracy["outside"]) == (told == "outside")
        assert "accuracy" in answer(call(*args, *small))
    reports = in_json(call("compare", tiny, "--workflows", "megatron,all-row", *small, "--json", "-"))["reports"]
    assert [report["accuracy"]["envelope"] == "outside" for report in reports] == [False, True]
    assert "\naccuracy of megatron: " in answer(call("compare", tiny, "--workflows", "megatron,all-row", *small))


_ODD_NOTE = "keys of the model's config that are not understood, ignored: single, odd_part"
_SMALL = ("--array", "bus-tree-64", "--set", "num_pes=4")
_MODEL_COMMANDS = {
    "run": ("--context", "5"),
    "run on several arrays": ("--context", "5", "--arrays", "ring-of-4-bus-tree-1024", "--tp", "4"),
    "compare": ("--context", "5", "--workflows", "megatron"),
    "search": ("--context", "5", "--simulations", "2"),
    "sensitivity": ("--context", "5", "--parameters", "clock"),
    "generate": ("--prompt", "5", "--output", "2"),
    "verify": (),
}


@pytest.mark.parametrize("command", _MODEL_COMMANDS)
def test_every_command_takes_keys_to_ignore_and_tells_them(call, tiny, command):
    model = json.loads(Path(tiny).read_text(encoding="utf-8")) | {"single": 3, "odd_part": {"a": 1}}
    Path(tiny).write_text(json.dumps(model), encoding="utf-8")
    name, *options = command.split()[0], *_MODEL_COMMANDS[command]
    machine = () if "--arrays" in options else _SMALL
    args = (name, tiny, *machine, *options, "--json", "out.json")
    refusal = call(*args)
    assert refusal.exit_code == 2
    assert "odd_part: unknown key" in refusal.stderr
    assert "--ignore-key odd_part" in refusal.stderr
    done = call(*args, "--ignore-key", "odd_part")
    assert done.exit_code == 0, done.output
    assert _ODD_NOTE in " ".join(done.stdout.split())
    assert "odd_part" in Path("out.json").read_text(encoding="utf-8")


def test_a_sweep_takes_keys_to_ignore(call, tiny):
    model = json.loads(Path(tiny).read_text(encoding="utf-8")) | {"odd_part": {"a": 1}}
    Path(tiny).write_text(json.dumps(model), encoding="utf-8")
    base = {"array": "bus-tree-64", "context": 5, "workflow": "megatron", "num_pes": 16}
    sweep = {"base": base | {"ignore_keys": ["odd_part"]}, "grid": {"model": [tiny, "llama-3.2-1b"]}}
    Path("sweep.yaml").write_text(json.dumps(sweep), encoding="utf-8")
    done = call("sweep", "sweep.yaml", "--out", "swept")
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("2 points, 0 failed")
    for wrong, words in (
        (None, "odd_part: unknown key"),
        ("odd_part", "not a list of keys"),
        ([3], "not a list of keys"),
    ):
        sweep["base"]["ignore_keys"] = wrong
        Path("sweep.yaml").write_text(json.dumps(sweep), encoding="utf-8")
        refusal = call("sweep", "sweep.yaml", "--out", "other")
        assert refusal.exit_code == 2
        assert words in refusal.stderr


def test_pages_tell_ignored_keys(call, tiny):
    model = json.loads(Path(tiny).read_text(encoding="utf-8")) | {"single": 3}
    Path(tiny).write_text(json.dumps(model), encoding="utf-8")
    for command, options in {"run": (), "compare": ("--workflows", "megatron")}.items():
        assert call(command, tiny, *_SMALL, "--context", "5", *options, "--html", f"{command}.html").exit_code == 0
        assert "not understood, ignored: single" in Path(f"{command}.html").read_text(encoding="utf-8")
