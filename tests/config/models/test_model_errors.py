"""What a bad model config is told, word by word where it matters."""

import pytest

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


def message(config):
    with pytest.raises(InputError) as caught:
        load_model(config)
    return str(caught.value)


def test_a_number_in_quotes():
    assert message({**LLAMA, "hidden_size": "64"}) == (
        "model config: hidden_size: not a whole number\n"
        "  given:    '64'\n"
        "  expected: a whole number from 1 to 2147483648\n"
        "  hint:     this is text, not a number: write 64 without quotes"
    )


def test_1e9_as_a_text():
    assert message({**LLAMA, "rope_theta": "1e9"}) == (
        "model config: rope_theta: not a number\n"
        "  given:    '1e9'\n"
        "  expected: a number above 0\n"
        "  hint:     YAML reads 1e9 as text, not as a number: write 1.0e+9"
    )


def test_a_boolean_is_no_number():
    assert message({**LLAMA, "num_hidden_layers": True}) == (
        "model config: num_hidden_layers: not a whole number\n  given:    True\n"
        "  expected: a whole number from 1 to 2147483648\n  hint:     true and false are no numbers"
    )


def test_zero():
    assert message({**LLAMA, "vocab_size": 0}) == (
        "model config: vocab_size: too small\n  given:    0\n  expected: a whole number from 1 to 2147483648\n"
        "  hint:     vocab_size means: rows of the token table"
    )


def test_a_missing_size():
    config = {key: value for key, value in LLAMA.items() if key != "intermediate_size"}
    assert message(config) == (
        "model config: intermediate_size: missing\n  expected: a whole number from 1 to 2147483648\n"
        "  hint:     intermediate_size means: width of the FFN"
    )


def test_all_faults_of_a_config_in_one_message():
    assert message({**LLAMA, "vocab_size": 0, "rms_norm_eps": "x"}).endswith(
        "\n  1 more fault:\n    rms_norm_eps: not a number, given 'x', expected a number above 0"
        " (rms_norm_eps means: epsilon of the RMS norms)"
    )


def test_a_misspelt_key():
    assert message({**LLAMA, "num_key_value_head": 2}) == (
        "model config: num_key_value_head: unknown key\n  given:    2\n  hint:     did you mean 'num_key_value_heads'?;"
        " --ignore-key num_key_value_head (in Python load_model(..., ignore_keys=[...])) reads the file without it"
    )


def test_an_unknown_family():
    assert message({**LLAMA, "model_type": "mixtral"}) == (
        "model config: model_type: unknown model family\n"
        "  given:    'mixtral'\n"
        "  expected: llama, gpt2 or bert\n"
        "  hint:     mixtral is not llama, the nearest family here;"
        " what differs: a mixture of experts: two of eight FFNs for each row"
    )


@pytest.mark.parametrize("architectures", [["MistralForCausalLM"], [], None, "LlamaForCausalLM", [3], ["BertJapanese"]])
def test_an_unknown_class(architectures):
    config = {key: value for key, value in LLAMA.items() if key != "model_type"}
    text = message({**config, "architectures": architectures})
    assert text.startswith("model config: architectures: unknown model family\n")
    assert "expected: a model class of llama, gpt2 or bert" in text


@pytest.mark.parametrize("architectures", ["LlamaForCausalLM", [3], 7, {"0": "LlamaModel"}])
def test_classes_that_are_no_list(architectures):
    text = message({**LLAMA, "architectures": architectures})
    assert text.startswith("model config: architectures: not a list of model classes\n")
    assert 'expected: for instance ["LlamaForCausalLM"], or no such key' in text


def test_a_class_that_does_not_tell_whether_it_has_a_head():
    text = message({**LLAMA, "architectures": ["LlamaJapanese"]})
    assert text.startswith("model config: architectures: a model class that is not known: whether it has an LM head")
    assert "expected: a class of transformers, such as LlamaForCausalLM (with an LM head) or LlamaModel" in text


def test_no_dialect():
    assert message({"hidden_size": 64}) == (
        "model config: this is no model config of a known dialect\n"
        "  given:    ['hidden_size']\n"
        "  expected: Hetu LlamaConfig (has ffn_hidden_size beside n_embd or Hugging Face names);"
        " Hugging Face config.json (has model_type or architectures);"
        " Galvatron model_configs (has num_query_groups, gated_linear_unit or num_layers);"
        " Galvatron meta_configs (has dim and n_layers beside n_positions or ffn_dim);"
        " Meta params.json (has dim and n_layers);"
        " Galvatron meta_configs, gpt (has n_embd and n_layer);"
        " Galvatron meta_configs, bert (has hidden_size, num_hidden_layers and num_attention_heads)"
    )


def test_heads_that_do_not_divide_the_hidden_size():
    assert message({**LLAMA, "num_attention_heads": 6}) == (
        "model config: hidden size 64 is not a multiple of the 6 attention heads\n"
        "  hint:     change one of the two, or state head_dim where the family has it"
    )


