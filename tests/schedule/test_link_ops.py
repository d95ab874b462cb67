"""Exchanges over the links of a system: values really moved along the messages, closed forms, and what is counted."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import strategies as st

from pe_sim.config.systems.load import load_system
from pe_sim.config.systems.system import SystemConfig
from pe_sim.errors import InfeasibleError
from pe_sim.network.collectives.members import Members
from pe_sim.network.collectives.programs import Loaded, timed, times_in_a_row
from pe_sim.network.interconnect import links_of
from pe_sim.network.routing.hop_times import ChannelTimes
from pe_sim.schedule import link_ops
from pe_sim.schedule.link_ops import (
    Way,
    all_gather,
    all_reduce,
    messages,
    reduce_scatter,
    reduce_to,
    ways_of_all_gather,
    ways_of_all_reduce,
    ways_of_reduce,
    ways_of_reduce_scatter,
)
from tests.helpers import given_in_both

OMEGA, LAMBDA, WIDTH, KAPPA, KAPPA_SOFTMAX, FORWARD = 2, 3, 4, 5, 9, 1
LINK = {"bytes_per_cycle": WIDTH, "latency_cycles": LAMBDA, "overhead_cycles": OMEGA}
KINDS = (("ring", 7), ("ring", 8), ("line", 5), ("mesh", 6), ("mesh", 9), ("torus", 9), ("crossbar", 6))
KINDS += (("hypercube", 8), ("h_tree", 6), ("butterfly", 8))


@cache
def system(kind: str, arrays: int, dead: tuple[int, ...] = ()) -> SystemConfig:
    costs = {"combine_cycles": KAPPA, "softmax_combine_cycles": KAPPA_SOFTMAX, "forward_cycles": FORWARD}
    return load_system(
        {
            "schema_version": 1,
            "arrays": [{"array": "bus-tree-64", "count": arrays}],
            "links": {"kind": kind, "link": LINK, **costs},
            "floorplan": {"array_pitch_mm": 50.0, "mm_per_cycle": 10.0},
            "dead_arrays": list(dead),
        }
    )


def members_of(over: SystemConfig, ranks, combine: int = KAPPA) -> Members:
    return Members(links_of(over), np.array(ranks, dtype=np.int64), combine)


def cycles_of(over: SystemConfig, way) -> int:
    legs = [Loaded(leg.build(), leg.payload_bytes) for leg in way.legs]
    return times_in_a_row(links_of(over), legs).cycles


def beats(num_bytes: int) -> int:
    return -(-num_bytes // WIDTH)


# -------------------------------------------------------------------------------- values that move along the messages
def moved(over: SystemConfig, leg, ranks, held: list[dict[int, int]], ready, *, combines: bool) -> list[int]:
    """(members,) when each has what the leg brings it; `held` are the values by payload, changed by what arrives.

    A value is a set of members whose terms it sums, as bits. A message carries what its sender holds at first, and
    what the messages brought that its first hop waits for.
    """
    program, links = leg.build(), links_of(over)
    state = ChannelTimes.idle(len(links.topology.channels))
    times = timed(links, program, leg.payload_bytes, np.array(ready, dtype=np.int64), state)
    hops, ends = program.hops, {int(channel): (source, target) for source, target, channel in links.topology.edges}
    place = {rank: index for index, rank in enumerate(ranks)}
    of_message = [np.flatnonzero(hops.message == message).tolist() for message in range(hops.num_messages)]
    begin = np.arange(hops.num_messages + 1) if program.begin is None else program.begin
    contents: list[dict[int, int]] = []
    after = [dict(each) for each in held]

    def add(values: dict[int, int], payload: int, value: int) -> None:
        assert not combines or not values.get(payload, 0) & value, "a term is added twice"
        values[payload] = values.get(payload, 0) | value

    for message, way in enumerate(of_message):
        first, last = way[0], way[-1]
        sender, receiver = place[ends[int(hops.channel[first])][0]], place[ends[int(hops.channel[last])][1]]
        fed = hops.message[hops.before[hops.after == first]].tolist()
        assert hops.stored[hops.after == first].all()
        carried = {}
        for payload in program.payload[begin[message] : begin[message + 1]].tolist():
            values = dict(held[sender])
            for other in fed:
                if payload in contents[other]:
                    add(values, payload, contents[other][payload])
            carried[payload] = values[payload]  # KeyError: the sender has it not
            add(after[receiver], payload, carried[payload])
        contents.append(carried)
        assert times.grant[first] >= ready[sender]
        assert times.complete[receiver] >= times.tail[last]
    held[:] = after
    return times.complete.tolist()


MEMBERS = st.sampled_from(KINDS).flatmap(
    lambda kind: st.tuples(
        st.just(kind), st.lists(st.integers(0, kind[1] - 1), min_size=2, max_size=kind[1], unique=True), st.randoms()
    )
)


@given_in_both(12, 60, MEMBERS, st.integers(0, 200))
def test_every_way_of_a_reduce_scatter_sums_every_part_at_its_member(drawn, seed: int) -> None:
    (kind, arrays), ranks, random = drawn
    over, n = system(kind, arrays), len(ranks)
    parts = np.array([1 + (seed * (i + 3)) % 17 for i in range(n)])
    for way in ways_of_reduce_scatter(members_of(over, ranks), parts, ()):
        held = [dict.fromkeys(range(n), 1 << i) for i in range(n)]
        ready = [random.randrange(50) for _ in range(n)]
        done = moved(over, way.legs[0], ranks, held, ready, combines=True)
        assert [held[i][i] for i in range(n)] == [(1 << n) - 1] * n, way.name
        assert min(done) >= max(ready), "a sum is there before one of its terms"


@given_in_both(12, 60, MEMBERS, st.integers(0, 200))
def test_every_way_of_an_all_gather_brings_everybody_every_part(drawn, seed: int) -> None:
    (kind, arrays), ranks, random = drawn
    over, n = system(kind, arrays), len(ranks)
    parts = np.array([1 + (seed * (i + 3)) % 17 for i in range(n)])
    for way in ways_of_all_gather(members_of(over, ranks), parts, ()):
        held = [{i: 1 << i} for i in range(n)]
        moved(over, way.legs[0], ranks, held, [random.randrange(50) for _ in range(n)], combines=False)
        assert held == [{part: 1 << part for part in range(n)}] * n, way.name


@given_in_both(12, 60, MEMBERS)
def test_every_way_of_an_all_reduce_brings_everybody_the_sum(drawn) -> None:
    (kind, arrays), ranks, random = drawn
    over, n = system(kind, arrays), len(ranks)
    everyone = (1 << n) - 1
    for way in ways_of_all_reduce(members_of(over, ranks), 61, 31):
        whole = len(way.legs[0].payload_bytes) == 1
        held = [dict.fromkeys(range(1 if whole else n), 1 << i) for i in range(n)]
        ready = moved(over, way.legs[0], ranks, held, [random.randrange(50) for _ in range(n)], combines=True)
        for leg in way.legs[1:]:
            # What was summed is a member's part, or the whole at the root of a tree.
            held = [{0: held[0][0]}, *({} for _ in range(n - 1))] if whole else [{i: held[i][i]} for i in range(n)]
            moved(over, leg, ranks, held, ready, combines=False)
        assert all(set(each.values()) == {everyone} for each in held), way.name
        assert {len(each) for each in held} == {1 if whole else n}, way.name


@given_in_both(12, 60, MEMBERS, st.booleans())
def test_reductions_at_any_member(drawn, takes_part: bool) -> None:
    (kind, arrays), ranks, random = drawn
    over, n = system(kind, arrays), len(ranks)
    place = random.randrange(n)
    contributors = np.array([i for i in range(n) if takes_part or i != place])
    for way in ways_of_reduce(members_of(over, ranks), place, contributors, 50):
        held = [{0: 1 << i} if i in contributors else {} for i in range(n)]
        moved(over, way.legs[0], ranks, held, [random.randrange(50) for _ in range(n)], combines=True)
        assert held[place] == {0: sum(1 << int(i) for i in contributors)}, way.name


# -------------------------------------------------------------------------------------------------------- closed forms
def ways(found) -> dict:
    return {way.name: way for way in found}


@pytest.mark.parametrize("n", [2, 3, 5, 8])
def test_a_ring_of_neighbours(n: int) -> None:
    """n - 1 rounds of a slice of partial sums, each added, then n - 1 of a slice of the result, each passed on."""
    over = system("ring", n)
    partial, result = 4 * 12 * n, 2 * 12 * n
    every = ways(ways_of_all_reduce(members_of(over, range(n)), partial, result))
    reduce = (n - 1) * (OMEGA + LAMBDA + beats(48) + KAPPA)
    gather = (n - 1) * (FORWARD + OMEGA + LAMBDA + beats(24))
    assert cycles_of(over, every["ring"]) == reduce + gather


@pytest.mark.parametrize("n", [2, 4, 8])
def test_doubling_on_a_hypercube(n: int) -> None:
    over, bits = system("hypercube", n), n.bit_length() - 1
    every = ways(ways_of_all_reduce(members_of(over, range(n)), 48 * n, 24 * n))
    assert cycles_of(over, every["recursive_doubling"]) == bits * (OMEGA + LAMBDA + beats(48 * n) + KAPPA)
    halves = sum(OMEGA + LAMBDA + beats(48 * n >> bit) + KAPPA for bit in range(1, bits + 1))
    doubles = sum(FORWARD + OMEGA + LAMBDA + beats(24 * n >> bit) for bit in range(1, bits + 1))
    assert cycles_of(over, every["halving_doubling"]) == halves + doubles


@pytest.mark.parametrize("n", [3, 4, 6])
def test_direct_over_a_crossbar(n: int) -> None:
    """Every port sends n - 1 slices one after the other; the last one passes the switch on its own."""
    over = system("crossbar", 6)
    parts = np.full(n, 40)
    serial = (n - 2) * (OMEGA + beats(40)) + 2 * (OMEGA + LAMBDA) + beats(40)
    members = members_of(over, range(n))
    assert cycles_of(over, ways(ways_of_all_gather(members, parts, ()))["direct"]) == serial
    assert cycles_of(over, ways(ways_of_reduce_scatter(members, parts, ()))["direct"]) == serial + KAPPA
    star = ways(ways_of_reduce(members, 0, np.arange(n), 40))["star"]
    assert cycles_of(over, star) == serial + KAPPA


def test_trees_on_a_ring() -> None:
    """Partners 1, then 2 apart: two rounds, the second over two channels; the head does not wait for the tail."""
    over = system("ring", 8)
    members = members_of(over, range(4))
    up = ways_of_reduce(members, 0, np.arange(4), 40)[1]
    down = Way("down", ways(ways_of_all_reduce(members, 40, 40))["tree"].legs[1:])
    near, far = OMEGA + LAMBDA + beats(40), 2 * (OMEGA + LAMBDA) + beats(40)
    assert cycles_of(over, up) == near + KAPPA + far + KAPPA
    assert cycles_of(over, down) == FORWARD + far + FORWARD + near


def test_one_message() -> None:
    operation = messages(system("ring", 8), [(1, 3, 40)], "on")
    assert operation is not None
    assert operation.cycles == 2 * (OMEGA + LAMBDA) + 10
    assert operation.first_cycles.tolist() == [0, OMEGA + LAMBDA]
    assert operation.last_cycles.tolist() == [OMEGA + 10, OMEGA + LAMBDA + OMEGA + 10]
    assert operation.busy_cycles.tolist() == [OMEGA + 10] * 2
    names = links_of(system("ring", 8)).topology.channels.name
    assert [names[channel] for channel in operation.channels] == ["ring 1->2", "ring 2->3"]
    assert (operation.name, operation.algorithm, operation.members) == ("on", "unicasts", (1, 3))


def test_messages_that_start_together_share_channels_in_order() -> None:
    """Both want 0 -> 1 at once; of one sender's messages the first one goes first."""
    operation = messages(system("ring", 8), [(0, 1, 40), (0, 1, 8), (4, 5, 4)], "two")
    assert operation is not None
    assert operation.cycles == (OMEGA + 10) + OMEGA + LAMBDA + 2
    assert sorted(operation.busy_cycles.tolist()) == [OMEGA + 1, OMEGA + 10 + OMEGA + 2]


