"""The critical path covers the latency, and every link follows from what comes before it."""

from dataclasses import replace
from io import StringIO
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import strategies as st

from pe_sim.api import simulate
from pe_sim.config.arrays.load import load_array
from pe_sim.config.models.load import load_model
from pe_sim.config.step import Decode, Prefill
from pe_sim.mapping.workflow import WORKFLOWS as REGISTERED
from pe_sim.mapping.workflow import Workflow
from pe_sim.report.analysis.causes import Causes
from pe_sim.report.analysis.critical_path import WAIT, Link, Links, counted
from pe_sim.report.report import Report
from pe_sim.report.step import cycles_by_kind, parts
from pe_sim.schedule.stages import MessageStage, PeStage
from pe_sim.trace import NOT_ACTIVE
from tests.helpers import diagonal, given_in_both
from tests.report.samples import DECODE, TINY, WORKFLOWS, simulate_tiny, tiny


def assert_covers(report: Report) -> None:
    links = report.critical_path()
    assert links[0].start == 0
    assert links[-1].end == report.latency_cycles
    assert all(before.end == after.start for before, after in pairwise(links))
    assert all(link.cycles > 0 for link in links)
    assert sum(link.cycles for link in links) == report.latency_cycles


def assert_explained(report: Report) -> None:
    """Every link takes what the link before it made, or the unit or channel that it held, and nothing is guessed.

    A streamed message whose head is there at once is no link: what takes it may follow what held the bus before it.
    """
    links, spans = report.critical_path(), report.trace.spans
    for before, after in pairwise(links):
        same_unit = before.pe == after.pe and (before.pe is not None or before.resource == after.resource)
        sources = sources_of(report, after)
        held_bus = before.resource == "bus" and any(spans[order].resource == "bus" for order in sources)
        assert same_unit or before.order in sources or (comes_at_once(report) and held_bus), (before, after)
    travel = report.array.bus_tree.bus.request_cycles
    assert {link.wait_cycles for link in links} <= {0, travel}
    assert all(link.wait_cycles == 0 for link in links if link.resource != "bus")
    assert all(link.resource != WAIT for link in links)


def comes_at_once(report: Report) -> bool:
    """Whether the head of a streamed message is there in the cycle of its grant."""
    bus = report.array.bus_tree.bus
    return report.array.overlap == 3 and bus.overhead_cycles + bus.latency_cycles == 0


def sources_of(report: Report, link: Link) -> set[int]:
    """Orders of the stages whose results a link takes; what takes no time hands on what it takes.

    So does a message that is streamed over a bus without overhead and latency: its head is there when it is asked for.
    """
    spans, at_once = report.trace.spans, comes_at_once(report)
    found: set[int] = set()
    waiting = list(spans[link.order].inputs)
    while waiting:
        order = waiting.pop()
        if order in found:
            continue
        found.add(order)
        start, end = spans[order].pe_start, spans[order].pe_end
        is_free = start is not None and end is not None and bool((start == end).any())
        if is_free or (at_once and spans[order].resource == "bus"):
            waiting += spans[order].inputs
    return found


AT_ROOT = ("attention_norm", "attention_add", "ffn_norm", "ffn_add", "activation")


def variant(name: str, groups: int, at_root: set[str]) -> Workflow:
    """A registered workflow with groups, where it can have them, and with some vector operators at the root."""
    whole = REGISTERED[name]
    if whole.stream_weights and groups > 1:
        at_root = set()  # the event engine sends weights when the first group's part is at the root
    pattern = tuple(replace(plan, **dict.fromkeys(at_root, "root")) for plan in whole.pattern)
    return replace(whole, pattern=pattern, groups=1 if whole.pipelined else groups)


