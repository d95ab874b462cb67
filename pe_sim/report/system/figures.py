"""The figures of one simulated step on several arrays, and their JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from pe_sim.config.arrays.array import ArrayConfig
from pe_sim.config.arrays.load import cost_basis_to_dict
from pe_sim.config.models.model import ModelConfig
from pe_sim.config.plans.plan import ParallelPlan
from pe_sim.config.step import Step
from pe_sim.config.systems.load import system_to_dict
from pe_sim.config.systems.system import SystemConfig
from pe_sim.errors import InfeasibleError, worst
from pe_sim.mapping.workflow import Workflow
from pe_sim.report.analysis.channels import ChannelTable
from pe_sim.report.step import StepResult, of_all_tags
from pe_sim.report.system import metrics, time
from pe_sim.report.system.metrics import ArrayHolding, PassWork, Pipeline, TaskRow, link_table, link_traffic
from pe_sim.report.system.time import ArrayTime, PathPiece, StageTime
from pe_sim.schedule.system import SystemProgram, SystemTimes
from pe_sim.trace import TagTraffic, traffic_to_dict

if TYPE_CHECKING:
    from pe_sim.report.analysis.envelope import Envelope

LINKS_ENERGY_NOTE: Final = "energy: without the links between arrays, of which no constant is given"


@dataclass(frozen=True, eq=False, repr=False)
class SystemFigures(StepResult):
    """One step of `model` on `system` under `plan`, with `workflow` inside every array.

    Args:
        model, system, plan, step, workflow: what was simulated.
        lines: the pipelines of the resolved plan.
        program, times: what ran on the arrays and links, and when.
        works: distinct passes, as the program numbers them.
        holdings: what every array that takes part holds, by rank.
    """

    model: ModelConfig
    system: SystemConfig
    plan: ParallelPlan
    step: Step
    workflow: Workflow
    lines: tuple[Pipeline, ...]
    program: SystemProgram
    times: SystemTimes
    works: tuple[PassWork, ...]
    holdings: tuple[ArrayHolding, ...]

    @property
    def machine(self) -> SystemConfig:
        """The system that the step ran on."""
        return self.system

    @property
    def engine(self) -> str:
        """Name of the engine that found the times, of passes and of the whole step."""
        return self.times.engine

    @property
    def latency_cycles(self) -> int:
        """Cycles of the step."""
        return self.times.makespan_cycles

    @cached_property
    def shortage(self) -> InfeasibleError | None:
        """The error for the memory that is exceeded most, of all arrays; None if all fits."""
        return worst(each.shortage for each in self.holdings)

    @property
    def operators(self) -> tuple[TaskRow, ...]:
        """The rows of the report's table: `tasks`."""
        return self.tasks

    @property
    def traffic(self) -> Mapping[str, TagTraffic]:
        """Messages, bytes and busy cycles of every tag, inside arrays and between them; zeros for unused tags."""
        return of_all_tags(metrics.pass_traffic(self.program, self.works), self._link_traffic)

    @property
    def link_traffic(self) -> Mapping[str, TagTraffic]:
        """The part of `traffic` that goes between arrays, with every tag."""
        return of_all_tags(self._link_traffic)

    @cached_property
    def links(self) -> ChannelTable | None:
        """What every channel of the links carried, by tag; None where there are no links."""
        return link_table(self.program, self.latency_cycles)

    @cached_property
    def utilization(self) -> Mapping[str, float]:
        """Busy over elapsed cycles (0..1) of arrays (`arrays`), of the resources inside them, and of the links.

        Arrays and what is in them: the mean over those that take part. Links: the mean over all channels, and the
        hottest. Resources inside arrays are named as in a report of one array.
        """
        elapsed = max(self.latency_cycles, 1)
        ranks = {each.rank for each in self.arrays}
        found = {"arrays": sum(each.busy for each in self.arrays) / (elapsed * len(ranks))}
        found |= metrics.inner_utilization(self.program, self.works, elapsed)
        if self.links is not None:
            each = self.links.utilization()
            found |= {"links_mean": float(each.mean()), "links_max": float(each.max())}
        return MappingProxyType(found)

    @cached_property
    def arrays(self) -> tuple[ArrayTime, ...]:
        """How every array spends the step: cycles busy, before its first pass, after its last, exchanging, waiting."""
        return time.array_times(self.program, self.times)

    @cached_property
    def bubbles(self) -> tuple[StageTime, ...]:
        """How the arrays of every stage spend the step: means of `arrays`."""
        return time.stage_times(self.arrays)

    @property
    def bubble_share(self) -> float:
        """Share of the arrays' time (0..1) in which they have no pass and wait for no exchange of their own."""
        ranks = {each.rank for each in self.arrays}
        used = sum(each.busy + each.exchange for each in self.arrays)
        return 1 - used / max(1, self.latency_cycles * len(ranks))

    @property
    def memory(self) -> Mapping[str, int]:
        """Bytes held by all arrays together (copies included), bytes read, and what the fullest array and root hold."""
        fullest = self.fullest
        return MappingProxyType(
            {
                "weight_bytes": sum(each.weight_bytes for each in self.holdings),
                "kv_cache_bytes": sum(each.kv_cache_bytes for each in self.holdings),
                "bytes_read": metrics.read_bytes(self.program, self.works),
                "fullest_array": fullest.rank,
                "peak_bytes_per_pe": fullest.peak_bytes_per_pe,
                "capacity_bytes_per_pe": fullest.capacity_bytes_per_pe,
                "root_bytes": max(each.root_bytes for each in self.holdings),
            }
        )

    @property
    def fullest(self) -> ArrayHolding:
        """The holding of the array whose fullest PE has the largest share of its memory in use."""
        return max(self.holdings, key=lambda each: (each.peak_bytes_per_pe / each.capacity_bytes_per_pe, -each.rank))

    @property
    def bounds(self) -> Mapping[str, Any]:
        """Lower bounds in cycles (busiest array and link channel), the last stage's fill, and the critical path."""
        ends = [each for each in self.bubbles if each.stage == len(self.lines[each.pipeline].stages) - 1]
        return MappingProxyType(
            {
                "busiest_array_cycles": max(each.busy for each in self.arrays),
                "busiest_channel_cycles": 0 if self.links is None else int(self.links.busy_cycles.max(initial=0)),
                "fill_cycles": max(each.fill for each in ends),
                "critical_path": time.aggregated(self.critical_path(), self.latency_cycles),
            }
        )

    @cached_property
    def tasks(self) -> tuple[TaskRow, ...]:
        """A row for each stage's passes of one label, and for its exchanges of one name."""
        return metrics.task_rows(self.program, self.works, self.arrays, self.latency_cycles)

    @property
    def envelope(self) -> Envelope:
        """How far the cycles are to be trusted: for one array as its own report says; several were not compared."""
        from pe_sim.report.analysis.envelope import Envelope, compared_phase, step_envelope

        if self.system.num_arrays > 1:
            return Envelope("outside", None, (f"{self.system.num_arrays:,} arrays (compared: one alone)",))
        array = self.system.arrays[0]
        return step_envelope(self.model, compared_phase(self.step), self.step.batch_size, array, self.workflow)

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes for readers on how the figures came about: from passes, on the links' energy, and on assumptions."""
        of_passes = dict.fromkeys(note for work in self.works for note in work.trace.notes)
        assumed = dict.fromkeys(note for array in self._distinct_arrays if (note := array.cost_basis_note))
        return (*of_passes, *((LINKS_ENERGY_NOTE,) if self.system.links is not None else ()), *assumed)

    @property
    def ignored(self) -> tuple[str, ...]:
        """A line for each entry of the plan that inference has no use for."""
        return self.plan.ignored

    @property
    def overlaps(self) -> tuple[int, ...]:
        """The distinct overlap levels of the arrays, ascending."""
        return tuple(sorted({array.overlap for array in self.system.arrays}))

    def critical_path(self) -> tuple[PathPiece, ...]:
        """The critical path: pieces from cycle 0 to the end of the step, without a gap or an overlap."""
        return self._critical_path

    def _without_rows(self) -> dict[str, Any]:
        where = {"system": system_to_dict(self.system), "plan": self.plan_to_dict()}
        basis = [{"array": array.name, **cost_basis_to_dict(array)} for array in self._distinct_arrays]
        figures = {
            "accuracy": self.envelope.to_dict(),
            "traffic": traffic_to_dict(self.traffic),
            "link_traffic": traffic_to_dict(self.link_traffic),
            "memory": {**self.memory, "arrays": [each.to_dict() for each in self.holdings]},
            "utilization": dict(self.utilization),
            "bubbles": {
                "share": self.bubble_share,
                "stages": [each.to_dict() for each in self.bubbles],
                "arrays": [each.to_dict() for each in self.arrays],
            },
            "bounds": dict(self.bounds),
            "channels": None if self.links is None else self.links.to_dict(),
            "energy": self._energy_to_dict(basis),
        }
        overlap = self.overlaps[0] if len(self.overlaps) == 1 else list(self.overlaps)
        return self._to_dict(where, (*self.system.notes, *self.notes), overlap, figures)

    def _joules(self) -> Mapping[str, float]:
        return metrics.energy_joules(self.program, self.works, self.latency_seconds)

    def plan_to_dict(self) -> dict[str, Any]:
        """The resolved plan as a JSON-ready dict: each stage's arrays, layers and degrees, and the microbatches."""
        return {
            "name": self.plan.name,
            "pipelines": [line.to_dict() for line in self.lines],
            "microbatches": [line.microbatches for line in self.lines],
            "unused_arrays": list(self.plan.unused),
            "ignored": list(self.ignored),
        }

    @property
    def _distinct_arrays(self) -> list[ArrayConfig]:
        """The distinct arrays that take part, in the order of their ranks."""
        used = [self.system.arrays[each.rank] for each in self.holdings]
        return list({id(array): array for array in used}.values())

    @cached_property
    def _critical_path(self) -> tuple[PathPiece, ...]:
        return time.critical_path(self.program, self.times)

    @cached_property
    def _link_traffic(self) -> dict[str, TagTraffic]:
        return link_traffic(self.program, self.links)

    @property
    def _asked(self) -> str:
        where = f"{self.system.name} ({len(self.holdings)} arrays), {self.step.phase}"
        return f"{self.model.name} on {where}, {self.plan.name}, {self.workflow.name}"
