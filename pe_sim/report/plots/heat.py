"""How busy each channel of the drawn interconnect was: takes a report, draws its channels in colours."""

from __future__ import annotations

import math
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colorbar import Colorbar
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter

from pe_sim.errors import InputError, did_you_mean
from pe_sim.network.topology.kinds import build_topology
from pe_sim.network.topology.topology import Topology
from pe_sim.report.analysis.channels import TAGS, FloatArray, distinct_stages
from pe_sim.report.plots.style import own_look
from pe_sim.report.plots.topology_layout import Layout, Stroke, lay_out
from pe_sim.report.step import StepFigures
from pe_sim.schedule.stages import MessageStage, Resource, Tag, TreeStage
from pe_sim.units import IntArray, ceil_div

# ---- What is drawn: takes a report, gives the utilization of every channel for each kind of messages.


ALL: Final = "all"
_KINDS: Final = {  # a panel each: what goes out to several, what comes in, what everybody gets, ...
    "broadcast and multicast": (Tag.BROADCAST, Tag.MULTICAST),
    "scatter": (Tag.SCATTER,),
    "gather": (Tag.GATHER,),
    "all-gather": (Tag.ALL_GATHER,),
    "reduce": (Tag.REDUCE,),
    "all-to-all": (Tag.ALL_TO_ALL,),
    "unicast": (Tag.UNICAST,),
    "weight-stream": (Tag.WEIGHT_STREAM,),
}


@dataclass(frozen=True, eq=False)
class Heat:
    """The utilization (channels,) of an interconnect by one kind of messages: busy over elapsed cycles, 0..1."""

    title: str
    utilization: FloatArray


def channel_heat(report: StepFigures, tag: str | None) -> tuple[Topology, list[Heat]]:
    """The interconnect and its heats: of one tag, of all messages ("all"), or (None) of all and of each kind sent.

    Raises:
        InputError: there is no such tag.
    """
    if tag is not None and tag != ALL and tag not in TAGS:
        known = (*TAGS, ALL)
        raise InputError("no such tag", path="tag", given=tag, expected=", ".join(known), hint=did_you_mean(tag, known))
    topology = build_topology(report.array)
    on_graph = report.array.network.is_graph
    busy = report.channels.busy if on_graph else _bus_tree_busy(report, topology)
    share = busy / max(report.latency_cycles, 1)

    def heat(title: str, tags: tuple[str, ...]) -> Heat:
        return Heat(title, share[:, [TAGS.index(each) for each in tags]].sum(axis=1))

    whole = heat("all messages", TAGS)
    if tag is not None:
        return topology, [whole if tag == ALL else heat(tag, (tag,))]
    kinds = [heat(name, tuple(tag.value for tag in tags)) for name, tags in _KINDS.items()]
    used = [kind for kind in kinds if kind.utilization.any()]
    return topology, [whole, *used]


