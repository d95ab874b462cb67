"""A LLaMA step in integers, computed whole with NumPy: what every distribution of it has to give.

Products of int16 activations with int8 weights are summed up in 32 bits, shifted right and kept as int16. What the RTL
has no unit for is left out or replaced: norms and RoPE are copies, softmax is a shift (and so its merge a plain sum),
SiLU is left out of silu_mul. Nothing may saturate, as a saturated sum would depend on who adds up what.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pe_sim.config.models.model import ModelConfig
from pe_sim.config.step import Decode, Prefill

Ints = NDArray[np.int64]
Key = tuple[int | None, str]  # layer, tensor

SHIFTS: Mapping[str, int] = {"q": 4, "k": 4, "v": 4, "o": 6, "gate": 0, "up": 0, "down": 5, "lm_head": 2}
CACHE_SHIFT = 1
SOFTMAX_SHIFT = 5
VALUES_SHIFT = 6
PRODUCT_SHIFT = 12  # of gate times up
LARGEST_WEIGHT, LARGEST_EMBEDDING, LARGEST_CACHED = 2, 60, 50


@dataclass(frozen=True)
class IntegerWeights:
    """Matrices (outputs, inner) of every layer by operator, the LM head's beside the layers, and the embedding."""

    embedding: Ints
    matrices: Mapping[tuple[int | None, str], Ints]


@dataclass(frozen=True)
class IntegerInputs:
    """What a step begins with: the new tokens, and K and V (context, kv heads, head_dim) of every layer."""

    tokens: tuple[int, ...]
    keys: tuple[Ints, ...]
    values: tuple[Ints, ...]


@dataclass
class IntegerStep:
    """What a step gives.

    Args:
        tensors: (rows, size) activations; scores and probabilities are (heads, rows, tokens).
        sums: (rows, size) sums that were not yet shifted, where the root has them so.
        winners: (rows, 2) the largest logit and its index.
        keys, values: of every layer after the step, as in `IntegerInputs`.
    """

    tensors: dict[Key, Ints] = field(default_factory=dict)
    sums: dict[Key, Ints] = field(default_factory=dict)
    winners: Ints | None = None
    keys: list[Ints] = field(default_factory=list)
    values: list[Ints] = field(default_factory=list)

    def narrow(self, key: Key, sums: Ints, shift: int) -> Ints:
        """The activation that sums become, kept with them."""
        self.sums[key] = _fitting(sums, 32)
        return self.keep(key, sums >> shift)

    def keep(self, key: Key, values: Ints) -> Ints:
        """An activation."""
        self.tensors[key] = _fitting(values, 16)
        return values


def random_weights(model: ModelConfig, rng: np.random.Generator) -> IntegerWeights:
    """Small enough that nothing saturates."""
    hidden, ffn = model.hidden_size, model.ffn_size
    shapes = {
        "q": (model.q_size, hidden),
        "k": (model.kv_size, hidden),
        "v": (model.kv_size, hidden),
        "o": (hidden, model.q_size),
        "gate": (ffn, hidden),
        "up": (ffn, hidden),
        "down": (hidden, ffn),
    }

    def draw(shape: tuple[int, int]) -> Ints:
        return rng.integers(-LARGEST_WEIGHT, LARGEST_WEIGHT + 1, shape)

    matrices: dict[tuple[int | None, str], Ints] = {
        (layer, name): draw(shape) for layer in range(model.num_layers) for name, shape in shapes.items()
    }
    matrices[None, "lm_head"] = draw((model.vocab_size, hidden))
    embedding = rng.integers(-LARGEST_EMBEDDING, LARGEST_EMBEDDING + 1, (model.vocab_size, hidden))
    return IntegerWeights(embedding, matrices)


def random_inputs(model: ModelConfig, step: Decode | Prefill, rng: np.random.Generator) -> IntegerInputs:
    """Tokens and a filled cache of the step's one sequence."""
    (span,) = step.sequences
    shape = (span.context_len, model.num_kv_heads, model.head_dim)

    def draw() -> tuple[Ints, ...]:
        return tuple(rng.integers(-LARGEST_CACHED, LARGEST_CACHED + 1, shape) for _ in range(model.num_layers))

    tokens = rng.integers(0, model.vocab_size, span.new_len).tolist()
    return IntegerInputs(tuple(tokens), draw(), draw())


