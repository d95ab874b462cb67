"""Steps the big table does not have: ragged batches, masks, dtypes, groups, and what an execution gives back."""

from dataclasses import replace

import numpy as np
import pytest

from pe_sim.config.step import Decode, Prefill
from pe_sim.errors import InputError
from pe_sim.mapping.mapper import place
from pe_sim.mapping.workflow import WORKFLOWS
from pe_sim.numeric.executor import execute_placed
from pe_sim.numeric.reference import run_reference
from pe_sim.numeric.state_dict import random_weights, read_weights
from tests.helpers import small_array
from tests.numeric.cases import FAMILIES, bert, counts, gpt2, llama, prove, timed_traffic, tokens_of, weights_of

RAGGED = [
    Decode(3, context_len=[5, 0, 17]),
    Prefill(3, prompt_len=[1, 6, 3], logits="all"),
    Prefill(3, prompt_len=[2, 1, 4], context_len=[0, 9, 3]),
    Prefill(2, prompt_len=[2, 5], context_len=[7, 1], causal="full", logits="all"),
]


def run(model, num_pes, step, workflow="workflow-1", weights=None, tokens=None, array=None, **options):
    placed = place(model, array or small_array(num_pes), step, WORKFLOWS[workflow])
    tokens = tokens_of(model, step) if tokens is None else tokens
    return execute_placed(placed, model, weights or random_weights(model, 1), tokens, **options)


@pytest.mark.parametrize("step", RAGGED, ids=range(len(RAGGED)))
@pytest.mark.parametrize("workflow", WORKFLOWS)
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_ragged_batches_and_chunks_hold(family, workflow, step):
    verdict = prove(FAMILIES[family](), small_array(5), step, workflow, weights_of(family))
    assert verdict.holds, str(verdict)


@pytest.mark.parametrize("workflow", ["workflow-1", "workflow-2", "megatron", "all-col", "all-row"])
@pytest.mark.parametrize(("num_pes", "groups"), [(2, 2), (6, 2), (6, 3), (20, 4)])
def test_groups_split_the_batch(workflow, num_pes, groups):
    split = replace(WORKFLOWS[workflow], groups=groups)
    for step in (Decode(3, context_len=[5, 0, 7]), Decode(1, context_len=4)):  # fewer sequences than groups
        verdict = prove(llama(), small_array(num_pes), step, split, weights_of("llama"))
        assert verdict.holds, str(verdict)


@pytest.mark.parametrize("gather", ["serial", "by_reduction", "best"])
@pytest.mark.parametrize("scatter", ["serial", "by_reduction", "best"])
@pytest.mark.parametrize("workflow", ["workflow-1", "workflow-2", "all-row", "batch-stream"])
def test_every_way_to_gather_and_scatter_holds(workflow, scatter, gather):
    array = small_array(6, gather=gather, scatter=scatter, arity=3)
    verdict = prove(llama(), array, Decode(2, context_len=[5, 6]), workflow, weights_of("llama"))
    assert verdict.holds, str(verdict)


def test_a_head_of_a_single_pair_leaves_pes_idle():
    model = llama(num_attention_heads=2, num_key_value_heads=1, head_dim=2)
    for num_pes in (4, 16, 33):  # 2, 8 and 16 PEs a head of one pair
        verdict = prove(model, small_array(num_pes), Prefill(2, prompt_len=3), "megatron")
        assert verdict.holds, str(verdict)


def test_full_causal_gives_the_same_numbers_as_skip():
    model = llama()
    logits = [
        run(model, 8, Prefill(2, prompt_len=5, logits="all", causal=causal), workflow).logits
        for causal in ("skip", "full")
        for workflow in ("workflow-1", "workflow-2")
    ]
    for other in logits[1:]:
        assert np.abs(other - logits[0]).max() < 1e-5


def test_two_chunks_give_the_logits_of_one_prefill():
    model, whole = llama(), Prefill(1, prompt_len=7, logits="all")
    tokens = tokens_of(model, whole)
    expected = run(model, 4, whole, tokens=tokens).logits[0, 4:]
    chunk = run(model, 4, Prefill(1, prompt_len=3, context_len=4, logits="all"), tokens=tokens).logits[0]
    assert np.abs(chunk - expected).max() < 1e-5


QUANTISED = {"dtypes.weight": "int4", "dtypes.kv_cache": "int8", "dtypes.activation": "fp8", "dtypes.partial": "bf16"}


