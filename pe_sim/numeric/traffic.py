"""Counts messages by tag, from the arrays that are really moved."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from pe_sim.config.dtypes import Dtypes
from pe_sim.graph.tensors import Element, Tensor
from pe_sim.numeric.arrays import Array
from pe_sim.trace import TagTraffic
from pe_sim.units import ceil_div

TAGS = (
    "broadcast",
    "multicast",
    "scatter",
    "gather",
    "all-gather",
    "all-to-all",
    "reduce",
    "unicast",
    "weight-stream",
)
_STATISTIC_BITS = 32  # fp32
_CANDIDATE_BITS = 64  # fp32 value and int32 index


@dataclass
class TrafficCounter:
    """Adds up messages; nothing is sent where there is nothing to send."""

    dtypes: Dtypes
    by_tag: dict[str, TagTraffic] = field(default_factory=dict)

    def count(self, tag: str, parts: Iterable[tuple[Tensor, Array]], *, partial: bool = False) -> None:
        """One message of the arrays of several tensors; each of them rounds up to bytes on its own."""
        parts = tuple(parts)
        self.count_bytes(tag, sum(ceil_div(array.size * self._bits(tensor, partial), 8) for tensor, array in parts))

    def count_bytes(self, tag: str, num_bytes: int) -> None:
        """One message of so many bytes."""
        if num_bytes:
            self.by_tag.setdefault(tag, TagTraffic()).add(num_bytes, 0)

    def in_order(self) -> dict[str, TagTraffic]:
        """Only the tags that were used, in the order of the contract."""
        return {tag: self.by_tag[tag] for tag in TAGS if tag in self.by_tag}

    def _bits(self, tensor: Tensor, partial: bool) -> int:
        if tensor.element is Element.STATISTIC:
            return _STATISTIC_BITS
        if tensor.element is Element.CANDIDATE:
            return _CANDIDATE_BITS
        partial = partial or tensor.element is Element.TERM
        return self.dtypes.partial.bits if partial else self.dtypes.activation.bits
