"""Model files of Hetu and Galvatron: every real sample, what its keys mean, and what is refused by name."""

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pe_sim as ps
from pe_sim.config.models.galvatron import galvatron_ffn_size
from pe_sim.config.models.load import load_model
from pe_sim.config.models.meta import meta_ffn_size
from pe_sim.errors import InputError
from pe_sim.numeric.state_dict import state_dict_shapes
from tests.helpers import small_array

SAMPLES = Path(__file__).resolve().parents[2] / "data" / "foreign" / "galvatron"
META = SAMPLES / "meta_configs"
YAML = SAMPLES / "model_configs"

HETU = {"vocab_size": 100, "n_embd": 64, "ffn_hidden_size": 96, "n_layer": 2, "n_head": 4}
CURRENT = {
    "vocab_size": 100,
    "hidden_size": 64,
    "ffn_hidden_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "use_flash_attn": True,
    "dqtype": "fp32",
}
GALVATRON = {
    "hidden_size": 64,
    "num_layers": 2,
    "num_attention_heads": 4,
    "num_query_groups": None,
    "ffn_hidden_size": 96,
    "vocab_size": 100,
    "normalization": "RMSNorm",
    "norm_epsilon": 1e-6,
    "activation_func": "torch.nn.functional.silu",
    "gated_linear_unit": True,
    "position_embedding_type": "rope",
    "rotary_base": 10000,
    "add_bias_linear": False,
    "add_qkv_bias": False,
    "untie_embeddings_and_output_weights": True,
}
META_LLAMA = {"dim": 64, "n_layers": 2, "n_heads": 4, "vocab_size": 100, "n_positions": 128}


def message(config):
    with pytest.raises(InputError) as caught:
        load_model(config)
    return str(caught.value)


def same_but_for_names(ours, theirs):
    skipped = ("name", "ignored_keys", "left_out")
    return {k: v for k, v in ours.to_dict().items() if k not in skipped} == {
        k: v for k, v in theirs.to_dict().items() if k not in skipped
    }


# --------------------------------------------------------------------------------------------------- the real samples
@pytest.mark.parametrize(
    ("path", "family", "parameters"),
    [
        (META / "llama-7b.json", "llama", 6_738_415_616),
        (META / "llama2-70b.json", "llama", 68_976_648_192),
        (META / "gpt-1.5b.json", "gpt2", 1_557_611_200),
        (META / "bert-base-uncased.json", "bert", 109_482_240),
        (YAML / "gpt2-xl.yaml", "gpt2", 1_557_611_200),
        (YAML / "qwen2.5-7b.yaml", "llama", 7_615_616_512),
        # Its LM head is tied (untie_embeddings_and_output_weights: false): the published count without the second table
        (YAML / "llama2-7b.yaml", "llama", 6_738_415_616 - 32000 * 4096),
    ],
    ids=lambda value: value.stem if isinstance(value, Path) else None,
)
def test_every_sample_has_the_published_number_of_parameters(path, family, parameters):
    model = load_model(path)
    assert (model.name, model.family, model.num_parameters) == (path.stem, family, parameters)
    assert load_model(str(path)) == model


def test_no_sample_is_left_out():
    assert len(list(META.iterdir())) == 4
    assert len(list(YAML.iterdir())) == 3


def test_meta_configs_are_the_presets():
    assert same_but_for_names(load_model(META / "llama-7b.json"), load_model("llama-7b"))
    ours, preset = load_model(META / "bert-base-uncased.json"), load_model("bert-base-uncased")
    assert same_but_for_names(ours, preset)
    # Galvatron's 1.5b has 32 heads of 50, the published one 25 of 64.
    changes = {"num_heads": 25, "head_dim": 64, "num_kv_heads": 25}
    assert same_but_for_names(load_model(META / "gpt-1.5b.json", changes), load_model("gpt2-xl"))
    assert load_model(META / "gpt-1.5b.json").head_dim == 50


def test_model_configs_are_the_presets():
    assert same_but_for_names(
        load_model(YAML / "llama2-7b.yaml", {"tie_word_embeddings": False, "norm_eps": 1e-5}), load_model("llama-2-7b")
    )
    xl = load_model(YAML / "gpt2-xl.yaml")
    assert (xl.activation, xl.max_position_embeddings) == ("gelu", 1024)
    assert same_but_for_names(load_model(YAML / "gpt2-xl.yaml", {"activation": "gelu_tanh"}), load_model("gpt2-xl"))


