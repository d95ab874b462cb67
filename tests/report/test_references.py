"""Known machines at their roofline: closed forms of models, and bounds that no simulated array of the kind beats."""

import json

import pytest

import pe_sim as ps
from pe_sim.config.dtypes import Dtype, Dtypes
from pe_sim.config.reference_machines import load_machine
from pe_sim.errors import InputError

INT8 = Dtypes(Dtype("int8"), Dtype("bf16"), Dtype("int8"), Dtype("fp32"))


def test_a_decode_step_is_weights_and_cache_over_the_bandwidth():
    """Llama-2-7B: 6,738,415,616 parameters less the embedding table, and 524,288 bytes of cache a token, in bf16."""
    bound = ps.reference("a100", "llama-2-7b", ps.Decode(context_len=2048))
    read = 2 * (6_738_415_616 - 32_000 * 4096) + 2048 * 524_288
    assert (bound.read_bytes, bound.devices, bound.bound_by) == (read, 1, "memory")
    assert bound.latency_seconds == pytest.approx(read / 2.039e12)
    assert bound.tokens_per_second == pytest.approx(2.039e12 / read)
    assert bound.held_bytes == 2 * 6_738_415_616 + 2049 * 524_288


def test_a_long_prefill_is_flops_over_the_peak():
    bound = ps.reference("h100", "llama-2-7b", ps.Prefill(prompt_len=2048))
    layers = 32 * (4 * 4096 * 4096 + 3 * 4096 * 11008)
    attention = 32 * 2 * 32 * 128 * (2048 * 2049 // 2)  # causal: half of the square, q k and p v
    assert bound.flops == 2 * (layers * 2048 + attention + 32_000 * 4096)
    assert bound.bound_by == "compute"
    assert bound.latency_seconds == pytest.approx(bound.flops / 989.4e12)
    assert bound.tokens_per_second == pytest.approx(2048 / bound.latency_seconds)


def test_as_many_devices_as_hold_the_model():
    bound = ps.reference("groq-lpu", "llama-2-7b", ps.Decode(context_len=2048))
    assert bound.devices == -(-bound.held_bytes // 230_000_000) == 64
    assert bound.computed_as == "fp16"
    assert bound.latency_seconds == pytest.approx(bound.read_bytes / (64 * 80e12))
    two = ps.reference("a100", "llama-2-70b", ps.Decode(context_len=2048))
    assert two.devices == 2
    assert two.memory_seconds == pytest.approx(two.read_bytes / (2 * 2.039e12))


@pytest.mark.parametrize(
    ("model", "step"),
    [
        ("llama-2-7b", ps.Decode(context_len=0)),
        ("llama-3.2-1b", ps.Decode(context_len=0)),  # tied
        ("gpt2", ps.Decode(context_len=0)),  # tied, with a table of positions
        ("bert-base-uncased", ps.Prefill(prompt_len=64)),
    ],
)
def test_what_is_held_is_the_parameters_and_the_cache(model, step):
    loaded = ps.load_model(model)
    cache = loaded.kv_bytes_per_token("bf16") if loaded.has_kv_cache else 0
    assert ps.reference("a100", model, step).held_bytes == 2 * loaded.num_parameters + cache


def test_dtypes_change_the_bytes_and_the_peak():
    plain, quantised = (
        ps.reference("a100", "llama-2-7b", ps.Decode(context_len=1024), dtypes)
        for dtypes in (Dtypes(Dtype("bf16"), Dtype("bf16"), Dtype("bf16"), Dtype("fp32")), INT8)
    )
    assert 2 * quantised.read_bytes == plain.read_bytes
    assert quantised.computed_as == plain.computed_as == "bf16"


@pytest.mark.parametrize("step", [ps.Decode(batch_size=4, context_len=512), ps.Prefill(prompt_len=256)])
@pytest.mark.parametrize("workflow", ["megatron", "workflow-2"])
def test_no_simulated_array_beats_the_roofline_of_its_own_numbers(step, workflow):
    """A machine with an array's memory and peak: the bound is one."""
    array = ps.load_array("bus-tree-256")
    machine = {
        "description": "the array",
        "memory_technology": "its own",
        "memory_bytes": 2**45,
        "memory_bytes_per_second": 256 * 64e9,
        "peak_flops_per_second": {"bf16": 256 * 16 * 16 * 2e9},
        "source": "the preset",
        "confirmed": "by this test",
    }
    bound = ps.reference(machine, "llama-3.2-1b", step, array.dtypes)
    report = ps.simulate("llama-3.2-1b", array, step, workflow)
    assert bound.latency_seconds < report.latency_seconds
    assert bound.tokens_per_second > report.tokens_per_second


def test_it_says_that_it_is_a_bound():
    bound = ps.reference("h100", "llama-2-7b", ps.Decode(context_len=10))
    assert "not a measurement" in str(bound)
    told = json.loads(json.dumps(bound.to_dict()))
    assert told["what"] == "a roofline bound, not a measurement"
    assert told["of_one_device"]["memory_bytes_per_second"] == 3.35e12
    assert told["source"] == load_machine("h100").source


def test_bad_input():
    with pytest.raises(InputError, match="unknown machine"):
        ps.reference("b200", "llama-2-7b", ps.Decode())
    with pytest.raises(InputError, match="no step"):
        ps.reference("a100", "llama-2-7b", "decode")
    fp32 = Dtypes(Dtype("fp32"), Dtype("fp32"), Dtype("fp32"), Dtype("fp32"))
    with pytest.raises(InputError, match="no peak is known for fp32"):
        ps.reference("groq-lpu", "llama-2-7b", ps.Decode(), fp32)
