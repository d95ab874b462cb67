"""What a placed step keeps in the PEs' memories and the root's, and how much more would still fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from pe_sim.config.arrays.array import ArrayConfig
from pe_sim.errors import InfeasibleError
from pe_sim.graph.operators import AttentionShape, Embedding, KvAppend, Linear, Norm
from pe_sim.mapping.attention_split import AttentionSplit, held_tokens
from pe_sim.mapping.groups import PeGroups, even_counts
from pe_sim.mapping.layouts import Layouts
from pe_sim.mapping.placed import BlockRun, Move, MoveKind, Node, PlacedGraph, Work, likeness
from pe_sim.mapping.placement import Partial, Replicate, Root, Shard
from pe_sim.units import IntArray, last_that_fits

_N = TypeVar("_N", bound=Node)
_SEARCH_LIMIT = 2**31  # tokens or sequences, which is also the limit of steps
_PE_LEVERS = (
    "more PEs (--set num_pes=...)",
    "a smaller dtype (--set dtypes.weight=int8, --set dtypes.kv_cache=int8)",
    "a shorter context or a smaller batch",
    "more memory (--set pe.memory.capacity_bytes=...)",
)
_OVERFLOW_LEVER = "--allow-overflow to simulate all the same"
_STREAMING_LEVER = "weights streamed every step (--workflow batch-stream)"
_ROOT_LEVERS = ("more memory (--set root.memory.capacity_bytes=...)", "a smaller dtype", "--allow-overflow")


@dataclass(frozen=True, slots=True)
class Cache:
    """The KV cache of `layers` layers that are distributed alike, for the sequences of one lane."""

    layouts: Layouts
    distribution: str
    layers: int
    lane: int


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes held while the step runs.

    Args:
        array: whose memories they are held in.
        shape: attention geometry of the whole step.
        weight_bytes_per_pe: (PEs,) matrices, biases and norms.
        kv_cache_bytes_per_pe: (PEs,) cached and new tokens of the step.
        root_bytes: embedding tables and what the workflow puts at the root.
        caches: what is kept of K and V.
        streamed_bytes: of the weights, those of matrices that come from the root every step.
        if_streamed_bytes: what a PE would hold under batch-stream: two whole matrices, norms, and the KV cache of its
            sequences.
    """

    array: ArrayConfig
    shape: AttentionShape
    weight_bytes_per_pe: IntArray
    kv_cache_bytes_per_pe: IntArray
    root_bytes: int
    caches: tuple[Cache, ...]
    streamed_bytes: int = 0
    if_streamed_bytes: int = 0

    @property
    def capacity_bytes(self) -> int:
        """Bytes of one PE's memory."""
        return self.array.pe.memory.capacity_bytes

    @property
    def peak_bytes_per_pe(self) -> int:
        """The fullest PE's bytes."""
        return int((self.weight_bytes_per_pe + self.kv_cache_bytes_per_pe).max())

    @property
    def shortage(self) -> InfeasibleError | None:
        """What does not fit, of the PEs' memories or else of the root's; None where all fits."""
        if self.peak_bytes_per_pe > self.capacity_bytes:
            pe = int((self.weight_bytes_per_pe + self.kv_cache_bytes_per_pe).argmax())
            weights, cache = int(self.weight_bytes_per_pe[pe]), int(self.kv_cache_bytes_per_pe[pe])
            return InfeasibleError(
                f"the memory of PE {pe} is too small for weights ({weights:,} bytes) and KV cache ({cache:,} bytes)",
                demand=self.peak_bytes_per_pe,
                bound=self.capacity_bytes,
                unit="bytes",
                levers=(*_PE_LEVERS, *((_STREAMING_LEVER,) if self._streaming_helps else ()), _OVERFLOW_LEVER),
            )
        if self.root_bytes > self.array.root.memory.capacity_bytes:
            return InfeasibleError(
                "the root's memory is too small for the embedding table and what the workflow keeps there",
                demand=self.root_bytes,
                bound=self.array.root.memory.capacity_bytes,
                unit="bytes",
                levers=_ROOT_LEVERS,
            )
        return None

    @property
    def _streaming_helps(self) -> bool:
        return not self.streamed_bytes and self.if_streamed_bytes <= self.capacity_bytes

    def check(self) -> None:
        """Raises InfeasibleError where the step does not fit."""
        if self.shortage is not None:
            raise self.shortage

    def largest_batch_size(self) -> int:
        """Sequences of the step's longest total length that fit beside the weights; 0 if not even one does."""
        longest = max(n + c for n, c in zip(self.shape.new_lens, self.shape.context_lens, strict=True))
        return _largest(lambda batch: self._fits(batch, longest))

    def longest_context_len(self) -> int:
        """Cached tokens a sequence that fit at the step's batch size, before the step's new ones; 0 if none."""
        batch, new = len(self.shape.new_lens), max(self.shape.new_lens)
        return _largest(lambda context: self._fits(batch, context + new))

    def _fits(self, batch: int, total_len: int) -> bool:
        """Whether `batch` sequences of `total_len` tokens fit beside the weights."""

        def tokens(cache: Cache, split: AttentionSplit) -> IntArray:
            held = held_tokens(total_len, split.token_residue, split.token_stride)
            return _sequences_per_pe(cache.layouts.groups, cache.distribution, batch) * held

        first_lane = [cache for cache in self.caches if cache.lane == 0]
        cache_bytes = _cache_bytes(self.array, first_lane, tokens)
        return bool((self.weight_bytes_per_pe + cache_bytes).max() <= self.capacity_bytes)


