"""The two engines of systems agree to the cycle on every task; and both with closed forms and a walk through cycles."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import strategies as st

from pe_sim.config.systems.load import load_system
from pe_sim.config.systems.system import SystemConfig
from pe_sim.engine.system_engines import SYSTEM_ENGINES, run_system_fast, system_engine_named
from pe_sim.engine.system_event import run_system_event
from pe_sim.errors import InputError
from pe_sim.schedule.link_ops import all_gather, all_reduce, messages, reduce_scatter, reduce_to
from pe_sim.schedule.system import ArrayPass, LinkOperation, LinkTask, SystemProgram
from tests.helpers import given_in_both

LINK = {"bytes_per_cycle": 4, "latency_cycles": 3, "overhead_cycles": 2}


@cache
def system(kind: str, count: int) -> SystemConfig:
    return load_system(
        {
            "schema_version": 1,
            "arrays": [{"array": "bus-tree-64", "count": count}],
            "links": {"kind": kind, "link": LINK},
            "floorplan": {"array_pitch_mm": 50.0, "mm_per_cycle": 10.0},
        }
    )


def program(over: SystemConfig, tasks, operations=()) -> SystemProgram:
    return SystemProgram(over, tuple(tasks), tuple(operations))


def transfer(over: SystemConfig, source: int, target: int, num_bytes: int) -> LinkOperation:
    operation = messages(over, [(source, target, num_bytes)], f"{source} to {target}")
    assert operation is not None
    return operation


def both(ran: SystemProgram, pass_cycles):
    """The times, if the engines agree on them."""
    fast, event = run_system_fast(ran, pass_cycles), run_system_event(ran, pass_cycles)
    assert fast.engine == "fast"
    assert event.engine == "event"
    np.testing.assert_array_equal(fast.start, event.start)
    np.testing.assert_array_equal(fast.end, event.end)
    return fast


# ------------------------------------------------------------------------------------------------- any program at all
KINDS = (("ring", 5), ("ring", 8), ("mesh", 6), ("mesh", 9), ("crossbar", 4), ("hypercube", 8), ("h_tree", 6))


@st.composite
def operations_of(draw, over: SystemConfig) -> LinkOperation:
    ranks = st.integers(0, over.num_arrays - 1)
    members = draw(st.lists(ranks, min_size=2, max_size=over.num_arrays, unique=True))
    num_bytes = draw(st.integers(1, 200))
    parts = [draw(st.integers(0, 60)) for _ in members]
    parts[0] += 1
    match draw(st.integers(0, 4)):
        case 0:
            made = all_reduce(over, members, num_bytes, draw(st.integers(0, num_bytes)), "all-reduce")
        case 1:
            made = all_gather(over, members, parts, "all-gather")
        case 2:
            made = reduce_scatter(over, members, parts, "reduce-scatter", draw(st.booleans()))
        case 3:
            made = reduce_to(over, members, draw(ranks), num_bytes, "reduce")
        case _:
            sent = draw(st.lists(st.tuples(ranks, ranks, st.integers(0, 90)), max_size=6))
            made = messages(over, [*sent, (members[0], members[1], 7)], "messages")
    assert made is not None
    return made


@st.composite
def programs(draw):
    over = system(*draw(st.sampled_from(KINDS)))
    operations = [draw(operations_of(over)) for _ in range(draw(st.integers(1, 4)))]
    operations.append(NOTHING)
    pass_cycles = draw(st.lists(st.integers(0, 40), min_size=1, max_size=4))
    tasks: list[ArrayPass | LinkTask] = []
    for index in range(draw(st.integers(1, 25))):
        after = tuple(draw(st.lists(st.integers(0, index - 1), max_size=3))) if index else ()
        if draw(st.booleans()):
            array = draw(st.integers(0, over.num_arrays - 1))
            tasks.append(ArrayPass(array, draw(st.integers(0, len(pass_cycles) - 1)), after, "pass"))
        else:
            tasks.append(LinkTask(draw(st.integers(0, len(operations) - 1)), after))
    return program(over, tasks, operations), pass_cycles


_NONE = np.zeros(0, dtype=np.int64)
NOTHING = LinkOperation("nothing", "none", (), (), _NONE, _NONE, _NONE, _NONE, 0)


def walked(ran: SystemProgram, pass_cycles):
    """(tasks,) starts and ends, found by going through all cycles and all tasks again and again."""
    tasks, start, end, free = ran.tasks, {}, {}, {}
    cycle = 0

    def before(index: int) -> set[int]:
        task = tasks[index]
        own = {
            other
            for other in range(index)
            if isinstance(task, ArrayPass) and isinstance(tasks[other], ArrayPass) and tasks[other].array == task.array
        }
        return own | set(task.after)

    awaited = [before(index) for index in range(len(tasks))]
    while len(end) < len(tasks):
        index = 0
        while index < len(tasks):  # a task that takes no cycles makes ready none before it
            task = tasks[index]
            if index not in end and all(end.get(other, cycle + 1) <= cycle for other in awaited[index]):
                begin, takes = cycle, 0
                if isinstance(task, ArrayPass):
                    takes = pass_cycles[task.work]
                else:
                    used = ran.operations[task.operation]
                    takes = used.cycles
                    uses = list(zip(used.channels, used.first_cycles, used.last_cycles, strict=True))
                    while any(free.get(channel, 0) > begin + first for channel, first, _ in uses):
                        begin += 1
                    free.update({channel: begin + last for channel, _, last in uses})
                start[index], end[index] = begin, begin + takes
            index += 1
        cycle += 1
    return [start[index] for index in range(len(tasks))], [end[index] for index in range(len(tasks))]


@given_in_both(25, 120, programs())
def test_the_engines_agree_and_so_does_a_walk_through_all_cycles(made) -> None:
    ran, pass_cycles = made
    times = both(ran, pass_cycles)
    start, end = walked(ran, pass_cycles)
    assert times.start.tolist() == start
    assert times.end.tolist() == end


# -------------------------------------------------------------------------------------------------------- closed forms
def pipeline(over: SystemConfig, stages: int, microbatches: int, num_bytes: int) -> SystemProgram:
    tasks: list[ArrayPass | LinkTask] = []
    hops = [transfer(over, stage, stage + 1, num_bytes) for stage in range(stages - 1)]
    for microbatch in range(microbatches):
        for stage in range(stages):
            after = (len(tasks) - 1,) if stage else ()
            tasks.append(ArrayPass(stage, 0, after, f"stage {stage}", 0, stage, microbatch))
            if stage + 1 < stages:
                tasks.append(LinkTask(stage, (len(tasks) - 1,), 0, stage, microbatch))
    return program(over, tasks, hops)


@pytest.mark.parametrize(("stages", "microbatches"), [(1, 3), (2, 1), (4, 6), (8, 3)])
@pytest.mark.parametrize("extra", [0, 1, 50])
def test_a_pipeline_of_equal_stages(stages: int, microbatches: int, extra: int) -> None:
    """(P - 1)(t + x) + M t, where a stage takes as long as the transfer behind it or longer."""
    num_bytes = 40
    x = 2 + 3 + 10
    t = x + extra
    ran = pipeline(system("ring", 8), stages, microbatches, num_bytes)
    assert both(ran, [t]).makespan_cycles == (stages - 1) * (t + x) + microbatches * t


def test_a_pipeline_that_waits_for_its_links() -> None:
    """A link is held for overhead and beats, not for the flight: the later transfers are so far apart."""
    ran = pipeline(system("ring", 8), 2, 5, 40)
    held, flight = 2 + 10, 3
    assert both(ran, [1]).makespan_cycles == 1 + 5 * held + flight + 1


def test_exchanges_on_one_channel_go_in_the_order_in_which_they_are_ready() -> None:
    over = system("ring", 8)
    tasks = [
        ArrayPass(0, 0, (), "long"),
        ArrayPass(1, 1, (), "short"),
        LinkTask(0, (0,)),  # ready at 9
        LinkTask(0, (1,)),  # ready at 4
        LinkTask(0, (1,)),  # too, but later in the program
    ]
    times = both(program(over, tasks, [transfer(over, 0, 1, 40)]), [9, 4])
    assert times.start.tolist() == [0, 0, 28, 4, 16]


def test_an_exchange_that_a_pass_of_no_cycles_makes_ready_keeps_its_place() -> None:
    over = system("ring", 8)
    tasks = [
        ArrayPass(0, 0, (), "ten"),
        ArrayPass(1, 1, (0,), "nothing"),
        LinkTask(1, (1,)),  # ready at 10 by way of the pass of no cycles, and by way of an exchange of none
        LinkTask(0, (2,)),
        LinkTask(0, (0,)),
    ]
    times = both(program(over, tasks, [transfer(over, 0, 1, 40), NOTHING]), [10, 0])
    assert times.start.tolist() == [0, 10, 10, 10, 22]


def test_an_exchange_begins_while_its_channels_are_held_if_they_are_free_when_it_comes_to_them() -> None:
    over = system("ring", 8)
    short, long = transfer(over, 2, 3, 40), transfer(over, 0, 3, 40)  # the second comes to 2 -> 3 after two hops
    times = both(program(over, [LinkTask(0, ()), LinkTask(1, ())], [short, long]), [])
    assert times.start.tolist() == [0, 12 - 2 * (2 + 3)]


def test_a_later_exchange_does_not_slip_in_before_one_that_was_served() -> None:
    over = system("ring", 8)
    first, second, third = transfer(over, 0, 1, 400), messages(over, [(0, 1, 4), (4, 5, 4)], "two"), None
    third = transfer(over, 4, 5, 4)
    tasks = [LinkTask(0, ()), LinkTask(1, ()), LinkTask(2, ())]
    times = both(program(over, tasks, [first, second, third]), [])
    assert times.start.tolist() == [0, 102, 105]


def test_one_array_by_itself() -> None:
    over = load_system({"schema_version": 1, "arrays": [{"array": "bus-tree-64"}]})
    times = both(program(over, [ArrayPass(0, 0, (), "a"), ArrayPass(0, 1, (), "b")]), [5, 7])
    assert times.end.tolist() == [5, 12]
    assert both(program(over, []), []).makespan_cycles == 0


# ------------------------------------------------------------------------------------------------------------- refusals
@pytest.mark.parametrize("name", SYSTEM_ENGINES)
@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ([ArrayPass(0, 0, (0,), "itself")], "task 0 waits for [0], which are not all tasks before it"),
        ([ArrayPass(0, 0, (1,), "later"), ArrayPass(1, 0, (), "b")], "task 0 waits for [1]"),
        ([ArrayPass(0, 0, (-1,), "negative")], "task 0 waits for [-1]"),
        ([ArrayPass(9, 0, (), "far")], "task 0 is work 0 on array 9, and there is no such"),
        ([ArrayPass(0, 3, (), "work")], "task 0 is work 3 on array 0, and there is no such"),
        ([LinkTask(2, ())], "task 0 is operation 2, and there is no such"),
    ],
)
def test_programs_that_cannot_run(name: str, tasks, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("[", r"\[").replace("]", r"\]")):
        SYSTEM_ENGINES[name](program(system("ring", 5), tasks), [1])


def test_a_pass_of_less_than_no_cycles() -> None:
    with pytest.raises(ValueError, match="a pass takes -1 cycles"):
        run_system_fast(program(system("ring", 5), []), [3, -1])


@pytest.mark.parametrize("field", ["first_cycles", "last_cycles", "busy_cycles", "cycles"])
def test_the_event_engine_finds_an_operation_that_says_something_else(field: str) -> None:
    over = system("ring", 5)
    wrong = replace(transfer(over, 0, 2, 40), **{field: getattr(transfer(over, 0, 2, 40), field) + 1})
    with pytest.raises(RuntimeError, match="internal fault: 0 to 2 "):
        run_system_event(program(over, [LinkTask(0, ())], [wrong]), [])


def test_the_event_engine_finds_hops_that_wait_for_each_other() -> None:
    """Two operations of which one does not say that it uses a channel, on links that both need."""
    over = system("ring", 5)
    good = transfer(over, 0, 1, 40)
    tasks = [LinkTask(0, ()), LinkTask(0, ())]
    ran = program(over, tasks, [good])
    from pe_sim.engine import system_event

    run = system_event._SystemRun(ran, [good.cycles, good.cycles])
    run._links._free_at = _Forgetful()
    with pytest.raises(RuntimeError, match="got its channel 12 cycles after the begin, and gets it after 0 alone"):
        run.run()


class _Forgetful(dict):
    """Knows of no channel when it is free."""

    def get(self, key, default=None):
        return default


def test_the_registry() -> None:
    assert set(SYSTEM_ENGINES) == {"event", "fast"}
    assert system_engine_named() is SYSTEM_ENGINES["fast"]
    with pytest.raises(InputError, match="did you mean 'event'"):
        system_engine_named("evnt")
