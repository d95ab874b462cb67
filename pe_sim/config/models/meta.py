"""Meta's `params.json` (ModelArgs) of Llama 1 to 3.2: takes the mapping, gives a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final

from pydantic import Field

from pe_sim.config.files.foreign import KeyRules, Refusal, read_entries
from pe_sim.config.files.schema import Positive, Section, Size
from pe_sim.config.models.model import ModelConfig, derive_head_dim
from pe_sim.config.models.rope import DEFAULT_THETA, Scaling
from pe_sim.errors import InputError

# apply_scaling in Meta's reference code of Llama 3.1 uses these for every size; params.json has only the switch.
_META_SCALING: Final[Scaling] = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
Multiplier = Annotated[float, Field(gt=0, le=1024)]

_KEYS: Final = KeyRules(
    ignored=frozenset({"max_batch_size", "model_parallel_size", "pad_id", "bos_id", "eos_id"}),
    refused={
        "moe": Refusal("a mixture of experts"),
        "moe_args": Refusal("a mixture of experts"),
        "quantization_args": Refusal("a quantised checkpoint; quantisation is the array's `dtypes.weight`"),
        "lora_args": Refusal("low-rank adapters"),
        "use_qk_norm": Refusal("a norm on queries and keys", (None, False)),
        "attention_chunk_size": Refusal("attention within chunks"),
        "nope_layer_interval": Refusal("layers without rotary positions"),
        "vision_args": Refusal("a vision encoder"),
        "vision_chunk_size": Refusal("a vision encoder", (None, -1)),
        "vision_num_cross_attention_layers": Refusal("a vision encoder", (None, -1)),
        "sliding_window": Refusal("attention over a sliding window"),
    },
)


class MetaParams(Section):
    """The schema of a params.json; defaults are those of ModelArgs."""

    dim: Size = Field(description="width of a row")
    n_layers: Size = Field(description="blocks")
    n_heads: Size = Field(description="query heads")
    n_kv_heads: Size | None = Field(None, description="kv heads; absent: as many as query heads")
    vocab_size: Annotated[int, Field(ge=-1, le=2**31)] = Field(-1, description="-1: the tokenizer knows")
    multiple_of: Size = Field(256, description="the FFN's width is rounded up to a multiple of this")
    ffn_dim_multiplier: Multiplier | None = Field(None, description="widens the FFN before the rounding")
    norm_eps: Positive = Field(1e-5, description="epsilon of the RMS norms")
    rope_theta: Positive = Field(DEFAULT_THETA, description="base of the rotary frequencies")
    max_seq_len: Size = Field(2048, description="longest context")
    use_scaled_rope: bool = Field(False, description="rotary scaling of Llama 3.1 and later")


def is_meta(raw: Mapping[str, object]) -> bool:
    """Whether the mapping has the keys by which a params.json is known."""
    return "dim" in raw and "n_layers" in raw


def meta_ffn_size(dim: int, multiple_of: int = 256, ffn_dim_multiplier: float | None = None) -> int:
    """The width of the FFN: two thirds of 4 * dim, times the multiplier, rounded up to a multiple of `multiple_of`."""
    hidden = int(2 * (4 * dim) / 3)
    if ffn_dim_multiplier is not None:
        hidden = int(ffn_dim_multiplier * hidden)
    return multiple_of * ((hidden + multiple_of - 1) // multiple_of)


def read_meta(raw: Mapping[str, object], name: str, vocab_size: int | None = None) -> ModelConfig:
    """The model that a params.json describes; its LM head is never tied, as Meta's code keeps it apart.

    Args:
        raw: the mapping of the file.
        name: the name of the model.
        vocab_size: the vocabulary size to use if the file leaves it to the tokenizer.

    Raises:
        InputError: a missing, wrong or unknown entry, an unsupported feature, or no vocabulary size.
    """
    params, ignored = read_entries(MetaParams, raw, _KEYS)
    return plain_llama(
        name=name,
        num_layers=params.n_layers,
        hidden_size=params.dim,
        num_heads=params.n_heads,
        num_kv_heads=params.n_kv_heads,
        head_dim=derive_head_dim(params.dim, params.n_heads),
        ffn_size=_ffn_size(params),
        vocab_size=_vocab_size(params, vocab_size),
        max_position_embeddings=params.max_seq_len,
        norm_eps=params.norm_eps,
        rope_theta=params.rope_theta,
        rope_scaling=_META_SCALING if params.use_scaled_rope else None,
        ignored_keys=ignored,
    )


def _ffn_size(params: MetaParams) -> int:
    size = meta_ffn_size(params.dim, params.multiple_of, params.ffn_dim_multiplier)
    if size <= 0:
        raise InputError(
            f"dim {params.dim} and this multiplier leave the FFN without a width",
            path="ffn_dim_multiplier",
            given=params.ffn_dim_multiplier,
        )
    return size


def _vocab_size(params: MetaParams, override: int | None) -> int:
    if params.vocab_size > 0:
        return params.vocab_size
    if override is not None:
        return override
    given = params.vocab_size if "vocab_size" in params.model_fields_set else None
    if given == 0:
        raise InputError("too small", path="vocab_size", given=0, expected="more than 0, or -1")
    raise InputError(
        "the file leaves the vocabulary size to the tokenizer (-1)",
        path="vocab_size",
        hint="state it yourself: load_model(..., overrides={'vocab_size': 32000}) or --set model.vocab_size=32000",
    )


# ---- The llama of files that state only sizes: takes the sizes, gives a model that is otherwise the first Llama.


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
    activation: str = "silu",
    tie_word_embeddings: bool = False,
    attention_bias: bool = False,
    mlp_bias: bool = False,
    rope_theta: float = DEFAULT_THETA,
    rope_scaling: Mapping[str, float | int | str] | None = None,
    ignored_keys: tuple[str, ...] = (),
    unknown_keys: tuple[str, ...] = (),
) -> ModelConfig:
    """A llama model; by default it has no biases, and an LM head apart from the token table.

    Args:
        num_kv_heads: None: as many as query heads.
        rope_scaling: None: not scaled.
        name, num_layers, hidden_size, num_heads, head_dim, ffn_size, vocab_size, max_position_embeddings, norm_eps,
            activation, tie_word_embeddings, attention_bias, mlp_bias, rope_theta, ignored_keys, unknown_keys: as in
            `ModelConfig`.
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
        activation=activation,
        gated_ffn=True,
        position="rope",
        tie_word_embeddings=tie_word_embeddings,
        attention_bias=attention_bias,
        mlp_bias=mlp_bias,
        rope_theta=rope_theta,
        rope_scaling=dict(rope_scaling or {}),
        ignored_keys=ignored_keys,
        unknown_keys=unknown_keys,
    )
