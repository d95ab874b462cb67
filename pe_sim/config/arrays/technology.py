"""Published constants of energy and area, and the defaults that follow where an array file states none.

Every constant says where it comes from. "Assumption" marks what nobody published in this form, with the reason.

- Horowitz: M. Horowitz, "Computing's energy problem (and what we can do about it)", ISSCC 2014: 45 nm, 0.9 V. The
  areas of the same operations are those of the table that goes with it (for instance Gholami et al., "A survey of
  quantization methods", 2021, figure 15).
- Jouppi: N. Jouppi et al., "Ten lessons from three generations shaped Google's TPUv4i", ISCA 2021, table 2: the same
  operations in 7 nm.
- FGDRAM: M. O'Connor et al., "Fine-grained DRAM", MICRO 2017, table 3: the stages of a bit's way out of an HBM2.
- Keckler: S. Keckler et al., "GPUs and the future of parallel computing", IEEE Micro 2011, table 1.
- ORION: A. Kahng et al., "ORION 2.0: a fast and accurate NoC power and area model", DATE 2009: a matrix crossbar is as
  wide as the wires of its inputs and as high as those of its outputs; a bit drives a whole row and a whole column.
- Dally: W. Dally, Y. Turakhia, S. Han, "Domain-specific hardware accelerators", CACM 2020.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from pe_sim.config.arrays.array import Area, Energy, LocalMemory, Pe, Root
from pe_sim.config.dtypes import BITS, Dtypes

_MBIT_PER_MIB: Final = 8 * 2**20 / 1e6  # also the mm2 that a MiB of cells of 1 um2 takes


@dataclass(frozen=True, slots=True)
class Process:
    """The constants of a logic process.

    Args:
        multiply_pj, add_pj: energy of a multiplication and of an addition, by dtype; additions have int32 too.
        multiply_um2, add_um2: area of a multiplier and of an adder, likewise.
        sram_pj_per_64_bits: (KiB, pJ of an access) for SRAMs of some sizes.
        sram_cell_um2: area of the smallest published six-transistor cell.
        wire_pj_per_bit_mm: energy of a wire with full swing.
        switch_pitch_um: wire pitch on the metal layers of a crossbar of buses.
    """

    multiply_pj: dict[str, float]
    add_pj: dict[str, float]
    multiply_um2: dict[str, float]
    add_um2: dict[str, float]
    sram_pj_per_64_bits: tuple[tuple[float, float], ...]
    sram_cell_um2: float
    wire_pj_per_bit_mm: float
    switch_pitch_um: float


# Assumption for dtypes that nobody measured: fp8 as the 16-bit floats, int4 as int8, which are upper bounds, as they
# are narrower. bf16 in 45 nm as fp16: its mantissa is shorter, hence an upper bound too.
_HOROWITZ_MULTIPLY_UM2: Final = {
    "fp32": 7700.0,
    "fp16": 1640.0,
    "bf16": 1640.0,
    "fp8": 1640.0,
    "int8": 282.0,
    "int4": 282.0,
}
_HOROWITZ_ADD_UM2: Final = {"fp32": 4184.0, "fp16": 1360.0, "bf16": 1360.0, "fp8": 1360.0, "int32": 137.0}

_CELL_45NM: Final = 0.346  # Intel's 153 Mbit test chip in 45 nm, ISSCC 2006
_CELL_7NM: Final = 0.027  # TSMC's N7, IEDM 2016

PROCESSES: Final[dict[str, Process]] = {
    "45nm": Process(
        # Horowitz
        multiply_pj={"fp32": 3.7, "fp16": 1.1, "bf16": 1.1, "fp8": 1.1, "int8": 0.2, "int4": 0.2},
        add_pj={"fp32": 0.9, "fp16": 0.4, "bf16": 0.4, "fp8": 0.4, "int32": 0.1},
        multiply_um2=_HOROWITZ_MULTIPLY_UM2,
        add_um2=_HOROWITZ_ADD_UM2,
        sram_pj_per_64_bits=((8, 10.0), (32, 20.0), (1024, 100.0)),
        sram_cell_um2=_CELL_45NM,
        # Keckler, 40 nm, 0.9 V: 310 pJ for 256 bits over 10 mm, of which half toggle. Dally says 0.1 as a rule.
        wire_pj_per_bit_mm=0.12,
        # Assumption: a semi-global layer, the fifth of Intel's 45 nm process (K. Mistry et al., IEDM 2007); recalled.
        switch_pitch_um=0.28,
    ),
    "7nm": Process(
        # Jouppi; the addition of fp32 is an assumption: recalled from that table and not seen again.
        multiply_pj={"fp32": 1.31, "fp16": 0.34, "bf16": 0.21, "fp8": 0.21, "int8": 0.07, "int4": 0.07},
        add_pj={"fp32": 0.38, "fp16": 0.16, "bf16": 0.11, "fp8": 0.11, "int32": 0.03},
        # Assumption: logic shrinks as much as SRAM cells do, 12.8 times. It shrank more, so these are upper bounds.
        multiply_um2={name: area * _CELL_7NM / _CELL_45NM for name, area in _HOROWITZ_MULTIPLY_UM2.items()},
        add_um2={name: area * _CELL_7NM / _CELL_45NM for name, area in _HOROWITZ_ADD_UM2.items()},
        sram_pj_per_64_bits=((8, 7.5), (32, 8.5), (1024, 14.0)),
        sram_cell_um2=_CELL_7NM,
        # Keckler's projection for 10 nm at 0.65 V: 150 pJ for 256 bits over 10 mm. Assumption: the same in 7 nm, for
        # the capacitance of a millimetre and the voltage hardly change any more.
        wire_pj_per_bit_mm=0.059,
        # Assumption: a semi-global layer of a 7 nm process, about twice the least pitch of 40 nm.
        switch_pitch_um=0.08,
    ),
}
SRAM: Final = "sram"  # the device whose cells are of the logic's process

# FGDRAM, pJ a bit: activation and precharge 0.11, the cell's read or write 0.44. A bit that leaves the stack also pays
# for its way to the bank group's multiplexer 1.01, from there to the global I/O 1.23, TSV 0.5 and interposer 0.3.
DRAM_BANK_PJ_PER_BIT: Final = 0.55
DRAM_STACK_PJ_PER_BIT: Final = 3.6

# pJ a bit of DRAM by its device: at its bank, or on another die.
_DRAM_PJ_PER_BIT: Final[dict[str, float]] = {
    "dram_bank": DRAM_BANK_PJ_PER_BIT,
    "hbm": DRAM_STACK_PJ_PER_BIT,
    "lpddr": 4.0,  # Dally: LPDDR4
    "gddr": 6.5,  # Jouppi: GDDR6 350 to 480 pJ for 64 bits; the middle
    "ddr": 20.3,  # Horowitz, Jouppi: DDR3 and DDR4 1300 pJ for 64 bits
}

# Share of an SRAM's area that is cells: a published 7 nm macro has 29.2 Mbit on a mm2 with cells of 0.027 um2.
_SRAM_CELLS: Final = 29.2 * 0.027
# mm2 of a MiB of DRAM in one layer. Assumption: 16 Gbit on a die of 85 mm2, like dies made around 2020.
_DRAM_MM2_PER_MIB: Final = 85.0 / (16 * 1024 / 8)


def default_energy(process: Process, dtypes: Dtypes, pe: Pe, root: Root) -> Energy:
    """The default energies of an array with these parts, in the units of `Energy`.

    A multiply-accumulate is a product and an addition to its sum, of floats in the dtype of partial sums and of
    integers in int32. Writing costs what reading costs (assumption; FGDRAM gives one figure for both).
    """
    multiply, add, partial = process.multiply_pj, process.add_pj, dtypes.partial.name
    local = memory_pj_per_bit(process, pe.memory)
    buffer = sram_pj_per_bit(process, pe.buffer.capacity_bytes)
    return Energy(
        mac_pj={dtype: _tidy(multiply[dtype] + add[_sum_dtype(dtype, partial)]) for dtype in BITS},
        # Assumption: an fp32 multiplication, the dearer of the operations that a lane has.
        vector_pj=multiply["fp32"],
        local_read_pj_per_bit=local,
        local_write_pj_per_bit=local,
        root_read_pj_per_bit=memory_pj_per_bit(process, root.memory),
        buffer_read_pj_per_bit=buffer,
        buffer_write_pj_per_bit=buffer,
        wire_pj_per_bit_mm=process.wire_pj_per_bit_mm,
        joint_add_pj=add[_sum_dtype(partial, partial)],
        # Assumption: both elements are scaled, then added, in fp32; the maxima and the exponentials, once for all
        # elements of a head, do not count beside that.
        joint_softmax_pj=_tidy(2 * multiply["fp32"] + add["fp32"]),
        static_watts=0.0,
    )


def default_area(process: Process, dtypes: Dtypes, pe: Pe, root: Root) -> Area:
    """The default areas of an array with these parts, in the units of `Area`."""
    multiply, add, partial = process.multiply_um2, process.add_um2, dtypes.partial.name
    sram = _tidy(_MBIT_PER_MIB * process.sram_cell_um2 / _SRAM_CELLS)
    return Area(
        mac_um2={dtype: _tidy(multiply[dtype] + add[_sum_dtype(dtype, partial)]) for dtype in BITS},
        # Assumption: an fp32 multiplier and adder; tables of functions are left out.
        vector_lane_um2=_tidy(multiply["fp32"] + add["fp32"]),
        local_mm2_per_mib=sram if pe.memory.device == SRAM else _DRAM_MM2_PER_MIB,
        local_layers=0,
        buffer_mm2_per_mib=sram,
        root_mm2_per_mib=sram if root.memory.device == SRAM else 0.0,  # DRAM of the root is on dies of its own
        # Assumption: an adder of partial sums, and two fp32 multipliers that scale softmax partials.
        joint_lane_um2=_tidy(add[_sum_dtype(partial, partial)] + 2 * multiply["fp32"]),
        wire_pitch_um=0.0,
        switch_pitch_um=process.switch_pitch_um,
    )


def memory_pj_per_bit(process: Process, memory: LocalMemory) -> float:
    """pJ of a bit read from a memory of this device and size; writes cost the same (assumption)."""
    if memory.device == SRAM:
        return sram_pj_per_bit(process, memory.capacity_bytes)
    return _DRAM_PJ_PER_BIT[memory.device]


def sram_pj_per_bit(process: Process, capacity_bytes: int) -> float:
    """pJ of a bit of an SRAM, interpolated linearly between published sizes on logarithmic axes.

    Assumption: smaller SRAMs cost as much as the smallest published one, larger ones are made of the largest.
    """
    points = process.sram_pj_per_64_bits
    kib = min(max(capacity_bytes / 1024, points[0][0]), points[-1][0])
    (low, low_pj), (high, high_pj) = next(pair for pair in pairwise(points) if kib <= pair[1][0])
    share = math.log(kib / low) / math.log(high / low)
    return _tidy(low_pj * (high_pj / low_pj) ** share / 64)


def _tidy(value: float) -> float:
    """The value without the digits that binary fractions add; it keeps three more than any source has."""
    return round(value, 6)


def _sum_dtype(dtype: str, partial: str) -> str:
    """The dtype in which products of this dtype are summed."""
    if dtype.startswith("int"):
        return "int32"
    return "fp32" if partial.startswith("int") else partial
