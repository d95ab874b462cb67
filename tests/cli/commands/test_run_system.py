"""`pe-sim run` and `verify` on several arrays, `pe-sim systems`, and what is refused word by word."""

import json
from pathlib import Path

import pytest

import pe_sim as ps
from pe_sim.config.plans.plan import ParallelPlan
from tests.cli.conftest import TINY_MODEL
from tests.report.perfetto.chrome_trace import parse

FOREIGN = Path(__file__).resolve().parents[2] / "data" / "foreign"
SYSTEM = ("--arrays", "ring-of-4-bus-tree-1024", "--set", "array.num_pes=4")
STEP = ("--batch", "4", "--context", "50")


def answer(result):
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def four(tiny):
    """A model of four layers, four heads and two kv heads."""
    Path("four.json").write_text(json.dumps({**TINY_MODEL, "num_hidden_layers": 4}), encoding="utf-8")
    return "four.json"


def plan(**entries) -> str:
    Path("plan.json").write_text(json.dumps(entries), encoding="utf-8")
    return "plan.json"


# ---------------------------------------------------------------------------------------------------------------- run
def test_run_is_what_simulate_system_gives(call, four):
    system = ps.load_system("ring-of-4-bus-tree-1024", {"array.num_pes": 4, "array.overlap": 2})
    expected = ps.simulate_system(
        four, system, ps.Decode(4, 50), ParallelPlan(name="tp 2 x pp 2", tp=2, pp=2, microbatches=3), "megatron"
    )
    given = ("--tp", 2, "--pp", 2, "--microbatches", 3, "--overlap", 2, "--workflow", "megatron", "--json", "-")
    result = call("run", four, *SYSTEM, *STEP, *given)
    assert answer(result) == expected.to_json()
    assert "2 stages of tp 2, 3 microbatches" in result.stderr


def test_a_file_and_what_options_change_of_it(call, four):
    path = plan(tp=2, pp=2, name="mine")
    told = json.loads(answer(call("run", four, *SYSTEM, *STEP, "--plan", path, "--json", "-")))
    assert told["plan"]["name"] == "mine"
    assert told["plan"]["microbatches"] == [2]
    changed = ("--microbatches", "1", "--partition", "0,1,4")
    told = json.loads(answer(call("run", four, *SYSTEM, *STEP, "--plan", path, *changed, "--json", "-")))
    assert told["plan"]["microbatches"] == [1]
    assert [stage["layers"] for stage in told["plan"]["pipelines"][0]["stages"]] == [[0, 1], [1, 4]]


def test_model_and_system_are_changed(call, four):
    changes = ("--set", "model.num_layers=6", "--set", "arrays.0.count=6", "--set", "links.link.latency_cycles=9")
    told = json.loads(answer(call("run", four, *SYSTEM, *STEP, "--pp", "6", *changes, "--json", "-")))
    assert told["model"]["num_layers"] == 6
    assert len(told["plan"]["pipelines"][0]["stages"]) == 6
    assert told["system"]["links"]["link"]["latency_cycles"] == 9


def test_prefill_by_the_reference_engine(call, four):
    given = ("--phase", "prefill", "--prompt", "7,3", "--tp", "2", "--cp", "2", "--json", "-")
    fast, event = (
        json.loads(answer(call("run", four, *SYSTEM, *given, "--engine", engine))) for engine in ("fast", "event")
    )
    assert (fast.pop("engine"), event.pop("engine")) == ("fast", "event")
    assert fast == event
    assert fast["step"]["prompt_len"] == [7, 3]


def test_without_a_plan_one_is_searched(call, four):
    result = call("run", four, *SYSTEM, *STEP, "--workflow", "megatron")
    assert "plan " in answer(result)


