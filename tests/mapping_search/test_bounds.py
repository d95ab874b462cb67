"""What the search takes for a lower bound is one: of every mapping, at every overlap level, with batches and groups."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import pe_sim as ps
from pe_sim.engine.event.run import run_event
from pe_sim.engine.fast.recurrences import NEVER
from pe_sim.errors import InputError
from pe_sim.graph.families import build_graph
from pe_sim.mapping.groups import PeGroups
from pe_sim.mapping.layouts import Layouts
from pe_sim.mapping.placed import BlockRun
from pe_sim.mapping.workflow import WORKFLOWS, Workflow
from pe_sim.mapping_search.fragments import Scene
from pe_sim.mapping_search.grid_dominance import grid_options
from pe_sim.mapping_search.lower_bound import Timing
from pe_sim.mapping_search.pruning import loads_of
from pe_sim.mapping_search.shortest_paths import Paths
from pe_sim.mapping_search.space import choices, parts_of, plan_of
from pe_sim.schedule.builders import Labels, Scopes, hub_to_pes
from pe_sim.schedule.stages import Block, Schedule
from tests.helpers import bus_uses, given_in_both, small_array, tiny_llama
from tests.mapping_search.test_against_brute_force import machines_of

machines = machines_of(
    st.sampled_from([2, 4, 6, 8, 16]),
    downlink=st.booleans(),
    overlap=st.sampled_from([0, 1, 2, 3]),
    scatter=st.sampled_from(["best", "serial", "by_reduction"]),
    burst=st.sampled_from([None, None, 8, 30, 64]),
)
steps = st.one_of(
    st.builds(ps.Decode, st.just(None), st.lists(st.integers(0, 60), min_size=1, max_size=5)),
    st.builds(
        lambda prompts: ps.Prefill(None, prompt_len=prompts), st.lists(st.integers(1, 8), min_size=1, max_size=3)
    ),
)


def scene_of(model, array, step, groups=1):
    graph = build_graph(model, step)
    division = PeGroups.of_array(array.num_pes, groups, array.network.arity, len(graph.shape.new_lens))
    return Scene(array, graph, Layouts.on(array, division, graph.shape, graph.selected_per_sequence))


def grids_of(scene):
    """Distributions that cut both dims of an FFN's matrices."""
    return grid_options(scene.array, scene.layouts.groups)


def bound_of(scene, plans, lm_head="row"):
    """(cycles, energy) of a mapping in which every layer has its plan, as the search sees it."""
    parts = parts_of(scene.graph, grids_of(scene), batched=True, lone=False)
    allowed = tuple({name: (value,) for name, value in plan.to_dict().items()} for plan in plans)
    (found,) = Paths((scene,), (1.0,), parts, allowed, (lm_head,), by_energy=True).best()
    return found.cycles[0], found.energy


@st.composite
def layer_plans(draw, scene):
    plan = {}
    for part in parts_of(scene.graph, grids_of(scene), batched=True, lone=False):
        plan.update(draw(st.sampled_from(list(choices(part, {})))))
    return plan_of(plan)


mappings = given(data=st.data(), array=machines, step=steps, kv_heads=st.sampled_from([1, 4]))


@settings(max_examples=15)
@mappings
def test_no_mapping_is_faster_than_its_bound(data, array, step, kv_heads):
    is_no_faster_than_its_bound(data, array, step, kv_heads)


@pytest.mark.slow
@settings(max_examples=150)
@mappings
def test_none_of_many_mappings_is_faster_than_its_bound(data, array, step, kv_heads):
    is_no_faster_than_its_bound(data, array, step, kv_heads)


def is_no_faster_than_its_bound(data, array, step, kv_heads):
    model = tiny_llama(num_key_value_heads=kv_heads)
    groups = data.draw(st.sampled_from([n for n in range(1, array.num_pes) if array.num_pes % n == 0]))
    scene = scene_of(model, array, step, groups)
    plans = data.draw(st.lists(layer_plans(scene), min_size=2, max_size=2))
    lm_head = data.draw(st.sampled_from(["row", "col", "replicate", "batch"]))
    assume((plans[0].stream == "batch") == (plans[-1].stream == "batch"))
    try:
        report = ps.simulate(model, array, step, Workflow("tried", "", tuple(plans), groups=groups, lm_head=lm_head))
    except (InputError, ValueError):
        assume(False)
    assert bound_of(scene, plans, lm_head)[0] <= report.latency_cycles


def test_bursts_that_are_ready_together_take_turns():
    """A PE whose message is one burst has it before a longer one that is listed first is complete."""
    array, zero = small_array(3, burst=64), np.zeros(3, dtype=np.int64)
    labels, sizes = Labels("scatter", "scatter", (), 0), np.array([65, 64, 64])
    stage = hub_to_pes(labels, zero, Scopes.of_array(3), sizes, from_root=True)
    block = Block((stage,), 1, (), (0,))
    uses = bus_uses(run_event(Schedule(array, (block,), (BlockRun(0, None),))))
    assert [num_bytes for _, _, _, num_bytes in uses] == [64, 64, 64, 1]
    complete = [uses[use][1] + 4 for use in (3, 1, 2)]
    machine = scene_of(tiny_llama(), array, ps.Decode(1, 3)).machine
    bound = Timing.of(machine, block).run(machine.start, (), machine.anywhere).slots[0].tolist()
    assert all(cycle <= at for cycle, at in zip(bound, [*complete, max(complete)], strict=True))
    assert bound[-1] == max(complete)


