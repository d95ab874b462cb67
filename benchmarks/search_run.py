"""One search in a process of its own: prints the seconds from the call to the result, everything else loaded before.

`python -m benchmarks.search_run MODEL ARRAY`
"""

from __future__ import annotations

import sys
import time

import pe_sim as ps
from benchmarks.measure import run_python
from benchmarks.step import CONTEXT_LEN


def search_seconds(model: str, array: str, repeats: int) -> float:
    """The median over as many processes."""
    seconds = sorted(float(run_python("-m", "benchmarks.search_run", model, array)) for _ in range(repeats))
    return seconds[repeats // 2]


def main() -> None:
    """The command."""
    model, array = ps.load_model(sys.argv[1]), ps.load_array(sys.argv[2])
    step = ps.Decode(1, CONTEXT_LEN)
    begun = time.perf_counter()
    ps.search(model, array, step)
    print(time.perf_counter() - begun)


if __name__ == "__main__":
    main()
