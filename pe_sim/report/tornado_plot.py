"""The tornado figure: takes bars with an effect on either side, draws the widest on top."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pe_sim.errors import InputError
from pe_sim.report.style import own_look

__all__ = ["Axes", "Bar", "plot_tornado", "save_tornado"]

# Okabe and Ito's blue and vermilion: apart for readers with any colour vision, and by lightness and hatch in print.
_MORE: Final = "#0072B2"
_LESS: Final = "#E69F00"
_ROW: Final = 0.42  # inches
_DPI: Final = 150
_LEAST: Final = 0.0025  # of the widest bar: what is thinner than a line is named below
_WRAP: Final = 105  # characters of the note


@dataclass(frozen=True, slots=True)
class Bar:
    """One parameter: per cent of the time for one per cent more and one per cent less of it; None: not known."""

    label: str
    more: float | None
    less: float | None


def plot_tornado(bars: Sequence[Bar], title: str, ax: Axes | None = None) -> Axes:
    """Draws the bars in their order, the first on top, into `ax` or a new figure; the thin ones are named below.

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
    """Writes the figure as a PNG file."""
    widest = max((_width(bar) for bar in bars), default=0.0)
    rows = sum(_width(bar) >= _LEAST * widest for bar in bars)
    figure = Figure(figsize=_size(rows), layout="constrained", dpi=_DPI)
    plot_tornado(bars, title, figure.add_subplot())
    figure.savefig(path, format="png", metadata={"Software": "pe-sim"})


def _size(rows: int) -> tuple[float, float]:
    """Inches."""
    return 8.0, 1.5 + _ROW * max(rows, 1)


def _width(bar: Bar) -> float:
    return max(abs(bar.more or 0.0), abs(bar.less or 0.0))


def _draw_bar(ax: Axes, row: int, bar: Bar, widest: float) -> None:
    """One per cent more above, one per cent less below, the numbers at their ends."""
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
