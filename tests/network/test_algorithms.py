"""Every algorithm: that it brings the right values to the right places, its closed forms, what it is refused for."""

import itertools
from collections import Counter, defaultdict

import numpy as np
import pytest

from pe_sim.errors import InfeasibleError, InputError
from pe_sim.network.collectives.plans import WAYS
from pe_sim.network.interconnect import interconnect_of
from tests.helpers import diagonal
from tests.network.networks import SECTIONS, array_of, star
from tests.network.programs import (
    FORWARD,
    KAPPA,
    LAMBDA,
    OMEGA,
    beats,
    cycles,
    fitting_plans,
    planner_of,
    run,
    small,
)

HOP = OMEGA + LAMBDA
BYTES = (1, 8, 9, 100, 1000)
LINKED = ("line", "ring", "mesh", "torus", "hypercube")  # every channel the same, PEs beside each other


# ------------------------------------------------------------------------------------------- who ends up with what
def deliveries(interconnect, leg):
    """(sent at, there at, sender, receiver, payloads) of every message of a program between end points, by time."""
    program, hops, topology = leg.program, leg.program.hops, interconnect.topology
    times = run(interconnect, leg, np.zeros(hops.num_sources, dtype=np.int64))
    end_of = {int(channel): int(target) for _, target, channel in topology.edges}
    start_of = {int(channel): int(source) for source, _, channel in topology.edges}
    begin = program.begin if program.begin is not None else np.arange(hops.num_messages + 1)
    found = []
    for message in range(hops.num_messages):
        mine = np.flatnonzero(hops.message == message)
        if not len(mine):  # a hub's own
            continue
        first, last = mine[np.argmin(times.grant[mine])], mine[np.argmax(times.tail[mine])]
        payloads = program.payload[begin[message] : begin[message + 1]].tolist()
        ends = start_of[int(hops.channel[first])], end_of[int(hops.channel[last])]
        found.append((int(times.grant[first]), int(times.tail[last]), *ends, payloads))
    return found


def replayed(messages, held):
    """What everyone has in the end: (payload: who contributed); a message carries what its sender has by then."""
    events = [(sent, 1, index) for index, (sent, *_) in enumerate(messages)]
    events += [(there, 0, index) for index, (_, there, *_) in enumerate(messages)]
    carried = {}
    for _, is_sent, index in sorted(events):
        _, _, sender, receiver, payloads = messages[index]
        if is_sent:
            carried[index] = {payload: Counter(held[sender][payload]) for payload in payloads}
        else:
            for payload, terms in carried[index].items():
                held[receiver][payload] = held[receiver][payload] + terms
    return held


GRIDS = {"line": (1, 2, 5, 8, 12), "ring": (1, 2, 3, 8, 9), "mesh": (4, 6, 8, 9, 12, 16), "torus": (4, 9, 16, 15)}


def exchanging():
    for kind in (*LINKED, "butterfly", "h_tree", "fat_tree", "crossbar"):
        sizes = GRIDS.get(kind, (1, 2, 8, 16))
        yield from ((kind, num_pes, ((0, num_pes),)) for num_pes in sizes)
    yield "mesh", 16, ((0, 4), (4, 8), (8, 16))
    yield "line", 12, ((0, 3), (3, 4), (5, 12))
    yield "hypercube", 16, ((0, 4), (4, 8), (8, 16))
    yield "torus", 16, ((0, 8), (8, 12), (13, 16))
    yield "fat_tree", 16, ((0, 4), (4, 5), (8, 16))


