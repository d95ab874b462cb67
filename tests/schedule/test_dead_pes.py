"""Collectives and GEMMs alone on arrays with dead PEs: only the living take part."""

from dataclasses import replace

import pytest

from pe_sim import api
from pe_sim.engine.event.run import run_event
from pe_sim.engine.fast.run import run_fast
from pe_sim.errors import InputError
from pe_sim.schedule.collectives import KINDS, collective_schedule
from pe_sim.schedule.matrix import gemm_schedule
from tests.helpers import small_array
from tests.network.networks import array_of

# What is sent by, or to, each living PE, in messages; of the ways of one bus and one tree that send one by one.
SERIAL = {"gather": "serial", "scatter": "serial"}
PER_PE = {"scatter": "scatter", "gather": "gather", "all-gather": "all-gather"}


@pytest.mark.parametrize("kind", KINDS)
def test_both_engines(kind):
    schedule = collective_schedule(kind, small_array(16, {"dead_pes": [0, 3, 4]}), 100).schedule
    event, fast = run_event(schedule), run_fast(schedule)
    assert event.makespan_cycles == fast.makespan_cycles
    assert event.traffic == fast.traffic


@pytest.mark.parametrize(("kind", "tag"), PER_PE.items())
def test_a_message_for_each_living_pe(kind, tag):
    result = api.collective(kind, small_array(16, {"dead_pes": [0, 3, 4]}, **SERIAL), 100)
    assert (result.traffic[tag].messages, result.traffic[tag].bytes) == (13, 1300)


def test_every_pair_of_the_living():
    traffic = api.collective("all-to-all", small_array(6, {"dead_pes": [2]}), 10).traffic["all-to-all"]
    assert (traffic.messages, traffic.bytes) == (20, 200)


def test_a_reduction_and_a_broadcast_take_what_they_take():
    whole, damaged = small_array(16), small_array(16, {"dead_pes": [0, 7]})
    for kind in ("reduce", "broadcast", "all-reduce"):
        assert api.collective(kind, damaged, 256).cycles == api.collective(kind, whole, 256).cycles


def test_one_living_pe_has_nothing_to_move():
    array = small_array(4, {"dead_pes": [0, 1, 3]})
    for kind in ("all-reduce", "all-gather", "reduce-scatter", "all-to-all"):
        assert api.collective(kind, array, 10).cycles == 0


def test_on_a_graph_of_channels_it_is_refused():
    array = replace(array_of("mesh", 9), dead_pes=(4,))
    with pytest.raises(InputError) as caught:
        api.collective("reduce", array, 10)
    assert str(caught.value) == (
        "dead_pes: a collective alone on a graph of channels goes over all PEs\n"
        "  given:    [4]\n"
        "  expected: [], or an array with one bus and one tree (network.kind bus_tree)"
    )


def test_a_gemm_is_on_the_lowest_living_pe():
    trace = run_fast(gemm_schedule(small_array(4, {"dead_pes": [0, 1]}), 3, 32, 16))
    alone = run_fast(gemm_schedule(small_array(1), 3, 32, 16))
    assert trace.makespan_cycles == alone.makespan_cycles
    assert trace.pe_busy["pe_matrix"].tolist() == [0, 0, alone.pe_busy["pe_matrix"][0], 0]
