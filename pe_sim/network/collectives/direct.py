"""The algorithms that are nothing but one flow: multicasts, reductions in the network, one message a PE."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from pe_sim.errors import InfeasibleError
from pe_sim.network.collectives.programs import ROOT_RANK, Pattern
from pe_sim.network.interconnect import Interconnect
from pe_sim.network.routing.hops import HopBuilder, Program
from pe_sim.units import IntArray

MAX_HOPS: Final = 2**23  # about 2 GiB
_SAMPLED: Final = 16  # senders from whose paths the hops of all are estimated
_EMPTY: Final = np.zeros(0, dtype=np.int64)


def multicast(interconnect: Interconnect, pattern: Pattern) -> Program:
    """One multicast from each hub to all PEs of its scope, each channel once.

    Senders: hubs; targets: PEs; payload: a scope's.
    """
    flows, builder = interconnect.flows, HopBuilder()
    for scope in np.flatnonzero(pattern.sends).tolist():
        pes = pattern.pes(scope)
        flows.multicast(builder, int(pattern.hub[scope]), pes, scope, scope, pes)
    hops = builder.build(pattern.num_scopes, interconnect.topology.num_pes, pattern.num_scopes)
    return Program.whole(hops, hub_ranks(interconnect, pattern))


def multicast_from_pes(interconnect: Interconnect, pattern: Pattern) -> Program:
    """One multicast from each hub, which is a PE and sends its own value, to all PEs of its scope.

    Senders: PEs; targets: PEs; payload: a scope's.
    """
    flows, builder, num_pes = interconnect.flows, HopBuilder(), interconnect.topology.num_pes
    for scope in np.flatnonzero(pattern.sends).tolist():
        pes, hub = pattern.pes(scope), int(pattern.hub[scope])
        flows.multicast(builder, hub, pes, scope, hub, pes)
    return Program.whole(builder.build(num_pes, num_pes, pattern.num_scopes), pattern.hub)


def in_network(interconnect: Interconnect, pattern: Pattern) -> Program:
    """One reduction in the network a scope, from the PEs that contribute to the hub. Senders: PEs; targets: hubs."""
    flows, builder = interconnect.flows, HopBuilder()
    for scope in range(pattern.num_scopes):
        pes = pattern.pes(scope)
        pes = pes[pattern.sends[pes]]
        if len(pes):
            hub = int(pattern.hub[scope])
            flows.reduction(builder, hub, pes, scope, pes, scope, pattern.combine_cycles)
    hops = builder.build(interconnect.topology.num_pes, pattern.num_scopes, pattern.num_scopes)
    return Program.whole(hops, pattern.first_pe)


def star_broadcast(interconnect: Interconnect, pattern: Pattern) -> Program:
    """One unicast a PE from its scope's hub, lower PEs first. Senders: hubs; targets: PEs; payload: a scope's."""
    pes, scopes = pattern.members()
    sends = pattern.sends[scopes]
    pes, scopes = pes[sends], scopes[sends]
    num_pes, builder = interconnect.topology.num_pes, HopBuilder()
    _add_unicasts(interconnect, builder, _Ends(pattern.hub[scopes], pes, np.arange(len(pes)), scopes, pes))
    hops = builder.build(pattern.num_scopes, num_pes, len(pes))
    return Program(hops, hub_ranks(interconnect, pattern)[scopes], scopes)


def star_reduce(interconnect: Interconnect, pattern: Pattern) -> Program:
    """One unicast from each PE to its hub, which adds up as they arrive.

    Senders: PEs; targets: hubs; payload: a scope's.
    The hub's additions keep up with its link, so they take no cycles of their own (Near-Optimal Wafer-Scale Reduce,
    HPDC 2024: a star over P end points takes B (P - 1) + 2 T_R + 1).
    """
    pes, scopes = _receivers(pattern)
    num_pes, builder = interconnect.topology.num_pes, HopBuilder()
    _add_unicasts(interconnect, builder, _Ends(pes, pattern.hub[scopes], np.arange(len(pes)), pes, scopes))
    return Program(builder.build(num_pes, pattern.num_scopes, len(pes)), pes, scopes)


def serial_scatter(interconnect: Interconnect, pattern: Pattern) -> Program:
    """One message a PE from its scope's hub. Senders: hubs; targets: PEs; payload: a PE's."""
    pes, scopes = _receivers(pattern)
    hubs, num_pes = pattern.hub[scopes], interconnect.topology.num_pes
    builder = HopBuilder()
    _add_unicasts(interconnect, builder, _Ends(hubs, pes, pes, scopes, pes))
    rank = np.full(num_pes, ROOT_RANK, dtype=np.int64)
    rank[pes] = hub_ranks(interconnect, pattern)[scopes]
    return Program.whole(builder.build(pattern.num_scopes, num_pes, num_pes), rank)


def serial_gather(interconnect: Interconnect, pattern: Pattern) -> Program:
    """One message from each PE to its scope's hub. Senders: PEs; targets: hubs; payload: a PE's."""
    pes, scopes = _receivers(pattern)
    num_pes = interconnect.topology.num_pes
    builder = HopBuilder()
    _add_unicasts(interconnect, builder, _Ends(pes, pattern.hub[scopes], pes, pes, scopes))
    hops = builder.build(num_pes, pattern.num_scopes, num_pes)
    return Program.whole(hops, np.arange(num_pes, dtype=np.int64))


def serial_all_gather(interconnect: Interconnect, pattern: Pattern) -> Program:
    """One multicast from each PE to all PEs of its scope. Senders: PEs; targets: PEs; payload: a PE's."""
    flows, builder, num_pes = interconnect.flows, HopBuilder(), interconnect.topology.num_pes
    for scope in range(pattern.num_scopes):
        pes = pattern.pes(scope)
        senders = pes[pattern.sends[pes]].tolist()
        builder.expect(len(senders) * (len(pes) - 1))
        for pe in senders:
            flows.multicast(builder, pe, pes, pe, pe, pes)
    hops = builder.build(num_pes, num_pes, num_pes)
    return Program.whole(hops, np.arange(num_pes, dtype=np.int64))


