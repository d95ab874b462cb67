"""The page of a report: what is in it, and that nothing can get into it or out of it."""

import base64
import hashlib
import itertools
import json
import re
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from pe_sim.api import simulate
from pe_sim.config.arrays.load import load_array
from pe_sim.config.step import Decode
from pe_sim.errors import InputError
from pe_sim.report.html.figures import (
    Segment,
    _heat_map,
    component,
    heat_maps,
    operators_by_cause,
    quantity,
    scale_colours,
    time_by_cause,
    time_by_part,
)
from pe_sim.report.html.page import comparison_html, report_html, save_comparison_html
from pe_sim.report.html.timeline import courses, timeline
from pe_sim.report.palette import KIND_COLOURS, TAG_COLOURS
from pe_sim.report.report import Report
from pe_sim.schedule.stages import Tag
from tests.report.samples import WORKFLOWS, simulate_tiny, tiny, tiny_on

VOID = {"meta", "link", "br", "line", "polygon"}
LINKS = ("src", "href", "xlink:href", "action", "data", "poster", "srcset")


class Page(HTMLParser):
    """Checks that elements are closed in the order they were opened; collects what the tests look at."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.opened: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.scripts: list[tuple[Mapping[str, str | None], str]] = []
        self.policy = ""
        self.texts: list[str] = []
        self.handlers: list[str] = []
        self._attributes: Mapping[str, str | None] = {}
        self.feed(text)
        self.close()
        assert self.opened == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self._attributes = found
        self.handlers += [name for name in found if name.startswith("on")]
        self.links += [found[name] or "" for name in LINKS if name in found]
        if "id" in found:
            self.ids.append(found["id"] or "")
        if found.get("http-equiv") == "Content-Security-Policy":
            self.policy = found["content"] or ""
        if tag not in VOID:
            self.opened.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in VOID

    def handle_endtag(self, tag: str) -> None:
        assert self.opened.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.opened and self.opened[-1] == "script":
            self.scripts.append((self._attributes, data))
        elif self.opened and self.opened[-1] != "style" and data.strip():
            self.texts.append(data.strip())

    @property
    def data(self) -> list[dict[str, Any]]:
        """What the script reads."""
        return [json.loads(text) for attributes, text in self.scripts if attributes.get("type") == "application/json"]


def one_segment(segments: tuple[Segment, ...]) -> float:
    return sum(segment.share for segment in segments)


@pytest.mark.parametrize("workflow", WORKFLOWS)
def test_every_workflow_has_a_well_formed_page(workflow: str) -> None:
    page = Page(report_html(tiny(workflow)))
    assert len(set(page.ids)) == len(page.ids)
    sections = ["summary", "time", "timeline", "traffic", "pes", "memory", "energy", "area", "accuracy", "operators"]
    assert [name for name in page.ids if name in (*sections, "config")] == [*sections, "config"]
    assert {link for link in page.links if link.startswith("#")} == {f"#{name}" for name in (*sections, "config")}


@pytest.mark.parametrize("kind", ["mesh", "hier-bus", "crossbar"])
def test_graphs_of_channels_have_one_too(kind: str) -> None:
    report = tiny_on(kind)
    page = Page(report_html(report))
    assert report.channels.name[report.channels.hottest(1)[0]] in page.texts


def test_nothing_is_asked_for_from_anywhere() -> None:
    text = report_html(tiny())
    page = Page(text)
    assert all(link.startswith(("#", "data:")) for link in page.links)
    assert page.handlers == []
    assert not re.search(r"https?://|//[a-z]+\.|@import|url\(", text)
    (script,) = (body for attributes, body in page.scripts if "type" not in attributes)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert page.policy.startswith("default-src 'none'; ")
    assert f"script-src 'sha256-{digest}';" in page.policy


NAME = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&{{ 7 * 7 }}"


def test_a_name_is_never_a_tag() -> None:
    report = simulate_tiny("megatron", 2, name=NAME)
    pages = [report_html(report), comparison_html([report], [NAME], {NAME: NAME})]
    plain = [report_html(tiny("megatron", 2)), comparison_html([tiny("megatron", 2)], ["one"], {"other": "why"})]
    for text, without in zip(pages, plain, strict=True):
        page = Page(text)
        assert len(page.scripts) == len(Page(without).scripts)
        assert page.handlers == []
        assert any(NAME in each for each in page.texts)
        assert "<img" not in text


def test_it_holds_the_figures_of_the_report() -> None:
    report = tiny("megatron", 8)
    page = Page(report_html(report))
    assert f"{report.latency_cycles:,} cycles" in page.texts
    assert report.envelope.one_line() in page.texts
    for tag, use in report.traffic.items():
        assert (tag in page.texts) == (use.messages > 0)
        assert use.messages == 0 or f"{use.messages:,}" in page.texts
    for name in report.energy["by_component"]:
        assert component(name) in page.texts
    for row in report.operators:
        assert row.name in page.texts


def test_the_array_can_be_copied_and_loaded() -> None:
    report = simulate_tiny("megatron", 8, overlap=2, network__tree__downlink=True)
    page = Page(report_html(report))
    (source,) = (text for text in page.texts if text.startswith("schema_version:"))
    assert load_array(yaml.safe_load(source)) == report.array


@pytest.mark.parametrize("workflow", WORKFLOWS)
def test_bars_add_up(workflow: str) -> None:
    report = tiny(workflow)
    for bars in (time_by_part({"it": report}), time_by_cause({"it": report})):
        assert one_segment(bars.bars[0].segments) == pytest.approx(1.0)
    operators = operators_by_cause(report).bars
    longest = max(one_segment(bar.segments) for bar in operators)
    assert longest == pytest.approx(1.0)
    cycles = sum(int(bar.text.split(" ")[0].replace(",", "")) for bar in operators)
    assert cycles == report.latency_cycles


def test_bars_of_several_reports_have_one_scale() -> None:
    reports = {name: tiny(name, 8) for name in ("workflow-1", "workflow-2", "all-col")}
    bars = time_by_part(reports).bars
    longest = max(report.latency_cycles for report in reports.values())
    for bar, report in zip(bars, reports.values(), strict=True):
        assert one_segment(bar.segments) == pytest.approx(report.latency_cycles / longest)


@pytest.mark.parametrize("num_pes", [1, 6, 16])
def test_heat_maps_show_every_pe_once(num_pes: int) -> None:
    report = tiny("workflow-1", num_pes)
    maps = heat_maps(report)
    assert len(maps) == 5
    for each in maps:
        cells = [(tile.column + x, tile.row) for tile in each.tiles for x in range(tile.width)]
        assert len(set(cells)) == len(cells) == num_pes
        assert all(column < each.num_columns and row < each.num_rows for column, row in cells)
        assert cells == [(pe % each.num_columns, pe // each.num_columns) for pe in range(num_pes)]


def test_heat_maps_tell_each_pe_its_own_value() -> None:
    report = tiny("workflow-1", 6)
    busy = report.trace.pe_busy["pe_memory"] / report.latency_cycles
    told = {}
    for tile in heat_maps(report)[0].tiles:
        name, value = tile.text.split(": ")
        first, _, last = name.split(" ")[1].partition("-")
        told |= dict.fromkeys(range(int(first), int(last or first) + 1), value)
    assert told == {pe: f"{share:.1%}" for pe, share in enumerate(busy.tolist())}


def test_the_timeline_holds_the_whole_step() -> None:
    report = tiny("workflow-1", 8)
    (data,) = Page(report_html(report)).data
    tracks = {track["name"]: track for track in data["tracks"]}
    path = tracks["critical path"]
    assert path["start"][0] == 0
    assert sum(path["cycles"]) == data["latency_cycles"] == report.latency_cycles
    assert tracks["layers"]["start"] == sorted(tracks["layers"]["start"])
    on_bus = sum(use.busy_cycles for tag, use in report.traffic.items() if tag != "reduce")
    assert sum(tracks["bus"]["cycles"]) == on_bus
    for track in tracks.values():
        assert len({len(track[name]) for name in ("start", "cycles", "name_of", "kind", "layer")}) == 1
        assert max(track["name_of"]) < len(data["names"])
        assert max(track["kind"]) < len(data["kinds"])


def test_the_drawing_is_of_a_layer_in_the_middle() -> None:
    report = tiny("workflow-1", 8)
    drawn = timeline(report)
    assert drawn.title == "Layer 1 of 2"
    assert 0 < drawn.first < drawn.last <= report.latency_cycles
    assert all(box.x >= -0.01 and box.x + box.width <= 1000.6 for box in drawn.boxes)
    assert {box.row for box in drawn.boxes} == set(range(len(drawn.rows)))
    wider = timeline(report, scale_cycles=10 * (drawn.last - drawn.first))
    assert max(box.x + box.width for box in wider.boxes) == pytest.approx(100, abs=1)


def test_a_timeline_keeps_to_its_limit_and_names_what_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    report = tiny("workflow-1", 8)
    whole = timeline(report)
    assert whole.left_out == ()
    some = timeline(report, max_slices=100)
    kept = {track["name"] for track in some.data["tracks"]}
    assert sum(len(track["start"]) for track in some.data["tracks"]) <= 100
    assert kept | set(some.left_out) == {track["name"] for track in whole.data["tracks"]}
    monkeypatch.setattr("pe_sim.report.html.timeline.MAX_TRACK_SLICES", 1)
    merged = {track["name"]: track for track in timeline(report).data["tracks"]}
    before = {track["name"]: track for track in whole.data["tracks"]}
    assert len(merged["bus"]["start"]) <= len(before["bus"]["start"])
    assert merged["bus"]["start"][0] == before["bus"]["start"][0]


def test_courses_have_the_means_of_the_report() -> None:
    report = tiny("all-row", 8)
    found = {course.name: course for course in courses(report)}
    assert found["bus"].mean == pytest.approx(report.utilization["bus"])
    assert found["memory ports"].mean == pytest.approx(report.utilization["pe_memory"])
    for course in found.values():
        assert all(0 <= x <= 1 and 0 <= y <= 1 for x, y in course.points)


def test_a_page_of_many_pes_and_layers_stays_small() -> None:
    report = simulate("llama-2-70b", "bus-tree-4096", Decode(context_len=64), "megatron", allow_overflow=True)
    text = report_html(report)
    assert 300_000 < len(text) < 3_000_000
    Page(text)


def test_the_same_report_gives_the_same_page() -> None:
    first, second = (report_html(simulate_tiny("megatron", 8)) for _ in range(2))
    assert first == second


def test_a_comparison_of_arrays_has_each_of_them_to_copy() -> None:
    reports = [simulate_tiny("megatron", num_pes, name=f"array-{num_pes}") for num_pes in (4, 8)]
    page = Page(comparison_html(reports, ["four", "eight"]))
    arrays = [load_array(yaml.safe_load(text)) for text in page.texts if text.startswith("schema_version:")]
    assert arrays == [report.array for report in reports]
    assert "decode of tiny on several arrays" in page.texts
    assert sum(text.startswith("Model ") for text in page.texts) == 1


def test_a_comparison_shows_all_reports() -> None:
    reports = [tiny(name, 8) for name in ("workflow-1", "workflow-2", "all-col")]
    page = Page(comparison_html(reports, failed={"batch-block": "it does not fit"}))
    assert "it does not fit" in page.texts
    assert "best" in page.texts
    assert len(page.data) == 3
    widths = {data["focus"][1] - data["focus"][0] for data in page.data}
    assert len(widths) == 1  # one scale
    for report in reports:
        assert report.workflow.name in page.texts
        assert f"{report.latency_cycles:,}" in page.texts


@pytest.mark.parametrize("labels", [["one"], ["one", "one"], ["a", "b", "c"]])
def test_labels_that_do_not_tell_reports_apart_are_refused(labels: list[str]) -> None:
    with pytest.raises(InputError, match="2 reports cannot be compared under"):
        comparison_html([tiny("workflow-1"), tiny("workflow-2")], labels)
    with pytest.raises(InputError, match="0 reports cannot be compared under"):
        comparison_html([])


def test_files_are_whole_or_not_there(tmp_path: Path) -> None:
    tiny().save_html(tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == report_html(tiny())
    save_comparison_html(tmp_path / "both.html", [tiny("workflow-1"), tiny("workflow-2")])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["both.html", "report.html"]
    with pytest.raises(InputError, match="cannot be written"):
        tiny().save_html(tmp_path / "nowhere" / "report.html")
    with pytest.raises(InputError, match="is a directory"):
        tiny().save_html(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["both.html", "report.html"]


def test_a_notebook_gets_the_summary_and_the_breakdown() -> None:
    report: Report = tiny("megatron", 8)
    html = report._repr_html_()
    assert len(html) < 10_000
    page = Page(html)
    assert page.scripts == []
    assert page.links == []
    assert f"{report.latency_cycles:,} cycles" in html
    assert "broadcast:" in html


def test_colours_of_messages_and_of_work_differ() -> None:
    assert set(TAG_COLOURS) == {tag.value for tag in Tag}
    work = {KIND_COLOURS[kind] for kind in ("memory", "compute", "vector", "root", "wait")}
    assert len(work) == 5
    assert not work & set(TAG_COLOURS.values())


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("total_joules", 0.0137877, "13.8 mJ"),
        ("x_joules", 0.0, "0 J"),
        ("average_watts", 98.2, "98.2 W"),
        ("average_watts", 12345.6, "12,346 W"),
        ("x_seconds", 2.5e-7, "250 ns"),
        ("total_mm2", 368.64, "368.6 mm²"),
        ("ratio", 0.125, "0.125"),
    ],
)
def test_quantities_have_the_unit_of_their_names(name: str, value: float, text: str) -> None:
    assert quantity(name, value) == text


def test_a_heat_map_tells_least_most_and_mean():
    heat = _heat_map("cycles", np.array([3.0, 1.0, 1.0, 4.0, 2.0, 2.0, 2.5]), 4.0, "{:g}".format)
    assert (heat.summary, heat.scale, heat.num_columns, heat.num_rows) == ("1 to 4, mean 2.21429", "4", 3, 3)
    assert [(tile.column, tile.row, tile.width, tile.text) for tile in heat.tiles] == [
        (0, 0, 1, "PE 0: 3"),
        (1, 0, 2, "PEs 1-2: 1"),
        (0, 1, 1, "PE 3: 4"),
        (1, 1, 2, "PEs 4-5: 2"),
        (0, 2, 1, "PE 6: 2.5"),
    ]
    assert [tile.colour for tile in heat.tiles] == ["#2171b5", "#c6dbef", "#08306b", "#6baed6", "#4690c6"]
    alike = _heat_map("cycles", np.full(4, 7.0), 0.0, "{:g}".format)
    assert (alike.summary, {tile.colour for tile in alike.tiles}) == ("all PEs 7", {"#f7fbff"})


def test_colours_go_from_pale_to_dark_in_one_hue():
    colours = [[int(colour[at : at + 2], 16) for at in (1, 3, 5)] for colour in scale_colours(41)]
    assert colours[::10] == [[247, 251, 255], [198, 219, 239], [107, 174, 214], [33, 113, 181], [8, 48, 107]]
    for paler, darker in itertools.pairwise(colours):
        assert all(before > after for before, after in zip(paler, darker, strict=True))
        assert darker == sorted(darker)  # blue
