"""What each lane of a placed graph works on: its rows' ids, and the cache that is filled before the step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pe_sim.config.model import ModelConfig
from pe_sim.mapping.placed import PlacedGraph
from pe_sim.numeric.arrays import Array
from pe_sim.numeric.reference import run_reference
from pe_sim.numeric.weights import ModelWeights
from pe_sim.units import IntArray


@dataclass(frozen=True)
class Lane:
    """The sequences of one lane.

    Args:
        first_sequence: position of its first sequence in the batch.
        ids: (new rows,) token ids, positions and token types.
        cached: per layer the (context, kv heads * head_dim) keys and values of every sequence.
    """

    first_sequence: int
    ids: tuple[IntArray, ...]
    cached: list[tuple[list[Array], list[Array]]]


def lanes_of(
    placed: PlacedGraph,
    model: ModelConfig,
    weights: ModelWeights,
    tokens: list[IntArray],
    token_types: list[IntArray] | None,
) -> list[Lane]:
    """One entry per lane: one for the whole batch, or one for each sequence of a pipeline."""
    counts = {run.lane: len(placed.blocks[run.block].layouts.shape.new_lens) for run in placed.sequence}
    types = token_types or [np.zeros_like(ids) for ids in tokens]
    contexts = list(placed.graph.shape.context_lens)
    caches = [_context_of(model, weights, ids[:length]) for ids, length in zip(tokens, contexts, strict=True)]
    lanes, first = [], 0
    for lane in range(placed.lanes):
        mine = range(first, first + counts[lane])
        ids = (
            _stack([tokens[at][contexts[at] :] for at in mine]),
            _stack([np.arange(contexts[at], len(tokens[at])) for at in mine]),
            _stack([types[at][contexts[at] :] for at in mine]),
        )
        cached = [
            ([caches[at][layer][0] for at in mine], [caches[at][layer][1] for at in mine])
            for layer in range(model.num_layers)
        ]
        lanes.append(Lane(first, ids, cached))
        first += counts[lane]
    return lanes


def _context_of(model: ModelConfig, weights: ModelWeights, ids: IntArray) -> list[tuple[Array, Array]]:
    """Per layer the (context, kv heads * head_dim) keys and values, computed by the unsharded reference."""
    if not len(ids):
        nothing = np.zeros((0, model.kv_size), dtype=weights.tables[0].dtype)
        return [(nothing, nothing)] * model.num_layers
    reference = run_reference(model, weights, [ids])[0]
    flat = (len(ids), model.kv_size)
    return [
        (keys.reshape(flat), values.reshape(flat))
        for keys, values in zip(reference.keys, reference.values, strict=True)
    ]


def _stack(parts: list[IntArray]) -> IntArray:
    return np.concatenate([np.zeros(0, dtype=np.int64), *parts])
