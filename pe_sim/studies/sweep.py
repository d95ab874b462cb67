"""`pe_sim.sweep`: takes a sweep and a folder, gives the table of all its points."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pe_sim._version import __version__
from pe_sim.errors import InputError, did_you_mean
from pe_sim.notebook import card, frame_table
from pe_sim.studies.grid import ASK_ABOVE, SCHEMA, Sweep, load_sweep
from pe_sim.studies.resolve import Resolver, check_sweep
from pe_sim.studies.run import Runner
from pe_sim.studies.store import CONFIGS, Store, open_store
from pe_sim.studies.table import CONFIGS as CONFIG_NAMES
from pe_sim.studies.table import Keys
from pe_sim.studies.workers import Done, Workers, workers_for
from pe_sim.units import IntArray

if TYPE_CHECKING:
    from pandas import DataFrame

    from pe_sim.report.plots.studies import Axes

_SHOWN: Final = ("cycles", "tokens_per_second", "utilization.bus", "joules_per_token")  # of a table's figures
_NOTEBOOK_ROWS: Final = 12


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a sweep is: the numbers of points done (reused ones included), failed, and in all; and a note."""

    done: int
    failed: int
    total: int
    note: str = ""


@dataclass(frozen=True, slots=True)
class SweepResult:
    """A finished sweep; the rows are in its folder and are read when asked for.

    Args:
        name: name of the sweep.
        folder: the folder with all its files.
        num_points: number of rows of the table.
        num_failed: number of rows with an error.
        num_reused: number of rows that were there already.
        errors: (first line, count) of each error, the most frequent first.
        set_aside: row files that could not be read; their points were computed again.
    """

    name: str
    folder: Path
    num_points: int
    num_failed: int
    num_reused: int
    errors: tuple[tuple[str, int], ...]
    set_aside: tuple[Path, ...]

    @property
    def path(self) -> Path:
        """Path of the table, a Parquet file."""
        return self.folder / "results.parquet"

    def to_frame(self) -> DataFrame:
        """The table as a pandas.DataFrame, with a row for each point in the order of the points.

        Whole numbers stay whole even where a failed point has none: such columns are of pandas' Int64.
        """
        from pandas import Int64Dtype  # heavy, and only needed here

        table = pq.read_table(self.path)
        frame: DataFrame = table.to_pandas()
        for name in (field.name for field in table.schema if field.type == pa.int64()):
            if table.column(name).null_count:
                frame[name] = table.column(name).to_pandas(types_mapper={pa.int64(): Int64Dtype()}.get)
        return frame

    def plot(self, x: str, y: str = "tokens_per_second", by: str | None = None, ax: Axes | None = None) -> Axes:
        """Draws column `y` of the table against column `x`, a line for each value of `by`; returns the axes.

        Points that failed are left out.

        Args:
            ax: where to draw; None: in a new figure.

        Raises:
            InputError: there is no such column, it has no numbers, or lines have several values at one x.
        """
        from pe_sim.report.plots.studies import plot_lines

        return plot_lines(self.to_frame(), x, y, by, ax)

    def config(self, key: str) -> dict[str, Any]:
        """The resolved config behind a row: model, array, step and workflow, as in a report's JSON.

        Raises:
            InputError: no row has this key.
        """
        rows = pq.read_table(self.folder / CONFIGS, filters=[("key", "=", key)]).to_pylist()
        if not rows:
            known = pq.read_table(self.path, columns=["key"]).column("key").to_pylist()
            raise InputError(
                "no row has this key", source=str(self.path), given=key, hint=did_you_mean(key, known[:1000])
            )
        return {name: json.loads(rows[0][name]) for name in CONFIG_NAMES if rows[0][name] is not None}

    def to_dict(self) -> dict[str, Any]:
        """The summary as a JSON-ready dict; the rows are in the table."""
        return {
            "schema": SCHEMA,
            "pe_sim_version": __version__,
            "name": self.name,
            "points": self.num_points,
            "failed": self.num_failed,
            "reused": self.num_reused,
            "errors": [{"error": error, "points": count} for error, count in self.errors],
            "results": str(self.path),
            "configs": str(self.folder / CONFIGS),
            "set_aside": [str(path) for path in self.set_aside],
        }

    def __str__(self) -> str:
        """One line: the numbers of points, of failed and of reused ones."""
        noun = "point" if self.num_points == 1 else "points"
        return f"{self.num_points:,} {noun}, {self.num_failed:,} failed, {self.num_reused:,} reused"

    def _repr_html_(self) -> str:
        """HTML for a notebook: the summary, and the first rows with differing settings and main figures."""
        frame = self.to_frame()
        frame = frame.loc[:, [*_varying(frame), *_SHOWN]]
        words = sum(kind.kind not in "iuf" for kind in frame.dtypes)
        frame = frame.iloc[:, sorted(range(len(frame.columns)), key=lambda at: frame.dtypes.iloc[at].kind in "iuf")]
        notes = [f"{count:,} failed: {error}" for error, count in self.errors]
        table = frame_table(frame, text_columns=words, most=_NOTEBOOK_ROWS)
        return card(f"{self.name}: {self}", tables=[table], notes=notes)


