"""Steps: how lengths are normalised, what is refused and in which words."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pe_sim.config.models.load import load_model
from pe_sim.config.step import MAX_LENGTH, Decode, Prefill, SequenceSpan
from pe_sim.errors import InputError
from tests.helpers import TINY_LLAMA


def message(function, *args, **kwargs):
    with pytest.raises(InputError) as caught:
        function(*args, **kwargs)
    return str(caught.value)


def test_decode_defaults():
    step = Decode()
    assert (step.phase, step.batch_size, step.context_len) == ("decode", 1, (0,))
    assert step.sequences == (SequenceSpan(1, 0),)
    assert step.to_dict() == {"phase": "decode", "batch_size": 1, "context_len": 0}


def test_decode_of_a_batch():
    step = Decode(4, 2048)
    assert step == Decode(batch_size=4, context_len=[2048] * 4)
    assert (step.num_rows, step.logits_rows) == (4, 4)
    assert [span.total_len for span in step.sequences] == [2049] * 4


def test_decode_of_uneven_lengths():
    step = Decode(context_len=[7, 5])
    assert step.batch_size == 2
    assert step.sequences == (SequenceSpan(1, 7), SequenceSpan(1, 5))
    assert step.to_dict() == {"phase": "decode", "batch_size": 2, "context_len": [7, 5]}


def test_prefill_defaults():
    step = Prefill(prompt_len=512)
    assert (step.phase, step.batch_size, step.num_rows, step.logits_rows) == ("prefill", 1, 512, 1)
    assert step.to_dict() == {
        "phase": "prefill",
        "batch_size": 1,
        "context_len": 0,
        "prompt_len": 512,
        "logits": "last",
        "causal": "skip",
    }


def test_prefill_of_uneven_prompts():
    step = Prefill(prompt_len=(3, 5), context_len=10, logits="all", causal="full")
    assert step.sequences == (SequenceSpan(3, 10), SequenceSpan(5, 10))
    assert (step.num_rows, step.logits_rows) == (8, 8)
    assert step.to_dict()["prompt_len"] == [3, 5]
    assert step.to_dict()["context_len"] == 10
    assert Prefill(prompt_len=(3, 5)).logits_rows == 2


def test_a_list_of_contexts_makes_the_batch_of_a_prefill():
    assert Prefill(prompt_len=4, context_len=[0, 1, 2]).prompt_len == (4, 4, 4)


def test_numpy_lengths_become_ints():
    step = Decode(np.int64(2), np.array([3, 4]))
    assert step == Decode(2, [3, 4])
    assert all(type(length) is int for length in step.context_len)
    json.dumps(step.to_dict())


def test_steps_are_frozen_and_hash():
    step = Decode(2, 3)
    assert hash(step) == hash(Decode(2, [3, 3]))
    with pytest.raises(AttributeError):
        step.batch_size = 3
    with pytest.raises(AttributeError):
        SequenceSpan(1, 2).new_len = 3


def test_a_list_of_another_length_than_the_batch():
    assert message(Decode, 3, [1, 2]) == (
        "context_len: 2 lengths are given but batch_size is 3\n"
        "  given:    [1, 2]\n"
        "  expected: one number, or a list of 3"
    )


def test_two_lists_of_different_lengths():
    assert message(Prefill, prompt_len=[1, 2], context_len=[1, 2, 3]) == (
        "context_len: 3 lengths are given but prompt_len has 2\n"
        "  given:    [1, 2, 3]\n"
        "  expected: one number, or a list of 2"
    )


def test_an_empty_list():
    assert message(Decode, context_len=[]) == (
        "context_len: an empty list of lengths\n  given:    []\n  expected: one length per sequence"
    )


def test_an_unknown_choice():
    assert message(Prefill, prompt_len=1, logits="lsat") == (
        "logits: unknown choice\n  given:    'lsat'\n  expected: last or all\n  hint:     did you mean 'last'?"
    )
    assert message(Prefill, prompt_len=1, causal=True).startswith("causal: unknown choice\n  given:    True")
    assert message(Prefill, prompt_len=1, causal=[]).startswith("causal: unknown choice\n  given:    []")


@pytest.mark.parametrize("bad", ["16", True, 16.0, None, b"1", {"a": 1}, {1, 2}, set, object(), np.bool_(True)])
def test_strict_whole_numbers(bad):
    assert message(Decode, 1, bad).startswith("context_len: not a whole number\n")
    assert message(Prefill, prompt_len=bad).startswith("prompt_len: not a whole number\n")
    assert message(Decode, context_len=[1, bad]).startswith("context_len[1]: not a whole number\n")
    if bad is not None:
        assert message(Decode, bad).startswith("batch_size: not a whole number\n")


def test_a_bad_number_in_words():
    assert message(Decode, "16") == (
        "batch_size: not a whole number\n  given:    '16'\n  expected: a whole number from 1 to 1,048,576"
    )
    assert message(Prefill, prompt_len=0) == (
        "prompt_len: too small\n  given:    0\n  expected: a whole number from 1 to 2,147,483,648"
    )


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: Decode(0), "batch_size: too small"),
        (lambda: Decode(2**20 + 1), "batch_size: too large"),
        (lambda: Decode(1, -1), "context_len: too small"),
        (lambda: Decode(1, MAX_LENGTH + 1), "context_len: too large"),
        (lambda: Decode(context_len=[1, -1]), "context_len[1]: too small"),
        (lambda: Prefill(prompt_len=[1, 0]), "prompt_len[1]: too small"),
        (lambda: Prefill(prompt_len=1, context_len=-1), "context_len: too small"),
    ],
)
def test_out_of_range(make, problem):
    assert message(make).startswith(problem)


def test_the_largest_length():
    assert Decode(1, MAX_LENGTH).sequences[0].total_len == MAX_LENGTH + 1


def test_a_context_past_the_positions():
    model = load_model("llama-2-7b")
    Decode(1, 4095).check_against(model)
    assert message(Decode(1, 4096).check_against, model) == (
        "context_len: 4,096 tokens of context and 1 new make 4,097, but llama-2-7b has 4,096 positions\n"
        "  hint:     shorten it, or raise the limit with --set model.max_position_embeddings=4097"
    )
    Decode(1, 4096).check_against(load_model("llama-2-7b", {"max_position_embeddings": 4097}))


def test_the_longest_of_a_batch_is_named():
    model = load_model("gpt2")
    assert message(Prefill(prompt_len=[5, 1025, 7]).check_against, model) == (
        "prompt_len: 0 tokens of context and 1,025 new of sequence 1 make 1,025, but gpt2 has 1,024 positions\n"
        "  hint:     shorten it, or raise the limit with --set model.max_position_embeddings=1025"
    )


def test_an_encoder_does_not_decode():
    assert message(Decode(1, 0).check_against, load_model("bert-base-uncased")) == (
        "phase: bert-base-uncased is an encoder (bert): it has no KV cache and does not decode\n"
        "  given:    'decode'\n"
        "  expected: prefill"
    )


def test_a_model_without_an_lm_head_does_not_decode():
    model = load_model({**TINY_LLAMA, "architectures": ["LlamaForSequenceClassification"]})
    Prefill(2, prompt_len=4, context_len=3).check_against(model)
    assert message(Decode(1, 0).check_against, model) == (
        "phase: model has no LM head: it gives no next token and does not decode\n"
        "  given:    'decode'\n"
        "  expected: prefill, which ends with hidden states\n"
        "  hint:     the language model of the same sizes is the config with another class under `architectures`,"
        " such as LlamaForCausalLM or GPT2LMHeadModel"
    )


def test_an_encoder_has_no_context():
    model = load_model("bert-base-uncased")
    Prefill(2, prompt_len=512).check_against(model)
    assert message(Prefill(prompt_len=8, context_len=[0, 4]).check_against, model) == (
        "context_len: bert-base-uncased is an encoder (bert): it has no KV cache that could hold a context\n"
        "  given:    [0, 4]\n"
        "  expected: 0"
    )


@given(st.lists(st.tuples(st.integers(1, 100), st.integers(0, 100)), min_size=1, max_size=8))
def test_lists_survive_the_round_trip(pairs):
    prompts, contexts = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    step = Prefill(prompt_len=prompts, context_len=contexts)
    assert [(span.new_len, span.context_len) for span in step.sequences] == pairs
    assert step.num_rows == sum(prompts)
    data = step.to_dict()
    data.pop("phase")
    assert Prefill(**data) == step
