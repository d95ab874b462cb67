"""The weights of a model in one structure for every family."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pe_sim.numeric.arrays import Array


@dataclass(frozen=True, slots=True)
class Matrix:
    """y = W x + b: `weight` is (out, in), `bias` (out,)."""

    weight: Array
    bias: Array | None = None


@dataclass(frozen=True, slots=True)
class NormWeights:
    """`gain` and, for LayerNorm, `bias`, both (hidden,)."""

    gain: Array
    bias: Array | None = None


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """One layer: matrices and norms by the name of their graph operator."""

    matrices: Mapping[str, Matrix]
    norms: Mapping[str, NormWeights]


@dataclass(frozen=True, slots=True)
class ModelWeights:
    """All weights of a model.

    Args:
        tables: (rows, hidden) embedding tables: token, then position and token type where the family has them.
        layers: in order.
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
