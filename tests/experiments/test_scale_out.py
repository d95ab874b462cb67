"""Scale-out: the quick run is part of the committed table, and the table says what does not fit."""

import pandas as pd
import pytest

from experiments import scale_out as experiment
from experiments import scale_out_table as tables
from experiments.scale_out_plot import figures
from experiments.study import RESULTS
from tests.experiments.studies import assert_pictures, assert_same_rows, assert_schema, committed

KEYS = ["study", "model", "links", "arrays"]


@pytest.fixture(scope="module")
def known():
    return committed(experiment.STUDY)


def test_files(quick):
    table, done, folder = quick
    assert_schema(experiment.STUDY, folder, {"cycles": "int64", "workflow": "string", "efficiency": "double"})
    assert_pictures(folder, ["scaling", "time"])
    assert "70B, decode, strong, switch: does not fit on 1 (on 1 at least 132.50 MiB a PE of 128.00 MiB)" in done.stdout
    assert "decode, strong, llama-2-70b, 2 arrays" in done.stderr
    assert tuple(table) == tuple(tables.COLUMNS)
    assert_pictures(RESULTS / experiment.NAME, ["scaling", "time"])


def test_committed_figures_are_what_comes_out(quick, known):
    assert_same_rows(quick[0], known, KEYS)


def test_committed_table_is_complete_and_consistent(known):
    cases = {
        (study, model, links, arrays)
        for study, kinds in experiment.LINKS_OF.items()
        for model in experiment.MODELS
        for links in kinds
        for arrays in experiment.ARRAYS
    }
    assert set(known[KEYS].itertuples(index=False, name=None)) == cases
    assert not known.duplicated(KEYS).any()
    fits, short = known[known["error"].isna()], known[known["error"].notna()]
    assert (fits["dp"] * fits["tp"] * fits["pp"] * fits["cp"] == fits["arrays"]).all()
    assert (fits["peak_bytes_per_pe"] <= fits["capacity_bytes_per_pe"]).all()
    assert (short["peak_bytes_per_pe"] > short["capacity_bytes_per_pe"]).all()
    assert short["error"].str.contains("no plan fits the memories").all()
    assert ((fits["link_share"] >= 0) & (fits["bubble_share"] >= 0)).all()
    assert (fits["link_share"] + fits["bubble_share"] < 1).all()
    first = fits.groupby(tables.LINE)["efficiency"].first()
    assert (first == 1).all()
    per_array = fits["tokens_per_second"] / fits["arrays"]
    assert per_array.sub(fits["tokens_per_second_per_array"]).abs().max() < 1e-6


def test_degrees_in_short():
    row = pd.Series({"dp": 1, "tp": 4, "pp": 2, "cp": 1, "microbatches": 8})
    assert tables.degrees(row) == "tp4\npp2 / 8"
    assert tables.degrees(pd.Series({"dp": 1, "tp": 1, "pp": 1, "cp": 1, "microbatches": 1})) == "1"


def test_findings_and_pictures_of_what_never_fits(known):
    rows = known[(known["study"] == tables.STRONG) & known["error"].notna()].reset_index(drop=True)
    text = tables.findings(rows)
    assert "405B, decode, strong, ring: does not fit on 1, 2, 4" in text
    assert "tokens/s" not in text
    assert set(figures(rows)) == {"scaling", "time"}
