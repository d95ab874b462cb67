"""The weights of a model in one structure for every family, and those of an array's share of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from pe_sim.config.models.model import ModelConfig
from pe_sim.graph.shares import OperatorShare, head_share
from pe_sim.numeric.arrays import Array
from pe_sim.units import IntArray


@dataclass(frozen=True, slots=True)
class Matrix:
    """A linear operator, y = W x + b: `weight` is (out, in), `bias` (out,)."""

    weight: Array
    bias: Array | None = None


@dataclass(frozen=True, slots=True)
class NormWeights:
    """The weights of a norm: `gain` and, for LayerNorm, `bias`, both (hidden,)."""

    gain: Array
    bias: Array | None = None


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """The weights of one layer: matrices and norms by the name of their graph operator."""

    matrices: Mapping[str, Matrix]
    norms: Mapping[str, NormWeights]


@dataclass(frozen=True, slots=True)
class ModelWeights:
    """All weights of a model.

    Args:
        tables: (rows, hidden) embedding tables: token, then position and token type where the family has them.
        layers: weights of each layer, in order.
        end_matrices: `lm_head` (the token table itself where it is tied), `pooler`, or nothing.
        end_norms: `final_norm` or `embedding_norm`.
        ignored: tensors that were given and not needed.
    """

    tables: tuple[Array, ...]
    layers: tuple[LayerWeights, ...]
    end_matrices: Mapping[str, Matrix]
    end_norms: Mapping[str, NormWeights]
    ignored: tuple[str, ...] = field(default=())

    def matrix(self, layer: int | None, operator: str) -> Matrix:
        """The matrix of an operator; `layer` is None outside the layers."""
        return (self.end_matrices if layer is None else self.layers[layer].matrices)[operator]

    def norm(self, layer: int | None, operator: str) -> NormWeights:
        """The gain (and bias) of a norm; `layer` is None outside the layers."""
        return (self.end_norms if layer is None else self.layers[layer].norms)[operator]


# ---- The weights of an array's share of a model: some layers, and the share of the operators of each.


def shared_weights(
    weights: ModelWeights, model: ModelConfig, share: OperatorShare, vocabulary: OperatorShare
) -> ModelWeights:
    """The weights that an array holds of all layers, and of the LM head.

    Args:
        weights, model: the whole model and its weights.
        share: share of heads and FFN columns; the first share has the biases that are added to sums.
        vocabulary: share of the LM head's rows.
    """
    layers = weights.layers
    if share.of > 1:
        layers = tuple(_layer(layer, model, share) for layer in weights.layers)
    ends = dict(weights.end_matrices)
    if vocabulary.of > 1 and "lm_head" in ends:
        rows = vocabulary.part(model.vocab_size)
        ends["lm_head"] = _rows(ends["lm_head"], np.arange(rows.start, rows.stop))
    return replace(weights, layers=layers, end_matrices=ends)


def from_layer(weights: ModelWeights, first: int) -> ModelWeights:
    """The same weights without the layers before `first`."""
    return replace(weights, layers=weights.layers[first:])


def kv_columns(model: ModelConfig, share: OperatorShare) -> slice:
    """The columns of keys and values that a share has."""
    if share.of == 1:
        return slice(0, model.kv_size)
    heads = head_share(model, share).kv
    return slice(heads.start * model.head_dim, heads.stop * model.head_dim)


def _layer(layer: LayerWeights, model: ModelConfig, share: OperatorShare) -> LayerWeights:
    heads, ffn = head_share(model, share), share.part(model.ffn_size)
    query = np.arange(heads.query.start * model.head_dim, heads.query.stop * model.head_dim)
    kv = np.arange(heads.kv.start * model.head_dim, heads.kv.stop * model.head_dim)
    columns = np.arange(ffn.start, ffn.stop)
    outputs = {"q": query, "k": kv, "v": kv, "gate": columns, "up": columns}
    inputs = {"o": query, "down": columns}
    matrices = {}
    for name, matrix in layer.matrices.items():
        if name in outputs:
            matrices[name] = _rows(matrix, outputs[name])
        else:
            bias = matrix.bias if share.index == 0 else None
            matrices[name] = Matrix(matrix.weight[:, inputs[name]], bias)
    return replace(layer, matrices=matrices)


def _rows(matrix: Matrix, rows: IntArray) -> Matrix:
    return Matrix(matrix.weight[rows], None if matrix.bias is None else matrix.bias[rows])
