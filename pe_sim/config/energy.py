"""What the parts of an array cost: frozen constants of energy and area, every default filled in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Energy:
    """Dynamic energy of one event of each kind, and static power.

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
    """Silicon of one piece of each part.

    Args:
        mac_um2: by dtype, a multiplier and an adder.
        vector_lane_um2: a lane of a vector unit.
        local_mm2_per_mib: a PE's local memory.
        local_layers: dies of their own on which it is stacked over the PE; 0: it stands on the PE's die.
        buffer_mm2_per_mib: SRAM buffers.
        root_mm2_per_mib: the root's memory; 0: it is on other dies.
        joint_lane_um2: what a joint has for each element that arrives in a cycle.
        wire_pitch_um: width of die that a wire takes; 0: wires run over the logic.
        switch_pitch_um: from wire to wire inside a switch or router.
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
