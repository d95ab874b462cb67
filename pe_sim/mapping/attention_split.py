"""How one layer's attention is divided: which heads, dims, sequences and tokens each PE works on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from pe_sim.graph.operators import AttentionShape
from pe_sim.mapping.groups import PeGroups
from pe_sim.mapping.head_blocks import HeadBlocks, pair_width
from pe_sim.units import BoolArray, IntArray, ceil_div

# (new tokens, cached tokens, residue of each PE, from one token of a PE to its next) -> a number for each PE
SequenceTerm = Callable[[int, int | IntArray, IntArray, int | IntArray], IntArray]


_PER_PE = (
    "q_first",
    "q_heads",
    "kv_first",
    "kv_heads",
    "pair_first",
    "pair_count",
    "sequence_first",
    "sequence_last",
    "token_residue",
)


@dataclass(frozen=True)
class AttentionSplit:
    """Arrays over all PEs of the array; a PE with `q_heads` 0 is idle in attention.

    Args:
        shape: the geometry of the whole batch.
        q_first, q_heads: first query head and how many.
        kv_first, kv_heads: first kv head and how many; a kv head lives wherever one of its query heads does.
        pair_first, pair_count: the rotary pairs (i, i + head_dim / 2) of each of its heads that the PE holds.
        sequence_first, sequence_last: sequences first .. last - 1 of the batch.
        token_stride, token_residue: the PE holds positions residue, residue + stride, ... of a sequence; the strides of
            groups with different numbers of PEs are an array.
        head_group_size: PEs that share one query head (1 unless PEs outnumber heads).
        later: tokens in the cache beyond `shape`: 0, or (steps, 1) for the steps of a generation, each a row of every
            array.
        row_sums: `row_sum` by divisor, kept because several operators of a layer ask for the same.
    """

    shape: AttentionShape
    q_first: IntArray
    q_heads: IntArray
    kv_first: IntArray
    kv_heads: IntArray
    pair_first: IntArray
    pair_count: IntArray
    sequence_first: IntArray
    sequence_last: IntArray
    token_stride: int | IntArray
    token_residue: IntArray
    head_group_size: int
    later: IntArray | int = 0
    row_sums: dict[int, IntArray] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def dims(self) -> IntArray:
        """(PEs,) elements of head_dim each PE holds of each of its heads."""
        return self.pair_count * pair_width(self.shape.head_dim)

    def row_sum(self, divisor: int) -> IntArray:
        """(PEs,) sum over rows of ceil(t / divisor), t the tokens the PE holds of those the row sees."""
        if divisor not in self.row_sums:
            skip = self.shape.causal_skip
            self.row_sums[divisor] = self._sum(
                lambda new, context, residue, stride: _row_sum(new, context, residue, stride * divisor, skip)
            )
        return self.row_sums[divisor]

    def over_cached(self, of_tokens: Callable[[IntArray], IntArray]) -> IntArray:
        """(PEs,) sum over sequences of a figure of the tokens the PE holds after the step."""
        return self._sum(lambda new, context, residue, stride: of_tokens(held_tokens(new + context, residue, stride)))

    def over_new(self, of_tokens: Callable[[IntArray], IntArray]) -> IntArray:
        """(PEs,) sum over sequences of a figure of the tokens of this step whose K and V the PE keeps."""
        return self._sum(
            lambda new, context, residue, stride: of_tokens(
                held_tokens(new + context, residue, stride) - held_tokens(context, residue, stride)
            )
        )

    def new_tokens(self) -> IntArray:
        """(PEs,) tokens of this step whose K and V the PE keeps."""
        return self.over_new(lambda tokens: tokens)

    def new_rows(self) -> IntArray:
        """(PEs,) rows of this step whose attention the PE works on."""
        return self._sum(lambda new, _context, residue, _stride: np.full_like(residue, new))

    def cached_tokens(self) -> IntArray:
        """(PEs,) tokens the PE holds after the step."""
        return self.over_cached(lambda tokens: tokens)

    def of(self, representative: IntArray, later: IntArray) -> AttentionSplit:
        """The split of (steps, classes) representative PEs, with `later` (steps, 1) tokens more in the cache."""
        arrays = {name: getattr(self, name)[representative] for name in _PER_PE}
        stride = self.token_stride if isinstance(self.token_stride, int) else self.token_stride[representative]
        return replace(self, **arrays, token_stride=stride, later=later, row_sums={})

    def stride_at(self, pe: int) -> int:
        """From one token of a PE to its next, among those of this array."""
        return self.token_stride if isinstance(self.token_stride, int) else int(self.token_stride[pe])

    def distinctions(self) -> Iterator[IntArray]:
        """(PEs,) arrays that tell PEs apart: how much they hold, not which of it, and who shares a head."""
        yield from (self.q_heads, self.kv_heads, self.pair_count, self.sequence_first, self.sequence_last)
        if self.head_group_size > 1:
            yield self.q_first

    @property
    def splits_tokens(self) -> bool:
        """Whether PEs hold some of the tokens each."""
        return not isinstance(self.token_stride, int) or self.token_stride > 1

    @cached_property
    def _segments(self) -> list[tuple[BoolArray | slice, dict[tuple[int, int, int], int]]]:
        """PEs whose sequences are alike, with (new, cached) lengths and offset of those and how often each occurs."""
        spans = list(zip(self.shape.new_lens, self.shape.context_lens, self.shape.offsets, strict=True))
        # Tokens move between the PEs of a group alone: a class has the same sequences in every step.
        starts, ends = (np.atleast_2d(bounds)[0] for bounds in (self.sequence_first, self.sequence_last))
        bounds, bound_of_pe = np.unique(starts * (len(spans) + 1) + ends, return_inverse=True)
        if len(bounds) == 1:
            first, last = divmod(int(bounds[0]), len(spans) + 1)
            return [(slice(None), Counter(spans[first:last]))]
        kinds: dict[frozenset[tuple[tuple[int, int, int], int]], int] = {}
        kind_of_bound = np.empty(len(bounds), dtype=np.int64)
        for number, bound in enumerate(bounds.tolist()):
            first, last = divmod(bound, len(spans) + 1)
            lengths = frozenset(Counter(spans[first:last]).items())
            kind_of_bound[number] = kinds.setdefault(lengths, len(kinds))
        kind_of_pe = kind_of_bound[bound_of_pe]
        return [(kind_of_pe == kind, dict(lengths)) for lengths, kind in kinds.items()]

    @cached_property
    def _takes_part(self) -> BoolArray:
        return self.q_heads * self.pair_count > 0

    def _sum(self, term: SequenceTerm) -> IntArray:
        totals = np.zeros(np.broadcast_shapes(self.q_heads.shape, np.shape(self.later)), dtype=np.int64)
        nowhere = np.zeros(1, dtype=np.int64)  # tokens are not split: every PE has the same of a sequence
        for members, lengths in self._segments:
            residues = self.token_residue[..., members] if self.splits_tokens else nowhere
            among = self.token_stride if isinstance(self.token_stride, int) else self.token_stride[..., members]
            stride = among * self.shape.token_stride
            for (new, context, offset), count in lengths.items():
                held = offset + self.shape.token_stride * residues
                totals[..., members] += count * term(new, context + self.later, held, stride)
        return totals * self._takes_part


def split_by_head(shape: AttentionShape, groups: PeGroups, blocks: HeadBlocks) -> AttentionSplit:
    """Contiguous heads of the PEs' blocks; the living PEs of a block split its heads' rotary pairs."""
    pes = blocks.first_pe[:, None] + np.arange(blocks.size, dtype=np.int64)
    inside = pes < blocks.last_pe[:, None]
    q_first = np.full(groups.num_pes, shape.num_heads if blocks.size > 1 else 0, dtype=np.int64)  # of those in no block
    q_heads, pair_first, pair_count = (np.zeros(groups.num_pes, dtype=np.int64) for _ in range(3))
    first, count = blocks.slices(shape.head_dim // pair_width(shape.head_dim))
    # A dead PE has the first head of its block, which tells the blocks apart, and none of its pairs.
    for values, of_block in (
        (q_first, blocks.first_head[:, None]),
        (q_heads, blocks.alive * blocks.num_heads[:, None]),
        (pair_first, first),
        (pair_count, count),
    ):
        values[pes[inside]] = np.broadcast_to(of_block, pes.shape)[inside]
    per_kv = shape.num_heads // shape.num_kv_heads
    kv_first = q_first // per_kv
    kv_heads = np.where(q_heads > 0, (q_first + q_heads - 1) // per_kv - kv_first + 1, 0)
    return _split(shape, groups, (q_first, q_heads, kv_first, kv_heads, pair_first, pair_count), blocks.size)


def split_by_token(shape: AttentionShape, groups: PeGroups) -> AttentionSplit:
    """Position p of a sequence lives on PE p mod n of the n of its group; every PE has all heads."""
    if groups.is_even:
        return _split(shape, groups, _all_heads(shape, groups), 1, token_stride=int(groups.living[0]))
    stride = np.where(groups.is_member, groups.living[groups.group_of_pe], 1)
    return _split(shape, groups, _all_heads(shape, groups), 1, token_stride=stride)


def split_by_batch(shape: AttentionShape, groups: PeGroups) -> AttentionSplit:
    """Each PE has its own contiguous sequences, whole."""
    counts = groups.dealt(np.diff(groups.sequence_bounds))
    last = np.cumsum(counts)
    return _split(shape, groups, _all_heads(shape, groups), 1, sequences=(last - counts, last))


def unsplit(shape: AttentionShape, groups: PeGroups) -> AttentionSplit:
    """Every PE of a group computes all of the group's attention."""
    return _split(shape, groups, _all_heads(shape, groups), 1)


