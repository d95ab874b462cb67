"""How one layer's attention is divided: heads, dims, sequences and tokens of each PE, and blocks that share heads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property, lru_cache
from typing import Final

import numpy as np

from pe_sim.config.arrays.array import ArrayConfig, DramBank, Floorplan, LocalMemory, MatrixUnit
from pe_sim.config.dtypes import Dtypes
from pe_sim.config.networks.network import GraphNetwork, Network
from pe_sim.graph.operators import AttentionShape
from pe_sim.mapping.groups import PeGroups, largest_power
from pe_sim.network.bus_tree import downlink_cycles, reduce_cycles, serial_cycles
from pe_sim.units import BoolArray, IntArray, ceil_div

# (new tokens, cached tokens, residue of each PE, stride from one token of a PE to its next) -> a number for each PE
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
    """What each PE has of attention: arrays over all PEs; a PE with `q_heads` 0 is idle in it.

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
        """Distance from one token of a PE to its next, counted in the tokens of this array."""
        return self.token_stride if isinstance(self.token_stride, int) else int(self.token_stride[pe])

    def distinctions(self) -> Iterator[IntArray]:
        """(PEs,) arrays that tell PEs apart: how much they hold, not which of it, and who shares a head."""
        yield from (self.q_heads, self.kv_heads, self.pair_count, self.sequence_first, self.sequence_last)
        if self.head_group_size > 1:
            yield self.q_first

    @property
    def splits_tokens(self) -> bool:
        """Whether each PE holds only some of the tokens."""
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
    """The split by head: each block of PEs has contiguous heads, whose rotary pairs its living PEs split."""
    pes = blocks.first_pe[:, None] + np.arange(blocks.size, dtype=np.int64)
    inside = pes < blocks.last_pe[:, None]
    q_first = np.full(groups.num_pes, shape.num_heads if blocks.size > 1 else 0, dtype=np.int64)  # for PEs in no block
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
    """The split by token: position p of a sequence is on PE p mod n of the n of its group; every PE has all heads."""
    if groups.is_even:
        return _split(shape, groups, _all_heads(shape, groups), 1, token_stride=int(groups.living[0]))
    stride = np.where(groups.is_member, groups.living[groups.group_of_pe], 1)
    return _split(shape, groups, _all_heads(shape, groups), 1, token_stride=stride)


def split_by_batch(shape: AttentionShape, groups: PeGroups) -> AttentionSplit:
    """The split by batch: each PE has its own contiguous sequences, whole."""
    counts = groups.dealt(np.diff(groups.sequence_bounds))
    last = np.cumsum(counts)
    return _split(shape, groups, _all_heads(shape, groups), 1, sequences=(last - counts, last))


def unsplit(shape: AttentionShape, groups: PeGroups) -> AttentionSplit:
    """No split: every PE of a group computes all of the group's attention."""
    return _split(shape, groups, _all_heads(shape, groups), 1)


def held_tokens(total: int | IntArray, residue: IntArray, stride: int | IntArray) -> IntArray:
    """Number of positions p < total with p mod stride == residue."""
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


# ---- Which PEs share query heads: blocks of neighbours, each below a joint of its own, as large as is fastest.


REFERENCE_TOKENS: Final = (512, 2048, 8192, 32768)  # of one sequence a group, in the steps that blocks are compared in
_KEPT = 256


@dataclass(frozen=True, eq=False, slots=True)
class HeadBlocks:
    """The blocks of all groups that have heads.

    Args:
        size: places of a block, a power of the tree's arity; 1 where no PEs share a head.
        first_pe, last_pe: (blocks,) where each begins and ends; the end of the array may cut off the last one.
        first_head, num_heads: (blocks,) its heads.
        alive: (blocks, size) which of its places have a living PE.
    """

    size: int
    first_pe: IntArray
    last_pe: IntArray
    first_head: IntArray
    num_heads: IntArray
    alive: BoolArray

    @property
    def lowest(self) -> IntArray:
        """(blocks,) the lowest living PE of each."""
        found: IntArray = self.first_pe + self.alive.argmax(axis=-1)
        return found

    def slices(self, units: int) -> tuple[IntArray, IntArray]:
        """(blocks, size) first unit and number of units of each PE, dealt evenly to the living of a block."""
        rank: IntArray = np.cumsum(self.alive, axis=-1) - self.alive
        base, extra = np.divmod(units, self.alive.sum(axis=-1, keepdims=True))
        return self.alive * (rank * base + np.minimum(rank, extra)), self.alive * (base + (rank < extra))

    def kv_heads(self, shape: AttentionShape) -> IntArray:
        """(blocks,) kv heads that a block's query heads need."""
        per_kv = shape.num_heads // shape.num_kv_heads
        return (self.first_head + self.num_heads - 1) // per_kv - self.first_head // per_kv + 1


