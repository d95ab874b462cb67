"""What a whole generation took, and the switch between its mappings; what one collective or GEMM alone takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pe_sim.errors import DOES_NOT_FIT, InfeasibleError
from pe_sim.mapping.workflow import Workflow
from pe_sim.notebook import card, number_text, traffic_table
from pe_sim.report.report import Report
from pe_sim.trace import TagTraffic, traffic_to_dict
from pe_sim.units import format_seconds

if TYPE_CHECKING:
    from pe_sim.report.analysis.envelope import Envelope


# ---- What a switch between two mappings takes, where prefill and decode of a generation are mapped differently.


@dataclass(frozen=True, slots=True)
class Switch:
    """A switch from one mapping to another, between the prefill and the first decode step.

    Args:
        source, target: names of the two workflows.
        weights: `kept` (no PE lacks any), `reshard` (moved) or `both` (kept in both layouts, nothing moves).
        kv_cache: `kept` or `relaid`.
        sender: who sends the weights: `PEs`, `root`, both, or empty where nothing has to be sent.
        cycles: from the end of the prefill until every PE has what the target wants.
        weight_bytes, kv_bytes: bytes sent over the bus.
        held_twice_bytes: bytes of weights that are kept in both layouts, over all PEs.
        peak_bytes_per_pe: the fullest PE's bytes at any time from the prefill's end to the last decode step.
        back_cycles: cycles to move the weights back from target to source, for the next generation's prefill.
        traffic: messages, bytes and busy cycles by tag.
        shortage: what does not fit the PEs' memories in that time, where `allow_overflow` let it pass.
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
        """Number of messages of all tags."""
        return sum(use.messages for use in self.traffic.values())

    def to_dict(self) -> dict[str, Any]:
        """The switch as a JSON-ready dict."""
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


SCHEMA = "pe-sim.generation/1"


