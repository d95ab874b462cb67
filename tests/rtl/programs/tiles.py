"""Matrices as the RTL's memory holds them, and what its matrix unit takes for them, tile by tile."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pe_sim.units import ceil_div
from tests.rtl.hardware import Hardware, UnfitError

MAX_ROWS = 64  # of a pass: accumulators of the RTL


@dataclass(frozen=True)
class Tiles:
    """How a matrix of `outer` outputs and `inner` elements lies in the memory; each tile has a place of its own size.

    Args:
        outputs, depth: of a whole tile.
    """

    outer: int
    inner: int
    outputs: int
    depth: int

    @classmethod
    def on(cls, hardware: Hardware, outer: int, inner: int) -> Tiles:
        """The matrix on an array's PEs."""
        return cls(outer, inner, hardware.outputs, hardware.depth)

    @property
    def inner_pitch(self) -> int:
        """From a tile to the next one of the same outputs."""
        return self.outputs * self.depth

    @property
    def outer_pitch(self) -> int:
        """From a tile to that of the next outputs."""
        return int(ceil_div(self.inner, self.depth)) * self.inner_pitch

    @property
    def num_bytes(self) -> int:
        """Of all places."""
        return int(ceil_div(self.outer, self.outputs)) * self.outer_pitch

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """(outputs, inner elements) of the tiles in the order in which they are taken."""
        return [
            (min(self.outputs, self.outer - first), min(self.depth, self.inner - start))
            for first in range(0, self.outer, self.outputs)
            for start in range(0, self.inner, self.depth)
        ]

    def pack(self, matrix: NDArray[np.int8], *, inner_major: bool = False) -> bytes:
        """The bytes of all places."""
        assert matrix.shape == (self.outer, self.inner)
        assert matrix.dtype == np.int8
        places = []
        for first in range(0, self.outer, self.outputs):
            for start in range(0, self.inner, self.depth):
                tile = matrix[first : first + self.outputs, start : start + self.depth]
                places.append((tile.T if inner_major else tile).tobytes().ljust(self.inner_pitch, b"\0"))
        return b"".join(places)

    def fields(self) -> dict[str, int]:
        """Fields of a MATRIX command."""
        return {
            "inner": self.inner,
            "outer": self.outer,
            "outer_pitch": self.outer_pitch,
            "inner_pitch": self.inner_pitch,
        }


@dataclass(frozen=True)
class MatrixCycles:
    """What a matrix operator takes in the RTL, and why that is not what the model says.

    Args:
        model: the closed form of the machine model.
        words: more, as each tile begins at a new word of the memory.
        unevenness: more, as partial tiles are loaded and computed for unequal times, which do not overlap fully
            (less, where the closed form's fill is longer than what has to fill).
        fill: more, as the model lets attention begin without a first tile.
    """

    model: int
    words: int
    unevenness: int
    fill: int

    @property
    def total(self) -> int:
        """Cycles of the RTL."""
        return self.model + self.words + self.unevenness + self.fill


def tile_cycles(
    hardware: Hardware,
    rows: int,
    inner: int,
    outer: int,
    pass_rows: int,
    *,
    double_buffered: bool,
    batch: int = 1,
) -> int:
    """Cycles of a product, tile by tile.

    Tiles are loaded one after the other, each into a buffer that is free (of two, or one), in as many cycles as it has
    words; each is computed in a cycle a row. The memory's latency comes before, the matrix unit's behind.
    """
    sizes = [outputs * depth for outputs, depth in Tiles.on(hardware, outer, inner).shapes]
    loads = [int(ceil_div(size, hardware.memory_bytes_per_cycle)) for size in sizes]
    buffers = 2 if double_buffered else 1
    loaded = 0
    computed = [0] * buffers  # when the last tiles were done with
    for tile_rows in passes(rows, pass_rows) * batch:
        for load in loads:
            loaded = max(loaded, computed[-buffers]) + load
            computed.append(max(computed[-1], loaded) + tile_rows)
    return hardware.memory_latency + computed[-1] + hardware.matrix_latency


def matrix_cycles(
    hardware: Hardware,
    rows: int,
    inner: int,
    outer: int,
    pass_rows: int,
    *,
    double_buffered: bool,
    batch: int = 1,
    attention: bool = False,
) -> MatrixCycles:
    """The closed form, and what the tiles make of it; attention is one operator over `batch` pieces, without fill."""
    width = hardware.memory_bytes_per_cycle
    shapes = Tiles.on(hardware, outer, inner).shapes
    dense = int(ceil_div(outer * inner, width))
    by_tile = sum(int(ceil_div(outputs * depth, width)) for outputs, depth in shapes)
    # One sum over all pieces for attention, one maximum a pass for a GEMM.
    parts = [rows * batch] if attention else passes(rows, pass_rows)
    streams = batch if attention else 1

    def closed_form(memory: int) -> int:
        pairs = [(memory * streams, part * len(shapes)) for part in parts]
        if not double_buffered:
            return sum(load + compute for load, compute in pairs)
        return sum(max(load, compute) for load, compute in pairs)

    first_load = int(ceil_div(shapes[0][0] * shapes[0][1], width))
    fill = min(first_load, parts[-1] if not attention else rows) if double_buffered else 0
    latencies = hardware.memory_latency + hardware.matrix_latency
    model = latencies + closed_form(dense) + (0 if attention else fill)
    words = closed_form(by_tile) - closed_form(dense)
    exact = tile_cycles(hardware, rows, inner, outer, pass_rows, double_buffered=double_buffered, batch=batch)
    missing = fill if attention else 0
    return MatrixCycles(model, words, exact - model - words - missing, missing)


def passes(rows: int, pass_rows: int) -> list[int]:
    """Rows of each pass.

    Raises:
        UnfitError: the RTL has too few accumulators.
    """
    if min(rows, pass_rows) > MAX_ROWS:
        raise UnfitError(f"the RTL has no passes of more than {MAX_ROWS} rows")
    return [min(pass_rows, rows - first) for first in range(0, rows, pass_rows)]
