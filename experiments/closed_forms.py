"""The closed forms of the machine model (section 3) for one bus and one tree, everything ready at cycle 0.

Written down here from the contract alone, so that an experiment can hold the simulator against them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

from pe_sim.config.arrays.array import ArrayConfig

SERIAL, AT_ONCE = "serial", "by_reduction"  # as network.collectives calls them


@dataclass(frozen=True, slots=True)
class Machine:
    """The numbers of an array that the closed forms need.

    Args:
        pes: N.
        width, flight, overhead, request: W, λ, ω and ρ of the bus.
        tree_width, hops: bytes per cycle of the tree, and the sum over its levels of λt + κ.
        result_ratio: bytes of a result over those of its partial sums.
    """

    pes: int
    width: int
    flight: int
    overhead: int
    request: int
    tree_width: int
    hops: int
    result_ratio: float

    @classmethod
    def of(cls, array: ArrayConfig) -> Machine:
        """Of an array with one bus and one tree."""
        bus, tree = array.bus_tree.bus, array.bus_tree.tree
        hops = sum(level + tree.combine_cycles for level in tree.level_latency_cycles)
        ratio = array.dtypes.activation.bits / array.dtypes.partial.bits
        its = bus.bytes_per_cycle, bus.latency_cycles, bus.overhead_cycles, bus.request_cycles
        return cls(array.num_pes, *its, tree.bytes_per_cycle, hops, ratio)

    def broadcast(self, size: int) -> int:
        """One message."""
        return self.overhead + self.flight + ceil(size / self.width)

    def reduce(self, size: int) -> int:
        """Through every level of joints, then the beats."""
        return self.hops + ceil(size / self.tree_width)

    def all_reduce(self, size: int) -> int:
        """The partial sums up, their sum in the activation dtype down."""
        return self.reduce(size) + self.broadcast(ceil(size * self.result_ratio))

    def scatter(self, shard: int) -> int:
        """A message for each PE, back to back."""
        return self.pes * (self.overhead + ceil(shard / self.width)) + self.flight

    def gather(self, shard: int) -> int:
        """A message from each PE, back to back; the first asks for the bus from afar."""
        return self.request + self.scatter(shard)


@dataclass(frozen=True, slots=True)
class Series:
    """One collective done in one way.

    Args:
        collective: its name for `ps.collective`.
        way: SERIAL or AT_ONCE where there is a choice.
        label: what it is, for people.
        formula: the closed form in letters.
        closed_form: the same in numbers; takes bytes as `ps.collective` does.
        per_pe: whether those are the bytes of each PE, not of the whole.
    """

    collective: str
    way: str
    label: str
    formula: str
    closed_form: Callable[[Machine, int], int]
    per_pe: bool


def _scatter_at_once(machine: Machine, shard: int) -> int:
    return machine.broadcast(machine.pes * shard)


def _gather_at_once(machine: Machine, shard: int) -> int:
    return machine.reduce(machine.pes * shard)


def _all_gather_at_once(machine: Machine, shard: int) -> int:
    return machine.reduce(machine.pes * shard) + machine.broadcast(machine.pes * shard)


_DOWN, _UP = "ω + λ + beats", "Σ(λt + κ) + beats"
_SERIAL = "N (ω + beats) + λ"
BROADCAST = Series("broadcast", "", "broadcast", f"{_DOWN}(b)", Machine.broadcast, False)
REDUCE = Series("reduce", "", "reduce", f"{_UP}(b)", Machine.reduce, False)
ALL_REDUCE = Series("all-reduce", "", "all-reduce", f"{_UP}(b) + {_DOWN}(b / 2)", Machine.all_reduce, False)
SCATTER = Series("scatter", SERIAL, "scatter, serial", _SERIAL, Machine.scatter, True)
GATHER = Series("gather", SERIAL, "gather, serial", f"ρ + {_SERIAL}", Machine.gather, True)
ALL_GATHER = Series("all-gather", SERIAL, "all-gather, serial", f"ρ + {_SERIAL}", Machine.gather, True)
SCATTER_AT_ONCE = Series("scatter", AT_ONCE, "scatter by broadcast", f"{_DOWN}(N b)", _scatter_at_once, True)
GATHER_AT_ONCE = Series("gather", AT_ONCE, "gather by reduction", f"{_UP}(N b)", _gather_at_once, True)
ALL_GATHER_AT_ONCE = Series(
    "all-gather",
    AT_ONCE,
    "all-gather by reduction",
    f"{_UP}(N b) + {_DOWN}(N b)",
    _all_gather_at_once,
    True,
)
SERIES = (
    BROADCAST,
    REDUCE,
    ALL_REDUCE,
    SCATTER,
    SCATTER_AT_ONCE,
    GATHER,
    GATHER_AT_ONCE,
    ALL_GATHER,
    ALL_GATHER_AT_ONCE,
)
