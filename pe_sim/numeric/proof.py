"""The proof of a workflow: steps of a small model executed against the unsharded reference, traffic included."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pe_sim.config.arrays.array import ArrayConfig
from pe_sim.config.models.model import ModelConfig
from pe_sim.config.step import Decode, Prefill, Step
from pe_sim.errors import DOES_NOT_FIT, InfeasibleError
from pe_sim.mapping.footprint import footprint
from pe_sim.mapping.placed import PlacedGraph
from pe_sim.mapping.workflow import Workflow
from pe_sim.notebook import Table, card
from pe_sim.numeric.arrays import Array, PlacementError
from pe_sim.numeric.executor import execute_placed
from pe_sim.numeric.reference import SequenceReference, run_reference
from pe_sim.numeric.results import Execution, Observation
from pe_sim.numeric.state_dict import Source, random_weights, read_weights
from pe_sim.numeric.tokens import read_token_types, read_tokens
from pe_sim.numeric.weights import ModelWeights
from pe_sim.trace import TagTraffic

# ---- Verdicts: an execution of a placed graph against the unsharded reference, and its traffic against the timed one.


TOLERANCE = 1e-4  # relative to the largest element of the reference, or to 1 where that is smaller


@dataclass(frozen=True, slots=True)
class Departure:
    """The first tensor of an execution that differs from the reference.

    Args:
        layer: None outside the layers.
        node: the operator, or the move, that gave the first wrong tensor.
        tensor: the tensor's name.
        error: largest difference, relative to the largest element of the reference.
    """

    layer: int | None
    node: str
    tensor: str
    error: float

    def __str__(self) -> str:
        where = self.node if self.layer is None else f"layers.{self.layer}.{self.node}"
        return f"{where} departs first: its {self.tensor} is off by {self.error:.2g}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of a proof.

    Args:
        max_error: largest difference of the results (logits, or an encoder's hidden state and pooled output),
            relative to the largest element of the reference; not a number where the execution broke off.
        tolerance: upper bound of `max_error`.
        tokens_agree: whether the greedy choices are those of the reference, up to the tolerance.
        departure: the first tensor that differs, None if none does.
        traffic_differences: a line for each tag whose counts differ from the timed ones; None if not compared.
        fault: why the placed graph could not be executed, None if it could.
    """

    max_error: float
    tolerance: float
    tokens_agree: bool
    departure: Departure | None
    traffic_differences: tuple[str, ...] | None
    fault: str | None = None

    @property
    def computes_the_model(self) -> bool:
        """Whether the numbers are those of the model."""
        exact = self.fault is None and self.departure is None and self.tokens_agree
        return exact and self.max_error <= self.tolerance

    @property
    def holds(self) -> bool:
        """Whether the numbers are those of the model, and the traffic is that of the timed step, if compared."""
        return self.computes_the_model and not self.traffic_differences

    @property
    def closeness(self) -> str:
        """Text on how far the results are from the reference; all errors within the tolerance read alike."""
        if self.max_error <= self.tolerance:
            return f"within {self.tolerance:g} of the largest element"
        return f"off by {self.max_error:.2g} of the largest element (> {self.tolerance:g})"

    def __str__(self) -> str:
        return "\n".join(("holds" if self.holds else "does not hold", *(f"  {line}" for line in self._lines())))

    def _lines(self) -> Iterable[str]:
        if self.fault is not None:
            yield f"the placed graph cannot be executed: {self.fault}"
            return
        yield f"results: {self.closeness}"
        if self.departure is not None:
            yield str(self.departure)
        if not self.tokens_agree:
            yield "greedy tokens: not those of the reference"
        if self.traffic_differences is None:
            yield "traffic: not compared"
        elif not self.traffic_differences:
            yield "traffic: equal to the timed one, message for message and byte for byte"
        else:
            yield from self.traffic_differences


def verify_placed(
    placed: PlacedGraph,
    model: ModelConfig,
    weights: ModelWeights | Source,
    tokens: Any,
    *,
    traffic: Mapping[str, TagTraffic] | None = None,
    tolerance: float = TOLERANCE,
    dtype: str = "float32",
    token_types: Any = None,
) -> Verdict:
    """The verdict on a placed graph, which is executed, and of which every tensor is compared with the reference.

    Args:
        placed, model, weights, tokens, dtype, token_types: as for `execute_placed`.
        traffic: traffic of the timed step (`Trace.traffic`), to be compared with that of the execution.
        tolerance: largest difference allowed, relative to the largest element of each tensor (at least 1).

    Raises:
        InputError: weights or tokens do not fit the model or the step.
    """
    read = weights if isinstance(weights, ModelWeights) else read_weights(model, weights, dtype)
    shape = placed.graph.shape
    ids, types = read_tokens(tokens, model, shape), read_token_types(token_types, model, shape)
    try:
        done = execute_placed(placed, model, read, ids, dtype=dtype, token_types=types, observe=True)
    except PlacementError as error:
        return Verdict(float("nan"), tolerance, False, None, None, fault=str(error))
    references = run_reference(model, read, ids, types)
    departure = first_departure(placed, done.observations, references, tolerance)
    return verdict_of(done, references, traffic=traffic, tolerance=tolerance, departure=departure)


