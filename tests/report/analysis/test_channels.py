"""What every channel carried: by hand on small arrays, against the trace of both engines, and the bounds it sets."""

import json
from dataclasses import replace
from math import ceil, log2

import numpy as np
import pytest

from pe_sim.config.arrays.array import ArrayConfig
from pe_sim.config.step import Decode
from pe_sim.network.interconnect import interconnect_of
from pe_sim.report.analysis.channels import NUM_HOTTEST, TAGS, ChannelTable
from pe_sim.report.analysis.metrics import utilization
from pe_sim.report.report import Report
from tests.helpers import thinned
from tests.report.samples import DECODE, GRAPHS, WORKFLOWS, simulate_on, tiny, tiny_on


def of_trace(report: Report) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(channels, tags) messages, bytes, busy cycles, counted use by use."""
    uses = report.trace.channel_use
    messages, sizes, busy = np.zeros((3, len(uses.channels), len(uses.tags)), dtype=np.int64)
    for channel, tag, start, end, size in zip(
        uses.channel, uses.tag, uses.start, uses.end, uses.num_bytes, strict=True
    ):
        messages[channel, tag] += 1
        sizes[channel, tag] += size
        busy[channel, tag] += end - start
    return messages, sizes, busy


def assert_agrees(table: ChannelTable, report: Report) -> None:
    messages, sizes, busy = of_trace(report)
    assert table.name == report.trace.channel_use.channels
    np.testing.assert_array_equal(table.messages, messages)
    np.testing.assert_array_equal(table.bytes, sizes)
    np.testing.assert_array_equal(table.busy, busy)


@pytest.mark.parametrize(("kind", "workflow"), thinned(GRAPHS, WORKFLOWS))
def test_the_table_is_what_both_engines_saw(kind: str, workflow: str) -> None:
    step = Decode(batch_size=2, context_len=40)
    fast, event = (simulate_on(kind, 16, workflow, step, engine) for engine in ("fast", "event"))
    for report in (fast, event):
        assert_agrees(report.channels, report)
    assert fast.channels.to_dict() == event.channels.to_dict()


@pytest.mark.parametrize(("kind", "workflow"), thinned(GRAPHS, WORKFLOWS))
def test_no_channel_is_done_before_its_bytes_over_its_width(kind: str, workflow: str) -> None:
    report = tiny_on(kind, workflow)
    table = report.channels
    assert (table.busy_cycles * table.bytes_per_cycle >= table.bytes.sum(axis=1)).all()
    assert report.bounds["network_cycles"] == table.busy_cycles.max() <= report.latency_cycles
    fullest = int(table.bytes.sum(axis=1).argmax())
    assert report.latency_cycles >= table.bytes[fullest].sum() / table.bytes_per_cycle[fullest]
    assert (report.bounds["bus_cycles"], report.bounds["tree_cycles"]) == (0, 0)


@pytest.mark.parametrize("kind", GRAPHS)
@pytest.mark.parametrize("workflow", ["workflow-1", "all-row", "megatron"])
def test_bytes_are_conserved_hop_by_hop(kind: str, workflow: str) -> None:
    report = tiny_on(kind, workflow)
    table, counted = report.channels, report.traffic
    for column, tag in enumerate(TAGS):
        assert (table.bytes[:, column].sum() > 0) == (counted[tag].bytes > 0)
        assert table.busy[:, column].sum() == counted[tag].busy_cycles
        assert table.bytes[:, column].sum() >= (counted[tag].bytes if tag in ("broadcast", "weight-stream") else 0)
    rows = table.to_rows()
    for what in ("messages", "bytes", "busy_cycles"):
        by_level = sum(row[what] for row in table.by_level().values())
        assert by_level == sum(row[what] for row in rows)
        assert all(row[what] == sum(row[f"{tag} {what}"] for tag in table.tags) for row in rows)


def column(report: Report, tag: str) -> dict[str, tuple[int, int]]:
    """Messages and bytes under one tag by channel, idle ones left out."""
    table, at = report.channels, TAGS.index(tag)
    found = zip(table.name, table.messages[:, at].tolist(), table.bytes[:, at].tolist(), strict=True)
    return {name: (messages, size) for name, messages, size in found if messages}


def root_node_links(array: ArrayConfig) -> tuple[str, str]:
    names = interconnect_of(array).topology.channels.name
    return next(name for name in names if name == "root down"), next(name for name in names if name == "root up")


@pytest.mark.parametrize("kind", ["line", "mesh", "torus", "ring", "hypercube"])
def test_a_broadcast_crosses_one_channel_a_pe_and_the_roots(kind: str) -> None:
    report = tiny_on(kind, "megatron", 16)
    down, up = root_node_links(report.array)
    sent = report.traffic["broadcast"]
    carried = column(report, "broadcast")
    assert carried[down] == (sent.messages, sent.bytes)
    assert up not in carried
    assert sum(size for _, size in carried.values()) == 16 * sent.bytes  # a spanning tree of 16 PEs and the root
    assert len(carried) >= 16


@pytest.mark.parametrize("kind", ["line", "mesh", "hypercube", "h-tree"])
def test_a_reduction_in_the_network_passes_the_roots_channel_once(kind: str) -> None:
    report = simulate_on(
        kind, 4, "megatron", network__collectives__reduce="in_network"
    )  # as many heads as PEs: no groups
    down, up = root_node_links(report.array)
    reduced = column(report, "reduce")
    assert reduced[up] == (report.traffic["reduce"].messages, report.traffic["reduce"].bytes)
    assert down not in reduced


@pytest.mark.parametrize("num_pes", [2, 4, 16])
def test_a_fat_tree_carries_a_broadcast_once_on_every_wire_down(num_pes: int) -> None:
    report = tiny_on("fat-tree", "megatron", num_pes)
    sent, carried = report.traffic["broadcast"], column(report, "broadcast")
    assert set(carried.values()) == {(sent.messages, sent.bytes)}
    assert len(carried) == 2 * num_pes - 2 + 1
    assert all(name.endswith(" down") for name in carried)
    levels = report.channels.by_level()
    assert len(levels) == log2(num_pes) + 1
    assert levels["level 0"]["channels"] == 2 * num_pes


def test_busy_cycles_are_overheads_and_beats() -> None:
    report = simulate_on("line", 4, "megatron", network__link__bytes_per_cycle=16, network__link__overhead_cycles=3)
    table, uses = report.channels, report.trace.channel_use
    link = table.name.index("line 0->1")
    sizes = uses.num_bytes[uses.channel == link].tolist()
    assert sizes
    assert table.busy_cycles[link] == sum(3 + ceil(size / 16) for size in sizes)
    assert table.utilization()[link] == pytest.approx(table.busy_cycles[link] / report.latency_cycles)
    assert table.utilization("broadcast", "reduce").max() <= table.utilization().max()


def test_one_bus_and_one_tree_are_rows_too() -> None:
    report = tiny("workflow-1", 16)
    table = report.channels
    assert table.name == ("bus", "tree")
    assert table.row(0)["busy_cycles"] == report.bounds["bus_cycles"]
    assert table.row(1)["busy_cycles"] == report.bounds["tree_cycles"]
    for tag, use in report.traffic.items():
        row = table.row(1 if tag == "reduce" else 0)["by_tag"].get(tag, {"messages": 0, "bytes": 0})
        assert (row["messages"], row["bytes"]) == (use.messages, use.bytes)
    levels = table.by_level()
    assert levels["bus"]["utilization_mean"] == report.utilization["bus"]
    assert levels["tree"]["utilization_mean"] == report.utilization["tree"]


@pytest.mark.parametrize("kind", GRAPHS)
def test_the_json_of_a_graph_says_levels_and_the_hottest(kind: str) -> None:
    report = tiny_on(kind)
    found = json.loads(report.to_json())
    channels, table = found["channels"], report.channels
    assert channels["count"] == len(table)
    assert list(channels["by_level"]) == list(dict.fromkeys(table.level))
    assert set(channels["by_level"]) | {"network_mean", "network_max"} <= set(found["utilization"])
    assert not {"bus", "tree"} & set(found["utilization"])
    hottest = channels["hottest"]
    assert 0 < len(hottest) <= NUM_HOTTEST
    assert hottest[0]["busy_cycles"] == found["bounds"]["network_cycles"]
    assert hottest[0]["utilization"] == found["utilization"]["network_max"]
    assert [row["busy_cycles"] for row in hottest] == sorted((row["busy_cycles"] for row in hottest), reverse=True)
    assert list(hottest[0]) == [
        "name",
        "level",
        "bytes_per_cycle",
        "length_mm",
        "messages",
        "bytes",
        "busy_cycles",
        "utilization",
        "by_tag",
    ]
    assert all(0.0 <= value <= 1.0 for value in found["utilization"].values())


def test_the_json_does_not_grow_with_the_channels() -> None:
    small, large = (len(json.dumps(tiny_on("mesh", "megatron", size).channels.to_dict())) for size in (16, 256))
    assert large < 1.5 * small


def test_the_frame_has_a_row_for_every_channel() -> None:
    report = tiny_on("mesh")
    frame = report.channels.to_frame()
    assert frame["name"].tolist() == list(report.channels.name)
    assert frame["bytes"].sum() == report.channels.bytes.sum()
    assert "reduce busy_cycles" in frame
    assert "scatter bytes" not in frame


def test_a_level_that_is_called_like_a_unit_is_told_apart() -> None:
    report = simulate_on("mesh", 4, "megatron", DECODE)
    renamed = replace(report.channels, level=tuple("pe_matrix" for _ in report.channels.level))
    found = utilization(report.timeline, renamed)
    assert found["level pe_matrix"] != found["pe_matrix"] == report.utilization["pe_matrix"]
