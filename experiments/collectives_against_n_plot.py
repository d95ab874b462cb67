"""Curves of collectives over N: simulated points on thin lines of their closed forms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log10
from typing import Final

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments import closed_forms as forms
from experiments.closed_forms import Series
from experiments.collectives_against_n_table import curve, panel_names
from experiments.marks import heading, legend_below, pes_axis
from experiments.study import WIDTH

LINE_HEIGHT: Final = 0.15  # of a label, in decades
SHARES: Final = ("scatter and gather cut it into N parts", "scatter and gather move as much for each PE")
# Okabe and Ito's palette.
BLUE, RED, GREEN, ORANGE, PINK, SKY = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9"
# Colour, marker and its size, in the order they are drawn: where curves coincide the smaller lies on the larger.
LOOKS: Final[dict[Series, tuple[str, str, float]]] = {
    forms.ALL_GATHER: (PINK, "v", 7),
    forms.GATHER: (ORANGE, "s", 4.2),
    forms.SCATTER: (RED, "D", 2.2),
    forms.ALL_REDUCE: (SKY, "P", 4),
    forms.REDUCE: (GREEN, "D", 2.9),
    forms.BROADCAST: (BLUE, "o", 2.9),
    forms.ALL_GATHER_AT_ONCE: (PINK, "v", 5),
    forms.GATHER_AT_ONCE: (ORANGE, "s", 5.4),
    forms.SCATTER_AT_ONCE: (RED, "D", 4.8),
}


def figures(table: pd.DataFrame) -> Mapping[str, Figure]:
    """Cycles over N, both logarithmic: a panel beside the other."""
    figure, panels = plt.subplots(1, 2, figsize=(WIDTH, 4.0), sharey=True, layout="constrained")
    for axes, panel, share in zip(panels, panel_names(table), SHARES, strict=True):
        shown = {series: curve(table, panel, series) for series in LOOKS}
        for series, points in shown.items():
            _draw_curve(axes, points, series)
        ends = [(series.label, int(points["cycles"].iloc[-1]), LOOKS[series][0]) for series, points in shown.items()]
        flights = shown[forms.BROADCAST]
        if (flights["flight_cycles"] > 0).all():  # there is no place for 0 on the axis
            axes.plot(flights["pes"], flights["flight_cycles"], color="0.5", linestyle=":")
            ends.append(("time of flight λ", int(flights["flight_cycles"].iloc[-1]), "0.35"))
        _decorate(axes, f"{panel[0].upper()}{panel[1:]}\n{share}", flights["pes"].tolist())
        _label_ends(axes, ends)
    panels[0].set_ylabel("cycles until everything has arrived")
    legend_below(
        figure,
        [
            Line2D([], [], color="0.35", linestyle="", marker="s", label="simulated"),
            Line2D([], [], color="0.35", linestyle="", marker="s", markerfacecolor="none",
                   label="simulated, the whole at once"),
            Line2D([], [], color="0.35", linewidth=0.6, label="closed form of the machine model"),
        ],
        3,
    )  # fmt: skip
    figure.suptitle("On a bus and a tree a broadcast is flat, a reduction grows as log N, a message for each PE as N")
    return {"cycles": figure}


def _draw_curve(axes: Axes, points: pd.DataFrame, series: Series) -> None:
    colour, marker, size = LOOKS[series]
    axes.plot(points["pes"], points["closed_form_cycles"], color=colour, linewidth=0.6)
    filling = "none" if series.way == forms.AT_ONCE else colour
    axes.plot(
        points["pes"],
        points["cycles"],
        color=colour,
        linestyle="",
        marker=marker,
        markersize=size,
        markerfacecolor=filling,
        markeredgewidth=0.7,
    )


def _decorate(axes: Axes, title: str, numbers: Sequence[int]) -> None:
    heading(axes, title)
    pes_axis(axes, numbers)
    axes.set_yscale("log")
    axes.margins(x=0.04, y=0.06)
    axes.yaxis.set_major_formatter(lambda cycles, place: f"{cycles:,.0f}")
    axes.grid()


def _label_ends(axes: Axes, ends: Sequence[tuple[str, int, str]]) -> None:
    """The name of each curve, in its colour, right of its last point."""
    names = sorted(ends, key=lambda name: name[1])
    heights = apart([log10(cycles) for _, cycles, _ in names], LINE_HEIGHT)
    across = axes.get_yaxis_transform()  # x in parts of the panel, y in cycles
    for (label, _, colour), height in zip(names, heights, strict=True):
        axes.text(1.02, 10**height, label, transform=across, va="center", fontsize=6.5, color=colour)


def apart(heights: Sequence[float], gap: float) -> list[float]:
    """Ascending heights moved as little as needed for `gap` between neighbours: what is too close is spread evenly."""
    stacks: list[list[float]] = []
    for height in heights:
        stacks.append([height])
        while len(stacks) > 1 and _bottom(stacks[-1], gap) - _bottom(stacks[-2], gap) < gap * len(stacks[-2]) - 1e-12:
            stacks[-2:] = [stacks[-2] + stacks[-1]]
    return [_bottom(stack, gap) + gap * place for stack in stacks for place in range(len(stack))]


def _bottom(stack: Sequence[float], gap: float) -> float:
    return sum(stack) / len(stack) - gap * (len(stack) - 1) / 2
