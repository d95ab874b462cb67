"""The critical path covers the latency, and every link follows from what comes before it."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pe_sim.config.step import Decode, Prefill
from pe_sim.mapping.workflow import WORKFLOWS as REGISTERED
from pe_sim.report.critical_path import Link
from pe_sim.report.report import Report
from tests.report.samples import WORKFLOWS, simulate_tiny, tiny


def assert_covers(report: Report) -> None:
    links = report.critical_path()
    assert links[0].start == 0
    assert links[-1].end == report.latency_cycles
    assert all(before.end == after.start for before, after in pairwise(links))
    assert all(link.cycles > 0 for link in links)
    assert sum(link.cycles for link in links) == report.latency_cycles


def follows(report: Report, before: Link, after: Link) -> bool:
    """Whether `after` takes what `before` made, or the unit or channel it held."""
    span = report.trace.spans[after.order]
    same_unit = before.pe == after.pe and (before.pe is not None or before.resource == after.resource)
    return before.order in span.inputs or same_unit


@settings(max_examples=60)
@given(
    workflow=st.sampled_from(WORKFLOWS),
    num_pes=st.integers(1, 20),
    overlap=st.integers(0, 2),
    batch_size=st.integers(1, 3),
    length=st.integers(1, 90),
    prefill=st.booleans(),
    downlink=st.booleans(),
    burst=st.sampled_from([None, 64]),
)
def test_links_cover_the_latency_and_follow_each_other(
    workflow: str,
    num_pes: int,
    overlap: int,
    batch_size: int,
    length: int,
    prefill: bool,
    downlink: bool,
    burst: int | None,
) -> None:
    step = Prefill(batch_size, prompt_len=length) if prefill else Decode(batch_size, length)
    network = {"network__tree__downlink": downlink, "network__bus__burst_bytes": burst}
    report = simulate_tiny(workflow, num_pes, step, overlap=overlap, **network)
    assert_covers(report)
    links = report.critical_path()
    assert all(follows(report, before, after) for before, after in pairwise(links))
    travel = report.array.network.bus.request_cycles
    assert {link.wait_cycles for link in links} <= {0, travel}
    assert all(link.wait_cycles == 0 for link in links if link.resource != "bus")


def test_links_on_pes_are_the_stages_of_those_pes() -> None:
    report = tiny("workflow-1", 16)
    on_pes = [link for link in report.critical_path() if link.pe is not None]
    assert on_pes
    for link in on_pes:
        span = report.trace.spans[link.order]
        assert span.pe_start is not None
        assert span.pe_end is not None
        assert (span.pe_start[link.pe], span.pe_end[link.pe]) == (link.start, link.end)


def test_one_pe_alone_does_everything_in_a_row() -> None:
    report = tiny("all-row", 1)
    assert {link.pe for link in report.critical_path() if link.resource.startswith("pe_")} == {0}
    works = [span.order for span in report.trace.spans if span.pe_start is not None]
    assert [link.order for link in report.critical_path() if link.pe == 0] == works


def test_the_bus_is_the_path_when_it_is_slow() -> None:
    slow = simulate_tiny("all-row", 16, network__bus__bytes_per_cycle=1, network__bus__overhead_cycles=50)
    on_bus = sum(link.cycles for link in slow.critical_path() if link.resource == "bus")
    assert on_bus > 0.5 * slow.latency_cycles


@pytest.mark.parametrize("workflow", ["workflow-1", "workflow-2", "megatron"])
@pytest.mark.parametrize("lengths", [[30, 30], [90, 3, 40, 20, 55]])
def test_groups_that_share_the_root_cover_the_latency_too(workflow: str, lengths: list[int]) -> None:
    grouped = replace(REGISTERED[workflow], groups=2)
    report = simulate_tiny(grouped, 8, Decode(context_len=lengths))
    assert_covers(report)
    links = report.critical_path()
    assert all(follows(report, before, after) for before, after in pairwise(links))
    assert {link.wait_cycles for link in links} <= {0, report.array.network.bus.request_cycles}


@pytest.mark.parametrize("workflow", WORKFLOWS)
def test_the_aggregate_adds_up_and_is_sorted(workflow: str) -> None:
    report = tiny(workflow)
    entries = report.bounds["critical_path"]
    assert sum(entry["cycles"] for entry in entries) == report.latency_cycles
    assert sum(entry["count"] for entry in entries) == len(report.critical_path())
    assert sum(entry["share"] for entry in entries) == pytest.approx(1.0)
    assert [entry["cycles"] for entry in entries] == sorted((entry["cycles"] for entry in entries), reverse=True)
    keys = [(entry["operator"], entry["stage"], entry["resource"]) for entry in entries]
    assert len(set(keys)) == len(keys)
