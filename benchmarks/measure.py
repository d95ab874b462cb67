"""Stop-watches: take a call or a command, give the median of several wall times, or a peak of memory."""

from __future__ import annotations

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

_T = TypeVar("_T")


def median_seconds(call: Callable[[], _T], repeats: int) -> tuple[float, _T]:
    """The median wall time of `repeats` calls, and what the last of them gave."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = call()
        times.append(time.perf_counter() - start)
    return statistics.median(times), result


def run_python(*arguments: str) -> str:
    """What a fresh Python process prints."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = (sys.executable, *arguments)
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout


def process_seconds(arguments: Sequence[str], repeats: int) -> float:
    """The median wall time of whole `pe-sim` processes."""
    seconds, _ = median_seconds(lambda: run_python("-m", "pe_sim", *arguments), repeats)
    return seconds


def peak_bytes() -> int:
    """The most memory this process ever had resident."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