def pairwise(interconnect: Interconnect, pattern: Pattern) -> Program:
    """One unicast from each PE to every other of its scope. Senders: PEs; targets: PEs; payload: a sender's, per pair.

    A PE sends to the one after it first, then to the one after that, and so on around, so that at any time the PEs
    send to different ones.
    """
    senders, receivers = _EMPTY, _EMPTY
    for scope in range(pattern.num_scopes):
        pes = pattern.pes(scope)
        places, away = np.arange(len(pes)), np.arange(1, len(pes))[:, None]
        places = places[pattern.sends[pes]]
        senders = np.concatenate([senders, np.tile(pes[places], len(away))])
        receivers = np.concatenate([receivers, pes[(places + away) % len(pes)].ravel()])
    num_pes, builder = interconnect.topology.num_pes, HopBuilder()
    _check_size(interconnect, senders, receivers)
    every = np.arange(len(senders), dtype=np.int64)
    _add_unicasts(interconnect, builder, _Ends(senders, receivers, every, senders, receivers))
    alone, _ = _receivers(pattern)
    builder.keep(alone, alone, np.zeros(len(alone), dtype=np.int64))
    return Program(builder.build(num_pes, num_pes, len(senders)), senders, senders)


def _check_size(interconnect: Interconnect, senders: IntArray, receivers: IntArray) -> None:
    """Raises if messages have more hops than can be held, before these are laid out."""
    some = np.unique(senders)[:: max(1, len(np.unique(senders)) // _SAMPLED)]
    mine = np.isin(senders, some)
    lengths = interconnect.flows.paths(senders[mine], receivers[mine])
    hops = len(lengths.channel) * len(senders) // max(int(mine.sum()), 1)
    if hops > MAX_HOPS:
        raise InfeasibleError(
            "an all-to-all sends N (N - 1) messages, over too many channels to simulate hop by hop",
            demand=hops,
            bound=MAX_HOPS,
            unit="hops",
            levers=("fewer PEs (--set num_pes=...)", "another collective"),
        )


def hub_ranks(interconnect: Interconnect, pattern: Pattern) -> IntArray:
    """(scopes,) ranks of what hubs send: the root goes first, another hub ranks as the lowest PE of its scope."""
    return np.where(pattern.hub == interconnect.flows.root, ROOT_RANK, pattern.first_pe)


@dataclass(frozen=True, slots=True)
class _Ends:
    """End points of unicasts, (messages,): nodes, numbers of the messages, and entries among senders and targets."""

    sender: IntArray
    receiver: IntArray
    message: IntArray
    source: IntArray
    target: IntArray


def _add_unicasts(interconnect: Interconnect, builder: HopBuilder, ends: _Ends) -> None:
    moving = ends.sender != ends.receiver
    kept = ~moving
    builder.keep(ends.source[kept], ends.target[kept], np.zeros(int(kept.sum()), dtype=np.int64))
    if moving.any():
        paths = interconnect.flows.paths(ends.sender[moving], ends.receiver[moving])
        first, last = paths.add_to(builder, ends.message[moving], 0)
        builder.start(ends.source[moving], first)
        builder.end(last, ends.target[moving], paths.end_cycles)


def _receivers(pattern: Pattern) -> tuple[IntArray, IntArray]:
    """The PEs whose `sends` is set, each of which has a message of its own, and the scope of each."""
    pes, scopes = pattern.members()
    sends = pattern.sends[pes]
    return pes[sends], scopes[sends]
