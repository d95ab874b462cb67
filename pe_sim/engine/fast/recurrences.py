"""Vector recurrences of the fast engine: a channel, the joints of a tree, matrix operators on all PEs."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from pe_sim.config.arrays.array import ArrayConfig
from pe_sim.schedule.builders import PREFETCHING_OVERLAP
from pe_sim.schedule.memory_timing import MemoryTiming, memory_timing
from pe_sim.schedule.stages import MatrixWork
from pe_sim.units import BoolArray, IntArray

NEVER = -(1 << 60)  # the ready cycle of what a PE has no part in; any other cycle is later


class OutOfOrderError(Exception):
    """Requests of a later stage arrive before those of an earlier one, so that one pass over stages is not exact."""


@dataclass(slots=True)
class ChannelState:
    """State of a first-come-first-served server between stages.

    Args:
        free_at: (..., 1) when it is free; a row a step where several steps are run together.
        last_arrival: (..., 1) the latest arrival it has served.
        overtaken: (..., 1) whether a request arrived before one that an earlier stage made, so that what came after
            is not exact.
    """

    free_at: IntArray = field(default_factory=lambda: np.zeros(1, dtype=np.int64))
    last_arrival: IntArray = field(default_factory=lambda: np.full(1, NEVER, dtype=np.int64))
    overtaken: BoolArray = field(default_factory=lambda: np.zeros(1, dtype=bool))

    def shifted(self, cycles: IntArray, floor: int) -> ChannelState:
        """A copy with all times moved by `cycles`, and those before `floor` lifted to it."""
        last = np.where(self.last_arrival > NEVER, self.last_arrival + cycles, NEVER)
        return ChannelState(np.maximum(self.free_at + cycles, floor), np.maximum(last, floor), self.overtaken)

    def serve(self, arrivals: IntArray, ranks: IntArray, busy: IntArray) -> tuple[IntArray, IntArray]:
        """Grants and releases of one stage's (messages,) requests, in the order given.

        A FIFO server is a running maximum: release_i = C_i + max over j <= i of (arrival_j - C_(j-1)), with C the
        running sum of busy cycles.
        """
        if arrivals.shape[-1] == 1:
            return self._serve_one(arrivals, busy)
        if arrivals.ndim > 1:
            ranks, busy = np.broadcast_to(ranks, arrivals.shape), np.broadcast_to(busy, arrivals.shape)
        order = np.lexsort((ranks, arrivals))
        sorted_arrivals, sorted_busy = _in_order(arrivals, order), _in_order(busy, order)
        self._note_arrivals(sorted_arrivals[..., :1], sorted_arrivals[..., -1:])
        done = np.cumsum(sorted_busy, axis=-1)
        slack = np.maximum.accumulate(sorted_arrivals - done + sorted_busy, axis=-1)
        sorted_releases = done + np.maximum(slack, self.free_at)
        releases = np.empty_like(sorted_releases)
        if order.ndim == 1:
            releases[order] = sorted_releases
        else:
            np.put_along_axis(releases, order, sorted_releases, axis=-1)
        self.free_at = sorted_releases[..., -1:]
        return releases - busy, releases

    def _serve_one(self, arrival: IntArray, busy: IntArray) -> tuple[IntArray, IntArray]:
        self._note_arrivals(arrival, arrival)
        grant = np.maximum(arrival, self.free_at)
        self.free_at = grant + busy
        return grant, self.free_at

    def _note_arrivals(self, first: IntArray, last: IntArray) -> None:
        self.overtaken = self.overtaken | (first < self.last_arrival)
        self.last_arrival = last


def _in_order(values: IntArray, order: IntArray) -> IntArray:
    return values[order] if order.ndim == 1 else np.take_along_axis(values, order, axis=-1)


class TreeState:
    """State of the joints of a tree, level by level over cells of neighbouring PEs (see `engine/event/machine.py`).

    `free_at` is (levels + 1, cells), or (levels + 1, 1) where it is the same in all cells, behind an axis of steps
    where several are run together.
    """

    def __init__(self, num_pes: int, num_levels: int, cell_size: int) -> None:
        self._cell_size, self._num_cells = cell_size, -(-num_pes // cell_size)
        self.free_at: IntArray = np.zeros((num_levels + 1, 1), dtype=np.int64)

    def shifted(self, cycles: IntArray, floor: int) -> TreeState:
        """A copy with all times moved by `cycles`, and those before `floor` lifted to it."""
        copy = object.__new__(TreeState)
        copy._cell_size, copy._num_cells = self._cell_size, self._num_cells
        copy.free_at = np.maximum(self.free_at + cycles[..., None], floor)
        return copy

    def pass_whole(self, ready: IntArray, beats: IntArray, combine_cycles: int) -> IntArray:
        """(..., 1) start of a passage through all joints, from the cycle (..., 1) at which it is ready."""
        shift = combine_cycles * np.arange(self.free_at.shape[-2], dtype=np.int64)
        joints = np.maximum.reduce(self.free_at, axis=-1) - shift
        start: IntArray = np.maximum(ready, np.maximum.reduce(joints, axis=-1, keepdims=True))
        self.free_at = (start + beats + shift)[..., None]
        return start

    def pass_side_by_side(
        self, ready: IntArray, beats: IntArray, pes: tuple[IntArray, IntArray], levels: int, combine_cycles: int
    ) -> IntArray:
        """(..., scopes) starts of passages through the lowest levels of disjoint scopes, from when each is ready.

        `pes` are the first PE of each scope, and the one after its last. A scope with 0 beats passes nothing and leaves
        its joints alone.
        """
        rows = levels + 1  # what leaves the leaves, and each level
        first, last = pes[0] // self._cell_size, (pes[1] - 1) // self._cell_size
        cells = np.minimum(first[:, None] + np.arange(int((last - first).max()) + 1), last[:, None])
        before = np.broadcast_to(self.free_at, (*self.free_at.shape[:-1], self._num_cells))
        joints = before[..., :rows, cells]
        shift = combine_cycles * np.arange(rows, dtype=np.int64)[:, None]
        starts: IntArray = np.maximum(ready, (joints.max(axis=-1) - shift).max(axis=-2))
        busy = (starts + beats)[..., None, :] + shift
        lead = starts.shape[:-1]
        free_at = np.broadcast_to(before, (*lead, *before.shape[-2:])).copy()
        free_at[..., :rows, cells] = np.where((beats > 0)[..., None, :, None], busy[..., None], joints)
        self.free_at = free_at
        return starts


@dataclass(frozen=True, slots=True)
class MatrixTimes:
    """(PEs,) cycles from a matrix operator's start to its end and its stream's end, and busy cycles of the port."""

    duration: IntArray
    stream_end: IntArray
    memory_busy: IntArray


def matrix_times(work: MatrixWork, array: ArrayConfig, idle_cycles: IntArray | None) -> MatrixTimes:
    """Times of a matrix operator on all PEs at once (machine model, section 4).

    Args:
        idle_cycles: cycles that the memory has been free; where negative, operators wait for it so long. None: it is
            free, and nothing is prefetched.
    """
    memory = memory_timing(array.pe.memory)
    latency: IntArray | int = memory.latency_cycles
    fetched: IntArray | int = 0
    spent: IntArray | int = 0
    first_memory = work.first_memory_cycles
    if idle_cycles is not None and work.static and array.overlap >= PREFETCHING_OVERLAP:
        latency = np.maximum(0, memory.latency_cycles - np.maximum(0, idle_cycles))
        ahead = np.maximum(0, idle_cycles - memory.latency_cycles)
        fetched, spent = memory.fetched_ahead(work.stream_bytes, array.pe.buffer.prefetch_bytes, ahead)
        first_memory = memory.rest_cycles(work.stream_bytes, fetched, spent)
    if idle_cycles is not None and memory.closing_cycles:
        latency = latency + np.maximum(0, -idle_cycles)
    before, last_memory = _passes_before_last(work, first_memory, array.overlap)
    if array.overlap == 0:
        body = before + last_memory + work.last_compute_cycles
    else:
        fill = _fill(work, fetched, last_memory, memory)
        body = before + np.maximum(last_memory, work.last_compute_cycles) + fill
    return MatrixTimes(
        latency + body + array.pe.matrix.latency_cycles,
        latency + before + last_memory,
        memory.busy_latency_cycles + spent + first_memory + work.full_passes * work.pass_memory_cycles,
    )


def _passes_before_last(work: MatrixWork, first_memory: IntArray, overlap: int) -> tuple[IntArray | int, IntArray]:
    """Cycles of the passes before the last one, and memory cycles of the last one."""
    if not work.full_passes.any():
        return 0, first_memory
    if overlap == 0:
        first = first_memory + work.full_compute_cycles
        each = work.pass_memory_cycles + work.full_compute_cycles
    else:
        first = np.maximum(first_memory, work.full_compute_cycles)
        each = np.maximum(work.pass_memory_cycles, work.full_compute_cycles)
    before = first + (work.full_passes - 1) * each
    several = work.full_passes > 0
    return np.where(several, before, 0), np.where(several, work.pass_memory_cycles, first_memory)


def _fill(work: MatrixWork, fetched: IntArray | int, last_memory: IntArray, memory: MemoryTiming) -> IntArray:
    """Cycles in which only one of memory and matrix unit can work."""
    unfetched = np.minimum(memory.stream_cycles(work.tile_bytes), work.last_rows)
    if isinstance(fetched, int):
        return unfetched
    rest = memory.stream_cycles(np.maximum(0, work.tile_bytes - fetched))
    after_fetch = np.where(last_memory >= work.last_compute_cycles, work.last_rows, rest)
    return np.where(fetched > 0, after_fetch, unfetched)
