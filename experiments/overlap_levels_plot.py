"""What overlap levels are worth, drawn and in words."""

from __future__ import annotations

from typing import Final

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from experiments.marks import EDGE, MODEL_LABELS, every_second, grouped, heading, legend_below
from experiments.study import WIDTH

LEVELS_STUDY, PREFETCH_STUDY = "levels", "prefetch"
# Okabe and Ito's palette.
COLOURS: Final = {1: "#0072B2", 2: "#E69F00", 3: "#009E73"}
NAMES: Final = {1: "level 1: reads while it multiplies", 2: "level 2: fetches ahead", 3: "level 3: streams messages"}
LATENCY_LOOKS: Final = {0: ("#D55E00", "o"), 2: ("#0072B2", "s"), 20: ("#009E73", "^")}


def figures(table: pd.DataFrame) -> dict[str, Figure]:
    """Pictures by name."""
    return {"levels": _levels(table[table["study"] == LEVELS_STUDY]), "prefetch": _prefetch(table)}


def saved(rows: pd.DataFrame) -> pd.DataFrame:
    """By number of PEs (rows) and level (columns), the per cent of level 0 that a level saves beside the one below."""
    cycles = rows.pivot(index="pes", columns="overlap", values="cycles").astype(float)
    return -cycles.diff(axis=1)[list(COLOURS)].div(cycles[0], axis=0) * 100


def _levels(rows: pd.DataFrame) -> Figure:
    """A row for each model and workflow, a column for each step."""
    steps = list(grouped(rows, "step"))
    lines = [(model, workflow) for model in grouped(rows, "model") for workflow in grouped(rows, "workflow")]
    figure, panels = plt.subplots(
        len(lines), len(steps), figsize=(WIDTH, 0.9 + 1.35 * len(lines)), sharey=True, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for row, (model, workflow) in zip(panels, lines, strict=True):
        mine = rows[(rows["model"] == model) & (rows["workflow"] == workflow)]
        for axes, step in zip(row, steps, strict=True):
            _stack(axes, saved(mine[mine["step"] == step]))
        row[0].set_ylabel(f"{MODEL_LABELS[model]}, {workflow}\nsaved, % of level 0")
    for axes, step in zip(panels[0], steps, strict=True):
        heading(axes, step)
    for axes in panels[-1]:
        axes.set_xlabel("PEs")
    figure.suptitle("Overlap: fetching ahead pays for a lone sequence, streaming messages for batches and prompts")
    legend_below(figure, [Patch(color=COLOURS[level], label=NAMES[level]) for level in COLOURS], 3)
    return figure


def _stack(axes: Axes, percent: pd.DataFrame) -> None:
    below = pd.Series(0.0, index=percent.index)
    for level, colour in COLOURS.items():
        axes.bar(range(len(percent)), percent[level], 0.8, below, color=colour)
        below = below + percent[level]
    axes.set_xticks(range(len(percent)), every_second(list(percent.index)))
    axes.tick_params(axis="x", length=0)
    axes.grid(axis="y")


def lost(table: pd.DataFrame) -> pd.DataFrame:
    """The points of the study of prefetching, with the cycles that level 2 takes more than level 1."""
    rows = table[table["study"] == PREFETCH_STUDY]
    keys = ["memory_latency_cycles", "prefetch_bytes"]
    cycles = rows.pivot(index=keys, columns="overlap", values="cycles").astype("int64")
    return (cycles[2] - cycles[1]).rename("cycles").reset_index()


def _prefetch(table: pd.DataFrame) -> Figure:
    """Cycles of level 2 beside those of level 1, over the size of the prefetch buffer."""
    figure, axes = plt.subplots(figsize=(3.5, 2.7), layout="constrained")
    for latency, mine in lost(table).groupby("memory_latency_cycles"):
        colour, marker = LATENCY_LOOKS[int(latency)]
        label = f"first access {int(latency)} cycles"
        axes.plot(mine["prefetch_bytes"], mine["cycles"], color=colour, marker=marker, label=label)
    axes.axhline(0, color=EDGE, linewidth=0.8)
    axes.set_xscale("log", base=2)
    axes.set_yscale("symlog", linthresh=100)
    sizes = sorted(set(lost(table)["prefetch_bytes"]))
    axes.set_xticks(sizes, [f"{size // 1024}k" if size >= 1024 else str(size) for size in sizes], rotation=45)
    axes.set_xticks([], minor=True)
    axes.set_xlabel("prefetch buffer, bytes")
    axes.set_ylabel("level 2 minus level 1, cycles")
    axes.grid()
    axes.legend(frameon=False, loc="best")
    axes.set_title("Level 2 loses only where it has nothing to hide", loc="left")
    return figure


def findings(table: pd.DataFrame) -> str:
    """The table in words."""
    rows = table[table["study"] == LEVELS_STUDY]
    lines = [_finding(mine) for _, mine in rows.groupby(["model", "step"], sort=False)]
    second = rows[rows["overlap"] == 2]
    slower = second[second["speedup_over_below"] < 1]
    lines.append(f"level 2 is slower than level 1 in {len(slower)} of these {len(second)} cases.")
    worst = lost(table).sort_values("cycles").iloc[-1]
    lines.append(
        f"with a first access of {int(worst['memory_latency_cycles'])} cycles and {int(worst['prefetch_bytes'])} bytes"
        f" of prefetch buffer level 2 takes {int(worst['cycles']):+,} cycles beside level 1."
    )
    return "\n".join(["Findings", *(f"- {line}" for line in lines)])


def _finding(rows: pd.DataFrame) -> str:
    said = []
    for level in COLOURS:
        gains = rows[rows["overlap"] == level]
        best = gains.loc[gains["speedup_over_below"].idxmax()]
        least = gains["speedup_over_below"].min()
        said.append(
            f"level {level} x {least:.3f} to x {best['speedup_over_below']:.3f}"
            f" ({best['workflow']}, {best['pes']:,} PEs)"
        )
    first = rows.iloc[0]
    return f"{MODEL_LABELS[first['model']]}, {first['step']}, each beside the level below: {', '.join(said)}."
