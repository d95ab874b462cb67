"""Hugging Face `config.json` of llama, gpt2 and bert, of any age: takes the mapping, gives a model."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from operator import attrgetter
from pathlib import Path
from typing import Any, Final

from pydantic import Field

from pe_sim.config.files.foreign import BOOKKEEPING, UNKNOWN_KEY, KeyRules, Refusal, Schema, read_entries
from pe_sim.config.files.schema import Positive, Section, Size, Text
from pe_sim.config.models.meta import plain_llama
from pe_sim.config.models.model import ModelConfig, derive_head_dim
from pe_sim.config.models.rope import read_rope
from pe_sim.errors import InputError
from pe_sim.registry import Registry

# ---- The keys of Hugging Face configs that are not sizes: which cannot matter for inference, which must be refused.
#
# `transformers_keys.json` judges the fields of transformers' configuration classes; keys listed here have a better
# reason, are a family's own, or occur in checkpoints and not in transformers.


_OFF: Final = (None, False)
_NONE_OR_ZERO: Final = (None, False, 0)
_BOOKKEEPING: Final = frozenset({"auto_map", "ep_size", "transformers.js_config"})
_EXPERTS: Final = Refusal("a mixture of experts", _NONE_OR_ZERO)
_SOFTCAP: Final = Refusal("soft-capping of scores or logits")
_QK_NORM: Final = Refusal("a norm on queries and keys", _OFF)
_SCALED: Final = Refusal("a scale factor on a part of the network", (None, 1, 1.0))
_LATENT: Final = Refusal("multi-head latent attention")
_NEIGHBOURS: Final = Refusal("rotary positions on neighbouring pairs", _OFF)
_BIASES: Final = Refusal("biases under another name; state attention_bias and mlp_bias", _OFF)
_ENCODER_DECODER: Final = Refusal("cross-attention of an encoder-decoder", _OFF)

_REFUSED_BY_ALL: Final[dict[str, Refusal]] = {
    "sliding_window": Refusal("attention over a sliding window"),
    "use_sliding_window": Refusal("attention over a sliding window", _OFF),
    "attention_chunk_size": Refusal("attention within chunks"),
    "layer_types": Refusal("layers with different kinds of attention", (None, "full_attention")),
    "quantization": Refusal("a quantised checkpoint; quantisation is the array's `dtypes.weight`"),
    "quantization_config": Refusal("a quantised checkpoint; quantisation is the array's `dtypes.weight`"),
    "compression_config": Refusal("a compressed checkpoint; quantisation is the array's `dtypes.weight`"),
    "num_local_experts": _EXPERTS,
    "num_experts": _EXPERTS,
    "num_experts_per_tok": _EXPERTS,
    "n_routed_experts": _EXPERTS,
    "n_shared_experts": _EXPERTS,
    "moe_intermediate_size": _EXPERTS,
    "moe": Refusal("a mixture of experts"),
    "attn_logit_softcapping": _SOFTCAP,
    "final_logit_softcapping": _SOFTCAP,
    "logits_soft_cap": _SOFTCAP,
    "qk_layernorm": _QK_NORM,
    "qk_norm": _QK_NORM,
    "use_qk_norm": _QK_NORM,
    "clip_qkv": Refusal("clipped queries, keys and values"),
    "attention_multiplier": _SCALED,
    "embedding_multiplier": _SCALED,
    "logit_scale": _SCALED,
    "logits_scaling": _SCALED,
    "residual_multiplier": _SCALED,
    "query_pre_attn_scalar": Refusal("a scale of its own for the attention scores"),
    "kv_lora_rank": _LATENT,
    "q_lora_rank": _LATENT,
    "partial_rotary_factor": Refusal("only a part of each head is rotated", (None, 1, 1.0)),
    "no_rope_layers": Refusal("layers without rotary positions"),
    "rope_interleaved": _NEIGHBOURS,
    "rope_interleave": _NEIGHBOURS,
    "rope_traditional": _NEIGHBOURS,
    "alibi": Refusal("ALiBi positions", _OFF),
    "parallel_attn": Refusal("attention and FFN side by side", _OFF),
    "use_parallel_residual": Refusal("attention and FFN side by side", _OFF),
    "pruned_heads": Refusal("pruned attention heads"),
    "is_encoder_decoder": _ENCODER_DECODER,
    "add_cross_attention": _ENCODER_DECODER,
    "cross_attention_hidden_size": Refusal("cross-attention of an encoder-decoder"),
}


@cache
def _transformers_keys() -> dict[str, Refusal | None]:
    """The table of transformers' fields by name: a Refusal, or None for a neutral field."""
    table: dict[str, Any] = json.loads(Path(__file__).with_name("transformers_keys.json").read_text(encoding="utf-8"))
    judged: dict[str, Refusal | None] = dict.fromkeys(table["neutral"])
    for name, entry in table["computing"].items():
        of = ", ".join(entry["of"])
        judged[name] = Refusal(f"a key of other families ({of}) that changes what is computed", (None, *entry["off"]))
    return judged


