"""The schema of an array YAML file: takes a plain mapping, gives checked sections with `auto` still in place.

The names are the public ones of the interface page; every number's unit is in its name. All bounds are far above any
machine one would build; they keep the products of the timing formulas inside 64-bit integers.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, ClassVar, Final, Literal, get_args

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

from pe_sim.config.array import DEFAULT_CYCLES_PER_ELEMENT
from pe_sim.config.dtypes import BITS
from pe_sim.config.energy_file import AreaFile, EnergyFile
from pe_sim.config.schema import Section, check_schema_version, fault, number_advice, validate
from pe_sim.errors import did_you_mean

SCHEMA_VERSION: Final = 1
MAX_BYTES: Final = 2**48
MAX_RATE: Final = 2**32  # bytes per cycle; times 2**31 cycles stays below 2**63
MAX_CYCLES: Final = 2**20  # of one latency; times 2**40 messages of an all-to-all stays below 2**63
MAX_PES: Final = 2**20
MAX_UNITS: Final = 2**24  # lanes, outputs, depth; outputs times depth stays below 2**48
QUANTISED: Final = ("fp8", "int8", "int4")

Capacity = Annotated[int, Field(ge=1, le=MAX_BYTES)]
Rate = Annotated[int, Field(ge=1, le=MAX_RATE)]
Units = Annotated[int, Field(ge=1, le=MAX_UNITS)]
Cycles = Annotated[int, Field(ge=0, le=MAX_CYCLES)]
Text = Annotated[str, Field(min_length=1)]
GatherWay = Literal["serial", "by_reduction", "best"]
Arbitration = Literal["fifo", "round_robin", "priority"]
Kind = Literal[
    "bus_tree",
    "hierarchical_bus",
    "h_tree",
    "fat_tree",
    "line",
    "ring",
    "mesh",
    "torus",
    "hypercube",
    "butterfly",
    "crossbar",
    "graph",
]
KINDS: Final[tuple[str, ...]] = get_args(Kind)
MEMORY_KINDS: Final = ("flat", "sram", "dram_bank")
Device = Literal["sram", "dram_bank", "hbm", "lpddr", "gddr", "ddr"]
PE_DEVICE, ROOT_DEVICE = "dram_bank", "hbm"  # where an array does not say


def check_latency(value: Any, minimum: int, levels: bool = False) -> Any:
    """A validator: refuse all but whole cycles, `auto` and, with `levels`, a list of whole cycles."""
    if isinstance(value, str) and value == "auto":
        return value
    for item in value if levels and isinstance(value, list) else [value]:
        if not isinstance(item, int) or isinstance(item, bool) or not minimum <= item <= MAX_CYCLES:
            expected = f"a whole number of cycles from {minimum} to {MAX_CYCLES}, or auto"
            expected += ", or a list with one number a level" if levels else ""
            raise fault("not a latency", expected, number_advice(item, whole=True) or _auto_advice(item))
    return value


def _auto_advice(given: object) -> str:
    return did_you_mean(given, ["auto"]) if isinstance(given, str) else "auto derives it from the floorplan"


BusLatency = Annotated[int | Literal["auto"], BeforeValidator(partial(check_latency, minimum=0))]
TreeLatency = Annotated[
    int | Literal["auto"] | list[int], BeforeValidator(partial(check_latency, minimum=1, levels=True))
]


def check_pe_list(value: Any) -> Any:
    """A validator: refuse all but a list of numbers of PEs; which PEs there are is checked with the whole array."""
    if isinstance(value, tuple):
        value = list(value)
    if not isinstance(value, list):
        raise fault("not a list of PEs", "their numbers in brackets, for instance [3, 17]", _list_advice(value))
    for item in value:
        if not isinstance(item, int) or isinstance(item, bool) or item < 0:
            raise fault(
                f"{item!r} is no number of a PE", "whole numbers from 0 on", number_advice(item, whole=True) or ""
            )
    return tuple(value)


def _list_advice(given: object) -> str:
    return f"write [{given}]" if isinstance(given, int) and not isinstance(given, bool) else ""


DeadPes = Annotated[tuple[int, ...], BeforeValidator(check_pe_list)]


class DtypeFile(Section):
    """An element type, with its groups of shared scales when it is quantised."""

    scalar_key: ClassVar[str | None] = "dtype"

    dtype: Literal["fp32", "bf16", "fp16", "fp8", "int8", "int4"] = Field(description="the element type")
    group_size: Annotated[int | None, Field(ge=1, le=MAX_UNITS)] = Field(
        default=None, description="elements along the inner dimension that share one fp16 scale"
    )
    zero_point: bool = Field(default=False, description="whether each group also stores a zero point")

    @field_validator("group_size")
    @classmethod
    def _only_quantised(cls, value: int | None, info: ValidationInfo) -> int | None:
        dtype = info.data.get("dtype")
        if value is not None and dtype is not None and dtype not in QUANTISED:
            raise fault(f"{dtype} is not quantised and has no groups", f"a dtype among {', '.join(QUANTISED)}")
        return value

    @field_validator("zero_point")
    @classmethod
    def _only_in_groups(cls, value: bool, info: ValidationInfo) -> bool:
        if value and "group_size" in info.data and info.data["group_size"] is None:
            raise fault("a zero point belongs to a group", hint="add group_size, or leave zero_point out")
        return value


def _expand_dtype(value: Any) -> Any:
    """A dtype's name stands for {dtype: name}."""
    if isinstance(value, Mapping | DtypeFile):
        return value
    if isinstance(value, str) and value in BITS:
        return {"dtype": value}
    hint = did_you_mean(value, BITS) if isinstance(value, str) else "known: " + ", ".join(sorted(BITS))
    raise fault("unknown dtype", "a dtype's name, or a mapping with dtype, group_size and zero_point", hint)


