"""The reference for systems: arrays are SimPy processes, and every hop of an exchange contends for its channel."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Generator, Sequence
from functools import partial
from math import inf
from typing import Any, Final

import numpy as np
from simpy import Environment, Event
from simpy.events import EventPriority

from pe_sim.engine.late import AFTER_ALL, call_at, when_all
from pe_sim.engine.system_hops import LegPlan, LinkServers, OperationRun, plan_legs, run_alone
from pe_sim.engine.system_program import checked_cycles
from pe_sim.errors import DeadlockError
from pe_sim.network.interconnect import links_of
from pe_sim.schedule.system import ArrayPass, LinkTask, SystemProgram, SystemTimes

_AFTER_SERVERS: Final = EventPriority(AFTER_ALL + 1)  # by then all exchanges of a cycle are known

_Call = Callable[[], None]


def run_system_event(program: SystemProgram, pass_cycles: Sequence[int]) -> SystemTimes:
    """Simulates a system's step event by event; as `run_system_fast`, by other means.

    Raises:
        ValueError: a task waits for itself or a later one, or names what does not exist.
        DeadlockError: no event is left before the last task is done.
        RuntimeError: an exchange does not take what its operation says, or hops of two of them get in each other's way.
    """
    return _SystemRun(program, checked_cycles(program, pass_cycles)).run()


class _SystemRun:
    """One simulation of one program."""

    def __init__(self, program: SystemProgram, cycles: list[int]) -> None:
        self._program, self._cycles, self.env = program, cycles, Environment()
        self._done = [self.env.event() for _ in program.tasks]
        self._start, self._end = ([-1] * len(program.tasks) for _ in range(2))
        self._links = _Arbiter(self.env, program)

    def run(self) -> SystemTimes:
        """Starts the arrays and goes on to the last event."""
        passes: dict[int, list[int]] = {}
        for index, task in enumerate(self._program.tasks):
            if isinstance(task, ArrayPass):
                passes.setdefault(task.array, []).append(index)
            else:
                begun, ended = partial(self._begin, index), partial(self._finish, index)
                ask = partial(self._links.ask, index, task.operation, begun, ended)
                when_all([self._done[other] for other in task.after], ask)
        for indices in passes.values():
            self.env.process(self._work(indices))
        while min(self._end, default=0) < 0:
            if self.env.peek() == inf:
                raise DeadlockError(self._waiting())
            self.env.step()
        return SystemTimes(np.array(self._start, dtype=np.int64), np.array(self._end, dtype=np.int64), "event")

    def _work(self, indices: list[int]) -> Generator[Event, Any, None]:
        """An array's process: one pass at a time, in program order."""
        for index in indices:
            for other in self._program.tasks[index].after:
                if self._done[other].callbacks is not None:
                    yield self._done[other]
            self._begin(index)
            if self._cycles[index]:
                yield self.env.timeout(self._cycles[index])
            self._finish(index)

    def _begin(self, index: int) -> None:
        self._start[index] = int(self.env.now)

    def _finish(self, index: int) -> None:
        self._end[index] = int(self.env.now)
        self._done[index].succeed()

    def _waiting(self) -> list[str]:
        """Who waits for what, a line each."""
        return [
            f"task {index} waits for {[other for other in task.after if self._end[other] < 0]}"
            for index, task in enumerate(self._program.tasks)
            if self._end[index] < 0
        ]


class _Arbiter:
    """Lets exchanges onto the links in the order in which they are ready, ties in program order."""

    def __init__(self, env: Environment, program: SystemProgram) -> None:
        self._env, self._operations = env, program.operations
        self._waiting: list[tuple[int, int, _Call, _Call]] = []  # of this cycle
        self._deciding = False
        self._served = 0
        self._free_at: dict[int, int] = {}
        used = any(isinstance(task, LinkTask) for task in program.tasks) and program.system.links is not None
        self._servers = LinkServers(env, links_of(program.system).topology.channels) if used else None
        self._plans: dict[int, tuple[list[LegPlan], list[list[int]]]] = {}

    def ask(self, index: int, operation: int, begun: _Call, ended: _Call) -> None:
        """An exchange is ready now."""
        heapq.heappush(self._waiting, (index, operation, begun, ended))
        self._decide_later()

    def _decide_later(self) -> None:
        if not self._deciding:
            self._deciding = True
            call_at(self._env, int(self._env.now), self._serve, _AFTER_SERVERS)

    def _serve(self) -> None:
        """The first one by program order; then, when all that it makes ready at once is known, the next one."""
        self._deciding = False
        _, number, begun, ended = heapq.heappop(self._waiting)
        if self._waiting:
            self._decide_later()
        operation, now = self._operations[number], int(self._env.now)
        uses = operation.uses
        begin = max([now, *(self._free_at.get(channel, 0) - first for channel, first, _ in uses)])
        self._free_at.update({channel: begin + last for channel, _, last in uses})
        call_at(self._env, begin, partial(self._start, number, self._served, begun, ended))
        self._served += 1

    def _start(self, number: int, order: int, begun: _Call, ended: _Call) -> None:
        operation, begin = self._operations[number], int(self._env.now)
        begun()
        if not operation.legs or self._servers is None:
            call_at(self._env, begin + operation.cycles, ended)
            return
        plans, alone = self._plan(number)

        def finish(end: int) -> None:
            if end != begin + operation.cycles:
                raise RuntimeError(
                    f"internal fault: {operation.name} took {end - begin} cycles, not {operation.cycles}"
                )
            ended()

        OperationRun(self._servers, operation, plans, order, finish, alone).start()

    def _plan(self, number: int) -> tuple[list[LegPlan], list[list[int]]]:
        """What an operation does, and what it does alone; kept."""
        if number not in self._plans:
            assert self._servers is not None
            operation, channels = self._operations[number], self._servers.channels
            plans = plan_legs(operation, channels)
            self._plans[number] = plans, run_alone(operation, plans, channels)
        return self._plans[number]
