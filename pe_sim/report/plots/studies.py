"""Figures of studies: columns of a table as lines, effects as a tornado, measurements and their fits."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from pe_sim.errors import DOES_NOT_FIT, InputError, did_you_mean
from pe_sim.notebook import number_text
from pe_sim.report.plots.style import own_look, style
from pe_sim.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from pandas import DataFrame


__all__ = ["Axes", "Bar", "Panel", "Series", "plot_lines", "plot_tornado", "save_calibration", "save_tornado"]


_MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X")  # as many as the style's cycle has entries
_WIDE: Final = 8.0  # least ratio of the largest to the smallest value of a logarithmic axis


def plot_lines(frame: DataFrame, x: str, y: str, by: str | None = None, ax: Axes | None = None) -> Axes:
    """Draws column `y` of a table against column `x`, a line for each value of `by`; returns the axes.

    Rows without a value are left out, and axes of a wide range are logarithmic.

    Args:
        frame: a table with columns of numbers x and y; where several rows have one x, `by` has to tell them apart.
        by: the column with a line for each of its values; None: one line.
        ax: where to draw; None: in a new figure.

    Raises:
        InputError: there is no such column, it has no numbers, or lines have several values at one x.
    """
    for name, given in (("x", x), ("y", y), ("by", by)):
        if given is not None and given not in frame.columns:
            raise InputError("no such column", path=name, given=given, hint=did_you_mean(given, list(frame.columns)))
    for name, given in (("x", x), ("y", y)):
        if frame[given].dtype.kind not in "iuf":
            raise InputError("not a column of numbers", path=name, given=given)
    known = frame.dropna(subset=[x, y])
    if known.empty:
        raise InputError("no row has a value", path="y", given=y)
    if ax is None:
        _, ax = plt.subplots(figsize=(7.2, 3.6), layout="constrained")
    _draw(ax, known, x, y, by)
    lacking = known[known["does_not_fit"].notna()] if "does_not_fit" in known else known[:0]
    if len(lacking):
        ax.scatter(lacking[x], lacking[y], marker="x", color="black", zorder=3, label=DOES_NOT_FIT)
    if _is_wide(known[x]):
        ax.set_xscale("log", base=2)
        ax.set_xticks(sorted(set(known[x].tolist())), minor=False)
        ax.set_xticks([], minor=True)
    if _is_wide(known[y]):
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(10.0, subs=(1.0, 2.0, 5.0)))
        ax.yaxis.set_minor_formatter(NullFormatter())
    ax.xaxis.set_major_formatter(lambda value, _: number_text(_whole(value)))
    ax.yaxis.set_major_formatter(lambda value, _: number_text(_whole(value)))
    ax.set_xlabel(_words(x))
    ax.set_ylabel(_words(y))
    ax.grid(color="0.9", linewidth=0.8)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    if by is not None or len(lacking):
        ax.legend(title=_words(by) if by else None, frameon=False, fontsize="small", alignment="left")
    return ax


def _draw(ax: Axes, frame: DataFrame, x: str, y: str, by: str | None) -> None:
    """Draws the lines in the style of `pe_sim.use_style()`, whatever style is set."""
    with style():
        looks = cycle(plt.rcParams["axes.prop_cycle"])
        for (label, rows), look, marker in zip(_groups(frame, by), looks, cycle(_MARKERS), strict=False):
            if rows[x].duplicated().any():
                raise InputError(
                    f"several points have one {x}",
                    path="by",
                    given=by,
                    hint="take a column that tells them apart, or plot a part of the table",
                )
            ordered = rows.sort_values(x)
            ax.plot(ordered[x].astype(float), ordered[y].astype(float), label=label, marker=marker, **look)


def _groups(frame: DataFrame, by: str | None) -> Iterator[tuple[str, DataFrame]]:
    if by is None:
        yield "", frame
        return
    for value in frame[by].dropna().unique():
        yield str(value), frame[frame[by] == value]


def _is_wide(values: Any) -> bool:
    return bool(values.min() > 0 and values.max() / values.min() >= _WIDE)


def _whole(value: float) -> float | int:
    return int(value) if float(value).is_integer() else float(value)


def _words(name: str) -> str:
    """A column's name in words: num_pes -> PEs, utilization.bus -> utilization, bus."""
    return {"num_pes": "PEs"}.get(name, name.replace("_", " ").replace(".", ", "))


# ---- The tornado figure: takes bars with an effect on either side, draws the widest on top.


# Okabe and Ito's blue and vermilion: apart for readers with any colour vision, and by lightness and hatch in print.
_MORE: Final = "#0072B2"
_LESS: Final = "#E69F00"
_ROW: Final = 0.42  # inches
_DPI: Final = 150
_LEAST: Final = 0.0025  # of the widest bar: what is thinner than a line is named below
_WRAP: Final = 105  # characters of the note


