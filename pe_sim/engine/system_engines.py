"""The registry of engines for systems: whatever turns a program of passes and exchanges into the times of its tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pe_sim.engine.engines import DEFAULT_ENGINE, named_in
from pe_sim.schedule.system import SystemProgram, SystemTimes

SystemEngine = Callable[[SystemProgram, Sequence[int]], SystemTimes]


def event(program: SystemProgram, pass_cycles: Sequence[int]) -> SystemTimes:
    """The reference, event by event on SimPy, hop by hop over the links."""
    from pe_sim.engine.system_event import run_system_event  # loads SimPy

    return run_system_event(program, pass_cycles)


def fast(program: SystemProgram, pass_cycles: Sequence[int]) -> SystemTimes:
    """The same cycles in one pass over the tasks."""
    from pe_sim.engine.system_fast import run_system_fast

    return run_system_fast(program, pass_cycles)


SYSTEM_ENGINES: dict[str, SystemEngine] = {"event": event, "fast": fast}


def system_engine_named(name: str = DEFAULT_ENGINE) -> SystemEngine:
    """The engine called `name`.

    Raises:
        InputError: there is none of that name.
    """
    return named_in(SYSTEM_ENGINES, name)
