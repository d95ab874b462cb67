"""One decode step, stage by stage: the step that the targets speak of. As a program it prints its peak memory."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from benchmarks.measure import median_seconds, peak_bytes
from pe_sim.api import ENGINES, load_array, load_model, load_workflow
from pe_sim.config.step import Decode
from pe_sim.mapping.mapper import place
from pe_sim.schedule.lowering import lower

MODEL = "llama-2-7b"
WORKFLOW = "workflow-1"
CONTEXT_LEN = 2048
ENGINE = "event"


@dataclass(frozen=True, slots=True)
class StepTimes:
    """Wall times of the stages of one step, in seconds, and the cycles it takes."""

    place_and_lower: float
    engine: float
    cycles: int


def time_step(array_name: str, repeats: int) -> StepTimes:
    """The medians of `repeats` runs of the step on a preset array."""
    model, array, workflow = load_model(MODEL), load_array(array_name), load_workflow(WORKFLOW)
    step, run = Decode(1, CONTEXT_LEN), ENGINES[ENGINE]
    lowering, schedule = median_seconds(lambda: lower(place(model, array, step, workflow)), repeats)
    running, trace = median_seconds(lambda: run(schedule), repeats)
    return StepTimes(lowering, running, trace.makespan_cycles)


def main() -> None:
    """Runs the step once on the array that is named, and prints the process's peak memory in bytes."""
    time_step(sys.argv[1], 1)
    print(peak_bytes())


if __name__ == "__main__":
    main()
