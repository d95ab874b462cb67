"""Each row of section 7's table of transforms: the exact steps, and which way `best` goes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pe_sim.graph.operators import Tensor
from pe_sim.mapping.placement import Joint, Partial, Replicate, Root, Shard
from pe_sim.mapping.transforms import Transforms
from tests.helpers import attention, ceil, layouts_for, small_array

HIDDEN, FFN = Shard("hidden"), Shard("ffn")
SUM, MAX, SOFTMAX = Partial("sum"), Partial("max"), Partial("softmax")
REPLICATE, ROOT = Replicate(), Root()


def transforms(num_pes=4, way="by_reduction", num_groups=1, **knobs):
    array = small_array(num_pes, gather=way, scatter=way, **knobs)
    spans = max(num_groups, 1)
    shape = attention(2, 2, 8, [1] * spans, [0] * spans)
    return Transforms(array, layouts_for(array, shape, num_groups))


def steps(source, target, size=64, **where):
    found = transforms(**where).steps([Tensor("x", "hidden", size)], source, target)
    return [(str(step.kind), step.source, step.target) for step in found]


SLICE = [("local", REPLICATE, HIDDEN)]

TABLE = [
    # from, to, serial, by reduction
    (REPLICATE, HIDDEN, SLICE, SLICE),
    (HIDDEN, SUM, [("local", HIDDEN, SUM)], [("local", HIDDEN, SUM)]),
    (REPLICATE, SUM, [("local", REPLICATE, SUM)], [("local", REPLICATE, SUM)]),
    (ROOT, REPLICATE, [("broadcast", ROOT, REPLICATE)], [("broadcast", ROOT, REPLICATE)]),
    (SUM, ROOT, [("reduce", SUM, ROOT)], [("reduce", SUM, ROOT)]),
    (MAX, ROOT, [("reduce", MAX, ROOT)], [("reduce", MAX, ROOT)]),
    (SOFTMAX, ROOT, [("reduce", SOFTMAX, ROOT)], [("reduce", SOFTMAX, ROOT)]),
    (
        SUM,
        REPLICATE,
        [("reduce", SUM, ROOT), ("broadcast", ROOT, REPLICATE)],
        [("reduce", SUM, ROOT), ("broadcast", ROOT, REPLICATE)],
    ),
    (
        HIDDEN,
        REPLICATE,
        [("all-gather", HIDDEN, REPLICATE)],
        [("local", HIDDEN, SUM), ("reduce", SUM, ROOT), ("broadcast", ROOT, REPLICATE)],
    ),
    (HIDDEN, ROOT, [("gather", HIDDEN, ROOT)], [("local", HIDDEN, SUM), ("reduce", SUM, ROOT)]),
    (ROOT, HIDDEN, [("scatter", ROOT, HIDDEN)], [("broadcast", ROOT, REPLICATE), *SLICE]),
    (
        SUM,
        HIDDEN,
        [("reduce", SUM, ROOT), ("scatter", ROOT, HIDDEN)],
        [("reduce", SUM, ROOT), ("broadcast", ROOT, REPLICATE), *SLICE],
    ),
    (
        HIDDEN,
        FFN,
        [("all-gather", HIDDEN, REPLICATE), ("local", REPLICATE, FFN)],
        [
            ("local", HIDDEN, SUM),
            ("reduce", SUM, ROOT),
            ("broadcast", ROOT, REPLICATE),
            ("local", REPLICATE, FFN),
        ],
    ),
]


@pytest.mark.parametrize(("source", "target", "serial", "by_reduction"), TABLE)
def test_the_table(source, target, serial, by_reduction):
    assert steps(source, target, way="serial") == serial
    assert steps(source, target, way="by_reduction") == by_reduction
    assert steps(source, target, way="best") in (serial, by_reduction)


@pytest.mark.parametrize("place", [REPLICATE, HIDDEN, SUM, ROOT])
def test_nothing_to_do(place):
    assert steps(place, place) == []


def test_one_pe_moves_nothing_but_a_broadcast():
    for source in (REPLICATE, HIDDEN, SUM):
        for target in (REPLICATE, HIDDEN, SUM):
            assert all(kind == "local" for kind, _, _ in steps(source, target, num_pes=1))
    assert steps(ROOT, REPLICATE, num_pes=1) == [("broadcast", ROOT, REPLICATE)]


def test_partial_sums_travel_wide_and_slices_narrow():
    t = transforms()
    x = [Tensor("x", "hidden", 64)]
    assert t.steps(x, SUM, ROOT)[0].partial_dtype
    gathered = t.steps(x, HIDDEN, ROOT)[-1]
    assert not gathered.partial_dtype
    # 64 elements in fp32 are 4 beats, in bf16 2; two levels of 1 + 2
    assert t.cycles(x, t.steps(x, SUM, ROOT)) == 6 + 4
    assert t.cycles(x, t.steps(x, HIDDEN, ROOT)) == 6 + 2


def test_a_softmax_merge_costs_more_a_joint():
    t = transforms()
    x = [Tensor("x", "softmax_partial", 64)]
    assert t.cycles(x, t.steps(x, SOFTMAX, ROOT)) == 2 * (1 + 12) + 4


def test_concatenated_tensors_are_one_message():
    t = transforms()
    parts = [Tensor("q", "query", 16), Tensor("k", "kv", 10), Tensor("v", "kv", 10)]
    # 36 fp32 are 144 bytes, 3 beats up; 72 bytes, 2 beats down
    assert t.cycles(parts, t.steps(parts, SUM, REPLICATE)) == (6 + 3) + (2 + 4 + 2)


class TestGroups:
    def test_aligned_groups_reduce_to_their_joint(self):
        joint = Joint("group")
        found = steps(SUM, REPLICATE, num_pes=8, num_groups=2)
        assert found == [("reduce", SUM, joint), ("broadcast", joint, REPLICATE)]

    def test_groups_that_are_not_aligned_reduce_to_the_root(self):
        found = steps(SUM, REPLICATE, num_pes=6, num_groups=2)
        assert found == [("reduce", SUM, ROOT), ("broadcast", ROOT, REPLICATE)]

    def test_closed_forms(self):
        x = [Tensor("x", "hidden", 64)]
        side_by_side = transforms(num_pes=8, num_groups=2)
        # 2 levels and 4 beats for both at once; then one multicast a group
        assert side_by_side.cycles(x, side_by_side.steps(x, SUM, REPLICATE)) == (2 * 3 + 4) + (2 * (2 + 2) + 4)
        in_turn = transforms(num_pes=6, num_groups=2)
        # all 3 levels, one group after the other
        assert in_turn.cycles(x, in_turn.steps(x, SUM, REPLICATE)) == (3 * 3 + 2 * 4) + (2 * (2 + 2) + 4)

    def test_a_downlink_goes_down_its_own_subtree(self):
        x = [Tensor("x", "hidden", 64)]
        t = transforms(num_pes=8, num_groups=2, downlink=True)
        assert t.cycles(x, t.steps(x, SUM, REPLICATE)) == (2 * 3 + 4) + (2 * 1 + 2)


sizes = st.integers(1, 4000)
machines = st.fixed_dictionaries(
    {
        "num_pes": st.sampled_from([2, 3, 4, 8, 13, 64]),
        "overhead": st.integers(0, 5),
        "latency": st.integers(0, 9),
        "request": st.integers(0, 9),
        "combine": st.integers(0, 9),
        "width": st.sampled_from([8, 64]),
    }
)


def closed_forms(size, num_pes, overhead, latency, request, combine, width):
    """(serial, by reduction) of a gather to all, a gather to the root and a scatter of bf16 shards."""
    levels = (num_pes - 1).bit_length()
    slices = [size // num_pes + (pe < size % num_pes) for pe in range(num_pes)]
    each = sum(overhead + ceil(2 * part, width) for part in slices if part) + latency
    broadcast = overhead + latency + ceil(2 * size, width)
    up = levels * (1 + combine) + ceil(2 * size, 64)
    return {
        (HIDDEN, REPLICATE): (each + request, up + broadcast),
        (HIDDEN, ROOT): (each + request, up),
        (ROOT, HIDDEN): (each, broadcast),
    }


@given(sizes, machines)
def test_best_is_the_smaller_closed_form_and_ties_go_to_the_reduction(size, machine):
    x = [Tensor("x", "hidden", size)]
    for (source, target), (serial, at_once) in closed_forms(size, **machine).items():
        assert transforms(way="serial", **machine).cycles(x, steps_of("serial", x, source, target, machine)) == serial
        chosen = steps_of("best", x, source, target, machine)
        assert chosen == steps_of("serial" if serial < at_once else "by_reduction", x, source, target, machine)
        t = transforms(way="best", **machine)
        assert t.cycles(x, chosen) == min(serial, at_once)


def steps_of(way, tensors, source, target, machine):
    return transforms(way=way, **machine).steps(tensors, source, target)


def test_a_tie():
    # 4 PEs, 64 elements: serial 4·(2 + 1) + 4 = 16, reduction 2·3 + 2 and broadcast 2 + 4 + 2 = 16
    assert steps(HIDDEN, REPLICATE, way="best")[0][0] == "local"
    assert steps(HIDDEN, REPLICATE, way="best", combine=3) == [("all-gather", HIDDEN, REPLICATE)]
