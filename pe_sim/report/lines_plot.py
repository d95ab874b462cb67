"""Columns of a table as lines: takes a pandas.DataFrame, draws one column against another, a line for each group."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle
from typing import TYPE_CHECKING, Any, Final

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter

from pe_sim.errors import DOES_NOT_FIT, InputError, did_you_mean
from pe_sim.notebook import number_text
from pe_sim.report.style import style

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["Axes", "plot_lines"]

_MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X")  # as many as the style has looks
_WIDE: Final = 8.0  # largest over smallest value of an axis from which on it is logarithmic


def plot_lines(frame: DataFrame, x: str, y: str, by: str | None = None, ax: Axes | None = None) -> Axes:
    """Draws the column `y` against `x`; rows without a value are left out, and axes of a wide range are logarithmic.

    Args:
        frame: with columns of numbers x and y; where several rows have one x, `by` has to tell them apart.
        by: a line for each of its values; None: one line.
        ax: where to draw; None: in a new figure.

    Raises:
        InputError: there is no such column, it has no numbers, or lines have several values at one x.
    """
    for name, given in (("x", x), ("y", y), ("by", by)):
        if given is not None and given not in frame.columns:
            raise InputError("no such column", path=name, given=given, hint=did_you_mean(given, list(frame.columns)))
    for name, given in (("x", x), ("y", y)):
        if frame[given].dtype.kind not in "iuf":
            raise InputError("not a column of numbers", path=name, given=given)
    known = frame.dropna(subset=[x, y])
    if known.empty:
        raise InputError("no row has a value", path="y", given=y)
    if ax is None:
        _, ax = plt.subplots(figsize=(7.2, 3.6), layout="constrained")
    _draw(ax, known, x, y, by)
    lacking = known[known["does_not_fit"].notna()] if "does_not_fit" in known else known[:0]
    if len(lacking):
        ax.scatter(lacking[x], lacking[y], marker="x", color="black", zorder=3, label=DOES_NOT_FIT)
    if _is_wide(known[x]):
        ax.set_xscale("log", base=2)
        ax.set_xticks(sorted(set(known[x].tolist())), minor=False)
        ax.set_xticks([], minor=True)
    if _is_wide(known[y]):
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(10.0, subs=(1.0, 2.0, 5.0)))
        ax.yaxis.set_minor_formatter(NullFormatter())
    ax.xaxis.set_major_formatter(lambda value, _: number_text(_whole(value)))
    ax.yaxis.set_major_formatter(lambda value, _: number_text(_whole(value)))
    ax.set_xlabel(_words(x))
    ax.set_ylabel(_words(y))
    ax.grid(color="0.9", linewidth=0.8)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    if by is not None or len(lacking):
        ax.legend(title=_words(by) if by else None, frameon=False, fontsize="small", alignment="left")
    return ax


def _draw(ax: Axes, frame: DataFrame, x: str, y: str, by: str | None) -> None:
    """The lines, in the looks of `pe_sim.use_style()` whatever is set."""
    with style():
        looks = cycle(plt.rcParams["axes.prop_cycle"])
        for (label, rows), look, marker in zip(_groups(frame, by), looks, cycle(_MARKERS), strict=False):
            if rows[x].duplicated().any():
                raise InputError(
                    f"several points have one {x}",
                    path="by",
                    given=by,
                    hint="take a column that tells them apart, or plot a part of the table",
                )
            ordered = rows.sort_values(x)
            ax.plot(ordered[x].astype(float), ordered[y].astype(float), label=label, marker=marker, **look)


def _groups(frame: DataFrame, by: str | None) -> Iterator[tuple[str, DataFrame]]:
    if by is None:
        yield "", frame
        return
    for value in frame[by].dropna().unique():
        yield str(value), frame[frame[by] == value]


def _is_wide(values: Any) -> bool:
    return bool(values.min() > 0 and values.max() / values.min() >= _WIDE)


def _whole(value: float) -> float | int:
    return int(value) if float(value).is_integer() else float(value)


def _words(name: str) -> str:
    """A column's name as a person would say it: num_pes -> PEs, utilization.bus -> utilization, bus."""
    return {"num_pes": "PEs"}.get(name, name.replace("_", " ").replace(".", ", "))
