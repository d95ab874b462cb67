"""Scale-out drawn: tokens/s and efficiency against the number of arrays, and what the arrays' time goes to."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final, Literal

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, NullFormatter

from experiments.marks import EDGE, MODEL_LABELS, MODEL_LOOKS, grouped, heading, legend_below
from experiments.scale_out_table import degrees
from experiments.study import WIDTH

LINK_LOOKS: Final[dict[str, Literal["-", "--"]]] = {"switch": "-", "ring": "--"}
SHARES: Final = {"own work": "#56B4E9", "links": "#D55E00", "bubbles": "0.85"}
NO_FIT: Final = "0.6"
SMALL: Final = 5.8


def figures(table: pd.DataFrame) -> Mapping[str, Figure]:
    """Pictures by name."""
    found = {"scaling": _scaling(table)}
    return found | {"time": _time(table)}


def _scaling(table: pd.DataFrame) -> Figure:
    """A column a study: tokens/s above, efficiency below; what does not fit is a cross at the bottom."""
    studies = grouped(table, "study")
    figure, panels = plt.subplots(
        2, len(studies), figsize=(max(WIDTH * len(studies) / 3, 3.5), 4.2), squeeze=False, layout="constrained",
        height_ratios=(1.6, 1), sharex=True,
    )  # fmt: skip
    numbers = sorted(set(table["arrays"]))
    for column, (study, rows) in zip(panels.T, studies.items(), strict=True):
        heading(column[0], study)
        for (model, links), mine in rows.groupby(["model", "links"], sort=False):
            _line(column[0], mine, str(model), str(links), "tokens_per_second", 1)
            _line(column[1], mine, str(model), str(links), "efficiency", 100)
        _ideals(column[0], rows)
        _no_fit(column[0], rows)
        column[0].set_yscale("log")
        low, high = rows["tokens_per_second"].min(), rows["tokens_per_second"].max()
        if pd.notna(low):
            column[0].set_ylim(low / 4, high * 6)
        column[0].yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        column[0].yaxis.set_minor_formatter(NullFormatter())
        column[1].set_ylim(0, max(105.0, 105 * float(rows["efficiency"].max())))
        for axes in column:
            axes.grid()
            axes.set_xscale("log", base=2)
            axes.set_xticks(numbers, [str(number) for number in numbers], minor=False)
            axes.set_xticks([], minor=True)
            axes.set_xlim(numbers[0] / 1.25, numbers[-1] * 1.25)
        column[1].set_xlabel("arrays of 1024 PEs")
    panels[0][0].set_ylabel("tokens/s")
    panels[1][0].set_ylabel("tokens/s an array, %\nof the fewest that fit")
    figure.suptitle("Scaling out: the best plan found at each number of arrays")
    handles = [
        Line2D(
            [], [], color=MODEL_LOOKS[model][0], marker=MODEL_LOOKS[model][1], linestyle="-", label=MODEL_LABELS[model]
        )
        for model in dict.fromkeys(table["model"])
    ]
    handles += [
        Line2D([], [], color=EDGE, linestyle=LINK_LOOKS[links], label=f"links: {links}")
        for links in dict.fromkeys(table["links"])
    ]
    handles += [
        Line2D([], [], color="0.5", linestyle=":", linewidth=0.9, label="in proportion"),
        Line2D([], [], color=NO_FIT, linestyle="", marker="x", label="does not fit (needed / a PE's memory)"),
    ]
    legend_below(figure, handles, 3)
    return figure


def _line(axes: Axes, rows: pd.DataFrame, model: str, links: str, name: str, scale: float) -> None:
    fits = rows[rows["error"].isna()]
    colour, marker = MODEL_LOOKS[model]
    axes.plot(fits["arrays"], fits[name] * scale, color=colour, marker=marker, linestyle=LINK_LOOKS[links],
              markerfacecolor=colour if links == "switch" else "white")  # fmt: skip


def _ideals(axes: Axes, rows: pd.DataFrame) -> None:
    """What the fewest arrays that fit would do if each of more did as much."""
    for mine in grouped(rows[rows["links"] == "switch"], "model").values():
        fits = mine[mine["error"].isna()]
        if len(fits) > 1:
            first = fits.iloc[0]
            ideal = fits["arrays"] / first["arrays"] * first["tokens_per_second"]
            axes.plot(fits["arrays"], ideal, color="0.5", linestyle=":", linewidth=0.9, zorder=1)


def _no_fit(axes: Axes, rows: pd.DataFrame) -> None:
    models = grouped(rows, "model")
    for place, (model, mine) in enumerate(models.items()):
        height = 0.05 + 0.11 * (len(models) - 1 - place)
        short = mine[mine["error"].notna()].drop_duplicates("arrays")
        for row in short.itertuples():
            times = math.ceil(100 * row.peak_bytes_per_pe / row.capacity_bytes_per_pe) / 100
            place_of = axes.get_xaxis_transform()
            axes.plot(row.arrays, height, marker="x", color=MODEL_LOOKS[model][0], transform=place_of)
            axes.annotate(f"{times:.2f}x", (row.arrays, height), xycoords=place_of, xytext=(0, 4),
                          textcoords="offset points", ha="center", fontsize=SMALL, color="0.4")  # fmt: skip


def _time(table: pd.DataFrame) -> Figure:
    """A panel a study, model and kind of links: a bar for each number of arrays, with its degrees."""
    lines = list(table.groupby(["study", "model", "links"], sort=False))
    models = len(set(table["model"]))
    columns = 2 if models > 1 else 1
    height = -(-len(lines) // columns)
    figure, panels = plt.subplots(
        height, columns, figsize=(WIDTH, max(1.45 * height + 0.9, 3.0)), squeeze=False, layout="constrained",
        sharey=True,
    )  # fmt: skip
    by_study: dict[tuple[str, str], list[tuple[str, pd.DataFrame]]] = {}
    for (study, model, links), rows in lines:
        by_study.setdefault((str(study), str(links)), []).append((str(model), rows))
    for row, ((study, links), each) in zip(panels, by_study.items(), strict=True):
        for axes, (model, rows) in zip(row, each, strict=True):
            heading(axes, f"{MODEL_LABELS[model]}, {study}, {links}")
            _bars(axes, rows)
        row[0].set_ylabel("arrays' time, %")
    figure.suptitle("What the arrays' time goes to; below their number the degrees of the best plan found (pp / parts)")
    handles = [Patch(facecolor=colour, edgecolor=EDGE, linewidth=0.4, label=name) for name, colour in SHARES.items()]
    legend_below(figure, handles, len(handles))
    return figure


def _bars(axes: Axes, rows: pd.DataFrame) -> None:
    for place, (_, row) in enumerate(rows.iterrows()):
        if pd.notna(row["error"]):
            axes.text(place, 50, "does\nnot fit", ha="center", va="center", fontsize=SMALL, color="0.4")
            continue
        link, bubble = float(row["link_share"]) * 100, float(row["bubble_share"]) * 100
        below = 0.0
        for share, colour in zip((100 - link - bubble, link, bubble), SHARES.values(), strict=True):
            axes.bar(place, share, 0.82, below, color=colour, edgecolor=EDGE, linewidth=0.3)
            below += share
    axes.set_xticks(range(len(rows)), [_name(row) for _, row in rows.iterrows()], fontsize=SMALL)
    axes.tick_params(axis="x", length=0)
    axes.set_xlim(-0.6, len(rows) - 0.4)
    axes.set_ylim(0, 100)


def _name(row: pd.Series) -> str:
    """Arrays, and below them the degrees that are not 1."""
    return f"{row['arrays']}" if pd.notna(row["error"]) else f"{row['arrays']}\n{degrees(row)}"
