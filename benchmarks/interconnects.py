"""Every interconnect that is a graph: one of 4096 PEs is built, and one all-reduce on 1024 PEs with both engines."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from benchmarks.measure import clear_caches, median_seconds
from benchmarks.table import Row
from pe_sim.api import collective, load_array
from pe_sim.config.arrays.array import ArrayConfig
from pe_sim.network.topology.kinds import build_topology

BUILT_PES, BUILD_TARGET = 4096, 1.0  # seconds
NUM_PES = 1024
NUM_BYTES = 16384
FAST_TARGET, EVENT_TARGET = 1.0, 60.0  # seconds
BEST, RING = "best", "ring"
TOPOLOGIES = (
    ("hier-bus-256", BEST),
    ("h-tree-256", BEST),
    ("fat-tree-256", BEST),
    ("line-256", BEST),
    ("ring-256", BEST),
    ("ring-256", RING),
    ("mesh-256", BEST),
    ("torus-256", BEST),
    ("torus-256", RING),
    ("hypercube-256", BEST),
    ("butterfly-256", BEST),
    ("crossbar-256", BEST),
)
FAST_REPEATS = 3


def builds() -> Iterator[Row]:
    """A row for each interconnect: its graph with every channel, caches empty."""
    for preset in dict.fromkeys(preset for preset, _ in TOPOLOGIES):
        array = load_array(preset, {"num_pes": BUILT_PES})
        seconds, _ = median_seconds(partial(build_topology, array), FAST_REPEATS, before=clear_caches)
        yield Row(f"{preset.rpartition('-')[0]} of {BUILT_PES} PEs: built", seconds, "s", BUILD_TARGET)


def all_reduces() -> Iterator[Row]:
    """A row for each interconnect and engine; the fast one with its choice of an algorithm, caches empty."""
    for preset, algorithm in TOPOLOGIES:
        array = load_array(preset, {"num_pes": NUM_PES, "network.collectives.all_reduce": algorithm})
        seconds, chosen = median_seconds(partial(_from_empty_caches, array), FAST_REPEATS)
        kind = preset.rpartition("-")[0]
        what = f"all-reduce of {NUM_BYTES // 1024} KiB on {NUM_PES} PEs, {kind}, {chosen}"
        yield Row(f"{what}: fast engine", seconds, "s", FAST_TARGET)
        seconds, _ = median_seconds(partial(collective, "all-reduce", array, NUM_BYTES, engine="event"), 1)
        yield Row(f"{what}: event engine", seconds, "s", EVENT_TARGET)


def _from_empty_caches(array: ArrayConfig) -> str:
    clear_caches()
    return collective("all-reduce", array, NUM_BYTES).algorithm
