"""The program of a step on arrays that are joined by links: passes and exchanges; and its checks before a run.

The semantics, one level above the machine model:

- An array works on one pass at a time, in program order. A pass begins when everything it waits for is done and the
  array's pass before it is, and takes as long as it does alone, from an idle array on.
- An exchange (a message, or a collective among some arrays) moves over the links as one. It is ready when everything it
  waits for is done. Exchanges are served in the order in which they are ready, ties in program order: each begins as
  soon as every channel it uses will be free by the time it uses it, and is done when the last of its values is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pe_sim.config.systems.system import SystemConfig
from pe_sim.network.routing.hops import Program
from pe_sim.units import IntArray


@dataclass(frozen=True, eq=False, slots=True)
class LinkLeg:
    """One program of hops over the links with its payloads; legs of an exchange follow one another.

    Args:
        program: its senders and targets are members of the exchange.
        payload_bytes: (payloads,) bytes of the payloads that messages carry.
        counted: messages and bytes under each tag, as section 9 of the machine model counts them.
    """

    program: Program
    payload_bytes: IntArray
    counted: tuple[tuple[str, int, int], ...]


@dataclass(frozen=True, eq=False, slots=True)
class LinkOperation:
    """An exchange that moves over the links as one, and its times when nothing else runs.

    Args:
        name: its name in reports: all-reduce o.
        algorithm: the name of the way in which it is done.
        members: arrays that take part.
        legs: in order; a member's part of a leg begins when its part of the leg before is done.
        channels: (used,) channels it uses, each once.
        first_cycles, last_cycles: (used,) from its begin to the first grant and the last release of each.
        busy_cycles: (used,) cycles that each is occupied in all.
        cycles: from its begin until the last of its values is there.
    """

    name: str
    algorithm: str
    members: tuple[int, ...]
    legs: tuple[LinkLeg, ...]
    channels: IntArray
    first_cycles: IntArray
    last_cycles: IntArray
    busy_cycles: IntArray
    cycles: int

    @property
    def uses(self) -> list[tuple[int, int, int]]:
        """The channels it uses, each with the cycles from its begin to the first grant and the last release."""
        columns = (self.channels, self.first_cycles, self.last_cycles)
        return list(zip(*(column.tolist() for column in columns), strict=True))


@dataclass(frozen=True, slots=True)
class ArrayPass:
    """A pass on one array.

    Args:
        array: rank of the array.
        work: index of the work that it does; the cycles of each are given where a program is run.
        after: indices of the tasks it waits for, beside the array's pass before it.
        label: its name in reports.
        stage, pipeline, microbatch: those it belongs to.
    """

    array: int
    work: int
    after: tuple[int, ...]
    label: str
    pipeline: int = 0
    stage: int = 0
    microbatch: int = 0


@dataclass(frozen=True, slots=True)
class LinkTask:
    """An exchange over the links.

    Args:
        operation: index of its operation.
        after: indices of the tasks it waits for.
        pipeline, stage, microbatch: those it belongs to.
    """

    operation: int
    after: tuple[int, ...]
    pipeline: int = 0
    stage: int = 0
    microbatch: int = 0


Task = ArrayPass | LinkTask


@dataclass(frozen=True, eq=False, slots=True)
class SystemProgram:
    """All tasks of a step in program order; a task waits for earlier ones alone.

    Args:
        system: the arrays and links.
        tasks: in program order, which is the order of each array's passes.
        operations: the operations of link tasks.
    """

    system: SystemConfig
    tasks: tuple[Task, ...]
    operations: tuple[LinkOperation, ...]


@dataclass(frozen=True, eq=False, slots=True)
class SystemTimes:
    """Times at which every task of a program began and was done.

    Args:
        start, end: (tasks,) cycles.
        engine: name of the engine that found them.
    """

    start: IntArray
    end: IntArray
    engine: str

    @property
    def makespan_cycles(self) -> int:
        """Cycle of the last event."""
        return int(self.end.max(initial=0))


# ---- Checks of a program and the order of its tasks, for both engines of a system.


def checked_cycles(program: SystemProgram, pass_cycles: Sequence[int]) -> list[int]:
    """(tasks,) cycles of each pass, and of each exchange alone, after a check of the program.

    Args:
        program: the program that is to be run.
        pass_cycles: cycles of each work.

    Raises:
        ValueError: a task waits for itself or a later one, which could never end, or names what does not exist.
    """
    durations = [int(cycles) for cycles in pass_cycles]
    if min(durations, default=0) < 0:
        raise ValueError(f"a pass takes {min(durations)} cycles")
    cycles = []
    for index, task in enumerate(program.tasks):
        if task.after and not 0 <= min(task.after) <= max(task.after) < index:
            raise ValueError(f"task {index} waits for {list(task.after)}, which are not all tasks before it")
        if isinstance(task, ArrayPass):
            if not (0 <= task.array < program.system.num_arrays and 0 <= task.work < len(durations)):
                raise ValueError(f"task {index} is work {task.work} on array {task.array}, and there is no such")
            cycles.append(durations[task.work])
        else:
            if not 0 <= task.operation < len(program.operations):
                raise ValueError(f"task {index} is operation {task.operation}, and there is no such")
            cycles.append(program.operations[task.operation].cycles)
    return cycles


def waits_for(program: SystemProgram) -> list[tuple[int, ...]]:
    """(tasks,) indices of the tasks that each waits for, its array's pass before it among them."""
    latest: dict[int, int] = {}
    found: list[tuple[int, ...]] = []
    for index, task in enumerate(program.tasks):
        after = task.after
        if isinstance(task, ArrayPass):
            before = latest.get(task.array)
            if before is not None:
                after = (*after, before)
            latest[task.array] = index
        found.append(after)
    return found
