"""A resource that serves one request at a time (machine model, section 2)."""

from __future__ import annotations

from collections.abc import Callable

from simpy import Environment

from pe_sim.engine.arbiters import ARBITERS, FIFO, Request
from pe_sim.engine.late import AFTER_ALL, call_at


class Server:
    """Non-preemptive, work-conserving; decides at the end of a cycle, when all its requests are known."""

    def __init__(self, env: Environment, arbitration: str = FIFO) -> None:
        self._env = env
        self._waiting = ARBITERS[arbitration]()
        self._free_at = 0
        self._deciding = False
        self._arrived = 0
        self.busy_cycles = 0

    def request(self, order: int, rank: int, busy_cycles: int, granted: Callable[[int], None], index: int = 0) -> None:
        """Asks now for `busy_cycles`; `granted` is called with the grant's cycle, in that cycle."""
        self._arrived += 1
        self._waiting.add(Request(int(self._env.now), order, rank, index, self._arrived, busy_cycles, granted))
        self._decide_later()

    def _decide_later(self) -> None:
        if not self._deciding:
            self._deciding = True
            call_at(self._env, max(int(self._env.now), self._free_at), self._grant, AFTER_ALL)

    def _grant(self) -> None:
        self._deciding = False
        request = self._waiting.take()
        now = int(self._env.now)
        self._free_at = now + request.busy_cycles
        self.busy_cycles += request.busy_cycles
        if len(self._waiting):
            self._decide_later()
        request.granted(now)
