"""A sweep does what repeats once, and gives the same reports as points that are simulated each for itself."""

import json
from itertools import pairwise, product

import pytest

from pe_sim.api import load_array, simulate
from pe_sim.config.step import Decode, Prefill
from pe_sim.engine.engines import engine_named
from pe_sim.errors import InputError
from pe_sim.mapping import mapper
from pe_sim.mapping.footprint import footprint
from pe_sim.mapping.placed import Move
from pe_sim.mapping.workflow import WORKFLOWS, Workflow
from pe_sim.schedule.lowering import lower
from tests.helpers import in_sample, placed_step, schedule_of, small_array, some_of, tiny_llama, traffic_of

CACHES = (mapper._placements, mapper._divided_small, mapper._divided_large, mapper._place_pipeline)

BUS, TREE, PE = "network.bus.", "network.tree.", "pe."
POINTS = {
    "as it is": {},
    "wide bus": {BUS + "bytes_per_cycle": 4096, BUS + "overhead_cycles": 0, TREE + "bytes_per_cycle": 1},
    "narrow bus": {BUS + "bytes_per_cycle": 1, TREE + "bytes_per_cycle": 512},
    "costly messages": {BUS + "overhead_cycles": 60},
    "bursts": {BUS + "burst_bytes": 8},
    "gather one by one": {"network.collectives.gather": "serial"},
    "scatter by broadcast": {"network.collectives.scatter": "by_reduction"},
    "arity 4": {TREE + "arity": 4},
    "downlink": {TREE + "downlink": True},
    "long hops": {TREE + "latency_cycles": 30},
    "request": {BUS + "request_cycles": 1},
    "matrix unit": {PE + "matrix.outputs": 2, PE + "matrix.depth": 4},
    "vector unit": {PE + "vector.lanes": 2, PE + "vector.cycles_per_element.add": 7},
    "memory": {PE + "memory.bytes_per_cycle": 3, PE + "memory.latency_cycles": 1},
    "small memory": {PE + "memory.capacity_bytes": 1000},
    "buffer": {PE + "buffer.capacity_bytes": 300},
    "root": {"root.memory.bytes_per_cycle": 5, "root.vector.lanes": 1},
    "int8 weights": {"dtypes.weight": "int8"},
    "fp8 cache": {"dtypes.kv_cache": "fp8"},
    "bf16 partial sums": {"dtypes.partial": "bf16"},
    **{f"overlap {overlap}": {"overlap": overlap} for overlap in (0, 2, 3)},
    **{f"{num_pes} PEs": {"num_pes": num_pes} for num_pes in (1, 2, 3, 4, 16)},
    "16 PEs, wide bus": {"num_pes": 16, BUS + "bytes_per_cycle": 4096, BUS + "overhead_cycles": 0},
    "16 PEs, overlap 3": {"num_pes": 16, "overlap": 3},
    "another name and clock": {"name": "other", "clock_ghz": 3.0},
}
STEPS = (Decode(1, 9), Decode(3, 5), Prefill(2, prompt_len=3))


def array_of(point):
    return small_array(8, POINTS[point])


def report_of(model, point, step, workflow):
    array = array_of(point)
    return json.dumps(simulate(model, array, step, workflow, allow_overflow=True).to_dict(), sort_keys=True)


def forget():
    for cache in CACHES:
        cache.cache_clear()


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("workflow", some_of(sorted(WORKFLOWS), 3))
def test_reports_are_those_of_points_simulated_alone(workflow, every):
    model = tiny_llama(num_key_value_heads=2)
    sizes, number = (len(POINTS), len(STEPS), len(WORKFLOWS)), sorted(WORKFLOWS).index(workflow)
    points = [
        (point, step)
        for (row, point), (column, step) in product(enumerate(POINTS), enumerate(STEPS))
        if every or in_sample((row, column, number), sizes)
    ]
    forget()
    together = {key: report_of(model, *key, workflow) for key in points}
    again = {key: report_of(model, *key, workflow) for key in reversed(points)}
    alone = {}
    for key in points:
        forget()
        alone[key] = report_of(model, *key, workflow)
    assert together == alone
    assert again == alone


