"""Meta's params.json: the published FFN widths, the defaults of old files, and what they leave open."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pe_sim.config.models.load import load_model
from pe_sim.config.models.meta import meta_ffn_size
from pe_sim.errors import InputError

LLAMA_7B = {"dim": 4096, "multiple_of": 256, "n_heads": 32, "n_layers": 32, "norm_eps": 1e-06, "vocab_size": -1}
LLAMA_3_8B = {
    "dim": 4096,
    "n_layers": 32,
    "n_heads": 32,
    "n_kv_heads": 8,
    "vocab_size": 128256,
    "multiple_of": 1024,
    "ffn_dim_multiplier": 1.3,
    "norm_eps": 1e-05,
    "rope_theta": 500000.0,
}


def message(config, overrides=None):
    with pytest.raises(InputError) as caught:
        load_model(config, overrides)
    return str(caught.value)


@pytest.mark.parametrize(
    ("dim", "multiplier", "multiple_of", "published"),
    [
        (4096, None, 256, 11008),  # Llama 1 and 2, 7B
        (5120, None, 256, 13824),  # 13B
        (6656, None, 256, 17920),  # 33B
        (8192, None, 256, 22016),  # 65B
        (8192, 1.3, 4096, 28672),  # Llama 2 and 3, 70B
        (4096, 1.3, 1024, 14336),  # Llama 3, 8B
        (16384, 1.2, 4096, 53248),  # Llama 3.1, 405B
        (2048, 1.5, 256, 8192),  # Llama 3.2, 1B
        (3072, 1.0, 256, 8192),  # Llama 3.2, 3B
    ],
)
def test_published_ffn_widths(dim, multiplier, multiple_of, published):
    assert meta_ffn_size(dim, multiple_of, multiplier) == published
    config = {**LLAMA_3_8B, "dim": dim, "multiple_of": multiple_of, "n_heads": 32, "ffn_dim_multiplier": multiplier}
    assert load_model(config).ffn_size == published


@given(
    dim=st.integers(1, 2**20),
    multiple_of=st.integers(1, 2**14),
    multiplier=st.none() | st.floats(0.5, 4.0),
)
def test_the_ffn_width_is_a_positive_multiple_and_not_padded_more_than_needed(dim, multiple_of, multiplier):
    size = meta_ffn_size(dim, multiple_of, multiplier)
    assert size > 0
    assert size % multiple_of == 0
    exact = 8 * dim / 3 * (multiplier or 1.0)
    assert exact - 1 - (multiplier or 1.0) < size < exact + multiple_of + 1


@pytest.mark.parametrize(
    ("params", "preset"),
    [
        ({**LLAMA_7B, "vocab_size": 32000}, "llama-7b"),
        ({**LLAMA_3_8B, "max_seq_len": 8192}, "llama-3-8b"),
    ],
)
def test_the_same_model_as_the_preset(params, preset):
    ours, theirs = load_model(params).to_dict(), load_model(preset).to_dict()
    for key in ("name", "ignored_keys"):
        del ours[key], theirs[key]
    assert ours == theirs


def test_defaults():
    model = load_model({"dim": 64, "n_layers": 2, "n_heads": 4, "vocab_size": 100})
    assert model.num_kv_heads == 4
    assert model.ffn_size == 256
    assert model.norm_eps == 1e-5
    assert model.rope_theta == 10000.0
    assert model.max_position_embeddings == 2048
    assert model.rope_scaling == {}
    assert not model.tie_word_embeddings


def test_scaled_rope():
    assert load_model({**LLAMA_3_8B, "use_scaled_rope": True}).rope_scaling == {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    assert load_model({**LLAMA_3_8B, "use_scaled_rope": False}).rope_scaling == {}


@pytest.mark.parametrize("config", [LLAMA_7B, {key: LLAMA_7B[key] for key in ("dim", "n_heads", "n_layers")}])
def test_an_open_vocabulary_needs_the_caller(config):
    assert message(config) == (
        "model config: vocab_size: the file leaves the vocabulary size to the tokenizer (-1)\n"
        "  hint:     state it yourself: load_model(..., overrides={'vocab_size': 32000})"
        " or --set model.vocab_size=32000"
    )
    assert load_model(config, {"vocab_size": 32000}).num_parameters == 6_738_415_616
    assert "model.vocab_size: too small" in message(config, {"vocab_size": -1})


def test_a_file_is_called_like_its_folder(tmp_path):
    folder = tmp_path / "llama-7b-original"
    folder.mkdir()
    (folder / "params.json").write_text('{"dim": 64, "n_layers": 2, "n_heads": 4, "vocab_size": 100}', encoding="utf-8")
    assert load_model(folder / "params.json").name == "llama-7b-original"


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"dim": "64"}, "dim: not a whole number"),
        ({"dim": 0}, "dim: too small"),
        ({"vocab_size": 0}, "vocab_size: too small"),
        ({"vocab_size": -2}, "vocab_size: too small"),
        ({"multiple_of": 0}, "multiple_of: too small"),
        ({"multiple_of": True}, "multiple_of: not a whole number"),
        ({"ffn_dim_multiplier": 0}, "ffn_dim_multiplier: too small"),
        ({"ffn_dim_multiplier": 1e308}, "ffn_dim_multiplier: too large"),
        ({"ffn_dim_multiplier": 1e-9}, "leave the FFN without a width"),
        ({"ffn_dim_multiplier": "1.3"}, "ffn_dim_multiplier: not a number"),
        ({"n_kv_heads": 5}, "32 attention heads cannot share 5 kv heads evenly"),
        ({"n_heads": 33}, "hidden size 4096 is not a multiple of the 33 attention heads"),
        ({"n_kv_head": 8}, "n_kv_head: unknown key"),
        ({"moe_args": {"num_experts": 16}}, "moe_args: not supported: a mixture of experts"),
        ({"quantization_args": {"scheme": "x"}}, "quantization_args: not supported"),
    ],
)
def test_bad_params(changes, problem):
    assert problem in message({**LLAMA_3_8B, **changes})


def test_a_missing_size():
    config = {key: value for key, value in LLAMA_3_8B.items() if key != "n_heads"}
    assert "n_heads: missing" in message(config)


def test_batch_size_cannot_matter():
    assert load_model({**LLAMA_3_8B, "max_batch_size": 32}).ignored_keys == ("max_batch_size",)
