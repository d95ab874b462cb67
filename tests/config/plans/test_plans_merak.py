"""Merak's flat JSON: every key that means something, those that do not, and every message."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pe_sim.config.plans.load import load_plan
from pe_sim.config.plans.plan import ParallelPlan
from pe_sim.errors import InputError

BASE = {"dp": 2, "tp": 4, "pp": 2, "train_schedule": "1f1b", "partition_method": "uniform"}

# What a run writes down: Merak's own arguments and some of the training arguments they are derived from.
DUMP = {
    **BASE,
    "output_dir": "out",
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 8,
    "learning_rate": 5e-05,
    "fp16": False,
    "split_method": "farthest_min_deps",
    "trace_method": "fx",
    "activation_checkpointing": True,
    "zero_stage": 1,
    "custom_partition": None,
    "parallel_vocab": True,
    "sequence_parallel": False,
    "tp_overlapping_level": 2,
    "seq_length": 1024,
    "num_layers": 24,
    "num_heads": 16,
    "hidden_size": 1024,
    "out_seq_length": 128,
    "temperature": 0.9,
    "lora_config": None,
    "adapter_name": "default",
}


def message(plan):
    with pytest.raises(InputError) as caught:
        load_plan(plan)
    return str(caught.value)


def test_degrees_and_defaults():
    expected = ParallelPlan(
        source="plan", dp=2, tp=4, pp=2, partition="uniform_ceil", overlap=0, split_vocabulary=False
    )
    assert load_plan(BASE) == expected
    defaults = ParallelPlan(source="plan", partition="uniform_floor", overlap=0, split_vocabulary=False)
    assert load_plan({"train_schedule": "1f1b"}) == defaults
    assert load_plan(dict.fromkeys([*DUMP, "col_para_list", "row_para_list", "input_output_mapping"])) == defaults


def test_a_whole_dump():
    plan = load_plan(DUMP)
    assert (plan.dp, plan.tp, plan.pp, plan.overlap, plan.num_layers, plan.split_vocabulary) == (2, 4, 2, 2, 24, True)
    assert plan.ignored[:6] == (
        'train_schedule: "1f1b" (inference has forward passes alone)',
        "sequence_parallel: false (it moves where norms run, not what they give)",
        "seq_length: 1024 (the step says it)",
        "out_seq_length: 128 (the step says it)",
        "num_heads: 16 (the model says it)",
        "hidden_size: 1024 (the model says it)",
    )
    named = {line.partition(":")[0] for line in plan.ignored}
    used = {"dp", "tp", "pp", "num_layers", "partition_method", "custom_partition", "parallel_vocab"}
    assert named == DUMP.keys() - used - {"tp_overlapping_level"}


@pytest.mark.parametrize(
    ("method", "ours"),
    [
        ("uniform", "uniform_ceil"),
        ("uniform_floor", "uniform_floor"),
        ("Uniform_Floor", "uniform_floor"),
        (None, "uniform_floor"),
        ("parameters", "parameters"),
    ],
)
def test_methods(method, ours):
    assert load_plan({**BASE, "partition_method": method}).partition == ours


@given(st.lists(st.integers(1, 20), min_size=1, max_size=6))
def test_custom_bounds(counts):
    bounds = [sum(counts[:n]) for n in range(len(counts) + 1)]
    given_in_some_way = {**BASE, "pp": len(counts), "partition_method": "custom"}
    words = [str(bound) for bound in bounds]
    for form in (bounds, words, [float(bound) for bound in bounds], [",".join(words)], ", ".join(words)):
        assert load_plan({**given_in_some_way, "custom_partition": form}).partition == tuple(bounds)
    alone = {"pp": len(counts), "custom_partition": bounds, "num_layers": bounds[-1]}
    assert load_plan(alone).partition == tuple(bounds)
    assert load_plan({**given_in_some_way, "custom_partition": bounds}).num_layers == bounds[-1]


@pytest.mark.parametrize("level", [0, 1, 2, 3, 1.0])
def test_overlap(level):
    assert load_plan({**BASE, "tp_overlapping_level": level}).overlap == int(level)


def test_rows_and_columns_are_the_other_way_round():
    plan = load_plan(
        {
            "tp": 2,
            "col_para_list": ["self_attn.q_proj", "k_proj", "v_proj", "gate_proj", "up_proj"],
            "row_para_list": ["o_proj", "model.layers.0.mlp.down_proj"],
        }
    )
    assert dict(plan.matrices) == {
        **dict.fromkeys(("q", "k", "v", "gate", "up"), "row"),
        **dict.fromkeys(("o", "down"), "col"),
    }


def test_names_of_other_families():
    bert = {"col_para_list": ["query", "key", "value", "intermediate.dense"], "row_para_list": ["output.dense"]}
    gpt2 = {"input_output_mapping": [[1, 3, "col"], [1, 1, "row"], [1, 4, "col"], [4, 1, "row"]]}
    neox = {"col_para_list": ["query_key_value", "dense_h_to_4h"], "row_para_list": ["dense", "dense_4h_to_h"]}
    conv = {"col_para_list": ["c_attn", "c_fc"], "row_para_list": ["attn.c_proj", "mlp.c_proj"]}
    rows = dict.fromkeys(("q", "k", "v", "up"), "row")
    cols = {"o": "col", "down": "col"}
    assert dict(load_plan(bert).matrices) == {**rows, **cols}
    assert dict(load_plan(conv).matrices) == {**rows, **cols}
    assert dict(load_plan(gpt2).matrices) == {**rows, "gate": "row", **cols}
    assert dict(load_plan(neox).matrices) == {**rows, "gate": "row", **cols}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"tp": 0},
            "plan: tp: too small\n  given:    0\n  expected: a whole number from 1 to 1048576",
        ),
        (
            {"dp": True},
            "plan: dp: not a whole number\n  given:    True\n  expected: a whole number",
        ),
        (
            {"train_schedul": "1f1b"},
            "plan: train_schedul: unknown key\n  given:    '1f1b'\n  hint:     did you mean 'train_schedule'?",
        ),
        (
            {"train_schedule": "1f2b"},
            "plan: train_schedule: unknown schedule\n  given:    '1f2b'\n  expected: 1f1b, pre_recompute_1f1b,"
            " ds_default, last_no_recompute_1f1b, shifted_critical_path, full_critical_path_1f1b\n"
            "  hint:     did you mean '1f1b'?",
        ),
        (
            {"partition_method": "autopipe"},
            "plan: partition_method: unknown method\n  given:    'autopipe'\n"
            "  expected: uniform, uniform_floor, parameters, custom\n"
            "  hint:     known: custom, parameters, uniform, uniform_floor",
        ),
        (
            {"partition_method": "custom", "custom_partition": ["0,6,x"]},
            "plan: custom_partition.2: not a whole number\n  given:    'x'\n  expected: a whole number",
        ),
        (
            {"partition_method": "custom"},
            "plan: custom_partition: missing\n  expected: 3 bounds: [0, ..., layers]\n"
            "  hint:     partition_method custom needs the bounds of the stages",
        ),
        (
            {"custom_partition": [0, 6, 12]},
            "plan: custom_partition: bounds beside partition_method 'uniform'\n  given:    [0, 6, 12]\n"
            "  expected: null, or partition_method custom",
        ),
        (
            {"partition_method": "custom", "custom_partition": [0, 6, 12, 18]},
            "plan: custom_partition: 4 bounds\n  given:    [0, 6, 12, 18]\n  expected: 3: one more than the 2 stages",
        ),
        (
            {"partition_method": "custom", "custom_partition": [0, 12, 6]},
            "plan: custom_partition: 6 after 12 leaves a stage without layers\n  given:    [0, 12, 6]\n"
            "  expected: bounds that rise",
        ),
        (
            {"partition_method": "custom", "custom_partition": [2, 6, 12]},
            "plan: custom_partition: the bounds begin with 2 and skip the layers before\n  given:    [2, 6, 12]\n"
            "  expected: 0 as the first",
        ),
        (
            {"partition_method": "custom", "custom_partition": [0, 6, 12], "num_layers": 24},
            "plan: custom_partition: the bounds end with 12, and there are 24 layers\n  given:    [0, 6, 12]\n"
            "  expected: 24 as the last",
        ),
        (
            {"tp_overlapping_level": 4},
            "plan: tp_overlapping_level: no such level\n  given:    4\n  expected: 0, 1, 2 or 3",
        ),
        (
            {"parallel_vocab": 1},
            "plan: parallel_vocab: not a boolean\n  given:    1\n  expected: true or false",
        ),
        (
            {"lora_config": "lora.json"},
            "plan: lora_config: not supported: low-rank adapters\n  given:    'lora.json'\n"
            "  expected: null, or no such key",
        ),
        (
            {"col_para_list": ["q_prj"]},
            "plan: col_para_list.0: unknown linear layer\n  given:    'q_prj'\n"
            "  expected: a name of a projection, for instance q_proj or mlp.c_proj\n  hint:     did you mean 'q_proj'?",
        ),
        (
            {"col_para_list": ["q_proj"], "row_para_list": ["query"]},
            "plan: row_para_list.0: operator q is column parallel and row parallel at once, the other in"
            " col_para_list.0\n  given:    'query'\n  expected: each layer in one list",
        ),
        (
            {"input_output_mapping": [[2, 1, "row"]]},
            "plan: input_output_mapping.0: no known shape of a linear layer\n  given:    [2, 1, 'row']\n"
            "  expected: (inputs, outputs, 'row' or 'col') with inputs and outputs (1, 3) or (1, 1) or (1, 4)"
            " or (4, 1)",
        ),
        (
            {"input_output_mapping": [[[1], 4, "col"]]},
            "plan: input_output_mapping.0: no known shape of a linear layer\n  given:    [[1], 4, 'col']\n"
            "  expected: (inputs, outputs, 'row' or 'col') with inputs and outputs (1, 3) or (1, 1) or (1, 4)"
            " or (4, 1)",
        ),
        (
            {"pp": 30, "num_layers": 24},
            "plan: pp: 24 layers do not fill 30 stages\n  given:    30\n  expected: at most 24",
        ),
    ],
)
def test_messages(changes, text):
    assert message({**BASE, **changes}) == text
