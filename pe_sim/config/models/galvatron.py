"""Galvatron's `meta_configs/*.json` and `model_configs/*.yaml`: takes the mapping, gives a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pydantic import Field

from pe_sim.config.files.foreign import KeyRules, Refusal, read_entries
from pe_sim.config.files.schema import Positive, Section, Size, Text
from pe_sim.config.models.hf import read_bert, read_gpt2
from pe_sim.config.models.meta import plain_llama
from pe_sim.config.models.model import ModelConfig, derive_head_dim
from pe_sim.config.models.rope import DEFAULT_THETA
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
# Keys that Galvatron's BERT configs do not have, unlike other configs with Hugging Face names.
_NOT_BERT: Final = frozenset({"num_key_value_heads", "rms_norm_eps", "rope_theta", "num_layers", "head_dim"})


class GalvatronLlama(Section):
    """The schema of a llama's meta config."""

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
    """Whether the mapping is a llama's meta config: Meta's names, and a key that a params.json never has."""
    return "dim" in raw and "n_layers" in raw and ("n_positions" in raw or "ffn_dim" in raw)


def is_galvatron_gpt(raw: Mapping[str, object]) -> bool:
    """Whether the mapping is a gpt's meta config: gpt2's names without a model type."""
    return "n_embd" in raw and "n_layer" in raw


def is_galvatron_bert(raw: Mapping[str, object]) -> bool:
    """Whether the mapping is a bert's meta config: bert's names without a model type."""
    named = "hidden_size" in raw and "num_hidden_layers" in raw and "num_attention_heads" in raw
    return named and not _NOT_BERT & raw.keys() and raw.get("hidden_act", "gelu") != "silu"


