"""PEs that have coordinates: who is next on a path that goes dimension by dimension."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pe_sim.config.network import GraphNetwork
from pe_sim.config.network_shapes import CubeShape, GridShape, PathShape
from pe_sim.units import IntArray


@dataclass(frozen=True, slots=True)
class Coordinates:
    """PE i has coordinate i // stride mod size in each dimension.

    Args:
        sizes, strides: of the dimensions, in the order in which a message travels them.
        wraps: whether the ends of a dimension are neighbours.
    """

    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    wraps: bool

    def neighbours(self, pe: int, *, outward: bool) -> tuple[IntArray, IntArray]:
        """(PEs,) of each PE the one before it on the path from `pe`, or the one after it on the path to `pe`.

        And (PEs,) how far it is. A ring is travelled the shorter way, upwards if both are as short. `pe` has itself.
        """
        pes = np.arange(int(np.prod(self.sizes)), dtype=np.int64)
        beside, depth = pes.copy(), np.zeros_like(pes)
        settled = np.zeros(len(pes), dtype=bool)
        # A path from `pe` travels the last dimension last, so there the PE before differs; a path to it the first one.
        for size, stride in self._dimensions(outward):
            here, origin = pes // stride % size, pe // stride % size
            offset = here - origin
            step, distance = self._step(offset, size, outward)
            moved = pes + ((here + step) % size - here) * stride
            depth += distance
            beside = np.where(~settled & (offset != 0), moved, beside)
            settled |= offset != 0
        return beside, depth

    def _dimensions(self, outward: bool) -> list[tuple[int, int]]:
        dimensions = list(zip(self.sizes, self.strides, strict=True))
        return dimensions[::-1] if outward else dimensions

    def _step(self, offset: IntArray, size: int, outward: bool) -> tuple[IntArray, IntArray]:
        """One step back towards `pe`, and the distance, from the offset in one dimension."""
        if not self.wraps:
            return -np.sign(offset), np.abs(offset)
        up = offset % size  # steps upwards from pe to here
        down = (size - up) % size
        back = up <= down if outward else up < down  # a path upwards wins a tie: from pe, or from here
        return np.where(up == 0, 0, np.where(back, -1, 1)), np.minimum(up, down)


def coordinates_of(network: GraphNetwork, num_pes: int) -> Coordinates | None:
    """Those of a line, ring, mesh, torus or hypercube; None for other kinds."""
    match network.shape:
        case PathShape():
            return _coordinates((num_pes,), wraps=network.kind == "ring")
        case GridShape(rows=rows, cols=cols):
            return _coordinates((cols, rows), wraps=network.kind == "torus")
        case CubeShape():
            return _coordinates((2,) * (num_pes.bit_length() - 1), wraps=False)
    return None


def _coordinates(sizes: tuple[int, ...], *, wraps: bool) -> Coordinates:
    strides = [1]
    for size in sizes:
        strides.append(strides[-1] * size)
    return Coordinates(sizes, tuple(strides[:-1]), wraps)