DtypeEntry = Annotated[DtypeFile, BeforeValidator(_expand_dtype)]


class DtypesFile(Section):
    """The dtype of each role a tensor can have."""

    weight: DtypeEntry = Field(description="the model's matrices")
    activation: DtypeEntry = Field(description="vectors between operators")
    kv_cache: DtypeEntry = Field(description="cached keys and values")
    partial: DtypeEntry = Field(description="partial sums on their way to a reduction")

    @field_validator("activation", "partial")
    @classmethod
    def _no_groups(cls, value: DtypeFile) -> DtypeFile:
        if value.group_size is not None:
            raise fault("only weight and kv_cache can have groups", hint="leave group_size and zero_point out")
        return value

    @field_validator("partial")
    @classmethod
    def _wide_partial(cls, value: DtypeFile) -> DtypeFile:
        if value.dtype == "int4":
            raise fault("partial sums do not fit int4", "fp32, bf16, fp16, fp8 or int8", "fp32 is the usual one")
        return value


class FloorplanFile(Section):
    """PEs on a near-square grid; what `auto` latencies are derived from."""

    pe_pitch_mm: float = Field(gt=0, le=1e6, description="distance between the centres of neighbouring PEs, mm")
    mm_per_cycle: float = Field(gt=0, le=1e6, description="how far a signal travels on a wire in one cycle, mm")


class MatrixFile(Section):
    """The matrix unit: `outputs` dot-product units of `depth` multipliers."""

    outputs: Units = Field(description="dot-product units, R")
    depth: Units = Field(description="multipliers of each dot-product unit, C")
    latency_cycles: Cycles = Field(description="pipeline latency, Lm")


def _cost(function: str) -> Any:
    """A field of the cost table with the default of the machine model, section 6."""
    cycles = DEFAULT_CYCLES_PER_ELEMENT[function]
    return Field(default=cycles, ge=1, le=MAX_CYCLES, description=f"cycles per element of {function}")


class CyclesPerElementFile(Section):
    """Cost of the vector functions; those not named keep their default."""

    add: int = _cost("add")
    mul: int = _cost("mul")
    rope: int = _cost("rope")
    rmsnorm: int = _cost("rmsnorm")
    layernorm: int = _cost("layernorm")
    sum_of_squares: int = _cost("sum_of_squares")
    scale: int = _cost("scale")
    softmax: int = _cost("softmax")
    softmax_merge: int = _cost("softmax_merge")
    silu_mul: int = _cost("silu_mul")
    gelu: int = _cost("gelu")
    tanh: int = _cost("tanh")
    argmax: int = _cost("argmax")


class VectorFile(Section):
    """A vector unit."""

    lanes: Units = Field(description="elements worked on at once")
    latency_cycles: Cycles = Field(description="pipeline latency")
    cycles_per_element: CyclesPerElementFile = Field(
        default_factory=CyclesPerElementFile, description="cost of the functions that differ from the default"
    )


class MemoryFile(Section):
    """A flat memory with one port; `memory_file` has the other kind, which only PEs can have."""

    kind: Literal["flat", "sram"] = Field(default="flat", description="flat (alias sram): one latency, one rate")
    technology: Text = Field(description="the technology the numbers come from, for people: nothing depends on it")
    device: Device | None = Field(
        default=None,
        description=f"whose energy and area it has; default: sram of that kind, else {PE_DEVICE} in PEs, {ROOT_DEVICE}"
        " at the root",
    )
    capacity_bytes: Capacity = Field(description="capacity")
    bytes_per_cycle: Rate = Field(description="rate of the port, Wm")
    latency_cycles: Cycles = Field(description="latency of the first access")


class BufferFile(Section):
    """The activations' buffer and the prefetch buffer."""

    capacity_bytes: Capacity = Field(description="inputs and outputs of one pass of a GEMM")
    prefetch_bytes: int = Field(ge=0, le=MAX_BYTES, description="weights fetched ahead at overlap 2; 0: none")


class PeFile(Section):
    """One processing element."""

    matrix: MatrixFile = Field(description="the matrix unit")
    vector: VectorFile = Field(description="the vector unit")
    memory: MemoryFile = Field(description="the local memory")
    buffer: BufferFile = Field(description="the small buffer")


