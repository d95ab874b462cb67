"""Flops and bytes of a step's operators against closed forms of Llama-2-7B and LLM-Viewer's table."""

import pytest

from pe_sim.config.dtypes import Dtype, Dtypes
from pe_sim.config.models.load import load_model
from pe_sim.config.step import Decode, Prefill
from pe_sim.graph.families import build_graph
from tests.helpers import tiny_llama

BF16 = Dtypes(Dtype("bf16"), Dtype("bf16"), Dtype("bf16"), Dtype("fp32"))
HIDDEN, HEADS, HEAD_DIM, FFN, VOCAB, LAYERS = 4096, 32, 128, 11008, 32000, 32
MATRICES = LAYERS * (4 * HIDDEN**2 + 3 * HIDDEN * FFN) + VOCAB * HIDDEN


def graph_of(step, model="llama-2-7b"):
    return build_graph(load_model(model) if isinstance(model, str) else model, step)


def layer(step, model="llama-2-7b"):
    return {operator.name: operator for operator in graph_of(step, model).layer}


def total(step, what=lambda operator: operator.flops, only=None):
    return sum(what(operator) for _, operator in graph_of(step).instances() if only is None or operator.name in only)


LINEAR = {"q", "k", "v", "o", "gate", "up", "down", "lm_head"}


class TestLlmViewer:
    """arXiv 2402.16363, table 1: Llama-2-7B, 2048 tokens, batch 1, 16 bits (figures with two digits)."""

    @pytest.mark.parametrize("name", ["q", "k", "v", "o"])
    def test_decode_projections(self, name):
        operator = layer(Decode(1, 2047))[name]
        assert operator.flops == 2 * HIDDEN**2
        assert round(operator.flops / 1e6) == 34
        assert round(operator.num_bytes(BF16) / 1e6) == 34

    @pytest.mark.parametrize("name", ["q", "k", "v", "o"])
    def test_prefill_projections(self, name):
        operator = layer(Prefill(prompt_len=2048))[name]
        assert round(operator.flops / 1e9) == 69
        assert round(operator.num_bytes(BF16) / 1e6) == 67

    def test_conventions_of_vector_functions(self):
        operators = layer(Decode(1, 2047))
        assert operators["softmax"].flops == 5 * HEADS * 2048
        assert operators["attention_norm"].flops == operators["ffn_norm"].flops == 7 * HIDDEN
        assert operators["attention_add"].flops == HIDDEN


@pytest.mark.parametrize(("batch", "context"), [(1, 0), (1, 2047), (8, 1000)])
def test_decode_totals(batch, context):
    step = Decode(batch, context)
    assert total(step, only=LINEAR) == 2 * batch * MATRICES
    assert total(step, only={"scores", "values"}) == 2 * LAYERS * batch * 2 * HIDDEN * (context + 1)


@pytest.mark.parametrize("logits", ["last", "all"])
def test_prefill_totals(logits):
    step = Prefill(2, prompt_len=300, logits=logits)
    rows = 600 if logits == "all" else 2
    assert total(step, only=LINEAR) == 2 * 600 * (MATRICES - VOCAB * HIDDEN) + 2 * rows * VOCAB * HIDDEN
    pairs = 2 * 300 * 301 // 2
    assert total(step, only={"scores"}) == total(step, only={"values"}) == LAYERS * 2 * HIDDEN * pairs


def test_causal_full_computes_the_rectangle():
    skip = Prefill(prompt_len=[5, 3], context_len=[2, 9])
    full = Prefill(prompt_len=[5, 3], context_len=[2, 9], causal="full")
    triangle = sum(2 + i + 1 for i in range(5)) + sum(9 + i + 1 for i in range(3))
    assert layer(skip)["scores"].flops == 2 * HIDDEN * triangle
    assert layer(full)["scores"].flops == 2 * HIDDEN * (5 * 7 + 3 * 12)


def test_weights_are_the_parameters_without_the_table():
    model = load_model("llama-2-7b")
    assert total(Decode(1, 0), lambda operator: operator.weight_bytes(BF16)) == 2 * (
        model.num_parameters - VOCAB * HIDDEN
    )


def test_cache_bytes_of_a_decode_step():
    # K is read by the scores, V by the values, once for all heads of a group
    operators = layer(Decode(1, 99), "llama-2-70b")
    heads, kv_heads, dim = 64, 8, 128
    cache = 100 * kv_heads * dim * 2
    assert operators["scores"].num_bytes(BF16) == cache + 2 * (heads * dim + heads * 100)
    assert operators["values"].num_bytes(BF16) == cache + 2 * (heads * dim + heads * 100)
    assert operators["kv_append"].num_bytes(BF16) == 2 * kv_heads * dim * 2


def test_quantised_weights_carry_scales():
    int4 = Dtypes(Dtype("int4", 128), Dtype("bf16"), Dtype("bf16"), Dtype("fp32"))
    assert layer(Decode())["q"].weight_bytes(int4) == HIDDEN * HIDDEN // 2 + HIDDEN * (HIDDEN // 128) * 2


def test_biases_count():
    operators = layer(Decode(1, 0), tiny_llama(attention_bias=True))
    assert operators["q"].flops == 2 * 64 * 64 + 64
    assert operators["q"].weight_bytes(BF16) == 2 * (64 * 64 + 64)
    assert operators["gate"].flops == 2 * 64 * 96
