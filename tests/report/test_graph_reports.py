"""Reports of arrays whose interconnect is a graph: critical path, text, trace, pictures."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from pe_sim.api import simulate
from pe_sim.config.arrays.load import load_array
from pe_sim.config.files.loading import load_mapping, resolve
from pe_sim.config.models.load import load_model
from pe_sim.config.step import Decode
from pe_sim.errors import InputError
from pe_sim.report.analysis.critical_path import WAIT
from pe_sim.report.perfetto.export import trace_json
from pe_sim.report.plots.heat import channel_heat
from pe_sim.report.report import Report
from pe_sim.report.table import WIDTH
from tests.helpers import given_in_both, render_comparison, render_report
from tests.report.perfetto.chrome_trace import parse
from tests.report.samples import GRAPHS, TINY, WORKFLOWS, simulate_on, simulate_tiny, tiny, tiny_on

pytestmark = pytest.mark.usefixtures("no_window")


# Links over which a head asks for its next channel in the cycle in which it was granted the one before.
FREE: dict[str, Any] = {"network__link__latency_cycles": 0, "network__link__overhead_cycles": 0}


def assert_covers(report: Report) -> None:
    links = report.critical_path()
    assert (links[0].start, links[-1].end) == (0, report.latency_cycles)
    assert all(before.end == after.start for before, after in pairwise(links))
    assert all(link.cycles > 0 for link in links)


@given_in_both(
    15,
    80,
    kind=st.sampled_from(GRAPHS),
    num_pes=st.sampled_from([1, 2, 4, 8, 16]),
    workflow=st.sampled_from(WORKFLOWS),
    engine=st.sampled_from(["fast", "event"]),
    overlap=st.integers(0, 3),
    batch_size=st.integers(1, 3),
    free=st.booleans(),
)
def test_every_cycle_of_the_latency_is_explained(
    kind: str, num_pes: int, workflow: str, engine: str, overlap: int, batch_size: int, free: bool
) -> None:
    step = Decode(batch_size=batch_size, context_len=40)
    if kind == "butterfly":  # of switches with four ways
        num_pes = 16 if num_pes > 4 else 4
    report = simulate_on(
        kind, num_pes, workflow, step, engine, overlap=overlap, **(FREE if free and kind != "hier-bus" else {})
    )
    assert_covers(report)
    links = report.critical_path()
    assert all(link.resource != WAIT for link in links)
    names = set(report.channels.name)
    assert all((link.channel in names) == (link.resource == "network") for link in links if link.channel)


@pytest.mark.parametrize("arbitration", ["round_robin", "priority"])
def test_other_arbitrations_are_covered_too(arbitration: str) -> None:
    for engine in ("fast", "event"):
        report = simulate_on("mesh", 16, "all-row", engine=engine, network__arbitration=arbitration)
        assert_covers(report)
        assert all(link.resource != WAIT for link in report.critical_path())


@pytest.mark.parametrize("engine", ["fast", "event"])
def test_a_slow_channel_upstream_is_on_the_path(engine: str) -> None:
    report = simulate_on(
        "fat-tree", 16, "workflow-2", engine=engine, network__growth=4, network__link__bytes_per_cycle=2
    )
    assert_covers(report)
    assert all(link.resource != WAIT for link in report.critical_path())
    levels = dict(zip(report.channels.name, report.channels.level, strict=True))
    network = [link for link in report.critical_path() if link.channel]
    slow = sum(link.cycles for link in network if levels[link.channel] == "level 0")
    assert slow > 0.5 * sum(link.cycles for link in network)  # the tails come late from the narrow wires at the leaves
    assert "the interconnect: " in render_report(report)


@pytest.mark.parametrize("kind", GRAPHS)
@pytest.mark.parametrize("workflow", ["workflow-1", "all-row", "batch-block"])
def test_the_text_shows_levels_and_the_hottest_channels(kind: str, workflow: str) -> None:
    report = tiny_on(kind, workflow)
    text = render_report(report)
    assert text.isascii()
    assert max(len(line) for line in text.splitlines()) <= WIDTH
    levels = text[text.index("Levels of the interconnect") : text.index("Hottest channels")]
    assert all(level in levels for level in report.channels.by_level())
    section = text[text.index("Hottest channels") : text.index("Bounds on the latency")]
    for channel in report.channels.hottest(3):
        assert f"{report.channels.busy_cycles[channel]:,}" in section
        assert report.channels.name[channel] in section
    bounds = text[text.index("Bounds") : text.index("\nMemory")]
    assert "the hottest channel" in bounds
    assert "\nbus " not in bounds


def test_a_comparison_names_the_busiest_channel() -> None:
    reports = [tiny_on("mesh", workflow) for workflow in ("workflow-1", "all-row")]
    text = render_comparison(reports)
    assert "busiest channel" in text
    section = text[text.index("Why: the busiest channel") :]
    assert all(report.channels.name[report.channels.hottest(1)[0]] in section for report in reports)
    mixed = render_comparison([tiny_on("mesh"), tiny("workflow-1", 16)], ["mesh", "bus"])
    assert "busiest channel" in mixed
    assert "bus busy" not in mixed
    assert "bus busy" in render_comparison([tiny("workflow-1", 16), tiny("workflow-2", 16)])


@pytest.mark.parametrize("kind", GRAPHS)
def test_the_trace_has_a_track_for_the_hottest_channels(kind: str) -> None:
    report = tiny_on(kind, "all-row")
    table, text = report.channels, trace_json(report, max_channel_tracks=5)
    found = parse(text).tracks("Interconnect")
    for channel in table.hottest(5):
        assert sum(event["args"]["cycles"] for event in found[table.name[channel]]) == table.busy_cycles[channel]
    others = int((table.busy_cycles > 0).sum()) - 5
    assert json.loads(text)["otherData"]["channels_left_out"] == max(others, 0)
    assert sum(name in table.name for name in found) == min(5, 5 + others)
    counters = {name.partition(": ")[0] for name in parse(text).counters}
    assert counters == {*table.by_level(), "matrix units", "vector units", "memory ports"}


def test_the_bus_plot_of_a_graph_has_a_row_for_the_hottest_channel_and_each_level() -> None:
    report = tiny_on("mesh")
    ax = report.plot_bus_utilization(bins=50)
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert report.channels.name[report.channels.hottest(1)[0]] in labels[0]
    assert [label.split("\n")[0] for label in labels[1:]] == ["link", "root link"]
    assert tiny_on("mesh", "batch-block").plot_bus_utilization(bins=3)


@pytest.mark.parametrize("kind", GRAPHS)
@pytest.mark.parametrize("workflow", ["workflow-1", "all-row"])
def test_the_heat_map_tells_the_kinds_of_messages_apart(kind: str, workflow: str) -> None:
    report = tiny_on(kind, workflow)
    topology, heats = channel_heat(report, None)
    sums = sum(heat.utilization for heat in heats[1:])
    assert heats[0].utilization == pytest.approx(sums)
    assert heats[0].utilization == pytest.approx(report.channels.utilization())
    used = {tag for tag, use in report.traffic.items() if use.messages}
    titles = [heat.title for heat in heats]
    assert titles[0] == "all messages"
    assert ("broadcast and multicast" in titles) == bool(used & {"broadcast", "multicast"})
    assert all((tag in titles) == (tag in used) for tag in ("scatter", "gather", "all-gather", "reduce"))
    figure = report.plot_channel_heats()
    panels = [axes for axes in figure.axes if axes.get_title(loc="left")]
    assert [axes.get_title(loc="left").split("\n")[0] for axes in panels] == titles
    for axes, heat in zip(panels, heats, strict=True):
        lines = next(child for child in axes.collections if isinstance(child, LineCollection))
        assert len(lines.get_segments()) > 0
        assert topology.channels.name[int(heat.utilization.argmax())] in axes.get_title(loc="left")


def test_the_heat_of_one_bus_and_one_tree_has_every_wire_of_the_tree() -> None:
    report = tiny("workflow-1", 16)
    topology, heats = channel_heat(report, None)
    everything = dict(zip(topology.channels.name, heats[0].utilization.tolist(), strict=True))
    assert everything["bus"] == pytest.approx(report.utilization["bus"])
    busiest = max(share for name, share in everything.items() if name != "bus")
    assert busiest * report.latency_cycles == pytest.approx(report.bounds["tree_cycles"])
    downlink = simulate_tiny("workflow-1", 16, network__tree__downlink=True)
    _, (heat,) = channel_heat(downlink, "multicast")
    assert heat.utilization.max() > 0
    assert report.plot_channel_heat().collections


def test_one_tag_is_one_panel_and_an_unknown_one_is_refused() -> None:
    report = tiny_on("torus")
    axes = report.plot_channel_heat(tag="reduce")
    assert axes.get_title(loc="left").split("\n")[0] == "reduce"
    into = Figure().add_subplot()
    assert report.plot_channel_heat(into) is into
    assert into.get_title(loc="left").split("\n")[0] == "all messages"
    with pytest.raises(InputError, match=r"(?s)no such tag.*did you mean 'broadcast'"):
        report.plot_channel_heat(tag="brodcast")


def test_a_step_without_messages_is_drawn_too() -> None:
    figure = tiny_on("ring", "batch-block").plot_channel_heats()
    assert "hottest 0%: none" in figure.axes[0].get_title(loc="left")


def test_a_users_graph_with_odd_names_is_reported_and_drawn(tmp_path: Path) -> None:
    names = ["pe0", "pe1", "pe2", "pe3"]
    nodes = [{"id": name, "pe": pe} for pe, name in enumerate(names)]
    nodes += [{"id": "root", "kind": "root"}, {"id": "$a$ [red]\\frac{", "kind": "switch"}]
    edges = [{"source": "$a$ [red]\\frac{", "target": name} for name in (*names, "root")]
    network = {"kind": "graph", "link": {"bytes_per_cycle": 16}, "graph": {"nodes": nodes, "edges": edges}}
    array = {**load_mapping(resolve("arrays", "bus-tree-64")), "num_pes": 4, "network": network}
    report = simulate(load_model(TINY), load_array(array), Decode(context_len=40), "workflow-1", allow_overflow=True)
    assert_covers(report)
    assert "[red]" in render_report(report)
    report.save_channel_heat(tmp_path / "heat.png")
    report.plot_bus_utilization(bins=5).figure.savefig(tmp_path / "bus.png")
