"""The resolved interconnects other than bus_tree, and what is checked of them when an array is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final

if TYPE_CHECKING:
    from pe_sim.config.networks.shapes import Shape

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
    is_graph: ClassVar[bool] = True

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of results has to know of it: what its file says that is not used."""
        unused = getattr(self.shape, "unused", ())
        more = f" and {len(unused) - _SHOWN} more" if len(unused) > _SHOWN else ""
        return (f"attributes of the graph that are not used: {', '.join(unused[:_SHOWN])}{more}",) if unused else ()


@dataclass(frozen=True, slots=True)
class Bus:
    """The one shared channel."""

    bytes_per_cycle: int
    latency_cycles: int
    overhead_cycles: int
    request_cycles: int
    burst_bytes: int | None


@dataclass(frozen=True, slots=True)
class Tree:
    """The k-ary reduction tree; `level_latency_cycles[j]` is the hop from level j to j + 1 (0 at the leaves)."""

    arity: int
    bytes_per_cycle: int
    level_latency_cycles: tuple[int, ...]
    combine_cycles: int
    softmax_combine_cycles: int
    downlink: bool

    @property
    def latency_cycles(self) -> tuple[int, ...]:
        """What a file calls the latencies of the levels."""
        return self.level_latency_cycles

    @property
    def num_levels(self) -> int:
        """D = ceil(log_k N)."""
        return len(self.level_latency_cycles)


@dataclass(frozen=True, slots=True)
class Network:
    """The interconnect of kind bus_tree: one bus down, one tree up."""

    kind: str
    bus: Bus
    tree: Tree
    collectives: Collectives
    arbitration: str = "fifo"
    notes: ClassVar[tuple[str, ...]] = ()  # as of a graph of channels
    is_graph: ClassVar[bool] = False

    @property
    def arity(self) -> int:
        """The k whose powers are the sizes of PE groups."""
        return self.tree.arity
