"""How busy the channels were over time: takes a report, draws the busy fraction of every tag in equal bins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from pe_sim.errors import InputError
from pe_sim.report.analysis.channels import channels_by_level
from pe_sim.report.palette import TAG_COLOURS
from pe_sim.report.step import StepFigures
from pe_sim.schedule.stages import Resource
from pe_sim.trace import Trace
from pe_sim.units import format_seconds, time_unit

__all__ = ["TAG_COLOURS", "Axes", "Figure", "plot_bus_utilization"]


MAX_LEVELS = 6


def plot_bus_utilization(report: StepFigures, ax: Axes | None = None, bins: int = 200) -> Axes:
    """Draws the share of time in which the bus was held, stacked by tag, in `bins` equal parts of the step.

    On a graph of channels there is a row for the hottest channel and one for each level, the mean over its channels;
    all rows have one scale. Of more than `MAX_LEVELS` levels the busiest ones are shown.

    Args:
        ax: where to draw; None: in a new figure.
        bins: at least 1.
    """
    if bins < 1:
        raise InputError("no bins to draw", path="bins", given=bins, expected="a whole number >= 1")
    on_graph = report.array.network.is_graph
    rows = _rows_of_graph(report) if on_graph else {"bus": [_bus(report)]}
    if ax is None:
        _, ax = plt.subplots(figsize=(8.0, 3.2 if not on_graph else 1.6 + 0.8 * len(rows)), layout="constrained")
    scale, unit = time_unit(report.latency_seconds)
    edges, _ = busy_fractions(report.trace, [], bins)
    times = edges / (report.array.clock_ghz * 1e9) / scale
    fractions = {name: busy_fractions(report.trace, channels, bins)[1] for name, channels in rows.items()}
    top = max(float(shares.sum(axis=0).max()) for shares in fractions.values())
    limit = 1.0 if top > 0.5 else max(1.15 * top, 0.01)
    if on_graph:
        _draw_rows(report, ax, times, fractions, limit)
    else:
        mean = _stack(report, ax, times, fractions["bus"], "{tag} ({mean:.1%})")
        ax.axhline(mean, color="0.25", linewidth=0.9, linestyle="--", label=f"all ({mean:.1%})")
        ax.set_ylim(0.0, limit)
        ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0 if limit > 0.06 else 1))
        ax.grid(axis="y", color="0.9", linewidth=0.8)
    ax.set_xlim(0.0, float(times[-1]))
    ax.set_xlabel(f"time ({unit})")
    width = format_seconds(report.latency_seconds / bins).replace("us", "µs")
    ax.set_ylabel(f"{'utilization' if on_graph else 'bus utilization'}\nin steps of {width}")
    title = f"{report.model.name} on {report.array.name}, {report.workflow.name}, {report.step.phase}{report.fit_mark}"
    ax.set_title(title, loc="left", fontsize="medium")
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_axisbelow(True)
    if ax.get_legend_handles_labels()[0]:
        ax.legend(
            title="tag" if on_graph else "tag (mean)",
            alignment="left",
            frameon=False,
            fontsize="small",
            loc="upper left",
            bbox_to_anchor=(1.0, 1.0),
            borderaxespad=0.0,
        )
    return ax


def _bus(report: StepFigures) -> int:
    return report.trace.channel_use.channels.index(Resource.BUS.value)


def _rows_of_graph(report: StepFigures) -> dict[str, list[int]]:
    """The channels of each row by its label: the hottest channel alone, then the busiest levels."""
    channels = report.channels
    hottest, means = channels.hottest(1), channels.by_level()
    rows = {f"hottest channel:\n{channels.name[channel]}": [channel] for channel in hottest}
    busiest = sorted(means, key=lambda level: -means[level]["utilization_mean"])[:MAX_LEVELS]
    for level, mine in channels_by_level(channels.level).items():
        if level in busiest:
            rows[f"{level}\n({f'mean of {len(mine):,} channels' if len(mine) > 1 else 'a channel'})"] = mine
    return rows


def _draw_rows(
    report: StepFigures, ax: Axes, times: FloatArray, fractions: Mapping[str, FloatArray], limit: float
) -> None:
    """Draws the rows below each other; the height of a row stands for the utilization `limit`."""
    named: set[str] = set()
    labels = []
    for row, (name, shares) in enumerate(fractions.items()):
        floor = -float(row)
        mean = _stack(report, ax, times, shares / limit, "{tag}", floor, named) * limit
        ax.axhline(floor, color="0.8", linewidth=0.8)
        labels.append(f"{name}, {mean:.1%}")
    ax.set_yticks([0.35 - row for row in range(len(fractions))], labels, fontsize="small", parse_math=False)
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(1.0 - len(fractions), 1.0)
    ax.text(
        1.01, 0.0, f"rows are\n{limit:.0%} high", transform=ax.transAxes, fontsize="small", va="bottom", color="0.35"
    )


def _stack(
    report: StepFigures,
    ax: Axes,
    times: FloatArray,
    shares_by_tag: FloatArray,
    label: str,
    floor: float = 0.0,
    named: set[str] | None = None,
) -> float:
    """Draws the tags' shares stacked from `floor` on; returns their mean. Tags in `named` already have a label."""
    named = set() if named is None else named
    below = np.zeros(len(times) - 1)
    for tag, shares in zip(report.trace.channel_use.tags, shares_by_tag, strict=True):
        if shares.any():
            text = "" if tag in named else label.format(tag=tag, mean=shares.mean())
            ax.stairs(
                floor + below + shares,
                times,
                baseline=floor + below,
                fill=True,
                color=TAG_COLOURS[tag],
                linewidth=0,
                label=text or None,
            )
            below = below + shares
            named.add(tag)
    return float(below.mean())


# ---- Channel uses over time: takes a trace, gives the busy fraction of every tag in equal bins.


FloatArray = npt.NDArray[np.float64]


def busy_fractions(trace: Trace, channels: Sequence[int], bins: int) -> tuple[FloatArray, FloatArray]:
    """Bin edges in cycles (bins + 1,), and the share of each bin in which each tag held a channel (tags, bins).

    Args:
        channels: indices of the trace's channels; shares are means over them.
    """
    uses = trace.channel_use
    edges = np.linspace(0.0, float(max(trace.makespan_cycles, 1)), bins + 1)
    chosen_channels = np.zeros(len(uses.channels), dtype=np.bool_)
    chosen_channels[list(channels)] = True
    here = chosen_channels[uses.channel]
    fractions = np.zeros((len(uses.tags), bins))
    for tag in range(len(uses.tags)):
        chosen = here & (uses.tag == tag)
        if chosen.any():
            busy_until = _busy_until(uses.start[chosen], uses.end[chosen], edges)
            fractions[tag] = np.diff(busy_until) / np.diff(edges) / len(channels)
    return edges, fractions


def _busy_until(start: npt.NDArray[np.int64], end: npt.NDArray[np.int64], cycles: FloatArray) -> FloatArray:
    """Busy cycles before each of `cycles`: the integral of the number of uses under way."""
    times = np.concatenate([start, end])
    steps = np.concatenate([np.ones_like(start), -np.ones_like(end)])
    order = np.argsort(times, kind="stable")
    times, level = times[order], np.cumsum(steps[order])
    busy = np.concatenate([[0], np.cumsum(level[:-1] * np.diff(times))])
    busy_at: FloatArray = np.interp(cycles, times, busy)
    return busy_at
