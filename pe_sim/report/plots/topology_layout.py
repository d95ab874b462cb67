"""Where to draw the parts of an interconnect: takes a topology, gives a layout of marks and strokes on a plane."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from pe_sim.config.arrays.array import ArrayConfig
from pe_sim.config.networks.shapes import GridShape, HierarchicalBusShape, UserGraphShape
from pe_sim.network.topology.topology import ROOT, Channels, Node, Topology

# ---- Layouts of trees and buses: leaves side by side, levels one above the other.


def h_tree(array: ArrayConfig, topology: Topology) -> Layout:
    """The layout of an H-tree: nodes where they lie on the die."""
    pitch = array.floorplan.pe_pitch_mm
    spots: dict[Node, Spot] = {
        node: (data["x_mm"] / pitch, -data["y_mm"] / pitch) for node, data in topology.graph.nodes(data=True)
    }

    def way(source: Node, target: Node) -> tuple[Spot, ...]:
        (x, y), (to_x, to_y) = spots[source], spots[target]
        return (x, y), (to_x, y), (to_x, to_y)

    layout = plain(topology, spots, way)
    layout.notes.append("as it lies on the die")
    layout.crowd = 2.0 * math.sqrt(topology.num_pes)
    return layout


def fat_tree(array: ArrayConfig, topology: Topology) -> Layout:
    """The layout of a fat tree: PEs at the bottom, levels of switches above, the root at the top."""
    spots = _tree_spots(topology, range(topology.num_pes), 0.0)
    height = max(y for _, y in spots.values())
    spots[ROOT] = (spots[_top(topology)][0], height * 1.18 + (0.3 if height == 0 else 0.0))
    layout = plain(topology, spots)
    layout.shape, layout.equal, layout.crowd = 1.7, False, topology.num_pes / 1.7
    layout.notes.append("the width of a line grows with the width of its channels")
    return layout


def bus_tree(array: ArrayConfig, topology: Topology) -> Layout:
    """The layout of one bus and one tree: the tree above the PEs, the bus below, the root at the top wired to both."""
    number = topology.num_pes
    spots = _tree_spots(topology, range(number), 0.0)
    unit = number / 12 if number > 1 else 1.0
    levels = max((y for _, y in spots.values()), default=0.0)
    spots[ROOT] = ((number - 1) / 2, levels + unit)
    layout = Layout(shape=1.9, equal=False, crowd=number / 1.9)
    left = -max(1.0, number / 24)
    _bus(layout, topology, "bus", [spots[pe] for pe in range(number)], -1.3 * unit, (left, number - 0.5))
    way = (spots[ROOT], (left, spots[ROOT][1]), (left, -1.3 * unit))
    layout.strokes.append(_stroke(topology, "bus", way, "tap"))
    draw_links(layout, topology, spots)
    layout.marks += marks_of(topology, spots)
    layout.notes.append("joints drive the bus too (not drawn)")
    return layout


def hierarchical(array: ArrayConfig, topology: Topology) -> Layout:
    """The layout of a hierarchical bus: a box for each cluster, the top tree above them, the top bus below."""
    shape = shape_of(array)
    assert isinstance(shape, HierarchicalBusShape)
    number, size = topology.num_pes, min(shape.cluster_pes, topology.num_pes)
    clusters = [range(start, min(start + size, number)) for start in range(0, number, size)]
    gap = max(1.0, size / 6)
    spots: dict[Node, Spot] = {}
    layout = Layout(shape=2.1, equal=False, crowd=(number + gap * len(clusters)) / 2.1)
    unit = (number + gap * len(clusters)) / 30
    for index, members in enumerate(clusters):
        start = index * (size + gap)
        inner = _tree_spots(topology, members, start, f"{index}:", unit)
        levels = max(y for _, y in inner.values())
        spots |= inner
        if len(clusters) > 1:
            spots[f"cluster {index}"] = (start + (len(members) - 1) / 2, levels + unit)
        _bus(layout, topology, f"cluster bus {index}", [inner[pe] for pe in members], -1.2 * unit,
             (start - 0.5, start + len(members) - 0.5))  # fmt: skip
    height = max(y for _, y in spots.values())
    end = (size + gap) * len(clusters) - gap
    if len(clusters) > 1:
        for index, members in enumerate(clusters):
            start = index * (size + gap)
            layout.boxes.append(
                ((start - 0.5 - gap / 4, -1.9 * unit), (start + len(members) - 0.5 + gap / 4, height + 0.6 * unit))
            )
        bridges = [spots[f"cluster {index}"] for index in range(len(clusters))]
        above = _tree_spots(topology, range(len(clusters)), 0.0, "top:", 1.6 * unit)
        for name, (x, y) in above.items():
            if isinstance(name, str):
                spots[name] = (x * (size + gap) + (size - 1) / 2, height + y)
        peak = max(y for _, y in spots.values())
        spots[ROOT] = (end / 2, peak + 1.6 * unit)
        level = -3.4 * unit
        left = -gap - 1.0
        _bus(layout, topology, "top bus", [(x, -1.9 * unit) for x, _ in bridges], level, (left, end))
        layout.strokes.append(_stroke(topology, "top bus", (spots[ROOT], (left, spots[ROOT][1]), (left, level)), "tap"))
        layout.notes.append("boxes: clusters; the joint at the top of each is its bridge to the top bus")
    else:
        spots[ROOT] = ((number - 1) / 2, height + unit)
        way = (spots[ROOT], (-1.5, height + unit), (-1.5, -1.2 * unit), (-0.5, -1.2 * unit))
        layout.strokes.append(_stroke(topology, "cluster bus 0", way, "tap"))
    draw_links(layout, topology, spots)
    layout.marks += marks_of(topology, spots)
    layout.notes.append("joints drive their bus too (not drawn)")
    return layout


def _bus(layout: Layout, topology: Topology, name: str, ends: Iterable[Spot], level: float, span: Spot) -> None:
    """Adds a bus to a layout: a horizontal bar at `level`, and a tap from each of `ends` to it."""
    layout.strokes += [_stroke(topology, name, ((x, y), (x, level)), "tap") for x, y in ends]
    layout.strokes.append(_stroke(topology, name, ((span[0], level), (span[1], level)), "bar"))


def _stroke(topology: Topology, name: str, way: tuple[Spot, ...], role: str) -> Stroke:
    return stroke_of(topology.channels, topology.channels.name.index(name), way, role)


def _tree_spots(
    topology: Topology, leaves: range, start: float, prefix: str = "", unit: float | None = None
) -> dict[Node, Spot]:
    """Spots of a tree: leaves side by side, each level `unit` higher, every node in the middle of its children."""
    unit = unit or max(1.0, len(leaves) / 12)
    spots: dict[Node, Spot] = {leaf: (start + place, 0.0) for place, leaf in enumerate(leaves)}
    below = dict(spots)
    arity_names = [
        name
        for name in topology.nodes[topology.num_pes + 1 :]
        if isinstance(name, str) and name.split()[0] in ("joint", "switch") and _inside(name, prefix)
    ]
    for name in sorted(arity_names, key=lambda name: _number(name, prefix)):
        level, _ = _number(name, prefix)
        children = [below[child] for child in _children(topology, name, prefix) if child in below]
        xs = [x for x, _ in children]
        spots[name] = below[name] = ((min(xs) + max(xs)) / 2, level * unit)
    return spots


def _children(topology: Topology, name: str, prefix: str) -> list[Node]:
    """The children of a joint or switch: the nodes that send up to it, clusters by their number."""
    level, _ = _number(name, prefix)
    found: list[Node] = []
    for child in topology.graph.predecessors(name):
        if isinstance(child, str) and child.startswith("cluster ") and "bus" not in child:
            found.append(int(child.split()[1]))
        elif isinstance(child, int) or (child.split()[0] in ("joint", "switch") and _number(child, prefix)[0] < level):
            found.append(child)
    return found


def _inside(name: str, prefix: str) -> bool:
    number = name.split()[1]
    return number.startswith(prefix) and ":" not in number[len(prefix) :]


def _number(name: str, prefix: str) -> tuple[int, int]:
    level, index = name.split()[1][len(prefix) :].split(".")
    return int(level), int(index)


def _top(topology: Topology) -> Node:
    top: Node = next(iter(topology.graph.predecessors(ROOT)))
    return top


# ---- The parts of a picture of an interconnect: takes nodes with their spots, gives marks and strokes.


Spot = tuple[float, float]
Way = Callable[[Node, Node], tuple[Spot, ...]]


@dataclass(frozen=True, slots=True)
class Mark:
    """A node to draw; its `label` may be empty."""

    kind: str
    spot: Spot
    label: str = ""


@dataclass(frozen=True, slots=True)
class Stroke:
    """One or both channels of a link drawn along a way; a bar is a bus, a tap leads to one. `channels` are indices."""

    level: str
    width: int
    way: tuple[Spot, ...]
    channels: tuple[int, ...]
    role: str = "link"


@dataclass(slots=True)
class Layout:
    """The layout of a picture of an interconnect.

    Args:
        marks, strokes, boxes, texts: the elements to draw.
        notes: sentences to put below the picture.
        shape: width over height of the drawing area.
        height: height of the drawing area in inches.
        crowd: number of nodes one above the other where they are densest.
        thick: factor on the usual thickness of lines.
        equal: whether both axes have the same scale.
    """

    marks: list[Mark] = field(default_factory=list)
    strokes: list[Stroke] = field(default_factory=list)
    boxes: list[tuple[Spot, Spot]] = field(default_factory=list)
    texts: list[tuple[Spot, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    shape: float = 1.0
    height: float = 6.4
    crowd: float = 16.0
    thick: float = 1.0
    equal: bool = True


def plain(
    topology: Topology,
    spots: dict[Node, Spot],
    way: Way | None = None,
    split: Callable[[Node, Node], str] | None = None,
) -> Layout:
    """A layout with every node at its spot and every link straight or along `way`; `split` may rename its level."""
    layout = Layout()
    draw_links(layout, topology, spots, way, split)
    layout.marks += marks_of(topology, spots)
    return layout


def draw_links(
    layout: Layout,
    topology: Topology,
    spots: dict[Node, Spot],
    way: Way | None = None,
    split: Callable[[Node, Node], str] | None = None,
) -> None:
    """Adds a stroke for each link, for both directions together; nodes without a spot and driven buses are left out."""
    channels, done = topology.channels, set()
    edges = topology.graph.edges
    for source, target, channel in topology.graph.edges(data="channel"):
        if source not in spots or target not in spots or (target, source) in done:
            continue
        done.add((source, target))
        back = edges[target, source]["channel"] if topology.graph.has_edge(target, source) else -1
        carried = tuple(each for each in (channel, back) if each >= 0)
        if not carried:
            continue
        level = (split(source, target) if split else "") or channels.level[carried[0]]
        points = way(source, target) if way else (spots[source], spots[target])
        layout.strokes.append(Stroke(level, int(channels.bytes_per_cycle[carried[0]]), points, carried))


def stroke_of(channels: Channels, channel: int, way: tuple[Spot, ...], role: str = "link") -> Stroke:
    """The stroke of one channel along a way."""
    return Stroke(channels.level[channel], int(channels.bytes_per_cycle[channel]), way, (channel,), role)


def marks_of(topology: Topology, spots: dict[Node, Spot]) -> list[Mark]:
    """The marks of all nodes that have a spot."""
    kinds = topology.graph.nodes(data="kind")
    return [Mark(kind, spots[node], label_of(node, topology.num_pes)) for node, kind in kinds if node in spots]


def label_of(node: Node, number: int, most: int = 64) -> str:
    """The label of a node: "root", or the number of a PE if there are at most `most` of them; else empty."""
    if node == ROOT:
        return "root"
    return str(node) if isinstance(node, int) and number <= most else ""


def shape_of(array: ArrayConfig) -> object:
    """The shape of an array's interconnect."""
    return array.graph_network.shape


