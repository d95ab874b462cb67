"""Data types and the bytes their tensors take."""

from __future__ import annotations

from dataclasses import dataclass

from pe_sim.units import IntArray, ceil_div

BITS: dict[str, int] = {"fp32": 32, "bf16": 16, "fp16": 16, "fp8": 8, "int8": 8, "int4": 4}
SCALE_BITS = 16  # one fp16 scale for each group (machine model, section 4)


_WIDER_LAST = ("int4", "int8", "fp8", "bf16", "fp16", "fp32")


def wider(first: str, second: str) -> str:
    """The dtype in which a product of two dtypes is computed: quantised operands are widened to the other's."""
    return max(first, second, key=_WIDER_LAST.index)


@dataclass(frozen=True, slots=True)
class Dtype:
    """An element type, with groups of shared scales if it is quantised.

    Args:
        name: one of `BITS`.
        group_size: elements along the inner dimension that share one fp16 scale; None: no scales.
        zero_point: whether each group also stores a zero point of the element's own width.
    """

    name: str
    group_size: int | None = None
    zero_point: bool = False

    @property
    def bits(self) -> int:
        """Width of one element in bits."""
        return BITS[self.name]

    def num_bytes(self, elements: int | IntArray) -> int | IntArray:
        """Bytes of `elements` packed elements without scales, rounded up once for the whole tensor."""
        return ceil_div(elements * self.bits, 8)

    def matrix_bytes(self, outer: int | IntArray, inner: int | IntArray) -> int | IntArray:
        """Bytes of an (outer, inner) tensor, with scales and zero points; groups run along `inner`."""
        bits = outer * inner * self.bits
        if self.group_size is not None:
            per_group = SCALE_BITS + (self.bits if self.zero_point else 0)
            bits = bits + outer * ceil_div(inner, self.group_size) * per_group
        return ceil_div(bits, 8)


@dataclass(frozen=True, slots=True)
class Dtypes:
    """The dtype of each role that a tensor can have."""

    weight: Dtype
    activation: Dtype
    kv_cache: Dtype
    partial: Dtype
