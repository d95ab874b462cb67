"""The sections of an array file that say what its parts cost; all optional, `config.technology` has the defaults."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from pe_sim.config.energy import Area, Energy
from pe_sim.config.schema import Section

if TYPE_CHECKING:
    from pe_sim.config.array_file import ArrayFile

MAX_COST = 10**9  # of one event or one piece, in any of the units below; far above any machine one would build

Cost = Annotated[float | None, Field(ge=0, le=MAX_COST)]


def _cost(meaning: str) -> Cost:
    """An optional field; what is left out follows from process, technology and dtypes."""
    found: Cost = Field(default=None, description=f"{meaning}; default: by process, technology and dtypes")
    return found


class ByDtypeFile(Section):
    """A number for each dtype that is multiplied."""

    fp32: Cost = _cost("of a multiply-accumulate in fp32")
    bf16: Cost = _cost("of a multiply-accumulate in bf16")
    fp16: Cost = _cost("of a multiply-accumulate in fp16")
    fp8: Cost = _cost("of a multiply-accumulate in fp8")
    int8: Cost = _cost("of a multiply-accumulate in int8")
    int4: Cost = _cost("of a multiply-accumulate in int4")


class EnergyFile(Section):
    """Energy of one event of each kind, in pJ, and static power."""

    mac_pj: ByDtypeFile = Field(default_factory=ByDtypeFile, description="pJ of a multiply-accumulate, by dtype")
    vector_pj: Cost = _cost("pJ of one lane of a vector unit in one cycle of its cost table")
    local_read_pj_per_bit: Cost = _cost("pJ of a bit read from a PE's local memory")
    local_write_pj_per_bit: Cost = _cost("pJ of a bit written to a PE's local memory")
    root_read_pj_per_bit: Cost = _cost("pJ of a bit read from the root's memory")
    buffer_read_pj_per_bit: Cost = _cost("pJ of a bit read from a PE's buffer")
    buffer_write_pj_per_bit: Cost = _cost("pJ of a bit written to a PE's buffer")
    wire_pj_per_bit_mm: Cost = _cost("pJ of a bit over a millimetre of wire")
    joint_add_pj: Cost = _cost("pJ of an element that a joint adds")
    joint_softmax_pj: Cost = _cost("pJ of an element that a joint merges into a softmax partial")
    static_watts: float = Field(
        default=0.0, ge=0, le=MAX_COST, description="leakage, clock and refresh of the whole array, watts"
    )


class AreaFile(Section):
    """Silicon of one piece of each part."""

    mac_um2: ByDtypeFile = Field(default_factory=ByDtypeFile, description="um2 of a multiplier and adder, by dtype")
    vector_lane_um2: Cost = _cost("um2 of a lane of a vector unit")
    local_mm2_per_mib: Cost = _cost("mm2 of a MiB of a PE's local memory")
    local_layers: int = Field(
        default=0, ge=0, le=1024, description="dies on which local memory is stacked over the PE; 0: on the PE's own"
    )
    buffer_mm2_per_mib: Cost = _cost("mm2 of a MiB of a PE's buffer")
    root_mm2_per_mib: Cost = _cost("mm2 of a MiB of the root's memory, 0 if it is on other dies")
    joint_lane_um2: Cost = _cost("um2 a joint takes for each element that arrives in a cycle")
    wire_pitch_um: float = Field(
        default=0.0, ge=0, le=MAX_COST, description="um of die that each wire takes; 0: wires run over the logic"
    )
    switch_pitch_um: Cost = _cost("um from wire to wire inside a switch or router; 0: it takes no room")


def assumed_paths(file: ArrayFile) -> tuple[str, ...]:
    """The paths that an array's file leaves out, of those by which constants of energy and area are filled in."""
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
    """What the section says, and the defaults for what it does not say."""
    given = section.model_dump(exclude_none=True)
    mac_pj = {**default.mac_pj, **given.pop("mac_pj")}
    return replace(default, mac_pj=mac_pj, **given)


def filled_area(section: AreaFile, default: Area) -> Area:
    """What the section says, and the defaults for what it does not say."""
    given = section.model_dump(exclude_none=True)
    mac_um2 = {**default.mac_um2, **given.pop("mac_um2")}
    return replace(default, mac_um2=mac_um2, **given)