def root_pe(topology: Topology) -> int:
    """The number of the PE that the root is attached to."""
    return int(next(node for node in topology.graph.predecessors(ROOT)))


MAX_PORTS: Final = 48  # of a crossbar that is drawn with all its ports
MAX_STRAIGHT: Final = 32  # PEs of a line that is drawn straight
_SHOWN_PORTS: Final = (20, 10)  # how many first and last ports are drawn of a larger one
_MAX_SPRING: Final = 300  # nodes that springs are computed for


def lay_out(array: ArrayConfig, topology: Topology) -> Layout:
    """The layout of an array's interconnect in the form in which its kind is usually drawn."""
    return _LAYOUTS.get(topology.kind, _user_graph)(array, topology)


def _line(array: ArrayConfig, topology: Topology) -> Layout:
    number = topology.num_pes
    cols = number if number <= MAX_STRAIGHT else math.ceil(math.sqrt(2.0 * number))
    spots: dict[Node, Spot] = {}
    for pe in range(number):
        row, col = divmod(pe, cols)
        spots[pe] = (float(col if row % 2 == 0 else cols - 1 - col), -float(row))
    spots[ROOT] = _beside(spots, topology, (-1.0, 0.0))
    layout = plain(topology, spots)
    rows = -(-number // cols)
    layout.shape = min(4.0, max(1.0, cols / rows))
    layout.height = 6.4 if rows > 2 else 3.2
    layout.crowd, layout.thick = (1.0 if number <= MAX_STRAIGHT else 1.7) * cols / layout.shape, 2.0
    if rows > 1:
        layout.notes.append("one line, drawn forth and back")
    return layout


def _ring(array: ArrayConfig, topology: Topology) -> Layout:
    number = topology.num_pes
    spots: dict[Node, Spot] = {}
    for pe in range(number):
        turn = 2 * math.pi * pe / number
        spots[pe] = (math.sin(turn), math.cos(turn))
    x, y = spots[root_pe(topology)]
    spots[ROOT] = (1.2 * x, 1.2 * y)
    layout = plain(topology, spots)
    layout.crowd, layout.thick = number / 2.2, 1.5
    return layout


def _grid(array: ArrayConfig, topology: Topology) -> Layout:
    shape = shape_of(array)
    assert isinstance(shape, GridShape)
    rows, cols = shape.rows, shape.cols
    spots: dict[Node, Spot] = {pe: (float(pe % cols), -float(pe // cols)) for pe in range(topology.num_pes)}
    spots[ROOT] = _beside(spots, topology, (-0.7, 0.7))

    def way(source: Node, target: Node) -> tuple[Spot, ...]:
        (x, y), (to_x, to_y) = spots[source], spots[target]
        if ROOT in (source, target) or abs(x - to_x) + abs(y - to_y) <= 1:
            return (x, y), (to_x, to_y)
        bow = 0.32 if abs(x - to_x) > 0 else -0.32  # around the row or the column
        return tuple(
            (x + (to_x - x) * part + (bow if x == to_x else 0.0) * _arch(part),
             y + (to_y - y) * part + (bow if y == to_y else 0.0) * _arch(part))
            for part in (step / 40 for step in range(41))
        )  # fmt: skip

    layout = plain(topology, spots, way)
    layout.shape = min(3.0, max(0.5, cols / rows))
    layout.crowd = max(rows, cols / layout.shape)
    layout.crowd *= 1.0 if layout.crowd <= 10 else 2.0 if topology.kind == "torus" else 1.6
    layout.thick = 1.7
    if topology.kind == "torus":
        layout.notes.append("arcs close the rows and columns; on the die the torus is folded")
    return layout


def _arch(part: float) -> float:
    return float(math.sin(math.pi * part) ** 0.7)


def _hypercube(array: ArrayConfig, topology: Topology) -> Layout:
    """The layout of a hypercube as cubes of cubes: three bits span a cube, the next three bits space whole cubes."""

    def spot(pe: int) -> Spot:
        x = y = 0.0
        for bit in range(topology.num_pes.bit_length() - 1):
            if pe >> bit & 1:
                across, up = ((1.0, 0.0), (0.0, 1.0), (0.5, 0.36))[bit % 3]
                turn, scale = 0.3 * (bit // 3), 3.4 ** (bit // 3)  # turned a little, so that no two edges coincide
                x += scale * (across * math.cos(turn) - up * math.sin(turn))
                y += scale * (across * math.sin(turn) + up * math.cos(turn))
        return x, y

    spots: dict[Node, Spot] = {pe: spot(pe) for pe in range(topology.num_pes)}
    x, y = spots[root_pe(topology)]
    step = 0.08 * max(max(x for x, _ in spots.values()), 4.0)
    spots[ROOT] = (x - step, y - step)
    layout = plain(topology, spots, split=_bit_level)
    layout.shape, layout.crowd = 1.2, 2.2 * topology.num_pes**0.55
    layout.notes.append("bits 0, 1, 2 of a PE's number span a cube, every three more bits a cube of cubes")
    return layout


def _bit_level(source: Node, target: Node) -> str:
    if isinstance(source, int) and isinstance(target, int):
        return f"bit {(source ^ target).bit_length() - 1}"
    return ""


def _butterfly(array: ArrayConfig, topology: Topology) -> Layout:
    """The layout of a butterfly: PEs on both sides, the stages of switches between them."""
    number, channels = topology.num_pes, topology.channels
    stages: dict[int, list[tuple[int, Node]]] = {}  # the switches of each by their lowest address
    for name in topology.nodes[number + 1 :]:
        stage, low = (int(part) for part in str(name).split()[1].split("."))
        stages.setdefault(stage, []).append((low, name))
    step = max(1.0, number / max(len(stages), 1) / 1.1)
    spots: dict[Node, Spot] = {pe: (0.0, -float(pe)) for pe in range(number)}
    for stage, switches in stages.items():  # evenly spread, in the order of their addresses
        for index, (_, name) in enumerate(sorted(switches)):
            spots[name] = ((stage + 1) * step, -((index + 0.5) * number / len(switches) - 0.5))
    right = (len(stages) + 1) * step
    lift = max(1.0, number / 14)
    outputs: dict[Node, Spot] = {pe: (right, -float(pe)) for pe in range(number)} | {ROOT: (right, lift)}
    spots[ROOT] = (0.0, lift)
    layout = Layout(shape=1.15, crowd=1.1 * number)
    for source, target, channel in topology.graph.edges(data="channel"):
        way = (spots[source], outputs[target] if target in outputs else spots[target])
        layout.strokes.append(stroke_of(channels, channel, way))
    layout.marks = marks_of(topology, spots)
    layout.marks += [
        Mark("root" if node == ROOT else "pe", spot, label_of(node, number)) for node, spot in outputs.items()
    ]
    layout.notes.append("every PE, and the root, stands on both sides: left it sends, right it receives")
    return layout


def _crossbar(array: ArrayConfig, topology: Topology) -> Layout:
    """The layout of a crossbar: input ports as rows, output ports as columns."""
    number, channels = topology.num_pes, topology.channels
    ports: list[Node | None] = [ROOT, *range(number)]
    if number > MAX_PORTS:
        first, last = _SHOWN_PORTS
        ports = [ROOT, *range(first), None, *range(number - last, number)]
    layout, end = Layout(crowd=len(ports)), float(len(ports))
    for slot, node in enumerate(ports):
        if node is None:
            layout.texts += [((-1.0, -float(slot)), "⋮"), ((float(slot), 1.0), "⋯"), ((float(slot), -float(slot)), "⋱")]
            continue
        kind = "root" if node == ROOT else "pe"
        for way, edge in (
            (((-1.0, -float(slot)), (end, -float(slot))), (node, "crossbar")),
            (((float(slot), 1.0), (float(slot), -end)), ("crossbar", node)),
        ):
            channel = topology.graph.edges[edge]["channel"]
            layout.strokes.append(stroke_of(channels, channel, way))
        label = label_of(node, number, MAX_PORTS + 16)
        left = "" if node == ROOT else label  # one star with a name is enough
        layout.marks += [Mark(kind, (float(slot), 1.0), label), Mark(kind, (-1.0, -float(slot)), left)]
        layout.marks += [
            Mark("crosspoint", (float(other), -float(slot))) for other, to in enumerate(ports) if to is not None
        ]
    layout.notes += ["rows: what PEs and root send; columns: what they receive", "dots: crosspoints"]
    if number > MAX_PORTS:
        layout.notes.append(f"{number - sum(_SHOWN_PORTS)} of {number} PEs left out")
    return layout


def _user_graph(array: ArrayConfig, topology: Topology) -> Layout:
    """The layout of a user's graph: at the user's places, else by springs, else as on the floor plan."""
    shape = shape_of(array)
    spots: dict[Node, Spot] = {node: (data["x_mm"], -data["y_mm"]) for node, data in topology.graph.nodes(data=True)}
    placed = not isinstance(shape, UserGraphShape) or any(node.x_mm is not None for node in shape.nodes)
    if not placed and len(topology.nodes) <= _MAX_SPRING:
        import networkx

        found = networkx.spring_layout(topology.graph.to_undirected(), seed=1, iterations=200)
        spots = {node: (float(x), float(y)) for node, (x, y) in found.items()}
        layout = plain(topology, spots)
        layout.notes.append("drawn by springs: places on the picture mean nothing")
        return layout
    return plain(topology, spots)


def _beside(spots: dict[Node, Spot], topology: Topology, outside: Spot) -> Spot:
    """The root's spot: at `outside` from its PE if that is PE 0, else between the lines next to its PE."""
    pe = root_pe(topology)
    x, y = spots[pe]
    step = outside if pe == 0 else (0.5, 0.5)
    return x + step[0], y + step[1]


_LAYOUTS: Final[dict[str, Callable[[ArrayConfig, Topology], Layout]]] = {
    "bus_tree": bus_tree,
    "hierarchical_bus": hierarchical,
    "h_tree": h_tree,
    "fat_tree": fat_tree,
    "line": _line,
    "ring": _ring,
    "mesh": _grid,
    "torus": _grid,
    "hypercube": _hypercube,
    "butterfly": _butterfly,
    "crossbar": _crossbar,
    "graph": _user_graph,
}
