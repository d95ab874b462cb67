"""The figures of one simulated step, where its time goes, and their JSON."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from pe_sim._version import __version__
from pe_sim.config.arrays.array import ArrayConfig
from pe_sim.config.arrays.load import array_to_dict, cost_basis_to_dict
from pe_sim.config.models.model import ModelConfig
from pe_sim.config.step import Decode, Step
from pe_sim.errors import DOES_NOT_FIT, InfeasibleError
from pe_sim.graph.graph import OperatorGraph
from pe_sim.graph.operators import AttentionOperator, Elementwise, KvAppend, Linear, Norm, Operator, kv_bytes
from pe_sim.host_memory import require_memory
from pe_sim.mapping.footprint import Footprint
from pe_sim.mapping.workflow import Workflow
from pe_sim.network.area import AreaReport, area_of
from pe_sim.report.analysis import metrics
from pe_sim.report.analysis.channels import ChannelTable, channel_table
from pe_sim.report.analysis.critical_path import WAIT, Link, counted, critical_path
from pe_sim.report.analysis.energy import energy_joules, schedule_units
from pe_sim.report.analysis.metrics import LINK_KINDS, OperatorRow
from pe_sim.report.analysis.timeline import Timeline
from pe_sim.report.files import write_text
from pe_sim.schedule.stages import Schedule, Tag
from pe_sim.trace import TagTraffic, Trace, total_traffic, traffic_to_dict
from pe_sim.units import format_seconds

if TYPE_CHECKING:
    from pandas import DataFrame

    from pe_sim.config.systems.system import SystemConfig
    from pe_sim.report.analysis.envelope import Envelope

SCHEMA = "pe-sim.report/1"
_JSON_BYTES_PER_ROW = 500  # of text, which is held twice while it is put together
_JSON_LEVERS = "the readable report needs far less; of fewer layers (model.num_layers) all that repeats is the same"


class Row(Protocol):
    """A row of a report's table."""

    def to_dict(self) -> dict[str, Any]:
        """The row as a flat JSON-ready dict: no mappings or lists in it."""