def sweep(
    sweep: str | Path | Mapping[str, Any],
    out: str | Path,
    *,
    jobs: int | None = None,
    backend: str = "process",
    scheduler: str | None = None,
    resume: bool = False,
    yes: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> SweepResult:
    """Simulates every point of a sweep and writes a table with a row for each.

    Args:
        sweep: a sweep's file (docs/sweeps.md), or its mapping.
        out: the folder for table, configs and rows; made if it is not there.
        jobs: processes; None: as many as this process may use cores.
        backend: "process": on this machine; "dask": on a Dask cluster.
        scheduler: the address of the cluster's scheduler; None: a cluster of `jobs` workers on this machine.
        resume: continue the sweep in the folder, without computing any point again.
        yes: allow more than 10^6 points.
        progress: called whenever points are done.

    Raises:
        InputError: the sweep or the folder cannot be used. A point that fails is a row with its error.
    """
    chosen = load_sweep(sweep)
    if len(chosen) > ASK_ABOVE and not yes:
        raise InputError(
            f"{len(chosen):,} points are many: {_factors(chosen)}",
            source=chosen.source,
            expected=f"at most {ASK_ABOVE:,}",
            hint="--yes (in Python: yes=True) simulates them all the same",
        )
    check_sweep(chosen, Resolver(chosen.folder))
    folder = Path(out)
    workers = workers_for(backend, jobs, scheduler, len(chosen))
    try:
        with open_store(folder, chosen, resume=resume) as store:
            return _Run(chosen, store, workers, progress or _silent).run()
    finally:
        workers.close()


class _Run:
    """One run of a sweep."""

    def __init__(self, sweep: Sweep, store: Store, workers: Workers, progress: Callable[[Progress], None]) -> None:
        self._sweep, self._store, self._progress = sweep, store, progress
        self._keys: Keys = np.zeros(len(sweep), dtype="S32")
        self._done = self._failed = 0
        self._runner = Runner(sweep, uuid.uuid4().hex, workers, self._take, self._tell)

    def run(self) -> SweepResult:
        order = self._sweep.in_good_order()
        finished = self._store.finished()
        self._tell("")
        if finished:
            self._tell("looking up which points are done")
            self._runner.run(order, keys_only=True)
            known = np.isin(self._keys, np.array(sorted(finished), dtype="S32"))
            order = order[~known[order]]
        reused = self._done = len(self._sweep) - len(order)
        self._tell("")
        self._runner.run(order)
        self._store.merge(self._sweep, self._keys)
        return self._result(reused)

    def _take(self, points: IntArray, done: Done) -> None:
        self._keys[points] = [key.encode() for key in done.keys]
        if done.rows is not None:
            self._store.add(done.rows)
            self._done += len(points)
            self._failed += done.failed
            self._tell("")

    def _tell(self, note: str) -> None:
        self._progress(Progress(self._done, self._failed, len(self._sweep), note))

    def _result(self, reused: int) -> SweepResult:
        errors = pq.read_table(self._store.results, columns=["error"]).column("error").drop_null().to_pylist()
        counted = Counter(error.splitlines()[0] for error in errors)
        return SweepResult(
            self._sweep.name,
            self._store.folder,
            len(self._sweep),
            len(errors),
            reused,
            tuple(counted.most_common()),
            tuple(self._store.set_aside),
        )


def _varying(frame: DataFrame) -> list[str]:
    """The columns of settings in which the points differ."""
    settings = frame.columns[: frame.columns.get_loc("cycles")].drop(["key", "point"])
    return [name for name in settings if frame[name].nunique(dropna=False) > 1]


def _factors(sweep: Sweep) -> str:
    return " x ".join(f"{len(axis.choices):,} of {axis.name}" for axis in sweep.axes)


def _silent(progress: Progress) -> None:
    """Ignores all progress."""
