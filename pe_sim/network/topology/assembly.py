"""Assembles topologies: takes nodes and links, gives channels with places, lengths and latencies; and bisections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final, Protocol

import numpy as np

from pe_sim.config.arrays.array import Floorplan
from pe_sim.config.arrays.floorplan import grid_shape, wire_cycles
from pe_sim.config.networks.network import GraphNetwork, Network
from pe_sim.config.networks.shapes import AUTO, Link
from pe_sim.errors import InputError
from pe_sim.network.topology.topology import ROOT, TAP, Channels, Node, Topology
from pe_sim.units import IntArray

MAX_LATENCY_CYCLES: Final = 2**20  # as in the array's file


@dataclass(frozen=True, slots=True)
class Plan:
    """All that a topology depends on; the key of caches."""

    num_pes: int
    network: Network | GraphNetwork
    floorplan: Floorplan


@dataclass(frozen=True, slots=True)
class Bisection:
    """The least bytes per cycle between two halves of the PEs, in one direction, and how it was found."""

    bytes_per_cycle: int
    how: str


class TopologyBuilder(Protocol):
    """Interface of a kind of interconnect."""

    def build(self, plan: Plan) -> Topology:
        """The graph of channels."""

    def diameter(self, plan: Plan) -> int | None:
        """Channels between the two PEs farthest apart; None: to be counted on the graph."""

    def bisection(self, plan: Plan) -> Bisection | None:
        """The bisection in closed form; None: to be found on the graph."""


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
            places: where each PE stands.
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
        """Adds a switch, joint or bus; it combines as given, else if the network does, a bus never."""
        if combines is None:
            combines = self.combining and kind != "bus"
        self._nodes[name] = (kind, place, combines)

    def amend(self, node: Node, place: Point | None, combines: bool | None) -> None:
        """Changes the place or `combines` of a node that was added before, where they are given."""
        kind, before, combining = self._nodes[node]
        self._nodes[node] = (kind, place or before, combining if combines is None else combines)

    def place(self, node: Node) -> Point:
        """The place of a node."""
        return self._nodes[node][1]

    def auto_cycles(self, pitches: float) -> int:
        """Latency in cycles that `auto` gives a wire of this length."""
        return _auto_cycles(pitches, self._plan.floorplan)

    def channel(self, name: str, level: str, link: Link, pitches: float, latency_cycles: int | None = None) -> int:
        """Adds a channel; returns its index. Its latency is as given, else as the link says, `auto` from the length."""
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
        """Adds an edge that carries the channel."""
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
        """Adds an edge with a channel of its own, of the given length or that of the way along rows and columns."""
        if pitches is None:
            (from_x, from_y), (to_x, to_y) = self._nodes[source][1], self._nodes[target][1]
            pitches = abs(from_x - to_x) + abs(from_y - to_y)
        self.edge(source, target, self.channel(name, level, link, pitches, latency_cycles))

    def pair(self, below: Node, above: Node, name: str, level: str, link: Link) -> None:
        """Adds a channel up and one down between two nodes."""
        self.wire(below, above, f"{name} up", level, link)
        self.wire(above, below, f"{name} down", level, link)

    def finish(self, floorplan: str) -> Topology:
        """The topology; `floorplan` says in a sentence where things stand."""
        # Imported here because networkx takes 0.2 s, which only those who ask for a graph should pay.
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


# ---- Where PEs stand under the floor plan: takes N, gives coordinates in PE pitches (x to the right, y down).
#
# All orders fill the same near-square grid (`grid_shape`); they differ in which PE stands where.


Point = tuple[float, float]


def row_by_row(num_pes: int, cols: int | None = None) -> list[Point]:
    """Places row by row: PE i in column i mod cols of row i // cols; without `cols`, of the near-square grid."""
    cols = cols or grid_shape(num_pes)[0]
    return [(float(pe % cols), float(pe // cols)) for pe in range(num_pes)]


def z_order(num_pes: int) -> list[Point]:
    """Places along a Z-order curve, so that aligned groups of neighbours stand together."""
    cols, _ = grid_shape(num_pes)
    cells = [(_interleave(pe % cols, pe // cols), pe % cols, pe // cols) for pe in range(num_pes)]
    return [(float(x), float(y)) for _, x, y in sorted(cells)]


def snake(num_pes: int) -> list[Point]:
    """Places row by row, every second row backwards, so that neighbours are one pitch apart."""
    cols, _ = grid_shape(num_pes)
    return [
        (float(column if row % 2 == 0 else cols - 1 - column), float(row))
        for row, column in (divmod(pe, cols) for pe in range(num_pes))
    ]


def loop(num_pes: int) -> list[Point]:
    """Places along a closed way through the grid.

    One pitch a step where the grid is full and has an even side; else the snake folded, its steps two pitches at most.
    """
    cols, rows = grid_shape(num_pes)
    if cols * rows == num_pes and min(cols, rows) > 1 and (cols % 2 == 0 or rows % 2 == 0):
        turned = cols % 2 == 1
        width, height = (rows, cols) if turned else (cols, rows)
        way = [(column, 0) for column in range(width)]
        for column in reversed(range(width)):
            down = (width - 1 - column) % 2 == 0
            way += [(column, row) for row in (range(1, height) if down else reversed(range(1, height)))]
        return [(float(y), float(x)) if turned else (float(x), float(y)) for x, y in way]
    line = snake(num_pes)
    return [line[slot] for slot in folded(num_pes)]


def folded(length: int) -> list[int]:
    """The places of a ring's members on a line such that neighbours, the ends included, are two apart at most."""
    half = (length + 1) // 2
    return [2 * index if index < half else 2 * (length - 1 - index) + 1 for index in range(length)]


def by_bits(num_pes: int) -> list[Point]:
    """Places of 2^k PEs by the bits of their numbers: the even bits are the column, the odd ones the row."""
    bits = range(num_pes.bit_length())
    return [
        (
            float(sum((pe >> 2 * bit & 1) << bit for bit in bits)),
            float(sum((pe >> 2 * bit + 1 & 1) << bit for bit in bits)),
        )
        for pe in range(num_pes)
    ]


def middle(points: list[Point]) -> Point:
    """The middle of the smallest upright rectangle around the points."""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    return (min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2


def _interleave(x: int, y: int) -> int:
    return sum((x >> bit & 1) << 2 * bit | (y >> bit & 1) << 2 * bit + 1 for bit in range(max(x, y).bit_length()))


# ---- How wide the cut between two halves is: exact for trees, closed forms for grids.


def tree_bisection(num_leaves: int, arity: int, widths: Sequence[int]) -> int:
    """The least width cut, in one direction, that leaves two halves of the leaves (equal, or one leaf apart).

    Args:
        num_leaves: leaves of a tree as `trees.grow_tree` makes it.
        arity: children of a joint.
        widths: width of the links of each level, from the leaves up.
    """
    if num_leaves < 2:
        return 0
    # By the number of a joint's leaves: (leaves + 1,) the least cut below it with so many of them on its own side.
    # Joints of one level with equally many leaves are alike, and all but the last have equally many.
    costs = {1: np.array([np.iinfo(np.int64).max // 4, 0], dtype=np.int64)}
    size = 1
    for width in widths:
        rest = num_leaves % (size * arity) or min(size * arity, num_leaves)
        costs = {total: _joined(total, size, costs, width) for total in {min(size * arity, num_leaves), rest}}
        size *= arity
    whole = costs[num_leaves]
    half = num_leaves // 2
    return int(min(whole[half], whole[num_leaves - half]))


def _joined(total: int, size: int, costs: dict[int, IntArray], width: int) -> IntArray:
    """(total + 1,) costs of a joint over `total` leaves, whose children have `size` each, the last one what remains."""
    children = [min(size, total - start) for start in range(0, total, size)]
    result = np.zeros(1, dtype=np.int64)
    for child in children:
        own = costs[child]
        result = _min_plus(result, np.minimum(own, own[::-1] + width))  # on its parent's side, or cut off from it
    return result


def _min_plus(first: IntArray, second: IntArray) -> IntArray:
    short, long = sorted((first, second), key=len)
    result = np.full(len(short) + len(long) - 1, np.iinfo(np.int64).max // 2, dtype=np.int64)
    for shift, cost in enumerate(short):
        part = result[shift : shift + len(long)]
        np.minimum(part, long + cost, out=part)
    return result


def grid_bisection(rows: int, cols: int, *, wrapped: bool) -> int:
    """Number of links in one direction between two halves of a grid, across rows or columns, whichever are fewer.

    Where the side is odd, the cut has a step in the middle line, and crosses that line too.
    """

    def crossings(length: int) -> int:
        return 0 if length < 2 else 2 if wrapped and length > 2 else 1

    def across(length: int, other: int) -> int:
        step = crossings(other) if length % 2 and other > 1 else 0
        return other * crossings(length) + step

    return min((across(length, other) for length, other in ((rows, cols), (cols, rows)) if length > 1), default=0)
