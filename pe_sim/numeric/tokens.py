"""Checks of token ids: takes those that the user gave, gives one integer array per sequence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pe_sim.config.models.model import ModelConfig
from pe_sim.errors import InputError
from pe_sim.graph.operators import AttentionShape
from pe_sim.units import IntArray


def read_tokens(given: Any, model: ModelConfig, shape: AttentionShape) -> list[IntArray]:
    """(context + new,) token ids of every sequence.

    Args:
        given: (batch, context + new) ids, or one list per sequence; a single sequence may come alone.

    Raises:
        InputError: not integers, not as many as the step has, out of the vocabulary, or past the last position.
    """
    lengths = _lengths(shape)
    for sequence, length in enumerate(lengths):
        if length > model.max_position_embeddings:
            raise InputError(
                f"sequence {sequence} has {length:,} tokens",
                path="tokens",
                expected=f"at most the {model.max_position_embeddings:,} positions of {model.name}",
            )
    return _read_ids("tokens", given, lengths, model.vocab_size, f"the vocabulary of {model.name}")


def read_token_types(given: Any, model: ModelConfig, shape: AttentionShape) -> list[IntArray] | None:
    """(tokens,) type ids of every sequence, None where none are given.

    Raises:
        InputError: as for tokens, or the model has no token types.
    """
    if given is None:
        return None
    if not model.type_vocab_size:
        raise InputError(f"{model.name} ({model.family}) has no token types", path="token_types")
    return _read_ids("token_types", given, _lengths(shape), model.type_vocab_size, f"the token types of {model.name}")


def _lengths(shape: AttentionShape) -> list[int]:
    return [new + context for new, context in zip(shape.new_lens, shape.context_lens, strict=True)]


def _read_ids(path: str, given: Any, lengths: Sequence[int], limit: int, table: str) -> list[IntArray]:
    rows = _split(path, given, lengths)
    result = []
    for sequence, (row, length) in enumerate(zip(rows, lengths, strict=True)):
        where = f"{path}[{sequence}]"
        ids = _integers(where, row)
        if ids.shape != (length,):
            expected = f"({length},): the context and the new tokens of the step"
            raise InputError("these are not the step's tokens", path=where, given=ids.shape, expected=expected)
        outside = ids[(ids < 0) | (ids >= limit)]
        if len(outside):
            expected = f"0 to {limit - 1}, {table}"
            raise InputError("an id is out of range", path=where, given=int(outside[0]), expected=expected)
        result.append(ids.astype(np.int64))
    return result


def _split(path: str, given: Any, lengths: Sequence[int]) -> list[Any]:
    """The ids as they were given, one entry per sequence."""
    expected = f"one row of ids for each of the {len(lengths)} sequences of the step"
    if isinstance(given, str | bytes) or not hasattr(given, "__len__"):
        raise InputError("these are no token ids", path=path, given=type(given).__name__, expected=expected)
    rows = list(given)
    if len(lengths) == 1 and rows and np.ndim(rows[0]) == 0:
        return [rows]
    if len(rows) != len(lengths):
        problem = f"{len(rows)} sequences are given, the step has {len(lengths)}"
        raise InputError(problem, path=path, given=getattr(given, "shape", None) or len(rows), expected=expected)
    return rows


def _integers(path: str, row: Any) -> IntArray:
    try:
        ids = np.asarray(row)
    except (TypeError, ValueError):
        ids = np.asarray(None)
    if ids.dtype.kind not in "iu":
        raise InputError("token ids are whole numbers", path=path, given=str(ids.dtype), expected="integers")
    return ids
