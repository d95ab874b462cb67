"""The roofline of a step: takes a report, gives the array's ceilings and a point for every operator, and draws them.

Ceilings, in flops and bytes a second at the array's clock: the matrix units of all PEs (2 flops a multiplier and
cycle, whatever the dtype: in this machine it changes the bytes alone), the memory ports of all PEs, and the channel
that all PEs share, the bus. A point has an operator's flops over the bytes that it read from the PEs' memories,
counted as read (every pass of a GEMM, KV heads on every PE that keeps them), and its flops over its own span, the
moves it asked for included. So a point lies below the roof by what waits, moves and tiles that are cut short take;
one operator of all layers is one point. What reads nothing from memory (norms, activations and softmax) has no place
on the axis.
"""

from __future__ import annotations

import math
import textwrap
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pe_sim.config.arrays.array import ArrayConfig
from pe_sim.errors import InputError
from pe_sim.report.analysis.metrics import BOUND_KINDS
from pe_sim.report.plots.style import own_look
from pe_sim.report.step import StepFigures
from pe_sim.schedule.stages import PeStage
from pe_sim.units import exact_sum

if TYPE_CHECKING:
    from pe_sim.report.analysis.metrics import OperatorRow


__all__ = ["Axes", "plot_roofline", "save_roofline"]


# Okabe and Ito's palette: told apart by readers with any colour vision; markers tell them apart in print as well.
_STYLE: Final[dict[str, tuple[str, str]]] = {
    "memory": ("#0072B2", "o"),
    "compute": ("#D55E00", "s"),
    "vector": ("#009E73", "^"),
    "bus": ("#E69F00", "D"),
    "tree": ("#000000", "v"),
    "downlink": ("#56B4E9", "<"),
    "network": ("#CC79A7", "P"),
    "root": ("#777777", "X"),
}
_SUFFIXES: Final = {".png": "png", ".svg": "svg"}
_FONT: Final = 8.0  # points
_DPI: Final = 150
_ABOVE: Final = 1.0001  # of the roof: more than a rounding puts a point there
_HARD_SPACE: Final = "\u00a0"


def plot_roofline(report: StepFigures, ax: Axes | None = None) -> Axes:
    """Draws the roofline of a step into `ax` or a new figure, with a point for every operator; returns the axes."""
    found = roofline(report)
    if ax is None:
        _, ax = plt.subplots(figsize=(8.0, 5.2), layout="constrained")
    _set_scales(ax, found)
    _draw_roof(ax, found.ceilings)
    _draw_points(ax, found.points)
    title = (
        f"{report.model.name} on {report.array.name} ({report.array.num_pes:,} PEs), {report.workflow.name},"
        f" {report.step.phase}{report.fit_mark}"
    )
    ax.set_title(title, loc="left", fontsize="medium", parse_math=False)
    ax.set_xlabel(_x_label(found), fontsize="small")
    ax.set_ylabel("attained, flop/s")
    ax.yaxis.set_major_formatter(lambda value, _: _with_prefix(value))
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.grid(which="major", color="0.92", linewidth=0.8)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    _draw_legend(ax, found.points)
    figure = ax.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()  # lays out: only from now on is it known where things are
    taken = _name_ceilings(ax, found, report.array.dtypes.weight.name)
    if found.points:
        _draw_labels(ax, found.points, taken)
    return ax


@own_look()
def save_roofline(report: StepFigures, path: str | Path) -> None:
    """Writes the roofline of a step as PNG or SVG, as the ending of the path says.

    Raises:
        InputError: the path has another ending.
    """
    form = picture_format(path)
    figure = Figure(figsize=(8.0, 5.2), layout="constrained", dpi=_DPI)
    plot_roofline(report, figure.add_subplot())
    known = {"png": {"Software": "pe-sim"}, "svg": {"Creator": "pe-sim", "Date": None}}
    figure.savefig(path, format=form, metadata=known[form])