@dataclass(frozen=True, slots=True, repr=False)
class Generation:
    """The times of a generation of `output_len` tokens for each of `batch_size` sequences.

    Args:
        prefill: the report of the prefill, which gives the first token.
        decode_cycles: cycles of each decode step, in order; step i attends to prompt_len + i + 1 tokens.
        traffic: messages, bytes and busy cycles by tag, over all steps and the switch.
        decode_workflow: the workflow of the decode steps; None: the prefill's.
        switch: the switch from the prefill's mapping to that of the decode steps, if they differ. The first token is
            there before it begins, so it counts in the total and in TPOT, not in TTFT.
        shortage: what does not fit the memories, where `allow_overflow` let it pass.
    """

    prefill: Report
    prompt_len: int
    output_len: int
    batch_size: int
    decode_cycles: tuple[int, ...]
    traffic: Mapping[str, TagTraffic]
    decode_workflow: Workflow | None = None
    switch: Switch | None = None
    shortage: InfeasibleError | None = None

    @property
    def switch_cycles(self) -> int:
        """Cycles of the switch between the prefill and the first decode step; 0 without a switch."""
        return self.switch.cycles if self.switch else 0

    @property
    def ttft_cycles(self) -> int:
        """Time to first token (TTFT) in cycles."""
        return self.prefill.latency_cycles

    @property
    def tpot_cycles(self) -> float:
        """Mean cycles per output token after the first (TPOT), the switch included; 0 if there is only one."""
        if not self.decode_cycles:
            return 0.0
        return (self.switch_cycles + sum(self.decode_cycles)) / len(self.decode_cycles)

    @property
    def total_cycles(self) -> int:
        """Cycles from the start of the prefill to the last token."""
        return self.ttft_cycles + self.switch_cycles + sum(self.decode_cycles)

    @property
    def ttft_seconds(self) -> float:
        """Time to first token (TTFT) in seconds."""
        return self._seconds(self.ttft_cycles)

    @property
    def tpot_seconds(self) -> float:
        """Mean seconds per output token after the first (TPOT), the switch included."""
        return self._seconds(self.tpot_cycles)

    @property
    def total_seconds(self) -> float:
        """Seconds of the whole generation."""
        return self._seconds(self.total_cycles)

    @property
    def tokens_per_second(self) -> float:
        """Output tokens of all sequences over the seconds of the whole generation."""
        return self.batch_size * self.output_len / self.total_seconds

    @property
    def envelope(self) -> Envelope:
        """How far the cycles are to be trusted: the widest envelope of its steps."""
        from pe_sim.report.analysis.envelope import Envelope, step_envelope, widest

        first = self.prefill
        decode = step_envelope(first.model, "decode", self.batch_size, first.array, self._decoding)
        envelopes = (first.envelope, decode) if self.decode_cycles else (first.envelope,)
        switch = (Envelope("outside", None, ("a switch of mappings (compared: none)",)),) if self.switch else ()
        return widest((*envelopes, *switch))

    def to_dict(self) -> dict[str, Any]:
        """The generation as a JSON-ready dict."""
        return {
            "schema": SCHEMA,
            "model": self.prefill.model.name,
            "array": self.prefill.array.name,
            "workflow": self.prefill.workflow.name,
            "prompt_len": self.prompt_len,
            "output_len": self.output_len,
            "batch_size": self.batch_size,
            **({"does_not_fit": self.shortage.to_dict()} if self.shortage else {}),
            "ttft": {"cycles": self.ttft_cycles, "seconds": self.ttft_seconds},
            "tpot": {"cycles": self.tpot_cycles, "seconds": self.tpot_seconds},
            "total": {"cycles": self.total_cycles, "seconds": self.total_seconds},
            **self._switch_to_dict(),
            "tokens_per_second": self.tokens_per_second,
            "accuracy": self.envelope.to_dict(),
            "notes": list(self.prefill.model.notes),
            "decode_cycles": list(self.decode_cycles),
            "traffic": traffic_to_dict(self.traffic),
        }

    def __str__(self) -> str:
        workflow, between = self.prefill.workflow.name, ""
        if self.switch:
            workflow = f"{workflow} then {self._decoding.name}"
            seconds = format_seconds(self._seconds(self.switch_cycles))
            between = f"switch {seconds} (in TPOT and total; weights {self.switch.weights}, "
            between += f"KV cache {self.switch.kv_cache}), "
        return (
            f"{self.prefill.model.name} on {self.prefill.array.name}, {workflow}: "
            f"{self.batch_size} x ({self.prompt_len} + {self.output_len}) tokens, "
            f"TTFT {format_seconds(self.ttft_seconds)}, {between}TPOT {format_seconds(self.tpot_seconds)}, "
            f"total {format_seconds(self.total_seconds)}, {self.tokens_per_second:.1f} tokens/s"
            f"{f'; {DOES_NOT_FIT}: {self.shortage.problem}' if self.shortage else ''}"
        )

    def __repr__(self) -> str:
        """One line with the times and rates of the generation."""
        return f"<Generation {self}>"

    def _repr_html_(self) -> str:
        """HTML for a notebook: the times, and the traffic of all steps together."""
        times = {"TTFT": self.ttft_cycles, "switch": self.switch_cycles, "TPOT": self.tpot_cycles}
        facts = [
            (name, f"{format_seconds(self._seconds(cycles))} ({cycles:,.0f} cycles)")
            for name, cycles in {**times, "total": self.total_cycles}.items()
            if name != "switch" or self.switch
        ]
        first = self.prefill
        workflow = f"{first.workflow.name} then {self._decoding.name}" if self.switch else first.workflow.name
        sizes = f"{self.batch_size} x ({self.prompt_len:,} + {self.output_len:,}) tokens"
        title = f"{first.model.name} on {first.array.name} ({first.array.num_pes:,} PEs), {workflow}: {sizes}"
        facts += [("throughput", f"{self.tokens_per_second:,.2f} tokens/s"), ("accuracy", self.envelope.one_line())]
        facts += [(DOES_NOT_FIT, self.shortage.problem)] if self.shortage else []
        return card(title, facts, [traffic_table(self.traffic)], [f"note: {note}" for note in first.model.notes])

    @property
    def _decoding(self) -> Workflow:
        return self.decode_workflow or self.prefill.workflow

    def _switch_to_dict(self) -> dict[str, Any]:
        """The report's entries on the decode workflow and the switch; empty without a switch."""
        if self.switch is None:
            return {}
        seconds, counted_in = self._seconds(self.switch_cycles), ["tpot", "total"]
        switch = {**self.switch.to_dict(), "seconds": seconds, "counted_in": counted_in}
        return {"decode_workflow": self._decoding.name, "switch": switch}

    def _seconds(self, cycles: float) -> float:
        return cycles / (self.prefill.array.clock_ghz * 1e9)


# ---- What one collective or one GEMM alone takes.


@dataclass(frozen=True, slots=True)
class PartResult:
    """The cycles and traffic of one collective or one GEMM alone on an array.

    Args:
        cycles: from everything ready at 0 to the last event.
        traffic: messages, bytes and busy cycles by tag.
        algorithm: name of the algorithm that was chosen.
        assumed: array, sizes and settings that the figures rest on, JSON-ready.
        judge: a function that gives the envelope.
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
        """HTML for a notebook: cycles, algorithm and traffic."""
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
        """The result as a JSON-ready dict."""
        return {
            "cycles": self.cycles,
            "traffic": traffic_to_dict(self.traffic),
            "algorithm": self.algorithm,
            "accuracy": self.envelope.to_dict(),
            "assumed": dict(self.assumed),
        }
