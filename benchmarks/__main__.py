"""`python -m benchmarks`: measures everything in one run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measure import MIB, ROOT, process_seconds, run_python
from benchmarks.step import CONTEXT_LEN, ENGINE, MODEL, WORKFLOW, time_step
from benchmarks.table import Row, describe_machine, format_table, make_page

PAGE = ROOT / "docs" / "performance.md"
STEP_REPEATS = 3
PROCESS_REPEATS = 5

# Seconds of the engine by array; what the project promises of itself.
ENGINE_TARGETS = {"bus-tree-64": None, "bus-tree-256": 10.0, "bus-tree-1024": 45.0}
MEMORY_ARRAY, MEMORY_TARGET_MIB = "bus-tree-1024", 1024.0
MODELS_TARGET = 0.4
RUN = ("run", MODEL, "--workflow", WORKFLOW, "--phase", "decode", "--context", str(CONTEXT_LEN), "--engine", ENGINE)

NOTES = f"""\
The step is one decode step of {MODEL} at a context of {CONTEXT_LEN} under {WORKFLOW}, as in `make demo`. Engine and
"place and lower" are wall times inside a running process, medians of {STEP_REPEATS}; peak memory is of a fresh process
that does one step; whole processes are medians of {PROCESS_REPEATS}, the interpreter's start and all imports included.
"""


def measure() -> Iterator[Row]:
    """Every row, as soon as it is there."""
    for array, target in ENGINE_TARGETS.items():
        times = time_step(array, STEP_REPEATS)
        yield Row(f"{array}: place and lower", times.place_and_lower, "s")
        yield Row(f"{array}: {ENGINE} engine, {times.cycles:,} cycles", times.engine, "s", target)
    peak = int(run_python("-m", "benchmarks.step", MEMORY_ARRAY)) / MIB
    yield Row(f"{MEMORY_ARRAY}: peak memory of the process", peak, "MiB", MEMORY_TARGET_MIB)
    yield Row("`pe-sim models`, whole process", process_seconds(("models",), PROCESS_REPEATS), "s", MODELS_TARGET)
    for array, target in ENGINE_TARGETS.items():
        command = (*RUN, "--array", array)
        yield Row(f"`pe-sim run` on {array}, whole process", process_seconds(command, PROCESS_REPEATS), "s", target)


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
