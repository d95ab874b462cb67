"""The cache of a placed step in the PEs' memories: who holds which heads and tokens of it, and its append."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pe_sim.mapping.attention_split import AttentionSplit
from pe_sim.schedule.stages import PeStage
from tests.rtl.commands import Op
from tests.rtl.hardware import UnfitError
from tests.rtl.layer.integer_model import CACHE_SHIFT, Ints
from tests.rtl.layer.layer_values import Held, Job, StepLowering
from tests.rtl.layer.layer_vectors import units_of, work_of
from tests.rtl.programs.lowering import Difference, add_work, delivered_waits
from tests.rtl.programs.stores import store_cycles
from tests.rtl.programs.tiles import Tiles


@dataclass(frozen=True)
class PeHeads:
    """One PE's part of attention: `batch` kv heads of `rows` rows each, over the tokens it holds.

    Args:
        positions: of its tokens in the sequence.
        q_first, kv_first: heads.
        by_head: whether the rows are query heads (of one new row), else new rows (of one query head).
    """

    positions: NDArray[np.int64]
    q_first: int
    kv_first: int
    batch: int
    rows: int
    by_head: bool

    @property
    def tokens(self) -> int:
        """How many it holds."""
        return len(self.positions)

    def query_heads(self, num_rows: int) -> int:
        """How many it works on."""
        return self.batch * self.rows // (1 if self.by_head else num_rows)


@dataclass(frozen=True)
class Cache:
    """K and V of one layer: a matrix a kv head, of tokens by dims and of dims by tokens."""

    key_addr: int
    value_addr: int
    parts: dict[int, PeHeads]


def part_of(step: StepLowering, split: AttentionSplit, pe: int) -> PeHeads:
    """What one PE does.

    Raises:
        UnfitError: its query heads are no whole groups of its kv heads, or there are several new rows of each.
    """
    shape = split.shape
    if len(shape.new_lens) != 1:
        raise UnfitError("the RTL has no attention over several sequences")
    if split.head_group_size > 1:
        raise UnfitError("the RTL has no heads that several PEs share")
    new, context = shape.new_lens[0], shape.context_lens[0]
    if new > 1 and shape.causal_skip:
        raise UnfitError("the RTL has no causal mask")
    heads, kv_heads = int(split.q_heads[pe]), int(split.kv_heads[pe])
    q_first, kv_first = int(split.q_first[pe]), int(split.kv_first[pe])
    group = heads // kv_heads
    owners = (q_first + np.arange(heads)) // (shape.num_heads // shape.num_kv_heads) - kv_first
    if (owners != np.arange(heads) // group).any():
        raise UnfitError("the RTL has no query heads that are shared unevenly by kv heads")
    if new > 1 and group > 1:
        raise UnfitError("the RTL has no grouped queries of several rows")
    residue = int(split.token_residue[pe])
    positions = np.arange(residue, context + new, split.token_stride)
    return PeHeads(positions, q_first, kv_first, kv_heads, max(new, group), new == 1)


def key_tiles(step: StepLowering, part: PeHeads) -> Tiles:
    """One kv head's K."""
    return Tiles.on(step.hardware, part.tokens, step.model.head_dim)


def value_tiles(step: StepLowering, part: PeHeads) -> Tiles:
    """One kv head's V."""
    return Tiles.on(step.hardware, step.model.head_dim, part.tokens)


def head_pitch(tiles: Tiles) -> int:
    """From one kv head's matrix to the next: a power of two, so that a token's pieces are in different banks."""
    return 1 << (tiles.num_bytes - 1).bit_length()


def lower_append(step: StepLowering, job: Job, caches: dict[int, Cache]) -> None:
    """The new rows of K and V to where the context's are; `caches` is by the value's key."""
    node = work_of(job)
    split = job.layouts.attention_split(node.distribution)
    parts = {pe: part_of(step, split, pe) for pe in step.pes if split.q_heads[pe]}
    most_heads = max(part.batch for part in parts.values())
    tiles = [(key_tiles(step, part), value_tiles(step, part), part.batch) for part in parts.values()]
    key_addr = step.memory.take_aligned(max(head_pitch(keys) for keys, _, _ in tiles) * most_heads)
    value_addr = step.memory.take_aligned(max(head_pitch(values) for _, values, _ in tiles) * most_heads)
    caches[node.outputs[0].key] = cache = Cache(key_addr, value_addr, parts)
    for pe, part in parts.items():
        _fill(step, cache, pe, part)
    keys, values = (step.values[value.key] for value in node.inputs)
    for pe in units_of(step, job):
        part, context = parts[pe], split.shape.context_lens[0]
        new = np.flatnonzero(part.positions >= context)
        commands = _stores(keys, key_tiles(step, part), part, pe, new, context, key_addr, by_token=True)
        commands += _stores(values, value_tiles(step, part), part, pe, new, context, value_addr, by_token=False)
        _add_stores(step, job, pe, commands)