def footprint(placed: PlacedGraph, shape: AttentionShape) -> Footprint:
    """The footprint of a placed step whose attention geometry is `shape`."""
    array = placed.array
    key = (array.overlap, array.dtypes, placed.sequence)
    held = placed.kept.layouts.recall(key, _footprint, placed, shape)
    return replace(held, array=array, shape=shape)


def _footprint(placed: PlacedGraph, shape: AttentionShape) -> Footprint:
    """The footprint of a placed step; beside the nodes and layouts it depends on the overlap and the dtypes."""
    array = placed.array
    what = placed.kept.nodes.recall(placed.sequence, _contents, placed)
    streamed_bytes = _streamed_bytes(placed)
    weights = np.full(array.num_pes, streamed_bytes, dtype=np.int64)
    weights[list(array.dead_pes)] = 0
    for node, block, count in what.on_pes:
        weights = weights + count * _weight_bytes(node, array, placed.blocks[block].layouts)
    root_bytes = sum(count * _root_bytes(node, array) for node, _, count in what.at_root)
    caches = [_cache(placed.blocks[run.block].layouts, node, count, run.lane) for node, run, count in what.caches]
    if not placed.graph.keeps_cache:
        caches = _working_set(caches)
    cache_bytes = _cache_bytes(array, caches, lambda cache, split: split.cached_tokens())
    streamed = _if_streamed_bytes(placed, caches)
    return Footprint(array, shape, weights, cache_bytes, root_bytes, tuple(caches), streamed_bytes, streamed)


def _if_streamed_bytes(placed: PlacedGraph, caches: list[Cache]) -> int:
    """Most bytes that a PE would hold if every matrix came from the root, and it had sequences of its own."""
    array, graph = placed.array, placed.graph
    layers = graph.num_layers * list(graph.layer)
    matrices = [each.weight_bytes(array.dtypes) for each in (*layers, *graph.epilogue) if isinstance(each, Linear)]
    pairs = [sum(matrices[index : index + 2]) for index in range(len(matrices))]
    norms = sum(each.weight_bytes(array.dtypes) for each in (*layers, *graph.epilogue) if isinstance(each, Norm))
    by_batch = [replace(cache, distribution="batch") for cache in caches if not cache.layouts.groups.is_lone]
    held = _cache_bytes(array, by_batch or caches, lambda cache, split: split.cached_tokens())
    return max(pairs, default=0) + norms + int(held.max(initial=0))


def bytes_on_pes(nodes: Iterable[Node], array: ArrayConfig, layouts: Layouts, *, cached: bool) -> IntArray:
    """(PEs,) bytes of the parameters of some nodes of one layer and, if `cached`, of their K and V."""
    held = layouts.nothing
    for node in nodes:
        if isinstance(node, Work) and isinstance(node.operator, Linear | Norm):
            if not isinstance(node.outputs[0].placement, Root):
                held = held + _weight_bytes(node, array, layouts)
        elif cached and isinstance(node, Work) and isinstance(node.operator, KvAppend):
            held = held + _cache_bytes(array, [_cache(layouts, node, 1, 0)], lambda cache, split: split.cached_tokens())
    return held


@dataclass(frozen=True, slots=True)
class _Contents:
    """What is held, whatever the array.

    Args:
        on_pes, at_root: a node, its block, and how many nodes keep parameters of the same size.
        caches: a node that appends to a KV cache, a run of its block, and how many layers have one like it.
    """

    on_pes: tuple[tuple[Work, int, int], ...]
    at_root: tuple[tuple[Node, int, int], ...]
    caches: tuple[tuple[Work, BlockRun, int], ...]


def _contents(placed: PlacedGraph) -> _Contents:
    on_pes: list[tuple[Work, int, int]] = []
    at_root: list[tuple[Node, int, int]] = []
    caches: list[tuple[Work, BlockRun, int]] = []
    for run, count in Counter(replace(run, layer=None) for run in placed.sequence).items():
        nodes = placed.blocks[run.block].nodes
        streamed = {node.operator.name for node in nodes if _is_stream(node)}
        for node in nodes:
            if isinstance(node, Work) and isinstance(node.operator, KvAppend):
                caches.append((node, run, count))
            if run.lane == 0 and _is_stream(node):
                at_root.append((node, run.block, count))
            elif run.lane == 0 and isinstance(node, Work) and isinstance(node.operator, Linear | Embedding | Norm):
                if isinstance(node.outputs[0].placement, Root):
                    at_root.append((node, run.block, count))
                elif node.operator.name not in streamed:
                    on_pes.append((node, run.block, count))
    return _Contents(_alike(placed, on_pes), _alike(placed, at_root), tuple(caches))


