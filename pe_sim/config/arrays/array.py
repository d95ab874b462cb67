"""The resolved array: frozen, every latency an integer number of cycles; its costs and its dead PEs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from pe_sim.config.dtypes import Dtypes
from pe_sim.config.networks.network import GraphNetwork, Network
from pe_sim.errors import InputError
from pe_sim.notebook import card
from pe_sim.units import format_bytes

# ---- Costs of the parts of an array: frozen constants of energy and area, every default filled in.


@dataclass(frozen=True, slots=True)
class Energy:
    """The dynamic energy of one event of each kind, and static power.

    Args:
        mac_pj: by dtype, a multiply of two elements and the addition to their sum.
        vector_pj: one lane of a vector unit in one cycle of its cost table.
        local_read_pj_per_bit, local_write_pj_per_bit: a PE's local memory.
        root_read_pj_per_bit: the root's memory.
        buffer_read_pj_per_bit, buffer_write_pj_per_bit: a PE's SRAM buffer.
        wire_pj_per_bit_mm: a bit over a millimetre of wire.
        joint_add_pj, joint_softmax_pj: one element that a joint adds, or merges into a softmax partial.
        static_watts: leakage, clock and refresh of the whole array.
    """

    mac_pj: Mapping[str, float]
    vector_pj: float
    local_read_pj_per_bit: float
    local_write_pj_per_bit: float
    root_read_pj_per_bit: float
    buffer_read_pj_per_bit: float
    buffer_write_pj_per_bit: float
    wire_pj_per_bit_mm: float
    joint_add_pj: float
    joint_softmax_pj: float
    static_watts: float


@dataclass(frozen=True, slots=True)
class Area:
    """The silicon area of one piece of each part.

    Args:
        mac_um2: by dtype, a multiplier and an adder.
        vector_lane_um2: a lane of a vector unit.
        local_mm2_per_mib: a PE's local memory.
        local_layers: number of dies on which it is stacked over the PE; 0: it is on the PE's own die.
        buffer_mm2_per_mib: SRAM buffers.
        root_mm2_per_mib: the root's memory; 0: it is on other dies.
        joint_lane_um2: a joint, for each element that arrives in a cycle.
        wire_pitch_um: width of die that a wire takes; 0: wires run over the logic.
        switch_pitch_um: wire pitch inside a switch or router.
    """

    mac_um2: Mapping[str, float]
    vector_lane_um2: float
    local_mm2_per_mib: float
    local_layers: int
    buffer_mm2_per_mib: float
    root_mm2_per_mib: float
    joint_lane_um2: float
    wire_pitch_um: float
    switch_pitch_um: float


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
    """A matrix unit: `outputs` dot-product units of `depth` multipliers each."""

    outputs: int
    depth: int
    latency_cycles: int


@dataclass(frozen=True, slots=True)
class VectorUnit:
    """A vector unit: element-wise lanes, with a cost in cycles per element for each function."""

    lanes: int
    latency_cycles: int
    cycles_per_element: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Memory:
    """A flat memory with one port; energy and area follow its `device`, `technology` is a text for people."""

    technology: str
    capacity_bytes: int
    bytes_per_cycle: int
    latency_cycles: int
    device: str = field(default="dram_bank", repr=False)


@dataclass(frozen=True, slots=True)
class DramBank:
    """A DRAM bank: a row is activated before its columns can be read, and precharged before the next one."""

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
        """Name of the device by which energy and area are chosen."""
        return "dram_bank"

    @property
    def row_cycles(self) -> int:
        """Cycles of one whole row if rows are read back to back."""
        columns = self.row_bytes // self.column_bytes
        opening = self.activate_cycles + self.read_to_precharge_cycles + self.precharge_cycles
        return opening + (columns - 1) * self.column_cycles

    @property
    def bytes_per_cycle(self) -> float:
        """Bytes per cycle if whole rows are read back to back."""
        return self.row_bytes / self.row_cycles


LocalMemory = Memory | DramBank  # of a PE


@dataclass(frozen=True, slots=True)
class Buffer:
    """A PE's buffers: that of the activations, and the separate prefetch buffer of overlap 2."""

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
    """The root: the global buffer with its own vector unit and memory."""

    vector: VectorUnit
    memory: Memory


@dataclass(frozen=True, slots=True)
class Floorplan:
    """The floor plan: a near-square grid of PEs, from which `auto` latencies are derived."""

    pe_pitch_mm: float
    mm_per_cycle: float


