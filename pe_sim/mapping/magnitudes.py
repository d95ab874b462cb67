"""Whether a step can be counted: bounds on all it takes, in Python's integers, before anything is computed in 64 bits.

Cycles, bytes and operations are exact in arrays of 64-bit integers, which wrap without a word where they overflow. A
step that may come near is refused; the bounds are generous, far beyond any step that fits a machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pe_sim.config.arrays.array import ArrayConfig, DramBank
from pe_sim.errors import InputError
from pe_sim.graph.graph import OperatorGraph
from pe_sim.graph.operators import Embedding, KvAppend, Linear, Operator, Scores, Softmax, Values
from pe_sim.units import ceil_div

_LIMIT: Final = 2**63
_BITS: Final = 64  # of an element and its scales, or of twice a sum before it is halved
_BYTES: Final = _BITS // 8


@dataclass(frozen=True, slots=True)
class Magnitudes:
    """Sizes of a step, whatever array it is on: of the largest operator, and of all together.

    Args:
        macs, total_macs: multiplications.
        elements, total_elements: of tensors that are read, written or sent; weights are counted by their products.
        pairs, total_pairs: of rows and the tokens they see, in all heads.
    """

    macs: int
    elements: int
    pairs: int
    total_macs: int
    total_elements: int
    total_pairs: int

    @classmethod
    def of(cls, graph: OperatorGraph) -> Magnitudes:
        """The magnitudes of the operators of a step."""
        once = [_sizes(operator) for operator in (*graph.prologue, *graph.layer, *graph.epilogue)]
        first = len(graph.prologue)
        layer = once[first : first + len(graph.layer)]
        totals = [sum(sizes) for sizes in zip(*once, strict=True)]
        repeated = [(graph.num_layers - 1) * sum(sizes) for sizes in zip(*layer, strict=True)]
        return cls(*(max(sizes) for sizes in zip(*once, strict=True)), *map(sum, zip(totals, repeated, strict=True)))

    def check(self, array: ArrayConfig) -> None:
        """Refuses a step whose figures on an array may not fit in 64 bits.

        Raises:
            InputError: a product or a sum might pass 2^63.
        """
        pe, root, count = array.pe, array.root, array.num_pes
        costs = (*pe.vector.cycles_per_element.values(), *root.vector.cycles_per_element.values())
        vector = 3 * max(costs)  # some functions are sums of entries of the table
        waits, per_byte = 0, 1
        if isinstance(pe.memory, DramBank):
            per_byte = pe.memory.row_cycles  # at worst a row is opened for every byte
        else:
            waits = pe.memory.latency_cycles
        bus = None if array.network.is_graph else array.bus_tree.bus
        if bus is not None and bus.burst_bytes is not None:
            waits += _BYTES * count * ceil_div(bus.overhead_cycles + bus.request_cycles, bus.burst_bytes)
        most = {
            "bits that one operator works on": _BITS * self.macs,
            "operations of one operator": max(self.elements * max(vector, _BITS), self.pairs * vector) * count,
            "cycles": _BYTES * per_byte * self.total_macs
            + (vector + waits) * (self.total_elements + self.total_pairs)
            + _BYTES * count * self.total_elements,
        }
        what = max(most, key=most.__getitem__)
        if most[what] >= _LIMIT:
            raise InputError(
                f"this step is too large to be counted exactly: it may take {most[what]:.2e} {what}",
                expected=f"less than 2^63, {_LIMIT:.2e}",
                hint="a smaller batch, shorter prompts or a prefill in chunks (--prompt 4096 --context 4096),"
                " or fewer PEs",
            )


def _sizes(operator: Operator) -> tuple[int, int, int]:
    """Multiplications, elements and pairs of one operator."""
    rows = operator.num_rows
    inside = max(getattr(operator, name, 0) for name in ("in_size", "size", "hidden_size"))
    elements = rows * (2 * inside + sum(tensor.size for tensor in operator.outputs))
    if isinstance(operator, Linear):
        return rows * operator.in_size * operator.out_size, elements, 0
    if isinstance(operator, Embedding):
        return 0, elements * len(operator.table_rows) + operator.hidden_size * sum(operator.table_rows), 0
    if isinstance(operator, KvAppend):
        shape = operator.shape
        return 0, elements + 2 * shape.total_tokens * shape.num_kv_heads * shape.head_dim, 0
    if isinstance(operator, Scores | Softmax | Values):
        shape = operator.shape
        pairs = shape.num_heads * shape.visible_pairs
        return pairs * shape.head_dim, rows * shape.num_heads * shape.head_dim, pairs
    return 0, elements, 0
