"""One decode step on one interconnect: cycles, how long the PEs wait, and the hottest channel."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from unittest.mock import patch

import numpy as np

import pe_sim as ps
from experiments.equal_wire_arrays import Wired
from pe_sim.config.models.model import ModelConfig
from pe_sim.schedule.stages import RootStage, Tag

FAST, EVENTS, LEFT_OUT = "fast", "event by event", "left out: needs event by event"


class NeedsEventsError(Exception):
    """The fast engine would hand the step over to the event engine."""


@dataclass(frozen=True, slots=True)
class Point:
    """One simulated step.

    Args:
        cycles: of the step; 0 where it was left out, as are the figures after it.
        tokens_per_second: at the clock of the array.
        waiting: share of the step in which neither the root nor the PE that works most does anything.
        hottest, hottest_level, utilization: the channel that was busy longest, and its share of the step.
        multicasts: messages of results that go back to a group of PEs.
        simulated: FAST, EVENTS or LEFT_OUT.
    """

    wired: Wired
    workflow: str
    cycles: int
    tokens_per_second: float
    waiting: float
    hottest: str
    hottest_level: str
    utilization: float
    multicasts: int
    simulated: str

    @property
    def topology(self) -> str:
        """The design's name."""
        return self.wired.design.name

    @property
    def pes(self) -> int:
        """N."""
        return self.wired.pes


def simulate(model: ModelConfig, step: ps.Decode, wired: Wired, workflow: str, *, event_by_event: bool = True) -> Point:
    """One point; left out where it needs the event engine and that is not wanted."""
    try:
        with _fast_alone(not event_by_event):
            report = ps.simulate(model, wired.array, step, workflow)
    except NeedsEventsError:
        return Point(wired, workflow, 0, 0.0, 0.0, "", "", 0.0, 0, LEFT_OUT)
    channels = report.channels
    first = channels.hottest(1)[0]
    return Point(
        wired,
        workflow,
        report.latency_cycles,
        report.tokens_per_second,
        waiting_share(report),
        channels.name[first],
        channels.level[first],
        float(channels.utilization()[first]),
        report.traffic[Tag.MULTICAST.value].messages,
        EVENTS if report.trace.notes else FAST,
    )


def waiting_share(report: ps.Report) -> float:
    """Of the step's cycles those that neither the root nor the PE that works most spends on work."""
    pes, root = np.zeros(report.array.num_pes, dtype=np.int64), 0
    for span, stage in report.timeline.active():
        if span.pe_start is not None and span.pe_end is not None:
            pes += np.where(span.pe_start >= 0, span.pe_end - span.pe_start, 0)
        elif isinstance(stage, RootStage):
            root += span.end - span.start
    return 1 - (int(pes.max()) + root) / report.latency_cycles


@contextmanager
def _fast_alone(wanted: bool) -> Iterator[None]:
    """Has the fast engine stop where it would go on event by event, which may take hours and all memory."""
    if not wanted:
        yield
        return
    with patch("pe_sim.engine.event.run.run_event", side_effect=NeedsEventsError):
        yield
