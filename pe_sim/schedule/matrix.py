"""Matrix operators on PEs: passes, tiles and streams, their times at each overlap level, and one GEMM alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pe_sim.config.arrays.array import ArrayConfig
from pe_sim.config.dtypes import Dtype, wider
from pe_sim.errors import InputError
from pe_sim.mapping.attention_split import AttentionSplit
from pe_sim.mapping.placed import BlockRun
from pe_sim.schedule.builders import PREFETCHING_OVERLAP
from pe_sim.schedule.memory_timing import Pieces, memory_timing
from pe_sim.schedule.stages import Block, MatrixWork, PeStage, Resource, Schedule
from pe_sim.units import IntArray, ceil_div


def gemm_work(
    array: ArrayConfig, rows: IntArray, inner: IntArray, outer: IntArray, *, resident: bool = True
) -> MatrixWork:
    """The work of a GEMM of (rows, inner) by (outer, inner) weights on each PE; with an empty operand there is none.

    Weights that are not resident, because the root sends them every step, cannot be prefetched.
    """
    unit, memory, weight = array.pe.matrix, memory_timing(array.pe.memory), array.dtypes.weight
    activation, partial = array.dtypes.activation, array.dtypes.partial
    busy = (rows > 0) & (inner > 0) & (outer > 0)
    rows, inner, outer = (values * busy for values in (rows, inner, outer))
    stream_bytes = np.asarray(weight.matrix_bytes(outer, inner))
    max_rows = rows_per_pass(array, inner, outer)
    passes = ceil_div(rows, max_rows)
    full_passes: IntArray = np.maximum(passes - 1, 0)
    last_rows = rows - full_passes * max_rows
    output_blocks = ceil_div(outer, unit.outputs)
    compute_per_row = output_blocks * ceil_div(inner, unit.depth)
    tile = np.minimum(outer, unit.outputs) * np.minimum(inner, unit.depth)
    return MatrixWork(
        static=resident,
        stream_bytes=stream_bytes,
        first_memory_cycles=memory.stream_cycles(stream_bytes),
        pass_memory_cycles=memory.next_stream_cycles(stream_bytes),
        full_passes=full_passes,
        full_compute_cycles=max_rows * compute_per_row,
        last_compute_cycles=last_rows * compute_per_row,
        last_rows=last_rows,
        tile_bytes=np.asarray(weight.num_bytes(tile)),
        dtype=wider(weight.name, activation.name),
        macs=rows * inner * outer,
        input_bytes=np.asarray(activation.num_bytes(rows * output_blocks * inner)),
        output_bytes=np.asarray(partial.num_bytes(rows * outer)),
    )


def rows_per_pass(array: ArrayConfig, inner: IntArray, outer: IntArray) -> IntArray:
    """(PEs,) rows whose inputs (activation dtype) and outputs (partial dtype) fit the buffer, at least 1."""
    bits_per_row = inner * array.dtypes.activation.bits + outer * array.dtypes.partial.bits
    fitting: IntArray = np.maximum(8 * array.pe.buffer.capacity_bytes // np.maximum(bits_per_row, 1), 1)
    return fitting


def scores_work(array: ArrayConfig, split: AttentionSplit) -> MatrixWork:
    """The work of queries times keys: outputs are the tokens a row sees, inner is the PE's part of head_dim."""
    unit, heads = array.pe.matrix, split.q_heads
    compute = heads * ceil_div(split.dims, unit.depth) * split.row_sum(unit.outputs)
    inputs, outputs = heads * split.dims * split.row_sum(unit.outputs), heads * split.row_sum(1)
    return _attention_work(array, split, compute, inputs, outputs)


def values_work(array: ArrayConfig, split: AttentionSplit) -> MatrixWork:
    """The work of probabilities times values: inner is the tokens, outputs are the PE's part of head_dim."""
    unit, heads = array.pe.matrix, split.q_heads
    output_blocks = ceil_div(split.dims, unit.outputs)
    compute = heads * output_blocks * split.row_sum(unit.depth)
    inputs, outputs = heads * output_blocks * split.row_sum(1), heads * split.dims * split.new_rows()
    return _attention_work(array, split, compute, inputs, outputs)


