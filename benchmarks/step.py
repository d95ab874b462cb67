"""One decode step under each engine: the step that the targets speak of. As a program it prints its peak memory."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from benchmarks.measure import median_seconds, peak_bytes
from pe_sim.api import ENGINES, generate, load_array, load_model, load_workflow, simulate
from pe_sim.config.step import Decode
from pe_sim.mapping.mapper import place
from pe_sim.schedule.lowering import lower

MODEL = "llama-2-7b"
WORKFLOW = "workflow-1"
CONTEXT_LEN = 2048
WARM_REPEATS = 25


@dataclass(frozen=True, slots=True)
class StepTimes:
    """Wall times of one step, in seconds, and the cycles it takes.

    `simulate` is the whole call with the fast engine, configs loaded: graph, placement, lowering, engine and report.
    """

    place_and_lower: float
    event: float
    fast: float
    simulate: float
    cycles: int


def time_step(array_name: str, repeats: int) -> StepTimes:
    """The medians of `repeats` runs of the reference, and of more of the fast engine, in turn in one process."""
    model, array, workflow = load_model(MODEL), load_array(array_name), load_workflow(WORKFLOW)
    step = Decode(1, CONTEXT_LEN)
    lowering, schedule = median_seconds(lambda: lower(place(model, array, step, workflow)), WARM_REPEATS)
    event, reference = median_seconds(lambda: ENGINES["event"](schedule), repeats)
    fast, trace = median_seconds(lambda: ENGINES["fast"](schedule), WARM_REPEATS)
    whole, _ = median_seconds(lambda: simulate(model, array, step, workflow), WARM_REPEATS)
    if trace.makespan_cycles != reference.makespan_cycles:
        raise AssertionError("the engines disagree")
    return StepTimes(lowering, event, fast, whole, trace.makespan_cycles)


def time_simulate(model_name: str, array_name: str, workflow: str) -> float:
    """The median of a warm `simulate` of one decode step, in seconds."""
    model, array = load_model(model_name), load_array(array_name)
    seconds, _ = median_seconds(lambda: simulate(model, array, Decode(1, CONTEXT_LEN), workflow), WARM_REPEATS)
    return seconds


def design_points_per_second(count: int) -> float:
    """Different arrays a second, each loaded, placed, lowered and simulated."""

    def sweep() -> None:
        for width in range(count):
            array = load_array("bus-tree-256", {"network.bus.bytes_per_cycle": 32 + width})
            simulate(MODEL, array, Decode(1, CONTEXT_LEN), WORKFLOW)

    seconds, _ = median_seconds(sweep, 3)
    return count / seconds


def generation_seconds(prompt_len: int, output_len: int) -> float:
    """One generation of llama-3-70b on 4096 PEs."""
    model, array = load_model("llama-3-70b"), load_array("bus-tree-4096")
    seconds, _ = median_seconds(lambda: generate(model, array, prompt_len, output_len, workflow="workflow-2"), 1)
    return seconds


def main() -> None:
    """Runs a step once, and prints the process's peak memory in bytes: ENGINE MODEL ARRAY."""
    engine, model, array = sys.argv[1:]
    simulate(model, array, Decode(1, CONTEXT_LEN), WORKFLOW, engine)
    print(peak_bytes())


if __name__ == "__main__":
    main()
