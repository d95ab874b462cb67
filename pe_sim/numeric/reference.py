"""The unsharded reference: the forward pass as a plain function of weights and tokens, without placed graphs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter

import numpy as np

from pe_sim.config.models.model import ModelConfig
from pe_sim.numeric.arrays import Array, gelu, gelu_tanh, rope_frequencies, silu
from pe_sim.numeric.weights import Matrix, ModelWeights, NormWeights
from pe_sim.registry import Registry
from pe_sim.units import IntArray

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {"gelu": gelu, "gelu_tanh": gelu_tanh}


@dataclass(frozen=True)
class SequenceReference:
    """The tensors of the forward pass of one sequence of `length` tokens.

    Args:
        results: (length, size) by (layer, tensor) in program order, named as in the operator graph; layer is None
            outside the layers. The pooler's tensors have one row.
        keys, values: (length, kv heads, head_dim) a layer, keys as they are cached (rotated).
        output: (length, vocab) logits; (length, hidden) last hidden state of a model without an LM head.
        pooled: (hidden,) pooled output of an encoder.
    """

    results: dict[tuple[int | None, str], Array] = field(default_factory=dict)
    keys: list[Array] = field(default_factory=list)
    values: list[Array] = field(default_factory=list)
    output: Array = field(default_factory=lambda: np.zeros((0, 0)))
    pooled: Array | None = None


def run_reference(
    model: ModelConfig,
    weights: ModelWeights,
    tokens: Sequence[IntArray],
    token_types: Sequence[IntArray] | None = None,
) -> list[SequenceReference]:
    """The forward pass of every sequence of (length,) token ids; without token types all are type 0."""
    forward = FORWARDS[model.family]
    types = token_types or [np.zeros_like(ids) for ids in tokens]
    with np.errstate(all="ignore"):  # weights that are not finite give results that are not
        return [forward(model, weights, ids, kinds) for ids, kinds in zip(tokens, types, strict=True)]


def _forward_llama(model: ModelConfig, weights: ModelWeights, ids: IntArray, _: IntArray) -> SequenceReference:
    reference = SequenceReference()
    keep = reference.results
    x = keep[None, "stream"] = weights.tables[0][ids]
    cos, sin = _rotation(model, len(ids), x.dtype)
    for index, layer in enumerate(weights.layers):
        m = layer.matrices
        h = keep[index, "attention_normed"] = _rms_norm(x, layer.norms["attention_norm"], model.norm_eps)
        q, k, v = (_linear(h, m[name]) for name in "qkv")
        keep[index, "q"], keep[index, "k"], keep[index, "v"] = q, k, v
        q = keep[index, "q_rotated"] = _rotate(q, model.head_dim, cos, sin)
        k = keep[index, "k_rotated"] = _rotate(k, model.head_dim, cos, sin)
        attended = keep[index, "attended"] = _attention(model, reference, q, k, v, causal=True)
        o = keep[index, "o"] = _linear(attended, m["o"])
        x = keep[index, "middle"] = x + o
        h = keep[index, "ffn_normed"] = _rms_norm(x, layer.norms["ffn_norm"], model.norm_eps)
        gate, up = keep[index, "gate"], keep[index, "up"] = _linear(h, m["gate"]), _linear(h, m["up"])
        h = keep[index, "activated"] = silu(gate) * up
        down = keep[index, "down"] = _linear(h, m["down"])
        x = keep[index, "stream"] = x + down
    keep[None, "selected"] = x
    x = keep[None, "final_normed"] = _rms_norm(x, weights.norm(None, "final_norm"), model.norm_eps)
    return _with_output(model, reference, weights, x)


def _forward_gpt2(model: ModelConfig, weights: ModelWeights, ids: IntArray, _: IntArray) -> SequenceReference:
    reference = SequenceReference()
    keep = reference.results
    token_table, position_table = weights.tables
    keep[None, "token"], keep[None, "position"] = token_table[ids], position_table[: len(ids)]
    x = keep[None, "stream"] = token_table[ids] + position_table[: len(ids)]
    for index, layer in enumerate(weights.layers):
        m = layer.matrices
        h = keep[index, "attention_normed"] = _layer_norm(x, layer.norms["attention_norm"], model.norm_eps)
        q, k, v = (_linear(h, m[name]) for name in "qkv")
        keep[index, "q"], keep[index, "k"], keep[index, "v"] = q, k, v
        attended = keep[index, "attended"] = _attention(model, reference, q, k, v, causal=True)
        o = keep[index, "o"] = _linear(attended, m["o"])
        x = keep[index, "middle"] = x + o
        h = keep[index, "ffn_normed"] = _layer_norm(x, layer.norms["ffn_norm"], model.norm_eps)
        up = keep[index, "up"] = _linear(h, m["up"])
        h = keep[index, "activated"] = ACTIVATIONS[model.activation](up)
        down = keep[index, "down"] = _linear(h, m["down"])
        x = keep[index, "stream"] = x + down
    keep[None, "selected"] = x
    x = keep[None, "final_normed"] = _layer_norm(x, weights.norm(None, "final_norm"), model.norm_eps)
    return _with_output(model, reference, weights, x)


def _forward_bert(model: ModelConfig, weights: ModelWeights, ids: IntArray, types: IntArray) -> SequenceReference:
    reference = SequenceReference()
    keep = reference.results
    token, position, kind = (
        table[rows] for table, rows in zip(weights.tables, (ids, np.arange(len(ids)), types), strict=True)
    )
    keep[None, "token"], keep[None, "position"], keep[None, "token_type"] = token, position, kind
    keep[None, "token+position"] = token + position
    embedded = keep[None, "embedded"] = token + position + kind
    x = keep[None, "stream"] = _layer_norm(embedded, weights.norm(None, "embedding_norm"), model.norm_eps)
    for index, layer in enumerate(weights.layers):
        m = layer.matrices
        q, k, v = (_linear(x, m[name]) for name in "qkv")
        keep[index, "q"], keep[index, "k"], keep[index, "v"] = q, k, v
        attended = keep[index, "attended"] = _attention(model, reference, q, k, v, causal=False)
        o = keep[index, "o"] = _linear(attended, m["o"])
        h = keep[index, "attention_sum"] = x + o
        x = keep[index, "middle"] = _layer_norm(h, layer.norms["attention_norm"], model.norm_eps)
        up = keep[index, "up"] = _linear(x, m["up"])
        h = keep[index, "activated"] = ACTIVATIONS[model.activation](up)
        down = keep[index, "down"] = _linear(h, m["down"])
        h = keep[index, "ffn_sum"] = x + down
        x = keep[index, "stream"] = _layer_norm(h, layer.norms["ffn_norm"], model.norm_eps)
    first = keep[None, "first"] = x[:1]
    dense = keep[None, "pooler"] = _linear(first, weights.matrix(None, "pooler"))
    pooled = keep[None, "pooled"] = np.tanh(dense)
    return SequenceReference(keep, reference.keys, reference.values, output=x, pooled=pooled[0])


def _with_output(
    model: ModelConfig, reference: SequenceReference, weights: ModelWeights, x: Array
) -> SequenceReference:
    if model.has_lm_head:
        x = reference.results[None, "logits"] = _linear(x, weights.matrix(None, "lm_head"))
    return SequenceReference(reference.results, reference.keys, reference.values, output=x)


def _linear(x: Array, matrix: Matrix) -> Array:
    y: Array = x @ matrix.weight.T
    return y if matrix.bias is None else y + matrix.bias


def _rms_norm(x: Array, norm: NormWeights, eps: float) -> Array:
    y: Array = norm.gain * (x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + x.dtype.type(eps)))
    return y


def _layer_norm(x: Array, norm: NormWeights, eps: float) -> Array:
    assert norm.bias is not None
    centred = x - np.mean(x, axis=-1, keepdims=True)
    variance = np.mean(centred * centred, axis=-1, keepdims=True)
    y: Array = centred / np.sqrt(variance + x.dtype.type(eps)) * norm.gain + norm.bias
    return y


def _rotation(model: ModelConfig, length: int, dtype: np.dtype[np.floating]) -> tuple[Array, Array]:
    """(length, head_dim) cosines and sines; the two halves of a head are the two parts of each pair."""
    angles = np.arange(length)[:, None] * rope_frequencies(model)[None, :]
    doubled = np.concatenate([angles, angles], axis=-1)
    return np.cos(doubled).astype(dtype), np.sin(doubled).astype(dtype)


def _rotate(x: Array, head_dim: int, cos: Array, sin: Array) -> Array:
    heads = x.reshape(len(x), -1, head_dim)
    half = head_dim // 2
    turned = np.concatenate([-heads[..., half:], heads[..., :half]], axis=-1)
    rotated: Array = heads * cos[:, None] + turned * sin[:, None]
    return rotated.reshape(x.shape)


def _attention(
    model: ModelConfig, reference: SequenceReference, q: Array, k: Array, v: Array, *, causal: bool
) -> Array:
    """(length, heads * head_dim) attended values; keeps K and V in the reference."""
    length = len(q)
    keys, values = (x.reshape(length, model.num_kv_heads, model.head_dim) for x in (k, v))
    reference.keys.append(keys)
    reference.values.append(values)
    queries = q.reshape(length, model.num_heads, model.head_dim)
    hidden_pairs = np.triu(np.ones((length, length), dtype=bool), k=1) if causal else None
    attended = np.empty_like(queries)
    for head in range(model.num_heads):
        shared = head // model.heads_per_kv_head
        scores = queries[:, head] @ keys[:, shared].T / q.dtype.type(math.sqrt(model.head_dim))
        if hidden_pairs is not None:
            scores = np.where(hidden_pairs, -np.inf, scores)
        exponents = np.exp(scores - scores.max(axis=-1, keepdims=True))
        attended[:, head] = exponents / exponents.sum(axis=-1, keepdims=True) @ values[:, shared]
    return attended.reshape(length, model.q_size)


# Forward passes by family: (model, weights, token ids, token types) of one sequence -> every intermediate result.
FORWARDS: Registry[Callable[[ModelConfig, ModelWeights, IntArray, IntArray], SequenceReference]] = Registry(
    "pe_sim.models",
    {"bert": _forward_bert, "gpt2": _forward_gpt2, "llama": _forward_llama},
    take=attrgetter("forward"),
)
