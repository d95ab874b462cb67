"""Hugging Face configs of several ages: what a missing entry means, and what is ignored."""

import pytest

from pe_sim.config.files.loading import preset_names, resolve
from pe_sim.config.models.hf import LLAMA_KEYS
from pe_sim.config.models.load import load_model
from pe_sim.errors import InputError

LLAMA = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 100,
}
GPT2 = {"model_type": "gpt2", "n_embd": 64, "n_head": 4, "n_layer": 2, "n_positions": 32, "vocab_size": 100}
BERT = {**LLAMA, "model_type": "bert"}


def test_defaults_of_llama():
    model = load_model(LLAMA)
    assert model.num_kv_heads == 4
    assert model.head_dim == 16
    assert model.max_position_embeddings == 2048
    assert model.norm_eps == 1e-6
    assert model.rope_theta == 10000.0
    assert model.rope_scaling == {}
    assert not model.tie_word_embeddings
    assert not model.attention_bias
    assert not model.mlp_bias
    assert model.ignored_keys == ()


def test_nulls_mean_the_defaults_of_llama():
    nulls = dict.fromkeys(("num_key_value_heads", "head_dim", "rope_scaling", "rope_parameters", "sliding_window"))
    model = load_model({**LLAMA, **nulls})
    assert (model.num_kv_heads, model.head_dim, model.rope_scaling) == (4, 16, {})
    assert model.ignored_keys == ("sliding_window",)


def test_the_very_first_llama_config():
    model = load_model(
        {
            "architectures": ["LLaMAForCausalLM"],
            "bos_token_id": 0,
            "eos_token_id": 1,
            "hidden_act": "silu",
            "hidden_size": 4096,
            "intermediate_size": 11008,
            "initializer_range": 0.02,
            "max_sequence_length": 1024,
            "model_type": "llama",
            "num_attention_heads": 32,
            "num_hidden_layers": 32,
            "pad_token_id": -1,
            "rms_norm_eps": 1e-06,
            "torch_dtype": "float16",
            "transformers_version": "4.27.0.dev0",
            "use_cache": True,
            "vocab_size": 32000,
        }
    )
    assert model.num_parameters == 6_738_415_616
    assert model.max_position_embeddings == 1024


def test_max_position_embeddings_wins_over_its_old_name():
    both = {**LLAMA, "max_position_embeddings": 4096, "max_sequence_length": 2048}
    model = load_model(both)
    assert (model.max_position_embeddings, model.ignored_keys) == (4096, ("max_sequence_length",))


def test_a_llama_config_of_today():
    model = load_model(
        {
            **LLAMA,
            "dtype": "bfloat16",
            "head_dim": 32,
            "mlp_bias": True,
            "attention_bias": True,
            "num_key_value_heads": 2,
            "rope_parameters": {"rope_theta": 500000.0, "rope_type": "default"},
        }
    )
    assert (model.q_size, model.kv_size, model.heads_per_kv_head) == (128, 64, 2)
    assert model.rope_theta == 500000.0
    assert model.attention_bias
    assert model.mlp_bias


@pytest.mark.parametrize(
    ("class_name", "family"),
    [
        ("LlamaForCausalLM", "llama"),
        ("LLaMAForCausalLM", "llama"),
        ("LlamaModel", "llama"),
        ("GPT2LMHeadModel", "gpt2"),
        ("BertForMaskedLM", "bert"),
        ("BertModel", "bert"),
    ],
)
def test_family_by_class_name(class_name, family):
    base = {"llama": LLAMA, "gpt2": GPT2, "bert": BERT}[family]
    config = {key: value for key, value in base.items() if key != "model_type"}
    assert load_model({**config, "architectures": [class_name]}).family == family


@pytest.mark.parametrize(
    ("config", "class_name", "has_lm_head", "left_out"),
    [
        (LLAMA, None, True, ""),
        (LLAMA, "LlamaForCausalLM", True, ""),
        (LLAMA, "LLaMAForCausalLM", True, ""),
        (LLAMA, "LlamaForCausalLMEagle3", True, ""),
        (LLAMA, "LlamaModel", False, ""),
        (LLAMA, "LlamaForSequenceClassification", False, "the head of LlamaForSequenceClassification"),
        (LLAMA, "LlamaForTokenClassification", False, "the head of LlamaForTokenClassification"),
        (LLAMA, "LlamaForQuestionAnswering", False, "the head of LlamaForQuestionAnswering"),
        (LLAMA, "LlamaRewardModel", False, "the head of LlamaRewardModel"),
        (GPT2, "GPT2LMHeadModel", True, ""),
        (GPT2, "GPT2DoubleHeadsModel", True, "the second head of GPT2DoubleHeadsModel"),
        (GPT2, "GPT2Model", False, ""),
        (GPT2, "GPT2ForTokenClassification", False, "the head of GPT2ForTokenClassification"),
        (BERT, None, False, ""),
        (BERT, "BertModel", False, ""),
        (BERT, "BertForMaskedLM", False, "the head of BertForMaskedLM"),
    ],
)
def test_the_class_says_how_a_model_ends(config, class_name, has_lm_head, left_out):
    model = load_model(config if class_name is None else {**config, "architectures": [class_name]})
    assert (model.has_lm_head, model.left_out) == (has_lm_head, left_out)
    if config is not BERT:
        tied = config is GPT2  # by default
        without = load_model({**config, "architectures": ["LlamaModel" if config is LLAMA else "GPT2Model"]})
        own_head = has_lm_head and not tied
        assert model.num_parameters == without.num_parameters + own_head * model.vocab_size * model.hidden_size


