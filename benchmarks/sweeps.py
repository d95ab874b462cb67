"""Many steps: design points a second, and whole generations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.measure import clear_caches, median_seconds
from benchmarks.step import CONTEXT_LEN, MODEL, WORKFLOW
from pe_sim.api import generate, load_array, load_model, load_workflow, simulate
from pe_sim.config.step import Decode

SWEEP_ARRAY = "bus-tree-256"
GENERATION_MODEL, GENERATION_ARRAY = "llama-3-70b", "bus-tree-4096"
GENERATION_WORKFLOWS = ("workflow-1", "workflow-2", "megatron")
PROMPT_LEN = 2048
SWEEP_REPEATS = 5
GENERATION_LIMIT = 2.0  # seconds

# What a sweep changes: every point is another array, that is loaded, placed where it has to be, lowered and simulated.
Changes = Callable[[int], Mapping[str, Any]]
SWEEPS: dict[str, tuple[Changes, Sequence[int]]] = {
    "bus width": (lambda width: {"network.bus.bytes_per_cycle": width}, range(32, 132)),
    "PE memory rate": (lambda rate: {"pe.memory.bytes_per_cycle": rate}, range(32, 132)),
    "number of PEs": (lambda num_pes: {"num_pes": num_pes}, range(192, 321)),
}


def design_points_per_second(changes: Changes, values: Sequence[int]) -> float:
    """Different arrays a second; the sweep starts with empty caches and may fill them."""

    def sweep() -> None:
        for value in values:
            simulate(MODEL, load_array(SWEEP_ARRAY, dict(changes(value))), Decode(1, CONTEXT_LEN), WORKFLOW)

    seconds, _ = median_seconds(sweep, SWEEP_REPEATS, before=clear_caches)
    return len(values) / seconds


def generation_seconds(workflow: str, output_len: int) -> float:
    """One generation after a prompt of `PROMPT_LEN`, configs loaded and caches empty."""
    model, array, plan = load_model(GENERATION_MODEL), load_array(GENERATION_ARRAY), load_workflow(workflow)

    def run() -> object:
        return generate(model, array, PROMPT_LEN, output_len, workflow=plan)

    seconds, _ = median_seconds(run, SWEEP_REPEATS, before=clear_caches, limit=GENERATION_LIMIT)
    return seconds
