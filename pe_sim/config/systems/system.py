"""A system: several arrays joined by links, as the resolved, frozen form of a system file."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

from pe_sim.config.arrays.array import ArrayConfig
from pe_sim.config.networks.network import GraphNetwork
from pe_sim.config.networks.to_dict import describe_links
from pe_sim.notebook import card
from pe_sim.units import format_bytes


@dataclass(frozen=True, slots=True, repr=False)
class SystemConfig:
    """A system: arrays, and the links between their roots, all with one clock.

    Args:
        name: name for people.
        arrays: rank i is arrays[i]; equal arrays are one object.
        links: an interconnect with one node for each array; None if there is only one array.
        pitch_mm, mm_per_cycle: floor plan of the system, from which `auto` latencies are derived: the distance between
            neighbouring arrays, and the reach of a signal in one cycle.
        dead_arrays: ranks that take no part; their links still pass messages on.
    """

    name: str
    arrays: tuple[ArrayConfig, ...]
    links: GraphNetwork | None
    pitch_mm: float
    mm_per_cycle: float
    dead_arrays: tuple[int, ...] = ()

    @property
    def num_arrays(self) -> int:
        """Number of arrays, dead ones included."""
        return len(self.arrays)

    @property
    def alive(self) -> tuple[int, ...]:
        """Ranks of the arrays that are not dead."""
        dead = set(self.dead_arrays)
        return tuple(rank for rank in range(len(self.arrays)) if rank not in dead)

    @property
    def clock_ghz(self) -> float:
        """The clock of all arrays in GHz."""
        return self.arrays[0].clock_ghz

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes for readers of results on the interconnects, each once."""
        links = self.links.notes if self.links is not None else ()
        return tuple(dict.fromkeys((*(note for array in self.arrays for note in array.network.notes), *links)))

    def __repr__(self) -> str:
        """One line with the number of arrays and how they are joined."""
        joined = f", {self.links.kind}" if self.links is not None else ""
        return f"<SystemConfig {self.name}: {self.num_arrays} arrays{joined}>"

    def _repr_html_(self) -> str:
        """HTML of the system for a notebook."""

        return system_card(self)


def system_card(system: SystemConfig) -> str:
    """HTML for a notebook: the arrays, their links, and the memory of all of them together."""
    kinds = [(array, len(list(equal))) for array, equal in groupby(system.arrays)]
    whole = sum(array.num_pes * array.pe.memory.capacity_bytes for array in system.arrays)
    facts = [
        ("arrays", " + ".join(f"{count} x {array.name} ({array.num_pes:,} PEs)" for array, count in kinds)),
        ("clock", f"{system.clock_ghz:g} GHz"),
        ("memory in all", format_bytes(whole)),
    ]
    if system.links is not None:
        facts.append(("links", describe_links(system.links)))
    if system.dead_arrays:
        facts.append(("dead arrays", ", ".join(map(str, system.dead_arrays))))
    return card(system.name, facts)