def verdict_of(
    done: Execution,
    references: list[SequenceReference],
    *,
    traffic: Mapping[str, TagTraffic] | None = None,
    tolerance: float = TOLERANCE,
    departure: Departure | None = None,
) -> Verdict:
    """The verdict on the results of an execution, and on its traffic where the timed one is given.

    Args:
        departure: the first tensor on the way that differs, where that was looked for.
    """
    return Verdict(
        max_error=_result_error(done, references),
        tolerance=tolerance,
        tokens_agree=_tokens_agree(done, references, tolerance),
        departure=departure,
        traffic_differences=None if traffic is None else tuple(traffic_differences(done.traffic, traffic)),
    )


def first_departure(
    placed: PlacedGraph,
    observations: Iterable[Observation],
    references: list[SequenceReference],
    tolerance: float = TOLERANCE,
) -> Departure | None:
    """The first value in program order that differs from the reference; values that the reference lacks are skipped."""
    for seen in observations:
        key = (seen.tensor_layer, seen.tensor.name)
        for sequence, rows in seen.per_sequence:
            whole = references[sequence].results.get(key)
            if whole is None:
                continue
            error = relative_error(rows, whole[seen.positions(sequence, placed.graph.select)])
            if not error <= tolerance:
                return Departure(seen.layer, seen.node, seen.tensor.name, error)
    return None


def traffic_differences(moved: Mapping[str, TagTraffic], timed: Mapping[str, TagTraffic]) -> Iterable[str]:
    """A line for each tag whose messages or bytes differ; busy cycles, which only an engine knows, are not compared."""
    for tag in sorted({*moved, *timed}):
        ours, theirs = moved.get(tag, TagTraffic()), timed.get(tag, TagTraffic())
        if (ours.messages, ours.bytes) != (theirs.messages, theirs.bytes):
            yield (
                f"{tag}: {ours.messages:,} messages of {ours.bytes:,} bytes were moved, "
                f"{theirs.messages:,} of {theirs.bytes:,} were timed"
            )


def relative_error(given: Array, expected: Array) -> float:
    """Largest difference, divided by the largest finite element expected (at least 1); two NaN are equal."""
    if given.shape != expected.shape:
        return float("inf")
    if not expected.size:
        return 0.0
    same = (given == expected) | (np.isnan(given) & np.isnan(expected))
    with np.errstate(invalid="ignore"):
        differences = np.where(same, 0, np.abs(given - expected))
    scale = max(1.0, float(np.abs(expected[np.isfinite(expected)]).max(initial=0.0)))
    error = float(differences.max()) / scale
    return error if np.isfinite(error) else float("inf")


def _result_error(done: Execution, references: list[SequenceReference]) -> float:
    """Largest relative error of the results over all sequences."""
    errors = []
    for sequence, (reference, count) in enumerate(zip(references, done.row_counts, strict=True)):
        errors.append(relative_error(done.logits[sequence, :count], _expected(reference, count)))
        if done.pooled is not None and reference.pooled is not None:
            errors.append(relative_error(done.pooled[sequence], reference.pooled))
    return max(errors)


def _expected(reference: SequenceReference, count: int) -> Array:
    """The rows of the reference that the step computes, which are the last ones."""
    return reference.output[len(reference.output) - count :]


def _tokens_agree(done: Execution, references: list[SequenceReference], tolerance: float) -> bool:
    """Whether each choice has the highest logit of the reference, or one that cannot be told from it."""
    if done.best_tokens is None:
        return True
    for chosen, reference, count in zip(done.best_tokens, references, done.row_counts, strict=True):
        logits = _expected(reference, count)
        if ((chosen[:count] < 0) | (chosen[:count] >= logits.shape[1])).any():
            return False
        reached = logits[np.arange(count), chosen[:count]]
        margin = tolerance * np.maximum(1, np.abs(logits).max(axis=1))
        if (reached < logits.max(axis=1) - margin).any():
            return False
    return True


_LENGTHS = (5, 1, 3, 4, 2)  # ragged on purpose


