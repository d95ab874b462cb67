"""Grids of PEs: which tile each PE has, which rows have joints, what is moved, and what is refused."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pe_sim.config.step import Decode
from pe_sim.errors import InputError
from pe_sim.graph.operators import Tensor
from pe_sim.mapping.footprint import footprint
from pe_sim.mapping.groups import even_counts, first_holders, fitting_grids, grid_name, grid_slices, grid_ways
from pe_sim.mapping.mapper import place
from pe_sim.mapping.placed import Move
from pe_sim.mapping.placement import Joint, Partial, Replicate, Root, Shard
from pe_sim.mapping.transforms import Transforms
from pe_sim.mapping.workflow import WORKFLOWS, load_workflow
from pe_sim.schedule.lowering import lower
from pe_sim.schedule.stages import MessageStage, Tag, TreeStage
from tests.helpers import attention, layer_blocks, layouts_for, pe_groups, small_array, tiny_llama
from tests.network.networks import array_of

HIDDEN, FFN, LAYERS = 64, 96, 2


def with_ffn(gate_up, down, base="megatron"):
    workflow = WORKFLOWS[base]
    plans = tuple(replace(plan, gate=gate_up, up=gate_up, down=down) for plan in workflow.pattern)
    return replace(workflow, name="mine", pattern=plans)


def placed(gate_up, down=None, num_pes=16, base="megatron", **knobs):
    workflow = with_ffn(gate_up, down or gate_up, base)
    return place(tiny_llama(), small_array(num_pes, **knobs), Decode(1, 9), workflow)


def ffn_moves(graph):
    """(kind, tensors, scope) of the moves of a layer's FFN that cost something."""
    nodes = layer_blocks(graph)[-1].nodes
    norm = max(index for index, node in enumerate(nodes) if node.operator.name == "ffn_norm")
    return [
        (str(node.kind), "+".join(value.tensor.name for value in node.inputs), node.scope)
        for node in nodes[norm + 1 :]
        if isinstance(node, Move) and str(node.kind) != "local"
    ]


# ------------------------------------------------------------------------------------------------------- who holds what
@given(st.integers(0, 100), st.integers(1, 9), st.integers(1, 9))
def test_slices_tile(size, ways, rows):
    """Slices by x tile in every row and by y in every column, own parts over all PEs."""
    num_pes = ways * rows
    rank = np.arange(num_pes)
    alone = {"x": rank[:ways], "y": rank[::ways], "xy": rank, "yx": rank}
    for axis, pes in alone.items():
        shard = Shard("ffn", ways, axis)
        first, count = grid_slices(size, num_pes, shard)
        columns = [c for pe in pes for c in range(first[pe], first[pe] + count[pe])]
        assert sorted(columns) == list(range(size))
        holders = first_holders(num_pes, shard)
        held = [c for pe in rank[holders] for c in range(first[pe], first[pe] + count[pe])]
        assert sorted(held) == list(range(size))
    first, count = grid_slices(size, num_pes, Shard("ffn", ways, "x"))
    assert count.tolist() == np.tile(even_counts(size, ways), rows).tolist()
    first, count = grid_slices(size, num_pes, Shard("ffn", ways, "y"))
    assert count.tolist() == np.repeat(even_counts(size, rows), ways).tolist()


@pytest.mark.parametrize("ways", [1, 2, 3, 8])
def test_own_parts_are_inside_the_slices(ways):
    for outer, inner in (("x", "xy"), ("y", "yx")):
        first, count = grid_slices(50, 24, Shard("ffn", ways, outer))
        begin, width = grid_slices(50, 24, Shard("ffn", ways, inner))
        assert (begin >= first).all()
        assert (begin + width <= first + count).all()


def test_names():
    assert grid_name(8) == "grid-8"
    assert [grid_ways(name) for name in ("grid-8", "grid-X", "grid-0", "grid-08", "grid-", "row")] == [8] + [None] * 5


