"""Whole sweeps, from the YAML file to the table: what they take with one process and with two, and their memory.

`python -m benchmarks.sweep_runs FILE JOBS` does one in a process of its own, and prints its peak bytes.
"""

from __future__ import annotations

import resource
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measure import MIB, ROOT, peak_bytes, run_python, timed
from benchmarks.table import Row
from pe_sim.studies.grid import load_sweep
from pe_sim.studies.sweep import sweep

WHOLE = ROOT / "experiments" / "sweeps" / "decode-7b.yaml"
ONE_CONTEXT = (2048,)  # a fifth of the points: memory has to stay where it was
SECONDS_TARGET, SPEEDUP_TARGET = 60.0, 1.7


def sweep_rows() -> Iterator[Row]:
    """The sweep of 10,000 points with two processes and with one, and what a fifth of it needs."""
    whole = load_sweep(WHOLE)
    name = f"sweep of {len(whole):,} points, {whole.name}"
    two, peak = _seconds_and_peak(WHOLE, 2)
    one, _ = _seconds_and_peak(WHOLE, 1)
    yield Row(f"{name}: `--jobs 2`, whole process", two, "s", SECONDS_TARGET)
    yield Row(f"{name}: `--jobs 1`, whole process", one, "s")
    yield Row(f"{name}: `--jobs 1` / `--jobs 2`", one / two, "x", SPEEDUP_TARGET, at_least=True)
    yield Row(f"{name}: peak memory of its largest process", peak / MIB, "MiB")
    with tempfile.TemporaryDirectory() as folder:
        part = Path(folder) / "part.yaml"
        part.write_text(with_one_context(WHOLE.read_text(encoding="utf-8")), encoding="utf-8")
        points = len(load_sweep(part))
        _, peak = _seconds_and_peak(part, 2)
    yield Row(f"the same of {points:,} points: peak memory of its largest process", peak / MIB, "MiB")


def with_one_context(text: str) -> str:
    """A sweep's file with one context in the place of its own."""
    lines = text.splitlines(keepends=True)
    return "".join(f"  context: {list(ONE_CONTEXT)}\n" if "context:" in line else line for line in lines)


def _seconds_and_peak(path: Path, jobs: int) -> tuple[float, int]:
    seconds, peak = timed(lambda: run_python("-m", "benchmarks.sweep_runs", str(path), str(jobs)))
    return seconds, int(peak)


def main(path: str, jobs: str) -> None:
    """Does one sweep, and prints the most memory that one of its processes ever had."""
    with tempfile.TemporaryDirectory() as folder:
        result = sweep(path, Path(folder) / "out", jobs=int(jobs))
    if result.num_failed:
        raise SystemExit(f"{result}: {result.errors}")
    of_workers = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(max(peak_bytes(), of_workers if int(jobs) > 1 else 0))


if __name__ == "__main__":
    main(*sys.argv[1:])
