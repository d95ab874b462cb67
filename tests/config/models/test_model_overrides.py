"""Overrides by field name: what follows, what is refused, and in which words."""

import pytest

from pe_sim.config.models.load import load_model
from pe_sim.errors import InputError


def message(name, overrides):
    with pytest.raises(InputError) as caught:
        load_model(name, overrides)
    return str(caught.value)


@pytest.mark.parametrize("name", ["llama-2-7b", "gpt2", "bert-base-uncased"])
def test_none_given(name):
    assert load_model(name, {}) == load_model(name, None) == load_model(name)


def test_the_lever_for_long_contexts():
    model = load_model("llama-2-7b", {"max_position_embeddings": 32768})
    assert model.max_position_embeddings == 32768
    assert model.num_parameters == load_model("llama-2-7b").num_parameters


def test_more_positions_are_more_parameters_where_they_are_learned():
    longer = load_model("gpt2", {"max_position_embeddings": 2048})
    assert longer.num_parameters - load_model("gpt2").num_parameters == 1024 * 768


def test_a_scaled_down_llama():
    overrides = {"num_layers": 2, "hidden_size": 64, "num_heads": 4, "ffn_size": 96, "vocab_size": 100, "name": "tiny"}
    model = load_model("llama-2-7b", overrides)
    assert (model.name, model.num_layers, model.num_kv_heads, model.head_dim) == ("tiny", 2, 4, 16)
    assert model.num_parameters == 100 * 64 * 2 + 2 * (4 * 64 * 64 + 3 * 64 * 96 + 128) + 64


def test_grouped_heads_do_not_follow():
    assert load_model("llama-3-8b", {"num_heads": 16}).num_kv_heads == 8
    assert load_model("llama-3-8b", {"num_heads": 16}).head_dim == 256
    assert message("llama-3-8b", {"num_heads": 4}) == (
        "overrides: 4 attention heads cannot share 8 kv heads evenly\n"
        "  expected: a number of attention heads that is a multiple of the kv heads"
    )


def test_a_given_head_dim_stays():
    model = load_model("llama-2-7b", {"num_heads": 16, "head_dim": 128})
    assert (model.q_size, model.hidden_size) == (2048, 4096)


def test_floats_and_flags():
    model = load_model("llama-2-7b", {"rope_theta": 1000000, "norm_eps": 1e-6, "tie_word_embeddings": True})
    assert model.rope_theta == 1e6
    assert isinstance(model.rope_theta, float)
    assert model.num_parameters == load_model("llama-2-7b").num_parameters - 32000 * 4096


def test_rope_scaling():
    linear = {"type": "linear", "factor": 4.0}
    assert load_model("llama-2-7b", {"rope_scaling": linear}).rope_scaling == {"rope_type": "linear", "factor": 4.0}
    assert load_model("llama-3.2-1b", {"rope_scaling": None}).rope_scaling == {}
    with_base = load_model("llama-2-7b", {"rope_scaling": {**linear, "rope_theta": 5.0}})
    assert with_base.rope_theta == 5.0
    assert "model.rope_scaling.factor: too small" in message("llama-2-7b", {"rope_scaling": {**linear, "factor": 0}})


def test_a_misspelt_field():
    assert message("llama-2-7b", {"num_layer": 2}) == (
        "model.num_layer: unknown key\n  given:    2\n  hint:     did you mean 'num_layers'?"
    )


def test_a_field_that_follows_from_the_family():
    assert message("llama-2-7b", {"norm": "layernorm"}) == (
        "model.norm: this field follows from the model's family or class and cannot be set\n  given:    'layernorm'"
    )


def test_a_field_the_family_does_not_have():
    assert message("gpt2", {"rope_theta": 1e6}) == (
        "model.rope_theta: this field is fixed in family gpt2; only llama can change it\n  given:    1000000.0"
    )


@pytest.mark.parametrize(
    ("name", "overrides", "problem"),
    [
        ("llama-2-7b", {"num_layers": "2"}, "model.num_layers: not a whole number"),
        ("llama-2-7b", {"num_layers": True}, "model.num_layers: not a whole number"),
        ("llama-2-7b", {"num_layers": 2.0}, "model.num_layers: not a whole number"),
        ("llama-2-7b", {"num_layers": None}, "model.num_layers: not a whole number"),
        ("llama-2-7b", {"num_layers": 0}, "model.num_layers: too small"),
        ("llama-2-7b", {"rope_theta": "1e9"}, "model.rope_theta: not a number"),
        ("llama-2-7b", {"norm_eps": float("nan")}, "model.norm_eps: not a finite number"),
        ("llama-2-7b", {"tie_word_embeddings": 1}, "model.tie_word_embeddings: not a boolean"),
        ("llama-2-7b", {"hidden_size": 100}, "hidden size 100 is not a multiple of the 32 attention heads"),
        ("llama-2-7b", {"activation": "gelu"}, "llama has no activation 'gelu'"),
        ("llama-2-7b", {"type_vocab_size": 2}, "only bert can change it"),
        ("gpt2", {"num_kv_heads": 4}, "gpt2 has as many kv heads as attention heads, not 4 and 12"),
        ("gpt2", {"head_dim": 32}, "gpt2 needs num_heads * head_dim = hidden_size, but 12 * 32 is not 768"),
        ("gpt2", {"attention_bias": False}, "model.attention_bias: this field is fixed in family gpt2"),
        ("bert-base-uncased", {"tie_word_embeddings": False}, "only llama and gpt2 can change it"),
        ("gpt2", {3: 4}, "not the name of a field"),
    ],
)
def test_bad_overrides(name, overrides, problem):
    assert problem in message(name, overrides)
