"""The bus's queue against a reference: first come first served, ties by program order, root, lower PE (section 2)."""

import random
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simpy import Environment

from pe_sim.engine.event.machine import Server

ROOT = -1

request = st.tuples(
    st.integers(0, 30),  # arrival
    st.integers(0, 3),  # operator in program order
    st.integers(ROOT, 3),  # rank: root before PEs
    st.integers(1, 9),  # busy
)


def serve(requests, order=None):
    """{request index: grant} of the server; requests of one cycle are made in the given order."""
    env = Environment()
    server = Server(env)
    grants = {}

    def ask(index):
        arrival, operator, rank, busy = requests[index]
        yield env.timeout(arrival)
        server.request(operator, rank, busy, lambda grant: grants.setdefault(index, (grant, int(env.now))))

    for index in order or range(len(requests)):
        env.process(ask(index))
    env.run()
    assert all(grant == told_at for grant, told_at in grants.values())
    return {index: grant for index, (grant, _) in grants.items()}, server


def reference(requests):
    """Cycle by cycle: a free server takes the best of those that have arrived."""
    left = dict(enumerate(requests))
    grants, now, free_at = {}, 0, 0
    while left:
        here = [(entry[0], entry[1], entry[2], index) for index, entry in left.items() if entry[0] <= now]
        if here and free_at <= now:
            index = min(here)[-1]
            grants[index] = now
            free_at = now + left.pop(index)[3]
        now += 1
    return grants


@given(st.lists(request, max_size=14))
def test_against_the_reference(requests):
    grants, server = serve(requests)
    assert grants == reference(requests)
    assert server.busy_cycles == sum(entry[3] for entry in requests)


@given(st.lists(request, min_size=1, max_size=12, unique_by=lambda entry: entry[:3]), st.randoms(use_true_random=False))
def test_the_order_of_asking_inside_a_cycle_does_not_matter(requests, shuffler: random.Random):
    order = list(range(len(requests)))
    shuffler.shuffle(order)
    assert serve(requests, order)[0] == serve(requests)[0]


@given(st.lists(request, min_size=1, max_size=14))
def test_work_conserving_and_not_preemptive(requests):
    grants, _ = serve(requests)
    spans = sorted((grant, grant + requests[index][3]) for index, grant in grants.items())
    arrivals = sorted(entry[0] for entry in requests)
    busy_until = 0
    for position, (start, end) in enumerate(spans):
        assert start >= busy_until
        if start > busy_until:  # idle only when everything that had arrived was served
            assert sum(arrival < start for arrival in arrivals) == position
        busy_until = end


def granted_order(requests):
    grants, _ = serve(requests)
    return sorted(grants, key=grants.__getitem__)


def test_the_first_to_arrive_goes_first_whatever_its_rank():
    assert granted_order([(0, 0, 0, 5), (2, 0, ROOT, 5), (1, 9, 9, 5)]) == [0, 2, 1]


def test_a_tie_goes_to_the_earlier_operator_then_root_then_the_lower_pe():
    at_once = [(0, 2, ROOT, 1), (0, 1, 7, 1), (0, 1, 3, 1), (0, 1, ROOT, 1), (0, 2, 0, 1)]
    assert granted_order(at_once) == [3, 2, 1, 0, 4]


def test_those_that_wait_are_sorted_by_arrival_not_by_operator():
    # both come while the first is served; the later operator asked earlier
    assert granted_order([(0, 5, 0, 10), (3, 9, 3, 1), (4, 0, ROOT, 1)]) == [0, 1, 2]


def test_a_request_in_the_cycle_of_the_release_takes_part():
    assert serve([(0, 0, 0, 4), (2, 5, 0, 4), (4, 0, ROOT, 4)])[0] == {0: 0, 1: 4, 2: 8}
    assert serve([(0, 0, 0, 4), (4, 5, 0, 4), (4, 0, 9, 4)])[0] == {0: 0, 2: 4, 1: 8}


def test_asking_from_inside_a_grant():
    env = Environment()
    server = Server(env)
    grants = []

    def first(grant):
        grants.append(("first", grant))
        server.request(0, 0, 2, lambda again: grants.append(("again", again)))

    server.request(0, 1, 3, first)
    server.request(1, 0, 1, lambda grant: grants.append(("other", grant)))
    env.run()
    # both wait since cycle 0: the earlier operator wins
    assert grants == [("first", 0), ("again", 3), ("other", 5)]


def test_what_a_grant_brings_about_in_its_cycle_is_taken_among_those_that_are_still_to_be_taken():
    """Over two channels: whoever was taken first is first, whatever the rank of what asks later in the same cycle."""
    env = Environment()
    first, second = Server(env), Server(env)
    grants = {}

    def ask(server, rank, name, then=lambda: None):
        server.request(0, rank, 5, lambda grant: (grants.update({name: grant}), then()))

    ask(second, 5, "still to be taken")
    ask(second, 2, "taken before")
    ask(first, 3, "passes on", then=lambda: (ask(second, 1, "at once"), ask(first, 0, "behind")))
    ask(second, 0, "lowest")
    env.run()
    on_second = {"lowest": 0, "taken before": 5, "at once": 10, "still to be taken": 15}
    assert grants == {"passes on": 0, "behind": 5, **on_second}


def test_messages_of_one_sender_go_in_order_of_their_index():
    env, grants = Environment(), {}
    server = Server(env)
    for index in (2, 0, 1):
        server.request(0, ROOT, 3, partial(grants.setdefault, index), index=index)
    env.run()
    assert grants == {0: 0, 1: 3, 2: 6}


@pytest.mark.parametrize(("arbitration", "first"), [("fifo", 2), ("priority", 1), ("round_robin", 1)])
def test_others_than_fifo_choose_among_all_that_ask_in_a_cycle(arbitration, first):
    """The lower PE asks for a later operator: it comes second, and is first by rank."""
    env, grants = Environment(), {}
    server = Server(env, arbitration)
    server.request(0, 2, 3, partial(grants.setdefault, 2))
    server.request(1, 1, 3, partial(grants.setdefault, 1))
    env.run()
    assert min(grants, key=grants.__getitem__) == first
    assert sorted(grants.values()) == [0, 3]
