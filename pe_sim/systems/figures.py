"""Figures of a run that the search goes by."""

from __future__ import annotations

from collections import Counter

import numpy as np

from pe_sim.config.step import Decode
from pe_sim.schedule.system import ArrayPass
from pe_sim.systems.simulation import SystemRun


def period_cycles(run: SystemRun) -> int:
    """What no step takes less than where alike steps follow one another, in cycles.

    An array has the passes of each step to do, and a channel its messages. In decode a part's next token needs this
    one, so that the part's way through all stages counts, too; prompts of different steps need nothing of each other.
    """
    program, start, end = run.timed.program, run.times.start, run.times.end
    busy: Counter[int] = Counter()
    ways: dict[tuple[int, int], tuple[int, int]] = {}
    channels: dict[int, int] = {}
    for at, task in enumerate(program.tasks):
        first, last = int(start[at]), int(end[at])
        if isinstance(task, ArrayPass):
            busy[task.array] += last - first
            key = (task.pipeline, task.microbatch)
            begun, done = ways.get(key, (first, last))
            ways[key] = min(begun, first), max(done, last)
        else:
            channels[task.operation] = channels.get(task.operation, 0) + 1
    needs = [max(busy.values(), default=0), _busiest_channel(run, channels)]
    if isinstance(run.timed.script.step, Decode):
        needs.append(max((done - begun for begun, done in ways.values()), default=0))
    return max(needs)


def _busiest_channel(run: SystemRun, times: dict[int, int]) -> int:
    operations = [(run.timed.program.operations[index], count) for index, count in times.items()]
    if not operations:
        return 0
    size = 1 + max(int(operation.channels.max(initial=0)) for operation, _ in operations)
    busy = np.zeros(size, dtype=np.int64)
    for operation, count in operations:
        np.add.at(busy, operation.channels, count * operation.busy_cycles)
    return int(busy.max(initial=0))
