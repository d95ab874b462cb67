"""Bars of the comparison of topologies: a panel for each number of PEs and workflow, the fastest on top."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from experiments.equal_wire_arrays import BUS_TREE
from experiments.equal_wire_steps import EVENTS
from experiments.equal_wire_tables import is_equal_wire, numbers_of, ranked, title_of, width_of, workflows_of
from experiments.marks import heading, legend_below

# Okabe and Ito's palette.
COLOURS: Final = {
    "buses": "#0072B2",
    "trees of switches": "#009E73",
    "links to neighbours": "#E69F00",
    "links to far away": "#CC79A7",
}
PALE: Final = 0.3
PANEL: Final = 3.1  # inches, for the words beside a bar
SMALL: Final = 6.5


def figures(table: pd.DataFrame) -> Mapping[str, Figure]:
    """Cycles of work and of waiting, with width and tokens/s at the end of each bar."""
    numbers, workflows = numbers_of(table), workflows_of(table)
    per_panel = table["topology"].nunique()
    figure, panels = plt.subplots(
        len(numbers),
        len(workflows),
        figsize=(max(PANEL * len(workflows), 2 * PANEL), len(numbers) * (0.16 * per_panel + 0.6) + 0.9),
        sharex="row",
        squeeze=False,
        layout="constrained",
    )
    for row, pes in zip(panels, numbers, strict=True):
        for axes, workflow in zip(row, workflows, strict=True):
            _draw_panel(axes, ranked(table, pes, workflow))
            heading(axes, f"{pes} PEs, {workflow}")
        most = table.loc[table["pes"] == pes, "cycles"].max()
        row[0].set_xlim(0, 1 if pd.isna(most) else most * 1.9 / 1e6)
    for axes in panels[-1]:
        axes.set_xlabel("million cycles for one token")
    handles: list[Patch | Line2D] = [Patch(color=COLOURS[family], label=family) for family in table["family"].unique()]
    handles.append(Patch(color="0.35", label="dark: PEs or root work"))
    handles.append(Patch(color="0.35", alpha=PALE, label="pale: all wait for messages"))
    if (table["simulated"] == EVENTS).any():
        handles.append(Line2D([], [], linestyle="", color="0.2", marker="$*$", label="simulated event by event"))
    legend_below(figure, handles, min(len(handles), 3 * len(workflows)))
    figure.suptitle(f"{title_of(table)}, {_terms(table)}\nbeside each bar: tokens/s, at the width of its channels")
    return {"cycles": figure}


def _draw_panel(axes: Axes, ranking: pd.DataFrame) -> None:
    for place, row in enumerate(ranking.to_dict("records")):
        if pd.isna(row["cycles"]):
            axes.text(0, place, " left out", va="center", fontsize=SMALL)
            continue
        colour, cycles = COLOURS[row["family"]], row["cycles"] / 1e6
        work = cycles * (1 - row["waiting"])
        axes.barh(place, work, color=colour, height=0.74)
        axes.barh(place, cycles - work, left=work, color=colour, alpha=PALE, height=0.74)
        mark = " *" if row["simulated"] == EVENTS else ""
        said = f" {row['tokens_per_second']:,.0f} at {width_of(row)} B/cycle{mark}"
        axes.text(cycles, place, said, va="center", fontsize=SMALL)
    axes.set_yticks(range(len(ranking)), ranking["topology"].tolist())
    for tick, topology in zip(axes.get_yticklabels(), ranking["topology"], strict=True):
        tick.set_fontweight("bold" if topology == BUS_TREE else "normal")
    axes.set_ylim(len(ranking) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)


def _terms(table: pd.DataFrame) -> str:
    if is_equal_wire(table):
        return "every interconnect made of the same amount of wire"
    return "widths as in the presets, whatever wire that takes"
