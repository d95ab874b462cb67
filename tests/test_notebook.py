"""How results show themselves in a notebook: well-formed, self-contained, escaped, in one style, with their figures."""

import re
from html.parser import HTMLParser
from typing import Any

import pandas as pd
import pytest

import pe_sim as ps
from pe_sim.mapping.workflow import WORKFLOWS
from pe_sim.network.metrics import topology_metrics
from pe_sim.notebook import Table, card, frame_table, number_text, traffic_table
from pe_sim.numeric.state_dict import random_weights
from pe_sim.trace import TagTraffic
from tests.report.samples import TINY, array_of, tiny, tiny_on

VOID = ("br", "img", "hr")
MODEL = ps.load_model(TINY)


class Page(HTMLParser):
    """Collects texts, tags and attributes; fails where a tag is not closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text, self.tags, self.attributes, self._open = "", [], [], []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += f" {data}"


class TestCard:
    def test_everything_is_escaped(self) -> None:
        bad = "<script>alert('&')</script>"
        html = card(bad, [(bad, bad)], [Table([bad], [[bad]])], [bad])
        assert "<script>" not in html
        assert Page(html).text.count(bad) == 6

    def test_rows_beyond_the_most_are_counted(self) -> None:
        rows = [[str(row), "1"] for row in range(20)]
        page = Page(card("t", tables=[Table(["a", "b"], rows, most=5)]))
        assert page.tags.count("tr") == 1 + 5 + 1
        assert "and 15 more" in page.text

    def test_one_row_more_is_shown_in_the_place_of_a_count(self) -> None:
        page = Page(card("t", tables=[Table(["a"], [[str(row)] for row in range(6)], most=5)]))
        assert page.tags.count("tr") == 1 + 6
        assert "more" not in page.text

    def test_words_are_left_and_numbers_right(self) -> None:
        html = card("t", tables=[Table(["name", "what", "number"], [["a", "b", "1"]], text_columns=2)])
        assert html.count("text-align:left") == 2 * 2
        assert html.count("text-align:right") == 2

    def test_the_marked_row_is_bold(self) -> None:
        assert "<b>y</b>" in card("t", tables=[Table(["a"], [["x"], ["y"]], marked=1)])
        assert "<b>x</b>" not in card("t", tables=[Table(["a"], [["x"], ["y"]], marked=1)])

    def test_lines_of_a_note_stay_lines(self) -> None:
        assert "first<br>second" in card("t", notes=["first\nsecond"])

    def test_a_frame_is_formatted_for_people(self) -> None:
        frame = pd.DataFrame({"my_name": ["a"], "n": [1234567], "x": [0.123456], "none": [None], "ok": [True]})
        table = frame_table(frame, text_columns=1)
        assert table.columns == ["my name", "n", "x", "none", "ok"]
        assert table.rows == [["a", "1,234,567", "0.1235", "-", "yes"]]

    def test_traffic_leaves_out_what_was_not_used(self) -> None:
        table = traffic_table({"a": TagTraffic(1000, 2000, 3), "b": TagTraffic()})
        assert table.rows == [["a", "1,000", "2,000", "3"]]
        assert traffic_table({"a": TagTraffic(1, 2, 3)}, busy=False).rows == [["a", "1", "2"]]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1234, "1,234"), (0.5, "0.5"), (1234.5, "1,234"), (123456.0, "123,456"), (1e-5, "1e-05"), (float("nan"), "-"),
        (pd.NA, "-"), (None, "-"), (True, "yes"), (False, "no"), ("w", "w"), (0, "0"),
    ],
)  # fmt: skip
def test_numbers_are_written_as_people_read_them(value: Any, text: str) -> None:
    assert number_text(value) == text


def _execution() -> Any:
    step = ps.Decode(context_len=[3, 2])
    weights = random_weights(MODEL, 0)
    return ps.execute(MODEL, array_of(4), step, "megatron", weights=weights, tokens=[[1, 2, 3, 4], [5, 6, 7]])


def _sweep(folder: Any) -> Any:
    base = {"model": "llama-3.2-1b", "array": "bus-tree-64", "workflow": "megatron", "context": 16}
    return ps.sweep({"base": base, "grid": {"num_pes": [32, 64]}}, folder / "out", jobs=1)


STEP = ps.Decode(context_len=40)
# By what is shown: how it is made, and a text that has to be in it.
SHOWN = {
    "ModelConfig": (lambda _: MODEL, "llama"),
    "encoder": (lambda _: ps.load_model("bert-base-uncased"), "positions"),
    "ArrayConfig": (lambda _: array_of(16), "16 at 1 GHz"),
    "ArrayConfig, mesh": (lambda _: ps.load_array("mesh-256"), "16 x 16 mesh"),
    "ArrayConfig, bank": (lambda _: ps.load_array("aim-gddr6-16"), "of whole rows"),
    "Situation": (lambda _: ps.load_situation("mixed"), "prefill"),
    "Workflow": (lambda _: ps.load_workflow("megatron"), "every layer"),
    "Workflow, two": (lambda _: ps.load_workflow("alternating"), "layers 1, 3, ..."),
    "Report": (lambda _: tiny(), f"{tiny().latency_cycles:,} cycles"),
    "Comparison": (lambda _: ps.compare(MODEL, array_of(8), STEP, ["workflow-1", "megatron"]), "x best"),
    "Explanation": (lambda _: ps.compare(MODEL, array_of(8), STEP).explain("workflow-1", "megatron"), "cycles less"),
    "SearchResult": (lambda _: ps.search(MODEL, array_of(4), STEP, max_simulations=2), "cycles"),
    "Generation": (lambda _: ps.generate(MODEL, array_of(4), 8, 4), "TTFT"),
    "Generation, switch": (
        lambda _: ps.generate(MODEL, array_of(4), 8, 4, workflow="megatron", decode_workflow="workflow-2"),
        "switch",
    ),
    "BestSwitch": (lambda _: ps.best_switch(MODEL, array_of(4), 8, 4, candidates=["megatron", "workflow-2"]), "decode"),
    "PartResult": (lambda _: ps.collective("all-reduce", array_of(8), 1024), "reduce + broadcast"),
    "PartResult, gemm": (lambda _: ps.gemm(array_of(8), 1, 64, 64), "cycles"),
    "Proof": (lambda _: ps.verify(MODEL, array_of(4), "megatron"), "as simulated"),
    "Execution": (lambda _: _execution(), "logits: 2 x 1 x 128 of float32"),
    "SweepResult": (_sweep, "2 points, 0 failed"),
    "Sensitivity": (lambda _: ps.sensitivity(MODEL, array_of(8), STEP, parameters=["bus width"]), "bus width"),
    "TopologyMetrics": (lambda _: topology_metrics(ps.load_array("mesh-256")), "30 hops"),
    "AreaReport": (lambda _: tiny().area, "pe memory"),
    "SystemConfig": (lambda _: ps.load_system("ring-of-4-bus-tree-1024"), "4 x bus-tree-1024 (1,024 PEs)"),
    "SystemReport": (
        lambda _: ps.simulate_system(MODEL, "ring-of-4-bus-tree-1024", STEP, {"tp": 2, "pp": 2}),
        "exchanges",
    ),
    "Reference": (lambda _: ps.reference("h100", "llama-2-7b", STEP), "not a measurement"),
}


@pytest.mark.parametrize("name", SHOWN)
def test_results_show_themselves(name: str, tmp_path: Any) -> None:
    make, expected = SHOWN[name]
    html = make(tmp_path)._repr_html_()
    page = Page(html)
    assert expected in re.sub(r"\s+", " ", page.text)
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert not {"src", "href", "onclick", "id"} & set(page.attributes)
    assert "nan" not in page.text.split()
    assert "object at 0x" not in html
    assert len(html) < 60_000


@pytest.mark.parametrize("name", WORKFLOWS)
def test_every_named_workflow_shows_itself(name: str) -> None:
    assert name in Page(ps.load_workflow(name)._repr_html_()).text


def test_a_searched_workflow_joins_layers_that_are_alike() -> None:
    found = ps.search("llama-3.2-1b", "bus-tree-256", ps.Decode(context_len=1024), max_simulations=2).workflow
    heads = re.findall(r"layers (\d+(?:-\d+)?)<", found._repr_html_())
    ends = [[int(end) for end in head.split("-")] for head in heads]
    assert ends[0][0] == 0
    assert ends[-1][-1] == 15
    assert [last[-1] + 1 for last in ends[:-1]] == [first[0] for first in ends[1:]]


def test_a_proof_that_fails_says_so() -> None:
    from dataclasses import replace

    proof = ps.verify(MODEL, array_of(4), "megatron")
    name, verdict = next(iter(proof.verdicts.items()))
    wrong = replace(proof, verdicts={**proof.verdicts, name: replace(verdict, fault="q has no owner")})
    text = Page(wrong._repr_html_()).text
    assert "NOT proven" in text
    assert "q has no owner" in text
    assert repr(wrong).endswith("NOT proven>")


def test_reprs_are_one_line() -> None:
    results = (ps.generate(MODEL, array_of(4), 8, 4), ps.verify(MODEL, array_of(4)), _execution())
    for result, name in zip(results, ("Generation", "Proof", "Execution"), strict=True):
        assert repr(result).startswith(f"<{name} ")
        assert "\n" not in repr(result)


def test_an_execution_names_the_last_token_of_each_sequence() -> None:
    done = _execution()
    assert done.best_tokens is not None
    last = ", ".join(str(row[-1]) for row in done.best_tokens.tolist())
    assert last in Page(done._repr_html_()).text


def test_a_mesh_says_what_was_not_compared() -> None:
    assert "kind mesh" in Page(tiny_on("mesh")._repr_html_()).text
