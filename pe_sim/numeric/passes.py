"""Executes one pass of one array: from what arrives, and what its cache holds, to what leaves and what stays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from pe_sim.config.model import ModelConfig
from pe_sim.graph.operators import KvAppend
from pe_sim.mapping.passes import PlacedPass
from pe_sim.mapping.placed import Node, Value, Work
from pe_sim.mapping.placement import Root, Shard
from pe_sim.numeric.arrays import Array, PlacementError
from pe_sim.numeric.assemble import assemble
from pe_sim.numeric.attention import CacheSlice
from pe_sim.numeric.blocks import caches_before, piece_of, run_nodes
from pe_sim.numeric.geometry import Geometry, HubPieces, Pieces
from pe_sim.numeric.moves import Mover
from pe_sim.numeric.results import result_of
from pe_sim.numeric.traffic import TrafficCounter
from pe_sim.numeric.weights import ModelWeights
from pe_sim.numeric.work import Worker
from pe_sim.units import IntArray

CacheOf = Mapping[int, tuple[list[Array], list[Array]]]  # by layer of the pass: keys and values of every sequence
_TOKENS = Shard("token")


@dataclass(frozen=True)
class PassInputs:
    """What a pass begins with.

    Args:
        model, weights: the array's share of the model, from the pass's first layer on.
        ids: (rows,) token ids, positions and token types.
        cached: (context, kv heads * head_dim) keys and values of every sequence before the pass.
        appended: caches that earlier passes left, by layer; they are taken instead.
        received: by tensor: pieces that were left by passes before it.
        arrived: by tensor: (rows, size) that came from other arrays, to the root.
    """

    model: ModelConfig
    weights: ModelWeights
    ids: tuple[IntArray, ...]
    cached: CacheOf
    appended: Mapping[int, tuple[CacheSlice | None, ...]]
    received: Mapping[str, Pieces]
    arrived: Mapping[str, Array]


@dataclass(frozen=True)
class PassResults:
    """What a pass gives.

    Args:
        pieces: what is there when it is done, by tensor.
        caches: by layer of the pass, what every PE holds of the cache.
        wholes: the last (rows, size) of the tensors that a result is made of.
    """

    pieces: Mapping[str, Pieces]
    caches: Mapping[int, tuple[CacheSlice | None, ...]]
    wholes: Mapping[str, Array]


def execute_pass(work: PlacedPass, inputs: PassInputs, geometry: Geometry, counter: TrafficCounter) -> PassResults:
    """Runs a pass with real numbers.

    Raises:
        PlacementError: the placed pass cannot be executed.
    """
    placed, graph = work.placed, work.placed.graph
    received = {**inputs.received, **{name: to_root(geometry, whole) for name, whole in inputs.arrived.items()}}
    carried: list[Pieces] = []
    caches: dict[int, tuple[CacheSlice | None, ...]] = {}
    wholes: dict[str, Array] = {}
    kept = {result_of(inputs.model), "best", "pooled"}  # wholes that a result is made of
    held: dict[int, Pieces] = {}
    for run in placed.sequence:
        block = placed.blocks[run.block]
        held = {value.key: pieces for value, pieces in zip(block.entries, carried, strict=True)}
        layer_cache = None if run.layer is None else inputs.cached.get(run.layer)
        before = caches_before(block, geometry, layer_cache, causal=graph.keeps_cache)
        if run.layer is not None and run.layer in inputs.appended and before:
            before = _merged(before, inputs.appended[run.layer])
        worker = Worker(
            inputs.model,
            inputs.weights,
            geometry,
            run.layer,
            inputs.ids,
            graph.select,
            graph.keeps_cache,
            before,
            {},
            received,
        )
        layer = run.layer

        def look(node: Node, value: Value, pieces: Pieces, layer: int | None = layer) -> None:
            if isinstance(node.operator, KvAppend) and isinstance(node, Work) and layer is not None:
                caches[layer] = tuple(pieces)
            if value.tensor.name in kept and isinstance(node, Work):
                whole = assemble(geometry, value, pieces)
                if whole is not None:
                    wholes[value.tensor.name] = whole

        mover = Mover(placed.array, geometry, counter, inputs.weights, run.layer)
        run_nodes(block, held, worker, mover, look)
        carried = [piece_of(held, value, "the block after") for value in block.exits]
    return PassResults({name: held[value.key] for name, value in work.leaving.items()}, caches, wholes)


def _merged(
    before: tuple[CacheSlice | None, ...], appended: tuple[CacheSlice | None, ...]
) -> tuple[CacheSlice | None, ...]:
    """What earlier passes left must be as much as the cache is to hold before this one."""
    for wanted, given in zip(before, appended, strict=True):
        if wanted is not None and (given is None or not _alike(wanted, given)):
            raise PlacementError("a cache holds other tokens than the passes before have left")
    return appended


def _alike(left: CacheSlice, right: CacheSlice) -> bool:
    return [keys.shape for keys in left.keys] == [keys.shape for keys in right.keys]


def to_root(geometry: Geometry, whole: Array) -> Pieces:
    """A whole tensor as the root has it: each group's rows."""
    bounds = np.asarray(geometry.layouts.groups.sequence_bounds)
    rows = np.concatenate(([0], np.cumsum(geometry.layouts.shape.new_lens)))[bounds]
    return HubPieces(whole[first:last] for first, last in pairwise(rows))


def at_root(work: PlacedPass, results: PassResults, name: str) -> Array:
    """A tensor that leaves, whole.

    Raises:
        PlacementError: it is not at the root.
    """
    if not isinstance(work.leaving[name].placement, Root):
        raise PlacementError(f"{name} leaves from {work.leaving[name].placement}, not from the root")
    return np.concatenate(list(results.pieces[name]))


def cache_by_token(
    geometry: Geometry, cached: tuple[list[Array], list[Array]], own: Mapping[int, int], appended: Pieces | None
) -> Pieces:
    """What every PE holds of a cache by token: of sequences with new rows of this array what their pass has left.

    Args:
        cached: keys and values of every sequence before the step.
        own: where sequences with new rows stand in `appended`.
    """
    keys, values = cached
    columns = np.arange(geometry.layouts.shape.num_kv_heads * geometry.layouts.shape.head_dim)

    def fill(pe: int) -> CacheSlice:
        before = geometry.attention("token", pe, causal=True).cached_slice(keys, values, columns)
        after: CacheSlice | None = None if appended is None else appended[pe]
        if after is None:
            return before
        parts = zip(before.keys, before.values, strict=True)
        merged = [(after.keys[own[at]], after.values[own[at]]) if at in own else part for at, part in enumerate(parts)]
        return CacheSlice(tuple(key for key, _ in merged), tuple(value for _, value in merged))

    return geometry.map(_TOKENS, fill)
