"""Keys of real checkpoints that the family's reader does not read: ignored, told, or refused by name."""

import difflib
import json

import pytest

from pe_sim.config.files.foreign import UNKNOWN_KEY
from pe_sim.config.files.loading import resolve
from pe_sim.config.models.hf import BERT_KEYS, FAMILIES, GPT2_KEYS, LLAMA_KEYS, HfBert, HfGpt2, HfLlama, judge_key
from pe_sim.config.models.load import load_model
from pe_sim.errors import InputError, listed
from tests.config.models import transformers_keys
from tests.config.models.test_model_hf import BERT, GPT2, LLAMA

# What the configs of published checkpoints hold beside what today's transformers writes, and which of it is told.
CHECKPOINTS = {
    "SmolLM2": (LLAMA, {"is_llama_config": True, "rope_interleaved": False}, ("is_llama_config",)),
    "ALLaM": (LLAMA, {"internal_version": "7b-alpha-v2"}, ("internal_version",)),
    "unsloth": (LLAMA, {"unsloth_fixed": True, "unsloth_version": "2025.1"}, ("unsloth_fixed", "unsloth_version")),
    "for transformers.js": (
        LLAMA,
        {"transformers.js_config": {"dtype": "q4", "kv_cache_dtype": {"q4f16": "float16"}}},
        ("transformers.js_config",),
    ),
    "Falcon3": (LLAMA, {"activation": "swiglu"}, ()),
    "Vicuna": (
        LLAMA,
        {"pretraining_tp": 2, "_flash_attn_2_enabled": True},
        ("_flash_attn_2_enabled",),
    ),
    "Yi": (LLAMA, {"auto_map": {"AutoModel": "modeling_yi.YiModel"}}, ("auto_map",)),
    "Idefics' text": (
        LLAMA,
        {"neftune_noise_alpha": 0.0, "qk_layer_norms": False, "use_resampler": False},
        ("neftune_noise_alpha",),
    ),
    "DeepSeek-coder": (LLAMA, {"ep_size": 1, "model_max_length": 16384}, ("ep_size", "model_max_length")),
    "newer transformers": (
        LLAMA,
        {"layer_types": ["full_attention"] * 2, "dtype": "bfloat16", "base_model_tp_plan": {"layers.*": "colwise"}},
        (),
    ),
    "gpt2-medium": (
        GPT2,
        {"n_special": 0, "predict_special_tokens": True, "output_past": True, "summary_type": "cls_index"},
        ("n_special", "predict_special_tokens"),
    ),
    "distilgpt2": (
        GPT2,
        {"_num_labels": 1, "id2label": {"0": "LABEL_0"}, "task_specific_params": {}},
        ("_num_labels",),
    ),
    "TinyBERT": (
        BERT,
        {"cell": {}, "emb_size": 312, "pre_trained": "", "structure": []},
        ("cell", "emb_size", "pre_trained", "structure"),
    ),
    "StructBERT": (BERT, {"base_model_prefix": "encoder", "pooler_num_fc_layers": 3}, ("base_model_prefix",)),
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_real_checkpoints_load_and_tell_what_is_not_understood(name):
    base, extra, told = CHECKPOINTS[name]
    model = load_model({**base, **extra})
    assert model.unknown_keys == told
    assert set(model.ignored_keys) == set(extra)
    assert model.num_parameters == load_model(base).num_parameters
    assert model.to_dict()["unknown_keys"] == list(told)


@pytest.mark.parametrize(
    ("base", "key", "value"),
    [
        (LLAMA, "embedding_size", 32),
        (LLAMA, "_remove_final_layer_norm", True),  # an underscore makes nothing harmless
        (LLAMA, "pixel_shuffle_factor", 4),
        (LLAMA, "rope_interleaved", True),
        (LLAMA, "quantization", {"bits": 4, "group_size": 64}),
        (LLAMA, "activation", "gelu"),
        (LLAMA, "layer_types", ["full_attention", "linear_attention"]),
        (LLAMA, "qkv_bias", True),
        (GPT2, "multi_query", True),
        (GPT2, "scale_attn_weights", None),
        (BERT, "embedding_size", 128),
        (BERT, "task_type_vocab_size", 3),
    ],
)
def test_a_key_that_computes_is_refused_by_name_and_can_be_ignored(base, key, value):
    with pytest.raises(InputError, match=f"^model config: {key}: not supported: "):
        load_model({**base, key: value})
    model = load_model({**base, key: value}, ignore_keys=[key])
    assert (model.ignored_keys, model.unknown_keys) == ((key,), (key,))
    assert model.notes == (f"keys of the model's config that are not understood, ignored: {key}",)


@pytest.mark.parametrize("value", [{"a": 1}, [1], ["x"]])
def test_an_unknown_key_that_holds_more_than_a_scalar_is_refused_with_the_way_out(value):
    with pytest.raises(InputError, match=r"odd_part: unknown key\n.*\n.*--ignore-key odd_part"):
        load_model({**LLAMA, "odd_part": value})
    assert load_model({**LLAMA, "odd_part": value}, ignore_keys=["odd_part"]).unknown_keys == ("odd_part",)


@pytest.mark.parametrize("value", [3, 0.5, "x", True, None, "", [], {}, float("nan")])
def test_an_unknown_key_with_a_single_value_is_ignored_and_told(value):
    assert load_model({**LLAMA, "odd_part": value}).unknown_keys == ("odd_part",)


def test_a_misspelt_key_is_unknown_only_where_the_right_one_is_missing():
    with pytest.raises(InputError, match="did you mean 'num_key_value_heads'"):
        load_model({**LLAMA, "num_key_value_head": 2})
    assert load_model({**LLAMA, "num_key_value_head": 2, "num_key_value_heads": 2}).unknown_keys == (
        "num_key_value_head",
    )


def test_keys_to_ignore_are_read_as_absent():
    scaled = {**LLAMA, "rope_scaling": {"rope_type": "longrope", "factor": 2.0}}
    model = load_model(scaled, ignore_keys=("rope_scaling", "rope_scaling"))
    assert (model.rope_scaling, model.unknown_keys) == ({}, ("rope_scaling",))
    with pytest.raises(InputError, match="num_layer: there is no such key to ignore"):
        load_model(LLAMA, ignore_keys=["num_layer"])
    with pytest.raises(InputError, match="vocab_size: missing"):
        load_model(LLAMA, ignore_keys=["vocab_size"])
    with pytest.raises(InputError, match="ignore_keys: not a list of keys"):
        load_model(LLAMA, ignore_keys="vocab_size")
    preset = load_model("llama-2-7b", ignore_keys=["rms_norm_eps"])
    assert preset.unknown_keys == ("rms_norm_eps",)
    assert load_model("llama-2-7b").unknown_keys == ()


def test_the_other_dialects_stay_strict():
    meta = {"dim": 64, "n_layers": 2, "n_heads": 4, "vocab_size": 100}
    with pytest.raises(InputError, match="odd: unknown key"):
        load_model({**meta, "odd": 1})
    assert load_model({**meta, "odd": 1}, ignore_keys=["odd"]).unknown_keys == ("odd",)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("albert", "albert is not bert, the nearest family here; what differs: its layers share one set of weights"),
        ("gptj", "gptj is not gpt2"),
        ("llava", "llava is not llama"),
        ("mistral", "a sliding window; where sliding_window is null, state model_type: llama"),
        ("qwen2", "biases on query, key and value"),
        ("lama", "did you mean 'llama'?"),
        ("GPT2", "did you mean 'gpt2'?"),
    ],
)
def test_the_hint_for_a_family_that_is_not_there_says_what_differs(kind, words):
    with pytest.raises(InputError) as caught:
        load_model({**LLAMA, "model_type": kind})
    assert words in str(caught.value.hint)


