"""The page in a real browser: it renders, its tables sort, its timeline moves, and it keeps to itself."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page

from pe_sim.report.html.page import save_comparison_html
from pe_sim.report.report import Report
from tests.report.html import browser as browsers
from tests.report.html.browser import Opened
from tests.report.html.test_html import NAME
from tests.report.samples import simulate_tiny, tiny

Open = Callable[..., Opened]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browsers.started() as browser:
        yield browser


@pytest.fixture
def opened(chromium: Browser, tmp_path: Path) -> Iterator[Open]:
    """Opens the page of a report, or of several; what pages say and ask for is checked when the test is done."""
    pages: list[Opened] = []

    def open_page(*reports: Report, scripts: bool = True, width: int = 1200) -> Opened:
        path = tmp_path / f"{len(pages)}.html"
        if len(reports) == 1:
            reports[0].save_html(path)
        else:
            save_comparison_html(path, reports)
        pages.append(Opened(chromium, path, scripts=scripts, width=width))
        return pages[-1]

    yield open_page
    for page in pages:
        page.close()


def column(table: Locator, number: int) -> list[str]:
    return table.locator(f"tbody tr td:nth-child({number})").all_inner_texts()


def table_of(page: Opened, caption: str) -> Locator:
    return page.page.locator("table.data", has=page.page.locator("caption", has_text=caption)).first


def test_it_renders(opened: Open) -> None:
    report = tiny("megatron", 8)
    page = opened(report)
    assert page.page.title() == "megatron: decode of tiny on bus-tree-64"
    assert page.page.locator(".fact").count() == 5
    for section in page.page.locator("section").all():
        box = section.bounding_box()
        assert box is not None
        assert box["height"] > 40
    assert page.page.locator("canvas").is_visible()
    assert page.page.locator(".drawing").is_hidden()
    assert page.page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("width", [360, 1200])
def test_no_page_is_wider_than_its_window(opened: Open, width: int) -> None:
    for page in (opened(tiny("megatron", 8), width=width), opened(tiny("workflow-1"), tiny("all-col"), width=width)):
        assert page.page.evaluate("document.documentElement.scrollWidth") <= width


def test_tables_sort_by_a_click(opened: Open) -> None:
    page = opened(tiny("megatron", 8))
    table = table_of(page, "Operators, all layers together")
    before = column(table, 7)
    cycles = table.locator("th", has_text="cycles")
    cycles.get_by_role("button").click()
    assert cycles.get_attribute("aria-sort") == "descending"
    falling = [int(text.replace(",", "")) for text in column(table, 7)]
    assert falling == sorted(falling, reverse=True)
    cycles.get_by_role("button").click()
    assert cycles.get_attribute("aria-sort") == "ascending"
    assert [int(text.replace(",", "")) for text in column(table, 7)] == sorted(falling)
    names = table.locator("th", has_text="operator")
    names.get_by_role("button").click()
    assert cycles.get_attribute("aria-sort") is None
    assert column(table, 1) == sorted(column(table, 1), key=str.casefold)
    assert sorted(column(table, 7)) == sorted(before)


def test_sizes_sort_by_bytes_and_sums_stay_at_the_end(opened: Open) -> None:
    page = opened(tiny("megatron", 8))
    traffic = table_of(page, "Messages by tag")
    traffic.locator("th", has_text="bytes").get_by_role("button").click()
    use = tiny("megatron", 8).traffic
    assert column(traffic, 1) == sorted(column(traffic, 1), key=lambda tag: -use[tag].bytes)
    parts = table_of(page, "Parts of the critical path")
    parts.locator("th", has_text="cycles").get_by_role("button").click()
    assert parts.locator("tr").last.inner_text().startswith("latency")


def wait_until(page: Page, holds: Callable[[], bool]) -> None:
    """Asks again and again; Playwright's own way compiles texts in the page, which the page's policy forbids."""
    for _ in range(100):
        if holds():
            return
        page.wait_for_timeout(50)
    raise AssertionError("it never came to be")


def shown(canvas: Locator) -> tuple[float, float]:
    return float(canvas.get_attribute("data-from") or "nan"), float(canvas.get_attribute("data-to") or "nan")


def test_the_timeline_zooms_and_moves(opened: Open) -> None:
    report = tiny("workflow-1", 8)
    page = opened(report).page
    canvas = page.locator("canvas")
    layer = shown(canvas)
    page.get_by_role("button", name="Whole step").click()
    assert shown(canvas) == (0, report.latency_cycles)
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 700, box["y"] + 45)
    page.keyboard.down("Control")
    page.mouse.wheel(0, -300)
    page.keyboard.up("Control")
    wait_until(page, lambda: shown(canvas)[1] < report.latency_cycles)
    first, last = shown(canvas)
    assert 0 < first < last < report.latency_cycles
    page.mouse.down()
    page.mouse.move(box["x"] + 600, box["y"] + 45)
    page.mouse.up()
    moved = shown(canvas)
    assert moved[0] > first
    assert moved[1] - moved[0] == pytest.approx(last - first)
    canvas.focus()
    page.keyboard.press("ArrowLeft")
    assert shown(canvas)[0] < moved[0]
    page.keyboard.press("-")
    assert shown(canvas)[1] - shown(canvas)[0] > last - first
    page.get_by_role("button", name="One layer").click()
    assert shown(canvas) == layer
    for _ in range(20):
        page.keyboard.press("+")
    first, last = shown(canvas)
    assert 0 <= first < last <= report.latency_cycles


def test_a_plain_wheel_scrolls_the_page(opened: Open) -> None:
    page = opened(tiny("workflow-1", 8)).page
    canvas = page.locator("canvas")
    canvas.scroll_into_view_if_needed()
    box, before, place = canvas.bounding_box(), shown(canvas), page.evaluate("scrollY")
    assert box is not None
    page.mouse.move(box["x"] + 500, box["y"] + 30)
    page.mouse.wheel(0, 200)
    wait_until(page, lambda: page.evaluate("scrollY") > place)
    assert shown(canvas) == before


def test_a_slice_tells_what_it_is(opened: Open) -> None:
    report = tiny("workflow-1", 8)
    page = opened(report).page
    page.get_by_role("button", name="Whole step").click()
    canvas = page.locator("canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box is not None
    link = max(report.critical_path(), key=lambda link: link.cycles)
    x = 210 + (box["width"] - 210) * (link.start + link.end) / 2 / report.latency_cycles
    page.mouse.move(box["x"] + x, box["y"] + 22 + 20 * 1.5)
    text = page.locator(".told").inner_text()
    assert text.startswith("critical path: ")
    assert f"from cycle {link.start:,}" in text


def test_something_is_drawn_in_every_row_with_slices(opened: Open) -> None:
    page = opened(tiny("workflow-1", 8)).page
    page.get_by_role("button", name="Whole step").click()
    colours = page.evaluate(
        """() => {
          const canvas = document.querySelector("canvas"), ratio = devicePixelRatio;
          const data = JSON.parse(document.querySelector("script[type='application/json']").textContent);
          const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
          return data.tracks.map((track, row) => {
            const y = Math.round((22 + 20 * row + 16) * ratio), left = Math.round(210 * ratio);
            const plain = [227, 231, 236]; // of the lines between ticks
            let coloured = 0;
            for (let x = left; x < canvas.width; x++) {
              const at = 4 * (y * canvas.width + x);
              coloured += pixels[at + 3] === 255 && plain.some((part, each) => pixels[at + each] !== part);
            }
            return [track.name, coloured];
          });
        }"""
    )
    assert len(colours) > 5
    assert all(coloured > 0 for _, coloured in colours), colours


def test_a_config_opens_and_copies(opened: Open) -> None:
    page = opened(tiny("megatron", 8)).page
    source = page.locator(".source").first
    assert source.locator("pre").is_hidden()
    source.locator("summary").click()
    assert "schema_version: 1" in source.locator("pre").inner_text()
    source.locator(".copy").click()
    wait_until(page, lambda: source.locator(".copy").inner_text() != "Copy")


def test_without_scripts_it_can_be_read(opened: Open) -> None:
    page = opened(tiny("megatron", 8), scripts=False).page
    assert page.locator("canvas").count() == 0
    assert page.locator(".drawing svg").is_visible()
    assert page.locator(".drawing svg rect").count() > 20
    assert page.locator("table.data").first.is_visible()
    assert page.locator("th button").count() == 0
    assert page.locator(".copy").first.is_hidden()


def test_in_print_the_drawing_takes_the_timelines_place(opened: Open) -> None:
    page = opened(tiny("megatron", 8)).page
    page.emulate_media(media="print")
    assert page.locator("canvas").is_hidden()
    assert page.locator(".drawing svg").is_visible()
    assert page.locator("nav").is_hidden()
    assert page.locator(".tools").is_hidden()


def test_names_do_nothing(opened: Open) -> None:
    page = opened(simulate_tiny("megatron", 2, name=NAME))
    assert NAME in page.page.locator("h1").inner_text()
    assert page.page.locator("h1 *").count() == 0


def test_a_comparison_has_a_timeline_of_each(opened: Open) -> None:
    page = opened(tiny("workflow-1", 8), tiny("workflow-2", 8), tiny("all-col", 8)).page
    canvases = page.locator("canvas").all()
    assert len(canvases) == 3
    widths = {round(last - first) for first, last in map(shown, canvases)}
    assert len(widths) == 1
    page.locator("[data-act='zoom in']").nth(1).click()
    assert len({round(last - first) for first, last in map(shown, canvases)}) == 2
    table = table_of(opened(tiny("workflow-1", 8), tiny("workflow-2", 8)), "Side by side")
    table.locator("th", has_text="cycles").get_by_role("button").click()
    assert table.locator("tbody tr").count() == 2


def test_a_missing_browser_skips_or_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(browsers, "executable", lambda: None)
    monkeypatch.delenv(browsers.REQUIRED, raising=False)
    with pytest.raises(pytest.skip.Exception):
        browsers.executable_or_skip()
    monkeypatch.setenv(browsers.REQUIRED, "1")
    with pytest.raises(pytest.fail.Exception):
        browsers.executable_or_skip()
