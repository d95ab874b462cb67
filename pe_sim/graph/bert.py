"""BERT: an encoder with post-norm layers, token types and a pooler; its rows see every token and nothing is cached."""

from __future__ import annotations

from pe_sim.config.models.model import ModelConfig
from pe_sim.config.step import Decode, Prefill
from pe_sim.graph.graph import STREAM, OperatorGraph
from pe_sim.graph.operators import Elementwise, Linear, Operator, Rows, Select, Tensor
from pe_sim.graph.parts import attention, attention_shape, embed, norm, plain_ffn, projections, residual


def build_bert(model: ModelConfig, step: Decode | Prefill) -> OperatorGraph:
    """The graph of one pass of a BERT encoder over whole sequences."""
    rows, shape = step.num_rows, attention_shape(model, step, causal=False)
    tables = {
        "token": model.vocab_size,
        "position": model.max_position_embeddings,
        "token_type": model.type_vocab_size,
    }
    layer = (
        *projections(model, rows, STREAM),
        *attention(model, shape, rows, "q", "k"),
        residual(model, rows, "attention_add", STREAM, "o", "attention_sum"),
        norm(model, rows, "attention_norm", "attention_sum", "middle"),
        *plain_ffn(model, rows, "middle"),
        residual(model, rows, "ffn_add", "middle", "down", "ffn_sum"),
        norm(model, rows, "ffn_norm", "ffn_sum", STREAM),
    )
    prologue = (
        *embed(model, rows, tables, "embedded"),
        norm(model, rows, "embedding_norm", "embedded", STREAM),
    )
    return OperatorGraph(
        prologue,
        layer,
        _pooler(model, len(step.sequences)),
        model.num_layers,
        shape,
        selected_per_sequence=1,
        select="first",
        keeps_cache=False,
    )


def _pooler(model: ModelConfig, rows: int) -> tuple[Operator, ...]:
    """The pooler: tanh of a dense layer over the first row of each sequence."""
    first = Tensor("first", "hidden", model.hidden_size, Rows.SELECTED)
    dense = Tensor("pooler", "hidden", model.hidden_size, Rows.SELECTED)
    pooled = Tensor("pooled", "hidden", model.hidden_size, Rows.SELECTED)
    sizes = (model.hidden_size, model.hidden_size, "hidden", "hidden")
    return (
        Select("select", (STREAM,), (first,), rows),
        Linear("pooler", ("first",), (dense,), rows, *sizes, bias=True, bundle="pooler"),
        Elementwise("tanh", ("pooler",), (pooled,), rows, "tanh", model.hidden_size),
    )
