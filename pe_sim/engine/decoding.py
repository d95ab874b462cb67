"""Decode steps one after the other, as many at a time as the engine takes: gives their cycles and traffic."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

from pe_sim.config.array import ArrayConfig
from pe_sim.config.model import ModelConfig
from pe_sim.config.step import Decode
from pe_sim.engine.engines import DECODES, engine_named
from pe_sim.mapping.mapper import place
from pe_sim.mapping.workflow import Workflow
from pe_sim.schedule.lowering import lower
from pe_sim.trace import TagTraffic, Trace


def decode_in_order(
    model: ModelConfig, array: ArrayConfig, steps: Sequence[Decode], workflow: Workflow, engine: str
) -> Iterator[tuple[list[int], Mapping[str, TagTraffic]]]:
    """Cycles of the steps in order, and their traffic.

    Args:
        steps: each has one more token in every sequence's cache than the one before it.
    """

    def alone(step: Decode) -> Trace:
        return engine_named(engine)(lower(place(model, array, step, workflow)))

    rest = iter(steps)
    if steps and engine in DECODES:
        for together in DECODES[engine](place(model, array, steps[0], workflow), len(steps)):
            if not together.traffic and not together.exact.any():
                break
            cycles = together.makespan_cycles.tolist()
            for index, step in enumerate(islice(rest, len(cycles))):
                if not together.exact[index]:
                    cycles[index] = alone(step).makespan_cycles
            yield cycles, together.traffic
    for step in rest:
        trace = alone(step)
        yield [trace.makespan_cycles], trace.traffic