def judge_key(key: str) -> Refusal | None:
    """The judgement on a key that no schema has: None if it cannot matter, UNKNOWN_KEY if nobody knows it."""
    if key in _BOOKKEEPING or key.startswith("_flash_"):
        return BOOKKEEPING
    return _transformers_keys().get(key, UNKNOWN_KEY)


LLAMA_KEYS: Final = KeyRules(
    ignored=frozenset({"is_decoder", "max_window_layers"}),
    refused={
        **_REFUSED_BY_ALL,
        "activation": Refusal("an FFN that is not gated with SiLU", (None, "swiglu", "silu")),
        **dict.fromkeys(("bias", "use_bias", "qkv_bias", "use_qkv_bias"), _BIASES),
    },
    others=judge_key,
)

GPT2_KEYS: Final = KeyRules(
    ignored=frozenset({"is_decoder"}),
    ignored_prefixes=("summary_",),
    refused={
        **_REFUSED_BY_ALL,
        "scale_attn_weights": Refusal("attention scores without the scale 1/sqrt(head_dim)", (True,)),
        "scale_attn_by_inverse_layer_idx": Refusal("attention scores scaled by the layer's index", _OFF),
        "reorder_and_upcast_attn": Refusal("attention scores scaled and cast in another order", _OFF),
    },
    others=judge_key,
)

BERT_KEYS: Final = KeyRules(
    ignored=frozenset({"directionality", "tie_word_embeddings"}),
    ignored_prefixes=("pooler_", "summary_"),
    refused={
        **_REFUSED_BY_ALL,
        "position_embedding_type": Refusal("positions that are not absolute", (None, "absolute")),
        "is_decoder": Refusal("a BERT with a causal mask and a cache", _OFF),
    },
    others=judge_key,
)

_CLASS_NAME: Final = re.compile(r"(\w+?)(Model|LMHeadModel|DoubleHeadsModel|For[A-Z]\w*)")
_LM_HEAD: Final = re.compile(r"ForCausalLM|LMHead|ForConditionalGeneration")
_OTHER_HEAD: Final = re.compile(r"For[A-Z]|Model$")
_SILU: Final = {"silu": "silu", "swish": "silu"}
_GELU: Final = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh"}

Table = dict[str, object]