def picture_format(path: str | Path) -> str:
    """The picture format that the ending of a path says: "png" or "svg".

    Raises:
        InputError: the ending is no known one.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in _SUFFIXES:
        raise InputError(
            "the ending does not say which kind of picture", given=str(path), expected=" or ".join(_SUFFIXES)
        )
    return _SUFFIXES[suffix]


def _set_scales(ax: Axes, found: Roofline) -> None:
    """Sets the limits of the axes, with room for all points, the ridge, and a little of the flat roof."""
    ceilings = found.ceilings
    intensities = [point.intensity for point in found.points]
    attained = [point.flops_per_second for point in found.points]
    left, right = min(*intensities, ceilings.ridge) / 3, max(*intensities, ceilings.ridge) * 8
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlim(left, right)
    ax.set_ylim(min(*attained, ceilings.roof(left)) / 2, ceilings.flops_per_second * 2)


def _draw_roof(ax: Axes, ceilings: Ceilings) -> None:
    xs = np.geomspace(*ax.get_xlim(), 200)
    ax.plot(xs, [ceilings.roof(x) for x in xs.tolist()], color="0.15", linewidth=1.6, zorder=2)
    shared = ceilings.shared_bytes_per_second
    label = f"{ceilings.shared_name}: {_with_prefix(shared)}B/s, if all came over it"
    ax.plot(xs, shared * xs, color="0.45", linewidth=1.2, linestyle="--", zorder=2, label=label)


def _name_ceilings(ax: Axes, found: Roofline, dtype: str) -> list[Box]:
    """Writes the names of the ceilings beside them, where points are fewer; returns what they cover, in points."""
    ceilings, (left, right) = found.ceilings, ax.get_xlim()
    peak, rate, ridge = ceilings.flops_per_second, ceilings.memory_bytes_per_second, ceilings.ridge
    text = f"all matrix units, {dtype} weights: {_with_prefix(peak)}flop/s"
    ax.text(right, peak * 1.06, text, ha="right", va="bottom", fontsize=_FONT)
    middle = (left * ridge) ** 0.5
    near = [each.intensity for each in found.points if each.flops_per_second > 0.4 * ceilings.roof(each.intensity)]
    high = sum(x < middle for x in near) > sum(middle <= x <= ridge for x in near)
    x, align = (ridge / 1.15, "right") if high else (left * 1.1, "left")
    (x_first, y_first), (x_last, y_last) = ax.transData.transform([(left, rate * left), (ridge, rate * ridge)])
    ax.text(
        x,
        rate * x * 1.1,
        f"all PEs' memories: {_with_prefix(rate)}B/s",
        fontsize=_FONT,
        rotation=float(np.degrees(np.arctan2(y_last - y_first, x_last - x_first))),
        rotation_mode="anchor",
        ha=align,
        va="bottom",
    )
    start, end = (middle, ridge) if high else (left, middle)
    covered = np.geomspace(start, end, 40)
    way = ax.transData.transform(np.stack([covered, rate * covered], axis=1)) * _points_a_pixel(ax)
    return [Box(x - 1.5 * _FONT, x, y, y + 1.5 * _FONT) for x, y in way.tolist()]


def _points_a_pixel(ax: Axes) -> float:
    return 72.0 / ax.figure.dpi


def _draw_points(ax: Axes, points: Sequence[RooflinePoint]) -> None:
    for point in points:
        colour, marker = _STYLE.get(point.bound_by, ("#777777", "o"))
        ax.scatter(
            [point.intensity],
            [point.flops_per_second],
            s=_area(point.share),
            c=colour,
            marker=marker,
            alpha=0.75,
            edgecolors="white",
            linewidths=0.8,
            zorder=3,
        )


def _area(share: float) -> float:
    """Area of a marker in square points: in proportion to the share, and never too small to see."""
    return 20.0 + 900.0 * share


def _draw_legend(ax: Axes, points: Sequence[RooflinePoint]) -> None:
    present = {point.bound_by for point in points}
    kinds = [
        Line2D([], [], color=_STYLE[kind][0], marker=_STYLE[kind][1], linestyle="", label=f"bound by {kind}")
        for kind in BOUND_KINDS
        if kind in present
    ]
    lines = [line for line in ax.lines if line.get_linestyle() == "--"]
    ax.legend(handles=[*kinds, *lines], loc="lower right", fontsize="small", edgecolor="none", framealpha=0.9)


def _draw_labels(ax: Axes, points: Sequence[RooflinePoint], taken: Sequence[Box]) -> None:
    """Draws a label for every marker or group of overlapping ones, clear of markers, lines and other texts."""
    scale = _points_a_pixel(ax)
    spots = ax.transData.transform([(point.intensity, point.flops_per_second) for point in points]) * scale
    markers = [
        Marker(_name(point), float(x), float(y), _area(point.share) ** 0.5 / 2)
        for point, (x, y) in zip(points, spots, strict=True)
    ]
    legend = ax.get_legend()
    level = [text.get_window_extent() for text in ax.texts if not text.get_rotation()]
    boxes = [*level, *([legend.get_window_extent()] if legend is not None else [])]
    blocked = [*taken, *(Box(box.x0 * scale, box.x1 * scale, box.y0 * scale, box.y1 * scale) for box in boxes)]
    for line in ax.lines:
        way = ax.transData.transform(np.asarray(line.get_xydata())) * scale
        blocked += [Box(x - 1, x + 1, y - 1, y + 1) for x, y in way.tolist()]
    frame = ax.get_window_extent()
    limits = Box(frame.x0 * scale, frame.x1 * scale, frame.y0 * scale, frame.y1 * scale)
    variants = Counter(point.name for point in points)
    back = ax.transData.inverted()
    for label in place_labels(markers, limits, blocked, _FONT, lambda names: _joined(names, variants)):
        at, to = back.transform([(label.x / scale, label.y / scale), (label.of.x / scale, label.of.y / scale)]).tolist()
        ax.annotate(
            label.text,
            xy=tuple(to),
            xytext=tuple(at),
            ha=label.align,
            va="center",
            fontsize=_FONT,
            zorder=4,
            arrowprops={"arrowstyle": "-", "color": "0.6", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 0},
        )


def _name(point: RooflinePoint) -> str:
    return f"{point.name}{_HARD_SPACE}({point.distribution})" if point.distribution else point.name


def _joined(names: Sequence[str], variants: Mapping[str, int]) -> str:
    """The names joined by commas; an operator with all its distributions among them is named once, without these."""
    of: dict[str, list[str]] = {}
    for name in names:
        of.setdefault(name.split(_HARD_SPACE)[0], []).append(name)
    texts = [[operator] if len(mine) == variants[operator] else mine for operator, mine in of.items()]
    return ", ".join(text for each in texts for text in each)


def _x_label(found: Roofline) -> str:
    lines = ["arithmetic intensity, flop per byte read from the PEs' memories; areas: share of all operators' spans"]
    if found.unplaced_share >= 0.0005:
        share = f"{found.unplaced_share:.1%} of all operators' spans"
        lines.append(f"not shown: operators that read no memory ({share})")
    if any(point.flops_per_second > _ABOVE * found.ceilings.roof(point.intensity) for point in found.points):
        lines.append("above the roof: operators whose span begins after their first bytes were prefetched")
    return "\n".join(lines)


def _with_prefix(value: float) -> str:
    for scale, prefix in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= scale:
            return f"{value / scale:.4g} {prefix}"
    return f"{value:.4g} "


# ---- Labels of points that do not cover each other: takes markers and obstacles, gives a place for every text.


_CHARACTER: Final = 0.58  # of the font's size: a little more than the mean
_LINE: Final = 1.25  # of the font's size, from one line to the next
_WIDTHS: Final = (34, 17, 11)  # characters a line, tried in this order until there is room
_TOGETHER: Final = 3.0  # points: markers nearer than that share a label
_PADDING: Final = 2.0  # points around a text
_GAP: Final = 5.0  # points from a marker's edge to its label
_STEPS: Final = 80  # up and down, of half a line each


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle, in points."""

    left: float
    right: float
    bottom: float
    top: float

    def overlaps(self, other: Box) -> bool:
        """Whether the two boxes have an area in common."""
        beside = self.right <= other.left or other.right <= self.left
        return not (beside or self.top <= other.bottom or other.top <= self.bottom)

    def holds(self, other: Box) -> bool:
        """Whether the other box lies inside this one."""
        across = self.left <= other.left and other.right <= self.right
        return across and self.bottom <= other.bottom and other.top <= self.top