def test_no_hint_for_what_nobody_knows():
    with pytest.raises(InputError) as caught:
        load_model({**LLAMA, "model_type": "warbler"})
    assert caught.value.hint is None


@pytest.mark.parametrize("name", ["MistralForCausalLM", "GPTNeoXForCausalLM", "Qwen2MoeForCausalLM", "XLMRobertaModel"])
def test_the_hint_by_class_name(name):
    config = {key: value for key, value in LLAMA.items() if key != "model_type"}
    with pytest.raises(InputError, match="the nearest family here; what differs: "):
        load_model({**config, "architectures": [name]})


def test_hints_name_families_that_are_here_and_speak_of_none_of_them():
    table = json.loads(transformers_keys.TABLE.with_name("absent_families.json").read_text(encoding="utf-8"))
    assert {nearest for nearest, _ in table.values()} <= FAMILIES.keys()
    assert not table.keys() & FAMILIES.keys()


def test_the_table_is_what_the_script_writes(tmp_path):
    written = json.loads(transformers_keys.TABLE.read_text(encoding="utf-8"))
    assert transformers_keys.to_text(written) == transformers_keys.TABLE.read_text(encoding="utf-8")
    assert not set(written["neutral"]) & written["computing"].keys()
    assert not [name for name in written["computing"] if transformers_keys.is_neutral(name)]
    assert set(written["neutral"]) >= transformers_keys.NEUTRAL_NAMES
    assert len(written["neutral"]) + len(written["computing"]) > 2400


