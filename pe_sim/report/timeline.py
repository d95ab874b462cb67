"""A trace beside the schedule it ran: every span with its stage, and which of its resources limits it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pe_sim.schedule.stages import MessageStage, PeStage, Resource, Schedule, Stage, Tag, TreeStage
from pe_sim.trace import NOT_ACTIVE, StageSpan, Trace
from pe_sim.units import BoolArray


@dataclass(frozen=True)
class Timeline:
    """Spans and stages by order; `stages[i]` is what `trace.spans[i]` executed."""

    schedule: Schedule
    trace: Trace

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """The stages in program order, a layer's once for each layer."""
        blocks, sequence = self.schedule.blocks, self.schedule.sequence
        return tuple(stage for run in sequence for stage in blocks[run.block].stages)

    def active(self) -> Iterator[tuple[StageSpan, Stage]]:
        """Spans with their stages, those left out in which nothing happened."""
        for span, stage in zip(self.trace.spans, self.stages, strict=True):
            if span.start != NOT_ACTIVE:
                yield span, stage

    def resource_of(self, order: int, pe: int | None = None) -> Resource:
        """What limits a stage: its resource, for matrix stages the memory port where streaming takes no less time.

        Args:
            order: of the span.
            pe: whose work decides; None: that of the PE that works longest.
        """
        stage = self.stages[order]
        if isinstance(stage, PeStage) and stage.matrix is not None:
            at = pe if pe is not None else _longest_pe(stage, self.trace.spans[order])
            return Resource.PE_MEMORY if bool(_memory_bound(stage)[at]) else Resource.PE_MATRIX
        return Resource(self.trace.spans[order].resource)


def tag_of(stage: Stage) -> Tag | None:
    """What the stage's messages are counted under; None for work."""
    if isinstance(stage, MessageStage):
        return stage.tag
    return Tag.REDUCE if isinstance(stage, TreeStage) else None


def _longest_pe(stage: PeStage, span: StageSpan) -> int:
    if span.pe_start is None or span.pe_end is None:
        return int(np.flatnonzero(stage.active)[0])
    return int((span.pe_end - span.pe_start).argmax())


def _memory_bound(stage: PeStage) -> BoolArray:
    assert stage.matrix is not None
    streaming = (stage.matrix.full_passes + 1) * stage.matrix.pass_memory_cycles
    return streaming >= stage.matrix.compute_cycles
