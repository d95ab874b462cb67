"""Interconnects ready to use: channels, routes, and the programs of collectives that were asked for before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

from pe_sim.config.arrays.array import ArrayConfig, Floorplan
from pe_sim.config.networks.network import GraphNetwork
from pe_sim.config.systems.system import SystemConfig
from pe_sim.network.routing.flows import Flows
from pe_sim.network.routing.routes import Routes, coordinates_of
from pe_sim.network.topology.assembly import Plan
from pe_sim.network.topology.kinds import plan_of, topology_of
from pe_sim.network.topology.topology import Topology

if TYPE_CHECKING:
    from pe_sim.network.routing.hops import Program

_KEPT_HOPS = 2**22  # of all kept programs together: about 0.5 GiB; beyond that they are dropped and built anew


@dataclass(frozen=True, eq=False)
class Interconnect:
    """An interconnect and what was worked out for it; `known`: programs of collectives by what they depend on."""

    topology: Topology
    flows: Flows
    known: dict[tuple[object, ...], Program] = field(default_factory=dict, repr=False)

    def program(self, key: tuple[object, ...], build: Callable[[], Program]) -> Program:
        """The program of a collective, kept; `key` is all that it depends on beside the topology."""
        if key not in self.known:
            program = build()
            if sum(len(each.hops) for each in self.known.values()) + len(program.hops) > _KEPT_HOPS:
                self.known.clear()
            self.known[key] = program
        return self.known[key]


def interconnect_of(array: ArrayConfig) -> Interconnect:
    """The interconnect of an array; kept."""
    return interconnect_for(plan_of(array))


def links_of(system: SystemConfig) -> Interconnect:
    """The links of a system as an interconnect whose PEs are the arrays; kept. Its root has no part in anything.

    Raises:
        InputError: a wire that `auto` makes too long.
    """
    return interconnect_for(plan_of_links(system))


def plan_of_links(system: SystemConfig) -> Plan:
    """The plan of a system's links: all that they depend on."""
    assert system.links is not None, "one array alone has no links"
    return Plan(system.num_arrays, system.links, Floorplan(system.pitch_mm, system.mm_per_cycle))


@lru_cache(maxsize=32)
def interconnect_for(plan: Plan) -> Interconnect:
    """The interconnect of a plan; kept."""
    coordinates = coordinates_of(plan.network, plan.num_pes) if isinstance(plan.network, GraphNetwork) else None
    return Interconnect(topology_of(plan), Flows(Routes(topology_of(plan), coordinates)))
