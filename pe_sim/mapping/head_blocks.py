"""Which PEs share query heads: blocks of neighbours, each below a joint of its own, as large as is fastest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import lru_cache
from typing import Final

import numpy as np

from pe_sim.config.array import ArrayConfig, DramBank, Floorplan, LocalMemory, MatrixUnit, Network
from pe_sim.config.dtypes import Dtypes
from pe_sim.config.network import GraphNetwork
from pe_sim.graph.operators import AttentionShape
from pe_sim.mapping.groups import PeGroups, largest_power
from pe_sim.network.bus_tree import downlink_cycles, reduce_cycles, serial_cycles
from pe_sim.units import BoolArray, IntArray, ceil_div

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
    """All heads in blocks of `size` places, in order, so that the PE with the most of them has as little as can be.

    Of the ways to do so the one with the fewest heads in any block, in the fullest blocks, in the first ones.

    Args:
        units: of head_dim, which the living PEs of a block share evenly: rotary pairs, or single elements.
    """
    first, last, alive = _places(groups, size)
    living = alive.sum(axis=-1)
    load = ceil_div(units, np.maximum(living, 1))  # of a PE, for each head of its block

    def most_heads(limit: IntArray) -> IntArray:
        """(groups, blocks) heads with which no PE of a block has more than `limit` units."""
        return np.where(living > 0, limit[:, None] // load, 0)

    limit = _least(units * num_heads, groups.num_groups, lambda limit: most_heads(limit).sum(axis=1) >= num_heads)
    room = most_heads(limit)
    most = _least(num_heads, groups.num_groups, lambda each: np.minimum(room, each[:, None]).sum(axis=1) >= num_heads)
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

    None has one in a block that ends beyond its group: others' PEs are below that joint. The array's end is no matter.
    """
    first = groups.first_pe[:, None] + size * np.arange(ceil_div(groups.size, size), dtype=np.int64)
    last = np.minimum(first + size, groups.num_pes)
    places = first[:, :, None] + np.arange(size, dtype=np.int64)
    alive = (places < last[:, :, None]) & groups.is_member[np.minimum(places, groups.num_pes - 1)]
    within = last <= groups.first_pe[:, None] + groups.size
    return first, last, alive & within[:, :, None]


def _least(highest: int, num_groups: int, suffices: Callable[[IntArray], BoolArray]) -> IntArray:
    """(groups,) the least number for which a monotone condition holds; it does for `highest`."""
    low, high = np.zeros(num_groups, dtype=np.int64), np.full(num_groups, highest, dtype=np.int64)
    while (high - low > 1).any():
        middle = (low + high) // 2
        enough = suffices(middle)
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    return high


@dataclass(frozen=True, slots=True)
class _Machine:
    """What the choice depends on of an array: equal ones share it."""

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
    sizes = block_sizes(groups)
    worst = dict.fromkeys(sizes, Fraction(1))
    for tokens in REFERENCE_TOKENS:
        shape = AttentionShape(num_heads, num_kv_heads, head_dim, (1,), (tokens - 1,), causal_skip=True)
        cycles = {size: layer_cycles(machine.array, groups, shape, size) for size in sizes}
        least = min(cycles.values())
        worst = {size: max(worst[size], Fraction(cycles[size], least)) for size in sizes}
    one_head_each = largest_power(groups.arity, groups.size // num_heads)
    return min(sizes, key=lambda size: (worst[size], size != one_head_each, size))


def block_sizes(groups: PeGroups) -> list[int]:
    """Powers of the arity, up to the first that holds a whole group, of which each group has a block with a PE."""
    sizes = [1]
    while sizes[-1] < groups.size:
        sizes.append(sizes[-1] * groups.arity)
    return [size for size in sizes if _places(groups, size)[2].any(axis=(1, 2)).all()]


def layer_cycles(array: ArrayConfig, groups: PeGroups, shape: AttentionShape, size: int) -> int:
    """Cycles of what the size of the blocks decides in a layer, one after another: the fullest PE's work, the messages.

    That is the matrices of q, k, v and o, scores, softmax and values, and the sums of the scores, up and back; a
    decode step of one sequence a group, all of whose tokens every head sees. Latencies of units and memories are the
    same for all sizes and left out, as are fills, prefetching, streaming and what overlaps.
    """
    blocks = head_blocks(groups, shape.num_heads, shape.head_dim // pair_width(shape.head_dim), size)
    return _local_cycles(array, shape, blocks) + (_score_cycles(array, groups, shape, blocks) if size > 1 else 0)


def _local_cycles(array: ArrayConfig, shape: AttentionShape, blocks: HeadBlocks) -> int:
    """Of the PE that takes longest."""
    unit, vector, dtypes, tokens = array.pe.matrix, array.pe.vector, array.dtypes, shape.total_tokens
    units = ceil_div(shape.head_dim // pair_width(shape.head_dim), blocks.alive.sum(axis=-1))
    dims, heads, kv_heads = units * pair_width(shape.head_dim), blocks.num_heads, blocks.kv_heads(shape)
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
    return int(cycles.max())


def _port_cycles(memory: LocalMemory, num_bytes: IntArray) -> IntArray:
    """A bank at the rate of whole rows."""
    if isinstance(memory, DramBank):
        return ceil_div(num_bytes * memory.row_cycles, memory.row_bytes)
    return ceil_div(num_bytes, memory.bytes_per_cycle)


def _score_cycles(array: ArrayConfig, groups: PeGroups, shape: AttentionShape, blocks: HeadBlocks) -> int:
    """Each block's scores are added up and sent back to its PEs."""
    scores = blocks.num_heads * shape.total_tokens
    sums, back = (ceil_div(scores * dtype.bits, 8) for dtype in (array.dtypes.partial, array.dtypes.activation))
    if isinstance(array.network, GraphNetwork):
        from pe_sim.mapping.routed_costs import scores_cycles  # loads networkx

        return scores_cycles(array, blocks, sums, back)
    bus, tree = array.bus_tree.bus, array.bus_tree.tree
    joint = groups.joint_levels(blocks.size)
    levels = tree.num_levels if joint is None else joint
    up = reduce_cycles(tree, sums, levels, parallel=joint is not None)
    if tree.downlink and joint is not None:
        return up + downlink_cycles(tree, back, levels)
    return up + serial_cycles(bus, back, from_root=joint is None)


def pair_width(head_dim: int) -> int:
    """Elements of one unit of head_dim: a rotary pair, or one element where head_dim is odd."""
    return 2 if head_dim % 2 == 0 else 1
