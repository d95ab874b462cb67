"""The timeline of a step on several arrays: takes a report, draws a row for each stage, a colour a microbatch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.transforms import blended_transform_factory

from pe_sim.report.palette import MICROBATCH_COLOURS
from pe_sim.report.plots.roofline import picture_format
from pe_sim.report.plots.style import own_look
from pe_sim.report.system.figures import SystemFigures
from pe_sim.report.system.time import microbatch_spans
from pe_sim.schedule.system import ArrayPass
from pe_sim.units import format_seconds, time_unit

__all__ = ["Axes", "plot_timeline", "save_timeline"]

MAX_ROWS: Final = 64
_ROW_INCHES: Final = 0.34
_BAR: Final = 0.78  # of a row
_IDLE: Final = "#EFEFEF"
_BETWEEN: Final = 0.35  # opacity of a microbatch's colour where no array has a pass: exchanges
_NAMED: Final = 0.022  # of the step: a microbatch as wide as this has its number written into it
_PARTED: Final = 500  # gaps as wide as this part of the step can be told apart
_DPI: Final = 150


def plot_timeline(report: SystemFigures, ax: Axes | None = None) -> Axes:
    """Draws a row for every stage of every pipeline: passes in the colour of their microbatch, idle time in grey.

    A row shows the busiest array of the stage. Paler parts of a microbatch are those in which this array waits for an
    exchange; where they are too short to be seen, their share of the height is their share of the time. If there are
    more than `MAX_ROWS` stages, the first ones are drawn.

    Args:
        report: the report of the step.
        ax: where to draw; None: in a new figure.
    """
    rows = [(each.pipeline, each.stage) for each in report.bubbles][:MAX_ROWS]
    if ax is None:
        _, ax = plt.subplots(figsize=_size(report), layout="constrained")
    scale, unit = time_unit(report.latency_seconds)
    cycle = 1 / (report.system.clock_ghz * 1e9) / scale  # of the axis' unit
    total = report.latency_cycles * cycle
    spans, passes = microbatch_spans(report.program, report.times), _passes(report, rows)
    for row, key in enumerate(rows):
        ax.barh(row, total, height=_BAR, color=_IDLE, linewidth=0)
        for (pipeline, stage, microbatch), (start, end) in spans.items():
            if (pipeline, stage) != key:
                continue
            colour, (left, width) = _colour(microbatch), (start * cycle, (end - start) * cycle)
            ax.barh(row, width, left=left, height=_BAR, color=colour, alpha=_BETWEEN, linewidth=0)
            for bar in _bars(passes[key].get(microbatch, []), report.latency_cycles):
                pieces = [(begin * cycle, length * cycle) for begin, length in bar.pieces]
                ax.broken_barh(pieces, (row - _BAR / 2, bar.height * _BAR), facecolors=colour, linewidth=0)
            if width >= _NAMED * total:
                ax.text(left + width / 2, row, str(microbatch), ha="center", va="center", fontsize="x-small")
    _label_rows(ax, report, rows)
    ax.set_xlim(0.0, total)
    ax.set_xlabel(f"time ({unit})")
    title = f"{report.model.name} on {report.system.name}, {report.plan.name}, {report.step.phase}{report.fit_mark}"
    ax.set_title(title, loc="left", fontsize="medium", parse_math=False)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.tick_params(axis="y", length=0)
    ax.legend(handles=_legend(report), loc="upper left", bbox_to_anchor=(1.1, 1.0), frameon=False, fontsize="small")
    return ax


@own_look()
def save_timeline(report: SystemFigures, path: str | Path) -> None:
    """Writes `plot_timeline()` in a figure of its own, as PNG or SVG, as the ending of the path says.

    Raises:
        InputError: the path has another ending.
    """
    form = picture_format(path)
    figure = Figure(figsize=_size(report), layout="constrained", dpi=_DPI)
    plot_timeline(report, figure.add_subplot())
    known = {"png": {"Software": "pe-sim"}, "svg": {"Creator": "pe-sim", "Date": None}}
    figure.savefig(path, format=form, metadata=known[form])


def _size(report: SystemFigures) -> tuple[float, float]:
    """Width and height of the figure in inches."""
    return 8.0, 1.5 + _ROW_INCHES * min(len(report.bubbles), MAX_ROWS)


def _passes(
    report: SystemFigures, rows: Sequence[tuple[int, int]]
) -> dict[tuple[int, int], dict[int, list[tuple[int, int]]]]:
    """(begin, length) of the passes of each stage's busiest array, adjacent ones merged, by stage and microbatch."""
    chosen = {
        key: max(
            (each for each in report.arrays if (each.pipeline, each.stage) == key),
            key=lambda each: (each.busy, -each.rank),
        ).rank
        for key in rows
    }
    found: dict[tuple[int, int], dict[int, list[tuple[int, int]]]] = {key: {} for key in rows}
    times = zip(report.program.tasks, report.times.start.tolist(), report.times.end.tolist(), strict=True)
    for task, start, end in times:
        if not isinstance(task, ArrayPass) or chosen.get((task.pipeline, task.stage)) != task.array:
            continue
        mine = found[task.pipeline, task.stage].setdefault(task.microbatch, [])
        if mine and sum(mine[-1]) == start:
            mine[-1] = (mine[-1][0], end - mine[-1][0])
        else:
            mine.append((start, end - start))
    return found


