"""What the stages of a trace consist of: messages, reductions and jobs with their cycles, and how they pass joints."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from pe_sim.schedule.stages import Resource, RootStage
from pe_sim.trace import NOT_ACTIVE
from pe_sim.units import IntArray

NO_ROWS: IntArray = np.empty(0, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Parts:
    """The messages, reductions or jobs of one stage; arrays are (parts,), NOT_ACTIVE where one does not happen.

    Args:
        ready: when it was asked for: the request at the arbiter, the last contribution, the last input at the root.
        grant, release: when it first got its channel or unit, and last left it.
        complete: when its last byte had arrived.
        first_row, last_row: on the bus, rows of the trace's channel uses: its first and last burst.
    """

    ready: IntArray
    grant: IntArray
    release: IntArray
    complete: IntArray
    first_row: IntArray
    last_row: IntArray


@dataclass(frozen=True, slots=True)
class Passages:
    """How the parts of one stage pass joints: over leaves first .. last - 1, the lowest `levels` levels of them."""

    first: IntArray
    last: IntArray
    levels: int
    combine_cycles: int


@dataclass(slots=True)
class Joints:
    """The joints of a tree while its passages are gone through once more: (levels + 1, leaves) as in the engines."""

    free: IntArray
    waiting: Iterator[int]
    starts: dict[int, IntArray] = field(default_factory=dict)

    def passed(self, passages: Passages, ready: IntArray, beats: IntArray) -> IntArray:
        """Starts of one stage's parts: side by side, or one after the other through all joints."""
        starts = np.full(len(ready), NOT_ACTIVE, dtype=np.int64)
        used = np.flatnonzero(beats > 0)
        rows = passages.levels + 1
        shift = passages.combine_cycles * np.arange(rows, dtype=np.int64)[:, None]
        is_whole = bool((passages.last - passages.first == len(self.free[0])).all())
        for parts in np.split(used, len(used)) if is_whole and len(used) else [used]:
            leaves = leaves_of(passages.first[parts], passages.last[parts])
            joints = self.free[:rows, leaves]
            starts[parts] = np.maximum(ready[parts], (joints.max(axis=2) - shift).max(axis=0))
            self.free[:rows, leaves] = (starts[parts] + beats[parts] + shift)[:, :, None]
        return starts


def leaves_of(first: IntArray, last: IntArray) -> IntArray:
    """(parts, leaves of the largest) leaves first .. last - 1 of each part; a smaller one repeats its last."""
    size = int((last - first).max(initial=1))
    leaves: IntArray = np.minimum(first[:, None] + np.arange(size), last[:, None] - 1)
    return leaves


def first_come_first_served(stages: dict[int, RootStage], ready: dict[int, IntArray]) -> dict[int, IntArray]:
    """By stage, (jobs,) starts at the root's units; ties go to the earlier stage, then the earlier job."""
    begun, free = {order: arrivals.copy() for order, arrivals in ready.items()}, dict.fromkeys(Resource, 0)
    worked = [(order, job) for order, stage in stages.items() for job in np.flatnonzero(stage.cycles).tolist()]
    for arrival, order, job in sorted((int(ready[order][job]), order, job) for order, job in worked):
        unit = stages[order].resource
        begun[order][job] = max(arrival, free[unit])
        free[unit] = int(begun[order][job] + stages[order].cycles[job])
    return begun
