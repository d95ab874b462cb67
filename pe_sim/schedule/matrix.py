"""Passes, tiles and streams of a GEMM on a PE (machine model, section 4)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pe_sim.config.array import ArrayConfig
from pe_sim.config.dtypes import Dtype, wider
from pe_sim.mapping.attention_split import AttentionSplit
from pe_sim.schedule.memory_timing import Pieces, memory_timing
from pe_sim.schedule.stages import MatrixWork
from pe_sim.units import IntArray, ceil_div


def gemm_work(
    array: ArrayConfig, rows: IntArray, inner: IntArray, outer: IntArray, *, resident: bool = True
) -> MatrixWork:
    """A GEMM of (rows, inner) by (outer, inner) weights on each PE; PEs with an empty operand do nothing.

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
    """Queries times keys: outputs are the tokens a row sees, the inner dimension is the PE's part of head_dim."""
    unit, heads = array.pe.matrix, split.q_heads
    compute = heads * ceil_div(split.dims, unit.depth) * split.row_sum(unit.outputs)
    inputs, outputs = heads * split.dims * split.row_sum(unit.outputs), heads * split.row_sum(1)
    return _attention_work(array, split, compute, inputs, outputs)


def values_work(array: ArrayConfig, split: AttentionSplit) -> MatrixWork:
    """Probabilities times values: the inner dimension is the tokens, outputs the PE's part of head_dim."""
    unit, heads = array.pe.matrix, split.q_heads
    output_blocks = ceil_div(split.dims, unit.outputs)
    compute = heads * output_blocks * split.row_sum(unit.depth)
    inputs, outputs = heads * output_blocks * split.row_sum(1), heads * split.dims * split.new_rows()
    return _attention_work(array, split, compute, inputs, outputs)


def _attention_work(
    array: ArrayConfig, split: AttentionSplit, compute: IntArray, inputs: IntArray, outputs: IntArray
) -> MatrixWork:
    """Memory and compute sum over kv heads and sequences; latencies are paid once and nothing has to fill.

    Args:
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