def test_what_is_left_out_is_told():
    def notes(config, class_name):
        return load_model({**config, "architectures": [class_name]}).notes

    assert notes(LLAMA, "LlamaForCausalLM") == ()
    assert notes(BERT, "BertModel") == ()
    assert notes(LLAMA, "LlamaModel") == ("model has no LM head and ends with the final norm",)
    head = "the head of LlamaForSequenceClassification"
    assert notes(LLAMA, "LlamaForSequenceClassification") == (
        f"{head} is not simulated: model ends with the final norm",
    )
    assert notes(BERT, "BertForMaskedLM") == (
        "the head of BertForMaskedLM is not simulated: model ends with the pooler",
    )


def test_a_llama_that_classifies_sequences_has_no_lm_head():
    """Llama-2-7b's sizes: 6,738,415,616 parameters less an LM head of 32,000 x 4,096."""
    sizes = {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32}
    config = {**LLAMA, **sizes, "vocab_size": 32000, "architectures": ["LlamaForSequenceClassification"]}
    assert load_model(config).num_parameters == 6_607_343_616


def test_keys_that_cannot_matter_are_listed():
    extra = {
        "attention_dropout": 0.0,
        "_name_or_path": "x/y",
        "pretraining_tp": 8,
        "torch_dtype": "float16",
        "transformers_version": "4.31.0",
        "use_cache": True,
    }
    assert load_model({**LLAMA, **extra}).ignored_keys == tuple(extra)


def test_no_key_is_both_ignored_and_refused():
    assert not LLAMA_KEYS.ignored & set(LLAMA_KEYS.refused)


def test_defaults_of_gpt2():
    model = load_model(GPT2)
    assert model.ffn_size == 256
    assert model.activation == "gelu_tanh"
    assert model.norm_eps == 1e-5
    assert model.tie_word_embeddings
    assert (model.attention_bias, model.mlp_bias, model.gated_ffn) == (True, True, False)
    assert (model.norm, model.position) == ("layernorm", "learned")


def test_gpt2_variants():
    assert load_model({**GPT2, "n_inner": None}).ffn_size == 256
    assert load_model({**GPT2, "n_inner": 200}).ffn_size == 200
    assert load_model({**GPT2, "activation_function": "gelu"}).activation == "gelu"
    old = {key: value for key, value in GPT2.items() if key != "n_positions"}
    assert load_model({**old, "n_ctx": 48}).max_position_embeddings == 48
    both = load_model({**GPT2, "n_ctx": 48})
    assert (both.max_position_embeddings, both.ignored_keys) == (32, ("n_ctx",))
    untied = load_model({**GPT2, "tie_word_embeddings": False})
    assert untied.num_parameters - load_model(GPT2).num_parameters == 6400


def test_gpt2_under_the_common_names():
    common = {
        "model_type": "gpt2",
        "hidden_size": 64,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "max_position_embeddings": 32,
        "vocab_size": 100,
    }
    assert load_model(common) == load_model(GPT2)
    assert load_model({**GPT2, "hidden_size": 64}) == load_model(GPT2)
    with pytest.raises(InputError, match="hidden_size and n_embd are the same entry and disagree"):
        load_model({**GPT2, "hidden_size": 65})


def test_gpt2_without_positions():
    config = {key: value for key, value in GPT2.items() if key != "n_positions"}
    with pytest.raises(InputError) as caught:
        load_model(config)
    assert str(caught.value) == ("model config: n_positions: missing\n  hint:     state n_positions (or n_ctx)")


def test_gpt2_switches_at_their_harmless_values():
    off = {"scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False, "reorder_and_upcast_attn": False}
    assert load_model({**GPT2, **off, "summary_type": "cls_index"}).ignored_keys == (*off, "summary_type")


def test_defaults_of_bert():
    model = load_model(BERT)
    assert model.max_position_embeddings == 512
    assert model.type_vocab_size == 2
    assert model.norm_eps == 1e-12
    assert model.activation == "gelu"
    assert (model.attention_bias, model.mlp_bias, model.gated_ffn) == (True, True, False)
    assert not model.has_kv_cache


def test_bert_of_other_times():
    extra = {
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "position_embedding_type": "absolute",
        "is_decoder": False,
        "directionality": "bidi",
        "pooler_fc_size": 768,
        "classifier_dropout": None,
    }
    assert set(load_model({**BERT, **extra}).ignored_keys) == set(extra)


@pytest.mark.parametrize("name", preset_names("models"))
def test_a_preset_is_read_the_same_by_its_path(name):
    model = load_model(resolve("models", name))
    assert model == load_model(name)
