"""Figures of a step on several arrays: records of its plan, utilization, energy, tasks and links."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from pe_sim.config.arrays.array import ArrayConfig
from pe_sim.config.plans.plan import StagePlan
from pe_sim.errors import InfeasibleError
from pe_sim.network.interconnect import Interconnect, links_of
from pe_sim.network.topology.topology import TAP, Channels
from pe_sim.report.analysis.channels import TAGS, ChannelTable, channel_table, distinct_stages
from pe_sim.report.analysis.energy import DYNAMIC, STATIC, UNITS_PER_PJ, energy_units, prices_of
from pe_sim.report.analysis.metrics import busy_shares
from pe_sim.report.system.time import ArrayTime
from pe_sim.schedule.stages import Schedule
from pe_sim.schedule.system import ArrayPass, LinkOperation, LinkTask, SystemProgram, Task
from pe_sim.trace import TagTraffic, Trace, total_traffic
from pe_sim.units import IntArray

_LEVERS = (
    "more arrays (a larger tp, cp or pp)",
    "a smaller dtype (--set array.dtypes.weight=int8, --set array.dtypes.kv_cache=int8)",
    "a shorter context or a smaller batch",
    "--allow-overflow to simulate all the same",
)
_HOLDING = (
    *("rank", "pipeline", "stage", "weight_bytes", "kv_cache_bytes", "peak_bytes_per_pe"),
    *("capacity_bytes_per_pe", "root_bytes", "root_capacity_bytes"),
)
_TaskKey = tuple[int, int, Literal["pass", "exchange"], str]  # pipeline, stage, kind, name
_UNITS_PER_JOULE = UNITS_PER_PJ * 10**12


@dataclass(frozen=True, slots=True)
class TaskRow:
    """All passes of a stage with one label, or all its exchanges with one name and size.

    Args:
        pipeline, stage: to which they belong.
        kind: whether they are passes or exchanges.
        name: label of the passes; name and algorithm of the exchanges.
        arrays: number of arrays that have such passes, or of members of one exchange.
        count: number of passes or exchanges.
        cycles: of the longest one.
        total_cycles: sum over all of them.
        share: total_cycles over the time of the stage's arrays (passes), or over the step's (exchanges).
        messages, bytes: counted inside the arrays (passes), or between them (exchanges).
    """

    pipeline: int
    stage: int
    kind: Literal["pass", "exchange"]
    name: str
    arrays: int
    count: int
    cycles: int
    total_cycles: int
    share: float
    messages: int
    bytes: int

    def to_dict(self) -> dict[str, Any]:
        """The row as a JSON-ready dict."""
        return asdict(self)


def runs_of_works(program: SystemProgram) -> dict[int, Counter[int]]:
    """How often each array runs each distinct pass, by array."""
    found: dict[int, Counter[int]] = {}
    for task in program.tasks:
        if isinstance(task, ArrayPass):
            found.setdefault(task.array, Counter())[task.work] += 1
    return found


def pass_traffic(program: SystemProgram, works: Sequence[PassWork]) -> dict[str, TagTraffic]:
    """Traffic inside all arrays by tag; tags that were not used are left out."""
    runs = sum(runs_of_works(program).values(), Counter())
    return total_traffic((works[index].trace.traffic, count) for index, count in runs.items())


def inner_utilization(program: SystemProgram, works: Sequence[PassWork], elapsed: int) -> dict[str, float]:
    """Busy over elapsed cycles (0..1) of the resources inside arrays, each a mean over the used arrays that have it.

    The resources are those of `metrics.utilization`.
    """
    alike: Counter[tuple[int, frozenset[tuple[int, int]]]] = Counter()
    for rank, runs in runs_of_works(program).items():
        alike[id(program.system.arrays[rank]), frozenset(runs.items())] += 1
    tables = {index: channel_table(work.schedule, 0) for index, work in enumerate(works)}
    sums: dict[str, float] = {}
    weights: Counter[str] = Counter()
    for (_, works_run), count in alike.items():
        for name, share in _shares(works, tables, dict(works_run), elapsed).items():
            sums[name] = sums.get(name, 0.0) + count * share
            weights[name] += count
    return {name: total / weights[name] for name, total in sums.items()}


def _shares(
    works: Sequence[PassWork], tables: Mapping[int, ChannelTable], runs: Mapping[int, int], elapsed: int
) -> dict[str, float]:
    """Utilization (0..1) by resource of an array that runs each work as often as `runs` says."""
    array: ArrayConfig = works[next(iter(runs))].schedule.array
    traces = [(works[index].trace, count) for index, count in sorted(runs.items())]
    pe_busy = {
        name: sum((count * trace.pe_busy[name] for trace, count in traces), np.zeros(array.num_pes, dtype=np.int64))
        for name in traces[0][0].pe_busy
    }
    root_busy = {name: sum(count * trace.root_busy[name] for trace, count in traces) for name in traces[0][0].root_busy}
    return busy_shares(array, pe_busy, root_busy, _summed(tables, runs, elapsed), elapsed)


def _summed(tables: Mapping[int, ChannelTable], runs: Mapping[int, int], elapsed: int) -> ChannelTable:
    """The channel tables of several passes added up, each as often as the pass runs."""
    first = tables[next(iter(runs))]

    def total(name: str) -> IntArray:
        result: IntArray = np.sum([count * getattr(tables[index], name) for index, count in runs.items()], axis=0)
        return result

    mean = np.sum([count * tables[index].mean_busy for index, count in runs.items()], axis=0)
    return ChannelTable(
        first.name,
        first.level,
        first.bytes_per_cycle,
        first.length_mm,
        total("messages"),
        total("bytes"),
        total("busy"),
        np.asarray(mean, dtype=np.float64),
        elapsed,
    )


def read_bytes(program: SystemProgram, works: Sequence[PassWork]) -> int:
    """Bytes read from all memories of all arrays."""
    runs = sum(runs_of_works(program).values(), Counter())
    return sum(count * works[index].trace.read_bytes for index, count in runs.items())


def energy_joules(program: SystemProgram, works: Sequence[PassWork], seconds: float) -> dict[str, float]:
    """Energy in joules by component: dynamic of all passes, static of all living arrays; links are left out."""
    units: Counter[str] = Counter(dict.fromkeys(DYNAMIC, 0))
    runs = sum(runs_of_works(program).values(), Counter())
    for index, count in runs.items():
        schedule = works[index].schedule
        for component, each in energy_units(distinct_stages(schedule), prices_of(schedule.array)).items():
            units[component] += count * each
    dynamic = {component: units[component] / _UNITS_PER_JOULE for component in DYNAMIC}
    system = program.system
    static = math.fsum(system.arrays[rank].energy.static_watts for rank in system.alive)
    return {**dynamic, STATIC: static * seconds}


def task_rows(
    program: SystemProgram, works: Sequence[PassWork], arrays: Sequence[ArrayTime], elapsed: int
) -> tuple[TaskRow, ...]:
    """A row for every label of a stage's passes and every name of its exchanges, in program order."""
    sizes = Counter((each.pipeline, each.stage) for each in arrays)
    groups: dict[_TaskKey, list[int]] = {}
    for index, task in enumerate(program.tasks):
        if isinstance(task, ArrayPass):
            groups.setdefault((task.pipeline, task.stage, "pass", task.label), []).append(index)
        else:
            operation = program.operations[task.operation]
            name = f"{operation.name}, {operation.algorithm}"
            groups.setdefault((task.pipeline, task.stage, "exchange", name), []).append(index)
    rows = []
    for key, tasks in sorted(groups.items(), key=lambda group: group[0][:2]):
        time = max(elapsed, 1) * (sizes[key[:2]] if key[2] == "pass" else 1)
        rows.append(_task_row(program, works, key, [program.tasks[index] for index in tasks], time))
    return tuple(rows)


