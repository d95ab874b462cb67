"""The trace file, read back by a strict parser of our own."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from pe_sim.report.perfetto import pe_ranges, trace_json
from pe_sim.report.report import Report
from tests.report.samples import WORKFLOWS, simulate_tiny, tiny


def tracks(text: str) -> dict[str, list[dict[str, Any]]]:
    """Slices by the track's name; fails on an event that is no slice, counter or name."""
    found = json.loads(text)
    assert found["displayTimeUnit"] == "ns"
    names: dict[int, str] = {}
    slices: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for event in found["traceEvents"]:
        assert event["ph"] in ("M", "X", "C")
        if event["ph"] == "M" and event["name"] == "thread_name":
            assert event["tid"] not in names
            names[event["tid"]] = event["args"]["name"]
        elif event["ph"] == "X":
            slices[event["tid"]].append(event)
    assert set(slices) <= set(names)
    assert len(set(names.values())) == len(names)
    return {names[tid]: events for tid, events in slices.items()}


def nanoseconds(microseconds: float) -> int:
    assert abs(microseconds * 1000 - round(microseconds * 1000)) < 1e-6
    return round(microseconds * 1000)


@pytest.mark.parametrize("workflow", WORKFLOWS)
@pytest.mark.parametrize("clock_ghz", [1.0, 0.7, 1.7])
def test_slices_of_a_track_are_sorted_and_do_not_overlap(workflow: str, clock_ghz: float) -> None:
    report = simulate_tiny(workflow, 16, clock_ghz=clock_ghz)
    for events in tracks(trace_json(report)).values():
        reached = reached_cycle = 0
        for event in events:
            start, duration = nanoseconds(event["ts"]), nanoseconds(event["dur"])
            assert start >= reached
            assert event["args"]["start_cycle"] >= reached_cycle
            reached, reached_cycle = start + duration, event["args"]["end_cycle"]
        assert reached_cycle <= report.latency_cycles
        assert reached <= round(report.latency_cycles / clock_ghz)


def busy(events: list[dict[str, Any]]) -> int:
    return sum(event["args"]["cycles"] for event in events)


@pytest.mark.parametrize("workflow", WORKFLOWS)
def test_the_bus_track_has_all_messages(workflow: str) -> None:
    report = tiny(workflow, 8)
    events = tracks(trace_json(report)).get("bus", [])  # batch-block has no communication
    on_bus = {tag: use for tag, use in report.traffic.items() if use.messages and tag != "reduce"}
    for tag, use in on_bus.items():
        mine = [event for event in events if event["args"]["tag"] == tag]
        assert sum(event["args"]["uses"] for event in mine) == use.messages
        assert sum(event["args"]["bytes"] for event in mine) == use.bytes
        assert busy(mine) == use.busy_cycles
    assert {event["args"]["tag"] for event in events} == set(on_bus)


def test_every_pe_is_on_one_track_and_has_all_its_stages() -> None:
    report = tiny("workflow-1", 6)  # neither heads nor rows divide evenly
    ranges = pe_ranges(report)
    assert [pe for first, last in ranges for pe in range(first, last)] == list(range(6))
    assert len(ranges) > 1
    found = tracks(trace_json(report))
    for first, last in ranges:
        events = found[f"PE {first}" if last == first + 1 else f"PE {first}-{last - 1}"]
        for pe in range(first, last):
            ends = [int(span.pe_end[pe]) for span in report.trace.spans if span.pe_end is not None]
            assert [event["args"]["end_cycle"] for event in events] == sorted(end for end in ends if end >= 0)


def test_overlapping_reductions_get_lanes_of_their_own() -> None:
    slow_bus = {"network__bus__bytes_per_cycle": 1, "network__tree__bytes_per_cycle": 1}
    report = simulate_tiny("workflow-1", 16, **slow_bus)
    found = tracks(trace_json(report))
    on_tree = [event for name, events in found.items() if name.startswith("tree") for event in events]
    assert sum(event["args"]["bytes"] for event in on_tree) == report.traffic["reduce"].bytes
    assert sum(event["args"]["uses"] for event in on_tree) == report.traffic["reduce"].messages


def counter(report: Report) -> list[dict[str, Any]]:
    events = json.loads(trace_json(report))["traceEvents"]
    return [event for event in events if event["ph"] == "C"]


def test_the_counter_has_the_mean_of_the_bus() -> None:
    report = tiny("all-row", 8)
    values = [event["args"]["percent"] for event in counter(report)]
    assert values[-1] == 0.0
    assert all(0.0 <= value <= 100.0 for value in values)
    assert sum(values) / (len(values) - 1) == pytest.approx(100 * report.utilization["bus"], abs=0.01)


def test_pes_beyond_the_limit_are_named_as_left_out() -> None:
    report = tiny("workflow-1", 6)
    ranges = pe_ranges(report)
    text = trace_json(report, max_pe_tracks=1)
    assert sum(name.startswith("PE") for name in tracks(text)) == 1
    assert len(json.loads(text)["otherData"]["pes_left_out"]) == len(ranges) - 1 > 0
    assert json.loads(trace_json(report))["otherData"]["pes_left_out"] == []


def test_save_trace_writes_the_text(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    tiny().save_trace(path)
    assert path.read_text(encoding="utf-8") == trace_json(tiny())