class HfLlama(Section):
    """The schema of a llama config; defaults are those of transformers."""

    hidden_size: Size = Field(description="width of a row")
    intermediate_size: Size = Field(description="width of the FFN")
    num_hidden_layers: Size = Field(description="blocks")
    num_attention_heads: Size = Field(description="query heads")
    vocab_size: Size = Field(description="rows of the token table")
    num_key_value_heads: Size | None = Field(None, description="kv heads; absent: as many as query heads")
    head_dim: Size | None = Field(None, description="width of a head; absent: hidden_size / num_attention_heads")
    max_position_embeddings: Size | None = Field(None, description="longest context; absent: 2048")
    max_sequence_length: Size | None = Field(None, description="the same in the first llama configs")
    rms_norm_eps: Positive = Field(1e-6, description="epsilon of the RMS norms")
    rope_theta: Positive | None = Field(None, description="base of the rotary frequencies; absent: 10000")
    rope_parameters: Table | None = Field(None, description="base and scaling, the newer form")
    rope_scaling: Table | None = Field(None, description="scaling, the older form")
    hidden_act: Text = Field("silu", description="activation of the gated FFN")
    tie_word_embeddings: bool = Field(False, description="the LM head is the token table")
    attention_bias: bool = Field(False, description="biases on query, key, value and output projections")
    mlp_bias: bool = Field(False, description="biases on the FFN's projections")


class HfGpt2(Section):
    """The schema of a gpt2 config."""

    n_embd: Size = Field(description="width of a row")
    n_head: Size = Field(description="attention heads")
    n_layer: Size = Field(description="blocks")
    vocab_size: Size = Field(description="rows of the token table")
    n_positions: Size | None = Field(None, description="rows of the position table")
    n_ctx: Size | None = Field(None, description="the same in the first gpt2 configs")
    n_inner: Size | None = Field(None, description="width of the FFN; absent: 4 * n_embd")
    activation_function: Text = Field("gelu_new", description="activation of the FFN")
    layer_norm_epsilon: Positive = Field(1e-5, description="epsilon of the norms")
    tie_word_embeddings: bool = Field(True, description="the LM head is the token table")


class HfBert(Section):
    """The schema of a bert config."""

    hidden_size: Size = Field(description="width of a row")
    intermediate_size: Size = Field(description="width of the FFN")
    num_hidden_layers: Size = Field(description="blocks")
    num_attention_heads: Size = Field(description="attention heads")
    vocab_size: Size = Field(description="rows of the token table")
    max_position_embeddings: Size = Field(512, description="rows of the position table")
    type_vocab_size: Size = Field(2, description="rows of the segment table")
    layer_norm_eps: Positive = Field(1e-12, description="epsilon of the norms")
    hidden_act: Text = Field("gelu", description="activation of the FFN")


def is_hf(raw: Mapping[str, object]) -> bool:
    """Whether the mapping has a key by which Hugging Face configs are known."""
    return "model_type" in raw or "architectures" in raw


def read_hf(raw: Mapping[str, object], name: str) -> ModelConfig:
    """The model that a Hugging Face config describes.

    Args:
        raw: the mapping of the file.
        name: the name of the model.

    Raises:
        InputError: an unknown family or class, a missing, wrong or unknown entry, or a feature that is not supported.
    """
    model = FAMILIES[_family(raw)](raw, name)
    has_lm_head, left_out = _ends_of_class(raw.get("architectures"))
    return replace(model, has_lm_head=model.has_lm_head and has_lm_head, left_out=left_out)


def read_llama(raw: Mapping[str, object], name: str) -> ModelConfig:
    """The model that a `model_type: llama` config describes; errors as in `read_hf`."""
    config, ignored = _read(raw, HfLlama)
    theta, scaling = read_rope(config.rope_theta, config.rope_parameters, config.rope_scaling)
    return plain_llama(
        name=name,
        num_layers=config.num_hidden_layers,
        hidden_size=config.hidden_size,
        num_heads=config.num_attention_heads,
        num_kv_heads=config.num_key_value_heads,
        head_dim=config.head_dim or derive_head_dim(config.hidden_size, config.num_attention_heads),
        ffn_size=config.intermediate_size,
        vocab_size=config.vocab_size,
        max_position_embeddings=config.max_position_embeddings or config.max_sequence_length or 2048,
        norm_eps=config.rms_norm_eps,
        activation=_activation("hidden_act", config.hidden_act, _SILU),
        tie_word_embeddings=config.tie_word_embeddings,
        attention_bias=config.attention_bias,
        mlp_bias=config.mlp_bias,
        rope_theta=theta,
        rope_scaling=scaling,
        ignored_keys=ignored + _outweighed(config, "max_sequence_length", by="max_position_embeddings"),
        unknown_keys=LLAMA_KEYS.not_understood(ignored),
    )


