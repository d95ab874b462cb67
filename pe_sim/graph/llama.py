"""LLaMA: pre-norm decoder layers with grouped-query attention, RoPE and a gated FFN."""

from __future__ import annotations

from pe_sim.config.model import ModelConfig
from pe_sim.config.step import Decode, Prefill
from pe_sim.graph.graph import STREAM, OperatorGraph
from pe_sim.graph.operators import (
    Argmax,
    AttentionShape,
    Elementwise,
    Embedding,
    KvAppend,
    Linear,
    Norm,
    Operator,
    Rope,
    Scores,
    Select,
    Softmax,
    Values,
)
from pe_sim.graph.tensors import Element, Rows, Tensor


def build_llama(model: ModelConfig, step: Decode | Prefill) -> OperatorGraph:
    """The graph of one decode or prefill step of a LLaMA model."""
    rows = step.num_rows
    embedding = Embedding("embedding", (), (_hidden(STREAM, model),), rows, model.hidden_size, (model.vocab_size,))
    layer = (*_attention_half(model, step), *_ffn_half(model, rows))
    return OperatorGraph((embedding,), layer, decoder_epilogue(model, step), model.num_layers)


def attention_shape(model: ModelConfig, step: Decode | Prefill) -> AttentionShape:
    """The attention geometry of `step` on `model`."""
    return AttentionShape(
        num_heads=model.num_heads,
        num_kv_heads=model.num_kv_heads,
        head_dim=model.head_dim,
        new_lens=tuple(span.new_len for span in step.sequences),
        context_lens=tuple(span.context_len for span in step.sequences),
        causal_skip=isinstance(step, Decode) or step.causal == "skip",
    )


def projections(model: ModelConfig, rows: int, source: str) -> tuple[Linear, Linear, Linear]:
    """q, k and v of `source`, one bundle."""

    def project(name: str, dim: str, size: int) -> Linear:
        output = Tensor(name, dim, size)
        sizes = (model.hidden_size, size, "hidden", dim)
        return Linear(name, (source,), (output,), rows, *sizes, bias=model.attention_bias, bundle="q+k+v")

    return (
        project("q", "query", model.q_size),
        project("k", "kv", model.kv_size),
        project("v", "kv", model.kv_size),
    )


def decoder_epilogue(model: ModelConfig, step: Decode | Prefill) -> tuple[Operator, ...]:
    """Final norm, LM head and greedy argmax over the rows that logits are computed for."""
    rows = step.logits_rows
    selected = Tensor("selected", "hidden", model.hidden_size, Rows.LOGITS)
    normed = Tensor("final_normed", "hidden", model.hidden_size, Rows.LOGITS)
    logits = Tensor("logits", "vocab", model.vocab_size, Rows.LOGITS)
    best = Tensor("best", "scalar", 1, Rows.LOGITS, Element.CANDIDATE)
    sizes = (model.hidden_size, model.vocab_size, "hidden", "vocab")
    return (
        Select("select", (STREAM,), (selected,), rows),
        Norm("final_norm", ("selected",), (normed,), rows, model.norm, model.hidden_size),
        Linear("lm_head", ("final_normed",), (logits,), rows, *sizes, bias=False, bundle="lm_head"),
        Argmax("argmax", ("logits",), (best,), rows, model.vocab_size),
    )


def _attention_half(model: ModelConfig, step: Decode | Prefill) -> tuple[Operator, ...]:
    rows = step.num_rows
    shape = attention_shape(model, step)
    rotated = (Tensor("q_rotated", "query", model.q_size), Tensor("k_rotated", "kv", model.kv_size))
    cache, scores = Tensor("cache", "kv", 0), Tensor("scores", "score", 0)
    probabilities, attended = Tensor("probabilities", "score", 0), Tensor("attended", "query", model.q_size)
    sizes = (model.q_size, model.hidden_size, "query", "hidden")
    return (
        Norm("attention_norm", (STREAM,), (_hidden("attention_normed", model),), rows, model.norm, model.hidden_size),
        *projections(model, rows, "attention_normed"),
        Rope("rope", ("q", "k"), rotated, rows, shape),
        KvAppend("kv_append", ("k_rotated", "v"), (cache,), rows, shape),
        Scores("scores", ("q_rotated", "cache"), (scores,), rows, shape),
        Softmax("softmax", ("scores",), (probabilities,), rows, shape),
        Values("values", ("probabilities", "cache"), (attended,), rows, shape),
        Linear("o", ("attended",), (_hidden("o", model),), rows, *sizes, bias=model.attention_bias, bundle="o"),
        Elementwise("attention_add", (STREAM, "o"), (_hidden("middle", model),), rows, "add", model.hidden_size),
    )


def _ffn_half(model: ModelConfig, rows: int) -> tuple[Operator, ...]:
    def widen(name: str) -> Linear:
        output = Tensor(name, "ffn", model.ffn_size)
        sizes = (model.hidden_size, model.ffn_size, "hidden", "ffn")
        return Linear(name, ("ffn_normed",), (output,), rows, *sizes, bias=model.mlp_bias, bundle="gate+up")

    activated = Tensor("activated", "ffn", model.ffn_size)
    sizes = (model.ffn_size, model.hidden_size, "ffn", "hidden")
    return (
        Norm("ffn_norm", ("middle",), (_hidden("ffn_normed", model),), rows, model.norm, model.hidden_size),
        widen("gate"),
        widen("up"),
        Elementwise("silu_mul", ("gate", "up"), (activated,), rows, "silu_mul", model.ffn_size),
        Linear("down", ("activated",), (_hidden("down", model),), rows, *sizes, bias=model.mlp_bias, bundle="down"),
        Elementwise("ffn_add", ("middle", "down"), (_hidden(STREAM, model),), rows, "add", model.hidden_size),
    )


def _hidden(name: str, model: ModelConfig) -> Tensor:
    return Tensor(name, "hidden", model.hidden_size)
