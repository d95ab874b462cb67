"""Several arrays joined by links: the resolved, frozen form of a system file."""

from __future__ import annotations

from dataclasses import dataclass

from pe_sim.config.array import ArrayConfig
from pe_sim.config.network import GraphNetwork


@dataclass(frozen=True, slots=True, repr=False)
class SystemConfig:
    """Arrays and the links between their roots, all of one clock.

    Args:
        name: for people.
        arrays: rank i is arrays[i]; equal arrays are one object.
        links: an interconnect with one node an array; None where there is one array alone.
        pitch_mm, mm_per_cycle: floor plan of the system: between neighbouring arrays, and how far a wire goes in a
            cycle; what `auto` latencies are derived from.
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
        """All of them, dead ones too."""
        return len(self.arrays)

    @property
    def alive(self) -> tuple[int, ...]:
        """Ranks that can take part."""
        dead = set(self.dead_arrays)
        return tuple(rank for rank in range(len(self.arrays)) if rank not in dead)

    @property
    def clock_ghz(self) -> float:
        """Of all arrays."""
        return self.arrays[0].clock_ghz

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of results has to know of the interconnects, each thing once."""
        links = self.links.notes if self.links is not None else ()
        return tuple(dict.fromkeys((*(note for array in self.arrays for note in array.network.notes), *links)))

    def __repr__(self) -> str:
        """One line: how many arrays, how they are joined."""
        joined = f", {self.links.kind}" if self.links is not None else ""
        return f"<SystemConfig {self.name}: {self.num_arrays} arrays{joined}>"

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from pe_sim.config.cards import system_card  # words for people; the config itself needs none

        return system_card(self)