class RootFile(Section):
    """The global buffer with its own vector unit and memory."""

    vector: VectorFile = Field(description="the root's vector unit")
    memory: MemoryFile = Field(description="the root's memory")


class BusFile(Section):
    """The one shared channel."""

    bytes_per_cycle: Rate = Field(description="width, W")
    latency_cycles: BusLatency = Field(description="time of flight; auto: from the floorplan")
    overhead_cycles: Cycles = Field(description="arbitration and header of every message")
    request_cycles: BusLatency = Field(default=0, description="a PE's request to the arbiter; auto: as latency_cycles")
    burst_bytes: Annotated[int | None, Field(ge=1, le=MAX_BYTES)] = Field(
        default=None, description="a message is cut into bursts of this size; null: not cut"
    )


class TreeFile(Section):
    """The reduction tree."""

    arity: int = Field(ge=2, le=MAX_PES, description="children of a joint, k")
    bytes_per_cycle: Rate = Field(description="width of every edge")
    latency_cycles: TreeLatency = Field(description="of a hop: one number, a list with one a level, or auto")
    combine_cycles: Cycles = Field(description="a joint's time to combine")
    softmax_combine_cycles: Cycles = Field(default=12, description="a joint's time to merge two softmax partials")
    downlink: bool = Field(default=False, description="whether results can go down the tree")


class CollectivesFile(Section):
    """How gathers and scatters are done."""

    gather: GatherWay = Field(default="best", description="gather and all-gather")
    scatter: GatherWay = Field(default="best", description="scatter")


class NetworkFile(Section):
    """The interconnect of kind bus_tree; `network_file` has the other kinds."""

    kind: Kind = Field(description="bus_tree: one bus down, one tree up")
    bus: BusFile = Field(description="the bus")
    tree: TreeFile = Field(description="the reduction tree")
    arbitration: Arbitration = Field(default="fifo", description="who gets the bus when several ask for it")
    collectives: CollectivesFile = Field(default_factory=CollectivesFile, description="ways of gather and scatter")


class ArrayFile(Section):
    """A whole array file."""

    schema_version: int = Field(description="version of this format")
    name: Annotated[str | None, Field(min_length=1)] = Field(
        default=None, description="the array's name; default: the file's"
    )
    clock_ghz: float = Field(gt=0, le=1000, description="clock of the whole machine, GHz")
    num_pes: int = Field(ge=1, le=MAX_PES, description="number of PEs, N")
    dead_pes: DeadPes = Field(default=(), description="numbers of PEs that do not work; [] if all do")
    overlap: int = Field(default=1, ge=0, le=3, description="0 none, 1 in the operator, 2 prefetch, 3 streaming")
    dtypes: DtypesFile = Field(description="dtype of each role")
    floorplan: FloorplanFile = Field(description="what auto latencies are derived from")
    pe: PeFile = Field(description="one processing element")
    root: RootFile = Field(description="the root")
    network: NetworkFile = Field(description="the interconnect")
    process: Literal["45nm", "7nm"] = Field(
        default="45nm", description="of the logic: what energy and area are unless they are given"
    )
    energy: EnergyFile = Field(default_factory=EnergyFile, description="what one event of each kind costs")
    area: AreaFile = Field(default_factory=AreaFile, description="what one piece of each part takes")


def array_schema(kind: object, memory_kind: object = None) -> type[ArrayFile]:
    """The schema of array files with a network and a memory of these kinds; bus_tree and flat if there is no such.

    Args:
        kind: what stands under network.kind.
        memory_kind: what stands under pe.memory.kind.
    """
    # Imported here: most arrays have a bus and a tree and a flat memory, and start-up time counts.
    schema = ArrayFile
    if kind != "bus_tree" and kind in KINDS:
        from pe_sim.config.network_file import schema_with

        schema = schema_with(str(kind))
    if memory_kind == "dram_bank":
        from pe_sim.config.memory_file import schema_with_bank

        schema = schema_with_bank(schema)
    return schema


def check_array_file(raw: Mapping[str, Any], source: str | None = None, overridden: tuple[str, ...] = ()) -> ArrayFile:
    """The checked form of an array file's mapping; its network is the Section of its kind.

    Args:
        raw: what the file holds.
        source: what error messages call it.
        overridden: dotted paths that `--set` changed, for the messages.

    Raises:
        InputError: an unknown schema version, or one or several faults, all in one message.
    """
    check_schema_version(raw, SCHEMA_VERSION, source)
    return validate(array_schema(_kind(raw, "network"), _kind(raw, "pe", "memory")), raw, source, overridden)


def _kind(raw: Mapping[str, Any], *sections: str) -> object:
    """What stands under `kind` in a section."""
    inside: object = raw
    for name in (*sections, "kind"):
        inside = inside.get(name) if isinstance(inside, Mapping) else None
    return inside
