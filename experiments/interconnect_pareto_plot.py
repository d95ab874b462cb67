"""Designs over latency and what they cost, with their Pareto fronts; and the fronts in words."""

from __future__ import annotations

from typing import Final

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullFormatter

from experiments.marks import EDGE, grouped, heading, legend_below
from experiments.study import WIDTH

MARKERS: Final = ("o", "s", "^", "D", "v", "P")
COLOURS: Final = "cividis"
COST_NAMES: Final = {"area_mm2": "silicon, mm²", "wire_bit_mm": "wire of bus and tree, m"}
_SCALES: Final = {"area_mm2": 1.0, "wire_bit_mm": 1e-3}


def figures(table: pd.DataFrame) -> dict[str, Figure]:
    """The picture: a row for each phase, a column for each cost."""
    rows = table[table["error"].isna()]
    phases = grouped(rows, "phase")
    figure, panels = plt.subplots(
        len(phases), len(COST_NAMES), figsize=(WIDTH, 2.9 * len(phases)), squeeze=False, layout="constrained"
    )
    numbers = sorted(set(rows["pes"]))
    looks = dict(zip(numbers, MARKERS, strict=False))
    for line, (phase, mine) in zip(panels, phases.items(), strict=True):
        energy = mine["joules_per_token"] * 1e3
        norm = LogNorm(energy.min(), energy.max())
        for axes, cost in zip(line, COST_NAMES, strict=True):
            _panel(axes, mine, cost, looks, norm)
            heading(axes, f"{phase}, against {COST_NAMES[cost].partition(',')[0]}")
        line[0].set_ylabel("latency, ms")
        bar = figure.colorbar(ScalarMappable(norm, COLOURS), ax=line[-1], pad=0.02, aspect=30)
        bar.set_label("energy a token, mJ")
        _energy_ticks(bar.ax, energy.min(), energy.max())
    handles = [
        Line2D([], [], linestyle="", marker=looks[pes], color="white", markeredgecolor=EDGE, label=f"{pes:,} PEs")
        for pes in numbers
    ]
    front = Line2D(
        [],
        [],
        color="#D55E00",
        linewidth=1.2,
        label="Pareto front; beside it bytes/cycle, arity of the fastest at a number of PEs",
    )
    legend_below(figure, [*handles, front], 7 if len(handles) < 3 else 4)
    figure.suptitle("More PEs buy speed with silicon, a wider bus and tree with wire")
    return {"pareto": figure}


def _panel(axes: Axes, rows: pd.DataFrame, cost: str, looks: dict[int, str], norm: LogNorm) -> None:
    scale = _SCALES[cost]
    for pes, mine in rows.groupby("pes"):
        latency, energy = mine["seconds"] * 1e3, mine["joules_per_token"] * 1e3
        axes.scatter(mine[cost] * scale, latency, 13, energy, marker=looks[int(pes)], cmap=COLOURS, norm=norm,
                     linewidths=0.3, edgecolors=EDGE)  # fmt: skip
    front = front_of(rows, cost)
    axes.plot(
        front[cost] * scale, front["seconds"] * 1e3, color="#D55E00", drawstyle="steps-post", linewidth=1.2, zorder=0
    )
    for row in labelled(front).itertuples():
        axes.annotate(f"{row.bytes_per_cycle}, {row.arity}", (getattr(row, cost) * scale, row.seconds * 1e3),
                      xytext=(-3, -9), textcoords="offset points", fontsize=6, color="#A34700", ha="right")  # fmt: skip
    axes.set_yscale("log")
    axes.margins(x=0.16, y=0.1)
    axes.yaxis.set_minor_formatter(FuncFormatter(_two_five))
    if cost == "wire_bit_mm":  # silicon differs by no more than a factor of two
        axes.set_xscale("log")
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(FuncFormatter(_plain))
    axes.yaxis.set_major_formatter(FuncFormatter(_plain))
    axes.grid()
    axes.set_xlabel(COST_NAMES[cost])


def front_of(rows: pd.DataFrame, cost: str) -> pd.DataFrame:
    """The designs on a front, the cheapest first."""
    return rows[rows[f"front.{cost}"]].sort_values(cost)


def labelled(front: pd.DataFrame) -> pd.DataFrame:
    """The fastest design of the front at each number of PEs."""
    return front.loc[front.groupby("pes")["seconds"].idxmin()]


def _plain(value: float, _: object) -> str:
    return f"{value:,.0f}" if value >= 1 else f"{value:g}"


def _two_five(value: float, place: object) -> str:
    """Minor ticks of a logarithmic axis are named at 2 and 5 alone."""
    digit = f"{value:e}"[0]
    return _plain(value, place) if digit in "25" else ""


def _energy_ticks(axes: Axes, low: float, high: float) -> None:
    ticks = [low, (low * high) ** 0.5, high]
    axes.set_yticks(ticks, [f"{tick:.3g}" for tick in ticks])
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_yticks([], minor=True)


def findings(table: pd.DataFrame) -> str:
    """The fronts in words."""
    rows = table[table["error"].isna()]
    lines = [f"{len(table)} designs and phases, {len(table) - len(rows)} do not fit."]
    for phase, mine in grouped(rows, "phase").items():
        for cost, name in COST_NAMES.items():
            front = front_of(mine, cost)
            first, last = front.iloc[0], front.iloc[-1]
            lines.append(
                f"{phase}, {name.partition(',')[0]}: {len(front)} of {len(mine)} designs are on the front, from"
                f" {_design(first)} ({first['seconds'] * 1e3:.2f} ms) to {_design(last)}"
                f" ({last['seconds'] * 1e3:.3f} ms, x {first['seconds'] / last['seconds']:.1f}, for"
                f" x {last[cost] / first[cost]:.1f} the {name.partition(',')[0].partition(' ')[0]})."
            )
        lines.append(_worth(phase, mine))
    return "\n".join(["Findings", *(f"- {line}" for line in lines)])


def _design(row: pd.Series) -> str:
    return f"{row['pes']:,} PEs, {row['bytes_per_cycle']} B/cycle, arity {row['arity']}"


def _worth(phase: str, rows: pd.DataFrame) -> str:
    """What width and arity are worth at the most PEs."""
    mine = rows[rows["pes"] == rows["pes"].max()].set_index(["bytes_per_cycle", "arity"])["seconds"].unstack()
    widths, arities = mine.iloc[0] / mine.iloc[-1], mine.max(axis=1) / mine.min(axis=1)
    return (
        f"{phase} on {rows['pes'].max():,} PEs: bus and tree of {mine.index[-1]} in place of {mine.index[0]} B/cycle"
        f" are worth x {widths.min():.2f} to x {widths.max():.2f}, the best arity over the worst at most"
        f" x {arities.max():.3f}."
    )