# ---------------------------------------------------------------------------------------------------------- which rows
@pytest.mark.parametrize(
    ("array", "groups", "fitting"),
    [
        (small_array(16), 1, (1, 2, 4, 8, 16)),
        (small_array(16, arity=4), 1, (1, 4, 16)),
        (small_array(12), 1, (1, 2, 4, 12)),
        (small_array(12), 2, (1, 2, 6)),
        (small_array(9, arity=3), 1, (1, 3, 9)),
        (small_array(7), 1, (1, 7)),
        (array_of("ring", 12), 1, (1, 2, 3, 4, 6, 12)),
        (array_of("mesh", 12), 2, (1, 2, 3, 6)),
    ],
)
def test_rows_that_have_joints(array, groups, fitting):
    assert fitting_grids(array, pe_groups(array.num_pes, groups, array.network.arity)) == fitting


@pytest.mark.parametrize(("num_pes", "ways", "known"), [(12, 3, "1, 2, 4, 12"), (16, 5, "1, 2, 4, 8, 16"), (1, 2, "1")])
def test_rows_without_joints_are_refused(num_pes, ways, known):
    with pytest.raises(InputError) as caught:
        placed(grid_name(ways), num_pes=num_pes)
    names = ", ".join(f"grid-{number}" for number in known.split(", "))
    assert str(caught.value) == (
        f"megatron: gate: {num_pes} PEs do not stand in rows of {ways} that each have a joint of their own\n"
        f"  given:    'grid-{ways}'\n  expected: one of {names}"
    ).replace("megatron", "mine")


# -------------------------------------------------------------------------------------------------------- what is moved
def transforms(num_pes=8):
    array = small_array(num_pes)
    return Transforms(array, layouts_for(array, attention(2, 2, 8)))


def steps(source, target):
    found = transforms().steps([Tensor("x", "ffn", 96)], source, target)
    return [(str(step.kind), step.source, step.target) for step in found]


SLICE = Shard("ffn", 4, "y")
TERMS = Partial("sum", 4, SLICE)
SUM = Partial("sum")


@pytest.mark.parametrize(
    ("source", "target", "moves"),
    [
        (TERMS, SLICE, [("reduce", TERMS, Joint(4)), ("broadcast", Joint(4), SLICE)]),
        (TERMS, SUM, [("local", TERMS, SUM)]),
        (TERMS, Root(), [("local", TERMS, SUM), ("reduce", SUM, Root())]),
        (Replicate(), SLICE, [("local", Replicate(), SLICE)]),
        (SLICE, Root(), [("local", SLICE, SUM), ("reduce", SUM, Root())]),
        (Partial("sum", held=Shard("ffn", 4, "x")), SUM, [("local", Partial("sum", held=Shard("ffn", 4, "x")), SUM)]),
    ],
)
def test_transforms(source, target, moves):
    assert steps(source, target) == moves


def test_a_slice_that_several_hold_is_gathered_by_reduction():
    array = small_array(8, gather="serial")
    found = Transforms(array, layouts_for(array, attention(2, 2, 8))).steps(
        [Tensor("x", "ffn", 96)], SLICE, Replicate()
    )
    assert [str(step.kind) for step in found] == ["local", "reduce", "broadcast"]


@pytest.mark.parametrize("ways", [2, 4, 8])
def test_an_ffn_reduces_in_its_rows_then_over_the_whole_array(ways):
    assert ffn_moves(placed(grid_name(ways))) == [
        ("reduce", "gate+up", ways),
        ("broadcast", "gate+up", ways),
        ("reduce", "stream", "group"),
        ("broadcast", "stream", "group"),
    ]