@dataclass(frozen=True, slots=True)
class Marker:
    """A marker to label: its name, its middle and its radius, in points."""

    name: str
    x: float
    y: float
    radius: float

    @property
    def box(self) -> Box:
        """The square around the marker."""
        return Box(self.x - self.radius, self.x + self.radius, self.y - self.radius, self.y + self.radius)


@dataclass(frozen=True, slots=True)
class Label:
    """A label of one or several lines: the middle of its left or right end, and the marker it belongs to."""

    text: str
    of: Marker
    x: float
    y: float
    align: str
    box: Box


def place_labels(
    markers: Sequence[Marker],
    limits: Box,
    taken: Sequence[Box],
    font: float,
    joined: Callable[[Sequence[str]], str] = ", ".join,
) -> list[Label]:
    """The labels of markers, left or right of them, as near as there is room; overlapping markers share one.

    Args:
        markers: the markers to label.
        limits: the box that labels have to lie in.
        taken: areas that they must not cover, in addition to markers and each other.
        font: size of the font in points.
        joined: makes one text of several names; words joined by a non-breaking space stay on one line.
    """
    placed: list[Label] = []
    groups = _grouped(markers)
    for names, marker in groups:
        obstacles = [*taken, *(other.box for other in markers), *(label.box for label in placed)]
        texts = [textwrap.fill(joined(names), width, break_long_words=False) for width in _WIDTHS]
        placed.append(_place(texts, marker, limits, obstacles, font))
    return placed


