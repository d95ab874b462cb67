"""One semantics: the fast engine gives what the event engine gives, to the cycle and the byte."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pe_sim.config.arrays.load import load_array
from pe_sim.config.models.load import load_model
from pe_sim.config.step import Decode, Prefill
from pe_sim.engine.event.run import run_event
from pe_sim.engine.fast.run import run_fast
from pe_sim.mapping.mapper import place
from pe_sim.mapping.workflow import WORKFLOWS
from pe_sim.network.interconnect import interconnect_of
from pe_sim.report.analysis.channels import channel_table
from pe_sim.schedule.lowering import lower
from pe_sim.schedule.stages import PeStage, RootStage, RoutedStage
from tests.engine.draws import bus_trees, graphs, models, oddities, steps, workflows
from tests.helpers import small_array, tiny_llama

INTERCONNECTS = ("bus and tree", "graphs")
SPAN_FIELDS = ("order", "layer", "name", "operator", "distribution", "resource", "start", "end", "inputs", "on_pes")


def assert_same(event, fast):
    """Cycles, start and end of every stage and each of its parts, traffic, busy cycles, uses of channels."""
    assert fast.makespan_cycles == event.makespan_cycles
    for expected, given_span in zip(event.spans, fast.spans, strict=True):
        for name in SPAN_FIELDS:
            assert getattr(given_span, name) == getattr(expected, name), (expected.name, expected.layer, name)
        np.testing.assert_array_equal(given_span.part_start, expected.part_start, expected.name)
        np.testing.assert_array_equal(given_span.part_end, expected.part_end, expected.name)
    assert fast.traffic == event.traffic
    assert list(fast.traffic) == list(event.traffic)
    for tag, use in event.traffic.items():
        assert fast.traffic[tag].busy_cycles == use.busy_cycles
    assert fast.root_busy == event.root_busy
    assert fast.read_bytes == event.read_bytes
    for resource, busy in event.pe_busy.items():
        np.testing.assert_array_equal(fast.pe_busy[resource], busy)
    for column in ("channel", "tag", "stage", "start", "end", "num_bytes", "part"):
        np.testing.assert_array_equal(getattr(fast.channel_use, column), getattr(event.channel_use, column))


def assert_table_is_what_channels_did(schedule, trace):
    """The table of channels, from the schedule alone; of the tree's joints it has only the busiest."""
    table, uses = channel_table(schedule, trace.makespan_cycles), trace.channel_use
    held, carried = np.zeros((2, len(uses.channels), len(uses.tags)), dtype=np.int64)
    np.add.at(held, (uses.channel, uses.tag), uses.end - uses.start)
    np.add.at(carried, (uses.channel, uses.tag), uses.num_bytes)
    rows = [uses.channels.index(name) for name in table.name]
    np.testing.assert_array_equal(table.bytes, carried[rows])
    single = [row for row, name in enumerate(table.name) if name not in ("tree", "downlink")]
    np.testing.assert_array_equal(table.busy[single], held[rows][single])


def assert_uses_are_of_their_parts(schedule, trace):
    """What held a channel is on it, with its bytes, from its grant on; a hop was not granted before what feeds it."""
    stages = [stage for run in schedule.sequence for stage in schedule.blocks[run.block].stages]
    uses = trace.channel_use
    for span, stage in zip(trace.spans, stages, strict=True):
        if isinstance(stage, PeStage | RootStage):
            continue
        hops = stage.hops if isinstance(stage, RoutedStage) else None
        num_bytes = stage.num_bytes if hops is None else stage.num_bytes[hops.message]
        rows = np.flatnonzero(uses.stage == span.order)
        part, used = uses.part[rows], np.flatnonzero(num_bytes)
        carried = np.zeros_like(num_bytes)
        np.add.at(carried, part, uses.num_bytes[rows])
        np.testing.assert_array_equal(carried, num_bytes)
        first = np.full(len(num_bytes), trace.makespan_cycles, dtype=np.int64)
        np.minimum.at(first, part, uses.start[rows])
        np.testing.assert_array_equal(first[used], span.part_start[used])
        assert (uses.end[rows] <= span.part_end[part]).all()
        if hops is not None:
            np.testing.assert_array_equal(uses.channel[rows], hops.channel[part])
            assert_in_order_of_the_way(interconnect_of(schedule.array).topology.channels, hops, span)


