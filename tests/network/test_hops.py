"""Recurrences over hops against a simulator that goes cycle by cycle, on random graphs, scopes and ready times."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import strategies as st

from pe_sim.network.collectives.plans import WAYS
from pe_sim.network.interconnect import interconnect_of
from pe_sim.network.routing.hop_times import ChannelTimes, run_hops
from pe_sim.network.routing.hops import HopBuilder
from tests.helpers import given_in_both
from tests.network.networks import LINK, SECTIONS, array_of
from tests.network.programs import (
    fitting_plans,
    one_brings_about_another,
    planner_of,
    run,
    small,
    step_by_cycles,
)


def random_graph(draw, num_pes):
    """A user's graph: a random tree of PEs, switches and the root, and some more edges; channels that differ."""
    names = ["root", *(f"pe{pe}" for pe in range(num_pes)), *(f"s{i}" for i in range(draw(st.integers(0, 3))))]
    pairs = {(draw(st.integers(0, i - 1)), i) for i in range(1, len(names))}
    more = st.tuples(st.integers(0, len(names) - 1), st.integers(0, len(names) - 1))
    pairs |= {tuple(sorted(pair)) for pair in draw(st.lists(more, max_size=4)) if pair[0] != pair[1]}
    edges = [
        {
            "source": names[a],
            "target": names[b],
            "bytes_per_cycle": draw(st.sampled_from([1, 3, 8])),
            "latency_cycles": draw(st.integers(0, 3)),
            "overhead_cycles": draw(st.integers(0, 2)),
            "ramp_cycles": draw(st.integers(0, 2)),
        }
        for a, b in sorted(pairs)
    ]
    return {"directed": False, "nodes": [{"id": name} for name in names], "edges": edges}


@st.composite
def arrays(draw):
    kind = draw(st.sampled_from([*SECTIONS, "graph", "graph"]))
    num_pes = draw(st.sampled_from([1, 2, 4, 8])) if kind in ("hypercube", "butterfly") else draw(st.integers(1, 9))
    section = {"combine_cycles": draw(st.integers(0, 3)), "forward_cycles": draw(st.integers(0, 2))}
    if kind == "bus_tree":
        return array_of(kind, num_pes)
    if kind == "hierarchical_bus":
        return array_of(kind, num_pes, **section)
    section["in_network_reduction"] = draw(st.booleans())
    if draw(st.booleans()):
        section["link"] = {**LINK, "latency_cycles": 0, "overhead_cycles": draw(st.integers(0, 1))}
    if kind == "graph":
        section["graph"] = random_graph(draw, num_pes)
    return array_of(kind, num_pes, **section)


@st.composite
def scopes(draw, num_pes):
    """Disjoint ranges of PEs."""
    cuts = sorted(draw(st.sets(st.integers(0, num_pes), min_size=2, max_size=5)) | {0, num_pes})
    bounds = list(itertools.pairwise(cuts))
    return draw(st.lists(st.sampled_from(bounds), min_size=1, unique=True).map(sorted))


@given_in_both(20, 120, st.data())
def test_every_program_as_a_simulator_that_goes_cycle_by_cycle(data):
    array = data.draw(arrays())
    interconnect = interconnect_of(array)
    bounds = data.draw(scopes(array.num_pes)) if array.num_pes > 1 else [(0, 1)]
    parts = [data.draw(st.integers(0, 20)) for _ in range(array.num_pes)]
    planner = planner_of(array, bounds, parts)
    kind = data.draw(st.sampled_from([*WAYS]))
    plans = fitting_plans(planner, kind)
    plan = plans[data.draw(st.sampled_from([*plans]))]
    for leg in plan.legs:
        hops = leg.program.hops
        ready = np.array([data.draw(st.integers(0, 15)) for _ in range(hops.num_sources)], dtype=np.int64)
        times = run(interconnect, leg, ready)
        sent = leg.program.message_bytes(leg.payload_bytes)
        grants, tails = step_by_cycles(hops, interconnect.topology.channels, sent, leg.program.rank, ready)
        assert times.grant.tolist() == grants
        assert times.tail.tolist() == tails