def test_rows_reduce_at_the_same_time_and_get_one_multicast_each():
    schedule = lower(placed("grid-4"))
    stages = [stage for block in schedule.blocks for stage in block.stages if stage.name.endswith("gate+up")]
    reduction, multicast = stages
    assert isinstance(reduction, TreeStage)
    assert isinstance(multicast, MessageStage)
    assert reduction.first_pe.tolist() == [0, 4, 8, 12]
    assert not reduction.whole_tree
    assert reduction.hop_cycles.tolist() == [2 * (1 + 2)] * 4  # two levels of the machine of section 10
    assert reduction.num_bytes.tolist() == [2 * (FFN // 4) * 4] * 4  # gate and up, a quarter of the ffn, fp32
    assert multicast.tag is Tag.MULTICAST
    assert multicast.num_bytes.tolist() == [2 * (FFN // 4) * 2] * 4


def test_a_term_is_passed_on_where_the_stream_has_nothing_to_add():
    """Eight columns over 16 PEs: half of them hold none of the stream's, but all have a term of down's."""
    model = tiny_llama(hidden_size=8, num_attention_heads=4, head_dim=2)
    schedule = lower(place(model, small_array(16), Decode(1, 9), with_ffn("grid-4", "grid-4")))
    stages = [stage for block in schedule.blocks for stage in block.stages if stage.operator == "ffn_add"]
    (add,) = (stage for stage in stages if stage.name == "add")
    assert add.active.all()
    assert (add.cycles > 0).tolist() == [True] * 8 + [False] * 8


# ------------------------------------------------------------------------------------------------------------ capacity
@pytest.mark.parametrize("ways", [2, 4, 8])
def test_every_pe_keeps_a_tile(ways):
    """Of each matrix as many elements as there are in a tile, whatever the shape; the rest is megatron's."""
    rows = 16 // ways
    hidden = np.tile(even_counts(HIDDEN, ways), rows)
    ffn = np.repeat(even_counts(FFN, rows), ways)
    graph, other = placed(grid_name(ways)), placed("row", "col")
    held, megatron = (footprint(each, each.graph.shape).weight_bytes_per_pe for each in (graph, other))
    tiles = 2 * LAYERS * 3 * (hidden * ffn - HIDDEN * even_counts(FFN, 16))
    assert (held - megatron).tolist() == tiles.tolist()
    assert held.sum() == megatron.sum()


def test_groups_have_grids_of_their_own():
    workflow = replace(with_ffn("grid-2", "grid-2"), groups=4)
    graph = place(tiny_llama(), small_array(16), Decode(4, 9), workflow)
    assert {scope for _, _, scope in ffn_moves(graph)} == {2, "group"}
    reductions = [stage for block in lower(graph).blocks for stage in block.stages if stage.name == "reduce gate+up"]
    assert [stage.first_pe.tolist() for stage in reductions] == [list(range(0, 16, 2))]


# --------------------------------------------------------------------------------------------------------------- files
def test_a_file_says_how_many_ways(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("schema_version: 1\nbase: megatron\nlayers: [{gate_up: grid-4, down: grid-4}]\n")
    plan = load_workflow(path).plan(0)
    assert (plan.gate, plan.up, plan.down) == ("grid-4",) * 3


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        (
            "gate_up: grid",
            "layers.0.gate_up: not one of the known values\n  given:    'grid'\n"
            "  expected: row or col or batch or replicate or grid-X\n  hint:     did you mean 'grid-X'?",
        ),
        ("down: grid-0", "layers.0.down: not one of the known values\n  given:    'grid-0'\n"),
        ("q: grid-4", "layers.0.q: not one of the known values\n  given:    'grid-4'\n  expected: row or col or batch"),
    ],
)
def test_wrong_names(tmp_path, entry, told):
    path = tmp_path / "mine.yaml"
    path.write_text(f"schema_version: 1\nbase: megatron\nlayers: [{{{entry}}}]\n")
    with pytest.raises(InputError) as caught:
        load_workflow(path)
    assert told in str(caught.value)


def test_attention_has_no_grid():
    workflow = WORKFLOWS["megatron"]
    wrong = replace(workflow, pattern=(replace(workflow.pattern[0], q="grid-4"),))
    with pytest.raises(InputError, match="operator 'q' cannot be distributed by 'grid-4'"):
        place(tiny_llama(), small_array(16), Decode(1, 9), wrong)


def test_names_of_placements():
    for one, other in itertools.combinations([SUM, TERMS, Partial("sum", "head"), SLICE, Joint(4), Joint("group")], 2):
        assert str(one) != str(other)
