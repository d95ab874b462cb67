"""The fast engine: the event engine's cycles by recurrences over stages, each distinct block state only once."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from pe_sim.engine.block_pass import BlockPass, BlockRecord, MachineState, Ready
from pe_sim.engine.block_plan import BlockPlan, plan_block
from pe_sim.engine.fast_trace import Visit, write_details
from pe_sim.engine.recorder import TAGS
from pe_sim.engine.recurrences import NEVER, ChannelState, MatrixTimes, OutOfOrderError, TreeState
from pe_sim.schedule.stages import MessageStage, Resource, Schedule, TreeStage
from pe_sim.trace import TagTraffic, Trace
from pe_sim.units import BoolArray, IntArray

_FALLBACK = (
    "requests of different stages reach the bus or the root in another order than the program's, or in bursts; "
    "simulated event by event"
)


def run_fast(schedule: Schedule) -> Trace:
    """Simulates a schedule; where one pass in program order would not be exact, event by event, which a note says."""
    try:
        return _FastRun(schedule).run()
    except OutOfOrderError:
        from pe_sim.engine.event import run_event  # loads SimPy, which no other step needs

        return replace(run_event(schedule), engine="fast", notes=(_FALLBACK,))


@dataclass(slots=True, eq=False)
class _Outcome:
    """A block's pass, relative to the cycle it was entered: cycles, the machine's state after it, what comes next.

    `successors` maps a block to the cycles until it is entered and its outcome, once that has been worked out.
    """

    record: BlockRecord
    state: MachineState
    successors: dict[int, tuple[int, _Outcome]] = field(default_factory=dict)


class _FastRun:
    """One simulation of one schedule."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule, self._array = schedule, schedule.array
        self._plans: dict[int, BlockPlan] = {}
        self._times: dict[int, MatrixTimes] = {}
        self._known: dict[tuple[int, bytes], _Outcome] = {}
        # The future of a port that has been free this long does not depend on how long.
        memory, buffer = self._array.pe.memory, self._array.pe.buffer
        self._port_horizon = memory.latency_cycles + -(-buffer.prefetch_bytes // memory.bytes_per_cycle) + 1

    def run(self) -> Trace:
        """Runs all blocks in program order; a block whose state was met before is not run again."""
        visits: list[Visit] = []
        outcome, base = _Outcome(BlockRecord(), self._initial_state()), 0
        leaving: dict[int, tuple[_Outcome, int]] = {}  # of each lane, its last outcome and when that block was entered
        for run in self._schedule.sequence:
            plan = self._plan(run.block)
            source, entered = leaving.get(run.lane, (outcome, base))
            known = outcome.successors.get(run.block) if source is outcome else None
            if known is None:
                known = self._next(outcome, plan, run.block, source.record, entered - base, -base)
                if source is outcome and not plan.starts_alone:
                    outcome.successors[run.block] = known
            delta, outcome = known
            base += delta
            leaving[run.lane] = outcome, base
            visits.append(Visit(plan, outcome.record, base, run))
        return self._trace(visits)

    def _plan(self, block: int) -> BlockPlan:
        if block not in self._plans:
            self._plans[block] = plan_block(self._schedule.blocks[block], self._array, self._times)
        return self._plans[block]

    @cached_property
    def _ever_works(self) -> BoolArray:
        """(PEs,) PEs that some block runs something on; only those have a past that matters."""
        works = np.zeros(self._array.num_pes, dtype=bool)
        for block in range(len(self._schedule.blocks)):
            works |= self._plan(block).takes_part
        return works

    def _next(
        self, before: _Outcome, plan: BlockPlan, block: int, source: BlockRecord, shift: int, origin: int
    ) -> tuple[int, _Outcome]:
        """Cycles until the block is entered, and its outcome, from the machine as `before` left it.

        Args:
            source: the record of the block whose values enter, `shift` cycles away from the frame of `before`.
            origin: cycle 0 in the frame of `before`, from which a stage that waits for nothing starts.
        """
        entries = [_shifted(ready, shift) for ready in source.exits] if plan.block.entries else []
        heads = [None if head is None else _shifted(head, shift) for head in source.exit_heads] if entries else []
        delta = origin if plan.starts_alone else _earliest([*entries, *(head for head in heads if head is not None)])
        # What was free long before a block begins might as well have been free just then.
        floors = None if plan.starts_alone else (0, -self._port_horizon)
        state = _shifted_state(before.state, -delta, floors)
        if floors is not None:
            state.pe_free = np.where(self._ever_works, state.pe_free, 0)
        relative = [_shifted(ready, -delta) for ready in entries]
        relative_heads = [None if head is None else _shifted(head, -delta) for head in heads]
        key = (block, _fingerprint(state, relative, relative_heads))
        if key not in self._known:
            record = BlockPass(plan, self._array, state, relative, relative_heads).run()
            self._known[key] = _Outcome(record, state)
        return delta, self._known[key]

    def _initial_state(self) -> MachineState:
        zeros = np.zeros(self._array.num_pes, dtype=np.int64)
        tree_cell, down_cell = self._cell_sizes()
        levels = self._array.network.tree.num_levels
        return MachineState(
            pe_free=zeros,
            port_free=zeros.copy(),
            bus=ChannelState(),
            root={resource: ChannelState() for resource in (Resource.ROOT_VECTOR, Resource.ROOT_MEMORY)},
            tree=TreeState(self._array.num_pes, levels, tree_cell),
            downlink=TreeState(self._array.num_pes, 1, down_cell),
        )

    def _cell_sizes(self) -> tuple[int, int]:
        """PEs whose joints are always used together, in the tree and in the downlink."""
        tree = down = self._array.num_pes
        for block in self._schedule.blocks:
            for stage in block.stages:
                if isinstance(stage, TreeStage) and not stage.whole_tree:
                    tree = min(tree, int(stage.last_pe[0] - stage.first_pe[0]))
                elif isinstance(stage, MessageStage) and stage.channel is Resource.DOWNLINK:
                    down = min(down, int(stage.last_pe[0] - stage.first_pe[0]))
        return tree, down

    def _trace(self, visits: list[Visit]) -> Trace:
        traffic: dict[str, TagTraffic] = {}
        zeros = np.zeros(self._array.num_pes, dtype=np.int64)
        pe_busy: dict[str, IntArray] = {name: zeros.copy() for name in ("pe_matrix", "pe_vector", "pe_memory")}
        root_busy: dict[str, int] = {}
        read_bytes = 0
        for block, times in Counter(visit.run.block for visit in visits).items():
            plan = self._plans[block]
            for tag, use in plan.traffic.items():
                total = traffic.setdefault(tag, TagTraffic())
                total.messages += times * use.messages
                total.bytes += times * use.bytes
                total.busy_cycles += times * use.busy_cycles
            for name, busy in zip(pe_busy, (plan.matrix_busy, plan.vector_busy, plan.memory_busy), strict=True):
                pe_busy[name] += times * busy
            for resource, cycles in plan.root_busy.items():
                root_busy[resource] = root_busy.get(resource, 0) + times * cycles
            read_bytes += times * plan.read_bytes
        records = {id(visit.record): visit.record for visit in visits}
        for identity, times in Counter(id(visit.record) for visit in visits).items():
            memory_busy = records[identity].memory_busy
            if memory_busy is not None:
                pe_busy["pe_memory"] += times * memory_busy
        return Trace(
            engine="fast",
            makespan_cycles=max(visit.base + visit.record.last_end for visit in visits),
            details=lambda: write_details(visits),
            traffic={tag.value: traffic[tag.value] for tag in TAGS if tag.value in traffic},
            pe_busy=pe_busy,
            root_busy=root_busy,
            read_bytes=read_bytes,
        )


def _earliest(entries: list[Ready]) -> int:
    """The first cycle at which anything that enters a block is there; 0 for a block without entries."""
    return min((_first(ready) for ready in entries), default=0)


def _first(ready: Ready) -> int:
    if isinstance(ready, int):
        return ready
    there = ready[ready > NEVER]
    return int(there.min()) if len(there) else 0


def _shifted(ready: Ready, cycles: int) -> Ready:
    if isinstance(ready, int):
        return ready + cycles
    return np.where(ready > NEVER, ready + cycles, NEVER)


def _shifted_state(state: MachineState, cycles: int, floors: tuple[int, int] | None) -> MachineState:
    """A copy in another frame of time; `floors` lift what is free before them (channels, and ports)."""
    units, ports = floors if floors is not None else (NEVER, NEVER)

    def channel(old: ChannelState) -> ChannelState:
        last = old.last_arrival + cycles if old.last_arrival > NEVER else NEVER
        return ChannelState(max(old.free_at + cycles, units), max(last, units))

    def tree(old: TreeState) -> TreeState:
        return old.shifted(cycles, units)

    return MachineState(
        pe_free=state.pe_free + cycles,
        port_free=np.maximum(state.port_free + cycles, ports),
        bus=channel(state.bus),
        root={resource: channel(old) for resource, old in state.root.items()},
        tree=tree(state.tree),
        downlink=tree(state.downlink),
    )


def _fingerprint(state: MachineState, entries: list[Ready], heads: list[Ready | None]) -> bytes:
    parts = [state.pe_free, state.port_free, state.tree.free_at, state.downlink.free_at]
    scalars = [state.bus.free_at, state.bus.last_arrival]
    for channel in state.root.values():
        scalars += [channel.free_at, channel.last_arrival]
    entering = [*entries, *(0 if head is None else head for head in heads)]
    kinds = [-1 if isinstance(ready, int) else len(ready) for ready in entering]
    kinds += [head is None for head in heads]
    parts += [np.asarray(ready, dtype=np.int64) for ready in entering]
    parts.append(np.array([*scalars, *kinds], dtype=np.int64))
    return b"".join(part.tobytes() for part in parts)
