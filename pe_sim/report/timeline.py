"""A trace beside the schedule it ran: what limits each stage, and what its messages are counted under."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pe_sim.schedule.stages import (
    MessageStage,
    PeStage,
    Resource,
    RootStage,
    RoutedStage,
    Schedule,
    Stage,
    Tag,
    TreeStage,
)
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

    @cached_property
    def _streams_longer(self) -> dict[int, BoolArray]:
        return {}

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
            return Resource.PE_MEMORY if self._memory_bound(stage)[at] else Resource.PE_MATRIX
        return resource_of(stage)

    def _memory_bound(self, stage: PeStage) -> BoolArray:
        """(PEs,) worked out once for all layers that repeat the stage."""
        matrix = stage.matrix
        assert matrix is not None
        if id(matrix) not in self._streams_longer:
            streaming = matrix.memory_cycles
            self._streams_longer[id(matrix)] = streaming >= matrix.compute_cycles
        return self._streams_longer[id(matrix)]


def tag_of(stage: Stage) -> Tag | None:
    """What the stage's messages are counted under; None for work."""
    if isinstance(stage, MessageStage | RoutedStage):
        return stage.tag
    return Tag.REDUCE if isinstance(stage, TreeStage) else None


def resource_of(stage: Stage) -> Resource:
    """What a stage asks for; matrix stages for the matrix unit, whatever limits them."""
    if isinstance(stage, PeStage | RootStage):
        return stage.resource
    if isinstance(stage, RoutedStage):
        return Resource.NETWORK
    return stage.channel if isinstance(stage, MessageStage) else Resource.TREE


def _longest_pe(stage: PeStage, span: StageSpan) -> int:
    return int(np.flatnonzero(stage.active)[0]) if span.on_pes is None else span.on_pes.longest_pe