def test_qwen_has_biases_on_query_key_and_value_alone():
    model = load_model(YAML / "qwen2.5-7b.yaml")
    assert (model.num_heads, model.num_kv_heads, model.head_dim, model.rope_theta) == (28, 4, 128, 1_000_000)
    assert (model.qkv_bias, model.attention_bias, model.mlp_bias) == (True, False, False)
    shapes = state_dict_shapes(model)
    stem = "model.layers.0.self_attn."
    assert [name for name in ("q_proj", "k_proj", "v_proj", "o_proj") if f"{stem}{name}.bias" in shapes] == [
        "q_proj",
        "k_proj",
        "v_proj",
    ]
    assert sum(math.prod(shape) for shape in shapes.values()) == model.num_parameters


@pytest.mark.parametrize("workflow", ["workflow-1", "workflow-2", "megatron"])
def test_biases_on_query_key_and_value_alone_are_computed(workflow):
    model = load_model({**GALVATRON, "num_query_groups": 2, "add_qkv_bias": True})
    assert ps.verify(model, small_array(4), workflow).holds


def test_a_yaml_model_runs():
    report = ps.simulate(str(YAML / "qwen2.5-7b.yaml"), "bus-tree-256", ps.Decode(batch_size=1, context_len=16))
    assert report.to_dict()["model"]["qkv_bias"] is True


def test_a_class_beside_hetus_keys_says_how_the_model_ends():
    assert load_model({**CURRENT, "architectures": ["LlamaForCausalLM"]}) == load_model(CURRENT)
    bare = load_model({**CURRENT, "architectures": ["LlamaForSequenceClassification"]})
    assert (bare.has_lm_head, bare.left_out) == (False, "the head of LlamaForSequenceClassification")


# ------------------------------------------------------------------------------------------------ Galvatron's or Meta's
def test_the_same_sizes_are_told_apart_by_the_keys_that_meta_never_has():
    meta = {key: value for key, value in META_LLAMA.items() if key != "n_positions"}
    assert load_model(META_LLAMA).norm_eps == 1e-6
    assert load_model({**meta, "ffn_dim": 96}).norm_eps == 1e-6
    assert load_model(meta).norm_eps == 1e-5  # ModelArgs' default


@given(dim=st.integers(1, 2**16), multiple_of=st.integers(1, 2**12))
def test_a_missing_ffn_dim(dim, multiple_of):
    size = galvatron_ffn_size(dim, multiple_of)
    assert size % multiple_of == 0
    assert 0 <= size - 8 * dim // 3 < multiple_of
    assert size == meta_ffn_size(dim, multiple_of)


def test_metas_multiplier_is_no_key_of_galvatrons():
    assert message({**META_LLAMA, "ffn_dim_multiplier": 1.3}) == (
        "model config: ffn_dim_multiplier: not supported: Meta's multiplier beside Galvatron's keys; state ffn_dim\n"
        "  given:    1.3\n"
        "  expected: null, or no such key"
    )


def test_a_head_dim_that_does_not_fit():
    gpt = {"n_layer": 2, "n_embd": 64, "n_head": 4, "head_dim": 20, "vocab_size": 100, "n_positions": 64}
    assert message(gpt) == (
        "model config: head_dim: n_head * head_dim must be n_embd = 64\n  given:    20\n  expected: 16, or no such key"
    )


# ------------------------------------------------------------------------------------------- Galvatron's model_configs
def test_experts_are_refused_by_their_number():
    """Without it, Galvatron's other words about experts say nothing."""
    without = {"num_moe_experts": None, "moe_ffn_hidden_size": 128, "moe_router_topk": 2}
    assert load_model({**GALVATRON, **without}).ignored_keys == tuple(without)
    assert message({**GALVATRON, **without, "num_moe_experts": 8}) == (
        "model config: num_moe_experts: not supported: a mixture of experts\n"
        "  given:    8\n"
        "  expected: null, or no such key"
    )


def test_what_is_left_out_or_null_has_the_defaults_of_galvatrons_arguments():
    """GalvatronModelArgs: RMSNorm, rope with base 10000, a gate, no biases, an LM head of its own, epsilon 1e-5."""
    least = ("hidden_size", "num_layers", "num_attention_heads", "vocab_size", "activation_func")
    few = {key: GALVATRON[key] for key in least}
    expected = load_model({**GALVATRON, "norm_epsilon": 1e-5, "ffn_hidden_size": 256})
    assert load_model(few) == expected
    assert load_model(dict.fromkeys(GALVATRON) | few) == expected


