"""A lower bound on when things happen: every PE in order, every collective alone on its channels.

A piece of a layer is run as the engines run it, but as if no collective met another: each starts when its data is
ready and takes what its closed form says. The engines can only be later, and later inputs never give earlier outputs,
so a partial mapping that is nowhere later than another one need not be looked at beside it.

Every array over PEs (or hubs) has one entry more, the last: "somewhere". Where one stage sends messages of several
scopes over one bus, which scope is served last is not known, but some PE waits for all of them. The last entry follows
that PE, at the least cost any PE that may be the one would have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from pe_sim.config.array import ArrayConfig
from pe_sim.engine.recurrences import NEVER, PREFETCHING_OVERLAP, matrix_times
from pe_sim.mapping.layouts import Layouts
from pe_sim.network.bus_tree import occupancy_cycles
from pe_sim.schedule.stages import (
    Block,
    MatrixWork,
    MessageStage,
    PeStage,
    Resource,
    RootStage,
    RoutedStage,
    Stage,
    TreeStage,
)
from pe_sim.units import BoolArray, IntArray, ceil_div

_LONG_FREE = 1 << 40  # cycles: a memory that has been free so long has prefetched all it can


@dataclass(frozen=True, eq=False)
class Machine:
    """What the bound knows of an array and a division of its PEs."""

    array: ArrayConfig
    layouts: Layouts

    @cached_property
    def somewhere(self) -> BoolArray:
        """(PEs,) the PEs that may wait longest: all that take part, or those that attend where some do not."""
        split = self.layouts.head_split
        return split.q_heads > 0 if split.head_group_size > 1 else self.layouts.is_member

    def extend(self, values: IntArray) -> IntArray:
        """(PEs + 1,) with the least of those that may be the one at the end."""
        return np.append(values, values[self.somewhere].min())

    def extend_mask(self, mask: BoolArray) -> BoolArray:
        """(PEs + 1,) whether each does it, the last whether all do that may be the one."""
        return np.append(mask, mask[self.somewhere].all())

    def renew(self, values: IntArray) -> IntArray:
        """A copy whose last entry holds for any PE."""
        if len(values) != self.array.num_pes + 1:
            return np.append(values[:-1], values[:-1].min())
        return self.extend(values[:-1])

    @property
    def start(self) -> IntArray:
        """All PEs at cycle 0."""
        return np.zeros(self.array.num_pes + 1, dtype=np.int64)


@dataclass(frozen=True, eq=False, slots=True)
class _OnPes:
    inputs: tuple[int, ...]
    output: int
    active: BoolArray | None  # None: all
    cycles: IntArray
    tail_cycles: IntArray | None


_Step = _OnPes | Stage


@dataclass(frozen=True, eq=False, slots=True)
class Timing:
    """A lowered piece, ready to be run again and again."""

    machine: Machine
    steps: tuple[_Step, ...]
    entries: tuple[int, ...]
    exits: tuple[int, ...]

    @classmethod
    def of(cls, machine: Machine, block: Block) -> Timing:
        """Of a lowered block."""
        steps = tuple(_on_pes(machine, stage) if isinstance(stage, PeStage) else stage for stage in block.stages)
        return cls(machine, steps, block.entries, block.exits)

    def run(self, free: IntArray, entering: Sequence[IntArray]) -> Passage:
        """When PEs are free again and values are there, from when they were."""
        passage = Passage(self.machine, free, dict(zip(self.entries, entering, strict=True)))
        for step in self.steps:
            passage.take(step)
        return passage


@dataclass(slots=True)
class Passage:
    """One run; `slots` and `heads` by number, `renewed` if "somewhere" is another PE than at its beginning."""

    machine: Machine
    free: IntArray
    slots: dict[int, IntArray]
    heads: dict[int, IntArray] = field(default_factory=dict)
    renewed: bool = False
    latest: int = 0

    def take(self, step: _Step) -> None:
        """Runs one stage."""
        match step:
            case _OnPes():
                self._on_pes(step)
            case RootStage():
                self._at_root(step)
            case TreeStage():
                self._through_tree(step)
            case MessageStage():
                self._as_messages(step)
            case RoutedStage():
                self._over_graph(step)
            case _:
                raise TypeError(f"the bound has no rule for a {type(step).__name__}")
        if not isinstance(step, _OnPes):
            self.latest = max(self.latest, int(self.slots[step.output].max()))

    def end(self) -> int:
        """The last cycle of all that was run."""
        return max(self.latest, int(self.free.max()))

    def _on_pes(self, step: _OnPes) -> None:
        start = self.free
        for slot in step.inputs:
            streamed = step.tail_cycles is not None and slot in self.heads
            start = np.maximum(start, self.heads[slot] if streamed else self.slots[slot])
        end = start + step.cycles
        if step.tail_cycles is not None:
            for slot in step.inputs:
                if slot in self.heads:
                    end = np.maximum(end, self.slots[slot] + step.tail_cycles)
        if step.active is None:
            self.free = self.slots[step.output] = end
        else:
            self.free = np.where(step.active, end, self.free)
            self.slots[step.output] = np.where(step.active, end, NEVER)

    def _at_root(self, stage: RootStage) -> None:
        jobs = len(stage.cycles)
        ready = self._at_hubs(stage.inputs, np.arange(jobs))
        ends = ready[:-1] + stage.cycles
        self.slots[stage.output] = np.append(ends, ready[-1] + int(stage.cycles.min()))

    def _through_tree(self, stage: TreeStage) -> None:
        tree = self.machine.array.bus_tree.tree
        active = self.machine.extend_mask(stage.active)
        ready = np.full(len(active), NEVER, dtype=np.int64)
        for slot in stage.inputs:
            ready = np.maximum(ready, self.slots[slot])
        ready = np.where(active, ready, NEVER)
        busy = ceil_div(stage.num_bytes, tree.bytes_per_cycle)
        if len(busy) == 1:
            latest = max(int(ready[int(stage.first_pe[0]) : int(stage.last_pe[0])].max()), int(ready[-1]))
            end = latest + int(stage.hop_cycles[0]) + int(busy[0]) if busy[0] else NEVER
            self.slots[stage.output] = np.array([end, end])
            return
        latest_of = np.array(
            [ready[first:last].max() for first, last in zip(stage.first_pe, stage.last_pe, strict=True)]
        )
        starts = latest_of
        if stage.whole_tree:  # one after the other, in order
            before = np.concatenate(([0], np.cumsum(busy)[:-1]))
            starts = before + np.maximum.accumulate(latest_of - before)
        ends = np.where(busy > 0, starts + stage.hop_cycles + busy, NEVER)
        somewhere = int(ready[-1]) + int((stage.hop_cycles + busy).min()) if (busy > 0).all() else NEVER
        self.slots[stage.output] = np.append(ends, somewhere)

    def _as_messages(self, stage: MessageStage) -> None:
        if not len(stage.source):
            self._deliver(stage, self.slots, np.zeros(0, dtype=np.int64), NEVER)
            return
        bus = self.machine.array.bus_tree.bus
        if stage.channel is Resource.DOWNLINK:
            busy = ceil_div(stage.num_bytes, self.machine.array.bus_tree.tree.bytes_per_cycle)
            ready = self._senders(stage)
            complete = ready[:-1] + stage.hop_cycles[stage.target] + busy
            self._deliver(stage, self.slots, complete, int(ready[-1]) + int(busy.min()))
            return
        busy = occupancy_cycles(bus, stage.num_bytes, stage.source_rate)
        requests = np.append(np.where(stage.rank >= 0, bus.request_cycles, 0), 0)
        arrivals = self._senders(stage) + requests
        if len(busy) == 1:
            grants = arrivals[:1]
            last = int(grants[0] + busy[0]) + bus.latency_cycles
        else:
            grants = self._grants(stage, arrivals[:-1], busy)
            last = _last_of_queue(arrivals[:-1], busy) + bus.latency_cycles
            if not stage.from_pe or len(busy) == self.machine.array.num_pes:  # the one somewhere sends as well
                last = max(last, int(arrivals[-1] + busy.min()) + bus.latency_cycles)
        self._deliver(stage, self.slots, grants + busy + bus.latency_cycles, last)
        if stage.streams:
            heads = grants + bus.overhead_cycles + bus.latency_cycles
            self._deliver(stage, self.heads, heads, int(heads.min()))

    def _grants(self, stage: MessageStage, arrivals: IntArray, busy: IntArray) -> IntArray:
        """(messages,) of one stage: those that are ready together go as listed; others may go in any order."""
        before = np.cumsum(busy) - busy
        if (arrivals == arrivals[0]).all() and not stage.from_pe and len(np.unique(stage.source)) == 1:
            return arrivals + before
        targets = len(np.unique(stage.target))
        if targets == 1:
            return _last_of_queue(arrivals, busy) - busy  # whoever is last, all are there then
        if targets == len(busy):
            return arrivals
        grants = arrivals.copy()
        for target in np.unique(stage.target):
            mine = stage.target == target
            grants[mine] = _last_of_queue(arrivals[mine], busy[mine]) - busy[mine]
        return grants

    def _deliver(self, stage: MessageStage, kept: dict[int, IntArray], complete: IntArray, last: int) -> None:
        targets = len(stage.first_pe)
        arrived = np.full(targets, NEVER, dtype=np.int64)
        np.maximum.at(arrived, stage.target, complete)
        if stage.to_root:
            kept[stage.output] = np.append(arrived, max(last, int(arrived.max())))
            return
        num_pes = self.machine.array.num_pes
        if targets == 1 and int(stage.last_pe[0] - stage.first_pe[0]) == num_pes:
            kept[stage.output] = np.full(num_pes + 1, arrived[0])
            return
        may_be = self.machine.somewhere
        if targets == num_pes and (stage.last_pe - stage.first_pe == 1).all():
            on_pes, any_may = arrived, bool(may_be[stage.target].all())
        else:
            on_pes, any_may = np.full(num_pes, NEVER, dtype=np.int64), True
            for first, end, cycle in zip(stage.first_pe.tolist(), stage.last_pe.tolist(), arrived, strict=True):
                on_pes[first:end] = cycle
                any_may = any_may and bool(may_be[first:end].any())
        somewhere = int(on_pes[may_be].min())
        if kept is self.slots and targets > 1 and last > somewhere and any_may:
            self._somewhere_else()
            somewhere = last
        kept[stage.output] = np.append(on_pes, somewhere)

    def _somewhere_else(self) -> None:
        """From here on the last entries stand for another PE: what they said holds of it only where it does of any."""
        self.renewed = True
        self.free = self.machine.renew(self.free)
        for kept in (self.slots, self.heads):
            kept.update({slot: self.machine.renew(values) for slot, values in kept.items()})

    def _senders(self, stage: MessageStage) -> IntArray:
        """(messages + 1,) when each sender has what it sends."""
        if not stage.from_pe:
            ready = self._at_hubs(stage.inputs, stage.source)
            return ready if stage.early_cycles is None else ready - np.append(stage.early_cycles, 0)
        ready = np.full(self.machine.array.num_pes + 1, NEVER if stage.inputs else 0, dtype=np.int64)
        for slot in stage.inputs:
            ready = np.maximum(ready, self.slots[slot])
        return np.append(ready[stage.source], ready[-1])

    def _at_hubs(self, inputs: tuple[int, ...], hubs: IntArray) -> IntArray:
        """(hubs + 1,) a single job serves every group."""
        ready = np.full(len(hubs) + 1, NEVER if inputs else 0, dtype=np.int64)
        for slot in inputs:
            values = self.slots[slot]
            there = np.append(values[hubs], values[-1]) if len(values) > 2 else values[:1]
            ready = np.maximum(ready, there)
        return ready

    def _over_graph(self, stage: RoutedStage) -> None:
        from pe_sim.network.hop_times import ChannelTimes, run_hops
        from pe_sim.network.interconnect import interconnect_of  # loads networkx

        channels = interconnect_of(self.machine.array).topology.channels
        hops = stage.hops
        if stage.from_pe:
            ready = np.full(self.machine.array.num_pes, NEVER if stage.inputs else 0, dtype=np.int64)
            for slot in stage.inputs:
                ready = np.maximum(ready, self.slots[slot][:-1])
        else:
            ready = self._at_hubs(stage.inputs, np.arange(hops.num_sources))[:-1]
            ready = ready if stage.early_cycles is None else ready - stage.early_cycles
        beats, busy = hops.occupancy(channels, stage.num_bytes, stage.source_rate)
        times = run_hops(hops, channels, beats, busy, stage.rank, ready, ChannelTimes.idle(len(channels)))
        for kept, cycles in ((self.slots, times.complete), (self.heads, times.shown)):
            if kept is self.heads and not stage.streams:
                continue
            if stage.to_pes is None:
                kept[stage.output] = np.append(cycles, cycles.min())
            else:
                kept[stage.output] = self.machine.extend(np.where(stage.to_pes, cycles, NEVER))


def _on_pes(machine: Machine, stage: PeStage) -> _OnPes:
    cycles = stage.cycles if stage.matrix is None else matrix_cycles(stage.matrix, machine.array)
    everywhere = bool(stage.active.all())
    return _OnPes(
        stage.inputs,
        stage.output,
        None if everywhere else machine.extend_mask(stage.active),
        machine.extend(np.broadcast_to(cycles, stage.active.shape)),
        None if stage.tail_cycles is None else machine.extend(stage.tail_cycles),
    )


def matrix_cycles(work: MatrixWork, array: ArrayConfig) -> IntArray:
    """(PEs,) the least a matrix operator takes: with all prefetched that can be, where the array prefetches."""
    if array.overlap < PREFETCHING_OVERLAP or not work.static:
        return matrix_times(work, array, None).duration
    fetched = matrix_times(work, array, np.full(work.stream_bytes.shape, _LONG_FREE, dtype=np.int64))
    return np.maximum(fetched.stream_end, work.compute_cycles) + array.pe.matrix.latency_cycles


def _last_of_queue(arrivals: IntArray, busy: IntArray) -> int:
    """When a channel that serves one after the other is done with all: max of arrival + all that comes from then on."""
    order = np.argsort(arrivals, kind="stable")
    waiting = np.cumsum(busy[order][::-1])[::-1]
    return int((arrivals[order] + waiting).max())
