"""What a switch between two mappings took: part of a generation whose prefill and decode are mapped differently."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pe_sim.errors import InfeasibleError
from pe_sim.trace import TagTraffic


@dataclass(frozen=True, slots=True)
class Switch:
    """From one mapping to another, between the prefill and the first decode step.

    Args:
        source, target: names of the two workflows.
        weights: `kept` (nobody lacks any), `reshard` (moved) or `both` (kept in both layouts, nothing moves).
        kv_cache: `kept` or `relaid`.
        sender: who sends the weights: `PEs`, `root`, both, or empty where nothing has to be sent.
        cycles: from the end of the prefill until every PE has what the target wants.
        weight_bytes, kv_bytes: over the bus.
        held_twice_bytes: of weights that are kept in both layouts, over all PEs.
        peak_bytes_per_pe: the fullest PE's bytes at any time from the prefill's end to the last decode step.
        back_cycles: weights alone from the target to the source, as the next generation's prefill needs them.
        traffic: messages, bytes and busy cycles by tag.
        shortage: of the PEs' memories at that time, where it was let pass.
    """

    source: str
    target: str
    weights: str
    kv_cache: str
    sender: str
    cycles: int
    weight_bytes: int
    kv_bytes: int
    held_twice_bytes: int
    peak_bytes_per_pe: int
    back_cycles: int
    traffic: Mapping[str, TagTraffic]
    shortage: InfeasibleError | None = None

    @property
    def messages(self) -> int:
        """In all."""
        return sum(use.messages for use in self.traffic.values())

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "from": self.source,
            "to": self.target,
            "weights": self.weights,
            "kv_cache": self.kv_cache,
            "sender": self.sender,
            "cycles": self.cycles,
            "weight_bytes": self.weight_bytes,
            "kv_cache_bytes": self.kv_bytes,
            "messages": self.messages,
            "held_twice_bytes": self.held_twice_bytes,
            "peak_bytes_per_pe": self.peak_bytes_per_pe,
            "back_cycles": self.back_cycles,
        }
