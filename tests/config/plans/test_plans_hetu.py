"""Hetu's ds_parallel_config: the real files, unions, and every message."""

import copy
import json
from pathlib import Path

import pytest

from pe_sim.config.plans.checks import stage
from pe_sim.config.plans.hetu_generators import generate_llama_4d_config, generate_llama_hetero_4d_config
from pe_sim.config.plans.load import load_plan
from pe_sim.config.plans.plan import Degrees, PipelinePlan
from pe_sim.errors import InputError

SAMPLES = Path(__file__).resolve().parents[2] / "data" / "foreign" / "hetu"
BLOCK = "gpt.blocks.blocks0-15"


def sample(name="dp1_tp2_pp2"):
    return json.loads((SAMPLES / f"{name}.json").read_text())


def changed(path, value, config=None):
    """A copy of a config with one value replaced, or left out (None)."""
    result = copy.deepcopy(config or sample())
    *parents, last = path
    inner = result
    for key in parents:
        inner = inner[key]
    if value is None:
        del inner[last]
    else:
        inner[last] = value
    return result


def message(plan):
    with pytest.raises(InputError) as caught:
        load_plan(plan)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "pipelines"),
    [
        ("dp1_tp2_pp2", [[((0, 1), 0, 16, 2), ((2, 3), 16, 16, 2)]]),
        ("dp1_tp4_pp1", [[((0, 1, 2, 3), 0, 32, 4)]]),
        ("dp2_tp1_pp2", [[((0,), 0, 16, 1), ((2,), 16, 16, 1)], [((1,), 0, 16, 1), ((3,), 16, 16, 1)]]),
    ],
)
def test_every_real_file(name, pipelines):
    plan = load_plan(SAMPLES / f"{name}.json")
    assert plan.pipelines == tuple(
        PipelinePlan(tuple(stage(arrays, first, count, Degrees(tp=tp)) for arrays, first, count, tp in stages))
        for stages in pipelines
    )
    assert (plan.num_layers, plan.unused, plan.split_vocabulary, plan.name) == (32, (), True, name)
    assert plan.ignored == (f"zero: {'true' if name == 'dp2_tp1_pp2' else 'false'}",)
    assert len(list(SAMPLES.iterdir())) == 3


def test_stages_with_different_numbers_of_replicas_are_one_pipeline():
    config = sample()
    for part in config["gpt"]["blocks"]["blocks16-31"]["attn"], config["gpt"]["blocks"]["blocks16-31"]["mlp"]:
        for tensor in part.values():
            tensor["split"], tensor["dup"] = {}, 2
    config["lm_head"]["split"], config["lm_head"]["dup"] = {"1": 1}, 2
    (pipeline,) = load_plan(config).pipelines
    assert [item.degrees[0] for item in pipeline.stages] == [Degrees(tp=2), Degrees(dp=2)]


def test_devices_that_nothing_names_are_unused():
    assert load_plan(changed(("devices",), [0, 1, 2, 3, 6, 7])).unused == (6, 7)


def test_a_whole_head_on_each_array():
    config = changed(("lm_head", "split"), {})
    config["lm_head"]["dup"] = 2
    assert load_plan(config).split_vocabulary is False


def test_keys_of_training_are_listed():
    config = changed(("gpt", "blocks", "blocks0-15", "recompute"), [True])
    config["recompute_granularity"] = None
    config["gpt"]["lora"] = {"rank": 8}
    assert load_plan(config).ignored == (
        "zero: false",
        "recompute_granularity: null",
        'lora: {"rank": 8}',
        "recompute: [true]",
    )


def test_arguments_of_the_generators():
    uneven = {"cp_list": [1, 1], "hetero_layers": [[20, 12], [32]], "num_gpus": 6, "unused_rank": [1]}
    mapping = {str(rank): 10 + rank for rank in range(6)}
    plan = load_plan({**uneven, "rank_to_device_mapping": mapping, "recompute_layers": []})
    assert plan.pipelines == (
        PipelinePlan((stage((10,), 0, 20, Degrees()), stage((12, 13), 20, 12, Degrees(tp=2)))),
        PipelinePlan((stage((14, 15), 0, 32, Degrees(tp=2)),)),
    )
    assert (plan.unused, plan.num_layers, plan.ignored) == ((11,), 32, ("recompute_layers: []",))
    equal = load_plan({"num_gpus": 8, "dp": 2, "tp": 2, "pp": 2})
    assert equal.pipelines == load_plan(generate_llama_4d_config([])).pipelines


