"""What a model says about itself: its cache, its parameters, its JSON; and loading by name, path and mapping."""

import json
import pickle

import pytest

from pe_sim.config.dtypes import Dtype
from pe_sim.config.models.load import load_model
from pe_sim.errors import InputError

TINY = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 100,
}


def test_cache_of_llama_2_7b():
    assert load_model("llama-2-7b").kv_bytes_per_token("fp16") == 524_288


@pytest.mark.parametrize(
    ("name", "dtype", "expected"),
    [
        ("llama-2-7b", "int8", 262_144),
        ("llama-2-7b", "int4", 131_072),
        ("llama-2-70b", "bf16", 2 * 80 * 8 * 128 * 2),
        ("gpt2", "fp32", 2 * 12 * 768 * 4),
        ("bert-base-uncased", "fp32", 0),
    ],
)
def test_cache_by_name_of_dtype(name, dtype, expected):
    assert load_model(name).kv_bytes_per_token(dtype) == expected


def test_cache_counts_the_shared_scales():
    # int4 in groups of 64 along a head of 128: per head 64 bytes of elements and two groups of a 16-bit scale and a
    # 4-bit zero point.
    dtype = Dtype("int4", group_size=64, zero_point=True)
    assert load_model("llama-2-7b").kv_bytes_per_token(dtype) == 2 * 32 * 32 * (64 + 2 * 20 // 8)


def test_cache_of_an_unknown_dtype():
    with pytest.raises(InputError) as caught:
        load_model("gpt2").kv_bytes_per_token("fp61")
    assert str(caught.value) == "dtype: unknown dtype\n  given:    'fp61'\n  hint:     did you mean 'fp16'?"


def test_parameters_per_layer():
    assert load_model("llama-2-7b").num_parameters_per_layer == 4 * 4096**2 + 3 * 4096 * 11008 + 2 * 4096
    assert load_model("gpt2").num_parameters_per_layer == 7_087_872
    assert load_model("bert-base-uncased").num_parameters_per_layer == 7_087_872


def test_a_model_hashes_and_pickles():
    model = load_model("llama-3.2-1b")
    assert hash(model) == hash(load_model("llama-3.2-1b"))
    assert pickle.loads(pickle.dumps(model)) == model


def test_a_loaded_preset_is_nobody_elses():
    load_model("llama-3.2-1b").rope_scaling["factor"] = 1.0
    assert load_model("llama-3.2-1b").rope_scaling["factor"] == 32.0


def test_from_a_mapping():
    model = load_model(TINY)
    assert model.name == "model"
    assert model.head_dim == 16
    assert load_model({**TINY, "_name_or_path": "somebody/tiny-llama"}).name == "tiny-llama"
    assert load_model({**TINY, "_name_or_path": ""}).name == "model"


def test_from_a_file(tmp_path):
    folder = tmp_path / "my-llama"
    folder.mkdir()
    for file in ("config.json", "tiny-0.5.json"):
        (folder / file).write_text(json.dumps(TINY), encoding="utf-8")
    assert load_model(folder / "config.json").name == "my-llama"
    assert load_model(str(folder / "tiny-0.5.json")).name == "tiny-0.5"


def test_from_yaml(tmp_path):
    file = tmp_path / "tiny.yaml"
    file.write_text("".join(f"{key}: {value}\n" for key, value in TINY.items()), encoding="utf-8")
    assert load_model(file).num_parameters == load_model(TINY).num_parameters


def test_yaml_reads_1e9_as_a_text(tmp_path):
    file = tmp_path / "tiny.yaml"
    text = "".join(f"{key}: {value}\n" for key, value in TINY.items()) + "rope_theta: '1e9'\n"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match="rope_theta: not a number"):
        load_model(file)


def test_an_error_names_the_file_as_it_was_given(tmp_path):
    file = tmp_path / "bad.json"
    file.write_text(json.dumps({**TINY, "hidden_size": "64"}), encoding="utf-8")
    with pytest.raises(InputError) as caught:
        load_model(str(file))
    assert str(caught.value).startswith(f"{file}: hidden_size: not a whole number\n")


def test_nan_in_a_file(tmp_path):
    file = tmp_path / "bad.json"
    file.write_text(json.dumps({**TINY, "rms_norm_eps": float("nan")}), encoding="utf-8")
    with pytest.raises(InputError, match="rms_norm_eps: not a finite number"):
        load_model(file)
    file.write_text(json.dumps({**TINY, "router_z": float("inf"), "dropout": float("nan")}), encoding="utf-8")
    assert load_model(file).ignored_keys == ("router_z", "dropout")


def test_unknown_preset():
    with pytest.raises(InputError, match="did you mean 'llama-2-7b'"):
        load_model("llama2-7b")


@pytest.mark.parametrize("given", [None, 7, ["llama-2-7b"]])
def test_what_is_not_a_model(given):
    with pytest.raises(InputError, match="not a model"):
        load_model(given)