def held_tokens(total: int | IntArray, residue: IntArray, stride: int | IntArray) -> IntArray:
    """Positions p < total with p mod stride == residue."""
    return np.maximum(ceil_div(total - residue, stride), 0)


def _all_heads(shape: AttentionShape, groups: PeGroups) -> tuple[IntArray, ...]:
    pairs = shape.head_dim // pair_width(shape.head_dim)
    return tuple(groups.is_member * value for value in (0, shape.num_heads, 0, shape.num_kv_heads, 0, pairs))


def _split(
    shape: AttentionShape,
    groups: PeGroups,
    heads: tuple[IntArray, ...],
    share: int,
    *,
    token_stride: int | IntArray = 1,
    sequences: tuple[IntArray, IntArray] | None = None,
) -> AttentionSplit:
    q_first, q_heads, kv_first, kv_heads, pair_first, pair_count = heads
    bounds = groups.sequence_bounds
    first, last = sequences or (bounds[groups.group_of_pe], bounds[groups.group_of_pe + 1])
    return AttentionSplit(
        shape=shape,
        q_first=q_first,
        q_heads=q_heads,
        kv_first=kv_first,
        kv_heads=kv_heads,
        pair_first=pair_first,
        pair_count=pair_count,
        sequence_first=first,
        sequence_last=last,
        token_stride=token_stride,
        token_residue=groups.rank_of_pe if np.max(token_stride) > 1 else np.zeros_like(q_first),
        head_group_size=share,
    )


def _row_sum(
    new: int, context: int | IntArray, residue: IntArray, divisor: int | IntArray, causal_skip: bool
) -> IntArray:
    """Sum over rows i of ceil(max(0, n_i - residue) / divisor), n_i = context + i + 1, or all when not skipping.

    Nesting ceilings is exact: ceil(ceil(x / stride) / d) = ceil(x / (stride d)).
    """
    if not causal_skip:
        return new * held_tokens(new + context, residue, divisor)
    return _ceil_prefix(context + new - residue, divisor) - _ceil_prefix(context - residue, divisor)


def _ceil_prefix(last: IntArray, divisor: int | IntArray) -> IntArray:
    """Sum of ceil(t / divisor) for t = 1 .. last; 0 where last <= 0."""
    full, rest = np.divmod(np.maximum(last, 0), divisor)
    prefix: IntArray = divisor * full * (full + 1) // 2 + rest * (full + 1)
    return prefix
