import numpy as np
import pytest

from pe_sim.config.step import Decode, Prefill
from pe_sim.errors import InputError
from pe_sim.graph.families import build_graph
from pe_sim.numeric.tokens import read_token_types, read_tokens
from tests.numeric.cases import bert, llama


def read(given, step, model=None):
    model = model or llama()
    return read_tokens(given, model, build_graph(model, step).shape)


def test_one_array_a_sequence():
    assert [ids.tolist() for ids in read([[1, 2], [3, 4]], Prefill(2, prompt_len=2))] == [[1, 2], [3, 4]]
    assert [ids.tolist() for ids in read(np.array([[1, 2, 3]]), Decode(1, context_len=2))] == [[1, 2, 3]]
    assert [len(ids) for ids in read([[1, 2], [3, 4, 5]], Decode(2, context_len=[1, 2]))] == [2, 3]


def test_a_single_sequence_may_come_alone():
    assert read([5, 6, 7], Decode(1, context_len=2))[0].tolist() == [5, 6, 7]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([[1, 2, 41], [1, 2, 3]], r"tokens\[0\]: an id is out of range\n  given:    41\n  expected: 0 to 40"),
        ([[1, 2, 3], [1, -1, 3]], r"tokens\[1\]: an id is out of range\n  given:    -1"),
        ([[1, 2, 3], [1, 2]], r"tokens\[1\]: these are not the step's tokens\n  given:    \(2,\)\n  expected: \(3,\)"),
        ([[1, 2, 3]], "1 sequences are given, the step has 2"),
        (np.zeros((3, 3), dtype=int), r"3 sequences are given, the step has 2\n  given:    \(3, 3\)"),
        ([[1.0, 2.0, 3.0], [1, 2, 3]], "token ids are whole numbers"),
        ([[True, False, True], [1, 2, 3]], "token ids are whole numbers"),
        ("abc", "these are no token ids"),
        (7, "these are no token ids"),
        (None, "these are no token ids"),
        ([[[1, 2, 3]], [[1, 2, 3]]], "these are not the step's tokens"),
        ([[], [1, 2, 3]], "whole numbers|not the step's tokens"),
    ],
)
def test_what_does_not_fit_is_refused(given, message):
    with pytest.raises(InputError, match=message):
        read(given, Decode(2, context_len=2))


def test_positions_past_the_maximum_are_refused():
    shape = build_graph(llama(), Decode(1, context_len=40)).shape
    with pytest.raises(InputError, match="sequence 0 has 41 tokens\n  expected: at most the 16 positions"):
        read_tokens([[0] * 41], llama(max_position_embeddings=16), shape)


def test_token_types_are_for_models_that_have_them():
    shape = build_graph(bert(), Prefill(1, prompt_len=2)).shape
    assert read_token_types(None, bert(), shape) is None
    assert read_token_types([[0, 1]], bert(), shape)[0].tolist() == [0, 1]
    with pytest.raises(InputError, match=r"token_types\[0\]: an id is out of range"):
        read_token_types([[0, 2]], bert(), shape)
    with pytest.raises(InputError, match="has no token types"):
        read_token_types([[0, 1]], llama(), shape)
