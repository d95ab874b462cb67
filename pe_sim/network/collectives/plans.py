"""Whole collectives: each way of doing one is one program, or several after one another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np

from pe_sim.network.collectives.algorithms import ALGORITHMS, BEST, choose, named, refused
from pe_sim.network.collectives.bounds import load
from pe_sim.network.collectives.programs import Loaded, Pattern, cycles_in_a_row, program_of
from pe_sim.network.interconnect import Interconnect
from pe_sim.network.routing.hops import Program
from pe_sim.registry import Registry
from pe_sim.units import IntArray

Load = Literal["partial", "result"]
CONFIGURED: Final = ""  # the algorithm is the one that the array names for that part, or the best one
_FROM_HUBS: Final = ("broadcast", "scatter")
_TO_HUBS: Final = ("reduce", "gather")
_OF_SCOPES: Final = ("broadcast", "reduce", "all_reduce")


@dataclass(frozen=True, eq=False, slots=True)
class Sizes:
    """Bytes of a collective, in both dtypes: (scopes,) of whole values and (PEs,) of parts.

    Args:
        partial, result: bytes of a scope's partial sums, and of the value in the dtype in which results travel.
        partial_parts, result_parts: bytes of each PE's part of them.
    """

    partial: IntArray
    result: IntArray
    partial_parts: IntArray
    result_parts: IntArray

    def payload(self, kind: str, load: Load) -> IntArray:
        """Bytes of the payloads of a program of that kind: (scopes,), or (PEs,) where payloads are parts."""
        if kind in _OF_SCOPES:
            return self.partial if load == "partial" else self.result
        return self.partial_parts if load == "partial" else self.result_parts


@dataclass(frozen=True, slots=True)
class Step:
    """One program of a way.

    Args:
        kind: the kind of its algorithm: a key of `ALGORITHMS`.
        load: whether partial sums or results travel.
        name: the algorithm, or `CONFIGURED`.
        counted: the kind under whose tag its messages are counted; empty: its own kind.
    """

    kind: str
    load: Load = "result"
    name: str = CONFIGURED
    counted: str = ""


@dataclass(frozen=True, slots=True)
class Way:
    """A way to do a collective: its name, and its programs in order."""

    name: str
    steps: tuple[Step, ...]


_REDUCE: Final = Step("reduce", "partial")
_BROADCAST: Final = Step("broadcast")
_SLICES: Final = Step("reduce")  # slices with nothing in common, summed in the dtype of results


def _both(name: str, scatter: str, gather: str) -> Way:
    """An all-reduce as a reduce-scatter and an all-gather, counted as a reduction and a broadcast."""
    first = Step("reduce_scatter", "partial", scatter, "reduce")
    return Way(name, (first, Step("all_gather", "result", gather, "broadcast")))


def _alone(kind: str, load: Load = "result", counted: str = "") -> tuple[Way, ...]:
    """One way for every built-in algorithm of a kind that does a collective by itself."""
    return tuple(Way(each.name, (Step(kind, load, each.name, counted),)) for each in ALGORITHMS[kind].built_in.values())


# The first of several that are done in the same cycle is the one that is chosen.
_BUILT_IN: Final[Mapping[str, tuple[Way, ...]]] = {
    "broadcast": _alone("broadcast"),
    "reduce": _alone("reduce", "partial"),
    "scatter": (Way("by_broadcast", (_BROADCAST,)), *_alone("scatter")),
    "gather": (Way("by_reduction", (_SLICES,)), *_alone("gather")),
    "all_gather": (Way("by_reduction", (_SLICES, _BROADCAST)), *_alone("all_gather")),
    "all_reduce": (
        Way("reduce_broadcast", (_REDUCE, _BROADCAST)),
        _both("ring", "ring", "ring"),
        *_alone("all_reduce", "partial", "reduce"),
        _both("halving_doubling", "recursive_halving", "recursive_doubling"),
        _both("dimension_wise", "dimension_wise", "dimension_wise"),
    ),
    "reduce_scatter": (
        Way("by_broadcast", (_REDUCE, _BROADCAST)),
        Way("serial", (_REDUCE, Step("scatter", name="serial"))),
        *_alone("reduce_scatter", "partial", "reduce"),
    ),
    "all_to_all": _alone("all_to_all"),
}


def _ways(kind: str, built_in: tuple[Way, ...]) -> Registry[Way]:
    """Registry of the ways of a kind; an algorithm of an installed package is a way like a built-in one's."""
    like = next(way.steps[0] for way in built_in if way.steps[0].kind == kind)
    return Registry(
        "pe_sim.collectives",
        {way.name: way for way in built_in},
        take=lambda algorithm: Way(algorithm.name, (replace(like, name=algorithm.name),)),
        has=("name", "steps"),
        prefix=f"{kind}.",
    )


