"""Readers of weights, one for each model family: the tensors of its Hugging Face state dict, and their roles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter

import numpy as np

from pe_sim.config.models.model import ModelConfig
from pe_sim.numeric.arrays import Array
from pe_sim.numeric.weights import LayerWeights, Matrix, ModelWeights, NormWeights
from pe_sim.registry import Registry

Shape = tuple[int, ...]
Take = Callable[[str], Array]  # the tensor of that name, checked against its shape


@dataclass(frozen=True, slots=True)
class WeightReader:
    """Describes how one family stores its weights.

    Args:
        shapes: every tensor of a model by its name.
        assemble: gives the weights from a function that takes one tensor by name.
        prefix: prefix that names have if the model is inside a bigger class (with a head), and not on its own.
        old_endings: endings of names in old checkpoints, (new, old).
        known_endings: endings of tensors that are no weights, or not needed, and that are ignored without a word.
    """

    shapes: Callable[[ModelConfig], dict[str, Shape]]
    assemble: Callable[[ModelConfig, Take], ModelWeights]
    prefix: str
    old_endings: tuple[tuple[str, str], ...] = ()
    known_endings: tuple[str, ...] = ()


def _with_bias(name: str, shape: Shape, out: int, *, bias: bool) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {f"{name}.weight": shape}
    return shapes | ({f"{name}.bias": (out,)} if bias else {})


def _norm_shapes(name: str, size: int) -> dict[str, Shape]:
    return {f"{name}.weight": (size,), f"{name}.bias": (size,)}


def _take_norm(take: Take, name: str) -> NormWeights:
    return NormWeights(take(f"{name}.weight"), take(f"{name}.bias"))


def _take_linear(take: Take, name: str, *, bias: bool) -> Matrix:
    return Matrix(take(f"{name}.weight"), take(f"{name}.bias") if bias else None)


def _lm_head_shapes(model: ModelConfig) -> dict[str, Shape]:
    """The shape of the LM head by name, if it has a matrix of its own; else empty."""
    has_own = model.has_lm_head and not model.tie_word_embeddings
    return {"lm_head.weight": (model.vocab_size, model.hidden_size)} if has_own else {}


def _lm_head(model: ModelConfig, take: Take, table: Array) -> dict[str, Matrix]:
    if not model.has_lm_head:
        return {}
    return {"lm_head": Matrix(table if model.tie_word_embeddings else take("lm_head.weight"))}


# --------------------------------------------------------------------------------------------------------------- LLaMA
_LLAMA = {
    "q": "self_attn.q_proj",
    "k": "self_attn.k_proj",
    "v": "self_attn.v_proj",
    "o": "self_attn.o_proj",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}
_LLAMA_NORMS = {"attention_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}


def _llama_has_bias(model: ModelConfig, operator: str) -> bool:
    if operator in ("gate", "up", "down"):
        return model.mlp_bias
    return model.attention_bias if operator == "o" else model.has_qkv_bias


def _llama_shapes(model: ModelConfig) -> dict[str, Shape]:
    hidden, ffn = model.hidden_size, model.ffn_size
    sizes = {"q": (model.q_size, hidden), "k": (model.kv_size, hidden), "v": (model.kv_size, hidden)}
    sizes |= {"o": (hidden, model.q_size), "gate": (ffn, hidden), "up": (ffn, hidden), "down": (hidden, ffn)}
    shapes: dict[str, Shape] = {"model.embed_tokens.weight": (model.vocab_size, hidden)}
    for layer in range(model.num_layers):
        stem = f"model.layers.{layer}."
        for operator, name in _LLAMA.items():
            size = sizes[operator]
            shapes |= _with_bias(stem + name, size, size[0], bias=_llama_has_bias(model, operator))
        shapes |= {f"{stem}{name}.weight": (hidden,) for name in _LLAMA_NORMS.values()}
    shapes["model.norm.weight"] = (hidden,)
    return shapes | _lm_head_shapes(model)


def _assemble_llama(model: ModelConfig, take: Take) -> ModelWeights:
    table = take("model.embed_tokens.weight")
    layers = []
    for layer in range(model.num_layers):
        stem = f"model.layers.{layer}."
        matrices = {
            operator: _take_linear(take, stem + name, bias=_llama_has_bias(model, operator))
            for operator, name in _LLAMA.items()
        }
        norms = {norm: NormWeights(take(f"{stem}{name}.weight")) for norm, name in _LLAMA_NORMS.items()}
        layers.append(LayerWeights(matrices, norms))
    end_norms = {"final_norm": NormWeights(take("model.norm.weight"))}
    return ModelWeights((table,), tuple(layers), _lm_head(model, take, table), end_norms)


# --------------------------------------------------------------------------------------------------------------- GPT-2
_GPT2_NORMS = {"attention_norm": "ln_1", "ffn_norm": "ln_2"}


def _gpt2_shapes(model: ModelConfig) -> dict[str, Shape]:
    hidden, ffn = model.hidden_size, model.ffn_size
    shapes: dict[str, Shape] = {
        "transformer.wte.weight": (model.vocab_size, hidden),
        "transformer.wpe.weight": (model.max_position_embeddings, hidden),
    }
    for layer in range(model.num_layers):
        stem = f"transformer.h.{layer}."
        for norm in _GPT2_NORMS.values():
            shapes |= _norm_shapes(stem + norm, hidden)
        shapes |= _with_bias(f"{stem}attn.c_attn", (hidden, 3 * hidden), 3 * hidden, bias=model.has_qkv_bias)
        shapes |= _with_bias(f"{stem}attn.c_proj", (hidden, hidden), hidden, bias=model.attention_bias)
        shapes |= _with_bias(f"{stem}mlp.c_fc", (hidden, ffn), ffn, bias=model.mlp_bias)
        shapes |= _with_bias(f"{stem}mlp.c_proj", (ffn, hidden), hidden, bias=model.mlp_bias)
    shapes |= _norm_shapes("transformer.ln_f", hidden)
    return shapes | _lm_head_shapes(model)


def _assemble_gpt2(model: ModelConfig, take: Take) -> ModelWeights:
    def conv1d(name: str, *, bias: bool) -> Matrix:
        return Matrix(take(f"{name}.weight").T, take(f"{name}.bias") if bias else None)  # stored (in, out)

    table = take("transformer.wte.weight")
    layers = []
    for layer in range(model.num_layers):
        stem = f"transformer.h.{layer}."
        fused = conv1d(f"{stem}attn.c_attn", bias=model.has_qkv_bias)
        biases = [None] * 3 if fused.bias is None else np.split(fused.bias, 3)
        parts = zip("qkv", np.split(fused.weight, 3), biases, strict=True)
        matrices = {operator: Matrix(weight, bias) for operator, weight, bias in parts}
        matrices["o"] = conv1d(f"{stem}attn.c_proj", bias=model.attention_bias)
        matrices["up"] = conv1d(f"{stem}mlp.c_fc", bias=model.mlp_bias)
        matrices["down"] = conv1d(f"{stem}mlp.c_proj", bias=model.mlp_bias)
        layers.append(LayerWeights(matrices, {norm: _take_norm(take, stem + at) for norm, at in _GPT2_NORMS.items()}))
    end_norms = {"final_norm": _take_norm(take, "transformer.ln_f")}
    tables = (table, take("transformer.wpe.weight"))
    return ModelWeights(tables, tuple(layers), _lm_head(model, take, table), end_norms)


# ---------------------------------------------------------------------------------------------------------------- BERT
_BERT = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "o": "attention.output.dense",
    "up": "intermediate.dense",
    "down": "output.dense",
}
_BERT_NORMS = {"attention_norm": "attention.output.LayerNorm", "ffn_norm": "output.LayerNorm"}
_BERT_TABLES = ("word_embeddings", "position_embeddings", "token_type_embeddings")


def _bert_shapes(model: ModelConfig) -> dict[str, Shape]:
    hidden, ffn = model.hidden_size, model.ffn_size
    rows = (model.vocab_size, model.max_position_embeddings, model.type_vocab_size)
    shapes: dict[str, Shape] = {
        f"embeddings.{name}.weight": (count, hidden) for name, count in zip(_BERT_TABLES, rows, strict=True)
    }
    shapes |= _norm_shapes("embeddings.LayerNorm", hidden)
    for layer in range(model.num_layers):
        stem = f"encoder.layer.{layer}."
        for operator, name in _BERT.items():
            size = {"up": (ffn, hidden), "down": (hidden, ffn)}.get(operator, (hidden, hidden))
            shapes |= _with_bias(stem + name, size, size[0], bias=True)
        for norm in _BERT_NORMS.values():
            shapes |= _norm_shapes(stem + norm, hidden)
    return shapes | _with_bias("pooler.dense", (hidden, hidden), hidden, bias=True)


def _assemble_bert(model: ModelConfig, take: Take) -> ModelWeights:
    layers = []
    for layer in range(model.num_layers):
        stem = f"encoder.layer.{layer}."
        matrices = {operator: _take_linear(take, stem + name, bias=True) for operator, name in _BERT.items()}
        layers.append(LayerWeights(matrices, {norm: _take_norm(take, stem + at) for norm, at in _BERT_NORMS.items()}))
    tables = tuple(take(f"embeddings.{name}.weight") for name in _BERT_TABLES)
    end_norms = {"embedding_norm": _take_norm(take, "embeddings.LayerNorm")}
    pooler = {"pooler": _take_linear(take, "pooler.dense", bias=True)}
    return ModelWeights(tables, tuple(layers), pooler, end_norms)


_BUILT_IN: dict[str, WeightReader] = {
    "llama": WeightReader(
        _llama_shapes, _assemble_llama, prefix="model.", known_endings=("rotary_emb.inv_freq", "lm_head.weight")
    ),
    "gpt2": WeightReader(
        _gpt2_shapes,
        _assemble_gpt2,
        prefix="transformer.",
        known_endings=("attn.bias", "attn.masked_bias", "lm_head.weight"),
    ),
    "bert": WeightReader(
        _bert_shapes,
        _assemble_bert,
        prefix="bert.",
        old_endings=(("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta")),
        known_endings=("embeddings.position_ids",),
    ),
}
READERS: Registry[WeightReader] = Registry("pe_sim.models", _BUILT_IN, ("shapes", "assemble"), attrgetter("weights"))