class StepResult(ABC):
    """The result of one simulated step: what steps on one array and on several have in common, and their JSON.

    Args:
        model, step, workflow: what was simulated; the workflow inside every array.
    """

    model: ModelConfig
    step: Step
    workflow: Workflow

    @property
    @abstractmethod
    def machine(self) -> ArrayConfig | SystemConfig:
        """The array or the system that the step ran on."""

    @property
    @abstractmethod
    def engine(self) -> str:
        """Name of the engine that found the times."""

    @property
    @abstractmethod
    def latency_cycles(self) -> int:
        """Latency of the step in cycles."""

    @property
    @abstractmethod
    def shortage(self) -> InfeasibleError | None:
        """The error with which the step would be refused, where `allow_overflow` let it pass; None if all fits."""

    @property
    @abstractmethod
    def envelope(self) -> Envelope:
        """How far the cycles are to be trusted: what the comparison with the RTL says of a step like this."""

    @property
    @abstractmethod
    def operators(self) -> Sequence[Row]:
        """The rows of the report's table: operators on one array, passes and exchanges on several."""

    @property
    def latency_seconds(self) -> float:
        """Latency of the step in seconds, at the clock of the array or system."""
        return self.latency_cycles / (self.machine.clock_ghz * 1e9)

    @property
    def num_tokens(self) -> int:
        """Number of tokens of the step: new tokens (one a sequence) in decode, prompt tokens in prefill."""
        return self.step.batch_size if isinstance(self.step, Decode) else self.step.num_rows

    @property
    def tokens_per_second(self) -> float:
        """`num_tokens` over the latency in seconds."""
        return self.num_tokens / self.latency_seconds

    @property
    def does_not_fit(self) -> Mapping[str, Any] | None:
        """What exceeds the memories, where `allow_overflow` let it pass: problem, demand, bound, unit; or None."""
        return MappingProxyType(self.shortage.to_dict()) if self.shortage else None

    @property
    def fit_mark(self) -> str:
        """Text to end titles with: empty, or a remark that the step does not fit the memories."""
        return f" ({DOES_NOT_FIT})" if self.shortage else ""

    @cached_property
    def energy(self) -> Mapping[str, Any]:
        """First-order energy in joules (total, by component, per token) and watts; limits: see `analysis.energy`."""
        by_component = self._joules()
        total = math.fsum(by_component.values())
        return MappingProxyType(
            {
                "total_joules": total,
                "by_component": by_component,
                "per_token_joules": total / self.num_tokens,
                "average_watts": total / self.latency_seconds,
            }
        )

    def to_dict(self) -> dict[str, Any]:
        """The report as `pe-sim.report/1`: ints, floats, texts, lists and dicts only, the same on every run."""
        return {**self._without_rows(), "operators": [row.to_dict() for row in self.operators]}

    def to_json(self) -> str:
        """`to_dict()` as JSON with a newline at its end.

        Raises:
            OutOfMemoryError: its rows exceed this machine's memory.
        """
        count = len(self.operators)
        require_memory(_JSON_BYTES_PER_ROW * count, f"the JSON of {count:,} operators", _JSON_LEVERS)
        head = json.dumps(self._without_rows(), indent=2, allow_nan=False).removesuffix("\n}")
        rows = ",\n    ".join([_indented(row) for row in self.operators])
        return f'{head},\n  "operators": [\n    {rows}\n  ]\n}}\n'

    def save(self, path: str | Path) -> None:
        """Writes the JSON, whole or not at all.

        Raises:
            InputError: the file cannot be written.
        """
        write_text(path, self.to_json())

    def to_frame(self) -> DataFrame:
        """`operators` as a pandas.DataFrame; times in cycles, `layer` missing outside the layers.

        Its `attrs` hold the report's "accuracy".
        """
        from pandas import DataFrame  # heavy, and only needed here

        frame = DataFrame([row.to_dict() for row in self.operators])
        if "layer" in frame:
            frame = frame.astype({"layer": "Int64"})
        frame.attrs["accuracy"] = self.envelope.to_dict()
        return frame

    def _to_dict(
        self, where: Mapping[str, Any], notes: Sequence[str], overlap: int | list[int], figures: Mapping[str, Any]
    ) -> dict[str, Any]:
        """The report as a dict without its rows: what was simulated and where, latency and other figures."""
        return {
            "schema": SCHEMA,
            "pe_sim_version": __version__,
            "model": self.model.to_dict(),
            **where,
            "step": self.step.to_dict(),
            "workflow": workflow_to_dict(self.workflow, self.model.num_layers),
            "engine": self.engine,
            "notes": [*self.model.notes, *notes],
            "overlap": overlap,
            **({"does_not_fit": self.shortage.to_dict()} if self.shortage else {}),
            "latency": {"cycles": self.latency_cycles, "seconds": self.latency_seconds},
            "throughput": {"tokens_per_second": self.tokens_per_second},
            **figures,
        }

    def _energy_to_dict(self, basis: object) -> dict[str, Any]:
        return {**self.energy, "by_component": dict(self.energy["by_component"]), "basis": basis}

    @abstractmethod
    def _without_rows(self) -> dict[str, Any]:
        """`to_dict()` without the rows of `operators`, made with `_to_dict`."""

    @abstractmethod
    def _joules(self) -> Mapping[str, float]:
        """Energy in joules by component."""

    @property
    @abstractmethod
    def _asked(self) -> str:
        """What was simulated, in one line."""

    def __repr__(self) -> str:
        """One line: what was simulated, and the latency."""
        return (
            f"<{type(self).__name__} {self._asked}: {self.latency_cycles:,} cycles,"
            f" {format_seconds(self.latency_seconds)}, {self.tokens_per_second:,.1f} tokens/s{self.fit_mark}>"
        )


