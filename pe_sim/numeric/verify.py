"""The proof: an execution of a placed graph against the unsharded reference, and its traffic against the timed one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pe_sim.config.model import ModelConfig
from pe_sim.mapping.placed import PlacedGraph
from pe_sim.numeric.arrays import Array, PlacementError
from pe_sim.numeric.executor import execute_placed
from pe_sim.numeric.reference import SequenceReference, run_reference
from pe_sim.numeric.results import Execution, Observation
from pe_sim.numeric.state_dict import Source, read_weights
from pe_sim.numeric.tokens import read_token_types, read_tokens
from pe_sim.numeric.weights import ModelWeights
from pe_sim.trace import TagTraffic

TOLERANCE = 1e-4  # of the largest element of the reference, or of 1 where that is smaller


@dataclass(frozen=True, slots=True)
class Departure:
    """Where an execution leaves the reference.

    Args:
        layer: None outside the layers.
        node: the operator, or the move, that gave the first wrong tensor.
        tensor: its name.
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
        tolerance: what it may be.
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
        """Whether the numbers are right."""
        exact = self.fault is None and self.departure is None and self.tokens_agree
        return exact and self.max_error <= self.tolerance

    @property
    def holds(self) -> bool:
        """Whether the numbers are right and the traffic is what was timed."""
        return self.computes_the_model and not self.traffic_differences

    @property
    def closeness(self) -> str:
        """How far the results are from the reference, in words that do not tell what rounding alone makes of them."""
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
    """Executes a placed graph and compares every tensor with the unsharded reference.

    Args:
        placed, model, weights, tokens, dtype, token_types: as for `execute_placed`.
        traffic: of the timed step (`Trace.traffic`), to be compared with what was really moved.
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
    """The first value in program order that differs from the reference; what the reference lacks is skipped."""
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
    """A line for each tag whose messages or bytes differ; busy cycles are the engine's alone."""
    for tag in sorted({*moved, *timed}):
        ours, theirs = moved.get(tag, TagTraffic()), timed.get(tag, TagTraffic())
        if (ours.messages, ours.bytes) != (theirs.messages, theirs.bytes):
            yield (
                f"{tag}: {ours.messages:,} messages of {ours.bytes:,} bytes were moved, "
                f"{theirs.messages:,} of {theirs.bytes:,} were timed"
            )


def relative_error(given: Array, expected: Array) -> float:
    """Largest difference over the largest finite element expected (at least 1); two NaN are alike."""
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
    """Of all sequences together."""
    errors = []
    for sequence, (reference, count) in enumerate(zip(references, done.row_counts, strict=True)):
        errors.append(relative_error(done.logits[sequence, :count], _expected(reference, count)))
        if done.pooled is not None and reference.pooled is not None:
            errors.append(relative_error(done.pooled[sequence], reference.pooled))
    return max(errors)


def _expected(reference: SequenceReference, count: int) -> Array:
    """The rows of the reference that the step computes: its last ones."""
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
