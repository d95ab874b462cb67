"""The lowering to the RTL's commands, without the RTL."""

from collections import Counter

import numpy as np
import pytest

from pe_sim.config.step import Decode, Prefill
from pe_sim.engine.event import run_event
from tests.helpers import tiny_llama
from tests.rtl.arrays import rtl_array
from tests.rtl.collective_programs import collective_program
from tests.rtl.explained import with_command_cycles
from tests.rtl.gemm_programs import gemm_program
from tests.rtl.hardware import UnfitError
from tests.rtl.layer_programs import layer_program
from tests.rtl.tiles import Tiles

SMALL = {"num_attention_heads": 16, "intermediate_size": 128, "vocab_size": 96, "num_hidden_layers": 1}


def test_a_tile_holds_only_what_it_has_at_the_beginning_of_its_place():
    matrix = np.arange(6, dtype=np.int8).reshape(2, 3)
    tiles = Tiles(outer=2, inner=3, outputs=2, depth=2)
    assert tiles.pack(matrix) == bytes([0, 1, 3, 4, 2, 5, 0, 0])
    assert tiles.pack(matrix, inner_major=True) == bytes([0, 3, 1, 4, 2, 5, 0, 0])
    assert (tiles.outer_pitch, tiles.inner_pitch, tiles.num_bytes) == (8, 4, 8)


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
