"""Every kind of interconnect: takes an array, gives its topology. `KINDS` is the one registry.

This module is imported only where a topology is needed; networkx is imported when the first one is built.
"""

from __future__ import annotations

from functools import lru_cache
from operator import attrgetter
from typing import Final

from pe_sim.config.arrays.array import ArrayConfig
from pe_sim.network.topology.assembly import Plan, TopologyBuilder
from pe_sim.network.topology.custom import UserGraph
from pe_sim.network.topology.grids import Butterfly, Crossbar, GridKind, Hypercube, PathKind
from pe_sim.network.topology.topology import Topology
from pe_sim.network.topology.trees import BusTree, HierarchicalBus, SwitchTree
from pe_sim.registry import Registry

_BUILT_IN: Final[dict[str, TopologyBuilder]] = {
    "bus_tree": BusTree(),
    "hierarchical_bus": HierarchicalBus(),
    "h_tree": SwitchTree(),
    "fat_tree": SwitchTree(),
    "line": PathKind(closed=False),
    "ring": PathKind(closed=True),
    "mesh": GridKind(wrapped=False),
    "torus": GridKind(wrapped=True),
    "hypercube": Hypercube(),
    "butterfly": Butterfly(),
    "crossbar": Crossbar(),
    "graph": UserGraph(),
}
KINDS: Registry[TopologyBuilder] = Registry(
    "pe_sim.topologies", _BUILT_IN, ("build", "diameter", "bisection"), attrgetter("builder")
)


def plan_of(array: ArrayConfig) -> Plan:
    """The plan of an array's topology: all that it depends on."""
    return Plan(array.num_pes, array.network, array.floorplan)


def build_topology(array: ArrayConfig) -> Topology:
    """The topology of an array; kept, and shared by arrays that differ only in other things.

    Raises:
        InputError: a wire that `auto` makes too long.
    """
    return topology_of(plan_of(array))


@lru_cache(maxsize=32)
def topology_of(plan: Plan) -> Topology:
    """The topology of a plan; kept.

    Raises:
        InputError: a wire that `auto` makes too long.
    """
    return KINDS[plan.network.kind].build(plan)
