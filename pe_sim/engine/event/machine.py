"""Resources of the event engine: servers of one request at a time, joints in program order, calls at later cycles."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
from simpy import Environment, Event
from simpy.events import NORMAL, EventPriority

from pe_sim.engine.arbiters import ARBITERS, FIFO, Request
from pe_sim.engine.event.recorder import Recorder
from pe_sim.schedule.stages import Resource
from pe_sim.units import BoolArray, IntArray

# ---- A resource that serves one request at a time (machine model, section 2).


class Server:
    """A server of one request at a time, non-preemptive and work-conserving.

    Requests arrive at the end of a cycle, when all that ask in it are known.

    They come one by one, over all servers of an environment in the order of ties. What a grant brings about in the same
    cycle (over a channel without latency) comes in that order too, among those that have not come yet.
    """

    def __init__(self, env: Environment, arbitration: str = FIFO) -> None:
        self._env = env
        self._waiting = ARBITERS[arbitration]()
        self._as_they_come = arbitration == FIFO  # others choose among all that come in a cycle
        self._free_at = 0
        self._deciding = False
        self._arrived = 0
        self.busy_cycles = 0

    def request(self, order: int, rank: int, busy_cycles: int, granted: Callable[[int], None], index: int = 0) -> None:
        """Asks now to be served for `busy_cycles`; `granted` is called with the grant's cycle, in that cycle."""
        arrive = partial(self._arrive, rank, busy_cycles, granted)
        call_at(self._env, int(self._env.now), arrive, turn_of(order, rank, index))

    def _arrive(self, rank: int, busy_cycles: int, granted: Callable[[int], None]) -> None:
        self._arrived += 1
        self._waiting.add(Request(self._arrived, rank, busy_cycles, granted))
        if self._deciding:
            return
        if self._as_they_come and self._free_at <= self._env.now:
            self._grant()
        else:
            self._decide_later()

    def _decide_later(self) -> None:
        self._deciding = True
        cycle = max(int(self._env.now), self._free_at)
        call_at(self._env, cycle, self._grant, NORMAL if self._as_they_come else AFTER_ALL)

    def _grant(self) -> None:
        self._deciding = False
        request = self._waiting.take()
        now = int(self._env.now)
        self._free_at = now + request.busy_cycles
        self.busy_cycles += request.busy_cycles
        if len(self._waiting):
            self._decide_later()
        request.granted(now)


# ---- Calls at a later cycle, before or after everything else that happens in that cycle.


AFTER_ALL = EventPriority(1 << 256)  # when every request of its cycle has arrived


def turn_of(order: int, rank: int, index: int) -> EventPriority:
    """Priority of a request's arrival within its cycle: after all else, by operator, rank (from -1 on) and index."""
    return EventPriority(NORMAL + 1 + (order << 128) + (rank + 1 << 64) + index)


def call_at(env: Environment, cycle: int, action: Callable[[], None], priority: EventPriority = NORMAL) -> None:
    """Runs `action` at `cycle` (not before now)."""
    event = Event(env)
    event._ok = True
    event._value = None
    assert event.callbacks is not None
    event.callbacks.append(lambda _: action())
    env.schedule(event, priority, cycle - int(env.now))


def when_all(events: list[Event], action: Callable[[], None]) -> None:
    """Runs `action` in the cycle in which the last of `events` happens."""
    remaining = len(events)

    def one_done(_: Event) -> None:
        nonlocal remaining
        remaining -= 1
        if remaining == 0:
            action()

    for event in events:
        if event.callbacks is None:
            remaining -= 1
        else:
            event.callbacks.append(one_done)
    if remaining == 0:
        action()


# ---- The joints of a tree, which messages pass in program order (machine model, section 3).


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
        """Gives a passage its place in program order; to be called once for each passage, in that order."""
        for leaf in range(passage.first, passage.last):
            self._queues[leaf].append(passage)

    def ready(self, passage: Passage, now: int) -> None:
        """Says that all of the passage's data is there at `now`; starts it, if it is its turn, and those it held up."""
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
        """(leaves,) whether a passage above each leaf still waits."""
        return np.array([bool(queue) for queue in self._queues])


class Machine(Protocol):
    """Interface of a simulated machine: the resources that messages contend for, and the recorder of the run."""

    env: Environment
    bus: Server
    tree: TreePipeline
    downlink: TreePipeline
    root: dict[Resource, Server]
    recorder: Recorder

    def channel(self, index: int) -> Server:
        """The server of a channel of an interconnect that is a graph."""
        ...

    def expect(self, count: int = 1) -> Callable[[], None]:
        """Announces `count` things that have to finish; returns the function to call when one of them does."""
        ...
