"""Reports as pages: takes one report or several, gives HTML in one file that loads nothing from anywhere.

The templates are in `templates/`; they escape whatever they are given. A policy in the page lets a browser load nothing
and run no script but the page's own, which is named by its hash. Without scripts all figures and tables are there to
be read; only sorting, copying and the moving timeline are missing.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml

from pe_sim._version import __version__
from pe_sim.config.arrays.load import array_to_dict
from pe_sim.errors import InputError
from pe_sim.report.compare import Ranking, cost_notes, subject
from pe_sim.report.files import write_text
from pe_sim.report.html import figures
from pe_sim.report.html.figures import (
    Cell,
    Source,
    Table,
    component,
    heat_maps,
    number,
    percent,
    quantity,
    scale_colours,
    texts,
)
from pe_sim.report.html.timeline import MAX_SLICES, WIDTH, courses, drawn_span, timeline
from pe_sim.report.step import GROUPS, StepFigures, cycles_by_kind, parts, workflow_to_dict
from pe_sim.report.table import RESOURCE_NAMES, process_words, summary_rows
from pe_sim.schedule.stages import Tag
from pe_sim.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from jinja2 import Environment

_SCRIPT: Final = "script.js.j2"


def report_html(report: StepFigures) -> str:
    """The HTML page of one report."""
    label = {report.workflow.name: report}
    subject = f"{report.step.phase} of {report.model.name} on {report.array.name}{report.fit_mark}"
    return _render(
        "report.html.j2",
        title=f"{report.workflow.name}: {subject}",
        subject=subject,
        facts=figures.facts(report),
        summary=summary_rows(report),
        by_part=figures.time_by_part(label),
        by_cause=figures.time_by_cause(label),
        by_operator=figures.operators_by_cause(report),
        timelines={report.workflow.name: timeline(report)},
        courses=courses(report),
        heat=heat_maps(report),
        heat_scale=scale_colours(),
        tables=figures,
        report=report,
        sources=[*_common_sources([report]), _workflow_source(report, report.workflow.name)],
    )


def comparison_html(
    reports: Sequence[StepFigures],
    labels: Sequence[str] | None = None,
    failed: Mapping[str, str] | None = None,
    unequal: Mapping[str, str] | None = None,
    remarks: Sequence[str] = (),
) -> str:
    """The HTML page of several reports side by side.

    Args:
        reports: at least one; all figures of time have one scale.
        labels: what to call them, each a name of its own; None: their workflows' names.
        failed: by label, why a case could not be simulated.
        unequal: by label, what was not made equal to the others; such a report is shown and not ranked.
        remarks: sentences on the whole comparison, shown below the summary.

    Raises:
        InputError: no reports, or not one label for each.
    """
    names = list(labels) if labels is not None else [report.workflow.name for report in reports]
    if not reports or len(set(names)) != len(reports) or len(names) != len(reports):
        raise InputError(
            f"{len(reports)} reports cannot be compared under {len(set(names))} labels",
            path="labels",
            expected="at least one report, and a label of its own for each",
        )
    ranking = Ranking.of(reports, names, unequal or {})
    named = dict(zip(ranking.marked, reports, strict=True))
    best = ranking.marked[ranking.best]
    share, nanoseconds = MAX_SLICES // len(reports), max(_drawn_nanoseconds(report) for report in reports)
    drawn = {
        name: timeline(report, share, math.ceil(nanoseconds * report.array.clock_ghz)) for name, report in named.items()
    }
    where, phase = subject(reports, "{:,} PEs")
    return _render(
        "compare.html.j2",
        title=f"{phase} of {where}: {len(reports)} compared",
        subject=f"{phase} of {where}",
        best=best,
        fits=not reports[ranking.best].shortage,
        overview=overview(named, ranking),
        by_part=figures.time_by_part(named),
        by_cause=figures.time_by_cause(named),
        differences=part_differences(named, best),
        traffic=traffic(named),
        utilization=utilization(named),
        energy=energy(named),
        cost_notes=cost_notes(reports),
        accuracy=[(name, report.envelope) for name, report in named.items()],
        timelines=drawn,
        failed=failed or {},
        not_ranked=[*ranking.notes, *remarks],
        notes=list(dict.fromkeys(note for report in reports for note in report.model.notes)),
        sources=_common_sources(reports) + [_workflow_source(report, name) for name, report in named.items()],
    )


def summary_html(report: StepFigures) -> str:
    """HTML for a notebook: the summary and where the time goes, with inline styles."""
    label = {report.workflow.name: report}
    return _render("summary.html.j2", summary=summary_rows(report), by_part=figures.time_by_part(label))


def save_comparison_html(
    path: str | Path,
    reports: Sequence[StepFigures],
    labels: Sequence[str] | None = None,
    failed: Mapping[str, str] | None = None,
    unequal: Mapping[str, str] | None = None,
    remarks: Sequence[str] = (),
) -> None:
    """Writes `comparison_html()` to a file, whole or not at all.

    Raises:
        InputError: as `comparison_html` raises it, or the file cannot be written.
    """
    write_text(path, comparison_html(reports, labels, failed, unequal, remarks))


def _render(template: str, **values: Any) -> str:
    environment = _environment()
    script = environment.get_template(_SCRIPT).render()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = environment.get_template(template)
    return page.render(**values, script=script, script_hash=digest, version=__version__, width=WIDTH) + "\n"


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined  # heavy, and only needed here

    return Environment(
        loader=PackageLoader("pe_sim.report.html"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _drawn_nanoseconds(report: StepFigures) -> float:
    first, last, _ = drawn_span(report)
    return (last - first) / report.array.clock_ghz


def _common_sources(reports: Sequence[StepFigures]) -> list[Source]:
    """The texts of all arrays, models and steps, each once."""
    found: list[Source] = []
    for report in reports:
        array = yaml.safe_dump(array_to_dict(report.array), sort_keys=False, allow_unicode=True)
        found.append(Source(f"Array {report.array.name} (YAML, what --array takes)", array))
        found.append(Source(f"Model {report.model.name}", _pretty(report.model.to_dict())))
        found.append(Source(f"Step, {report.step.phase}", _pretty(report.step.to_dict())))
    return list(dict.fromkeys(found))


def _workflow_source(report: StepFigures, label: str) -> Source:
    """The text of the resolved workflow, with consecutive layers of the same distributions in one entry."""
    resolved = workflow_to_dict(report.workflow, report.graph.num_layers)

    def plan(layer: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in layer.items() if name != "layer"}

    runs = [list(run) for _, run in groupby(resolved["layers"], key=plan)]
    layers = [{"layers": f"{run[0]['layer']}-{run[-1]['layer']}", **plan(run[0])} for run in runs]
    return Source(f"Workflow {label}", _pretty({**resolved, "layers": layers}))


def _pretty(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


# ---- Several reports side by side, as tables of a page: takes reports by their labels, a column or a row each.


def overview(reports: Mapping[str, StepFigures], ranking: Ranking) -> Table:
    """A table with a row of main figures for each report, the best one marked."""
    rows = []
    best = ranking.marked[ranking.best]
    for (label, report), over in zip(reports.items(), ranking.over_best, strict=True):
        kind = next(iter(cycles_by_kind(report)))
        traffic = report.traffic.values()
        num_bytes = sum(use.bytes for use in traffic)
        joules, area = report.energy["per_token_joules"], report.area.total_mm2
        rows.append(
            (
                Cell(label, strong=label == best),
                Cell(kind),
                number(report.latency_cycles),
                number(report.latency_seconds, format_seconds(report.latency_seconds)),
                number(report.tokens_per_second, f"{report.tokens_per_second:,.2f}"),
                Cell("-") if over is None else number(over, f"{over:.3f}"),
                percent(_busiest(report)),
                number(sum(use.messages for use in traffic)),
                number(num_bytes, format_bytes(num_bytes)),
                number(joules, quantity("_joules", joules)),
                number(area, quantity("_mm2", area)),
                Cell(process_words(report.array)),
            )
        )
    heads = (
        "workflow",
        "bound by",
        "cycles",
        "latency",
        "tokens/s",
        "× best",
        "busiest",
        "messages",
        "bytes",
    )
    return Table((*heads, "energy/token", "area", "process"), tuple(rows), 2)


def part_differences(reports: Mapping[str, StepFigures], best: str) -> Table:
    """A table of the critical path's cycles by part, with the differences from the best report."""
    cycles = {label: {part.name: part.cycles for part in parts(report)} for label, report in reports.items()}
    names = [name for name in (*GROUPS, *(tag.value for tag in Tag)) if any(name in each for each in cycles.values())]
    rows = []
    for name in names:
        least = cycles[best].get(name, 0)
        rows.append((Cell(name), *(_against(each.get(name, 0), least) for each in cycles.values())))
    totals = [_against(report.latency_cycles, reports[best].latency_cycles) for report in reports.values()]
    return Table(("part", *_heads(reports, best)), tuple(rows), 1, (Cell("latency"), *totals))