def _grouped(markers: Sequence[Marker]) -> list[tuple[list[str], Marker]]:
    """(names, marker) from the top down: the names of overlapping markers, and the widest of these markers."""
    groups: list[tuple[list[str], Marker]] = []
    for marker in sorted(markers, key=lambda each: (-each.y, -each.radius)):
        near = next((i for i, (_, other) in enumerate(groups) if _distance(marker, other) < _TOGETHER), None)
        if near is None:
            groups.append(([marker.name], marker))
        else:
            names, other = groups[near]
            groups[near] = [*names, marker.name], max(other, marker, key=lambda each: each.radius)
    return groups


def _place(texts: Sequence[str], marker: Marker, limits: Box, obstacles: Sequence[Box], font: float) -> Label:
    """The label at the first free place, the widest text and the nearest places first; the nearest if none is free."""
    line = _LINE * font / 2
    shifts = [0.0, *(sign * step * line for step in range(1, _STEPS) for sign in (-1, 1))]
    sides = ((1, "left"), (-1, "right"))
    for text in dict.fromkeys(texts):
        for label in (_candidate(text, marker, shift, side, align, font) for shift in shifts for side, align in sides):
            if limits.holds(label.box) and not any(label.box.overlaps(other) for other in obstacles):
                return label
    return _candidate(texts[0], marker, shifts[0], *sides[0], font)


def _candidate(text: str, marker: Marker, shift: float, side: int, align: str, font: float) -> Label:
    lines = text.split("\n")
    width, height = _CHARACTER * font * max(map(len, lines)), _LINE * font * len(lines)
    x, y = marker.x + side * (marker.radius + _GAP + abs(shift) / 4), marker.y + shift
    left = x if side > 0 else x - width
    return Label(
        text, marker, x, y, align, Box(left - _PADDING, left + width + _PADDING, y - height / 2, y + height / 2)
    )


def _distance(first: Marker, second: Marker) -> float:
    return math.hypot(first.x - second.x, first.y - second.y)


# ---- The roofline of a step: takes a report, gives the array's ceilings and a point for every operator.


FLOPS_PER_MAC = 2


@dataclass(frozen=True, slots=True)
class Ceilings:
    """Upper bounds on what an array can compute and move per second.

    Args:
        flops_per_second: of all matrix units together.
        memory_bytes_per_second: of all PEs' memory ports together; banks read whole rows back to back.
        shared_bytes_per_second: of the widest single channel, such as the bus.
        shared_name: name of that channel.
    """

    flops_per_second: float
    memory_bytes_per_second: float
    shared_bytes_per_second: float
    shared_name: str

    @property
    def ridge(self) -> float:
        """Intensity in flops per byte above which the matrix units, and not the memories, are the bound."""
        return self.flops_per_second / self.memory_bytes_per_second

    def roof(self, intensity: float) -> float:
        """Upper bound on flops per second at an intensity in flops per byte."""
        return min(self.flops_per_second, intensity * self.memory_bytes_per_second)


