"""Galvatron's `model_configs/*.yaml`, which speak Megatron's words: takes the mapping, gives a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pydantic import Field

from pe_sim.config.model import ModelConfig
from pe_sim.config.model_checks import derive_head_dim
from pe_sim.config.model_fields import Flag, KeyRules, Positive, Refusal, Size, StrictSchema, Text, sort_keys, validate
from pe_sim.config.rope import DEFAULT_THETA
from pe_sim.errors import InputError, did_you_mean

# The files do not say how long a context may be; llama2's and gpt2's lengths stand in.
_ROPE_POSITIONS: Final = 4096
_LEARNED_POSITIONS: Final = 1024
_SILU: Final = {"silu": "silu"}
_GELU: Final = {"gelu": "gelu", "gelu_tanh": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh"}
_EXPERTS: Final = Refusal("a mixture of experts")
_OFF: Final = (None, False)
_KEYS: Final = KeyRules(
    ignored=frozenset(
        {
            "model_size",
            "hf_model_name_or_path",
            "apply_rope_fusion",
            "make_vocab_size_divisible_by",
            "init_method_std",
            "initializer_range",
            "hidden_dropout",
            "attention_dropout",
            "attention_softmax_in_fp32",
            "bias_activation_fusion",
            "bias_dropout_fusion",
            "masked_softmax_fusion",
            "params_dtype",
            "use_flash_attn",
            "padded_vocab_size",
        }
    ),
    refused={
        "num_moe_experts": _EXPERTS,
        "moe_ffn_hidden_size": _EXPERTS,
        "moe_router_topk": _EXPERTS,
        "moe_shared_expert_intermediate_size": _EXPERTS,
        "moe_layer_freq": _EXPERTS,
        "qk_layernorm": Refusal("a norm on queries and keys", _OFF),
        "multi_latent_attention": Refusal("multi-head latent attention", _OFF),
        "rotary_percent": Refusal("only a part of each head is rotated", (None, 1, 1.0)),
        "rotary_interleaved": Refusal("rotary positions on interleaved pairs", _OFF),
        "use_rope_scaling": Refusal("scaled rotary positions", _OFF),
        "rope_scaling": Refusal("scaled rotary positions", _OFF),
        "window_size": Refusal("attention over a sliding window"),
        "layernorm_zero_centered_gamma": Refusal("norms centered on zero", _OFF),
        "apply_residual_connection_post_layernorm": Refusal("a residual taken after the norm", _OFF),
    },
)


class GalvatronModel(StrictSchema):
    """What a model config says; a missing entry means what it means in Megatron."""

    hidden_size: Size = Field(description="width of a row")
    num_layers: Size = Field(description="blocks")
    num_attention_heads: Size = Field(description="query heads")
    vocab_size: Size = Field(description="rows of the token table")
    num_query_groups: Size | None = Field(None, description="kv heads; null: as many as query heads")
    ffn_hidden_size: Size | None = Field(None, description="width of the FFN; null: from hidden_size")
    kv_channels: Size | None = Field(None, description="width of a head; null: hidden_size / num_attention_heads")
    normalization: Text = Field("LayerNorm", description="RMSNorm or LayerNorm")
    norm_epsilon: Positive = Field(1e-5, description="epsilon of the norms")
    activation_func: Text = Field("gelu", description="activation of the FFN")
    gated_linear_unit: Flag = Field(False, description="whether the FFN has a gate")
    position_embedding_type: Text = Field("learned_absolute", description="rope or learned_absolute")
    rotary_base: Positive | None = Field(None, description="base of the rotary frequencies; null: 10000")
    add_bias_linear: Flag = Field(True, description="biases on all projections")
    add_qkv_bias: Flag = Field(False, description="biases on the query, key and value projections")
    untie_embeddings_and_output_weights: Flag = Field(False, description="the LM head is not the token table")
    max_position_embeddings: Size | None = Field(None, description="longest context")
    seq_length: Size | None = Field(None, description="the same, where nothing else says it")


def is_galvatron_yaml(raw: Mapping[str, object]) -> bool:
    """Whether the mapping carries a mark of a model config."""
    return "num_query_groups" in raw or "gated_linear_unit" in raw


def read_galvatron_yaml(
    raw: Mapping[str, object], source: str, name: str, vocab_size: int | None = None
) -> ModelConfig:
    """The model a model config describes: a llama (RMSNorm, rope, gated) or a gpt2 (LayerNorm, learned, no gate).

    Args:
        raw: the mapping of the file.
        source: what errors call it.
        name: the name of the model.
        vocab_size: unused; the file has one.

    Raises:
        InputError: a missing, wrong or unknown entry, experts, or parts that are not of one family.
    """
    values, ignored = sort_keys(raw, GalvatronModel.model_fields, _KEYS, source)
    config = validate(GalvatronModel, values, source=source)
    llama = config.position_embedding_type == "rope"
    _check_family(config, source, llama=llama)
    heads = config.num_attention_heads
    positions = config.max_position_embeddings or config.seq_length
    return ModelConfig(
        name=name,
        family="llama" if llama else "gpt2",
        num_layers=config.num_layers,
        hidden_size=config.hidden_size,
        num_heads=heads,
        num_kv_heads=config.num_query_groups or heads,
        head_dim=config.kv_channels or derive_head_dim(config.hidden_size, heads, source),
        ffn_size=config.ffn_hidden_size or _ffn_size(config, source),
        vocab_size=config.vocab_size,
        max_position_embeddings=positions or (_ROPE_POSITIONS if llama else _LEARNED_POSITIONS),
        norm="rmsnorm" if llama else "layernorm",
        norm_eps=config.norm_epsilon,
        activation=_activation(config.activation_func, _SILU if llama else _GELU, source),
        gated_ffn=llama,
        position="rope" if llama else "learned",
        tie_word_embeddings=not config.untie_embeddings_and_output_weights,
        attention_bias=config.add_bias_linear,
        mlp_bias=config.add_bias_linear,
        qkv_bias=config.add_qkv_bias and not config.add_bias_linear,
        rope_theta=config.rotary_base or DEFAULT_THETA,
        ignored_keys=ignored,
    )


def _check_family(config: GalvatronModel, source: str, *, llama: bool) -> None:
    """The parts a family always has together; what does not fit is refused by its key."""
    if not llama and config.position_embedding_type != "learned_absolute":
        raise InputError(
            "these positions are not supported",
            source=source,
            path="position_embedding_type",
            given=config.position_embedding_type,
            expected="rope or learned_absolute",
        )
    kind = config.position_embedding_type
    wanted: dict[str, object] = {"normalization": "RMSNorm" if llama else "LayerNorm", "gated_linear_unit": llama}
    if not llama:
        wanted["add_bias_linear"] = True
    for key, value in wanted.items():
        given = getattr(config, key)
        if given != value:
            raise InputError(
                f"not supported beside position_embedding_type {kind}",
                source=source,
                path=key,
                given=given,
                expected=str(value).lower() if isinstance(value, bool) else str(value),
            )


def _ffn_size(config: GalvatronModel, source: str) -> int:
    """Megatron's own: 4 * hidden_size; with a gate two thirds of it, rounded down to a multiple of 64."""
    if not config.gated_linear_unit:
        return 4 * config.hidden_size
    size = 8 * config.hidden_size // 3 // 64 * 64
    if size:
        return size
    raise InputError(
        f"hidden_size {config.hidden_size} leaves the FFN without a width", source=source, path="ffn_hidden_size"
    )


def _activation(given: str, known: Mapping[str, str], source: str) -> str:
    name = given.rpartition(".")[2]  # torch.nn.functional.silu is silu
    if name in known:
        return known[name]
    raise InputError(
        "this activation is not supported here",
        source=source,
        path="activation_func",
        given=given,
        expected=" or ".join(f"torch.nn.functional.{word}" for word in known if "_" not in word),
        hint=did_you_mean(name, known),
    )
