"""The simulator against the RTL, case by case: cycles of both engines, and values."""

import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pe_sim.report.analysis.envelope import packaged
from tests.rtl.accuracy import TABLE, table
from tests.rtl.arrays import VARIANTS
from tests.rtl.build import HDL
from tests.rtl.cases import (
    OVERLAPS,
    STEP_ARRAYS,
    STEP_WORKFLOWS,
    Kind,
    Named,
    cases_of,
    contention_cases,
    step_cases,
)
from tests.rtl.compare import Comparison, compare
from tests.rtl.run import RunError

pytestmark = pytest.mark.rtl

MOST_PERCENT = 1  # of a whole step
MANY_SEEDS = range(100, 160)
QUICK = ("3-binary",)  # to build another one takes longer than all its cases


def quick_or_slow(names: Iterable[str]) -> list[Any]:
    return [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in names]


def is_right(comparison: Comparison) -> bool:
    """Values and engines agree; the RTL takes the model's cycles, and for tiles at an edge those that explain it."""
    matrix = comparison.named.matrix
    agreed = not comparison.wrong and comparison.event_cycles == comparison.fast_cycles
    if comparison.named.kind is not Kind.EDGE_TILES:
        return agreed and comparison.difference == 0 and not comparison.moved
    assert matrix is not None
    return agreed and (matrix.model, matrix.total) == (comparison.event_cycles, comparison.rtl_cycles)


@pytest.mark.slow  # of the array that is built for quick tests, those of the committed table are the same cases
@pytest.mark.parametrize("array_name", VARIANTS)
def test_collectives_contention_and_gemms_agree_to_the_cycle(array_name: str) -> None:
    comparisons = list(compare(cases_of(array_name)))
    assert not [str(comparison) for comparison in comparisons if not is_right(comparison)]
    assert {Kind.COLLECTIVE, Kind.BUS, Kind.TREE} <= {comparison.named.kind for comparison in comparisons}


@pytest.mark.parametrize("array_name", quick_or_slow(STEP_ARRAYS))
def test_whole_steps_differ_by_what_their_work_explains(array_name: str) -> None:
    comparisons = list(compare(step_cases(array_name)))
    assert len(comparisons) == 3 * len(STEP_WORKFLOWS) * len(OVERLAPS)
    for comparison in comparisons:
        case, split = comparison.named.case, comparison.split
        assert not comparison.wrong, str(comparison)
        assert comparison.event_cycles == comparison.fast_cycles, str(comparison)
        assert comparison.percent <= MOST_PERCENT, str(comparison)
        assert (split["bus"], split["tree"]) == (0, 0), str(comparison)
        assert sum(split.values()) == comparison.difference, str(comparison)
        for span in comparison.result.work:
            assert span.end - span.start == case.work_cycles[span.unit][span.index], str(comparison)


@pytest.mark.parametrize("array_name", ["3-binary", pytest.param("4-quad", marks=pytest.mark.slow)])
def test_the_committed_table_is_what_is_measured(array_name: str) -> None:
    measured = table(list(compare([*cases_of(array_name), *step_cases(array_name)])))
    committed = pd.read_csv(TABLE)
    committed = committed[committed["array"] == array_name].reset_index(drop=True)
    pd.testing.assert_frame_equal(committed, measured)


def test_reports_say_what_was_measured() -> None:
    """The worst differences in the packaged file are those of the committed table."""
    committed = pd.read_csv(TABLE)
    percent = 100 * (committed["rtl_cycles"] - committed["simulated_cycles"]).abs() / committed["rtl_cycles"]
    worst = percent.groupby(committed["kind"]).max()
    told = packaged()
    assert told.collective.worst_percent == max(worst[kind.value] for kind in (Kind.COLLECTIVE, Kind.BUS, Kind.TREE))
    assert told.gemm.worst_percent_whole_tiles == worst[Kind.WHOLE_TILES.value]
    assert told.gemm.worst_percent_edge_tiles == worst[Kind.EDGE_TILES.value]
    assert told.step.worst_percent == worst[Kind.STEP.value]
    assert set(committed["array"]) == set(VARIANTS)


@pytest.mark.slow
def test_edge_tiles_differ_somewhere() -> None:
    """What explains edge tiles is put to use: there are cases in which the closed form is not what the RTL takes."""
    edges = [c for c in compare(cases_of("8-binary")) if c.named.kind is Kind.EDGE_TILES]
    assert any(comparison.difference for comparison in edges)
    assert any(comparison.named.matrix.words for comparison in edges if comparison.named.matrix)
    assert any(comparison.named.matrix.unevenness for comparison in edges if comparison.named.matrix)


@pytest.mark.slow
@pytest.mark.parametrize("array_name", ["3-binary", "4-quad", "8-ternary"])
def test_random_contention_agrees_to_the_cycle(array_name: str) -> None:
    comparisons = list(compare(contention_cases(array_name, MANY_SEEDS)))
    assert len(comparisons) == 6 * len(MANY_SEEDS)
    assert not [str(comparison) for comparison in comparisons if not is_right(comparison)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "right", "wrong", "kind"),
    [
        ("bus_arbiter", "order[i]} < least", "order[i]} <= least", Kind.BUS),  # ties to the higher port
        ("bus_arbiter", "joins ? last_stamp : now", "now", Kind.BUS),  # trains are taken apart
        ("reduction_tree", "agreed && !until_free[31]", "agreed", Kind.TREE),  # joints may send two beats at once
        ("reduction_tree", "? hops(l, MERGE)", "? hops(l, COMBINE)", Kind.TREE),
    ],
)
def test_another_rtl_does_not_agree(module: str, right: str, wrong: str, kind: Kind, tmp_path: Path) -> None:
    """The comparison notices: each of these is a rule of the bus or the tree that another design would break."""
    hdl = tmp_path / "hdl"
    shutil.copytree(HDL, hdl)
    source = (hdl / f"{module}.sv").read_text()
    assert len(re.findall(re.escape(right), source)) == 1
    (hdl / f"{module}.sv").write_text(source.replace(right, wrong))
    cases = [named for named in contention_cases("3-binary") if named.kind is kind]
    assert _disagrees(cases, hdl)


def _disagrees(cases: list[Named], hdl: Path) -> bool:
    try:
        return any(not is_right(comparison) for comparison in compare(cases, hdl))
    except RunError:  # an assertion of the RTL
        return True
