"""Where requests of different stages overtake one another, repeated passes still give the event engine's cycles."""

from dataclasses import replace
from heapq import heapify, heappop

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pe_sim.config.step import Decode, Prefill
from pe_sim.engine.event.run import run_event
from pe_sim.engine.fast import arrival_pass
from pe_sim.engine.fast.arrival_pass import SharedChannel
from pe_sim.engine.fast.recurrences import OutOfOrderError
from pe_sim.engine.fast.run import run_by_arrival, run_fast, run_in_program_order
from pe_sim.mapping.mapper import place
from pe_sim.mapping.workflow import WORKFLOWS
from pe_sim.schedule.lowering import lower
from tests.engine.draws import knobs, models
from tests.engine.test_engines_agree import assert_same
from tests.helpers import small_array, tiny_llama


def schedule_of(model, array, step, workflow, groups):
    chosen = WORKFLOWS[workflow]
    return lower(place(model, array, step, chosen if chosen.pipelined else replace(chosen, groups=groups)))


def is_overtaken(schedule):
    """Whether one pass in program order is not exact."""
    try:
        run_in_program_order(schedule)
    except OutOfOrderError:
        return True
    return False


# ------------------------------------------------------------------------------------------------ the shared channel


def passed(channel, stages):
    """The releases one pass over (arrivals, ranks, busy) finds."""
    channel.begin()
    return [channel.serve(*(np.array(column) for column in stage))[1].tolist() for stage in stages]


def test_a_later_stage_goes_between_two_requests_of_an_earlier_one():
    channel, stages = SharedChannel(), [([0, 10], [0, 1], [4, 4]), ([2], [0], [4])]
    assert passed(channel, stages) == [[4, 14], [8]]  # the second stage was not known when the first was served
    assert channel.changed
    stages = [([0, 7], [0, 1], [4, 4]), ([2], [0], [4])]
    assert passed(channel, stages) == [[4, 12], [8]]
    assert channel.changed
    assert passed(channel, stages) == [[4, 12], [8]]
    assert not channel.changed
    left = channel.left()
    assert (left.free_at.tolist(), left.last_arrival.tolist(), left.overtaken.tolist()) == ([12], [7], [False])


def test_ties_go_to_the_earlier_stage_and_then_to_the_lower_rank():
    channel, stages = SharedChannel(), [([5, 5], [9, 3], [2, 2]), ([5], [-1], [2])]
    passed(channel, stages)
    assert passed(channel, stages) == [[9, 7], [11]]


def test_what_comes_before_an_earlier_blocks_request_is_noticed():
    channel = SharedChannel(free_at=np.array([20]), last_arrival=np.array([6]))
    assert passed(channel, [([6], [0], [2])]) == [[22]]
    assert not channel.left().overtaken.any()
    passed(channel, [([5], [0], [2])])
    assert channel.left().overtaken.all()


def test_a_channel_that_nothing_is_asked_of_stays_as_it_was():
    channel = SharedChannel(free_at=np.array([20]), last_arrival=np.array([6]))
    channel.begin()
    left = channel.left()
    assert (left.free_at.tolist(), left.last_arrival.tolist(), left.overtaken.any()) == ([20], [6], False)


def served_one_by_one(stages, free_at):
    """Section 2 as a queue: by arrival, stage, rank."""
    queue = [
        (arrival, order, rank, index)
        for order, (arrivals, ranks, _) in enumerate(stages)
        for index, (arrival, rank) in enumerate(zip(arrivals, ranks, strict=True))
    ]
    heapify(queue)
    releases = [[0] * len(arrivals) for arrivals, _, _ in stages]
    while queue:
        arrival, order, _, index = heappop(queue)
        free_at = releases[order][index] = max(arrival, free_at) + stages[order][2][index]
    return releases


requests = st.lists(st.tuples(st.integers(0, 30), st.integers(1, 9)), min_size=1, max_size=6)


@given(st.lists(st.tuples(requests, st.randoms(use_true_random=False)), min_size=1, max_size=5), st.integers(0, 20))
def test_shared_channel_is_the_queue(drawn, free_at):
    stages = []
    for asked, random in drawn:
        ranks = list(range(-1, len(asked) - 1))
        random.shuffle(ranks)
        stages.append(([arrival for arrival, _ in asked], ranks, [busy for _, busy in asked]))
    channel = SharedChannel(free_at=np.array([free_at]))
    passed(channel, stages)
    assert passed(channel, stages) == served_one_by_one(stages, free_at)


