"""The proof of the issue: every workflow, on uneven and idle PEs, gives the logits of the transformers library."""

from functools import cache

import numpy as np
import pytest

from pe_sim.config.models.load import load_model
from pe_sim.config.step import Decode, Prefill
from pe_sim.mapping.mapper import place
from pe_sim.mapping.workflow import WORKFLOWS
from pe_sim.numeric.executor import execute_placed
from pe_sim.numeric.state_dict import read_weights
from tests.golden.loader import load_case
from tests.helpers import diagonal, small_array, thinned
from tests.numeric.cases import counts, timed_traffic

NUM_PES = (1, 2, 3, 4, 5, 7, 8, 16, 33)
DECODERS = ("llama-mha", "llama-gqa", "llama-mqa", "gpt2")
OTHER_DECODERS = ("llama-bias", "llama-head-dim", "llama-rope-linear", "llama-rope-llama3", "llama-tied")
TOLERANCE = 1e-4


@cache
def loaded(name):
    case = load_case(name)
    model = load_model(case.config_path)
    return case, model, read_weights(model, case.weights_path)


def check(name, workflow, num_pes, step, tokens, expected, pooled=None):
    _, model, weights = loaded(name)
    placed = place(model, small_array(num_pes), step, WORKFLOWS[workflow])
    done = execute_placed(placed, model, weights, tokens)
    assert done.logits.dtype == np.float32
    assert done.logits.shape == expected.shape
    assert np.abs(done.logits - expected).max() <= TOLERANCE * max(1, np.abs(expected).max())
    if pooled is None:
        assert (done.best_tokens == done.logits.argmax(axis=-1)).all()
        chosen = np.take_along_axis(expected, done.best_tokens[..., None], axis=-1)
        assert (chosen[..., 0] >= expected.max(axis=-1) - TOLERANCE).all()  # nearer ones are for rounding to choose of
    else:
        assert np.abs(done.pooled - pooled).max() <= TOLERANCE
    assert counts(done.traffic) == counts(timed_traffic(placed))


@pytest.mark.parametrize(("name", "workflow", "num_pes"), diagonal(DECODERS, list(WORKFLOWS), NUM_PES))
def test_a_decoder_computes_the_golden_logits(name, workflow, num_pes):
    case = loaded(name)[0]
    length = case.tokens.shape[1]
    for batch in (1, 3):
        tokens = case.tokens[:batch]
        prefill = Prefill(batch, prompt_len=length, logits="all")
        check(name, workflow, num_pes, prefill, tokens, case.logits[:batch])
        decode = Decode(batch, context_len=length - 1)
        check(name, workflow, num_pes, decode, tokens, case.decode_logits[:batch])


@pytest.mark.parametrize(("workflow", "num_pes"), thinned(WORKFLOWS, NUM_PES))
def test_bert_computes_the_golden_hidden_states(workflow, num_pes):
    case = loaded("bert")[0]
    for batch in (1, 3):
        step = Prefill(batch, prompt_len=case.tokens.shape[1])
        check("bert", workflow, num_pes, step, case.tokens[:batch], case.hidden[:batch], case.pooled[:batch])


@pytest.mark.parametrize("rows", ["last", "all"])
@pytest.mark.parametrize("workflow", WORKFLOWS)
@pytest.mark.parametrize(("name", "class_name"), [("llama-gqa", "LlamaModel"), ("gpt2", "GPT2Model")])
def test_a_decoder_without_an_lm_head_ends_with_what_the_head_would_read(name, class_name, workflow, rows):
    case, _, weights = loaded(name)
    model = load_model({**case.config, "architectures": [class_name]})
    step = Prefill(3, prompt_len=case.tokens.shape[1], logits=rows)
    placed = place(model, small_array(5), step, WORKFLOWS[workflow])
    done = execute_placed(placed, model, weights, case.tokens[:3])
    expected = case.logits[:3] if rows == "all" else case.logits[:3, -1:]
    assert done.logits.shape == (*expected.shape[:2], model.hidden_size)
    assert done.best_tokens is None
    logits = done.logits @ weights.matrix(None, "lm_head").weight.T
    assert np.abs(logits - expected).max() <= TOLERANCE * max(1, np.abs(expected).max())
    assert counts(done.traffic) == counts(timed_traffic(placed))


@pytest.mark.parametrize(
    ("name", "workflow", "num_pes"), diagonal([*OTHER_DECODERS, *DECODERS], list(WORKFLOWS), [3, 8])
)
def test_a_chunk_over_a_cache_computes_the_golden_logits(name, workflow, num_pes):
    case = loaded(name)[0]
    batch, length = case.tokens.shape
    step = Prefill(batch, prompt_len=case.chunk, context_len=length - case.chunk, logits="all")
    check(name, workflow, num_pes, step, case.tokens, case.chunk_logits)
    last = Prefill(batch, prompt_len=case.chunk, context_len=length - case.chunk)
    check(name, workflow, num_pes, last, case.tokens, case.chunk_logits[:, -1:])
