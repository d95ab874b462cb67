"""Even shares, aligned groups and powers, against brute force."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pe_sim.errors import InputError
from pe_sim.mapping.groups import aligned_levels, even_counts, largest_power
from tests.helpers import pe_groups


@given(st.integers(0, 500), st.integers(1, 70))
def test_even_counts(size, parts):
    dealt = [0] * parts  # one unit after the other, lower indices first
    for unit in range(size):
        dealt[unit % parts] += 1
    assert even_counts(size, parts).tolist() == dealt


@given(st.integers(0, 100), st.integers(1, 100), st.integers(2, 8))
def test_aligned_levels(first, size, arity):
    fitting = [level for level in range(8) if arity**level == size and first % size == 0]
    assert aligned_levels(first, size, arity) == (fitting[0] if fitting else None)


@given(st.integers(2, 9), st.integers(1, 10_000))
def test_largest_power(arity, limit):
    assert largest_power(arity, limit) == max(arity**e for e in range(15) if arity**e <= limit)


def test_groups_of_pes_and_sequences():
    groups = pe_groups(12, 3, num_sequences=7)
    assert groups.size == 4
    assert groups.first_pe.tolist() == [0, 4, 8]
    assert groups.group_of_pe.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert groups.sequence_bounds.tolist() == [0, 3, 5, 7]


def test_more_groups_than_sequences():
    assert pe_groups(8, 4, num_sequences=2).sequence_bounds.tolist() == [0, 1, 2, 2, 2]


@pytest.mark.parametrize("num_groups", [0, 3, 16])
def test_groups_that_do_not_divide_the_array(num_groups):
    with pytest.raises(InputError, match=f"8 PEs do not divide into {num_groups} equal groups"):
        pe_groups(8, num_groups)
