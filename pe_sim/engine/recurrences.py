"""Vector recurrences of the fast engine: a channel, the joints of a tree, matrix operators on all PEs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pe_sim.config.array import ArrayConfig
from pe_sim.schedule.stages import MatrixWork
from pe_sim.units import IntArray, ceil_div

NEVER = -(1 << 60)  # ready on no account: the PE has no part in it


class OutOfOrderError(Exception):
    """Requests of a later stage arrive before those of an earlier one: one pass over the stages is not exact."""


@dataclass(slots=True)
class ChannelState:
    """A first-come-first-served server between stages: when it is free, and the latest arrival it has served."""

    free_at: int = 0
    last_arrival: int = NEVER

    def serve(self, arrivals: IntArray, ranks: IntArray, busy: IntArray) -> tuple[IntArray, IntArray]:
        """Grants and releases of one stage's requests, in the order given.

        A FIFO server is a running maximum: release_i = C_i + max over j <= i of (arrival_j - C_(j-1)), with C the
        running sum of busy cycles.

        Raises:
            OutOfOrderError: a request arrives before one that an earlier stage made.
        """
        if len(arrivals) == 1:
            return self._serve_one(int(arrivals[0]), int(busy[0]))
        order = np.lexsort((ranks, arrivals))
        sorted_arrivals, sorted_busy = arrivals[order], busy[order]
        self._note_arrivals(int(sorted_arrivals[0]), int(sorted_arrivals[-1]))
        done = np.cumsum(sorted_busy)
        slack = np.maximum.accumulate(sorted_arrivals - done + sorted_busy)
        sorted_releases = done + np.maximum(slack, self.free_at)
        releases = np.empty_like(sorted_releases)
        releases[order] = sorted_releases
        self.free_at = int(sorted_releases[-1])
        return releases - busy, releases

    def _serve_one(self, arrival: int, busy: int) -> tuple[IntArray, IntArray]:
        self._note_arrivals(arrival, arrival)
        grant = max(arrival, self.free_at)
        self.free_at = grant + busy
        return np.array([grant], dtype=np.int64), np.array([self.free_at], dtype=np.int64)

    def _note_arrivals(self, first: int, last: int) -> None:
        if first < self.last_arrival:
            raise OutOfOrderError
        self.last_arrival = last


class TreeState:
    """The joints of a tree, level by level over cells of neighbouring PEs (see `engine/pipeline.py`)."""

    def __init__(self, num_pes: int, num_levels: int, cell_size: int) -> None:
        self._cell_size = cell_size
        self.free_at: IntArray = np.zeros((max(num_levels, 1), -(-num_pes // cell_size)), dtype=np.int64)

    def shifted(self, cycles: int, floor: int) -> TreeState:
        """A copy in another frame of time, with what is free before `floor` lifted to it."""
        copy = object.__new__(TreeState)
        copy._cell_size = self._cell_size
        copy.free_at = np.maximum(self.free_at + cycles, floor)
        return copy

    def pass_whole(self, ready: int, beats: int, combine_cycles: int) -> int:
        """Start of a passage through all joints."""
        shift = combine_cycles * np.arange(len(self.free_at), dtype=np.int64)
        start = max(ready, int((self.free_at.max(axis=1) - shift).max()))
        self.free_at[:] = (start + beats + shift)[:, None]
        return start

    def pass_side_by_side(
        self, ready: IntArray, beats: IntArray, first_pe: IntArray, scope_size: int, levels: int, combine_cycles: int
    ) -> IntArray:
        """(scopes,) starts of passages through the lowest levels of disjoint scopes of equal size.

        A scope with 0 beats passes nothing and leaves its joints alone.
        """
        levels = max(levels, 1)
        cells = (first_pe // self._cell_size)[:, None] + np.arange(max(scope_size // self._cell_size, 1))
        joints = self.free_at[:levels, cells]
        shift = combine_cycles * np.arange(levels, dtype=np.int64)[:, None]
        starts: IntArray = np.maximum(ready, (joints.max(axis=2) - shift).max(axis=0))
        busy = (starts + beats + shift)[:, :, None]
        self.free_at[:levels, cells] = np.where((beats > 0)[None, :, None], busy, joints)
        return starts


@dataclass(frozen=True, slots=True)
class MatrixTimes:
    """(PEs,) cycles from an operator's start: its end, its stream's end; and busy cycles of the port."""

    duration: IntArray
    stream_end: IntArray
    memory_busy: IntArray


def matrix_times(work: MatrixWork, array: ArrayConfig, idle_cycles: IntArray | None) -> MatrixTimes:
    """Machine model, section 4, on all PEs at once; `idle_cycles` of the port count from overlap 2 on (else None)."""
    memory = array.pe.memory
    latency: IntArray | int = memory.latency_cycles
    fetched: IntArray | int = 0
    first_memory = work.pass_memory_cycles
    if idle_cycles is not None and work.static:
        latency = np.maximum(0, memory.latency_cycles - idle_cycles)
        reached = memory.bytes_per_cycle * np.maximum(0, idle_cycles - memory.latency_cycles)
        fetched = np.minimum(np.minimum(work.stream_bytes, array.pe.buffer.prefetch_bytes), reached)
        first_memory = ceil_div(work.stream_bytes - fetched, memory.bytes_per_cycle)
    before, last_memory = _passes_before_last(work, first_memory, array.overlap)
    if array.overlap == 0:
        body = before + last_memory + work.last_compute_cycles
    else:
        fill = _fill(work, fetched, last_memory, memory.bytes_per_cycle)
        body = before + np.maximum(last_memory, work.last_compute_cycles) + fill
    return MatrixTimes(
        latency + body + array.pe.matrix.latency_cycles,
        latency + before + last_memory,
        ceil_div(fetched, memory.bytes_per_cycle) + first_memory + work.full_passes * work.pass_memory_cycles,
    )


def _passes_before_last(work: MatrixWork, first_memory: IntArray, overlap: int) -> tuple[IntArray | int, IntArray]:
    """Cycles of the passes before the last one, and the last one's memory cycles."""
    if not work.full_passes.any():
        return 0, first_memory
    if overlap == 0:
        each = work.pass_memory_cycles + work.full_compute_cycles
        return work.full_passes * each, work.pass_memory_cycles
    later = (work.full_passes - 1) * np.maximum(work.pass_memory_cycles, work.full_compute_cycles)
    before = np.maximum(first_memory, work.full_compute_cycles) + later
    several = work.full_passes > 0
    return np.where(several, before, 0), np.where(several, work.pass_memory_cycles, first_memory)


def _fill(work: MatrixWork, fetched: IntArray | int, last_memory: IntArray, port: int) -> IntArray:
    """Cycles in which only one of memory and matrix unit can work."""
    unfetched = np.minimum(ceil_div(work.tile_bytes, port), work.last_rows)
    if isinstance(fetched, int):
        return unfetched
    rest = ceil_div(np.maximum(0, work.tile_bytes - fetched), port)
    after_fetch = np.where(last_memory >= work.last_compute_cycles, work.last_rows, rest)
    return np.where(fetched > 0, after_fetch, unfetched)
