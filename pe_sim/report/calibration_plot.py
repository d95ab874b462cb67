"""Measurements and their fits: takes panels of points and lines, draws them on logarithmic axes side by side."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from pe_sim.errors import InputError
from pe_sim.report.style import own_look
from pe_sim.units import format_bytes, format_seconds

__all__ = ["Panel", "Series", "save_calibration"]

# Okabe and Ito: apart for readers with any colour vision; the markers tell them apart in print.
_COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9")
_MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X")
_WIDTH: Final = 4.6  # inches of a panel
_HEIGHT: Final = 4.2
_DPI: Final = 150
_SIZE_TICKS: Final = 6
_TITLE_WIDTH: Final = 54  # characters over a panel

XY = tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Series:
    """What was measured in one setting: points, the line fitted to them, and that of all settings together."""

    label: str
    points: XY
    line: XY
    over_all: XY


@dataclass(frozen=True, slots=True)
class Panel:
    """Series on common axes; `x` is "bytes" or "devices", `y` is "seconds" or "bytes/s"."""

    title: str
    x: str
    y: str
    series: tuple[Series, ...]


@own_look()
def save_calibration(panels: Sequence[Panel], title: str, path: str | Path) -> None:
    """Writes the panels side by side as a PNG file.

    Raises:
        InputError: there are none.
    """
    if not panels:
        raise InputError("no collective was measured, so there is nothing to draw", path="profiles")
    figure = Figure(figsize=(max(_WIDTH * len(panels), 6.0), _HEIGHT), layout="constrained", dpi=_DPI)
    text = textwrap.fill(title, _TITLE_WIDTH * max(len(panels), 1))
    figure.suptitle(text, x=0.01, ha="left", fontsize="medium", parse_math=False)
    for ax, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        _draw(ax, panel)
    figure.savefig(path, format="png", metadata={"Software": "pe-sim"})


def _draw(ax: Axes, panel: Panel) -> None:
    for index, series in enumerate(panel.series):
        colour, marker = _COLOURS[index % len(_COLOURS)], _MARKERS[index % len(_MARKERS)]
        ax.plot(*_axes(series.line), color=colour, linewidth=1.4)
        if series.over_all:
            ax.plot(*_axes(series.over_all), color=colour, linewidth=1.1, linestyle=(0, (4, 2)), alpha=0.8)
        ax.plot(
            *_axes(series.points),
            color=colour,
            marker=marker,
            markersize=5,
            markerfacecolor="white",
            linestyle="none",
        )
    ax.set_title(panel.title, loc="left", fontsize="medium", parse_math=False)
    ax.set_xscale("log", base=2)
    _label_x(ax, panel)
    _label_y(ax, panel)
    ax.grid(color="0.9", linewidth=0.8)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(handles=_legend(panel), frameon=False, fontsize="small", loc="best")


def _axes(points: XY) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _label_x(ax: Axes, panel: Panel) -> None:
    found = sorted({x for series in panel.series for x, _ in series.points})
    step = -(-len(found) // _SIZE_TICKS)
    ticks = found[::step]
    if panel.x == "bytes":
        labels = [format_bytes(x).replace(".00", "") for x in ticks]
        ax.set_xlabel("size of the collective")
    else:
        labels = [f"{x:,.0f}" for x in ticks]
        ax.set_xlabel("devices, or stages")
        ax.margins(x=0.1)
    ax.set_xticks(ticks, labels, fontsize="small")
    ax.set_xticks([], minor=True)


def _label_y(ax: Axes, panel: Panel) -> None:
    if panel.y == "seconds":
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(10.0, subs=(1.0, 2.0, 5.0)))
        ax.yaxis.set_minor_formatter(NullFormatter())
        ax.yaxis.set_major_formatter(lambda value, _: format_seconds(value).replace(".00", "").replace("us", "µs"))
        ax.set_ylabel("time")
        return
    ax.set_ylim(0.0, 1.45 * max(y for series in panel.series for _, y in series.points))
    ax.yaxis.set_major_formatter(lambda value, _: f"{value / 1e9:g}")
    ax.set_ylabel("GB/s")


def _legend(panel: Panel) -> list[Line2D]:
    """The series, and what the lines are."""
    handles = [
        Line2D(
            [],
            [],
            color=_COLOURS[index % len(_COLOURS)],
            marker=_MARKERS[index % len(_MARKERS)],
            markerfacecolor="white",
            linestyle="-" if series.line else "none",
            label=series.label,
        )
        for index, series in enumerate(panel.series)
    ]
    if any(series.over_all for series in panel.series):
        handles.append(Line2D([], [], color="0.4", linewidth=1.1, linestyle=(0, (4, 2)), label="one fit for all"))
    return handles
