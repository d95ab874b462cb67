"""The fast engine: the event engine's cycles by recurrences over stages, each distinct block state only once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import blake2b

import numpy as np

from pe_sim.config.networks.network import GraphNetwork, Network
from pe_sim.engine.arbiters import FIFO
from pe_sim.engine.fast.arrival_pass import ArrivalPass, as_one_block
from pe_sim.engine.fast.block_pass import BlockPass, BlockRecord, MachineState, Ready
from pe_sim.engine.fast.block_plan import BlockPlan, Planner, block_totals
from pe_sim.engine.fast.recurrences import NEVER, ChannelState, OutOfOrderError, TreeState
from pe_sim.engine.fast.trace import Visit, runs_of, write_details
from pe_sim.mapping.classes import PeClasses, classes_of
from pe_sim.mapping.placed import PlacedGraph
from pe_sim.network.routing.hop_times import ChannelTimes
from pe_sim.schedule.lowering import lower, lower_steps
from pe_sim.schedule.memory_timing import memory_timing
from pe_sim.schedule.stages import (
    TAGS,
    MessageStage,
    Resource,
    Schedule,
    TreeStage,
    channel_names,
    read_bytes_of,
)
from pe_sim.trace import TagTraffic, Totals, Trace, total_traffic
from pe_sim.units import BoolArray, IntArray

_FALLBACK = (
    "messages go in bursts, or requests of different stages reach the bus, a channel or the root in another order than "
    "the program's and passes over the stages do not settle; simulated event by event"
)
_LARGE_STATE = 1 << 16  # bytes
Check = Callable[[], None] | None  # called again and again; an exception that it raises ends the simulation
_ARBITRATION = "channels are not given first come, first served: simulated event by event"


def run_fast(schedule: Schedule, check: Check = None) -> Trace:
    """The trace of a schedule; where no passes over its stages are exact, found event by event, with a note."""
    if schedule.array.network.arbitration != FIFO:
        return _event_by_event(schedule, _ARBITRATION, check)
    try:
        return run_by_arrival(schedule, check)
    except OutOfOrderError:
        return _event_by_event(schedule, _FALLBACK, check)


def run_by_arrival(schedule: Schedule, check: Check = None) -> Trace:
    """The trace of a schedule; where requests are overtaken, passes over their block, or over all blocks, are repeated.

    Raises:
        OutOfOrderError: that is not exact either.
    """
    try:
        return run_block_by_block(schedule, check)
    except OutOfOrderError:
        run = _FastRun(schedule, ArrivalPass, check)
        return run.trace(run.visits_at_once())


def run_block_by_block(schedule: Schedule, check: Check = None) -> Trace:
    """The trace of a schedule; where requests are overtaken within a block, passes over the block are repeated.

    Raises:
        OutOfOrderError: requests of different blocks overtake one another.
    """
    run = _FastRun(schedule, ArrivalPass, check)
    return run.trace(run.visits())


def run_in_program_order(schedule: Schedule) -> Trace:
    """The trace of a schedule, found in one pass.

    Raises:
        OutOfOrderError: that is not exact.
    """
    run = _FastRun(schedule)
    return run.trace(run.visits())


def _event_by_event(schedule: Schedule, note: str, check: Check) -> Trace:
    from pe_sim.engine.event.run import run_event  # loads SimPy, which no other step needs

    return replace(run_event(schedule, check), engine="fast", notes=(note,))


@dataclass(frozen=True, slots=True)
class StepsTrace:
    """Makespans and traffic of several steps that were run together.

    Args:
        makespan_cycles: (steps,) each step's last event.
        exact: (steps,) whether one pass in program order was exact; the others are to be run one by one.
        traffic: per tag, over all steps, exact or not; empty if no step could be run so.
    """

    makespan_cycles: IntArray
    exact: BoolArray
    traffic: dict[str, TagTraffic]


def run_steps(schedule: Schedule) -> StepsTrace:
    """Makespans and traffic of all steps of a schedule over classes of PEs, simulated at once.

    Raises:
        OutOfOrderError: messages go in bursts; no step can be run so.
    """
    run = _FastRun(schedule)
    visits = run.visits()
    ends = np.max([visit.base + visit.record.last_end for visit in visits], axis=0)
    exact = np.broadcast_to(~run.overtaken, ends.shape)
    return StepsTrace(ends[:, 0], exact[:, 0], run.traffic(visits))


@dataclass(slots=True, eq=False)
class _Outcome:
    """The outcome of a block's pass, relative to the cycle it was entered: cycles, and the machine's state after it.

    `successors` maps a block to the cycles until it is entered and its outcome, once that has been worked out.
    """

    record: BlockRecord
    state: MachineState
    successors: dict[int, tuple[IntArray, _Outcome]] = field(default_factory=dict)


class _FastRun:
    """One simulation of one schedule; (..., PEs) is (steps, classes) where it is of several steps at once."""

    def __init__(self, schedule: Schedule, passes: type[BlockPass] = BlockPass, check: Check = None) -> None:
        self._schedule, self._array, self._passes, self._check = schedule, schedule.array, passes, check
        classes = schedule.classes
        self._shape = (classes.num_steps, classes.num_classes) if classes else (self._array.num_pes,)
        self._planner = Planner(self._array, classes)
        self._plans: dict[int, BlockPlan] = {}
        self._known: dict[tuple[int, bytes], _Outcome] = {}
        self.overtaken: BoolArray = np.zeros(1, dtype=bool)
        # A port that has been free this long behaves alike, however much longer it has been free.
        memory = memory_timing(self._array.pe.memory)
        self._port_horizon = memory.latency_cycles + memory.stream_cycles(self._array.pe.buffer.prefetch_bytes) + 1

    def trace(self, visits: list[Visit]) -> Trace:
        """The trace of the one step of the schedule.

        Raises:
            OutOfOrderError: requests were overtaken.
        """
        if self.overtaken.any():
            raise OutOfOrderError
        self._known.clear()  # states of the machine: nothing is run again
        return Trace(
            engine="fast",
            makespan_cycles=max(int((visit.base + visit.record.last_end)[0]) for visit in visits),
            details=lambda: write_details(visits, channel_names(self._schedule)),
            counts=lambda: self.traffic(visits),
            totals=lambda: self._totals(visits),
            blocks=lambda: runs_of(visits),
        )

    def visits(self) -> list[Visit]:
        """Visits of all blocks in program order; a block whose state was met before is not run again."""
        visits: list[Visit] = []
        base = np.zeros(1, dtype=np.int64)
        outcome = _Outcome(BlockRecord(), self._initial_state())
        leaving: dict[int, tuple[_Outcome, IntArray]] = {}  # by lane: its last outcome, and when that was entered
        for run in self._schedule.sequence:
            plan = self._plan(run.block)
            source, entered = leaving.get(run.lane, (outcome, base))
            known = outcome.successors.get(run.block) if source is outcome else None
            if known is None:
                known = self._next(outcome, plan, run.block, source.record, entered - base, -base)
                if source is outcome and not plan.starts_alone:
                    outcome.successors[run.block] = known
            delta, outcome = known
            base = base + delta
            leaving[run.lane] = outcome, base
            visits.append(Visit(plan, outcome.record, base, run))
        return visits

    def visits_at_once(self) -> list[Visit]:
        """Visits of all blocks, run as if they were one.

        Raises:
            OutOfOrderError: there is no recurrence for it.
        """
        if not isinstance(self._array.network, Network):
            raise OutOfOrderError  # channels of a graph keep the program's order
        plan = self._planner.plan(as_one_block(self._schedule))
        state = self._initial_state()
        whole = ArrivalPass(plan, self._array, self._shape, state, [], [], self._check).settled()
        visits: list[Visit] = []
        base, first, memory_busy = np.zeros(1, dtype=np.int64), 0, whole.memory_busy
        for run in self._schedule.sequence:
            last = first + len(self._schedule.blocks[run.block].stages)
            record = BlockRecord(whole.stages[first:last], last_end=whole.last_end, memory_busy=memory_busy)
            visits.append(Visit(self._plan(run.block), record, base, run))
            first, memory_busy = last, None
        return visits

    def traffic(self, visits: list[Visit]) -> dict[str, TagTraffic]:
        """Traffic by tag, in the order of the tags."""
        runs = Counter(visit.run.block for visit in visits)
        traffic = total_traffic((self._planner.traffic(self._plans[block]), times) for block, times in runs.items())
        return {tag.value: traffic[tag.value] for tag in TAGS if tag.value in traffic}

    def _plan(self, block: int) -> BlockPlan:
        if block not in self._plans:
            self._plans[block] = self._planner.plan(self._schedule.blocks[block])
        return self._plans[block]

    @cached_property
    def _ever_works(self) -> BoolArray:
        """(..., PEs) whether some block runs something on each PE; only the past of those matters."""
        works = np.zeros(1, dtype=bool)
        for block in range(len(self._schedule.blocks)):
            works = works | self._plan(block).takes_part
        return works

    def _next(
        self, before: _Outcome, plan: BlockPlan, block: int, source: BlockRecord, shift: IntArray, origin: IntArray
    ) -> tuple[IntArray, _Outcome]:
        """Cycles until the block is entered, and its outcome, from the machine as `before` left it.

        Args:
            source: the record of the block whose values enter, `shift` cycles away from the frame of `before`.
            origin: cycle 0 in the frame of `before`, from which a stage that waits for nothing starts.
        """
        entries = [_shifted(ready, shift) for ready in source.exits] if plan.block.entries else []
        heads = [None if head is None else _shifted(head, shift) for head in source.exit_heads] if entries else []
        delta = origin if plan.starts_alone else _earliest([*entries, *(head for head in heads if head is not None)])
        state = _shifted_state(before.state, -delta, None if plan.starts_alone else self._port_horizon)
        if not plan.starts_alone:
            state.pe_free = np.where(self._ever_works, state.pe_free, 0)
        relative = [_shifted(ready, -delta) for ready in entries]
        relative_heads = [None if head is None else _shifted(head, -delta) for head in heads]
        key = (block, _fingerprint(state, relative, relative_heads))
        if key not in self._known:
            passed = self._passes(plan, self._array, self._shape, state, relative, relative_heads, self._check)
            record = passed.run()
            self.overtaken = self.overtaken | state.overtaken
            self._known[key] = _Outcome(record, state)
        return delta, self._known[key]

    def _initial_state(self) -> MachineState:
        zeros = np.zeros(self._shape, dtype=np.int64)
        tree_cell, down_cell = self._cell_sizes()
        network = self._array.network
        levels = network.tree.num_levels if isinstance(network, Network) else 0
        return MachineState(
            pe_free=zeros,
            port_free=zeros.copy(),
            bus=ChannelState(),
            root={resource: ChannelState() for resource in (Resource.ROOT_VECTOR, Resource.ROOT_MEMORY)},
            tree=TreeState(self._array.num_pes, levels, tree_cell),
            downlink=TreeState(self._array.num_pes, 0, down_cell),
            channels=ChannelTimes.idle(0 if isinstance(network, Network) else self._num_channels()),
        )

    def _num_channels(self) -> int:
        from pe_sim.network.interconnect import interconnect_of  # loads networkx

        return len(interconnect_of(self._array).topology.channels)

    def _cell_sizes(self) -> tuple[int, int]:
        """Numbers of neighbouring PEs whose joints are always used together, in the tree and in the downlink."""
        tree = down = self._array.num_pes
        for block in self._schedule.blocks:
            for stage in block.stages:
                if isinstance(stage, TreeStage) and not stage.whole_tree:
                    tree = min(tree, int((stage.last_pe - stage.first_pe).max()))
                elif isinstance(stage, MessageStage) and stage.channel is Resource.DOWNLINK:
                    down = min(down, int((stage.last_pe - stage.first_pe).max()))
        return tree, down

    def _totals(self, visits: list[Visit]) -> Totals:
        names = (Resource.PE_MATRIX, Resource.PE_VECTOR, Resource.PE_MEMORY)
        totals = Totals(
            {name.value: np.zeros(self._array.num_pes, dtype=np.int64) for name in names},
            {Resource.ROOT_VECTOR.value: 0, Resource.ROOT_MEMORY.value: 0},
        )
        for block, times in Counter(visit.run.block for visit in visits).items():
            of_block = block_totals(self._plans[block], self._array.num_pes)
            for name, busy in of_block.pe_busy.items():
                totals.pe_busy[name] += times * busy
            for resource, cycles in of_block.root_busy.items():
                totals.root_busy[resource] += times * cycles
            totals.read_bytes += times * sum(read_bytes_of(stage) for stage in self._schedule.blocks[block].stages)
        records = {id(visit.record): visit.record for visit in visits}
        for identity, times in Counter(id(visit.record) for visit in visits).items():
            memory_busy = records[identity].memory_busy
            if memory_busy is not None:
                totals.pe_busy[Resource.PE_MEMORY.value] += times * memory_busy
        return totals


def _earliest(entries: list[Ready]) -> IntArray:
    """(..., 1) the first cycle at which any value that enters a block is there; 0 for a block without entries."""
    earliest: IntArray | None = None
    for ready in entries:
        there = np.where(ready > NEVER, ready, -NEVER).min(axis=-1, keepdims=True)
        first = np.where(there < -NEVER, there, 0)
        earliest = first if earliest is None else np.minimum(earliest, first)
    return np.zeros(1, dtype=np.int64) if earliest is None else earliest


def _shifted(ready: Ready, cycles: IntArray) -> Ready:
    return np.where(ready > NEVER, ready + cycles, NEVER)


def _shifted_state(state: MachineState, cycles: IntArray, port_horizon: int | None) -> MachineState:
    """A copy of the state with all times moved by `cycles`.

    How long something has been free when a block begins does not matter: with a `port_horizon`, times of channels are
    lifted to cycle 0, and those of ports to so many cycles before it.
    """
    units, ports = (NEVER, NEVER) if port_horizon is None else (0, -port_horizon)
    return MachineState(
        pe_free=state.pe_free + cycles,
        port_free=np.maximum(state.port_free + cycles, ports),
        bus=state.bus.shifted(cycles, units),
        root={resource: channel.shifted(cycles, units) for resource, channel in state.root.items()},
        tree=state.tree.shifted(cycles, units),
        downlink=state.downlink.shifted(cycles, units),
        channels=state.channels.shifted(cycles, units),
    )


def _fingerprint(state: MachineState, entries: list[Ready], heads: list[Ready | None]) -> bytes:
    """A key that differs where anything differs that a block's cycles depend on; for a large state, a digest."""
    parts = [state.pe_free, state.port_free, state.tree.free_at, state.downlink.free_at]
    parts += [state.channels.free_at, state.channels.last_arrival]
    for channel in (state.bus, *state.root.values()):
        parts += [channel.free_at, channel.last_arrival]
    parts += [*entries, *(head for head in heads if head is not None)]
    sizes = [*(part.shape[-1] for part in parts), *(head is None for head in heads)]
    shapes = bytes(str(sizes), "ascii")
    if sum(part.nbytes for part in parts) < _LARGE_STATE:
        return b"".join([part.tobytes() for part in parts]) + shapes
    digest = blake2b(shapes)
    for part in parts:
        digest.update(np.ascontiguousarray(part).data)
    return digest.digest()


# ---- The decode steps of a generation, many at once, from the first one placed.


_ENTRIES = 2**16  # in one array over steps and classes: half a MiB, so that the arrays of a stage stay in the cache


def run_decode_steps(placed: PlacedGraph, num_steps: int) -> Iterator[StepsTrace]:
    """Traces of the steps in order, some at a time; step i has i more tokens of every sequence in its cache.

    A step for which one pass in program order is not exact is marked, and has to be run by itself. So has every step on
    an interconnect that is a graph, for which nothing is yielded.

    Args:
        placed: the first decode step.
    """
    if isinstance(placed.array.network, GraphNetwork):
        return
    lower(placed)  # asks the layouts for everything in which PEs can differ
    classes = classes_of(placed, num_steps)
    at_once = max(1, _ENTRIES // classes.num_classes)
    for first in range(0, num_steps, at_once):
        yield _run(placed, classes.of_steps(first, min(first + at_once, num_steps)))


def _run(placed: PlacedGraph, classes: PeClasses) -> StepsTrace:
    try:
        return run_steps(lower_steps(placed, classes))
    except OutOfOrderError:
        nothing = np.zeros(classes.num_steps, dtype=np.int64)
        return StepsTrace(nothing, nothing > 0, {})
