"""Layouts of trees and buses: leaves side by side, levels above each other."""

from __future__ import annotations

import math
from collections.abc import Iterable

from pe_sim.config.array import ArrayConfig
from pe_sim.config.network_shapes import HierarchicalBusShape
from pe_sim.network.topology import ROOT, Node, Topology
from pe_sim.report.topology_picture import Layout, Spot, Stroke, draw_links, marks_of, plain, shape_of, stroke_of


def h_tree(array: ArrayConfig, topology: Topology) -> Layout:
    """As it lies on the die."""
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
    """Levels of switches below the root."""
    spots = _tree_spots(topology, range(topology.num_pes), 0.0)
    height = max(y for _, y in spots.values())
    spots[ROOT] = (spots[_top(topology)][0], height * 1.18 + (0.3 if height == 0 else 0.0))
    layout = plain(topology, spots)
    layout.shape, layout.equal, layout.crowd = 1.7, False, topology.num_pes / 1.7
    layout.notes.append("the width of a line grows with the width of its channels")
    return layout


def bus_tree(array: ArrayConfig, topology: Topology) -> Layout:
    """The tree above the PEs, the bus below, the root at the top with a wire to both."""
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
    """A box for each cluster, the top tree above them, the top bus below."""
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
    """A bar, with a tap from each end down to it."""
    layout.strokes += [_stroke(topology, name, ((x, y), (x, level)), "tap") for x, y in ends]
    layout.strokes.append(_stroke(topology, name, ((span[0], level), (span[1], level)), "bar"))


def _stroke(topology: Topology, name: str, way: tuple[Spot, ...], role: str) -> Stroke:
    return stroke_of(topology.channels, topology.channels.name.index(name), way, role)


def _tree_spots(
    topology: Topology, leaves: range, start: float, prefix: str = "", unit: float | None = None
) -> dict[Node, Spot]:
    """Leaves side by side, every joint or switch `unit` above, in the middle of its children."""
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
    """Who sends up to a joint, as `_tree_spots` calls them: clusters by their number."""
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
