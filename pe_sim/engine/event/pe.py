"""PEs in the event engine: readiness of their data, their programs, and the state of their units."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any, Protocol

from simpy import Environment, Event

from pe_sim.schedule.matrix import MatrixTiming, PeMatrixWork, works_of
from pe_sim.schedule.stages import PeStage, Resource
from pe_sim.trace import NOT_ACTIVE

# ---- Readiness of data on ranges of PEs, and at hubs (the root's copies of groups, or joints).


class Delivery:
    """Readiness of data on PEs: one event for each target, and one for the head of what is streamed to it."""

    def __init__(
        self, env: Environment, order: int, target_of_pe: list[int], num_targets: int, *, streams: bool
    ) -> None:
        self.order = order
        self.events = [Event(env) for _ in range(num_targets)]
        self.heads = [Event(env) for _ in range(num_targets)] if streams else self.events
        self.tail_at = [0] * num_targets
        self._target_of_pe = target_of_pe

    def event_of(self, pe: int) -> Event:
        """The event that `pe`'s data is there."""
        return self.events[self._target_of_pe[pe]]

    def head_of(self, pe: int) -> Event:
        """The event that the head of `pe`'s data is there."""
        return self.heads[self._target_of_pe[pe]]

    def wait_for_tail(self, env: Environment, pe: int, tail_cycles: int) -> Generator[Event, Any, None]:
        """Waits until `tail_cycles` after the tail, if the data was streamed."""
        if self.heads is self.events:
            return
        event = self.event_of(pe)
        if event.callbacks is not None:
            yield event
        left = self.tail_at[self._target_of_pe[pe]] + tail_cycles - int(env.now)
        if left > 0:
            yield env.timeout(left)

    def pes_of(self, target: int) -> list[int]:
        """The PEs of one target."""
        return [pe for pe, index in enumerate(self._target_of_pe) if index == target]


class HubSource:
    """Readiness of data at hubs (the root's copies or joints): one event each."""

    def __init__(self, env: Environment, order: int, num_hubs: int) -> None:
        self.order = order
        self.events = [Event(env) for _ in range(num_hubs)]
        self._tails: dict[int, int] = {}
        self._watchers: dict[int, list[Callable[[int], None]]] = {}

    def event_of(self, hub: int) -> Event:
        """The event that the hub's data is there; a single job serves every group."""
        return self.events[hub if len(self.events) > 1 else 0]

    def watch_tail(self, hub: int, watcher: Callable[[int], None]) -> None:
        """Calls `watcher` with the cycle of the hub's tail as soon as it is known, before the tail is there."""
        if hub in self._tails:
            watcher(self._tails[hub])
        else:
            self._watchers.setdefault(hub, []).append(watcher)

    def foretell_tail(self, hub: int, cycle: int) -> None:
        """Says that the hub's reduction has begun, so that its tail comes at `cycle`."""
        self._tails[hub] = cycle
        for watcher in self._watchers.pop(hub, []):
            watcher(cycle)


class Consumer(Protocol):
    """Interface of a collective that waits for PEs."""

    def arrive(self, pe: int) -> None:
        """Says that one of the collective's inputs is ready on `pe`."""
        ...


@dataclass(frozen=True, slots=True)
class PeTask:
    """A stage's arrays as lists, made once for all layers that repeat it."""

    stage: PeStage
    active: list[bool]
    cycles: list[int]
    works: list[PeMatrixWork] | None
    tails: list[int] | None

    @classmethod
    def of(cls, stage: PeStage) -> PeTask:
        """The lists of one stage."""
        works = works_of(stage.matrix) if stage.matrix is not None else None
        tails = stage.tail_cycles.tolist() if stage.tail_cycles is not None else None
        return cls(stage, stage.active.tolist(), stage.cycles.tolist(), works, tails)


@dataclass(slots=True, eq=False)
class PeProgram:
    """One stage of one layer for the PEs, which write their start and end cycles into it."""

    order: int
    task: PeTask
    deliveries: list[Delivery]
    consumers: list[Consumer] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.starts = [NOT_ACTIVE] * len(self.task.active)
        self.ends = [NOT_ACTIVE] * len(self.task.active)


@dataclass(slots=True)
class PeState:
    """State of a PE: busy counters and its memory port, whose next access can start at `port_free_at`."""

    port_free_at: int = 0
    matrix_busy: int = 0
    vector_busy: int = 0
    memory_busy: int = 0
    waiting_for: tuple[int, int] | None = None

    def begin(self, task: PeTask, pe: int, start: int, timing: MatrixTiming) -> int:
        """Occupies the units an operator needs; returns its duration in cycles."""
        if task.works is not None:
            work = task.works[pe]
            span = timing.span(work, start - self.port_free_at)
            self.port_free_at = start + span.stream_end_cycles + timing.closing_cycles
            self.matrix_busy += work.full_passes * work.full_compute + work.last_compute
            self.memory_busy += span.memory_busy_cycles
            return span.duration_cycles
        cycles = task.cycles[pe]
        if task.stage.resource is Resource.PE_MEMORY:
            self.memory_busy += cycles
            cycles += max(0, self.port_free_at - start) if cycles else 0
            self.port_free_at = start + cycles + timing.closing_cycles  # one port: nothing is prefetched meanwhile
        else:
            self.vector_busy += cycles
        return cycles
