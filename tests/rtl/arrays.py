"""The arrays that are built as RTL: small ones that together cover sizes, arities, widths and latencies."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from pe_sim.config.arrays.array import ArrayConfig
from pe_sim.config.arrays.load import load_array

BASE: dict[str, Any] = {
    "dtypes.weight": "int8",
    "dtypes.kv_cache": "int8",
    "pe.matrix.outputs": 4,
    "pe.matrix.depth": 4,
    "pe.matrix.latency_cycles": 8,
    "pe.vector.lanes": 4,
    "pe.memory.bytes_per_cycle": 16,
    "pe.memory.capacity_bytes": 65536,
    "pe.buffer.capacity_bytes": 4096,
    "root.vector.lanes": 8,
    "root.memory.bytes_per_cycle": 16,
    "root.memory.latency_cycles": 30,
    "network.bus.bytes_per_cycle": 8,
    "network.tree.bytes_per_cycle": 8,
}

# Where nothing is said, latencies come from the floor plan of bus-tree-64.
VARIANTS: dict[str, dict[str, Any]] = {
    "2-binary": {
        "num_pes": 2,
        "pe.matrix.outputs": 8,
        "pe.matrix.depth": 8,
        "pe.matrix.latency_cycles": 5,
        "pe.memory.latency_cycles": 7,
        "network.bus.request_cycles": 0,
        "network.bus.overhead_cycles": 0,
    },
    "3-binary": {"num_pes": 3, "network.bus.bytes_per_cycle": 2, "network.bus.request_cycles": 3},
    "4-quad": {
        "num_pes": 4,
        "network.tree.arity": 4,
        "network.bus.bytes_per_cycle": 16,
        "network.tree.bytes_per_cycle": 16,
        "network.bus.latency_cycles": 5,
    },
    "8-binary": {"num_pes": 8, "pe.matrix.outputs": 8, "network.bus.request_cycles": 2, "pe.memory.bytes_per_cycle": 8},
    "8-ternary": {
        "num_pes": 8,
        "network.tree.arity": 3,
        "network.tree.combine_cycles": 1,
        "network.tree.softmax_combine_cycles": 5,
        "network.bus.latency_cycles": 0,
        "network.bus.request_cycles": 0,
    },
    "16-quad": {
        "num_pes": 16,
        "network.tree.arity": 4,
        "network.bus.bytes_per_cycle": 32,
        "network.tree.bytes_per_cycle": 32,
    },
    "16-binary": {"num_pes": 16, "floorplan.pe_pitch_mm": 12.0},
    "32-binary": {"num_pes": 32, "floorplan.pe_pitch_mm": 6.0},
}


@lru_cache
def rtl_array(name: str, overlap: int = 1) -> ArrayConfig:
    """One of `VARIANTS`."""
    return load_array("bus-tree-64", overrides={**BASE, **VARIANTS[name], "overlap": overlap})
