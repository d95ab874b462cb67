"""The example sweeps are right as they stand, and the benchmark's has the points that are promised."""

from pathlib import Path

import pytest

from benchmarks.sweep_runs import WHOLE, with_one_context
from pe_sim.studies.grid import load_sweep
from pe_sim.studies.resolve import Resolver, check_sweep
from pe_sim.studies.rows import row_of

EXAMPLES = sorted((Path(__file__).resolve().parents[2] / "experiments" / "sweeps").glob("*.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_runs(path):
    sweep, resolver = load_sweep(path), Resolver(path.parent)
    check_sweep(sweep, resolver)
    assert sweep.description
    corners = {0, len(sweep) // 2, len(sweep) - 1}
    assert {row_of(sweep.settings(point), resolver).error for point in corners} == {None}


def test_the_benchmarks_sweep_is_the_promised_one(tmp_path):
    sweep = load_sweep(WHOLE)
    part = tmp_path / "part.yaml"
    part.write_text(with_one_context(WHOLE.read_text(encoding="utf-8")), encoding="utf-8")
    assert (len(sweep), len(load_sweep(part))) == (10_000, 2_000)
    assert (sweep.base["model"], sweep.base["phase"]) == ("llama-2-7b", "decode")
