"""LLaMA: pre-norm decoder layers with grouped-query attention, RoPE and a gated FFN."""

from __future__ import annotations

from pe_sim.config.models.model import ModelConfig
from pe_sim.config.step import Decode, Prefill
from pe_sim.graph.graph import STREAM, OperatorGraph
from pe_sim.graph.operators import Elementwise, Linear, Operator, Rope, Tensor
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


def build_llama(model: ModelConfig, step: Decode | Prefill) -> OperatorGraph:
    """The graph of one decode or prefill step of a LLaMA model."""
    rows, shape = step.num_rows, attention_shape(model, step)
    rotated = (Tensor("q_rotated", "query", model.q_size), Tensor("k_rotated", "kv", model.kv_size))
    layer = (
        norm(model, rows, "attention_norm", STREAM, "attention_normed"),
        *projections(model, rows, "attention_normed"),
        Rope("rope", ("q", "k"), rotated, rows, shape),
        *attention(model, shape, rows, "q_rotated", "k_rotated"),
        residual(model, rows, "attention_add", STREAM, "o", "middle"),
        norm(model, rows, "ffn_norm", "middle", "ffn_normed"),
        *_gated_ffn(model, rows),
        residual(model, rows, "ffn_add", "middle", "down", STREAM),
    )
    prologue = embed(model, rows, {"token": model.vocab_size}, STREAM)
    epilogue = decoder_epilogue(model, step)
    return OperatorGraph(prologue, layer, epilogue, model.num_layers, shape, selected_rows(step))


def _gated_ffn(model: ModelConfig, rows: int) -> tuple[Operator, ...]:
    def widen(name: str) -> Linear:
        output = Tensor(name, "ffn", model.ffn_size)
        sizes = (model.hidden_size, model.ffn_size, "hidden", "ffn")
        return Linear(name, ("ffn_normed",), (output,), rows, *sizes, bias=model.mlp_bias, bundle="gate+up")

    activated = Tensor("activated", "ffn", model.ffn_size)
    sizes = (model.ffn_size, model.hidden_size, "ffn", "hidden")
    return (
        widen("gate"),
        widen("up"),
        Elementwise("silu_mul", ("gate", "up"), (activated,), rows, "silu_mul", model.ffn_size),
        Linear("down", ("activated",), (hidden("down", model),), rows, *sizes, bias=model.mlp_bias, bundle="down"),
    )