# A `ds_parallel` section as a run's YAML has it: every field of Hetu's StrategyConfig.
SECTION = {
    "hetero": False,
    "dp": 2,
    "cp": 1,
    "tp": 2,
    "pp": 2,
    "zero": True,
    "num_layers": 32,
    "num_gpus": 8,
    "ds_parallel_config_path": "ds_parallel_config",
    "ds_parallel_config_name": "homo.json",
    "rank_to_device_mapping": None,
    "unused_rank": None,
    "gpus_per_stage": 2,
    "hetero_layers": None,
    "micro_batch_num_list": None,
    "seq_len_list": None,
    "cp_list": None,
    "recompute": {"recompute_granularity": None, "recompute_layer_idxs_list": None},
}


def test_a_section_of_a_runs_yaml():
    plan = load_plan(SECTION)
    assert plan.pipelines == load_plan({"num_gpus": 8, "dp": 2, "tp": 2, "pp": 2}).pipelines
    whole = load_plan({"trainer": {"epochs": 3}, "ds_parallel": SECTION})
    assert whole.pipelines == plan.pipelines
    assert whole.ignored == (*plan.ignored, 'trainer: {"epochs": 3}')
    assert {line.partition(":")[0] for line in plan.ignored} == {
        "zero",
        "ds_parallel_config_path",
        "ds_parallel_config_name",
        "gpus_per_stage",
        "micro_batch_num_list",
        "seq_len_list",
        "recompute",
    }


def test_what_a_section_leaves_out_or_has_null_is_one():
    """StrategyConfig's defaults; the generators' are 32 layers, dp 2, tp 2, pp 2."""
    alone = load_plan({"ds_parallel": {"num_layers": 4}})
    assert (alone.pipelines, alone.num_layers) == ((PipelinePlan((stage((0,), 0, 4, Degrees()),)),), 4)
    assert load_plan({**dict.fromkeys(SECTION), "num_layers": 4}).pipelines == alone.pipelines
    assert (
        load_plan({"num_gpus": 8, "cp": None, "hetero_layers": None}).pipelines == load_plan({"num_gpus": 8}).pipelines
    )


def test_an_uneven_section():
    layers = [[20, 12], [16, 16]]
    ranks = {rank: 7 - rank for rank in range(8)}
    uneven = {**SECTION, "hetero": True, "hetero_layers": layers, "rank_to_device_mapping": ranks}
    plan = load_plan(uneven)
    arguments = {"cp_list": [1, 1], "hetero_layers": layers, "rank_to_device_mapping": ranks, "num_gpus": 8}
    assert plan.pipelines == load_plan(arguments).pipelines
    assert plan.ignored[0] == "pp: 2 (the lists say it)"
    shared = load_plan({**uneven, "dp": 1, "cp": 2})  # as many pipelines that share the tokens of one
    assert shared.pipelines == load_plan({**arguments, "dp": 1, "cp_list": [2]}).pipelines


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"hetero_layers": [[32]]},
            "hetero_layers: says something where hetero is false\n  given:    [[32]]\n"
            "  expected: null, or hetero: true",
        ),
        (
            {"unused_rank": [1]},
            "unused_rank: says something where hetero is false\n  given:    [1]\n  expected: null, or hetero: true",
        ),
        (
            {"cp_list": [1, 2]},
            "cp_list: says something where hetero is false\n  given:    [1, 2]\n  expected: null, or hetero: true",
        ),
        (
            {"unused_rank": 0},
            "unused_rank: says something where hetero is false\n  given:    0\n  expected: null, or hetero: true",
        ),
        ({"hetero": True}, "hetero_layers: missing\n  hint:     state hetero_layers; it has no default"),
        ({"hetero": 1}, "hetero: not a boolean\n  given:    1\n  expected: true or false"),
        ({"num_gpus": "8"}, "num_gpus: not a whole number\n  given:    '8'\n  expected: a whole number"),
        ({"heteros": True}, "heteros: unknown key\n  given:    True\n  hint:     did you mean 'hetero'?"),
    ],
)
def test_messages_about_sections(changes, text):
    assert message({**SECTION, **changes}) == f"plan: {text}"
    assert message({"ds_parallel": {**SECTION, **changes}}) == f"plan: ds_parallel: {text}"


