"""Shares of heads, columns, layers, sequences and positions: each unit once, and as evenly as they go."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pe_sim.config.plans.checks import bounds_of
from pe_sim.config.plans.plan import Degrees
from pe_sim.config.step import Decode, Prefill
from pe_sim.errors import InputError
from pe_sim.graph.families import build_graph
from pe_sim.graph.shares import Meeting, OperatorShare, cut_layer, head_share, model_share
from pe_sim.numeric.weights import shared_weights
from pe_sim.systems.microbatches import listed, parts_of, place_of, rows_of
from tests.numeric.cases import llama
from tests.systems.cases import MODELS, weights_of
from tests.systems.draws import models, shares_that_fit, steps


@given(st.integers(0, 200), st.integers(1, 40))
def test_shares_tile_and_differ_by_one_at_most(size, of):
    parts = [OperatorShare(at, of).part(size) for at in range(of)]
    assert [unit for part in parts for unit in part] == list(range(size))
    lengths = [len(part) for part in parts]
    assert lengths == sorted(lengths, reverse=True)
    assert max(lengths) - min(lengths) <= 1


@given(st.integers(1, 12), st.integers(1, 12), st.data())
def test_heads_are_shared_out_with_the_kv_heads_they_read(kv_heads, per_kv, data):
    model = llama(num_key_value_heads=kv_heads, num_attention_heads=kv_heads * per_kv, head_dim=2)
    of = data.draw(st.integers(1, 2 * kv_heads * per_kv))
    if of > kv_heads and (of % kv_heads or of > kv_heads * per_kv):
        with pytest.raises(InputError, match=f"cannot be shared out over {of} arrays"):
            head_share(model, OperatorShare(0, of))
        return
    shares = [head_share(model, OperatorShare(at, of)) for at in range(of)]
    assert [head for share in shares for head in share.query] == list(range(kv_heads * per_kv))
    assert sorted({head for share in shares for head in share.kv}) == list(range(kv_heads))
    for share in shares:
        assert {head // per_kv for head in share.query} == set(share.kv)
        assert len(share.query) % len(share.kv) == 0  # each of its kv heads is read by as many of its heads
    if of <= kv_heads:
        assert sum(len(share.kv) for share in shares) == kv_heads
    else:
        assert all(len(share.kv) == 1 for share in shares)
        assert max(len(share.query) for share in shares) - min(len(share.query) for share in shares) <= 1


def test_the_nearest_number_of_arrays_is_named():
    with pytest.raises(InputError) as caught:
        head_share(MODELS["gqa"], OperatorShare(0, 7))
    assert str(caught.value) == (
        "tp: the heads of model cannot be shared out over 7 arrays\n"
        "  given:    7\n"
        "  expected: up to 2 (its kv heads), or a multiple of that up to 8 (its heads)\n"
        "  hint:     the nearest that fits is 6"
    )


@given(models(), st.data())
def test_models_of_the_shares_add_up(model, data):
    of = data.draw(st.sampled_from(shares_that_fit(model, 8)))
    layers = data.draw(st.integers(1, model.num_layers))
    shares = [model_share(model, OperatorShare(at, of), layers) for at in range(of)]
    assert sum(share.num_heads for share in shares) == model.num_heads
    assert sum(share.ffn_size for share in shares) == model.ffn_size
    assert {(share.num_layers, share.hidden_size, share.head_dim) for share in shares} == {
        (layers, model.hidden_size, model.head_dim)
    }


@pytest.mark.parametrize(("name", "of"), [("llama", 3), ("gqa", 4), ("uneven", 3), ("bias", 2), ("gpt2", 6)])
def test_weights_of_the_shares_are_the_models(name, of):
    """Rows of q, gate and the LM head, columns of o and down; the biases of sums are the first share's."""
    model, whole = MODELS[name], weights_of(MODELS[name])
    parts = [shared_weights(whole, model, *(OperatorShare(at, of),) * 2) for at in range(of)]
    for layer, matrices in enumerate(each.matrices for each in whole.layers):
        own = [part.layers[layer].matrices for part in parts]
        for matrix in {"q", "gate", "up"} & set(matrices):
            np.testing.assert_array_equal(
                np.concatenate([each[matrix].weight for each in own]), matrices[matrix].weight
            )
        for matrix in ("o", "down"):
            columns = np.concatenate([each[matrix].weight for each in own], axis=1)
            np.testing.assert_array_equal(columns, matrices[matrix].weight)
            assert (own[0][matrix].bias is None) == (matrices[matrix].bias is None)
            assert all(each[matrix].bias is None for each in own[1:])
    heads = np.concatenate([part.end_matrices["lm_head"].weight for part in parts])
    np.testing.assert_array_equal(heads, whole.end_matrices["lm_head"].weight)


