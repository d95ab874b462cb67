"""Attention by head, token, batch and unsplit, against enumerations of heads, dims, rows and tokens (section 7)."""

import functools
import operator

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pe_sim.mapping.attention_split import (
    block_sizes,
    head_blocks,
    split_by_batch,
    split_by_head,
    split_by_token,
    unsplit,
)
from tests.helpers import attention, calls_in, ceil, pe_groups

lengths = st.lists(st.tuples(st.integers(1, 9), st.integers(0, 20)), min_size=1, max_size=4)


@st.composite
def head_situations(draw):
    per_kv, kv_heads, pairs = draw(st.integers(1, 4)), draw(st.integers(1, 4)), draw(st.integers(1, 9))
    shape = attention(per_kv * kv_heads, kv_heads, 2 * pairs, (2,), (3,))
    groups = pe_groups(draw(st.integers(1, 70)), arity=draw(st.integers(2, 4)))
    return shape, groups, draw(st.sampled_from(block_sizes(groups)))


def by_head(shape, groups, size):
    """Attention by head in blocks of this size."""
    return split_by_head(shape, groups, head_blocks(groups, shape.num_heads, shape.head_dim // 2, size))


def expected_heads(shape, num_pes, size):
    """[PE] -> {(query head, dim)}, from the text."""
    half = shape.head_dim // 2
    blocks = [range(first, min(first + size, num_pes)) for first in range(0, num_pes, size)]
    heads = [0] * len(blocks)
    most = 0
    while sum(heads) < shape.num_heads:  # each PE may have one unit more
        most += 1
        heads = [most // ceil(half, len(block)) for block in blocks]
    cap = 0
    while sum(min(of_block, cap) for of_block in heads) < shape.num_heads:
        cap += 1
    heads = [min(of_block, cap) for of_block in heads]
    for _, _, block in sorted((len(pes), -at, at) for at, pes in enumerate(blocks) if heads[at] == cap):
        heads[block] -= sum(heads) > shape.num_heads
    held, head = [set() for _ in range(num_pes)], 0
    for block, of_block in zip(blocks, heads, strict=True):
        for head in range(head, head + of_block):  # noqa: B020
            pair = 0
            for member, pe in enumerate(block):
                for _ in range(half // len(block) + (member < half % len(block))):
                    held[pe] |= {(head, pair), (head, pair + half)}
                    pair += 1
        head += of_block > 0
    return held


def held_by(split, pe, first, count):
    half = split.shape.head_dim // 2
    pairs = range(split.pair_first[pe], split.pair_first[pe] + split.pair_count[pe])
    heads = range(first[pe], first[pe] + count[pe])
    return {(head, pair + part * half) for head in heads for pair in pairs for part in (0, 1)}


@given(head_situations())
def test_every_query_dim_is_held_once_and_where_the_text_says(situation):
    shape, groups, size = situation
    split = by_head(shape, groups, size)
    held = [held_by(split, pe, split.q_first, split.q_heads) for pe in range(groups.num_pes)]
    assert held == expected_heads(shape, groups.num_pes, size)
    assert sum(len(part) for part in held) == shape.num_heads * shape.head_dim
    assert len(set().union(*held)) == shape.num_heads * shape.head_dim


@given(head_situations())
def test_a_kv_head_is_on_each_pe_that_has_one_of_its_query_heads(situation):
    shape, groups, size = situation
    split = by_head(shape, groups, size)
    per_kv = shape.num_heads // shape.num_kv_heads
    for pe, held in enumerate(expected_heads(shape, groups.num_pes, size)):
        wanted = {(head // per_kv, dim) for head, dim in held}
        assert held_by(split, pe, split.kv_first, split.kv_heads) == wanted


def test_uneven_heads():
    split = by_head(attention(7, 7, 4), pe_groups(3), 1)
    assert split.q_heads.tolist() == [3, 2, 2]
    assert split.q_first.tolist() == [0, 3, 5]


def test_shared_kv_heads_are_copied():
    # 8 query heads, 2 kv heads, 3 PEs: heads 0-2, 3-5, 6-7; PE 1 has queries of both kv heads
    split = by_head(attention(8, 2, 4), pe_groups(3), 1)
    assert split.q_heads.tolist() == [3, 3, 2]
    assert split.kv_first.tolist() == [0, 0, 1]
    assert split.kv_heads.tolist() == [1, 2, 1]


def test_idle_pes_where_pes_outnumber_heads():
    # 3 heads on 16 PEs in blocks of 4: four PEs idle
    split = by_head(attention(3, 3, 16), pe_groups(16), 4)
    assert split.head_group_size == 4
    assert split.q_heads.tolist() == [1] * 12 + [0] * 4
    assert split.pair_count.tolist() == [2] * 12 + [0] * 4
    assert split.row_sum(1).tolist() == [1] * 12 + [0] * 4


def test_more_pes_than_pairs_leaves_some_idle():
    split = by_head(attention(1, 1, 4), pe_groups(8), 8)
    assert split.pair_count.tolist() == [1, 1, 0, 0, 0, 0, 0, 0]
    assert split.dims.tolist() == [2, 2, 0, 0, 0, 0, 0, 0]


def seen(shape, sequence, row):
    new, context = shape.new_lens[sequence], shape.context_lens[sequence]
    return context + row + 1 if shape.causal_skip else context + new


def brute_row_sum(shape, divisor, sequences, holds):
    """Σ over rows of ceil(tokens that are held and seen / divisor), token by token."""
    return sum(
        ceil(sum(holds(token) for token in range(seen(shape, sequence, row))), divisor)
        for sequence in sequences
        for row in range(shape.new_lens[sequence])
    )


@given(lengths, st.booleans(), st.integers(1, 9), st.integers(1, 5))
def test_tokens_row_by_row(spans, skip, num_pes, divisor):
    """Position p on PE p mod n, causal rows, ragged lengths, empty contexts."""
    shape = attention(2, 1, 4, *zip(*spans, strict=True), causal_skip=skip)
    split = split_by_token(shape, pe_groups(num_pes, num_sequences=len(spans)))
    everyone = range(len(spans))
    for pe in range(num_pes):
        expected = brute_row_sum(shape, divisor, everyone, lambda token, pe=pe: token % num_pes == pe)
        assert split.row_sum(divisor)[pe] == expected
    positions = [list(range(new + context)) for new, context in spans]
    for pe in range(num_pes):
        mine = [[p for p in sequence if p % num_pes == pe] for sequence in positions]
        assert split.cached_tokens()[pe] == sum(map(len, mine))
        fresh = [[p for p in sequence if p >= span[1]] for sequence, span in zip(mine, spans, strict=True)]
        assert split.new_tokens()[pe] == sum(map(len, fresh))
        streamed = split.over_cached(lambda tokens: ceil(6 * tokens, 64))[pe]
        assert streamed == sum(ceil(6 * len(sequence), 64) for sequence in mine)


@given(lengths, st.booleans(), st.integers(1, 5))
def test_heads_see_all_tokens(spans, skip, divisor):
    shape = attention(4, 2, 4, *zip(*spans, strict=True), causal_skip=skip)
    expected = brute_row_sum(shape, divisor, range(len(spans)), lambda token: True)
    for split in (
        by_head(shape, pe_groups(4, num_sequences=len(spans)), 1),
        unsplit(shape, pe_groups(3, num_sequences=len(spans))),
    ):
        assert set(split.row_sum(divisor).tolist()) == {expected}


@given(lengths, st.integers(1, 6))
def test_batch(spans, num_pes):
    shape = attention(2, 2, 4, *zip(*spans, strict=True))
    split = split_by_batch(shape, pe_groups(num_pes, num_sequences=len(spans)))
    owned = [list(range(split.sequence_first[pe], split.sequence_last[pe])) for pe in range(num_pes)]
    assert functools.reduce(operator.iadd, owned, []) == list(range(len(spans)))
    assert max(map(len, owned)) - min(map(len, owned)) <= 1
    for pe in range(num_pes):
        assert split.row_sum(3)[pe] == brute_row_sum(shape, 3, owned[pe], lambda token: True)


def test_pes_whose_sequences_are_alike_are_added_up_together():
    def calls(batch, context_lens):
        context = [context_lens[at % len(context_lens)] for at in range(batch)]
        split = split_by_batch(attention(2, 2, 4, [1] * batch, context), pe_groups(64, num_sequences=batch))
        assert split.cached_tokens().sum() == sum(context) + batch
        return calls_in(split.cached_tokens)

    assert calls(64 * 3 + 5, [7]) < 2 * calls(64 * 3, [7])
    assert calls(64 * 4, [7, 9]) == calls(64 * 2, [7, 9])


def test_groups_have_their_own_sequences():
    shape = attention(2, 2, 4, (1, 1, 1), (10, 20, 30))
    split = split_by_token(shape, pe_groups(4, 2, num_sequences=3))
    # group 0 holds sequences of 11 and 21 tokens, group 1 one of 31
    assert split.cached_tokens().tolist() == [6 + 11, 5 + 10, 16, 15]
    heads = by_head(shape, pe_groups(4, 2, num_sequences=3), 1)
    assert heads.q_first.tolist() == [0, 1, 0, 1]
    assert heads.cached_tokens().tolist() == [32, 32, 31, 31]


def test_a_growing_cache_never_moves():
    for context in range(20):
        now = split_by_token(attention(1, 1, 2, (1,), (context,)), pe_groups(3))
        owner = np.flatnonzero(now.new_tokens())
        assert owner.tolist() == [context % 3]
