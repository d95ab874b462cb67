"""Reports as pages: takes one report or several, gives HTML in one file that asks for nothing from anywhere.

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
from pe_sim.config.arrays import array_to_dict
from pe_sim.errors import InputError
from pe_sim.report import html_compare, html_figures
from pe_sim.report.compare import Ranking, cost_notes
from pe_sim.report.files import write_text
from pe_sim.report.html_heat import heat_maps, scale_colours
from pe_sim.report.html_models import Source
from pe_sim.report.html_timeline import MAX_SLICES, WIDTH, courses, drawn_span, timeline
from pe_sim.report.report import Report, workflow_to_dict
from pe_sim.report.table import summary_rows

if TYPE_CHECKING:
    from jinja2 import Environment

_SCRIPT: Final = "script.js.j2"


def report_html(report: Report) -> str:
    """The page of one report."""
    label = {report.workflow.name: report}
    subject = f"{report.step.phase} of {report.model.name} on {report.array.name}{report.fit_mark}"
    return _render(
        "report.html.j2",
        title=f"{report.workflow.name}: {subject}",
        subject=subject,
        facts=html_figures.facts(report),
        summary=summary_rows(report),
        by_part=html_figures.time_by_part(label),
        by_cause=html_figures.time_by_cause(label),
        by_operator=html_figures.operators_by_cause(report),
        timelines={report.workflow.name: timeline(report)},
        courses=courses(report),
        heat=heat_maps(report),
        heat_scale=scale_colours(),
        tables=html_figures,
        report=report,
        sources=[*_common_sources([report]), _workflow_source(report, report.workflow.name)],
    )


def comparison_html(
    reports: Sequence[Report],
    labels: Sequence[str] | None = None,
    failed: Mapping[str, str] | None = None,
    unequal: Mapping[str, str] | None = None,
) -> str:
    """The page of several reports beside each other.

    Args:
        reports: at least one; all figures of time have one scale.
        labels: what to call them, each a name of its own; None: their workflows' names.
        failed: by the label of what could not be simulated, why.
        unequal: by label, what was not made equal to the others; it is shown and not ranked.

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
    return _render(
        "compare.html.j2",
        title=f"{html_compare.subject(reports)}: {len(reports)} compared",
        subject=html_compare.subject(reports),
        best=best,
        fits=not reports[ranking.best].shortage,
        overview=html_compare.overview(named, ranking),
        by_part=html_figures.time_by_part(named),
        by_cause=html_figures.time_by_cause(named),
        differences=html_compare.part_differences(named, best),
        traffic=html_compare.traffic(named),
        utilization=html_compare.utilization(named),
        energy=html_compare.energy(named),
        cost_notes=cost_notes(reports),
        accuracy=[(name, report.envelope) for name, report in named.items()],
        timelines=drawn,
        failed=failed or {},
        not_ranked=ranking.notes,
        notes=list(dict.fromkeys(note for report in reports for note in report.model.notes)),
        sources=_common_sources(reports) + [_workflow_source(report, name) for name, report in named.items()],
    )


def summary_html(report: Report) -> str:
    """What a notebook shows: the summary and where the time goes, with the styles of its elements in them."""
    label = {report.workflow.name: report}
    return _render("summary.html.j2", summary=summary_rows(report), by_part=html_figures.time_by_part(label))


def save_comparison_html(
    path: str | Path,
    reports: Sequence[Report],
    labels: Sequence[str] | None = None,
    failed: Mapping[str, str] | None = None,
    unequal: Mapping[str, str] | None = None,
) -> None:
    """Writes `comparison_html()`, whole or not at all.

    Raises:
        InputError: as `comparison_html`, or the file cannot be written.
    """
    write_text(path, comparison_html(reports, labels, failed, unequal))


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
        loader=PackageLoader("pe_sim.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _drawn_nanoseconds(report: Report) -> float:
    first, last, _ = drawn_span(report)
    return (last - first) / report.array.clock_ghz


def _common_sources(reports: Sequence[Report]) -> list[Source]:
    """Arrays, models and steps, each once."""
    found: list[Source] = []
    for report in reports:
        array = yaml.safe_dump(array_to_dict(report.array), sort_keys=False, allow_unicode=True)
        found.append(Source(f"Array {report.array.name} (YAML, what --array takes)", array))
        found.append(Source(f"Model {report.model.name}", _pretty(report.model.to_dict())))
        found.append(Source(f"Step, {report.step.phase}", _pretty(report.step.to_dict())))
    return list(dict.fromkeys(found))


def _workflow_source(report: Report, label: str) -> Source:
    """The workflow resolved; layers that follow each other with the same distributions in one entry."""
    resolved = workflow_to_dict(report.workflow, report.graph.num_layers)

    def plan(layer: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in layer.items() if name != "layer"}

    runs = [list(run) for _, run in groupby(resolved["layers"], key=plan)]
    layers = [{"layers": f"{run[0]['layer']}-{run[-1]['layer']}", **plan(run[0])} for run in runs]
    return Source(f"Workflow {label}", _pretty({**resolved, "layers": layers}))


def _pretty(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)