def _task_row(
    program: SystemProgram, works: Sequence[PassWork], key: _TaskKey, tasks: Sequence[Task], time: int
) -> TaskRow:
    """The row of passes or exchanges of one name; each distinct one is looked at once."""
    pipeline, stage, kind, name = key
    passes = [task for task in tasks if isinstance(task, ArrayPass)]
    runs: Counter[int] = Counter(task.work if isinstance(task, ArrayPass) else task.operation for task in tasks)
    counted: list[tuple[int, int, int]]
    if passes:
        arrays = len({task.array for task in passes})
        cycles = {work: works[work].trace.makespan_cycles for work in runs}
        uses = [(count, use) for work, count in runs.items() for use in works[work].trace.traffic.values()]
        counted = [(count, use.messages, use.bytes) for count, use in uses]
    else:
        done = {index: program.operations[index] for index in runs}
        arrays = max(len(operation.members) for operation in done.values())
        cycles = {index: operation.cycles for index, operation in done.items()}
        legs = [(runs[index], leg) for index, operation in done.items() for leg in operation.legs]
        counted = [(count, *entry[1:]) for count, leg in legs for entry in leg.counted]
    total = sum(count * cycles[index] for index, count in runs.items())
    messages = sum(count * each for count, each, _ in counted)
    num_bytes = sum(count * each for count, _, each in counted)
    most = max(cycles.values())
    return TaskRow(pipeline, stage, kind, name, arrays, len(tasks), most, total, total / time, messages, num_bytes)


