"""ps.generate: a prefill and the decode steps after it, each of them what `simulate` says of it alone."""

import json

import pytest

import pe_sim as ps
from pe_sim.errors import InfeasibleError, InputError
from pe_sim.mapping.workflow import WORKFLOWS as ALL_WORKFLOWS
from pe_sim.report.analysis.envelope import widest
from tests.helpers import diagonal, small_array, tiny_llama
from tests.network.networks import array_of

WORKFLOWS = ("workflow-1", "workflow-2", "megatron", "batch-block")


@pytest.fixture(scope="module")
def model():
    return tiny_llama()


@pytest.fixture(scope="module")
def array():
    return small_array(4)


@pytest.mark.parametrize("workflow", WORKFLOWS)
@pytest.mark.parametrize("batch_size", [1, 3])
def test_the_sum_of_its_steps(model, array, workflow, batch_size):
    done = ps.generate(model, array, prompt_len=6, output_len=4, batch_size=batch_size, workflow=workflow)
    prefill = ps.simulate(model, array, ps.Prefill(batch_size, prompt_len=6), workflow)
    decodes = [ps.simulate(model, array, ps.Decode(batch_size, context), workflow) for context in (6, 7, 8)]

    assert done.prefill.to_dict() == prefill.to_dict()
    assert done.ttft_cycles == prefill.latency_cycles
    assert done.decode_cycles == tuple(report.latency_cycles for report in decodes)
    assert done.total_cycles == done.ttft_cycles + sum(done.decode_cycles)
    assert done.tpot_cycles == sum(done.decode_cycles) / 3

    reports = [prefill, *decodes]
    assert set(done.traffic) == {tag for report in reports for tag in report.traffic}
    for tag, use in done.traffic.items():
        for count in ("messages", "bytes", "busy_cycles"):
            parts = [getattr(report.traffic[tag], count) for report in reports if tag in report.traffic]
            assert getattr(use, count) == sum(parts)


def test_on_a_graph_of_channels(model):
    array = array_of("mesh", 8)
    done = ps.generate(model, array, prompt_len=6, output_len=4)
    steps = [ps.simulate(model, array, ps.Decode(1, context)).latency_cycles for context in (6, 7, 8)]
    assert list(done.decode_cycles) == steps


def test_seconds_and_rates(model):
    done = ps.generate(model, small_array(4, {"clock_ghz": 0.5}), prompt_len=6, output_len=3, batch_size=2)
    assert done.ttft_seconds == done.ttft_cycles / 0.5e9
    assert done.tpot_seconds == done.tpot_cycles / 0.5e9
    assert done.total_seconds == pytest.approx(done.ttft_seconds + 2 * done.tpot_seconds)
    assert done.tokens_per_second == 2 * 3 / done.total_seconds


def test_one_token_needs_no_decode(model, array):
    done = ps.generate(model, array, prompt_len=6, output_len=1)
    assert done.decode_cycles == ()
    assert done.tpot_cycles == 0.0
    assert done.total_cycles == done.ttft_cycles
    assert done.traffic == done.prefill.traffic


def test_the_prefills_counts_stay_its_own(model, array):
    alone = ps.simulate(model, array, ps.Prefill(1, prompt_len=6), "megatron").to_dict()
    assert ps.generate(model, array, 6, 5, workflow="megatron").prefill.to_dict() == alone


def test_growing_contexts_are_never_faster(model, array):
    cycles = ps.generate(model, array, prompt_len=3, output_len=12, workflow="megatron").decode_cycles
    assert list(cycles) == sorted(cycles)


def test_names_and_mappings_do_as_well():
    config = {
        "model_type": "gpt2",
        "n_embd": 48,
        "n_head": 4,
        "n_layer": 1,
        "vocab_size": 51,
        "n_positions": 64,
    }
    by_name = ps.generate(config, "bus-tree-64", 4, 2, workflow="megatron")
    loaded = ps.generate(
        ps.load_model(config), ps.load_array("bus-tree-64"), 4, 2, workflow=ps.load_workflow("megatron")
    )
    assert by_name.to_dict() == loaded.to_dict()


@pytest.mark.parametrize(("engine", "expected"), [("event", [(1, 3), (2, 3), (3, 3)]), ("fast", [(1, 3), (3, 3)])])
def test_progress_counts_every_step(model, array, engine, expected):
    seen = []
    ps.generate(model, array, 4, 3, engine=engine, progress=lambda done, total: seen.append((done, total)))
    assert seen == expected


@pytest.mark.parametrize(
    ("workflow", "machine"),
    diagonal(
        list(ALL_WORKFLOWS),
        [
            (1, {}),
            (5, {"overlap": 3}),
            (8, {"overlap": 2, "network.collectives.gather": "serial"}),
            (16, {"network.tree.downlink": True}),
            (33, {"overlap": 0}),
            (64, {"overlap": 3, "network.tree.downlink": True}),
        ],
    ),
)
def test_steps_together_are_the_steps_alone(model, workflow, machine):
    """To the cycle, across lengths at which another PE takes the new token and a PE's share grows."""
    array = small_array(*machine)
    chosen = ps.load_workflow(workflow)
    done = ps.generate(model, array, 7, 24, batch_size=3, workflow=chosen, allow_overflow=True)
    steps = [ps.simulate(model, array, ps.Decode(3, context), chosen, allow_overflow=True) for context in range(7, 30)]
    assert done.decode_cycles == tuple(step.latency_cycles for step in steps)
    for tag, use in done.traffic.items():
        parts = [done.prefill.traffic, *(step.traffic for step in steps)]
        for count in ("messages", "bytes", "busy_cycles"):
            assert getattr(use, count) == sum(getattr(part[tag], count) for part in parts if tag in part)


