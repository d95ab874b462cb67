"""The resolved machine: frozen, every latency an integer number of cycles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pe_sim.config.dtypes import Dtypes

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
    """A flat memory with one port."""

    technology: str
    capacity_bytes: int
    bytes_per_cycle: int
    latency_cycles: int


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
    memory: Memory
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
class Collectives:
    """How gathers and scatters are done: serial, by_reduction or best."""

    gather: str
    scatter: str


@dataclass(frozen=True, slots=True)
class Network:
    """The interconnect between the PEs and the root."""

    kind: str
    bus: Bus
    tree: Tree
    collectives: Collectives


@dataclass(frozen=True, slots=True)
class ArrayConfig:
    """A PE array with everything resolved; times are cycles of one clock."""

    name: str
    clock_ghz: float
    num_pes: int
    overlap: int
    dtypes: Dtypes
    floorplan: Floorplan
    pe: Pe
    root: Root
    network: Network