def read_gpt2(raw: Mapping[str, object], name: str) -> ModelConfig:
    """The model that a `model_type: gpt2` config describes; errors as in `read_hf`."""
    config, ignored = _read(rename(raw, GPT2_ALIASES), HfGpt2)
    positions = config.n_positions or config.n_ctx
    if positions is None:
        raise InputError("missing", path="n_positions", hint="state n_positions (or n_ctx)")
    return ModelConfig(
        name=name,
        family="gpt2",
        num_layers=config.n_layer,
        hidden_size=config.n_embd,
        num_heads=config.n_head,
        num_kv_heads=config.n_head,
        head_dim=derive_head_dim(config.n_embd, config.n_head),
        ffn_size=config.n_inner or 4 * config.n_embd,
        vocab_size=config.vocab_size,
        max_position_embeddings=positions,
        norm="layernorm",
        norm_eps=config.layer_norm_epsilon,
        activation=_activation("activation_function", config.activation_function, _GELU),
        gated_ffn=False,
        position="learned",
        tie_word_embeddings=config.tie_word_embeddings,
        attention_bias=True,
        mlp_bias=True,
        ignored_keys=ignored + _outweighed(config, "n_ctx", by="n_positions"),
        unknown_keys=GPT2_KEYS.not_understood(ignored),
    )


def read_bert(raw: Mapping[str, object], name: str) -> ModelConfig:
    """The model (an encoder with its pooler) that a `model_type: bert` config describes; errors as in `read_hf`."""
    config, ignored = _read(raw, HfBert)
    return ModelConfig(
        name=name,
        family="bert",
        num_layers=config.num_hidden_layers,
        hidden_size=config.hidden_size,
        num_heads=config.num_attention_heads,
        num_kv_heads=config.num_attention_heads,
        head_dim=derive_head_dim(config.hidden_size, config.num_attention_heads),
        ffn_size=config.intermediate_size,
        vocab_size=config.vocab_size,
        max_position_embeddings=config.max_position_embeddings,
        norm="layernorm",
        norm_eps=config.layer_norm_eps,
        activation=_activation("hidden_act", config.hidden_act, _GELU),
        gated_ffn=False,
        position="learned",
        tie_word_embeddings=True,
        attention_bias=True,
        mlp_bias=True,
        type_vocab_size=config.type_vocab_size,
        has_lm_head=False,
        ignored_keys=ignored,
        unknown_keys=BERT_KEYS.not_understood(ignored),
    )


FAMILIES: Registry[Callable[[Mapping[str, object], str], ModelConfig]] = Registry(
    "pe_sim.models",
    {"llama": read_llama, "gpt2": read_gpt2, "bert": read_bert},
    take=attrgetter("read_config"),
)
_RULES: Final[Mapping[type[Section], KeyRules]] = {HfLlama: LLAMA_KEYS, HfGpt2: GPT2_KEYS, HfBert: BERT_KEYS}
# transformers lets a gpt2 config use the common names too.
GPT2_ALIASES: Final = {
    "hidden_size": "n_embd",
    "num_attention_heads": "n_head",
    "num_hidden_layers": "n_layer",
    "max_position_embeddings": "n_positions",
}


def _read(raw: Mapping[str, object], schema: type[Schema]) -> tuple[Schema, tuple[str, ...]]:
    """The entries that the schema knows, and the ignored keys; those that name family and class are neither."""
    entries = {key: value for key, value in raw.items() if key not in ("model_type", "architectures")}
    return read_entries(schema, entries, _RULES[schema])


