"""Schedules of one collective alone on an interconnect that is a graph, everything ready at cycle 0."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from pe_sim.config.array import ArrayConfig
from pe_sim.mapping.placed import BlockRun
from pe_sim.network.interconnect import interconnect_of
from pe_sim.network.plans import Leg, Plan, Planner, Sizes, parts_of, wholes_of
from pe_sim.network.programs import Pattern
from pe_sim.schedule.builders import Labels
from pe_sim.schedule.routed_moves import routed_stream
from pe_sim.schedule.stages import Block, RoutedStage, Schedule, Tag
from pe_sim.units import IntArray, ceil_div

_OF_WHOLES = ("broadcast", "reduce", "all-reduce")


@dataclass(frozen=True, slots=True)
class RoutedCollective:
    """A collective's schedule and the way that was chosen for it."""

    schedule: Schedule
    algorithm: str


def routed_collective(kind: str, array: ArrayConfig, num_bytes: int) -> RoutedCollective:
    """The schedule of collective `kind` on the whole array, in the way that the array names.

    Args:
        num_bytes: as of `collective_schedule`.

    Raises:
        InputError: the way that the array names does not fit its topology.
    """
    if array.num_pes == 1 and kind in ("all-reduce", "all-gather", "reduce-scatter", "all-to-all"):
        return RoutedCollective(_schedule(array, ()), "nothing to move")
    return planned_collective(array, collective_plan(kind, array, num_bytes))


def collective_plan(kind: str, array: ArrayConfig, num_bytes: int) -> Plan:
    """The plan of a collective on the whole array, in the way that the array names.

    Raises:
        InputError: no such way, or it does not fit the topology.
    """
    own = kind.replace("-", "_")
    planner = collective_planner(kind, array, num_bytes)
    return planner.plan(own, planner.names[own])


def collective_planner(kind: str, array: ArrayConfig, num_bytes: int) -> Planner:
    """What plans a collective on the whole array."""
    interconnect = interconnect_of(array)
    zero, every = np.zeros(1, dtype=np.int64), np.ones(array.num_pes, dtype=bool)
    root = zero + interconnect.flows.root
    pattern = Pattern(zero, zero + array.num_pes, root, every, interconnect.topology.combine_cycles)
    collectives = array.graph_network.collectives
    names = {each.name: getattr(collectives, each.name) for each in fields(collectives)}
    return Planner(interconnect, pattern, _sizes(kind, array, num_bytes, pattern), names)


def planned_collective(array: ArrayConfig, plan: Plan) -> RoutedCollective:
    """The schedule of a plan: a stage a program."""
    stages: list[RoutedStage] = []
    for leg in plan.legs:
        stage = _stage(leg, array, len(stages))
        stages.append(routed_stream(stage, array, stages[-1] if stages else None))
    return RoutedCollective(_schedule(array, tuple(stages)), plan.name)


def _schedule(array: ArrayConfig, stages: tuple[RoutedStage, ...]) -> Schedule:
    return Schedule(array, (Block(stages, len(stages)),), (BlockRun(0, None),))


def _stage(leg: Leg, array: ArrayConfig, slot: int) -> RoutedStage:
    """Waits for the stage before it."""
    tag = Tag(leg.counted.replace("_", "-"))
    inputs = (slot - 1,) if slot else ()
    return RoutedStage(
        *Labels(tag.value, tag.value, inputs, slot).fields(),
        tag=tag,
        hops=leg.program.hops,
        from_pe=leg.from_pes,
        to_pes=np.ones(array.num_pes, dtype=bool) if leg.to_pes else None,
        num_bytes=leg.program.message_bytes(leg.payload_bytes),
        rank=leg.program.rank,
        counted_bytes=leg.counted_bytes,
    )


def _sizes(kind: str, array: ArrayConfig, num_bytes: int, pattern: Pattern) -> Sizes:
    """Bytes as the command counts them: of the whole, or per PE or pair; the other dtype has as many elements."""
    partial, activation = array.dtypes.partial.bits, array.dtypes.activation.bits
    num_pes, given = array.num_pes, np.array([num_bytes], dtype=np.int64)
    if kind in _OF_WHOLES:
        result = given if kind == "broadcast" else ceil_div(given * activation, partial)
        return Sizes(given, result, parts_of(pattern, num_pes, given), parts_of(pattern, num_pes, result))
    parts: IntArray = np.full(num_pes, num_bytes, dtype=np.int64)
    whole = wholes_of(pattern, parts)
    sums = ceil_div(whole * partial, activation)  # a reduce-scatter's
    return Sizes(sums, whole, parts_of(pattern, num_pes, sums), parts)
