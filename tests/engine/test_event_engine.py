"""The event engine as a whole: contention, conservation, order, bounds and deadlocks."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck
from hypothesis import strategies as st

from pe_sim.config.step import Decode
from pe_sim.engine.event.run import run_event
from pe_sim.errors import DeadlockError
from pe_sim.schedule.collectives import collective_schedule
from pe_sim.schedule.matrix import gemm_schedule
from pe_sim.trace import NOT_ACTIVE
from tests.engine.draws import models, steps
from tests.helpers import (
    NAMED_WORKFLOWS,
    bus_uses,
    ceil,
    given_in_both,
    no_overlap,
    placed_step,
    schedule_of,
    side_by_side,
    small_array,
    tiny_llama,
    traffic_of,
)


def run(workflow, num_pes, step, model=None, **knobs):
    return run_event(schedule_of(model or tiny_llama(), small_array(num_pes, **knobs), step, workflow))


class TestDeterminism:
    @pytest.mark.parametrize("workflow", NAMED_WORKFLOWS)
    def test_two_runs_are_equal(self, workflow):
        first, second = (run(workflow, 6, Decode(2, [9, 30])) for _ in range(2))
        assert first.makespan_cycles == second.makespan_cycles
        assert traffic_of(first) == traffic_of(second)
        for one, other in zip(first.spans, second.spans, strict=True):
            assert (one.name, one.layer, one.start, one.end, one.inputs) == (
                other.name,
                other.layer,
                other.start,
                other.end,
                other.inputs,
            )
            assert (one.pe_start is None) == (other.pe_start is None)
            if one.pe_start is not None:
                assert np.array_equal(one.pe_start, other.pe_start)
                assert np.array_equal(one.pe_end, other.pe_end)
        for column in ("channel", "tag", "stage", "start", "end", "num_bytes"):
            assert np.array_equal(getattr(first.channel_use, column), getattr(second.channel_use, column))


MATRIX_FIELDS = (
    "stream_bytes",
    "first_memory_cycles",
    "pass_memory_cycles",
    "full_passes",
    "full_compute_cycles",
    "last_compute_cycles",
    "last_rows",
    "tile_bytes",
)


def after_gemms(array, collective, *shapes):
    """`collective` (one stage that starts at the PEs) fed by one GEMM a PE of different sizes."""
    gemms = side_by_side(*(gemm_schedule(array, *shape) for shape in shapes))
    works = [stage.matrix for stage in gemms.blocks[0].stages]
    fields = {
        name: np.array([getattr(works[pe % len(works)], name)[0] for pe in range(array.num_pes)], dtype=np.int64)
        for name in MATRIX_FIELDS
    }
    stage = gemms.blocks[0].stages[0]
    everywhere = np.ones(array.num_pes, dtype=bool)
    stage = replace(stage, active=everywhere, matrix=replace(works[0], **fields), output=0)
    moves = tuple(
        replace(move, inputs=tuple(slot + 1 for slot in move.inputs) or (0,), output=move.output + 1)
        for move in collective.blocks[0].stages
    )
    block = replace(gemms.blocks[0], stages=(stage, *moves), num_slots=len(moves) + 2)
    return replace(gemms, blocks=(block,))


class TestContention:
    def gather(self, num_pes, *shapes, **knobs):
        array = small_array(num_pes, gather="serial", **knobs)
        collective = collective_schedule("all-gather", array, 100).schedule
        return run_event(after_gemms(array, collective, *shapes))

    def test_all_ask_at_once(self):
        # every PE is done at 20 + max(8, 5) + 5 + 8; the lower PE goes first
        trace = self.gather(5, (5, 16, 16))
        done = 20 + 8 + 5 + 8
        assert [use[:2] for use in bus_uses(trace)] == [(done + 4 * i, done + 4 * i + 4) for i in range(5)]
        assert trace.makespan_cycles == done + 5 * 4 + 4

    def test_staggered_far_apart(self):
        # compute 10, 30, 50: done at 20 + m + min(8, m) + 8
        trace = self.gather(3, (50, 16, 16), (10, 16, 16), (30, 16, 16))
        ends = {0: 20 + 50 + 8 + 8, 1: 20 + 10 + 8 + 8, 2: 20 + 30 + 8 + 8}
        assert [use[0] for use in bus_uses(trace)] == [ends[1], ends[2], ends[0]]
        assert trace.makespan_cycles == ends[0] + 4 + 4

    def test_staggered_closer_than_a_message(self):
        # PE 2 is done first, then PE 1 and PE 0 while the bus is held: by arrival, not by index
        trace = self.gather(3, (12, 16, 16), (11, 16, 16), (10, 16, 16))
        first = 20 + 10 + 8 + 8
        assert [use[:2] for use in bus_uses(trace)] == [(first + 4 * i, first + 4 * i + 4) for i in range(3)]
        assert trace.makespan_cycles == first + 3 * 4 + 4

    def test_requests_that_travel(self):
        trace = self.gather(3, (50, 16, 16), (10, 16, 16), (30, 16, 16), request=7)
        assert [use[0] for use in bus_uses(trace)] == [20 + m + 8 + 8 + 7 for m in (10, 30, 50)]

    def test_a_reduction_waits_for_the_last_pe(self):
        array = small_array(8)
        reduce = collective_schedule("reduce", array, 4096).schedule
        shapes = [(m, 16, 16) for m in (9, 80, 10, 11, 12, 13, 14, 15)]
        trace = run_event(after_gemms(array, reduce, *shapes))
        assert trace.makespan_cycles == (20 + 80 + 8 + 8) + 3 * (1 + 2) + 64

    def test_root_and_pe_in_one_cycle(self):
        # the broadcast is the later operator: it waits although root would win among equals
        array = small_array(2, gather="serial")
        both = side_by_side(
            collective_schedule("all-gather", array, 64).schedule, collective_schedule("broadcast", array, 64).schedule
        )
        assert [use[2] for use in bus_uses(run_event(both))] == [0, 0, 1]
        swapped = side_by_side(
            collective_schedule("broadcast", array, 64).schedule, collective_schedule("all-gather", array, 64).schedule
        )
        assert [use[2] for use in bus_uses(run_event(swapped))] == [0, 1, 1]


class TestDeadlock:
    """`env.run()` would return silently: the engine raises, and lists who waits for what."""

    def everywhere(self, stage, num_pes):
        """The GEMM of PE 0 on every PE."""
        fields = {name: np.full(num_pes, getattr(stage.matrix, name)[0]) for name in MATRIX_FIELDS}
        return replace(stage, active=np.ones(num_pes, dtype=bool), matrix=replace(stage.matrix, **fields))

    def listing(self, num_pes=4):
        """ "early" has nobody to contribute, so it keeps "late" from the joints; all PEs want what "late" gives."""
        array = small_array(num_pes)
        schedule = collective_schedule("reduce", array, 64).schedule
        (tree,) = schedule.blocks[0].stages
        (send,) = collective_schedule("broadcast", array, 64).schedule.blocks[0].stages
        work = self.everywhere(gemm_schedule(array, 1, 16, 16).blocks[0].stages[0], num_pes)
        nobody = np.zeros(num_pes, dtype=bool)
        stages = (
            replace(work, name="first", output=0),
            replace(work, name="idle", active=nobody, output=1),
            replace(tree, name="early", active=nobody, inputs=(1,), output=2),
            replace(tree, name="late", inputs=(0,), output=3),
            replace(send, name="answer", inputs=(3,), output=4),
            replace(work, name="second", inputs=(4,), output=5),
        )
        block = replace(schedule.blocks[0], num_slots=6, stages=stages)
        with pytest.raises(DeadlockError) as caught:
            run_event(replace(schedule, blocks=(block,)))
        assert str(caught.value).startswith("deadlock: no event is left but the step is not finished; waiting:\n")
        assert str(caught.value).count("\n") == len(caught.value.waiting)
        return caught.value.waiting

    def test_every_pe_is_listed(self):
        lines = self.listing(3)
        assert [line for line in lines if line.startswith("PE ")] == [
            f"PE {pe} waits in second for answer" for pe in range(3)
        ]

    def test_the_message_is_listed(self):
        assert any(line.startswith("answer waits for ") for line in self.listing())

    def test_the_reductions_are_listed(self):
        lines = self.listing()
        assert any(line.startswith("early waits for ") for line in lines), lines
        assert any(line.startswith("late waits for ") for line in lines), lines


knobs = st.fixed_dictionaries(
    {
        "overlap": st.integers(0, 2),
        "arity": st.integers(2, 4),
        "request": st.integers(0, 5),
        "downlink": st.booleans(),
        "burst": st.sampled_from([None, 48]),
        "gather": st.sampled_from(["serial", "by_reduction", "best"]),
        "scatter": st.sampled_from(["serial", "by_reduction", "best"]),
    }
)
situations = st.tuples(models, steps, st.sampled_from(NAMED_WORKFLOWS), st.integers(1, 14), knobs)


@given_in_both(15, 60, situations, suppress=[HealthCheck.too_slow])
def test_invariants_of_any_step(situation):
    model, step, workflow, num_pes, knob = situation
    array = small_array(num_pes, **knob)
    trace = run_event(schedule_of(model, array, step, workflow))
    check_channels(trace, array)
    check_pes_in_order(trace, num_pes)
    check_inputs(trace)
    check_bounds(trace, model, array, step, workflow)


def check_channels(trace, array):
    """No two messages on the bus at once; busy = Σ(ω per burst + beats) and Σ beats."""
    bus = bus_uses(trace)
    assert no_overlap(use[:2] for use in bus)
    assert all(end - start == 2 + ceil(b, 64) for start, end, _, b in bus)
    for channel in ("tree", "downlink"):
        assert all(end - start == ceil(b, 64) for start, end, _, b in bus_uses(trace, channel))
    use = trace.channel_use
    for index, tag in enumerate(use.tags):
        mine = use.tag == index
        counted = trace.traffic.get(tag)
        assert int((use.end - use.start)[mine].sum()) == (counted.busy_cycles if counted else 0)
        assert int(use.num_bytes[mine].sum()) == (counted.bytes if counted else 0)
        if array.network.bus.burst_bytes is None:
            assert int(mine.sum()) == (counted.messages if counted else 0)
    assert not use.end.size or int(use.end.max()) <= trace.makespan_cycles


def check_pes_in_order(trace, num_pes):
    """One operator at a time, in program order."""
    for pe in range(num_pes):
        free = 0
        for span in trace.spans:
            if span.pe_start is not None and span.pe_start[pe] != NOT_ACTIVE:
                assert int(span.pe_start[pe]) >= free
                free = int(span.pe_end[pe])
        assert free <= trace.makespan_cycles


def first_work(span):
    """When a stage first does something: entries of no length only pass a term on."""
    if span.pe_start is None:
        return span.start
    works = span.pe_end > span.pe_start
    return int(span.pe_start[works].min()) if works.any() else None


def check_inputs(trace):
    """Nothing starts before what it reads is there."""
    for span in trace.spans:
        begin = first_work(span)
        for order in span.inputs:
            assert order < span.order
            source = trace.spans[order]
            if source.start == NOT_ACTIVE or begin in (None, NOT_ACTIVE):
                continue
            if source.pe_start is None:
                one_message = source.resource == "bus" and source.name.startswith("broadcast")
                assert begin >= (source.end if one_message and "scores" not in source.name else source.start)
            elif span.pe_start is None:
                assert begin >= int(source.pe_end[source.pe_start != NOT_ACTIVE].min())
            else:
                both = (span.pe_start != NOT_ACTIVE) & (source.pe_start != NOT_ACTIVE)
                assert (span.pe_start[both] >= source.pe_end[both]).all()


def check_bounds(trace, model, array, step, workflow):
    """No latency is below what any one resource has to do, nor below the roofline of the same work."""
    latency = trace.makespan_cycles
    assert latency == max(span.end for span in trace.spans)
    for name in ("pe_matrix", "pe_vector", "pe_memory"):
        assert latency >= int(trace.pe_busy[name].max())
    for busy in trace.root_busy.values():
        assert latency >= busy
    assert latency >= sum(end - start for start, end, _, _ in bus_uses(trace))
    graph = placed_step(model, array, step, workflow).graph
    matrices = {"q", "k", "v", "o", "gate", "up", "down", "lm_head", "scores", "values"}
    operators = [operator for _, operator in graph.instances() if operator.name in matrices]
    macs = array.num_pes * array.pe.matrix.outputs * array.pe.matrix.depth
    assert latency >= sum(operator.flops for operator in operators) / (2 * macs)
    weights = sum(operator.weight_bytes(array.dtypes) for operator in operators)
    assert latency >= weights / (array.num_pes * array.pe.memory.bytes_per_cycle)


@given_in_both(8, 25, situations)
def test_double_buffering_is_never_slower_on_one_pe(situation):
    """The fill is at most the shorter of memory and compute, and one PE has no order that could change."""
    model, step, workflow, _, knob = situation
    none, inside = (
        run_event(schedule_of(model, small_array(1, **{**knob, "overlap": level}), step, workflow)).makespan_cycles
        for level in (0, 1)
    )
    assert inside <= none
