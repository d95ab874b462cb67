"""The channels of an interconnect as one table of arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pe_sim.units import IntArray

FloatArray = npt.NDArray[np.float64]

TAP = -1  # the channel of an edge that costs nothing and is never occupied: from a bus to who listens


@dataclass(frozen=True, eq=False, slots=True)
class Channels:
    """Channel c has entry c of each field; what the numbers mean stands in the machine model, section 2.

    Args:
        name: unique and readable: "bus", "mesh (3,4)->(3,5)", "tree 12 up".
        level: the level of the parameters it belongs to: "bus", "tree", "link", "cluster bus", "level 2".
        bytes_per_cycle, latency_cycles, overhead_cycles: of a message on it.
        request_cycles: what a PE (not the root) waits more before the arbiter hears it.
        ramp_cycles: paid where a message enters at a PE, or leaves to a PE, over this channel.
        length_mm: of the wire under the floor plan; of a bus all of it.
    """

    name: tuple[str, ...]
    level: tuple[str, ...]
    bytes_per_cycle: IntArray
    latency_cycles: IntArray
    overhead_cycles: IntArray
    request_cycles: IntArray
    ramp_cycles: IntArray
    length_mm: FloatArray

    def __len__(self) -> int:
        """How many there are."""
        return len(self.name)

    @property
    def wire_bits_mm(self) -> float:
        """All wire: 8 wires a byte per cycle, times their length."""
        return float((8.0 * self.bytes_per_cycle * self.length_mm).sum())
