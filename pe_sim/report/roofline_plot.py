"""The roofline figure: takes a report, draws its array's ceilings and its operators below them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pe_sim.errors import InputError
from pe_sim.report.labels import Box, Marker, place_labels
from pe_sim.report.metrics import BOUND_KINDS
from pe_sim.report.report import Report
from pe_sim.report.roofline import Ceilings, Roofline, RooflinePoint, roofline
from pe_sim.report.style import own_look

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


def plot_roofline(report: Report, ax: Axes | None = None) -> Axes:
    """Draws the roofline into `ax` or a new figure; what the points mean stands in `pe_sim.report.roofline`."""
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
def save_roofline(report: Report, path: str | Path) -> None:
    """Writes the figure as PNG or SVG, as the ending of the path says.

    Raises:
        InputError: another ending.
    """
    form = picture_format(path)
    figure = Figure(figsize=(8.0, 5.2), layout="constrained", dpi=_DPI)
    plot_roofline(report, figure.add_subplot())
    known = {"png": {"Software": "pe-sim"}, "svg": {"Creator": "pe-sim", "Date": None}}
    figure.savefig(path, format=form, metadata=known[form])


def picture_format(path: str | Path) -> str:
    """The format that a path's ending says.

    Raises:
        InputError: none that is known.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in _SUFFIXES:
        raise InputError(
            "the ending does not say which kind of picture", given=str(path), expected=" or ".join(_SUFFIXES)
        )
    return _SUFFIXES[suffix]


def _set_scales(ax: Axes, found: Roofline) -> None:
    """Room for all points, the ridge, and a little of the flat roof."""
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
    """Writes what the roof is onto it, where there are fewer points; gives where that is, in points."""
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
    """Square points of a marker: in proportion to the share, and never too small to see."""
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
    """A label for every marker, or for those that lie on each other; none on a marker, a line or another text."""
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
    """The names; an operator whose distributions are all among them without these."""
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
