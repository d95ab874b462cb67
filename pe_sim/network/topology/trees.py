"""Shared buses with reduction trees, and trees of switches (H-tree, fat tree)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from math import floor

from pe_sim.config.arrays.array import Floorplan
from pe_sim.config.arrays.floorplan import (
    auto_tree_latency_cycles,
    bus_wire_pitches,
    grid_shape,
    num_tree_levels,
    wire_cycles,
)
from pe_sim.config.networks.network import GraphNetwork, Network
from pe_sim.config.networks.shapes import AUTO, BusLevel, HierarchicalBusShape, Link, SwitchTreeShape
from pe_sim.network.topology.assembly import (
    Assembly,
    Bisection,
    Plan,
    Point,
    middle,
    tree_bisection,
    z_order,
)
from pe_sim.network.topology.topology import ROOT, Node, Topology

Connect = Callable[[Node, Node, str, int], None]


def grow_tree(
    assembly: Assembly,
    leaves: Sequence[Node],
    *,
    arity: int,
    levels: int,
    top: Node,
    joint: str,
    connect: Connect,
    prefix: str = "",
) -> list[Node]:
    """Adds a tree of joints: `arity` neighbours are joined at a time, `levels` times, the last time at `top`.

    Every leaf is `levels` hops below `top`.

    Args:
        assembly: where joints are added; each stands in the middle of its leaves.
        leaves: at least one.
        arity: children of a joint.
        levels: enough for all leaves to meet.
        top: the node at the top; it exists.
        joint: the kind of the joints, and the first word of their names.
        connect: adds the edges between child and parent; takes a short name of the child and its level too.
        prefix: prefix of the joints' numbers.

    Returns:
        The joints it added, from the leaves up.
    """
    added: list[Node] = []
    below = [(leaf, str(leaf) if isinstance(leaf, int) else leaf, [leaf]) for leaf in leaves]
    for level in range(levels):
        above = []
        for index, start in enumerate(range(0, len(below), arity)):
            children = below[start : start + arity]
            members = [leaf for _, _, mine in children for leaf in mine]
            label, parent = f"{prefix}{level + 1}.{index}", top
            if level < levels - 1:
                parent = f"{joint} {label}"
                assembly.node(parent, joint, middle([assembly.place(leaf) for leaf in members]))
                added.append(parent)
            for child, child_label, _ in children:
                connect(child, parent, child_label, level)
            above.append((parent, label, members))
        below = above
    return added


def level_link(shape: SwitchTreeShape, level: int) -> Link:
    """The link from `level` (0 at the PEs) upwards; widths grow `growth` times a level, rounded down."""
    width = floor(shape.link.bytes_per_cycle * Fraction(str(shape.growth)) ** level)
    return replace(shape.link, bytes_per_cycle=width)


class SwitchTree:
    """An H-tree or a fat tree: PEs, levels of switches, and the root above the switch at the top."""

    def build(self, plan: Plan) -> Topology:
        """The topology: a channel up and one down between neighbouring levels."""
        shape = shape_of(plan)
        levels = num_tree_levels(plan.num_pes, shape.arity)
        assembly = Assembly(plan, z_order(plan.num_pes), routers=False)
        links = [level_link(shape, level) for level in range(max(levels, 1))]
        top: Node = 0
        if levels:
            top = f"switch {levels}.0"
            assembly.node(top, "switch", middle([assembly.place(pe) for pe in range(plan.num_pes)]))

        def connect(child: Node, parent: Node, label: str, level: int) -> None:
            assembly.pair(child, parent, f"tree {label}", f"level {level}", links[level])

        pes = range(plan.num_pes)
        grow_tree(assembly, pes, arity=shape.arity, levels=levels, top=top, joint="switch", connect=connect)
        assembly.pair(top, ROOT, "root", "root link", links[-1])
        return assembly.finish(
            "PEs along a Z-order curve on a near-square grid, every switch in the middle of its PEs, the root left of"
            " the array; wires along rows and columns"
        )

    def diameter(self, plan: Plan) -> int:
        """Channels to the top and down again."""
        return 2 * num_tree_levels(plan.num_pes, shape_of(plan).arity)

    def bisection(self, plan: Plan) -> Bisection:
        """The exact bisection: the best cut of the tree into two halves of its leaves."""
        shape = shape_of(plan)
        levels = num_tree_levels(plan.num_pes, shape.arity)
        widths = [level_link(shape, level).bytes_per_cycle for level in range(levels)]
        return Bisection(tree_bisection(plan.num_pes, shape.arity, widths), "exact, over all halves of the tree")


def shape_of(plan: Plan) -> SwitchTreeShape:
    """The shape of a plan whose network is a tree of switches."""
    shape = getattr(plan.network, "shape", None)
    assert isinstance(shape, SwitchTreeShape)
    return shape


# ---- Shared buses with reduction trees: one of each, or two levels of them.


_WHERE = (
    "on a near-square grid, every joint in the middle of its PEs, the root left of the array; a bus runs along every"
    " row and down the side, the wires of trees along rows and columns"
)


class BusTree:
    """One bus down, one tree up; the root is the joint at the top."""

    def build(self, plan: Plan) -> Topology:
        """The topology: root, PEs and joints drive the bus; root and PEs hear it."""
        network = plan.network
        assert isinstance(network, Network)
        bus, tree = network.bus, network.tree
        assembly = Assembly(plan, z_order(plan.num_pes), routers=False)
        level = BusLevel(
            Link(bus.bytes_per_cycle, bus.latency_cycles, bus.overhead_cycles, bus.request_cycles),
            Link(tree.bytes_per_cycle, 0),
            tree.arity,
            tree.downlink,
        )
        length = bus_wire_pitches(plan.num_pes)
        _add_level(assembly, range(plan.num_pes), ROOT, level, "bus", "", length, tree.level_latency_cycles)
        return assembly.finish("PEs along a Z-order curve " + _WHERE)

    def diameter(self, plan: Plan) -> int:
        """One channel, the bus; 0 for one PE."""
        return min(plan.num_pes - 1, 1)

    def bisection(self, plan: Plan) -> Bisection:
        """The width of the bus, and of the tree's best cut where the tree leads down too."""
        network = plan.network
        assert isinstance(network, Network)
        tree = network.tree
        down = _downward(plan.num_pes, tree.arity, tree.bytes_per_cycle, tree.downlink)
        return _bisection(plan.num_pes, network.bus.bytes_per_cycle, down)


