"""Workers: takes tasks, gives futures. This process, processes of this machine (joblib's), or a Dask cluster.

All three do the same work in the same code; which of them did it cannot be seen in a row.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, CancelledError, Future
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Protocol

import pyarrow as pa
from joblib import cpu_count
from joblib.externals.loky.process_executor import ProcessPoolExecutor

from pe_sim._version import __version__
from pe_sim.errors import InputError, did_you_mean
from pe_sim.studies.grid import Settings
from pe_sim.studies.resolve import Resolver
from pe_sim.studies.rows import Row, key_of, row_of
from pe_sim.studies.table import rows_to_table

# ---- What a worker does: takes some points, gives their keys and rows. It reads configs and writes nothing.


@dataclass(frozen=True, slots=True)
class Task:
    """A task for a worker: some points of a sweep.

    Args:
        run: name of the run; what a worker keeps for one run is not used for another.
        folder: where files are looked up; None: the working directory of the worker.
        points: settings of each point.
        keys_only: whether only the keys are asked for.
    """

    run: str
    folder: Path | None
    points: tuple[Settings, ...]
    keys_only: bool = False


@dataclass(frozen=True, slots=True)
class Done:
    """The result of a task.

    Args:
        version: version of pe-sim at the worker.
        keys: keys of the points, in their order.
        rows: rows in the same order; None if only the keys were asked for.
        failed: number of rows with an error.
        seconds: time that the task took.
    """

    version: str
    keys: tuple[str, ...]
    rows: pa.Table | None
    failed: int
    seconds: float


def work(task: Task) -> Done:
    """The result of a task: its points are simulated, or only their keys worked out."""
    start = time.perf_counter()
    resolver = _resolver(task.run, task.folder)
    if task.keys_only:
        keys = tuple(key_of(settings, resolver) for settings in task.points)
        return Done(__version__, keys, None, 0, time.perf_counter() - start)
    return done_of([row_of(settings, resolver) for settings in task.points], start)


def done_of(rows: list[Row], start: float) -> Done:
    """Rows as the result of a task that began at `start` (of time.perf_counter)."""
    failed = sum(row.error is not None for row in rows)
    keys = tuple(row.key for row in rows)
    return Done(__version__, keys, rows_to_table(rows), failed, time.perf_counter() - start)


@lru_cache(maxsize=1)
def _resolver(run: str, folder: Path | None) -> Resolver:
    return Resolver(folder)


Work = Callable[[Task], Done]
BACKENDS: Final = ("process", "dask")
MAX_JOBS: Final = 1024
_ORPHAN_SECONDS: Final = 1.0
_CONNECT_SECONDS: Final = 10.0


class Workers(Protocol):
    """The interface of workers, which take tasks."""

    @property
    def ahead(self) -> int:
        """Number of tasks that the workers should have at a time, so that none of them waits."""
        ...

    def submit(self, work: Work, task: Task) -> Future[Done]:
        """Gives the workers a task; the future raises an exception if its worker died."""
        ...

    def is_death(self, error: BaseException) -> bool:
        """Whether this exception means that a worker died over its task."""
        ...

    def renew(self) -> None:
        """Replaces workers that died."""
        ...

    def trouble(self) -> str:
        """Why nothing may be coming back, in words; empty if no reason is known."""
        ...

    def close(self) -> None:
        """Ends the workers, whatever they are doing."""
        ...


class Here:
    """This process as the only worker, one task after the other."""

    ahead = 1

    def submit(self, work: Work, task: Task) -> Future[Done]:
        """Does the task at once; returns a finished future."""
        future: Future[Done] = Future()
        future.set_result(work(task))
        return future

    def is_death(self, error: BaseException) -> bool:
        """False: if this process died, nobody would be left to ask."""
        return False

    def renew(self) -> None:
        """Does nothing: there is nothing to replace."""

    def trouble(self) -> str:
        """Empty: no trouble is ever known."""
        return ""

    def close(self) -> None:
        """Does nothing: there is nothing to end."""


class Processes:
    """Processes of this machine as workers, by joblib."""

    def __init__(self, jobs: int) -> None:
        """Takes `jobs` processes, which start when the first task comes."""
        self._jobs = jobs
        self._pool = self._new_pool()
        self._broken = False

    @property
    def ahead(self) -> int:
        """Two tasks for each process: one that is worked on, one that waits."""
        return 2 * self._jobs

    def submit(self, work: Work, task: Task) -> Future[Done]:
        """Queues a task; if the processes are broken, the future raises the error."""
        try:
            future: Future[Done] = self._pool.submit(work, task)
        except BrokenExecutor as error:
            future = Future()
            future.set_exception(error)
        return future

    def is_death(self, error: BaseException) -> bool:
        """Whether the pool is broken: when one process dies, the tasks of all others end too."""
        self._broken = self._broken or isinstance(error, BrokenExecutor)
        return isinstance(error, BrokenExecutor)

    def renew(self) -> None:
        """Starts new processes if the present ones are broken."""
        if self._broken:
            self.close()
            self._pool = self._new_pool()
            self._broken = False

    def trouble(self) -> str:
        """Empty: a process that dies is noticed at once."""
        return ""

    def close(self) -> None:
        """Ends the processes, whether at work or not."""
        self._pool.shutdown(wait=True, kill_workers=True)

    def _new_pool(self) -> Any:
        return ProcessPoolExecutor(max_workers=self._jobs, initializer=_begin_process, initargs=(os.getpid(),))


def _begin_process(parent: int) -> None:
    """Prepares a worker process: it ignores Ctrl-C, which the parent handles, and ends when the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_ORPHAN_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class Dask:
    """Workers of a Dask cluster, which may be started here."""

    def __init__(self, scheduler: str | None, jobs: int) -> None:
        """Connects to a scheduler; without one, starts a scheduler and `jobs` workers on this machine.

        Raises:
            InputError: Dask is not installed, or nobody answers.
        """
        distributed = _import_distributed()
        self._cluster: Any = None
        if scheduler is None:
            self._cluster = _local_cluster(distributed, jobs)
            scheduler = str(self._cluster.scheduler_address)
        self._address = scheduler
        self._client = _connect(distributed, self._cluster or self._address, self._address)
        self._killed = distributed.KilledWorker

    @property
    def ahead(self) -> int:
        """Two tasks for each thread of the workers that are connected now."""
        return max(2, 2 * self._threads())

    def submit(self, work: Work, task: Task) -> Future[Done]:
        """Sends a task to the cluster."""
        there, here = self._client.submit(work, task, pure=False), Future[Done]()

        def hand_over(finished: Any) -> None:
            try:
                here.set_result(finished.result())
            except BaseException as error:  # whatever it is, somebody waits for it
                here.set_exception(error)

        there.add_done_callback(hand_over)
        return here

    def is_death(self, error: BaseException) -> bool:
        """Whether the scheduler gave the task up: it retries elsewhere first when a worker dies."""
        self.trouble()
        return isinstance(error, self._killed | OSError | CancelledError)

    def renew(self) -> None:
        """Does nothing: the cluster replaces its workers itself."""

    def trouble(self) -> str:
        """A text that no worker is connected; empty if one is.

        Raises:
            InputError: the scheduler is gone.
        """
        return "" if self._threads() else f"no worker is connected to {self._address}; waiting for one"

    def _threads(self) -> int:
        try:
            if self._client.status in ("running", "connecting"):
                return sum(self._client.nthreads().values())
        except (OSError, CancelledError):  # what it says depends on when it noticed
            pass
        raise InputError(
            "the connection to the scheduler is lost",
            source="--scheduler",
            given=self._address,
            hint="what is done is kept: --resume goes on with it",
        )

    def close(self) -> None:
        """Disconnects from the cluster, and ends it if it was started here."""
        with suppress(Exception):  # of a cluster that is gone
            self._client.close(timeout=_CONNECT_SECONDS)
        if self._cluster is not None:
            self._cluster.close(timeout=_CONNECT_SECONDS)


