"""The joints of the tree against a simulation joint by joint (section 3)."""

from dataclasses import dataclass, replace
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simpy import Environment

from pe_sim.engine.event import run_event
from pe_sim.engine.pipeline import Passage, TreePipeline
from pe_sim.schedule.collectives import collective_schedule
from tests.helpers import bus_uses, side_by_side, small_array


@dataclass(frozen=True)
class Reduction:
    """PEs first .. first + size - 1; `levels` None: not aligned, it takes the whole tree."""

    first: int
    size: int
    levels: int | None
    beats: int
    ready: int
    combine: int = 0


def whole_tree_levels(arity, num_leaves):
    levels = 0
    while arity**levels < num_leaves:
        levels += 1
    return levels


def joints_of(reduction, arity, num_leaves):
    """(level, index) of every joint a reduction passes; level 1 is right above the leaves."""
    top = whole_tree_levels(arity, num_leaves)
    first, size, levels = (
        (0, arity**top, top)
        if reduction.levels is None
        else (
            reduction.first,
            reduction.size,
            reduction.levels,
        )
    )
    return [
        (level, index)
        for level in range(1, levels + 1)
        for index in range(first // arity**level, (first + size) // arity**level)
    ]


def reference(reductions, arity, num_leaves, hop=3):
    """Starts, joint by joint: each enters every joint after the reductions before it, `beats` cycles apart.

    A joint keeps nothing, so a head that cannot go on cannot enter below either: the start is the earliest cycle
    from which the head, a hop and a merge a level, finds every joint of its way free.
    """
    entered_until = {}  # joint -> cycle from which the next may enter
    starts = []
    for reduction in reductions:
        head = {
            (level, index): hop * level + reduction.combine * (level - 1)
            for level, index in joints_of(reduction, arity, num_leaves)
        }
        start = reduction.ready
        while any(start + way < entered_until.get(joint, 0) for joint, way in head.items()):
            start += 1
        entered_until |= {joint: start + way + reduction.beats for joint, way in head.items()}
        starts.append(start)
    return starts


def simulate(reductions, num_leaves, order=None, arity=2):
    """Starts of the pipeline when readiness comes in the order of time (and `order` inside a cycle)."""
    env = Environment()
    pipeline = TreePipeline(num_leaves, whole_tree_levels(arity, num_leaves))
    starts = {}
    passages = []
    for index, reduction in enumerate(reductions):
        first, last = (
            (0, num_leaves)
            if reduction.levels is None
            else (
                reduction.first,
                reduction.first + reduction.size,
            )
        )
        levels = whole_tree_levels(arity, num_leaves) if reduction.levels is None else reduction.levels
        told = partial(starts.setdefault, index)
        passages.append(Passage(first, last, reduction.beats, told, levels, reduction.combine))
        pipeline.announce(passages[-1])

    def become_ready(index):
        yield env.timeout(reductions[index].ready)
        pipeline.ready(passages[index], int(env.now))

    for index in order or range(len(reductions)):
        env.process(become_ready(index))
    env.run()
    assert pipeline.busy_cycles == sum(reduction.beats for reduction in reductions)
    assert not pipeline.held_up().any()
    return [starts[index] for index in range(len(reductions))]


@st.composite
def situations(draw):
    arity = draw(st.integers(2, 4))
    num_leaves = draw(st.integers(2, 17))
    levels = whole_tree_levels(arity, num_leaves)
    reductions = []
    for _ in range(draw(st.integers(1, 10))):
        level = draw(st.integers(1, levels))
        size = arity**level
        beats, ready, combine = draw(st.integers(1, 6)), draw(st.integers(0, 25)), draw(st.sampled_from([0, 2, 12]))
        if size > num_leaves or (level == levels and draw(st.booleans())):
            reductions.append(Reduction(0, num_leaves, None, beats, ready, combine))
        else:
            first = size * draw(st.integers(0, num_leaves // size - 1))
            reductions.append(Reduction(first, size, level, beats, ready, combine))
    return arity, num_leaves, reductions


@given(situations(), st.randoms(use_true_random=False))
def test_against_the_joints(situation, shuffler):
    arity, num_leaves, reductions = situation
    order = list(range(len(reductions)))
    shuffler.shuffle(order)
    assert simulate(reductions, num_leaves, order, arity) == reference(reductions, arity, num_leaves)


class TestByHand:
    def test_program_order_holds_back_who_is_ready_early(self):
        late, early = Reduction(0, 8, None, 4, 100), Reduction(0, 8, None, 4, 0)
        assert simulate([late, early], 8) == [100, 104]

    def test_starts_are_the_beats_of_the_one_before_apart(self):
        queue = [Reduction(0, 8, None, beats, 0) for beats in (5, 1, 7, 2)]
        assert simulate(queue, 8) == [0, 5, 6, 13]

    def test_disjoint_groups_do_not_wait_for_each_other(self):
        groups = [Reduction(first, 2, 1, 9, 3) for first in (0, 2, 4, 6)]
        assert simulate(groups, 8) == [3, 3, 3, 3]

    def test_the_whole_tree_waits_for_every_group_and_they_for_it(self):
        groups = [Reduction(0, 4, 2, 9, 0), Reduction(4, 4, 2, 2, 10)]
        whole = Reduction(0, 8, None, 5, 0)
        assert simulate([*groups, whole, *groups], 8) == [0, 10, 12, 17, 17]

    def test_a_small_group_inside_a_large_one(self):
        assert simulate([Reduction(0, 4, 2, 6, 0), Reduction(2, 2, 1, 1, 0), Reduction(4, 2, 1, 1, 0)], 8) == [0, 6, 0]

    def test_groups_that_are_not_aligned_go_one_after_the_other(self):
        assert simulate([Reduction(first, 3, None, 4, 0) for first in (0, 3, 6)], 9) == [0, 4, 8]


class TestInTheEngine:
    """Reductions of a whole schedule."""

    def reductions(self, array, *sizes):
        return [collective_schedule("reduce", array, size).schedule for size in sizes]

    def test_independent_reductions_follow_each_other_by_their_beats(self):
        array = small_array(16)
        trace = run_event(side_by_side(*self.reductions(array, 640, 64, 128)))
        assert [use[:2] for use in bus_uses(trace, "tree")] == [(0, 10), (10, 11), (11, 13)]
        assert [span.end for span in trace.spans] == [4 * 3 + 10, 10 + 4 * 3 + 1, 11 + 4 * 3 + 2]

    @pytest.mark.parametrize("num_pes", [2, 16, 256])
    def test_a_quick_merge_does_not_overtake_a_slow_one_inside_the_tree(self, num_pes):
        """The joints of a softmax merge take 12 cycles instead of 2: whoever follows may enter *each* joint only
        `beats` after it, so its start waits for the joint below the root."""
        array = small_array(num_pes)
        first, second = self.reductions(array, 128, 64)
        levels = array.network.tree.num_levels
        (slow,) = first.blocks[0].stages
        slow = replace(slow, hop_cycles=slow.hop_cycles * 0 + levels * (1 + 12))
        first = replace(first, blocks=(replace(first.blocks[0], stages=(slow,)),))
        trace = run_event(side_by_side(first, second))
        assert trace.spans[0].end == levels * 13 + 2
        # entry of the slow head into the root joint: D hops and D - 1 merges; two beats later the next may enter
        entry = levels * 1 + (levels - 1) * 12
        enters_at_root_joint = trace.spans[1].end - 1 - 2
        assert enters_at_root_joint >= entry + 2