@dataclass(frozen=True, slots=True)
class ArrayConfig:
    """A PE array with everything resolved; times are cycles of one clock.

    `process` is the logic's, by which energy and area were filled in; `assumed` are paths that the file left out
    although constants of energy and area depend on them. `dead_pes`, in order, keep their places on the floor plan and
    in the interconnect, but hold nothing, compute nothing and send nothing.
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
        """The basis of energy and area in words: process and memory devices, marked where they are assumed."""
        said = {
            "process": f"{self.process} logic",
            "pe.memory.device": f"{self.pe.memory.device} in the PEs",
            "root.memory.device": f"{self.root.memory.device} at the root",
        }
        return ", ".join(f"{words} (assumed)" if path in self.assumed else words for path, words in said.items())

    @property
    def cost_basis_note(self) -> str | None:
        """A line on what was assumed for energy and area, and the keys that set it; None if nothing was."""
        if not self.assumed:
            return None
        otherwise = ", ".join(self.assumed)
        return f"energy and area of {self.name} are those of {self.cost_basis}; to say otherwise: {otherwise}"

    @property
    def num_living(self) -> int:
        """Number of PEs that work."""
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
        """HTML of the array for a notebook."""

        return array_card(self)


# ---- Dead PEs: takes their numbers from a file, gives them checked and in order, and as text for people.


_NAMED: Final = 8  # PEs that are named in one line


def check_dead_pes(
    given: Sequence[int], num_pes: int, source: str | None = None, overridden: Sequence[str] = ()
) -> tuple[int, ...]:
    """The dead PEs in ascending order, checked.

    Args:
        given: numbers of the dead PEs.
        num_pes: number of PEs of the array.
        source: what error messages call the file.
        overridden: dotted paths that `--set` changed, for the messages.

    Raises:
        InputError: there is no such PE, one is named twice, or none would be left.
    """
    flag = "--set dead_pes" if "dead_pes" in overridden else None

    def refuse(problem: str, expected: str) -> InputError:
        path = None if flag else "dead_pes"
        return InputError(problem, source=flag or source, path=path, given=list(given), expected=expected)

    beyond = [pe for pe in given if pe >= num_pes]
    if beyond:
        raise refuse(f"there is no PE {beyond[0]}: num_pes is {num_pes}", f"numbers from 0 to {num_pes - 1}")
    ordered = tuple(sorted(given))
    twice = next((pe for pe, after in pairwise(ordered) if pe == after), None)
    if twice is not None:
        raise refuse(f"PE {twice} is named twice", "each dead PE once")
    if len(given) == num_pes:
        most = f"at most {num_pes - 1} of the {num_pes} PEs" if num_pes > 1 else "[], for there is but one PE"
        raise refuse("no PE would be left", most)
    return ordered


def name_pes(pes: Sequence[int]) -> str:
    """The numbers of PEs as text; of many, the first ones and how many more there are."""
    named = ", ".join(map(str, pes[:_NAMED]))
    return named if len(pes) <= _NAMED else f"{named} and {len(pes) - _NAMED} more"


def describe_dead_pes(dead_pes: Sequence[int], num_pes: int) -> str:
    """The dead PEs in a few words: 2 of 64 PEs: 3, 17."""
    return f"{len(dead_pes):,} of {num_pes:,} PEs: {name_pes(dead_pes)}"


def describe_rate(memory: LocalMemory) -> str:
    """The rate of a PE's memory in words; for a bank, that of whole rows."""
    if isinstance(memory, DramBank):
        return f"{memory.bytes_per_cycle:.3g} B/cycle of whole rows"
    return f"{memory.bytes_per_cycle} B/cycle"


def describe_network_of(array: ArrayConfig) -> str:
    """The interconnect in a few words: its structure, widths and latencies."""
    network = array.network
    if isinstance(network, GraphNetwork):
        from pe_sim.config.networks.to_dict import describe_network

        return describe_network(network)
    bus, tree = network.bus, network.tree
    hops = "/".join(str(hop) for hop in sorted(set(tree.level_latency_cycles))) or "0"
    return (
        f"bus {bus.bytes_per_cycle} B/cycle latency {bus.latency_cycles},"
        f" {tree.arity}-ary tree {tree.num_levels} levels {tree.bytes_per_cycle} B/cycle hop {hops}"
    )


def array_card(array: ArrayConfig) -> str:
    """HTML for a notebook: the array's PEs, interconnect and root."""
    pe, root = array.pe, array.root
    macs = pe.matrix.outputs * pe.matrix.depth
    whole = array.num_pes * pe.memory.capacity_bytes
    types = array.dtypes
    dead = f", dead: {describe_dead_pes(array.dead_pes, array.num_pes)}" if array.dead_pes else ""
    facts = [
        ("PEs", f"{array.num_pes:,} at {array.clock_ghz:g} GHz{dead}"),
        ("matrix unit", f"{pe.matrix.outputs} x {pe.matrix.depth} MACs ({macs * array.num_pes:,} in all)"),
        ("vector unit", f"{pe.vector.lanes} lanes"),
        ("memory", f"{format_bytes(pe.memory.capacity_bytes)} a PE at {describe_rate(pe.memory)}"),
        ("memory in all", format_bytes(whole)),
        ("interconnect", describe_network_of(array)),
        (
            "root",
            f"{root.vector.lanes} lanes, {format_bytes(root.memory.capacity_bytes)} at {describe_rate(root.memory)}",
        ),
        ("types", f"{types.weight.name} weights, {types.kv_cache.name} cache, {types.partial.name} partial sums"),
        ("overlap", str(array.overlap)),
        ("energy and area", array.cost_basis),
    ]
    return card(array.name, facts)
