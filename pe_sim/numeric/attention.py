"""Attention on one PE, sequence by sequence, from what that PE holds of queries and cache.

Scores and probabilities of a PE are flat: sequence by sequence the (heads, new rows, held tokens) block, without the
pairs that a causal step skips.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pe_sim.graph.operators import AttentionShape
from pe_sim.mapping.attention_split import AttentionSplit
from pe_sim.numeric.arrays import Array, PlacementError
from pe_sim.units import BoolArray, IntArray


@dataclass(frozen=True, slots=True)
class CacheSlice:
    """One PE's part of a layer's cache: (held tokens, kv heads, dims) a sequence, lower positions first."""

    keys: tuple[Array, ...]
    values: tuple[Array, ...]


@dataclass(frozen=True, slots=True)
class SoftmaxWeights:
    """Softmax of one PE: flat exponentials, (rows, heads) maxima and sums over its tokens; normalised if it has all."""

    flat: Array
    maximum: Array
    total: Array


@dataclass(frozen=True)
class Span:
    """One sequence on one PE: its rows are first_row .. first_row + new_len - 1 of the PE's.

    Args:
        positions: (held tokens,) positions of the tokens that the PE holds after the step.
        computed, visible: (new, held tokens) whether the score of a pair is computed, and whether it counts.
    """

    first_row: int
    new_len: int
    context_len: int
    positions: IntArray
    computed: BoolArray
    visible: BoolArray

    @property
    def rows(self) -> slice:
        """The rows of this sequence among the PE's rows."""
        return slice(self.first_row, self.first_row + self.new_len)

    @property
    def cached(self) -> IntArray:
        """Held positions that were in the cache before the step."""
        return self.positions[self.positions < self.context_len]

    @property
    def appended(self) -> IntArray:
        """New rows of the sequence (0-based) whose K and V the PE keeps."""
        return self.positions[self.positions >= self.context_len] - self.context_len


