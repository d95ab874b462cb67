"""Stop-watches: take a call or a command, give the median of several wall times, or a peak of memory."""

from __future__ import annotations

import gc
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

ROOT = Path(__file__).resolve().parents[1]
MIB = 2**20
_CONFIGS = "pe_sim.config"  # their caches stay: reading a preset is no part of a step

_T = TypeVar("_T")


def timed(call: Callable[[], _T]) -> tuple[float, _T]:
    """The wall time of one call, and what it gave."""
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def median_seconds(
    call: Callable[[], _T], repeats: int, before: Callable[[], object] | None = None, limit: float = float("inf")
) -> tuple[float, _T]:
    """The median wall time of `repeats` calls, fewer once they took `limit` seconds; and what the last of them gave.

    What is done `before` each call is not timed.
    """
    gc.collect()  # the garbage of what ran earlier would fall due during any of the calls
    times: list[float] = []
    while not times or (len(times) < repeats and sum(times) < limit):
        if before:
            before()
        seconds, result = timed(call)
        times.append(seconds)
    return statistics.median(times), result


def clear_caches() -> None:
    """Empties every function cache of pe_sim but those of the configs."""
    for name, module in list(sys.modules.items()):
        if name.startswith("pe_sim.") and not name.startswith(_CONFIGS):
            for entry in list(vars(module).values()):
                if callable(clear := getattr(entry, "cache_clear", None)):
                    clear()


def run_python(*arguments: str) -> str:
    """What a fresh Python process prints."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = (sys.executable, *arguments)
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout


def process_mib(arguments: Sequence[str]) -> float:
    """The most memory, in MiB, that a `pe-sim` process with these arguments has resident."""
    return int(run_python("-m", "benchmarks.step", *arguments)) / MIB


def process_seconds(arguments: Sequence[str], repeats: int) -> float:
    """The median wall time of whole `pe-sim` processes."""
    seconds, _ = median_seconds(lambda: run_python("-m", "pe_sim", *arguments), repeats)
    return seconds


def peak_bytes() -> int:
    """The most memory this process ever had resident."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux hands `ru_maxrss` on to a process from the one that started it, which may be larger
        (line,) = (line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