@pytest.mark.parametrize("stated", [{}, {"add_bias_linear": None, "untie_embeddings_and_output_weights": None}])
def test_a_llama_3_8b_that_leaves_the_tie_out(stated):
    sizes = {"hidden_size": 4096, "num_layers": 32, "num_attention_heads": 32, "num_query_groups": 8}
    model = load_model({**sizes, "activation_func": "silu", "ffn_hidden_size": 14336, "vocab_size": 128256, **stated})
    assert (model.num_parameters, model.tie_word_embeddings) == (8_030_261_248, False)


GPT_OF_GALVATRON = {
    "hidden_size": 64,
    "num_layers": 2,
    "num_attention_heads": 4,
    "ffn_hidden_size": 96,
    "vocab_size": 100,
    "normalization": "LayerNorm",
    "gated_linear_unit": False,
    "position_embedding_type": "learned_absolute",
    "seq_length": 32,
}


@pytest.mark.parametrize(
    ("stated", "biases"),
    [
        ({}, 0),
        ({"add_bias_linear": False, "add_qkv_bias": None}, 0),
        ({"add_qkv_bias": True}, 3 * 64),
        ({"add_bias_linear": True}, 4 * 64 + 96 + 64),
    ],
)
def test_a_gpt_has_the_biases_that_the_file_says(stated, biases):
    model = load_model({**GPT_OF_GALVATRON, **stated})
    layer = 4 * 64 * 64 + 2 * 64 * 96 + 2 * 2 * 64 + biases
    assert model.num_parameters == 2 * layer + (100 + 32) * 64 + 2 * 64 + 100 * 64
    assert sum(math.prod(shape) for shape in state_dict_shapes(model).values()) == model.num_parameters
    assert ps.verify(model, small_array(3), "workflow-1").holds


def test_a_default_that_does_not_fit_is_told_as_one():
    few = {key: value for key, value in GALVATRON.items() if key != "activation_func"}
    assert message(few) == (
        "model config: activation_func: this activation is not supported here\n"
        "  given:    'torch.nn.functional.gelu'\n"
        "  expected: torch.nn.functional.silu or silu or swiglu\n"
        "  hint:     Galvatron's default: the file leaves activation_func out"
    )
    gpt = {key: value for key, value in GPT_OF_GALVATRON.items() if key != "gated_linear_unit"}
    assert message({**gpt, "num_query_groups": None}) == (
        "model config: gated_linear_unit: not supported beside position_embedding_type learned_absolute\n"
        "  given:    True\n"
        "  expected: false\n"
        "  hint:     Galvatron's default: the file leaves gated_linear_unit out"
    )


@pytest.mark.parametrize("rest", [GALVATRON, {}, dict.fromkeys(GALVATRON)])
def test_a_model_that_stands_elsewhere(rest):
    assert message({**rest, "hf_model_name_or_path": "meta-llama/Llama-2-7b-hf"}) == (
        "model config: hf_model_name_or_path: not supported: sizes that stand in another model's config;"
        " give that model's config.json\n"
        "  given:    'meta-llama/Llama-2-7b-hf'\n"
        "  expected: null, or no such key"
    )


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [("normalization", "LayerNorm", "RMSNorm"), ("gated_linear_unit", False, "true")],
)
def test_parts_of_different_families_are_refused_by_name(key, value, expected):
    assert message({**GALVATRON, key: value}) == (
        f"model config: {key}: not supported beside position_embedding_type rope\n"
        f"  given:    {value!r}\n"
        f"  expected: {expected}"
    )


def test_other_refusals_of_model_configs():
    assert message({**GALVATRON, "position_embedding_type": "alibi"}) == (
        "model config: position_embedding_type: these positions are not supported\n"
        "  given:    'alibi'\n"
        "  expected: rope or learned_absolute"
    )
    assert message({**GALVATRON, "activation_func": "torch.nn.functional.relu"}) == (
        "model config: activation_func: this activation is not supported here\n"
        "  given:    'torch.nn.functional.relu'\n"
        "  expected: torch.nn.functional.silu or silu or swiglu"
    )
    assert message({**GALVATRON, "num_query_group": 2}) == (
        "model config: num_query_group: unknown key\n  given:    2\n  hint:     did you mean 'num_query_groups'?;"
        " --ignore-key num_query_group (in Python load_model(..., ignore_keys=[...])) reads the file without it"
    )


