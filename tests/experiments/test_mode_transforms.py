"""Mode transforms: each takes what the mapper expects, and the committed figures are what comes out."""

import csv
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import pe_sim as ps
from experiments import mode_transforms as experiment
from experiments.mode_transforms_plot import short
from pe_sim.engine.engines import engine_named
from pe_sim.graph.tensors import Tensor
from pe_sim.mapping.placement import Replicate, Root, Shard
from pe_sim.mapping.transforms import Transforms

ROOT = Path(__file__).resolve().parents[2]
COMMITTED = ROOT / "experiments" / "results" / "mode_transforms.csv"


@pytest.fixture(scope="module")
def points():
    return experiment.collect(experiment.QUICK)


def test_the_committed_table_is_what_comes_out(points):
    with COMMITTED.open(encoding="utf-8", newline="") as stream:
        heading, *rows = csv.reader(stream)
    assert tuple(heading) == experiment.COLUMNS
    quick = {str(pes) for pes in experiment.QUICK}
    assert [row for row in rows if row[1] in quick] == [point.cells() for point in points]
    vectors, caches = 3 * 6 * 5, 4 * 3
    assert len(rows) == (vectors + caches) * len(experiment.NUMBERS)


def test_every_transform_of_a_vector_is_what_the_mapper_expects(points):
    known = [point for point in points if point.closed_form is not None]
    assert len(known) == 2 * 3 * 6 * 5
    assert [point for point in known if point.cycles != point.closed_form] == []
    assert experiment.verdict(points).startswith(f"All {len(known)} transforms of vectors")


def test_a_difference_is_named(points):
    wrong = [*points[:3], replace(points[3], cycles=1)]
    assert experiment.verdict(wrong).splitlines() == [
        "1 of 4 transforms DIFFER from what the mapper expects:",
        f"  4 KiB, 16 PEs, Root -> Shard(batch): 1, not {points[3].closed_form}",
    ]


def test_by_hand(points):
    """The formulas of the contract on 16 PEs of the preset: bus and tree of 64 B/cycle, bf16 and fp32."""
    found = {(p.kind.name, p.pes, p.source, p.target): p for p in points}
    network = ps.load_array("bus-tree-256", overrides={"num_pes": 16}).bus_tree
    bus, tree = network.bus, network.tree
    hops = sum(tree.level_latency_cycles) + 4 * tree.combine_cycles
    broadcast = bus.overhead_cycles + 4096 // 64 + bus.latency_cycles
    reduce = hops + 8192 // 64
    assert found["4 KiB", 16, "Root", "Replicate"].cycles == broadcast
    assert found["4 KiB", 16, "Partial(sum)", "Root"].cycles == reduce
    assert found["4 KiB", 16, "Partial(sum)", "Replicate"].cycles == reduce + broadcast
    gathered = 16 * (bus.overhead_cycles + 256 // 64) + bus.request_cycles + bus.latency_cycles
    assert found["4 KiB", 16, "Shard(hidden)", "Replicate"].cycles == gathered
    assert found["4 KiB", 16, "Shard(hidden)", "Replicate"].messages == 16
    free = found["4 KiB", 16, "Replicate", "Shard(head)"]
    assert (free.cycles, free.messages, free.num_bytes, free.way) == (0, 0, 0, "local")
    relaid = found["KV, 32 MiB", 16, "Shard(head)", "Shard(token)"]
    assert (relaid.messages, relaid.num_bytes) == (16, 32 * 2**20 * 15 // 16)


def test_the_event_engine_agrees():
    array, kind = experiment.array_of(16), experiment.KINDS[2]
    layouts = experiment.layouts_of(kind, array)
    tensor = Tensor("vector", "query", kind.heads * kind.head_dim)
    for source in experiment.PLACEMENTS:
        for target in experiment.PLACEMENTS:
            steps = experiment.steps_of(Transforms(array, layouts), tensor, source, target) if source != target else ()
            schedule = experiment.schedule_of(array, layouts, tensor, steps)
            if schedule.blocks[0].stages:
                cycles = {engine_named(name)(schedule).makespan_cycles for name in ("fast", "event")}
                assert len(cycles) == 1


def test_what_has_no_way_of_its_own_goes_through_replicate():
    array, kind = experiment.array_of(16), experiment.KINDS[0]
    transforms = Transforms(array, experiment.layouts_of(kind, array))
    tensor = Tensor("vector", "query", 2048)
    partial = experiment.PLACEMENTS[-1]
    assert [step.target for step in experiment.steps_of(transforms, tensor, Root(), partial)] == [Replicate(), partial]
    assert experiment.steps_of(transforms, tensor, Replicate(), Shard("head"))[0].kind.value == "local"


@pytest.mark.parametrize(
    ("cycles", "text"),
    [(-1, ""), (0, "0"), (999, "999"), (1000, "1.00k"), (12345, "12.3k"), (524342, "524k"), (10**6, "1.00M")],
)
def test_cells(cycles, text):
    assert short(cycles) == text


def test_the_picture(points, tmp_path):
    panels = {(kind.name, kind.what): [(16, *experiment.matrix(points, kind, 16))] for kind in experiment.KINDS}
    experiment.draw(panels, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


def run(*arguments):
    command = [sys.executable, "-m", "experiments.mode_transforms", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_command(tmp_path):
    done = run("--quick", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "All 180 transforms of vectors take what the mapper chooses their ways by, to the cycle." in done.stdout
    assert "KV, 32 MiB, 64 PEs" in done.stderr
    assert not list(tmp_path.iterdir())


def test_help_teaches():
    done = run("--help")
    for word in ("--quick", "--no-files", "For instance", "goes through Replicate"):
        assert word in done.stdout
