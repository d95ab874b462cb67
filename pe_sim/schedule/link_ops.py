"""Exchanges over the links of a system, each in the way that is done first when nothing else runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final, Literal

import numpy as np

from pe_sim.config.systems.system import SystemConfig
from pe_sim.errors import InfeasibleError
from pe_sim.mapping.groups import even_counts
from pe_sim.network.collectives import members as programs
from pe_sim.network.collectives.bounds import load
from pe_sim.network.collectives.members import Members
from pe_sim.network.collectives.programs import Loaded, RowTimes, times_in_a_row
from pe_sim.network.interconnect import Interconnect, interconnect_for, plan_of_links
from pe_sim.network.routing.hops import Program
from pe_sim.network.topology.assembly import Plan
from pe_sim.schedule.stages import Tag
from pe_sim.schedule.system import LinkLeg, LinkOperation
from pe_sim.units import IntArray

_HOPS_TO_TRY: Final = 2**20  # of a way to be compared; where every way has more, the one with the fewest is taken
_MAX_HOPS: Final = 2**23  # about 2 GiB
_KEPT: Final = 1024  # operations

_Kind = Literal["messages", "all-reduce", "all-gather", "reduce-scatter", "reduce"]


@dataclass(frozen=True, slots=True)
class _Request:
    """All that an operation depends on.

    Args:
        sizes: bytes; for messages: sender's place, receiver's place and bytes of each.
        place: the place where the result of a reduction ends.
        takes_part: whether the member at `place` has a value of its own in a reduction.
        softmax: whether the values to be combined are softmax partials.
    """

    links: Plan
    kind: _Kind
    members: tuple[int, ...]
    sizes: tuple[int, ...]
    place: int = 0
    takes_part: bool = True
    softmax: bool = False


def messages(system: SystemConfig, sent: Sequence[tuple[int, int, int]], name: str) -> LinkOperation | None:
    """Operation of unicasts that start together, each of which is counted; None if there is nothing to move.

    Args:
        sent: (source, target, bytes) of each; one from an array to itself, or of no bytes, does not move.
        name: its name in reports.
    """
    moved = [(source, target, num_bytes) for source, target, num_bytes in sent if source != target and num_bytes]
    if not moved:
        return None
    members = tuple(sorted({rank for source, target, _ in moved for rank in (source, target)}))
    place = {rank: index for index, rank in enumerate(members)}
    sizes = [(place[source], place[target], num_bytes) for source, target, num_bytes in moved]
    flat = tuple(number for message in sizes for number in message)
    return _with_name(_request(system, "messages", members, flat), name)


def all_reduce(
    system: SystemConfig,
    members: Sequence[int],
    partial_bytes: int,
    result_bytes: int,
    name: str,
    *,
    softmax: bool = False,
) -> LinkOperation | None:
    """Operation after which every member has the sum over all; counted as a reduction and a broadcast.

    Args:
        members: ranks, each once, in any order.
        partial_bytes, result_bytes: of the terms, and of the sum in the dtype in which results travel: the sizes of the
            reduction and of the broadcast that are counted.
        name: its name in reports.
        softmax: whether terms are softmax partials, which cost more to combine.

    Returns:
        None for one member, or if there is nothing to move.
    """
    if len(members) < 2 or not partial_bytes:
        return None
    return _with_name(_request(system, "all-reduce", members, (partial_bytes, result_bytes), softmax=softmax), name)


def all_gather(
    system: SystemConfig, members: Sequence[int], parts_bytes: Sequence[int], name: str
) -> LinkOperation | None:
    """Operation after which every member has all parts, of which member i has part i.

    One message is counted for each part that is not empty.

    Returns:
        None for one member, or if all parts are empty.
    """
    if len(members) < 2 or not any(parts_bytes):
        return None
    _check_parts(members, parts_bytes)
    return _with_name(_request(system, "all-gather", members, tuple(parts_bytes)), name)


def reduce_scatter(
    system: SystemConfig, members: Sequence[int], parts_bytes: Sequence[int], name: str, softmax: bool = False
) -> LinkOperation | None:
    """Operation after which member i has part i summed over all members; counted as one reduction of all parts.

    Nothing else is counted: parts are not sent to their members, but are summed on their way there.

    Returns:
        None for one member, or if all parts are empty.
    """
    if len(members) < 2 or not any(parts_bytes):
        return None
    _check_parts(members, parts_bytes)
    return _with_name(_request(system, "reduce-scatter", members, tuple(parts_bytes), softmax=softmax), name)


def reduce_to(
    system: SystemConfig, members: Sequence[int], target: int, num_bytes: int, name: str, *, softmax: bool = False
) -> LinkOperation | None:
    """Operation after which one array, a member or not, has the sum over all members' values; counted as one reduction.

    Returns:
        None if the target alone has a value, or if it has no bytes.
    """
    if not num_bytes or set(members) <= {target}:
        return None
    everyone = tuple(members) if target in members else (*members, target)
    request = _request(system, "reduce", everyone, (num_bytes,), softmax=softmax)
    request = replace(request, place=everyone.index(target), takes_part=target in members)
    return _with_name(request, name)


def _check_parts(members: Sequence[int], parts_bytes: Sequence[int]) -> None:
    if len(parts_bytes) != len(members):
        raise ValueError(f"{len(parts_bytes)} parts for {len(members)} members")


def _request(
    system: SystemConfig, kind: _Kind, members: Sequence[int], sizes: tuple[int, ...], *, softmax: bool = False
) -> _Request:
    if len(set(members)) < len(members) or not set(members) <= set(system.alive):
        raise ValueError(f"the members of an exchange are different arrays that work, not {list(members)}")
    return _Request(plan_of_links(system), kind, tuple(members), sizes, softmax=softmax)


@lru_cache(maxsize=_KEPT)
def _with_name(request: _Request, name: str) -> LinkOperation:
    return replace(_operation(request), name=name)


@lru_cache(maxsize=_KEPT)
def _operation(request: _Request) -> LinkOperation:
    """The operation in the way that is done first; of several done in the same cycle, the first of the list."""
    interconnect = interconnect_for(request.links)
    best: LinkOperation | None = None
    for way in _worth_trying(request, _ways(request, interconnect)):
        legs = tuple(LinkLeg(leg.build(), leg.payload_bytes, leg.counted) for leg in way.legs)
        if best is not None and max(load(interconnect, leg.program, leg.payload_bytes) for leg in legs) >= best.cycles:
            continue
        row = times_in_a_row(interconnect, [Loaded(leg.program, leg.payload_bytes) for leg in legs])
        if best is None or row.cycles < best.cycles:
            best = _with_times(request, way.name, legs, row)
    assert best is not None, "every exchange has a way"
    return best


def _ways(request: _Request, interconnect: Interconnect) -> tuple[Way, ...]:
    topology = interconnect.topology
    combine = topology.softmax_combine_cycles if request.softmax else topology.combine_cycles
    members = Members(interconnect, np.array(request.members, dtype=np.int64), combine)
    sizes = np.array(request.sizes, dtype=np.int64)
    match request.kind:
        case "messages":
            return ways_of_messages(members, sizes.reshape(-1, 3))
        case "all-reduce":
            partial_bytes, result_bytes = request.sizes
            return ways_of_all_reduce(members, partial_bytes, result_bytes)
        case "all-gather":
            counted = (Tag.ALL_GATHER.value, int(np.count_nonzero(sizes)), int(sizes.sum()))
            return ways_of_all_gather(members, sizes, (counted,))
        case "reduce-scatter":
            return ways_of_reduce_scatter(members, sizes, ((Tag.REDUCE.value, 1, int(sizes.sum())),))
        case "reduce":
            places = members.places
            contributors = places if request.takes_part else np.delete(places, request.place)
            return ways_of_reduce(members, request.place, contributors, request.sizes[0])


def _worth_trying(request: _Request, ways: tuple[Way, ...]) -> list[Way]:
    """The ways of at most `_HOPS_TO_TRY` hops, or the one with the fewest.

    Raises:
        InfeasibleError: even the fewest are too many.
    """
    found = [way for way in ways if way.hops <= _HOPS_TO_TRY]
    if found:
        return found
    least = min(ways, key=lambda way: way.hops)
    if least.hops > _MAX_HOPS:
        raise InfeasibleError(
            f"{request.kind} among {len(request.members)} arrays takes too many messages to simulate hop by hop",
            demand=least.hops,
            bound=_MAX_HOPS,
            unit="hops",
            levers=("fewer arrays that share an operator", "a power of two of them"),
        )
    return [least]


def _with_times(request: _Request, algorithm: str, legs: tuple[LinkLeg, ...], row: RowTimes) -> LinkOperation:
    used, position = np.unique(row.channel, return_inverse=True)
    first = np.full(len(used), np.iinfo(np.int64).max, dtype=np.int64)
    np.minimum.at(first, position, row.grant)
    last, busy = np.zeros_like(first), np.zeros_like(first)
    np.maximum.at(last, position, row.release)
    np.add.at(busy, position, row.release - row.grant)
    return LinkOperation(
        name=request.kind,
        algorithm=algorithm,
        members=request.members,
        legs=legs,
        channels=used,
        first_cycles=first,
        last_cycles=last,
        busy_cycles=busy,
        cycles=row.cycles,
    )


# ---- The ways of an exchange among some arrays: each is one program over the links, or two in a row.


Counted = tuple[tuple[str, int, int], ...]


@dataclass(frozen=True, eq=False, slots=True)
class WayLeg:
    """One program of a way; `build` makes it.

    Args:
        payload_bytes: (payloads,) bytes of the payloads that its messages carry.
        counted: as of `LinkLeg`.
        hops: estimate of the number of its hops.
    """

    build: Callable[[], Program]
    payload_bytes: IntArray
    counted: Counted
    hops: int


@dataclass(frozen=True, eq=False, slots=True)
class Way:
    """A way to do an exchange: its name, and its programs in order."""

    name: str
    legs: tuple[WayLeg, ...]

    @property
    def hops(self) -> int:
        """Estimate of the number of hops of all its programs."""
        return sum(leg.hops for leg in self.legs)


def ways_of_messages(members: Members, messages: IntArray) -> tuple[Way, ...]:
    """The one way of unicasts that start together; `messages`: (messages, 3) sender's and receiver's place, bytes."""
    sender, receiver, num_bytes = messages.T
    counted = ((Tag.UNICAST.value, len(messages), int(num_bytes.sum())),)
    every = np.arange(len(messages), dtype=np.int64)
    leg = WayLeg(lambda: programs.unicasts(members, sender, receiver, every), num_bytes, counted, 0)
    return (Way("unicasts", (leg,)),)


# The first of several that are done in the same cycle is the one that is chosen.
def ways_of_reduce_scatter(members: Members, parts: IntArray, counted: Counted) -> tuple[Way, ...]:
    """Ways after which every member has its part summed over all of them."""
    filled = np.flatnonzero(parts)
    ring = WayLeg(lambda: programs.ring_reduce_scatter(members), parts, counted, _around(members))
    halving = WayLeg(lambda: programs.recursive_halving(members), parts, counted, _doubling(members))
    direct = WayLeg(lambda: programs.direct_reduce_scatter(members, filled), parts, counted, _direct(members))
    return _fitting(members, Way("ring", (ring,)), Way("recursive_halving", (halving,)), Way("direct", (direct,)))


def ways_of_all_gather(members: Members, parts: IntArray, counted: Counted) -> tuple[Way, ...]:
    """Ways after which every member has the parts of all of them."""
    filled = np.flatnonzero(parts)
    ring = WayLeg(lambda: programs.ring_all_gather(members), parts, counted, _around(members))
    doubling = WayLeg(lambda: programs.recursive_doubling(members), parts, counted, _doubling(members))
    direct = WayLeg(lambda: programs.direct_all_gather(members, filled), parts, counted, _direct(members))
    return _fitting(members, Way("ring", (ring,)), Way("recursive_doubling", (doubling,)), Way("direct", (direct,)))


def ways_of_reduce(members: Members, target: int, contributors: IntArray, num_bytes: int) -> tuple[Way, ...]:
    """Ways after which one place has the sum over the contributors' values."""
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
    """Ways after which every member has the sum over all of them; each is counted as a reduction and a broadcast."""
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
    """The ways without recursive halving and doubling, unless the members are a power of two."""
    power = members.count & (members.count - 1) == 0
    return tuple(way for way in ways if power or not way.name.startswith("recursive"))


def _around(members: Members) -> int:
    return (members.count - 1) * members.ring_hops


def _doubling(members: Members) -> int:
    return int(members.count * (members.count.bit_length() - 1) * members.mean_hops)


def _direct(members: Members) -> int:
    return int(members.count * (members.count - 1) * members.mean_hops)
