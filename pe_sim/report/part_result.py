"""What one collective or one GEMM alone takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pe_sim.notebook import card, number_text, traffic_table
from pe_sim.trace import TagTraffic

if TYPE_CHECKING:
    from pe_sim.report.envelope import Envelope


@dataclass(frozen=True, slots=True)
class PartResult:
    """What one collective or one GEMM takes on an array.

    Args:
        cycles: from everything ready at 0 to the last event.
        traffic: messages, bytes and busy cycles by tag.
        algorithm: the way that was chosen.
        assumed: what the figures rest on, JSON-ready.
        judge: gives the envelope.
    """

    cycles: int
    traffic: Mapping[str, TagTraffic]
    algorithm: str
    assumed: Mapping[str, Any]
    judge: Callable[[], Envelope] = field(repr=False, compare=False)

    @property
    def envelope(self) -> Envelope:
        """How far the cycles are to be trusted: what the comparison with the RTL says of results like this."""
        return self.judge()

    def _repr_html_(self) -> str:
        """What a notebook shows: cycles, how, and the traffic."""
        array, sizes = self.assumed["array"], [(k, v) for k, v in self.assumed.items() if k != "array"]
        facts = [
            ("array", f"{array['name']}: {array['num_pes']:,} PEs"),
            ("asked", ", ".join(f"{name.replace('_', ' ')} {number_text(value)}" for name, value in sizes)),
            ("algorithm", self.algorithm),
            ("accuracy", self.envelope.one_line()),
        ]
        used = [traffic_table(self.traffic)] if any(use.messages for use in self.traffic.values()) else []
        return card(f"{self.cycles:,} cycles", facts, used)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        counted = {
            tag: {"messages": use.messages, "bytes": use.bytes, "busy_cycles": use.busy_cycles}
            for tag, use in self.traffic.items()
        }
        return {
            "cycles": self.cycles,
            "traffic": counted,
            "algorithm": self.algorithm,
            "accuracy": self.envelope.to_dict(),
            "assumed": dict(self.assumed),
        }
