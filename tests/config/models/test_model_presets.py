"""Every preset model: its published parameter count, its own statement of it, and its shape."""

import json

import pytest

from pe_sim.config.files.loading import preset_names, resolve
from pe_sim.config.models.load import describe_model, load_model

PUBLISHED = {
    "llama-7b": 6_738_415_616,
    "llama-13b": 13_015_864_320,
    "llama-33b": 32_528_943_616,
    "llama-65b": 65_285_660_672,
    "llama-2-7b": 6_738_415_616,
    "llama-2-13b": 13_015_864_320,
    "llama-2-70b": 68_976_648_192,
    "llama-3-8b": 8_030_261_248,
    "llama-3-70b": 70_553_706_496,
    "llama-3.1-405b": 405_853_388_800,
    "llama-3.2-1b": 1_235_814_400,
    "llama-3.2-3b": 3_212_749_824,
    "gpt2": 124_439_808,
    "gpt2-medium": 354_823_168,
    "gpt2-large": 774_030_080,
    "gpt2-xl": 1_557_611_200,
    "bert-base-uncased": 109_482_240,
    "bert-large-uncased": 335_141_888,
}


def test_the_presets_are_the_published_ones():
    assert set(preset_names("models")) == set(PUBLISHED)


@pytest.mark.parametrize("name", PUBLISHED)
def test_count_of_parameters(name):
    assert load_model(name).num_parameters == PUBLISHED[name]


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_preset_states_its_count_and_source(name):
    entry = json.loads(resolve("models", name).read_text(encoding="utf-8"))["_pe_sim"]
    assert entry["parameters"] == PUBLISHED[name]
    assert entry["source"].startswith("Hugging Face config of ")


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_preset_carries_its_name_and_goes_through_json(name):
    model = load_model(name)
    data = json.loads(json.dumps(model.to_dict()))
    assert data["name"] == model.name == name
    assert data["parameters"] == PUBLISHED[name]
    assert list(data)[:2] == ["name", "parameters"]
    assert "_pe_sim" not in model.ignored_keys


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("llama-7b", (32, 4096, 32, 32, 128, 11008, 32000, 2048, 1e-6, 10000.0)),
        ("llama-13b", (40, 5120, 40, 40, 128, 13824, 32000, 2048, 1e-6, 10000.0)),
        ("llama-33b", (60, 6656, 52, 52, 128, 17920, 32000, 2048, 1e-6, 10000.0)),
        ("llama-65b", (80, 8192, 64, 64, 128, 22016, 32000, 2048, 1e-5, 10000.0)),
        ("llama-2-7b", (32, 4096, 32, 32, 128, 11008, 32000, 4096, 1e-5, 10000.0)),
        ("llama-2-13b", (40, 5120, 40, 40, 128, 13824, 32000, 4096, 1e-5, 10000.0)),
        ("llama-2-70b", (80, 8192, 64, 8, 128, 28672, 32000, 4096, 1e-5, 10000.0)),
        ("llama-3-8b", (32, 4096, 32, 8, 128, 14336, 128256, 8192, 1e-5, 500000.0)),
        ("llama-3-70b", (80, 8192, 64, 8, 128, 28672, 128256, 8192, 1e-5, 500000.0)),
        ("llama-3.1-405b", (126, 16384, 128, 8, 128, 53248, 128256, 131072, 1e-5, 500000.0)),
        ("llama-3.2-1b", (16, 2048, 32, 8, 64, 8192, 128256, 131072, 1e-5, 500000.0)),
        ("llama-3.2-3b", (28, 3072, 24, 8, 128, 8192, 128256, 131072, 1e-5, 500000.0)),
    ],
)
def test_shape_of_the_llamas(name, shape):
    model = load_model(name)
    assert shape == (
        model.num_layers,
        model.hidden_size,
        model.num_heads,
        model.num_kv_heads,
        model.head_dim,
        model.ffn_size,
        model.vocab_size,
        model.max_position_embeddings,
        model.norm_eps,
        model.rope_theta,
    )
    assert (model.family, model.norm, model.activation, model.position) == ("llama", "rmsnorm", "silu", "rope")
    assert model.gated_ffn
    assert not model.attention_bias
    assert not model.mlp_bias


@pytest.mark.parametrize(("name", "factor"), [("llama-3.1-405b", 8.0), ("llama-3.2-1b", 32.0), ("llama-3.2-3b", 32.0)])
def test_scaled_rope(name, factor):
    assert load_model(name).rope_scaling == {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }


@pytest.mark.parametrize("name", PUBLISHED)
def test_who_ties_and_who_scales(name):
    model = load_model(name)
    assert model.tie_word_embeddings == (not name.startswith("llama") or name.startswith("llama-3.2"))
    assert bool(model.rope_scaling) == name.startswith(("llama-3.1", "llama-3.2"))


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("gpt2", (12, 768, 12, 3072, 50257, 1024)),
        ("gpt2-medium", (24, 1024, 16, 4096, 50257, 1024)),
        ("gpt2-large", (36, 1280, 20, 5120, 50257, 1024)),
        ("gpt2-xl", (48, 1600, 25, 6400, 50257, 1024)),
        ("bert-base-uncased", (12, 768, 12, 3072, 30522, 512)),
        ("bert-large-uncased", (24, 1024, 16, 4096, 30522, 512)),
    ],
)
def test_shape_of_the_others(name, shape):
    model = load_model(name)
    assert shape == (
        model.num_layers,
        model.hidden_size,
        model.num_heads,
        model.ffn_size,
        model.vocab_size,
        model.max_position_embeddings,
    )
    bert = name.startswith("bert")
    assert model.family == ("bert" if bert else "gpt2")
    assert model.activation == ("gelu" if bert else "gelu_tanh")
    assert model.norm_eps == (1e-12 if bert else 1e-5)
    assert model.type_vocab_size == (2 if bert else 0)
    assert (model.norm, model.position, model.gated_ffn) == ("layernorm", "learned", False)
    assert model.attention_bias
    assert model.mlp_bias
    assert model.head_dim == 64
    assert model.num_kv_heads == model.num_heads


@pytest.mark.parametrize(
    ("name", "line"),
    [
        (
            "llama-2-7b",
            "llama-2-7b: llama, 6.74 G parameters, 32 layers, hidden 4096, 32 heads of 128, ffn 11008, vocab 32000,"
            " context 4096",
        ),
        (
            "llama-3-8b",
            "llama-3-8b: llama, 8.03 G parameters, 32 layers, hidden 4096, 32 heads on 8 kv heads of 128, ffn 14336,"
            " vocab 128256, context 8192",
        ),
    ],
)
def test_described_in_one_line(name, line):
    assert describe_model(load_model(name)) == line