def _import_distributed() -> Any:
    try:
        import distributed
    except ImportError:
        raise InputError(
            "Dask is not installed", source="--backend", given="dask", hint="pip install 'pe-sim[dask]'"
        ) from None
    return distributed


def _local_cluster(distributed: Any, jobs: int) -> Any:
    free_port = "127.0.0.1:0"  # of the dashboard: that of another cluster may be taken
    return distributed.LocalCluster(n_workers=jobs, threads_per_worker=1, processes=True, dashboard_address=free_port)


def _connect(distributed: Any, target: Any, address: str) -> Any:
    try:
        return distributed.Client(target, timeout=_CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            "no scheduler answers there",
            source="--scheduler",
            given=address,
            expected="the address of a running Dask scheduler, for instance tcp://127.0.0.1:8786",
            hint=str(error).splitlines()[0] if str(error) else None,
        ) from None


def workers_for(backend: str, jobs: int | None, scheduler: str | None, num_points: int) -> Workers:
    """The workers that a sweep runs on.

    Args:
        backend: one of BACKENDS.
        jobs: processes; None: as many as this process may use cores. Never more than points.

    Raises:
        InputError: no such backend, an impossible number of jobs, or an address without Dask.
    """
    if backend not in BACKENDS:
        raise InputError(
            "no such backend",
            source="--backend",
            given=backend,
            expected=" or ".join(BACKENDS),
            hint=did_you_mean(str(backend), BACKENDS),
        )
    if jobs is not None and (isinstance(jobs, bool) or not isinstance(jobs, int) or not 1 <= jobs <= MAX_JOBS):
        expected = f"a whole number from 1 to {MAX_JOBS}"
        raise InputError("not a number of processes", source="--jobs", given=jobs, expected=expected)
    if scheduler is not None and backend != "dask":
        raise InputError("only Dask has a scheduler", source="--scheduler", given=scheduler, hint="add --backend dask")
    if scheduler is not None and jobs is not None:
        raise InputError(
            "a running cluster has its own number of workers", source="--jobs", given=jobs, hint="leave it out"
        )
    count = max(1, min(jobs or cpu_count(), num_points))
    if backend == "dask":
        return Dask(scheduler, count)
    return Here() if count == 1 else Processes(count)
