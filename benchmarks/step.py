"""One step under each engine, part by part. As a program it does what `pe-sim` does and prints its peak memory."""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable, Iterable
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO

from benchmarks.measure import clear_caches, median_seconds, peak_bytes, timed
from pe_sim.api import ENGINES, Step, Workflow, load_array, load_model, load_workflow, simulate
from pe_sim.config.arrays.array import ArrayConfig
from pe_sim.config.models.model import ModelConfig
from pe_sim.config.step import Decode
from pe_sim.mapping.mapper import place
from pe_sim.schedule.lowering import lower
from pe_sim.schedule.stages import Schedule
from pe_sim.trace import Trace

MODEL = "llama-2-7b"
WORKFLOW = "workflow-1"
CONTEXT_LEN = 2048
WARM_REPEATS = 25


@dataclass(frozen=True, slots=True)
class Situation:
    """What `simulate` takes, loaded. The memories need not hold it: the curves go further than they do."""

    model: ModelConfig
    array: ArrayConfig
    step: Step
    workflow: Workflow


@dataclass(frozen=True, slots=True)
class StepTimes:
    """Wall times in seconds of a step's parts, nothing kept from an earlier one, and the cycles it takes.

    `simulate` is the whole call with the fast engine, configs loaded; `in_one_pass` says that the fast engine could do
    without going event by event; `event` is None where the reference was not asked.
    """

    place: float
    lower: float
    fast: float
    simulate: float
    event: float | None
    cycles: int
    in_one_pass: bool


def decode_step(model: str = MODEL, array: str = "bus-tree-256") -> Situation:
    """The step that the targets speak of."""
    return Situation(load_model(model), load_array(array), Decode(1, CONTEXT_LEN), load_workflow(WORKFLOW))


def time_step(
    situation: Situation,
    repeats: int,
    event_repeats: int,
    limit: float = float("inf"),
    of_passes: Callable[[Iterable[float]], float] = statistics.median,
) -> StepTimes:
    """Of `repeats` passes, fewer once they took `limit` seconds, and the median of the event engine's runs.

    `of_passes` takes the times of a part and gives the one that counts.
    """
    _pass(situation)  # imports, and what NumPy sets up when it is first used
    gc.collect()
    passes = [_pass(situation)]
    while len(passes) < repeats and sum(sum(times) for times, _, _ in passes) < limit:
        passes.append(_pass(situation))
    parts = zip(*(times for times, _, _ in passes), strict=True)
    placing, lowering, running, whole = (of_passes(times) for times in parts)
    _, schedule, trace = passes[-1]
    event = _time_event(schedule, trace, event_repeats) if event_repeats else None
    return StepTimes(placing, lowering, running, whole, event, trace.makespan_cycles, not trace.notes)


def _pass(situation: Situation) -> tuple[tuple[float, float, float, float], Schedule, Trace]:
    """Place, lower, fast engine, then all of it again inside `simulate`."""
    model, array, step, workflow = situation.model, situation.array, situation.step, situation.workflow
    clear_caches()
    placing, placed = timed(lambda: place(model, array, step, workflow))
    lowering, schedule = timed(lambda: lower(placed))
    running, trace = timed(lambda: ENGINES["fast"](schedule))
    clear_caches()
    whole, _ = timed(lambda: simulate(model, array, step, workflow, allow_overflow=True))
    return (placing, lowering, running, whole), schedule, trace


def _time_event(schedule: Schedule, trace: Trace, repeats: int) -> float:
    seconds, reference = median_seconds(lambda: ENGINES["event"](schedule), repeats)
    if trace.makespan_cycles != reference.makespan_cycles:
        raise AssertionError("the engines disagree")
    return seconds


def time_again(situation: Situation) -> float:
    """The median of a `simulate` that was called before with the same arguments."""
    model, array, step, workflow = situation.model, situation.array, situation.step, situation.workflow
    seconds, _ = median_seconds(lambda: simulate(model, array, step, workflow), WARM_REPEATS)
    return seconds


def time_written_out(situation: Situation) -> float:
    """The median of the fast engine with every span and every use of a channel asked for."""
    schedule = lower(place(situation.model, situation.array, situation.step, situation.workflow))
    seconds, _ = median_seconds(lambda: tuple(ENGINES["fast"](schedule).spans), WARM_REPEATS)
    return seconds


def main() -> None:
    """Runs a command of pe-sim, report and all, and prints the peak memory of the process in bytes."""
    from pe_sim.cli.app import main as pe_sim

    try:
        with redirect_stdout(StringIO()):
            pe_sim()
    except SystemExit as done:
        if done.code:
            raise
    print(peak_bytes())


if __name__ == "__main__":
    main()