@dataclass(frozen=True, slots=True)
class Bar:
    """A parameter's effect on the time in per cent, for one per cent more and one per cent less; None: unknown."""

    label: str
    more: float | None
    less: float | None


def plot_tornado(bars: Sequence[Bar], title: str, ax: Axes | None = None) -> Axes:
    """Draws the bars in their order, the first on top, into `ax` or a new figure; returns the axes.

    Raises:
        InputError: there are no bars.
    """
    if not bars:
        raise InputError("there are no parameters to draw", path="bars", expected="at least one")
    widest = max(_width(bar) for bar in bars) or 1.0
    shown = [bar for bar in bars if _width(bar) >= _LEAST * widest]
    thin = [bar.label.split("\n")[0] for bar in bars if bar not in shown]
    if ax is None:
        _, ax = plt.subplots(figsize=_size(len(shown)), layout="constrained")
    for row, bar in enumerate(shown):
        _draw_bar(ax, row, bar, widest)
    ax.axvline(0.0, color="0.2", linewidth=0.9)
    ax.set_yticks(range(len(shown)), [bar.label for bar in shown], fontsize="small", parse_math=False)
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(max(len(shown), 1) - 0.4, -0.6)
    ax.set_xlim(-1.32 * widest, 1.32 * widest)
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:+g}%" if value else "0")
    below = textwrap.fill(f"below {_LEAST * widest:.1g}%: {', '.join(thin)}", _WRAP) if thin else ""
    ax.set_xlabel(f"change of the step's time for one per cent of the parameter\n{below}", fontsize="small")
    ax.set_title(title, loc="left", fontsize="medium", parse_math=False)
    ax.grid(axis="x", color="0.9", linewidth=0.8)
    ax.set_axisbelow(True)
    ax.spines[["top", "right", "left"]].set_visible(False)
    if shown:
        ax.legend(loc="lower right", frameon=False, fontsize="small")
    return ax


@own_look()
def save_tornado(bars: Sequence[Bar], title: str, path: str | Path) -> None:
    """Writes the tornado figure as a PNG file."""
    widest = max((_width(bar) for bar in bars), default=0.0)
    rows = sum(_width(bar) >= _LEAST * widest for bar in bars)
    figure = Figure(figsize=_size(rows), layout="constrained", dpi=_DPI)
    plot_tornado(bars, title, figure.add_subplot())
    figure.savefig(path, format="png", metadata={"Software": "pe-sim"})


def _size(rows: int) -> tuple[float, float]:
    """Width and height in inches of a figure with so many rows."""
    return 8.0, 1.5 + _ROW * max(rows, 1)


def _width(bar: Bar) -> float:
    return max(abs(bar.more or 0.0), abs(bar.less or 0.0))


def _draw_bar(ax: Axes, row: int, bar: Bar, widest: float) -> None:
    """Draws one row: one per cent more above, one per cent less below, with the numbers at their ends."""
    for value, offset, colour, hatch, label in (
        (bar.more, -0.2, _MORE, None, "1% more"),
        (bar.less, 0.2, _LESS, "////", "1% less"),
    ):
        if value is None:
            continue
        first = label not in ax.get_legend_handles_labels()[1]
        ax.barh(
            row + offset,
            value,
            height=0.38,
            color=colour,
            hatch=hatch,
            edgecolor="white",
            linewidth=0.0,
            label=label if first else None,
        )
        text = f"{value:+.3f}%" if abs(value) >= 0.0005 else "0"
        gap = 0.012 * widest * (1 if value >= 0 else -1)
        ax.text(
            value + gap,
            row + offset,
            text,
            fontsize="x-small",
            va="center",
            ha="left" if value >= 0 else "right",
        )


# ---- Measurements and their fits: takes panels of points and lines, draws them on logarithmic axes side by side.


# Okabe and Ito: apart for readers with any colour vision; the markers tell them apart in print.
_COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9")
_WIDTH: Final = 4.6  # inches of a panel
_HEIGHT: Final = 4.2
_SIZE_TICKS: Final = 6
_TITLE_WIDTH: Final = 54  # characters over a panel

XY = tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Series:
    """Measurements in one setting: points, the line fitted to them, and the line fitted to all settings together."""

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
    """Writes the panels of a calibration side by side as a PNG file.

    Raises:
        InputError: there are no panels.
    """
    if not panels:
        raise InputError("no collective was measured, so there is nothing to draw", path="profiles")
    figure = Figure(figsize=(max(_WIDTH * len(panels), 6.0), _HEIGHT), layout="constrained", dpi=_DPI)
    text = textwrap.fill(title, _TITLE_WIDTH * max(len(panels), 1))
    figure.suptitle(text, x=0.01, ha="left", fontsize="medium", parse_math=False)
    for ax, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        _draw_panel(ax, panel)
    figure.savefig(path, format="png", metadata={"Software": "pe-sim"})


def _draw_panel(ax: Axes, panel: Panel) -> None:
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
    """Handles of the legend: the series, and the kinds of lines."""
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