class HierarchicalBus:
    """Clusters with a bus and a tree of their own; a bus and a tree between the clusters and the root.

    A cluster's joint at the top, "cluster c", is also its bridge between the two buses. With one cluster there is no
    upper level: the root is the cluster's joint, as in a bus_tree.
    """

    def build(self, plan: Plan) -> Topology:
        """The topology: two levels, each as of `BusTree`."""
        shape = _shape(plan)
        clusters = _clusters(plan)
        size = len(clusters[0])
        width, height = grid_shape(size)
        inside = z_order(size)
        places: list[Point] = [
            (tile_x * width + x, tile_y * height + y)
            for (tile_x, tile_y), members in zip(z_order(len(clusters)), clusters, strict=True)
            for x, y in inside[: len(members)]
        ]
        assembly = Assembly(plan, places, routers=False)
        level = _with_latencies(shape.cluster, width + height, plan.floorplan)
        hops = _hops(level, num_tree_levels(size, level.arity), 1, plan.floorplan)
        bridges: list[Node] = [ROOT]
        if len(clusters) > 1:
            bridges = [f"cluster {index}" for index in range(len(clusters))]
        for index, (members, bridge) in enumerate(zip(clusters, bridges, strict=True)):
            if bridge != ROOT:
                assembly.node(str(bridge), "joint", middle([assembly.place(pe) for pe in members]))
            length = bus_wire_pitches(len(members))
            _add_level(assembly, members, bridge, level, f"cluster bus {index}", f"{index}:", length, hops)
        if len(clusters) > 1:
            cols, rows = grid_shape(len(clusters))
            top = _with_latencies(shape.top, cols * width + rows * height, plan.floorplan)
            hops = _hops(top, num_tree_levels(len(clusters), top.arity), size, plan.floorplan)
            _add_level(assembly, bridges, ROOT, top, "top bus", "top:", len(clusters) * width + rows * height, hops)
        return assembly.finish("clusters as tiles, PEs in each of them along a Z-order curve " + _WHERE)

    def diameter(self, plan: Plan) -> int:
        """Channels between two clusters: the own bus, the top bus and the other cluster's; 1 within one cluster."""
        return 3 if len(_clusters(plan)) > 1 else min(plan.num_pes - 1, 1)

    def bisection(self, plan: Plan) -> Bisection | None:
        """The top bus, and a cluster's bus where one has to be cut; None where trees lead down: to be found."""
        shape, clusters = _shape(plan), _clusters(plan)
        level = shape.cluster
        if len(clusters) == 1:
            down = _downward(plan.num_pes, level.arity, level.tree.bytes_per_cycle, level.downlink)
            return _bisection(plan.num_pes, level.bus.bytes_per_cycle, down)
        if shape.cluster.downlink or shape.top.downlink:
            return None
        half = plan.num_pes // 2
        ends = {min(len(clusters[0]) * count, plan.num_pes) for count in range(1, len(clusters))}
        cut = 0 if ends & {half, plan.num_pes - half} else level.bus.bytes_per_cycle
        sending = -(-half // len(clusters[0])) * level.bus.bytes_per_cycle  # the buses of one half, in few clusters
        return Bisection(min(shape.top.bus.bytes_per_cycle + cut, sending), "closed form: the top bus, or a half's own")


def _shape(plan: Plan) -> HierarchicalBusShape:
    assert isinstance(plan.network, GraphNetwork)
    assert isinstance(plan.network.shape, HierarchicalBusShape)
    return plan.network.shape


def _clusters(plan: Plan) -> list[range]:
    size, num_pes = _shape(plan).cluster_pes, plan.num_pes
    return [range(start, min(start + size, num_pes)) for start in range(0, num_pes, size)]


def _with_latencies(level: BusLevel, pitches: int, floorplan: Floorplan) -> BusLevel:
    """The level with its bus's `auto` latency resolved, over `pitches`: width plus height of what the bus spans."""
    bus = level.bus
    latency = wire_cycles(pitches, floorplan) if bus.latency_cycles == AUTO else bus.latency_cycles
    request = latency if bus.request_cycles == AUTO else bus.request_cycles
    resolved = Link(bus.bytes_per_cycle, latency, bus.overhead_cycles, request)
    return BusLevel(resolved, level.tree, level.arity, level.downlink)


def _hops(level: BusLevel, levels: int, leaf_pes: int, floorplan: Floorplan) -> tuple[int, ...]:
    latency = level.tree.latency_cycles
    if latency != AUTO:
        return (latency,) * levels
    return tuple(auto_tree_latency_cycles(each, level.arity, floorplan, leaf_pes) for each in range(levels))


def _add_level(
    assembly: Assembly,
    leaves: Sequence[Node],
    top: Node,
    level: BusLevel,
    bus: str,
    prefix: str,
    pitches: float,
    hops: Sequence[int],
) -> None:
    """Adds a shared bus between `top` and the leaves, and the tree of joints between them.

    Args:
        assembly: what they are added to.
        leaves: PEs or bridges.
        top: the node that hears the bus and stands at the top of the tree.
        level: the parameters, with the latency of the bus in cycles, not `auto`.
        bus: the name of the bus's node and channel; without its number, the name of the level.
        prefix: prefix of the joints' numbers.
        pitches: length of the bus's wire.
        hops: latency of each level of the tree.
    """
    bus_level = bus.rstrip("0123456789 ")
    name = bus_level.replace("bus", "tree")
    channel = assembly.channel(bus, bus_level, level.bus, pitches)
    assembly.node(bus, "bus", middle([assembly.place(leaf) for leaf in leaves]))

    def connect(child: Node, parent: Node, label: str, depth: int) -> None:
        assembly.wire(child, parent, f"{name} {label} up", name, level.tree, latency_cycles=hops[depth])
        if level.downlink:
            down = f"{name} {label} down"
            assembly.wire(parent, child, down, f"{name} down", level.tree, latency_cycles=hops[depth])

    joints = grow_tree(
        assembly,
        leaves,
        arity=level.arity,
        levels=len(hops),
        top=top,
        joint="joint",
        connect=connect,
        prefix=prefix,
    )
    for sender in (top, *leaves, *joints):
        assembly.edge(sender, bus, channel)
    for listener in (top, *leaves):
        assembly.edge(bus, listener)


def _downward(num_pes: int, arity: int, width: int, downlink: bool) -> int:
    """Bytes per cycle that two halves can send each other over the tree; 0 if it does not lead down."""
    return tree_bisection(num_pes, arity, [width] * num_tree_levels(num_pes, arity)) if downlink else 0


def _bisection(num_pes: int, bus: int, down: int) -> Bisection:
    how = "closed form: the shared bus and the best cut of the tree" if down else "closed form: the shared bus"
    return Bisection(bus + down if num_pes > 1 else 0, how)
