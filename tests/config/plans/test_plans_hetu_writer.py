"""The writer of Hetu's configs: the way there and back, what must hold in every union, and every message."""

import json
from dataclasses import replace
from itertools import pairwise
from math import prod

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pe_sim.config.plans.checks import stage
from pe_sim.config.plans.hetu_generators import generate_llama_4d_config, generate_llama_hetero_4d_config
from pe_sim.config.plans.load import load_plan
from pe_sim.config.plans.plan import Degrees, PipelinePlan
from pe_sim.errors import InputError

SMALL = st.integers(1, 4)


def tensors(config):
    """Every tensor of a config."""
    for value in config.values():
        if isinstance(value, dict):
            if "device_group_union" in value:
                yield value
            else:
                yield from tensors(value)


def written(configs):
    (config,) = json.loads(json.dumps(configs))
    found = list(tensors(config))
    assert found
    for tensor in found:
        groups = tensor["device_group_union"]
        for index, group in enumerate(groups):
            degrees = prod(degree[index] for degree in tensor["split"].values())
            assert degrees * tensor["dup"][index] == len(group) * len(groups)
    return config


def plain(plan):
    return replace(plan, name="plan", source="plan")


def message(function, *arguments, **others):
    with pytest.raises(InputError) as caught:
        function(*arguments, **others)
    return str(caught.value)


@given(dp=SMALL, cp=SMALL, tp=SMALL, pp=SMALL, depth=SMALL)
def test_equal_stages_there_and_back(dp, cp, tp, pp, depth):
    arguments = {"num_layers": pp * depth, "num_gpus": dp * cp * tp * pp, "dp": dp, "cp": cp, "tp": tp, "pp": pp}
    config = written(generate_llama_4d_config([0], **arguments))
    plan = load_plan(config)
    assert plain(plan) == plain(load_plan({**arguments, "recompute_layers": [0]}))
    width = cp * tp
    assert plan.pipelines == tuple(
        PipelinePlan(
            tuple(
                stage(range((s * dp + d) * width, (s * dp + d + 1) * width), s * depth, depth, Degrees(cp=cp, tp=tp))
                for s in range(pp)
            )
        )
        for d in range(dp)
    )
    assert config["zero"] is (dp > 1)
    assert config["llama"]["blocks"]["blocks0"]["recompute"] == [True]


@st.composite
def uneven(draw):
    """Arguments of the hetero generator whose pipelines have stages of their own; those that share tokens are alike."""
    cp_list = draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))
    num_layers, tp = draw(st.integers(1, 8)), draw(st.integers(1, 3))
    layers = []
    for cp in cp_list:
        cuts = sorted(draw(st.sets(st.integers(1, num_layers - 1), max_size=2))) if num_layers > 1 else []
        bounds = [0, *cuts, num_layers]
        layers += [[upper - lower for lower, upper in pairwise(bounds)]] * cp
    ranks = tp * sum(map(len, layers))
    devices = draw(st.permutations(range(100, 100 + ranks)))
    return {
        "cp_list": cp_list,
        "rank_to_device_mapping": dict(enumerate(devices)),
        "unused_rank": [],
        "hetero_layers": layers,
        "accumulate_hetero_stages": [sum(map(len, layers[:n])) for n in range(len(layers) + 1)],
        "recompute_layers": [],
        "num_layers": num_layers,
        "num_gpus": ranks,
        "dp": len(cp_list),
        "tp": tp,
    }


@given(uneven())
def test_uneven_stages_there_and_back(arguments):
    plan = load_plan(written(generate_llama_hetero_4d_config(**arguments)))
    assert plain(plan) == plain(load_plan(arguments))
    assert [pipeline.stages[0].degrees[0].cp for pipeline in plan.pipelines] == arguments["cp_list"]
    assert [pipeline.stages[0].degrees[0].tp for pipeline in plan.pipelines] == [arguments["tp"]] * arguments["dp"]
    named = [array for pipeline in plan.pipelines for item in pipeline.stages for array in item.arrays]
    assert sorted(named) == sorted(arguments["rank_to_device_mapping"].values())