def _bus_tree_busy(report: StepFigures, topology: Topology) -> IntArray:
    """(channels, tags) busy cycles of the bus and of each wire of the tree."""
    schedule, channels = report.schedule, topology.channels
    tree = schedule.array.bus_tree.tree
    index = {name: channel for channel, name in enumerate(channels.name)}
    busy = np.zeros((len(channels), len(TAGS)), dtype=np.int64)
    busy[index[Resource.BUS.value]] = report.channels.busy[report.channels.name.index(Resource.BUS.value)]

    def wires(first: int, last: int, levels: int, way: str) -> list[int]:
        """Indices of the wires that lead from PEs first .. last - 1 up `levels` levels, or down to them."""
        found = []
        for level in range(levels):
            size = tree.arity**level
            joints = range(first // size, -(-last // size))
            found += [index[f"tree {joint if level == 0 else f'{level}.{joint}'} {way}"] for joint in joints]
        return found

    def add(firsts: IntArray, lasts: IntArray, cycles: IntArray, tag: Tag, way: str, *, whole: bool = False) -> None:
        column = busy[:, TAGS.index(tag.value)]
        for first, last, each in zip(firsts.tolist(), lasts.tolist(), cycles.tolist(), strict=True):
            if whole:
                passed = wires(0, schedule.array.num_pes, tree.num_levels, way)
            else:
                levels = next(n for n in range(tree.num_levels + 1) if tree.arity**n >= last - first)
                passed = wires(first, last, levels, way)
            column[np.array(passed, dtype=np.int64)] += each

    for stage, repeats in distinct_stages(schedule):
        if isinstance(stage, TreeStage):
            beats = repeats * ceil_div(stage.num_bytes, tree.bytes_per_cycle)
            add(stage.first_pe, stage.last_pe, beats, Tag.REDUCE, "up", whole=stage.whole_tree)
        elif isinstance(stage, MessageStage) and stage.channel is Resource.DOWNLINK:
            beats = repeats * ceil_div(stage.num_bytes, tree.bytes_per_cycle)
            add(stage.first_pe[stage.target], stage.last_pe[stage.target], beats, stage.tag, "down")
    return busy


_IDLE: Final = "#DDDDDD"
_COLOURS: Final = LinearSegmentedColormap.from_list(
    "heat", matplotlib.colormaps["YlOrRd"](np.linspace(0.2, 1.0, 256)).tolist()
)
_NODES: Final = {"pe": "#7F8C99", "switch": "#7F8C99", "joint": "#7F8C99", "bus": "#7F8C99", "root": "#2166AC"}
_NOTE: Final = (
    "colour and thickness: how busy; grey: idle; circle: the hottest channel; star: the root; a link drawn once has the"
    " colour of its busier direction"
)
_ELSEWHERE: Final = ("width of a line", "dots")  # words of notes that do not apply to heat maps
_PANEL_HEIGHT: Final = 4.2  # inches
_MAX_WIDTH: Final = 15.0
_MAX_PANEL_WIDTH: Final = 7.0
_CHARACTER: Final = 0.063  # inches, of a note
_DPI: Final = 120


def plot_channel_heat(report: StepFigures, ax: Axes | None = None, tag: str = ALL) -> Axes:
    """Draws one heat with its colour bar beside it; `tag` is that of `Report.plot_channel_heat`."""
    topology, (heat,) = channel_heat(report, tag)
    layout = lay_out(report.array, topology)
    if ax is None:
        _, ax = plt.subplots(figsize=(6.4, _PANEL_HEIGHT + 0.5), layout="constrained")
    norm = _norm([heat])
    _draw(ax, layout, topology, heat, norm)
    figure = ax.get_figure(root=True)
    assert figure is not None
    bar = figure.colorbar(ScalarMappable(norm, _COLOURS), ax=ax, fraction=0.04, pad=0.02)
    _name_bar(bar)
    return ax


def plot_channel_heats(report: StepFigures) -> Figure:
    """A figure with a panel for all messages and one for each kind that was sent, on one colour scale."""
    topology, heats = channel_heat(report, None)
    layout = lay_out(report.array, topology)
    width = min(_MAX_PANEL_WIDTH, max(3.6, _PANEL_HEIGHT * layout.shape))
    height = min(_PANEL_HEIGHT, max(2.0, 1.15 * width / layout.shape))
    columns = min(len(heats), max(1, int(_MAX_WIDTH / width)))
    rows = math.ceil(len(heats) / columns)
    columns = math.ceil(len(heats) / rows)
    inches = columns * width + 1.2, rows * (height + 0.5) + 0.9
    figure = Figure(figsize=inches, layout="constrained", dpi=_DPI)
    panels = figure.subplots(rows, columns, squeeze=False)
    norm = _norm(heats)
    for axes, heat in zip(panels.flat, heats, strict=False):
        _draw(axes, layout, topology, heat, norm)
    for axes in panels.flat[len(heats) :]:
        axes.set_axis_off()
    bar = figure.colorbar(ScalarMappable(norm, _COLOURS), ax=panels, fraction=0.03, pad=0.01, aspect=40)
    _name_bar(bar)
    title = (
        f"{report.model.name} on {report.array.name} ({report.array.num_pes:,} PEs), {report.workflow.name},"
        f" {report.step.phase}{report.fit_mark}: how busy its channels were"
    )
    lines = textwrap.wrap(title, int(inches[0] / 0.115))
    figure.suptitle("\n".join(lines), x=0.01, ha="left", fontsize=12, fontweight="bold", parse_math=False)
    notes = "; ".join([_NOTE, *(note for note in layout.notes if not any(word in note for word in _ELSEWHERE))])
    lines = textwrap.wrap(notes, int(inches[0] / _CHARACTER))
    figure.supxlabel("\n".join(lines), x=0.01, ha="left", fontsize=8, color="0.35")
    return figure


@own_look()
def save_channel_heat(report: StepFigures, path: str | Path) -> None:
    """Writes the figure of `plot_channel_heats` as a PNG file."""
    plot_channel_heats(report).savefig(path, format="png", metadata={"Software": "pe-sim"})


def _norm(heats: list[Heat]) -> PowerNorm:
    """The colour scale, from idle to the hottest channel of all heats."""
    return PowerNorm(0.5, vmin=0.0, vmax=max(*(float(heat.utilization.max()) for heat in heats), 1e-6))


def _name_bar(bar: Colorbar) -> None:
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _percent(value)))
    bar.set_label("channel busy, of the latency")


