"""The joints of the tree against a simulation joint by joint (section 3)."""

from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from simpy import Environment

from pe_sim.engine.event.machine import Passage, TreePipeline
from pe_sim.engine.event.run import run_event
from pe_sim.engine.fast.run import run_fast
from pe_sim.mapping.placed import BlockRun
from pe_sim.schedule import builders
from pe_sim.schedule.builders import Labels, Scopes
from pe_sim.schedule.collectives import collective_schedule
from pe_sim.schedule.stages import Block, Schedule
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
    """Starts, joint by joint: each enters and leaves every joint after the reductions before it, `beats` cycles apart.

    A joint keeps nothing, so a head that cannot go on cannot enter below either: the start is the earliest cycle
    from which the head, a hop and a merge a level, finds the entry and the exit of every joint of its way free.
    """
    used_until = {}  # end of a joint -> cycle from which the next may use it
    starts = []
    for reduction in reductions:
        head = {}
        for level, index in joints_of(reduction, arity, num_leaves):
            head["entry", level, index] = hop * level + reduction.combine * (level - 1)
            head["exit", level, index] = (hop + reduction.combine) * level
        start = reduction.ready
        while any(start + way < used_until.get(end, 0) for end, way in head.items()):
            start += 1
        used_until |= {end: start + way + reduction.beats for end, way in head.items()}
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


HOP, PLAIN, MERGE = 1, 2, 12


def in_the_tree(array, size, beats, softmax=False):
    """Reductions of all groups of `size` PEs at their own joints, or of the whole array."""
    scopes = Scopes.of_array(array.num_pes, size)
    given_bytes = np.full(len(scopes.first_pe), beats * array.network.tree.bytes_per_cycle)
    everybody = np.ones(array.num_pes, dtype=bool)
    whole = size == array.num_pes
    labels = Labels("r", "r", (), 0)
    stage = builders.reduction(labels, array, scopes, given_bytes, everybody, at_root=whole, softmax=softmax)
    return Schedule(array, (Block((stage,), 1),), (BlockRun(0, None),))


def starts_in(run, array, *queue):
    """The start of each stage, all of whose reductions start together."""
    trace = run(side_by_side(*(in_the_tree(array, *stage) for stage in queue)))
    assert not trace.notes
    starts = [{use[0] for use in bus_uses(trace, "tree") if use[2] == order} for order in range(len(queue))]
    assert all(len(found) == 1 for found in starts)
    return [found.pop() for found in starts]


@pytest.mark.parametrize("run", [run_event, run_fast])
@pytest.mark.parametrize(("arity", "levels"), [(2, 1), (2, 2), (2, 4), (2, 8), (3, 3), (4, 2)])
class TestBehindAMerge:
    """No two beats leave a joint in one cycle: behind a merge, plain reductions lose the difference at each joint."""

    def array(self, arity, levels):
        return small_array(arity**levels, arity=arity, hop=HOP, combine=PLAIN, softmax_combine=MERGE)

    def test_through_the_whole_tree(self, run, arity, levels):
        array, whole = self.array(arity, levels), arity**levels
        behind = 7 + levels * (MERGE - PLAIN)
        queue = [(whole, 7, True), (whole, 5, False), (whole, 3, False), (whole, 2, True), (whole, 1, True)]
        assert starts_in(run, array, *queue) == [0, behind, behind + 5, behind + 8, behind + 10]

    def test_the_beats_leave_the_root_joint_one_after_the_other(self, run, arity, levels):
        array, whole = self.array(arity, levels), arity**levels
        queue = [in_the_tree(array, whole, 7, True), in_the_tree(array, whole, 5)]
        merge, plain = (span.end for span in run(side_by_side(*queue)).spans)
        assert (merge, plain) == (levels * (HOP + MERGE) + 7, merge + 5)

    def test_only_the_levels_that_both_pass_count(self, run, arity, levels):
        array, whole = self.array(arity, levels), arity**levels
        for own in range(1, levels):
            groups, behind = arity**own, 4 + own * (MERGE - PLAIN)
            assert starts_in(run, array, (groups, 4, True), (whole, 6, False)) == [0, behind]
            assert starts_in(run, array, (whole, 4, True), (groups, 6, False)) == [0, behind]
            assert starts_in(run, array, (groups, 4, True), (groups, 6, False)) == [0, behind]
            assert starts_in(run, array, (arity, 4, True), (groups, 6, False)) == [0, 4 + MERGE - PLAIN]

    def test_a_merge_behind_is_not_held_back(self, run, arity, levels):
        array, whole = self.array(arity, levels), arity**levels
        for own in range(1, levels + 1):
            assert starts_in(run, array, (whole, 4, False), (arity**own, 6, True)) == [0, 4]
            assert starts_in(run, array, (arity**own, 4, False), (whole, 6, True)) == [0, 4]

    def test_a_merge_further_ahead_may_still_hold_back(self, run, arity, levels):
        """One of fewer levels between them does not know of the levels above."""
        array, whole = self.array(arity, levels), arity**levels
        starts = starts_in(run, array, (whole, 4, True), (arity, 2, False), (whole, 1, False))
        own = 4 + MERGE - PLAIN
        assert starts == [0, own, max(own + 2, 4 + levels * (MERGE - PLAIN))]


@given(
    st.sampled_from([(2, 3), (2, 4), (3, 2)]),
    st.integers(0, 3),
    st.integers(0, 9),
    st.lists(st.tuples(st.integers(0, 4), st.integers(1, 9), st.booleans()), min_size=1, max_size=7),
)
def test_both_engines_against_the_joints(shape, plain, merge, queue):
    arity, levels = shape
    array = small_array(arity**levels, arity=arity, hop=3, combine=plain, softmax_combine=merge)
    stages, groups = [], []
    for level, beats, softmax in queue:
        level = min(max(level, 1), levels)
        size, combine = arity**level, merge if softmax else plain
        stages.append((size, beats, softmax))
        groups.append([Reduction(first, size, level, beats, 0, combine) for first in range(0, array.num_pes, size)])
    expected = reference([one for stage in groups for one in stage], arity, array.num_pes)
    for run in (run_event, run_fast):
        trace = run(side_by_side(*(in_the_tree(array, *stage) for stage in stages)))
        uses = [(use[2], use[0]) for use in bus_uses(trace, "tree")]
        orders = [order for order, stage in enumerate(groups) for _ in stage]
        assert sorted(uses) == sorted(zip(orders, expected, strict=True))