def _attention_work(
    array: ArrayConfig, split: AttentionSplit, compute: IntArray, inputs: IntArray, outputs: IntArray
) -> MatrixWork:
    """The work of an attention operator, summed over kv heads and sequences: one latency, and nothing has to fill.

    Args:
        compute: (PEs,) cycles of the matrix unit.
        inputs, outputs: (PEs,) elements that the matrix unit takes from the buffer, and sums that it gives.
    """
    dtypes = array.dtypes
    timing, kv_cache = memory_timing(array.pe.memory), array.dtypes.kv_cache
    read_bytes = sum_over_heads(split, kv_cache, split.over_cached, lambda num_bytes: num_bytes)
    streams = sum_over_heads(split, kv_cache, split.over_cached, timing.next_stream_cycles)
    zero = np.zeros_like(compute)
    return MatrixWork(
        static=False,
        stream_bytes=read_bytes,
        first_memory_cycles=timing.chain_cycles(streams),
        pass_memory_cycles=zero,
        full_passes=zero,
        full_compute_cycles=zero,
        last_compute_cycles=compute,
        last_rows=zero,
        tile_bytes=zero,
        dtype=wider(kv_cache.name, dtypes.activation.name),
        macs=split.q_heads * split.dims * split.row_sum(1),
        input_bytes=np.asarray(dtypes.activation.num_bytes(inputs)),
        output_bytes=np.asarray(dtypes.partial.num_bytes(outputs)),
    )


def sum_over_heads(
    split: AttentionSplit,
    kv_cache: Dtype,
    over_sequences: Pieces,
    figure: Callable[[IntArray], IntArray],
) -> IntArray:
    """(PEs,) sum over kv heads and sequences of a figure of the bytes of one head's K (or V) of one sequence."""
    result = np.zeros_like(split.dims)
    for dims in np.unique(split.dims[split.dims > 0]).tolist():

        def of_tokens(tokens: IntArray, dims: int = dims) -> IntArray:
            return figure(np.asarray(kv_cache.matrix_bytes(tokens, dims)))

        result = np.where(split.dims == dims, split.kv_heads * over_sequences(of_tokens), result)
    return result


# ---- Times of a matrix operator on one PE at each overlap level (machine model, section 4).


@dataclass(frozen=True, slots=True)
class MatrixSpan:
    """Times of an operator in cycles, relative to its start.

    Args:
        duration_cycles: until its last result.
        stream_end_cycles: when its last byte has come from memory.
        memory_busy_cycles: cycles that the port is busy, prefetching before the start included.
        ahead_cycles: cycles that the port spends on prefetching before the start.
    """

    duration_cycles: int
    stream_end_cycles: int
    memory_busy_cycles: int
    ahead_cycles: int


class MatrixTiming:
    """Formulas of the times of matrix operators on one array; one instance serves all PEs."""

    def __init__(self, array: ArrayConfig) -> None:
        self._overlap = array.overlap
        self._unit_latency = array.pe.matrix.latency_cycles
        self._memory = memory_timing(array.pe.memory)
        self._memory_latency = self._memory.latency_cycles
        self.closing_cycles = self._memory.closing_cycles  # after an access, before the next
        self._prefetch_bytes = array.pe.buffer.prefetch_bytes

    def span(self, work: PeMatrixWork, idle_cycles: int) -> MatrixSpan:
        """The operator's span if the memory has been free for `idle_cycles` at its start; if < 0, it waits so long."""
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
        """Cycles of the passes before the last one, and memory cycles of the last one."""
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
    """The work of each PE; PEs with equal work share one object."""
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


# ---- The schedule of one GEMM alone on one PE.


def gemm_schedule(array: ArrayConfig, rows: int, inner: int, outer: int) -> Schedule:
    """Schedule of a (rows, inner) by (outer, inner) GEMM on the lowest living PE, with everything else idle.

    Raises:
        InputError: a size is not positive.
    """
    for name, size in (("m", rows), ("k", inner), ("n", outer)):
        if size < 1:
            raise InputError("a GEMM's sizes are positive", path=name, given=size, expected="an int >= 1")
    first = np.zeros(array.num_pes, dtype=np.int64)
    first[min(set(range(array.num_pes)).difference(array.dead_pes))] = 1
    matrix = gemm_work(array, rows * first, inner * first, outer * first)
    stage = PeStage("gemm", "gemm", "", (), 0, Resource.PE_MATRIX, first > 0, np.zeros_like(first), matrix)
    return Schedule(array, (Block((stage,), 1),), (BlockRun(0, None),))
