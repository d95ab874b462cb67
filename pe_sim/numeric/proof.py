"""The proof of a workflow: which steps are run, on which tokens, and what came out of them all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pe_sim.config.array import ArrayConfig
from pe_sim.config.model import ModelConfig
from pe_sim.config.step import Decode, Prefill, Step
from pe_sim.errors import DOES_NOT_FIT, InfeasibleError
from pe_sim.mapping.footprint import footprint
from pe_sim.mapping.placed import PlacedGraph
from pe_sim.mapping.workflow import Workflow
from pe_sim.notebook import Table, card
from pe_sim.numeric.scaled_down import scaled_down
from pe_sim.numeric.state_dict import Source, random_weights, read_weights
from pe_sim.numeric.verify import Verdict, verify_placed
from pe_sim.trace import TagTraffic

_LENGTHS = (5, 1, 3, 4, 2)  # ragged on purpose


@dataclass(frozen=True, slots=True, repr=False)
class Proof:
    """One verdict a step.

    Args:
        model: that was executed, scaled down or not.
        array, num_pes, workflow: what it was executed on.
        verdicts: by a description of the step.
        shortage: what of the executed steps does not fit the memories; numbers are proven all the same.
    """

    model: ModelConfig
    array: str
    num_pes: int
    workflow: str
    verdicts: Mapping[str, Verdict]
    shortage: InfeasibleError | None = None

    @property
    def holds(self) -> bool:
        """Whether every step gave the model's numbers and the simulated traffic."""
        return all(verdict.holds for verdict in self.verdicts.values())

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "schema": "pe-sim.proof/1",
            "holds": self.holds,
            "model": self.model.to_dict(),
            "array": self.array,
            "num_pes": self.num_pes,
            "workflow": self.workflow,
            **({"does_not_fit": self.shortage.to_dict()} if self.shortage else {}),
            "steps": {name: _verdict_to_dict(verdict) for name, verdict in self.verdicts.items()},
        }

    def __repr__(self) -> str:
        """One line."""
        how = "proven" if self.holds else "NOT proven"
        fit = f", {DOES_NOT_FIT}" if self.shortage else ""
        return f"<Proof {self.workflow} on {self.array} ({self.num_pes} PEs), {self.model.name}: {how}{fit}>"

    def _repr_html_(self) -> str:
        """What a notebook shows: a row for each step."""
        sizes = f"{self.model.num_layers} layers, hidden {self.model.hidden_size}, {self.model.num_heads} heads"
        facts = [
            ("model", f"{self.model.name} ({sizes})"),
            ("array", f"{self.array} ({self.num_pes:,} PEs)"),
            ("workflow", self.workflow),
        ]
        heads = ("step", "verdict", "traffic", "results")
        rows = [(name, *_verdict_cells(verdict)) for name, verdict in self.verdicts.items()]
        notes = [f"{name}: {verdict}" for name, verdict in self.verdicts.items() if not verdict.holds]
        notes += [f"{DOES_NOT_FIT}: {self.shortage.problem}"] if self.shortage else []
        notes += self.model.notes
        return card("proven" if self.holds else "NOT proven", facts, [Table(heads, rows, text_columns=4)], notes)

    def __str__(self) -> str:
        sizes = f"{self.model.num_layers} layers, hidden {self.model.hidden_size}, {self.model.num_heads} heads"
        lines = [f"{self.workflow} on {self.array} ({self.num_pes} PEs), {self.model.name} ({sizes}):"]
        for name, verdict in self.verdicts.items():
            first, *rest = str(verdict).splitlines()
            lines += [f"{name}: {first}", *rest]
        lines += [f"{DOES_NOT_FIT}: {self.shortage.problem}"] if self.shortage else []
        lines += [f"note: {note}" for note in self.model.notes]
        lines.append("proven" if self.holds else "NOT proven")
        return "\n".join(lines)


def prove(
    model: ModelConfig,
    array: ArrayConfig,
    workflow: Workflow,
    plan: Callable[[ModelConfig, Step], tuple[PlacedGraph, Mapping[str, TagTraffic]]],
    *,
    weights: Source | None,
    seed: int,
) -> Proof:
    """Executes every proof step and compares it with the reference.

    Args:
        plan: places a step of a model and times its traffic.
        weights: of `model`; None: a scaled-down random model of its family is taken instead.

    Raises:
        InputError: the weights do not fit the model.
    """
    if weights is None:
        model = scaled_down(model, array.num_pes, num_layers=workflow.num_layers)
        weights = random_weights(model, seed)
    read = read_weights(model, weights)
    verdicts: dict[str, Verdict] = {}
    shortage = None
    for step in proof_steps(model, workflow.groups):
        placed, timed = plan(model, step)
        shortage = shortage or footprint(placed, placed.graph.shape).shortage
        tokens = random_tokens(model, step, seed)
        verdicts[describe_step(step)] = verify_placed(placed, model, read, tokens, traffic=timed)
    return Proof(model, array.name, array.num_pes, workflow.name, verdicts, shortage)


def proof_steps(model: ModelConfig, num_groups: int) -> Iterator[Step]:
    """Steps that exercise a workflow: more sequences than groups, ragged, with and without a cache."""
    count = num_groups + 2
    lengths = [_LENGTHS[index % len(_LENGTHS)] for index in range(count)]
    room = model.max_position_embeddings
    yield Prefill(prompt_len=[min(length, room) for length in lengths], logits="all")
    if model.has_lm_head:
        yield Decode(context_len=[min(length * 3, room - 1) for length in lengths])
        yield Decode(context_len=min(11, room - 1))
    if model.has_kv_cache:
        yield Prefill(prompt_len=min(3, room), context_len=min(4, room - 3), causal="full")


def random_tokens(model: ModelConfig, step: Step, seed: int) -> list[list[int]]:
    """Ids for every sequence, the cached ones first."""
    generator = np.random.default_rng(seed)
    return [generator.integers(0, model.vocab_size, span.total_len).tolist() for span in step.sequences]


def describe_step(step: Step) -> str:
    """A step in a few words: prefill of 5, 1, 3 tokens over 0 cached."""
    new = ", ".join(str(length) for length in dict.fromkeys(span.new_len for span in step.sequences))
    cached = ", ".join(str(length) for length in dict.fromkeys(span.context_len for span in step.sequences))
    return f"{step.phase}, batch {step.batch_size}: {new} new over {cached} cached tokens"


def _verdict_cells(verdict: Verdict) -> tuple[str, str, str]:
    """Verdict, traffic and results."""
    compared = verdict.traffic_differences is not None
    traffic = ("differs" if verdict.traffic_differences else "as simulated") if compared else "not compared"
    return "holds" if verdict.holds else "does not hold", traffic, verdict.closeness if verdict.fault is None else "-"


def _verdict_to_dict(verdict: Verdict) -> dict[str, Any]:
    return {
        "holds": verdict.holds,
        "max_error": None if np.isnan(verdict.max_error) else verdict.max_error,
        "tolerance": verdict.tolerance,
        "first_departure": None if verdict.departure is None else str(verdict.departure),
        "traffic_differences": list(verdict.traffic_differences or ()),
        "fault": verdict.fault,
    }
