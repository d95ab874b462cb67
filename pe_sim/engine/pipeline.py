"""The joints of a tree: whoever passes them does so in program order (machine model, section 3)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pe_sim.units import BoolArray, IntArray


@dataclass(slots=True, eq=False)
class Passage:
    """One message through the lowest `levels` levels of joints above leaves first .. last - 1.

    Nothing is stored in a joint but its pipeline, so all joints of a passage start together, shifted by the hops:
    the links are the same for all passages, `combine_cycles` a joint need not be. With no levels, as down a tree, only
    the order of entry counts.
    """

    first: int
    last: int
    beats: int
    started: Callable[[int], None]
    levels: int = 0
    combine_cycles: int = 0
    ready_at: int | None = None
    has_started: bool = False


class TreePipeline:
    """Starts passages in program order; they enter and leave the joints they share `beats` cycles apart.

    Joints above the same leaves are tracked per leaf: a passage over an aligned subtree uses all joints inside it,
    so the leaves' free cycles say when its joints are free, the links' cycles left out. Row l is what leaves the
    joints of level l, which is what enters those of level l + 1; row 0 is what the leaves send.
    """

    def __init__(self, num_leaves: int, num_levels: int = 0) -> None:
        self._free_at: IntArray = np.zeros((num_levels + 1, num_leaves), dtype=np.int64)
        self._queues: list[deque[Passage]] = [deque() for _ in range(num_leaves)]
        self.busy_cycles = 0

    def announce(self, passage: Passage) -> None:
        """Takes a place in program order; to be called once for each passage, in that order."""
        for leaf in range(passage.first, passage.last):
            self._queues[leaf].append(passage)

    def ready(self, passage: Passage, now: int) -> None:
        """Says that all of the passage's data is there at `now`; starts it and those it was holding up."""
        passage.ready_at = now
        candidates = [passage]
        while candidates:
            candidate = candidates.pop()
            if candidate.ready_at is not None and self._is_first(candidate):
                candidates.extend(self._start(candidate, now))

    def _is_first(self, passage: Passage) -> bool:
        queues = self._queues[passage.first : passage.last]
        return all(queue and queue[0] is passage for queue in queues)  # empty: it has started already

    def _start(self, passage: Passage, now: int) -> list[Passage]:
        """Starts a passage; returns those that come next at its joints."""
        joints = self._free_at[: passage.levels + 1, passage.first : passage.last]
        shift = passage.combine_cycles * np.arange(len(joints), dtype=np.int64)
        start = max(now, int((joints.max(axis=1) - shift).max()))
        joints[:] = (start + passage.beats + shift)[:, None]
        passage.has_started = True
        self.busy_cycles += passage.beats
        following: dict[int, Passage] = {}
        for leaf in range(passage.first, passage.last):
            queue = self._queues[leaf]
            queue.popleft()
            if queue:
                following[id(queue[0])] = queue[0]
        passage.started(start)
        return list(following.values())

    def held_up(self) -> BoolArray:
        """(leaves,) where a passage still waits."""
        return np.array([bool(queue) for queue in self._queues])