@dataclass(frozen=True, slots=True, repr=False)
class Proof:
    """The proof of a workflow: one verdict for each executed step.

    Args:
        model: the model that was executed, scaled down or not.
        array, num_pes, workflow: names of array and workflow, and PEs of the array.
        verdicts: by a description of the step.
        shortage: the first shortage of memory in the executed steps; numbers are proven all the same.
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
        """The proof as a JSON-ready dict."""
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
        """The outcome in one line."""
        how = "proven" if self.holds else "NOT proven"
        fit = f", {DOES_NOT_FIT}" if self.shortage else ""
        return f"<Proof {self.workflow} on {self.array} ({self.num_pes} PEs), {self.model.name}: {how}{fit}>"

    def _repr_html_(self) -> str:
        """HTML for notebooks: a table with a row for each step."""
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
    """The proof of a workflow: every proof step is executed and compared with the reference.

    Args:
        plan: places a step of a model and times its traffic.
        weights: weights of `model`; None: a scaled-down random model of its family is taken instead.

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


def proof_steps(model: ModelConfig, shares: int, least: int = 1) -> Iterator[Step]:
    """Steps that exercise a mapping: more sequences than shares of the batch, ragged, with and without a cache.

    Args:
        shares: groups of PEs in all arrays and parts, each of which has sequences of its own.
        least: sequences of the steps with the fewest.
    """
    lengths = [_LENGTHS[index % len(_LENGTHS)] for index in range(shares + 2)]
    room = model.max_position_embeddings
    yield Prefill(prompt_len=[min(length, room) for length in lengths], logits="all")
    if model.has_lm_head:
        yield Decode(context_len=[min(length * 3, room - 1) for length in lengths])
        yield Decode(least, min(11, room - 1))
    if model.has_kv_cache:
        yield Prefill(least, prompt_len=min(3, room), context_len=min(4, room - 3), causal="full")


def random_tokens(model: ModelConfig, step: Step, seed: int) -> list[list[int]]:
    """Random token ids for every sequence, the cached ones first."""
    generator = np.random.default_rng(seed)
    return [generator.integers(0, model.vocab_size, span.total_len).tolist() for span in step.sequences]


def describe_step(step: Step) -> str:
    """A step in a few words: prefill of 5, 1, 3 tokens over 0 cached."""
    new = ", ".join(str(length) for length in dict.fromkeys(span.new_len for span in step.sequences))
    cached = ", ".join(str(length) for length in dict.fromkeys(span.context_len for span in step.sequences))
    return f"{step.phase}, batch {step.batch_size}: {new} new over {cached} cached tokens"


def _verdict_cells(verdict: Verdict) -> tuple[str, str, str]:
    """The cells of a step in the table: verdict, traffic and results."""
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


# ---- Small models with the structure of large ones, which are quick to compute.


_MOST_KV_HEADS = 4
_MOST_HEADS_PER_KV_HEAD = 4
_MOST_HEADS = 8
_MOST_HEAD_DIM = 8
_MOST_LAYERS = 4
_MOST_ROWS_OF_TABLES = 128
_MOST_FFN = 512


def scaled_down(model: ModelConfig, num_pes: int, *, num_layers: int | None = None) -> ModelConfig:
    """A small model with the structure of `model`: its family, biases, activation, rotary scaling and head sharing.

    Args:
        num_pes: PEs of the array; the FFN and the vocabulary get uneven shards on it, and, up to a bound, every PE gets
            a share.
        num_layers: layers instead of at most four, for workflows that were written for a number of layers.
    """
    num_kv_heads, heads_per_kv_head = _heads(model)
    head_dim = min(model.head_dim, _MOST_HEAD_DIM)
    num_heads = num_kv_heads * heads_per_kv_head
    hidden_size = num_heads * head_dim
    if model.q_size != model.hidden_size:  # a head_dim of its own: the ratio shows up in the shapes of q and o
        hidden_size += head_dim
    share = max(num_pes, hidden_size)
    return replace(
        model,
        name=f"{model.name}, scaled down",
        num_layers=num_layers or min(model.num_layers, _MOST_LAYERS),
        hidden_size=hidden_size,
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        ffn_size=min(share + share // 2 + 1, _MOST_FFN),
        vocab_size=min(share + 3, _MOST_ROWS_OF_TABLES, model.vocab_size),
        max_position_embeddings=min(model.max_position_embeddings, _MOST_ROWS_OF_TABLES),
    )


def _heads(model: ModelConfig) -> tuple[int, int]:
    """Numbers of KV heads, and of query heads to each, of the small model; where one of them is 1 it stays 1."""
    num_kv_heads = min(model.num_kv_heads, _MOST_KV_HEADS)
    if model.heads_per_kv_head > 1 and model.num_kv_heads > 1:
        num_kv_heads = min(num_kv_heads, _MOST_HEADS // 2)
    limit = min(_MOST_HEADS_PER_KV_HEAD, max(_MOST_HEADS // num_kv_heads, 1))
    return num_kv_heads, min(model.heads_per_kv_head, limit)
