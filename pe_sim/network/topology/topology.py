"""An interconnect as a directed graph of channels, and graph and channels as arrays, which engines index."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
import numpy.typing as npt

from pe_sim.units import BoolArray, IntArray

if TYPE_CHECKING:
    import networkx


# ---- The channels of an interconnect as one table of arrays.


FloatArray = npt.NDArray[np.float64]

TAP = -1  # the channel of an edge that costs nothing and is never occupied: from a bus to a listener


@dataclass(frozen=True, eq=False, slots=True)
class Channels:
    """Table of channels: entry c of each field is channel c's; section 2 of the machine model explains the numbers.

    Args:
        name: unique and readable: "bus", "mesh (3,4)->(3,5)", "tree 12 up".
        level: the level of the parameters it belongs to: "bus", "tree", "link", "cluster bus", "level 2".
        bytes_per_cycle, latency_cycles, overhead_cycles: of each message on the channel.
        request_cycles: until the arbiter hears a PE's request (the root's it hears at once).
        ramp_cycles: paid where a message enters at a PE, or leaves to a PE, over this channel.
        length_mm: length of the wire under the floor plan; of all the wire of a bus.
    """

    name: tuple[str, ...]
    level: tuple[str, ...]
    bytes_per_cycle: IntArray
    latency_cycles: IntArray
    overhead_cycles: IntArray
    request_cycles: IntArray
    ramp_cycles: IntArray
    length_mm: FloatArray

    def __len__(self) -> int:
        """Number of channels."""
        return len(self.name)

    @property
    def wire_bits_mm(self) -> float:
        """All wire in bit mm: 8 wires for each byte per cycle, times their length."""
        return float((8.0 * self.bytes_per_cycle * self.length_mm).sum())


ROOT: Final = "root"

Node = int | str


@dataclass(frozen=True, eq=False)
class Topology:
    """An interconnect as a graph: which node can send to which other over which channel.

    Nodes of `graph` are the PEs 0 .. N - 1 (a PE and its router are one node), "root", and switches, joints and buses
    under a name. Node attributes: kind ("pe", "root", "switch", "joint", "bus"), x_mm, y_mm, combines (whether it can
    combine values on their way to a reduction). Edge attribute: channel, an index into `channels`, or -1 for a tap
    without cost or occupancy. A shared bus is one channel: every sender's edge to the bus node carries it, and taps
    lead from there to the listeners.

    Args:
        kind: network.kind of the array.
        num_pes: N.
        graph: see above.
        channels: the table of channels.
        floorplan: in a sentence, where things stand and how the wires run.
        combine_cycles, softmax_combine_cycles: cycles that a node takes to combine.
        forward_cycles: cycles that a PE or router adds when it starts a multicast or passes a received value on.
        in_network_reduction: whether nodes combine at all; else the end points do.
        arity: sizes of PE groups are powers of it.
        root: the root's node.
    """

    kind: str
    num_pes: int
    graph: networkx.DiGraph
    channels: Channels
    floorplan: str
    combine_cycles: int
    softmax_combine_cycles: int
    forward_cycles: int
    in_network_reduction: bool
    arity: int
    root: Literal["root"] = ROOT

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """All nodes: the PEs in order, the root at index N, then the others."""
        return tuple(self.graph)

    @cached_property
    def node_index(self) -> dict[Node, int]:
        """The index of each node in `nodes`; a PE's is its number, the root's N."""
        return {node: index for index, node in enumerate(self.nodes)}

    @cached_property
    def edges(self) -> IntArray:
        """(edges, 3): source and target as indices into `nodes`, and the channel; in the order they were added."""
        index = self.node_index
        rows = [(index[source], index[target], channel) for source, target, channel in self.graph.edges(data="channel")]
        return np.array(rows, dtype=np.int64).reshape(-1, 3)

    @cached_property
    def is_bus(self) -> BoolArray:
        """(nodes,): whether the node is a shared bus."""
        return np.array([kind == "bus" for _, kind in self.graph.nodes(data="kind")], dtype=np.bool_)

    @cached_property
    def combines(self) -> BoolArray:
        """(nodes,): whether the node can combine."""
        return np.array([combines for _, combines in self.graph.nodes(data="combines")], dtype=np.bool_)
