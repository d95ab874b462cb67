"""Collectives in which PEs exchange parts with each other: rings, halving and doubling, rings along each dimension.

All of them send from PEs to PEs. In a reduce-scatter PE i ends with the sum of part i, in an all-gather it starts with
part i; payloads are the parts, by PE.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np

from pe_sim.network.collectives.programs import Pattern
from pe_sim.network.collectives.ring_orders import Side, box_of, ring_order, side_ring
from pe_sim.network.collectives.rounds import Costs, RoundsBuilder
from pe_sim.network.interconnect import Interconnect
from pe_sim.network.routing.hops import Program
from pe_sim.units import IntArray

_Fill = Callable[[RoundsBuilder], None]


def ring_reduce_scatter(interconnect: Interconnect, pattern: Pattern) -> Program:
    """A reduce-scatter around a ring in P - 1 rounds.

    Part j starts at the PE after PE j and goes around to it; every PE on its way adds its own term.
    """
    return _reduce_scatter(interconnect, pattern, lambda builder: _ring(builder, interconnect, pattern, 1, forth=True))


def ring_all_gather(interconnect: Interconnect, pattern: Pattern) -> Program:
    """An all-gather around a ring in P - 1 rounds: part j goes around from PE j.

    Where PEs are neighbours it goes against the direction of `ring_reduce_scatter`, over channels which that one does
    not use. Then the one pair of neighbours that a part has not passed is the same in both, and their sum over the
    folded ring of a line is 2 (P - 1) B / P + 4 P - 6 + 2 (P - 1)(2 T_R + 1) ("Near-Optimal Wafer-Scale Reduce").
    Over switches both directions share channels, which have less to wait for if every pair keeps its own.
    """
    forth = interconnect.flows.routes.coordinates is None
    return _all_gather(interconnect, pattern, lambda builder: _ring(builder, interconnect, pattern, 0, forth=forth))


def recursive_halving(interconnect: Interconnect, pattern: Pattern) -> Program:
    """A reduce-scatter by recursive halving in log2 P rounds.

    Partners at distances P / 2, P / 4, ... 1 send each other the half that the other one keeps.
    """
    return _reduce_scatter(interconnect, pattern, lambda builder: blocks(builder, pattern, halving=True))


def recursive_doubling(interconnect: Interconnect, pattern: Pattern) -> Program:
    """An all-gather by recursive doubling in log2 P rounds.

    Partners at distances 1, 2, 4, ... send each other all that they have.
    """
    return _all_gather(interconnect, pattern, lambda builder: blocks(builder, pattern, halving=False))


def doubling_all_reduce(interconnect: Interconnect, pattern: Pattern) -> Program:
    """An all-reduce by recursive doubling in log2 P rounds; payload: a scope's.

    Partners at distances 1, 2, 4, ... send each other their sums, and add.
    """
    pes, scopes = pattern.members()
    scope_of = np.zeros(interconnect.topology.num_pes, dtype=np.int64)
    scope_of[pes] = scopes

    return _reduce_scatter(interconnect, pattern, lambda builder: doublings(builder, pattern, scope_of))


def dimension_reduce_scatter(interconnect: Interconnect, pattern: Pattern) -> Program:
    """Reduce-scatters around the rings of each dimension, one dimension after the other."""
    return _reduce_scatter(interconnect, pattern, lambda builder: _along(builder, interconnect, pattern, forth=True))


def dimension_all_gather(interconnect: Interconnect, pattern: Pattern) -> Program:
    """All-gathers around the rings of each dimension, from the last one to the first."""
    return _all_gather(interconnect, pattern, lambda builder: _along(builder, interconnect, pattern, forth=False))


def _reduce_scatter(interconnect: Interconnect, pattern: Pattern, fill: _Fill) -> Program:
    return _program(interconnect, pattern, Costs(receive=pattern.combine_cycles), fill)


def _all_gather(interconnect: Interconnect, pattern: Pattern, fill: _Fill) -> Program:
    return _program(interconnect, pattern, Costs(send=interconnect.topology.forward_cycles), fill)


def _program(interconnect: Interconnect, pattern: Pattern, costs: Costs, fill: _Fill) -> Program:
    num_pes = interconnect.topology.num_pes
    every = np.arange(num_pes, dtype=np.int64)
    builder = RoundsBuilder(interconnect, every, every, costs)
    fill(builder)
    pes, _ = pattern.members()
    return builder.program(builder.finish(pes, pes, num_pes, num_pes), every)


# ------------------------------------------------------------------------------------------------------------ the rings
def _ring(builder: RoundsBuilder, interconnect: Interconnect, pattern: Pattern, first: int, *, forth: bool) -> None:
    """Adds the rounds of a ring through each scope; `first` is `away` of `_owners` in the first round."""
    coordinates = interconnect.flows.routes.coordinates
    orders = [ring_order(coordinates, pattern.pes(scope)) for scope in range(pattern.num_scopes)]
    rounds_done = 0
    for size in np.unique(pattern.sizes[pattern.sizes > 1]).tolist():
        rounds = np.arange(rounds_done, size - 1, dtype=np.int64)
        going = [order for order in orders if len(order) >= size]
        turns(builder, going, rounds + first, forth=forth)
        rounds_done = size - 1
    builder.settle()


def turns(builder: RoundsBuilder, orders: Sequence[IntArray], away: IntArray, *, forth: bool) -> None:
    """Adds rounds of several rings at once; `away`: as of `_owners`, one entry a round."""
    senders = np.concatenate(orders)
    receivers = np.concatenate([np.roll(order, -1 if forth else 1) for order in orders])
    carried = [order[_owners(len(order), away, forth=forth)] for order in orders]
    builder.repeat(senders, receivers, np.concatenate(carried, axis=1)[:, :, None])


def _owners(length: int, away: IntArray, *, forth: bool) -> IntArray:
    """(rounds, length) position of the owner of the part that each position sends, forth to the next one or back.

    `away` is how far behind the sender the owner is: 0 in the first round of an all-gather, where everyone sends its
    own, 1 in that of a reduce-scatter, which ends at the owner; and one more in every round.
    """
    place = np.arange(length, dtype=np.int64)
    owners: IntArray = (place - away[:, None] if forth else place + away[:, None]) % length
    return owners


# ------------------------------------------------------------------------------------------------ halving and doubling
def _partners(pattern: Pattern, distance: int) -> tuple[IntArray, IntArray]:
    """PEs of scopes larger than `distance`, and for each its partner at that distance."""
    pes, scopes = pattern.members()
    mine = pattern.sizes[scopes] > distance
    pes, first = pes[mine], pattern.first_pe[scopes[mine]]
    return pes, first + ((pes - first) ^ distance)


def _distances(pattern: Pattern) -> list[int]:
    """Distances 1, 2, 4, ... below the size of the largest scope."""
    return [1 << bit for bit in range(int(pattern.sizes.max()).bit_length() - 1)]


def doublings(builder: RoundsBuilder, pattern: Pattern, payload_of: IntArray) -> None:
    """Adds rounds at distances 1, 2, 4, ... in which partners send each other a payload, `payload_of` (PEs,)."""
    for distance in _distances(pattern):
        senders, partners = _partners(pattern, distance)
        builder.repeat(senders, partners, payload_of[senders][None, :, None])
        builder.settle()


def blocks(builder: RoundsBuilder, pattern: Pattern, *, halving: bool) -> None:
    """Adds rounds in which partners send each other blocks of parts.

    In halving a PE sends the block that its partner is in, in doubling the one that it is in itself and has.
    """
    pes, scopes = pattern.members()
    first_of = np.zeros(int(pattern.last_pe.max()), dtype=np.int64)
    first_of[pes] = pattern.first_pe[scopes]
    distances = _distances(pattern)
    for distance in distances[::-1] if halving else distances:
        senders, partners = _partners(pattern, distance)
        within = partners if halving else senders
        start = within - (within - first_of[within]) % distance
        builder.repeat(senders, partners, (start[:, None] + np.arange(distance))[None])
        builder.settle()


# --------------------------------------------------------------------------------------------- along each dimension
def _along(builder: RoundsBuilder, interconnect: Interconnect, pattern: Pattern, *, forth: bool) -> None:
    """Adds rounds of rings along each side of every scope's box: `forth` from the first side on, else from the last.

    A message carries the parts of all PEs whose place along this side is the owner's, along sides before it the
    sender's, and along those after it any.
    """
    coordinates = interconnect.flows.routes.coordinates
    boxes = [
        (int(pattern.first_pe[scope]), box_of(coordinates, pattern.pes(scope))) for scope in range(pattern.num_scopes)
    ]
    most = max(len(box or ()) for _, box in boxes)
    for level in range(most) if forth else range(most - 1, -1, -1):
        for first, box in boxes:
            if box and level < len(box):
                _add_side(builder, first, box, level, forth=forth)
        builder.settle()


def _add_side(builder: RoundsBuilder, first: int, box: Sequence[Side], level: int, *, forth: bool) -> None:
    side, ring = box[level], side_ring(box[level])
    around = first + ring * side.stride
    below, above = _offsets(box[:level]), _offsets(box[level + 1 :])
    lines = np.add.outer(above, below).ravel()  # the first PE of every ring, less `first`
    senders = np.add.outer(lines, around).ravel()
    receivers = np.add.outer(lines, np.roll(around, -1 if forth else 1)).ravel()
    rounds = np.arange(side.length - 1, dtype=np.int64)
    away = rounds + 1 if forth else rounds  # a reduce-scatter, or an all-gather
    owners = around[_owners(side.length, away, forth=forth)]  # (rounds, places)
    fixed = np.tile(below, len(above))  # offset of each ring along the sides before
    starts = (owners[:, None, :] + fixed[None, :, None]).reshape(len(rounds), -1)
    builder.repeat(senders, receivers, starts[:, :, None] + above)


def _offsets(box: Sequence[Side]) -> IntArray:
    """Offsets of PE numbers of all places of a box of these sides, from its first PE."""
    ranges = [np.arange(side.length) * side.stride for side in reversed(box)]
    return np.array([sum(places) for places in product(*ranges)], dtype=np.int64)
