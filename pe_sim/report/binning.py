"""Channel uses over time: takes a trace, gives the busy fraction of every tag in equal bins."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pe_sim.trace import Trace

FloatArray = npt.NDArray[np.float64]


def busy_fractions(trace: Trace, channels: Sequence[int], bins: int) -> tuple[FloatArray, FloatArray]:
    """Bin edges (bins + 1,) in cycles, and (tags, bins) the part of each bin in which a tag held a channel.

    Args:
        channels: of the trace; of several it is the mean over them.
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
    """Busy cycles before each of `cycles`: the integral of how many uses are under way."""
    times = np.concatenate([start, end])
    steps = np.concatenate([np.ones_like(start), -np.ones_like(end)])
    order = np.argsort(times, kind="stable")
    times, level = times[order], np.cumsum(steps[order])
    busy = np.concatenate([[0], np.cumsum(level[:-1] * np.diff(times))])
    busy_at: FloatArray = np.interp(cycles, times, busy)
    return busy_at
