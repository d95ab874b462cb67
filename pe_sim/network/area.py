"""First-order area: takes an array, gives mm2 of silicon by component, and the largest array that fits an area."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pe_sim.config.arrays.array import ArrayConfig, VectorUnit
from pe_sim.config.arrays.floorplan import bus_wire_pitches, tree_hop_pitches
from pe_sim.config.arrays.load import load_array
from pe_sim.config.dtypes import wider
from pe_sim.config.networks.network import GraphNetwork
from pe_sim.config.networks.shapes import ButterflyShape, CubeShape, GridShape, Shape, UserGraphShape
from pe_sim.errors import InputError
from pe_sim.network.topology.topology import FloatArray
from pe_sim.notebook import Table, card
from pe_sim.units import ceil_div

if TYPE_CHECKING:
    from pe_sim.network.topology.topology import Topology

PE_MATRIX, PE_VECTOR, PE_MEMORY, PE_BUFFER = "pe_matrix", "pe_vector", "pe_memory", "pe_buffer"
JOINTS, SWITCHES, WIRES, ROOT = "joints", "switches", "wires", "root"
MAX_PES: Final = 2**20  # of the array file
_MIB: Final = 2**20
_UM2_PER_MM2: Final = 1e6
_SQUARE: Final = 2  # a grid's longer side is at most so many times its shorter one where an area decides


@dataclass(frozen=True, slots=True)
class AreaReport:
    """Silicon area of an array, all in mm2.

    Args:
        by_component: area of each component: the units of all PEs, joints, switches (where there are any), wires, root.
        pe_mm2: die area of one PE: matrix and vector unit, buffer, its share of joints, switches and wires; and its
            memory. Where memory is stacked over the PE: the larger of all that and one layer of memory.
        pitch_mm2: area that the floor plan gives a PE.
    """

    by_component: Mapping[str, float]
    pe_mm2: float
    pitch_mm2: float

    @property
    def total_mm2(self) -> float:
        """All silicon, with every layer of stacked memory; DRAM of the root is on other dies."""
        return math.fsum(self.by_component.values())

    @property
    def fits_pitch(self) -> bool:
        """Whether a PE has room within the pitch of the floor plan."""
        return self.pe_mm2 <= self.pitch_mm2

    @property
    def note(self) -> str | None:
        """Warning if a PE does not fit its pitch; else None."""
        if self.fits_pitch:
            return None
        needed = math.ceil(math.sqrt(self.pe_mm2) * 1000) / 1000
        return (
            f"a PE takes {self.pe_mm2:,.2f} mm2, and the floor plan's pitch leaves it {self.pitch_mm2:,.2f} mm2:"
            f" floorplan.pe_pitch_mm of {needed:g} or more would do, or a denser process"
        )

    def _repr_html_(self) -> str:
        """HTML for notebooks: mm2 by component."""
        rows = [
            (name.replace("_", " "), f"{mm2:,.2f}", f"{mm2 / self.total_mm2:.1%}")
            for name, mm2 in self.by_component.items()
        ]
        title = f"{self.total_mm2:,.1f} mm2; a PE {self.pe_mm2:,.2f} of {self.pitch_mm2:,.2f} mm2"
        return card(title, tables=[Table(("component", "mm2", "share"), rows)], notes=[self.note] if self.note else [])

    def to_dict(self) -> dict[str, Any]:
        """The report as a JSON-ready dict."""
        return {
            "total_mm2": self.total_mm2,
            "by_component": dict(self.by_component),
            "pe_mm2": self.pe_mm2,
            "pitch_mm2": self.pitch_mm2,
            "fits_pitch": self.fits_pitch,
        }


def area_of(array: ArrayConfig) -> AreaReport:
    """The area of an array, from the constants of its section `area`."""
    area, pe, count = array.area, array.pe, array.num_pes
    matrix = pe.matrix.outputs * pe.matrix.depth * area.mac_um2[_mac_dtype(array)] / _UM2_PER_MM2
    vector = _lanes_mm2(array, pe.vector)
    memory = pe.memory.capacity_bytes / _MIB * area.local_mm2_per_mib
    buffer = (pe.buffer.capacity_bytes + pe.buffer.prefetch_bytes) / _MIB * area.buffer_mm2_per_mib
    root_memory = array.root.memory.capacity_bytes / _MIB * area.root_mm2_per_mib
    joints = _joint_elements(array) * area.joint_lane_um2 / _UM2_PER_MM2
    wires = _wire_bits_mm(array) * area.wire_pitch_um / 1000
    switches = _switches_mm2(array)
    logic = matrix + vector + buffer + (joints + sum(switches.values()) + wires) / count
    return AreaReport(
        by_component={
            PE_MATRIX: count * matrix,
            PE_VECTOR: count * vector,
            PE_MEMORY: count * memory,
            PE_BUFFER: count * buffer,
            JOINTS: joints,
            **switches,
            WIRES: wires,
            ROOT: _lanes_mm2(array, array.root.vector) + root_memory,
        },
        pe_mm2=max(logic, memory / area.local_layers) if area.local_layers else logic + memory,
        pitch_mm2=array.floorplan.pe_pitch_mm**2,
    )


def at_area(
    name_or_path_or_dict: str | Path | Mapping[str, Any],
    area_mm2: float,
    overrides: Mapping[str, object] | None = None,
) -> ArrayConfig:
    """The array with as many PEs as fit an area; latencies that are `auto` follow.

    A mesh and a torus get sides of at most 1 to 2, kinds that want a power of two (or of their radix) get one.

    Args:
        name_or_path_or_dict: what `load_array` takes.
        area_mm2: upper bound of `area_of(array).total_mm2`.
        overrides: as of `load_array`, without num_pes.

    Raises:
        InputError: not even the smallest array fits, or its number of PEs is given by its file.
    """
    if not (isinstance(area_mm2, int | float) and 0 < area_mm2 < math.inf):
        raise InputError("not an area", given=area_mm2, expected="mm2, above 0")
    changes = dict(overrides or {})
    if "num_pes" in changes:
        raise InputError("the area decides the number of PEs", source="--set num_pes", hint="leave it out")
    given = load_array(name_or_path_or_dict, changes)
    if isinstance(_shape(given), UserGraphShape):
        raise InputError(
            f"{given.name} is a graph with a number of PEs of its own",
            path="num_pes",
            given=given.num_pes,
            hint="give a graph for each number of PEs, or scale its widths to equal wire",
        )
    if isinstance(_shape(given), GridShape):
        changes |= {"network.rows": None, "network.cols": None}  # they follow from the number of PEs

    def of(num_pes: int) -> ArrayConfig:
        return load_array(name_or_path_or_dict, {**changes, "num_pes": num_pes})

    numbers = _numbers(given, _most_pes(given, area_mm2))
    fitting = bisect_right(numbers, area_mm2, key=lambda num_pes: area_of(of(num_pes)).total_mm2)
    if not fitting:
        raise InputError(
            f"no array like {given.name} is so small",
            given=f"{area_mm2:g} mm2",
            expected=f"at least {area_of(of(numbers[0])).total_mm2:,.2f} mm2, which a single PE and the root take",
        )
    return of(numbers[fitting - 1])


def _most_pes(array: ArrayConfig, area_mm2: float) -> int:
    """Upper bound of the number of PEs that fit an area, from that of PEs and root without joints and wires."""
    found = area_of(array).by_component
    one_pe = math.fsum(found[name] for name in (PE_MATRIX, PE_VECTOR, PE_MEMORY, PE_BUFFER)) / array.num_pes
    return MAX_PES if one_pe == 0 else min(MAX_PES, max(1, math.floor((area_mm2 - found[ROOT]) / one_pe)))


def _numbers(array: ArrayConfig, most: int) -> list[int]:
    """Numbers of PEs that suit the interconnect, up to `most`; at least one."""
    shape = _shape(array)
    if isinstance(shape, CubeShape | ButterflyShape):
        radix = shape.radix if isinstance(shape, ButterflyShape) else 2
        return [radix**digits for digits in range(most.bit_length()) if radix**digits <= most] or [1]
    every = range(1, most + 1)
    return [number for number in every if _is_squarish(number)] if isinstance(shape, GridShape) else list(every)


def _is_squarish(number: int) -> bool:
    """Whether the most square grid of so many PEs is no longer than `_SQUARE` times its width."""
    least = math.isqrt((number - 1) // _SQUARE) + 1  # sides below it make it longer
    return any(number % side == 0 for side in range(least, math.isqrt(number) + 1))


def _shape(array: ArrayConfig) -> Shape | None:
    return array.network.shape if isinstance(array.network, GraphNetwork) else None


def _mac_dtype(array: ArrayConfig) -> str:
    """Name of the dtype that its multipliers have to be wide enough for."""
    dtypes = array.dtypes
    return wider(wider(dtypes.weight.name, dtypes.kv_cache.name), dtypes.activation.name)


def _lanes_mm2(array: ArrayConfig, unit: VectorUnit) -> float:
    return unit.lanes * array.area.vector_lane_um2 / _UM2_PER_MM2


def _joint_elements(array: ArrayConfig) -> int:
    """Adders of the array: partial elements per cycle over all inputs of all joints, but one input of each."""
    bits = array.dtypes.partial.bits
    if not isinstance(array.network, GraphNetwork):
        lanes = ceil_div(8 * array.network.tree.bytes_per_cycle, bits)
        return (array.num_pes - 1) * lanes  # one input of every joint, and the root's result, are not added
    from pe_sim.network.topology.kinds import build_topology  # loads networkx

    topology, found = build_topology(array), 0
    kinds = [kind for _, kind in topology.graph.nodes(data="kind")]
    inputs: dict[int, list[int]] = {}
    for _, target, channel in topology.edges.tolist():
        if topology.combines[target] and channel >= 0:
            inputs.setdefault(target, []).append(int(topology.channels.bytes_per_cycle[channel]))
    for node, widths in inputs.items():
        own = kinds[node] == "pe"  # it has one more input, from its PE
        found += sum(ceil_div(8 * width, bits) for width in sorted(widths)[0 if own else 1 :])
    return found


def _switches_mm2(array: ArrayConfig) -> dict[str, float]:
    """Area of all switches and routers, by component; empty for a bus and a tree, whose joints only add."""
    if not isinstance(array.network, GraphNetwork):
        return {}
    from pe_sim.network.topology.kinds import build_topology  # loads networkx

    return {SWITCHES: switch_sizes(build_topology(array), array.area.switch_pitch_um).total_mm2}


@dataclass(frozen=True, eq=False, slots=True)
class SwitchSizes:
    """Sizes of the switches and routers of an interconnect.

    Args:
        total_mm2: area of all of them.
        crossing_mm: (channels,) wire that a bit drives in the switch from which it enters each channel.
    """

    total_mm2: float
    crossing_mm: FloatArray


def switch_sizes(topology: Topology, pitch_um: float) -> SwitchSizes:
    """Sizes of switches as matrix crossbars, whose area their wires decide: (bits in) x (bits out) x pitch^2.

    A bit drives its whole row and its whole column. A PE with a router has a port of its own, as wide as its widest
    channel. Nodes with one way in or one way out (end points, joints of a bus and a tree) switch nothing. A switch of a
    fat tree whose channels are k times as wide as its leaves' is k switches side by side, as such trees are built.
    """
    edges, widths = topology.edges, topology.channels.bytes_per_cycle
    edges = edges[edges[:, 2] >= 0]
    source, target, channel = edges.T
    bits = 8.0 * widths[channel]
    kinds = np.array([kind for _, kind in topology.graph.nodes(data="kind")])
    count = len(kinds)
    ways = [np.bincount(end, minlength=count) for end in (target, source)]
    sides = [np.bincount(end, bits, minlength=count) for end in (target, source)]
    widest, narrowest = np.zeros(count), np.full(count, np.inf)
    for end in (target, source):
        np.maximum.at(widest, end, bits)
        np.minimum.at(narrowest, end, bits)
    switching = np.isin(kinds, ("pe", "switch")) & (ways[0] > 1) & (ways[1] > 1)
    own_port = np.where(kinds == "pe", widest, 0.0)
    planes = np.ones(count)
    if topology.kind == "fat_tree":
        planes = np.maximum(np.floor(narrowest / narrowest.min()), 1.0)
    pitch_mm = pitch_um / 1000
    bits_in, bits_out = (np.where(switching, (side + own_port) / planes, 0.0) for side in sides)
    crossing = pitch_mm * (bits_in + bits_out)
    of_channel = np.zeros(len(widths))
    np.maximum.at(of_channel, channel, crossing[source])
    return SwitchSizes(float((planes * bits_in * bits_out).sum()) * pitch_mm**2, of_channel)


def _wire_bits_mm(array: ArrayConfig) -> float:
    """All wire of the interconnect in bit mm, of the same lengths as energy is computed from."""
    if isinstance(array.network, GraphNetwork):
        from pe_sim.network.metrics import wire_bits_mm  # loads networkx

        return wire_bits_mm(array)
    bus, tree = array.network.bus, array.network.tree
    links = sum(
        ceil_div(array.num_pes, tree.arity**level) * tree_hop_pitches(level, tree.arity)
        for level in range(tree.num_levels)
    )
    ways = 2 if tree.downlink else 1
    width_pitches = bus.bytes_per_cycle * bus_wire_pitches(array.num_pes) + ways * tree.bytes_per_cycle * links
    return 8 * width_pitches * array.floorplan.pe_pitch_mm