# ---- What the links between arrays carried: takes a program of passes and exchanges, gives channels and traffic.


def runs_of_operations(program: SystemProgram) -> list[tuple[LinkOperation, int]]:
    """Every distinct exchange with how often it runs."""
    runs = Counter(task.operation for task in program.tasks if isinstance(task, LinkTask))
    return [(program.operations[index], count) for index, count in sorted(runs.items())]


def link_table(program: SystemProgram, elapsed_cycles: int) -> ChannelTable | None:
    """What every channel of the links between arrays carried, hop by hop; None where there are no links.

    A link program that counts under two tags (an all-reduce that is done as one) is shown under the first.
    """
    if program.system.links is None:
        return None
    links = links_of(program.system)
    channels, between = links.topology.channels, _between_arrays(links)
    messages, sizes, busy = np.zeros((3, len(TAGS), len(channels)), dtype=np.int64)
    for operation, repeats in runs_of_operations(program):
        for tag, on, carried, held in _legs(operation, channels):
            row = TAGS.index(tag)
            messages[row] += repeats * np.bincount(on, minlength=len(channels))
            np.add.at(sizes[row], on, repeats * carried)
            np.add.at(busy[row], on, repeats * held)
    return ChannelTable(
        tuple(channels.name[each] for each in between.tolist()),
        tuple(channels.level[each] for each in between.tolist()),
        channels.bytes_per_cycle[between],
        channels.length_mm[between],
        messages.T[between],
        sizes.T[between],
        busy.T[between],
        busy.sum(axis=0)[between].astype(np.float64),
        elapsed_cycles,
    )


def _between_arrays(links: Interconnect) -> IntArray:
    """Indices of the channels between arrays, without those that only the root uses."""
    edges = links.topology.edges
    others = edges[(edges[:, :2] != links.flows.root).all(axis=1), 2]
    return np.unique(others[others != TAP])


def link_traffic(program: SystemProgram, table: ChannelTable | None) -> dict[str, TagTraffic]:
    """Traffic between arrays by tag: messages and bytes of exchanges, busy cycles of channels; only tags in use."""
    found: dict[str, TagTraffic] = {}
    for operation, repeats in runs_of_operations(program):
        for leg in operation.legs:
            for tag, messages, num_bytes in leg.counted:
                use = found.setdefault(tag, TagTraffic())
                use.messages += repeats * messages
                use.bytes += repeats * num_bytes
    for tag, use in found.items():
        use.busy_cycles = 0 if table is None else int(table.busy[:, TAGS.index(tag)].sum())
    return found


def _legs(operation: LinkOperation, channels: Channels) -> list[tuple[str, IntArray, IntArray, IntArray]]:
    """For every leg its tag, and the channel, bytes and busy cycles of each hop that carries something."""
    found = []
    for leg in operation.legs:
        hops = leg.program.hops
        sent = leg.program.message_bytes(leg.payload_bytes)
        _, held = hops.occupancy(channels, sent)
        carries = sent[hops.message] > 0
        on, carried = hops.channel[carries], sent[hops.message][carries]
        found.append((leg.counted[0][0], on, carried, held[carries]))
    return found