@pytest.mark.parametrize("workflow", ["workflow-1", "workflow-2", "batch-stream", "block-pipeline"])
def test_dtypes_change_bytes_and_nothing_else(workflow):
    model, step = llama(), Decode(2, context_len=[3, 4])
    runs = [
        run(model, 3, step, workflow, array=array) for array in (small_array(3), small_array(3, overrides=QUANTISED))
    ]
    assert np.abs(runs[0].logits - runs[1].logits).max() < 1e-5
    plain, quantised = (counts(done.traffic) for done in runs)
    assert {tag: use[0] for tag, use in plain.items()} == {tag: use[0] for tag, use in quantised.items()}
    assert sum(use[1] for use in quantised.values()) < sum(use[1] for use in plain.values())
    placed = place(model, small_array(3, overrides=QUANTISED), step, WORKFLOWS[workflow])
    assert counts(timed_traffic(placed)) == quantised


def test_float64_is_closer_to_the_reference_than_float32():
    model, step = llama(), Prefill(1, prompt_len=6)
    given, tokens = random_weights(model, 1), tokens_of(model, step)
    exact = run_reference(model, read_weights(model, given, "float64"), tokens)[0].output[-1]
    errors = {
        dtype: np.abs(run(model, 5, step, "workflow-2", given, tokens, dtype=dtype).logits[0, 0] - exact).max()
        for dtype in ("float32", "float64")
    }
    assert errors["float64"] < 1e-12 < errors["float32"] < 1e-4


def test_rows_of_shorter_sequences_are_padded():
    done = run(llama(), 4, Prefill(3, prompt_len=[1, 4, 2], logits="all"))
    assert done.logits.shape == (3, 4, 41)
    assert done.row_counts == (1, 4, 2)
    for sequence, count in enumerate(done.row_counts):
        assert np.isfinite(done.logits[sequence, :count]).all()
        assert np.isnan(done.logits[sequence, count:]).all()
        assert (done.best_tokens[sequence, count:] == -1).all()
        assert (done.best_tokens[sequence, :count] == done.logits[sequence, :count].argmax(axis=1)).all()


@pytest.mark.parametrize("workflow", WORKFLOWS)
def test_token_types_of_bert_matter(workflow):
    model, step = bert(), Prefill(2, prompt_len=[4, 2])
    types = [[0, 1, 1, 0], [1, 0]]
    assert prove(model, small_array(3), step, workflow, weights_of("bert"), token_types=types).holds
    plain = run(model, 3, step, workflow)
    assert np.abs(run(model, 3, step, workflow, token_types=types).logits[0] - plain.logits[0]).max() > 1e-2
    assert plain.best_tokens is None
    assert plain.pooled.shape == (2, 24)


def test_intermediates_are_whole_tensors_by_layer_and_name():
    model, step = llama(), Prefill(2, prompt_len=[3, 2])
    tokens, weights = tokens_of(model, step), weights_of("llama")
    for workflow in ("workflow-1", "block-pipeline"):
        seen = run(model, 5, step, workflow, weights, tokens, observe=True).intermediates
        references = run_reference(model, weights, tokens)
        for key in ((0, "q_rotated"), (1, "attended"), (1, "middle"), (0, "activated"), (1, "stream")):
            expected = np.concatenate([reference.results[key] for reference in references])
            assert np.abs(seen[key] - expected).max() < 1e-4


def test_weights_that_are_not_finite_spread_and_stop_nothing():
    model = llama()
    given = random_weights(model, 0)
    given["model.layers.0.mlp.up_proj.weight"][3, 5] = np.nan
    assert np.isnan(run(model, 4, Decode(1, context_len=3), weights=given).logits).all()


def test_the_root_alone_looks_up_embeddings_unless_pes_hold_the_table():
    model, step = gpt2(), Decode(3, context_len=4)
    assert "broadcast" in run(model, 3, step, "batch-stream").traffic
    assert run(model, 3, step, "batch-block").traffic == {}


def test_a_graph_of_another_model_is_refused():
    placed = place(llama(), small_array(4), Decode(1, context_len=3), WORKFLOWS["megatron"])
    with pytest.raises(InputError, match="the placed graph is not of"):
        execute_placed(placed, llama(num_hidden_layers=3), {}, [[1, 2, 3, 4]])


@pytest.mark.parametrize("stream", ["follow", "shard"])
def test_a_pipeline_sends_a_whole_stream_on_whatever_the_layers_leave(stream):
    (plan,) = WORKFLOWS["workflow-1"].pattern
    workflow = replace(WORKFLOWS["block-pipeline"], pattern=(replace(plan, stream=stream),))
    for num_pes in (2, 4, 7):
        verdict = prove(llama(), small_array(num_pes), Decode(3, context_len=[4, 0, 2]), workflow, weights_of("llama"))
        assert verdict.holds, str(verdict)


@pytest.mark.parametrize("lm_head", ["row", "col", "replicate", "batch"])
def test_pes_with_their_own_ends_agree_on_one_choice(lm_head):
    workflow = replace(WORKFLOWS["batch-block"], lm_head=lm_head)
    for num_pes in (1, 4):
        verdict = prove(llama(), small_array(num_pes), Decode(3, context_len=4), workflow, weights_of("llama"))
        assert verdict.holds, str(verdict)