def traffic(reports: Mapping[str, StepFigures]) -> Table:
    """A table of messages and bytes by tag, a column for each report."""
    rows = []
    for tag in Tag:
        uses = [report.traffic[tag.value] for report in reports.values()]
        if any(use.messages for use in uses):
            cells = [number(use.bytes, f"{use.messages:,} / {format_bytes(use.bytes)}") for use in uses]
            rows.append((Cell(tag.value), *cells))
    return Table(("tag", *reports), tuple(rows))


def utilization(reports: Mapping[str, StepFigures]) -> Table:
    """A table of busy over elapsed cycles, a row for each resource that any report has."""
    names = dict.fromkeys(name for report in reports.values() for name in report.utilization)
    rows = []
    for name in names:
        values = [report.utilization.get(name) for report in reports.values()]
        cells = [Cell("-", -1.0) if value is None else percent(value) for value in values]
        rows.append((Cell(RESOURCE_NAMES.get(name, name)), *cells))
    return Table(("resource", *reports), tuple(rows))


def energy(reports: Mapping[str, StepFigures]) -> Table:
    """A table of joules by component, a column for each report."""
    found = {label: report.energy for label, report in reports.items()}
    names = dict.fromkeys(name for each in found.values() for name in each["by_component"])
    rows = []
    for name in names:
        joules = [each["by_component"].get(name, 0.0) for each in found.values()]
        rows.append((Cell(component(name)), *(number(value, quantity("_joules", value)) for value in joules)))
    totals = texts(quantity("_joules", each["total_joules"]) for each in found.values())
    return Table(("component", *reports), tuple(rows), 1, (Cell("total"), *totals))


def _busiest(report: StepFigures) -> float:
    """Busy over elapsed cycles of the bus, or on a graph of channels of the hottest channel."""
    on_graph = report.array.network.is_graph
    return float(report.bounds["network_cycles" if on_graph else "bus_cycles"]) / max(report.latency_cycles, 1)


def _heads(reports: Mapping[str, StepFigures], best: str) -> list[str]:
    return [f"{label} (best)" if label == best else label for label in reports]


def _against(value: int, best: int) -> Cell:
    difference = value - best
    return number(value, f"{value:,} ({difference:+,})" if difference else f"{value:,}")