@pytest.mark.parametrize(("kind", "num_pes", "bounds"), list(exchanging()))
def test_exchanges_sum_every_part_once_and_gather_all_of_them(kind, num_pes, bounds):
    array = array_of(kind, num_pes)
    interconnect, planner = interconnect_of(array), planner_of(array, bounds, 64)
    scopes = [list(range(*each)) for each in bounds]
    for name, plan in fitting_plans(planner, "reduce_scatter").items():
        if name in ("by_broadcast", "serial"):
            continue
        held = defaultdict(lambda: defaultdict(Counter))
        for pes in scopes:
            for pe, part in itertools.product(pes, pes):
                held[pe][part] = Counter([pe])
        after = replayed(deliveries(interconnect, plan.legs[0]), held)
        for pes in scopes:
            for pe in pes:
                assert after[pe][pe] == Counter(pes), (name, pe)
    for name, plan in fitting_plans(planner, "all_gather").items():
        if name in ("by_reduction", "serial"):
            continue
        held = defaultdict(lambda: defaultdict(Counter))
        for pes in scopes:
            for pe in pes:
                held[pe][pe] = Counter([pe])
        after = replayed(deliveries(interconnect, plan.legs[0]), held)
        for pes in scopes:
            for pe, part in itertools.product(pes, pes):
                assert after[pe][part] == Counter([part]), (name, pe, part)
    for name, plan in fitting_plans(planner, "all_reduce").items():
        if name != "recursive_doubling":
            continue
        held = defaultdict(lambda: defaultdict(Counter))
        for scope, pes in enumerate(scopes):
            for pe in pes:
                held[pe][scope] = Counter([pe])
        after = replayed(deliveries(interconnect, plan.legs[0]), held)
        for scope, pes in enumerate(scopes):
            for pe in pes:
                assert after[pe][scope] == Counter(pes)


@pytest.mark.parametrize("kind", [*LINKED, "h_tree", "crossbar"])
def test_relays_bring_every_term_to_the_hub_and_the_value_to_every_pe(kind):
    array = array_of(kind, 8, in_network_reduction=False)
    interconnect = interconnect_of(array)
    for bounds in ([(0, 8)], [(0, 4), (4, 8)], [(0, 2), (2, 3), (4, 8)]):
        planner = planner_of(array, bounds, 64)
        hubs = planner.pattern.hub.tolist()
        for name in ("tree", "star"):  # in a chain a message goes on before it is there: seen in its closed form
            held = defaultdict(lambda: defaultdict(Counter))
            for scope, each in enumerate(bounds):
                for pe in range(*each):
                    held[pe][scope] = Counter([pe])
            after = replayed(deliveries(interconnect, planner.plan("reduce", name).legs[0]), held)
            for scope, each in enumerate(bounds):
                assert after[hubs[scope]][scope] == Counter(range(*each)), name
            held = defaultdict(lambda: defaultdict(Counter))
            for scope, hub in enumerate(hubs):
                held[hub][scope] = Counter(["value"])
            after = replayed(deliveries(interconnect, planner.plan("broadcast", name).legs[0]), held)
            for scope, each in enumerate(bounds):
                assert all(after[pe][scope] == Counter(["value"]) for pe in range(*each)), name


@pytest.mark.parametrize("kind", SECTIONS)
def test_every_pe_of_every_scope_gets_something_and_nobody_else(kind):
    array = array_of(kind, 16)
    bounds = [(0, 4), (4, 8), (12, 16)]
    planner = planner_of(array, bounds, 64)
    members = {pe for each in bounds for pe in range(*each)}
    for way_kind in WAYS:
        for plan in fitting_plans(planner, way_kind).values():
            for leg in plan.legs:
                hops = leg.program.hops
                reached = {*hops.target.tolist(), *hops.kept_target.tolist()}
                assert reached == (members if leg.to_pes else {0, 1, 2})


# ------------------------------------------------------------------------------------------------- closed forms
def depth_of(array):
    """Channels from the root to the farthest PE."""
    root = array.num_pes
    tree = interconnect_of(array).flows.routes.outward(root, np.arange(array.num_pes))
    return int(tree.depth[:root].max())


