"""The RTL's parameters, taken from an array; equal parameters share one build."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from pe_sim.config.arrays.array import ArrayConfig, Memory

MAX_LEVELS = 8
LEVEL_BITS = 8  # of one level's link in the vector of all
WEIGHT_BITS, ACTIVATION_BITS, PARTIAL_BITS = 8, 16, 32  # integers in place of the array's dtypes of these widths


class UnfitError(ValueError):
    """The array has something that the RTL has not; the message names it."""


@dataclass(frozen=True)
class Hardware:
    """Parameters of `pe_array.sv`, by their names there in lower case; times are cycles."""

    num_pes: int
    bus_bytes: int
    bus_latency: int
    bus_overhead: int
    bus_request: int
    arity: int
    num_levels: int
    tree_bytes: int
    tree_latencies: int  # level j in bits 8 j .. 8 j + 7
    combine: int
    merge: int
    outputs: int
    depth: int
    matrix_latency: int
    lanes: int
    vector_latency: int
    memory_bytes_per_cycle: int
    memory_latency: int
    root_lanes: int
    root_vector_latency: int
    root_memory_bytes_per_cycle: int
    root_memory_latency: int

    @classmethod
    def of(cls, array: ArrayConfig) -> Hardware:
        """The hardware of an array.

        Raises:
            UnfitError: the RTL has no such thing.
        """
        _check(array)
        bus, tree, pe, root = array.bus_tree.bus, array.bus_tree.tree, array.pe, array.root
        assert isinstance(pe.memory, Memory)
        return cls(
            num_pes=array.num_pes,
            bus_bytes=bus.bytes_per_cycle,
            bus_latency=bus.latency_cycles,
            bus_overhead=bus.overhead_cycles,
            bus_request=bus.request_cycles,
            arity=tree.arity,
            num_levels=tree.num_levels,
            tree_bytes=tree.bytes_per_cycle,
            tree_latencies=sum(cycles << LEVEL_BITS * level for level, cycles in enumerate(tree.level_latency_cycles)),
            combine=tree.combine_cycles,
            merge=tree.softmax_combine_cycles,
            outputs=pe.matrix.outputs,
            depth=pe.matrix.depth,
            matrix_latency=pe.matrix.latency_cycles,
            lanes=pe.vector.lanes,
            vector_latency=pe.vector.latency_cycles,
            memory_bytes_per_cycle=pe.memory.bytes_per_cycle,
            memory_latency=pe.memory.latency_cycles,
            root_lanes=root.vector.lanes,
            root_vector_latency=root.vector.latency_cycles,
            root_memory_bytes_per_cycle=root.memory.bytes_per_cycle,
            root_memory_latency=root.memory.latency_cycles,
        )

    def parameters(self) -> dict[str, int]:
        """By the names of the SystemVerilog parameters."""
        return {name.upper(): value for name, value in asdict(self).items()}


def _check(array: ArrayConfig) -> None:
    network, pe, types = array.bus_tree, array.pe, array.dtypes
    tile_bytes = pe.matrix.outputs * pe.matrix.depth
    unfit = {
        "a memory that is not flat": not isinstance(pe.memory, Memory),
        "overlap beyond 1": array.overlap > 1,
        "an arbitration other than fifo": network.arbitration != "fifo",
        "bursts": network.bus.burst_bytes is not None,
        "tree.downlink": network.tree.downlink,
        f"more than {MAX_LEVELS} levels of joints": network.tree.num_levels > MAX_LEVELS,
        "one PE": array.num_pes < 2,
        "a bus of an odd width": network.bus.bytes_per_cycle % 2 != 0,
        "a tree whose beats do not hold whole elements": network.tree.bytes_per_cycle % 8 != 0,
        "dtypes other than 8 bits for weights and cache, 16 for activations, 32 for partial sums": (
            [dtype.bits for dtype in (types.weight, types.kv_cache, types.activation, types.partial)]
            != [WEIGHT_BITS, WEIGHT_BITS, ACTIVATION_BITS, PARTIAL_BITS]
        ),
    }
    if isinstance(pe.memory, Memory):
        latencies = pe.memory.latency_cycles, pe.vector.latency_cycles, array.root.memory.latency_cycles
        unfit["latency 0 of a memory or a vector unit"] = min(*latencies, array.root.vector.latency_cycles) < 1
        unfit["tiles that are no whole words of the memory"] = tile_bytes % pe.memory.bytes_per_cycle != 0
    for what, present in unfit.items():
        if present:
            raise UnfitError(f"the RTL has no {what}")
