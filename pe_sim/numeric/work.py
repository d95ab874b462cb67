"""Local work: every function of a placed graph on every PE, or at the root, from only what is held there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from pe_sim.config.models.model import ModelConfig
from pe_sim.graph.operators import AttentionOperator, Element, Linear, Norm, Rows
from pe_sim.mapping.placed import Value, Work
from pe_sim.mapping.placement import Partial, Placement, Root, Shard
from pe_sim.numeric.arrays import (
    NO_INDEX,
    Array,
    PlacementError,
    candidate_dtype,
    gelu,
    gelu_tanh,
    rope_frequencies,
    silu,
)
from pe_sim.numeric.attention import CacheSlice, PeAttention, SoftmaxWeights, divide_partial
from pe_sim.numeric.geometry import Geometry, HubPieces, Pieces
from pe_sim.numeric.weights import Matrix, ModelWeights
from pe_sim.units import IntArray

Function = Callable[["Worker", Work, list[Pieces]], list[Pieces]]


@dataclass(frozen=True)
class Worker:
    """Executes the work of one run of one block.

    Args:
        model, weights: the model; a PE or the root only ever takes its own slices of the weights.
        geometry: geometry of the block.
        layer: None outside the layers.
        ids: (rows,) token ids, positions and token types of the block's rows, as many as there are tables.
        select: which row of a sequence the epilogue works on, last or first.
        caches: parts of this layer's cache before the step, one a PE.
        streamed: matrices that came from the root, one a PE, by operator.
        received: by tensor, pieces that are there when the first block of a pass begins.
    """

    model: ModelConfig
    weights: ModelWeights
    geometry: Geometry
    layer: int | None
    ids: tuple[IntArray, ...]
    select: str
    causal: bool
    caches: tuple[CacheSlice | None, ...]
    streamed: dict[str, Pieces]
    received: Mapping[str, Pieces] = field(default_factory=dict)

    def run(self, work: Work, inputs: list[Pieces]) -> list[Pieces]:
        """The pieces of the work's outputs."""
        function = FUNCTIONS.get(work.function)
        if function is None:
            raise PlacementError(f"nothing computes {work.function!r}")
        return function(self, work, inputs)

    def matrix(self, operator: str, placement: Placement, holder: int) -> Matrix:
        """The whole matrix of an operator: the one that a holder received from the root, else the layer's."""
        if operator in self.streamed:
            received: Matrix = self.streamed[operator][holder]
            return received
        return self.weights.matrix(self.layer, operator)

    def attention(self, work: Work, pe: int) -> PeAttention:
        """One PE's part of an attention operator."""
        assert isinstance(work.operator, AttentionOperator)
        return self.geometry.attention(work.distribution, pe, causal=self.causal)


def take(array: Array, rows: IntArray, columns: IntArray | None = None) -> Array:
    """array[rows][:, columns] for sorted, mostly contiguous indices."""
    part: Array = array[_as_slice(rows)]
    return part if columns is None else part[:, _as_slice(columns)]


def _as_slice(indices: IntArray) -> slice | IntArray:
    if len(indices) and int(indices[-1]) - int(indices[0]) == len(indices) - 1 and (np.diff(indices) == 1).all():
        return slice(int(indices[0]), int(indices[-1]) + 1)
    return indices


# ------------------------------------------------------------------------------------------------------- matrices, ends
def _embedding(worker: Worker, work: Work, _: list[Pieces]) -> list[Pieces]:
    def look_up(placement: Placement, table: Array, ids: IntArray) -> Pieces:
        return worker.geometry.map(placement, lambda at: table[ids[worker.geometry.rows(Rows.ALL, placement, at)]])

    # One output a table, in the tables' order; ids may know more kinds than the family has tables.
    sources = zip(work.outputs, worker.weights.tables, worker.ids, strict=False)
    return [look_up(value.placement, table, ids) for value, table, ids in sources]


def _matrix(worker: Worker, work: Work, inputs: list[Pieces]) -> list[Pieces]:
    operator, source, target = work.operator, work.inputs[0], work.outputs[0]
    assert isinstance(operator, Linear)

    def multiply(holder: int) -> Array:
        outer = worker.geometry.columns(operator.out_dim, operator.out_size, target.placement, holder)
        inner = worker.geometry.columns(operator.in_dim, operator.in_size, source.placement, holder)
        weight = take(worker.matrix(operator.name, target.placement, holder).weight, outer, inner)
        product: Array = inputs[0][holder] @ weight.T
        return product

    return [worker.geometry.map(target.placement, multiply)]


def _bias(worker: Worker, work: Work, inputs: list[Pieces]) -> list[Pieces]:
    operator, value = work.operator, work.outputs[0]

    def add_bias(holder: int) -> Array:
        bias = worker.matrix(operator.name, value.placement, holder).bias
        assert bias is not None
        if not isinstance(value.placement, Partial):
            return np.asarray(inputs[0][holder] + bias[worker.geometry.columns_of(value, holder)])
        own = worker.geometry.own_slice(value.tensor, holder, value.placement)
        result: Array = inputs[0][holder].copy()
        result[:, np.searchsorted(worker.geometry.columns_of(value, holder), own)] += bias[own]
        return result

    return [worker.geometry.map(value.placement, add_bias)]


