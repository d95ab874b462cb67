"""Points to rows: takes settings, gives the figures of their simulation, or the error, with the configs behind them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from pe_sim import api
from pe_sim.errors import InputError, worst
from pe_sim.mapping.workflow import Workflow
from pe_sim.report.analysis import metrics
from pe_sim.report.analysis.envelope import widest
from pe_sim.report.report import Report
from pe_sim.report.step import workflow_to_dict
from pe_sim.studies.grid import Settings, canonical, unresolved_key
from pe_sim.studies.resolve import Resolved, Resolver, Steps

Figure = int | float | str | None
Figures = dict[str, Figure]

NO_FIT: Final = "does_not_fit"  # what exceeds the memories by how much, where `allow_overflow` let it pass
BASIS: Final = "cost_basis"  # which process and memories energy and area are of, and what of it was assumed
INPUT: Final = "input"  # the point is wrong: the same settings will always be
FAULT: Final = "fault"  # something else went wrong: tried again at the next --resume
WORKER: Final = "worker"  # the process died over it: tried again at the next --resume
# Figures that are not added up over the steps of a situation.
_MEANS: Final = "utilization."
_AREA: Final = "area_mm2"
_PEAKS: Final = (
    "memory.peak_bytes_per_pe",
    "memory.capacity_bytes_per_pe",
    "memory.root_bytes",
    "num_pes",
    "clock_ghz",
    "batch",
)


@dataclass(frozen=True, slots=True)
class Row:
    """The result of one point.

    Args:
        key: of its resolved config.
        figures: figures by column; empty if the point failed.
        configs: canonical JSON of model, array, step and workflow; empty if they could not be made.
        error, error_kind: the message, and one of INPUT, FAULT and WORKER; None if the point succeeded.
    """

    key: str
    figures: Figures = field(default_factory=dict)
    configs: Mapping[str, str] = field(default_factory=dict)
    error: str | None = None
    error_kind: str | None = None


def key_of(settings: Settings, resolver: Resolver) -> str:
    """The key of the row that these settings will have."""
    try:
        return resolver.resolve(settings).key
    except InputError as error:
        return unresolved_key(settings, str(error))


def row_of(settings: Settings, resolver: Resolver) -> Row:
    """The row of one point; an error in it becomes part of the row and goes no further."""
    try:
        resolved = resolver.resolve(settings)
    except InputError as error:
        return Row(unresolved_key(settings, str(error)), error=str(error), error_kind=INPUT)
    configs = {"model": resolved.model_text, "array": resolved.array_text, "step": resolved.steps.text}
    try:
        reports = _simulate(resolved)
        figures = _figures(reports, resolved.steps)
    except InputError as error:
        return Row(resolved.key, {}, configs, str(error), INPUT)
    except Exception as error:  # a fault of ours must not end a sweep of many hours
        return Row(resolved.key, {}, configs, f"{type(error).__name__}: {error}".rstrip(": "), FAULT)
    return Row(resolved.key, figures, configs | {"workflow": _text_of(reports[0].workflow, resolved.model.num_layers)})


def lost_row(key: str) -> Row:
    """The row of a point whose worker died again and again."""
    error = "the process that simulated this point was killed, again and again, also when it did nothing else"
    return Row(key, error=f"{error}; was the memory enough?", error_kind=WORKER)


def _simulate(resolved: Resolved) -> list[Report]:
    """The reports of all steps, in order; a workflow that is searched is searched for all steps together."""
    model, array, steps = resolved.model, resolved.array, resolved.steps.weighted
    workflow = resolved.workflow
    if workflow.searched:
        # However long it takes: what a row says depends on no clock.
        workflow = api.search(model, array, steps, workflow=workflow, seconds=math.inf).uninterrupted.workflow
    overflow = resolved.allow_overflow
    return [api.simulate(model, array, step, workflow, resolved.engine, allow_overflow=overflow) for step, _ in steps]


def _figures(reports: Sequence[Report], steps: Steps) -> Figures:
    if steps.situation is None:
        figures = figures_of(reports[0])
    else:
        weights = [weight for _, weight in steps.weighted]
        figures = _together([figures_of(report) for report in reports], weights)
        tokens, seconds = steps.situation.counted_tokens, _number(figures["seconds"])
        joules = _number(figures["energy_joules"])
        figures |= {"tokens_per_second": tokens / seconds, "joules_per_token": joules / tokens}
        figures["average_watts"] = joules / seconds
        figures["phase"] = steps.situation.phases
    accuracy = widest(report.envelope for report in reports)
    shortage = worst(report.shortage for report in reports)
    if shortage:
        figures[NO_FIT] = shortage.problem
    figures[BASIS] = reports[0].array.cost_basis
    return figures | {"accuracy.envelope": accuracy.level, "accuracy.percent": accuracy.percent}


def figures_of(report: Report) -> Figures:
    """The figures of one step by column, equal to those of its report; the critical path is left out.

    Cycles, bytes and counts are whole numbers; seconds, joules, tokens a second and shares are not.
    """
    found: Figures = {
        "phase": report.step.phase,
        "batch": report.step.batch_size,
        "num_pes": report.array.num_pes,
        "clock_ghz": report.array.clock_ghz,
        "cycles": report.latency_cycles,
        "seconds": report.latency_seconds,
        "tokens_per_second": report.tokens_per_second,
    }
    traffic = report.traffic
    found |= {f"messages.{tag}": use.messages for tag, use in traffic.items()}
    found |= {f"bytes.{tag}": use.bytes for tag, use in traffic.items()}
    found |= {f"busy_cycles.{tag}": use.busy_cycles for tag, use in traffic.items()}
    found |= {f"{_MEANS}{name}": share for name, share in report.utilization.items()}
    found |= {f"bounds.{name}": cycles for name, cycles in metrics.bounds(report.timeline, report.channels).items()}
    energy, memory = report.energy, report.footprint
    found["energy_joules"] = float(energy["total_joules"])
    found |= {f"energy_joules.{name}": float(joules) for name, joules in energy["by_component"].items()}
    found["joules_per_token"] = float(energy["per_token_joules"])
    found["average_watts"] = float(energy["average_watts"])
    found[_AREA] = float(report.area.total_mm2)
    found |= {f"{_AREA}.{name}": float(mm2) for name, mm2 in report.area.by_component.items()}
    return found | {
        "memory.peak_bytes_per_pe": memory.peak_bytes_per_pe,
        "memory.capacity_bytes_per_pe": int(memory.capacity_bytes),
        "memory.root_bytes": int(memory.root_bytes),
        "memory.bytes_read": report.trace.read_bytes,
    }


def _together(each: Sequence[Figures], weights: Sequence[float]) -> Figures:
    """The figures of several steps as one: weighted sums, means over the time, and peaks."""
    seconds = [weight * _number(figures["seconds"]) for figures, weight in zip(each, weights, strict=True)]
    names = list(dict.fromkeys(name for figures in each for name in figures))
    found: Figures = {}
    for name in names:
        values = [figures.get(name, 0) for figures in each]
        if any(isinstance(value, str) for value in values):
            continue
        numbers = [_number(value) for value in values]
        if name in _PEAKS or name.startswith(_AREA):
            found[name] = max(numbers)
        elif name.startswith(_MEANS):
            shares = (share * time for share, time in zip(numbers, seconds, strict=True))
            found[name] = math.fsum(shares) / math.fsum(seconds)
        else:
            found[name] = math.fsum(weight * number for weight, number in zip(weights, numbers, strict=True))
    return found


def _number(value: Figure) -> int | float:
    assert isinstance(value, int | float)
    return value


@lru_cache(64)
def _text_of(workflow: Workflow, num_layers: int) -> str:
    return canonical(workflow_to_dict(workflow, num_layers))
