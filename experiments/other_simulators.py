"""STONNE and SCALE-Sim: their dataflows as closed forms, beside the same work on an equivalent array of ours.

STONNE (MAERI configuration) distributes operands over a tree, multiplies, and reduces over another tree: one cycle a
level, one for the multiplication, one for the bus, one for the write. SCALE-Sim counts the cycles of a systolic array.
Ours has a tree of adders behind `depth` multipliers that weights stream into while the one before computes.
"""

from __future__ import annotations

from math import ceil, log2

import pe_sim as ps
from experiments.comparison import Row, single_pe

ELEMENT_BYTES = 2  # fp16 in our arrays; theirs count operands
STONNE, SCALE_SIM = "STONNE", "SCALE-Sim"
STONNE_PIPELINE = 2  # beside the levels of the tree: multiplication and write; the bus is our delivery


def stonne_dot(size: int, operands_per_cycle: int | None = None) -> int:
    """A dot product over `size` multipliers; None: all operands are delivered at once.

    Weights and inputs come one after the other through the same distribution tree, size / d cycles each; at d = size
    the measured 12 cycles mean that both come in one.
    """
    at_once = operands_per_cycle is None or operands_per_cycle >= size
    delivery = 1 if at_once else 2 * ceil(size / (operands_per_cycle or 1))
    return int(log2(size)) + 3 + delivery


def stonne_gemv(inputs: int, outputs: int, side: int = 16) -> int:
    """A GEMV in tiles of side x side at 64 operands a cycle.

    527,360 = 65,536 tiles of 8 cycles and 256 columns of tiles of 12. Both are what a dot product with nothing
    overlapped takes, over 16 (log2 16 + 4) and 256 multipliers (log2 256 + 4): the only reading we have, of one figure.
    """
    tiles = ceil(inputs / side) * ceil(outputs / side)
    return tiles * stonne_dot(side) + ceil(outputs / side) * stonne_dot(side * side)


def scale_sim_output_stationary(rows: int, inner: int, cols: int, side: int = 32) -> int:
    """ceil(M/R) ceil(N/C) (K + R + C - 2) - 1."""
    return ceil(rows / side) * ceil(cols / side) * (inner + 2 * side - 2) - 1


def scale_sim_weight_stationary(rows: int, inner: int, cols: int, side: int = 32) -> int:
    """ceil(K/R) ceil(N/C) (2 R + C + M - 2) - 1."""
    return ceil(inner / side) * ceil(cols / side) * (3 * side + rows - 2) - 1


def our_dot(size: int, operands_per_cycle: int | None = None) -> int:
    """The same dot product on one PE: the inputs are broadcast, then the weights stream in.

    With all operands at once there is nothing to wait for but the weights' one cycle.
    """
    array = single_pe(
        outputs=1,
        depth=size,
        pipeline_cycles=int(log2(size)) + STONNE_PIPELINE,
        bytes_per_cycle=ELEMENT_BYTES * (operands_per_cycle or size),
    )
    cycles = ps.gemm(array, 1, size, 1).cycles
    if operands_per_cycle is not None:
        cycles += ps.collective("broadcast", array, size * ELEMENT_BYTES).cycles
    return cycles


def our_gemv(inputs: int, outputs: int, side: int, operands_per_cycle: int, overlap: int) -> int:
    """The same GEMV on one PE of side x side multipliers: broadcast, stream of the weights, gather of the results."""
    array = single_pe(
        outputs=side,
        depth=side,
        pipeline_cycles=int(log2(side)) + STONNE_PIPELINE,
        bytes_per_cycle=ELEMENT_BYTES * operands_per_cycle,
        overlap=overlap,
    )
    read = ceil(outputs / operands_per_cycle)  # the results, at the rate of the bus
    broadcast = ps.collective("broadcast", array, inputs * ELEMENT_BYTES).cycles
    return broadcast + ps.gemm(array, 1, inputs, outputs).cycles + read


def rows() -> list[Row]:
    """STONNE's dot products and GEMV, then SCALE-Sim's GEMV in both dataflows."""
    return [*_stonne_dots(), *_stonne_gemv(), *_scale_sim()]


def _stonne_dots() -> list[Row]:
    table = []
    for published, size in enumerate((4, 8, 16, 32, 64, 128, 256, 512, 1024), start=6):
        case, reason = f"dot product of {size}, all operands at once", "equal: delivery, product, levels, write"
        table.append(Row(STONNE, case, "cycles", published, "log2 n + 4", our_dot(size), reason))
    for rate, published in ((256, 12), (8, 75), (1, 523)):
        reason = "equal: inputs and weights are delivered one after the other, n / d cycles each"
        if rate == 256:
            reason = "ours takes a cycle more: the broadcast of the inputs and the weights' delivery are two cycles"
        formula = "log2 n + 3 + 2 n / d, or + 1 at d = n"
        case = f"dot product of 256, {rate} operands a cycle"
        table.append(Row(STONNE, case, "cycles", published, formula, our_dot(256, rate), reason))
    return table


def _stonne_gemv() -> list[Row]:
    formula = "65,536 tiles * 8 + 256 * 12"
    overlapped = (
        "ours streams the next tile's weights (4 cycles a tile) while the last is multiplied, so the 4 other cycles of"
        " each tile (inputs again, tree, write) are hidden; inputs are delivered once, not with each of 256 columns"
    )
    alone = "at overlap 0 we add 1 cycle of multiplication to the 4 of delivery; tree and write are still a pipeline"
    return [
        Row(
            STONNE,
            f"GEMV 4096 x 4096, 64 operands a cycle, ours at overlap {overlap}",
            "cycles",
            527_360,
            formula,
            our_gemv(4096, 4096, 16, 64, overlap),
            reason,
        )
        for overlap, reason in ((1, overlapped), (0, alone))
    ]


def _scale_sim() -> list[Row]:
    ours = our_gemv(4096, 4096, 32, 32, 1)
    output_stationary = (
        "both are bound by 32 weights a cycle for 4096 cycles a fold; theirs fills and drains the array (R + C - 2 ="
        " 62 cycles) in each of 128 folds, ours once; ours also delivers the inputs and reads the results, 128 each"
    )
    weight_stationary = (
        "theirs loads a tile (32 cycles), then sends one row through it (R + C + M - 2 = 63) and drains before the next"
        " load; ours loads the next tile meanwhile, so 63 of each tile's 95 cycles are hidden"
    )
    case = "GEMV 4096 x 4096, 32 x 32"
    return [
        Row(
            SCALE_SIM,
            f"{case}, output-stationary",
            "cycles",
            532_223,
            "ceil(M/R) ceil(N/C) (K + R + C - 2) - 1",
            ours,
            output_stationary,
        ),
        Row(
            SCALE_SIM,
            f"{case}, weight-stationary",
            "cycles",
            1_556_479,
            "ceil(K/R) ceil(N/C) (2 R + C + M - 2) - 1",
            ours,
            weight_stationary,
        ),
    ]
