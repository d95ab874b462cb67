"""The registry of engines for systems, which give the times of passes and exchanges; and the fast engine."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence

import numpy as np

from pe_sim.engine.engines import DEFAULT_ENGINE, named_in
from pe_sim.schedule.system import (
    LinkOperation,
    LinkTask,
    SystemProgram,
    SystemTimes,
    checked_cycles,
    waits_for,
)

SystemEngine = Callable[[SystemProgram, Sequence[int]], SystemTimes]


def event(program: SystemProgram, pass_cycles: Sequence[int]) -> SystemTimes:
    """Times by the reference engine, event by event on SimPy, hop by hop over the links."""
    from pe_sim.engine.system_event import run_system_event  # loads SimPy

    return run_system_event(program, pass_cycles)


def fast(program: SystemProgram, pass_cycles: Sequence[int]) -> SystemTimes:
    """Times by the fast engine: the same cycles, in one pass over the tasks."""

    return run_system_fast(program, pass_cycles)


SYSTEM_ENGINES: dict[str, SystemEngine] = {"event": event, "fast": fast}


def system_engine_named(name: str = DEFAULT_ENGINE) -> SystemEngine:
    """The engine called `name`.

    Raises:
        InputError: there is none of that name.
    """
    return named_in(SYSTEM_ENGINES, name)


# ---- The step of a system by one pass over its tasks, in the order in which they are ready.


_Use = tuple[int, int, int]  # a channel, and the cycles from an operation's begin to its first grant and last release


def run_system_fast(program: SystemProgram, pass_cycles: Sequence[int]) -> SystemTimes:
    """Times at which every task begins and is done, by the rules of `schedule.system`.

    Tasks are taken by (cycle in which they are ready, index). A task waits only for earlier ones, so that tasks that it
    makes ready come after it in that order, even if it takes no cycles.

    Args:
        program: the tasks of the step.
        pass_cycles: cycles of each work, alone on its array.

    Raises:
        ValueError: a task waits for itself or a later one, or names what does not exist.
    """
    cycles, before = checked_cycles(program, pass_cycles), waits_for(program)
    uses = _channel_uses(program.operations)
    operation_of = [task.operation if isinstance(task, LinkTask) else -1 for task in program.tasks]
    followers: list[list[int]] = [[] for _ in before]
    for index, awaited in enumerate(before):
        for other in awaited:
            followers[other].append(index)
    missing = [len(awaited) for awaited in before]
    ready_at, start, end = ([0] * len(before) for _ in range(3))
    free_at: dict[int, int] = {}
    waiting = [(0, index) for index, count in enumerate(missing) if not count]
    while waiting:
        ready, index = heapq.heappop(waiting)
        operation = operation_of[index]
        begin = ready if operation < 0 else _begin(uses[operation], ready, free_at)
        done = begin + cycles[index]
        start[index], end[index] = begin, done
        for follower in followers[index]:
            ready_at[follower] = max(ready_at[follower], done)
            missing[follower] -= 1
            if not missing[follower]:
                heapq.heappush(waiting, (ready_at[follower], follower))
    return SystemTimes(np.array(start, dtype=np.int64), np.array(end, dtype=np.int64), "fast")


def _begin(uses: list[_Use], ready: int, free_at: dict[int, int]) -> int:
    """The first cycle from `ready` on in which an operation can begin, as its channels are free in time; takes them."""
    begin = ready
    for channel, first, _ in uses:
        earliest = free_at.get(channel, 0) - first
        if earliest > begin:
            begin = earliest
    for channel, _, last in uses:
        free_at[channel] = begin + last
    return begin


def _channel_uses(operations: Sequence[LinkOperation]) -> list[list[_Use]]:
    """The channels of each operation; channels that all operations use in the same cycles are merged into one."""
    by_channel: dict[int, list[tuple[int, int, int]]] = {}
    for index, operation in enumerate(operations):
        for channel, first, last in operation.uses:
            by_channel.setdefault(channel, []).append((index, first, last))
    found: list[list[_Use]] = [[] for _ in operations]
    for number, alike in enumerate(dict.fromkeys(tuple(uses) for uses in by_channel.values())):
        for index, first, last in alike:
            found[index].append((number, first, last))
    return found