def test_the_script_reads_old_and_new_configuration_classes(tmp_path):
    old = """
class OldConfig(PretrainedConfig):
    def __init__(self, width=8, use_gate=False, scale=True, hidden_dropout=0.1, odd=None, **kwargs):
        self.extra = kwargs.pop("extra", 0)
"""
    new = """
@strict
class NewConfig(PreTrainedConfig):
    width: int = 16
    use_gate: bool | None = None
    scale: bool = False
    rate: float = interval(min=0.0)(default=0.0)
"""
    generation = "class GenerationConfig:\n    def __init__(self, num_beans=1, width=2): pass\n"
    for name, text in {"old": old, "new": new, "generation": generation}.items():
        file = tmp_path / name / f"configuration_{name}.py"
        file.parent.mkdir()
        file.write_text(text, encoding="utf-8")
    made = transformers_keys.table(transformers_keys.fields(tmp_path))
    assert {"hidden_dropout", "num_beans"} <= set(made["neutral"])
    assert made["computing"] == {
        "extra": {"of": ["old"], "off": [0]},
        "odd": {"of": ["old"], "off": []},
        "rate": {"of": ["new"], "off": [0]},
        "scale": {"of": ["new", "old"], "off": []},
        "use_gate": {"of": ["new", "old"], "off": [False]},
        "width": {"of": ["new", "old"], "off": []},
    }


def test_no_key_that_a_family_reads_looks_like_a_harmless_one_misspelt():
    """Else a file would be refused for a key that cannot matter."""
    neutral = [*json.loads(transformers_keys.TABLE.read_text(encoding="utf-8"))["neutral"], *LLAMA_KEYS.refused]
    for rules, schema in ((LLAMA_KEYS, HfLlama), (GPT2_KEYS, HfGpt2), (BERT_KEYS, HfBert)):
        for name in neutral:
            if rules.refusal(name) is UNKNOWN_KEY:
                assert not difflib.get_close_matches(name, schema.model_fields, 1, 0.9)


def test_every_preset_is_understood():
    for name in ("llama-2-7b", "gpt2", "bert-base-uncased"):
        raw = json.loads(resolve("models", name).read_text(encoding="utf-8"))
        assert not [key for key in raw if key != "_pe_sim" and judge_key(key) is UNKNOWN_KEY]


def test_of_many_names_ten_are_told():
    assert listed(["a", "b"]) == "a, b"
    assert listed([str(number) for number in range(12_000)]) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 11,990 more"