def _receive(worker: Worker, work: Work, _: list[Pieces]) -> list[Pieces]:
    return [worker.received[value.tensor.name] for value in work.outputs]


def _select(worker: Worker, work: Work, inputs: list[Pieces]) -> list[Pieces]:
    """The last or first row of each sequence that a holder works on, or all its rows."""
    value, geometry = work.outputs[0], worker.geometry
    if geometry.layouts.selected_per_sequence is None:
        return inputs

    def pick(holder: int) -> Array:
        lengths = [
            geometry.layouts.shape.new_lens[sequence] for sequence in geometry.sequences(value.placement, holder)
        ]
        ends = np.cumsum(lengths, dtype=np.int64)
        picked = ends - 1 if worker.select == "last" else ends - np.asarray(lengths, dtype=np.int64)
        return np.asarray(inputs[0][holder][picked])

    return [geometry.map(value.placement, pick)]


def _argmax(worker: Worker, work: Work, inputs: list[Pieces]) -> list[Pieces]:
    source, target = work.inputs[0], work.outputs[0]
    if source.tensor.element is Element.CANDIDATE:
        return inputs  # the joints have compared already

    def best(holder: int) -> Array:
        logits = inputs[0][holder]
        found = np.empty((len(logits), 1), dtype=candidate_dtype(logits.dtype))
        if logits.shape[1] == 0:
            found["value"], found["index"] = -np.inf, NO_INDEX
            return found
        at = logits.argmax(axis=1)
        found["value"][:, 0] = logits[np.arange(len(logits)), at]
        found["index"][:, 0] = worker.geometry.columns_of(source, holder)[at]
        return found

    return [worker.geometry.map(target.placement, best)]


# --------------------------------------------------------------------------------------------------- element by element
def _elementwise(function: Callable[..., Array]) -> Function:
    def run(worker: Worker, work: Work, inputs: list[Pieces]) -> list[Pieces]:
        return [worker.geometry.map(work.outputs[0].placement, lambda at: function(*(held[at] for held in inputs)))]

    return run


def _add(left: Array, right: Array) -> Array:
    if left.shape != right.shape:
        raise PlacementError(f"an add of arrays of shapes {left.shape} and {right.shape}")
    total: Array = left + right
    return total


def _silu_mul(gate: Array, up: Array) -> Array:
    product: Array = silu(gate) * up
    return product


# -------------------------------------------------------------------------------------------------------------- norms
def _norm(worker: Worker, work: Work, inputs: list[Pieces]) -> list[Pieces]:
    """The outputs of a norm over whole rows."""
    target = work.outputs[0].placement
    return [
        worker.geometry.map(target, lambda at: _scaled(worker, work, inputs[0][at], *_moments(work, inputs[0][at]), at))
    ]


def _sum_of_squares(worker: Worker, work: Work, inputs: list[Pieces]) -> list[Pieces]:
    return [worker.geometry.map(work.outputs[0].placement, lambda at: _statistic(work, inputs[0][at]))]


def _scale(worker: Worker, work: Work, inputs: list[Pieces]) -> list[Pieces]:
    """The outputs of a norm over slices of rows, whose statistics were reduced."""
    target = work.outputs[0].placement
    return [
        worker.geometry.map(
            target, lambda at: _scaled(worker, work, inputs[0][at], *_reduced_moments(work, inputs[1][at]), at)
        )
    ]


def _statistic(work: Work, x: Array) -> Array:
    """(rows, 1) sums of squares for RMSNorm; (rows, 2) sums and sums of squares for LayerNorm."""
    squares = (x * x).sum(axis=1, keepdims=True)
    parts = [squares] if _is_rms(work) else [x.sum(axis=1, keepdims=True), squares]
    return np.concatenate(parts, axis=1)


def _moments(work: Work, x: Array) -> tuple[Array, Array]:
    """(rows, 1) centre and mean square around it, of whole rows; the centre of RMSNorm is 0."""
    centre = np.zeros_like(x[:, :1]) if _is_rms(work) else x.mean(axis=1, keepdims=True)
    return centre, np.square(x - centre).mean(axis=1, keepdims=True)


def _reduced_moments(work: Work, statistic: Array) -> tuple[Array, Array]:
    """(rows, 1) centre and mean square around it, as of `_moments`, from the sums over whole rows."""
    assert isinstance(work.operator, Norm)
    means = statistic / statistic.dtype.type(work.operator.size)
    if _is_rms(work):
        return np.zeros_like(means), means
    return means[:, :1], np.maximum(means[:, 1:] - np.square(means[:, :1]), 0)


def _is_rms(work: Work) -> bool:
    assert isinstance(work.operator, Norm)
    return work.operator.function == "rmsnorm"


