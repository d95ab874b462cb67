"""The ways of an exchange among some arrays: each is one program over the links, or two after one another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from pe_sim.mapping.groups import even_counts
from pe_sim.network import members as programs
from pe_sim.network.members import Members
from pe_sim.network.programs import Program
from pe_sim.schedule.stages import Tag
from pe_sim.units import IntArray

Counted = tuple[tuple[str, int, int], ...]


@dataclass(frozen=True, eq=False, slots=True)
class WayLeg:
    """One program of a way; `build` makes it.

    Args:
        payload_bytes: (payloads,) what its messages carry.
        counted: as of `LinkLeg`.
        hops: about how many it has.
    """

    build: Callable[[], Program]
    payload_bytes: IntArray
    counted: Counted
    hops: int


@dataclass(frozen=True, eq=False, slots=True)
class Way:
    """A way: its name, and its programs in order."""

    name: str
    legs: tuple[WayLeg, ...]

    @property
    def hops(self) -> int:
        """About how many there are."""
        return sum(leg.hops for leg in self.legs)


def ways_of_messages(members: Members, messages: IntArray) -> tuple[Way, ...]:
    """Unicasts that start together; `messages`: (messages, 3) sender's place, receiver's place, bytes."""
    sender, receiver, num_bytes = messages.T
    counted = ((Tag.UNICAST.value, len(messages), int(num_bytes.sum())),)
    every = np.arange(len(messages), dtype=np.int64)
    leg = WayLeg(lambda: programs.unicasts(members, sender, receiver, every), num_bytes, counted, 0)
    return (Way("unicasts", (leg,)),)


# The first of several that are done in the same cycle is the one that is chosen.
def ways_of_reduce_scatter(members: Members, parts: IntArray, counted: Counted) -> tuple[Way, ...]:
    """Every member ends with its part summed over all of them."""
    filled = np.flatnonzero(parts)
    ring = WayLeg(lambda: programs.ring_reduce_scatter(members), parts, counted, _around(members))
    halving = WayLeg(lambda: programs.recursive_halving(members), parts, counted, _doubling(members))
    direct = WayLeg(lambda: programs.direct_reduce_scatter(members, filled), parts, counted, _direct(members))
    return _fitting(members, Way("ring", (ring,)), Way("recursive_halving", (halving,)), Way("direct", (direct,)))


def ways_of_all_gather(members: Members, parts: IntArray, counted: Counted) -> tuple[Way, ...]:
    """Every member ends with the parts of all of them."""
    filled = np.flatnonzero(parts)
    ring = WayLeg(lambda: programs.ring_all_gather(members), parts, counted, _around(members))
    doubling = WayLeg(lambda: programs.recursive_doubling(members), parts, counted, _doubling(members))
    direct = WayLeg(lambda: programs.direct_all_gather(members, filled), parts, counted, _direct(members))
    return _fitting(members, Way("ring", (ring,)), Way("recursive_doubling", (doubling,)), Way("direct", (direct,)))


def ways_of_reduce(members: Members, target: int, contributors: IntArray, num_bytes: int) -> tuple[Way, ...]:
    """The sum over the contributors' values ends at one place."""
    senders = contributors[contributors != target]
    payload, counted = np.array([num_bytes], dtype=np.int64), ((Tag.REDUCE.value, 1, num_bytes),)
    zeros = np.zeros_like(senders)
    adding = len(contributors) > 1
    star = WayLeg(
        lambda: programs.unicasts(members, senders, zeros + target, zeros, combine=adding), payload, counted, 0
    )
    tree = WayLeg(lambda: programs.tree_reduce(members, target), payload, counted, 0)
    ways = Way("star", (star,)), Way("tree", (tree,))
    return ways if adding else ways[:1]


_BOTH: Final = (  # a way of an all-reduce, of the reduce-scatter it begins with, and of the all-gather it ends with
    ("ring", "ring", "ring"),
    ("halving_doubling", "recursive_halving", "recursive_doubling"),
    ("direct", "direct", "direct"),
)


def ways_of_all_reduce(members: Members, partial_bytes: int, result_bytes: int) -> tuple[Way, ...]:
    """Every member ends with the sum over all of them, counted as a reduction and a broadcast, whichever the way."""
    reduced: Counted = ((Tag.REDUCE.value, 1, partial_bytes),)
    spread: Counted = ((Tag.BROADCAST.value, 1, result_bytes),) if result_bytes else ()
    scatters = ways_of_reduce_scatter(members, even_counts(partial_bytes, members.count), reduced)
    gathers = ways_of_all_gather(members, even_counts(result_bytes, members.count), spread)
    scatter_of = {way.name: way.legs for way in scatters}
    gather_of = {way.name: way.legs if result_bytes else () for way in gathers}
    whole = np.array([partial_bytes], dtype=np.int64)
    doubling = WayLeg(lambda: programs.doubling_all_reduce(members), whole, (*reduced, *spread), _doubling(members))
    both = [Way(name, (*scatter_of[first], *gather_of[second])) for name, first, second in _BOTH if first in scatter_of]
    in_a_tree = (
        WayLeg(lambda: programs.tree_reduce(members, 0), whole, reduced, 0),
        *([_tree_broadcast(members, result_bytes, spread)] if result_bytes else []),
    )
    return (both[0], *_fitting(members, Way("recursive_doubling", (doubling,))), *both[1:], Way("tree", in_a_tree))


def _tree_broadcast(members: Members, num_bytes: int, counted: Counted) -> WayLeg:
    whole = np.array([num_bytes], dtype=np.int64)
    return WayLeg(lambda: programs.tree_broadcast(members, 0), whole, counted, 0)


def _fitting(members: Members, *ways: Way) -> tuple[Way, ...]:
    """Without those that halve what is no power of two."""
    power = members.count & (members.count - 1) == 0
    return tuple(way for way in ways if power or not way.name.startswith("recursive"))


def _around(members: Members) -> int:
    return (members.count - 1) * members.ring_hops


def _doubling(members: Members) -> int:
    return int(members.count * (members.count.bit_length() - 1) * members.mean_hops)


def _direct(members: Members) -> int:
    return int(members.count * (members.count - 1) * members.mean_hops)
