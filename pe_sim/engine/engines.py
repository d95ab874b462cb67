"""The registry of engines: whatever turns a schedule into a trace, to the cycle as the reference does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Protocol, TypeVar

from pe_sim.errors import InputError, did_you_mean
from pe_sim.schedule.stages import Schedule
from pe_sim.trace import Trace

if TYPE_CHECKING:
    from pe_sim.engine.fast import StepsTrace
    from pe_sim.mapping.placed import PlacedGraph

DEFAULT_ENGINE = "fast"
_E = TypeVar("_E")


class Engine(Protocol):
    """What simulates a schedule."""

    def __call__(self, schedule: Schedule, check: Callable[[], None] | None = None) -> Trace:
        """The trace; `check` is called again and again meanwhile, and what it raises ends the simulation."""


def event(schedule: Schedule, check: Callable[[], None] | None = None) -> Trace:
    """The reference, event by event on SimPy."""
    from pe_sim.engine.event import run_event  # loads SimPy

    return run_event(schedule, check)


def fast(schedule: Schedule, check: Callable[[], None] | None = None) -> Trace:
    """The same cycles by recurrences over stages."""
    from pe_sim.engine.fast import run_fast

    return run_fast(schedule, check)


def fast_decode(placed: PlacedGraph, num_steps: int) -> Iterator[StepsTrace]:
    """A decode step and those that follow it, many at once."""
    from pe_sim.engine.decode_steps import run_decode_steps

    return run_decode_steps(placed, num_steps)


ENGINES: dict[str, Engine] = {"event": event, "fast": fast}
DECODES: dict[str, Callable[[PlacedGraph, int], Iterator[StepsTrace]]] = {"fast": fast_decode}  # those that can


def engine_named(name: str) -> Engine:
    """The engine called `name`.

    Raises:
        InputError: there is none of that name.
    """
    return named_in(ENGINES, name)


def named_in(engines: Mapping[str, _E], name: str) -> _E:
    """The one called `name` of a registry of engines.

    Raises:
        InputError: there is none of that name.
    """
    if not isinstance(name, str) or name not in engines:
        expected = "one of " + ", ".join(engines)
        hint = did_you_mean(name, engines)
        raise InputError("no such engine", path="engine", given=name, expected=expected, hint=hint)
    return engines[name]
