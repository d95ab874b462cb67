"""The roofline of a step: takes a report, gives the array's ceilings and a point for every operator.

Ceilings, in flops and bytes a second at the array's clock: the matrix units of all PEs (2 flops a multiplier and cycle,
whatever the dtype: in this machine it changes the bytes alone), the memory ports of all PEs, and the channel that all
PEs share, the bus. A point has an operator's flops over the bytes that it read from the PEs' memories, counted as read
(every pass of a GEMM, KV heads on every PE that keeps them), and its flops over its own span, the moves it asked for
included. So a point lies below the roof by what waits, moves and tiles that are cut short take; one operator of all
layers is one point. What reads nothing from memory, norms, activations and softmax, has no place on the axis.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pe_sim.config.array import ArrayConfig, Network
from pe_sim.schedule.stages import PeStage
from pe_sim.units import exact_sum

if TYPE_CHECKING:
    from pe_sim.report.metrics import OperatorRow
    from pe_sim.report.report import Report

FLOPS_PER_MAC = 2


@dataclass(frozen=True, slots=True)
class Ceilings:
    """What the array could do at most.

    Args:
        flops_per_second: of all matrix units.
        memory_bytes_per_second: of all PEs' memory ports; of banks, whole rows back to back.
        shared_bytes_per_second: of the widest single channel: the bus.
        shared_name: what that channel is called.
    """

    flops_per_second: float
    memory_bytes_per_second: float
    shared_bytes_per_second: float
    shared_name: str

    @property
    def ridge(self) -> float:
        """The intensity, flops a byte, from which on the matrix units bound and not the memories."""
        return self.flops_per_second / self.memory_bytes_per_second

    def roof(self, intensity: float) -> float:
        """Flops a second at most at so many flops a byte."""
        return min(self.flops_per_second, intensity * self.memory_bytes_per_second)


@dataclass(frozen=True, slots=True)
class RooflinePoint:
    """An operator, all its layers together.

    Args:
        name: of the operator.
        distribution: what it has in some layers, where layers differ in it; else empty.
        flops, read_bytes: of all layers; bytes as read from the PEs' memories.
        seconds: of its spans, added up; those of other operators may overlap them.
        share: of the spans of all operators.
        bound_by: what most of its time is bound by, as in the report's operators.
    """

    name: str
    distribution: str
    flops: int
    read_bytes: int
    seconds: float
    share: float
    bound_by: str

    @property
    def intensity(self) -> float:
        """Flops a byte."""
        return self.flops / self.read_bytes

    @property
    def flops_per_second(self) -> float:
        """What it attained."""
        return self.flops / self.seconds


@dataclass(frozen=True, slots=True)
class Roofline:
    """Ceilings and points; `unplaced_share` of the spans belongs to operators that read nothing from memory."""

    ceilings: Ceilings
    points: tuple[RooflinePoint, ...]
    unplaced_share: float


def ceilings_of(array: ArrayConfig) -> Ceilings:
    """The ceilings of an array: of its living PEs."""
    hertz, unit = array.clock_ghz * 1e9, array.pe.matrix
    if isinstance(array.network, Network):
        width, name = array.network.bus.bytes_per_cycle, "bus"
    else:
        from pe_sim.network.interconnect import interconnect_of  # loads networkx

        channels = interconnect_of(array).topology.channels
        widest = int(channels.bytes_per_cycle.argmax())
        width, name = int(channels.bytes_per_cycle[widest]), f"one {channels.level[widest]}"
    return Ceilings(
        flops_per_second=array.num_living * unit.outputs * unit.depth * FLOPS_PER_MAC * hertz,
        memory_bytes_per_second=array.num_living * array.pe.memory.bytes_per_cycle * hertz,
        shared_bytes_per_second=width * hertz,
        shared_name=name,
    )


def roofline(report: Report) -> Roofline:
    """The ceilings of the report's array and its operators, the one with the longest span first."""
    read = _read_bytes(report)
    hertz = report.array.clock_ghz * 1e9
    total = sum(row.cycles for row in report.operators) or 1
    groups: dict[tuple[str, str], list[OperatorRow]] = {}
    for row in report.operators:
        groups.setdefault((row.name, row.distribution), []).append(row)
    names = Counter(name for name, _ in groups)
    points, unplaced = [], 0
    for (name, distribution), rows in groups.items():
        flops, cycles = sum(row.flops for row in rows), sum(row.cycles for row in rows)
        num_bytes = sum(read[row.layer, row.name] for row in rows)
        if not (flops and num_bytes and cycles):
            unplaced += cycles
            continue
        some = distribution if names[name] > 1 else ""
        points.append(RooflinePoint(name, some, flops, num_bytes, cycles / hertz, cycles / total, _bound_of(rows)))
    points.sort(key=lambda point: -point.share)
    return Roofline(ceilings_of(report.array), tuple(points), unplaced / total)


def _read_bytes(report: Report) -> Counter[tuple[int | None, str]]:
    """By (layer, operator), what matrix stages read from the memories of all PEs."""
    found: Counter[tuple[int | None, str]] = Counter()
    for span, stage in report.timeline.active():
        if isinstance(stage, PeStage) and stage.matrix is not None:
            found[span.layer, span.operator] += exact_sum(stage.matrix.read_bytes[stage.active])
    return found


def _bound_of(rows: list[OperatorRow]) -> str:
    cycles: Counter[str] = Counter()
    for row in rows:
        cycles[row.bound_by] += row.cycles
    return cycles.most_common(1)[0][0]
