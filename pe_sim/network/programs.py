"""What an algorithm for a collective takes and gives, and the times of it alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pe_sim.network.hop_times import ChannelTimes, HopTimes, run_hops
from pe_sim.network.hops import Hops
from pe_sim.network.interconnect import Interconnect
from pe_sim.units import BoolArray, IntArray

ROOT_RANK = -1


@dataclass(frozen=True, eq=False)
class Pattern:
    """Who takes part: disjoint scopes of neighbouring PEs that act at the same time, each with its hub.

    A hub is where a value of the whole scope starts or ends: the root, or the node where the scope's ways to the root
    meet.

    Args:
        first_pe, last_pe: (scopes,) PEs first_pe .. last_pe - 1.
        hub: (scopes,) nodes.
        sends: (PEs,) PEs that contribute to a reduction, or (scopes,) scopes that have something to send.
        combine_cycles: of a node that combines.
    """

    first_pe: IntArray
    last_pe: IntArray
    hub: IntArray
    sends: BoolArray
    combine_cycles: int = 0

    @classmethod
    def of_scopes(
        cls,
        interconnect: Interconnect,
        first_pe: IntArray,
        last_pe: IntArray,
        sends: BoolArray,
        *,
        at_root: bool,
        softmax: bool = False,
    ) -> Pattern:
        """Scopes whose values start or end at the root, or where the ways of each scope's PEs to it meet."""
        flows, topology = interconnect.flows, interconnect.topology
        hub = np.full(len(first_pe), flows.root, dtype=np.int64) if at_root else flows.hubs(first_pe, last_pe)
        cycles = topology.softmax_combine_cycles if softmax else topology.combine_cycles
        return cls(first_pe, last_pe, hub, sends, cycles)

    @property
    def num_scopes(self) -> int:
        """How many scopes there are."""
        return len(self.first_pe)

    @property
    def sizes(self) -> IntArray:
        """(scopes,) PEs of each."""
        return self.last_pe - self.first_pe

    def pes(self, scope: int) -> IntArray:
        """The PEs of a scope."""
        return np.arange(int(self.first_pe[scope]), int(self.last_pe[scope]), dtype=np.int64)

    def members(self) -> tuple[IntArray, IntArray]:
        """All PEs of all scopes, and the scope of each."""
        scopes = np.repeat(np.arange(self.num_scopes, dtype=np.int64), self.sizes)
        starts = np.cumsum(self.sizes) - self.sizes
        return np.arange(len(scopes)) - starts[scopes] + self.first_pe[scopes], scopes

    def key(self) -> tuple[object, ...]:
        """All of it, hashable."""
        arrays = (self.first_pe, self.last_pe, self.hub, self.sends)
        return (*(array.tobytes() for array in arrays), self.combine_cycles)


@dataclass(frozen=True, eq=False)
class Program:
    """The hops of a collective, and how large its messages are.

    Args:
        rank: (messages,) who goes first if requests arrive together.
        payload: what the messages carry: numbers of payloads, in order of the messages.
        begin: (messages + 1,) where the payloads of each message begin and end; None: each carries one.
    """

    hops: Hops
    rank: IntArray
    payload: IntArray
    begin: IntArray | None = None

    @classmethod
    def whole(cls, hops: Hops, rank: IntArray) -> Program:
        """Message i carries payload i."""
        return cls(hops, rank, np.arange(hops.num_messages, dtype=np.int64))

    def message_bytes(self, payload_bytes: IntArray) -> IntArray:
        """(messages,) bytes of each message, from the bytes of each payload."""
        carried = payload_bytes[self.payload]
        if self.begin is None:
            return carried
        before = np.concatenate([[0], np.cumsum(carried)])
        num_bytes: IntArray = before[self.begin[1:]] - before[self.begin[:-1]]
        return num_bytes


def _no_misfit(_interconnect: Interconnect, _pattern: Pattern) -> str:
    return ""


@dataclass(frozen=True, slots=True)
class Bound:
    """Cycles that a program takes at least.

    Args:
        every_target: before them no target of the largest scope is complete; adds up over programs in a row.
        last_target: before them not all targets are complete.
    """

    every_target: int = 0
    last_target: int = 0


def _no_bound(_interconnect: Interconnect, _pattern: Pattern, _payload_bytes: IntArray) -> Bound:
    return Bound()


@dataclass(frozen=True, slots=True)
class Algorithm:
    """A way to do a collective with one program.

    Args:
        name: what users call it.
        build: the program of a pattern on an interconnect.
        misfit: why an interconnect cannot run it; empty if it can.
        bound: cycles that it takes at least, cheaper to know than the program.
    """

    name: str
    build: Callable[[Interconnect, Pattern], Program]
    misfit: Callable[[Interconnect, Pattern], str] = _no_misfit
    bound: Callable[[Interconnect, Pattern, IntArray], Bound] = _no_bound


def program_of(interconnect: Interconnect, algorithm: Algorithm, pattern: Pattern) -> Program:
    """The program of an algorithm; kept."""
    return interconnect.program((algorithm.build, *pattern.key()), lambda: algorithm.build(interconnect, pattern))


def isolated_times(
    interconnect: Interconnect, program: Program, payload_bytes: IntArray, source_rate: int = 0
) -> HopTimes:
    """When everything is ready at 0 and nothing else runs."""
    state = ChannelTimes.idle(len(interconnect.topology.channels))
    ready = np.zeros(program.hops.num_sources, dtype=np.int64)
    return timed(interconnect, program, payload_bytes, ready, state, source_rate)


def timed(
    interconnect: Interconnect,
    program: Program,
    payload_bytes: IntArray,
    ready: IntArray,
    state: ChannelTimes,
    source_rate: int = 0,
) -> HopTimes:
    """With senders ready at their own times, on channels whose state it moves on."""
    channels, hops = interconnect.topology.channels, program.hops
    beats, busy = hops.occupancy(channels, program.message_bytes(payload_bytes), source_rate)
    return run_hops(hops, channels, beats, busy, program.rank, ready, state)


def isolated_cycles(interconnect: Interconnect, program: Program, payload_bytes: IntArray) -> int:
    """Completion of the collective when everything is ready at 0 and nothing else runs."""
    return int(isolated_times(interconnect, program, payload_bytes).complete.max(initial=0))
