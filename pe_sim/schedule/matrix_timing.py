"""How long a matrix operator takes on one PE at each overlap level (machine model, section 4)."""

from __future__ import annotations

from dataclasses import dataclass

from pe_sim.config.array import ArrayConfig
from pe_sim.schedule.builders import PREFETCHING_OVERLAP
from pe_sim.schedule.memory_timing import memory_timing
from pe_sim.schedule.stages import MatrixWork


@dataclass(frozen=True, slots=True)
class MatrixSpan:
    """Relative to the operator's start, in cycles.

    Args:
        duration_cycles: until its last result.
        stream_end_cycles: when its last byte has come from memory.
        memory_busy_cycles: of the port, bytes prefetched before the start included.
        ahead_cycles: of the port, spent on prefetching before the start.
    """

    duration_cycles: int
    stream_end_cycles: int
    memory_busy_cycles: int
    ahead_cycles: int


class MatrixTiming:
    """The formulas for one array; one instance serves all PEs."""

    def __init__(self, array: ArrayConfig) -> None:
        self._overlap = array.overlap
        self._unit_latency = array.pe.matrix.latency_cycles
        self._memory = memory_timing(array.pe.memory)
        self._memory_latency = self._memory.latency_cycles
        self.closing_cycles = self._memory.closing_cycles  # after an access, before the next
        self._prefetch_bytes = array.pe.buffer.prefetch_bytes

    def span(self, work: PeMatrixWork, idle_cycles: int) -> MatrixSpan:
        """The operator's span if the memory has been free for `idle_cycles` when it starts; it waits for it if < 0."""
        lead = max(0, idle_cycles) if self._overlap >= PREFETCHING_OVERLAP and work.static else 0
        latency = max(0, self._memory_latency - lead) + max(0, -idle_cycles)
        fetched, spent, first_memory = 0, 0, work.first_memory
        if lead > self._memory_latency:
            ahead = lead - self._memory_latency
            fetched, spent = self._memory.fetched_ahead(work.stream_bytes, self._prefetch_bytes, ahead)
            first_memory = self._memory.rest_cycles(work.stream_bytes, fetched, spent)
        before, last_memory = self._passes_before_last(work, first_memory)
        memory_busy = self._memory.busy_latency_cycles + spent + first_memory + work.full_passes * work.pass_memory
        if self._overlap == 0:
            body = before + last_memory + work.last_compute
        else:
            body = before + max(last_memory, work.last_compute) + self._fill(work, fetched, last_memory)
        return MatrixSpan(latency + body + self._unit_latency, latency + before + last_memory, memory_busy, spent)

    def _passes_before_last(self, work: PeMatrixWork, first_memory: int) -> tuple[int, int]:
        """Cycles of the passes before the last one, and the last one's memory cycles."""
        if work.full_passes == 0:
            return 0, first_memory
        if self._overlap == 0:
            later = (work.full_passes - 1) * work.pass_memory
            return first_memory + later + work.full_passes * work.full_compute, work.pass_memory
        later = (work.full_passes - 1) * max(work.pass_memory, work.full_compute)
        return max(first_memory, work.full_compute) + later, work.pass_memory

    def _fill(self, work: PeMatrixWork, fetched: int, last_memory: int) -> int:
        """Cycles in which only one of memory and matrix unit can work."""
        if fetched == 0:
            return min(self._memory.stream_cycles(work.tile_bytes), work.last_rows)
        if last_memory >= work.last_compute:
            return work.last_rows
        return self._memory.stream_cycles(max(0, work.tile_bytes - fetched))


@dataclass(frozen=True, slots=True)
class PeMatrixWork:
    """One PE's entry of a MatrixWork."""

    static: bool
    stream_bytes: int
    first_memory: int
    pass_memory: int
    full_passes: int
    full_compute: int
    last_compute: int
    last_rows: int
    tile_bytes: int


def works_of(matrix: MatrixWork) -> list[PeMatrixWork]:
    """One entry a PE; PEs with equal work share one object."""
    columns = (
        matrix.stream_bytes,
        matrix.first_memory_cycles,
        matrix.pass_memory_cycles,
        matrix.full_passes,
        matrix.full_compute_cycles,
        matrix.last_compute_cycles,
        matrix.last_rows,
        matrix.tile_bytes,
    )
    known: dict[tuple[int, ...], PeMatrixWork] = {}
    works = []
    for entry in zip(*(column.tolist() for column in columns), strict=True):
        if entry not in known:
            known[entry] = PeMatrixWork(matrix.static, *entry)
        works.append(known[entry])
    return works
