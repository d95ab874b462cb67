"""Pieces that several model families are built of."""

from __future__ import annotations

from pe_sim.config.models.model import ModelConfig
from pe_sim.config.step import Decode, Prefill
from pe_sim.graph.graph import STREAM
from pe_sim.graph.operators import (
    Argmax,
    AttentionShape,
    Element,
    Elementwise,
    Embedding,
    KvAppend,
    Linear,
    Norm,
    Operator,
    Rows,
    Scores,
    Select,
    Softmax,
    Tensor,
    Values,
)

Step = Decode | Prefill


def attention_shape(model: ModelConfig, step: Step, *, causal: bool = True) -> AttentionShape:
    """The attention geometry of `step` on `model`; an encoder's rows see every token."""
    skips = isinstance(step, Decode) or step.causal == "skip"
    return AttentionShape(
        num_heads=model.num_heads,
        num_kv_heads=model.num_kv_heads,
        head_dim=model.head_dim,
        new_lens=tuple(span.new_len for span in step.sequences),
        context_lens=tuple(span.context_len for span in step.sequences),
        causal_skip=causal and skips,
    )


def selected_rows(step: Step) -> int | None:
    """Rows of each sequence that logits are computed for; None: every new row."""
    return 1 if isinstance(step, Prefill) and step.logits == "last" else None


def hidden(name: str, model: ModelConfig) -> Tensor:
    """A tensor of the hidden dim."""
    return Tensor(name, "hidden", model.hidden_size)


def embed(model: ModelConfig, rows: int, tables: dict[str, int], result: str) -> tuple[Operator, ...]:
    """Looks up one row of each table (name -> rows of the table) and adds them up to tensor `result`."""
    if len(tables) == 1:
        return (Embedding("embedding", (), (hidden(result, model),), rows, model.hidden_size, tuple(tables.values())),)
    names = tuple(tables)
    outputs = tuple(hidden(name, model) for name in names)
    operators: list[Operator] = [Embedding("embedding", (), outputs, rows, model.hidden_size, tuple(tables.values()))]
    total = names[0]
    for name in names[1:]:
        last = name == names[-1]
        output = hidden(result if last else f"{total}+{name}", model)
        operators.append(Elementwise(f"add_{name}", (total, name), (output,), rows, "add", model.hidden_size))
        total = output.name
    return tuple(operators)


def projections(model: ModelConfig, rows: int, source: str) -> tuple[Linear, Linear, Linear]:
    """The projections q, k and v of `source`, one bundle."""

    def project(name: str, dim: str, size: int) -> Linear:
        sizes = (model.hidden_size, size, "hidden", dim)
        output = Tensor(name, dim, size)
        return Linear(name, (source,), (output,), rows, *sizes, bias=model.has_qkv_bias, bundle="q+k+v")

    return (
        project("q", "query", model.q_size),
        project("k", "kv", model.kv_size),
        project("v", "kv", model.kv_size),
    )


def attention(model: ModelConfig, shape: AttentionShape, rows: int, queries: str, keys: str) -> tuple[Operator, ...]:
    """The operators from cache append to the o projection, of tensors `queries`, `keys` and v."""
    cache, scores = Tensor("cache", "kv", 0), Tensor("scores", "score", 0)
    probabilities, attended = Tensor("probabilities", "score", 0), Tensor("attended", "query", model.q_size)
    sizes = (model.q_size, model.hidden_size, "query", "hidden")
    return (
        KvAppend("kv_append", (keys, "v"), (cache,), rows, shape),
        Scores("scores", (queries, "cache"), (scores,), rows, shape),
        Softmax("softmax", ("scores",), (probabilities,), rows, shape),
        Values("values", ("probabilities", "cache"), (attended,), rows, shape),
        Linear("o", ("attended",), (hidden("o", model),), rows, *sizes, bias=model.attention_bias, bundle="o"),
    )


def residual(model: ModelConfig, rows: int, name: str, stream: str, branch: str, result: str) -> Elementwise:
    """The residual add: result = stream + branch."""
    return Elementwise(name, (stream, branch), (hidden(result, model),), rows, "add", model.hidden_size)


def norm(model: ModelConfig, rows: int, name: str, source: str, result: str) -> Norm:
    """The family's norm over the hidden dim."""
    return Norm(name, (source,), (hidden(result, model),), rows, model.norm, model.hidden_size)


def plain_ffn(model: ModelConfig, rows: int, source: str) -> tuple[Operator, ...]:
    """An FFN without a gate: up, activation and down."""
    up, activated = Tensor("up", "ffn", model.ffn_size), Tensor("activated", "ffn", model.ffn_size)
    wide = (model.hidden_size, model.ffn_size, "hidden", "ffn")
    narrow = (model.ffn_size, model.hidden_size, "ffn", "hidden")
    return (
        Linear("up", (source,), (up,), rows, *wide, bias=model.mlp_bias, bundle="up"),
        Elementwise(model.activation, ("up",), (activated,), rows, model.activation, model.ffn_size),
        Linear("down", ("activated",), (hidden("down", model),), rows, *narrow, bias=model.mlp_bias, bundle="down"),
    )


def decoder_epilogue(model: ModelConfig, step: Step) -> tuple[Operator, ...]:
    """The final norm and, where the model has an LM head, that and greedy argmax, over the rows the step gives."""
    rows = step.logits_rows
    selected = Tensor("selected", "hidden", model.hidden_size, Rows.SELECTED)
    normed = Tensor("final_normed", "hidden", model.hidden_size, Rows.SELECTED)
    logits = Tensor("logits", "vocab", model.vocab_size, Rows.SELECTED)
    best = Tensor("best", "scalar", 1, Rows.SELECTED, Element.CANDIDATE)
    sizes = (model.hidden_size, model.vocab_size, "hidden", "vocab")
    end = (
        Select("select", (STREAM,), (selected,), rows),
        Norm("final_norm", ("selected",), (normed,), rows, model.norm, model.hidden_size),
    )
    if not model.has_lm_head:
        return end
    return (
        *end,
        Linear("lm_head", ("final_normed",), (logits,), rows, *sizes, bias=False, bundle="lm_head"),
        Argmax("argmax", ("logits",), (best,), rows, model.vocab_size),
    )
