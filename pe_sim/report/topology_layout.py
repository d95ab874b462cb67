"""Where to draw the parts of an interconnect: takes a topology, gives marks and strokes on a plane."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from pe_sim.config.array import ArrayConfig
from pe_sim.config.network_shapes import GridShape, UserGraphShape
from pe_sim.network.topology import ROOT, Node, Topology
from pe_sim.report.topology_levels import bus_tree, fat_tree, h_tree, hierarchical
from pe_sim.report.topology_picture import Layout, Mark, Spot, label_of, marks_of, plain, root_pe, shape_of, stroke_of

MAX_PORTS: Final = 48  # of a crossbar that is drawn whole
MAX_STRAIGHT: Final = 32  # PEs of a line that is drawn straight
_SHOWN_PORTS: Final = (20, 10)  # the first and the last ones otherwise
_MAX_SPRING: Final = 300  # nodes that springs are computed for


def lay_out(array: ArrayConfig, topology: Topology) -> Layout:
    """The picture in which a person recognises the kind."""
    return _LAYOUTS[topology.kind](array, topology)


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
    """Cubes of cubes: three bits a level, the next three bits space whole cubes."""

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
    """PEs on both sides, stages between them."""
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
    """Rows are the input ports, columns the output ports."""
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
    """Where the user put the nodes, else by springs, else where they lie under the floor plan."""
    shape = shape_of(array)
    assert isinstance(shape, UserGraphShape)
    spots: dict[Node, Spot] = {node: (data["x_mm"], -data["y_mm"]) for node, data in topology.graph.nodes(data=True)}
    placed = any(node.x_mm is not None for node in shape.nodes)
    if not placed and len(topology.nodes) <= _MAX_SPRING:
        import networkx

        found = networkx.spring_layout(topology.graph.to_undirected(), seed=1, iterations=200)
        spots = {node: (float(x), float(y)) for node, (x, y) in found.items()}
        layout = plain(topology, spots)
        layout.notes.append("drawn by springs: places on the picture mean nothing")
        return layout
    return plain(topology, spots)


def _beside(spots: dict[Node, Spot], topology: Topology, outside: Spot) -> Spot:
    """The root's spot: outside if its PE is the first, else between the lines beside its PE."""
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
