"""The llama of files that state sizes alone: takes the sizes, gives a model; all else is as in the first Llama."""

from __future__ import annotations

from collections.abc import Mapping

from pe_sim.config.model import ModelConfig
from pe_sim.config.rope import DEFAULT_THETA


def plain_llama(
    *,
    name: str,
    num_layers: int,
    hidden_size: int,
    num_heads: int,
    num_kv_heads: int | None,
    head_dim: int,
    ffn_size: int,
    vocab_size: int,
    max_position_embeddings: int,
    norm_eps: float,
    rope_theta: float = DEFAULT_THETA,
    rope_scaling: Mapping[str, float | int | str] | None = None,
    ignored_keys: tuple[str, ...] = (),
) -> ModelConfig:
    """A llama without biases, with an LM head apart from the token table.

    Args:
        num_kv_heads: None: as many as query heads.
        rope_scaling: None: not scaled.
        name, num_layers, hidden_size, num_heads, head_dim, ffn_size, vocab_size, max_position_embeddings, norm_eps,
            rope_theta, ignored_keys: as of `ModelConfig`.
    """
    return ModelConfig(
        name=name,
        family="llama",
        num_layers=num_layers,
        hidden_size=hidden_size,
        num_heads=num_heads,
        num_kv_heads=num_kv_heads or num_heads,
        head_dim=head_dim,
        ffn_size=ffn_size,
        vocab_size=vocab_size,
        max_position_embeddings=max_position_embeddings,
        norm="rmsnorm",
        norm_eps=norm_eps,
        activation="silu",
        gated_ffn=True,
        position="rope",
        tie_word_embeddings=False,
        attention_bias=False,
        mlp_bias=False,
        rope_theta=rope_theta,
        rope_scaling=dict(rope_scaling or {}),
        ignored_keys=ignored_keys,
    )