@pytest.mark.parametrize(
    "harmless", [{"cp_list": [1, 1]}, {"unused_rank": []}, {"rank_to_device_mapping": {"0": 0, 1: 1}}]
)
def test_what_says_nothing_new_beside_equal_stages(harmless):
    assert load_plan({**SECTION, **harmless}).pipelines == load_plan(SECTION).pipelines


def test_the_documented_example_shares_tokens_between_uneven_pipelines():
    layers = [[16, 16], [16, 16], [32], [32]]
    plan = load_plan(generate_llama_hetero_4d_config([1, 3], None, None, layers, [0, 2, 4, 5, 6], [], num_gpus=12))
    assert plan.pipelines == (
        PipelinePlan((stage((0, 1), 0, 16, Degrees(tp=2)), stage((2, 3), 16, 16, Degrees(tp=2)))),
        PipelinePlan(
            (
                stage((4, 5, 8, 9, 10, 11), 0, 16, Degrees(cp=3, tp=2)),
                stage((6, 7, 8, 9, 10, 11), 16, 16, Degrees(cp=3, tp=2)),
            )
        ),
    )


@pytest.mark.parametrize(
    ("path", "value", "text"),
    [
        (
            ("gpt", "blocks", "blocks0-15", "attn", "qkv", "dup"),
            2,
            f"plan: {BLOCK}.attn.qkv.dup: split 2 x dup 2 is 4, not 2 (2 devices x 1 groups)\n  given:    2\n"
            "  expected: degrees that multiply to the devices of a group times the number of groups",
        ),
        (
            ("gpt", "blocks", "blocks0-15", "attn", "qkv", "split"),
            {"0": 2},
            f"plan: {BLOCK}.attn.qkv.split: split over dim 0\n  given:    {{0: 2}}\n"
            "  expected: dim 1 alone, as Hetu's layers are",
        ),
        (
            ("gpt", "blocks", "blocks0-15", "mlp", "dense_4h_to_h", "split"),
            {"2": 2},
            f"plan: {BLOCK}.mlp.dense_4h_to_h.split.2: no such dim\n  given:    2\n  expected: 0 or 1",
        ),
        (
            ("gpt", "blocks", "blocks0-15", "attn", "qkv", "device_group"),
            [0, 0],
            f"plan: {BLOCK}.attn.qkv: device 0 is named twice\n  given:    [0, 0]\n  expected: each once",
        ),
        (
            ("gpt", "blocks", "blocks0-15", "attn", "dense", "device_group"),
            [2, 3],
            f"plan: {BLOCK}.attn.dense: on other devices\n  given:    [[2, 3]]\n"
            f"  expected: [[0, 1]], as {BLOCK}.attn.qkv",
        ),
        (
            ("gpt", "blocks", "blocks0-15", "attn", "qkv", "device_group"),
            None,
            f"plan: {BLOCK}.attn.qkv: no device_group\n  given:    ['split', 'dup', 'type']\n"
            "  expected: split, dup and device_group or device_group_union",
        ),
        (
            ("gpt", "blocks", "blocks0-15", "attn", "qkv", "device_group_union"),
            [[0, 1]],
            f"plan: {BLOCK}.attn.qkv: device_group and device_group_union at once\n"
            "  given:    ['split', 'dup', 'device_group', 'type', 'device_group_union']\n"
            "  expected: split, dup and device_group or device_group_union",
        ),
        (
            ("gpt", "blocks", "blocks0-15", "attn", "qkv", "splits"),
            {},
            f"plan: {BLOCK}.attn.qkv.splits: unknown key\n  given:    {{}}\n  hint:     did you mean 'split'?",
        ),
        (
            ("gpt", "blocks", "blocks0-15", "attn", "dense"),
            None,
            f"plan: {BLOCK}.attn.dense: missing\n  hint:     state dense; it has no default",
        ),
        (
            ("gpt", "blocks", "blocks0-15", "layernorm3"),
            {},
            f"plan: {BLOCK}.layernorm3: unknown key\n  given:    {{}}\n  hint:     did you mean 'layernorm2'?",
        ),
        (
            ("gpt", "blocks", "blocks0-15", "range"),
            [0, 14],
            "plan: gpt.blocks.blocks16-31.range: skips to layer 16\n  given:    [16, 31]\n"
            "  expected: layers from 15 on",
        ),
        (
            ("gpt", "blocks", "blocks0-15", "range"),
            [0, 16],
            "plan: gpt.blocks.blocks16-31.range: repeats layer 16\n  given:    [16, 31]\n  expected: layers from 17 on",
        ),
        (
            ("gpt", "blocks", "blocks0-15", "range"),
            [15, 0],
            f"plan: {BLOCK}.range: not a range of layers\n  given:    [15, 0]\n  expected: [first, last] or [layer]",
        ),
        (
            ("gpt", "blocks"),
            {},
            "plan: gpt.blocks: no blocks\n  given:    {}\n  expected: a block for every range of layers",
        ),
        (
            ("gpt", "wte", "device_group"),
            [2, 3],
            f"plan: gpt.wte: on other devices\n  given:    [[2, 3]]\n  expected: [[0, 1]], as {BLOCK}",
        ),
        (
            ("lm_head", "device_group"),
            [0, 1],
            "plan: lm_head: on other devices\n  given:    [[0, 1]]\n  expected: [[2, 3]], as gpt.blocks.blocks16-31",
        ),
        (
            ("devices",),
            [0, 1, 2],
            "plan: devices: device 3 works and is not listed\n  given:    [0, 1, 2]\n"
            "  expected: every device of every group",
        ),
        (
            ("zeros",),
            True,
            "plan: zeros: unknown key\n  given:    True\n  hint:     did you mean 'zero'?",
        ),
        (
            ("cp_list",),
            [2],
            "plan: cp_list: cp_list is of 2 replicas\n  given:    [2]\n  expected: numbers that add up to 1",
        ),
    ],
)
def test_messages(path, value, text):
    assert message(changed(path, value)) == text


