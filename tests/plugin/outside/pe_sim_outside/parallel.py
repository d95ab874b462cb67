"""A model family: attention and FFN of a decoder side by side, x + attention(norm(x)) + ffn(norm(x))."""

import numpy as np

from pe_sim.config.files.foreign import read_entries
from pe_sim.config.files.schema import Section, Size
from pe_sim.config.models.hf import LLAMA_KEYS
from pe_sim.config.models.model import LayerParameters, ModelConfig, ParameterCount, derive_head_dim
from pe_sim.graph.graph import STREAM, OperatorGraph
from pe_sim.graph.operators import Elementwise, Linear, Rope, Tensor
from pe_sim.graph.parts import (
    attention,
    attention_shape,
    decoder_epilogue,
    embed,
    hidden,
    norm,
    projections,
    residual,
    selected_rows,
)
from pe_sim.numeric.families import WeightReader
from pe_sim.numeric.reference import SequenceReference
from pe_sim.numeric.weights import LayerWeights, Matrix, ModelWeights, NormWeights

activations = ("silu",)


class HfParallel(Section):
    hidden_size: Size
    intermediate_size: Size
    num_hidden_layers: Size
    num_attention_heads: Size
    vocab_size: Size
    max_position_embeddings: Size = 2048


def read_config(raw, name):
    entries = {key: value for key, value in raw.items() if key != "model_type"}
    config, ignored = read_entries(HfParallel, entries, LLAMA_KEYS)
    return ModelConfig(
        name=name,
        family="parallel",
        num_layers=config.num_hidden_layers,
        hidden_size=config.hidden_size,
        num_heads=config.num_attention_heads,
        num_kv_heads=config.num_attention_heads,
        head_dim=derive_head_dim(config.hidden_size, config.num_attention_heads),
        ffn_size=config.intermediate_size,
        vocab_size=config.vocab_size,
        max_position_embeddings=config.max_position_embeddings,
        norm="rmsnorm",
        norm_eps=1e-6,
        activation="silu",
        gated_ffn=True,
        position="rope",
        tie_word_embeddings=True,
        attention_bias=False,
        mlp_bias=False,
        ignored_keys=ignored,
        unknown_keys=LLAMA_KEYS.not_understood(ignored),
    )


def count_parameters(model):
    width = model.hidden_size
    layer = LayerParameters(attention=4 * width * model.q_size, ffn=3 * width * model.ffn_size, norms=width)
    return ParameterCount(model.vocab_size * width, layer, model.num_layers, norms=width, head=0)


def build_graph(model, step):
    rows, shape = step.num_rows, attention_shape(model, step)
    rotated = (Tensor("q_rotated", "query", model.q_size), Tensor("k_rotated", "kv", model.kv_size))
    wide = (model.hidden_size, model.ffn_size, "hidden", "ffn")
    narrow = (model.ffn_size, model.hidden_size, "ffn", "hidden")
    gate, up, activated = (Tensor(name, "ffn", model.ffn_size) for name in ("gate", "up", "activated"))
    layer = (
        norm(model, rows, "attention_norm", STREAM, "normed"),
        *projections(model, rows, "normed"),
        Rope("rope", ("q", "k"), rotated, rows, shape),
        *attention(model, shape, rows, "q_rotated", "k_rotated"),
        Linear("gate", ("normed",), (gate,), rows, *wide, bias=False, bundle="gate+up"),
        Linear("up", ("normed",), (up,), rows, *wide, bias=False, bundle="gate+up"),
        Elementwise("silu_mul", ("gate", "up"), (activated,), rows, "silu_mul", model.ffn_size),
        Linear("down", ("activated",), (hidden("down", model),), rows, *narrow, bias=False, bundle="down"),
        residual(model, rows, "attention_add", STREAM, "o", "middle"),
        residual(model, rows, "ffn_add", "middle", "down", STREAM),
    )
    prologue = embed(model, rows, {"token": model.vocab_size}, STREAM)
    return OperatorGraph(prologue, layer, decoder_epilogue(model, step), model.num_layers, shape, selected_rows(step))


