"""The floor plan: takes the checked array file, gives the frozen ArrayConfig with every `auto` latency in cycles.

N PEs stand on a near-square grid of `pe_pitch_mm`; a signal travels `mm_per_cycle` (machine model, section 2). Lengths
are exact fractions of the decimals in the file, so that no rounding of a binary float moves a ceiling.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache
from typing import TYPE_CHECKING

from pe_sim.config.arrays.array import (
    ArrayConfig,
    Buffer,
    DramBank,
    Floorplan,
    LocalMemory,
    MatrixUnit,
    Memory,
    Pe,
    Root,
    VectorUnit,
    check_dead_pes,
)
from pe_sim.config.arrays.technology import PROCESSES, default_area, default_energy
from pe_sim.config.dtypes import Dtype, Dtypes
from pe_sim.config.networks.network import Bus, Collectives, GraphNetwork, Network, Tree
from pe_sim.errors import InputError

if TYPE_CHECKING:  # the schema needs pydantic, the arithmetic does not
    from pathlib import Path

    from pe_sim.config.arrays.schema import ArrayFile, DtypeFile, MemoryFile, VectorFile
    from pe_sim.config.arrays.schemas import DramBankFile
    from pe_sim.config.networks.bus_tree_schema import BusFile, TreeFile


def grid_shape(num_pes: int) -> tuple[int, int]:
    """(columns, rows) of the near-square grid: ceil(sqrt(N)) columns, and as many rows as needed."""
    cols = math.isqrt(num_pes - 1) + 1
    return cols, -(-num_pes // cols)


def num_tree_levels(num_pes: int, arity: int) -> int:
    """Number of levels of a k-ary tree over N leaves: D = ceil(log_k N); 0 for one leaf."""
    levels, leaves = 0, 1
    while leaves < num_pes:
        leaves *= arity
        levels += 1
    return levels


def auto_bus_latency_cycles(num_pes: int, floorplan: Floorplan) -> int:
    """Cycles of a wire across width plus height of the grid, at least 1."""
    return wire_cycles(sum(grid_shape(num_pes)), floorplan)


def auto_tree_latency_cycles(level: int, arity: int, floorplan: Floorplan, leaf_pes: int = 1) -> int:
    """Cycles of the hop from `level` (0 at the leaves) upwards: pitch · 2^floor(level·log2(k)/2), at least 1.

    Args:
        level: level of the hop's lower end.
        arity: arity of the tree, k.
        floorplan: the pitch, and the reach of a signal in one cycle.
        leaf_pes: number of PEs below one leaf of this tree, by which k^level is multiplied.
    """
    return wire_cycles(tree_hop_pitches(level, arity, leaf_pes), floorplan)


def tree_hop_pitches(level: int, arity: int, leaf_pes: int = 1) -> int:
    """Length of the hop from `level` (0 at the leaves) upwards in PE pitches: 2^floor(level·log2(k)/2)."""
    doublings: int = ((leaf_pes * arity**level).bit_length() - 1) // 2  # the largest e with 4^e <= PEs below the hop
    return 1 << doublings


def bus_wire_pitches(num_pes: int) -> int:
    """Length in PE pitches of a shared bus along every row and down the side of the grid, all of it driven."""
    return num_pes + grid_shape(num_pes)[1]


@lru_cache(maxsize=4096)  # fractions are slow, and the levels of trees and the arrays of a sweep share lengths
def wire_cycles(pitches: float | Fraction, floorplan: Floorplan) -> int:
    """Cycles of a wire of `pitches` PE pitches, at least 1."""
    length_mm = Fraction(pitches) * _exact(floorplan.pe_pitch_mm)
    return max(1, math.ceil(length_mm / _exact(floorplan.mm_per_cycle)))


def resolve_array(
    file: ArrayFile,
    default_name: str,
    source: str | None = None,
    folder: Path | None = None,
    overridden: tuple[str, ...] = (),
) -> ArrayConfig:
    """The frozen array: defaults filled in, every latency an integer number of cycles.

    Args:
        file: the checked file.
        default_name: the array's name if the file has none.
        source: what error messages call the file.
        folder: where the files it names are looked up; None: the current folder.
        overridden: dotted paths that `--set` changed, for the messages.

    Raises:
        InputError: dead PEs that do not exist, an `auto` latency beyond the accepted range, a list of tree latencies of
            the wrong length, or an interconnect that does not fit the number of PEs.
    """
    dead_pes = check_dead_pes(file.dead_pes, file.num_pes, source, overridden)
    # Imported here: the arithmetic of this module does without pydantic.
    from pe_sim.config.arrays.schema import ROOT_DEVICE, assumed_paths, filled_area, filled_energy

    floorplan = Floorplan(**file.floorplan.model_dump())
    dtypes = Dtypes(**{role: _dtype(entry) for role, entry in file.dtypes})
    pe = _pe(file)
    root = Root(vector=_vector(file.root.vector), memory=_memory(file.root.memory, ROOT_DEVICE))
    process = PROCESSES[file.process]
    return ArrayConfig(
        name=file.name if file.name is not None else default_name,
        clock_ghz=file.clock_ghz,
        num_pes=file.num_pes,
        overlap=file.overlap,
        dtypes=dtypes,
        floorplan=floorplan,
        pe=pe,
        root=root,
        network=_network(file, floorplan, source, folder),
        process=file.process,
        energy=filled_energy(file.energy, default_energy(process, dtypes, pe, root)),
        area=filled_area(file.area, default_area(process, dtypes, pe, root)),
        dead_pes=dead_pes,
        assumed=assumed_paths(file),
    )


def _pe(file: ArrayFile) -> Pe:
    pe = file.pe
    return Pe(
        matrix=MatrixUnit(**pe.matrix.model_dump()),
        vector=_vector(pe.vector),
        memory=_local_memory(pe.memory),
        buffer=Buffer(**pe.buffer.model_dump()),
    )


def _network(file: ArrayFile, floorplan: Floorplan, source: str | None, folder: Path | None) -> Network | GraphNetwork:
    network = file.network
    if network.kind != "bus_tree":
        # Imported here: most arrays have a bus and a tree, and start-up time counts.
        from pe_sim.config.networks.resolve import only_cluster, resolve_network

        alone = only_cluster(network, file.num_pes)
        if alone is None:
            return resolve_network(network, file.num_pes, source, folder)
        network = alone
    return Network(
        kind=network.kind,
        bus=_bus(network.bus, file.num_pes, floorplan, source),
        tree=_tree(network.tree, file.num_pes, floorplan, source),
        collectives=Collectives(**network.collectives.model_dump()),
        arbitration=network.arbitration,
    )


def _exact(millimetres: float) -> Fraction:
    return Fraction(str(millimetres))


def _dtype(entry: DtypeFile) -> Dtype:
    return Dtype(name=entry.dtype, group_size=entry.group_size, zero_point=entry.zero_point)


def _vector(unit: VectorFile) -> VectorUnit:
    return VectorUnit(unit.lanes, unit.latency_cycles, unit.cycles_per_element.model_dump())


def _local_memory(memory: MemoryFile | DramBankFile) -> LocalMemory:
    if memory.kind == "dram_bank":
        return DramBank(**memory.model_dump(exclude={"kind"}))
    from pe_sim.config.arrays.schema import PE_DEVICE

    return _memory(memory, PE_DEVICE)


def _memory(memory: MemoryFile, assumed_device: str) -> Memory:
    device = memory.device or ("sram" if memory.kind == "sram" else assumed_device)
    return Memory(memory.technology, memory.capacity_bytes, memory.bytes_per_cycle, memory.latency_cycles, device)


def _bus(bus: BusFile, num_pes: int, floorplan: Floorplan, source: str | None) -> Bus:
    latency = bus.latency_cycles
    if latency == "auto":
        latency = _in_range(auto_bus_latency_cycles(num_pes, floorplan), "network.bus.latency_cycles", source)
    request = latency if bus.request_cycles == "auto" else bus.request_cycles
    return Bus(**{**bus.model_dump(), "latency_cycles": latency, "request_cycles": request})


def _tree(tree: TreeFile, num_pes: int, floorplan: Floorplan, source: str | None) -> Tree:
    levels = num_tree_levels(num_pes, tree.arity)
    latencies = _level_latencies(tree, levels, num_pes, floorplan, source)
    return Tree(**tree.model_dump(exclude={"latency_cycles"}), level_latency_cycles=latencies)


def _level_latencies(
    tree: TreeFile, levels: int, num_pes: int, floorplan: Floorplan, source: str | None
) -> tuple[int, ...]:
    path, latency = "network.tree.latency_cycles", tree.latency_cycles
    if latency == "auto":
        hops = (auto_tree_latency_cycles(level, tree.arity, floorplan) for level in range(levels))
        return tuple(_in_range(hop, path, source) for hop in hops)
    if isinstance(latency, int):
        return (latency,) * levels
    if len(latency) != levels:
        raise InputError(
            "wrong number of levels",
            source=source,
            path=path,
            given=latency,
            expected=f"{levels} numbers: {num_pes} PEs in a tree of arity {tree.arity} have {levels} levels",
            hint="auto fits every number of PEs",
        )
    return tuple(latency)


def _in_range(cycles: int, path: str, source: str | None) -> int:
    from pe_sim.config.files.schema import MAX_CYCLES

    if cycles > MAX_CYCLES:
        raise InputError(
            f"the floorplan makes this latency longer than {MAX_CYCLES} cycles",
            source=source,
            path=path,
            given="auto",
            expected=f"at most {MAX_CYCLES} cycles",
            hint="check floorplan.pe_pitch_mm and floorplan.mm_per_cycle",
        )
    return cycles
