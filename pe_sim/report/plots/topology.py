"""The drawing of an interconnect: takes an array, writes a PNG that shows its structure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import matplotlib
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from pe_sim.config.arrays.array import ArrayConfig
from pe_sim.network.metrics import LevelMetrics, TopologyMetrics, topology_metrics
from pe_sim.network.topology.kinds import build_topology
from pe_sim.report.plots.style import own_look
from pe_sim.report.plots.topology_layout import Layout, Stroke, lay_out

# Okabe and Ito's palette; many levels take a gradient instead.
_COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_ROOT_LINK: Final = "#777777"
_NODES: Final = {  # kind: name in the legend, marker, colour, size against a PE
    "pe": ("PE", "s", "#4C78A8", 1.0),
    "switch": ("switch", "o", "#F58518", 1.0),
    "joint": ("joint", "^", "#54A24B", 1.0),
    "bus": ("bus", "D", "#B279A2", 1.2),
    "crosspoint": ("crosspoint", ".", "#555555", 0.25),
    "root": ("root", "*", "#E45756", 3.0),
}
_DPI: Final = 130


def plot_topology(array: ArrayConfig, ax: Axes | None = None) -> Axes:
    """Draws the interconnect of an array, with its numbers in the title and a legend of nodes and levels.

    Args:
        ax: where to draw; None: in a new figure.
    """
    layout = lay_out(array, build_topology(array))
    if ax is None:
        _, ax = plt.subplots(figsize=_size(layout), layout="constrained")
    _draw_layout(ax, array, layout)
    return ax


def _size(layout: Layout) -> tuple[float, float]:
    """Width and height of the figure in inches."""
    return min(15.0, max(7.0, layout.height * layout.shape) + 3.2), layout.height


def _draw_layout(axes: Axes, array: ArrayConfig, layout: Layout) -> None:
    metrics = topology_metrics(array)
    lines = _colours(layout, metrics.levels)
    by_level: dict[tuple[str, str], list[Stroke]] = {}
    narrowest = min((stroke.width for stroke in layout.strokes), default=1)
    thin = min(1.3, max(0.3, 6 / (len(layout.strokes) + 1) ** 0.35) * layout.thick)
    for stroke in layout.strokes:
        by_level.setdefault((stroke.level, stroke.role), []).append(stroke)
    for (level, role), strokes in by_level.items():
        _draw(axes, strokes, lines[level], role, thin, narrowest)
    for low, high in layout.boxes:
        size = high[0] - low[0], high[1] - low[1]
        axes.add_patch(Rectangle(low, *size, facecolor="#F2F2F2", edgecolor="#BBBBBB", linewidth=0.8, zorder=0))
    area = min(150.0, max(2.0, (0.6 * 72 * layout.height / max(layout.crowd, 1.0)) ** 2))
    _draw_nodes(axes, layout, area)
    for spot, text in layout.texts:
        axes.text(*spot, text, ha="center", va="center", fontsize=14)
    if layout.equal:
        axes.set_aspect("equal", adjustable="datalim")
    axes.margins(0.06)
    axes.set_axis_off()
    _add_title(axes, array, metrics)
    _add_legend(axes, layout, lines, metrics)
    if layout.notes:
        axes.text(0.0, -0.01, "; ".join(layout.notes), transform=axes.transAxes, va="top", fontsize=8, color="0.35")


@own_look()
def save_topology(array: ArrayConfig, path: Path) -> None:
    """Writes the drawing as a PNG file."""
    layout = lay_out(array, build_topology(array))
    figure = Figure(figsize=_size(layout), layout="constrained", dpi=_DPI)
    _draw_layout(figure.add_subplot(), array, layout)
    figure.savefig(path, format="png", metadata={"Software": "pe-sim"})


def _colours(layout: Layout, levels: Sequence[LevelMetrics]) -> dict[str, str]:
    order = [level.level for level in levels]
    names = sorted(dict.fromkeys(stroke.level for stroke in layout.strokes), key=lambda name: _place(name, order))
    plain = [name for name in names if name != "root link"]
    if len(plain) > len(_COLOURS):
        gradient = matplotlib.colormaps["viridis"]
        colours = {name: matplotlib.colors.to_hex(gradient(index / len(plain))) for index, name in enumerate(plain)}
    else:
        colours = dict(zip(plain, _COLOURS, strict=False))
    return colours | {"root link": _ROOT_LINK}


def _place(name: str, order: list[str]) -> tuple[int, int]:
    if name in order:
        return order.index(name), 0
    return -1, int(name.split()[-1])  # a bit of the hypercube


def _draw(axes: Axes, strokes: list[Stroke], colour: str, role: str, thin: float, narrowest: int) -> None:
    if role == "bar":
        widths = [4.0] * len(strokes)
    else:
        widths = [min(14.0, thin * (stroke.width / narrowest) ** 0.65) for stroke in strokes]
    ways = [stroke.way for stroke in strokes]
    style = "butt" if role == "bar" else "round"
    axes.add_collection(
        LineCollection(ways, colors=colour, linewidths=widths, capstyle=style, zorder=1, alpha=0.9), autolim=True
    )


def _draw_nodes(axes: Axes, layout: Layout, area: float) -> None:
    for kind, (_, marker, colour, scale) in _NODES.items():
        mine = [mark for mark in layout.marks if mark.kind == kind]
        if not mine:
            continue
        size = max(area * scale, 90.0) if kind == "root" else area * scale
        xs, ys = zip(*(mark.spot for mark in mine), strict=True)
        edge = "white" if area > 20 and kind != "crosspoint" else "none"
        axes.scatter(
            xs, ys, s=size, marker=marker, c=colour, edgecolors=edge, linewidths=0.5, zorder=2 + (kind == "root")
        )
        for mark in mine:
            if mark.label and kind == "pe" and area > 60:
                axes.text(*mark.spot, mark.label, ha="center", va="center", fontsize=6.5, color="white", zorder=4)
            elif kind == "root":
                axes.annotate(
                    mark.label, mark.spot, (0, 8), textcoords="offset points", ha="center", fontsize=9, zorder=4
                )


def _add_title(axes: Axes, array: ArrayConfig, metrics: TopologyMetrics) -> None:
    kind = {"h_tree": "H-tree", "graph": "a graph"}.get(metrics.kind, metrics.kind.replace("_", " "))
    axes.set_title(f"{array.name}: {kind}, {metrics.num_pes:,} PEs", loc="left", fontsize=13, fontweight="bold", pad=24)
    facts = (
        f"{metrics.num_channels:,} channels, diameter {metrics.diameter_hops:,}, bisection"
        f" {metrics.bisection_bytes_per_cycle:,} B/cycle, wire {metrics.wire_bits_mm:,.0f} bit mm"
    )
    axes.text(0.0, 1.015, facts, transform=axes.transAxes, fontsize=9, color="0.25")


def _add_legend(axes: Axes, layout: Layout, colours: dict[str, str], metrics: TopologyMetrics) -> None:
    kinds = {mark.kind for mark in layout.marks}
    handles = [
        Line2D(
            [], [], linestyle="none", marker=marker, color=colour, markersize=12 if kind == "root" else 7, label=name
        )
        for kind, (name, marker, colour, _) in _NODES.items()
        if kind in kinds
    ]
    levels = {level.level: level for level in metrics.levels}
    bars = {stroke.level for stroke in layout.strokes if stroke.role == "bar"}
    shown = sorted(
        dict.fromkeys(stroke.level for stroke in layout.strokes), key=lambda name: _place(name, list(levels))
    )
    for name in shown:
        level = levels.get(name) or levels["link"]
        label = f"{name}: {_span(level.bytes_per_cycle)} B/cycle, λ {_span(level.latency_cycles)}"
        handles.append(Line2D([], [], color=colours[name], linewidth=4 if name in bars else 2, label=label))
    axes.legend(
        handles=handles,
        title="nodes and channels",
        alignment="left",
        frameon=False,
        fontsize="small",
        loc="upper left",
        bbox_to_anchor=(1.0, 1.0),
        borderaxespad=0.0,
    )


def _span(pair: tuple[int, int]) -> str:
    return f"{pair[0]:,}" if pair[0] == pair[1] else f"{pair[0]:,}-{pair[1]:,}"