@given_in_both(
    25,
    150,
    workflow=st.sampled_from(WORKFLOWS),
    groups=st.sampled_from([1, 2, 4]),
    at_root=st.just(set()) | st.sets(st.sampled_from(AT_ROOT)),
    num_pes=st.integers(1, 20),
    overlap=st.integers(0, 3),
    lengths=st.lists(st.integers(1, 90), min_size=1, max_size=6),
    prefill=st.booleans(),
    engine=st.sampled_from(["fast", "event"]),
    downlink=st.booleans(),
    burst=st.sampled_from([None, None, 64, 10**9]),
    root_rate=st.sampled_from([3, 512]),
    free=st.booleans(),
    softmax_combine=st.sampled_from([1, 12]),
)
def test_links_cover_the_latency_and_follow_each_other(
    workflow: str,
    groups: int,
    at_root: set[str],
    num_pes: int,
    overlap: int,
    lengths: list[int],
    prefill: bool,
    engine: str,
    downlink: bool,
    burst: int | None,
    root_rate: int,
    free: bool,
    softmax_combine: int,
) -> None:
    chosen = variant(workflow, 1 if num_pes % groups else groups, at_root)
    step = Prefill(prompt_len=lengths) if prefill else Decode(context_len=lengths)
    changes = {"downlink": downlink, "softmax_combine_cycles": softmax_combine}
    network = {f"network__tree__{name}": value for name, value in changes.items()}
    network |= {"network__bus__burst_bytes": burst, "root__memory__bytes_per_cycle": root_rate}
    if free:
        network |= {"network__bus__latency_cycles": 0, "network__bus__overhead_cycles": 0}
    report = simulate_tiny(chosen, num_pes, step, engine, overlap=overlap, **network)
    assert_covers(report)
    assert_explained(report)


def delayed(report: Report, order: int, cycles: int) -> Report:
    """The report with everything from a stage on moved away from what caused it."""
    spans, uses = report.trace.details()
    moved = [
        span
        if span.order < order or span.start == NOT_ACTIVE
        else replace(
            span,
            start=span.start + cycles,
            end=span.end + cycles,
            base=span.base + cycles,
        )
        for span in spans
    ]
    later = np.where(uses.stage >= order, cycles, 0)
    held = replace(uses, start=uses.start + later, end=uses.end + later)
    makespan = report.trace.makespan_cycles + cycles
    trace = replace(report.trace, makespan_cycles=makespan, details=lambda: (tuple(moved), held))
    return replace(report, trace=trace)


