"""Exact cycles where requests overtake one another: passes over a block, or all blocks, until no arrival changes."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, field, fields, replace

import numpy as np

from pe_sim.engine.fast.block_pass import BlockPass, BlockRecord, MachineState, Ready
from pe_sim.engine.fast.recurrences import ChannelState, OutOfOrderError
from pe_sim.schedule.stages import Block, Schedule, Stage
from pe_sim.units import IntArray

MOST_PASSES = 40  # what has not settled by then goes event by event


class ArrivalPass(BlockPass):
    """A `BlockPass` of one step in which bus and root serve requests as they arrive, whichever stages make them.

    Where a pass in program order is overtaken, passes are repeated: in each, a request is served among all that are
    known, those of earlier stages as this pass found them, those of later stages as the last one did. Once no arrival
    changes any more, the cycles obey every rule of the machine. No other cycles do: what arrives at a cycle follows
    from grants before it, so two sets of such cycles cannot have a first difference.
    """

    def run(self) -> BlockRecord:
        """The record of the block: the cycles of every stage.

        Raises:
            OutOfOrderError: a request comes before one of an earlier block, or the passes do not settle.
        """
        entered, slots, heads = _copied(self._state), self._slots.copy(), self._heads.copy()
        record = super().run()
        if not self._state.overtaken.any():
            return record
        self._restart(entered, slots, heads)
        return self.settled()

    def settled(self) -> BlockRecord:
        """The record of the block, found without a first try in program order.

        Raises:
            OutOfOrderError: a request comes before one of an earlier block, or the passes do not settle.
        """
        entered, slots, heads = _copied(self._state), self._slots.copy(), self._heads.copy()
        bus = SharedChannel(entered.bus.free_at, entered.bus.last_arrival)
        root = {name: SharedChannel(channel.free_at, channel.last_arrival) for name, channel in entered.root.items()}
        shared = (bus, *root.values())
        self._state.bus, self._state.root = bus, {**root}
        for _ in range(MOST_PASSES):
            for channel in shared:
                channel.begin()
            record = super().run()
            if self._state.channels.overtaken:
                break  # channels of a graph keep the program's order
            if not any(channel.changed for channel in shared):
                self._state.bus, self._state.root = bus.left(), {name: each.left() for name, each in root.items()}
                if self._state.overtaken.any():
                    break
                return record
            self._restart(entered, slots, heads)
            self._state.bus, self._state.root = bus, {**root}
        raise OutOfOrderError

    def _restart(self, entered: MachineState, slots: dict[int, Ready], heads: dict[int, Ready]) -> None:
        """Restores everything as it was when the block was entered."""
        before = _copied(entered)
        for part in fields(MachineState):
            setattr(self._state, part.name, getattr(before, part.name))
        self._slots, self._heads, self._record, self._ends = slots.copy(), heads.copy(), BlockRecord(), []


def _copied(state: MachineState) -> MachineState:
    """A copy of the state to go back to; arrays that a pass replaces as a whole are shared."""
    return MachineState(
        pe_free=state.pe_free,
        port_free=state.port_free,
        bus=_channel(state.bus),
        root={name: _channel(channel) for name, channel in state.root.items()},
        tree=copy(state.tree),
        downlink=copy(state.downlink),
        channels=state.channels.copy(),
    )


def _channel(state: ChannelState) -> ChannelState:
    return ChannelState(state.free_at, state.last_arrival, state.overtaken)


@dataclass(slots=True)
class SharedChannel(ChannelState):
    """A first-come-first-served server of all requests of a block, pass after pass.

    Args:
        changed: whether some request arrived at another cycle than in the pass before.
    """

    changed: bool = True
    _turn: int = 0
    _begins: list[int] = field(default_factory=lambda: [0])  # where each stage's requests begin, in the order of ties
    _orders: list[IntArray] = field(default_factory=list)  # each stage's requests in the order of their ranks
    _arrivals: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    _busy: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    _releases: IntArray | None = None

    def begin(self) -> None:
        """Begins another pass."""
        self.changed, self._turn = False, 0

    def serve(self, arrivals: IntArray, ranks: IntArray, busy: IntArray) -> tuple[IntArray, IntArray]:
        """Grants and releases of the next stage's (messages,) requests among all that are known."""
        turn = self._turn
        self._turn += 1
        if turn == len(self._orders):
            self._add(arrivals, ranks, busy)
        mine, by_rank = slice(self._begins[turn], self._begins[turn + 1]), self._orders[turn]
        if not np.array_equal(self._arrivals[mine], arrivals[by_rank]):
            self._arrivals[mine] = arrivals[by_rank]
            self.changed, self._releases = True, None
        if self._releases is None:
            self._releases = self._all_releases()
        releases = np.empty_like(arrivals)
        releases[by_rank] = self._releases[mine]
        return releases - busy, releases

    def left(self) -> ChannelState:
        """The state in which the block leaves the channel."""
        if self._releases is None:  # nothing was asked of it
            return ChannelState(self.free_at, self.last_arrival)
        overtaken = self._arrivals.min(keepdims=True) < self.last_arrival
        return ChannelState(self._releases.max(keepdims=True), self._arrivals.max(keepdims=True), overtaken)

    def _add(self, arrivals: IntArray, ranks: IntArray, busy: IntArray) -> None:
        by_rank = np.argsort(ranks, kind="stable")
        self._orders.append(by_rank)
        self._begins.append(self._begins[-1] + len(arrivals))
        self._arrivals = np.concatenate([self._arrivals, arrivals[by_rank]])
        self._busy = np.concatenate([self._busy, busy[by_rank]])
        self.changed, self._releases = True, None

    def _all_releases(self) -> IntArray:
        """(requests,) release of each, first come, first served; see `ChannelState.serve`."""
        order = np.argsort(self._arrivals, kind="stable")
        busy = self._busy[order]
        done = np.cumsum(busy)
        slack = np.maximum.accumulate(self._arrivals[order] - done + busy)
        releases = np.empty_like(done)
        releases[order] = done + np.maximum(slack, self.free_at)
        return releases


# ---- A schedule as one block, where requests of different blocks overtake one another.


def as_one_block(schedule: Schedule) -> Block:
    """One block with the stages of all block runs in program order, each of which reads what its lane carries on."""
    stages: list[Stage] = []
    carried: dict[int, list[int]] = {}
    for run in schedule.sequence:
        block = schedule.blocks[run.block]
        slots = dict(zip(block.entries, carried.get(run.lane, []), strict=True)) if block.entries else {}
        for stage in block.stages:
            inputs = tuple(slots[slot] for slot in stage.inputs)
            slots[stage.output] = len(stages)
            stages.append(replace(stage, inputs=inputs, output=len(stages)))
        carried[run.lane] = [slots[slot] for slot in block.exits]
    return Block(tuple(stages), len(stages))
