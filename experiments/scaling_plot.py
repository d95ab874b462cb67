"""Strong and weak scaling drawn: throughput, efficiency, energy, and below them what the time goes to at each N."""

from __future__ import annotations

from typing import Final, Literal

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from experiments.marks import (
    EDGE,
    MODEL_LABELS,
    MODEL_LOOKS,
    cause_handles,
    cause_markers,
    every_second,
    grouped,
    heading,
    legend_below,
    pes_axis,
    stack_causes,
)
from experiments.scaling_table import LADDER_TITLE, STRONG, WEAK_STUDIES, efficiency, memory_rows, share_of_peak
from experiments.study import WIDTH
from pe_sim.report.palette import KIND_COLOURS

IDEAL: Final = "0.45"
WEIGHT_LOOKS: Final[dict[str, tuple[Literal["-", "--", ":"], str]]] = {
    "bf16": ("-", "o"),
    "int8": ("--", "s"),
    "int4": (":", "^"),
}


def figures(table: pd.DataFrame) -> dict[str, Figure]:
    """Pictures by name."""
    found = {
        f"strong_{phase}": _strong(rows) for phase, rows in grouped(table[table["study"] == STRONG], "phase").items()
    }
    return found | {"weak": _weak(table), "memory": _memory(memory_rows(table))}


def _strong(rows: pd.DataFrame) -> Figure:
    """A column for each model: tokens/s, efficiency, energy, and the critical path."""
    models = grouped(rows, "model")
    phase = rows["phase"].iloc[0]
    figure, panels = plt.subplots(
        4, len(models), figsize=(max(WIDTH * len(models) / 4, 3.5), 6.6), sharex=False, sharey="row", squeeze=False,
        layout="constrained", height_ratios=(1.5, 1, 1, 1.2),
    )  # fmt: skip
    for column, (model, mine) in zip(panels.T, models.items(), strict=True):
        _throughput(column[0], mine)
        heading(column[0], f"{MODEL_LABELS[model]}, {mine['memory.capacity_bytes_per_pe'].iloc[0] / 2**30:g} GiB a PE")
        _against_pes(column[1], mine, efficiency(mine) * 100)
        _against_pes(column[2], mine, mine["joules_per_token"] * 1e3)
        stack_causes(column[3], mine, every_second(mine["pes"].tolist()))
        column[3].set_xlabel("PEs")
    panels[1][0].set_ylim(0, 105)
    panels[2][0].set_yscale("log")
    panels[2][0].yaxis.set_major_formatter(FuncFormatter(_plain))
    panels[2][0].yaxis.set_minor_formatter(NullFormatter())
    names = ("tokens/s", "speed a PE, %\nof that on 64", "mJ a token",
             "critical path, %")  # fmt: skip
    for axes, name in zip(panels[:, 0], names, strict=True):
        axes.set_ylabel(name)
    step = "a token after 2,048" if phase == "decode" else "a prompt of 512 tokens"
    figure.suptitle(f"Strong scaling, {phase} ({step}), the fastest named workflow at each number of PEs")
    marks = cause_markers(rows["bound"].unique())
    bounds = [
        Line2D([], [], color=IDEAL, linestyle="--", linewidth=0.9, label="PEs at their peak"),
        Line2D([], [], linestyle="", marker="o", color="white", markeredgecolor=EDGE, label="beyond 128 MiB a PE"),
    ]
    legend_below(figure, [*cause_handles(rows), *marks, *bounds], 5)
    return figure


def _throughput(axes: Axes, rows: pd.DataFrame) -> None:
    """Tokens/s against N, each point in the colour of what takes most of its time; hollow where memories are larger."""
    peak = rows["tokens_per_second"] * rows["cycles"].astype(float) / rows["ideal_cycles"].astype(float)
    axes.plot(rows["pes"], peak, color=IDEAL, linestyle="--", linewidth=0.9)
    axes.plot(rows["pes"], rows["tokens_per_second"], color=EDGE, linewidth=0.8, zorder=2)
    for row in rows.itertuples():
        colour = KIND_COLOURS[row.bound]
        face = colour if row.fits_preset else "white"
        edge, width = (EDGE, 0.6) if row.fits_preset else (colour, 1.6)
        axes.plot(row.pes, row.tokens_per_second, marker="o", markersize=5, markerfacecolor=face, zorder=3,
                  markeredgecolor=edge, markeredgewidth=width)  # fmt: skip
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(10, numticks=8))
    axes.yaxis.set_major_formatter(FuncFormatter(_plain))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid()
    pes_axis(axes, rows["pes"].tolist(), named=False)


def _against_pes(axes: Axes, rows: pd.DataFrame, values: pd.Series) -> None:
    axes.plot(rows["pes"], values, color=EDGE, marker="o", markersize=3)
    axes.grid()
    pes_axis(axes, rows["pes"].tolist(), named=False)


def _plain(value: float, _: object) -> str:
    return f"{value:,.0f}" if value >= 1 else f"{value:g}"


