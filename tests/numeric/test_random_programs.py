"""Hypothesis draws models, machines, steps and a distribution for every operator; the proof holds for all of them."""

from dataclasses import fields

from hypothesis import strategies as st

from pe_sim.config.step import Decode, Prefill
from pe_sim.mapping.workflow import WORKFLOWS, LayerPlan, Workflow
from pe_sim.numeric.state_dict import random_weights
from tests.helpers import given_in_both, small_array
from tests.numeric.cases import bert, gpt2, llama, prove

MATRIX = st.sampled_from(["row", "col", "replicate", "batch"])
ATTENTION = st.sampled_from(["head", "token", "replicate", "batch"])
STREAM = st.sampled_from(["follow", "replicate", "shard", "batch"])
VECTOR = st.sampled_from(["follow", "follow", "replicate", "shard", "root", "batch"])
KINDS = {"attention": ATTENTION, "stream": STREAM, **dict.fromkeys(("q", "k", "v", "o", "gate", "up", "down"), MATRIX)}
PLAN = st.builds(LayerPlan, **{field.name: KINDS.get(field.name, VECTOR) for field in fields(LayerPlan)})
WAY = st.sampled_from(["serial", "by_reduction", "best"])


@st.composite
def models(draw):
    family = draw(st.sampled_from(["llama", "llama", "gpt2", "bert"]))
    layers, ffn = draw(st.integers(1, 3)), draw(st.integers(1, 40))
    if family == "llama":
        kv_heads = draw(st.integers(1, 4))
        return llama(
            num_hidden_layers=layers,
            hidden_size=draw(st.integers(1, 24)),
            intermediate_size=ffn,
            num_key_value_heads=kv_heads,
            num_attention_heads=kv_heads * draw(st.integers(1, 3)),
            head_dim=2 * draw(st.integers(1, 4)),
            vocab_size=draw(st.integers(1, 41)),
            attention_bias=draw(st.booleans()),
            mlp_bias=draw(st.booleans()),
            tie_word_embeddings=draw(st.booleans()),
            architectures=[draw(st.sampled_from(["LlamaForCausalLM", "LlamaForCausalLM", "LlamaModel"]))],
        )
    heads, head_dim = draw(st.integers(1, 5)), draw(st.integers(1, 7))
    if family == "gpt2":
        return gpt2(n_layer=layers, n_head=heads, n_embd=heads * head_dim, n_inner=ffn)
    sizes = {"hidden_size": heads * head_dim, "intermediate_size": ffn}
    return bert(num_hidden_layers=layers, num_attention_heads=heads, **sizes)


@st.composite
def steps(draw, model):
    batch = draw(st.integers(1, 4))
    new, context = (
        draw(st.lists(st.integers(low, high), min_size=batch, max_size=batch)) for low, high in ((1, 5), (0, 9))
    )
    if not model.has_kv_cache:
        return Prefill(batch, prompt_len=new)
    if model.has_lm_head and draw(st.booleans()):
        return Decode(batch, context_len=context)
    logits, causal = draw(st.sampled_from(["last", "all"])), draw(st.sampled_from(["skip", "full"]))
    return Prefill(batch, prompt_len=new, context_len=context, logits=logits, causal=causal)


@st.composite
def workflows(draw):
    if draw(st.integers(0, 3)) == 0:
        return draw(st.sampled_from(list(WORKFLOWS.values())))
    plans = tuple(draw(st.lists(PLAN, min_size=1, max_size=2)))
    base = {"lm_head": draw(MATRIX), "groups": draw(st.integers(1, 3))}
    special = draw(st.sampled_from(["", "", "", "stream_weights", "local_ends", "pipelined"]))
    if special:
        base |= {special: True, "groups": 1}
    return Workflow("random", "", plans, **base)


@given_in_both(15, 100, st.data())
def test_every_program_computes_its_model_and_moves_what_was_timed(data):
    model, workflow = data.draw(models()), data.draw(workflows())
    step = data.draw(steps(model))
    num_pes = workflow.groups * data.draw(st.integers(1, 9))
    knobs = {"gather": data.draw(WAY), "scatter": data.draw(WAY), "arity": data.draw(st.integers(2, 4))}
    array = small_array(num_pes, **knobs, downlink=data.draw(st.booleans()))
    # float64: a norm over two elements that are nearly equal makes float32's rounding as large as its result.
    weights = random_weights(model, data.draw(st.integers(0, 9)))
    verdict = prove(model, array, step, workflow, weights, dtype="float64")
    assert verdict.holds, str(verdict)
