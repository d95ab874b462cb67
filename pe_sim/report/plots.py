"""Pictures of a report; the one place that draws with matplotlib."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from pe_sim.errors import InputError
from pe_sim.report.binning import busy_fractions
from pe_sim.report.report import Report
from pe_sim.schedule.stages import Resource, Tag
from pe_sim.units import format_seconds

__all__ = ["TAG_COLOURS", "Axes", "plot_bus_utilization"]

# Okabe and Ito's palette, told apart by readers with any colour vision; a tag has its colour in every picture.
TAG_COLOURS: dict[str, str] = {
    Tag.BROADCAST.value: "#0072B2",
    Tag.MULTICAST.value: "#56B4E9",
    Tag.SCATTER.value: "#009E73",
    Tag.GATHER.value: "#CC79A7",
    Tag.ALL_GATHER.value: "#D55E00",
    Tag.ALL_TO_ALL.value: "#E69F00",
    Tag.REDUCE.value: "#000000",
    Tag.UNICAST.value: "#F0E442",
    Tag.WEIGHT_STREAM.value: "#999999",
}
_TIME_UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))


def plot_bus_utilization(report: Report, ax: Axes | None = None, bins: int = 200) -> Axes:
    """The part of the time the bus was held, stacked by tag, in `bins` equal parts of the step.

    Args:
        ax: where to draw; None: in a new figure.
        bins: at least 1.
    """
    if bins < 1:
        raise InputError("no bins to draw", path="bins", given=bins, expected="a whole number >= 1")
    if ax is None:
        _, ax = plt.subplots(figsize=(8.0, 3.2), layout="constrained")
    edges, fractions = busy_fractions(report.trace, Resource.BUS, bins)
    scale, unit = next(((s, u) for s, u in _TIME_UNITS if report.latency_seconds >= s), _TIME_UNITS[-1])
    times = edges / (report.array.clock_ghz * 1e9) / scale
    below = np.zeros(bins)
    for tag, shares in zip(report.trace.channel_use.tags, fractions, strict=True):
        if shares.any():
            label = f"{tag} ({shares.mean():.1%})"
            ax.stairs(
                below + shares, times, baseline=below, fill=True, color=TAG_COLOURS[tag], linewidth=0, label=label
            )
            below = below + shares
    mean = float(below.mean())
    ax.axhline(mean, color="0.25", linewidth=0.9, linestyle="--", label=f"all ({mean:.1%})")
    ax.set_xlim(0.0, float(times[-1]))
    ax.set_ylim(0.0, 1.0 if below.max() > 0.5 else max(1.15 * float(below.max()), 0.01))
    decimals = 0 if ax.get_ylim()[1] > 0.06 else 1
    ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=decimals))
    ax.set_xlabel(f"time ({unit})")
    width = format_seconds(report.latency_seconds / bins).replace("us", "µs")
    ax.set_ylabel(f"bus utilization\nin steps of {width}")
    title = f"{report.model.name} on {report.array.name}, {report.workflow.name}, {report.step.phase}"
    ax.set_title(title, loc="left", fontsize="medium")
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis="y", color="0.9", linewidth=0.8)
    ax.set_axisbelow(True)
    ax.legend(
        title="tag (mean)",
        alignment="left",
        frameon=False,
        fontsize="small",
        loc="upper left",
        bbox_to_anchor=(1.0, 1.0),
        borderaxespad=0.0,
    )
    return ax
