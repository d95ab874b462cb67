"""Where the time goes, drawn: takes reports, draws a stacked bar of the critical path for each, on one scale."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from matplotlib.transforms import ScaledTranslation

from pe_sim.errors import InputError
from pe_sim.report.html.figures import Bar, Segment, time_by_part
from pe_sim.report.step import StepFigures
from pe_sim.units import format_seconds, time_unit

__all__ = ["Axes", "plot_time"]

_STRIPES: Final = "////"  # communication, also without colours
_EDGE: Final = "white"
_INSIDE: Final = 0.06  # of the longest bar: the least width of a part that has its share written into it
_ROW_INCHES: Final = 0.42
_LEGEND_INCHES: Final = 0.45  # below the axis, whose label is above it


def plot_time(reports: Mapping[str, StepFigures], ax: Axes | None = None) -> Axes:
    """Draws a bar of each report's critical path by operator group and, striped, by tag; returns the axes.

    The fastest is on top; what does not fit the memories is below all that does.

    Args:
        reports: reports by their labels.
        ax: where to draw; None: in a new figure.

    Raises:
        InputError: there are no reports.
    """
    if not reports:
        raise InputError("there are no reports to draw", path="reports", expected="at least one")
    if ax is None:
        _, ax = plt.subplots(figsize=(8.0, 1.9 + _ROW_INCHES * len(reports)), layout="constrained")
    marked = ((f"{label}{report.fit_mark}", report) for label, report in reports.items())
    ordered = dict(sorted(marked, key=lambda item: (bool(item[1].shortage), item[1].latency_seconds)))
    longest = max(report.latency_seconds for report in reports.values())
    scale, unit = time_unit(longest)
    bars = time_by_part(ordered)
    for row, bar in enumerate(bars.bars):
        _draw_bar(ax, row, bar, longest / scale)
    for row, report in enumerate(ordered.values()):
        text = format_seconds(report.latency_seconds).replace("us", "µs")
        ax.text(report.latency_seconds / scale, row, f" {text}", va="center", fontsize="small")
    ax.set_yticks(range(len(ordered)), list(ordered), parse_math=False)
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(len(ordered) - 0.4, -0.6)
    ax.set_xlim(0.0, 1.12 * longest / scale)
    ax.set_xlabel(f"critical path ({unit})")
    ax.set_title(_subject(list(reports.values())), loc="left", fontsize="medium", parse_math=False)
    ax.spines[["top", "right", "left"]].set_visible(False)
    figure = ax.get_figure(root=True)
    assert figure is not None
    ax.legend(
        handles=[_patch(segment) for segment in bars.legend],
        loc="upper left",
        bbox_to_anchor=(0.0, 0.0),
        bbox_transform=ax.transAxes + ScaledTranslation(0.0, -_LEGEND_INCHES, figure.dpi_scale_trans),
        ncols=4,
        frameon=False,
        fontsize="small",
    )
    return ax


def _draw_bar(ax: Axes, row: int, bar: Bar, width: float) -> None:
    left = 0.0
    for segment in bar.segments:
        ax.barh(
            row,
            segment.share * width,
            left=left,
            height=0.7,
            color=segment.colour,
            hatch=_STRIPES if segment.striped else None,
            edgecolor=_EDGE,
            linewidth=0.5,
        )
        if segment.share >= _INSIDE and not segment.striped:
            share = segment.share / sum(part.share for part in bar.segments)
            ax.text(left + segment.share * width / 2, row, f"{share:.0%}", va="center", ha="center", fontsize="x-small")
        left += segment.share * width


def _patch(segment: Segment) -> Patch:
    hatch = _STRIPES if segment.striped else None
    return Patch(facecolor=segment.colour, hatch=hatch, edgecolor=_EDGE, label=segment.name)


def _subject(reports: list[StepFigures]) -> str:
    """The model and array that the reports share, and the phase of the first."""
    models = {report.model.name for report in reports}
    arrays = {f"{report.array.name} ({report.array.num_pes:,} PEs)" for report in reports}
    model = models.pop() if len(models) == 1 else "several models"
    return f"{model} on {arrays.pop() if len(arrays) == 1 else 'several arrays'}, {reports[0].step.phase}"
