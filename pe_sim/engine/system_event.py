"""The reference for systems: arrays are SimPy processes, and every hop of an exchange contends for its channel."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import Any, Final, TypeVar

import numpy as np
from simpy import Environment, Event
from simpy.events import EventPriority

from pe_sim.engine.event.machine import AFTER_ALL, Server, call_at, when_all
from pe_sim.errors import DeadlockError
from pe_sim.network.interconnect import links_of
from pe_sim.network.topology.topology import Channels
from pe_sim.schedule.system import (
    ArrayPass,
    LinkLeg,
    LinkOperation,
    LinkTask,
    SystemProgram,
    SystemTimes,
    checked_cycles,
)
from pe_sim.units import IntArray

_AFTER_SERVERS: Final = EventPriority(AFTER_ALL + 1)  # by then all exchanges of a cycle are known

_Call = Callable[[], None]


def run_system_event(program: SystemProgram, pass_cycles: Sequence[int]) -> SystemTimes:
    """Times at which every task begins and is done, as of `run_system_fast`, but simulated event by event.

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
        """The times of all tasks: starts the arrays and runs on to the last event."""
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
        """The process of an array: it works on one pass at a time, in program order."""
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
        """Lines for an error message: one for each task that is not done, with the tasks it waits for."""
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
        """Says that an exchange is ready now; `begun` and `ended` are called when it begins and is done."""
        heapq.heappush(self._waiting, (index, operation, begun, ended))
        self._decide_later()

    def _decide_later(self) -> None:
        if not self._deciding:
            self._deciding = True
            call_at(self._env, int(self._env.now), self._serve, _AFTER_SERVERS)

    def _serve(self) -> None:
        """Serves the first exchange by program order, and the next one when all that this one makes ready is known."""
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
        """The plans of an operation's legs, and its grants if nothing else runs; kept."""
        if number not in self._plans:
            assert self._servers is not None
            operation, channels = self._operations[number], self._servers.channels
            plans = plan_legs(operation, channels)
            self._plans[number] = plans, run_alone(operation, plans, channels)
        return self._plans[number]


# ---- An exchange over the links event by event: every hop waits for what feeds it, then for its channel.


_TURN_BITS: Final = 32  # legs that come first go first
_NEVER: Final = -1
_T = TypeVar("_T")


class LinkServers:
    """The servers of the channels of a system's links, each made when it is asked for."""

    def __init__(self, env: Environment, channels: Channels) -> None:
        self.env, self.channels = env, channels
        self._servers: dict[int, Server] = {}

    def server(self, channel: int) -> Server:
        """The server of a channel."""
        if channel not in self._servers:
            self._servers[channel] = Server(self.env)
        return self._servers[channel]


@dataclass(frozen=True, eq=False, slots=True)
class LegPlan:
    """The hops of a leg as lists as of `Hops`; and what follows each hop, or waits for each sender, by number."""

    channel: list[int]
    wait: list[int]
    rank: list[int]
    busy: list[int]
    beats: list[int]
    latency: list[int]
    head_delay: list[int]
    feeds: list[int]
    at_head: dict[int, list[int]]
    at_tail: dict[int, list[int]]
    hops_of_source: dict[int, list[int]]
    kept_of_source: dict[int, list[tuple[int, int]]]
    ends_of_hop: dict[int, list[tuple[int, int]]]
    expected: list[int]

    @classmethod
    def of(cls, leg: LinkLeg, channels: Channels) -> LegPlan:
        """The plan of a leg on these channels."""
        hops, program = leg.program.hops, leg.program
        beats, busy = hops.occupancy(channels, program.message_bytes(leg.payload_bytes))
        expected = np.bincount(hops.target, minlength=hops.num_targets)
        expected += np.bincount(hops.kept_target, minlength=hops.num_targets)
        feeds = np.bincount(hops.after, minlength=len(hops)) + np.bincount(hops.first_hop, minlength=len(hops))
        ends = list(zip(hops.target.tolist(), hops.end_cycles.tolist(), strict=True))
        kept = list(zip(hops.kept_target.tolist(), hops.kept_cycles.tolist(), strict=True))
        return cls(
            channel=hops.channel.tolist(),
            wait=hops.wait_cycles.tolist(),
            rank=program.rank[hops.message].tolist(),
            busy=busy.tolist(),
            beats=beats.tolist(),
            latency=channels.latency_cycles[hops.channel].tolist(),
            head_delay=(channels.overhead_cycles + channels.latency_cycles)[hops.channel].tolist(),
            feeds=feeds.tolist(),
            at_head=_grouped(hops.before[~hops.stored], hops.after[~hops.stored].tolist()),
            at_tail=_grouped(hops.before[hops.stored], hops.after[hops.stored].tolist()),
            hops_of_source=_grouped(hops.source, hops.first_hop.tolist()),
            kept_of_source=_grouped(hops.kept_source, kept),
            ends_of_hop=_grouped(hops.last_hop, ends),
            expected=expected.tolist(),
        )


