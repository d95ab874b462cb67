"""What an interconnect is in numbers: takes an array, gives PEs, channels, diameter, bisection width and wire."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pe_sim.config.array import ArrayConfig
from pe_sim.network.channels import Channels
from pe_sim.network.search import count_diameter, search_bisection
from pe_sim.network.topologies import KINDS, build_topology, plan_of
from pe_sim.notebook import Table, card


@dataclass(frozen=True, slots=True)
class LevelMetrics:
    """The channels of one level; pairs are the least and the greatest."""

    level: str
    channels: int
    bytes_per_cycle: tuple[int, int]
    latency_cycles: tuple[int, int]
    overhead_cycles: tuple[int, int]
    length_mm: float
    wire_bits_mm: float

    @property
    def cells(self) -> tuple[str, ...]:
        """As a row of a table."""
        spans = (self.bytes_per_cycle, self.latency_cycles, self.overhead_cycles)
        texts = [f"{least:,}" if least == most else f"{least:,}-{most:,}" for least, most in spans]
        return self.level, f"{self.channels:,}", *texts, f"{self.length_mm:,.1f}", f"{self.wire_bits_mm:,.0f}"


@dataclass(frozen=True, slots=True)
class TopologyMetrics:
    """An interconnect in numbers.

    Args:
        num_pes: N.
        num_switches: switches and joints; routers belong to their PE.
        num_channels: a link has one each way, a shared bus is one.
        diameter_hops: channels on the longest of the shortest ways between two PEs.
        bisection_bytes_per_cycle: the least width from one half of the PEs to the other, in one direction.
        bisection_how: how we know.
        wire_mm: lengths of all channels.
        wire_bits_mm: lengths times wires: 8 a byte per cycle.
        levels: the same by level.
        floorplan: under which the lengths hold.
    """

    kind: str
    num_pes: int
    num_switches: int
    num_channels: int
    diameter_hops: int
    bisection_bytes_per_cycle: int
    bisection_how: str
    wire_mm: float
    wire_bits_mm: float
    levels: tuple[LevelMetrics, ...]
    floorplan: str

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)

    def _repr_html_(self) -> str:
        """What a notebook shows: the whole, and a row a level."""
        facts = [
            ("switches", f"{self.num_switches:,}"),
            ("channels", f"{self.num_channels:,}"),
            ("diameter", f"{self.diameter_hops:,} hops"),
            ("bisection", f"{self.bisection_bytes_per_cycle:,} B/cycle one way ({self.bisection_how})"),
            ("wire", f"{self.wire_mm:,.1f} mm, {self.wire_bits_mm:,.0f} bit mm"),
            ("floor plan", self.floorplan),
        ]
        heads = ("level", "channels", "B/cycle", "latency, cycles", "overhead, cycles", "length, mm", "wire, bit mm")
        rows = [level.cells for level in self.levels]
        return card(f"{self.kind}, {self.num_pes:,} PEs", facts, [Table(heads, rows)])


def topology_metrics(array: ArrayConfig) -> TopologyMetrics:
    """The metrics of an array's interconnect; closed forms where the kind has them."""
    topology, plan = build_topology(array), plan_of(array)
    kind = KINDS[array.network.kind]
    diameter = kind.diameter(plan)
    bisection = kind.bisection(plan) or search_bisection(topology)
    channels = topology.channels
    pitch, reach = array.floorplan.pe_pitch_mm, array.floorplan.mm_per_cycle
    return TopologyMetrics(
        kind=array.network.kind,
        num_pes=topology.num_pes,
        num_switches=sum(kind in ("switch", "joint") for _, kind in topology.graph.nodes(data="kind")),
        num_channels=len(channels),
        diameter_hops=count_diameter(topology) if diameter is None else diameter,
        bisection_bytes_per_cycle=bisection.bytes_per_cycle,
        bisection_how=bisection.how,
        wire_mm=float(channels.length_mm.sum()),
        wire_bits_mm=channels.wire_bits_mm,
        levels=level_metrics(channels),
        floorplan=f"{topology.floorplan}; a pitch of {pitch:g} mm, {reach:g} mm a cycle",
    )


def level_metrics(channels: Channels) -> tuple[LevelMetrics, ...]:
    """One entry a level, in the order of the channels."""
    levels = np.array(channels.level)
    return tuple(_level(channels, level, np.flatnonzero(levels == level)) for level in dict.fromkeys(channels.level))


def _level(channels: Channels, level: str, mine: np.ndarray[Any, Any]) -> LevelMetrics:
    def span(numbers: np.ndarray[Any, Any]) -> tuple[int, int]:
        return int(numbers[mine].min()), int(numbers[mine].max())

    lengths, widths = channels.length_mm[mine], channels.bytes_per_cycle[mine]
    return LevelMetrics(
        level=level,
        channels=len(mine),
        bytes_per_cycle=span(channels.bytes_per_cycle),
        latency_cycles=span(channels.latency_cycles),
        overhead_cycles=span(channels.overhead_cycles),
        length_mm=float(lengths.sum()),
        wire_bits_mm=float((8.0 * widths * lengths).sum()),
    )
