"""How many ways to cut the hidden dim: the published optimum is found exactly, and on rings of our engine as well."""

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pe_sim.config.arrays import load_array
from pe_sim.config.models import load_model
from pe_sim.config.step import Decode, Prefill
from pe_sim.engine.fast import run_fast
from pe_sim.mapping.grids import grid_name, grid_ways
from pe_sim.mapping.mapper import place
from pe_sim.mapping.workflow import WORKFLOWS
from pe_sim.mapping_search.grids import (
    best_grid,
    closed_form,
    ffn_time,
    grid_options,
    measured_ring,
    published_ring,
    ring,
)
from pe_sim.schedule.lowering import lower
from tests.helpers import pe_groups, small_array, tiny_llama
from tests.mapping_search.test_against_brute_force import check

HIDDEN = 4096
PUBLISHED = {8: 1, 32: 2, 128: 4, 512: 8, 2048: 16}  # sqrt(N / 8) for ffn = 4 hidden


@pytest.mark.parametrize("collective", [ring, published_ring])
@pytest.mark.parametrize(("num_pes", "best"), PUBLISHED.items())
def test_the_published_optimum(num_pes, best, collective):
    assert closed_form(num_pes, HIDDEN, 4 * HIDDEN) == best
    assert best_grid(num_pes, HIDDEN, 4 * HIDDEN, collective=collective) == best
    others = [ways for ways in range(1, num_pes + 1) if num_pes % ways == 0 and ways != best]
    chosen = ffn_time(best, num_pes, HIDDEN, 4 * HIDDEN, collective=collective)
    for ways in others:  # it is the only one
        assert ffn_time(ways, num_pes, HIDDEN, 4 * HIDDEN, collective=collective) > chosen


@pytest.mark.parametrize(("num_pes", "best"), {4: 1, 16: 2, 64: 4, 256: 8, 1024: 16}.items())
def test_the_published_optimum_of_a_plain_ffn(num_pes, best):
    assert closed_form(num_pes, HIDDEN, 4 * HIDDEN, gated=False) == best
    assert best_grid(num_pes, HIDDEN, 4 * HIDDEN, gated=False) == best


@pytest.mark.parametrize("times", [1, 2, 4, 8])
@pytest.mark.parametrize("gated", [True, False])
def test_other_widths(gated, times):
    """Whatever the FFN's size, the best power of two is within a factor of sqrt(2) of the closed form."""
    for num_pes in PUBLISHED:
        best = best_grid(num_pes, HIDDEN, times * HIDDEN, gated=gated)
        wanted = min(max(closed_form(num_pes, HIDDEN, times * HIDDEN, gated=gated), 1), num_pes)
        assert wanted / 2**0.5 <= best * 1.000001
        assert best <= wanted * 2**0.5 * 1.000001


def test_a_cut_in_one_dim_does_not_get_cheaper_with_pes():
    for ways_of, element_count in ((lambda _: 1, 2 * HIDDEN), (lambda num_pes: num_pes, 4 * 4 * HIDDEN)):
        times = [ffn_time(ways_of(num_pes), num_pes, HIDDEN, 4 * HIDDEN) for num_pes in PUBLISHED]
        assert times == sorted(times)
        assert times == [Fraction(element_count * (num_pes - 1), num_pes) for num_pes in PUBLISHED]
    both = [ffn_time(best, num_pes, HIDDEN, 4 * HIDDEN) for num_pes, best in PUBLISHED.items()]
    assert both == sorted(both, reverse=True)
    constant = [
        (time + Fraction(18 * HIDDEN, num_pes)) ** 2 * num_pes for num_pes, time in zip(PUBLISHED, both, strict=True)
    ]
    assert len(set(constant)) == 1  # it falls with the root of N, but for what a PE has already


