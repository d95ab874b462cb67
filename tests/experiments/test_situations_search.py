"""Situations under a searched mapping: never worse than the named ones, and the committed table is what comes out."""

import pandas as pd
import pytest

from experiments import situations
from experiments import situations_search as experiment
from experiments import situations_search_table as tables
from experiments.situations_map import WORKFLOWS
from experiments.situations_search_plot import figures
from experiments.study import RESULTS
from tests.experiments.studies import assert_pictures, assert_same_rows, assert_schema, committed, run

KEYS = ["model", "array", "situation", "workflow"]
CASE = ("llama-2-7b", "bus-tree-64", "one-short")


@pytest.fixture(scope="module")
def table(quick):
    return quick[0]


@pytest.fixture(scope="module")
def known():
    return committed(experiment.STUDY)


def test_files(quick):
    table, done, folder = quick
    assert_schema(experiment.STUDY, folder, {"cycles": "int64", "mapping": "string", "proof": "string"})
    assert_pictures(folder, ["gains"])
    assert "bus-tree-64   one-short" in done.stdout
    assert "* the best of the named ones" in done.stdout
    assert "llama-2-7b on bus-tree-64, one-long" in done.stderr
    assert tuple(table) == tuple(tables.COLUMNS)
    assert_pictures(RESULTS / experiment.NAME, ["gains"])


def test_every_case_has_all_mappings_and_the_searched_one_is_never_worse(table):
    cases = tables.by_case(table)
    assert list(cases) == [(*CASE[:2], name) for name in experiment.QUICK_SITUATIONS]
    for case in cases.values():
        assert list(case.index) == [*WORKFLOWS, tables.SEARCHED]
        assert (case["cycles"].dropna() >= case["cycles"][tables.SEARCHED]).all()
        assert case["cycles"][tables.SEARCHED] < case["cycles"][tables.best_named(case)]
        assert (case["cycles"].isna() == case["reason"].notna()).all()
        assert case["proof"][tables.SEARCHED].startswith("best of ")
    assert cases[CASE].index[cases[CASE]["reason"].notna()].tolist() == ["batch-block", "block-pipeline"]


def test_committed_figures_are_what_comes_out(table, known):
    named = table["workflow"] != tables.SEARCHED
    assert_same_rows(table[named], known, KEYS, leave_out=["gain_of_searched", "reason"])
    found = table[~named].merge(known, on=KEYS, validate="one_to_one")
    assert len(found) == (~named).sum()
    assert (found["cycles_x"] <= found["cycles_y"]).all()  # a better search is no fault: write the table anew


def test_committed_figures_are_complete_and_never_worse(known):
    cases = {(m, a, s) for m in situations.MODELS for a in situations.ARRAYS for s in situations.SITUATIONS}
    assert set(tables.by_case(known)) == cases
    assert not known.duplicated(KEYS).any()
    assert (known["gain_of_searched"].dropna() >= 0).all()
    refused = known["cycles"].isna()
    assert (refused == known["reason"].notna()).all()
    assert known.loc[refused, "reason"].str.contains("needs |the memory of PE|takes at least").all()
    fits = known[~refused].groupby(KEYS[:3])["cycles"].min()
    searched = known[known["workflow"] == tables.SEARCHED].set_index(KEYS[:3])["cycles"].dropna()
    assert (fits == searched.reindex(fits.index)).all()


def test_what_does_not_fit_is_said_and_drawn():
    rows = experiment.rows_of("llama-2-70b", "bus-tree-64", "one-short")
    table = pd.DataFrame(rows, columns=list(tables.COLUMNS)).astype(tables.COLUMNS)
    assert table["cycles"].isna().all()
    assert "does not fit: needs " in tables.format_table(table)
    assert tables.best_named(table.set_index("workflow")) == ""
    assert set(figures(table)) == {"gains"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--models", "nope"), "error: unknown model"),
        (("--arrays", "bus-tre-64"), "did you mean"),
        (("--situations", "one-shrt"), "did you mean 'one-short'?"),
    ],
)
def test_bad_input(arguments, message, tmp_path):
    done = run(experiment.NAME, "--quick", *arguments, "--out", tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())