# ---- What a report of several arrays is made of: plain records of a plan that was resolved and of what ran.


@dataclass(frozen=True, eq=False, slots=True)
class PassWork:
    """A distinct pass: the schedule that an array runs in it, and the trace of running it alone."""

    schedule: Schedule
    trace: Trace


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Stages that a share of the batch goes through, with everything resolved.

    Args:
        stages: in order, the first from layer 0 on, each with its arrays, layers and degrees.
        sequences: the part of the batch that goes through this pipeline.
        microbatches: number of parts in which they go through; before it is known, the most there may be.
    """

    stages: tuple[StagePlan, ...]
    sequences: range
    microbatches: int

    def to_dict(self) -> dict[str, Any]:
        """The pipeline as a JSON-ready dict; layers and sequences as [first, one past the last)."""
        return {
            "sequences": [self.sequences.start, self.sequences.stop],
            "microbatches": self.microbatches,
            "stages": [_stage_to_dict(stage) for stage in self.stages],
        }


@dataclass(frozen=True, eq=False, slots=True)
class ArrayHolding:
    """Bytes that an array keeps while the step runs.

    Args:
        rank: of the array.
        pipeline, stage: where it works.
        weight_bytes_per_pe, kv_cache_bytes_per_pe: (PEs,) bytes that each PE holds.
        root_bytes: bytes that its root holds.
        capacity_bytes_per_pe, root_capacity_bytes: capacities of a PE's and of the root's memory.
    """

    rank: int
    pipeline: int
    stage: int
    weight_bytes_per_pe: IntArray
    kv_cache_bytes_per_pe: IntArray
    root_bytes: int
    capacity_bytes_per_pe: int
    root_capacity_bytes: int

    @property
    def weight_bytes(self) -> int:
        """Bytes of weights in all PEs of the array."""
        return int(self.weight_bytes_per_pe.sum())

    @property
    def kv_cache_bytes(self) -> int:
        """Bytes of the KV cache in all PEs of the array."""
        return int(self.kv_cache_bytes_per_pe.sum())

    @property
    def peak_bytes_per_pe(self) -> int:
        """Bytes of weights and KV cache in the fullest PE."""
        return int((self.weight_bytes_per_pe + self.kv_cache_bytes_per_pe).max())

    @property
    def shortage(self) -> InfeasibleError | None:
        """What does not fit into a PE's memory, or else into the root's, as an error; None where all fits."""
        where = f"array {self.rank} (pipeline {self.pipeline}, stage {self.stage})"
        if self.peak_bytes_per_pe > self.capacity_bytes_per_pe:
            held = self.weight_bytes_per_pe + self.kv_cache_bytes_per_pe
            pe = int(held.argmax())
            return InfeasibleError(
                f"the memory of PE {pe} of {where} is too small for weights"
                f" ({int(self.weight_bytes_per_pe[pe]):,} bytes) and KV cache"
                f" ({int(self.kv_cache_bytes_per_pe[pe]):,} bytes)",
                demand=self.peak_bytes_per_pe,
                bound=self.capacity_bytes_per_pe,
                unit="bytes",
                levers=_LEVERS,
            )
        if self.root_bytes > self.root_capacity_bytes:
            return InfeasibleError(
                f"the memory of the root of {where} is too small for the embedding table and what is kept there",
                demand=self.root_bytes,
                bound=self.root_capacity_bytes,
                unit="bytes",
                levers=_LEVERS,
            )
        return None

    def to_dict(self) -> dict[str, int]:
        """The holding as a JSON-ready dict."""
        return {name: getattr(self, name) for name in _HOLDING}


def _stage_to_dict(stage: StagePlan) -> dict[str, Any]:
    distinct = tuple(dict.fromkeys(stage.degrees))
    own = [{"dp": one.dp, "tp": one.tp, "cp": one.cp, "consecutive": one.consecutive} for one in distinct]
    layers = [stage.first_layer, stage.first_layer + stage.num_layers]
    degrees: Any = own[0] if len(own) == 1 else [own[distinct.index(one)] for one in stage.degrees]
    return {"arrays": list(stage.arrays), "layers": layers, "degrees": degrees}
