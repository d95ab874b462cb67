"""Draws a section's curves side by side: takes measured curves, gives a PNG."""

from __future__ import annotations

from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from benchmarks.curve import Curve, Series
from benchmarks.growth import Section

# Okabe and Ito's palette, told apart by readers with any colour vision; a series has its colour in every picture.
_COLOURS = {
    "place": "#009E73",
    "lower": "#E69F00",
    "fast engine": "#0072B2",
    "`simulate`": "#000000",
    "event engine": "#D55E00",
}
_OTHER_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_REFERENCE = "event engine"
_MARKERS = "osD^vP"
_PANEL_INCHES, _HEIGHT_INCHES, _DPI = 4.4, 4.0, 110
_NARROW = 100.0  # axes that span less show more than powers of ten
_UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))


def draw(section: Section, path: Path) -> None:
    """Writes the picture; its folder is made if need be."""
    panels = len(section.curves)
    width = 6.8 if panels == 1 else _PANEL_INCHES * panels
    figure = Figure(figsize=(width, _HEIGHT_INCHES), dpi=_DPI, layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False, sharey=True)[0]
    for ax, curve in zip(axes, section.curves, strict=True):
        _draw_curve(ax, curve)
    axes[0].set_ylabel("wall time")
    lowest, highest = axes[0].get_ylim()
    if highest < _NARROW * lowest:
        axes[0].yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    handles, labels = axes[0].get_legend_handles_labels()
    if any(any(series.marked) for curve in section.curves for series in curve.series):
        (hollow,) = axes[0].plot([], [], "o", color="0.4", markerfacecolor="white", label="event by event")
        handles, labels = [*handles, hollow], [*labels, "fast engine, event by event"]
    figure.legend(handles, labels, loc="outside right center", frameon=False, fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})


def _draw_curve(ax: Axes, curve: Curve) -> None:
    others = cycle(_OTHER_COLOURS)
    for series, marker in zip(curve.series, cycle(_MARKERS), strict=False):
        colour = _COLOURS.get(series.name) or next(others)
        _draw_series(ax, curve, series, colour, marker)
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.set_xticks(curve.x, labels=[f"{x:,}" for x in curve.x], rotation=30 if len(curve.x) > 5 else 0)
    ax.xaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(FuncFormatter(lambda seconds, _: _with_unit(seconds)))
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.set_xlabel(curve.label)
    ax.set_title(curve.title, fontsize=10)
    ax.grid(True, which="major", color="0.85", linewidth=0.6)
    ax.grid(True, which="minor", axis="y", color="0.93", linewidth=0.4)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)


def _draw_series(ax: Axes, curve: Curve, series: Series, colour: str, marker: str) -> None:
    """As one line, or as two where some points went event by event."""
    seconds = np.array([np.nan if value is None else value for value in series.seconds])
    marked = np.array([series.is_marked(index) for index in range(len(curve.x))])
    style: dict[str, Any] = {"marker": marker, "color": colour, "linewidth": 1.3, "markersize": 5}
    if series.name == _REFERENCE:  # what goes event by event lies upon it
        style |= {"linewidth": 3.5, "markersize": 8, "zorder": 1.5, "alpha": 0.5}
    ax.plot(curve.x, np.where(marked, np.nan, seconds), label=series.name.strip("`"), **style)
    if marked.any():
        ax.plot(curve.x, np.where(marked, seconds, np.nan), markerfacecolor="white", **style)


def _with_unit(seconds: float) -> str:
    scale, unit = next(((scale, unit) for scale, unit in _UNITS if seconds >= 0.999 * scale), _UNITS[-1])
    return f"{seconds / scale:.4g} {unit}"