WAYS: Final[Mapping[str, Registry[Way]]] = {kind: _ways(kind, ways) for kind, ways in _BUILT_IN.items()}
_ALIASES: Final = {("scatter", "by_reduction"): "by_broadcast"}  # a bus_tree's word for either way around


@dataclass(frozen=True, eq=False, slots=True)
class Leg:
    """A program of a plan with its payloads.

    Args:
        kind, algorithm: as of its step.
        chosen: whether the step left the algorithm open.
        counted: the kind under whose tag its messages are counted.
        counted_bytes: payload of each message as section 9 of the machine model counts it.
    """

    kind: str
    algorithm: str
    chosen: bool
    counted: str
    program: Program
    payload_bytes: IntArray
    counted_bytes: IntArray

    @property
    def from_pes(self) -> bool:
        """Whether its senders are PEs; else they are hubs."""
        return self.kind not in _FROM_HUBS

    @property
    def to_pes(self) -> bool:
        """Whether its targets are PEs; else they are hubs."""
        return self.kind not in _TO_HUBS


@dataclass(frozen=True, eq=False, slots=True)
class Plan:
    """A way with its programs."""

    way: str
    legs: tuple[Leg, ...]

    @property
    def name(self) -> str:
        """The name of the way, with the algorithms that were chosen for steps that left them open."""
        parts = " + ".join(leg.algorithm for leg in self.legs if leg.chosen)
        return f"{self.way} ({parts})" if parts else self.way