@dataclass(frozen=True, eq=False, repr=False)
class StepFigures(StepResult):
    """The figures of one step on one array, each worked out when it is first asked for.

    Args:
        model, array, step, workflow: what was simulated.
        graph, schedule, trace, footprint: what the stages of the simulation gave.
        all_alive: a function that gives the cycles of the same step with no PE dead; for an array with dead PEs.
    """

    model: ModelConfig
    array: ArrayConfig
    step: Step
    workflow: Workflow
    graph: OperatorGraph
    schedule: Schedule
    trace: Trace
    footprint: Footprint
    all_alive: Callable[[], int] | None = None

    @property
    def machine(self) -> ArrayConfig:
        """The array that the step ran on."""
        return self.array

    @property
    def engine(self) -> str:
        """Name of the engine that found the times."""
        return self.trace.engine

    @property
    def latency_cycles(self) -> int:
        """Latency of the step in cycles."""
        return self.trace.makespan_cycles

    @property
    def traffic(self) -> Mapping[str, TagTraffic]:
        """Messages, bytes and busy cycles of every tag of the machine model; zeros for unused tags."""
        return of_all_tags(self.trace.traffic)

    @property
    def utilization(self) -> Mapping[str, float]:
        """Busy over elapsed cycles (0..1) by resource; the mean for units of PEs and levels of channels."""
        return MappingProxyType(self._utilization)

    @property
    def bounds(self) -> Mapping[str, Any]:
        """Lower bounds in cycles (the busiest PE's units, bus, tree, busiest channel), and the critical path."""
        found = metrics.bounds(self.timeline, self.channels)
        return MappingProxyType({**found, "critical_path": self._critical_path_entries()})

    @cached_property
    def channels(self) -> ChannelTable:
        """What every channel carried, by tag; `to_frame()` and `to_rows()` list all, the JSON the hottest."""
        return channel_table(self.schedule, self.latency_cycles)

    @cached_property
    def operators(self) -> tuple[OperatorRow, ...]:
        """A row for every operator of every layer, in program order."""
        return metrics.operator_rows(self.graph, self.timeline, self.array.dtypes)

    @cached_property
    def energy_units(self) -> int:
        """Dynamic energy in whole units of 0.0001 pJ, which compare exactly."""
        return schedule_units(self.schedule)

    @cached_property
    def area(self) -> AreaReport:
        """First-order area in mm2 (total, by component), and whether a PE fits the floor plan's pitch."""
        return area_of(self.array)

    @cached_property
    def shortage(self) -> InfeasibleError | None:
        """The error with which the step would be refused, where `allow_overflow` let it pass; None if all fits."""
        return self.footprint.shortage

    @property
    def memory(self) -> Mapping[str, int]:
        """Bytes of parameters and KV cache, bytes read, bytes in the fullest PE, and the batch and context that fit."""
        placed = self.footprint
        operators = [operator for _, operator in self.graph.instances()]
        dtypes = self.array.dtypes
        caches = (kv_bytes(op.shape, dtypes, op.shape.total_tokens) for op in operators if isinstance(op, KvAppend))
        peak = placed.weight_bytes_per_pe + placed.kv_cache_bytes_per_pe
        return MappingProxyType(
            {
                "weight_bytes": sum(operator.weight_bytes(dtypes) for operator in operators),
                "kv_cache_bytes": 2 * sum(caches),
                "bytes_read": self.trace.read_bytes,
                "peak_bytes_per_pe": int(peak.max()),
                "capacity_bytes_per_pe": int(placed.capacity_bytes),
                "root_bytes": int(placed.root_bytes),
                "largest_batch_size": int(placed.largest_batch_size()),
                "longest_context_len": int(placed.longest_context_len()),
            }
        )

    @cached_property
    def envelope(self) -> Envelope:
        """How far the cycles are to be trusted: what the comparison with the RTL says of a step like this."""
        from pe_sim.report.analysis.envelope import compared_phase, step_envelope

        return step_envelope(self.model, compared_phase(self.step), self.step.batch_size, self.array, self.workflow)

    @cached_property
    def degradation(self) -> Mapping[str, Any] | None:
        """What dead PEs cost: their numbers, the cycles with all PEs alive, and the ratio; None if there are none."""
        if not self.array.dead_pes or self.all_alive is None:
            return None
        whole = self.all_alive()
        return MappingProxyType(
            {
                "dead_pes": list(self.array.dead_pes),
                "cycles_all_alive": whole,
                "slowdown": self.latency_cycles / whole,
            }
        )

    def tag_share(self, tag: str) -> float:
        """Share of the latency (0..1) in which a tag's messages held channels; on a graph, the busiest channel."""
        if self.array.network.is_graph:
            return float(self.channels.utilization(tag).max())
        return self.traffic[tag].busy_cycles / self.latency_cycles

    def critical_path(self) -> Sequence[Link]:
        """The critical path: links from cycle 0 to the end of the step, without a gap or an overlap."""
        return self._critical_path

    def _without_rows(self) -> dict[str, Any]:
        basis = cost_basis_to_dict(self.array)
        notes = (*self.array.network.notes, *self.trace.notes)
        figures = {
            **({"degradation": dict(self.degradation)} if self.degradation else {}),
            "accuracy": self.envelope.to_dict(),
            "traffic": traffic_to_dict(self.traffic),
            "memory": dict(self.memory),
            "utilization": dict(self.utilization),
            "bounds": dict(self.bounds),
            "channels": self.channels.to_dict(),
            "energy": self._energy_to_dict(basis),
            "area": {**self.area.to_dict(), "basis": basis},
        }
        return self._to_dict({"array": array_to_dict(self.array)}, notes, self.array.overlap, figures)

    def _joules(self) -> Mapping[str, float]:
        return energy_joules(self.schedule, self.latency_seconds)

    @cached_property
    def timeline(self) -> Timeline:
        """The trace together with the schedule it ran."""
        return Timeline(self.schedule, self.trace)

    @cached_property
    def _critical_path(self) -> Sequence[Link]:
        return critical_path(self.timeline)

    @cached_property
    def _utilization(self) -> dict[str, float]:
        return metrics.utilization(self.timeline, self.channels)

    def _critical_path_entries(self) -> list[dict[str, Any]]:
        return metrics.aggregate(self._critical_path, self.latency_cycles)

    @property
    def _asked(self) -> str:
        where = f"{self.array.name} ({self.array.num_pes} PEs)"
        return f"{self.model.name} on {where}, {self.step.phase}, {self.workflow.name}"


