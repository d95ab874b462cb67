"""A resource that serves one request at a time, first come first served (machine model, section 2)."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field

from simpy import Environment

from pe_sim.engine.late import AFTER_ALL, call_at


@dataclass(order=True, slots=True)
class _Request:
    """Ordered by arrival; ties go to the earlier operator in program order, then root, then the lower PE.

    The root's own messages of one operator go in the order of their receivers (`index`).
    """

    arrival: int
    order: int
    rank: int
    index: int
    sequence: int
    busy_cycles: int = field(compare=False)
    granted: Callable[[int], None] = field(compare=False)


class Server:
    """Non-preemptive, work-conserving; decides at the end of a cycle, when all its requests are known."""

    def __init__(self, env: Environment) -> None:
        self._env = env
        self._waiting: list[_Request] = []
        self._free_at = 0
        self._deciding = False
        self._arrived = 0
        self.busy_cycles = 0

    def request(self, order: int, rank: int, busy_cycles: int, granted: Callable[[int], None], index: int = 0) -> None:
        """Asks now for `busy_cycles`; `granted` is called with the grant's cycle, in that cycle."""
        self._arrived += 1
        request = _Request(int(self._env.now), order, rank, index, self._arrived, busy_cycles, granted)
        heapq.heappush(self._waiting, request)
        self._decide_later()

    def _decide_later(self) -> None:
        if not self._deciding:
            self._deciding = True
            call_at(self._env, max(int(self._env.now), self._free_at), self._grant, AFTER_ALL)

    def _grant(self) -> None:
        self._deciding = False
        request = heapq.heappop(self._waiting)
        now = int(self._env.now)
        self._free_at = now + request.busy_cycles
        self.busy_cycles += request.busy_cycles
        if self._waiting:
            self._decide_later()
        request.granted(now)