def integer_step(
    model: ModelConfig, step: Decode | Prefill, weights: IntegerWeights, inputs: IntegerInputs
) -> IntegerStep:
    """The whole step."""
    done = IntegerStep()
    stream = done.keep((None, "stream"), weights.embedding[list(inputs.tokens)])
    for layer in range(model.num_layers):
        stream = _layer(done, model, layer, weights, inputs, stream)
    last_only = isinstance(step, Prefill) and step.logits == "last"
    rows = slice(-1, None) if last_only else slice(None)
    selected = done.keep((None, "selected"), stream[rows])
    done.sums[None, "selected"] = done.sums[model.num_layers - 1, "stream"][rows]
    normed = done.keep((None, "final_normed"), selected)
    logits = done.narrow((None, "logits"), normed @ weights.matrices[None, "lm_head"].T, SHIFTS["lm_head"])
    winners = logits.argmax(axis=1)
    done.winners = np.stack([logits[np.arange(len(logits)), winners], winners], axis=1)
    return done


def _layer(
    done: IntegerStep, model: ModelConfig, layer: int, weights: IntegerWeights, inputs: IntegerInputs, stream: Ints
) -> Ints:
    def product(name: str, source: Ints) -> Ints:
        return source @ weights.matrices[layer, name].T

    normed = done.keep((layer, "attention_normed"), stream)
    q, k, v = (done.narrow((layer, name), product(name, normed), SHIFTS[name]) for name in ("q", "k", "v"))
    done.keep((layer, "q_rotated"), q)
    done.keep((layer, "k_rotated"), k)
    done.keys.append(_appended(inputs.keys[layer], k))
    done.values.append(_appended(inputs.values[layer], v))
    attended = _attention(done, model, layer, q)
    projected = product("o", attended)
    done.narrow((layer, "o"), projected, SHIFTS["o"])
    middle = done.narrow((layer, "middle"), projected + (stream << SHIFTS["o"]), SHIFTS["o"])
    ffn_normed = done.keep((layer, "ffn_normed"), middle)
    gate = done.narrow((layer, "gate"), product("gate", ffn_normed), SHIFTS["gate"])
    up = done.narrow((layer, "up"), product("up", ffn_normed), SHIFTS["up"])
    activated = done.keep((layer, "activated"), _fitting(gate * up, 32) >> PRODUCT_SHIFT)
    down = product("down", activated)
    done.narrow((layer, "down"), down, SHIFTS["down"])
    return done.narrow((layer, "stream"), down + (middle << SHIFTS["down"]), SHIFTS["down"])


def _attention(done: IntegerStep, model: ModelConfig, layer: int, q: Ints) -> Ints:
    queries = q.reshape(len(q), model.num_heads, model.head_dim)
    kv_of_head = np.arange(model.num_heads) // (model.num_heads // model.num_kv_heads)
    keys, values = done.keys[layer][:, kv_of_head], done.values[layer][:, kv_of_head]
    scores = _fitting(np.einsum("ihd,thd->hit", queries, keys), 32)
    done.tensors[layer, "scores"] = scores
    probabilities = done.keep((layer, "probabilities"), scores >> SOFTMAX_SHIFT)
    weighted = np.einsum("hit,thd->ihd", probabilities, values).reshape(len(q), -1)
    statistics = np.zeros((len(q), 2 * model.num_heads), dtype=np.int64)
    done.sums[layer, "attended_partial"] = np.concatenate([weighted, statistics], axis=1)
    return done.narrow((layer, "attended"), weighted, VALUES_SHIFT)


def _appended(cache: Ints, new: Ints) -> Ints:
    """The cache with the new rows of K or V."""
    rows = _fitting(new >> CACHE_SHIFT, 8).reshape(len(new), *cache.shape[1:])
    return np.concatenate([cache, rows])


def _fitting(values: Ints, bits: int) -> Ints:
    """The values, which fit so many bits."""
    assert -(1 << (bits - 1)) <= values.min() <= values.max() < 1 << (bits - 1), (values.min(), values.max(), bits)
    return values