def _alike(placed: PlacedGraph, nodes: Iterable[tuple[_N, int, int]]) -> tuple[tuple[_N, int, int], ...]:
    """The nodes, of those that differ in names alone only one, with the sum of the counts."""
    merged: dict[tuple[object, ...], tuple[_N, int, int]] = {}
    for node, block, count in nodes:
        key = (id(placed.blocks[block].layouts), *likeness(node, {}))
        merged[key] = (node, block, count + (merged[key][2] if key in merged else 0))
    return tuple(merged.values())


def _cache(layouts: Layouts, node: Work, layers: int, lane: int) -> Cache:
    distribution = "replicate" if layouts.groups.is_lone else node.distribution
    return Cache(layouts, distribution, layers, lane)


def _cache_bytes(
    array: ArrayConfig, caches: Iterable[Cache], tokens: Callable[[Cache, AttentionSplit], IntArray]
) -> IntArray:
    """(PEs,) bytes of K and V, for the tokens each PE holds of a layer."""
    held = np.zeros(array.num_pes, dtype=np.int64)
    for cache in caches:
        split = cache.layouts.attention_split(cache.distribution)
        rows = tokens(cache, split) * split.kv_heads
        held = held + 2 * cache.layers * np.asarray(array.dtypes.kv_cache.matrix_bytes(rows, split.dims))
    return held


def _is_stream(node: Node) -> bool:
    """Whether a node brings an operator its weights, bias included, from the root."""
    return isinstance(node, Move) and node.kind is MoveKind.WEIGHT_STREAM


def _streamed_bytes(placed: PlacedGraph) -> int:
    """Bytes a PE holds of matrices that come from the root: two that follow one another, one without overlap."""
    of_block = [
        [node.operator.weight_bytes(placed.array.dtypes) for node in block.nodes if _is_stream(node)]
        for block in placed.blocks
    ]
    if not any(of_block):
        return 0
    sizes = [size for run in placed.sequence for size in of_block[run.block]]
    held = 1 if placed.array.overlap == 0 else 2
    return max((sum(sizes[index : index + held]) for index in range(len(sizes))), default=0)


def _working_set(caches: list[Cache]) -> list[Cache]:
    """The caches of an encoder, each of one layer: it keeps K and V only while their layer runs."""
    kept = {(cache.distribution, cache.lane): replace(cache, layers=1) for cache in caches}
    return list(kept.values())


def _sequences_per_pe(groups: PeGroups, distribution: str, batch: int) -> IntArray:
    """(PEs,) sequences each PE has a part in."""
    shares = even_counts(batch, groups.num_groups)
    if distribution != "batch":
        return shares[groups.group_of_pe]
    return groups.dealt(shares)


def _largest(fits: Callable[[int], bool]) -> int:
    """The largest positive number that fits, 0 if 1 does not; `fits` is monotone."""
    if not fits(1):
        return 0
    low, high = 1, 2
    while high < _SEARCH_LIMIT and fits(high):
        low, high = high, high * 2
    return last_that_fits(fits, low, high)


def _weight_bytes(node: Work, array: ArrayConfig, layouts: Layouts) -> IntArray:
    """(PEs,) bytes of parameters that work away from the root keeps on each PE."""
    operator, weight = node.operator, array.dtypes.weight
    place = node.outputs[0].placement
    if isinstance(operator, Linear) and node.function == "matrix":
        inner = layouts.pe_columns(operator.in_dim, operator.in_size, node.inputs[0].placement)
        outer = layouts.pe_columns(operator.out_dim, operator.out_size, place)
        return np.asarray(weight.matrix_bytes(outer, inner))
    if isinstance(operator, Linear):
        return np.asarray(weight.num_bytes(_bias_columns(node, operator, layouts)))
    if isinstance(operator, Embedding):
        return operator.table_bytes(array.dtypes) * layouts.groups.is_member.astype(np.int64)
    if isinstance(operator, Norm) and node.function != "sum_of_squares":
        per_element = weight.bits * (2 if operator.function == "layernorm" else 1)
        return -(-layouts.pe_columns("hidden", operator.size, place) * per_element // 8)
    return layouts.nothing


def _bias_columns(node: Work, operator: Linear, layouts: Layouts) -> IntArray:
    """(PEs,) entries of the bias: the PE's outputs, or its own part of them where outputs are partial sums."""
    place = node.outputs[0].placement
    if isinstance(place, Partial):
        place = place.own_part(operator.out_dim)
    if isinstance(place, Replicate | Shard):
        return layouts.pe_columns(operator.out_dim, operator.out_size, place)
    return layouts.groups.spread(lambda pes: even_counts(operator.out_size, pes))


def _root_bytes(node: Node, array: ArrayConfig) -> int:
    """Bytes of parameters that a stream of weights, or work at the root, keeps there."""
    if isinstance(node.operator, Embedding):
        return node.operator.table_bytes(array.dtypes)
    return node.operator.weight_bytes(array.dtypes)
