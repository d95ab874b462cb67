"""The schema of the interconnect of kind bus_tree, and the names of all kinds."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from pe_sim.config.files.schema import (
    MAX_BYTES,
    MAX_PES,
    BusLatency,
    Cycles,
    Rate,
    Section,
    TreeLatency,
)
from pe_sim.registry import Registry

GatherWay = Literal["serial", "by_reduction", "best"]
Arbitration = Literal["fifo", "round_robin", "priority"]
Kind = Literal[
    "bus_tree",
    "hierarchical_bus",
    "h_tree",
    "fat_tree",
    "line",
    "ring",
    "mesh",
    "torus",
    "hypercube",
    "butterfly",
    "crossbar",
    "graph",
]
# An entry of a package has `section`, the Section of its kind; `shape(section, num_pes)`; `builder`, a TopologyBuilder.
KINDS: Registry[Any] = Registry("pe_sim.topologies", dict.fromkeys(get_args(Kind)), ("section", "shape", "builder"))


class BusFile(Section):
    """The schema of the bus: the one shared channel."""

    bytes_per_cycle: Rate = Field(description="width, W")
    latency_cycles: BusLatency = Field(description="time of flight; auto: from the floorplan")
    overhead_cycles: Cycles = Field(description="arbitration and header of every message")
    request_cycles: BusLatency = Field(default=0, description="a PE's request to the arbiter; auto: as latency_cycles")
    burst_bytes: Annotated[int | None, Field(ge=1, le=MAX_BYTES)] = Field(
        default=None, description="a message is cut into bursts of this size; null: not cut"
    )


class TreeFile(Section):
    """The schema of the reduction tree."""

    arity: int = Field(ge=2, le=MAX_PES, description="children of a joint, k")
    bytes_per_cycle: Rate = Field(description="width of every edge")
    latency_cycles: TreeLatency = Field(description="of a hop: one number, a list with one a level, or auto")
    combine_cycles: Cycles = Field(description="a joint's time to combine")
    softmax_combine_cycles: Cycles = Field(default=12, description="a joint's time to merge two softmax partials")
    downlink: bool = Field(default=False, description="whether results can go down the tree")


class CollectivesFile(Section):
    """The schema of the algorithms of gathers and scatters."""

    gather: GatherWay = Field(default="best", description="gather and all-gather")
    scatter: GatherWay = Field(default="best", description="scatter")


class NetworkFile(Section):
    """The schema of the interconnect of kind bus_tree; `schema` has the other kinds."""

    kind: Kind = Field(description="bus_tree: one bus down, one tree up")
    bus: BusFile = Field(description="the bus")
    tree: TreeFile = Field(description="the reduction tree")
    arbitration: Arbitration = Field(default="fifo", description="who gets the bus when several ask for it")
    collectives: CollectivesFile = Field(default_factory=CollectivesFile, description="ways of gather and scatter")