def test_what_model_configs_leave_out():
    few = {key: value for key, value in GALVATRON.items() if key not in ("ffn_hidden_size", "rotary_base")}
    model = load_model(few)
    assert (model.ffn_size, model.rope_theta) == (4 * 64, 10000)
    assert load_model({**GALVATRON, "kv_channels": 32}).q_size == 128
    assert load_model({**GALVATRON, "seq_length": 77}).max_position_embeddings == 77
    both = load_model({**GALVATRON, "add_bias_linear": True, "add_qkv_bias": True})
    assert (both.attention_bias, both.mlp_bias, both.qkv_bias) == (True, True, False)


# ---------------------------------------------------------------------------------------------------------------- Hetu
def test_the_documented_form():
    model = load_model({**HETU, "resid_pdrop": 0.1, "summary_type": "cls_index", "use_flash_attn": False})
    assert (model.family, model.gated_ffn, model.norm, model.tie_word_embeddings) == ("llama", True, "rmsnorm", False)
    assert (model.hidden_size, model.ffn_size, model.num_layers, model.num_heads) == (64, 96, 2, 4)
    assert model.ignored_keys == ("resid_pdrop", "summary_type", "use_flash_attn")
    assert model.num_parameters == 2 * 100 * 64 + 2 * (4 * 64 * 64 + 3 * 64 * 96 + 128) + 64


def test_the_documented_defaults():
    model = load_model({"ffn_hidden_size": -1, "n_embd": 768, "activation_function": "relu"})
    sizes = (model.vocab_size, model.ffn_size, model.num_layers, model.num_heads, model.norm_eps)
    assert sizes == (50257, 4 * 768, 12, 12, 1e-5)
    assert load_model({"ffn_hidden_size": -1, "n_embd": 768, "n_inner": 2048}).ffn_size == 2048


def test_the_current_form():
    model = load_model(CURRENT)
    assert same_but_for_names(model, load_model({**HETU, "layer_norm_epsilon": 1e-6}))
    assert model.ignored_keys == ("use_flash_attn", "dqtype")
    grouped = load_model({**CURRENT, "num_key_value_heads": 2, "hidden_act": "fast-swiglu", "attention_bias": True})
    assert (grouped.num_kv_heads, grouped.activation, grouped.attention_bias) == (2, "silu", True)
    assert load_model({**CURRENT, "model_type": "llama"}).ffn_size == 96
    assert load_model({**CURRENT, "ffn_hidden_size": -1}).ffn_size == 256
    default = {"hidden_size": 4096, "num_hidden_layers": 32, "gated_linear_unit": True}
    assert (load_model(default).ffn_size, load_model(default).vocab_size) == (11008, 50257)


@pytest.mark.parametrize(
    ("config", "text"),
    [
        (
            {**HETU, "dqtype": "nf4"},
            "model config: dqtype: not supported: quantised weights; quantisation is the array's `dtypes.weight`\n"
            "  given:    'nf4'\n"
            "  expected: null or 'fp32' or 'fp16' or 'bf16' or 'float32' or 'float16' or 'bfloat16', or no such key",
        ),
        (
            {**HETU, "n_inner": 100},
            "model config: n_inner: n_inner and ffn_hidden_size are both the width of the FFN and disagree\n"
            "  given:    100\n"
            "  expected: 96, or no such key",
        ),
        (
            {**HETU, "ffn_hidden_size": 0},
            "model config: ffn_hidden_size: too small\n  given:    0\n  expected: more than 0, or -1 to derive it",
        ),
        (
            {**HETU, "n_heads": 4},
            "model config: n_heads: not supported: a key of other families (dbrx, distilbert, flaubert)"
            " that changes what is computed\n  given:    4\n  expected: null, or no such key",
        ),
        (
            {**CURRENT, "gated_linear_unit": False},
            "model config: gated_linear_unit: not supported: an FFN without a gate\n"
            "  given:    False\n"
            "  expected: true, or no such key",
        ),
        (
            {**CURRENT, "intermediate_size": 128},
            "model config: intermediate_size: intermediate_size and ffn_hidden_size are both the width of the FFN and"
            " disagree\n  given:    128\n  expected: 96, or no such key",
        ),
        (
            {**CURRENT, "ffn_hidden_size": "96"},
            "model config: ffn_hidden_size: not a whole number\n  given:    '96'\n  expected: a whole number, or -1",
        ),
    ],
)
def test_refusals_of_hetus_arguments(config, text):
    assert message(config) == text


def test_qkv_bias_can_be_overridden_in_llama_alone():
    plain = load_model(GALVATRON)
    assert load_model(GALVATRON, {"qkv_bias": True}).num_parameters - plain.num_parameters == 2 * 3 * 64
    with pytest.raises(InputError, match="only llama can change it"):
        load_model("gpt2", {"qkv_bias": True})
