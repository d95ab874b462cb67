"""Figures of a trace: utilization of every resource, bounds on the latency, and the table of operators.

`bound_by` of an operator: all its stages, the moves it asked for included, are sorted by what limits them (a matrix
stage is `memory` where its PE streams no less long than it computes, else `compute`). A stage on PEs counts with the
time of the PE that takes longest, so that PEs which start late do not make it look slow; one of the network or the
root counts from its first grant to its last arrival. The kind with the most cycles names the operator, on a tie the
first in the order of `BOUND_KINDS`; an operator that takes no cycle is `free`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from pe_sim.config.arrays.array import ArrayConfig
from pe_sim.config.dtypes import Dtypes
from pe_sim.graph.graph import OperatorGraph
from pe_sim.report.analysis.channels import ChannelTable
from pe_sim.report.analysis.critical_path import WAIT, Link, counted
from pe_sim.report.analysis.timeline import Timeline
from pe_sim.schedule.stages import Resource
from pe_sim.trace import NOT_ACTIVE, StageSpan
from pe_sim.units import IntArray

KIND_OF: dict[Resource, str] = {
    Resource.PE_MEMORY: "memory",
    Resource.PE_MATRIX: "compute",
    Resource.PE_VECTOR: "vector",
    Resource.BUS: "bus",
    Resource.TREE: "tree",
    Resource.DOWNLINK: "downlink",
    Resource.NETWORK: "network",
    Resource.ROOT_VECTOR: "root",
    Resource.ROOT_MEMORY: "root",
}
BOUND_KINDS = tuple(dict.fromkeys(KIND_OF.values()))
LINK_KINDS: dict[str, str] = {**{resource.value: kind for resource, kind in KIND_OF.items()}, WAIT: WAIT}
FREE = "free"
_OVER_ALL = ("network_mean", "network_max")


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
        """The row as a JSON-ready dict."""
        return {name: getattr(self, name) for name in self.__slots__}


def utilization(timeline: Timeline, channels: ChannelTable) -> dict[str, float]:
    """Busy over elapsed cycles (0..1) by resource: for PE units the mean of the living PEs, for the tree of its paths.

    On a graph of channels each level has the mean over its channels under its own name, and network_mean and
    network_max are over all channels.
    """
    trace = timeline.trace
    elapsed = max(trace.makespan_cycles, 1)
    return busy_shares(timeline.schedule.array, trace.pe_busy, trace.root_busy, channels, elapsed)


def busy_shares(
    array: ArrayConfig,
    pe_busy: Mapping[str, IntArray],
    root_busy: Mapping[str, int],
    channels: ChannelTable,
    elapsed: int,
) -> dict[str, float]:
    """Utilization (0..1) by resource, as `utilization` gives it, from the busy cycles of an array.

    Args:
        pe_busy: by resource, (PEs,) busy cycles.
        root_busy: by resource of the root, busy cycles.
        channels: what its interconnect carried in a step of `elapsed` cycles.
        elapsed: cycles, at least 1.
    """
    units = {**pe_busy, **root_busy}
    found: dict[str, float] = {}
    for level, row in channels.by_level().items():
        name = f"level {level}" if level in units or level in _OVER_ALL else level  # a user's graph may call it so
        found[name] = row["utilization_mean"]
    if array.network.is_graph:
        each = channels.utilization()
        found |= dict(zip(_OVER_ALL, (float(each.mean()), float(each.max())), strict=True))
    alive = array.num_living / array.num_pes
    found |= {name: float(cycles.mean()) / alive / elapsed for name, cycles in pe_busy.items()}
    return found | {name: cycles / elapsed for name, cycles in root_busy.items()}


def bounds(timeline: Timeline, channels: ChannelTable) -> dict[str, int]:
    """Lower bounds on the latency of the step with this mapping, in cycles, by the resource that sets them.

    bus_cycles and tree_cycles are those of an array with one bus and one tree; on a graph of channels they are 0, for
    what is not there bounds nothing. network_cycles are those of the busiest channel on any array (of a tree: of its
    busiest joints), hence no less than its bytes over its width.
    """
    pe_busy = timeline.trace.pe_busy
    busy = dict(zip(channels.name, channels.busy_cycles.tolist(), strict=True))
    one_bus = not timeline.schedule.array.network.is_graph
    return {
        "compute_cycles": int(pe_busy["pe_matrix"].max()),
        "memory_cycles": int(pe_busy["pe_memory"].max()),
        "bus_cycles": busy[Resource.BUS.value] if one_bus else 0,
        "tree_cycles": busy[Resource.TREE.value] if one_bus else 0,
        "network_cycles": max(busy.values(), default=0),
    }


def operator_rows(graph: OperatorGraph, timeline: Timeline, dtypes: Dtypes) -> tuple[OperatorRow, ...]:
    """A row for every operator instance in program order; one without stages is placed at the end of the one before."""
    operators = (*graph.prologue, *graph.layer, *graph.epilogue)
    work = {id(operator): (operator.flops, operator.num_bytes(dtypes)) for operator in operators}
    layers = _done_in_layers(timeline)
    rows = list[OperatorRow]()
    end = 0
    for layer, operator in graph.instances():
        base, of_layer = layers.get(layer, (0, {}))
        done = of_layer.get(operator.name)
        start, end = (base + done.start, base + done.end) if done else (end, end)
        distribution, bound_by = (done.distribution, done.bound_by) if done else ("", FREE)
        name = operator.name
        rows.append(OperatorRow(layer, name, distribution, *work[id(operator)], start, end, end - start, bound_by))
    return tuple(rows)


@dataclass(slots=True)
class _Done:
    """The work done for an operator, in cycles from its layer's base on."""

    start: int
    end: int
    distribution: str = ""
    bound_by: str = FREE