# ------------------------------------------------------------------------------------------------------ whole steps

CLOSED = [
    ("workflow-1", 4, Decode(8, 40)),  # groups change places on the bus within a layer
    ("workflow-1", 4, Decode(context_len=[2000, 3, 70, 400])),
    ("all-row", 2, Decode(context_len=[300, 2, 9, 40])),  # from layer to layer
    ("block-pipeline", 1, Decode(4, 60)),
    ("block-pipeline", 1, Prefill(prompt_len=[9, 3, 5])),
]


@pytest.mark.parametrize("overlap", [0, 1, 2, 3])
@pytest.mark.parametrize(("workflow", "groups", "step"), CLOSED)
def test_overtaken_steps_need_no_events(workflow, groups, step, overlap):
    array = small_array(16, overlap=overlap, request=3, width=16)
    schedule = schedule_of(tiny_llama(num_hidden_layers=4), array, step, workflow, groups)
    fast = run_fast(schedule)
    assert is_overtaken(schedule)
    assert not fast.notes
    assert_same(run_event(schedule), fast)


def test_passes_that_do_not_settle_go_event_by_event(monkeypatch):
    schedule = schedule_of(tiny_llama(), small_array(16, request=3, width=16), Decode(8, 40), "workflow-1", 4)
    monkeypatch.setattr(arrival_pass, "MOST_PASSES", 1)
    with pytest.raises(OutOfOrderError):
        run_by_arrival(schedule)
    fast = run_fast(schedule)
    assert "event by event" in fast.notes[0]
    assert_same(run_event(schedule), fast)


@pytest.mark.parametrize(("workflow", "groups"), [("all-row", 2), ("block-pipeline", 1)])
def test_bursts_are_refused(workflow, groups):
    array = small_array(8, burst=64, gather="serial")
    with pytest.raises(OutOfOrderError):
        run_by_arrival(schedule_of(tiny_llama(), array, Decode(4, 9), workflow, groups))


def test_what_nobody_overtakes_is_one_pass():
    schedule = schedule_of(tiny_llama(), small_array(16), Decode(8, 40), "workflow-2", 4)
    assert_same(run_in_program_order(schedule), run_by_arrival(schedule))


# ---------------------------------------------------------------------------------------------------- random steps

steps = st.one_of(
    st.lists(st.integers(0, 90), min_size=3, max_size=9).map(lambda lens: Decode(context_len=lens)),
    st.tuples(st.lists(st.integers(1, 12), min_size=2, max_size=5), st.integers(0, 9)).map(
        lambda drawn: Prefill(prompt_len=drawn[0], context_len=drawn[1])
    ),
)
GROUPED = [name for name, workflow in WORKFLOWS.items() if not workflow.pipelined and not workflow.local_ends]
PIPELINED = [name for name, workflow in WORKFLOWS.items() if workflow.pipelined]


def agree(names, examples, at_least):
    """Compares the engines; `at_least` of the cases have to be ones that a pass in program order is not exact for."""
    overtaken = refused = 0

    @settings(max_examples=examples)
    @given(models, steps, knobs, st.sampled_from(names), st.integers(1, 16), st.sampled_from([2, 3, 4]))
    def compared(model, step, overrides, workflow, pes_a_group, groups):
        nonlocal overtaken, refused
        schedule = schedule_of(model, small_array(groups * pes_a_group, overrides), step, workflow, groups)
        if not is_overtaken(schedule):
            return
        overtaken += 1
        fast = run_fast(schedule)
        refused += bool(fast.notes)
        assert_same(run_event(schedule), fast)

    compared()
    assert overtaken - refused >= at_least
    assert refused <= overtaken / 10


def test_random_groups():
    agree(GROUPED, examples=80, at_least=3)


def test_random_pipelines():
    agree(PIPELINED, examples=20, at_least=5)


# Of independent draws a fifth in groups are overtaken; of Hypothesis's, which repeat values, 6 to 14 % by seed.
MANY = [(GROUPED, 1500, 50), (PIPELINED, 300, 30)]


@pytest.mark.slow
@pytest.mark.parametrize(("names", "examples", "at_least"), MANY, ids=["groups", "pipelines"])
def test_many_random_steps(names, examples, at_least):
    agree(names, examples, at_least)