def _weak(table: pd.DataFrame) -> Figure:
    """A column for each thing that grows: weak efficiency of all models, and the critical paths of two of them."""
    figure, panels = plt.subplots(
        3, len(WEAK_STUDIES), figsize=(WIDTH, 4.9), sharey="row", squeeze=False, layout="constrained",
        height_ratios=(1.5, 1, 1),
    )  # fmt: skip
    shown: list[pd.DataFrame] = []
    for column, (title, select) in zip(panels.T, WEAK_STUDIES.items(), strict=True):
        rows = select(table)
        heading(column[0], title)
        _weak_lines(column[0], rows, title)
        if title == LADDER_TITLE:
            below = [rows[rows["phase"] == phase] for phase in ("decode", "prefill")]
            names = [[f"{MODEL_LABELS[row.model]}\n{row.pes}" for row in mine.itertuples()] for mine in below]
        else:
            models = list(grouped(rows, "model").values())
            below = [models[0], models[-1]]
            names = [every_second(mine["pes"].tolist()) for mine in below]
        for axes, mine, labels in zip(column[1:], below, names, strict=True):
            stack_causes(axes, mine, labels)
            text = mine["phase"].iloc[0] if title == LADDER_TITLE else MODEL_LABELS[mine["model"].iloc[0]]
            axes.set_title(text, loc="left", pad=2)
            shown.append(mine)
        column[2].set_xlabel("model, PEs" if title == LADDER_TITLE else "PEs")
    panels[0][0].set_ylabel("of the PEs' peak, %")
    panels[1][0].set_ylabel("critical path, %")
    panels[2][0].set_ylabel("critical path, %")
    panels[0][0].set_ylim(0, 105)
    figure.suptitle("Weak scaling: the share of their peak that N PEs reach as the work grows with them")
    lines = [
        Line2D([], [], color=colour, marker=marker, label=MODEL_LABELS[model])
        for model, (colour, marker) in MODEL_LOOKS.items()
        if model in set(table["model"])
    ]
    phases = [
        Line2D([], [], color=EDGE, marker=mark, label=f"model grows, {name}") for name, mark in _PHASE_MARKS.items()
    ]
    legend_below(figure, [*lines, *phases, *cause_handles(pd.concat(shown))], 7)
    return figure


_PHASE_MARKS: Final = {"decode": "v", "prefill": "P"}


def _weak_lines(axes: Axes, rows: pd.DataFrame, title: str) -> None:
    if title == LADDER_TITLE:
        for phase, mine in grouped(rows, "phase").items():
            axes.plot(mine["pes"], share_of_peak(mine) * 100, color=EDGE, marker=_PHASE_MARKS[phase])
    else:
        for model, mine in grouped(rows, "model").items():
            colour, marker = MODEL_LOOKS[model]
            axes.plot(mine["pes"], share_of_peak(mine) * 100, color=colour, marker=marker)
    axes.grid()
    pes_axis(axes, sorted(set(rows["pes"])), named=False)


def _memory(rows: pd.DataFrame) -> Figure:
    """A panel for each model: tokens/s in bf16, int8 and int4 where the preset's memories hold the model."""
    models = grouped(rows, "model")
    figure, panels = plt.subplots(
        1, len(models), figsize=(max(WIDTH * len(models) / 4, 3.5), 2.6), sharey=True, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    numbers = sorted(set(rows["pes"]))
    for axes, (model, mine) in zip(panels[0], models.items(), strict=True):
        colour = MODEL_LOOKS[model][0]
        for place, (weights, row) in enumerate(grouped(mine, "weights").items()):
            style, marker = WEIGHT_LOOKS[weights]
            axes.plot(row["pes"], row["tokens_per_second"], color=colour, linestyle=style, marker=marker)
            for pes in row.loc[row["error"].notna(), "pes"]:
                height = 0.16 - 0.055 * place
                axes.plot(
                    pes, height, marker=marker, color="0.75", markersize=3.5, transform=axes.get_xaxis_transform()
                )
        if mine["error"].notna().any():
            axes.text(0.02, 0.2, "does not fit:", transform=axes.transAxes, color="0.45", fontsize=6.5)
        heading(axes, MODEL_LABELS[model])
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(_plain))
        axes.grid()
        pes_axis(axes, numbers)
        axes.set_xlim(numbers[0] / 1.4, numbers[-1] * 1.4)
    low = rows["tokens_per_second"].min()
    panels[0][0].set_ylim(low / 12, rows["tokens_per_second"].max() * 1.6)
    panels[0][0].set_ylabel("tokens/s, decode")
    handles = [Line2D([], [], color=EDGE, linestyle=style, marker=marker, label=f"{name} weights")
               for name, (style, marker) in WEIGHT_LOOKS.items()]  # fmt: skip
    legend_below(figure, handles, 3)
    figure.suptitle("With 128 MiB a PE, narrow weights decide first what fits, and then how fast it is")
    return figure
