"""The resolved interconnects other than bus_tree, and what is checked of them when an array is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:  # a dozen classes that arrays with a bus and a tree do without
    from pe_sim.config.network_shapes import Shape

_SHOWN: Final = 8  # attributes that are not used


@dataclass(frozen=True, slots=True)
class Collectives:
    """How gathers and scatters are done: serial, by_reduction or best."""

    gather: str
    scatter: str


@dataclass(frozen=True, slots=True)
class GraphCollectives(Collectives):
    """The algorithm of every collective by name; best: the smallest closed form."""

    broadcast: str = "best"
    reduce: str = "best"
    all_reduce: str = "best"
    all_gather: str = "best"
    reduce_scatter: str = "best"
    all_to_all: str = "best"


@dataclass(frozen=True, slots=True)
class GraphNetwork:
    """An interconnect as a graph of channels (machine model, section 8).

    `arity` is the k whose powers are the sizes of PE groups.
    """

    kind: str
    shape: Shape
    arity: int
    combine_cycles: int
    softmax_combine_cycles: int
    forward_cycles: int
    in_network_reduction: bool
    arbitration: str
    collectives: GraphCollectives

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of results has to know of it: what its file says that is not used."""
        unused = getattr(self.shape, "unused", ())
        more = f" and {len(unused) - _SHOWN} more" if len(unused) > _SHOWN else ""
        return (f"attributes of the graph that are not used: {', '.join(unused[:_SHOWN])}{more}",) if unused else ()