@dataclass(frozen=True, slots=True)
class RooflinePoint:
    """A point of the roofline: an operator, all its layers together.

    Args:
        name: of the operator.
        distribution: the distribution it has in these layers, if it has another in others; else empty.
        flops, read_bytes: sums over the layers; bytes as read from the PEs' memories.
        seconds: sum of its spans; those of other operators may overlap them.
        share: its share (0..1) of the spans of all operators.
        bound_by: the kind of bound that most of its time has, as in the report's operators.
    """

    name: str
    distribution: str
    flops: int
    read_bytes: int
    seconds: float
    share: float
    bound_by: str

    @property
    def intensity(self) -> float:
        """Arithmetic intensity in flops per byte read."""
        return self.flops / self.read_bytes

    @property
    def flops_per_second(self) -> float:
        """Attained flops per second."""
        return self.flops / self.seconds


@dataclass(frozen=True, slots=True)
class Roofline:
    """The ceilings and points of a step; `unplaced_share` of all spans is of operators that read no memory."""

    ceilings: Ceilings
    points: tuple[RooflinePoint, ...]
    unplaced_share: float


def ceilings_of(array: ArrayConfig) -> Ceilings:
    """The ceilings of an array, with its living PEs only."""
    hertz, unit = array.clock_ghz * 1e9, array.pe.matrix
    if not array.network.is_graph:
        width, name = array.bus_tree.bus.bytes_per_cycle, "bus"
    else:
        from pe_sim.network.interconnect import interconnect_of  # loads networkx

        channels = interconnect_of(array).topology.channels
        widest = int(channels.bytes_per_cycle.argmax())
        width, name = int(channels.bytes_per_cycle[widest]), f"one {channels.level[widest]}"
    return Ceilings(
        flops_per_second=array.num_living * unit.outputs * unit.depth * FLOPS_PER_MAC * hertz,
        memory_bytes_per_second=array.num_living * array.pe.memory.bytes_per_cycle * hertz,
        shared_bytes_per_second=width * hertz,
        shared_name=name,
    )


def roofline(report: StepFigures) -> Roofline:
    """The roofline of a step: the ceilings of its array, and its operators, those with the longest spans first."""
    read = _read_bytes(report)
    hertz = report.array.clock_ghz * 1e9
    total = sum(row.cycles for row in report.operators) or 1
    groups: dict[tuple[str, str], list[OperatorRow]] = {}
    for row in report.operators:
        groups.setdefault((row.name, row.distribution), []).append(row)
    names = Counter(name for name, _ in groups)
    points, unplaced = [], 0
    for (name, distribution), rows in groups.items():
        flops, cycles = sum(row.flops for row in rows), sum(row.cycles for row in rows)
        num_bytes = sum(read[row.layer, row.name] for row in rows)
        if not (flops and num_bytes and cycles):
            unplaced += cycles
            continue
        some = distribution if names[name] > 1 else ""
        points.append(RooflinePoint(name, some, flops, num_bytes, cycles / hertz, cycles / total, _bound_of(rows)))
    points.sort(key=lambda point: -point.share)
    return Roofline(ceilings_of(report.array), tuple(points), unplaced / total)


def _read_bytes(report: StepFigures) -> Counter[tuple[int | None, str]]:
    """Bytes that matrix stages read from the memories of all PEs, by (layer, operator)."""
    found: Counter[tuple[int | None, str]] = Counter()
    for span, stage in report.timeline.active():
        if isinstance(stage, PeStage) and stage.matrix is not None:
            found[span.layer, span.operator] += exact_sum(stage.matrix.read_bytes[stage.active])
    return found


def _bound_of(rows: list[OperatorRow]) -> str:
    cycles: Counter[str] = Counter()
    for row in rows:
        cycles[row.bound_by] += row.cycles
    return cycles.most_common(1)[0][0]