def test_softmax_partials_cost_more_to_combine() -> None:
    over, ranks = system("ring", 8), (0, 1)
    for make in (
        lambda softmax: all_reduce(over, ranks, 8, 4, "a", softmax=softmax),
        lambda softmax: reduce_scatter(over, ranks, (4, 4), "r", softmax),
        lambda softmax: reduce_to(over, ranks, 1, 4, "t", softmax=softmax),
    ):
        assert make(True).cycles - make(False).cycles == KAPPA_SOFTMAX - KAPPA


# ------------------------------------------------------------------------------------------------- the one that is best
@given_in_both(8, 40, MEMBERS, st.integers(1, 500))
def test_the_first_of_the_fastest_ways_is_chosen(drawn, num_bytes: int) -> None:
    (kind, arrays), ranks, _ = drawn
    over = system(kind, arrays)
    operation = all_reduce(over, ranks, num_bytes, num_bytes // 2, "a")
    found = {
        way.name: cycles_of(over, way) for way in ways_of_all_reduce(members_of(over, ranks), num_bytes, num_bytes // 2)
    }
    assert operation is not None
    assert operation.cycles == min(found.values())
    assert operation.algorithm == next(name for name, cycles in found.items() if cycles == operation.cycles)
    assert (operation.first_cycles >= 0).all()
    assert (operation.first_cycles + operation.busy_cycles <= operation.last_cycles).all()
    assert (operation.last_cycles <= operation.cycles).all()
    assert len(set(operation.channels.tolist())) == len(operation.channels)
    program = operation.legs[0].program
    assert program.hops.num_sources == program.hops.num_targets == len(ranks)


def test_what_was_asked_for_before_is_kept() -> None:
    over = system("ring", 8)
    first = all_reduce(over, [0, 3, 2], 100, 50, "o")
    assert all_reduce(over, (0, 3, 2), 100, 50, "o") is first
    other = all_reduce(over, (0, 3, 2), 100, 50, "down")
    assert other is not None
    assert first is not None
    assert other.name == "down"
    assert other.legs is first.legs


def test_too_many_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_ops, "_HOPS_TO_TRY", 10)
    few = all_gather(system("crossbar", 6), range(6), [3] * 6, "few")
    assert few is not None
    assert few.algorithm == "ring"  # of as many hops as the direct way, and named first
    monkeypatch.setattr(link_ops, "_MAX_HOPS", 20)
    with pytest.raises(InfeasibleError) as caught:
        all_gather(system("crossbar", 6), range(6), [4] * 6, "many")
    assert str(caught.value) == (
        "all-gather among 6 arrays takes too many messages to simulate hop by hop: needs 60 hops, has 20 hops,"
        " 40 hops too many\n  hint:     fewer arrays that share an operator; a power of two of them"
    )


# ------------------------------------------------------------------------------------------------------ what is counted
def counted(operation) -> list[tuple[str, int, int]]:
    return [each for leg in operation.legs for each in leg.counted]


def test_an_all_reduce_is_a_reduction_and_a_broadcast_whichever_the_way() -> None:
    seen = set()
    for kind, arrays in KINDS:
        for size in (2, 3, 4, 5):
            for num_bytes in (2, 500, 20_000):
                operation = all_reduce(system(kind, arrays), range(size), 2 * num_bytes, num_bytes, "a")
                assert counted(operation) == [("reduce", 1, 2 * num_bytes), ("broadcast", 1, num_bytes)]
                seen.add(operation.algorithm)
    assert seen >= {"ring", "recursive_doubling", "direct"}


def test_the_others() -> None:
    over = system("ring", 7, (4,))
    assert counted(messages(over, [(0, 1, 5), (2, 3, 0), (3, 3, 9), (5, 6, 7)], "m")) == [("unicast", 2, 12)]
    assert counted(all_gather(over, [2, 0, 1], [5, 0, 7], "g")) == [("all-gather", 2, 12)]
    assert counted(reduce_scatter(over, [2, 0, 1], [5, 0, 7], "r")) == [("reduce", 1, 12)]
    assert counted(reduce_to(over, [2, 0], 6, 40, "t")) == [("reduce", 1, 40)]


def test_an_all_reduce_without_a_result_ends_with_the_reduction() -> None:
    for way in ways_of_all_reduce(members_of(system("ring", 8), range(4)), 64, 0):
        assert len(way.legs) == 1
        assert way.legs[0].counted == (("reduce", 1, 64),)


def test_nothing_to_move() -> None:
    over = system("ring", 8)
    assert messages(over, [], "m") is None
    assert messages(over, [(1, 1, 4), (1, 2, 0)], "m") is None
    assert all_reduce(over, [3], 8, 4, "a") is None
    assert all_reduce(over, [3, 4], 0, 0, "a") is None
    assert all_gather(over, [3], [8], "g") is None
    assert all_gather(over, [3, 4], [0, 0], "g") is None
    assert reduce_scatter(over, [3], [8], "r") is None
    assert reduce_scatter(over, [3, 4], [0, 0], "r") is None
    assert reduce_to(over, [3], 3, 8, "t") is None
    assert reduce_to(over, [3, 4], 3, 0, "t") is None


def test_one_value_that_ends_elsewhere_is_not_combined() -> None:
    operation = reduce_to(system("ring", 8), [3], 4, 40, "t")
    assert operation is not None
    assert operation.cycles == OMEGA + LAMBDA + 10
    assert operation.members == (3, 4)


@pytest.mark.parametrize("members", [[0, 0], [0, 9], [0, 4]])
def test_members_that_are_none(members: list[int]) -> None:
    with pytest.raises(ValueError, match="the members of an exchange are different arrays that work, not"):
        all_reduce(system("ring", 7, (4,)), members, 8, 4, "a")


def test_parts_that_are_not_one_a_member() -> None:
    with pytest.raises(ValueError, match="3 parts for 2 members"):
        all_gather(system("ring", 8), [0, 1], [1, 2, 3], "g")


# --------------------------------------------------------------------------------------------------------- the rings
@pytest.mark.parametrize(
    ("kind", "arrays", "ranks", "longest"),
    [
        ("ring", 8, (0, 1, 2, 3, 4, 5, 6, 7), 1),
        ("ring", 8, (5, 2, 0, 7, 4, 1, 6, 3), 1),  # in whatever order they are given
        ("ring", 8, (0, 1, 2, 3), 2),  # every second one forth, the others back
        ("mesh", 9, (0, 1, 3, 4), 1),  # a square of four
        ("mesh", 6, (0, 1, 2, 3, 4, 5), 1),
    ],
)
def test_rings_go_along_the_links(kind: str, arrays: int, ranks: tuple[int, ...], longest: int) -> None:
    members = members_of(system(kind, arrays), ranks)
    nodes = members.nodes[members.ring]
    assert sorted(members.ring.tolist()) == list(range(len(ranks)))
    paths = links_of(system(kind, arrays)).flows.paths(nodes, np.roll(nodes, -1))
    assert np.bincount(paths.message).max() == longest
