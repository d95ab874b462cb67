"""Runs the points of a sweep: takes workers and numbers of points, hands on results as they come.

Chunks of points are made so that each takes about a second: small enough that a kill loses little, large enough that
handing them out costs little. When a worker dies, whatever was with it is tried again alone, halved until the point is
found over which it dies; that point becomes a row with the error, and everything else is computed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from typing import Final

from pe_sim._version import __version__
from pe_sim.errors import InputError
from pe_sim.studies.grid import Sweep
from pe_sim.studies.resolve import Resolver
from pe_sim.studies.rows import key_of, lost_row
from pe_sim.studies.workers import Done, Task, Work, Workers, done_of, work
from pe_sim.units import IntArray

CHUNK_SECONDS: Final = 1.0
_MOST_POINTS: Final = 1024  # of a chunk
_GROWTH: Final = 4
_LAST_SHARE: Final = 8  # the last chunks are at most this many times smaller than those before
_TRIES: Final = 3  # of one point alone
_PATIENCE_SECONDS: Final = 10.0


@dataclass
class Runner:
    """A runner that hands points to workers and takes back their results.

    Args:
        sweep, run_name: the sweep, and a name for this run of it.
        workers: those that do the work.
        give: called with the numbers of some points and their results, for each point once.
        tell: called with what the user should know while nothing comes back.
        do: the function that does a task.
    """

    sweep: Sweep
    run_name: str
    workers: Workers
    give: Callable[[IntArray, Done], None]
    tell: Callable[[str], None]
    do: Work = work
    _chunk_points: int = field(default=1, init=False)
    _resolver: Resolver = field(init=False)

    def __post_init__(self) -> None:
        """Makes the resolver that gives lost points their keys."""
        self._resolver = Resolver(self.sweep.folder)

    def run(self, points: IntArray, *, keys_only: bool = False) -> None:
        """Does all points, in any order, and hands on their results.

        Raises:
            InputError: the workers are gone for good, or are of another version.
        """
        self._chunk_points = 1
        begun = 0
        pending: dict[Future[Done], IntArray] = {}
        while pending or begun < len(points):
            while len(pending) < self.workers.ahead and begun < len(points):
                chunk = points[begun : begun + self._size(len(points) - begun)]
                begun += len(chunk)
                pending[self._submit(chunk, keys_only)] = chunk
            lost = self._collect(pending)
            if lost:
                self._one_by_one(lost, keys_only)

    def _size(self, left: int) -> int:
        """Number of points in the next chunk; smaller towards the end, so that all workers end together."""
        return max(1, min(self._chunk_points, max(left // self.workers.ahead, self._chunk_points // _LAST_SHARE)))

    def _submit(self, chunk: IntArray, keys_only: bool) -> Future[Done]:
        settings = tuple(self.sweep.settings(point) for point in chunk.tolist())
        return self.workers.submit(self.do, Task(self.run_name, self.sweep.folder, settings, keys_only))

    def _collect(self, pending: dict[Future[Done], IntArray]) -> list[IntArray]:
        """Takes at least one finished chunk, or all of them if a worker died; returns the chunks that were lost."""
        lost = self._take(pending, self._first_done(pending))
        while lost and pending:
            lost += self._take(pending, self._first_done(pending))
        return lost

    def _first_done(self, pending: dict[Future[Done], IntArray]) -> set[Future[Done]]:
        while True:
            done, _ = wait(pending, timeout=_PATIENCE_SECONDS, return_when=FIRST_COMPLETED)
            if done:
                return done
            self.tell(self.workers.trouble())

    def _take(self, pending: dict[Future[Done], IntArray], done: set[Future[Done]]) -> list[IntArray]:
        lost = []
        for future in done:
            chunk = pending.pop(future)
            if not self._given(future, chunk):
                lost.append(chunk)
        return lost

    def _given(self, future: Future[Done], chunk: IntArray) -> bool:
        """Whether the chunk is done and handed on; False if its worker died."""
        try:
            done = future.result()
        except Exception as error:
            if self.workers.is_death(error):
                return False
            raise
        if done.version != __version__:
            raise InputError(
                f"the workers have pe-sim {done.version}, and this is {__version__}",
                source="--scheduler",
                hint="install the same version on both",
            )
        grown = max(1, min(_MOST_POINTS, _GROWTH * len(chunk)))
        self._chunk_points = max(1, min(grown, int(CHUNK_SECONDS / max(done.seconds / len(chunk), 1e-6))))
        self.give(chunk, done)
        return True

    def _one_by_one(self, lost: list[IntArray], keys_only: bool) -> None:
        """Tries lost chunks alone, halves those that are lost again, and gives up a point that is lost alone."""
        waiting = [(chunk, 0) for chunk in lost]
        while waiting:
            chunk, tries = waiting.pop()
            self.workers.renew()
            pending = {self._submit(chunk, keys_only): chunk}
            if not self._collect(pending):
                continue
            if len(chunk) > 1:
                half = len(chunk) // 2
                waiting += [(chunk[:half], 0), (chunk[half:], 0)]
            elif tries + 1 < _TRIES:
                waiting.append((chunk, tries + 1))
            else:
                key = key_of(self.sweep.settings(int(chunk[0])), self._resolver)
                self.give(chunk, done_of([lost_row(key)], time.perf_counter()))
        self.workers.renew()
