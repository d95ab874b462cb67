"""The keys of Hugging Face configs that are not sizes: which cannot matter for inference, and which we must refuse."""

from __future__ import annotations

from typing import Final

from pe_sim.config.model_fields import KeyRules, Refusal

# Written by every model class of transformers, some only by its old versions: training, text generation defaults,
# labels, token ids, bookkeeping. None of them changes what one step of the network computes.
_IGNORED_BY_ALL: Final = frozenset(
    """
    _attn_implementation _attn_implementation_autoset _commit_hash _name_or_path attention_dropout
    attn_implementation bad_words_ids begin_suppress_tokens bos_token_id chunk_size_feed_forward classifier_dropout
    decoder_start_token_id diversity_penalty do_sample dtype early_stopping encoder_no_repeat_ngram_size eos_token_id
    exponential_decay_length_penalty finetuning_task forced_bos_token_id forced_eos_token_id gradient_checkpointing
    id2label initializer_range keys_to_ignore_at_inference label2id length_penalty max_length min_length
    no_repeat_ngram_size num_beam_groups num_beams num_labels num_return_sequences output_attentions
    output_hidden_states output_past output_scores pad_token_id prefix pretraining_tp problem_type remove_invalid_values
    repetition_penalty return_dict return_dict_in_generate sep_token_id suppress_tokens task_specific_params
    temperature tf_legacy_loss tie_encoder_decoder tokenizer_class top_k top_p torch_dtype torchscript
    transformers_version typical_p unk_token_id use_bfloat16 use_cache use_return_dict vocab_multiple
    vocab_size_multiple pad_vocab_size_multiple pad_vocab_size_multiple_of pad_to_multiple_of
    """.split()  # noqa: SIM905 - a list of words reads better than seventy quoted lines
)

_OFF: Final = (None, False)
_NONE_OR_ZERO: Final = (None, False, 0)
_EXPERTS: Final = Refusal("a mixture of experts", _NONE_OR_ZERO)
_SOFTCAP: Final = Refusal("soft-capping of scores or logits")
_QK_NORM: Final = Refusal("a norm on queries and keys", _OFF)
_SCALED: Final = Refusal("a scale factor on a part of the network", (None, 1, 1.0))
_LATENT: Final = Refusal("multi-head latent attention")
_ENCODER_DECODER: Final = Refusal("cross-attention of an encoder-decoder", _OFF)

_REFUSED_BY_ALL: Final[dict[str, Refusal]] = {
    "sliding_window": Refusal("attention over a sliding window"),
    "use_sliding_window": Refusal("attention over a sliding window", _OFF),
    "attention_chunk_size": Refusal("attention within chunks"),
    "layer_types": Refusal("layers with different kinds of attention"),
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
    "alibi": Refusal("ALiBi positions", _OFF),
    "parallel_attn": Refusal("attention and FFN side by side", _OFF),
    "use_parallel_residual": Refusal("attention and FFN side by side", _OFF),
    "pruned_heads": Refusal("pruned attention heads", (None, {})),
    "auto_map": Refusal("model code of its own beside the config", (None, {})),
    "is_encoder_decoder": _ENCODER_DECODER,
    "add_cross_attention": _ENCODER_DECODER,
    "cross_attention_hidden_size": Refusal("cross-attention of an encoder-decoder"),
}

LLAMA_KEYS: Final = KeyRules(
    ignored=_IGNORED_BY_ALL | {"is_decoder", "max_window_layers"},
    refused=_REFUSED_BY_ALL,
)

GPT2_KEYS: Final = KeyRules(
    ignored=_IGNORED_BY_ALL | {"attn_pdrop", "embd_pdrop", "is_decoder", "resid_pdrop"},
    ignored_prefixes=("summary_",),
    refused={
        **_REFUSED_BY_ALL,
        "scale_attn_weights": Refusal("attention scores without the scale 1/sqrt(head_dim)", (True,)),
        "scale_attn_by_inverse_layer_idx": Refusal("attention scores scaled by the layer's index", _OFF),
        "reorder_and_upcast_attn": Refusal("attention scores scaled and cast in another order", _OFF),
    },
)

BERT_KEYS: Final = KeyRules(
    ignored=_IGNORED_BY_ALL
    | {"attention_probs_dropout_prob", "directionality", "hidden_dropout_prob", "tie_word_embeddings"},
    ignored_prefixes=("pooler_", "summary_"),
    refused={
        **_REFUSED_BY_ALL,
        "position_embedding_type": Refusal("positions that are not absolute", (None, "absolute")),
        "is_decoder": Refusal("a BERT with a causal mask and a cache", _OFF),
    },
)
