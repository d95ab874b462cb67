"""Which moves each workflow inserts into a layer, written out from sections 3 and 7."""

import pytest

from pe_sim.config.step import Decode, Prefill
from pe_sim.mapping.placed import Move
from pe_sim.mapping.placement import Replicate, Shard
from tests.helpers import end_blocks, layer_blocks, placed_step, small_array, tiny_llama

# A gather of shards to all PEs, by way; a reduction's result spread to shards, by way.
GATHER = {
    "serial": lambda x: [("all-gather", x)],
    "by_reduction": lambda x: [("reduce", x), ("broadcast", x)],
}
SPREAD = {
    "serial": lambda x: [("scatter", x)],
    "by_reduction": lambda x: [("broadcast", x)],
}


def reduced(x):
    return [("reduce", x)]


def all_reduced(x):
    return [("reduce", x), ("broadcast", x)]


def statistic(norm):
    """The norm on shards: one all-reduce of scalars."""
    return all_reduced(f"{norm}_statistic")


def workflow_1(way, stream, head_groups):
    """q k v row, attention head, o col, gate/up col, down row; the stream stays sharded."""
    return [
        *(GATHER[way]("stream") if stream == "shard" else []),
        *(all_reduced("scores") if head_groups else []),
        *reduced("middle"),
        *SPREAD[way]("middle"),
        *statistic("ffn_norm"),
        *reduced("gate+up"),
        ("broadcast", "activated"),
    ]


def workflow_2(way, stream, head_groups):
    """q k v col, attention token, o col, gate/up row, down col; the stream is made whole."""
    del head_groups
    return [
        *(statistic("attention_norm") if stream == "shard" else []),
        *all_reduced("q+k+v"),
        *reduced("attended_partial"),
        *SPREAD[way]("attended"),
        *all_reduced("middle"),
        *all_reduced("stream"),
    ]


def megatron(way, stream, head_groups):
    del way, stream
    return [*(all_reduced("scores") if head_groups else []), *all_reduced("middle"), *all_reduced("stream")]


def all_row(way, stream, head_groups):
    return [
        *(GATHER[way]("stream") if stream == "shard" else []),
        *(all_reduced("scores") if head_groups else []),
        *GATHER[way]("attended"),
        *GATHER[way]("middle"),
        *GATHER[way]("activated"),
    ]


def all_col(way, stream, head_groups):
    del stream, head_groups
    return [
        *all_reduced("q+k+v"),
        *reduced("attended_partial"),
        *SPREAD[way]("attended"),
        *reduced("middle"),
        *SPREAD[way]("middle"),
        *statistic("ffn_norm"),
        *reduced("gate+up"),
        *SPREAD[way]("activated"),
        *all_reduced("stream"),
    ]


# workflow -> (moves of a layer, stream that enters it) for layers 1, 2, 3
LAYERS = {
    "workflow-1": [(workflow_1, "replicate"), (workflow_1, "shard"), (workflow_1, "shard")],
    "workflow-2": [(workflow_2, "replicate")] * 3,
    "alternating": [(workflow_1, "replicate"), (workflow_2, "shard"), (workflow_1, "replicate")],
    "megatron": [(megatron, "replicate")] * 3,
    "all-row": [(all_row, "replicate"), (all_row, "shard"), (all_row, "shard")],
    "all-col": [(all_col, "replicate")] * 3,
}
ENDS_SHARDED = ("workflow-1", "alternating", "all-row")  # with three layers


def moves(block):
    """(kind, tensors) of a block's moves that cost something."""
    return [
        (str(node.kind), "+".join(value.tensor.name for value in node.inputs))
        for node in block.nodes
        if isinstance(node, Move) and str(node.kind) != "local"
    ]


def placed(workflow, num_pes, way, step=None, layers=3, **model):
    array = small_array(num_pes, gather=way, scatter=way)
    return placed_step(tiny_llama(num_hidden_layers=layers, **model), array, step or Decode(1, 20), workflow)


@pytest.mark.parametrize("way", ["serial", "by_reduction"])
@pytest.mark.parametrize("workflow", LAYERS)
@pytest.mark.parametrize("num_pes", [2, 3, 4, 5, 8, 16, 37])
def test_the_moves_of_every_layer(workflow, num_pes, way):
    head_groups = num_pes >= 8  # of 4 heads: groups of 2 from 8 PEs on
    for block, (expected, stream) in zip(layer_blocks(placed(workflow, num_pes, way)), LAYERS[workflow], strict=True):
        assert moves(block) == expected(way, stream, head_groups)


@pytest.mark.parametrize("workflow", LAYERS)
@pytest.mark.parametrize(
    "step", [Decode(3, [5, 0, 9]), Prefill(prompt_len=[7, 2]), Prefill(2, prompt_len=3, logits="all")]
)
def test_batch_and_prefill_move_the_same(workflow, step):
    one, other = placed(workflow, 8, "by_reduction"), placed(workflow, 8, "by_reduction", step)
    assert [moves(block) for block in layer_blocks(one)] == [moves(block) for block in layer_blocks(other)]


@pytest.mark.parametrize("way", ["serial", "by_reduction"])
@pytest.mark.parametrize("workflow", LAYERS)
def test_both_ends(workflow, way):
    """Embedding at root, broadcast; final norm on the whole rows, logits by vocabulary, a max-reduce at the end."""
    prologue, epilogue = end_blocks(placed(workflow, 4, way))
    assert moves(prologue) == [("broadcast", "stream")]
    gathered = GATHER[way]("selected") if workflow in ENDS_SHARDED else []
    assert moves(epilogue) == [*gathered, ("reduce", "best")]


@pytest.mark.parametrize("workflow", LAYERS)
def test_one_pe_needs_the_embedding_and_the_root_alone(workflow):
    graph = placed(workflow, 1, "best")
    blocks = (*layer_blocks(graph), *end_blocks(graph))
    assert sorted(move for block in blocks for move in moves(block)) == [("broadcast", "stream"), ("reduce", "best")]


@pytest.mark.parametrize("workflow", LAYERS)
def test_a_layer_is_placed_once_for_every_entry(workflow):
    graph = placed(workflow, 4, "best", layers=12)
    distinct = {(expected.__name__, stream) for expected, stream in LAYERS[workflow]}
    assert len(graph.blocks) == 2 + len(distinct)
    assert len(layer_blocks(graph)) == 12


@pytest.mark.parametrize(("workflow", "leaves"), [("workflow-1", Shard("hidden")), ("megatron", Replicate())])
def test_the_stream_between_layers(workflow, leaves):
    for block in layer_blocks(placed(workflow, 4, "best")):
        assert block.exits[0].placement == leaves


def test_grouped_query_attention_moves_the_same():
    assert moves(layer_blocks(placed("workflow-1", 16, "by_reduction", num_key_value_heads=2))[1]) == workflow_1(
        "by_reduction", "shard", True
    )