@lru_cache(maxsize=_KEPT)
def head_blocks(groups: PeGroups, num_heads: int, units: int, size: int) -> HeadBlocks:
    """The blocks of `size` places with all heads, in order, so that the PE with the most has as little as can be.

    Of the ways to do so it is the one with the fewest heads in any block; where blocks have different numbers of heads,
    more go to blocks with more living PEs, then to earlier ones.

    Args:
        units: of head_dim, which the living PEs of a block share evenly: rotary pairs, or single elements.
    """
    first, last, alive = _places(groups, size)
    living = alive.sum(axis=-1)
    load = ceil_div(units, np.maximum(living, 1))  # of a PE, for each head of its block

    def most_heads(limit: IntArray) -> IntArray:
        """(groups, blocks) heads with which no PE of a block has more than `limit` units."""
        return np.where(living > 0, limit[:, None] // load, 0)

    even = ceil_div(
        np.asarray(num_heads), np.count_nonzero(living, axis=1)
    )  # the fullest block has as many heads, or more
    lightest = np.where(living > 0, load, units).min(axis=1)
    heaviest = np.where(living > 0, load, 1).max(axis=1)
    limit = _least(even * lightest - 1, even * heaviest, lambda limit: most_heads(limit).sum(axis=1) >= num_heads)
    room = most_heads(limit)
    most = _least(even - 1, room.max(axis=1), lambda each: np.minimum(room, each[:, None]).sum(axis=1) >= num_heads)
    heads = np.minimum(room, most[:, None])
    spare = heads.sum(axis=1) - num_heads
    number = np.arange(living.shape[1], dtype=np.int64)
    order = np.lexsort((np.broadcast_to(-number, living.shape), living, heads < most[:, None]), axis=-1)
    np.put_along_axis(heads, order, np.take_along_axis(heads, order, -1) - (number < spare[:, None]), -1)
    used = heads > 0
    first_head = np.cumsum(heads, axis=1) - heads
    return HeadBlocks(size, first[used], last[used], first_head[used], heads[used], alive[used])


def _places(groups: PeGroups, size: int) -> tuple[IntArray, IntArray, BoolArray]:
    """(groups, blocks) where blocks begin and end, (groups, blocks, size) which places have a living PE.

    A block with PEs outside its group has none, for they are below its joint, too; places beyond the array are no PEs.
    """
    first = groups.first_pe[:, None] + size * np.arange(ceil_div(groups.size, size), dtype=np.int64)
    last = np.minimum(first + size, groups.num_pes)
    places = first[:, :, None] + np.arange(size, dtype=np.int64)
    alive = (places < last[:, :, None]) & groups.is_member[np.minimum(places, groups.num_pes - 1)]
    within = last <= groups.first_pe[:, None] + groups.size
    return first, last, alive & within[:, :, None]


def _least(low: IntArray, high: IntArray, suffices: Callable[[IntArray], BoolArray]) -> IntArray:
    """(groups,) the least number for which a monotone condition holds; it does for `high` and not for `low`."""
    while (high - low > 1).any():
        middle = (low + high) // 2
        enough = suffices(middle)
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    return high


@dataclass(frozen=True, slots=True)
class _Machine:
    """All of an array that the choice of a block's size depends on: equal ones share it."""

    num_pes: int
    overlap: int
    dtypes: Dtypes
    matrix: MatrixUnit
    lanes: int
    softmax_cycles: int
    memory: LocalMemory
    network: Network | GraphNetwork
    floorplan: Floorplan
    array: ArrayConfig = field(compare=False)


def block_size(array: ArrayConfig, groups: PeGroups, shape: AttentionShape) -> int:
    """Places of a block of PEs that share heads: the size that loses least by closed form, whatever the context.

    What a PE keeps stays where it is, so the size depends on the array, its division and the model's heads alone. At a
    few contexts the cycles of a layer with each size (`layer_cycles`) are divided by those with the fastest one; the
    size whose largest ratio is the least is taken. Of equals it is the largest power of the arity that gives each
    head a block of its own, else the smallest. Where PEs do not outnumber heads none is shared.
    """
    pe = array.pe
    machine = _Machine(
        array.num_pes,
        array.overlap,
        array.dtypes,
        pe.matrix,
        pe.vector.lanes,
        pe.vector.cycles_per_element["softmax"],
        pe.memory,
        array.network,
        array.floorplan,
        array,
    )
    of_one = replace(groups, num_sequences=groups.num_groups)
    return _block_size(machine, of_one, shape.num_heads, shape.num_kv_heads, shape.head_dim)


@lru_cache(maxsize=_KEPT)
def _block_size(machine: _Machine, groups: PeGroups, num_heads: int, num_kv_heads: int, head_dim: int) -> int:
    if groups.size <= num_heads:
        return 1
    shape = AttentionShape(num_heads, num_kv_heads, head_dim, (1,), (0,), causal_skip=True)
    told = layer_cycles(machine.array, groups, shape, REFERENCE_TOKENS)
    least = [min(column) for column in zip(*told.values(), strict=True)]
    worst = {size: max(map(Fraction, cycles, least)) for size, cycles in told.items()}
    one_head_each = largest_power(groups.arity, groups.size // num_heads)
    return min(worst, key=lambda size: (worst[size], size != one_head_each, size))


def block_sizes(groups: PeGroups) -> list[int]:
    """Sizes of blocks: powers of the arity up to the first that holds a group, if each group has a block with a PE."""
    sizes = [1]
    while sizes[-1] < groups.size:
        sizes.append(sizes[-1] * groups.arity)
    return [size for size in sizes if _places(groups, size)[2].any(axis=(1, 2)).all()]


def layer_cycles(
    array: ArrayConfig, groups: PeGroups, shape: AttentionShape, tokens: Sequence[int]
) -> dict[int, list[int]]:
    """By size of the blocks, the cycles of all in a layer that the size decides, at each number of tokens.

    The fullest PE's work and the messages, one after another: the matrices of q, k, v and o, scores, softmax and
    values, and the sums of the scores, up and back; a decode step of one sequence a group, all of whose tokens every
    head sees. Latencies of units and memories are the same for all sizes and left out, as are fills, prefetching,
    streaming and what overlaps.

    Args:
        shape: heads alone matter of it.
    """
    shares = _shares(groups, shape.num_heads, shape.num_kv_heads, shape.head_dim)
    held = np.array(tokens, dtype=np.int64)[:, None]
    cycles = _local_cycles(array, shape, shares, held) + _score_cycles(array, groups, shares, held)
    return {blocks.size: column for blocks, column in zip(shares.by_size, cycles.T.tolist(), strict=True)}


@dataclass(frozen=True, slots=True)
class _Shares:
    """The blocks of all sizes, one size after another.

    Args:
        by_size: the blocks of each size.
        start: (sizes,) the first block of each.
        dims, heads, kv_heads: (blocks,) elements of a head on the PE with the most of a block, and its heads.
    """

    by_size: tuple[HeadBlocks, ...]
    start: IntArray
    dims: IntArray
    heads: IntArray
    kv_heads: IntArray


@lru_cache(maxsize=_KEPT)
def _shares(groups: PeGroups, num_heads: int, num_kv_heads: int, head_dim: int) -> _Shares:
    width = pair_width(head_dim)
    shape = AttentionShape(num_heads, num_kv_heads, head_dim, (1,), (0,), causal_skip=True)
    every = tuple(head_blocks(groups, num_heads, head_dim // width, size) for size in block_sizes(groups))
    living: IntArray = np.concatenate([blocks.alive.sum(axis=-1) for blocks in every])
    return _Shares(
        every,
        np.cumsum([0, *(len(blocks.num_heads) for blocks in every[:-1])]),
        ceil_div(np.asarray(head_dim // width), living) * width,
        np.concatenate([blocks.num_heads for blocks in every]),
        np.concatenate([blocks.kv_heads(shape) for blocks in every]),
    )


def _local_cycles(array: ArrayConfig, shape: AttentionShape, shares: _Shares, tokens: IntArray) -> IntArray:
    """(contexts, sizes) cycles of the work on the PE that takes longest."""
    unit, vector, dtypes = array.pe.matrix, array.pe.vector, array.dtypes
    dims, heads, kv_heads = shares.dims, shares.heads, shares.kv_heads
    hidden = shape.num_heads * shape.head_dim

    def matrix(times: IntArray | int, num_bytes: IntArray | int, compute: IntArray) -> IntArray:
        memory = times * _port_cycles(array.pe.memory, np.asarray(num_bytes))
        return memory + compute if array.overlap == 0 else np.maximum(memory, compute)

    def linear(outer: IntArray | int, inner: IntArray | int) -> IntArray:
        compute = ceil_div(np.asarray(outer), unit.outputs) * ceil_div(np.asarray(inner), unit.depth)
        return matrix(1, dtypes.weight.matrix_bytes(outer, inner), compute)

    cached = dtypes.kv_cache.matrix_bytes(tokens, dims)
    scores = heads * ceil_div(dims, unit.depth) * ceil_div(tokens, unit.outputs)
    values = heads * ceil_div(dims, unit.outputs) * ceil_div(tokens, unit.depth)
    cycles = (
        linear(heads * dims, hidden)
        + 2 * linear(kv_heads * dims, hidden)
        + linear(hidden, heads * dims)
        + matrix(kv_heads, cached, scores)
        + matrix(kv_heads, cached, values)
        + ceil_div(heads * tokens, vector.lanes) * vector.cycles_per_element["softmax"]
    )
    most: IntArray = np.maximum.reduceat(cycles, shares.start, axis=1)
    return most


def _port_cycles(memory: LocalMemory, num_bytes: IntArray) -> IntArray:
    """Cycles of a memory's port for so many bytes; a DRAM bank at the rate of whole rows."""
    if isinstance(memory, DramBank):
        return ceil_div(num_bytes * memory.row_cycles, memory.row_bytes)
    return ceil_div(num_bytes, memory.bytes_per_cycle)


def _score_cycles(array: ArrayConfig, groups: PeGroups, shares: _Shares, tokens: IntArray) -> IntArray:
    """(contexts, sizes) cycles in which each block's scores are added up and sent back; 0 where PEs share no heads."""
    scores = shares.heads * tokens
    sums, back = (ceil_div(scores * dtype.bits, 8) for dtype in (array.dtypes.partial, array.dtypes.activation))
    of_size = _routed_score_cycles if array.network.is_graph else _bus_tree_score_cycles
    cycles = np.zeros((len(tokens), len(shares.by_size)), dtype=np.int64)
    for at, (blocks, first) in enumerate(zip(shares.by_size, shares.start.tolist(), strict=True)):
        if blocks.size > 1:
            its = slice(first, first + len(blocks.num_heads))
            cycles[:, at] = of_size(array, groups, blocks, sums[:, its], back[:, its])
    return cycles


def _bus_tree_score_cycles(
    array: ArrayConfig, groups: PeGroups, blocks: HeadBlocks, sums: IntArray, back: IntArray
) -> IntArray:
    """(contexts,) cycles in which (contexts, blocks) bytes are added up in each block, and as many others go back."""
    bus, tree = array.bus_tree.bus, array.bus_tree.tree
    joint = groups.joint_levels(blocks.size)
    levels = tree.num_levels if joint is None else joint
    up = reduce_cycles(tree, sums, levels, parallel=joint is not None)
    if tree.downlink and joint is not None:
        return up + downlink_cycles(tree, back, levels)
    return up + serial_cycles(bus, back, from_root=joint is None)


def _routed_score_cycles(
    array: ArrayConfig, _groups: PeGroups, blocks: HeadBlocks, sums: IntArray, back: IntArray
) -> IntArray:
    """(contexts,) cycles as `_bus_tree_score_cycles` gives them, over a graph of channels.

    Algorithms that work on the array's own scopes alone do not apply.
    """
    from pe_sim.network.collectives.algorithms import cycles_alone  # these load networkx
    from pe_sim.network.collectives.programs import Pattern
    from pe_sim.network.interconnect import interconnect_of

    interconnect, names = interconnect_of(array), array.graph_network.collectives
    holds = np.zeros(array.num_pes, dtype=bool)
    holds[(blocks.first_pe[:, None] + np.arange(blocks.size, dtype=np.int64))[blocks.alive]] = True
    every_block = np.ones(len(blocks.first_pe), dtype=bool)
    cycles = np.zeros(len(sums), dtype=np.int64)
    ways = ("reduce", names.reduce, sums, holds), ("broadcast", names.broadcast, back, every_block)
    for kind, name, payloads, sends in ways:
        pattern = Pattern.of_scopes(interconnect, blocks.first_pe, blocks.last_pe, sends, at_root=False)
        cycles += [cycles_alone(kind, name, interconnect, pattern, payload) for payload in payloads]
    return cycles


def pair_width(head_dim: int) -> int:
    """Elements of one unit of head_dim: a rotary pair, or one element where head_dim is odd."""
    return 2 if head_dim % 2 == 0 else 1