@dataclass(frozen=True, eq=False)
class Planner:
    """Plans collectives of one pattern.

    Args:
        pattern: the scopes, all PEs of which take part, whatever its `sends`.
        names: the algorithm that the array names for a kind; for other kinds the best one is taken.
    """

    interconnect: Interconnect
    pattern: Pattern
    sizes: Sizes
    names: Mapping[str, str]

    def plan(self, kind: str, name: str) -> Plan:
        """The collective in the way called `name`, or in the best one: done first if nothing else runs.

        Raises:
            InputError: there is none of that name, or it does not fit the interconnect.
        """
        if name == BEST:
            return self._best(kind)
        way = named(WAYS, kind, _ALIASES.get((kind, name), name))
        misfit = self.misfit(way)
        if misfit:
            raise refused(kind, name, misfit, self.interconnect, self.fitting(kind))
        return self._plan(way)

    def fitting(self, kind: str) -> list[str]:
        """The names of the ways that fit the interconnect."""
        return [way.name for way in WAYS[kind].values() if not self.misfit(way)]

    def misfit(self, way: Way) -> str:
        """Why the interconnect cannot do the collective in that way; empty if it can."""
        for step in way.steps:
            if step.name != CONFIGURED:
                misfit = named(ALGORITHMS, step.kind, step.name).misfit(self.interconnect, self._pattern(step))
                if misfit:
                    return misfit
        return ""

    def cycles(self, plan: Plan) -> int:
        """Completion cycle of a plan when everything is ready at 0 and nothing else runs."""
        return cycles_in_a_row(self.interconnect, [Loaded(leg.program, leg.payload_bytes) for leg in plan.legs])

    def _best(self, kind: str) -> Plan:
        best: tuple[int, int, Plan] | None = None
        ways = list(WAYS[kind].built_in.values())
        bounded = sorted((self._bound(way), place) for place, way in enumerate(ways))
        for bound, place in bounded:
            if best is not None and (bound, place) > best[:2]:
                continue
            way = ways[place]
            if self.misfit(way):
                continue
            plan = self._plan(way)
            if best is not None and self._load(plan) > best[0]:
                continue
            cycles = self.cycles(plan) if len(ways) > 1 else 0
            if best is None or (cycles, place) < best[:2]:
                best = cycles, place, plan
        assert best is not None, "the first way of a collective fits everywhere"
        return best[2]

    def _bound(self, way: Way) -> int:
        """Lower bound of a way's cycles; 0 for one that does not fit."""
        if self.misfit(way):
            return 0
        bounds = [
            named(ALGORITHMS, step.kind, step.name).bound(self.interconnect, self._pattern(step), self._payload(step))
            for step in way.steps
            if step.name != CONFIGURED
        ]
        together = sum(bound.every_target for bound in bounds)
        return max([together, *(bound.last_target for bound in bounds)])

    def _load(self, plan: Plan) -> int:
        """Cycles that the busiest channel is occupied, in that of the plan's programs which occupies one longest."""
        return max(load(self.interconnect, leg.program, leg.payload_bytes) for leg in plan.legs)

    def _plan(self, way: Way) -> Plan:
        return Plan(way.name, tuple(self._leg(step) for step in way.steps))

    def _leg(self, step: Step) -> Leg:
        pattern, payload = self._pattern(step), self._payload(step)
        if step.name == CONFIGURED:
            name = self.names.get(step.kind, BEST)
            algorithm, program = choose(step.kind, name, self.interconnect, pattern, payload)
        else:
            algorithm = named(ALGORITHMS, step.kind, step.name)
            program = program_of(self.interconnect, algorithm, pattern)
        counted = step.counted or step.kind
        chosen, counted_bytes = step.name == CONFIGURED, self._counted(counted, step)
        return Leg(step.kind, algorithm.name, chosen, counted, program, payload, counted_bytes)

    def _counted(self, counted: str, step: Step) -> IntArray:
        """Bytes of each counted message: one a scope for a reduction and a broadcast, else those of PEs one by one."""
        if counted == "all_to_all":
            return np.repeat(self._payload(step), self._others())
        whole = self.sizes.payload(counted, step.load)
        return whole[whole > 0]

    def _others(self) -> IntArray:
        """(PEs,) how many other PEs a PE's scope has."""
        pes, scopes = self.pattern.members()
        others = np.zeros(self.interconnect.topology.num_pes, dtype=np.int64)
        others[pes] = self.pattern.sizes[scopes] - 1
        return others

    def _payload(self, step: Step) -> IntArray:
        return self.sizes.payload(step.kind, step.load)

    def _pattern(self, step: Step) -> Pattern:
        payload = self._payload(step)
        if step.kind not in _OF_SCOPES or step.kind in _FROM_HUBS:
            return replace(self.pattern, sends=payload > 0)
        pes, scopes = self.pattern.members()
        sends = np.zeros(self.interconnect.topology.num_pes, dtype=bool)
        sends[pes] = payload[scopes] > 0
        return replace(self.pattern, sends=sends)


def parts_of(pattern: Pattern, num_pes: int, wholes: IntArray) -> IntArray:
    """(PEs,) each PE's part of its scope's whole; they differ by at most a byte, the lower ones are the larger."""
    pes, scopes = pattern.members()
    parts = np.zeros(num_pes, dtype=np.int64)
    base, extra = np.divmod(wholes, pattern.sizes)
    parts[pes] = base[scopes] + (pes - pattern.first_pe[scopes] < extra[scopes])
    return parts


def wholes_of(pattern: Pattern, parts: IntArray) -> IntArray:
    """(scopes,) bytes of all parts of each scope together."""
    pes, scopes = pattern.members()
    wholes = np.zeros(pattern.num_scopes, dtype=np.int64)
    np.add.at(wholes, scopes, parts[pes])
    return wholes
