"""Bytes in the PEs' memories against a count by hand, and what still fits (capacity is checked, never assumed)."""

import dataclasses

import pytest

from pe_sim.config.step import Decode, Prefill
from pe_sim.errors import InfeasibleError
from tests.helpers import NAMED_WORKFLOWS, ceil, footprint_of, small_array, tiny_llama

HIDDEN, HEADS, HEAD_DIM, FFN, VOCAB, LAYERS = 64, 4, 16, 96, 50, 2


def shares(size, parts):
    return [size // parts + (pe < size % parts) for pe in range(parts)]


def expected_weights(workflow, num_pes, itemsize=2):
    """Elements each PE keeps of all layers and the LM head, for PEs <= heads."""
    hidden, ffn, vocab = shares(HIDDEN, num_pes), shares(FFN, num_pes), shares(VOCAB, num_pes)
    by_head = [heads * HEAD_DIM for heads in shares(HEADS, num_pes)]
    totals = []
    for h, f, v, q in zip(hidden, ffn, vocab, by_head, strict=True):
        whole_norm, slice_norm = HIDDEN, h
        one = {
            "workflow-1": 3 * q * HIDDEN + HIDDEN * q + 2 * FFN * h + h * FFN + whole_norm + slice_norm,
            "workflow-2": 3 * HIDDEN * h + HIDDEN * h + 2 * f * HIDDEN + HIDDEN * f + 2 * whole_norm,
            "megatron": 3 * q * HIDDEN + HIDDEN * q + 2 * f * HIDDEN + HIDDEN * f + 2 * whole_norm,
            "all-row": 3 * q * HIDDEN + h * HIDDEN + 2 * f * HIDDEN + h * FFN + 2 * whole_norm,
            "all-col": 3 * HIDDEN * h + HIDDEN * h + 2 * FFN * h + HIDDEN * f + whole_norm + slice_norm,
        }
        # alternating: the second layer takes the stream sharded, so its first norm is a slice
        one["alternating"] = (one["workflow-1"] + one["workflow-2"] + slice_norm - whole_norm) // LAYERS
        odd = (one["workflow-1"] + one["workflow-2"] + slice_norm - whole_norm) % LAYERS
        assert not (odd and workflow == "alternating")
        totals.append(itemsize * (LAYERS * one[workflow] + v * HIDDEN + whole_norm))
    return totals


@pytest.mark.parametrize("workflow", NAMED_WORKFLOWS)
@pytest.mark.parametrize("num_pes", [1, 2, 3, 4])
def test_weights_of_each_pe(workflow, num_pes):
    held = footprint_of(tiny_llama(), small_array(num_pes), Decode(1, 9), workflow)
    if num_pes > 1:
        assert held.weight_bytes_per_pe.tolist() == expected_weights(workflow, num_pes)
    assert held.root_bytes == VOCAB * HIDDEN * 2


@pytest.mark.parametrize("workflow", NAMED_WORKFLOWS)
def test_one_pe_keeps_all_parameters_but_the_table(workflow):
    model = tiny_llama()
    held = footprint_of(model, small_array(1), Decode(1, 9), workflow)
    assert held.weight_bytes_per_pe.tolist() == [2 * (model.num_parameters - VOCAB * HIDDEN)]


def test_quantised_matrices_carry_their_scales():
    weight = {"dtype": "int4", "group_size": 8, "zero_point": True}
    array = small_array(4, {"dtypes.weight": weight})
    held = footprint_of(tiny_llama(num_hidden_layers=1), array, Decode(1, 0), "megatron")

    def matrix(n, k):
        return ceil(n * k * 4 + n * ceil(k, 8) * 20, 8)

    norms = 3 * 64 * 4 // 8
    per_layer = 3 * matrix(16, 64) + matrix(64, 16) + 2 * matrix(24, 64) + matrix(64, 24)
    assert held.weight_bytes_per_pe.tolist() == [per_layer + matrix(v, 64) + norms for v in shares(VOCAB, 4)]


class TestKvCache:
    def cache(self, workflow, num_pes, step, **model):
        held = footprint_of(tiny_llama(**model), small_array(num_pes), step, workflow)
        return held.kv_cache_bytes_per_pe.tolist()

    def test_by_head(self):
        # 11 + 4 tokens with the new ones; K and V of 2 layers, 16 elements of 2 bytes a head
        token = 2 * 2 * 16 * 2
        assert self.cache("megatron", 3, Decode(2, [10, 3])) == [15 * token * heads for heads in (2, 1, 1)]

    def test_shared_kv_heads_are_counted_where_they_are(self):
        # 4 query heads, 2 kv heads on 3 PEs: queries 0-1 | 2 | 3, kv heads 0 | 1 | 1
        assert self.cache("workflow-1", 3, Decode(1, 7), num_key_value_heads=2) == [8 * 2 * 2 * 32] * 3

    def test_slices_of_heads_and_idle_pes(self):
        # 9 PEs: two a head, 8 elements each; one idle
        assert self.cache("megatron", 9, Decode(1, 4)) == [5 * 2 * 2 * 8 * 2] * 8 + [0]

    def test_by_token(self):
        token = 2 * 2 * 4 * 16 * 2
        assert self.cache("workflow-2", 3, Decode(2, [10, 3])) == [count * token for count in (4 + 2, 4 + 1, 3 + 1)]

    def test_alternating_keeps_both_kinds(self):
        layer = 2 * 16 * 2
        by_token = [4 * layer * len(range(pe, 6, 4)) for pe in range(4)]
        assert self.cache("alternating", 4, Decode(1, 5)) == [6 * layer + tokens for tokens in by_token]

    def test_a_prompt_is_kept_whole(self):
        assert self.cache("megatron", 4, Prefill(2, prompt_len=[5, 7], context_len=3)) == [18 * 2 * 2 * 16 * 2] * 4

    def test_its_dtype(self):
        array = small_array(4, {"dtypes.kv_cache": {"dtype": "int8", "group_size": 8}})
        held = footprint_of(tiny_llama(), array, Decode(1, 9), "megatron")
        assert held.kv_cache_bytes_per_pe.tolist() == [2 * 2 * 10 * (16 + 2 * 2)] * 4


def tight(num_pes, capacity, root=None):
    changes = {"pe.memory.capacity_bytes": capacity}
    if root is not None:
        changes["root.memory.capacity_bytes"] = root
    return small_array(num_pes, changes)


def fits(model, array, step, workflow):
    try:
        footprint_of(model, array, step, workflow).check()
    except InfeasibleError:
        return False
    return True


@pytest.mark.parametrize("workflow", NAMED_WORKFLOWS)
@pytest.mark.parametrize("num_pes", [1, 3, 4, 9])
class TestWhatStillFits:
    def room(self, workflow, num_pes, extra):
        """An array that holds the weights and `extra` bytes more on the fullest PE."""
        held = footprint_of(tiny_llama(), small_array(num_pes), Decode(1, 1), workflow)
        return tight(num_pes, int(held.weight_bytes_per_pe.max()) + extra)

    @pytest.mark.parametrize("extra", [5000, 20_001, 60_000])
    def test_the_largest_batch(self, workflow, num_pes, extra):
        model, array = tiny_llama(), self.room(workflow, num_pes, extra)
        most = footprint_of(model, array, Decode(1, 13), workflow).largest_batch_size()
        assert most == 0 or fits(model, array, Decode(most, 13), workflow)
        assert not fits(model, array, Decode(most + 1, 13), workflow)

    @pytest.mark.parametrize("extra", [5000, 20_001, 60_000])
    def test_the_longest_context(self, workflow, num_pes, extra):
        model, array = tiny_llama(), self.room(workflow, num_pes, extra)
        most = footprint_of(model, array, Decode(3, 1), workflow).longest_context_len()
        assert most == 0 or fits(model, array, Decode(3, most), workflow)
        assert not fits(model, array, Decode(3, most + 1), workflow)


class TestMessages:
    """An infeasibility names demand, bound, gap, unit and the levers."""

    def fault(self, array):
        with pytest.raises(InfeasibleError) as caught:
            footprint_of(tiny_llama(), array, Decode(1, 15), "megatron").check()
        return caught.value

    def test_a_pe(self):
        weights = expected_weights("megatron", 4)
        cache = 16 * 2 * 2 * 16 * 2
        fault = self.fault(tight(4, 20_000))
        assert (fault.demand, fault.bound, fault.gap, fault.unit) == (
            weights[0] + cache,
            20_000,
            weights[0] + cache - 20_000,
            "bytes",
        )
        first, hint = str(fault).split("\n")
        assert first == (
            f"the memory of PE 0 is too small for weights ({weights[0]:,} bytes) and KV cache ({cache:,} bytes): "
            f"needs {fault.demand:,} bytes, has 20,000 bytes, {fault.gap:,} bytes too many"
        )
        for lever in ("num_pes", "dtypes.weight", "dtypes.kv_cache", "context", "capacity_bytes", "--allow-overflow"):
            assert lever in hint

    def test_the_root(self):
        fault = self.fault(tight(4, 10**6, root=6399))
        assert (fault.demand, fault.bound, fault.gap) == (6400, 6399, 1)
        assert "root" in str(fault)
        assert "root.memory.capacity_bytes" in str(fault)

    def test_exactly_full_is_fine(self):
        array = small_array(4)
        held = footprint_of(tiny_llama(), array, Decode(1, 15), "megatron")
        full = tight(4, held.peak_bytes_per_pe, root=held.root_bytes)
        assert fits(tiny_llama(), full, Decode(1, 15), "megatron")
        assert not fits(tiny_llama(), tight(4, held.peak_bytes_per_pe - 1), Decode(1, 15), "megatron")
        assert dataclasses.is_dataclass(held)


def test_llama_2_7b_on_256_pes():
    held = footprint_of("llama-2-7b", small_array(256), Decode(1, 2047), "megatron")
    # 524,288 bytes of KV a token over all PEs; 32 heads on 256 PEs leave nobody idle
    assert int(held.kv_cache_bytes_per_pe.sum()) == 2048 * 524_288
    assert held.root_bytes == 32_000 * 4096 * 2
    matrices = 2 * (32 * (4 * 4096**2 + 3 * 4096 * 11008) + 32_000 * 4096)
    assert int(held.weight_bytes_per_pe.sum()) == matrices + 256 * 2 * 65 * 4096


@pytest.mark.parametrize("overlap", [0, 1])
@pytest.mark.parametrize("step", [Decode(3, 20), Decode(1, 200), Prefill(2, prompt_len=9)])
def test_streamed_weights_are_a_hint_where_they_would_fit(step, overlap):
    model, array = tiny_llama(num_hidden_layers=40), small_array(2, overlap=overlap)
    streamed = footprint_of(model, array, step, "batch-stream")
    kept = footprint_of(model, array, step, "megatron")
    assert streamed.peak_bytes_per_pe <= kept.if_streamed_bytes < kept.peak_bytes_per_pe
    for capacity in (kept.if_streamed_bytes - 1, kept.if_streamed_bytes):
        memory = dataclasses.replace(array.pe.memory, capacity_bytes=capacity)
        small = dataclasses.replace(array, pe=dataclasses.replace(array.pe, memory=memory))
        hint = footprint_of(model, small, step, "megatron").shortage.hint
        assert ("--workflow batch-stream" in hint) == (capacity >= kept.if_streamed_bytes)
