"""A Dask cluster of processes on loopback, started as users do: the same rows, whatever becomes of its workers."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import dask
import distributed
import pytest

import pe_sim as ps
from pe_sim.studies import run
from pe_sim.studies.grid import load_sweep
from pe_sim.studies.workers import Dask
from tests.studies import deadly
from tests.studies.samples import sweep_of

ROOT = Path(__file__).resolve().parents[2]
GRID = {"context": list(range(1, 31)), "num_pes": [4, 8]}


class Cluster:
    """A scheduler, and workers that are added one by one."""

    def __init__(self, folder):
        self.folder, self.processes, self.workers = folder, [], []
        self.scheduler = self._start("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")
        self.address = self._said(self.scheduler, r"Scheduler at:\s+(tcp://127\.0\.0\.1:\d+)")

    def add_worker(self):
        worker = self._start("worker", self.address, "--nthreads", "1", "--no-nanny", "--no-dashboard")
        self._said(worker, r"(Registered to)")
        self.workers.append(worker)

    def _start(self, what, *options):
        log = open(self.folder / f"{len(self.processes)}.log", "w+")  # noqa: SIM115  closed with the process
        words = [sys.executable, "-m", "distributed.cli.dask_" + what, *options]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(words, cwd=self.folder, env=environment, stdout=log, stderr=log)
        self.processes.append((process, log))
        return process

    def _said(self, process, pattern):
        (log,) = (log for each, log in self.processes if each is process)
        until = time.monotonic() + 60
        while time.monotonic() < until and process.poll() is None:
            if found := re.search(pattern, Path(log.name).read_text()):
                return found[1]
            time.sleep(0.05)
        raise AssertionError(Path(log.name).read_text())

    def close(self):
        for process, log in self.processes:
            process.kill()
            process.wait()
            log.close()


@pytest.fixture
def cluster(tmp_path):
    folder = tmp_path / "cluster"
    folder.mkdir()
    started = Cluster(folder)
    yield started
    started.close()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return ps.sweep(sweep_of(GRID), tmp_path_factory.mktemp("sweep"), jobs=1).path.read_bytes()


@pytest.mark.slow
def test_a_worker_dies_and_another_comes(cluster, undisturbed, tmp_path, monkeypatch):
    """The first worker is killed with points in its hands; the sweep waits, says so, and goes on with the second."""
    monkeypatch.setattr(run, "CHUNK_SECONDS", 0.0)
    monkeypatch.setattr(run, "_PATIENCE_SECONDS", 0.5)
    cluster.add_worker()
    notes = []

    def meanwhile(progress):
        if progress.note:
            notes.append(progress.note)
            if len(cluster.workers) < 2:
                cluster.add_worker()
        elif progress.done >= 5 and len(cluster.workers) == 1:
            cluster.workers[0].send_signal(signal.SIGKILL)

    result = ps.sweep(sweep_of(GRID), tmp_path / "out", backend="dask", scheduler=cluster.address, progress=meanwhile)
    assert f"no worker is connected to {cluster.address}; waiting for one" in notes
    assert len(cluster.workers) == 2
    assert (result.num_points, result.num_failed) == (60, 0)
    assert result.path.read_bytes() == undisturbed


@pytest.mark.slow
def test_the_scheduler_dies_and_the_sweep_goes_on_elsewhere(cluster, undisturbed, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "CHUNK_SECONDS", 0.0)
    monkeypatch.setattr(run, "_PATIENCE_SECONDS", 0.5)
    cluster.add_worker()

    def kill(progress):
        if progress.done == 5:
            cluster.scheduler.kill()

    with pytest.raises(ps.InputError, match="the connection to the scheduler is lost"):
        ps.sweep(sweep_of(GRID), tmp_path / "out", backend="dask", scheduler=cluster.address, progress=kill)
    result = ps.sweep(sweep_of(GRID), tmp_path / "out", jobs=1, resume=True)
    assert result.num_reused >= 5
    assert result.path.read_bytes() == undisturbed


@pytest.mark.slow
def test_a_cluster_of_this_machine(undisturbed, tmp_path):
    result = ps.sweep(sweep_of(GRID), tmp_path / "out", jobs=2, backend="dask")
    assert result.path.read_bytes() == undisturbed


@pytest.mark.slow
def test_a_point_that_kills_its_worker_is_a_row_with_the_error():
    sweep, found = load_sweep(sweep_of({"context": [11, 12, deadly.POISON, 14]})), {}

    def give(points, done):
        found.update(zip(points.tolist(), done.rows.column("error_kind").to_pylist(), strict=True))

    assert distributed.__version__  # its settings are there once it is imported
    with dask.config.set({"distributed.scheduler.allowed-failures": 0}):
        workers = Dask(None, 2)
    try:
        run.Runner(sweep, "test", workers, give, lambda note: None, deadly.die_over_poison).run(sweep.in_good_order())
    finally:
        workers.close()
    assert found == {0: None, 1: None, 2: "worker", 3: None}


def test_nobody_answers(tmp_path, monkeypatch):
    monkeypatch.setattr("pe_sim.studies.workers._CONNECT_SECONDS", 0.5)
    with pytest.raises(ps.InputError, match="no scheduler answers there"):
        Dask("tcp://127.0.0.1:9", 1)


def test_dask_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ps.InputError, match="pip install 'pe-sim"):
        Dask(None, 1)