def test_json_and_text(model, array):
    done = ps.generate(model, array, prompt_len=6, output_len=3, batch_size=2, workflow="workflow-2")
    plain = json.loads(json.dumps(done.to_dict(), allow_nan=False))
    assert plain["schema"] == "pe-sim.generation/1"
    assert plain["workflow"] == "workflow-2"
    assert plain["ttft"] == {"cycles": done.ttft_cycles, "seconds": done.ttft_seconds}
    assert plain["total"]["cycles"] == plain["ttft"]["cycles"] + sum(plain["decode_cycles"])
    assert plain["traffic"]["reduce"]["bytes"] == done.traffic["reduce"].bytes
    assert str(done).startswith(f"{model.name} on {array.name}, workflow-2: 2 x (6 + 3) tokens, TTFT ")


# ------------------------------------------------------------------------------------------------------------ bad input
@pytest.mark.parametrize("output_len", [0, -1, True, 2.0, "3", None])
def test_output_len(model, array, output_len):
    with pytest.raises(InputError) as caught:
        ps.generate(model, array, 4, output_len)
    assert str(caught.value) == (
        f"output_len: a generation has at least one token\n  given:    {output_len!r}\n  expected: an int >= 1"
    )


@pytest.mark.parametrize("prompt_len", [0, -1, True, 2.5, "3"])
def test_prompt_len(model, array, prompt_len):
    with pytest.raises(InputError, match=r"^prompt_len: "):
        ps.generate(model, array, prompt_len, 2)


@pytest.mark.parametrize("batch_size", [0, True, "2"])
def test_batch_size(model, array, batch_size):
    with pytest.raises(InputError, match=r"^batch_size: "):
        ps.generate(model, array, 4, 2, batch_size=batch_size)


def test_the_last_position_counts(array):
    model = tiny_llama(max_position_embeddings=8)
    assert ps.generate(model, array, prompt_len=6, output_len=3).decode_cycles
    steps = []
    with pytest.raises(InputError, match="has 8 positions"):
        ps.generate(model, array, prompt_len=6, output_len=4, progress=lambda *step: steps.append(step))
    assert not steps  # found before the first step is simulated


def test_what_does_not_fit_at_the_end_is_found_at_the_start(model):
    """The weights fit, and the cache of the prompt, but not the cache of the last token."""
    needed = ps.simulate(model, small_array(4), ps.Decode(1, 40), "megatron").memory["peak_bytes_per_pe"]
    tight = small_array(4, {"pe.memory.capacity_bytes": needed})
    assert ps.generate(model, tight, 38, 4, workflow="megatron").output_len == 4
    steps = []
    with pytest.raises(InfeasibleError) as caught:
        ps.generate(model, tight, 38, 5, workflow="megatron", progress=lambda *step: steps.append(step))
    assert caught.value.bound == needed
    assert not steps
    assert ps.generate(model, tight, 38, 5, workflow="megatron", allow_overflow=True).output_len == 5


def test_an_encoder_does_not_generate(array):
    with pytest.raises(InputError, match="it has no KV cache and does not decode"):
        ps.generate("bert-base-uncased", array, 4, 2)


def test_no_such_engine(model, array):
    with pytest.raises(InputError, match="no such engine"):
        ps.generate(model, array, 4, 2, engine="evnt")


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: ps.simulate("gpt2", "bus-tree-64", None), "this is no step"),
        (lambda: ps.simulate("gpt2", "bus-tree-64", ps.Decode(1, 5), engine=[]), "no such engine"),
        (lambda: ps.generate("gpt2", "bus-tree-64", [1], 2), "one length"),
    ],
)
def test_python_calls_refuse_what_is_of_the_wrong_kind(call, text):
    with pytest.raises(ps.InputError, match=text):
        call()


def test_the_envelope_is_the_widest_of_its_steps(model):
    array = small_array(8)
    done = ps.generate(model, array, prompt_len=6, output_len=3, workflow="megatron")
    decode = ps.simulate(model, array, ps.Decode(1, 6), "megatron").envelope
    assert done.envelope == widest([done.prefill.envelope, decode])
    assert done.to_dict()["accuracy"] == done.envelope.to_dict()
    assert ps.generate(model, array, 6, 1).envelope == ps.simulate(model, array, ps.Prefill(1, prompt_len=6)).envelope
    several = ps.generate(model, array, prompt_len=6, output_len=3, batch_size=2).envelope
    assert several.level == "outside"
    assert len(several.reasons) == len(set(several.reasons))  # what both phases share is told once