@pytest.mark.parametrize("kind", [*LINKED, "h_tree", "butterfly", "crossbar"])
@pytest.mark.parametrize("num_pes", [2, 4, 16, 64])
def test_broadcast_and_reduce_in_the_network(kind, num_pes):
    """forward + hops (ω + λ) + beats; the reduction the same way, and κ wherever values meet."""
    array = small(kind, num_pes)
    for num_bytes in BYTES:
        way = depth_of(array) * HOP + beats(num_bytes)
        assert cycles(array, "broadcast", "multicast", num_bytes) == FORWARD + way
        done = cycles(array, "reduce", "in_network", num_bytes)
        assert done >= way + KAPPA
        assert (done - way) % KAPPA == 0


@pytest.mark.parametrize("num_pes", [2, 3, 5, 8, 31])
def test_a_line_reduces_with_a_joint_at_every_pe(num_pes):
    for num_bytes in BYTES:
        expected = num_pes * HOP + (num_pes - 1) * KAPPA + beats(num_bytes)
        assert cycles(small("line", num_pes), "reduce", "in_network", num_bytes) == expected


@pytest.mark.parametrize("num_pes", [2, 3, 5, 8, 31])
def test_ring_all_gather_and_reduce_scatter_on_a_ring(num_pes):
    """P - 1 rounds of ω + λ + beats, each with what an end point takes to pass on or to add."""
    array = small("ring", num_pes)
    for num_bytes in BYTES:
        gather = (num_pes - 1) * (HOP + beats(num_bytes) + FORWARD)
        assert cycles(array, "all-gather", "ring", num_bytes) == gather
        sums = 2 * num_bytes  # partial sums are twice as wide
        assert cycles(array, "reduce-scatter", "ring", num_bytes) == (num_pes - 1) * (HOP + beats(sums) + KAPPA)
        whole = 4 * num_pes * num_bytes
        both = (num_pes - 1) * (2 * HOP + beats(4 * num_bytes) + beats(2 * num_bytes) + KAPPA + FORWARD)
        assert cycles(array, "all-reduce", "ring", whole) == both


@pytest.mark.parametrize("num_pes", [4, 16, 64])
@pytest.mark.parametrize("kind", ["mesh", "torus", "hypercube"])
def test_rings_without_a_neighbour_farther_than_one(kind, num_pes):
    for num_bytes in BYTES:
        expected = (num_pes - 1) * (HOP + beats(num_bytes) + FORWARD)
        assert cycles(small(kind, num_pes), "all-gather", "ring", num_bytes) == expected


@pytest.mark.parametrize("num_pes", [2, 4, 16, 64])
def test_doubling_and_halving_on_a_hypercube(num_pes):
    """log2 P rounds to neighbours: 1, 2, 4, ... parts; rings of two along each dimension are the same."""
    array, rounds = small("hypercube", num_pes), num_pes.bit_length() - 1
    for num_bytes in BYTES:
        gather = sum(HOP + FORWARD + beats(num_bytes << each) for each in range(rounds))
        scatter = sum(HOP + KAPPA + beats(2 * num_bytes << each) for each in range(rounds))
        ways = ("recursive_doubling", "dimension_wise")[: 2 if rounds > 1 else 1]
        for way in ways:
            assert cycles(array, "all-gather", way, num_bytes) == gather
            halving = way.replace("doubling", "halving")
            assert cycles(array, "reduce-scatter", halving, num_bytes) == scatter
        doubling = rounds * (HOP + KAPPA + beats(num_bytes))
        assert cycles(array, "all-reduce", "recursive_doubling", num_bytes) == doubling


@pytest.mark.parametrize("side", [2, 4, 8])
def test_rings_along_each_dimension_of_a_torus(side):
    """Along a row parts of P / C PEs... then along a column single parts: C - 1 and R - 1 rounds."""
    array = small("torus", side * side)
    for num_bytes in BYTES:
        rows = (side - 1) * (HOP + FORWARD + beats(num_bytes * side))
        columns = (side - 1) * (HOP + FORWARD + beats(num_bytes))
        assert cycles(array, "all-gather", "dimension_wise", num_bytes) == rows + columns


