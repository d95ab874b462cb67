"""The decode steps of a generation, many at once: takes the first one placed, gives the cycles of all of them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pe_sim.config.network import GraphNetwork
from pe_sim.engine.fast import StepsTrace, run_steps
from pe_sim.engine.recurrences import OutOfOrderError
from pe_sim.mapping.classes import PeClasses, classes_of
from pe_sim.mapping.placed import PlacedGraph
from pe_sim.schedule.lowering import lower, lower_steps

_ENTRIES = 2**16  # of one array over steps and classes: half a MiB, so that those of a stage stay in the cache


def run_decode_steps(placed: PlacedGraph, num_steps: int) -> Iterator[StepsTrace]:
    """The steps in order, some at a time; step i has i more tokens of every sequence in its cache.

    A step that one pass in program order is not exact for is marked so, and has to be run by itself; so has every step
    on an interconnect that is a graph, of which nothing is given.

    Args:
        placed: the first decode step.
    """
    if isinstance(placed.array.network, GraphNetwork):
        return
    lower(placed)  # asks the layouts for everything in which PEs can differ
    classes = classes_of(placed, num_steps)
    at_once = max(1, _ENTRIES // classes.num_classes)
    for first in range(0, num_steps, at_once):
        yield _run(placed, classes.of_steps(first, min(first + at_once, num_steps)))


def _run(placed: PlacedGraph, classes: PeClasses) -> StepsTrace:
    try:
        return run_steps(lower_steps(placed, classes))
    except OutOfOrderError:
        nothing = np.zeros(classes.num_steps, dtype=np.int64)
        return StepsTrace(nothing, nothing > 0, {})
