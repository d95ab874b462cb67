"""`pe_sim.sweep`: the same table however it came about, and nothing lost or mistaken on the way."""

import json
import os
import threading

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

import pe_sim as ps
from pe_sim.errors import InputError
from pe_sim.studies import rows, run
from pe_sim.studies import sweep as sweep_module
from tests.studies.samples import BASE, TINY, sweep_of

GRID = {
    "num_pes": [4, 6, 8],
    "context": [10, 20],
    "network.bus.bytes_per_cycle": [16, 32],
    "workflow": ["megatron", "workflow-2"],
}
POINTS = 24


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The bytes of the table of GRID, from one process in one go."""
    return ps.sweep(sweep_of(GRID), tmp_path_factory.mktemp("sweep"), jobs=1).path.read_bytes()


@pytest.fixture
def counted(monkeypatch):
    """Counts the points that are simulated in this process."""
    calls = []
    simulate = rows.api.simulate
    monkeypatch.setattr(rows.api, "simulate", lambda *args, **named: calls.append(1) or simulate(*args, **named))
    return calls


def refused(*args, **options):
    with pytest.raises(InputError) as caught:
        ps.sweep(*args, **options)
    return str(caught.value)


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_the_table(tmp_path):
    result = ps.sweep(sweep_of(GRID), tmp_path / "new" / "out", jobs=1)
    frame = result.to_frame()
    assert str(result) == f"{POINTS} points, 0 failed, 0 reused"
    assert list(frame.point) == list(range(POINTS))
    assert set(frame.schema) == {"pe-sim.sweep/1"}
    assert [tuple(row) for row in frame[list(GRID)].values] == [
        (num_pes, context, width, workflow)
        for num_pes in GRID["num_pes"] for context in GRID["context"]
        for width in GRID["network.bus.bytes_per_cycle"] for workflow in GRID["workflow"]
    ]  # fmt: skip
    last = frame.iloc[-1]
    array = ps.load_array("bus-tree-64", {"num_pes": 8, "network.bus.bytes_per_cycle": 32})
    report = ps.simulate(TINY, array, ps.Decode(1, 20), "workflow-2")
    assert last.cycles == report.latency_cycles
    config = result.config(last.key)
    told = json.loads(report.to_json())
    assert {name: config[name] for name in ("model", "array", "step", "workflow")} == {
        name: told[name] for name in ("model", "array", "step", "workflow")
    }
    assert frame.key.is_unique
    assert files(result.folder) == [
        ".lock", "configs.parquet", "parts", *(f"parts/{name}" for name in sorted(os.listdir(result.folder / "parts"))),
        "results.parquet", "sweep.yaml",
    ]  # fmt: skip


def test_a_column_says_what_does_not_fit_and_the_figure_marks_it(tmp_path):
    grid = {"context": [10, 20], "pe.memory.capacity_bytes": [1000, 2**27]}
    result = ps.sweep({**sweep_of(grid), "base": {**BASE, "allow_overflow": True}}, tmp_path, jobs=1)
    frame = result.to_frame()
    assert frame["does_not_fit"].notna().to_list() == [True, False, True, False]
    needs = frame["memory.peak_bytes_per_pe"][0]
    assert f"needs {needs:,} bytes, has 1,000 bytes" in frame["does_not_fit"][0]
    axes = result.plot("context", "cycles", "pe.memory.capacity_bytes")
    (marked,) = axes.collections
    assert marked.get_offsets().data.tolist() == frame.loc[[0, 2], ["context", "cycles"]].values.tolist()
    assert axes.get_legend().get_texts()[-1].get_text() == "DOES NOT FIT"


def test_columns_are_typed(tmp_path):
    points = [
        {"num_pes": 4, "context": 5, "dtypes.weight": "int8", "clock_ghz": 1},
        {"num_pes": 6, "context": [5, 6], "dtypes.weight": {"dtype": "int8", "group_size": 16}, "clock_ghz": 1.5},
    ]
    result = ps.sweep({"base": {**BASE, "overlap": 2}, "points": points}, tmp_path / "out", jobs=1)
    schema = pq.read_schema(result.path)
    kinds = {name: schema.field(name).type for name in schema.names}
    for name in ("num_pes", "overlap", "cycles", "messages.reduce", "bytes.reduce", "memory.bytes_read", "batch"):
        assert kinds[name] == pa.int64(), name
    for name in ("clock_ghz", "seconds", "utilization.bus", "energy_joules", "accuracy.percent"):
        assert kinds[name] == pa.float64(), name
    for name in ("context", "dtypes.weight", "model", "workflow", "phase", "error"):
        assert kinds[name] == pa.string(), name
    frame = result.to_frame()
    assert list(frame["context"]) == ["5", "[5,6]"]
    assert json.loads(frame["dtypes.weight"][1]) == points[1]["dtypes.weight"]
    assert json.loads(frame["model"][0]) == TINY
    assert schema.metadata[b"pe-sim.schema"] == b"pe-sim.sweep/1"


def test_what_only_some_points_set_is_there_for_all(tmp_path):
    """`num_pes` and the like are what was simulated, whoever said so; only a point that failed may have none."""
    points = [{"num_pes": 8}, {"batch": 3}, {"clock_ghz": 2}, {"phase": "decode"}, {"batch": "x"}]
    base = {name: value for name, value in BASE.items() if name != "num_pes"}
    frame = ps.sweep({"base": base, "points": points}, tmp_path / "out", jobs=1).to_frame()
    assert list(frame.num_pes[:4]) == [8, 64, 64, 64]
    assert list(frame.batch) == ["1", "3", "1", "1", "x"]  # JSON as text, for there is a text among them
    assert list(frame.clock_ghz[:4]) == [1.0, 1.0, 2.0, 1.0]
    assert list(frame.phase[:4]) == ["decode"] * 4
    assert frame[["num_pes", "clock_ghz", "phase"]].loc[4].isna().all()


def test_failed_points_are_rows(tmp_path):
    result = ps.sweep(sweep_of({"num_pes": [4, 0, 8], "context": [10, 10**6]}), tmp_path / "out", jobs=1)
    frame = result.to_frame()
    assert (result.num_failed, len(frame)) == (4, 6)
    assert list(frame.error.isna()) == [True, False, False, False, True, False]
    assert list(frame.cycles.isna()) == list(frame.error.notna())
    assert str(frame.cycles.dtype) == "Int64"
    assert frame.error[2].startswith("--set num_pes: too small")
    assert sum(count for _, count in result.errors) == 4


def test_all_points_fail(tmp_path):
    result = ps.sweep(sweep_of({"num_pes": [0, -1]}), tmp_path / "out", jobs=1)
    assert (result.num_failed, list(result.to_frame().error_kind)) == (2, ["input", "input"])


def test_points_that_resolve_to_the_same_have_the_same_row(tmp_path):
    frame = ps.sweep(sweep_of({"engine": ["fast", "fast"], "batch": [1, 1]}), tmp_path / "out", jobs=1).to_frame()
    assert len(frame) == 4
    assert frame.key.nunique() == 1
    assert frame.cycles.nunique() == 1


def test_processes_give_the_same_bytes_and_tell_from_one_thread(undisturbed, tmp_path):
    names = set()
    result = ps.sweep(
        sweep_of(GRID), tmp_path / "out", jobs=2, progress=lambda now: names.add(threading.current_thread().name)
    )
    assert result.path.read_bytes() == undisturbed
    assert names == {threading.current_thread().name}


def test_resume_computes_nothing_twice(undisturbed, tmp_path, counted):
    folder = tmp_path / "out"
    ps.sweep(sweep_of(GRID), folder, jobs=1)
    assert len(counted) == POINTS
    (folder / "results.parquet").unlink()
    result = ps.sweep(sweep_of(GRID), folder, jobs=1, resume=True)
    assert len(counted) == POINTS
    assert (result.num_reused, result.path.read_bytes()) == (POINTS, undisturbed)


def test_resume_of_what_was_interrupted(undisturbed, tmp_path, counted, monkeypatch):
    monkeypatch.setattr(run, "CHUNK_SECONDS", 0.0)  # a point a chunk
    folder, seen = tmp_path / "out", []

    def stop(progress):
        seen.append(progress.done)
        if progress.done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ps.sweep(sweep_of(GRID), folder, jobs=1, progress=stop)
    assert not (folder / "results.parquet").exists()
    result = ps.sweep(sweep_of(GRID), folder, jobs=1, resume=True, progress=lambda now: seen.append(now.done))
    assert (result.num_reused, len(counted)) == (7, POINTS)
    assert result.path.read_bytes() == undisturbed
    assert seen[-1] == POINTS


def test_a_changed_file_is_not_mistaken_for_the_old_one(tmp_path, counted):
    workflow = tmp_path / "mine.yaml"
    workflow.write_text("base: megatron\n", encoding="utf-8")
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump(sweep_of({"workflow": ["mine.yaml", "all-row"]})), encoding="utf-8")
    before = ps.sweep(path, tmp_path / "out", jobs=1).to_frame()
    workflow.write_text("base: all-col\n", encoding="utf-8")
    result = ps.sweep(path, tmp_path / "out", jobs=1, resume=True)
    after = result.to_frame()
    assert (result.num_reused, len(counted)) == (1, 3)
    assert list(before.cycles != after.cycles) == [True, False]
    assert list(before.key != after.key) == [True, False]


def test_another_version_computes_again(tmp_path, counted, monkeypatch):
    ps.sweep(sweep_of({"num_pes": [4]}), tmp_path / "out", jobs=1)
    monkeypatch.setattr("pe_sim.studies.grid.__version__", "9.9")
    result = ps.sweep(sweep_of({"num_pes": [4]}), tmp_path / "out", jobs=1, resume=True)
    assert (result.num_reused, len(counted)) == (0, 2)


def test_faults_are_tried_again_and_wrong_input_is_not(tmp_path, counted, monkeypatch):
    good = rows.api.simulate
    monkeypatch.setattr(rows.api, "simulate", lambda *_, **__: 1 // 0)
    grid = {"num_pes": [4, 0]}
    assert ps.sweep(sweep_of(grid), tmp_path / "out", jobs=1).num_failed == 2
    monkeypatch.setattr(rows.api, "simulate", good)
    result = ps.sweep(sweep_of(grid), tmp_path / "out", jobs=1, resume=True)
    assert (result.num_failed, result.num_reused, len(counted)) == (1, 1, 1)
    config = result.config(result.to_frame().key[0])
    assert config["workflow"]["name"] == "megatron"


def damage(path, how):
    content = path.read_bytes()
    if how == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "foreign":
        pq.write_table(pa.table({"x": [1]}), path)
    else:  # one bit of the data
        place = content.index(b"PAR1") + 60
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])


@pytest.mark.parametrize("how", ["cut", "empty", "foreign", "bit"])
def test_an_unreadable_row_file_is_set_aside_and_named(undisturbed, tmp_path, counted, monkeypatch, how):
    monkeypatch.setattr(run, "CHUNK_SECONDS", 0.0)
    folder = tmp_path / "out"
    ps.sweep(sweep_of(GRID), folder, jobs=1)
    damage(folder / "parts" / "part-00000003.parquet", how)
    result = ps.sweep(sweep_of(GRID), folder, jobs=1, resume=True)
    assert [path.name for path in result.set_aside] == ["part-00000003.parquet.unreadable"]
    assert result.set_aside[0].exists()
    assert (result.num_reused, len(counted)) == (POINTS - 1, POINTS + 1)
    assert result.path.read_bytes() == undisturbed


def test_what_was_being_written_is_removed(tmp_path):
    folder = tmp_path / "out"
    ps.sweep(sweep_of({"num_pes": [4]}), folder, jobs=1)
    left = folder / "parts" / ".part-00000009.parquet.abc.writing"
    left.write_bytes(b"half")
    ps.sweep(sweep_of({"num_pes": [4]}), folder, jobs=1, resume=True)
    assert not left.exists()


def test_a_folder_that_was_left_before_the_first_file_is_free(tmp_path):
    (tmp_path / ".lock").touch()
    (tmp_path / ".sweep.yaml.abc.writing").write_text("half", encoding="utf-8")
    ps.sweep(sweep_of({"num_pes": [4]}), tmp_path, jobs=1)
    assert not (tmp_path / ".sweep.yaml.abc.writing").exists()


def test_resume_of_nothing_begins(tmp_path):
    assert ps.sweep(sweep_of({"num_pes": [4]}), tmp_path / "out", jobs=1, resume=True).num_reused == 0


def test_folders_that_are_refused(tmp_path):
    one, other = sweep_of({"num_pes": [4, 8]}), sweep_of({"num_pes": [4, 9]})
    folder = tmp_path / "out"
    ps.sweep(one, folder, jobs=1)
    before = files(folder)
    assert "holds this sweep already" in refused(one, folder, jobs=1)
    for resume in (False, True):
        words = refused(other, folder, jobs=1, resume=resume)
        assert "holds another sweep: grid.num_pes is [4, 8] there and [4, 9] here" in words
    two = made(tmp_path / "two", sweep_of({"context": [1], "num_pes": [4, 8]}))
    assert "its grid has another order" in refused(sweep_of({"num_pes": [4, 8], "context": [1]}), two)
    assert files(folder) == before


def made(folder, sweep):
    ps.sweep(sweep, folder, jobs=1)
    return folder


def test_a_folder_with_something_else(tmp_path):
    (tmp_path / "thesis.tex").touch()
    assert "is not empty, and holds no sweep: thesis.tex" in refused(sweep_of({"num_pes": [4]}), tmp_path, jobs=1)
    assert files(tmp_path) == ["thesis.tex"]
    words = refused(sweep_of({"num_pes": [4]}), tmp_path / "thesis.tex", jobs=1)
    assert "the folder cannot be written" in words


def test_two_sweeps_do_not_write_into_one_folder(tmp_path):
    words = []

    def meet(progress):
        if not words:
            words.append(refused(sweep_of({"num_pes": [4]}), tmp_path / "out", jobs=1, resume=True))

    ps.sweep(sweep_of({"num_pes": [4]}), tmp_path / "out", jobs=1, progress=meet)
    assert "another sweep is writing into this folder" in words[0]


def test_many_points_need_a_yes(tmp_path, monkeypatch):
    many = sweep_of({"num_pes": {"from": 1, "to": 1001, "step": 1}, "context": {"from": 1, "to": 1000, "step": 1}})
    words = refused(many, tmp_path / "out", jobs=1)
    assert "1,001,000 points are many: 1,001 of num_pes x 1,000 of context" in words
    assert "--yes" in words
    monkeypatch.setattr(sweep_module, "ASK_ABOVE", 1)
    assert "2 points are many" in refused(sweep_of({"num_pes": [4, 8]}), tmp_path / "out", jobs=1)
    assert not (tmp_path / "out").exists()
    assert ps.sweep(sweep_of({"num_pes": [4, 8]}), tmp_path / "out", jobs=1, yes=True).num_points == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"backend": "procces"}, "did you mean 'process'?"),
        ({"jobs": 0}, "--jobs: not a number of processes"),
        ({"jobs": True}, "--jobs: not a number of processes"),
        ({"jobs": 10**6}, "1 to 1024"),
        ({"scheduler": "tcp://127.0.0.1:1"}, "add --backend dask"),
        ({"scheduler": "tcp://127.0.0.1:1", "backend": "dask", "jobs": 2}, "its own number of workers"),
        ({"scheduler": "gopher://x", "backend": "dask"}, "no scheduler answers there"),
    ],
)
def test_options_that_are_refused(tmp_path, options, words):
    assert words in refused(sweep_of({"num_pes": [4]}), tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_no_row_has_this_key(tmp_path):
    result = ps.sweep(sweep_of({"num_pes": [4]}), tmp_path / "out", jobs=1)
    with pytest.raises(InputError, match="no row has this key"):
        result.config("0" * 32)
    assert "<table" in result._repr_html_()


def test_memory_of_results_is_by_column(tmp_path):
    """Slices of the table do not change it."""
    whole = made(tmp_path / "a", sweep_of(GRID)) / "results.parquet"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pe_sim.studies.table.SLICE", 5)
        sliced = made(tmp_path / "b", sweep_of(GRID)) / "results.parquet"
    assert pq.ParquetFile(sliced).num_row_groups == 5
    assert pq.read_table(whole).equals(pq.read_table(sliced))


def test_python_values_are_taken(tmp_path):
    grid = {"num_pes": range(4, 6), "context": np.array([5, 6])}
    frame = ps.sweep(sweep_of(grid), tmp_path / "out", jobs=1).to_frame()
    assert list(frame.context) == [5, 6, 5, 6]
