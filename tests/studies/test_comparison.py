"""`ps.compare`: the reports are those of `simulate`, labelled by what tells them apart; what fails is named."""

import io

import pytest

import pe_sim as ps
from pe_sim.errors import InputError
from pe_sim.studies.comparison import reason_rows
from tests.helpers import render_comparison
from tests.report.samples import TINY, array_of

STEP = ps.Decode(context_len=40)
MODEL = ps.load_model(TINY)
WIDE = array_of(8, name="wide", network__bus__bytes_per_cycle=256)


def test_reports_are_those_of_simulate():
    found = ps.compare(MODEL, array_of(8), STEP, ["workflow-1", "megatron"])
    assert list(found.reports) == ["workflow-1", "megatron"]
    for name, report in found.reports.items():
        assert report.latency_cycles == ps.simulate(MODEL, array_of(8), STEP, name).latency_cycles
    assert found.failed == {}
    assert found.best == min(found.reports, key=lambda name: found[name].latency_cycles)
    assert repr(found) == f"<Comparison of workflow-1, megatron: {found.best} is the fastest>"


def test_without_names_all_workflows_are_tried_and_failures_are_named():
    found = ps.compare("llama-3.2-1b", "bus-tree-64", STEP)
    assert {*found.reports, *found.failed} == set(ps.api.WORKFLOWS)
    assert "too small" in found.failed["batch-block"]
    assert "batch-block cannot do this step" in found._repr_html_()
    with pytest.raises(InputError, match=r"(?s)no such report.*too small"):
        found["batch-block"]


def test_the_frame_has_the_fastest_first():
    frame = ps.compare(MODEL, array_of(8), STEP, ["workflow-1", "megatron", "all-col"]).to_frame()
    assert frame["cycles"].is_monotonic_increasing
    assert frame["x_best"].iloc[0] == 1.0
    assert (frame["cycles"] / frame["cycles"].iloc[0]).to_list() == pytest.approx(frame["x_best"].to_list())


def test_what_does_not_fit_is_marked_everywhere_and_never_the_best_while_something_fits(tmp_path):
    small = array_of(8, name="small", pe__memory__capacity_bytes=1000, clock_ghz=2.0)  # faster, if it had room
    found = ps.compare(MODEL, [small, array_of(8)], STEP, "megatron", allow_overflow=True)
    lacking, fits = found["small"], found["bus-tree-64"]
    assert lacking.tokens_per_second > fits.tokens_per_second
    assert found.best == "bus-tree-64"
    assert lacking.does_not_fit["demand"] == lacking.memory["peak_bytes_per_pe"]
    assert lacking.does_not_fit["bound"] == 1000
    assert fits.does_not_fit is None
    frame = found.to_frame()
    assert frame["name"].to_list() == ["bus-tree-64", "small"]
    assert frame["x_best"].isna().to_list() == frame["does_not_fit"].notna().to_list() == [False, True]
    text = render_comparison(list(found.reports.values()), list(found.reports))
    tables = text.split("\nWhy")
    assert len(tables) == 4
    assert all("small (DOES NOT FIT)" in table for table in tables)
    assert [line for line in tables[0].splitlines() if line.startswith("*")] == [
        line for line in tables[0].splitlines() if "bus-tree-64" in line
    ]
    assert f"small (DOES NOT FIT): {lacking.does_not_fit['problem']}" in text
    found.save_html(tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.count("small (DOES NOT FIT)") >= 8  # every table and figure
    assert "bus-tree-64 gives the most tokens a second" in page
    assert "small (DOES NOT FIT): the memory of PE" in found._repr_html_()
    ticks = [tick.get_text() for tick in found.plot().get_yticklabels()]
    assert ticks == ["bus-tree-64", "small (DOES NOT FIT)"]
    assert "(DOES NOT FIT)" in repr(lacking)
    assert "nothing fits" in render_comparison([lacking])
    assert "nothing fits" not in text


@pytest.mark.parametrize(
    ("arrays", "workflows", "labels"),
    [
        (array_of(8), "megatron", ["megatron"]),
        ([array_of(8), WIDE], "megatron", ["bus-tree-64", "wide"]),
        ([array_of(8), array_of(4)], ["megatron"], ["bus-tree-64 (8 PEs)", "bus-tree-64 (4 PEs)"]),
        (
            [array_of(8), WIDE],
            ["megatron", "all-row"],
            ["megatron on bus-tree-64", "all-row on bus-tree-64", "megatron on wide", "all-row on wide"],
        ),
    ],
)
def test_labels_are_what_tells_the_reports_apart(arrays, workflows, labels):
    assert list(ps.compare(MODEL, arrays, STEP, workflows).reports) == labels


def test_it_prints_the_table_of_the_command_and_writes_its_page(tmp_path):
    found = ps.compare(MODEL, array_of(8), STEP, ["workflow-1", "megatron"])
    text = io.StringIO()
    found.print(text)
    assert text.getvalue() == render_comparison(list(found.reports.values()), list(found.reports))
    found.save_html(tmp_path / "page.html")
    assert "megatron" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_two_are_explained_by_each_other():
    found = ps.compare(MODEL, array_of(8), STEP, ["workflow-1", "megatron"])
    why = found.explain("workflow-1", "megatron")
    assert why.saved_cycles == found["megatron"].latency_cycles - found["workflow-1"].latency_cycles
    with pytest.raises(InputError, match="did you mean 'megatron'"):
        found.explain("workflow-1", "megatrom")


@pytest.mark.parametrize(
    ("arrays", "workflows", "words"),
    [
        ([], "megatron", "array: there is nothing to compare"),
        ([array_of(8), array_of(8)], "megatron", "different names or numbers of PEs"),
        (array_of(8), [], "workflows: there is nothing to compare"),
        (array_of(8), ["megatrom"], "did you mean 'megatron'"),
    ],
)
def test_bad_input_is_refused(arrays, workflows, words):
    with pytest.raises(InputError) as caught:
        ps.compare(MODEL, arrays, STEP, workflows)
    assert words in str(caught.value)


def test_where_none_works_the_reasons_are_said():
    with pytest.raises(InputError, match="too small"):
        ps.compare("llama-2-7b", "bus-tree-64", STEP, ["batch-block"])


def test_the_sweep_plots_its_columns(tmp_path):
    base = {"model": "llama-3.2-1b", "array": "bus-tree-64", "context": 16}
    grid = {"num_pes": [32, 64], "workflow": ["megatron", "workflow-2"]}
    result = ps.sweep({"base": base, "grid": grid}, tmp_path / "out", jobs=1)
    lines = result.plot("num_pes", "cycles", by="workflow").get_lines()
    frame = result.to_frame()
    for line in lines:
        assert line.get_ydata().tolist() == frame[frame["workflow"] == line.get_label()]["cycles"].tolist()
    assert [line.get_label() for line in lines] == ["megatron", "workflow-2"]


def test_a_hint_is_said_once():
    text = reason_rows({"one": "no\n  hint:     more PEs", "two": "no\n  hint:     more PEs", "three": "no"})
    assert text.count("hint:") == 1
    assert text.count("cannot do this step:\n  no\n") == 3