def _fill(step: StepLowering, cache: Cache, pe: int, part: PeHeads) -> None:
    """The context, and zeros for the new tokens, which the RTL has to append."""
    assert step.layer is not None
    heads = slice(part.kv_first, part.kv_first + part.batch)
    memory = step.case.program.units[pe].memory

    def held(cached: Ints) -> NDArray[np.int8]:
        room = np.zeros((part.tokens, part.batch, step.model.head_dim), dtype=np.int8)
        mine = part.positions[part.positions < len(cached)]
        room[: len(mine)] = cached[mine][:, heads]
        return room

    keys, values = held(step.inputs.keys[step.layer]), held(step.inputs.values[step.layer])
    if part.tokens:
        for head in range(part.batch):
            of_keys, of_values = key_tiles(step, part), value_tiles(step, part)
            packed = of_keys.pack(keys[:, head])
            memory.append((cache.key_addr + head * head_pitch(of_keys), packed))
            packed = of_values.pack(values[:, head].T, inner_major=True)
            memory.append((cache.value_addr + head * head_pitch(of_values), packed))


def _stores(
    source: Held,
    tiles: Tiles,
    part: PeHeads,
    pe: int,
    new: NDArray[np.int64],
    context: int,
    address: int,
    *,
    by_token: bool,
) -> list[dict[str, int]]:
    """STORE commands of K (whose outputs are tokens) or V (whose inner elements are).

    A chunk is what one tile has of one token's dims, one behind the other. The chunks of one command are those of
    neighbouring tokens in one tile, of all kv heads, and of all tiles along the dims with as many of them.
    """
    token_step, dim_step = (tiles.outputs, tiles.depth) if by_token else (tiles.depth, tiles.outputs)
    token_pitch, dim_pitch = tiles.outer_pitch, tiles.inner_pitch
    head_dim = tiles.inner if by_token else tiles.outer
    if not by_token:
        token_pitch, dim_pitch = dim_pitch, token_pitch
    whole, rest = divmod(head_dim, dim_step)
    along_dims = [(0, whole, dim_step)] * bool(whole) + [(whole, 1, rest)] * bool(rest)
    commands = []
    for tile in np.unique(new // token_step).tolist():
        tokens = new[new // token_step == tile]
        row = int(part.positions[tokens[0]]) - context
        stride = int(part.positions[tokens[1]] - part.positions[tokens[0]]) if len(tokens) > 1 else 0
        for first, count, chunk in along_dims:
            commands.append(
                {
                    "chunk": chunk,
                    "element_pitch": source.pitch,
                    "count0": len(tokens),
                    "in_pitch0": stride * source.width,
                    "out_pitch0": chunk,
                    "count1": part.batch,
                    "in_pitch1": head_dim * source.pitch,
                    "out_pitch1": head_pitch(tiles),
                    "count2": count,
                    "in_pitch2": dim_step * source.pitch,
                    "out_pitch2": dim_pitch,
                    "in_addr": source.addresses[pe] + first * dim_step * source.pitch + row * source.width,
                    "out_addr": address
                    + tile * token_pitch
                    + first * dim_pitch
                    + (int(tokens[0]) - tile * token_step) * chunk,
                }
            )
    return commands


def _add_stores(step: StepLowering, job: Job, pe: int, commands: list[dict[str, int]]) -> None:
    stage = job.stage
    assert isinstance(stage, PeStage)
    waits = delivered_waits(job.inputs, pe)
    taken = 0
    for fields in commands:
        if fields["chunk"] > step.hardware.memory_bytes_per_cycle:
            raise UnfitError("the RTL has no chunk that is wider than the memory's port")
        cycles = store_cycles(fields, step.hardware.memory_bytes_per_cycle)
        taken += cycles
        command = {**fields, "op": Op.STORE, "shift": CACHE_SHIFT}
        add_work(step.case, pe, job.order, "store", command, waits, cycles, stage.name)
    model = int(stage.cycles[pe])
    if taken != model:
        step.case.differences.append(Difference(job.order, pe, stage.name, model, taken))
