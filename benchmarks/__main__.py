"""`python -m benchmarks`: measures everything in one run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measure import MIB, ROOT, process_seconds, run_python
from benchmarks.step import (
    CONTEXT_LEN,
    MODEL,
    WARM_REPEATS,
    WORKFLOW,
    design_points_per_second,
    generation_seconds,
    time_simulate,
    time_step,
)
from benchmarks.table import Row, describe_machine, format_table, make_page

PAGE = ROOT / "docs" / "performance.md"
STEP_REPEATS = 3
PROCESS_REPEATS = 5
POINTS = 100

# What the project promises of itself: seconds by array, MiB, points a second, event over fast.
EVENT_TARGETS = {"bus-tree-64": None, "bus-tree-256": 10.0, "bus-tree-1024": 45.0}
SIMULATE_TARGETS = {"bus-tree-1024": 0.005}
SPEEDUP_TARGETS = {"bus-tree-1024": 1000.0}
MODELS_TARGET, RUN_TARGET = 0.4, 0.8
RUN = ("run", MODEL, "--workflow", WORKFLOW, "--phase", "decode", "--context", str(CONTEXT_LEN))

NOTES = f"""\
The step is one decode step of {MODEL} at a context of {CONTEXT_LEN} under {WORKFLOW}, as in `make demo`, unless a row
says otherwise. Event engine: medians of {STEP_REPEATS}; everything warm: medians of {WARM_REPEATS} in the same process.
`simulate` is the whole call with the fast engine, from configs to report. Peak memory is of a fresh process that does
one step; whole processes are medians of {PROCESS_REPEATS}, the interpreter's start and all imports included.

## What a step costs

- Place and lower: a block is placed and lowered once for each distinct plan and entry placement, so a step of 32 layers
  costs four blocks; arrays that differ only in memories, units or clock share their placed graph. Within a block every
  stage is a few operations on arrays of N.
- Fast engine: each block is passed over once for each distinct state of the machine at its entry, counted from the
  entry; the third layer usually meets the state of the second, and every further layer is one look-up. Groups of PEs
  whose messages overtake one another on the bus, and bursts, go event by event, and the report says so.
- Event engine: one SimPy event for each operator of each PE, and a few for each message.
- A generation simulates every decode step on its own; nothing is carried over from one context length to the next.

## What was tried and dropped

- `numpy.unique` over rows to find PEs with equal work: the sort cost more than the arithmetic it saved.
- Integer division by the widths: ten times slower than the shift it is for powers of two, which `ceil_div` takes.
- One request a message for collectives that send many: a sender's messages now wait as one train, five times faster
  for an all-to-all and a third of the memory.
"""


def measure() -> Iterator[Row]:
    """Every row, as soon as it is there."""
    for array, target in EVENT_TARGETS.items():
        times = time_step(array, STEP_REPEATS)
        yield Row(f"{array}: place and lower", times.place_and_lower, "s")
        yield Row(f"{array}: event engine, {times.cycles:,} cycles", times.event, "s", target)
        yield Row(f"{array}: fast engine, the same cycles", times.fast, "s")
        yield Row(f"{array}: `simulate`, warm", times.simulate, "s", SIMULATE_TARGETS.get(array))
        ratio = times.event / times.fast
        yield Row(f"{array}: event engine / fast engine", ratio, "x", SPEEDUP_TARGETS.get(array), at_least=True)
    seconds = time_simulate("llama-3-70b", "bus-tree-4096", WORKFLOW)
    yield Row("llama-3-70b on bus-tree-4096: `simulate`, warm", seconds, "s", 0.010)
    for engine, model, array, target in (
        ("event", MODEL, "bus-tree-1024", 1024.0),
        ("fast", "llama-3-70b", "bus-tree-4096", 200.0),
    ):
        peak = int(run_python("-m", "benchmarks.step", engine, model, array)) / MIB
        yield Row(f"{model} on {array}, {engine} engine: peak memory", peak, "MiB", target)
    yield Row("different arrays on bus-tree-256", design_points_per_second(POINTS), "/s", 300.0, at_least=True)
    yield Row("llama-3-70b on bus-tree-4096: 2048 + 2048 tokens", generation_seconds(2048, 2048), "s", 1.0)
    yield Row("`pe-sim models`, whole process", process_seconds(("models",), PROCESS_REPEATS), "s", MODELS_TARGET)
    for array in EVENT_TARGETS:
        command = (*RUN, "--array", array)
        yield Row(f"`pe-sim run` on {array}, whole process", process_seconds(command, PROCESS_REPEATS), "s", RUN_TARGET)


def main() -> None:
    """Prints the table, and writes the page unless asked not to."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--output", type=Path, default=PAGE, help="the page to write (default: docs/performance.md)")
    parser.add_argument("--no-output", action="store_true", help="only print")
    options = parser.parse_args()
    machine = describe_machine()
    print(*machine, sep="\n")
    rows = []
    for row in measure():
        print(f"  {row.what}: {row.value:.3g} {row.unit}", file=sys.stderr, flush=True)
        rows.append(row)
    print(format_table(rows), end="")
    if not options.no_output:
        options.output.write_text(make_page(machine, rows, NOTES), encoding="utf-8")
        print(f"wrote {options.output.relative_to(ROOT) if options.output.is_relative_to(ROOT) else options.output}")


if __name__ == "__main__":
    main()
