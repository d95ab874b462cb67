"""The commands that the RTL's units run: their fields, as 512-bit words for the hardware and as SystemVerilog.

`python -m tests.rtl.commands` writes `hdl/commands.svh` from the tables of this file; a test compares the two.

Every unit (a PE or the root) has three lists of commands, each run in order: *work* for the sequencer, *sends* for
its port of the bus, *leaves* for its leaf of the tree. A command begins when its waits are fulfilled: `slot` has been
counted up to `count`. A slot is counted up when a command that names it as its `done_slot` ends, when the last beat
of a message has been heard, or when a reduction's result is complete. A barrier is a list of waits.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from pathlib import Path

WORD_BITS = 512
HOST_BITS = 64
NUM_WAITS = 4
MAX_WAIT_COUNT = (1 << 10) - 1

Fields = tuple[tuple[str, int], ...]  # name, bits


class Op(IntEnum):
    """What the sequencer does."""

    MATRIX = 0
    VECTOR = 1
    STORE = 2
    LOAD = 3


class Function(IntEnum):
    """What the vector unit computes of elements a and b."""

    COPY = 0
    ADD = 1
    MUL = 2
    ARGMAX = 3


class Combine(IntEnum):
    """What a joint does with what its children send."""

    SUM32 = 0
    SUM16 = 1
    MAX32 = 2
    ARGMAX64 = 3


WAITS: Fields = tuple(
    field for index in range(NUM_WAITS) for field in ((f"wait{index}_slot", 8), (f"wait{index}_count", 10))
)
_WORK: Fields = (("op", 2), *WAITS, ("done_slot", 8))

# Each output tile (R outputs) takes the tiles of C inner elements one after the other; tile (i, j) of piece b lies at
# weight_addr + i * outer_pitch + j * inner_pitch + b * batch_pitch and holds only the elements it has, int8:
# output-major, or inner-major if `inner_major`. Inputs are int16. Pitches are in bytes.
MATRIX: Fields = (
    *_WORK,
    ("rows", 12),
    ("inner", 12),
    ("outer", 12),
    ("pass_rows", 12),  # rows that fit the buffer; each pass streams the weights again
    ("batch", 8),  # as many products in one access, one after the other
    ("double_buffered", 1),  # overlap 1; else a tile is loaded when the one before it is done with
    ("in_addr", 16),
    ("in_row_pitch", 16),
    ("in_column_pitch", 16),
    ("in_batch_pitch", 16),
    ("out_addr", 16),
    ("out_row_pitch", 16),
    ("out_column_pitch", 16),
    ("out_batch_pitch", 16),
    ("out_narrow", 1),  # results are shifted right and stored as int16, else as int32
    ("shift", 5),
    ("weight_addr", 20),
    ("outer_pitch", 20),
    ("inner_pitch", 20),
    ("batch_pitch", 20),
    ("inner_major", 1),
)

# out[e] = ((a[e] >> a_shift) op (b[e % b_period] << b_shift)) >> out_shift; takes steps * step_cycles + latency.
VECTOR: Fields = (
    *_WORK,
    ("operation", 2),  # Function
    ("steps", 16),
    ("step_cycles", 8),
    ("elements", 16),  # that are computed; 0 where a function only takes its time
    ("a_addr", 16),
    ("a_narrow", 1),
    ("a_shift", 5),
    ("b_addr", 16),
    ("b_narrow", 1),
    ("b_shift", 5),
    ("b_period", 16),
    ("out_addr", 16),
    ("out_narrow", 1),
    ("out_shift", 5),
    ("index_base", 32),  # of element 0, for ARGMAX, whose result is (int32 value, int32 index)
)

# int16 elements from the buffer, shifted right, as int8 into the memory: in each cycle as many as go to different
# banks of it, up to a word (`stores.py`).
STORE: Fields = (
    *_WORK,
    ("chunk", 8),  # elements of a chunk
    ("element_pitch", 16),  # in the buffer
    ("shift", 5),
    *(
        field
        for level in range(3)
        for field in ((f"count{level}", 8), (f"in_pitch{level}", 16), (f"out_pitch{level}", 20))
    ),
    ("in_addr", 16),
    ("out_addr", 20),
)

# Bytes from the memory into the buffer, or int8 that become int16.
LOAD: Fields = (*_WORK, ("in_addr", 20), ("out_addr", 16), ("num_bytes", 16), ("widens", 1))

# A message from the buffer to a range of PEs or to the root, where it goes to `out_addr` and counts up `done_slot`.
SEND: Fields = (
    *WAITS,
    ("done_slot", 8),
    ("joins", 1),  # arrives together with the one before it
    ("order", 16),  # of its stage in program order
    ("to_root", 1),
    ("first_pe", 8),
    ("last_pe", 8),  # inclusive
    ("in_addr", 16),
    ("narrows", 1),  # int32 in the buffer, shifted right and sent as int16
    ("shift", 5),
    ("num_bytes", 16),  # on the bus
    ("out_addr", 16),
)

# A leaf's part in a reduction through `levels` levels: its slice, and the neutral element elsewhere.
LEAF: Fields = (
    *WAITS,
    ("done_slot", 8),
    ("order", 16),
    ("levels", 4),
    ("to_root", 1),  # else the result goes to the lowest PE of the subtree
    ("combine", 2),
    ("merges", 1),  # joints take the cycles of a softmax merge
    ("in_addr", 16),
    ("slice_first", 16),
    ("slice_bytes", 16),
    ("num_bytes", 16),
    ("out_addr", 16),
)

FORMATS: Mapping[str, Fields] = {
    "matrix": MATRIX,
    "vector": VECTOR,
    "store": STORE,
    "load": LOAD,
    "send": SEND,
    "leaf": LEAF,
}
WORK_FORMATS: Mapping[Op, str] = {Op.MATRIX: "matrix", Op.VECTOR: "vector", Op.STORE: "store", Op.LOAD: "load"}
SVH = Path(__file__).parent / "hdl" / "commands.svh"


def pack(fields: Fields, values: Mapping[str, int]) -> int:
    """A command's word; fields that are not given are 0.

    Raises:
        ValueError: a value does not fit its field, or there is no such field.
    """
    unknown = set(values) - {name for name, _ in fields}
    if unknown:
        raise ValueError(f"no such fields: {sorted(unknown)}")
    word = 0
    for name, bits in fields:  # the first field takes the highest bits, as in a packed struct
        value = values.get(name, 0)
        if not 0 <= value < 1 << bits:
            raise ValueError(f"{name}={value} does not fit {bits} bits")
        word = word << bits | value
    return word << (WORD_BITS - sum(bits for _, bits in fields))


def svh() -> str:
    """The tables as packed structs."""
    lines = ["// Written by `python -m tests.rtl.commands`; the fields are explained there.", "`ifndef COMMANDS_SVH"]
    lines += ["`define COMMANDS_SVH", f"localparam int WORD_BITS = {WORD_BITS};"]
    for enum in (Op, Function, Combine):
        lines += [f"localparam logic [1:0] {enum.__name__.upper()}_{item.name} = {item.value};" for item in enum]
    for name, fields in FORMATS.items():
        rest = WORD_BITS - sum(bits for _, bits in fields)
        lines.append("typedef struct packed {")
        lines += [f"    logic [{bits - 1}:0] {field};" for field, bits in fields]
        lines += [f"    logic [{rest - 1}:0] unused;", f"}} {name}_t;"]
    return "\n".join([*lines, "`endif", ""])


if __name__ == "__main__":
    SVH.write_text(svh())
