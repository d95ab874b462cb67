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
from hashlib import blake2b

import numpy as np

from pe_sim.config.arrays.array import ArrayConfig
from pe_sim.engine.fast.recurrences import NEVER, matrix_times
from pe_sim.mapping.layouts import Layouts
from pe_sim.network.bus_tree import occupancy_cycles
from pe_sim.schedule.builders import PREFETCHING_OVERLAP
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

_PES_KEPT = 1 << 22  # PEs of all passages that are remembered; each has a few numbers for every PE
_LONG_FREE = 1 << 40  # cycles: a memory that has been free so long has prefetched all it can


@dataclass(frozen=True, eq=False)
class Among:
    """The PEs of which "somewhere" is one.

    Args:
        mask: (PEs,) whether each is one of them.
    """

    mask: BoolArray

    @cached_property
    def key(self) -> bytes:
        """Key that is equal for the same PEs."""
        return self.mask.tobytes()

    @cached_property
    def _pes(self) -> IntArray | slice:
        """Indices of these PEs; a slice where they are all."""
        return slice(None) if self.mask.all() else np.flatnonzero(self.mask)

    def least(self, values: IntArray) -> int:
        """The least of (PEs,) values over these PEs."""
        return int(values[self._pes].min())

    def extend(self, values: IntArray) -> IntArray:
        """(PEs + 1,) the values, with the least over these PEs at the end."""
        return _with_last(values, self.least(values))

    def extend_mask(self, mask: BoolArray) -> BoolArray:
        """(PEs + 1,) the mask, with whether it holds for all of these PEs at the end."""
        return np.append(mask, mask[self.mask].all())