def test_bounds_of_counts():
    assert bounds_of([2, 0, 3]) == (0, 2, 2, 5)


# ---------------------------------------------------------------------------------------------------- rows of a step
@given(st.data())
def test_every_row_of_a_step_is_one_arrays(data):
    """Of those that share operators each has it; positions go over tokens' shares in turn, as does the cache."""
    model = data.draw(models())
    step = data.draw(steps(model))
    degrees = Degrees(data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4)), 2, data.draw(st.booleans()))
    parts = parts_of(model, step, range(step.batch_size), data.draw(st.integers(1, 7)))
    expected = sorted(
        (at, position) for at, span in enumerate(step.sequences) for position in range(span.context_len, span.total_len)
    )
    rows = [
        [row for index in range(degrees.num_arrays) for row in listed(rows_of(part, degrees, place_of(degrees, index)))]
        for part in parts
    ]
    assert sorted(row for part in rows for row in part) == sorted([*expected, *expected])
    for part, own in zip(parts, rows, strict=True):
        assert own
        assert {sequence for sequence, _ in own} <= set(part.sequences)
    for index in range(degrees.num_arrays):
        place = place_of(degrees, index)
        for part in parts:
            for span in rows_of(part, degrees, place):
                assert all((span.sequence + position) % degrees.cp == place.tokens for position in span.positions)
                before = [
                    at for at in range(step_context(part, span)) if (span.sequence + at) % degrees.cp == place.tokens
                ]
                assert span.cached_len == len(before)


def step_context(part, own) -> int:
    """Tokens of the span's sequence before the part."""
    return next(span.context_len for span in part.spans if span.sequence == own.sequence)


@given(st.data())
def test_parts_come_in_order_and_end_each_sequence_once(data):
    model = data.draw(models())
    step = data.draw(steps(model))
    wanted = data.draw(st.integers(1, 7))
    parts = parts_of(model, step, range(step.batch_size), wanted)
    assert len(parts) <= wanted
    assert [part.index for part in parts] == list(range(len(parts)))
    seen = {at: span.context_len for at, span in enumerate(step.sequences)}
    for part in parts:
        for span in part.spans:
            assert span.context_len == seen[span.sequence]  # a chunk attends to those before it
            assert span.new_len > 0
            seen[span.sequence] += span.new_len
    assert seen == {at: span.total_len for at, span in enumerate(step.sequences)}
    ends = [row for part in parts for row in part.selected(every=False, first=False)]
    assert sorted(ends) == [(at, span.total_len - 1) for at, span in enumerate(step.sequences)]


# ------------------------------------------------------------------------------------------------------------ segments
CUTS = {
    (False, False): [],
    (True, False): [Meeting.SUM, Meeting.SUM],
    (False, True): [Meeting.QUERIES, Meeting.ATTENTION],
    (True, True): [Meeting.QUERIES, Meeting.ATTENTION, Meeting.SUM, Meeting.SUM],
}


@pytest.mark.parametrize("shares", CUTS, ids=str)
@pytest.mark.parametrize("model", ["llama", "gpt2", "bias"])
def test_a_layer_is_cut_where_arrays_meet(model, shares):
    operators, tokens = shares
    for step in (Decode(2, 5), Prefill(2, prompt_len=3)):
        layer = build_graph(MODELS[model], step).layer
        segments = cut_layer(layer, shares_operators=operators, shares_tokens=tokens)
        assert [segment.meeting for segment in segments] == [*CUTS[shares], None]
        names = [operator.name for segment in segments for operator in segment.operators]
        assert [name for name in names if name != "softmax_merge" or not tokens] == [each.name for each in layer]
        assert [segment.on_tokens for segment in segments].count(True) == tokens
        for before, after in pairwise(segments):
            assert set(after.reads) <= {before.sends, *before.alive}