MATRICES = ("q", "k", "v", "o", "gate", "up", "down")


def _shapes(model):
    width, ffn = model.hidden_size, model.ffn_size
    of_ffn = {"gate": (ffn, width), "up": (ffn, width), "down": (width, ffn)}
    shapes = {"model.table.weight": (model.vocab_size, width), "model.norm.weight": (width,)}
    for layer in range(model.num_layers):
        shapes[f"model.layers.{layer}.norm.weight"] = (width,)
        shapes |= {f"model.layers.{layer}.{name}.weight": of_ffn.get(name, (width, width)) for name in MATRICES}
    return shapes


def _assemble(model, take):
    table, layers = take("model.table.weight"), []
    for layer in range(model.num_layers):
        stem = f"model.layers.{layer}."
        matrices = {name: Matrix(take(f"{stem}{name}.weight")) for name in MATRICES}
        layers.append(LayerWeights(matrices, {"attention_norm": NormWeights(take(f"{stem}norm.weight"))}))
    end = {"final_norm": NormWeights(take("model.norm.weight"))}
    return ModelWeights((table,), tuple(layers), {"lm_head": Matrix(table)}, end)


weights = WeightReader(_shapes, _assemble, prefix="model.")


def _norm(x, gain, eps):
    return gain * (x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + x.dtype.type(eps)))


def _rotate(heads, theta):
    """(heads, length, head_dim), the halves of a head turned against each other by position."""
    length, size = heads.shape[1:]
    angle = np.arange(length)[:, None] * theta ** -(np.arange(0, size, 2, dtype=np.float64) / size)
    cos, sin = np.cos(angle).astype(heads.dtype), np.sin(angle).astype(heads.dtype)
    first, second = np.split(heads, 2, axis=-1)
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def forward(model, weights, ids, _):
    """The layer as its paper has it; every intermediate result by the name that it has in the graph."""

    def heads(x):
        return x.reshape(len(ids), model.num_heads, model.head_dim).transpose(1, 0, 2)

    def rows(x):
        return x.transpose(1, 0, 2).reshape(len(ids), model.q_size)

    reference = SequenceReference()
    x = reference.results[None, "stream"] = weights.tables[0][ids]
    future = np.triu(np.ones((len(ids), len(ids)), dtype=bool), k=1)
    for index, layer in enumerate(weights.layers):
        w = {name: matrix.weight.T for name, matrix in layer.matrices.items()}
        h = _norm(x, layer.norms["attention_norm"].gain, model.norm_eps)
        q, k, v = h @ w["q"], h @ w["k"], h @ w["v"]
        turned_q, turned_k = _rotate(heads(q), model.rope_theta), _rotate(heads(k), model.rope_theta)
        scores = turned_q @ turned_k.transpose(0, 2, 1) / q.dtype.type(np.sqrt(model.head_dim))
        scores = np.exp(np.where(future, -np.inf, scores - scores.max(axis=-1, keepdims=True)))
        attended = rows(scores / scores.sum(axis=-1, keepdims=True) @ heads(v))
        reference.keys.append(turned_k.transpose(1, 0, 2))
        reference.values.append(heads(v).transpose(1, 0, 2))
        o, gate, up = attended @ w["o"], h @ w["gate"], h @ w["up"]
        activated = gate / (1 + np.exp(-gate)) * up
        down, middle = activated @ w["down"], x + o
        x = middle + down
        found = {"normed": h, "q": q, "k": k, "v": v, "q_rotated": rows(turned_q), "k_rotated": rows(turned_k)}
        found |= {"attended": attended, "o": o, "gate": gate, "up": up, "activated": activated, "down": down}
        found |= {"middle": middle, "stream": x}
        reference.results.update({(index, name): value for name, value in found.items()})
    last = _norm(x, weights.norm(None, "final_norm").gain, model.norm_eps)
    logits = last @ weights.matrix(None, "lm_head").weight.T
    reference.results.update({(None, "selected"): x, (None, "final_normed"): last, (None, "logits"): logits})
    return SequenceReference(reference.results, reference.keys, reference.values, output=logits)