def test_heads_that_do_not_share_kv_heads():
    assert message({**LLAMA, "num_key_value_heads": 3}) == (
        "model config: 4 attention heads cannot share 3 kv heads evenly\n"
        "  expected: a number of attention heads that is a multiple of the kv heads"
    )


def test_an_odd_head():
    assert message({**LLAMA, "head_dim": 15}) == (
        "model config: head_dim 15 is odd, and rotary positions turn pairs of elements"
    )


def test_a_sliding_window():
    assert message({**LLAMA, "sliding_window": 4096}) == (
        "model config: sliding_window: not supported: attention over a sliding window\n"
        "  given:    4096\n"
        "  expected: null, or no such key"
    )


@pytest.mark.parametrize(
    ("base", "key", "value"),
    [
        (LLAMA, "quantization_config", {"bits": 4}),
        (LLAMA, "num_local_experts", 8),
        (LLAMA, "num_experts_per_tok", 2),
        (LLAMA, "attn_logit_softcapping", 50.0),
        (LLAMA, "final_logit_softcapping", 30.0),
        (LLAMA, "use_sliding_window", True),
        (LLAMA, "layer_types", ["full_attention", "sliding_attention"]),
        (LLAMA, "partial_rotary_factor", 0.5),
        (LLAMA, "pruned_heads", {"0": [1]}),
        (GPT2, "scale_attn_weights", False),
        (GPT2, "scale_attn_by_inverse_layer_idx", True),
        (GPT2, "reorder_and_upcast_attn", True),
        (GPT2, "add_cross_attention", True),
        (BERT, "is_decoder", True),
        (BERT, "position_embedding_type", "relative_key"),
        (BERT, "is_encoder_decoder", True),
    ],
)
def test_features_we_cannot_follow_are_named(base, key, value):
    text = message({**base, key: value})
    assert text.startswith(f"model config: {key}: not supported: ")


@pytest.mark.parametrize(
    ("base", "key", "value"),
    [
        (LLAMA, "num_local_experts", 0),
        (LLAMA, "pruned_heads", {}),
        (LLAMA, "use_sliding_window", False),
        (LLAMA, "partial_rotary_factor", 1.0),
        (GPT2, "add_cross_attention", False),
        (BERT, "is_decoder", False),
    ],
)
def test_the_same_features_switched_off_are_ignored(base, key, value):
    assert load_model({**base, key: value}).ignored_keys == (key,)


@pytest.mark.parametrize(
    ("base", "key", "value", "expected"),
    [
        (LLAMA, "hidden_act", "gelu", "silu or swish"),
        (GPT2, "activation_function", "relu", "gelu or gelu_new or gelu_pytorch_tanh"),
        (BERT, "hidden_act", "relu", "gelu or gelu_new or gelu_pytorch_tanh"),
    ],
)
def test_activations(base, key, value, expected):
    assert message({**base, key: value}) == (
        f"model config: {key}: activation {value!r} is not supported\n  given:    {value!r}\n  expected: {expected}"
    )


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("hidden_size", 64.0, "not a whole number"),
        ("hidden_size", None, "not a whole number"),
        ("hidden_size", -64, "too small"),
        ("hidden_size", 10**400, "too large"),
        ("hidden_size", [64], "not a whole number"),
        ("num_key_value_heads", "2", "not a whole number"),
        ("num_key_value_heads", 0, "too small"),
        ("head_dim", True, "not a whole number"),
        ("rms_norm_eps", "1e-6", "not a number"),
        ("rms_norm_eps", float("nan"), "not a finite number"),
        ("rms_norm_eps", 0, "too small"),
        ("tie_word_embeddings", 1, "not a boolean"),
        ("attention_bias", "false", "not a boolean"),
        ("hidden_act", 3, "not text"),
        ("hidden_act", "", "empty"),
    ],
)
def test_strict_scalars(key, value, problem):
    assert message({**LLAMA, key: value}).startswith(f"model config: {key}: {problem}\n  given:")


def test_a_wrong_count_in_our_own_entry():
    own = {"parameters": 7_000_000, "source": "a guess"}
    count = load_model(LLAMA).num_parameters
    assert message({**LLAMA, "_pe_sim": own}) == (
        f"model config: _pe_sim.parameters: the sizes give {count:,} parameters, not 7,000,000\n  given:    7000000"
    )


@pytest.mark.parametrize(
    ("own", "problem"),
    [
        ("guess", "_pe_sim: not a mapping"),
        ({"parameters": 1}, "_pe_sim.source: missing"),
        ({"parameters": "1", "source": "x"}, "_pe_sim.parameters: not a whole number"),
        ({"parameters": 1, "source": "x", "sauce": 1}, "_pe_sim.sauce: unknown key"),
    ],
)
def test_a_bad_entry_of_our_own(own, problem):
    assert problem in message({**LLAMA, "_pe_sim": own})


def test_a_key_that_is_no_text():
    assert "a key is not a text" in message({**LLAMA, 3: 4})