@pytest.mark.parametrize("num_pes", [2, 4, 8, 32])
def test_exchanges_over_a_crossbar_take_two_channels(num_pes):
    array, rounds = small("crossbar", num_pes), num_pes.bit_length() - 1
    for num_bytes in BYTES:
        expected = rounds * (2 * HOP + KAPPA + beats(num_bytes))
        assert cycles(array, "all-reduce", "recursive_doubling", num_bytes) == expected
        pairs = 2 * HOP + (num_pes - 1) * beats(num_bytes) + (num_pes - 2) * OMEGA
        assert cycles(array, "all-to-all", "pairwise", num_bytes) == pairs  # shifts never meet at an output


@pytest.mark.parametrize("num_pes", [1, 2, 3, 8, 17])
def test_chains_trees_and_stars_on_a_line(num_pes):
    array = small("line", num_pes)
    for num_bytes in BYTES:
        chain = num_pes * (HOP + KAPPA) + beats(num_bytes)
        assert cycles(array, "reduce", "chain", num_bytes) == chain
        passed = num_pes * (HOP + FORWARD) + beats(num_bytes)
        assert cycles(array, "broadcast", "chain", num_bytes) == passed
        busy = OMEGA + beats(num_bytes)
        queued, alone = num_pes * busy, (num_pes - 1) * HOP + busy  # at the root's link: without a gap, or at the end
        assert cycles(array, "reduce", "star", num_bytes) == max(queued, alone) + LAMBDA
        farthest = queued + LAMBDA + (num_pes - 1) * HOP
        assert cycles(array, "broadcast", "star", num_bytes) == farthest  # the last one has the longest way
        ends, far, near = num_pes + 1, 0, 1
        while near < ends:
            far += min(near, ends - near) * HOP + KAPPA + beats(num_bytes)
            near *= 2
        if ends & (ends - 1) == 0:
            assert cycles(array, "reduce", "tree", num_bytes) == far


@pytest.mark.parametrize("kind", SECTIONS)
def test_the_busiest_channel_cannot_finish_before_it_has_carried_all(kind):
    array = array_of(kind, 16)
    interconnect = interconnect_of(array)
    channels = interconnect.topology.channels
    planner = planner_of(array, [(0, 16)], [100 + pe for pe in range(16)])
    for way_kind in WAYS:
        for name, plan in fitting_plans(planner, way_kind).items():
            for leg in plan.legs:
                hops, sent = leg.program.hops, leg.program.message_bytes(leg.payload_bytes)
                carried = np.bincount(hops.channel, weights=sent[hops.message], minlength=len(channels))
                times = run(interconnect, leg, np.zeros(hops.num_sources, dtype=np.int64))
                assert times.complete.max() >= (carried / channels.bytes_per_cycle).max(), (way_kind, name)


# -------------------------------------------------------------------------------------- equal topologies, equal cycles
def all_cycles(array, num_bytes):
    planner = planner_of(array, [(0, array.num_pes)], num_bytes)
    return {(kind, name): planner.cycles(plan) for kind in WAYS for name, plan in fitting_plans(planner, kind).items()}


@pytest.mark.parametrize(("num_pes", "num_bytes"), diagonal([1, 2, 3, 5, 8, 12], [1, 9, 500]))
def test_a_mesh_of_one_row_is_a_line_and_a_torus_of_one_row_a_ring(num_pes, num_bytes):
    for shape in ({"rows": 1, "cols": num_pes}, {"rows": num_pes, "cols": 1}):
        assert all_cycles(small("mesh", num_pes, **shape), num_bytes) == all_cycles(small("line", num_pes), num_bytes)
        assert all_cycles(small("torus", num_pes, **shape), num_bytes) == all_cycles(small("ring", num_pes), num_bytes)


def test_two_pes_are_two_pes():
    line = all_cycles(small("line", 2), 100)
    for kind in ("ring", "hypercube", "mesh"):
        assert all_cycles(small(kind, 2), 100) == line