def test_files(call, four):
    targets = ("--trace", "t.json", "--csv", "t.csv", "--channels", "c.csv", "--timeline", "t.svg", "--json", "r.json")
    text = answer(call("run", four, *SYSTEM, *STEP, "--tp", "2", "--pp", "2", *targets))
    report = json.loads(Path("r.json").read_text())
    assert f"{report['latency']['cycles']:,} cycles" in text
    assert parse(Path("t.json").read_text()).other["plan"] == "tp 2 x pp 2"
    head, *rows = Path("t.csv").read_text().splitlines()
    assert head == "pipeline,stage,kind,name,arrays,count,cycles,total_cycles,share,messages,bytes"
    assert len(rows) == len(report["operators"])
    head, *rows = Path("c.csv").read_text().splitlines()
    assert head.startswith("name,level,bytes_per_cycle,length_mm,messages,bytes,busy_cycles,utilization")
    assert len(rows) == report["channels"]["count"] == 8
    assert Path("t.svg").read_text().startswith("<?xml")


def test_foreign_plans_say_what_is_ignored(call):
    path = FOREIGN / "hetu" / "dp1_tp2_pp2.json"
    small = ("--set", "model.hidden_size=128", "--set", "model.num_heads=4", "--set", "model.num_kv_heads=4")
    text = answer(call("run", "llama-7b", *SYSTEM, *STEP, *small, "--set", "model.ffn_size=96", "--plan", path))
    assert "dp1_tp2_pp2: 2 stages of tp 2, 2 microbatches" in text
    assert [line for line in text.splitlines() if line.startswith("ignored: ")]


def test_listing(call):
    lines = answer(call("systems")).splitlines()
    assert [line.split()[0] for line in lines] == [
        "mesh-of-16-bus-tree-1024",
        "ring-of-4-bus-tree-1024",
        "ring-of-8-bus-tree-1024",
        "switch-of-64-bus-tree-1024",
    ]
    assert "64 x bus-tree-1024" in lines[-1]


def test_help_tells_of_systems(call):
    assert "systems" in answer(call("--help"))
    text = answer(call("run", "--help"))
    assert all(
        words in text for words in ("--arrays SYSTEM", "--plan FILE", "pe-sim systems", "--timeline FILE.png|svg")
    )


# ------------------------------------------------------------------------------------------------------------- verify
def test_verify(call, four):
    text = answer(call("verify", four, *SYSTEM, "--tp", "2", "--pp", "2", "--workflow", "megatron"))
    assert text.startswith("megatron on ring-of-4-bus-tree-1024 with tp 2 x pp 2 on 4 arrays (16 PEs)")
    assert text.splitlines()[-1] == "proven"
    told = json.loads(answer(call("verify", four, *SYSTEM, "--plan", plan(cp=4), "--json", "-")))
    assert told["holds"] is True


def test_verify_needs_a_plan(refused, four):
    assert refused("verify", four, *SYSTEM) == (
        "--plan: a proof on several arrays needs a plan\n  hint:     --plan FILE, or --tp 2\n"
    )


