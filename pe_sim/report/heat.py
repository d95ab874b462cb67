"""How busy each channel of the drawn interconnect was: takes a report, gives the kinds of messages told apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from pe_sim.config.network import GraphNetwork
from pe_sim.errors import InputError, did_you_mean
from pe_sim.network.topologies import build_topology
from pe_sim.network.topology import Topology
from pe_sim.report.channels import TAGS, FloatArray, distinct_stages
from pe_sim.report.report import Report
from pe_sim.schedule.stages import MessageStage, Resource, Tag, TreeStage
from pe_sim.units import IntArray, ceil_div

ALL: Final = "all"
_KINDS: Final = {  # a panel each: what goes out to several, what comes in, what everybody gets, ...
    "broadcast and multicast": (Tag.BROADCAST, Tag.MULTICAST),
    "scatter": (Tag.SCATTER,),
    "gather": (Tag.GATHER,),
    "all-gather": (Tag.ALL_GATHER,),
    "reduce": (Tag.REDUCE,),
    "all-to-all": (Tag.ALL_TO_ALL,),
    "unicast": (Tag.UNICAST,),
    "weight-stream": (Tag.WEIGHT_STREAM,),
}


@dataclass(frozen=True, eq=False)
class Heat:
    """One kind of messages; `utilization` (channels,) is busy over elapsed, 0..1."""

    title: str
    utilization: FloatArray


def channel_heat(report: Report, tag: str | None) -> tuple[Topology, list[Heat]]:
    """The interconnect, and what to draw: one tag, all messages ("all"), or (None) all and each kind that was sent.

    Raises:
        InputError: there is no such tag.
    """
    if tag is not None and tag != ALL and tag not in TAGS:
        known = (*TAGS, ALL)
        raise InputError("no such tag", path="tag", given=tag, expected=", ".join(known), hint=did_you_mean(tag, known))
    topology = build_topology(report.array)
    on_graph = isinstance(report.array.network, GraphNetwork)
    busy = report.channels.busy if on_graph else _bus_tree_busy(report, topology)
    share = busy / max(report.latency_cycles, 1)

    def heat(title: str, tags: tuple[str, ...]) -> Heat:
        return Heat(title, share[:, [TAGS.index(each) for each in tags]].sum(axis=1))

    whole = heat("all messages", TAGS)
    if tag is not None:
        return topology, [whole if tag == ALL else heat(tag, (tag,))]
    kinds = [heat(name, tuple(tag.value for tag in tags)) for name, tags in _KINDS.items()]
    used = [kind for kind in kinds if kind.utilization.any()]
    return topology, [whole, *used]


def _bus_tree_busy(report: Report, topology: Topology) -> IntArray:
    """(channels, tags) busy cycles of the bus and of every wire of the tree."""
    schedule, channels = report.schedule, topology.channels
    tree = schedule.array.bus_tree.tree
    index = {name: channel for channel, name in enumerate(channels.name)}
    busy = np.zeros((len(channels), len(TAGS)), dtype=np.int64)
    busy[index[Resource.BUS.value]] = report.channels.busy[report.channels.name.index(Resource.BUS.value)]

    def wires(first: int, last: int, levels: int, way: str) -> list[int]:
        """Those that lead from PEs first .. last - 1 up `levels` levels, or down."""
        found = []
        for level in range(levels):
            size = tree.arity**level
            joints = range(first // size, -(-last // size))
            found += [index[f"tree {joint if level == 0 else f'{level}.{joint}'} {way}"] for joint in joints]
        return found

    def add(firsts: IntArray, lasts: IntArray, cycles: IntArray, tag: Tag, way: str, *, whole: bool = False) -> None:
        column = busy[:, TAGS.index(tag.value)]
        for first, last, each in zip(firsts.tolist(), lasts.tolist(), cycles.tolist(), strict=True):
            if whole:
                passed = wires(0, schedule.array.num_pes, tree.num_levels, way)
            else:
                levels = next(n for n in range(tree.num_levels + 1) if tree.arity**n >= last - first)
                passed = wires(first, last, levels, way)
            column[np.array(passed, dtype=np.int64)] += each

    for stage, repeats in distinct_stages(schedule):
        if isinstance(stage, TreeStage):
            beats = repeats * ceil_div(stage.num_bytes, tree.bytes_per_cycle)
            add(stage.first_pe, stage.last_pe, beats, Tag.REDUCE, "up", whole=stage.whole_tree)
        elif isinstance(stage, MessageStage) and stage.channel is Resource.DOWNLINK:
            beats = repeats * ceil_div(stage.num_bytes, tree.bytes_per_cycle)
            add(stage.first_pe[stage.target], stage.last_pe[stage.target], beats, stage.tag, "down")
    return busy