@pytest.mark.parametrize("num_pes", [2, 4, 9])
def test_a_star_that_the_user_draws_is_a_crossbar(num_pes):
    drawn = small("graph", num_pes, graph=star(num_pes))
    assert all_cycles(drawn, 100) == all_cycles(small("crossbar", num_pes), 100)


def test_an_h_tree_is_a_fat_tree_that_does_not_grow():
    assert all_cycles(small("h_tree", 16), 100) == all_cycles(small("fat_tree", 16, growth=1.0), 100)


# ----------------------------------------------------------------------------------------------------- what is refused
def refusal(array, kind, name):
    with pytest.raises(InputError) as caught:
        planner_of(array, [(0, array.num_pes)], 8).plan(kind, name)
    return str(caught.value)


def test_a_ring_on_a_star_is_refused_with_what_fits():
    for kind, middle in (("graph", "hub"), ("crossbar", "crossbar")):
        assert refusal(array_of(kind, 8), "all_reduce", "ring") == (
            f"network.collectives.all_reduce: ring does not fit this {kind}: it is a star, in which all messages pass"
            f" node {middle}\n  given:    'ring'\n"
            "  expected: one of best, reduce_broadcast, recursive_doubling, halving_doubling"
        )


def test_misfits_say_why():
    def why(kind, num_pes, collective, name, **section):
        return refusal(array_of(kind, num_pes, **section), collective, name).split(": ", 2)[2].split("\n")[0]

    assert why("line", 8, "reduce", "in_network", in_network_reduction=False) == (
        "its nodes do not combine (network.in_network_reduction is false)"
    )
    assert why("mesh", 12, "all_reduce", "halving_doubling") == "12 PEs are no power of two"
    assert why("line", 8, "all_reduce", "dimension_wise") == "it has one dimension, for which there is ring"
    assert why("fat_tree", 8, "all_gather", "dimension_wise") == "its PEs have no coordinates"
    shared = "its PEs reach each other over a shared bus, one message at a time"
    assert why("hierarchical_bus", 8, "all_gather", "ring") == shared
    assert why("hierarchical_bus", 8, "reduce_scatter", "recursive_halving") == shared


def test_an_unknown_name_is_told_the_known_ones():
    assert refusal(array_of("mesh", 4), "all_reduce", "rings") == (
        "network.collectives.all_reduce: no such algorithm for all-reduce\n  given:    'rings'\n"
        "  expected: one of best, reduce_broadcast, ring, recursive_doubling, halving_doubling, dimension_wise\n"
        "  hint:     did you mean 'ring'?"
    )


def test_scopes_that_are_no_boxes_have_no_dimensions():
    planner = planner_of(array_of("mesh", 16), [(0, 6), (8, 16)], 8)
    with pytest.raises(InputError, match="PEs 0 to 5 fill no box of its grid"):
        planner.plan("all_gather", "dimension_wise")


def test_an_all_to_all_beyond_what_can_be_held_is_refused_at_once():
    planner = planner_of(array_of("line", 512), [(0, 512)], 8)
    with pytest.raises(InfeasibleError, match="an all-to-all sends"):
        planner.plan("all_to_all", "best")


# ------------------------------------------------------------------------------------------------------------- the best
@pytest.mark.parametrize("kind", SECTIONS)
@pytest.mark.parametrize("num_pes", [1, 2, 8, pytest.param(32, marks=pytest.mark.slow)])
def test_the_best_is_the_best_of_all_although_not_all_are_tried(kind, num_pes):
    for combining, num_bytes in itertools.product((True, False), (1, 64, 5000)):
        section = {} if kind == "bus_tree" else {"in_network_reduction": combining}
        array = array_of(kind, num_pes, **section)
        planner = planner_of(array, [(0, num_pes)], num_bytes)
        for way_kind, ways in WAYS.items():
            done = {name: planner.cycles(plan) for name, plan in fitting_plans(planner, way_kind).items()}
            best = planner.plan(way_kind, "best")
            first = next(name for name in ways if done.get(name) == min(done.values()))
            assert (best.way, planner.cycles(best)) == (first, min(done.values()))