# ---------------------------------------------------------------------------------------------------------- bad input
EXPECTED = {
    "degrees that do not multiply": (
        ("--tp", "2"),
        "command line: dp, tp, pp, cp: the degrees do not multiply to the arrays\n"
        "  given:    'dp 1 x tp 2 x pp 1 x cp 1 = 2'\n"
        "  expected: 4, the arrays of ring-of-4-bus-tree-1024\n"
        "  hint:     a system of 2 arrays, or unused_arrays for the others\n",
    ),
    "too few bounds": (
        ("--tp", "2", "--pp", "2", "--partition", "0,4"),
        "command line: partition: 2 bounds\n  given:    [0, 4]\n  expected: 3: one more than the 2 stages\n",
    ),
    "bounds that skip a layer": (
        ("--tp", "2", "--pp", "2", "--partition", "1,2,4"),
        "command line: partition: the bounds begin with 1 and skip the layers before\n"
        "  given:    [1, 2, 4]\n  expected: 0 as the first\n",
    ),
    "bounds of another model": (
        ("--tp", "2", "--pp", "2", "--partition", "0,2,5"),
        "command line: partition: the bounds do not cut the model: the last stage ends with layer 4 of 4\n"
        "  given:    [0, 2, 5]\n  expected: 3 rising numbers from 0 to 4, such as [0, 2, 4]\n",
    ),
    "a method that is not there": (
        ("--pp", "4", "--partition", "unifrom"),
        "--partition: no such way to cut layers into stages\n  given:    'unifrom'\n"
        "  expected: uniform, uniform_floor, uniform_ceil, parameters, balanced, or bounds with commas between, for"
        " instance 0,10,22\n  hint:     did you mean 'uniform'?\n",
    ),
    "no shares": (
        ("--tp", "0", "--pp", "2"),
        "command line: tp: too small\n  given:    0\n  expected: a whole number from 1\n",
    ),
    "shares in words": (("--tp", "two"), "--tp: not a whole number\n  given:    'two'\n  expected: a whole number\n"),
    "no such file": (
        ("--plan", "nowhere.yaml"),
        "nowhere.yaml: no such file\n  expected: a plan's file (YAML or JSON)\n",
    ),
    "a folder": (("--plan", "."), ".: this is a folder\n  expected: a file\n"),
    "too many stages": (
        ("--pp", "8", "--set", "arrays.0.count=8"),
        "command line: pp: there are more stages than layers\n  given:    8\n"
        "  expected: at most 4, the layers of the model\n",
    ),
    "more pipelines than sequences": (
        ("--dp", "4", "--batch", "3"),
        "command line: dp: the batch has fewer sequences than the plan has pipelines\n  given:    4\n"
        "  expected: at most 3, the sequences of the step\n  hint:     a larger batch (--batch), or a smaller dp\n",
    ),
    "heads that do not go round": (
        ("--tp", "3", "--set", "arrays.0.count=3"),
        "command line: tp: the heads of four cannot be shared out over 3 arrays\n  given:    3\n"
        "  expected: up to 2 (its kv heads), or a multiple of that up to 4 (its heads)\n"
        "  hint:     the nearest that fits is 2\n",
    ),
    "one array and several": (
        ("--array", "bus-tree-64", "--tp", "4"),
        "--arrays: --array and --arrays exclude each other\n  given:    'ring-of-4-bus-tree-1024'\n"
        "  expected: one of the two: --array names one array, --arrays a system of several\n",
    ),
    "a page of several arrays": (
        ("--tp", "4", "--html", "x.html"),
        "--html: only a run on one array has this\n  given:    'x.html'\n"
        "  hint:     leave it out, or run one array (--array); with --arrays there are --json, --trace, --csv,"
        " --channels and --timeline\n",
    ),
    "two overlaps": (
        ("--tp", "4", "--overlap", "2", "--set", "array.overlap=1"),
        "--overlap: --overlap and --set array.overlap contradict each other\n  given:    2\n"
        "  expected: 1, as --set array.overlap says, or one of the two alone\n",
    ),
}

PLANS = {
    "another number of layers": (
        {"tp": 4, "num_layers": 12},
        "plan.json: num_layers: the plan is for another number of layers\n  given:    12\n",
    ),
    "a rank named twice": (
        {"pipelines": [{"stages": [{"arrays": [0, 1], "layers": 2}, {"arrays": [1, 3], "layers": 2}]}]},
        "plan.json: pipelines.0.stages.1.arrays: rank 1 is named twice, first in pipelines.0.stages.0.arrays\n",
    ),
    "a rank that is not there": (
        {"pipelines": [{"stages": [{"arrays": [0, 4], "layers": 4}]}]},
        "plan.json: arrays: there is no such array\n  given:    4\n"
        "  expected: 0 to 3, the arrays of ring-of-4-bus-tree-1024\n",
    ),
    "a layer in no stage": (
        {"pipelines": [{"stages": [{"arrays": [0], "layers": [0, 1]}, {"arrays": [1], "layers": [2, 4]}]}]},
        "plan.json: pipelines.0.stages.1.layers: skips to layer 2\n  given:    [2, 4]\n",
    ),
    "an unknown key": ({"tp": 2, "ppp": 2}, "plan.json: ppp: unknown key\n  given:    2\n  hint:"),
    "a wrong type": ({"tp": "2", "pp": 2}, "plan.json: tp: not a whole number\n  given:    '2'\n"),
    "no dialect": ({"hello": 1}, "plan.json: this is no plan of a known dialect\n  given:    ['hello']\n"),
}


