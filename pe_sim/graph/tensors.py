"""Tensors with named dims: every tensor of a step is a set of rows times one feature dim."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Rows(StrEnum):
    """Which rows of the step a tensor has."""

    ALL = "all"  # every new row of every sequence
    SELECTED = "selected"  # the rows the epilogue works on: those that logits are computed for


class Element(StrEnum):
    """What one element is, which decides its bytes on the wire."""

    ACTIVATION = "activation"
    STATISTIC = "statistic"  # fp32 scalar of a norm
    CANDIDATE = "candidate"  # (fp32 value, int32 index) of an argmax
    TERM = "term"  # of a sum over several arrays: in the partial dtype wherever it goes


@dataclass(frozen=True, slots=True)
class Tensor:
    """A (rows, size) tensor.

    Args:
        name: unique inside a block of operators.
        dim: name of the feature dim: hidden, query, kv, ffn, vocab, score, softmax_partial or scalar.
        size: elements of one row along `dim`; 0 for score, whose length depends on the row.
        rows: which rows of the step it has.
        element: what one element is.
    """

    name: str
    dim: str
    size: int
    rows: Rows = Rows.ALL
    element: Element = Element.ACTIVATION