@pytest.mark.parametrize("preset", ["mesh-256", "hier-bus-256"])
def test_other_interconnects_give_the_same_too(preset):
    changes = [{}, {"pe.matrix.outputs": 2}, {"overlap": 3}, {"num_pes": 64}, {"floorplan.mm_per_cycle": 1.0}]

    def result(change):
        array = load_array(preset, {"num_pes": 16, **change})
        trace = engine_named("fast")(schedule_of(tiny_llama(), array, Decode(1, 9), "workflow-1"))
        return trace.makespan_cycles, traffic_of(trace)

    forget()
    together = [result(change) for change in changes + changes]
    alone = []
    for change in changes:
        forget()
        alone.append(result(change))
    assert together == alone + alone
    assert len({cycles for cycles, _ in alone}) > 1


def kinds(placed):
    return [node.kind for block in placed.blocks for node in block.nodes if isinstance(node, Move)]


def swept(*points, workflow="workflow-1", model=None):
    model = model or tiny_llama()
    return [placed_step(model, array_of(point), Decode(1, 9), workflow) for point in points]


def nodes(placed):
    return [block.nodes for block in placed.blocks]


def same_objects(some, others):
    return all(one is other for one, other in zip(some, others, strict=True))


def test_the_points_flip_the_choice_of_a_transform():
    seen = {tuple(kinds(placed)) for placed in swept("wide bus", "costly messages")}
    assert len(seen) == 2


def test_networks_with_the_same_choices_share_nodes_and_work():
    first, second = swept("as it is", "request")
    assert kinds(first) == kinds(second)
    assert same_objects(first.blocks, second.blocks)
    of_first, of_second = (
        [stage for block in lower(placed).blocks for stage in block.stages] for placed in (first, second)
    )
    shared = [one.name for one, other in zip(of_first, of_second, strict=True) if one is other]
    assert "q" in shared
    assert not any(name.startswith("reduce") for name in shared)


def test_other_pes_share_placement_footprint_and_moves():
    first, second = swept("as it is", "memory")
    assert same_objects(first.blocks, second.blocks)
    held = [footprint(placed, placed.graph.shape) for placed in (first, second)]
    assert held[0].weight_bytes_per_pe is held[1].weight_bytes_per_pe
    of_first, of_second = (
        [stage for block in lower(placed).blocks for stage in block.stages] for placed in (first, second)
    )
    shared = [one.name for one, other in zip(of_first, of_second, strict=True) if one is other]
    assert any(name.startswith("reduce") for name in shared)
    assert "q" not in shared


def test_more_pes_share_the_nodes():
    first, second = (
        placed_step(tiny_llama(), small_array(num_pes, gather="by_reduction"), Decode(1, 9), "megatron")
        for num_pes in (3, 4)
    )
    assert same_objects(nodes(first), nodes(second))
    assert first.blocks[0].layouts is not second.blocks[0].layouts


def test_every_point_has_its_own_array():
    for point, placed in zip(POINTS, swept(*POINTS), strict=True):
        assert placed.array == array_of(point)
        assert footprint(placed, placed.graph.shape).array == array_of(point)
        assert lower(placed).array == array_of(point)


def test_alternating_between_two_networks_places_each_once():
    placed = swept("wide bus", "costly messages", "wide bus", "costly messages")
    assert all(same_objects(nodes(one), nodes(other)) for one, other in zip(placed, placed[2:], strict=False))
    assert not any(nodes(one) == nodes(other) for one, other in pairwise(placed))


def test_equal_workflows_of_two_files_keep_their_names_in_messages():
    pattern = WORKFLOWS["megatron"].pattern
    for source in ("mine.yaml", "yours.yaml"):
        workflow = Workflow("own", "", pattern, groups=3, source=source)
        mapper.place(tiny_llama(), small_array(6), Decode(3, 9), workflow)
        with pytest.raises(InputError, match=source):
            mapper.place(tiny_llama(), small_array(8), Decode(3, 9), workflow)