@pytest.mark.parametrize("fault", EXPECTED)
def test_wrong_options(refused, four, fault):
    options, message = EXPECTED[fault]
    assert refused("run", four, *SYSTEM, *STEP, *options) == message


@pytest.mark.parametrize("fault", PLANS)
def test_wrong_plans(refused, four, fault):
    entries, message = PLANS[fault]
    assert refused("run", four, *SYSTEM, *STEP, "--plan", plan(**entries)).startswith(message)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe\x00plan", "bad.json: not UTF-8 text"),
        (b"\x80\x04\x95", "bad.json: not UTF-8 text"),
        (b"{", "bad.json: malformed JSON"),
        (b"[1, 2]", "bad.json: a list of 2 plans"),
        (b'"tp 2"', "bad.json: not a mapping"),
        (b"null", "bad.json: not a mapping"),
    ],
)
def test_files_that_are_no_plans(refused, four, content, message):
    Path("bad.json").write_bytes(content)
    assert refused("run", four, *SYSTEM, *STEP, "--plan", "bad.json").startswith(message)


@pytest.mark.parametrize("option", [("--plan", "plan.yaml"), ("--tp", "2"), ("--partition", "uniform")])
@pytest.mark.parametrize("array", [(), ("--array", "bus-tree-64")])
@pytest.mark.parametrize("command", ["run", "verify"])
def test_a_plan_for_one_array(refused, four, command, array, option):
    message = refused(command, four, *array, *option)
    assert message.startswith(f"{option[0]}: a plan is for several arrays, and there is one\n")
    assert "add --arrays SYSTEM" in message


@pytest.mark.parametrize("option", [("--heat", "x.png"), ("--roofline", "x.svg"), ("--situation", "mixed")])
def test_what_only_one_array_has(refused, four, option):
    given = ("--tp", "4", *option)
    assert refused("run", four, *SYSTEM, *given).startswith(f"{option[0]}: only a run on one array has this\n")


def test_timelines_of_one_array(refused, four):
    assert refused("run", four, "--timeline", "x.png").startswith("--timeline: only several arrays have a timeline")
    assert "ends in .png or .svg" in refused("run", four, *SYSTEM, "--timeline", "x.gif")


def test_overflow_is_refused_and_allowed(call, refused):
    given = ("run", "llama-2-7b", *SYSTEM, "--tp", "4", "--context", "10")
    message = refused(*given)
    assert "of array 0 (pipeline 0, stage 0) is too small" in message
    assert "--allow-overflow" in message
    assert answer(call(*given, "--allow-overflow"))


def test_paths_of_arrays_are_shown(refused, four):
    message = refused("run", four, *SYSTEM, "--tp", "4", "--set", "num_pes=3")
    assert message.startswith("--set num_pes: unknown path\n")
    assert "of all arrays it is array.num_pes, of one entry arrays.N.set.num_pes" in message
    assert "did you mean 'num_pes'?" in refused("run", four, *SYSTEM, "--tp", "4", "--set", "array.num_pe=3")


def test_unknown_systems(refused, four):
    assert refused("run", four, "--arrays", "ring-of-4", "--tp", "4").startswith("unknown system\n")
    assert refused("run", four, "--arrays", "nowhere.yaml", "--tp", "4").startswith("nowhere.yaml")
