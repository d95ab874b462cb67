"""Several arrays: a decode step of a large model on 64 of them; and the search of its plan, in a process of its own.

`python -m benchmarks.systems` prints the seconds of the search, everything else loaded before.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pe_sim as ps
from benchmarks.measure import clear_caches, median_seconds, run_python
from benchmarks.step import CONTEXT_LEN
from benchmarks.table import Row
from pe_sim.config.plans.plan import ParallelPlan
from pe_sim.config.systems.load import load_system
from pe_sim.mapping.workflow import load_workflow
from pe_sim.systems.simulation import run_system

MODEL, SYSTEM, WORKFLOW = "llama-3.1-405b", "switch-of-64-bus-tree-1024", "workflow-2"
BATCH = 8
PLAN = ParallelPlan(tp=8, pp=8)
STEP_TARGET, SEARCH_TARGET = 1.0, 60.0  # seconds
REPEATS = 5


def system_rows() -> Iterator[Row]:
    """A row for the step from empty caches, one for the same asked again, and one for the search."""
    model, system, workflow = ps.load_model(MODEL), load_system(SYSTEM), load_workflow(WORKFLOW)

    def step() -> int:
        done = run_system(model, system, ps.Decode(BATCH, CONTEXT_LEN), PLAN, workflow, "fast")
        return done.times.makespan_cycles

    what = f"{MODEL} on {SYSTEM}, tp {PLAN.tp} x pp {PLAN.pp}, batch {BATCH}"
    step()  # imports, and what NumPy sets up when it is first used
    seconds, cycles = median_seconds(step, REPEATS, before=clear_caches)
    yield Row(f"{what}: a decode step, {cycles:,} cycles, caches empty", seconds, "s", STEP_TARGET)
    seconds, _ = median_seconds(step, REPEATS)
    yield Row(f"{what}: asked again", seconds, "s", STEP_TARGET)
    seconds = float(run_python("-m", "benchmarks.systems"))
    yield Row(f"{MODEL} on {SYSTEM}, batch {BATCH}: `search_system`, caches empty", seconds, "s", SEARCH_TARGET)


def main() -> None:
    """The command."""
    from pe_sim.systems.search.search import search_system

    model, system = ps.load_model(MODEL), load_system(SYSTEM)
    begun = time.perf_counter()
    search_system(model, system, ps.Decode(BATCH, CONTEXT_LEN))
    print(time.perf_counter() - begun)


if __name__ == "__main__":
    main()
