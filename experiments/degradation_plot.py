"""What dead PEs cost, drawn and in words."""

from __future__ import annotations

from typing import Final

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from experiments.marks import grouped, heading, legend_below
from experiments.study import WIDTH

NONE, RANDOM, NEIGHBOURS, ONE_A_BLOCK = "none", "random", "neighbours", "one in each block"
NUM_PES: Final = 256
# Okabe and Ito's palette.
BLUE: Final = "#0072B2"
LOOKS: Final = {NEIGHBOURS: ("#D55E00", "s", "neighbours"), ONE_A_BLOCK: ("#009E73", "^", "one in each head's block")}


def figures(table: pd.DataFrame) -> dict[str, Figure]:
    """Pictures by name."""
    latency = _panels(
        table, table["seconds"] * 1e3, "ms", "Dead PEs: where PEs share heads, the head that lost most sets the pace"
    )
    speed = _panels(table, table["tokens_per_second"], "tokens/s", "Dead PEs: what is left of the throughput")
    return {"latency": latency, "tokens_per_second": speed}


def _panels(table: pd.DataFrame, values: pd.Series, unit: str, title: str) -> Figure:
    """A row for each step, a column for each workflow."""
    rows = table.assign(value=values.astype(float))
    steps, workflows = list(grouped(rows, "step")), list(grouped(rows, "workflow"))
    figure, panels = plt.subplots(
        len(steps), len(workflows), figsize=(WIDTH, 1.0 + 1.75 * len(steps)), sharex=True, sharey="row", squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for line, step in zip(panels, steps, strict=True):
        for axes, workflow in zip(line, workflows, strict=True):
            _draw(axes, rows[(rows["step"] == step) & (rows["workflow"] == workflow)], falls=unit != "ms")
        line[0].set_ylabel(f"{step}, {unit}")
        line[0].set_ylim(0, None)  # for the whole row, once all of it is drawn
    for axes, workflow in zip(panels[0], workflows, strict=True):
        heading(axes, workflow)
    for axes in panels[-1]:
        axes.set_xlabel(f"dead PEs of {NUM_PES}")
    figure.suptitle(title)
    legend_below(figure, _handles(), 5)
    return figure


def _draw(axes: Axes, rows: pd.DataFrame, *, falls: bool) -> None:
    """Median and range of the draws, the two other placements, and what even shares would give."""
    counts = sorted(rows["dead"].unique())
    place = {count: index for index, count in enumerate(counts)}
    alive = float(rows.loc[rows["placement"] == NONE, "value"].iloc[0])
    even = [alive * ((NUM_PES - count) / NUM_PES) ** (1 if falls else -1) for count in counts]
    axes.plot(range(len(counts)), even, color="0.35", linestyle=":", linewidth=1.0)
    drawn = rows[rows["placement"].isin((NONE, RANDOM))].groupby("dead")["value"]
    across = [place[count] for count in drawn.median().index]
    axes.fill_between(across, drawn.min(), drawn.max(), color=BLUE, alpha=0.2, linewidth=0)
    axes.plot(across, drawn.median(), color=BLUE, marker="o", markersize=3)
    for placement, (colour, marker, _) in LOOKS.items():
        mine = rows[rows["placement"] == placement]
        axes.plot(
            [place[count] for count in mine["dead"]], mine["value"], color=colour, linestyle="", marker=marker,
            markersize=3.6, markerfacecolor="none", markeredgewidth=0.9,
        )  # fmt: skip
    axes.set_xticks(range(len(counts)), [str(count) for count in counts])
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.4g}")
    axes.grid(axis="y")


def _handles() -> list[Patch | Line2D]:
    return [
        Line2D([], [], color=BLUE, marker="o", markersize=3, label="at random: median"),
        Patch(facecolor=BLUE, alpha=0.2, label="all draws"),
        *(
            Line2D([], [], color=colour, linestyle="", marker=marker, markerfacecolor="none", label=label)
            for colour, marker, label in LOOKS.values()
        ),
        Line2D([], [], color="0.35", linestyle=":", label="even shares"),
    ]


def medians(table: pd.DataFrame) -> pd.Series:
    """Of the random draws: the median slowdown by step, workflow and number of dead PEs."""
    return table[table["placement"] == RANDOM].groupby(["step", "workflow", "dead"], sort=False)["slowdown"].median()


def findings(table: pd.DataFrame) -> str:
    """What the table shows, for each step and workflow."""
    lines = ["More cycles than with all PEs alive: median of the draws (least to most), neighbours, one in each block"]
    for (step, workflow), mine in table.groupby(["step", "workflow"], sort=False):
        lines.append(f"{step}, {workflow}")
        for dead, rows in mine[mine["dead"] > 0].groupby("dead"):
            drawn = rows.loc[rows["placement"] == RANDOM, "slowdown"] - 1
            others = [float(rows.loc[rows["placement"] == each, "slowdown"].iloc[0]) - 1 for each in LOOKS]
            lines.append(
                f"  {dead:>3} dead: {drawn.median():6.1%} ({drawn.min():.1%} to {drawn.max():.1%}),"
                f" {others[0]:.1%}, {others[1]:.1%}"
            )
    return "\n".join(lines)