class _LegRun:
    """One leg of one run of an operation."""

    def __init__(self, run: OperationRun, turn: int, plan: LegPlan) -> None:
        self._run, self._turn, self._plan = run, turn, plan
        self._missing, self._left = plan.feeds.copy(), plan.expected.copy()
        self._tail_in = [_NEVER] * len(plan.channel)
        self.grants = [_NEVER] * len(plan.channel)

    def send(self, source: int) -> None:
        """Says that a sender has what it sends."""
        env = self._run.env
        now = int(env.now)
        for hop in self._plan.hops_of_source.get(source, ()):
            self._feed(now, hop)
        for target, cycles in self._plan.kept_of_source.get(source, ()):
            call_at(env, now + cycles, partial(self._arrive, target))

    def _feed(self, tail: int, hop: int) -> None:
        """Says that one more of what the hop waits for is there now, whose tail comes at `tail`."""
        self._tail_in[hop] = max(self._tail_in[hop], tail)
        self._missing[hop] -= 1
        if not self._missing[hop]:
            call_at(self._run.env, int(self._run.env.now) + self._plan.wait[hop], partial(self._request, hop))

    def _request(self, hop: int) -> None:
        plan, rank = self._plan, self._plan.rank[hop] + (self._turn << _TURN_BITS)
        server = self._run.servers.server(plan.channel[hop])
        server.request(self._run.order, rank, plan.busy[hop], partial(self._granted, hop), index=hop)

    def _granted(self, hop: int, grant: int) -> None:
        plan, env = self._plan, self._run.env
        self.grants[hop] = grant - self._run.begin
        self._run.check(self._turn, hop, grant)
        head = grant + plan.head_delay[hop]
        tail = max(head + plan.beats[hop], self._tail_in[hop] + plan.wait[hop] + plan.latency[hop])
        for follower in plan.at_head.get(hop, ()):
            call_at(env, head, partial(self._feed, tail, follower))
        for follower in plan.at_tail.get(hop, ()):
            call_at(env, tail, partial(self._feed, tail, follower))
        for target, cycles in plan.ends_of_hop.get(hop, ()):
            call_at(env, tail + cycles, partial(self._arrive, target))

    def _arrive(self, target: int) -> None:
        self._left[target] -= 1
        if not self._left[target]:
            self._run.complete(self._turn, target)


class OperationRun:
    """One run of an operation: its hops on the channels, from its begin to the last of its values."""

    def __init__(
        self,
        servers: LinkServers,
        operation: LinkOperation,
        plans: list[LegPlan],
        order: int,
        done: Callable[[int], None],
        alone: list[list[int]] | None = None,
    ) -> None:
        """Prepares the run; nothing moves before `start`.

        Args:
            plans: the plans of its legs.
            order: if operations ask for a channel in the same cycle, the one of the lower order goes first.
            done: called with the cycle of the end, in that cycle.
            alone: (legs, hops) grants from the begin on if nothing else runs; None: not known.
        """
        self.env, self.servers, self.order, self.begin = servers.env, servers, order, _NEVER
        self._operation, self._done, self._alone = operation, done, alone
        self._legs = [_LegRun(self, turn, plan) for turn, plan in enumerate(plans)]
        self._left = len(plans[-1].expected) - plans[-1].expected.count(0) if plans else 0

    @property
    def grants(self) -> list[list[int]]:
        """(legs, hops) cycles from the begin to the grant of each hop."""
        return [leg.grants for leg in self._legs]

    def start(self) -> None:
        """Begins the operation now: every member has what it sends."""
        self.begin = int(self.env.now)
        if not self._left:
            self._done(self.begin)
            return
        for member in range(len(self._operation.members)):
            self._legs[0].send(member)

    def complete(self, turn: int, member: int) -> None:
        """Says that a member has all that leg `turn` brings it."""
        if turn + 1 < len(self._legs):
            self._legs[turn + 1].send(member)
            return
        self._left -= 1
        if not self._left:
            self._done(int(self.env.now))

    def check(self, turn: int, hop: int, grant: int) -> None:
        """Checks that nothing else made a hop wait.

        Raises:
            RuntimeError: something did; the program's operations or the order of its exchanges are wrong.
        """
        if self._alone is not None and grant - self.begin != self._alone[turn][hop]:
            raise RuntimeError(
                f"internal fault: hop {hop} of leg {turn} of {self._operation.name} got its channel"
                f" {grant - self.begin} cycles after the begin, and gets it after {self._alone[turn][hop]} alone"
            )


def run_alone(operation: LinkOperation, plans: list[LegPlan], channels: Channels) -> list[list[int]]:
    """(legs, hops) cycles from the begin to the grant of each hop of an operation on idle channels.

    Raises:
        RuntimeError: its cycles, or those of its channels, are not those that the operation states.
    """
    env = Environment()
    ends: list[int] = []
    run = OperationRun(LinkServers(env, channels), operation, plans, 0, ends.append)
    run.start()
    env.run()
    if ends != [operation.cycles]:
        raise RuntimeError(f"internal fault: {operation.name} takes {ends} cycles alone, not {operation.cycles}")
    _check_channels(operation, plans, run.grants)
    return run.grants


def _check_channels(operation: LinkOperation, plans: list[LegPlan], grants: list[list[int]]) -> None:
    uses: dict[int, list[tuple[int, int]]] = {}
    for plan, granted in zip(plans, grants, strict=True):
        for channel, grant, busy in zip(plan.channel, granted, plan.busy, strict=True):
            uses.setdefault(channel, []).append((grant, grant + busy))
    found = [
        (channel, min(used)[0], max(end for _, end in used), sum(end - first for first, end in used))
        for channel, used in sorted(uses.items())
    ]
    columns = (operation.channels, operation.first_cycles, operation.last_cycles, operation.busy_cycles)
    said = list(zip(*(column.tolist() for column in columns), strict=True))
    if found != sorted(said):
        raise RuntimeError(f"internal fault: {operation.name} uses channels as {found} alone, not as {said}")


def plan_legs(operation: LinkOperation, channels: Channels) -> list[LegPlan]:
    """The legs of an operation as lists."""
    return [LegPlan.of(leg, channels) for leg in operation.legs]


def _grouped(keys: IntArray, values: list[_T]) -> dict[int, list[_T]]:
    """The values of each key, in the order given."""
    groups: dict[int, list[_T]] = {}
    for key, value in zip(keys.tolist(), values, strict=True):
        groups.setdefault(key, []).append(value)
    return groups
