"""What goes on over time as numbers: takes a report, gives the mean of each counter in equal parts of the step.

Utilization is busy over elapsed, as `Report.utilization` has it, and its mean over the step is that very number: of
the PEs' units the mean over all PEs, of the tree over the paths of its leaves, of a level over its channels. Bytes are
in flight from the grant of their channel until their last one arrives. The matrix and vector units' busy cycles are
spread evenly over their operator; the memory ports' are where they stream.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from pe_sim.config.network import GraphNetwork
from pe_sim.report.channels import channels_by_level
from pe_sim.report.memory_ports import port_accesses
from pe_sim.report.report import Report
from pe_sim.report.tracks import CHANNEL_NAMES, INTERCONNECT, PES
from pe_sim.schedule.stages import MessageStage, PeStage, Resource, TreeStage
from pe_sim.trace import NOT_ACTIVE
from pe_sim.units import IntArray

FloatArray = npt.NDArray[np.float64]

BINS: Final = 500
PERCENT: Final = "percent"
BYTES: Final = "bytes"


@dataclass(frozen=True, eq=False)
class Counter:
    """`values[i]` is the mean between `edges[i]` and `edges[i + 1]`, in cycles; unit is percent or bytes."""

    group: str
    name: str
    unit: str
    edges: FloatArray
    values: FloatArray


class _Means:
    """Means of a sum of rates, each constant from one cycle to another, in equal parts of the step."""

    def __init__(self, makespan: int, bins: int) -> None:
        self.edges = np.linspace(0.0, float(max(makespan, 1)), bins + 1)
        self._change, self._moment = np.zeros((2, bins + 1))

    def add(self, start: IntArray, end: IntArray, rate: FloatArray) -> None:
        """Rates between `start` and `end`; arrays of one shape."""
        times = np.concatenate([start, end]).astype(np.float64)
        change = np.concatenate([rate, -rate])
        where = np.searchsorted(self.edges, times, side="left")  # the first edge that it counts at
        inside = where < len(self.edges)
        size = len(self.edges)
        self._change += np.bincount(where[inside], change[inside], size)
        self._moment += np.bincount(where[inside], (change * times)[inside], size)

    def means(self) -> FloatArray:
        """(bins,) never negative."""
        until = self.edges * np.cumsum(self._change) - np.cumsum(self._moment)
        return np.maximum(np.diff(until) / np.diff(self.edges), 0.0)


def counters(report: Report, bins: int = BINS) -> tuple[Counter, ...]:
    """All counters of a report."""
    if isinstance(report.array.network, GraphNetwork):
        return (*_of_levels(report, bins), *_of_pes(report, bins))
    return (*_of_bus_tree(report, bins), *_of_pes(report, bins))


def _counter(group: str, name: str, unit: str, means: _Means) -> Counter:
    scale = 100.0 if unit == PERCENT else 1.0
    what = "utilization" if unit == PERCENT else "bytes in flight"
    return Counter(group, f"{name}: {what}", unit, means.edges, scale * means.means())


def _of_bus_tree(report: Report, bins: int) -> list[Counter]:
    uses, makespan = report.trace.channel_use, report.latency_cycles
    covered, travel = _of_stages(report)
    found = []
    for channel, name in enumerate(uses.channels):
        if name not in report.channels.name:
            continue  # an array without a downlink
        mine = uses.channel == channel
        stage, start, end = uses.stage[mine], uses.start[mine], uses.end[mine]
        busy, flying = _Means(makespan, bins), _Means(makespan, bins)
        busy.add(start, end, covered[stage])
        flying.add(start, end + travel[stage], uses.num_bytes[mine].astype(np.float64))
        label = CHANNEL_NAMES.get(name, name)
        found.append(_counter(INTERCONNECT, label, PERCENT, busy))
        found.append(_counter(INTERCONNECT, label, BYTES, flying))
    return found


def _of_stages(report: Report) -> tuple[FloatArray, IntArray]:
    """By stage: the part of the PEs whose way a message or reduction occupies, and its cycles after the channel."""
    stages, network, num_pes = report.timeline.stages, report.array.bus_tree, report.array.num_pes
    covered, travel = np.ones(len(stages)), np.zeros(len(stages), dtype=np.int64)
    for order, stage in enumerate(stages):
        if isinstance(stage, TreeStage):
            travel[order] = stage.hop_cycles[0]
            covered[order] = 1.0 if stage.whole_tree else (stage.last_pe[0] - stage.first_pe[0]) / num_pes
        elif isinstance(stage, MessageStage) and stage.channel is Resource.DOWNLINK:
            travel[order] = stage.hop_cycles[0]
            covered[order] = (stage.last_pe[0] - stage.first_pe[0]) / num_pes
        elif isinstance(stage, MessageStage):
            travel[order] = network.bus.latency_cycles
    return covered, travel


def _of_levels(report: Report, bins: int) -> list[Counter]:
    from pe_sim.network.interconnect import interconnect_of  # loads networkx

    uses, makespan = report.trace.channel_use, report.latency_cycles
    latency = interconnect_of(report.array).topology.channels.latency_cycles
    found = []
    for level, channels in channels_by_level(report.channels.level).items():
        mine = np.isin(uses.channel, channels)
        start, end = uses.start[mine], uses.end[mine]
        busy, flying = _Means(makespan, bins), _Means(makespan, bins)
        busy.add(start, end, np.full(len(start), 1.0 / len(channels)))
        flying.add(start, end + latency[uses.channel[mine]], uses.num_bytes[mine].astype(np.float64))
        found.append(_counter(INTERCONNECT, level, PERCENT, busy))
        found.append(_counter(INTERCONNECT, level, BYTES, flying))
    return found


def _of_pes(report: Report, bins: int) -> list[Counter]:
    makespan, num_pes = report.latency_cycles, report.array.num_living
    matrix, vector, memory = (_Means(makespan, bins) for _ in range(3))
    for span, stage in report.timeline.active():
        if not isinstance(stage, PeStage) or span.pe_start is None or span.pe_end is None:
            continue
        if stage.resource is Resource.PE_MEMORY:
            continue
        units, cycles = (vector, stage.cycles) if stage.matrix is None else (matrix, stage.matrix.compute_cycles)
        worked = (span.pe_start != NOT_ACTIVE) & (span.pe_end > span.pe_start)
        _spread(units, span.pe_start[worked], span.pe_end[worked], cycles[worked], num_pes)
    for access in port_accesses(report.timeline):
        ahead = access.active & (access.ahead_end > access.ahead_start)
        start, end = access.ahead_start[ahead], access.ahead_end[ahead]
        _spread(memory, start, end, end - start, num_pes)
        then = access.active & (access.end > access.start)
        _spread(memory, access.start[then], access.end[then], access.busy[then], num_pes)
    units_of = {"matrix units": matrix, "vector units": vector, "memory ports": memory}
    return [_counter(PES, name, PERCENT, means) for name, means in units_of.items()]


def _spread(means: _Means, start: IntArray, end: IntArray, busy: IntArray, num_pes: int) -> None:
    means.add(start, end, busy / (end - start) / num_pes)
