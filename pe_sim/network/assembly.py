"""Puts a topology together: takes nodes, links and their parameters, gives channels with lengths and latencies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final, Protocol

import numpy as np

from pe_sim.config.array import Floorplan, Network
from pe_sim.config.floorplan import wire_cycles
from pe_sim.config.network import GraphNetwork
from pe_sim.config.network_shapes import AUTO, Link
from pe_sim.errors import InputError
from pe_sim.network.channels import TAP, Channels
from pe_sim.network.placement import Point, middle
from pe_sim.network.topology import ROOT, Node, Topology

MAX_LATENCY_CYCLES: Final = 2**20  # as in the array's file


@dataclass(frozen=True, slots=True)
class Plan:
    """All that a topology depends on; a key of caches."""

    num_pes: int
    network: Network | GraphNetwork
    floorplan: Floorplan


@dataclass(frozen=True, slots=True)
class Bisection:
    """The least bytes per cycle between two halves of the PEs, in one direction, and how we know."""

    bytes_per_cycle: int
    how: str


class TopologyBuilder(Protocol):
    """A kind of interconnect: what a new one has to offer."""

    def build(self, plan: Plan) -> Topology:
        """The graph of channels."""

    def diameter(self, plan: Plan) -> int | None:
        """Channels between the two PEs farthest apart; None: to be counted on the graph."""

    def bisection(self, plan: Plan) -> Bisection | None:
        """In closed form; None: to be found on the graph."""


@cache
def _auto_cycles(pitches: float, floorplan: Floorplan) -> int:
    cycles = wire_cycles(pitches, floorplan)
    if cycles > MAX_LATENCY_CYCLES:
        raise InputError(
            f"the floorplan makes a wire of {pitches:g} PE pitches longer than {MAX_LATENCY_CYCLES} cycles",
            path="network",
            given=AUTO,
            expected=f"at most {MAX_LATENCY_CYCLES} cycles",
            hint="check floorplan.pe_pitch_mm and floorplan.mm_per_cycle",
        )
    return cycles


class Assembly:
    """A topology in the making; coordinates and lengths are in PE pitches until it is finished."""

    def __init__(self, plan: Plan, places: Sequence[Point], *, routers: bool, beside: int | None = None) -> None:
        """Adds the PEs at their places and the root, one pitch left of the left side.

        Args:
            plan: what the topology depends on.
            places: of the PEs.
            routers: whether the PEs have routers, which can combine; else they are end points.
            beside: the root stands on the height of this PE; None: in the middle.
        """
        self._plan = plan
        self._nodes: dict[Node, tuple[str, Point, bool]] = {}
        self._edges: dict[tuple[Node, Node], int] = {}
        self._names: list[str] = []
        self._levels: list[str] = []
        self._numbers: list[tuple[int, int, int, int, int]] = []  # width, latency, overhead, request, ramp
        self._lengths: list[float] = []
        network = plan.network
        self.combining = network.in_network_reduction if isinstance(network, GraphNetwork) else True
        for pe, place in enumerate(places):
            self._nodes[pe] = ("pe", place, routers and self.combining)
        height = middle(list(places))[1] if beside is None else places[beside][1]
        self._nodes[ROOT] = ("root", (min(x for x, _ in places) - 1.0, height), self.combining)

    def node(self, name: str, kind: str, place: Point, combines: bool | None = None) -> None:
        """A switch, joint or bus; it combines if the network does, a bus never."""
        if combines is None:
            combines = self.combining and kind != "bus"
        self._nodes[name] = (kind, place, combines)

    def amend(self, node: Node, place: Point | None, combines: bool | None) -> None:
        """Changes what is given of a node that is already there."""
        kind, before, combining = self._nodes[node]
        self._nodes[node] = (kind, place or before, combining if combines is None else combines)

    def place(self, node: Node) -> Point:
        """Where a node stands."""
        return self._nodes[node][1]

    def auto_cycles(self, pitches: float) -> int:
        """The `auto` latency of a wire."""
        return _auto_cycles(pitches, self._plan.floorplan)

    def channel(self, name: str, level: str, link: Link, pitches: float, latency_cycles: int | None = None) -> int:
        """A new channel's index; its latency as given, or as the link says, `auto` from the length."""
        latency = latency_cycles
        if latency is None:
            latency = self.auto_cycles(pitches) if link.latency_cycles == AUTO else link.latency_cycles
        request = latency if link.request_cycles == AUTO else link.request_cycles
        self._names.append(name)
        self._levels.append(level)
        self._numbers.append((link.bytes_per_cycle, latency, link.overhead_cycles, request, link.ramp_cycles))
        self._lengths.append(pitches)
        return len(self._names) - 1

    def edge(self, source: Node, target: Node, channel: int = TAP) -> None:
        """An edge that carries the channel."""
        assert (source, target) not in self._edges
        self._edges[source, target] = channel

    def wire(
        self,
        source: Node,
        target: Node,
        name: str,
        level: str,
        link: Link,
        pitches: float | None = None,
        latency_cycles: int | None = None,
    ) -> None:
        """An edge with a channel of its own, as long as the way along rows and columns if not given."""
        if pitches is None:
            (from_x, from_y), (to_x, to_y) = self._nodes[source][1], self._nodes[target][1]
            pitches = abs(from_x - to_x) + abs(from_y - to_y)
        self.edge(source, target, self.channel(name, level, link, pitches, latency_cycles))

    def pair(self, below: Node, above: Node, name: str, level: str, link: Link) -> None:
        """A channel up and one down."""
        self.wire(below, above, f"{name} up", level, link)
        self.wire(above, below, f"{name} down", level, link)

    def finish(self, floorplan: str) -> Topology:
        """The topology; `floorplan` says in a sentence where things stand."""
        # Imported here: networkx takes 0.2 s, and only who asks for a graph pays for it.
        import networkx

        pitch, network = self._plan.floorplan.pe_pitch_mm, self._plan.network
        graph = networkx.DiGraph()
        graph.add_nodes_from(
            (name, {"kind": kind, "x_mm": x * pitch, "y_mm": y * pitch, "combines": combines})
            for name, (kind, (x, y), combines) in self._nodes.items()
        )
        graph.add_edges_from(
            (source, target, {"channel": channel}) for (source, target), channel in self._edges.items()
        )
        width, latency, overhead, request, ramp = np.array(self._numbers, dtype=np.int64).reshape(-1, 5).T
        lengths = np.array(self._lengths, dtype=np.float64) * pitch
        names, levels = tuple(self._names), tuple(self._levels)
        combine, softmax, forward = (
            (network.tree.combine_cycles, network.tree.softmax_combine_cycles, 0)
            if isinstance(network, Network)
            else (network.combine_cycles, network.softmax_combine_cycles, network.forward_cycles)
        )
        return Topology(
            kind=network.kind,
            num_pes=self._plan.num_pes,
            graph=graph,
            channels=Channels(names, levels, width, latency, overhead, request, ramp, lengths),
            floorplan=floorplan,
            combine_cycles=combine,
            softmax_combine_cycles=softmax,
            forward_cycles=forward,
            in_network_reduction=self.combining,
            arity=network.arity,
        )
