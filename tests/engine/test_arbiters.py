"""Who is next: in order of arrival, in turn, by rank."""

import pytest

from pe_sim.api import collective
from pe_sim.config.arrays.load import load_array
from pe_sim.engine.arbiters import ARBITERS, Request


def served(arbitration, ranks):
    """(place in the order of arrival, rank) in the order in which they are taken."""
    arbiter = ARBITERS[arbitration]()
    for arrived, rank in enumerate(ranks):
        arbiter.add(Request(arrived, rank, 1, lambda _grant: None))
    return [(taken.arrived, taken.rank) for taken in (arbiter.take() for _ in range(len(arbiter)))]


RANKS = [1, 3, 1, -1, 3, 0]


@pytest.mark.parametrize(
    ("arbitration", "expected"),
    [
        ("fifo", [(0, 1), (1, 3), (2, 1), (3, -1), (4, 3), (5, 0)]),
        ("priority", [(3, -1), (5, 0), (0, 1), (2, 1), (1, 3), (4, 3)]),
        ("round_robin", [(3, -1), (5, 0), (0, 1), (1, 3), (2, 1), (4, 3)]),
    ],
)
def test_order(arbitration, expected):
    assert served(arbitration, RANKS) == expected


@pytest.mark.parametrize("arbitration", sorted(ARBITERS))
def test_everybody_is_served(arbitration):
    assert sorted(served(arbitration, RANKS)) == list(enumerate(RANKS))


def test_turns_go_on_where_they_were():
    arbiter = ARBITERS["round_robin"]()
    order = []
    for arrived, rank in enumerate((2, 5, 2)):
        arbiter.add(Request(arrived, rank, 1, lambda _grant: None))
    order.append(arbiter.take().rank)
    arbiter.add(Request(9, 0, 1, lambda _grant: None))
    order += [arbiter.take().rank for _ in range(len(arbiter))]
    assert order == [2, 5, 0, 2]


def test_the_result_of_a_collective_depends_on_it():
    """Each PE of a torus to every other: messages queue, and who goes first decides how long the last one takes."""
    cycles, traffic = {}, {}
    for arbitration in ARBITERS:
        array = load_array("torus-256", {"num_pes": 16, "network.arbitration": arbitration})
        done = collective("all-to-all", array, 4096)
        assert done.cycles == collective("all-to-all", array, 4096, engine="event").cycles
        cycles[arbitration], traffic[arbitration] = done.cycles, done.traffic["all-to-all"]
    assert cycles["fifo"] != cycles["priority"]
    assert traffic["fifo"] == traffic["priority"] == traffic["round_robin"]
