"""Workflows side by side, drawn: bars of time by cause, of traffic by kind of message; and the findings in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from experiments.cases import CAUSES, SHARDED, path_shares
from experiments.marks import CAUSE_LABELS, EDGE, MODEL_LABELS, cause_handles, grouped, legend_below
from experiments.study import WIDTH
from pe_sim.report.palette import KIND_COLOURS, TAG_COLOURS
from pe_sim.units import format_bytes, format_seconds

ROOM: Final = 1.3  # of an axis, over the longest bar of the workflows that share matrices
Bars = Callable[[pd.DataFrame], pd.DataFrame]
Amount = Callable[[float], str]


def figures(table: pd.DataFrame) -> dict[str, Figure]:
    """Pictures by name."""
    colours = {cause: KIND_COLOURS[cause] for cause in CAUSES}
    time = _panels(table, milliseconds, colours, "latency, ms", format_milliseconds)
    time.suptitle("Where the time of each workflow goes, on 256 PEs")
    legend_below(time, cause_handles(table), 6)
    traffic = _panels(table, mebibytes, TAG_COLOURS, "sent, MiB", format_mebibytes)
    traffic.suptitle("What each workflow sends over bus and tree, on 256 PEs")
    sent = [tag for tag in TAG_COLOURS if table[f"bytes.{tag}"].sum() > 0]
    handles = [Patch(facecolor=TAG_COLOURS[tag], edgecolor=EDGE, linewidth=0.4, label=tag) for tag in sent]
    legend_below(traffic, handles, 7)
    return {"time": time, "traffic": traffic}


def milliseconds(rows: pd.DataFrame) -> pd.DataFrame:
    """The critical path by cause."""
    return path_shares(rows).mul(rows["seconds"] * 1e3, axis=0)


def mebibytes(rows: pd.DataFrame) -> pd.DataFrame:
    """What was sent, by kind of message."""
    sent = rows[[f"bytes.{tag}" for tag in TAG_COLOURS]].astype(float) / 2**20
    return sent.set_axis(list(TAG_COLOURS), axis=1)


def _panels(table: pd.DataFrame, bars: Bars, colours: Mapping[str, str], unit: str, amount: Amount) -> Figure:
    """A row for each model, a column for each step; a workflow has its place in all of them."""
    models, steps = list(grouped(table, "model")), list(grouped(table, "step"))
    figure, panels = plt.subplots(
        len(models), len(steps), figsize=(max(WIDTH * len(steps) / 4, 4.4), 0.9 + 2.1 * len(models)), squeeze=False,
        sharey=True, layout="constrained",
    )  # fmt: skip
    for line, model in zip(panels, models, strict=True):
        for axes, step in zip(line, steps, strict=True):
            mine = table[(table["model"] == model) & (table["step"] == step)].reset_index(drop=True)
            _panel(axes, mine, bars(mine), colours, amount)
            axes.set_title(step, loc="left", fontsize=7)
        capacity = table.loc[table["model"] == model, "memory.capacity_bytes_per_pe"].iloc[0]
        line[0].set_ylabel(f"{MODEL_LABELS[model]}, {_short(format_bytes(capacity))} a PE", fontweight="bold")
    for axes in panels[-1]:
        axes.set_xlabel(unit)
    return figure


def _panel(axes: Axes, rows: pd.DataFrame, parts: pd.DataFrame, colours: Mapping[str, str], amount: Amount) -> None:
    limit = ROOM * parts.sum(axis=1)[rows["workflow"].isin(SHARDED)].max()
    places = list(range(len(rows)))
    left = pd.Series(0.0, index=parts.index)
    for name in parts:
        width = parts[name].clip(upper=limit - left)
        axes.barh(places, width, 0.76, left, color=colours[str(name)], edgecolor=EDGE, linewidth=0.25)
        left = left + width
    fastest = rows["cycles"].where(rows["fits"]).astype(float).idxmin()
    box = {"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.9}
    for place, total in zip(places, parts.sum(axis=1), strict=True):
        said = _beside(rows.iloc[place], amount(total) if total > limit else "")
        if said:
            axes.text(limit * 0.985, place, said, ha="right", va="center", fontsize=5.4, bbox=box)
        elif place == fastest and amount is not format_mebibytes:
            axes.text(total, place, " ◂ best", va="center", fontsize=6)
    axes.set_yticks(places, rows["workflow"])
    axes.set_ylim(len(rows) - 0.45, -0.55)
    axes.set_xlim(0, limit)
    axes.tick_params(axis="y", length=0)


def _beside(row: pd.Series, beyond: str) -> str:
    """How long a bar is that the axis cuts, and what a workflow needs that does not fit."""
    need = "" if row["fits"] else _needs(row)
    return ", ".join(text for text in (need, f"{beyond} →" if beyond else "") if text)


def _needs(row: pd.Series) -> str:
    if row["memory.peak_bytes_per_pe"] > row["memory.capacity_bytes_per_pe"]:
        return f"needs {_short(format_bytes(row['memory.peak_bytes_per_pe']))} a PE"
    return f"needs {_short(format_bytes(row['memory.root_bytes']))} at the root"


def _short(text: str) -> str:
    """A number of three digits: 593.01 MiB is 593 MiB."""
    number, _, unit = text.partition(" ")
    return f"{float(number):.3g} {unit}"


def format_milliseconds(amount: float) -> str:
    """With the unit that people use: 17700 is 17.7 s."""
    return _short(format_seconds(amount / 1e3))


def format_mebibytes(amount: float) -> str:
    """As bytes: 2048 is 2 GiB."""
    return _short(format_bytes(amount * 2**20))


def findings(table: pd.DataFrame) -> str:
    """The table in words."""
    lines = [_finding(rows) for _, rows in table.groupby(["model", "step"], sort=False)]
    pairs = table[~table["fits"]].groupby(["model", "workflow"], sort=False).groups
    misfits = [f"{name} ({MODEL_LABELS[model]})" for model, name in pairs]
    return "\n".join(["Findings", *(f"- {line}" for line in [*lines, f"Do not fit: {', '.join(misfits)}."])])


def _finding(rows: pd.DataFrame) -> str:
    fitting = rows[rows["fits"]].sort_values("cycles", kind="stable")
    best, worst = fitting.iloc[0], fitting[fitting["workflow"].isin(SHARDED)].iloc[-1]
    shares = path_shares(fitting).iloc[0]
    most = [f"{CAUSE_LABELS[cause]} {shares[cause]:.0%}" for cause in shares.sort_values(ascending=False).index[:3]]
    return (
        f"{MODEL_LABELS[best['model']]}, {best['step']}: {best['workflow']} is best ({best['seconds'] * 1e3:.3f} ms:"
        f" {', '.join(most)}); {worst['workflow']} takes x {worst['cycles'] / best['cycles']:.2f} and sends"
        f" {_sent(worst)} instead of {_sent(best)}."
    )


def _sent(row: pd.Series) -> str:
    names: Sequence[str] = [f"bytes.{tag}" for tag in TAG_COLOURS]
    return format_bytes(float(row[list(names)].sum()))
