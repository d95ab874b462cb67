"""The fast engine: the event engine's cycles by recurrences over stages, each distinct block state only once."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pe_sim.engine.block_pass import BlockPass, BlockRecord, MachineState, Ready
from pe_sim.engine.block_plan import BlockPlan, plan_block
from pe_sim.engine.event import check_overlap, run_event
from pe_sim.engine.fast_trace import Visit, write_details
from pe_sim.engine.recurrences import NEVER, ChannelState, OutOfOrderError, TreeState
from pe_sim.schedule.stages import MessageStage, Resource, Schedule, TreeStage
from pe_sim.trace import TagTraffic, Trace
from pe_sim.units import IntArray

_FALLBACK = (
    "requests of different stages reach the bus or the root in another order than the program's, or in bursts; "
    "simulated event by event"
)


def run_fast(schedule: Schedule) -> Trace:
    """Simulates a schedule; where one pass in program order would not be exact, event by event, which a note says.

    Raises:
        InputError: the array asks for an overlap level that is not simulated.
    """
    check_overlap(schedule.array)
    try:
        return _FastRun(schedule).run()
    except OutOfOrderError:
        return replace(run_event(schedule), engine="fast", notes=(_FALLBACK,))


@dataclass(slots=True)
class _Outcome:
    """A block's pass, relative to the cycle it was entered: cycles, machine state and values it leaves."""

    record: BlockRecord
    state: MachineState


class _FastRun:
    """One simulation of one schedule."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule, self._array = schedule, schedule.array
        self._plans: dict[int, BlockPlan] = {}
        self._known: dict[tuple[int, bytes], _Outcome] = {}
        # The future of a port that has been free this long does not depend on how long.
        memory, buffer = self._array.pe.memory, self._array.pe.buffer
        self._port_horizon = memory.latency_cycles + -(-buffer.prefetch_bytes // memory.bytes_per_cycle) + 1

    def run(self) -> Trace:
        """Runs all blocks in program order."""
        state = self._initial_state()
        carried: dict[int, list[Ready]] = {}
        visits: list[Visit] = []
        for run in self._schedule.sequence:
            plan = self._plan(run.block)
            entries = carried.get(run.lane, []) if plan.block.entries else []
            base = 0 if plan.starts_alone else _earliest(entries)
            outcome = self._outcome(run.block, plan, _shifted_state(state, -base, self._floors(plan)), entries, base)
            state = _shifted_state(outcome.state, base, None)
            carried[run.lane] = [_shifted(ready, base) for ready in outcome.record.exits]
            visits.append(Visit(plan, outcome.record, base, run))
        return self._trace(visits)

    def _plan(self, block: int) -> BlockPlan:
        if block not in self._plans:
            self._plans[block] = plan_block(self._schedule.blocks[block], self._array)
        return self._plans[block]

    def _outcome(self, block: int, plan: BlockPlan, state: MachineState, entries: list[Ready], base: int) -> _Outcome:
        """The block's outcome from a state relative to `base`: equal states have equal futures."""
        relative = [_shifted(ready, -base) for ready in entries]
        key = (block, _fingerprint(state, relative))
        outcome = self._known.get(key)
        if outcome is None:
            record = BlockPass(plan, self._array, state, relative).run()
            outcome = self._known[key] = _Outcome(record, state)
        return outcome

    def _floors(self, plan: BlockPlan) -> tuple[int, int] | None:
        """What was free long before a block begins might as well have been free just then."""
        return None if plan.starts_alone else (0, -self._port_horizon)

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
        for visit in visits:
            plan = visit.plan
            for tag, use in plan.traffic.items():
                total = traffic.setdefault(tag, TagTraffic())
                total.messages += use.messages
                total.bytes += use.bytes
                total.busy_cycles += use.busy_cycles
            pe_busy["pe_matrix"] += plan.matrix_busy
            pe_busy["pe_vector"] += plan.vector_busy
            pe_busy["pe_memory"] += plan.memory_busy
            if visit.record.memory_busy is not None:
                pe_busy["pe_memory"] += visit.record.memory_busy
            for resource, busy in plan.root_busy.items():
                root_busy[resource] = root_busy.get(resource, 0) + busy
            read_bytes += plan.read_bytes
        return Trace(
            engine="fast",
            makespan_cycles=max(visit.base + visit.record.last_end for visit in visits),
            details=lambda: write_details(visits),
            traffic=traffic,
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
    """A copy in another frame of time; `floors` lift what is free before them (units, and ports)."""
    units, ports = floors if floors is not None else (NEVER, NEVER)

    def channel(old: ChannelState) -> ChannelState:
        last = old.last_arrival + cycles if old.last_arrival > NEVER else NEVER
        return ChannelState(max(old.free_at + cycles, units), max(last, units))

    def tree(old: TreeState) -> TreeState:
        return old.shifted(cycles, units)

    return MachineState(
        pe_free=np.maximum(state.pe_free + cycles, units),
        port_free=np.maximum(state.port_free + cycles, ports),
        bus=channel(state.bus),
        root={resource: channel(old) for resource, old in state.root.items()},
        tree=tree(state.tree),
        downlink=tree(state.downlink),
    )


def _fingerprint(state: MachineState, entries: list[Ready]) -> bytes:
    parts = [state.pe_free, state.port_free, state.tree.free_at, state.downlink.free_at]
    scalars = [state.bus.free_at, state.bus.last_arrival]
    for channel in state.root.values():
        scalars += [channel.free_at, channel.last_arrival]
    kinds = [len(ready) if not isinstance(ready, int) else -1 for ready in entries]
    parts += [np.asarray(ready, dtype=np.int64) for ready in entries]
    parts.append(np.array([*scalars, *kinds], dtype=np.int64))
    return b"".join(part.tobytes() for part in parts)
