"""What arrays keep: together the model and the cache, each part once where nothing is replicated."""

from __future__ import annotations

import numpy as np
import pytest

from pe_sim.config.models.model import count_parameters
from pe_sim.config.plans.plan import Degrees, ParallelPlan, PipelinePlan, StagePlan
from pe_sim.config.step import Decode, Prefill
from pe_sim.errors import InfeasibleError
from pe_sim.mapping.workflow import WORKFLOWS
from pe_sim.report.system.metrics import ArrayHolding
from pe_sim.systems.memory import memory_of
from pe_sim.systems.simulation import prepared, run_system
from tests.helpers import small_array
from tests.numeric.cases import bert, llama
from tests.systems.cases import MODELS, equal_arrays, system_of

STEPS = {
    "decode": Decode(4, context_len=[5, 0, 9, 3]),
    "chunk": Prefill(3, prompt_len=[5, 7, 1], context_len=[3, 0, 2]),
}
P = ParallelPlan
BYTES = 2  # bf16


def kept(model, count: int, plan: P, step, workflow: str = "megatron", num_pes: int = 1) -> tuple[ArrayHolding, ...]:
    """What every array keeps; of one PE each, nothing is replicated inside an array."""
    shop, deployment = prepared(model, equal_arrays(count, num_pes=num_pes), step, plan, WORKFLOWS[workflow])
    return memory_of(shop, deployment)


def weights(held) -> int:
    """Bytes of weights on all PEs."""
    return int(sum(each.weight_bytes_per_pe.sum() for each in held))


def caches(held) -> int:
    """Bytes of keys and values on all PEs."""
    return int(sum(each.kv_cache_bytes_per_pe.sum() for each in held))


def norms_of(model) -> int:
    """Elements of all norms that an array of all layers has, the final one among them."""
    count = count_parameters(model)
    return model.num_layers * count.layer.norms + count.norms


def cache_of(model, step) -> int:
    """Bytes of the keys and values of all sequences when the step is done."""
    tokens = sum(span.total_len for span in step.sequences)
    return tokens * 2 * model.num_layers * model.num_kv_heads * model.head_dim * BYTES


