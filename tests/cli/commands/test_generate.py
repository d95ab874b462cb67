"""What `pe-sim generate` answers."""

import json

import pytest

import pe_sim as ps

SMALL = ("--set", "num_pes=4", "--prompt", "8", "--output", "4")
ARRAY = {"num_pes": 4}


def answer(result):
    assert result.exit_code == 0, result.output
    return result.stdout


def in_json(result):
    return json.loads(answer(result))


def row(text, name):
    return next(line.split()[-3] for line in text.splitlines() if line.startswith(name))


def test_one_workflow(call, tiny):
    made = ps.generate(tiny, ps.load_array("bus-tree-256", ARRAY), 8, 4, workflow="megatron")
    told = in_json(call("generate", tiny, *SMALL, "--workflow", "megatron", "--json", "-"))
    assert told == json.loads(json.dumps(made.to_dict()))
    text = answer(call("generate", tiny, *SMALL, "--workflow", "megatron"))
    assert row(text, "time to the first token") == f"{made.ttft_cycles:,}"
    assert row(text, "total") == f"{made.total_cycles:,}"
    assert "switch" not in text


def test_two_workflows_with_the_switch(call, tiny):
    pair = ("--workflow", "megatron", "--decode-workflow", "workflow-2", "--switch-weights", "reshard")
    told = in_json(call("generate", tiny, *SMALL, *pair, "--json", "-"))
    assert told["switch"]["cycles"] > 0
    total = told["ttft"]["cycles"] + told["switch"]["cycles"] + sum(told["decode_cycles"])
    assert told["total"]["cycles"] == total
    assert "switch (weights reshard" in answer(call("generate", tiny, *SMALL, *pair))


@pytest.mark.parametrize(
    ("names", "num_pairs"),
    [
        ("megatron,workflow-2", 4),
        pytest.param("megatron,workflow-2,auto", 16, marks=pytest.mark.slow),  # auto stands for one of each phase
    ],
)
def test_every_pair(call, tiny, names, num_pairs):
    told = in_json(call("generate", tiny, *SMALL, "--pairs", names, "--json", "-"))
    assert told["schema"] == "pe-sim.switch-pairs/1"
    assert len(told["pairs"]) == num_pairs
    totals = [pair["total_cycles"] for pair in told["pairs"]]
    assert totals == sorted(totals)
    assert told["best"]["total_cycles"] == totals[0]
    assert told["verdict"] in answer(call("generate", tiny, *SMALL, "--pairs", names))


def test_an_answer_of_one_token_has_no_time_per_token(call, tiny):
    text = answer(call("generate", tiny, "--set", "num_pes=4", "--prompt", "8", "--output", "1"))
    assert "TTFT" in text
    assert "TPOT" not in text


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--pairs", "megatron"), "there is no other to switch to."),
        (("--pairs", "megatron,all-row", "--output", "1"), "no pair that fits has to move anything."),
    ],
)
def test_why_there_is_no_switch(call, tiny, given, said):
    assert answer(call("generate", tiny, *SMALL, *given)).splitlines()[-1].endswith(f"for both phases: {said}")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--pairs", "megatron,,workflow-1"), "--pairs: an empty name in the list"),
        (("--switch-weights", "reshard"), "--switch-weights: there is no switch"),
        (("--pairs", "megatron,workflo-1"), "did you mean 'workflow-1'"),
        (("--pairs", "megatron", "--workflow", "megatron"), "--workflow and --pairs exclude each other"),
        (("--pairs", "megatron", "--allow-overflow"), "--allow-overflow and --pairs exclude each other"),
        (("--output", "0"), "a generation has at least one token"),
        (("--prompt", "many"), "--prompt"),
        (("--prompt", "0"), "prompt_len"),
        (("--prompt", "8", "--output", "9999999"), "--set model.max_position_embeddings"),
    ],
)
def test_bad_input(call, tiny, given, said):
    result = call("generate", tiny, *SMALL, *given)
    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stdout == ""