UNION = generate_llama_hetero_4d_config([1, 1], None, None, [[2, 2], [4]], None, [], num_layers=4, num_gpus=6)[0]
QKV = ("llama", "blocks", "blocks0", "attn", "qkv")


@pytest.mark.parametrize(
    ("path", "value", "text"),
    [
        (
            (*QKV, "dup"),
            [2, 1],
            "plan: llama.blocks.blocks0.attn.qkv.dup: split 2 x dup 1 is 2, not 4 (2 devices x 2 groups)\n"
            "  given:    [2, 1]\n"
            "  expected: degrees that multiply to the devices of a group times the number of groups",
        ),
        (
            (*QKV, "split"),
            {"1": [2, 2, 2]},
            "plan: llama.blocks.blocks0.attn.qkv.split.1: 3 entries\n  given:    [2, 2, 2]\n"
            "  expected: 2, one for each group",
        ),
        (
            (*QKV, "device_group_union"),
            [[0, 1], [1, 2]],
            "plan: llama.blocks.blocks0.attn.qkv: device 1 is named twice\n  given:    [0, 1, 1, 2]\n"
            "  expected: each once",
        ),
        (
            (*QKV, "device_group_union"),
            [0, 1],
            "plan: llama.blocks.blocks0.attn.qkv.device_group_union.0: not a list\n  given:    0\n"
            "  expected: whole numbers: a list, or a text with commas between",
        ),
    ],
)
def test_messages_about_unions(path, value, text):
    assert message(changed(path, value, UNION)) == text
