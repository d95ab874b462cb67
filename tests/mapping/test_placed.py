"""What stays with a placed graph: found again by an equal key, bounded, and gone where the blocks are others."""

from dataclasses import replace

from pe_sim.config.step import Decode
from pe_sim.mapping.placed import Kept, Memo
from pe_sim.schedule.lowering import lower
from tests.helpers import placed_step, small_array, tiny_llama


def listed(value):
    return [value]


def doubled(value):
    return [value, value]


def test_an_equal_key_finds_the_same_result():
    memo = Memo(2)
    first = memo.recall({"a": 1}, listed, 5)
    assert memo.recall({"a": 1}, listed, 6) is first  # dicts are compared; the arguments are not looked at
    assert memo.recall({"a": 2}, listed, 6) == [6]


def test_functions_do_not_share_results():
    memo = Memo(2)
    assert memo.recall(None, listed, 1) == [1]
    assert memo.recall(None, doubled, 1) == [1, 1]


def test_the_latest_results_are_kept():
    memo = Memo(2)
    first, second = memo.recall(1, listed, 1), memo.recall(2, listed, 2)
    assert memo.recall(1, listed, 1) is first
    memo.recall(3, listed, 3)  # in place of 2, which was not asked for the longest
    assert memo.recall(1, listed, 1) is first
    assert memo.recall(2, listed, 2) is not second


def test_a_memo_without_room_keeps_nothing():
    memo = Memo(0)
    assert memo.recall(1, listed, 1) is not memo.recall(1, listed, 1)


def results_kept(num_pes, num_blocks):
    memo = Kept.of((None,) * num_blocks, num_pes).layouts
    made = [memo.recall(key, listed, key) for key in range(100)]
    return sum(memo.recall(key, listed, key) is made[key] for key in reversed(range(100)))


def test_room_shrinks_with_the_arrays():
    assert results_kept(256, 4) == 8
    assert results_kept(4096, 2) == 2
    assert results_kept(2**20, 4) == 0


def test_a_graph_with_other_blocks_starts_anew():
    placed = placed_step(tiny_llama(), small_array(4), Decode(1, 9), "workflow-1")
    whole = lower(placed)
    epilogue = placed.blocks[-1]
    cut = replace(placed, blocks=(*placed.blocks[:-1], replace(epilogue, nodes=epilogue.nodes[:-1])))
    assert len(lower(cut).blocks[-1].stages) == len(whole.blocks[-1].stages) - 1
    assert len(lower(placed).blocks[-1].stages) == len(whole.blocks[-1].stages)


def test_a_copy_on_another_array_keeps_what_there_is():
    placed = placed_step(tiny_llama(), small_array(4), Decode(1, 9), "workflow-1")
    assert replace(placed, array=small_array(4, width=8)).kept is placed.kept
