"""How experiments draw: names of models and causes, logarithmic axes of PEs, stacked causes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from experiments.cases import CAUSES, path_shares
from pe_sim.report.palette import KIND_COLOURS

CAUSE_LABELS: Final = {
    "memory": "PE memory",
    "compute": "PE multipliers",
    "vector": "PE vector unit",
    "root": "root",
    "bus": "bus",
    "tree": "tree",
    "wait": "wait",
}
MODEL_LABELS: Final = {
    "llama-2-7b": "7B",
    "llama-2-13b": "13B",
    "llama-2-70b": "70B",
    "llama-3.1-405b": "405B",
    "llama-3.2-1b": "1B",
}
# Okabe and Ito's palette, from small models to large ones; markers for print without colour.
MODEL_LOOKS: Final = {
    "llama-2-7b": ("#0072B2", "o"),
    "llama-2-13b": ("#E69F00", "s"),
    "llama-2-70b": ("#009E73", "^"),
    "llama-3.1-405b": ("#CC79A7", "D"),
}
EDGE: Final = "0.25"  # around what is pale, so that it shows on white
_DARK: Final = ("bus", "tree")


def pes_axis(axes: Axes, numbers: Sequence[int], *, named: bool = True) -> None:
    """N on a logarithmic axis, every second number written."""
    axes.set_xscale("log", base=2)
    axes.set_xticks(numbers, every_second(numbers), minor=False)
    axes.set_xticks([], minor=True)
    if named:
        axes.set_xlabel("PEs")


def every_second(numbers: Sequence[int]) -> list[str]:
    """Labels of numbers of PEs, short, and every second one empty, so that they do not run into each other."""
    short = [f"{pes // 1024}k" if pes >= 1024 and pes % 1024 == 0 else str(pes) for pes in numbers]
    return [text if place % 2 == 0 or len(short) < 5 else "" for place, text in enumerate(short)]


def stack_causes(axes: Axes, rows: pd.DataFrame, names: Sequence[str]) -> None:
    """One upright bar for each row, its critical path by cause, in per cent; `names` below them."""
    shares, below = path_shares(rows) * 100, [0.0] * len(rows)
    places = list(range(len(rows)))
    for cause in CAUSES:
        heights = shares[cause].tolist()
        axes.bar(places, heights, 0.82, below, color=KIND_COLOURS[cause], edgecolor=EDGE, linewidth=0.3)
        below = [low + high for low, high in zip(below, heights, strict=True)]
    axes.set_xticks(places, names)
    axes.tick_params(axis="x", length=0)
    axes.set_ylim(0, 100)
    axes.set_xlim(-0.6, len(rows) - 0.4)


def cause_handles(rows: pd.DataFrame) -> list[Patch]:
    """Entries of a legend for the causes that some row has."""
    some = [cause for cause in CAUSES if (rows[f"path.{cause}"].fillna(0) > 0).any()]
    return [
        Patch(facecolor=KIND_COLOURS[cause], edgecolor=EDGE, linewidth=0.4, label=CAUSE_LABELS[cause]) for cause in some
    ]


def cause_markers(causes: Sequence[str]) -> list[Line2D]:
    """Entries of a legend for markers in the colours of causes."""
    return [
        Line2D([], [], linestyle="", marker="o", color=KIND_COLOURS[cause], markeredgecolor=EDGE, markeredgewidth=0.6,
               markersize=5, label=f"mostly {CAUSE_LABELS[cause]}")
        for cause in CAUSES if cause in causes
    ]  # fmt: skip


def legend_below(figure: Figure, handles: Sequence[Patch | Line2D], columns: int) -> None:
    """One legend for the whole figure, outside of all panels."""
    figure.legend(handles=list(handles), loc="outside lower center", ncols=columns, frameon=False, handlelength=1.4)


def heading(axes: Axes, text: str) -> None:
    """A panel's title."""
    axes.set_title(text, loc="left", fontweight="bold")


def grouped(rows: pd.DataFrame, by: str) -> Mapping[str, pd.DataFrame]:
    """Rows by the values of a column, in the order of their first appearance."""
    return {str(name): mine for name, mine in rows.groupby(by, sort=False)}
