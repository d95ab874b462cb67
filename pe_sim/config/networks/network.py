"""The resolved interconnects: frozen networks of kind bus_tree, and of graphs of channels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final

if TYPE_CHECKING:
    from pe_sim.config.networks.shapes import Shape

_SHOWN: Final = 8  # unused attributes that are named


@dataclass(frozen=True, slots=True)
class Collectives:
    """The algorithms of gathers and scatters: serial, by_reduction or best."""

    gather: str
    scatter: str


@dataclass(frozen=True, slots=True)
class GraphCollectives(Collectives):
    """The algorithm of every collective by name; best is the one with the smallest closed form."""

    broadcast: str = "best"
    reduce: str = "best"
    all_reduce: str = "best"
    all_gather: str = "best"
    reduce_scatter: str = "best"
    all_to_all: str = "best"


@dataclass(frozen=True, slots=True)
class GraphNetwork:
    """An interconnect that is a graph of channels (machine model, section 8).

    Powers of `arity` (k) are the sizes of PE groups.
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
        """Notes for readers of results: attributes of the graph's file that are not used."""
        unused = getattr(self.shape, "unused", ())
        more = f" and {len(unused) - _SHOWN} more" if len(unused) > _SHOWN else ""
        return (f"attributes of the graph that are not used: {', '.join(unused[:_SHOWN])}{more}",) if unused else ()


@dataclass(frozen=True, slots=True)
class Bus:
    """The bus: the one shared channel."""

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
        """Latencies of the levels in cycles, under the name that files use."""
        return self.level_latency_cycles

    @property
    def num_levels(self) -> int:
        """Number of levels: D = ceil(log_k N)."""
        return len(self.level_latency_cycles)


@dataclass(frozen=True, slots=True)
class Network:
    """The interconnect of kind bus_tree: one bus down, one tree up."""

    kind: str
    bus: Bus
    tree: Tree
    collectives: Collectives
    arbitration: str = "fifo"
    notes: ClassVar[tuple[str, ...]] = ()  # a graph of channels may have some
    is_graph: ClassVar[bool] = False

    @property
    def arity(self) -> int:
        """Arity k of the tree, whose powers are the sizes of PE groups."""
        return self.tree.arity