@pytest.mark.parametrize("groups", [1, 2])
def test_a_part_takes_the_same_whenever_it_is_entered(groups):
    """What is remembered of a part is what a run would give, also of values that are nowhere."""
    random = np.random.default_rng(1)
    scene = scene_of(tiny_llama(), small_array(8), ps.Decode(4, 20), groups)
    parts = parts_of(scene.graph, grids_of(scene), batched=True, lone=False)
    stream = scene.prologue("replicate").leaving[0]
    allowed = {name: options for part in parts for name, options in part.options}
    tried = 0
    for choice in choices(parts[0], allowed):
        piece = scene.piece(parts[0], choice, (), (stream,))
        if piece is None or piece.timing.starts_by_itself:
            continue
        free, ready = random.integers(0, 50, 9), random.integers(0, 50, 9)
        ready[1] = NEVER
        for later in (0, 1000, -7):
            entered = free + later, [np.where(ready > NEVER, ready + later, NEVER)], scene.machine.anywhere
            found, run = piece.timing.run(*entered), piece.timing._run(*entered)
            assert found.free.tolist() == run.free.tolist()
            assert all(found.slots[slot].tolist() == run.slots[slot].tolist() for slot in piece.timing.exits)
            assert (found.latest, found.renewed, found.somewhere.key) == (run.latest, run.renewed, run.somewhere.key)
            tried += 1
    assert len(scene.machine.known) * 3 == tried > 0


def test_alone_on_its_channels_a_mapping_takes_its_bound():
    model, array, step = tiny_llama(), small_array(8), ps.Decode(1, 30)
    for name in ("workflow-1", "workflow-2", "megatron", "all-col"):
        workflow = WORKFLOWS[name]
        plans = [workflow.plan(layer) for layer in range(2)]
        explicit = [plan_of(plan.to_dict() | _norms(name)) for plan in plans]
        assert (
            bound_of(scene_of(model, array, step), explicit)[0] == ps.simulate(model, array, step, name).latency_cycles
        )


def _norms(name):
    """Where the norms of a named workflow are: `follow` is a choice of the matrices behind them."""
    if name in ("workflow-1", "all-col"):
        return {"attention_norm": "replicate", "ffn_norm": "shard"}
    return {"attention_norm": "replicate", "ffn_norm": "replicate"}


@pytest.mark.parametrize(
    "given_too",
    [
        pytest.param({}, marks=pytest.mark.slow, id="few given"),
        pytest.param({"down": ("row",), "attention": ("head",), "activation": ("shard",)}, id="many given"),
    ],
)
def test_layers_that_are_not_gone_through_are_bounded_all_the_same(given_too):
    model, step = tiny_llama(num_hidden_layers=4), ps.Decode(None, [3, 50, 7, 20])
    array = small_array(8)
    scene = scene_of(model, array, step, groups=2)
    parts = parts_of(scene.graph, (), batched=True, lone=False)
    allowed = (dict.fromkeys(("q", "k", "v", "o", "gate", "up"), ("row",)) | given_too,) * 4
    whole = Paths((scene,), (1.0,), parts, allowed, ("row",))
    short = replace(whole, most_ways=0, ways={}, prospects={})
    best, least = whole.best()[0], short.best()
    assert least[0].cycles[0] <= best.cycles[0]
    assert all(plan.stands_for_more and len(plan.layers) == 4 for plan in least)
    assert all(layer.o == "row" for plan in least for layer in plan.layers)


QUICK = {"network.bus.bytes_per_cycle": 1 << 20, "network.tree.bytes_per_cycle": 1 << 20}  # next to no time for moves


@given_in_both(
    15, 60, data=st.data(), step=steps, groups=st.sampled_from([1, 2]), overlap=st.sampled_from([0, 1]),
    num_pes=st.sampled_from([4, 6]),
)  # fmt: skip
def test_no_mapping_does_or_keeps_less_than_its_loads(data, step, groups, overlap, num_pes):
    """On 6 PEs, or 3 a group, the features of whole heads are not what an even cut gives."""
    model, array = tiny_llama(), small_array(num_pes, QUICK, overhead=0, overlap=overlap)
    scene = scene_of(model, array, step, groups)
    loads = loads_of(scene, grids_of(scene), lone=False)
    plan = data.draw(layer_plans(scene))
    lm_head = data.draw(st.sampled_from(["row", "col", "replicate", "batch"]))
    try:
        report = ps.simulate(model, array, step, Workflow("tried", "", (plan,), groups=groups, lm_head=lm_head))
    except (InputError, ValueError):
        assume(False)
    chosen = plan.to_dict()
    of_layer = [loads[name][chosen[name]] for name in loads if name != "lm_head"]
    every = [*of_layer * model.num_layers, loads["lm_head"][lm_head]]
    pe, held = scene.watched_pe, report.footprint
    assert sum(load.cycles for load in every) <= report.latency_cycles
    assert sum(load.held_bytes for load in every) <= held.weight_bytes_per_pe[pe] + held.kv_cache_bytes_per_pe[pe]


def test_what_is_not_cut_is_kept_and_done_whole():
    model, array = tiny_llama(), small_array(4)
    scene = scene_of(model, array, ps.Decode(4, 20))
    loads = loads_of(scene, (), lone=False)
    matrices = {op.name: op for op in scene.graph.layer if op.name in loads}
    for name, operator in matrices.items():
        whole, by_batch = loads[name]["replicate"], loads[name]["batch"]
        assert whole.held_bytes == by_batch.held_bytes == operator.weight_bytes(array.dtypes)
        alone = loads_of(scene_of(model, array, ps.Decode(1, 20)), (), lone=False)[name]["replicate"]
        assert by_batch.cycles == alone.cycles <= whole.cycles  # one of four sequences
