"""Bars of the comparison of topologies: a panel for each number of PEs and workflow, the fastest on top."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.equal_wire_arrays import BUS_TREE
from experiments.equal_wire_steps import EVENTS, Point
from experiments.equal_wire_tables import numbers_of, ranked, workflows_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's palette.
COLOURS = {
    "buses": "#0072B2",
    "trees of switches": "#009E73",
    "links to neighbours": "#E69F00",
    "links to far away": "#CC79A7",
}
PALE = 0.3


def draw(points: Sequence[Point], title: str, path: Path) -> None:
    """Cycles of work and of waiting, with width and tokens/s at the end of each bar."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.artist import Artist
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    numbers, workflows = numbers_of(points), workflows_of(points)
    per_panel = len({point.topology for point in points})
    figure, panels = plt.subplots(
        len(numbers),
        len(workflows),
        figsize=(5.2 * len(workflows), len(numbers) * (0.24 * per_panel + 0.75) + 1.1),
        sharex="row",
        squeeze=False,
        layout="constrained",
    )
    for row, pes in zip(panels, numbers, strict=True):
        for axes, workflow in zip(row, workflows, strict=True):
            _draw_panel(axes, ranked(points, pes, workflow))
            axes.set_title(f"{pes} PEs, {workflow}", fontsize=11)
        most = max(point.cycles for point in points if point.pes == pes)
        row[0].set_xlim(0, most * 1.6 / 1e6)
    for axes in panels[-1]:
        axes.set_xlabel("million cycles for one token")
    families = dict.fromkeys(point.wired.design.family for point in points)
    handles: list[Artist] = [Patch(color=COLOURS[family], label=family) for family in families]
    handles.append(Patch(color="0.35", label="dark: PEs or root work"))
    handles.append(Patch(color="0.35", alpha=PALE, label="pale: all wait for messages"))
    if any(point.simulated == EVENTS for point in points):
        handles.append(Line2D([], [], linestyle="", color="0.2", marker="$*$", label="simulated event by event"))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=10, frameon=False)
    figure.suptitle(f"{title}, {_terms(points)}\nbeside each bar: tokens/s, and how wide its channels are", fontsize=13)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)


def _draw_panel(axes: Axes, ranking: Sequence[Point]) -> None:
    for place, point in enumerate(ranking):
        colour, cycles = COLOURS[point.wired.design.family], point.cycles / 1e6
        work = cycles * (1 - point.waiting)
        axes.barh(place, work, color=colour, height=0.74)
        axes.barh(place, cycles - work, left=work, color=colour, alpha=PALE, height=0.74)
        said = f" {point.tokens_per_second:,.0f} tokens/s at {point.wired.width} B/cycle"
        mark = " *" if point.simulated == EVENTS else ""
        axes.text(cycles, place, said + mark if point.cycles else " left out", va="center", fontsize=8)
    axes.set_yticks(range(len(ranking)), [point.topology for point in ranking], fontsize=9)
    for tick, point in zip(axes.get_yticklabels(), ranking, strict=True):
        tick.set_fontweight("bold" if point.topology == BUS_TREE else "normal")
    axes.set_ylim(len(ranking) - 0.4, -0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(axis="y", length=0)


def _terms(points: Sequence[Point]) -> str:
    if points[0].wired.budget_bits_mm is None:
        return "widths as in the presets, whatever wire that takes"
    return "every interconnect made of the same amount of wire"
