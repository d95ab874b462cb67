"""The lowering to the RTL's commands, without the RTL."""

from collections import Counter

import numpy as np
import pytest

from pe_sim.config.step import Decode, Prefill
from pe_sim.engine.event.run import run_event
from tests.helpers import tiny_llama
from tests.rtl.arrays import rtl_array
from tests.rtl.hardware import UnfitError
from tests.rtl.layer.layer_cache import PeHeads, _stores, head_pitch
from tests.rtl.layer.layer_programs import layer_program
from tests.rtl.layer.layer_values import Held
from tests.rtl.programs.collective_programs import collective_program
from tests.rtl.programs.explained import with_command_cycles
from tests.rtl.programs.gemm_programs import gemm_program
from tests.rtl.programs.tiles import Tiles

SMALL = {"num_attention_heads": 16, "intermediate_size": 128, "vocab_size": 96, "num_hidden_layers": 1}


def test_a_tile_holds_only_what_it_has_at_the_beginning_of_its_place():
    matrix = np.arange(6, dtype=np.int8).reshape(2, 3)
    tiles = Tiles(outer=2, inner=3, outputs=2, depth=2)
    assert tiles.pack(matrix) == bytes([0, 1, 3, 4, 2, 5, 0, 0])
    assert tiles.pack(matrix, inner_major=True) == bytes([0, 3, 1, 4, 2, 5, 0, 0])
    assert (tiles.outer_pitch, tiles.inner_pitch, tiles.num_bytes) == (8, 4, 8)


def test_places_of_tiles_that_are_not_square():
    tiles = Tiles(outer=3, inner=5, outputs=2, depth=4)
    assert (tiles.outer_pitch, tiles.inner_pitch, tiles.num_bytes) == (16, 8, 32)
    assert tiles.shapes == [(2, 4), (2, 1), (1, 4), (1, 1)]
    matrix = np.arange(15, dtype=np.int8).reshape(3, 5)
    assert tiles.pack(matrix)[:16] == bytes([0, 1, 2, 3, 5, 6, 7, 8, 4, 9, *([0] * 6)])


@pytest.mark.parametrize(("outputs", "depth"), [(4, 4), (8, 4), (2, 8), (3, 5)])
@pytest.mark.parametrize("by_token", [True, False], ids=["keys", "values"])
def test_new_tokens_are_stored_where_the_packed_cache_has_them(by_token, outputs, depth):
    heads, head_dim, context, new = 2, 10, 9, 4
    whole = np.random.default_rng(5).integers(-99, 99, (heads, context + new, head_dim), dtype=np.int8)
    tiles = Tiles(*((context + new, head_dim) if by_token else (head_dim, context + new)), outputs, depth)
    pitch = head_pitch(tiles)

    def packed(cache):
        each = [
            tiles.pack(cache[head] if by_token else cache[head].T, inner_major=not by_token) for head in range(heads)
        ]
        return np.frombuffer(b"".join(one.ljust(pitch, b"\0") for one in each), dtype=np.int8).copy()

    before = whole.copy()
    before[:, context:] = 0
    memory = packed(before)
    part = PeHeads(np.arange(context + new), 0, 0, heads, new, by_head=False)
    source = Held(("k", 0), {0: 100}, {0: (0, heads * head_dim)}, heads * head_dim, new, width=2, pitch=2 * new)
    for store in _stores(source, tiles, part, 0, context + np.arange(new), context, 0, by_token=by_token):
        for place in np.ndindex(store["count0"], store["count1"], store["count2"], store["chunk"]):
            taken = store["in_addr"] + np.dot(
                place, [*(store[f"in_pitch{i}"] for i in range(3)), store["element_pitch"]]
            )
            put = store["out_addr"] + np.dot(place, [*(store[f"out_pitch{i}"] for i in range(3)), 1])
            feature, row = divmod(int(taken) - 100, source.pitch)
            memory[put] = whole[feature // head_dim, context + row // source.width, feature % head_dim]
    assert memory.tolist() == packed(whole).tolist()


@pytest.mark.parametrize("overlap", [0, 1])
@pytest.mark.parametrize("sizes", [(1, 64, 64), (5, 17, 23), (40, 3, 5)])
def test_the_closed_form_that_tiles_are_compared_with_is_the_model_s(overlap, sizes):
    program = gemm_program(rtl_array("8-binary", overlap), *sizes)
    assert program.cycles.model == run_event(program.case.schedule).makespan_cycles
    assert program.cycles.total == run_event(with_command_cycles(program.case)).makespan_cycles


@pytest.mark.parametrize("array", ["4-quad", "8-binary"])  # a matrix unit of 4 x 4, and one of 8 x 4
@pytest.mark.parametrize("workflow", ["workflow-1", "workflow-2", "megatron"])
def test_differences_name_all_work_that_takes_other_than_the_model_s_cycles(workflow, array):
    case = layer_program(tiny_llama(**SMALL, num_key_value_heads=16), rtl_array(array), Decode(1, 7), workflow)
    trace = run_event(case.schedule)
    named = {(difference.order, difference.unit) for difference in case.differences}
    for unit in range(case.root):
        cycles: Counter[int] = Counter()  # of a stage, which may be several commands
        for order, taken in zip(case.work_orders[unit], case.work_cycles[unit], strict=True):
            cycles[order] += taken
        for order in cycles:
            span = trace.spans[order]
            if (order, unit) not in named:
                assert cycles[order] == span.pe_end[unit] - span.pe_start[unit], span.name
    assert {wait.name for wait in case.fixed_waits} >= {"rmsnorm", "rope", "softmax", "silu_mul", "argmax"}


@pytest.mark.parametrize(
    ("kv_heads", "step", "workflow", "message"),
    [
        (16, Prefill(1, prompt_len=3), "megatron", "the RTL has no causal mask"),
        (4, Prefill(1, prompt_len=3, causal="full"), "megatron", "the RTL has no grouped queries of several rows"),
        (16, Prefill(1, prompt_len=3, causal="full"), "workflow-1", "the RTL has no access to some rows of selected"),
        (16, Decode(2, 5), "megatron", "only steps of one sequence of a LLaMA model are lowered to the RTL"),
    ],
)
def test_what_does_not_fit_is_named(kv_heads, step, workflow, message):
    model = tiny_llama(**SMALL, num_key_value_heads=kv_heads)
    with pytest.raises(UnfitError) as refused:
        layer_program(model, rtl_array("8-binary"), step, workflow)
    assert str(refused.value) == message


def test_results_of_a_reduction_are_whole_elements():
    with pytest.raises(UnfitError, match="no all-reduce of elements of other than 4 bytes"):
        collective_program("all-reduce", rtl_array("8-binary"), 6)
