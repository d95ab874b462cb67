"""Trees: the reduction tree below a bus, and trees of switches (H-tree, fat tree)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from math import floor

from pe_sim.config.floorplan import num_tree_levels
from pe_sim.config.network_shapes import Link, SwitchTreeShape
from pe_sim.network.assembly import Assembly, Bisection, Plan
from pe_sim.network.halving import tree_bisection
from pe_sim.network.placement import middle, z_order
from pe_sim.network.topology import ROOT, Node, Topology

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
    """Joins `arity` neighbours at a time, `levels` times, the last time at `top`; every leaf is `levels` hops below.

    Args:
        assembly: where joints are added; each stands in the middle of its leaves.
        leaves: at least one.
        arity: children of a joint.
        levels: enough for all leaves to meet.
        top: the node at the top; it exists.
        joint: the kind of the joints, and the first word of their names.
        connect: adds the edges between child and parent; takes a short name of the child and its level too.
        prefix: of the joints' numbers.

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
    """The links from `level` (0 at the PEs) upwards: `growth` times as wide a level, rounded down."""
    width = floor(shape.link.bytes_per_cycle * Fraction(str(shape.growth)) ** level)
    return replace(shape.link, bytes_per_cycle=width)


class SwitchTree:
    """An H-tree or a fat tree: PEs, levels of switches, and the root above the switch at the top."""

    def build(self, plan: Plan) -> Topology:
        """A channel up and one down between neighbouring levels."""
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
        """To the top and down again."""
        return 2 * num_tree_levels(plan.num_pes, shape_of(plan).arity)

    def bisection(self, plan: Plan) -> Bisection:
        """Exact: the best cut of a tree in two halves of its leaves."""
        shape = shape_of(plan)
        levels = num_tree_levels(plan.num_pes, shape.arity)
        widths = [level_link(shape, level).bytes_per_cycle for level in range(levels)]
        return Bisection(tree_bisection(plan.num_pes, shape.arity, widths), "exact, over all halves of the tree")


def shape_of(plan: Plan) -> SwitchTreeShape:
    """The plan's shape."""
    shape = getattr(plan.network, "shape", None)
    assert isinstance(shape, SwitchTreeShape)
    return shape
