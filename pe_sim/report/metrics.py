"""Figures of a trace: utilization of every resource, bounds on the latency, and the table of operators.

`bound_by` of an operator: all its stages, the moves it asked for included, are sorted by what limits them (a matrix
stage is `memory` where its PE streams no less long than it computes, else `compute`). A stage on PEs counts with the
time of the PE that takes longest, so that PEs which start late do not make it look slow; one of the network or the
root counts from its first grant to its last arrival. The kind with the most cycles names the operator, on a tie the
first in the order of `BOUND_KINDS`; an operator that takes no cycle is `free`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pe_sim.config.dtypes import Dtypes
from pe_sim.graph.graph import OperatorGraph
from pe_sim.report.critical_path import WAIT, Link
from pe_sim.report.timeline import Timeline
from pe_sim.schedule.stages import MessageStage, Resource, Schedule, TreeStage
from pe_sim.trace import StageSpan
from pe_sim.units import IntArray, ceil_div

KIND_OF: dict[Resource, str] = {
    Resource.PE_MEMORY: "memory",
    Resource.PE_MATRIX: "compute",
    Resource.PE_VECTOR: "vector",
    Resource.BUS: "bus",
    Resource.TREE: "tree",
    Resource.DOWNLINK: "downlink",
    Resource.ROOT_VECTOR: "root",
    Resource.ROOT_MEMORY: "root",
}
BOUND_KINDS = tuple(dict.fromkeys(KIND_OF.values()))
LINK_KINDS: dict[str, str] = {**{resource.value: kind for resource, kind in KIND_OF.items()}, WAIT: WAIT}
FREE = "free"


@dataclass(frozen=True, slots=True)
class OperatorRow:
    """One operator of one layer; flops and bytes are the whole operator's, every operand touched once.

    `start` and `end` are cycles, over everything that was done for it; `layer` is None outside the layers.
    """

    layer: int | None
    name: str
    distribution: str
    flops: int
    bytes: int
    start: int
    end: int
    cycles: int
    bound_by: str

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def utilization(timeline: Timeline) -> dict[str, float]:
    """Busy over elapsed: mean over the PEs for their units, over the leaves' paths for the tree; each in 0..1."""
    schedule, trace = timeline.schedule, timeline.trace
    elapsed = max(trace.makespan_cycles, 1)
    busy = {"bus": float(_bus_busy(timeline)), "tree": float(joint_busy(schedule, Resource.TREE).mean())}
    if schedule.array.network.tree.downlink:
        busy["downlink"] = float(joint_busy(schedule, Resource.DOWNLINK).mean())
    busy |= {name: float(cycles.mean()) for name, cycles in trace.pe_busy.items()}
    busy |= {name: float(cycles) for name, cycles in trace.root_busy.items()}
    return {name: cycles / elapsed for name, cycles in busy.items()}


def bounds(timeline: Timeline) -> dict[str, int]:
    """Cycles the step cannot be shorter than with this mapping: the busiest PE's units, the bus, the tree's joints."""
    pe_busy = timeline.trace.pe_busy
    return {
        "compute_cycles": int(pe_busy["pe_matrix"].max()),
        "memory_cycles": int(pe_busy["pe_memory"].max()),
        "bus_cycles": _bus_busy(timeline),
        "tree_cycles": int(joint_busy(timeline.schedule, Resource.TREE).max()),
    }


def joint_busy(schedule: Schedule, channel: Resource) -> IntArray:
    """(PEs,) beats of all that passes the joints above each PE, of the tree or its downlink.

    Reductions in disjoint subtrees go on side by side, so the sum over all of them may exceed the time they take.
    """
    busy = np.zeros(schedule.array.num_pes, dtype=np.int64)
    for index, repeats in Counter(run.block for run in schedule.sequence).items():
        for stage in schedule.blocks[index].stages:
            if isinstance(stage, TreeStage) and channel is Resource.TREE:
                firsts, lasts, sizes = stage.first_pe, stage.last_pe, stage.num_bytes
                whole = stage.whole_tree
            elif isinstance(stage, MessageStage) and stage.channel is channel:
                firsts, lasts, sizes = stage.first_pe[stage.target], stage.last_pe[stage.target], stage.num_bytes
                whole = False
            else:
                continue
            beats = repeats * ceil_div(sizes, schedule.array.network.tree.bytes_per_cycle)
            if whole:
                busy += beats.sum()
                continue
            for first, last, cycles in zip(firsts.tolist(), lasts.tolist(), beats.tolist(), strict=True):
                busy[first:last] += cycles
    return busy


def operator_rows(graph: OperatorGraph, timeline: Timeline, dtypes: Dtypes) -> tuple[OperatorRow, ...]:
    """A row for every operator instance in program order; one without stages sits where the one before it ended."""
    spans: dict[tuple[int | None, str], list[tuple[int, int]]] = {}
    kinds: dict[tuple[int | None, str], Counter[str]] = {}
    distributions: dict[tuple[int | None, str], str] = {}
    for span, _ in timeline.active():
        key = (span.layer, span.operator)
        spans.setdefault(key, []).append((span.start, span.end))
        kinds.setdefault(key, Counter())[KIND_OF[timeline.resource_of(span.order)]] += _length(span)
        distributions[key] = distributions.get(key) or span.distribution
    rows = []
    previous_end = 0
    for layer, operator in graph.instances():
        done = spans.get((layer, operator.name), [])
        start = min((span[0] for span in done), default=previous_end)
        end = previous_end = max((span[1] for span in done), default=previous_end)
        row = OperatorRow(
            layer,
            operator.name,
            distributions.get((layer, operator.name), ""),
            operator.flops,
            operator.num_bytes(dtypes),
            start,
            end,
            end - start,
            _bound_by(kinds.get((layer, operator.name), Counter())),
        )
        rows.append(row)
    return tuple(rows)


def aggregate(links: Iterable[Link], makespan: int) -> list[dict[str, Any]]:
    """The critical path by (operator, stage, resource), the longest first."""
    cycles: Counter[tuple[str, str, str]] = Counter()
    count: Counter[tuple[str, str, str]] = Counter()
    for link in links:
        key = (link.operator, link.name, link.resource)
        cycles[key] += link.cycles
        count[key] += 1
    ordered = sorted(cycles, key=lambda key: (-cycles[key], key))
    return [
        {
            "operator": key[0],
            "stage": key[1],
            "resource": key[2],
            "cycles": cycles[key],
            "count": count[key],
            "share": cycles[key] / makespan,
        }
        for key in ordered
    ]


def _length(span: StageSpan) -> int:
    if span.pe_start is None or span.pe_end is None:
        return span.end - span.start
    return int((span.pe_end - span.pe_start).max())


def _bound_by(cycles: Counter[str]) -> str:
    longest = max(BOUND_KINDS, key=lambda kind: cycles[kind])
    return longest if cycles[longest] else FREE


def _bus_busy(timeline: Timeline) -> int:
    uses = timeline.trace.channel_use
    on_bus = uses.channel == uses.channels.index(Resource.BUS.value)
    return int((uses.end - uses.start)[on_bus].sum())