@pytest.mark.parametrize(("workflow", "groups"), diagonal(["workflow-1", "workflow-2", "megatron"], [1, 2]))
def test_what_nothing_explains_is_called_a_wait(workflow: str, groups: int) -> None:
    report = simulate_tiny(replace(REGISTERED[workflow], groups=groups), 8, Decode(3, 40))
    path = report.critical_path()
    for link in [*path[len(path) // 3 :: 7], path[-1]]:
        broken = delayed(report, link.order, 1_000_000)
        assert_covers(broken)
        waits = [found for found in broken.critical_path() if found.resource == WAIT]
        assert 1_000_000 <= sum(found.cycles for found in waits) < 1_000_000 + report.latency_cycles // 4
        assert max(found.cycles for found in broken.critical_path() if found.resource != WAIT) < report.latency_cycles
        assert all(found.wait_cycles == found.cycles and not found.tag for found in waits)
        assert all(found.wait_cycles <= 4 for found in broken.critical_path() if found.resource != WAIT)
        assert cycles_by_kind(broken)[WAIT] == sum(found.cycles for found in waits)
        assert sum(part.cycles for part in parts(broken)) == broken.latency_cycles
        assert sum(entry["cycles"] for entry in broken.bounds["critical_path"]) == broken.latency_cycles
        broken.print(StringIO())


def test_groups_that_wait_for_the_joints_of_others_are_not_charged_for_the_whole_step() -> None:
    """What was reported: one reduction of 2,708,774 cycles of which 2,705,684 were a wait."""
    model, array = load_model("llama-3.2-3b"), load_array("bus-tree-256", {"pe.matrix.outputs": 32})
    report = simulate(model, array, Decode(64, 512), replace(REGISTERED["workflow-2"], groups=4))
    assert_covers(report)
    assert_explained(report)
    assert max(link.cycles for link in report.critical_path()) < 0.1 * report.latency_cycles
    assert cycles_by_kind(report)["tree"] < 0.25 * report.latency_cycles


@pytest.mark.parametrize("engine", ["fast", "event"])
def test_streamed_work_is_cut_where_its_message_arrived(engine: str) -> None:
    """At overlap 3 a matrix operator starts at a head and is held up by the tail, and a broadcast starts before one."""
    slow = {"network__bus__bytes_per_cycle": 1, "network__tree__bytes_per_cycle": 1, "overlap": 3}
    report = simulate_tiny("workflow-1", 8, Decode(4, 40), engine, **slow)
    assert_covers(report)
    assert_explained(report)
    spans, stages, links = report.trace.spans, report.timeline.stages, report.critical_path()
    ends_at_tail = starts_early = 0
    for before, after in pairwise(links):
        stage = stages[after.order]
        if isinstance(stage, PeStage) and stage.tail_cycles is not None and before.resource == "bus":
            assert after.pe is not None
            assert after.cycles == stage.tail_cycles[after.pe]
            ends_at_tail += 1
        if isinstance(stage, MessageStage) and stage.early_cycles is not None and before.resource == "tree":
            assert before.end < spans[before.order].end
            starts_early += 1
    assert ends_at_tail
    assert starts_early


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


def deep(
    layers: int, workflow: str, array: str = "bus-tree-64", step: Decode | Prefill = DECODE, **sets: int
) -> Report:
    """A step of the tiny model with many layers that repeat each other."""
    model = load_model({**TINY, "num_hidden_layers": layers})
    return simulate(model, load_array(array, {"num_pes": 8, **sets}), step, workflow, allow_overflow=True)


def walked(report: Report) -> Report:
    """The same report, whose walk knows nothing of layers that repeat each other."""
    return replace(report, trace=replace(report.trace, blocks=None))


@pytest.mark.parametrize(
    ("workflow", "array", "sets"),
    [
        pytest.param("workflow-1", "bus-tree-64", {}, marks=pytest.mark.slow),
        pytest.param("alternating", "bus-tree-64", {"overlap": 3}, marks=pytest.mark.slow),
        ("batch-stream", "bus-tree-64", {"overlap": 2}),
        pytest.param("megatron", "hier-bus-256", {"network.cluster_pes": 4}, marks=pytest.mark.slow),
    ],
)
def test_links_of_repeated_layers_are_those_of_a_walk_over_all(workflow: str, array: str, sets: dict[str, int]) -> None:
    report = deep(230 if workflow == "alternating" else 180, workflow, array, **sets)
    links, every = report.critical_path(), walked(report).critical_path()
    assert isinstance(links, Links)
    assert isinstance(every, tuple)
    assert tuple(links) == every
    assert (links[-1], links[500], links[-500:-490]) == (every[-1], every[500], every[-500:-490])
    assert dict(report.bounds) == dict(walked(report).bounds)
    assert parts(report) == parts(walked(report))
    assert cycles_by_kind(report) == cycles_by_kind(walked(report))


def test_layers_that_differ_among_many_that_repeat_are_walked_over() -> None:
    """One layer of the middle takes longer: what is before it and behind it repeats, and it does not."""
    report = deep(700, "workflow-1")
    runs = report.trace.runs
    assert runs is not None
    assert runs.repeats(300, 1) > 0
    runs.base[250:] += 1
    assert runs.repeats(300, 1) == 0
    far = runs.repeats(400, 1)
    assert 0 < far < 400 - 250
    assert runs.repeats(200, 1) == 0


def test_a_walk_is_as_long_for_ten_times_the_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = list[object]()
    told = Causes.explain
    monkeypatch.setattr(Causes, "explain", lambda *given: seen.append(given) or told(*given))
    counts = []
    for layers in (300, 3000):
        seen.clear()
        report = deep(layers, "workflow-1")
        assert sum(times * link.cycles for link, times in counted(report.critical_path())) == report.latency_cycles
        counts.append(len(seen))
    assert counts[1] < 1.1 * counts[0]
