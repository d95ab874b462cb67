"""The schema of an array YAML file: takes a plain mapping, gives checked sections with `auto` still in place.

The names are the public ones of the interface page; every number's unit is in its name. All bounds are far above any
machine one would build; they keep the products of the timing formulas inside 64-bit integers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

from pe_sim.config.arrays.array import DEFAULT_CYCLES_PER_ELEMENT, Area, Energy
from pe_sim.config.dtypes import BITS
from pe_sim.config.files.schema import (
    MAX_BYTES,
    MAX_CYCLES,
    MAX_PES,
    MAX_UNITS,
    Capacity,
    Cycles,
    Rate,
    Section,
    Text,
    Units,
    fault,
    number_advice,
)
from pe_sim.config.networks.bus_tree_schema import NetworkFile
from pe_sim.errors import did_you_mean

# ---- The sections of an array file that say what its parts cost; all optional, `technology` has the defaults.


MAX_COST = 10**9  # of one event or one piece, in any of the units below; far above any real machine

Cost = Annotated[float | None, Field(ge=0, le=MAX_COST)]


def _optional_cost(meaning: str) -> Cost:
    """An optional field of a cost, whose default follows from process, technology and dtypes."""
    found: Cost = Field(default=None, description=f"{meaning}; default: by process, technology and dtypes")
    return found


class ByDtypeFile(Section):
    """The schema of a cost for each dtype that is multiplied."""

    fp32: Cost = _optional_cost("of a multiply-accumulate in fp32")
    bf16: Cost = _optional_cost("of a multiply-accumulate in bf16")
    fp16: Cost = _optional_cost("of a multiply-accumulate in fp16")
    fp8: Cost = _optional_cost("of a multiply-accumulate in fp8")
    int8: Cost = _optional_cost("of a multiply-accumulate in int8")
    int4: Cost = _optional_cost("of a multiply-accumulate in int4")


class EnergyFile(Section):
    """The schema of the energy of one event of each kind, in pJ, and of static power."""

    mac_pj: ByDtypeFile = Field(default_factory=ByDtypeFile, description="pJ of a multiply-accumulate, by dtype")
    vector_pj: Cost = _optional_cost("pJ of one lane of a vector unit in one cycle of its cost table")
    local_read_pj_per_bit: Cost = _optional_cost("pJ of a bit read from a PE's local memory")
    local_write_pj_per_bit: Cost = _optional_cost("pJ of a bit written to a PE's local memory")
    root_read_pj_per_bit: Cost = _optional_cost("pJ of a bit read from the root's memory")
    buffer_read_pj_per_bit: Cost = _optional_cost("pJ of a bit read from a PE's buffer")
    buffer_write_pj_per_bit: Cost = _optional_cost("pJ of a bit written to a PE's buffer")
    wire_pj_per_bit_mm: Cost = _optional_cost("pJ of a bit over a millimetre of wire")
    joint_add_pj: Cost = _optional_cost("pJ of an element that a joint adds")
    joint_softmax_pj: Cost = _optional_cost("pJ of an element that a joint merges into a softmax partial")
    static_watts: float = Field(
        default=0.0, ge=0, le=MAX_COST, description="leakage, clock and refresh of the whole array, watts"
    )


class AreaFile(Section):
    """The schema of the silicon area of one piece of each part."""

    mac_um2: ByDtypeFile = Field(default_factory=ByDtypeFile, description="um2 of a multiplier and adder, by dtype")
    vector_lane_um2: Cost = _optional_cost("um2 of a lane of a vector unit")
    local_mm2_per_mib: Cost = _optional_cost("mm2 of a MiB of a PE's local memory")
    local_layers: int = Field(
        default=0, ge=0, le=1024, description="dies on which local memory is stacked over the PE; 0: on the PE's own"
    )
    buffer_mm2_per_mib: Cost = _optional_cost("mm2 of a MiB of a PE's buffer")
    root_mm2_per_mib: Cost = _optional_cost("mm2 of a MiB of the root's memory, 0 if it is on other dies")
    joint_lane_um2: Cost = _optional_cost("um2 a joint takes for each element that arrives in a cycle")
    wire_pitch_um: float = Field(
        default=0.0, ge=0, le=MAX_COST, description="um of die that each wire takes; 0: wires run over the logic"
    )
    switch_pitch_um: Cost = _optional_cost("um from wire to wire inside a switch or router; 0: it takes no room")


def assumed_paths(file: ArrayFile) -> tuple[str, ...]:
    """The paths that a file leaves out although constants of energy and area depend on them."""
    energy, area, found = file.energy, file.area, []
    sections = (energy, energy.mac_pj, area, area.mac_um2)
    if "process" not in file.model_fields_set and any(None in dict(section).values() for section in sections):
        found.append("process")
    of_pes = (energy.local_read_pj_per_bit, energy.local_write_pj_per_bit, area.local_mm2_per_mib)
    of_root = (energy.root_read_pj_per_bit, area.root_mm2_per_mib)
    for name, memory, costs in (("pe", file.pe.memory, of_pes), ("root", file.root.memory, of_root)):
        if memory.kind == "flat" and memory.device is None and None in costs:
            found.append(f"{name}.memory.device")
    return tuple(found)


def filled_energy(section: EnergyFile, default: Energy) -> Energy:
    """The energies that the section states, completed by `default`."""
    given = section.model_dump(exclude_none=True)
    mac_pj = {**default.mac_pj, **given.pop("mac_pj")}
    return replace(default, mac_pj=mac_pj, **given)


def filled_area(section: AreaFile, default: Area) -> Area:
    """The areas that the section states, completed by `default`."""
    given = section.model_dump(exclude_none=True)
    mac_um2 = {**default.mac_um2, **given.pop("mac_um2")}
    return replace(default, mac_um2=mac_um2, **given)


SCHEMA_VERSION: Final = 1
QUANTISED: Final = ("fp8", "int8", "int4")

MEMORY_KINDS: Final = ("flat", "sram", "dram_bank")
Device = Literal["sram", "dram_bank", "hbm", "lpddr", "gddr", "ddr"]
PE_DEVICE, ROOT_DEVICE = "dram_bank", "hbm"  # defaults


def check_pe_list(value: Any) -> Any:
    """The value as a tuple, if it is a list of PE numbers, else raises a fault; the PEs need not exist."""
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
    """The schema of an element type, with groups of shared scales if it is quantised."""

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
    """The mapping of a dtype; a name alone stands for {dtype: name}."""
    if isinstance(value, Mapping | DtypeFile):
        return value
    if isinstance(value, str) and value in BITS:
        return {"dtype": value}
    hint = did_you_mean(value, BITS) if isinstance(value, str) else "known: " + ", ".join(sorted(BITS))
    raise fault("unknown dtype", "a dtype's name, or a mapping with dtype, group_size and zero_point", hint)


DtypeEntry = Annotated[DtypeFile, BeforeValidator(_expand_dtype)]


class DtypesFile(Section):
    """The schema of the dtype of each role that a tensor can have."""

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
    """The schema of the floor plan: a near-square grid of PEs, from which `auto` latencies are derived."""

    pe_pitch_mm: float = Field(gt=0, le=1e6, description="distance between the centres of neighbouring PEs, mm")
    mm_per_cycle: float = Field(gt=0, le=1e6, description="how far a signal travels on a wire in one cycle, mm")


class MatrixFile(Section):
    """The schema of the matrix unit: `outputs` dot-product units of `depth` multipliers."""

    outputs: Units = Field(description="dot-product units, R")
    depth: Units = Field(description="multipliers of each dot-product unit, C")
    latency_cycles: Cycles = Field(description="pipeline latency, Lm")


def _cost(function: str) -> Any:
    """A field of the cost table, with the default of the machine model, section 6."""
    cycles = DEFAULT_CYCLES_PER_ELEMENT[function]
    return Field(default=cycles, ge=1, le=MAX_CYCLES, description=f"cycles per element of {function}")


class CyclesPerElementFile(Section):
    """The schema of the costs of vector functions; missing ones keep their default."""

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
    """The schema of a vector unit."""

    lanes: Units = Field(description="elements worked on at once")
    latency_cycles: Cycles = Field(description="pipeline latency")
    cycles_per_element: CyclesPerElementFile = Field(
        default_factory=CyclesPerElementFile, description="cost of the functions that differ from the default"
    )


class MemoryFile(Section):
    """The schema of a flat memory with one port; `schemas` has the other kind, which only PEs can have."""

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
    """The schema of the activations' buffer and the prefetch buffer."""

    capacity_bytes: Capacity = Field(description="inputs and outputs of one pass of a GEMM")
    prefetch_bytes: int = Field(ge=0, le=MAX_BYTES, description="weights fetched ahead at overlap 2; 0: none")


class PeFile(Section):
    """The schema of one processing element."""

    matrix: MatrixFile = Field(description="the matrix unit")
    vector: VectorFile = Field(description="the vector unit")
    memory: MemoryFile = Field(description="the local memory")
    buffer: BufferFile = Field(description="the small buffer")


class RootFile(Section):
    """The schema of the root: the global buffer with its own vector unit and memory."""

    vector: VectorFile = Field(description="the root's vector unit")
    memory: MemoryFile = Field(description="the root's memory")


class ArrayFile(Section):
    """The schema of a whole array file."""

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
