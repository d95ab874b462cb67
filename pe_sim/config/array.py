"""The resolved machine: frozen, every latency an integer number of cycles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from pe_sim.config.dtypes import Dtypes
from pe_sim.config.energy import Area, Energy
from pe_sim.config.network import Collectives, GraphNetwork

# Machine model, section 6: cycles per element of the vector functions.
DEFAULT_CYCLES_PER_ELEMENT: dict[str, int] = {
    "add": 1,
    "mul": 1,
    "rope": 2,
    "rmsnorm": 4,
    "layernorm": 6,
    "sum_of_squares": 1,
    "scale": 1,
    "softmax": 6,
    "softmax_merge": 4,
    "silu_mul": 6,
    "gelu": 8,
    "tanh": 4,
    "argmax": 1,
}


@dataclass(frozen=True, slots=True)
class MatrixUnit:
    """`outputs` dot-product units of `depth` multipliers each."""

    outputs: int
    depth: int
    latency_cycles: int


@dataclass(frozen=True, slots=True)
class VectorUnit:
    """Element-wise lanes with a cost per element and function."""

    lanes: int
    latency_cycles: int
    cycles_per_element: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Memory:
    """A flat memory with one port; its energy and area are those of its `device`, `technology` is a text for people."""

    technology: str
    capacity_bytes: int
    bytes_per_cycle: int
    latency_cycles: int
    device: str = field(default="dram_bank", repr=False)


@dataclass(frozen=True, slots=True)
class DramBank:
    """A DRAM bank: a row has to be activated before its columns can be read, and precharged before the next one."""

    technology: str
    capacity_bytes: int
    row_bytes: int
    column_bytes: int
    column_cycles: int
    activate_cycles: int
    precharge_cycles: int
    read_to_precharge_cycles: int

    @property
    def device(self) -> str:
        """What its energy and area are those of."""
        return "dram_bank"

    @property
    def row_cycles(self) -> int:
        """Of one whole row, where rows are read back to back."""
        columns = self.row_bytes // self.column_bytes
        opening = self.activate_cycles + self.read_to_precharge_cycles + self.precharge_cycles
        return opening + (columns - 1) * self.column_cycles

    @property
    def bytes_per_cycle(self) -> float:
        """The rate of whole rows read back to back."""
        return self.row_bytes / self.row_cycles


LocalMemory = Memory | DramBank  # of a PE


@dataclass(frozen=True, slots=True)
class Buffer:
    """The activations' buffer and, apart from it, the prefetch buffer of overlap 2."""

    capacity_bytes: int
    prefetch_bytes: int


@dataclass(frozen=True, slots=True)
class Pe:
    """One processing element."""

    matrix: MatrixUnit
    vector: VectorUnit
    memory: LocalMemory
    buffer: Buffer


@dataclass(frozen=True, slots=True)
class Root:
    """The global buffer with its own vector unit and memory."""

    vector: VectorUnit
    memory: Memory


@dataclass(frozen=True, slots=True)
class Floorplan:
    """PEs on a near-square grid; what `auto` latencies are derived from."""

    pe_pitch_mm: float
    mm_per_cycle: float


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

    @property
    def arity(self) -> int:
        """The k whose powers are the sizes of PE groups."""
        return self.tree.arity


@dataclass(frozen=True, slots=True)
class ArrayConfig:
    """A PE array with everything resolved; times are cycles of one clock.

    `process` is that of the logic, by which energy and area were filled in; `assumed` are the paths of what decides
    constants of energy and area, and was left out of the file. `dead_pes`, in order, keep their places
    on the floor plan and in the interconnect, but hold nothing, work nothing and send nothing.
    """

    name: str
    clock_ghz: float
    num_pes: int
    overlap: int
    dtypes: Dtypes
    floorplan: Floorplan
    pe: Pe
    root: Root
    network: Network | GraphNetwork
    process: str
    energy: Energy
    area: Area
    dead_pes: tuple[int, ...] = ()
    assumed: tuple[str, ...] = field(default=(), compare=False, repr=False)

    @property
    def cost_basis(self) -> str:
        """What energy and area are those of, in words, with what the array's file does not say marked as assumed."""
        said = {
            "process": f"{self.process} logic",
            "pe.memory.device": f"{self.pe.memory.device} in the PEs",
            "root.memory.device": f"{self.root.memory.device} at the root",
        }
        return ", ".join(f"{words} (assumed)" if path in self.assumed else words for path, words in said.items())

    @property
    def cost_basis_note(self) -> str | None:
        """A line that says what was assumed and which keys say otherwise; None if nothing was."""
        if not self.assumed:
            return None
        otherwise = ", ".join(self.assumed)
        return f"energy and area of {self.name} are those of {self.cost_basis}; to say otherwise: {otherwise}"

    @property
    def num_living(self) -> int:
        """PEs that work."""
        return self.num_pes - len(self.dead_pes)

    @property
    def bus_tree(self) -> Network:
        """The interconnect of an array with one bus and one tree."""
        assert isinstance(self.network, Network)
        return self.network

    @property
    def graph_network(self) -> GraphNetwork:
        """The interconnect of an array whose channels are a graph."""
        assert isinstance(self.network, GraphNetwork)
        return self.network

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from pe_sim.config.cards import array_card  # words for people; the config itself needs none

        return array_card(self)