@pytest.mark.parametrize("phase", STEPS)
@pytest.mark.parametrize("pp", [1, 2, 3, 4])
@pytest.mark.parametrize("tp", [1, 2, 3, 6])
def test_operators_and_stages_part_the_model(tp, pp, phase):
    """Only norms are on every array of a stage; the embedding is at the roots of the first stage."""
    if tp * pp > 8:
        return
    model, step = MODELS["llama"], STEPS[phase]
    count = count_parameters(model)
    held = kept(model, tp * pp, P(tp=tp, pp=pp), step)
    assert weights(held) == BYTES * (count.total - count.embedding + (tp - 1) * norms_of(model))
    assert caches(held) == cache_of(model, step)
    assert [each.root_bytes for each in held] == [BYTES * count.embedding] * tp + [0] * tp * (pp - 1)
    assert [(each.rank, each.stage) for each in held] == [(rank, rank // tp) for rank in range(tp * pp)]


def test_biases_of_sums_are_kept_once_and_a_tied_table_twice():
    """The table is at the root for the embedding and on the PEs for the LM head."""
    model = MODELS["bias"]
    count = count_parameters(model)
    held = kept(model, 6, P(tp=3, pp=2), STEPS["decode"])
    expected = count.total - count.embedding + model.vocab_size * model.hidden_size + 2 * norms_of(model)
    assert weights(held) == BYTES * expected


@pytest.mark.parametrize("phase", STEPS)
@pytest.mark.parametrize("cp", [2, 3, 5])
def test_tokens_part_the_cache_and_not_the_weights(cp, phase):
    model, step = MODELS["llama"], STEPS[phase]
    (alone,) = kept(model, 1, P(), step)
    held = kept(model, cp, P(cp=cp), step)
    assert weights(held) == cp * weights([alone])
    assert caches(held) == caches([alone]) == cache_of(model, step)


@pytest.mark.parametrize(
    "plan", [P(dp=4), P(dp=2, cp=2), P(layers=(Degrees(4, 1, 1),) * 4)], ids=["dp", "cp", "layers"]
)
def test_the_batch_parts_the_cache_and_not_the_weights(plan):
    model, step = MODELS["llama"], STEPS["decode"]
    (alone,) = kept(model, 1, P(), step)
    held = kept(model, 4, plan, step)
    assert weights(held) == 4 * weights([alone])
    assert caches(held) == cache_of(model, step)


def test_operators_tokens_and_stages_at_once():
    model, step = MODELS["llama"], STEPS["decode"]
    assert caches(kept(model, 8, P(tp=2, cp=2, pp=2), step)) == cache_of(model, step)


def test_arrays_without_a_sequence_keep_no_cache():
    held = kept(MODELS["llama"], 4, P(layers=(Degrees(4, 1, 1),) * 4), Decode(3, context_len=5))
    assert [bool(each.kv_cache_bytes_per_pe.any()) for each in held] == [True, True, True, False]
    held = kept(MODELS["llama"], 4, P(cp=4), Decode(1, context_len=1))
    assert [bool(each.kv_cache_bytes_per_pe.any()) for each in held] == [True, True, False, False]


def test_kv_heads_that_shares_read_together_are_kept_by_each():
    """4 shares of 2 kv heads: each is there twice."""
    model, step = MODELS["gqa"], STEPS["decode"]
    assert caches(kept(model, 4, P(tp=4), step)) == 2 * cache_of(model, step)


def test_a_whole_vocabulary_is_kept_by_each_array_of_the_last_stage():
    model, step = llama(num_key_value_heads=4, vocab_size=400), STEPS["decode"]
    table = BYTES * model.vocab_size * model.hidden_size
    whole, shared = (weights(kept(model, 4, P(tp=4, split_vocabulary=way), step)) for way in (False, True))
    assert whole - shared == 3 * table


def test_an_encoder_keeps_the_keys_and_values_of_the_layer_that_runs():
    model = bert(num_hidden_layers=4)
    held = kept(model, 4, P(tp=2, pp=2), Prefill(2, prompt_len=[4, 3]))
    one_layer = (4 + 3) * 2 * model.hidden_size * BYTES
    assert [caches(held[:2]), caches(held[2:])] == [one_layer, one_layer]
    by_layer = P(layers=(Degrees(1, 1, 2), Degrees(1, 2, 1), Degrees(1, 1, 2), Degrees(1, 1, 2)))
    assert caches(kept(model, 2, by_layer, Prefill(2, prompt_len=[4, 4]))) == (4 + 4) * 2 * model.hidden_size * BYTES


def test_an_array_of_two_stages_keeps_both():
    model, step = MODELS["llama"], STEPS["decode"]
    stages = [((0,), 0, 1), ((1,), 1, 2), ((0,), 3, 1)]
    made = tuple(StagePlan(ranks, first, count, (Degrees(),) * count) for ranks, first, count in stages)
    plan = P(pipelines=(PipelinePlan(made),))
    twice, once = kept(model, 2, plan, step)
    (alone,) = kept(model, 1, P(), step)
    np.testing.assert_array_equal(twice.weight_bytes_per_pe + once.weight_bytes_per_pe, alone.weight_bytes_per_pe)
    np.testing.assert_array_equal(twice.kv_cache_bytes_per_pe, once.kv_cache_bytes_per_pe)
    assert caches([twice, once]) == cache_of(model, step)


# ------------------------------------------------------------------------------------------------------------ messages
LEVERS = (
    "  hint:     more arrays (a larger tp, cp or pp); a smaller dtype (--set array.dtypes.weight=int8, --set"
    " array.dtypes.kv_cache=int8); a shorter context or a smaller batch; --allow-overflow to simulate all the same"
)


def cramped(**changes):
    """Two arrays of two PEs with little memory."""
    return system_of((small_array(2, {path.replace("__", "."): value for path, value in changes.items()}),) * 2)


def test_what_does_not_fit_a_pe():
    step, system = Decode(2, context_len=5), cramped(pe__memory__capacity_bytes=8000)
    with pytest.raises(InfeasibleError) as caught:
        run_system(MODELS["llama"], system, step, P(pp=2), WORKFLOWS["megatron"], "fast")
    first = kept(MODELS["llama"], 2, P(pp=2), step, num_pes=2)[0]
    held, cache = int(first.weight_bytes_per_pe[0]), int(first.kv_cache_bytes_per_pe[0])
    assert str(caught.value) == (
        f"the memory of PE 0 of array 0 (pipeline 0, stage 0) is too small for weights ({held:,} bytes) and KV cache"
        f" ({cache:,} bytes): needs {held + cache:,} bytes, has 8,000 bytes, {held + cache - 8000:,} bytes too many\n"
        + LEVERS
    )


def test_what_does_not_fit_a_root():
    system = cramped(root__memory__capacity_bytes=1000)
    table = BYTES * MODELS["llama"].vocab_size * MODELS["llama"].hidden_size
    with pytest.raises(InfeasibleError) as caught:
        run_system(MODELS["llama"], system, Decode(2, context_len=5), P(pp=2), WORKFLOWS["megatron"], "fast")
    assert str(caught.value) == (
        "the memory of the root of array 0 (pipeline 0, stage 0) is too small for the embedding table and what is kept"
        f" there: needs {table:,} bytes, has 1,000 bytes, {table - 1000:,} bytes too many\n" + LEVERS
    )


def test_overflow_is_simulated_where_it_is_allowed():
    system = cramped(pe__memory__capacity_bytes=8000)
    arguments = (MODELS["llama"], system, Decode(2, context_len=5), P(pp=2), WORKFLOWS["megatron"], "fast")
    ran = run_system(*arguments, allow_overflow=True)
    assert ran.memory[0].peak_bytes_per_pe > ran.memory[0].capacity_bytes_per_pe == 8000