@given(st.data())
def test_unused_ranks_there_and_back(data):
    layers = [[2, 2], [4]]
    unused = [3 * at + data.draw(st.integers(0, 2)) for at in data.draw(st.sets(st.integers(0, 2)))]
    config = written(
        generate_llama_hetero_4d_config([1, 1], None, unused, layers, None, [[0], []], num_layers=4, num_gpus=9, tp=3)
    )
    plan = load_plan(config)
    assert plan.unused == tuple(sorted(unused))
    widths = [len(item.arrays) for pipeline in plan.pipelines for item in pipeline.stages]
    assert widths == [3 - sum(rank // 3 == at for rank in unused) for at in range(3)]
    assert config["llama"]["blocks"]["blocks0"]["recompute"] == [True, False]


HETERO = {"hetero_layers": [[16, 16], [32]], "num_gpus": 6}


def hetero(**changes):
    values = {
        "cp_list": [1, 1],
        "rank_to_device_mapping": None,
        "unused_rank": None,
        "accumulate_hetero_stages": None,
        "recompute_layers": [],
        **HETERO,
        **changes,
    }
    return generate_llama_hetero_4d_config(**values)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            {"num_gpus": 12},
            "num_gpus: dp 2 x cp 1 x tp 2 x pp 2 is 8 devices\n  given:    12\n"
            "  expected: 8, or degrees that multiply to 12",
        ),
        (
            {"pp": 3, "num_gpus": 12},
            "pp: 32 layers are not 3 equal stages\n  given:    3\n  expected: a divisor of 32\n"
            "  hint:     generate_llama_hetero_4d_config takes uneven stages",
        ),
        (
            {"recompute_layers": 3},
            "recompute_layers: not a list\n  given:    3\n"
            "  expected: whole numbers: a list, or a text with commas between",
        ),
        ({"tp": 0}, "tp: too small\n  given:    0\n  expected: a whole number from 1 to 1048576"),
        ({"zero": 1}, "zero: not a boolean\n  given:    1\n  expected: true or false"),
        (
            {"recompute_layers": [32]},
            "recompute_layers: no layer 32\n  given:    [32]\n  expected: layers from 0 to 31",
        ),
        (
            {"recompute_layers": [[0], [1]]},
            "recompute_layers: 2 lists\n  given:    [[0], [1]]\n"
            "  expected: 1, one for each group, or one list of layers",
        ),
    ],
)
def test_messages_of_equal_stages(arguments, text):
    values = {"recompute_layers": [], **arguments}
    assert message(generate_llama_4d_config, **values) == f"generate_llama_4d_config: {text}"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"cp_list": [2]}, "cp_list: 1 entries\n  given:    [2]\n  expected: 2, as dp says"),
        (
            {"cp_list": [1, 2]},
            "hetero_layers: 2 pipelines\n  given:    [[16, 16], [32]]\n  expected: 3, the sum of cp_list",
        ),
        (
            {"hetero_layers": [[16, 15], [32]]},
            "hetero_layers.0: its stages have 31 layers\n  given:    [16, 15]\n"
            "  expected: 32 in all, as num_layers says",
        ),
        (
            {"accumulate_hetero_stages": [0, 1, 3]},
            "accumulate_hetero_stages: not the sums of the pipelines' stages\n  given:    [0, 1, 3]\n"
            "  expected: [0, 2, 3], or no such key",
        ),
        ({"num_gpus": 8}, "num_gpus: 3 stages x tp 2 are 6 ranks\n  given:    8\n  expected: 6"),
        (
            {"unused_rank": [0, 1]},
            "unused_rank: stage 0 of pipeline 0 has no rank left\n  given:    [0, 1]\n"
            "  expected: at least one rank of each stage used",
        ),
        ({"unused_rank": [6]}, "unused_rank: no rank 6\n  given:    [6]\n  expected: ranks from 0 to 5"),
        ({"unused_rank": [1, 1]}, "unused_rank: rank 1 is named twice\n  given:    [1, 1]\n  expected: each once"),
        (
            {"rank_to_device_mapping": {0: 0}},
            "rank_to_device_mapping: no device for rank 1\n  given:    {0: 0}\n  expected: one for each of the 6 ranks",
        ),
        (
            {"rank_to_device_mapping": dict.fromkeys(range(6), 7)},
            "rank_to_device_mapping: device 7 is named twice\n  given:    [7, 7, 7, 7, 7, 7]\n  expected: each once",
        ),
    ],
)
def test_messages_of_uneven_stages(changes, text):
    assert message(hetero, **changes) == f"generate_llama_hetero_4d_config: {text}"


def test_replicas_that_share_tokens_share_operators_alike():
    assert message(
        load_plan, {"cp_list": [2], "dp": 1, "hetero_layers": [[32], [32]], "num_gpus": 4, "unused_rank": [3]}
    ) == (
        "plan: cp_list: replicas 0 and 1 share tokens, and share layer 0 among 2 and 1 arrays\n  given:    2\n"
        "  expected: as many arrays in each, or no shared tokens (1 for each)"
    )
