"""The simulator told how long each piece of work takes in the RTL: what then still differs is not explained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from pe_sim.schedule.stages import PeStage, Resource, RootStage, Schedule, Stage
from tests.rtl.programs.lowering import Case

Taken = list[dict[int, int]]  # cycles by stage, of each unit


def with_command_cycles(case: Case, *, memory_alone: bool = False) -> Schedule:
    """The case's schedule with the RTL's cycles for all work, in which nothing is left to differ from the RTL.

    With `memory_alone` only with what the memory takes more.
    """
    taken = _taken(case)
    if memory_alone:
        for difference in case.differences:
            taken[difference.order][difference.unit] = difference.model_cycles + difference.memory_cycles
    blocks, order = list(case.schedule.blocks), 0
    for run in case.schedule.sequence:
        stages = blocks[run.block].stages
        known = taken[order : order + len(stages)] + [{}] * (order + len(stages) - len(taken))
        with_cycles = tuple(_taking(case, stage, units) for stage, units in zip(stages, known, strict=True))
        blocks[run.block] = replace(blocks[run.block], stages=with_cycles)
        order += len(stages)
    return replace(case.schedule, blocks=tuple(blocks))


def _taken(case: Case) -> Taken:
    taken: Taken = []
    for unit, orders in enumerate(case.work_orders):
        for order, cycles in zip(orders, case.work_cycles[unit], strict=True):
            taken += [{} for _ in range(order + 1 - len(taken))]
            taken[order][unit] = taken[order].get(unit, 0) + cycles
    return taken


def _taking(case: Case, stage: Stage, units: Mapping[int, int]) -> Stage:
    if isinstance(stage, RootStage):
        return replace(stage, cycles=np.array([units[case.root]], dtype=np.int64))
    if isinstance(stage, PeStage):
        cycles = np.array([units.get(pe, 0) for pe in range(case.root)], dtype=np.int64)
        return replace(stage, resource=Resource.PE_VECTOR, cycles=cycles, matrix=None)
    return stage
