"""One interconnect ready to be used: its channels, its routes, and the collectives that were asked for before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

from pe_sim.config.array import ArrayConfig
from pe_sim.config.network import GraphNetwork
from pe_sim.network.coordinates import coordinates_of
from pe_sim.network.flows import Flows
from pe_sim.network.routes import Routes
from pe_sim.network.topologies import build_topology
from pe_sim.network.topology import Topology

if TYPE_CHECKING:
    from pe_sim.network.programs import Program

_KEPT_HOPS = 2**22  # in all: about 0.5 GiB; beyond that collectives are built anew


@dataclass(frozen=True, eq=False)
class Interconnect:
    """An interconnect and what has been worked out for it; `known` collectives by what they depend on."""

    topology: Topology
    flows: Flows
    known: dict[tuple[object, ...], Program] = field(default_factory=dict, repr=False)

    def program(self, key: tuple[object, ...], build: Callable[[], Program]) -> Program:
        """The program of a collective; `key` is all it depends on beside the topology."""
        if key not in self.known:
            program = build()
            if sum(len(each.hops) for each in self.known.values()) + len(program.hops) > _KEPT_HOPS:
                self.known.clear()
            self.known[key] = program
        return self.known[key]


def interconnect_of(array: ArrayConfig) -> Interconnect:
    """The interconnect of an array; kept, as its topology is."""
    return _interconnect(build_topology(array), array.num_pes, array.network)


@lru_cache(maxsize=32)
def _interconnect(topology: Topology, num_pes: int, network: object) -> Interconnect:
    coordinates = coordinates_of(network, num_pes) if isinstance(network, GraphNetwork) else None
    return Interconnect(topology, Flows(Routes(topology, coordinates)))
