"""Mappings that were simulated, and what came of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import lcm
from typing import Final, Literal

from pe_sim.config.arrays.array import ArrayConfig
from pe_sim.config.models.model import ModelConfig
from pe_sim.config.step import Decode, Step
from pe_sim.engine.arbiters import FIFO
from pe_sim.engine.engines import Engine, fast
from pe_sim.engine.fast.recurrences import OutOfOrderError
from pe_sim.engine.fast.run import run_block_by_block
from pe_sim.errors import InfeasibleError, InputError, OutOfMemoryError
from pe_sim.mapping.footprint import footprint
from pe_sim.mapping.groups import groups_alive
from pe_sim.mapping.mapper import place
from pe_sim.mapping.workflow import WORKFLOWS, Workflow
from pe_sim.report.report import Report
from pe_sim.schedule.lowering import lower

Objective = Literal["latency", "throughput", "energy"]
_MOST_GROUPS: Final = 64  # groups of PEs at most that `best_in_groups` tries
OBJECTIVES: Final = ("latency", "throughput", "energy")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a mapping is wanted for: steps with their weights, on one array."""

    model: ModelConfig
    array: ArrayConfig
    steps: tuple[Step, ...]
    weights: tuple[float, ...]
    objective: Objective

    def weighted(self, values: Sequence[float]) -> float:
        """The weighted sum of one figure a step."""
        return math.fsum(weight * value for weight, value in zip(self.weights, values, strict=True))


@dataclass(frozen=True, eq=False, slots=True)
class Candidate:
    """A mapping that was simulated, with a report a step."""

    name: str
    workflow: Workflow
    wanted: Wanted
    reports: tuple[Report, ...]

    @property
    def cycles(self) -> float:
        """Cycles, weighted over the steps; an int for one step with weight 1."""
        if len(self.reports) == 1 and self.wanted.weights == (1.0,):
            return self.reports[0].latency_cycles
        return self.wanted.weighted([report.latency_cycles for report in self.reports])

    @property
    def is_named(self) -> bool:
        """Whether it is one of the named workflows."""
        return self.name in WORKFLOWS

    @property
    def joules(self) -> float:
        """First-order energy in joules, weighted over the steps."""
        return self.wanted.weighted([report.energy["total_joules"] for report in self.reports])

    @property
    def tokens_per_second(self) -> float:
        """Tokens of all steps over their time, both weighted."""
        tokens = [
            report.step.batch_size if isinstance(report.step, Decode) else report.step.num_rows
            for report in self.reports
        ]
        seconds = [report.latency_seconds for report in self.reports]
        return self.wanted.weighted(tokens) / self.wanted.weighted(seconds)

    @property
    def peak_bytes_per_pe(self) -> int:
        """Peak bytes in the memory of the fullest PE, in the step that needs most."""
        return max(report.footprint.peak_bytes_per_pe for report in self.reports)

    @property
    def energy(self) -> int:
        """Dynamic energy in whole units, weighted over the steps by their `whole_shares`."""
        shares = whole_shares(self.wanted.weights)
        return sum(share * report.energy_units for share, report in zip(shares, self.reports, strict=True))

    @property
    def figure(self) -> tuple[float, ...]:
        """The figure to be minimized; throughput is greatest where the weighted cycles are least."""
        return (self.energy, self.cycles) if self.wanted.objective == "energy" else (self.cycles,)


def whole_shares(weights: Sequence[float]) -> tuple[int, ...]:
    """The weights times one whole number that makes all of them whole, so that what they weigh adds up exactly."""
    exact = [Fraction(weight) for weight in weights]
    common = lcm(*(weight.denominator for weight in exact))
    return tuple(int(weight * common) for weight in exact)


def simulated(
    name: str, workflow: Workflow, wanted: Wanted, check: Callable[[], None] | None = None, run: Engine = fast
) -> Candidate:
    """A mapping, simulated for every step; `check` is called again and again meanwhile.

    Raises:
        InputError: it does not apply; InfeasibleError where it does not fit the memories.
    """
    model, array = wanted.model, wanted.array
    placed_steps = [place(model, array, step, workflow) for step in wanted.steps]
    memories = [footprint(placed, placed.graph.shape) for placed in placed_steps]
    max(memories, key=lambda memory: memory.peak_bytes_per_pe).check()  # its error names the largest need
    reports = []
    for step, placed, memory in zip(wanted.steps, placed_steps, memories, strict=True):
        schedule = lower(placed)
        reports.append(Report(model, array, step, workflow, placed.graph, schedule, run(schedule, check), memory))
    return Candidate(name, workflow, wanted, tuple(reports))


def takes_groups(workflow: Workflow) -> bool:
    """Whether a workflow's matrices can be cut inside groups of PEs, each with sequences of its own."""
    return workflow.groups == 1 and not (
        workflow.stream_weights or workflow.local_ends or workflow.pipelined or workflow.searched
    )


def in_groups(
    workflow: Workflow, groups: int, wanted: Wanted, check: Callable[[], None] | None = None
) -> Candidate | None:
    """A workflow in so many groups of PEs, simulated block by block, which takes little time.

    None where it does not apply or fit, or where the groups drift apart so that only a simulation of all blocks at once
    or event by event is exact.
    """
    if wanted.array.network.arbitration != FIFO:
        return None
    grouped = replace(workflow, groups=groups)
    try:
        return simulated(f"{workflow.name}, {groups} groups", grouped, wanted, check, run_block_by_block)
    except OutOfMemoryError:
        raise
    except (InputError, OutOfOrderError):
        return None


def best_in_groups(workflows: Sequence[Workflow], wanted: Wanted) -> Candidate | None:
    """The fastest of these workflows in 2, 4, ... groups of PEs, up to the batch; None if `in_groups` gives none."""
    most, alive = (
        min(step.batch_size for step in wanted.steps),
        groups_alive(wanted.array.num_pes, wanted.array.dead_pes),
    )
    counts = [count for count in alive if 1 < count <= min(most, _MOST_GROUPS) and count.bit_count() == 1]
    found = [in_groups(workflow, count, wanted) for workflow in workflows for count in counts if takes_groups(workflow)]
    return min((one for one in found if one is not None), key=lambda one: one.cycles, default=None)


def nowhere_worse(candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Candidates that no other beats or equals in cycles, energy and peak bytes a PE at once; of equals the first."""

    def figures(one: Candidate) -> tuple[float, float, int]:
        return one.cycles, one.energy, one.peak_bytes_per_pe

    kept: list[Candidate] = []
    for one in sorted(candidates, key=figures):
        mine = figures(one)
        if not any(all(a <= b for a, b in zip(figures(other), mine, strict=True)) for other in kept):
            kept.append(one)
    return tuple(kept)


def reason_of(error: InputError) -> str:
    """Why a mapping is out, in one line."""
    if isinstance(error, InfeasibleError):
        return str(error).splitlines()[0]
    return error.problem
