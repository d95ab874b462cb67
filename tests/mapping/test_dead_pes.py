"""Division of the work among the living PEs: shards, blocks of a head, tokens, stages, and what is refused."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pe_sim.config.step import Decode
from pe_sim.errors import InputError
from pe_sim.mapping.attention_split import block_sizes, head_blocks, split_by_batch, split_by_head, split_by_token
from pe_sim.mapping.footprint import footprint
from pe_sim.mapping.groups import PeGroups, groups_alive
from pe_sim.mapping.layouts import Layouts
from pe_sim.mapping.mapper import place
from pe_sim.mapping.placed import Move, MoveKind
from pe_sim.mapping.placement import Shard
from pe_sim.mapping.workflow import WORKFLOWS
from tests.helpers import attention, ceil, small_array, tiny_llama


@st.composite
def divisions(draw, num_sequences=4):
    """Groups of an array with dead PEs, and which PEs of each group live."""
    num_groups, size = draw(st.integers(1, 4)), draw(st.integers(1, 17))
    num_pes = num_groups * size
    dead = draw(st.sets(st.integers(0, num_pes - 1), min_size=1, max_size=num_pes))
    living = [[pe for pe in range(g * size, (g + 1) * size) if pe not in dead] for g in range(num_groups)]
    if not all(living):
        dead, living = {0}, [list(range(g * size, (g + 1) * size)) for g in range(num_groups)]
        living[0] = living[0][1:]
        if size == 1:
            dead, living = set(), [[pe] for pe in range(num_pes)]
    arity = draw(st.integers(2, 4))
    return PeGroups.of_array(num_pes, num_groups, arity, num_sequences, tuple(sorted(dead))), living


@given(divisions())
def test_places_stay_and_ranks_count_the_living(division):
    groups, living = division
    assert groups.first_pe.tolist() == [group * groups.size for group in range(groups.num_groups)]
    assert groups.members.tolist() == [pe for group in living for pe in group]
    assert groups.living.tolist() == [len(group) for group in living]
    assert groups.lowest.tolist() == [group[0] for group in living]
    for number, group in enumerate(living):
        for rank, pe in enumerate(group):
            assert (groups.group_of_pe[pe], groups.rank_of_pe[pe]) == (number, rank)
            assert groups.at_rank(np.array([number]), np.array([rank])).tolist() == [pe]
    assert (np.flatnonzero(groups.is_member) == groups.members).all()


@given(divisions(), st.integers(0, 60))
def test_slices_of_the_living_tile_a_dim_and_differ_by_at_most_one(division, size):
    groups, living = division
    layouts = Layouts(groups, attention(2, 2, 4, (1,) * 4, (0,) * 4), small_array(1).dtypes, None, 1)
    counts = layouts.pe_columns("ffn", size, Shard("ffn"))
    assert (counts[~groups.is_member] == 0).all()
    for group in living:
        assert counts[group].max() - counts[group].min() <= 1
        held = [layouts.column_indices("ffn", size, Shard("ffn"), pe).tolist() for pe in group]
        assert list(itertools.chain(*held)) == list(range(size))
        assert [len(columns) for columns in held] == counts[group].tolist()


@given(divisions(), st.integers(1, 6), st.integers(1, 6), st.data())
def test_every_head_is_held_once_by_the_living(division, num_heads, pairs, data):
    groups, living = division
    size = data.draw(st.sampled_from(block_sizes(groups)))
    shape = attention(num_heads, num_heads, 2 * pairs, (1,) * 4, (3,) * 4)
    split = split_by_head(shape, groups, head_blocks(groups, num_heads, pairs, size))
    assert not split.q_heads[~groups.is_member].any()
    for group in living:
        held = [
            (head, pair)
            for pe in group
            for head in range(split.q_first[pe], split.q_first[pe] + split.q_heads[pe])
            for pair in range(split.pair_first[pe], split.pair_first[pe] + split.pair_count[pe])
        ]
        assert sorted(held) == [(head, pair) for head in range(num_heads) for pair in range(pairs)]


@given(divisions(), st.integers(1, 6), st.integers(1, 9), st.data())
def test_no_pe_of_the_blocks_has_more_than_need_be(division, num_heads, pairs, data):
    """Against giving each head to the block that is then done first, which is optimal for equal heads."""
    groups, living = division
    size = data.draw(st.sampled_from(block_sizes(groups)))
    blocks = head_blocks(groups, num_heads, pairs, size)
    most = 0
    for number, group in enumerate(living):
        first = number * groups.size
        full = [sum(first + b * size <= pe < first + (b + 1) * size for pe in group) for b in range(groups.size)]
        whole = groups.size // size + (first + groups.size == groups.num_pes and groups.size % size > 0)
        loads = [(ceil(pairs, count), 0) for count in full[:whole] if count]
        for _ in range(num_heads):
            at = min(range(len(loads)), key=lambda block: loads[block][0] * (loads[block][1] + 1))
            loads[at] = (loads[at][0], loads[at][1] + 1)
        most = max(most, *(each * heads for each, heads in loads))
    assert (-(-pairs // blocks.alive.sum(axis=-1)) * blocks.num_heads).max() == most
    assert blocks.num_heads.sum() == num_heads * groups.num_groups
    assert ((blocks.first_pe - groups.first_pe[blocks.first_pe // groups.size]) % size == 0).all()


def test_a_head_goes_on_with_the_living_of_its_block():
    """16 PEs, 4 heads of 8 pairs: 4 PEs a head; PE 5 is dead, so that its head has 3."""
    groups = PeGroups.of_array(16, 1, 2, 1, (5,))
    split = split_by_head(attention(4, 4, 16, (1,), (9,)), groups, head_blocks(groups, 4, 8, 4))
    assert split.head_group_size == 4
    assert split.pair_count.tolist() == [2, 2, 2, 2, 3, 0, 3, 2, 2, 2, 2, 2, 2, 2, 2, 2]
    assert split.pair_first.tolist()[4:8] == [0, 0, 3, 6]


def test_of_blocks_the_fullest_have_the_heads():
    """16 PEs, 2 heads: of the blocks of 4 two are whole; of 8, one PE of three has a third of a head."""
    groups = PeGroups.of_array(16, 1, 2, 1, (0, 1, 2, 4, 5))
    assert head_blocks(groups, 2, 8, 4).first_pe.tolist() == [8, 12]
    blocks = head_blocks(groups, 2, 8, 8)
    assert (blocks.first_pe.tolist(), blocks.num_heads.tolist()) == ([8], [2])  # 2 of 8 units each, instead of 3


@given(divisions(), st.lists(st.integers(0, 40), min_size=4, max_size=4))
def test_token_p_lives_on_the_living_pe_p_mod_n(division, contexts):
    groups, living = division
    split = split_by_token(attention(2, 2, 4, (1,) * 4, tuple(contexts)), groups)
    tokens = np.zeros(groups.num_pes, dtype=int)
    for number, group in enumerate(living):
        bounds = groups.sequence_bounds
        for context in contexts[bounds[number] : bounds[number + 1]]:
            for position in range(context + 1):
                tokens[group[position % len(group)]] += 1
    assert split.cached_tokens().tolist() == tokens.tolist()
    assert isinstance(split.token_stride, int) == groups.is_even


@given(divisions(num_sequences=9))
def test_sequences_go_to_the_living(division):
    groups, living = division
    split = split_by_batch(attention(2, 2, 4, (1,) * 9, (3,) * 9), groups)
    owned = split.sequence_last - split.sequence_first
    assert not owned[~groups.is_member].any()
    assert sum(owned) == 9
    for group in living:
        assert owned[group].max() - owned[group].min() <= 1


def test_no_dead_pe_holds_anything():
    array = small_array(16, {"dead_pes": [3, 8]})
    for name, workflow in WORKFLOWS.items():
        placed = place(tiny_llama(), array, Decode(context_len=[30, 4]), workflow)
        held = footprint(placed, placed.graph.shape)
        assert not (held.weight_bytes_per_pe + held.kv_cache_bytes_per_pe)[[3, 8]].any(), name


def test_arrays_that_differ_in_their_dead_pes_are_not_taken_for_one_another():
    step, workflow = Decode(context_len=9), WORKFLOWS["megatron"]
    for dead in ([], [1], [2], []):
        placed = place(tiny_llama(), small_array(4, {"dead_pes": dead}), step, workflow)
        assert placed.blocks[0].layouts.groups.dead_pes == tuple(dead)
        assert placed.array.dead_pes == tuple(dead)


def test_groups_that_are_dead_as_a_whole():
    with pytest.raises(InputError) as caught:
        PeGroups.of_array(12, 6, 2, 4, (4, 5, 7), source="mine.yaml")
    assert str(caught.value) == (
        "mine.yaml: groups: PEs 4 to 5, one of 6 groups, are all in dead_pes\n"
        "  given:    6\n"
        "  expected: groups with a living PE each: 1, 2, 3, 4"
    )
    assert groups_alive(12, (4, 5, 7)) == (1, 2, 3, 4)


def test_a_grid_has_no_place_for_a_dead_pe():
    plan = WORKFLOWS["megatron"].pattern[0]
    grid = type(plan)(**{**plan.to_dict(), "gate": "grid-2", "up": "grid-2", "down": "grid-2"})
    workflow = type(WORKFLOWS["megatron"])("grids", "", (grid,))
    with pytest.raises(InputError) as caught:
        place(tiny_llama(), small_array(8, {"dead_pes": [1, 6]}), Decode(context_len=9), workflow)
    assert str(caught.value) == (
        "grids: gate: a grid's rows need all their PEs, and some are in dead_pes: 1, 6\n"
        "  given:    'grid-2'\n"
        "  expected: one of grid-1, grid-8"
    )


def test_a_pipeline_stage_without_living_pes_is_left_out():
    """4 layers on 8 PEs: stages 0-1, 2-3, 4-5, 6-7; without the second its neighbours have more layers."""
    array = small_array(8, {"dead_pes": [0, 2, 3]})
    model = tiny_llama(num_hidden_layers=4)
    placed = place(model, array, Decode(context_len=9), WORKFLOWS["block-pipeline"])
    layers = {}
    for run in placed.sequence:
        if run.layer is not None:
            layers.setdefault(placed.blocks[run.block].layouts.groups.first_member, set()).add(run.layer)
    assert layers == {0: {0, 1}, 4: {2}, 6: {3}}
    nodes = [node for block in placed.blocks for node in block.nodes if isinstance(node, Move)]
    assert [node.sender for node in nodes if node.kind is MoveKind.FORWARD] == [1, 4]


def test_a_pipeline_whose_stages_are_all_dead():
    with pytest.raises(InputError) as caught:
        place(
            tiny_llama(), small_array(5, {"dead_pes": [0, 1, 2, 3]}), Decode(context_len=9), WORKFLOWS["block-pipeline"]
        )
    assert str(caught.value) == (
        "block-pipeline: dead_pes: no pipeline stage has a living PE: 2 stages of 2 PEs each\n"
        "  given:    [0, 1, 2, 3]\n"
        "  expected: a living PE below 4"
    )
