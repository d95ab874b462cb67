"""The decode steps of a generation, run together over classes of PEs, are the steps run alone."""

from dataclasses import replace

import numpy as np
from hypothesis import strategies as st

from pe_sim.config.step import Decode
from pe_sim.engine.fast.run import run_decode_steps, run_fast
from pe_sim.mapping.classes import classes_of
from pe_sim.mapping.mapper import place
from pe_sim.mapping.workflow import WORKFLOWS
from pe_sim.schedule.lowering import lower
from tests.engine.draws import knobs, models
from tests.engine.test_arrival_pass import is_overtaken
from tests.helpers import given_in_both, small_array, tiny_llama

NUM_STEPS = 6


@given_in_both(
    20,
    100,
    models,
    st.lists(st.integers(0, 90), min_size=1, max_size=5),
    knobs,
    st.sampled_from(sorted(WORKFLOWS)),
    st.integers(1, 64),
    st.data(),
)
def test_random_generations(model, lengths, overrides, workflow, num_pes, data):
    divisors = [count for count in range(1, num_pes + 1) if num_pes % count == 0]
    chosen = WORKFLOWS[workflow]
    if not chosen.pipelined:
        chosen = replace(chosen, groups=data.draw(st.sampled_from(divisors[:4])))
    compare_steps(model, small_array(num_pes, overrides), lengths, chosen, NUM_STEPS)


def compare_steps(model, array, lengths, workflow, num_steps):
    """The decode steps of a generation together are the steps alone, where none is overtaken."""
    steps = [Decode(context_len=[length + later for length in lengths]) for later in range(num_steps)]
    schedules = [lower(place(model, array, step, workflow)) for step in steps]
    alone = [run_fast(schedule) for schedule in schedules]
    (together,) = run_decode_steps(place(model, array, steps[0], workflow), num_steps)
    for index, trace in enumerate(alone):
        assert together.exact[index] != is_overtaken(schedules[index])
        if together.exact[index]:
            assert together.makespan_cycles[index] == trace.makespan_cycles
    for tag, use in together.traffic.items():
        for count in ("messages", "bytes", "busy_cycles"):
            assert getattr(use, count) == sum(getattr(trace.traffic[tag], count) for trace in alone)


def test_many_steps_come_in_parts():
    array, model = small_array(64), tiny_llama()
    parts = list(run_decode_steps(place(model, array, Decode(context_len=3), WORKFLOWS["workflow-2"]), 5000))
    assert len(parts) > 1
    assert sum(len(part.makespan_cycles) for part in parts) == 5000


def test_bursts_are_no_step_of_it():
    array = small_array(8, burst=64, gather="serial")
    (part,) = run_decode_steps(place(tiny_llama(), array, Decode(context_len=9), WORKFLOWS["all-row"]), 3)
    assert not part.exact.any()
    assert not part.traffic


def test_equal_pes_share_a_class():
    """By token: those below the owner of the new token, the owner, and those above it."""
    model, array = tiny_llama(), small_array(48)
    placed = place(model, array, Decode(context_len=100), WORKFLOWS["all-col"])
    lower(placed)
    classes = classes_of(placed, 3)
    assert classes.num_classes < 48
    owners = (100 + np.arange(3)) % 48
    assert all(owner in row for owner, row in zip(owners, classes.representative, strict=True))


def test_senders_are_classes_of_their_own():
    array = small_array(16, gather="serial")
    placed = place(tiny_llama(), array, Decode(context_len=9), WORKFLOWS["all-row"])
    lower(placed)
    assert classes_of(placed, 2).num_classes == 16
