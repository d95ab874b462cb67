"""An exchange over the links event by event: every hop waits for what feeds it, then for its channel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

import numpy as np
from simpy import Environment

from pe_sim.engine.late import call_at
from pe_sim.engine.server import Server
from pe_sim.network.channels import Channels
from pe_sim.schedule.system import LinkLeg, LinkOperation
from pe_sim.units import IntArray

_TURN_BITS: Final = 32  # legs that come first go first
_NEVER: Final = -1
_T = TypeVar("_T")


class LinkServers:
    """The channels of a system's links, each made when it is asked for."""

    def __init__(self, env: Environment, channels: Channels) -> None:
        self.env, self.channels = env, channels
        self._servers: dict[int, Server] = {}

    def server(self, channel: int) -> Server:
        """The channel of that number."""
        if channel not in self._servers:
            self._servers[channel] = Server(self.env)
        return self._servers[channel]


@dataclass(frozen=True, eq=False, slots=True)
class LegPlan:
    """A leg as lists; (hops,), (links,), (ends,) or (kept,) as of `Hops`, and what hangs on each hop or sender."""

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
        """The leg on these channels."""
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
        """A sender has what it sends."""
        env = self._run.env
        now = int(env.now)
        for hop in self._plan.hops_of_source.get(source, ()):
            self._feed(now, hop)
        for target, cycles in self._plan.kept_of_source.get(source, ()):
            call_at(env, now + cycles, partial(self._arrive, target))

    def _feed(self, tail: int, hop: int) -> None:
        """One more of what the hop waits for is there now; the last of it comes at `tail`."""
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
        """Nothing moves yet.

        Args:
            plans: of its legs.
            order: of operations that ask for a channel in the same cycle the lower one goes first.
            done: called with the cycle of the end, in that cycle.
            alone: (legs, hops) grants from the begin on if nothing else runs; None: not known.
        """
        self.env, self.servers, self.order, self.begin = servers.env, servers, order, _NEVER
        self._operation, self._done, self._alone = operation, done, alone
        self._legs = [_LegRun(self, turn, plan) for turn, plan in enumerate(plans)]
        self._left = len(plans[-1].expected) - plans[-1].expected.count(0) if plans else 0

    @property
    def grants(self) -> list[list[int]]:
        """(legs, hops) from the begin on."""
        return [leg.grants for leg in self._legs]

    def start(self) -> None:
        """Every member has what it sends."""
        self.begin = int(self.env.now)
        if not self._left:
            self._done(self.begin)
            return
        for member in range(len(self._operation.members)):
            self._legs[0].send(member)

    def complete(self, turn: int, member: int) -> None:
        """A member has all that a leg brings it."""
        if turn + 1 < len(self._legs):
            self._legs[turn + 1].send(member)
            return
        self._left -= 1
        if not self._left:
            self._done(int(self.env.now))

    def check(self, turn: int, hop: int, grant: int) -> None:
        """Nobody else makes a hop wait.

        Raises:
            RuntimeError: somebody did; the program's operations or the order of its exchanges are wrong.
        """
        if self._alone is not None and grant - self.begin != self._alone[turn][hop]:
            raise RuntimeError(
                f"internal fault: hop {hop} of leg {turn} of {self._operation.name} got its channel"
                f" {grant - self.begin} cycles after the begin, and gets it after {self._alone[turn][hop]} alone"
            )


def run_alone(operation: LinkOperation, plans: list[LegPlan], channels: Channels) -> list[list[int]]:
    """(legs, hops) grants of an operation on idle channels.

    Raises:
        RuntimeError: it takes other cycles than it says of itself.
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
    """The values of each key, in their order."""
    groups: dict[int, list[_T]] = {}
    for key, value in zip(keys.tolist(), values, strict=True):
        groups.setdefault(key, []).append(value)
    return groups
