"""How many ways to cut the hidden dim: the published optimum is found exactly, and on rings of our engine as well."""

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pe_sim as ps
from pe_sim.config.arrays.load import load_array
from pe_sim.config.models.load import load_model
from pe_sim.config.step import Decode, Prefill
from pe_sim.engine.fast.run import run_fast
from pe_sim.errors import InfeasibleError
from pe_sim.mapping.groups import grid_name, grid_ways
from pe_sim.mapping.mapper import place
from pe_sim.mapping.placement import Replicate, Shard
from pe_sim.mapping.workflow import WORKFLOWS
from pe_sim.mapping_search.fragments import Held
from pe_sim.mapping_search.grid_dominance import _no_worse, grid_options
from pe_sim.mapping_search.pruning import loads_of
from pe_sim.mapping_search.space import choices, parts_of
from pe_sim.schedule.lowering import lower
from tests.helpers import pe_groups, small_array, tiny_llama
from tests.mapping_search.published_grids import (
    best_grid,
    closed_form,
    ffn_time,
    measured_ring,
    published_ring,
    ring,
)
from tests.mapping_search.test_against_brute_force import check
from tests.mapping_search.test_bounds import scene_of

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


@pytest.mark.slow
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


def test_a_grid_wins_where_slices_fill_half_of_a_matrix_unit():
    """96 / 8 = 12 inputs of down for units of 16 by `col`; of two rows of four PEs, each has 48 inputs, three units."""
    array = small_array(8, width=256, latency=1, overhead=0, hop=1, combine=1)
    model, step = tiny_llama(num_hidden_layers=1), Prefill(1, prompt_len=256)
    found = ps.search(model, array, step)
    plan = found.workflow.plan(0)
    assert found.proof == "exact"
    assert (plan.gate, plan.up, plan.down) == ("row", "row", "grid-4")
    for down in ("row", "col", "grid-2", "replicate"):
        other = replace(found.workflow, pattern=(replace(plan, down=down),))
        assert ps.simulate(model, array, step, other).latency_cycles > found.best.cycles


@pytest.mark.parametrize("num_pes", [8, 12, 16])
@pytest.mark.parametrize("ffn", [96, 100, 131])
def test_what_is_taken_for_the_least_is_what_the_mapper_gives(num_pes, ffn):
    """Sizes that do not divide: PE 0 keeps what the bound says, no PE keeps more, and its work takes as long."""
    model, array = tiny_llama(intermediate_size=ffn), small_array(num_pes)
    for step in (Decode(1, 20), Prefill(1, prompt_len=40)):
        scene = scene_of(model, array, step)
        grids = grid_options(array, scene.layouts.groups)
        loads = loads_of(scene, grids, lone=False)
        start = scene.machine.start
        parts = {part.options[0][0]: part for part in parts_of(scene.graph, grids, batched=False, lone=False)}
        for grid in grids:
            for part, entering, choice in (
                (parts["gate"], Replicate(), (("gate", grid), ("up", grid), ("activation", "shard"))),
                (parts["down"], Shard("ffn", grid_ways(grid), "y"), (("down", grid),)),
            ):
                piece = scene.piece(part, choice, (), ((part.touched[-1], Held(entering)),))
                assert piece is not None
                mine = [loads[name][option] for name, option in choice if name in loads]
                assert piece.held_bytes[0] == piece.held_bytes.max() == sum(load.held_bytes for load in mine)
                assert piece.timing.run(start, [start], scene.machine.anywhere).free[0] >= sum(
                    load.cycles for load in mine
                )


def test_the_leanest_mapping_is_by_tiles_where_no_dim_divides():
    """56 and 104 over 16 PEs: 7 x 56 by row, 4 x 104 by column, but 28 x 13 in two columns of eight."""
    model = tiny_llama(hidden_size=56, intermediate_size=104, num_hidden_layers=1)
    step = Decode(1, 20)

    def found(capacity):
        return ps.search(model, small_array(16, {"pe.memory.capacity_bytes": capacity}), step, max_simulations=8)

    fullest = ps.simulate(model, small_array(16), step, "megatron").footprint.peak_bytes_per_pe
    with pytest.raises(InfeasibleError) as caught:
        found(fullest * 3 // 4)
    need = caught.value.demand
    best = found(need)
    assert best.best.peak_bytes_per_pe == need
    assert "grid" in best.workflow.plan(0).gate + best.workflow.plan(0).down
    with pytest.raises(InfeasibleError) as caught:
        found(need - 1)
    assert caught.value.demand == need


@pytest.mark.parametrize("powers", [2, 4])
def test_gate_and_up_are_cut_alike_where_there_are_many_grids(powers):
    grids = tuple(f"grid-{2**power}" for power in range(1, powers + 1))
    scene = scene_of(tiny_llama(), small_array(32), Decode(1, 20))
    (part,) = (part for part in parts_of(scene.graph, grids, batched=False, lone=False) if len(part.options) == 3)
    pairs = {(dict(choice)["gate"], dict(choice)["up"]) for choice in choices(part, {})}
    plain = ("row", "col", "replicate")
    unmixed = {(gate, up) for gate in plain for up in plain} | {(grid, grid) for grid in grids}
    assert pairs == ({(gate, up) for gate in plain + grids for up in plain + grids} if powers == 2 else unmixed)
    assert part.mixes == (powers == 2)
    given = {dict(choice)["up"] for choice in choices(part, {"gate": ("grid-2",)})}  # what is given decides
    assert given == {*plain, *grids}


def test_of_equal_grids_the_first_stays():
    figures = {"col": [(9, 1)], "grid-2": [(5, 4)], "grid-4": [(5, 4)], "grid-8": [(5, 4)], "grid-16": [(6, 3)]}
    beaten_by = _no_worse(figures)
    assert beaten_by == {
        "grid-2": frozenset(),
        "grid-4": {"grid-2"},
        "grid-8": {"grid-2", "grid-4"},
        "grid-16": frozenset(),
    }
    assert _no_worse({"col": [(5, 4)], "grid-2": [(5, 4)]}) == {"grid-2": {"col"}}