@dataclass(frozen=True, slots=True)
class _Bar:
    """Pieces of a row as (begin, length), and the share of the row's height that they fill."""

    pieces: Sequence[tuple[int, int]]
    height: float = 1.0


def _bars(passes: Sequence[tuple[int, int]], total: int) -> list[_Bar]:
    """The passes as one bar; where gaps are too short to see, one piece as high as the share of time they take."""
    if not passes:
        return []
    gaps = [after[0] - sum(before) for before, after in pairwise(passes)]
    if not gaps or min(gaps) * _PARTED >= total:
        return [_Bar(passes)]
    span = sum(passes[-1]) - passes[0][0]
    return [_Bar([(passes[0][0], span)], sum(length for _, length in passes) / span)]


def _label_rows(ax: Axes, report: SystemFigures, rows: Sequence[tuple[int, int]]) -> None:
    """Labels the rows: stages and layers at the left, busy shares at the right; draws lines between pipelines."""
    several = len(report.lines) > 1
    labels = []
    shares = {(each.pipeline, each.stage): each.busy / max(report.latency_cycles, 1) for each in report.bubbles}
    beside = blended_transform_factory(ax.transAxes, ax.transData)
    for row, (pipeline, stage) in enumerate(rows):
        own = report.lines[pipeline].stages[stage]
        which = f"pipeline {pipeline}, stage {stage}" if several else f"stage {stage}"
        labels.append(f"{which}\nlayers {own.first_layer}–{own.first_layer + own.num_layers - 1}")
        ax.text(
            1.01,
            row,
            f"{shares[pipeline, stage]:.0%} busy",
            transform=beside,
            va="center",
            fontsize="x-small",
            color="0.35",
        )
        if row and rows[row - 1][0] != pipeline:
            ax.axhline(row - 0.5, color="0.6", linewidth=0.8)
    ax.set_yticks(range(len(rows)), labels, fontsize="x-small")
    ax.set_ylim(len(rows) - 0.4, -0.6)


def _legend(report: SystemFigures) -> list[Patch]:
    patches = [
        Patch(facecolor=MICROBATCH_COLOURS[0], label="pass"),
        Patch(facecolor=MICROBATCH_COLOURS[0], alpha=_BETWEEN, label="exchange (short ones: by height)"),
        Patch(facecolor=_IDLE, label=f"idle ({report.bubble_share:.0%} of all)"),
    ]
    latency = format_seconds(report.latency_seconds).replace("us", "µs")
    return [
        *patches,
        Patch(visible=False, label=f"{latency} in all"),
        Patch(visible=False, label="numbers: microbatches"),
    ]


def _colour(microbatch: int) -> str:
    return MICROBATCH_COLOURS[microbatch % len(MICROBATCH_COLOURS)]
