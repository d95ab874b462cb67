"""One GEMM alone on PE 0 as a program of the RTL."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pe_sim.config.arrays.array import ArrayConfig
from pe_sim.schedule.matrix import gemm_schedule, rows_per_pass
from tests.rtl.hardware import Hardware
from tests.rtl.programs.lowering import BUFFER_BYTES, MEMORY_BYTES, Case, Difference, Space, add_work
from tests.rtl.programs.tiles import MatrixCycles, Tiles, matrix_cycles

ACTIVATION_BYTES, PARTIAL_BYTES = 2, 4


@dataclass(frozen=True)
class GemmProgram:
    """The case, and what its cycles are made of."""

    case: Case
    cycles: MatrixCycles


def gemm_program(array: ArrayConfig, rows: int, inner: int, outer: int, seed: int = 0) -> GemmProgram:
    """A (rows, inner) by (outer, inner) product of random int16 and int8; the result is int32, row after row."""
    hardware, rng = Hardware.of(array), np.random.default_rng(seed)
    case = Case.of(gemm_schedule(array, rows, inner, outer))
    inputs = rng.integers(-(1 << 15), 1 << 15, (rows, inner)).astype("<i2")
    weights = rng.integers(-128, 128, (outer, inner)).astype(np.int8)
    buffer, tiles = Space("buffer", BUFFER_BYTES), Tiles.on(hardware, outer, inner)
    in_addr, out_addr = buffer.take(inputs.nbytes), buffer.take(rows * outer * PARTIAL_BYTES)
    weight_addr = Space("memory", MEMORY_BYTES).take(tiles.num_bytes)
    pass_rows = min(int(rows_per_pass(array, np.array([inner]), np.array([outer]))[0]), rows)
    fields = {
        **tiles.fields(),
        "op": 0,
        "rows": rows,
        "pass_rows": pass_rows,
        "batch": 1,
        "double_buffered": int(array.overlap > 0),
        "in_addr": in_addr,
        "in_row_pitch": inner * ACTIVATION_BYTES,
        "in_column_pitch": ACTIVATION_BYTES,
        "out_addr": out_addr,
        "out_row_pitch": outer * PARTIAL_BYTES,
        "out_column_pitch": PARTIAL_BYTES,
        "weight_addr": weight_addr,
    }
    double_buffered = array.overlap > 0
    cycles = matrix_cycles(hardware, rows, inner, outer, pass_rows, double_buffered=double_buffered)
    case.program.units[0].buffer.append((in_addr, inputs.tobytes()))
    case.program.units[0].memory.append((weight_addr, tiles.pack(weights)))
    add_work(case, 0, 0, "matrix", fields, (), cycles.total, "gemm")
    if cycles.total != cycles.model:
        case.differences.append(Difference(0, 0, "gemm", cycles.model, cycles))
    product = inputs.astype(np.int64) @ weights.astype(np.int64).T
    case.read("product", 0, out_addr, product.astype("<i4").tobytes())  # modulo 2**32, as the RTL's sums
    return GemmProgram(case, cycles)
