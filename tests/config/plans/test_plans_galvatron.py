"""Galvatron's strategies: the real one, both generations, and every message."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pe_sim.config.plans.load import load_plan
from pe_sim.config.plans.plan import Degrees
from pe_sim.errors import InputError

SAMPLES = Path(__file__).resolve().parents[2] / "data" / "foreign" / "galvatron" / "strategy"
SAMPLE = SAMPLES / "galvatron_config_llama2-7b_1nodes_8gpus_per_node_36GB_bf16.json"
FIRST = {
    "pp_deg": 2,
    "tp_sizes_enc": "1,2,4,4",
    "tp_consecutive_flags": "1,0,1,1",
    "dp_types_enc": "0,0,1,1",
    "global_bsz": 16,
    "chunks": 4,
    "pp_division": "1,3",
}


def message(plan, **arguments):
    with pytest.raises(InputError) as caught:
        load_plan(plan, **arguments)
    return str(caught.value)


def test_the_real_sample_on_its_8_arrays():
    assert list(SAMPLES.iterdir()) == [SAMPLE]
    plan = load_plan(SAMPLE, num_arrays=8)
    assert plan.layers == (Degrees(dp=8),) * 32
    assert plan.head == Degrees(dp=4, cp=2)  # vsp: the two arrays share the tokens
    assert (plan.pp, plan.partition, plan.microbatches, plan.num_layers) == (1, (0, 32), 1, 32)
    assert {line.partition(":")[0] for line in plan.ignored} == {
        "dp_types_enc",
        "checkpoint",
        "global_bsz",
        "pipeline_type",
        "default_dp_type",
        "embed_sdp",
    }


def test_the_real_sample_on_as_few_as_it_needs():
    plan = load_plan(SAMPLE)
    assert plan.layers[0] == Degrees(dp=2)
    assert plan.ignored[0] == "num_arrays: 2 (not in the file: the largest degrees times pp_deg)"


def test_the_first_generation():
    plan = load_plan(FIRST, num_arrays=8)
    assert plan.layers == (Degrees(dp=4), Degrees(dp=2, tp=2, consecutive=False), Degrees(tp=4), Degrees(tp=4))
    assert (plan.pp, plan.partition, plan.microbatches, plan.head) == (2, (0, 1, 4), 4, Degrees(dp=4))
    as_lists = {**FIRST, "tp_sizes_enc": [1, 2, 4, 4], "pp_division": [1, 3]}
    assert load_plan(as_lists, num_arrays=8) == plan


def test_what_is_left_out_or_null_is_what_galvatrons_loader_takes_it_for():
    """vtp 1 and vsp 0: a whole LM head on every array; pp_division: what does not divide goes to the last stage."""
    least = {key: FIRST[key] for key in ("pp_deg", "tp_sizes_enc", "dp_types_enc")}
    stated = {
        **least,
        "tp_consecutive_flags": "1,1,1,1",
        "use_sp": "0,0,0,0",
        "cp_sizes_enc": "1,1,1,1",
        "pp_division": "2,2",
        "vtp": 1,
        "vsp": 0,
        "vcp": 1,
    }
    plan = load_plan(stated, num_arrays=8)
    assert (plan.head, plan.partition, plan.microbatches) == (Degrees(dp=4), (0, 2, 4), None)
    assert load_plan(least, num_arrays=8) == plan
    assert load_plan({**dict.fromkeys([*FIRST, *stated]), **least}, num_arrays=8) == plan
    uneven = {"pp_deg": 3, "tp_sizes_enc": "1,1,1,1,1"}
    assert load_plan(uneven).partition == (0, 1, 2, 5)


def test_sequence_and_context_degrees():
    newer = {**FIRST, "tp_consecutive_flags": "1,1,1,1", "use_sp": "0,1,0,1", "cp_sizes_enc": "1,2,1,1"}
    plan = load_plan({**newer, "vtp": 2, "vsp": 0, "vcp": 2, "ep_sizes_enc": "1,1,1,1"}, num_arrays=16)
    assert plan.layers == (Degrees(dp=8), Degrees(dp=2, cp=4), Degrees(dp=2, tp=4), Degrees(dp=2, cp=4))
    assert plan.head == Degrees(dp=2, tp=2, cp=2)


@given(st.lists(st.tuples(st.sampled_from([1, 2, 4]), st.booleans(), st.sampled_from([1, 2])), min_size=1, max_size=6))
def test_every_layer_fills_its_stage(rows):
    def text(values):
        return ",".join(str(int(value)) for value in values)

    strategy = {
        "pp_deg": 1,
        "tp_sizes_enc": text(row[0] for row in rows),
        "use_sp": text(row[1] for row in rows),
        "cp_sizes_enc": text(row[2] for row in rows),
    }
    plan = load_plan(json.loads(json.dumps(strategy)))
    width = max(size * cp for size, _, cp in rows)
    for degrees, (size, sequence, cp) in zip(plan.layers, rows, strict=True):
        assert degrees.num_arrays == width
        assert (degrees.tp, degrees.cp) == ((1, size * cp) if sequence else (size, cp))


@pytest.mark.parametrize(
    ("changes", "num_arrays", "text"),
    [
        (
            {"tp_consecutive_flags": "1,1,1"},
            8,
            "plan: tp_consecutive_flags: 3 entries\n  given:    '1,1,1'\n"
            "  expected: 4, one for each layer, as in tp_sizes_enc",
        ),
        (
            {"dp_types_enc": "0,0,0,0,0"},
            8,
            "plan: dp_types_enc: 5 entries\n  given:    '0,0,0,0,0'\n"
            "  expected: 4, one for each layer, as in tp_sizes_enc",
        ),
        (
            {"tp_sizes_enc": "1,two,4,4"},
            8,
            "plan: tp_sizes_enc.1: not a whole number\n  given:    'two'\n  expected: a whole number",
        ),
        (
            {"tp_sizes_enc": 4},
            8,
            "plan: tp_sizes_enc: not a list\n  given:    4\n"
            "  expected: whole numbers: a list, or a text with commas between",
        ),
        (
            {"use_sp": "0,2,0,0"},
            8,
            "plan: use_sp.1: not a flag\n  given:    2\n  expected: 0 or 1",
        ),
        (
            {"pp_division": "1,1,2"},
            8,
            "plan: pp_division: layers of 3 stages\n  given:    '1,1,2'\n  expected: 2 numbers, as pp_deg says",
        ),
        (
            {"pp_division": "2,3"},
            8,
            "plan: pp_division: the stages have 5 layers\n  given:    '2,3'\n"
            "  expected: 4 in all, as tp_sizes_enc has entries",
        ),
        (
            {"pp_division": "0,4"},
            8,
            "plan: pp_division.0: too small\n  given:    0\n  expected: a whole number from 1 to 1048576",
        ),
        (
            {},
            9,
            "plan: pp_deg: 9 arrays are not 2 equal stages\n  given:    2\n  expected: a divisor of 9",
        ),
        (
            {},
            12,
            "plan: tp_sizes_enc, layer 2: 4 arrays a share do not fill a stage of 6\n  given:    4\n"
            "  expected: a divisor of 6\n  hint:     the arrays of a stage are num_arrays / pp_deg",
        ),
        (
            {"vtp": 8},
            8,
            "plan: vtp: 8 arrays a share do not fill a stage of 4\n  given:    8\n"
            "  expected: a divisor of 4\n  hint:     the arrays of a stage are num_arrays / pp_deg",
        ),
        (
            {"vtp": 2, "vsp": 2},
            8,
            "plan: vsp: not a flag\n  given:    2\n"
            "  expected: 0 or 1: whether the vtp arrays share the tokens, not the vocabulary",
        ),
        (
            {"use_sp": "0,1,0,0"},
            8,
            "plan: tp_consecutive_flags, layer 1: not supported: shares of the tokens on arrays that are not"
            " neighbours\n  given:    0\n  expected: 1",
        ),
        (
            {"ep_sizes_enc": "1,2,1,1"},
            8,
            "plan: ep_sizes_enc: not supported: a mixture of experts\n  given:    [1, 2, 1, 1]\n"
            "  expected: 1 for each layer, or no such key",
        ),
        (
            {"chunks": 0},
            8,
            "plan: chunks: too small\n  given:    0\n  expected: a whole number from 1 to 1048576",
        ),
        (
            {"pp_devision": "1,3"},
            8,
            "plan: pp_devision: unknown key\n  given:    '1,3'\n  hint:     did you mean 'pp_division'?",
        ),
    ],
)
def test_messages(changes, num_arrays, text):
    assert message({**FIRST, **changes}, num_arrays=num_arrays) == text


def test_missing_keys():
    assert message({"pp_deg": 1}) == ("plan: tp_sizes_enc: missing\n  hint:     state tp_sizes_enc; it has no default")
    assert message({"pp_deg": None, "tp_sizes_enc": "1,1,1,1"}) == (
        "plan: pp_deg: missing\n  hint:     state pp_deg; it has no default"
    )
