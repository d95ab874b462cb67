"""Processes are killed: workers, the sweep itself, by whomever. Nothing is lost, nothing hangs, nobody stays behind."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest
import yaml

import pe_sim as ps
from pe_sim.studies.grid import load_sweep
from pe_sim.studies.run import Runner
from pe_sim.studies.table import concatenated
from pe_sim.studies.workers import Processes
from tests.studies import deadly
from tests.studies.samples import sweep_of

ROOT = Path(__file__).resolve().parents[2]
needs_proc = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")


def gathered(sweep, do, folder=None):
    """What a Runner on two processes gives: rows by point, and how often each point came."""
    workers, given, tables = Processes(2), [], []

    def give(points, done):
        given.extend(points.tolist())
        tables.append(done.rows.append_column("point", pa.array(points)))

    try:
        Runner(sweep, "test", workers, give, lambda note: None, do).run(sweep.in_good_order())
    finally:
        workers.close()
    assert sorted(given) == list(range(len(sweep)))
    return concatenated(tables).sort_by("point").to_pylist()


@pytest.mark.slow
def test_a_point_that_kills_its_worker_is_a_row_with_the_error():
    sweep = load_sweep(sweep_of({"context": list(range(11, 16))}))
    found = gathered(sweep, deadly.die_over_poison)
    lost = [row for row in found if row["error"] is not None]
    assert [row["point"] for row in lost] == [deadly.POISON - 11]
    assert lost[0]["error_kind"] == "worker"
    assert "was killed" in lost[0]["error"]


@pytest.mark.slow
def test_a_worker_that_is_killed_loses_nothing(tmp_path):
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump(sweep_of({"context": list(range(1, 9))})), encoding="utf-8")
    found = gathered(load_sweep(path), deadly.die_once)
    assert (tmp_path / "died").exists()
    assert all(row["error"] is None for row in found)


def children(pid):
    try:
        tasks = Path(f"/proc/{pid}/task").iterdir()
        return [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except OSError:
        return []


def workers_of(pid):
    return [child for child in children(pid) if b"popen_loky" in Path(f"/proc/{child}/cmdline").read_bytes()]


def command(path, folder, *options):
    words = [sys.executable, "-m", "pe_sim", "sweep", path, "--out", folder, "--jobs", "2", *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def undisturbed(folder, step):
    """A sweep, and the bytes of its table; the smaller the step between its contexts, the more points it has."""
    path = folder / "sweep.yaml"
    base = {"model": "llama-3.2-1b", "array": "bus-tree-64", "workflow": "megatron"}
    grid = {"context": {"from": 64, "to": 2048, "step": step}, "network.bus.bytes_per_cycle": [16, 24, 32, 48, 64, 96]}
    path.write_text(yaml.safe_dump({"base": base, "grid": grid}), encoding="utf-8")
    return path, ps.sweep(path, folder / "out", jobs=1).path.read_bytes()


@pytest.fixture(scope="module")
def long_sweep(tmp_path_factory):
    """A sweep of a second or more, and the bytes of its undisturbed table."""
    return undisturbed(tmp_path_factory.mktemp("long"), step=64)


@pytest.mark.slow
@needs_proc
def test_workers_of_a_running_sweep_are_killed(long_sweep, tmp_path):
    path, expected = long_sweep
    process = command(path, tmp_path / "out")
    killed = 0
    while process.poll() is None and killed < 2:
        time.sleep(1.5)
        for worker in workers_of(process.pid)[:1]:
            os.kill(worker, signal.SIGKILL)
            killed += 1
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert killed
    assert "192 points, 0 failed" in out
    assert (tmp_path / "out" / "results.parquet").read_bytes() == expected


def kill_and_resume(long_sweep, folder, times, seed):
    """Kills a sweep so often, each time when some more rows are there, and ends it; gives how often it was halfway."""
    path, expected = long_sweep
    choose, halfway = random.Random(seed), 0
    for _ in range(times):
        process = command(path, folder, "--resume")
        enough = len(parts_in(folder)) + choose.randint(0, 3)  # 0: while it starts
        while len(parts_in(folder)) < enough and process.poll() is None:
            time.sleep(0.005)
        time.sleep(choose.uniform(0.0, 0.4))
        halfway += process.poll() is None and bool(parts_in(folder))
        process.kill()
        process.communicate()
    process = command(path, folder, "--resume")
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert f"{len(load_sweep(path)):,} points, 0 failed" in out
    assert (folder / "results.parquet").read_bytes() == expected
    return halfway


def parts_in(folder):
    return list(folder.glob("parts/part-*.parquet"))


@pytest.mark.slow
def test_a_sweep_that_is_killed_and_resumed_ends_with_the_same_table(long_sweep, tmp_path):
    assert kill_and_resume(long_sweep, tmp_path / "out", times=1, seed=4)


@pytest.mark.slow
def test_a_sweep_that_is_killed_ten_times_ends_with_the_same_table(tmp_path):
    longer_sweep = undisturbed(tmp_path, step=8)  # some points are left after ten times, on a fast machine too
    assert kill_and_resume(longer_sweep, tmp_path / "killed", times=10, seed=2) >= 5


@pytest.mark.slow
@needs_proc
def test_nobody_is_left_behind_by_a_sweep_that_was_killed(long_sweep, tmp_path):
    process = command(long_sweep[0], tmp_path / "out")
    until = time.monotonic() + 60
    while not (workers := workers_of(process.pid)) and time.monotonic() < until:
        time.sleep(0.05)
    process.kill()
    process.communicate()
    while any(Path(f"/proc/{worker}/cmdline").exists() for worker in workers) and time.monotonic() < until:
        time.sleep(0.1)
    assert workers
    assert not [worker for worker in workers if Path(f"/proc/{worker}/cmdline").exists()]


def test_ctrl_c_keeps_what_is_done_and_says_how_to_go_on(long_sweep, tmp_path):
    path, expected = long_sweep
    process = command(path, tmp_path / "out")
    until = time.monotonic() + 60
    while not parts_in(tmp_path / "out") and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, ""), errors
    assert "are done and kept in" in errors
    assert f"sweep {path} --out {tmp_path / 'out'} --jobs 2 --resume" in errors
    assert "Traceback" not in errors
    assert ps.sweep(path, tmp_path / "out", jobs=1, resume=True).path.read_bytes() == expected
