"""When the PEs' memory ports stream: takes a timeline, gives every access of every PE.

A trace has the work of PEs, not of their ports. What a port does follows from the work and its start, as the machine
model says (section 4): so the accesses of every PE are gone through once more, in program order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pe_sim.report.timeline import Timeline
from pe_sim.schedule.builders import PREFETCHING_OVERLAP
from pe_sim.schedule.matrix_timing import MatrixTiming, PeMatrixWork, works_of
from pe_sim.schedule.memory_timing import memory_timing
from pe_sim.schedule.stages import MatrixWork, PeStage, Resource
from pe_sim.trace import NOT_ACTIVE
from pe_sim.units import BoolArray, IntArray


@dataclass(frozen=True, slots=True)
class PortAccess:
    """What one stage does at the ports; arrays are (PEs,), of PEs without a part in it they mean nothing.

    Args:
        order: of the stage.
        active: PEs that have a part in it.
        ahead_start, ahead_end: cycles between which operands were prefetched; equal where none were.
        start, end: cycles between which the rest was streamed, a pause between two passes included.
        busy: cycles of the port after `start`; all that the stage takes of it beside the prefetching.
    """

    order: int
    active: BoolArray
    ahead_start: IntArray
    ahead_end: IntArray
    start: IntArray
    end: IntArray
    busy: IntArray


def port_accesses(timeline: Timeline) -> Iterator[PortAccess]:
    """The accesses of all stages in program order."""
    return _Replay(timeline).accesses()


class _Replay:
    """When each port is free, while the stages are gone through."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        array = timeline.schedule.array
        self._overlap = array.overlap
        self._timing, self._memory = MatrixTiming(array), memory_timing(array.pe.memory)
        self._free_at = np.zeros(array.num_pes, dtype=np.int64)
        self._works: dict[int, tuple[list[PeMatrixWork], IntArray]] = {}

    def accesses(self) -> Iterator[PortAccess]:
        """See `port_accesses`."""
        for span, stage in self._timeline.active():
            if not isinstance(stage, PeStage) or span.pe_start is None or span.pe_end is None:
                continue
            active = span.pe_start != NOT_ACTIVE
            if stage.matrix is not None:
                access = self._matrix(span.order, stage.matrix, active, span.pe_start)
            elif stage.resource is Resource.PE_MEMORY:
                begun = span.pe_end - stage.cycles  # it may have waited for the port
                access = PortAccess(
                    span.order, active & (stage.cycles > 0), begun, begun, begun, span.pe_end, stage.cycles
                )
            else:
                continue
            self._free_at = np.where(active, access.end + self._memory.closing_cycles, self._free_at)
            yield access

    def _matrix(self, order: int, matrix: MatrixWork, active: BoolArray, start: IntArray) -> PortAccess:
        """PEs with equal work whose ports were free for as long are worked out together."""
        works, number = self._works_of(matrix)
        idle = start - self._free_at
        pairs = np.where(active, idle, 0) * len(works) + number
        distinct, which = np.unique(pairs, return_inverse=True)
        spans = [self._timing.span(works[pair % len(works)], pair // len(works)) for pair in distinct.tolist()]
        columns = [(each.stream_end_cycles, each.memory_busy_cycles, each.ahead_cycles) for each in spans]
        ended, busy, spent = np.array(columns, dtype=np.int64).T[:, which]
        latency, opening = self._memory.latency_cycles, self._memory.busy_latency_cycles
        early = np.maximum(idle, 0) if self._overlap >= PREFETCHING_OVERLAP and matrix.static else np.zeros_like(idle)
        fetched = spent > 0
        ahead_start = self._free_at + latency - opening
        ahead_end = np.where(fetched, ahead_start + opening + spent, ahead_start)
        begun = np.where(fetched, start, start + np.maximum(-idle, 0) + latency - early - opening)
        busy = busy - np.where(fetched, opening + spent, 0)
        return PortAccess(order, active, ahead_start, ahead_end, begun, start + ended, busy)

    def _works_of(self, matrix: MatrixWork) -> tuple[list[PeMatrixWork], IntArray]:
        """The distinct works, and (PEs,) which of them each PE has; once for all layers that repeat the stage."""
        known = self._works.get(id(matrix))
        if known is None:
            each = works_of(matrix)
            distinct = {id(work): work for work in each}
            numbers = {identity: number for number, identity in enumerate(distinct)}
            column = np.array([numbers[id(work)] for work in each], dtype=np.int64)
            known = self._works[id(matrix)] = list(distinct.values()), column
        return known