def galvatron_ffn_size(dim: int, multiple_of: int) -> int:
    """The default width of an FFN: ceil((8 * dim // 3) / multiple_of) * multiple_of."""
    return -(-(8 * dim // 3) // multiple_of) * multiple_of


def read_galvatron_llama(raw: Mapping[str, object], name: str, vocab_size: int | None = None) -> ModelConfig:
    """The model that a llama's meta config describes, with an LM head apart from the token table.

    Args:
        raw: the mapping of the file.
        name: the name of the model.
        vocab_size: unused; the file has one.

    Raises:
        InputError: a missing, wrong or unknown entry, or a feature that is not supported.
    """
    config, ignored = read_entries(GalvatronLlama, raw, _LLAMA_KEYS)
    return plain_llama(
        name=name,
        num_layers=config.n_layers,
        hidden_size=config.dim,
        num_heads=config.n_heads,
        num_kv_heads=config.n_kv_heads,
        head_dim=derive_head_dim(config.dim, config.n_heads),
        ffn_size=config.ffn_dim or galvatron_ffn_size(config.dim, config.multiple_of),
        vocab_size=config.vocab_size,
        max_position_embeddings=config.n_positions,
        norm_eps=config.norm_eps,
        rope_theta=config.rope_theta,
        ignored_keys=ignored,
    )


def read_galvatron_gpt(raw: Mapping[str, object], name: str, vocab_size: int | None = None) -> ModelConfig:
    """The model that a gpt's meta config describes: gpt2's keys, and `head_dim`, which must fit.

    Raises:
        InputError: as `read_galvatron_llama` raises it, or head_dim is not n_embd / n_head.
    """
    model = read_gpt2({key: value for key, value in raw.items() if key != "head_dim"}, name)
    head_dim = raw.get("head_dim")
    if head_dim is not None and head_dim != model.head_dim:
        raise InputError(
            f"n_head * head_dim must be n_embd = {model.hidden_size}",
            path="head_dim",
            given=head_dim,
            expected=f"{model.head_dim}, or no such key",
        )
    return model


def read_galvatron_bert(raw: Mapping[str, object], name: str, vocab_size: int | None = None) -> ModelConfig:
    """The model that a bert's meta config describes; the FFN is by default 4 * hidden_size wide.

    Raises:
        InputError: as `read_galvatron_llama` raises it.
    """
    entries, hidden = dict(raw), raw["hidden_size"]
    if entries.get("intermediate_size") is None and isinstance(hidden, int):
        entries["intermediate_size"] = 4 * hidden
    return read_bert(entries, name)


# ---- Galvatron's `model_configs/*.yaml`, which use Megatron's names: takes the mapping, gives a model.


# The files do not say how long a context may be; llama2's and gpt2's lengths are the defaults.
_ROPE_POSITIONS: Final = 4096
_LEARNED_POSITIONS: Final = 1024
_SILU: Final = {"torch.nn.functional.silu": "silu", "silu": "silu", "swiglu": "silu"}
_GELU: Final = {"torch.nn.functional.gelu": "gelu", "gelu": "gelu"}
_OFF: Final = (None, False)
_ELSEWHERE: Final = Refusal("sizes that stand in another model's config; give that model's config.json")
_KEYS: Final = KeyRules(
    # Keys of GalvatronModelArgs for training and kernels, and Megatron's keys of the same kind.
    ignored=frozenset(
        """
        activation_func_fp8_input_store apply_rope_fusion attention_dropout attention_softmax_in_fp32
        bias_activation_fusion bias_dropout_fusion calculate_per_token_loss defer_embedding_wgrad_compute
        deterministic_mode dropout_prob gradient_accumulation_fusion hidden_dropout init_method_std initialize_on_meta
        initializer_range layernorm_epsilon make_vocab_size_divisible_by masked_softmax_fusion model_size
        padded_vocab_size params_dtype print_loss set_experts_manually set_layernum_manually set_model_config_manually
        set_seqlen_manually shape_order use_flash_attn wgrad_deferral_limit
        """.split()  # noqa: SIM905 - a list of words reads better than thirty quoted lines
    ),
    ignored_prefixes=("moe_",),  # without experts they have no meaning
    refused={
        "hf_model_name_or_path": _ELSEWHERE,
        "model_config_path": _ELSEWHERE,
        "num_moe_experts": Refusal("a mixture of experts"),
        "is_moe_model": Refusal("a mixture of experts", _OFF),
        "qk_layernorm": Refusal("a norm on queries and keys", _OFF),
        "multi_latent_attention": Refusal("multi-head latent attention", _OFF),
        "mrope_section": Refusal("rotary positions of several dimensions"),
        "rotary_percent": Refusal("only a part of each head is rotated", (None, 1, 1.0)),
        "rotary_interleaved": Refusal("rotary positions on interleaved pairs", _OFF),
        "rotary_seq_len_interpolation_factor": Refusal("scaled rotary positions", (None, 1, 1.0)),
        "use_rope_scaling": Refusal("scaled rotary positions", _OFF),
        "rope_scaling": Refusal("scaled rotary positions", _OFF),
        "window_size": Refusal("attention over a sliding window"),
        "layernorm_zero_centered_gamma": Refusal("norms centered on zero", _OFF),
        "apply_residual_connection_post_layernorm": Refusal("a residual taken after the norm", _OFF),
    },
)
_SIZES: Final = frozenset({"hidden_size", "num_layers", "num_attention_heads"})
_MARKS: Final = frozenset(
    {"num_query_groups", "gated_linear_unit", "untie_embeddings_and_output_weights", "hf_model_name_or_path"}
)


class GalvatronModel(Section):
    """The schema of a model config; missing and null entries have GalvatronModelArgs' defaults."""

    hidden_size: Size = Field(description="width of a row")
    num_layers: Size = Field(description="blocks")
    num_attention_heads: Size = Field(description="query heads")
    vocab_size: Size = Field(description="rows of the token table")
    num_query_groups: Size | None = Field(None, description="kv heads; null: as many as query heads")
    ffn_hidden_size: Size | None = Field(None, description="width of the FFN; null: 4 * hidden_size")
    kv_channels: Size | None = Field(None, description="width of a head; null: hidden_size / num_attention_heads")
    normalization: Text = Field("RMSNorm", description="RMSNorm or LayerNorm")
    norm_epsilon: Positive = Field(1e-5, description="epsilon of the norms")
    activation_func: Text = Field("torch.nn.functional.gelu", description="activation of the FFN")
    gated_linear_unit: bool = Field(True, description="whether the FFN has a gate")
    position_embedding_type: Text = Field("rope", description="rope or learned_absolute")
    rotary_base: Positive = Field(DEFAULT_THETA, description="base of the rotary frequencies")
    add_bias_linear: bool = Field(False, description="biases on all projections")
    add_qkv_bias: bool = Field(False, description="biases on the query, key and value projections")
    untie_embeddings_and_output_weights: bool = Field(True, description="the LM head is not the token table")
    max_position_embeddings: Size | None = Field(None, description="longest context")
    seq_length: Size | None = Field(None, description="the same, where nothing else says it")


def is_galvatron_yaml(raw: Mapping[str, object]) -> bool:
    """Whether the mapping has a key by which model configs are known, or their names of sizes."""
    return not _MARKS.isdisjoint(raw) or raw.keys() >= _SIZES


def read_galvatron_yaml(raw: Mapping[str, object], name: str, vocab_size: int | None = None) -> ModelConfig:
    """The model that a model config describes: a llama (RMSNorm, rope, gate) or a gpt2 (LayerNorm, learned, no gate).

    Args:
        raw: the mapping of the file.
        name: the name of the model.
        vocab_size: unused; the file has one.

    Raises:
        InputError: a missing, wrong or unknown entry, experts, or parts of different families.
    """
    stated = {key: value for key, value in raw.items() if value is not None or key not in GalvatronModel.model_fields}
    config, ignored = read_entries(GalvatronModel, stated, _KEYS)
    llama = config.position_embedding_type == "rope"
    _check_family(config, llama=llama)
    heads = config.num_attention_heads
    positions = config.max_position_embeddings or config.seq_length
    return ModelConfig(
        name=name,
        family="llama" if llama else "gpt2",
        num_layers=config.num_layers,
        hidden_size=config.hidden_size,
        num_heads=heads,
        num_kv_heads=config.num_query_groups or heads,
        head_dim=config.kv_channels or derive_head_dim(config.hidden_size, heads),
        ffn_size=config.ffn_hidden_size or 4 * config.hidden_size,
        vocab_size=config.vocab_size,
        max_position_embeddings=positions or (_ROPE_POSITIONS if llama else _LEARNED_POSITIONS),
        norm="rmsnorm" if llama else "layernorm",
        norm_eps=config.norm_epsilon,
        activation=_activation(config, _SILU if llama else _GELU),
        gated_ffn=llama,
        position="rope" if llama else "learned",
        tie_word_embeddings=not config.untie_embeddings_and_output_weights,
        attention_bias=config.add_bias_linear,
        mlp_bias=config.add_bias_linear,
        qkv_bias=config.add_qkv_bias and not config.add_bias_linear,
        rope_theta=config.rotary_base,
        ignored_keys=ignored,
    )


def _check_family(config: GalvatronModel, *, llama: bool) -> None:
    """Checks that the norm and the gate are those of the family that the positions imply."""
    if not llama and config.position_embedding_type != "learned_absolute":
        raise InputError(
            "these positions are not supported",
            path="position_embedding_type",
            given=config.position_embedding_type,
            expected="rope or learned_absolute",
        )
    kind = config.position_embedding_type
    wanted: dict[str, object] = {"normalization": "RMSNorm" if llama else "LayerNorm", "gated_linear_unit": llama}
    for key, value in wanted.items():
        given = getattr(config, key)
        if given != value:
            raise InputError(
                f"not supported beside position_embedding_type {kind}",
                path=key,
                given=given,
                expected=str(value).lower() if isinstance(value, bool) else str(value),
                hint=_left_out(config, key),
            )


def _left_out(config: GalvatronModel, key: str) -> str | None:
    """A hint that a value is Galvatron's default; None if the file states it."""
    return None if key in config.model_fields_set else f"Galvatron's default: the file leaves {key} out"


def _activation(config: GalvatronModel, known: Mapping[str, str]) -> str:
    given = config.activation_func
    if given in known:
        return known[given]
    raise InputError(
        "this activation is not supported here",
        path="activation_func",
        given=given,
        expected=" or ".join(known),
        hint=_left_out(config, "activation_func"),
    )
