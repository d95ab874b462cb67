"""What both engines of a system ask of a program before they run it."""

from __future__ import annotations

from collections.abc import Sequence

from pe_sim.schedule.system import ArrayPass, SystemProgram


def checked_cycles(program: SystemProgram, pass_cycles: Sequence[int]) -> list[int]:
    """(tasks,) cycles of each pass, and of each exchange alone.

    Args:
        program: that is to be run.
        pass_cycles: of each work.

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
    """(tasks,) tasks that each waits for, its array's pass before it among them."""
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