def assert_in_order_of_the_way(channels, hops, span):
    grant, tail = span.parts.start[: len(hops)], span.parts.end[: len(hops)]
    head = grant + (channels.overhead_cycles + channels.latency_cycles)[hops.channel]
    shown = np.where(hops.stored, tail[hops.before], head[hops.before])
    assert (grant[hops.after] >= shown + hops.wait_cycles[hops.after]).all()


def compare(model, array, step, workflow):
    """Runs both; returns whether the fast engine had to go event by event."""
    schedule = lower(place(model, array, step, workflow))
    fast = run_fast(schedule)
    assert fast.engine == "fast"
    if fast.notes:
        assert "event by event" in fast.notes[0]
    assert_same(run_event(schedule), fast)
    assert_table_is_what_channels_did(schedule, fast)
    assert_uses_are_of_their_parts(schedule, fast)
    return bool(fast.notes)


def agree(arrays, examples):
    """Compares the engines on random steps; those that went event by event compare nothing and do not count."""
    compared = Counter()

    @settings(max_examples=examples, suppress_health_check=[HealthCheck.too_slow])
    @given(models, steps, arrays, st.data())
    def random_step(model, step, array, data):
        if not compare(model, array, step, data.draw(workflows(array.num_pes))):
            compared.update(["all", f"overlap {array.overlap}", *oddities(array)])

    random_step()
    return compared


@pytest.mark.parametrize("arrays", [bus_trees(), graphs()], ids=INTERCONNECTS)
def test_random_steps(arrays):
    assert agree(arrays, examples=30)["all"] >= 10


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arrays", "examples", "more"),
    [(bus_trees(), 2000, {"whole messages in bursts"}), (graphs(), 1000, set())],
    ids=INTERCONNECTS,
)
def test_many_random_steps(arrays, examples, more):
    compared = agree(arrays, examples)
    assert compared["all"] >= examples // 2
    odd = {"a root slower than a channel", "a channel without latency", "requests that travel", *more}
    assert set(compared) == {"all", *odd, *(f"overlap {level}" for level in range(4))}
    assert min(compared.values()) >= examples // 20


@pytest.mark.parametrize("burst", [64, 100])
def test_bursts_go_event_by_event(burst):
    assert compare(
        tiny_llama(), small_array(8, burst=burst, gather="serial"), Decode(context_len=9), WORKFLOWS["all-row"]
    )


@pytest.mark.parametrize("overlap", [0, 1, 2, 3])
@pytest.mark.parametrize("workflow", ["workflow-1", "workflow-2", "alternating", "megatron", "all-row", "all-col"])
def test_one_group_needs_no_fallback(workflow, overlap):
    array = small_array(16, overlap=overlap)
    assert not compare(tiny_llama(num_hidden_layers=6), array, Decode(context_len=[3, 70]), WORKFLOWS[workflow])


@pytest.mark.parametrize("family", ["gpt2", "bert-base-uncased"])
@pytest.mark.parametrize("workflow", sorted(WORKFLOWS))
def test_other_families(family, workflow):
    model = load_model(family, {"num_layers": 3})
    step = Prefill(3, prompt_len=7)
    compare(model, small_array(12, overlap=2), step, WORKFLOWS[workflow])


LARGE = [
    ("llama-2-7b", "bus-tree-256", Decode(context_len=2048), "workflow-1", {}),
    ("llama-2-7b", "bus-tree-1024", Decode(context_len=2048), "workflow-1", {"overlap": 3}),
    ("llama-2-7b", "bus-tree-1024", Decode(context_len=2047), "workflow-2", {"overlap": 2}),
    ("llama-3-8b", "bus-tree-256", Prefill(prompt_len=100), "alternating", {"overlap": 2}),
    ("gpt2-xl", "bus-tree-64", Decode(context_len=[900, 3, 511]), "megatron", {"num_pes": 97}),
    ("llama-2-13b", "bus-tree-1024", Decode(4, 700), "all-row", {}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("model", "array", "step", "workflow", "overrides"), LARGE)
def test_large_steps(model, array, step, workflow, overrides):
    assert not compare(load_model(model), load_array(array, overrides), step, WORKFLOWS[workflow])
