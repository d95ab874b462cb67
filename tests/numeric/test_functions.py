import math

import numpy as np
import pytest

from pe_sim.numeric.arrays import gelu, gelu_tanh, rope_frequencies, silu
from pe_sim.numeric.moves import combine_tree, combiner, larger
from pe_sim.numeric.work import rotate_columns
from tests.numeric.cases import llama


def test_activations_by_hand():
    x = np.array([[-3.0, -0.5, 0.0, 1.0, 30.0]])
    by_hand = [value * 0.5 * (1 + math.erf(value / math.sqrt(2))) for value in x[0]]
    assert np.allclose(gelu(x)[0], by_hand, rtol=1e-14)
    assert np.abs(gelu_tanh(x) - gelu(x)).max() < 1e-3
    assert np.allclose(silu(x)[0], [value / (1 + math.exp(-value)) for value in x[0]], rtol=1e-14)


@pytest.mark.parametrize("function", [gelu, gelu_tanh, silu])
def test_activations_keep_float32_and_stay_finite(function):
    x = np.array([[-3e4, -100.0, 100.0, 3e4]], dtype=np.float32)
    with np.errstate(over="ignore"):
        y = function(x)
    assert y.dtype == np.float32
    assert np.isfinite(y).all()
    assert function(x[:0]).shape == (0, 4)


def test_linear_scaling_divides_all_frequencies():
    scaled = llama(rope_scaling={"rope_type": "linear", "factor": 4.0})
    assert np.allclose(rope_frequencies(scaled), rope_frequencies(llama()) / 4)


def test_llama3_scaling_keeps_short_waves_and_divides_long_ones():
    entries = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    model = llama(head_dim=64, rope_scaling={**entries, "original_max_position_embeddings": 8192}, rope_theta=500000.0)
    plain = rope_frequencies(llama(head_dim=64, rope_theta=500000.0))
    scaled, waves = rope_frequencies(model), 2 * math.pi / plain
    assert (scaled[waves < 8192 / 4] == plain[waves < 8192 / 4]).all()
    assert np.allclose(scaled[waves > 8192], plain[waves > 8192] / 8)
    between = (waves > 8192 / 4) & (waves < 8192)
    assert between.any()
    assert ((scaled[between] < plain[between]) & (scaled[between] > plain[between] / 8)).all()


def test_a_rotation_of_some_pairs_is_a_slice_of_the_whole_rotation():
    random = np.random.default_rng(0)
    x, positions, frequencies = random.standard_normal((5, 24)), np.arange(5), rope_frequencies(llama())
    whole = rotate_columns(x, np.arange(24), 8, positions, frequencies)
    columns = np.array([9, 10, 13, 14])  # pairs 1 and 2 of head 1
    assert np.allclose(rotate_columns(x[:, columns], columns, 8, positions, frequencies), whole[:, columns])
    assert np.allclose(np.linalg.norm(whole, axis=1), np.linalg.norm(x, axis=1))


def partial_of(scores, values):
    """The softmax partial (rows, 2 + head_dim) of one head over some tokens."""
    maximum = scores.max(axis=1, initial=-np.inf, keepdims=True)
    weights = np.exp(scores - np.where(maximum == -np.inf, 0, maximum))
    return np.concatenate([maximum, weights.sum(axis=1, keepdims=True), weights @ values], axis=1)


@pytest.mark.parametrize("arity", [2, 3, 8])
def test_merged_softmax_partials_are_the_softmax_over_all_tokens(arity):
    random = np.random.default_rng(0)
    scores, values = 40 * random.standard_normal((4, 11)), random.standard_normal((11, 3))
    scores[0, 1::3] = -np.inf  # a row that sees none of the second PE's tokens
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    expected = weights / weights.sum(axis=1, keepdims=True) @ values
    partials = [partial_of(scores[:, at::3], values[at::3]) for at in range(3)]
    partials.append(partial_of(scores[:, :0], values[:0]))
    merged = combine_tree(partials, arity, combiner("softmax", 3))
    assert np.allclose(merged[:, 2:] / merged[:, 1:2], expected)
    nothing = combine_tree(partials[-1:] * 2, arity, combiner("softmax", 3))
    assert (nothing[:, 0] == -np.inf).all()
    assert (nothing[:, 1:] == 0).all()


def test_the_better_candidate_has_the_larger_value_then_the_lower_index():
    kind = np.dtype([("value", np.float32), ("index", np.int32)])
    left = np.array([(1, 5), (2, 5), (2, 5), (np.nan, 1), (0, 1)], dtype=kind)
    right = np.array([(2, 9), (2, 3), (2, 7), (9, 2), (np.nan, 2)], dtype=kind)
    assert larger(left, right)["index"].tolist() == [9, 3, 5, 1, 2]