@pytest.mark.parametrize("num_rows", [16, 256])
@pytest.mark.parametrize(("num_pes", "best"), PUBLISHED.items())
def test_the_rings_of_our_engine_have_the_same_optimum(num_pes, best, num_rows):
    measured, hidden = measured_ring(load_array("ring-256")), HIDDEN * num_rows
    near = tuple(ways for ways in range(1, num_pes + 1) if num_pes % ways == 0 and best / 4 <= ways <= best * 4)
    times = {ways: ffn_time(ways, num_pes, hidden, 4 * hidden, collective=measured) for ways in near}
    assert times[best] == min(times.values())
    assert best_grid(num_pes, hidden, 4 * hidden, collective=measured, ways=near) == best


def test_hops_count_where_messages_are_short():
    """One row on 512 PEs is a beat a PE: the way around the rings is what costs, least near sqrt(N / 2)."""
    measured = measured_ring(load_array("ring-256"))
    assert best_grid(512, HIDDEN, 4 * HIDDEN, collective=measured) == 16


def whole_steps(preset, num_pes, step, choices=(1, 2, 4, 8)):
    megatron = WORKFLOWS["megatron"]
    array, model = load_array(preset, overrides={"num_pes": num_pes}), load_model("llama-3.2-1b")
    cycles = {}
    for ways in choices:
        ffn = dict.fromkeys(("gate", "up", "down"), grid_name(ways))
        workflow = replace(megatron, name="mine", pattern=(replace(megatron.pattern[0], **ffn),))
        cycles[ways] = run_fast(lower(place(model, array, step, workflow))).makespan_cycles
    return cycles


@pytest.mark.parametrize("preset", ["ring-256", "torus-256"])
def test_whole_decode_steps_only_lose_by_rows(preset):
    """Our reduction behind down carries the whole row whatever X is (docs/design-decisions.md)."""
    cycles = whole_steps(preset, 128, Decode(1, 64))
    assert list(cycles.values()) == sorted(cycles.values())
    assert cycles[4] / cycles[1] < 1.005  # four ways are published


def test_tiles_fill_the_matrix_unit_where_slices_do_not():
    cycles = whole_steps("torus-256", 1024, Prefill(prompt_len=128), (1, 2, 4))
    assert min(cycles, key=cycles.get) == 2
    assert cycles[1] / cycles[2] > 1.1


FFNS = st.sampled_from(["row", "col", "grid-2", "grid-4", "grid-2", "grid-4"])


@settings(max_examples=15)
@given(
    st.sampled_from([8, 16]),
    st.sampled_from([1, 16, 64]),
    st.integers(0, 3),
    st.sampled_from([40, 96, 200]),
    st.fixed_dictionaries(dict.fromkeys(("gate", "up", "down"), FFNS)),
    st.sampled_from([("o", "ffn_norm", "activation"), ("activation", "ffn_add", "stream")]),
)
def test_a_search_around_given_grids_is_exact(num_pes, width, overlap, ffn, names, is_open):
    others = {"attention": "head", "o": "col", "attention_norm": "replicate", "attention_add": "follow"}
    others |= {"ffn_norm": "replicate", "ffn_add": "follow", "stream": "replicate", **dict.fromkeys("qkv", "row")}
    closed = {name: value for name, value in others.items() if name not in is_open}
    array = small_array(num_pes, width=width, overlap=overlap)
    check(tiny_llama(num_hidden_layers=1, intermediate_size=ffn), array, Decode(1, 20), (is_open, closed | names), 1)


def test_what_a_search_may_choose_from():
    assert grid_options(small_array(16), pe_groups(16)) == ("grid-2", "grid-4", "grid-8")
    assert grid_options(small_array(16), pe_groups(16, 4)) == ("grid-2",)
    assert grid_options(load_array("ring-256", {"num_pes": 12}), pe_groups(12)) == (
        "grid-2",
        "grid-3",
        "grid-4",
        "grid-6",
    )
    names = grid_options(small_array(64), pe_groups(64))
    assert best_grid(64, HIDDEN, 4 * HIDDEN, ways=tuple(grid_ways(name) for name in names)) in (2, 4)
