"""SK hynix AiM: GEMVs in the banks of one GDDR6 channel, on the array `aim-gddr6-16`.

The public simulator of that device (arkhadem/aim_simulator, timing GDDR6_AiM_timing) was measured for a MAC over one
row of k columns (59, 61, 185 cycles for k = 1, 2, 64), over two rows (411) and for a whole GEMV 1024 -> 1024 (18432).
Its constants say what those consist of:

- One row of k columns ends nRCDRDMAC + 2 (k - 1) + 3 = 57 + 2 k cycles after the activation was asked for. Ours: the
  activation, k columns of 2, and one cycle in which the last column is multiplied.
- The next row follows nRTP + nRP after the last column was asked for: 226 cycles a whole row, 98 + 2 k in general.
- The channel writes inputs (2 cycles a column), biases and results. Between two groups of 16 outputs it changes its
  mode twice and turns the bus around, 72 cycles, of which the 12 of nRTP pass anyway: 60. (Its constraints add up to 71
  and 59; the one cycle more is taken from the measured GEMV.)
"""

from __future__ import annotations

import argparse

import pe_sim as ps
from experiments.comparison import Row
from pe_sim.config.arrays.array import ArrayConfig, DramBank

ARRAY = "aim-gddr6-16"
INPUT_BYTES = 2  # fp16
SOURCE = "AiM simulator"


def mac_cycles(array: ArrayConfig, columns: int, rows: int = 1) -> int:
    """A MAC command over whole rows but the last, which has `columns` columns, to the end of the last MAC."""
    bank = bank_of(array)
    num_bytes = (rows - 1) * bank.row_bytes + columns * bank.column_bytes
    return ps.gemm(array, 1, num_bytes // INPUT_BYTES, 1).cycles


def row_cycles(array: ArrayConfig, columns: int) -> int:
    """One row of `columns` columns, closed again: what rows that follow each other cost each."""
    bank = bank_of(array)
    per_row = bank.row_bytes // bank.column_bytes
    closing = mac_cycles(array, per_row, rows=2) - 2 * mac_cycles(array, per_row)
    return mac_cycles(array, columns) + closing


def gemv_cycles(array: ArrayConfig, inputs: int, outputs: int) -> int:
    """A GEMV over all banks, one after the other what the channel and the banks do.

    A row of a bank holds one output's weights for as many inputs as the global buffer takes; so for each such chunk
    of the inputs the buffer is written once, and for each group of outputs, one a bank, there are a write of the
    biases, a row of MACs and a read of the results. Nothing overlaps: the row is only closed when the next MAC asks.
    """
    bank = bank_of(array)
    per_row = bank.row_bytes // bank.column_bytes
    groups = -(-outputs // array.num_pes)
    access = ps.collective("scatter", array, INPUT_BYTES).cycles + ps.collective("gather", array, INPUT_BYTES).cycles
    left, cycles = -(-inputs * INPUT_BYTES // bank.column_bytes), 0
    while left:
        columns = min(left, per_row)
        write = ps.collective("broadcast", array, columns * bank.column_bytes).cycles
        cycles += write + groups * (access + row_cycles(array, columns))
        left -= columns
    return cycles


def predicted_gemv(inputs: int, outputs: int) -> int:
    """What the simulator's own constants give: 2 a column written; per 16 outputs the row and 60 around it."""
    chunks = [64] * (inputs // 1024) + ([-(-(inputs % 1024) // 16)] if inputs % 1024 else [])
    return sum(2 * columns + -(-outputs // 16) * (56 + 2 * (columns - 1) + 12 + 32 + 60) for columns in chunks)


def bank_of(array: ArrayConfig) -> DramBank:
    """The banks' memory."""
    assert isinstance(array.pe.memory, DramBank)
    return array.pe.memory


def rows() -> list[Row]:
    """The published figures, then predictions of the same rules."""
    array = ps.load_array(ARRAY)
    exact = "equal: activation, columns, one MAC; a row before it also read-to-precharge and precharge"
    table = [
        Row(SOURCE, f"MAC, columns of one row: {k}", "cycles", cycles, "57 + 2 k", mac_cycles(array, k), exact)
        for k, cycles in ((1, 59), (2, 61), (64, 185))
    ]
    table.append(Row(SOURCE, "MAC, 2 rows", "cycles", 411, "226 + 185", mac_cycles(array, 64, rows=2), exact))
    channel = "equal: the bank's part as above; the channel's as broadcast, scatter and gather of the array"
    table.append(
        Row(
            SOURCE,
            "GEMV 1024 -> 1024",
            "cycles",
            18432,
            "64 * (226 + 60) + 64 * 2",
            gemv_cycles(array, 1024, 1024),
            channel,
        )
    )
    for k, number in ((17, 1), (32, 5), (64, 64)):
        formula = f"predicted: {number - 1} * 226 + 57 + 2 * {k}"
        predicted = (number - 1) * 226 + 57 + 2 * k
        case = f"MAC, {number - 1} whole rows and {k} columns" if number > 1 else f"MAC, columns of one row: {k}"
        table.append(Row(SOURCE, case, "cycles", predicted, formula, mac_cycles(array, k, rows=number), exact))
    for inputs, outputs in ((1024, 4096), (4096, 4096), (1000, 100)):
        formula = "predicted: each chunk of 1024 as above"
        case = f"GEMV {inputs} -> {outputs}"
        predicted = predicted_gemv(inputs, outputs)
        table.append(Row(SOURCE, case, "cycles", predicted, formula, gemv_cycles(array, inputs, outputs), channel))
    at_once = gemv_cycles(array, 1024, 1024) - 64 * (row_cycles(array, 64) - mac_cycles(array, 64))
    reason = (
        "a controller that closes the row at once, as the engines do between operators, hides 41 cycles a row"
        " behind the read of the results"
    )
    table.append(Row(SOURCE, "GEMV 1024 -> 1024, rows closed early", "cycles", 18432, "as above", at_once, reason))
    return table


def main() -> None:
    """Prints one GEMV and what it consists of."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.aim_banks",
        description="A GEMV in the 16 banks of one AiM channel, and what its cycles consist of.",
        epilog="For instance: python -m experiments.aim_banks --inputs 4096 --outputs 11008",
    )
    parser.add_argument("--inputs", type=int, default=1024, metavar="K", help="elements of the input (%(default)s)")
    parser.add_argument("--outputs", type=int, default=1024, metavar="N", help="elements of the output (%(default)s)")
    parser.add_argument("--array", default=ARRAY, help="an array with dram_bank memories (%(default)s)")
    options = parser.parse_args()
    if min(options.inputs, options.outputs) < 1:
        parser.error("--inputs and --outputs are at least 1")
    array = ps.load_array(options.array)
    if not isinstance(array.pe.memory, DramBank):
        parser.error(f"{options.array} has no memory of kind dram_bank")
    cycles = gemv_cycles(array, options.inputs, options.outputs)
    micros = cycles / array.clock_ghz / 1000
    print(f"GEMV {options.inputs} -> {options.outputs} on {array.name}: {cycles:,} cycles = {micros:,.2f} us")
    full = bank_of(array).row_bytes // bank_of(array).column_bytes
    print(f"  a whole row of {full} columns: {row_cycles(array, full)} cycles, of which the MACs end after", end=" ")
    print(mac_cycles(array, full))


if __name__ == "__main__":
    main()
