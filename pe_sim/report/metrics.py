"""Figures of a trace: utilization of every resource, bounds on the latency, and the table of operators.

`bound_by` of an operator: all its stages, the moves it asked for included, are sorted by what limits them (a matrix
stage is `memory` where its PE streams no less long than it computes, else `compute`). A stage on PEs counts with the
time of the PE that takes longest, so that PEs which start late do not make it look slow; one of the network or the
root counts from its first grant to its last arrival. The kind with the most cycles names the operator, on a tie the
first in the order of `BOUND_KINDS`; an operator that takes no cycle is `free`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pe_sim.config.array import ArrayConfig
from pe_sim.config.dtypes import Dtypes
from pe_sim.config.network import GraphNetwork
from pe_sim.graph.graph import OperatorGraph
from pe_sim.report.channels import ChannelTable
from pe_sim.report.critical_path import WAIT
from pe_sim.report.links import Link, counted
from pe_sim.report.timeline import Timeline
from pe_sim.schedule.stages import Resource
from pe_sim.trace import StageSpan
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
        """JSON-ready."""
        return asdict(self)


def utilization(timeline: Timeline, channels: ChannelTable) -> dict[str, float]:
    """Busy over elapsed, each in 0..1: mean over the living PEs for their units, over the leaves' paths for the tree.

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
    """`utilization` of an array that was busy for so long, in `elapsed` cycles.

    Args:
        pe_busy: by resource, (PEs,) busy cycles.
        root_busy: by resource of the root, busy cycles.
        channels: what its interconnect carried, of a step of `elapsed` cycles.
    """
    units = {**pe_busy, **root_busy}
    found: dict[str, float] = {}
    for level, row in channels.by_level().items():
        name = f"level {level}" if level in units or level in _OVER_ALL else level  # a user's graph may call it so
        found[name] = row["utilization_mean"]
    if isinstance(array.network, GraphNetwork):
        each = channels.utilization()
        found |= dict(zip(_OVER_ALL, (float(each.mean()), float(each.max())), strict=True))
    alive = array.num_living / array.num_pes
    found |= {name: float(cycles.mean()) / alive / elapsed for name, cycles in pe_busy.items()}
    return found | {name: cycles / elapsed for name, cycles in root_busy.items()}


def bounds(timeline: Timeline, channels: ChannelTable) -> dict[str, int]:
    """Cycles the step cannot be shorter than with this mapping: the busiest PE's units, and the interconnect.

    bus_cycles and tree_cycles are those of an array with one bus and one tree; on a graph of channels they are 0, for
    what is not there bounds nothing. network_cycles are those of the busiest channel on any array (of a tree: of its
    busiest joints), hence no less than its bytes over its width.
    """
    pe_busy = timeline.trace.pe_busy
    busy = dict(zip(channels.name, channels.busy_cycles.tolist(), strict=True))
    one_bus = not isinstance(timeline.schedule.array.network, GraphNetwork)
    return {
        "compute_cycles": int(pe_busy["pe_matrix"].max()),
        "memory_cycles": int(pe_busy["pe_memory"].max()),
        "bus_cycles": busy[Resource.BUS.value] if one_bus else 0,
        "tree_cycles": busy[Resource.TREE.value] if one_bus else 0,
        "network_cycles": max(busy.values(), default=0),
    }


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


def aggregate(links: Sequence[Link], makespan: int) -> list[dict[str, Any]]:
    """The critical path by (operator, stage, resource), the longest first."""
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
    if span.on_pes is None:
        return span.end - span.start
    start, end = span.bounds_on(span.on_pes.longest_pe)
    return end - start


def _bound_by(cycles: Counter[str]) -> str:
    longest = max(BOUND_KINDS, key=lambda kind: cycles[kind])
    return longest if cycles[longest] else FREE
