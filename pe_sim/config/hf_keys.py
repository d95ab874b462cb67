"""The keys of Hugging Face configs that are not sizes: which cannot matter for inference, and which we must refuse.

`transformers_keys.json` judges the fields of transformers' configuration classes; what is here has a better reason, is
a family's own, or occurs in checkpoints and not in transformers.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any, Final

from pe_sim.config.model_fields import BOOKKEEPING, UNKNOWN_KEY, KeyRules, Refusal

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
    """The table of transformers' fields: None where a field is neutral."""
    table: dict[str, Any] = json.loads(Path(__file__).with_name("transformers_keys.json").read_text(encoding="utf-8"))
    judged: dict[str, Refusal | None] = dict.fromkeys(table["neutral"])
    for name, entry in table["computing"].items():
        of = ", ".join(entry["of"])
        judged[name] = Refusal(f"a key of other families ({of}) that changes what is computed", (None, *entry["off"]))
    return judged


def judge_key(key: str) -> Refusal | None:
    """What a key of no schema means: None where it cannot matter, UNKNOWN_KEY where nobody knows it."""
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