def of_all_tags(*parts: Mapping[str, TagTraffic]) -> Mapping[str, TagTraffic]:
    """The sum of several traffics by tag, with zeros for unused tags of the machine model."""
    none = {tag.value: TagTraffic() for tag in Tag}
    return MappingProxyType(total_traffic((part, 1) for part in (none, *parts)))


def _indented(row: Row) -> str:
    """The row's JSON as `json.dumps` indents it two levels deep; row by row, to hold few dictionaries at a time."""
    flat = json.dumps(row.to_dict(), allow_nan=False, separators=(",\n      ", ": "))
    return f"{{\n      {flat[1:-1]}\n    }}"


def workflow_to_dict(workflow: Workflow, num_layers: int) -> dict[str, Any]:
    """A workflow as a JSON-ready dict: the distribution of every operator of every layer."""
    return {
        "name": workflow.name,
        "groups": workflow.groups,
        "lm_head": workflow.lm_head,
        "stream_weights": workflow.stream_weights,
        "local_ends": workflow.local_ends,
        "pipelined": workflow.pipelined,
        "layers": [{"layer": layer, **workflow.plan(layer).to_dict()} for layer in range(num_layers)],
    }


# ---- Where the time goes: parts of the critical path by operator group or, for communication, by tag; they add up.


PROJECTIONS = "attention projections"
ATTENTION = "attention"
FFN = "FFN"
NORMS = "norms & adds"
LM_HEAD = "LM head"
ENDS = "embedding & argmax"
OTHER = "other"  # operators the graph does not have
GROUPS = (PROJECTIONS, ATTENTION, FFN, NORMS, LM_HEAD, ENDS, OTHER)


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the critical path: the cycles of a group of operators, or of messages of one tag.

    Args:
        name: one of `GROUPS`, or a tag.
        communication: whether the name is a tag.
        cycles: all cycles of the part.
        bound_by: the kind of resource most of them were limited by.
    """

    name: str
    communication: bool
    cycles: int
    bound_by: str


def group_of(operator: Operator) -> str:
    """The group (one of `GROUPS`) that an operator counts in."""
    if isinstance(operator, Linear):
        if operator.out_dim == "vocab":
            return LM_HEAD
        return PROJECTIONS if {operator.in_dim, operator.out_dim} & {"query", "kv"} else FFN
    if isinstance(operator, AttentionOperator):
        return ATTENTION
    if isinstance(operator, Elementwise):
        return NORMS if operator.function == "add" else FFN
    return NORMS if isinstance(operator, Norm) else ENDS


def parts(report: StepFigures) -> tuple[Part, ...]:
    """The parts of the critical path: every group, then every tag, that has cycles on it; they sum to the latency."""
    groups = {operator.name: group_of(operator) for operator in report.graph.distinct}
    cycles: Counter[tuple[bool, str, str]] = Counter()
    for link, times in counted(report.critical_path()):
        name = link.tag or groups.get(link.operator, OTHER)
        cycles[bool(link.tag), name, LINK_KINDS[link.resource]] += times * link.cycles
    names = [(False, group) for group in GROUPS] + [(True, tag.value) for tag in Tag]
    found = []
    for communication, name in names:
        kinds = {kind: count for (is_tag, its, kind), count in cycles.items() if (is_tag, its) == (communication, name)}
        if kinds:
            longest = max(sorted(kinds), key=lambda kind: kinds[kind])
            found.append(Part(name, communication, sum(kinds.values()), longest))
    return tuple(found)


def cycles_by_kind(report: StepFigures) -> dict[str, int]:
    """Cycles of the critical path by the kind of limiting resource, the most first, unexplained waits last."""
    cycles: Counter[str] = Counter()
    for link, times in counted(report.critical_path()):
        cycles[LINK_KINDS[link.resource]] += times * link.cycles
    return dict(sorted(cycles.items(), key=lambda item: (item[0] == WAIT, -item[1], item[0])))
