"""A PE's side of the event engine: what it executes and the state of its units."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from pe_sim.engine.readiness import Delivery
from pe_sim.schedule.matrix_timing import MatrixTiming, PeMatrixWork, works_of
from pe_sim.schedule.stages import PeStage, Resource
from pe_sim.trace import NOT_ACTIVE


class Consumer(Protocol):
    """A collective that waits for PEs."""

    def arrive(self, pe: int) -> None:
        """One of the collective's inputs is ready on `pe`."""
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
    """One stage of one layer as the PEs see it; start and end cycles are written by the PEs."""

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
    """A PE's memory port and busy counters; `port_free_at` is when the next access can start."""

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
