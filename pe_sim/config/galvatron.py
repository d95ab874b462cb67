"""Galvatron's `meta_configs/*.json` (llama, gpt and bert): takes the mapping, gives a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pydantic import Field

from pe_sim.config.hf import read_bert, read_gpt2
from pe_sim.config.model import ModelConfig
from pe_sim.config.model_checks import derive_head_dim
from pe_sim.config.model_fields import KeyRules, Positive, Refusal, Size, StrictSchema, sort_keys, validate
from pe_sim.config.plain_llama import plain_llama
from pe_sim.config.rope import DEFAULT_THETA
from pe_sim.errors import InputError

_EXPERTS: Final = Refusal("a mixture of experts")
_LLAMA_KEYS: Final = KeyRules(
    ignored=frozenset({"hidden_dropout", "attention_dropout", "initializer_range", "bos_id", "eos_id", "pad_id"}),
    refused={
        "num_local_experts": _EXPERTS,
        "num_experts": _EXPERTS,
        "num_experts_per_tok": _EXPERTS,
        "moe_ffn_dim": _EXPERTS,
        "ffn_dim_multiplier": Refusal("Meta's multiplier beside Galvatron's keys; state ffn_dim"),
        "sliding_window": Refusal("attention over a sliding window"),
    },
)
# A BERT config of Galvatron's is told from others with Hugging Face names by what it does not have.
_NOT_BERT: Final = frozenset({"num_key_value_heads", "rms_norm_eps", "rope_theta", "num_layers", "head_dim"})


class GalvatronLlama(StrictSchema):
    """What a meta config of a llama says."""

    dim: Size = Field(description="width of a row")
    n_layers: Size = Field(description="blocks")
    n_heads: Size = Field(description="query heads")
    vocab_size: Size = Field(description="rows of the token table")
    n_kv_heads: Size | None = Field(None, description="kv heads; absent: as many as query heads")
    ffn_dim: Size | None = Field(None, description="width of the FFN; absent: derived from dim and multiple_of")
    multiple_of: Size = Field(256, description="a derived FFN's width is rounded up to a multiple of this")
    norm_eps: Positive = Field(1e-6, description="epsilon of the RMS norms")
    n_positions: Size = Field(2048, description="longest context")
    rope_theta: Positive = Field(DEFAULT_THETA, description="base of the rotary frequencies")


def is_galvatron_llama(raw: Mapping[str, object]) -> bool:
    """Whether it is a llama's meta config: Meta's names, and a key that a params.json never has."""
    return "dim" in raw and "n_layers" in raw and ("n_positions" in raw or "ffn_dim" in raw)


def is_galvatron_gpt(raw: Mapping[str, object]) -> bool:
    """Whether it is a gpt's meta config: gpt2's names without a model type."""
    return "n_embd" in raw and "n_layer" in raw


def is_galvatron_bert(raw: Mapping[str, object]) -> bool:
    """Whether it is a bert's meta config: bert's names without a model type."""
    named = "hidden_size" in raw and "num_hidden_layers" in raw and "num_attention_heads" in raw
    return named and not _NOT_BERT & raw.keys() and raw.get("hidden_act", "gelu") != "silu"


def galvatron_ffn_size(dim: int, multiple_of: int) -> int:
    """The width of an FFN that is not stated: ceil((8 * dim // 3) / multiple_of) * multiple_of."""
    return -(-(8 * dim // 3) // multiple_of) * multiple_of


def read_galvatron_llama(
    raw: Mapping[str, object], source: str, name: str, vocab_size: int | None = None
) -> ModelConfig:
    """The model a llama's meta config describes; its LM head is apart from the token table.

    Args:
        raw: the mapping of the file.
        source: what errors call it.
        name: the name of the model.
        vocab_size: unused; the file has one.

    Raises:
        InputError: a missing, wrong or unknown entry, or a feature that is not supported.
    """
    values, ignored = sort_keys(raw, GalvatronLlama.model_fields, _LLAMA_KEYS, source)
    config = validate(GalvatronLlama, values, source=source)
    return plain_llama(
        name=name,
        num_layers=config.n_layers,
        hidden_size=config.dim,
        num_heads=config.n_heads,
        num_kv_heads=config.n_kv_heads,
        head_dim=derive_head_dim(config.dim, config.n_heads, source),
        ffn_size=config.ffn_dim or galvatron_ffn_size(config.dim, config.multiple_of),
        vocab_size=config.vocab_size,
        max_position_embeddings=config.n_positions,
        norm_eps=config.norm_eps,
        rope_theta=config.rope_theta,
        ignored_keys=ignored,
    )


def read_galvatron_gpt(raw: Mapping[str, object], source: str, name: str, vocab_size: int | None = None) -> ModelConfig:
    """The model a gpt's meta config describes: gpt2's keys, and `head_dim`, which must fit.

    Raises:
        InputError: as `read_galvatron_llama`, or a head_dim that is not n_embd / n_head.
    """
    model = read_gpt2({key: value for key, value in raw.items() if key != "head_dim"}, source, name)
    head_dim = raw.get("head_dim")
    if head_dim is not None and head_dim != model.head_dim:
        raise InputError(
            f"n_head * head_dim must be n_embd = {model.hidden_size}",
            source=source,
            path="head_dim",
            given=head_dim,
            expected=f"{model.head_dim}, or no such key",
        )
    return model


def read_galvatron_bert(
    raw: Mapping[str, object], source: str, name: str, vocab_size: int | None = None
) -> ModelConfig:
    """The model a bert's meta config describes; an FFN that is not stated is 4 * hidden_size wide.

    Raises:
        InputError: as `read_galvatron_llama`.
    """
    entries, hidden = dict(raw), raw["hidden_size"]
    if entries.get("intermediate_size") is None and isinstance(hidden, int):
        entries["intermediate_size"] = 4 * hidden
    return read_bert(entries, source, name)