def _done_in_layers(timeline: Timeline) -> dict[int | None, tuple[int, dict[str, _Done]]]:
    """By layer, its base cycle and what was done for each operator; layers that repeat each other share the latter."""
    spans, runs = timeline.trace.spans, timeline.trace.runs
    # By layer: what its spans repeat, their base, their orders.
    parts: dict[int | None, list[tuple[int, int, range]]] = {}
    if runs is None:
        for order, span in enumerate(spans):
            parts.setdefault(span.layer, []).append((order, 0, range(order, order + 1)))
    else:
        firsts = runs.first.tolist()
        orders = map(range, firsts, [*firsts[1:], len(spans)])
        for layer, *part in zip(runs.layer.tolist(), runs.record.tolist(), runs.base.tolist(), orders, strict=True):
            parts.setdefault(None if layer == NOT_ACTIVE else layer, []).append((part[0], part[1], part[2]))
    known: dict[tuple[tuple[int, int], ...], dict[str, _Done]] = {}
    layers: dict[int | None, tuple[int, dict[str, _Done]]] = {}
    for layer, of_layer in parts.items():
        base = of_layer[0][1]
        key = tuple([(record, start - base) for record, start, _ in of_layer])
        if key not in known:
            known[key] = _done_by_operator(timeline, chain.from_iterable(orders for _, _, orders in of_layer), base)
        layers[layer] = base, known[key]
    return layers


def _done_by_operator(timeline: Timeline, orders: Iterable[int], base: int) -> dict[str, _Done]:
    found: dict[str, _Done] = {}
    cycles: dict[str, Counter[str]] = {}
    for span in map(timeline.trace.spans.__getitem__, orders):
        if span.start == NOT_ACTIVE:
            continue
        done = found.setdefault(span.operator, _Done(span.start - base, span.end - base))
        done.start, done.end = min(done.start, span.start - base), max(done.end, span.end - base)
        done.distribution = done.distribution or span.distribution
        cycles.setdefault(span.operator, Counter())[KIND_OF[timeline.resource_of(span.order)]] += _length(span)
    for name, done in found.items():
        done.bound_by = _bound_by(cycles[name])
    return found


def aggregate(links: Sequence[Link], makespan: int) -> list[dict[str, Any]]:
    """Rows of the critical path summed by (operator, stage, resource), the longest first."""
    cycles: Counter[tuple[str, str, str]] = Counter()
    count: Counter[tuple[str, str, str]] = Counter()
    for link, times in counted(links):
        key = (link.operator, link.name, link.resource)
        cycles[key] += times * link.cycles
        count[key] += times
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
    if not span.on_pes:
        return span.end - span.start
    start, end = span.bounds_on(span.parts.longest)
    return end - start


def _bound_by(cycles: Counter[str]) -> str:
    longest = max(BOUND_KINDS, key=lambda kind: cycles[kind])
    return longest if cycles[longest] else FREE