@given_in_both(15, 60, st.data())
def test_random_messages_as_a_simulator_that_goes_cycle_by_cycle(data):
    num_pes = data.draw(st.integers(2, 7))
    array = array_of("graph", num_pes, graph=random_graph(data.draw, num_pes))
    interconnect, builder = interconnect_of(array), HopBuilder()
    pairs = st.tuples(st.integers(0, num_pes), st.integers(0, num_pes)).filter(lambda pair: pair[0] != pair[1])
    ends = np.array(data.draw(st.lists(pairs, min_size=1, max_size=12)), dtype=np.int64)
    paths = interconnect.flows.paths(ends[:, 0], ends[:, 1])
    first, last = paths.add_to(builder, np.arange(len(ends)), 0)
    builder.start(ends[:, 0], first)
    later = [message for message in range(1, len(ends)) if data.draw(st.booleans())]
    before = [data.draw(st.integers(0, message - 1)) for message in later]
    for one, other in zip(before, later, strict=True):
        builder.link(last[[one]], first[[other]], stored=data.draw(st.booleans()))
    builder.end(last, ends[:, 1], paths.end_cycles)
    hops = builder.build(num_pes + 1, num_pes + 1, len(ends))
    if later:  # links between messages are not in the waves that the paths gave: put every hop behind what it waits for
        hops = in_waves(hops)
    channels = interconnect.topology.channels
    sent = np.array([data.draw(st.integers(0, 30)) for _ in ends], dtype=np.int64)
    ranks = np.array([data.draw(st.integers(-1, 3)) for _ in ends], dtype=np.int64)
    ready = np.array([data.draw(st.integers(0, 9)) for _ in range(num_pes + 1)], dtype=np.int64)
    work = hops.occupancy(channels, sent)
    times = run_hops(hops, channels, *work, ranks, ready, ChannelTimes.idle(len(channels)))
    grants, tails = step_by_cycles(hops, channels, sent, ranks, ready)
    assert times.grant.tolist() == grants
    assert times.tail.tolist() == tails


def in_waves(hops):
    wave = np.zeros(len(hops), dtype=np.int64)
    for _ in range(len(hops)):
        np.maximum.at(wave, hops.after, wave[hops.before] + 1)
    return replace(hops, wave=wave)


def test_what_a_grant_brings_about_in_its_cycle_comes_behind_what_was_taken_before():
    array, stage, grants = one_brings_about_another()
    channels = interconnect_of(array).topology.channels
    hops, ready = stage.hops, np.zeros(1, dtype=np.int64)
    work = hops.occupancy(channels, stage.num_bytes)
    times = run_hops(hops, channels, *work, stage.rank, ready, ChannelTimes.idle(len(channels)))
    assert times.grant.tolist() == grants
    assert step_by_cycles(hops, channels, stage.num_bytes, stage.rank, ready)[0] == grants


def test_one_message_over_two_channels():
    """Virtual cut-through: heads add up, beats are paid once."""
    interconnect = interconnect_of(small("line", 3))
    builder = HopBuilder()
    paths = interconnect.flows.paths(np.array([0]), np.array([2]))
    first, last = paths.add_to(builder, np.array([0]), 0)
    builder.start(np.array([0]), first)
    builder.end(last, np.array([0]), paths.end_cycles)
    hops = builder.build(1, 1, 1)
    channels = interconnect.topology.channels
    work = hops.occupancy(channels, np.array([80]))
    zero = np.zeros(1, dtype=np.int64)
    times = run_hops(hops, channels, *work, zero, zero, ChannelTimes.idle(len(channels)))
    assert times.complete.tolist() == [2 * (2 + 3) + 10]


@pytest.mark.parametrize(("widths", "expected"), [((1, 8), 5 + 80 + 3), ((8, 1), 2 * 5 + 80), ((8, 8), 2 * 5 + 10)])
def test_the_slower_channel_sets_the_tail(widths, expected):
    """Upstream it delays the tail, which then only flies; downstream it takes its own beats."""
    edges = [("pe0", "s"), ("s", "pe1"), ("s", "root")]
    graph = {
        "directed": False,
        "nodes": [{"id": name} for name in ("root", "pe0", "pe1", "s")],
        "edges": [
            {"source": a, "target": b, "bytes_per_cycle": w, "latency_cycles": 3, "overhead_cycles": 2}
            for (a, b), w in zip(edges, (*widths, 8), strict=True)
        ],
    }
    array = array_of("graph", 2, graph=graph)
    planner = planner_of(array, [(0, 2)], [80, 0])
    leg = planner.plan("all_to_all", "pairwise").legs[0]
    times = run(interconnect_of(array), leg, np.zeros(2, dtype=np.int64))
    assert times.complete.max() == expected