def _outweighed(config: Section, old: str, *, by: str) -> tuple[str, ...]:
    """The old name of an entry, as an ignored key, if the file gives the new name too; else nothing."""
    return (old,) if old in config.model_fields_set and getattr(config, by) is not None else ()


def rename(raw: Mapping[str, object], aliases: Mapping[str, str]) -> dict[str, object]:
    """`raw` with entries under the family's own names.

    Args:
        raw: the mapping of the file.
        aliases: the family's own names by other names.

    Raises:
        InputError: an entry is given under both names, with different values.
    """
    renamed = dict(raw)
    for alias, key in aliases.items():
        if alias not in renamed:
            continue
        value = renamed.pop(alias)
        if renamed.setdefault(key, value) != value:
            problem = f"{alias} and {key} are the same entry and disagree"
            raise InputError(problem, path=alias, given=value)
    return renamed


def _family(raw: Mapping[str, object]) -> str:
    """The family by `model_type`, or without one by the class name in `architectures`."""
    kind = raw.get("model_type")
    if isinstance(kind, str) and kind in FAMILIES:
        return kind
    key, given, expected, hint = "model_type", kind, _known_families(), None
    if kind is None:
        key, given = "architectures", raw.get("architectures")
        first = given[0] if isinstance(given, list) and given else None
        match = _CLASS_NAME.fullmatch(first) if isinstance(first, str) else None
        if match and match[1].lower() in FAMILIES:
            return match[1].lower()
        kind, expected, hint = match[1] if match else None, f"a model class of {expected}", "or state model_type"
    hint = _nearest_family(kind) or hint
    raise InputError("unknown model family", path=key, given=given, expected=expected, hint=hint)


def _nearest_family(kind: object) -> str | None:
    """A hint on how an unsupported family differs from the nearest supported one; None if it is unknown."""
    if not isinstance(kind, str):
        return None
    table = json.loads(Path(__file__).with_name("absent_families.json").read_text(encoding="utf-8"))
    by_name = {_plain(name): (name, *entry) for name, entry in table.items()}
    if _plain(kind) in by_name:
        name, nearest, difference = by_name[_plain(kind)]
        return f"{name} is not {nearest}, the nearest family here; what differs: {difference}"
    near = difflib.get_close_matches(_plain(kind), FAMILIES, n=1, cutoff=0.85)
    return f"did you mean {near[0]!r}?" if near else None


def _plain(name: str) -> str:
    """A family's name in the form of its classes' names: GPTNeoX and gpt_neox become the same."""
    return re.sub(r"[-_.]", "", name[:99]).lower()


def _ends_of_class(architectures: object) -> tuple[bool, str]:
    """Whether a model class has an LM head, and what other head it has, in words; no class means an LM head alone."""
    if architectures in (None, []):
        return True, ""
    name = architectures[0] if isinstance(architectures, list) else None
    if not isinstance(name, str):
        raise InputError(
            "not a list of model classes",
            path="architectures",
            given=architectures,
            expected='for instance ["LlamaForCausalLM"], or no such key',
        )
    if "DoubleHeads" in name:
        return True, f"the second head of {name}"
    if _LM_HEAD.search(name):
        return True, ""
    if _OTHER_HEAD.search(name) is None:
        raise InputError(
            "a model class that is not known: whether it has an LM head cannot be told",
            path="architectures",
            given=name,
            expected="a class of transformers, such as LlamaForCausalLM (with an LM head) or LlamaModel (without)",
            hint="without this key the model has an LM head",
        )
    match = _CLASS_NAME.fullmatch(name)
    is_bare = match is not None and match[2] == "Model" and match[1].lower() in FAMILIES
    return False, "" if is_bare else f"the head of {name}"


def _known_families() -> str:
    *others, last = FAMILIES
    return f"{', '.join(others)} or {last}"


def _activation(key: str, given: str, known: Mapping[str, str]) -> str:
    if given in known:
        return known[given]
    raise InputError(f"activation {given!r} is not supported", path=key, given=given, expected=" or ".join(known))
