"""A resource that serves one request at a time (machine model, section 2)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from simpy import Environment
from simpy.events import NORMAL

from pe_sim.engine.arbiters import ARBITERS, FIFO, Request
from pe_sim.engine.late import AFTER_ALL, call_at, turn_of


class Server:
    """Non-preemptive, work-conserving; requests come at the end of a cycle, when all that ask in it are known.

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
        """Asks now for `busy_cycles`; `granted` is called with the grant's cycle, in that cycle."""
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
