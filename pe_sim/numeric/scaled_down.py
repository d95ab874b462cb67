"""Small models that are like big ones: takes a model, gives one of its family that is quick to compute."""

from __future__ import annotations

from dataclasses import replace

from pe_sim.config.model import ModelConfig

_MOST_KV_HEADS = 4
_MOST_HEADS_PER_KV_HEAD = 4
_MOST_HEADS = 8
_MOST_HEAD_DIM = 8
_MOST_LAYERS = 4
_MOST_ROWS_OF_TABLES = 128
_MOST_FFN = 512


def scaled_down(model: ModelConfig, num_pes: int, *, num_layers: int | None = None) -> ModelConfig:
    """A small model with the structure of `model`: its family, biases, activation, rotary scaling and head sharing.

    Args:
        num_pes: of the array it is for; the FFN and the vocabulary get uneven shards on it, and, up to a bound, every
            PE gets a share.
        num_layers: instead of at most four, for workflows that were written for a number of layers.
    """
    num_kv_heads, heads_per_kv_head = _heads(model)
    head_dim = min(model.head_dim, _MOST_HEAD_DIM)
    num_heads = num_kv_heads * heads_per_kv_head
    hidden_size = num_heads * head_dim
    if model.q_size != model.hidden_size:  # a head_dim of its own: the ratio shows up in the shapes of q and o
        hidden_size += head_dim
    share = max(num_pes, hidden_size)
    return replace(
        model,
        name=f"{model.name}, scaled down",
        num_layers=num_layers or min(model.num_layers, _MOST_LAYERS),
        hidden_size=hidden_size,
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        ffn_size=min(share + share // 2 + 1, _MOST_FFN),
        vocab_size=min(share + 3, _MOST_ROWS_OF_TABLES, model.vocab_size),
        max_position_embeddings=min(model.max_position_embeddings, _MOST_ROWS_OF_TABLES),
    )


def _heads(model: ModelConfig) -> tuple[int, int]:
    """KV heads, and query heads to each: one kv head stays one, one query head to each stays one."""
    num_kv_heads = min(model.num_kv_heads, _MOST_KV_HEADS)
    if model.heads_per_kv_head > 1 and model.num_kv_heads > 1:
        num_kv_heads = min(num_kv_heads, _MOST_HEADS // 2)
    limit = min(_MOST_HEADS_PER_KV_HEAD, max(_MOST_HEADS // num_kv_heads, 1))
    return num_kv_heads, min(model.heads_per_kv_head, limit)
