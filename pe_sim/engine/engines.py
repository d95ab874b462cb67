"""The registry of engines, which turn schedules into traces; and decode steps one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Protocol, TypeVar

from pe_sim.config.arrays.array import ArrayConfig
from pe_sim.config.models.model import ModelConfig
from pe_sim.config.step import Decode
from pe_sim.errors import InputError, did_you_mean
from pe_sim.mapping.mapper import place
from pe_sim.mapping.workflow import Workflow
from pe_sim.registry import Registry
from pe_sim.schedule.lowering import lower
from pe_sim.schedule.stages import Schedule
from pe_sim.trace import TagTraffic, Trace

if TYPE_CHECKING:
    from pe_sim.engine.fast.run import StepsTrace
    from pe_sim.mapping.placed import PlacedGraph

DEFAULT_ENGINE = "fast"
_E = TypeVar("_E")


class Engine(Protocol):
    """Interface of an engine, which simulates a schedule."""

    def __call__(self, schedule: Schedule, check: Callable[[], None] | None = None) -> Trace:
        """The trace of a schedule; `check` is called again and again meanwhile, and may end it by an exception."""


def event(schedule: Schedule, check: Callable[[], None] | None = None) -> Trace:
    """The trace by the reference engine, event by event on SimPy."""
    from pe_sim.engine.event.run import run_event  # loads SimPy

    return run_event(schedule, check)


def fast(schedule: Schedule, check: Callable[[], None] | None = None) -> Trace:
    """The trace by the fast engine: the same cycles, by recurrences over stages."""
    from pe_sim.engine.fast.run import run_fast

    return run_fast(schedule, check)


def fast_decode(placed: PlacedGraph, num_steps: int) -> Iterator[StepsTrace]:
    """Traces of a decode step and those that follow it, many steps at once, by the fast engine."""
    from pe_sim.engine.fast.run import run_decode_steps

    return run_decode_steps(placed, num_steps)


ENGINES: Registry[Engine] = Registry("pe_sim.engines", {"event": event, "fast": fast})
DECODES: dict[str, Callable[[PlacedGraph, int], Iterator[StepsTrace]]] = {"fast": fast_decode}  # those that can


def engine_named(name: str) -> Engine:
    """The engine called `name`.

    Raises:
        InputError: there is none of that name.
    """
    return named_in(ENGINES, name)


def named_in(engines: Mapping[str, _E], name: str) -> _E:
    """The engine called `name` of a registry of engines.

    Raises:
        InputError: there is none of that name.
    """
    if not isinstance(name, str) or name not in engines:
        expected = "one of " + ", ".join(engines)
        hint = did_you_mean(name, engines)
        raise InputError("no such engine", path="engine", given=name, expected=expected, hint=hint)
    return engines[name]


# ---- Decode steps one after the other, as many at a time as the engine takes.


def decode_in_order(
    model: ModelConfig, array: ArrayConfig, steps: Sequence[Decode], workflow: Workflow, engine: str
) -> Iterator[tuple[list[int], Mapping[str, TagTraffic]]]:
    """Cycles of the steps in order, and their traffic, some steps at a time.

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