@dataclass(frozen=True, eq=False)
class Machine:
    """What the bound knows of an array and a division of its PEs.

    Args:
        known: passages that were run, from the moment at which the first PE was free.
        matrices: cycles of operators on matrices, which pieces share.
    """

    array: ArrayConfig
    layouts: Layouts
    known: dict[tuple[object, ...], Passage] = field(default_factory=dict)
    matrices: dict[MatrixWork, IntArray] = field(default_factory=dict)

    def keep(self, key: tuple[object, ...], passage: Passage) -> None:
        """Remembers a passage; where there is no room for more, all others are forgotten."""
        if (len(self.known) + 1) * self.array.num_pes > _PES_KEPT:
            self.known.clear()
        self.known[key] = passage

    @cached_property
    def anywhere(self) -> Among:
        """The PEs that may wait longest: all that take part, or those that attend where some do not."""
        split = self.layouts.head_split
        return Among(split.q_heads > 0 if split.head_group_size > 1 else self.layouts.is_member)

    def among(self, mask: BoolArray) -> Among:
        """The PEs of a mask that may wait longest, all of them if none may; `anywhere` if the mask is empty."""
        attending = mask & self.anywhere.mask
        if not attending.any():
            return Among(mask) if mask.any() else self.anywhere
        return self.anywhere if (attending == self.anywhere.mask).all() else Among(attending)

    def among_holders(self, ready: IntArray) -> Among:
        """The PEs that hold a value, narrowed as by `among`; `anywhere` if it is at the root."""
        on_pes = len(ready) == self.array.num_pes + 1
        return self.among(ready[:-1] > NEVER // 2) if on_pes else self.anywhere

    def renew(self, values: IntArray, among: Among) -> IntArray:
        """A copy of the values whose last entry holds for any of these PEs: the least of them, or of all hubs."""
        of_each = values[:-1]
        on_pes = len(values) == self.array.num_pes + 1
        return _with_last(of_each, among.least(of_each) if on_pes else int(of_each.min()))

    @property
    def start(self) -> IntArray:
        """(PEs + 1,) cycle 0 for every PE."""
        return np.zeros(self.array.num_pes + 1, dtype=np.int64)


@dataclass(frozen=True, eq=False, slots=True)
class _OnPes:
    inputs: tuple[int, ...]
    output: int
    active: BoolArray
    cycles: IntArray
    tail_cycles: IntArray | None
    extended: dict[bytes, _Extended] = field(default_factory=dict)

    def among(self, somewhere: Among) -> _Extended:
        """The arrays of the stage, each with what "somewhere" does at the end."""
        if somewhere.key not in self.extended:
            self.extended[somewhere.key] = _Extended(
                None if self.active.all() else somewhere.extend_mask(self.active),
                somewhere.extend(self.cycles),
                None if self.tail_cycles is None else somewhere.extend(self.tail_cycles),
            )
        return self.extended[somewhere.key]


@dataclass(frozen=True, eq=False, slots=True)
class _Extended:
    active: BoolArray | None  # None: all
    cycles: IntArray
    tail_cycles: IntArray | None


@dataclass(frozen=True, eq=False)
class _Messages:
    """A stage of messages, with all that does not depend on when they are sent.

    Args:
        busy: (messages,) cycles for which each keeps the channel busy.
        burst_bytes: bytes after which another sender has its turn; None: a message is never divided.
    """

    stage: MessageStage
    num_pes: int
    busy: IntArray
    burst_bytes: int | None = None

    @property
    def inputs(self) -> tuple[int, ...]:
        """Slots that it reads."""
        return self.stage.inputs

    @property
    def output(self) -> int:
        """The slot that it fills."""
        return self.stage.output

    @cached_property
    def before(self) -> IntArray:
        """(messages,) busy cycles of all messages listed before each."""
        return np.cumsum(self.busy) - self.busy

    @cached_property
    def least_busy(self) -> int:
        """Busy cycles of the shortest message."""
        return int(self.busy.min())

    @cached_property
    def in_order(self) -> bool:
        """Whether one hub sends them all, whole, in the order of the list."""
        is_whole = self.burst_bytes is None or int(self.stage.num_bytes.max()) <= self.burst_bytes
        return is_whole and not self.stage.from_pe and len(np.unique(self.stage.source)) == 1

    @cached_property
    def of_targets(self) -> tuple[IntArray, ...]:
        """For each target that gets any, the indices of its messages."""
        return tuple(np.flatnonzero(self.stage.target == target) for target in np.unique(self.stage.target))

    @cached_property
    def senders(self) -> BoolArray:
        """(PEs,) whether each sends any message."""
        senders = np.zeros(self.num_pes, dtype=bool)
        senders[self.stage.source] = True
        return senders

    @cached_property
    def reaches_all(self) -> bool:
        """Whether the only target is all PEs."""
        stage = self.stage
        return len(stage.first_pe) == 1 and int(stage.last_pe[0] - stage.first_pe[0]) == self.num_pes

    @cached_property
    def receivers(self) -> tuple[IntArray, IntArray]:
        """(receivers,) the PEs that get any message, and the target that each belongs to."""
        stage = self.stage
        counts = stage.last_pe - stage.first_pe
        target = np.repeat(np.arange(len(counts)), counts)
        within = np.arange(len(target)) - np.repeat(np.cumsum(counts) - counts, counts)
        return stage.first_pe[target] + within, target


_Step = _OnPes | _Messages | Stage


@dataclass(frozen=True, eq=False)
class Timing:
    """A lowered piece, ready to be run again and again."""

    machine: Machine
    steps: tuple[_Step, ...]
    entries: tuple[int, ...]
    exits: tuple[int, ...]

    @classmethod
    def of(cls, machine: Machine, block: Block) -> Timing:
        """The timing of a lowered block."""
        steps = tuple(_prepared(machine, stage) for stage in block.stages)
        return cls(machine, steps, block.entries, block.exits)

    @cached_property
    def idle(self) -> BoolArray:
        """(PEs + 1,) whether each PE has nothing to do in it; at the end whether no PE has."""
        idle = np.ones(self.machine.array.num_pes, dtype=bool)
        for step in self.steps:
            if isinstance(step, _OnPes):
                idle &= ~step.active
        return np.append(idle, idle.all())

    @cached_property
    def starts_by_itself(self) -> bool:
        """Whether something in it waits for no input, but is there from the first cycle on."""
        return any(not step.inputs for step in self.steps if not isinstance(step, _OnPes))

    def run(self, free: IntArray, entering: Sequence[IntArray], somewhere: Among) -> Passage:
        """The run of the piece from when PEs are free and inputs are ready; "somewhere" is one of the given PEs.

        A run whose inputs are those of an earlier one, only shifted in time, is that one, shifted.
        """
        first = int(free.min())
        if self.starts_by_itself or first < NEVER // 2:
            return self._run(free, entering, somewhere)
        inputs = [_later(values, -first) for values in (free, *entering)]
        key = (self, somewhere.key, blake2b(b"".join(values.tobytes() for values in inputs)).digest())
        known = self.machine.known.get(key)
        if known is None:
            known = self._run(inputs[0], inputs[1:], somewhere)
            known.slots, known.heads = {slot: known.slots[slot] for slot in self.exits}, {}
            self.machine.keep(key, known)
        return known.shifted(first)

    def _run(self, free: IntArray, entering: Sequence[IntArray], somewhere: Among) -> Passage:
        passage = Passage(self.machine, free, dict(zip(self.entries, entering, strict=True)), somewhere)
        for step in self.steps:
            passage.take(step)
        return passage


@dataclass(slots=True)
class Passage:
    """One run of a piece: when PEs are free, and when values are there (`slots`), or their first parts (`heads`).

    `renewed`: "somewhere" is another PE than at its beginning; `latest`: the last cycle of all that PEs do not do.
    """

    machine: Machine
    free: IntArray
    slots: dict[int, IntArray]
    somewhere: Among
    heads: dict[int, IntArray] = field(default_factory=dict)
    renewed: bool = False
    latest: int = NEVER

    def shifted(self, cycles: int) -> Passage:
        """The same run, that many cycles later."""
        slots = {slot: _later(values, cycles) for slot, values in self.slots.items()}
        free, latest = _later(self.free, cycles), self.latest + cycles if self.latest > NEVER // 2 else NEVER
        return Passage(self.machine, free, slots, self.somewhere, {}, self.renewed, latest)

    def take(self, step: _Step) -> None:
        """Runs one stage."""
        match step:
            case _OnPes():
                self._on_pes(step)
            case RootStage():
                self._at_root(step)
            case TreeStage():
                self._through_tree(step)
            case _Messages():
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
        start, on_each = self.free, step.among(self.somewhere)
        for slot in step.inputs:
            streamed = on_each.tail_cycles is not None and slot in self.heads
            start = np.maximum(start, self.heads[slot] if streamed else self.slots[slot])
        end = start + on_each.cycles
        if on_each.tail_cycles is not None:
            for slot in step.inputs:
                if slot in self.heads:
                    end = np.maximum(end, self.slots[slot] + on_each.tail_cycles)
        if on_each.active is None:
            self.free = self.slots[step.output] = end
        else:
            self.free = np.where(on_each.active, end, self.free)
            self.slots[step.output] = np.where(on_each.active, end, NEVER)

    def _at_root(self, stage: RootStage) -> None:
        jobs = len(stage.cycles)
        ready = self._at_hubs(stage.inputs, np.arange(jobs))
        ends = ready[:-1] + stage.cycles
        self.slots[stage.output] = np.append(ends, ready[-1] + int(stage.cycles.min()))

    def _through_tree(self, stage: TreeStage) -> None:
        tree = self.machine.array.bus_tree.tree
        active = self.somewhere.extend_mask(stage.active)
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

    def _as_messages(self, sent: _Messages) -> None:
        stage, busy = sent.stage, sent.busy
        bus = self.machine.array.bus_tree.bus
        if not len(busy):
            self._deliver(sent, self.slots, busy, NEVER)
            return
        if stage.channel is Resource.DOWNLINK:
            ready = self._senders(stage)
            complete = ready[:-1] + stage.hop_cycles[stage.target] + busy
            self._deliver(sent, self.slots, complete, int(ready[-1]) + sent.least_busy)
            return
        ready = self._senders(stage)
        arrivals = ready[:-1] + np.where(stage.rank >= 0, bus.request_cycles, 0)
        if len(busy) == 1:
            grants = arrivals
            last = int(grants[0] + busy[0]) + bus.latency_cycles
        else:
            grants = self._grants(sent, arrivals)
            last = _last_of_queue(arrivals, busy) + bus.latency_cycles
            if not stage.from_pe or sent.senders[self.somewhere.mask].all():
                last = max(last, int(ready[-1]) + sent.least_busy + bus.latency_cycles)
        self._deliver(sent, self.slots, grants + busy + bus.latency_cycles, last)
        if stage.streams:
            heads = grants + bus.overhead_cycles + bus.latency_cycles
            self._deliver(sent, self.heads, heads, int(heads.min()))

    def _grants(self, sent: _Messages, arrivals: IntArray) -> IntArray:
        """(messages,) lower bounds on the bus grants that complete what each message's target gets.

        Whole messages of one hub that are ready together are granted as listed; others may be in any order.
        """
        busy = sent.busy
        if sent.in_order and (arrivals == arrivals[0]).all():
            return arrivals + sent.before
        if len(sent.of_targets) == 1:
            return _last_of_queue(arrivals, busy) - busy  # all are there then, whichever is last
        if len(sent.of_targets) == len(busy):
            return arrivals
        grants = arrivals.copy()
        for mine in sent.of_targets:
            grants[mine] = _last_of_queue(arrivals[mine], busy[mine]) - busy[mine]
        return grants

    def _deliver(self, sent: _Messages, kept: dict[int, IntArray], complete: IntArray, last: int) -> None:
        stage, num_pes = sent.stage, sent.num_pes
        targets = len(stage.first_pe)
        arrived = np.full(targets, NEVER, dtype=np.int64)
        if targets == 1 and len(complete):
            arrived[0] = max(int(complete.max()), last)  # it waits for all messages
        elif len(sent.of_targets) == len(complete):
            arrived[stage.target] = complete
        else:
            np.maximum.at(arrived, stage.target, complete)
        if stage.to_root:
            kept[stage.output] = _with_last(arrived, max(last, int(arrived.max())))
            return
        if sent.reaches_all:
            kept[stage.output] = np.full(num_pes + 1, arrived[0])
            return
        on_pes = np.full(num_pes, NEVER, dtype=np.int64)
        pes, target = sent.receivers
        on_pes[pes] = arrived[target]
        somewhere = self.somewhere.least(on_pes)
        if kept is self.slots and targets > 1 and last > somewhere:
            self._move_somewhere(self._slowest_of(stage, on_pes > NEVER // 2))
            somewhere = last
        kept[stage.output] = _with_last(on_pes, somewhere)

    def _slowest_of(self, stage: MessageStage, targets: BoolArray) -> Among:
        """The PEs, out of all that get messages, of which one gets the last."""
        attending = targets & self.machine.anywhere.mask
        before = np.concatenate(([0], np.cumsum(attending)))
        every_target_has_one = (before[stage.last_pe] > before[stage.first_pe]).all()
        return self.machine.among(targets) if every_target_has_one else Among(targets)

    def _move_somewhere(self, somewhere: Among) -> None:
        """Makes the last entries stand for another PE, one of these: they fall to what holds for any of them."""
        self.renewed, self.somewhere = True, somewhere
        self.free = self.machine.renew(self.free, somewhere)
        for kept in (self.slots, self.heads):
            kept.update({slot: self.machine.renew(values, somewhere) for slot, values in kept.items()})

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
        """(hubs + 1,) when each hub has all inputs; a single job serves every group."""
        ready = np.full(len(hubs) + 1, NEVER if inputs else 0, dtype=np.int64)
        for slot in inputs:
            values = self.slots[slot]
            there = np.append(values[hubs], values[-1]) if len(values) > 2 else values[:1]
            ready = np.maximum(ready, there)
        return ready

    def _over_graph(self, stage: RoutedStage) -> None:
        from pe_sim.network.interconnect import interconnect_of  # loads networkx
        from pe_sim.network.routing.hop_times import ChannelTimes, run_hops

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
                kept[stage.output] = self.somewhere.extend(np.where(stage.to_pes, cycles, NEVER))


def _later(values: IntArray, cycles: int) -> IntArray:
    """The values that many cycles later; NEVER stays as it is."""
    return np.where(values > NEVER // 2, values + cycles, values)


def _with_last(values: IntArray, last: int) -> IntArray:
    """(n + 1,) the values and `last`, as np.append gives them, without its checks."""
    longer = np.empty(len(values) + 1, dtype=np.int64)
    longer[:-1], longer[-1] = values, last
    return longer


def _prepared(machine: Machine, stage: Stage) -> _Step:
    array = machine.array
    match stage:
        case PeStage():
            return _on_pes(machine, stage)
        case MessageStage():
            busy, burst_bytes = stage.num_bytes, None
            if stage.channel is Resource.DOWNLINK:
                busy = ceil_div(busy, array.bus_tree.tree.bytes_per_cycle)
            elif len(busy):
                bus = array.bus_tree.bus
                busy, burst_bytes = occupancy_cycles(bus, busy, stage.source_rate), bus.burst_bytes
            return _Messages(stage, array.num_pes, busy, burst_bytes)
    return stage


def _on_pes(machine: Machine, stage: PeStage) -> _OnPes:
    cycles, matrix = stage.cycles, stage.matrix
    if matrix is not None:
        if matrix not in machine.matrices:
            machine.matrices[matrix] = matrix_cycles(matrix, machine.array)
        cycles = machine.matrices[matrix]
    on_all = np.broadcast_to(cycles, stage.active.shape)
    return _OnPes(stage.inputs, stage.output, stage.active, on_all, stage.tail_cycles)


def matrix_cycles(work: MatrixWork, array: ArrayConfig) -> IntArray:
    """(PEs,) least cycles of a matrix operator: with all prefetched that can be, where the array prefetches."""
    if array.overlap < PREFETCHING_OVERLAP or not work.static:
        return matrix_times(work, array, None).duration
    fetched = matrix_times(work, array, np.full(work.stream_bytes.shape, _LONG_FREE, dtype=np.int64))
    return np.maximum(fetched.stream_end, work.compute_cycles) + array.pe.matrix.latency_cycles


def _last_of_queue(arrivals: IntArray, busy: IntArray) -> int:
    """Cycle when a channel that serves one by one is done with all: max of arrival + busy cycles from then on."""
    order = np.argsort(arrivals, kind="stable")
    waiting = np.cumsum(busy[order][::-1])[::-1]
    return int((arrivals[order] + waiting).max())
