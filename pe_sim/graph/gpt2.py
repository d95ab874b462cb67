"""GPT-2: pre-norm decoder layers with learned positions, LayerNorm, biases and a GELU FFN."""

from __future__ import annotations

from pe_sim.config.models.model import ModelConfig
from pe_sim.config.step import Decode, Prefill
from pe_sim.graph.graph import STREAM, OperatorGraph
from pe_sim.graph.parts import (
    attention,
    attention_shape,
    decoder_epilogue,
    embed,
    norm,
    plain_ffn,
    projections,
    residual,
    selected_rows,
)


def build_gpt2(model: ModelConfig, step: Decode | Prefill) -> OperatorGraph:
    """The graph of one decode or prefill step of a GPT-2 model; its fused c_attn runs as q, k and v."""
    rows, shape = step.num_rows, attention_shape(model, step)
    tables = {"token": model.vocab_size, "position": model.max_position_embeddings}
    layer = (
        norm(model, rows, "attention_norm", STREAM, "attention_normed"),
        *projections(model, rows, "attention_normed"),
        *attention(model, shape, rows, "q", "k"),
        residual(model, rows, "attention_add", STREAM, "o", "middle"),
        norm(model, rows, "ffn_norm", "middle", "ffn_normed"),
        *plain_ffn(model, rows, "ffn_normed"),
        residual(model, rows, "ffn_add", "middle", "down", STREAM),
    )
    prologue = embed(model, rows, tables, STREAM)
    epilogue = decoder_epilogue(model, step)
    return OperatorGraph(prologue, layer, epilogue, model.num_layers, shape, selected_rows(step))
