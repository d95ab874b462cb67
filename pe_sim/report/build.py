"""Takes everything a simulation made, gives its report."""

from __future__ import annotations

from collections.abc import Callable

from pe_sim.config.array import ArrayConfig
from pe_sim.config.model import ModelConfig
from pe_sim.config.step import Step
from pe_sim.graph.graph import OperatorGraph
from pe_sim.mapping.footprint import Footprint
from pe_sim.mapping.workflow import Workflow
from pe_sim.report.report import Report
from pe_sim.schedule.stages import Schedule
from pe_sim.trace import Trace


def build_report(
    model: ModelConfig,
    array: ArrayConfig,
    step: Step,
    workflow: Workflow,
    graph: OperatorGraph,
    schedule: Schedule,
    trace: Trace,
    footprint: Footprint,
    all_alive: Callable[[], int] | None = None,
) -> Report:
    """The report of one step; its figures are worked out when they are asked for.

    Args:
        all_alive: of an array with dead PEs, gives the cycles of the same step with all PEs alive.
    """
    return Report(model, array, step, workflow, graph, schedule, trace, footprint, all_alive)
