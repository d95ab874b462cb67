"""Shards tile their tensors, uneven ones differ by one unit, bytes round up once a slice (section 7)."""

import functools
import operator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pe_sim.graph.operators import Element, Tensor
from pe_sim.mapping.layouts import softmax_partial
from pe_sim.mapping.placement import Partial, Replicate, Shard
from tests.helpers import attention, ceil, layouts_for, small_array


def columns(layouts, dim, size, placement, num_pes):
    return [layouts.column_indices(dim, size, placement, pe).tolist() for pe in range(num_pes)]


@given(st.integers(1, 40), st.integers(1, 150), st.sampled_from(["hidden", "ffn", "vocab", "query", "kv"]))
def test_shards_tile_contiguously(num_pes, size, dim):
    layouts = layouts_for(small_array(num_pes), attention(2, 2, 8))
    held = columns(layouts, dim, size, Shard(dim), num_pes)
    assert functools.reduce(operator.iadd, held, []) == list(range(size))
    counts = [len(part) for part in held]
    assert counts == sorted(counts, reverse=True)
    assert max(counts) - min(counts) <= 1
    assert layouts.pe_columns(dim, size, Shard(dim)).tolist() == counts


@given(st.integers(1, 40), st.integers(1, 3), st.integers(1, 3), st.integers(1, 6), st.integers(2, 3))
def test_shards_by_head_are_a_permutation(num_pes, per_kv, kv_heads, pairs, arity):
    heads, dim = per_kv * kv_heads, 2 * pairs
    layouts = layouts_for(small_array(num_pes, arity=arity), attention(heads, kv_heads, dim))
    queries = columns(layouts, "query", heads * dim, Shard("head"), num_pes)
    assert sorted(functools.reduce(operator.iadd, queries, [])) == list(range(heads * dim))
    keys = columns(layouts, "kv", kv_heads * dim, Shard("head"), num_pes)
    assert set(functools.reduce(operator.iadd, keys, [])) == set(range(kv_heads * dim))
    for pe in range(num_pes):
        assert layouts.pe_columns("query", heads * dim, Shard("head"))[pe] == len(queries[pe])
        assert layouts.pe_columns("kv", kv_heads * dim, Shard("head"))[pe] == len(keys[pe])
        # k and v are there for every query, dim by dim, and in the same order inside a head
        needed = {(column // dim // per_kv) * dim + column % dim for column in queries[pe]}
        assert set(keys[pe]) == needed


@pytest.mark.parametrize("placement", [Replicate(), Partial("sum")])
def test_everything_everywhere(placement):
    layouts = layouts_for(small_array(5), attention(2, 2, 8))
    assert columns(layouts, "ffn", 7, placement, 5) == [list(range(7))] * 5


@given(
    st.integers(1, 9),
    st.lists(st.integers(1, 5), min_size=1, max_size=4),
    st.integers(1, 60),
    st.sampled_from(["bf16", "fp8", "fp32"]),
)
def test_bytes(num_pes, prompts, size, dtype):
    array = small_array(num_pes, {"dtypes.activation": dtype})
    layouts = layouts_for(array, attention(2, 2, 8, prompts, [0] * len(prompts)))
    tensor, rows = Tensor("x", "hidden", size), sum(prompts)
    bits = {"bf16": 16, "fp8": 8, "fp32": 32}[dtype]
    assert layouts.group_bytes(tensor, partial=False).tolist() == [ceil(rows * size * bits, 8)]
    assert layouts.group_bytes(tensor, partial=True).tolist() == [rows * size * 4]
    slices = [size // num_pes + (pe < size % num_pes) for pe in range(num_pes)]
    assert layouts.pe_bytes(tensor, Shard("hidden")).tolist() == [ceil(rows * part * bits, 8) for part in slices]
    assert layouts.pe_bytes(tensor, Partial("sum")).tolist() == [rows * size * 4] * num_pes


def test_statistics_and_candidates_have_their_own_width():
    layouts = layouts_for(small_array(2), attention(2, 2, 8, (1, 1), (0, 0)))
    statistic = Tensor("s", "scalar", 2, element=Element.STATISTIC)
    candidate = Tensor("c", "scalar", 1, element=Element.CANDIDATE)
    for partial in (False, True):
        assert layouts.group_bytes(statistic, partial=partial).tolist() == [2 * 2 * 4]
        assert layouts.group_bytes(candidate, partial=partial).tolist() == [2 * 8]


def test_batch_shards_and_selected_rows():
    shape = attention(2, 2, 8, (5, 3, 1), (0, 0, 0))
    layouts = layouts_for(small_array(2), shape, selected_per_sequence=1)
    tensor = Tensor("x", "hidden", 10)
    assert layouts.pe_rows(tensor.rows, Shard("batch")).tolist() == [8, 1]
    assert layouts.pe_bytes(tensor, Shard("batch")).tolist() == [8 * 20, 20]
    assert layouts.pe_rows(tensor.rows, Replicate()).tolist() == [9, 9]
    selected = next(rows for rows in type(tensor.rows) if rows is not tensor.rows)
    assert layouts.pe_rows(selected, Replicate()).tolist() == [3, 3]
    assert layouts.pe_rows(selected, Shard("batch")).tolist() == [2, 1]


def test_groups_split_the_batch():
    layouts = layouts_for(small_array(4), attention(2, 2, 8, (5, 3, 1), (0, 0, 0)), num_groups=2)
    tensor = Tensor("x", "hidden", 10)
    assert layouts.group_bytes(tensor, partial=False).tolist() == [8 * 20, 20]
    assert layouts.pe_bytes(tensor, Shard("hidden")).tolist() == [8 * 10, 8 * 10, 10, 10]


def test_a_softmax_partial_is_max_sum_and_weighted_values_of_every_head():
    shape = attention(6, 2, 16)
    partial = softmax_partial(Tensor("attended", "query", 96), shape)
    assert partial.size == 6 * (16 + 2)
    layouts = layouts_for(small_array(4), shape)
    assert layouts.group_bytes(partial, partial=True).tolist() == [6 * 18 * 4]


def test_an_empty_shard_has_no_bytes():
    layouts = layouts_for(small_array(8), attention(2, 2, 8))
    assert layouts.pe_bytes(Tensor("x", "hidden", 3), Shard("hidden")).tolist() == [2, 2, 2, 0, 0, 0, 0, 0]
    assert np.all(layouts.pe_bytes(Tensor("x", "hidden", 3), Shard("hidden")) >= 0)