def _draw(axes: Axes, layout: Layout, topology: Topology, heat: Heat, norm: PowerNorm) -> None:
    thin = min(2.2, max(0.6, 9 / (len(layout.strokes) + 1) ** 0.35) * min(layout.thick, 1.5))
    values = np.array([_value(stroke, heat.utilization) for stroke in layout.strokes])
    for low, high in layout.boxes:
        size = high[0] - low[0], high[1] - low[1]
        axes.add_patch(Rectangle(low, *size, facecolor="#F7F7F7", edgecolor="#CCCCCC", linewidth=0.8, zorder=0))
    order = np.argsort(values, kind="stable")  # the hottest on top
    strokes = [layout.strokes[index] for index in order.tolist()]
    colours = [_COLOURS(norm(value)) if value > 0 else _IDLE for value in values[order].tolist()]
    heats = np.sqrt(values[order] / max(norm.vmax or 1.0, 1e-12))
    factors = {"bar": 3.0, "tap": 0.5}
    widths = [
        thin * factors.get(stroke.role, 1.0) * (0.7 + 1.3 * part)
        for stroke, part in zip(strokes, heats.tolist(), strict=True)
    ]
    lines = LineCollection([stroke.way for stroke in strokes], colors=colours, linewidths=widths, zorder=1)
    axes.add_collection(lines, autolim=True)
    _draw_nodes(axes, layout)
    for spot, text in layout.texts:
        axes.text(*spot, text, ha="center", va="center", fontsize=12)
    hottest = int(heat.utilization.argmax())
    mine = [stroke for stroke in layout.strokes if hottest in stroke.channels and stroke.role != "tap"]
    if mine and heat.utilization[hottest] > 0:
        xs, ys = zip(*mine[0].way, strict=True)
        middle = len(xs) // 2
        spot = (xs[middle], ys[middle]) if len(xs) > 2 else (sum(xs) / 2, sum(ys) / 2)
        axes.plot(*spot, "o", markersize=9, markerfacecolor="none", markeredgecolor="black", markeredgewidth=1.2)
    if layout.equal:
        axes.set_aspect("equal", adjustable="datalim")
    axes.margins(0.06)
    axes.set_axis_off()
    mean, peak = float(heat.utilization.mean()), float(heat.utilization[hottest])
    others = int((heat.utilization == peak).sum()) - 1
    more = f" and {others:,} more" if others else ""
    where = f"{topology.channels.name[hottest]}{more}" if peak > 0 else "none"
    axes.set_title(
        f"{heat.title}\nmean {_percent(mean)}, hottest {_percent(peak)}: {where}",
        loc="left",
        fontsize=9,
        parse_math=False,
    )


def _draw_nodes(axes: Axes, layout: Layout) -> None:
    area = min(30.0, max(1.0, (0.3 * 72 * _PANEL_HEIGHT / max(layout.crowd, 1.0)) ** 2))
    for kind, colour in _NODES.items():
        spots = [mark.spot for mark in layout.marks if mark.kind == kind]
        if not spots:
            continue
        xs, ys = zip(*spots, strict=True)
        is_root = kind == "root"
        marker = "*" if is_root else "s" if kind == "pe" else "o"
        axes.scatter(xs, ys, s=110.0 if is_root else area, marker=marker, c=colour, linewidths=0, zorder=2 + is_root)


def _value(stroke: Stroke, utilization: FloatArray) -> float:
    return float(max(utilization[channel] for channel in stroke.channels))


def _percent(share: float) -> str:
    """A share (0..1) as per cent with two significant digits."""
    percent = 100 * share
    if 0 < percent < 0.01:
        return "<0.01%"
    return f"{percent:.{max(0, 1 - math.floor(math.log10(percent)))}f}%" if 0 < percent < 99.5 else f"{percent:.0f}%"
