"""What a worker does: takes some points, gives their keys and rows. It reads configs and writes nothing."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pyarrow as pa

from pe_sim._version import __version__
from pe_sim.studies.grid import Settings
from pe_sim.studies.resolve import Resolver
from pe_sim.studies.rows import Row, key_of, row_of
from pe_sim.studies.table import rows_to_table


@dataclass(frozen=True, slots=True)
class Task:
    """Points for a worker.

    Args:
        run: of the sweep's own; what a worker keeps for one run is not used for another.
        folder: where files are looked up; None: where the process stands.
        points: their settings.
        keys_only: whether only the keys are asked for.
    """

    run: str
    folder: Path | None
    points: tuple[Settings, ...]
    keys_only: bool = False


@dataclass(frozen=True, slots=True)
class Done:
    """What a worker gives back.

    Args:
        version: of pe-sim there.
        keys: of the points, in their order.
        rows: in the same order; None where only the keys were asked for.
        failed: how many rows have an error.
        seconds: what it took.
    """

    version: str
    keys: tuple[str, ...]
    rows: pa.Table | None
    failed: int
    seconds: float


def work(task: Task) -> Done:
    """Simulates the points of a task, or works out their keys."""
    start = time.perf_counter()
    resolver = _resolver(task.run, task.folder)
    if task.keys_only:
        keys = tuple(key_of(settings, resolver) for settings in task.points)
        return Done(__version__, keys, None, 0, time.perf_counter() - start)
    return done_of([row_of(settings, resolver) for settings in task.points], start)


def done_of(rows: list[Row], start: float) -> Done:
    """Rows as they are given back; `start` is when they were begun, of time.perf_counter."""
    failed = sum(row.error is not None for row in rows)
    keys = tuple(row.key for row in rows)
    return Done(__version__, keys, rows_to_table(rows), failed, time.perf_counter() - start)


@lru_cache(maxsize=1)
def _resolver(run: str, folder: Path | None) -> Resolver:
    return Resolver(folder)
