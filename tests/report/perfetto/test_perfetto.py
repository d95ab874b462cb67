"""The trace file, read back by a strict reader of our own."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from pe_sim.api import simulate
from pe_sim.config.arrays.load import load_array
from pe_sim.config.models.load import load_model
from pe_sim.config.step import Decode
from pe_sim.errors import InputError
from pe_sim.report.perfetto.export import BINS, trace_json
from pe_sim.report.perfetto.tracks import MAX_LANES, Slice, class_name, lanes_of, pe_classes
from pe_sim.report.report import Report
from tests.helpers import blocks_of, diagonal, given_in_both
from tests.report.perfetto.chrome_trace import ChromeTrace, parse
from tests.report.samples import DECODE, GRAPHS, TINY, WORKFLOWS, simulate_tiny, tiny, tiny_on

# What a counter is called in the file, and what the report calls the same.
COUNTED = {
    "bus": "bus",
    "reduction tree": "tree",
    "tree downlink": "downlink",
    "matrix units": "pe_matrix",
    "vector units": "pe_vector",
    "memory ports": "pe_memory",
}


def read(report: Report, **options: Any) -> ChromeTrace:
    return parse(trace_json(report, **options))


@pytest.mark.parametrize(("workflow", "clock_ghz"), diagonal(WORKFLOWS, [1.0, 0.7, 1.7]))
def test_every_workflow_at_clocks_that_do_not_divide_nanoseconds(workflow: str, clock_ghz: float) -> None:
    report = simulate_tiny(workflow, 16, clock_ghz=clock_ghz)
    found = read(report)
    ends = [event["ts"] + event["dur"] for events in found.slices.values() for event in events]
    assert max(ends) * 1000 <= round(report.latency_cycles / clock_ghz) + 1e-6
    assert found.flows or workflow == "batch-block"  # no communication inside its step


@given_in_both(6, 30, st.sampled_from(WORKFLOWS), st.integers(1, 12), st.integers(0, 3), st.integers(1, 3))
def test_any_small_step(workflow: str, num_pes: int, overlap: int, batch: int) -> None:
    step = Decode(batch_size=batch, context_len=11)
    check_counters(simulate_tiny(workflow, num_pes, step, overlap=overlap))


@pytest.mark.parametrize("kind", GRAPHS)
def test_every_graph_of_channels(kind: str) -> None:
    check_counters(tiny_on(kind))


@pytest.mark.parametrize("engine", ["fast", "event"])
@pytest.mark.parametrize(
    "changes",
    [
        {"network__tree__downlink": True},
        {"network__bus__burst_bytes": 16},
        {"network__bus__bytes_per_cycle": 1, "network__tree__bytes_per_cycle": 1},
        {"overlap": 3, "pe__matrix__outputs": 1, "pe__matrix__depth": 1},
    ],
    ids=lambda changes: ",".join(changes),
)
def test_machines_of_other_shapes(engine: str, changes: dict[str, Any]) -> None:
    check_counters(simulate_tiny("workflow-1", 16, engine=engine, **changes))


def check_counters(report: Report) -> None:
    """The mean of each counter of utilization is what the report says."""
    found = read(report)
    seen = 0
    for name, events in found.counters.items():
        assert len(events) == BINS + 1
        assert events[-1]["args"] in ({"percent": 0.0}, {"bytes": 0.0})
        label, _, what = name.partition(": ")
        if what == "utilization (%)":
            values = [event["args"]["percent"] for event in events[:-1]]
            expected = report.utilization[COUNTED.get(label, label)]
            assert sum(values) / BINS == pytest.approx(100 * expected, abs=1e-3)
            assert max(values) <= 100 + 1e-3
            seen += 1
        else:
            assert what == "bytes in flight (bytes)"
    assert seen >= 4  # the channels, and three kinds of units


def test_bytes_in_flight_are_those_of_the_messages() -> None:
    report = tiny("all-row", 8)
    events = read(report).counters["bus: bytes in flight (bytes)"]
    width = report.latency_cycles / BINS
    flown = sum(event["args"]["bytes"] for event in events) * width
    uses, latency = report.trace.channel_use, report.array.bus_tree.bus.latency_cycles
    mine = uses.channel == uses.channels.index("bus")
    expected = (uses.num_bytes * (uses.end + latency - uses.start))[mine].sum()
    assert flown == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("workflow", WORKFLOWS)
def test_the_bus_track_has_all_messages(workflow: str) -> None:
    report = tiny(workflow, 8)
    events = read(report).track("bus")
    on_bus = {tag: use for tag, use in report.traffic.items() if use.messages and tag != "reduce"}
    for tag, use in on_bus.items():
        mine = [event for event in events if event["args"]["tag"] == tag]
        assert sum(event["args"]["uses"] for event in mine) == use.messages
        assert sum(event["args"]["bytes"] for event in mine) == use.bytes
        assert sum(event["args"]["cycles"] for event in mine) == use.busy_cycles
    assert {event["args"]["tag"] for event in events} == set(on_bus)


def test_the_tree_has_all_reductions() -> None:
    slow_bus = {"network__bus__bytes_per_cycle": 1, "network__tree__bytes_per_cycle": 1}
    report = simulate_tiny("workflow-1", 16, **slow_bus)
    lanes = {name: events for name, events in read(report).tracks("Interconnect").items() if "tree" in name}
    on_tree = [event for events in lanes.values() for event in events]
    assert sum(event["args"]["bytes"] for event in on_tree) == report.traffic["reduce"].bytes
    assert sum(event["args"]["uses"] for event in on_tree) == report.traffic["reduce"].messages


def test_every_pe_is_on_one_track_and_has_all_its_stages() -> None:
    report = tiny("workflow-1", 6)  # neither heads nor rows divide evenly
    classes = pe_classes(report)
    assert sorted(pe for pes in classes for pe in pes.tolist()) == list(range(6))
    assert len(classes) > 1
    found = read(report)
    for pes in classes:
        events = found.track(class_name(pes))
        for pe in pes.tolist():
            ends = [int(span.pe_end[pe]) for span in report.trace.spans if span.pe_end is not None]
            assert [event["args"]["end_cycle"] for event in events] == sorted(end for end in ends if end >= 0)


def test_classes_without_neighbours_share_a_track() -> None:
    report = tiny_on("ring", "megatron")  # both ways around it are alike
    apart = [pes for pes in pe_classes(report) if len(pes) > 1 and pes[-1] - pes[0] >= len(pes)]
    assert apart
    names = [class_name(pes) for pes in apart]
    assert all("," in name for name in names)
    assert set(names) <= set(read(report).tracks("PEs"))


def test_a_pe_has_the_same_track_alone_and_for_its_class() -> None:
    report = tiny("workflow-1", 6)
    alone = read(report, pes="all").tracks("PEs")
    assert list(alone) == [name for pe in range(6) for name in (f"PE {pe}", f"PE {pe}: memory port")]
    shared = read(report)
    for pes in pe_classes(report):
        for pe in pes.tolist():
            for suffix in ("", ": memory port"):
                ours = [without_place(event) for event in alone[f"PE {pe}{suffix}"]]
                assert ours == [without_place(event) for event in shared.track(class_name(pes) + suffix)]
    assert list(read(report, pes=[4, 1, 4]).tracks("PEs"))[::2] == ["PE 1", "PE 4"]


def without_place(event: dict[str, Any]) -> dict[str, Any]:
    """Without the bytes as well: PEs of a class may stream a few more in the same cycles."""
    args = {name: value for name, value in event["args"].items() if name != "bytes"}
    return {name: value for name, value in event.items() if name not in ("pid", "tid")} | {"args": args}


def test_bytes_of_a_class_are_told_as_a_range_where_they_differ() -> None:
    report = tiny("workflow-1", 6)
    alone, (first, second) = read(report, pes="all"), pe_classes(report)[:2]
    for pes in (first, second):
        shared = [event["args"].get("bytes") for event in read(report).track(f"{class_name(pes)}: memory port")]
        each = [[event["args"].get("bytes") for event in alone.track(f"PE {pe}: memory port")] for pe in pes.tolist()]
        for told, *own in zip(shared, *each, strict=True):
            assert told == (own[0] if len(set(own)) == 1 else f"{min(own)}-{max(own)}")


@pytest.mark.parametrize("overlap", [0, 1, 2, 3])
def test_memory_ports_stream_all_that_the_pe_reads(overlap: int) -> None:
    report = simulate_tiny("workflow-2", 6, overlap=overlap)
    found = read(report, pes="all")
    prefetched = 0
    for pe in range(6):
        events = found.track(f"PE {pe}: memory port")
        assert sum(event["args"]["busy_cycles"] for event in events) == report.trace.pe_busy["pe_memory"][pe]
        assert all(event["args"]["busy_cycles"] <= event["args"]["cycles"] for event in events)
        prefetched += sum(event["name"].endswith("prefetch") for event in events)
    assert (prefetched > 0) == (overlap >= 2)


def test_the_critical_path_is_the_latency_layer_by_layer() -> None:
    report = tiny("workflow-1", 8)
    events = read(report).track("critical path")
    layers = [event for event in events if event["cat"] == "layer"]
    assert [event["name"] for event in layers] == ["layer 0", "layer 1"]
    links = [event["args"] for event in events if event["cat"] != "layer"]
    assert links[0]["start_cycle"] == 0
    assert links[-1]["end_cycle"] == report.latency_cycles
    assert all(a["end_cycle"] == b["start_cycle"] for a, b in pairwise(links))


def test_names_are_what_people_say() -> None:
    with blocks_of(2):
        report = simulate_tiny("workflow-1", 8)
    names = {event["name"] for events in read(report).slices.values() for event in events}
    assert "layer 1 · FFN down" in names
    assert "layer 0 · FFN SiLU and product · reduce gate and up to root" in names
    assert "layer 0 · FFN down · broadcast FFN activations to all PEs" in names
    assert "layer 0 · attention softmax · multicast scores to groups of PEs" in names
    assert "layer 0 · query projection · stream weights" in names
    assert not any("_" in name for name in names)


def test_an_arrow_leads_from_every_message_to_the_pes_it_feeds() -> None:
    report = tiny("megatron", 8)
    found = read(report)
    arrows = set()
    for ends in found.flows.values():
        names = []
        for end in ("s", "f"):
            event = ends[end]
            mine = found.slices[event["pid"], event["tid"]]
            names.append(next(each for each in mine if each["ts"] <= event["ts"] < each["ts"] + each["dur"])["name"])
        arrows.add(tuple(names))
    assert ("layer 0 · FFN norm · broadcast residual stream to all PEs", "layer 0 · FFN norm · rmsnorm") in arrows
    assert ("layer 0 · FFN down", "layer 0 · residual add · reduce residual stream to root") not in arrows
    reduced = "layer 0 · residual add · reduce residual stream to root"
    assert ("layer 0 · residual add · add", reduced) in arrows
    assert (reduced, "layer 0 · residual add · broadcast residual stream to all PEs") in arrows


def test_classes_beyond_the_limit_are_named_as_left_out() -> None:
    report = tiny("workflow-1", 6)
    classes = pe_classes(report)
    found = read(report, max_classes=1)
    assert len(found.tracks("PEs")) == 2  # its work and its memory port
    assert len(found.other["pes_left_out"]) == len(classes) - 1 > 0
    assert read(report).other["pes_left_out"] == []


def test_channels_beyond_the_limit_are_counted() -> None:
    report = tiny_on("mesh")
    found = read(report, max_channel_tracks=3)
    assert len(found.tracks("Interconnect")) == 3
    used = int((report.channels.busy_cycles > 0).sum())
    assert found.other["channels_left_out"] == used - 3 > 0


@pytest.mark.parametrize(
    ("pes", "message"),
    [
        ("clases", "pes: no such choice of PEs\n  given:    'clases'\n"),
        ([8], "pes: there is no such PE\n  given:    8\n"),
        ([-1], "pes: there is no such PE\n  given:    -1\n"),
        ([True], "pes: there is no such PE\n  given:    True\n"),
        (["1"], "pes: there is no such PE\n  given:    '1'\n"),
        ([], "pes: no PE is listed\n  given:    []\n"),
    ],
)
def test_pes_that_are_not_there_are_refused(pes: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        tiny().save_trace(tmp_path / "trace.json", pes=pes)
    assert str(caught.value).startswith(message)
    assert "  expected: classes, all, or numbers of PEs, 0 to 7" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_more_pes_than_a_file_can_hold_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pe_sim.report.perfetto.tracks.MAX_SLICES", 100)
    with pytest.raises(InputError, match=r"a timeline of 8 PEs would have up to \d+ slices"):
        trace_json(tiny(), pes="all")
    assert read(tiny())  # classes have their own limit


def test_save_trace_writes_the_text(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    tiny().save_trace(path)
    assert path.read_text(encoding="utf-8") == trace_json(tiny())
    assert json.loads(path.read_text(encoding="utf-8"))["otherData"]["accuracy"] == tiny().envelope.one_line()


def test_a_file_of_many_pes_and_layers_stays_small() -> None:
    report = simulate("llama-3.2-1b", "bus-tree-1024", Decode(context_len=64), "megatron", allow_overflow=True)
    text = trace_json(report)
    assert len(text) < 8_000_000
    assert len(parse(text).tracks("PEs")) <= 2 * 32


def test_what_overlaps_gets_lanes_of_its_own_up_to_a_limit() -> None:
    slices = [Slice(f"{start}", "reduce", start, start + 10) for start in range(0, 40, 2)]
    tracks, left_out = lanes_of("Interconnect", "reduction tree", slices)
    assert [track.name for track in tracks] == [f"reduction tree, lane {lane}" for lane in range(1, 6)]
    assert left_out == 0
    assert sorted(piece.start for track in tracks for piece in track.slices) == list(range(0, 40, 2))
    for track in tracks:
        assert all(a.end <= b.start for a, b in pairwise(track.slices))
    tracks, left_out = lanes_of("Interconnect", "reduction tree", [Slice("all", "reduce", 0, 9)] * (MAX_LANES + 3))
    assert (len(tracks), left_out) == (MAX_LANES, 3)
    assert lanes_of("Root", "root memory", []) == ([], 0)


@pytest.mark.parametrize("overlap", [1, 2])
def test_a_bank_of_rows_streams_all_that_the_pe_reads(overlap: int) -> None:
    array = load_array("aim-gddr6-16", {"overlap": overlap})
    report = simulate(load_model(TINY), array, DECODE, "workflow-1", allow_overflow=True)
    found = read(report, pes=[0, 15])
    for pe in (0, 15):
        events = found.track(f"PE {pe}: memory port")
        assert sum(event["args"]["busy_cycles"] for event in events) == report.trace.pe_busy["pe_memory"][pe]
    check_counters(report)