@dataclass(frozen=True)
class PeAttention:
    """The attention of one PE: its heads, dims, sequences and tokens.

    Args:
        split: the division of attention.
        pe: number of the PE.
        causal: whether later tokens are hidden from a row.
    """

    split: AttentionSplit
    pe: int
    causal: bool

    @property
    def shape(self) -> AttentionShape:
        """The geometry of the block's sequences."""
        return self.split.shape

    @property
    def num_heads(self) -> int:
        """Number of query heads that the PE works on."""
        return int(self.split.q_heads[self.pe])

    @property
    def num_kv_heads(self) -> int:
        """Number of KV heads that the PE holds."""
        return int(self.split.kv_heads[self.pe])

    @property
    def dims(self) -> int:
        """Number of elements of each head that the PE holds."""
        return int(self.split.dims[self.pe])

    @property
    def is_idle(self) -> bool:
        """Whether there is no head, or no dim of it, for this PE."""
        return self.num_heads * self.dims == 0

    @property
    def sequences(self) -> range:
        """The sequences of the block that the PE has a part in."""
        return range(int(self.split.sequence_first[self.pe]), int(self.split.sequence_last[self.pe]))

    @cached_property
    def kv_of_head(self) -> IntArray:
        """(heads,) position of each query head's kv head among those the PE holds."""
        heads = int(self.split.q_first[self.pe]) + np.arange(self.num_heads)
        per_kv = self.shape.num_heads // self.shape.num_kv_heads
        return heads // per_kv - int(self.split.kv_first[self.pe])

    @cached_property
    def spans(self) -> tuple[Span, ...]:
        """The spans of the PE's sequences."""
        spans = []
        first_row = 0
        for sequence in self.sequences:
            lengths = self.shape.new_lens[sequence], self.shape.context_lens[sequence]
            span = self._span(first_row, *lengths, self.shape.offsets[sequence])
            spans.append(span)
            first_row += span.new_len
        return tuple(spans)

    def _span(self, first_row: int, new_len: int, context_len: int, offset: int) -> Span:
        across = self.shape.token_stride
        residue = offset + across * int(self.split.token_residue[self.pe])
        positions = np.arange(residue, context_len + new_len, across * self.split.stride_at(self.pe))
        seen = positions[None, :] <= context_len + np.arange(new_len)[:, None]
        every = np.ones_like(seen)
        computed = seen if self.shape.causal_skip else every
        return Span(first_row, new_len, context_len, positions, computed, seen if self.causal else every)

    # ----------------------------------------------------------------------------------------------------- the cache
    def cached_slice(self, keys: Sequence[Array], values: Sequence[Array], columns: IntArray) -> CacheSlice:
        """The PE's part of whole (context, kv heads * head_dim) keys and values of the block's sequences."""

        def cut(wholes: Sequence[Array]) -> tuple[Array, ...]:
            pairs = zip(self.sequences, self.spans, strict=True)
            return tuple(self._heads(wholes[sequence][span.cached][:, columns]) for sequence, span in pairs)

        return CacheSlice(cut(keys), cut(values))

    def append(self, before: CacheSlice, keys: Array, values: Array) -> CacheSlice:
        """The cache with the new rows that are the PE's own; keys and values are (rows, kv heads * dims)."""

        def extend(old: tuple[Array, ...], rows: Array) -> tuple[Array, ...]:
            pairs = zip(old, self.spans, strict=True)
            return tuple(np.concatenate([held, self._heads(rows[span.rows][span.appended])]) for held, span in pairs)

        return CacheSlice(extend(before.keys, keys), extend(before.values, values))

    def _heads(self, rows: Array) -> Array:
        return rows.reshape(len(rows), self.num_kv_heads, self.dims)

    # --------------------------------------------------------------------------------------------------- the operators
    def scores(self, queries: Array, cache: CacheSlice) -> Array:
        """Flat scores: products of (rows, heads * dims) queries with the held keys, summed over the PE's dims."""
        if self.is_idle:
            return queries.reshape(-1)[:0]
        blocks = []
        for span, keys in zip(self.spans, cache.keys, strict=True):
            _check_held(span, keys)
            heads = queries[span.rows].reshape(span.new_len, self.num_heads, self.dims).transpose(1, 0, 2)
            products = heads @ keys[:, self.kv_of_head].transpose(1, 2, 0)
            blocks.append(products[:, span.computed].reshape(-1))
        return _concatenate(blocks, queries.dtype)

    def softmax(self, scores: Array, *, normalise: bool) -> SoftmaxWeights:
        """Exponentials of the scaled scores that a row sees, less their maximum, which is -inf without a token."""
        rows, heads = sum(span.new_len for span in self.spans), self.num_heads
        maximum = np.full((rows, heads), -np.inf, dtype=scores.dtype)
        total = np.zeros((rows, heads), dtype=scores.dtype)
        if self.is_idle:
            return SoftmaxWeights(scores[:0], maximum, total)
        scale = scores.dtype.type(1 / np.sqrt(self.shape.head_dim))
        blocks = []
        for span, block in zip(self.spans, self._blocks(scores, -np.inf), strict=True):
            masked = np.where(span.visible, block * scale, -np.inf).astype(scores.dtype)
            highest = masked.max(axis=-1, initial=-np.inf)
            exponents = np.exp(masked - np.where(highest == -np.inf, 0, highest)[..., None])
            sums = exponents.sum(axis=-1)
            maximum[span.rows], total[span.rows] = highest.T, sums.T
            if normalise:
                exponents = exponents / sums[..., None]
            blocks.append(exponents[:, span.computed].reshape(-1))
        return SoftmaxWeights(_concatenate(blocks, scores.dtype), maximum, total)

    def values(self, weights: SoftmaxWeights, cache: CacheSlice) -> Array:
        """(rows, heads, dims) sums of the held values, weighted by the softmax."""
        rows = sum(span.new_len for span in self.spans)
        result = np.zeros((rows, self.num_heads, self.dims), dtype=weights.flat.dtype)
        if self.is_idle:
            return result
        for span, block, values in zip(self.spans, self._blocks(weights.flat, 0.0), cache.values, strict=True):
            _check_held(span, values)
            weighted = block @ values[:, self.kv_of_head].transpose(1, 0, 2)
            result[span.rows] = weighted.transpose(1, 0, 2)
        return result

    def softmax_partial(self, weights: SoftmaxWeights, cache: CacheSlice) -> Array:
        """(rows, heads * (2 + head_dim)) softmax partial: maximum, sum and weighted values of every head."""
        values = self.values(weights, cache)
        parts = [weights.maximum[..., None], weights.total[..., None], values]
        return np.concatenate(parts, axis=-1).reshape(len(values), self.num_heads * (2 + self.dims))

    def _blocks(self, flat: Array, missing: float) -> list[Array]:
        """The (heads, new, held tokens) block of each sequence, `missing` where nothing was computed."""
        blocks, first = [], 0
        for span in self.spans:
            block = np.full((self.num_heads, *span.computed.shape), missing, dtype=flat.dtype)
            count = self.num_heads * int(span.computed.sum())
            block[:, span.computed] = flat[first : first + count].reshape(self.num_heads, -1)
            blocks.append(block)
            first += count
        if first != flat.size:
            raise PlacementError(f"PE {self.pe} holds {flat.size} scores where its heads and tokens make {first}")
        return blocks


def divide_partial(partial: Array, head_dim: int) -> Array:
    """(rows, heads * head_dim) weighted values of a merged softmax partial, divided by their sums."""
    heads = partial.shape[1] // (head_dim + 2)
    parts = partial.reshape(len(partial), heads, head_dim + 2)
    divided: Array = parts[..., 2:] / parts[..., 1:2]
    return divided.reshape(len(partial), heads * head_dim)


def _check_held(span: Span, held: Array) -> None:
    if len(held) != len(span.positions):
        raise PlacementError(f"the cache holds {len(held)} tokens of a sequence where it should {len(span.positions)}")


def _concatenate(blocks: list[Array], dtype: np.dtype[np.floating]) -> Array:
    return np.concatenate(blocks) if blocks else np.zeros(0, dtype=dtype)