def _scaled(worker: Worker, work: Work, x: Array, centre: Array, mean_square: Array, holder: int) -> Array:
    columns = worker.geometry.columns_of(work.outputs[0], holder)
    norm = worker.weights.norm(worker.layer, work.operator.name)
    eps = x.dtype.type(worker.model.norm_eps)
    result: Array = (x - centre) / np.sqrt(mean_square + eps) * norm.gain[columns]
    return result if norm.bias is None else result + norm.bias[columns]


# ----------------------------------------------------------------------------------------------------------- attention
def _rope(worker: Worker, work: Work, inputs: list[Pieces]) -> list[Pieces]:
    frequencies = rope_frequencies(worker.model)

    def rotate(value: Value, pieces: Pieces) -> Pieces:
        def rotate_piece(pe: int) -> Array:
            columns = worker.geometry.columns_of(value, pe)
            positions = worker.ids[1][worker.geometry.rows(value.tensor.rows, value.placement, pe)]
            return rotate_columns(pieces[pe], columns, worker.model.head_dim, positions, frequencies)

        return worker.geometry.map(value.placement, rotate_piece)

    return [rotate(value, pieces) for value, pieces in zip(work.outputs, inputs, strict=True)]


def rotate_columns(x: Array, columns: IntArray, head_dim: int, positions: IntArray, frequencies: Array) -> Array:
    """Rotary embedding of (rows, columns) x that holds both parts (i, i + head_dim / 2) of each of its pairs.

    Raises:
        PlacementError: a pair is cut in two.
    """
    half = head_dim // 2
    pair, is_second = columns % head_dim % half, columns % head_dim >= half
    wanted = np.where(is_second, columns - half, columns + half)
    order = np.argsort(columns)
    found = np.searchsorted(columns, wanted, sorter=order)
    partner = order[np.minimum(found, len(columns) - 1)] if len(columns) else order
    if (columns[partner] != wanted).any():
        raise PlacementError("a PE holds one part of a rotary pair without the other")
    angles = positions[:, None] * frequencies[pair][None, :]
    cos, sin = np.cos(angles).astype(x.dtype), np.sin(angles).astype(x.dtype)
    rotated: Array = x * cos + np.where(is_second, x[:, partner], -x[:, partner]) * sin
    return rotated


def _kv_append(worker: Worker, work: Work, inputs: list[Pieces]) -> list[Pieces]:
    def append(pe: int) -> CacheSlice:
        before = worker.caches[pe]
        assert before is not None
        return worker.attention(work, pe).append(before, inputs[0][pe], inputs[1][pe])

    return [worker.geometry.map(work.outputs[0].placement, append)]


def _scores(worker: Worker, work: Work, inputs: list[Pieces]) -> list[Pieces]:
    place = work.outputs[0].placement
    return [worker.geometry.map(place, lambda pe: worker.attention(work, pe).scores(inputs[0][pe], inputs[1][pe]))]


def _softmax(worker: Worker, work: Work, inputs: list[Pieces]) -> list[Pieces]:
    place = work.outputs[0].placement
    normalise = place != Shard("token")

    def run(pe: int) -> SoftmaxWeights:
        return worker.attention(work, pe).softmax(inputs[0][pe], normalise=normalise)

    return [worker.geometry.map(place, run)]


def _values(worker: Worker, work: Work, inputs: list[Pieces]) -> list[Pieces]:
    place = work.outputs[0].placement
    as_partial = place == Partial("softmax")

    def run(pe: int) -> Array:
        attention = worker.attention(work, pe)
        if as_partial:
            return attention.softmax_partial(inputs[0][pe], inputs[1][pe])
        values = attention.values(inputs[0][pe], inputs[1][pe])
        return values.reshape(len(values), attention.num_heads * attention.dims)

    return [worker.geometry.map(place, run)]


def _softmax_merge(worker: Worker, work: Work, inputs: list[Pieces]) -> list[Pieces]:
    if not isinstance(work.inputs[0].placement, Root):
        raise PlacementError("a softmax is divided where it has been merged: at the root")
    return [HubPieces(divide_partial(partial, worker.model.head_dim) for partial in inputs[0])]


FUNCTIONS: dict[str, Function] = {
    "add": _elementwise(_add),
    "argmax": _argmax,
    "bias": _bias,
    "embedding": _embedding,
    "gelu": _elementwise(gelu),
    "gelu_tanh": _elementwise(gelu_tanh),
    "kv_append": _kv_append,
    "layernorm": _norm,
    "matrix": _matrix,
    "receive": _receive,
    "rmsnorm": _norm,
    "rope": _rope,
    "scale": _scale,
    "scores": _scores,
    "select": _select,
    "silu_mul": _elementwise(_silu_mul),
    "softmax": _softmax,
    "softmax_merge": _softmax_merge,
    "sum_of_squares": _sum_of_squares,
    "tanh": _elementwise(lambda x: np.tanh(x)),
    "values": _values,
}

__all__ = ["FUNCTIONS", "Worker", "rotate_columns", "take"]
