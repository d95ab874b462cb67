"""The parameter count against the list of tensors of a Hugging Face state dict, written out here on its own."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pe_sim.config.models.load import load_model
from pe_sim.config.models.model import count_parameters


def linear(name, outputs, inputs, bias):
    tensors = {f"{name}.weight": (outputs, inputs)}
    return {**tensors, f"{name}.bias": (outputs,)} if bias else tensors


def layer_norm(name, width):
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def llama_tensors(config):
    hidden, ffn = config["hidden_size"], config["intermediate_size"]
    queries = config["num_attention_heads"] * config["head_dim"]
    keys = config["num_key_value_heads"] * config["head_dim"]
    bias, mlp_bias = config["attention_bias"], config["mlp_bias"]
    tensors = {"model.embed_tokens.weight": (config["vocab_size"], hidden), "model.norm.weight": (hidden,)}
    for layer in range(config["num_hidden_layers"]):
        at = f"model.layers.{layer}"
        tensors |= linear(f"{at}.self_attn.q_proj", queries, hidden, bias)
        tensors |= linear(f"{at}.self_attn.k_proj", keys, hidden, bias)
        tensors |= linear(f"{at}.self_attn.v_proj", keys, hidden, bias)
        tensors |= linear(f"{at}.self_attn.o_proj", hidden, queries, bias)
        tensors |= linear(f"{at}.mlp.gate_proj", ffn, hidden, mlp_bias)
        tensors |= linear(f"{at}.mlp.up_proj", ffn, hidden, mlp_bias)
        tensors |= linear(f"{at}.mlp.down_proj", hidden, ffn, mlp_bias)
        tensors |= {f"{at}.input_layernorm.weight": (hidden,), f"{at}.post_attention_layernorm.weight": (hidden,)}
    if not config["tie_word_embeddings"]:
        tensors["lm_head.weight"] = (config["vocab_size"], hidden)
    return tensors


def gpt2_tensors(config):
    width = config["n_embd"]
    ffn = config["n_inner"] or 4 * width
    tensors = {"transformer.wte.weight": (config["vocab_size"], width)}
    tensors |= {"transformer.wpe.weight": (config["n_positions"], width)}
    for layer in range(config["n_layer"]):
        at = f"transformer.h.{layer}"
        tensors |= layer_norm(f"{at}.ln_1", width) | layer_norm(f"{at}.ln_2", width)
        for name, inputs, outputs in (
            ("attn.c_attn", width, 3 * width),
            ("attn.c_proj", width, width),
            ("mlp.c_fc", width, ffn),
            ("mlp.c_proj", ffn, width),
        ):
            tensors |= {f"{at}.{name}.weight": (inputs, outputs), f"{at}.{name}.bias": (outputs,)}
    tensors |= layer_norm("transformer.ln_f", width)
    if not config["tie_word_embeddings"]:
        tensors["lm_head.weight"] = (config["vocab_size"], width)
    return tensors


def bert_tensors(config):
    hidden, ffn = config["hidden_size"], config["intermediate_size"]
    tensors = {
        "embeddings.word_embeddings.weight": (config["vocab_size"], hidden),
        "embeddings.position_embeddings.weight": (config["max_position_embeddings"], hidden),
        "embeddings.token_type_embeddings.weight": (config["type_vocab_size"], hidden),
    }
    tensors |= layer_norm("embeddings.LayerNorm", hidden)
    for layer in range(config["num_hidden_layers"]):
        at = f"encoder.layer.{layer}"
        for name in ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"):
            tensors |= linear(f"{at}.{name}", hidden, hidden, True)
        tensors |= layer_norm(f"{at}.attention.output.LayerNorm", hidden)
        tensors |= linear(f"{at}.intermediate.dense", ffn, hidden, True)
        tensors |= linear(f"{at}.output.dense", hidden, ffn, True)
        tensors |= layer_norm(f"{at}.output.LayerNorm", hidden)
    return tensors | linear("pooler.dense", hidden, hidden, True)


def elements(tensors):
    return sum(math.prod(shape) for shape in tensors.values())


sizes = st.integers(1, 50)
layers = st.integers(1, 4)


@st.composite
def llama_configs(draw):
    kv_heads, group = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    return {
        "model_type": "llama",
        "hidden_size": draw(sizes),
        "intermediate_size": draw(sizes),
        "num_hidden_layers": draw(layers),
        "num_attention_heads": kv_heads * group,
        "num_key_value_heads": kv_heads,
        "head_dim": 2 * draw(st.integers(1, 8)),
        "vocab_size": draw(sizes),
        "tie_word_embeddings": draw(st.booleans()),
        "attention_bias": draw(st.booleans()),
        "mlp_bias": draw(st.booleans()),
    }


@st.composite
def gpt2_configs(draw):
    heads = draw(st.integers(1, 4))
    return {
        "model_type": "gpt2",
        "n_embd": heads * draw(st.integers(1, 8)),
        "n_head": heads,
        "n_layer": draw(layers),
        "n_positions": draw(sizes),
        "n_inner": draw(st.none() | sizes),
        "vocab_size": draw(sizes),
        "tie_word_embeddings": draw(st.booleans()),
    }


@st.composite
def bert_configs(draw):
    heads = draw(st.integers(1, 4))
    return {
        "model_type": "bert",
        "hidden_size": heads * draw(st.integers(1, 8)),
        "num_attention_heads": heads,
        "intermediate_size": draw(sizes),
        "num_hidden_layers": draw(layers),
        "vocab_size": draw(sizes),
        "max_position_embeddings": draw(sizes),
        "type_vocab_size": draw(st.integers(1, 4)),
    }


@given(llama_configs())
def test_llama(config):
    assert load_model(config).num_parameters == elements(llama_tensors(config))


@given(gpt2_configs())
def test_gpt2(config):
    assert load_model(config).num_parameters == elements(gpt2_tensors(config))


@given(bert_configs())
def test_bert(config):
    assert load_model(config).num_parameters == elements(bert_tensors(config))


@given(st.one_of(llama_configs(), gpt2_configs(), bert_configs()))
def test_the_items_explain_the_sum(config):
    model = load_model(config)
    count = count_parameters(model)
    assert count.layer.total == count.layer.attention + count.layer.ffn + count.layer.norms
    assert count.layer.total == model.num_parameters_per_layer
    assert count.total == count.embedding + model.num_layers * count.layer.total + count.norms + count.head


@pytest.mark.parametrize(
    ("name", "embedding", "attention", "ffn", "norms", "head"),
    [
        ("llama-2-7b", 131_072_000, 67_108_864, 135_266_304, 8192, 131_072_000),
        ("gpt2", 39_383_808, 2_362_368, 4_722_432, 3072, 0),
        ("bert-base-uncased", 23_835_648, 2_362_368, 4_722_432, 3072, 590_592),
    ],
)
def test_items_of_known_models(name, embedding, attention, ffn, norms, head):
    count = count_parameters(load_model(name))
    layer = count.layer
    assert (count.embedding, layer.attention, layer.ffn, layer.norms, count.head) == (
        embedding,
        attention,
        ffn,
        norms,
        head,
    )
