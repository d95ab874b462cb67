"""What moves between two mappings: closed forms by hand, and the messages carried out on real arrays."""

import itertools
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest

import pe_sim as ps
from pe_sim.config.dtypes import Dtype
from pe_sim.graph.operators import KvAppend, Linear, Norm
from pe_sim.mapping.footprint import footprint
from pe_sim.mapping.mapper import place
from pe_sim.mapping.placed import Move, MoveKind, Work
from pe_sim.mapping.placement import Root, Shard
from pe_sim.mapping.workflow import WORKFLOWS
from pe_sim.mapping_search.switch.holdings import (
    NOBODY,
    Holding,
    Residues,
    Spans,
    axes_of,
    cache_holding,
    caches_of,
    parameters_of,
    senders,
    transfer,
)
from pe_sim.numeric.attention import PeAttention
from pe_sim.numeric.geometry import Geometry
from tests.helpers import ceil, small_array, tiny_llama

BF16 = Dtype("bf16")
PROMPT, BATCH = 7, 3
# (number of PEs, model): fewer PEs than heads, more, uneven everywhere, grouped queries, 9 rotary pairs on 8 PEs.
CASES = [
    (3, {}),
    (4, {}),
    (8, {}),
    (12, {"num_key_value_heads": 2}),
    (33, {"hidden_size": 72}),
]


def even(size, pes):
    """Contiguous even shares."""
    bounds = np.array([sum(size // pes + (each < size % pes) for each in range(pe)) for pe in range(pes + 1)])
    return Spans(size, np.arange(pes), bounds[:-1], bounds[1:])


def whole(size, pes):
    return Spans(size, np.arange(pes), np.zeros(pes, dtype=np.int64), np.full(pes, size))


def matrix(*dims, dtype=BF16):
    return Holding("w", dims, dtype)


class TestClosedForms:
    @pytest.mark.parametrize(("n", "pes"), [(64, 4), (64, 16), (256, 256), (60, 1)])
    def test_row_to_col_keeps_one_part_in_n_of_each_slice(self, n, pes):
        """Each PE sends its n / N rows but for the n / N columns it keeps, and gets as many."""
        row, col = matrix(even(n, pes), whole(n, pes)), matrix(whole(n, pes), even(n, pes))
        moved = transfer(row, col, pes)
        part = n // pes
        each = 2 * (part * n - part * part)
        for side in (moved.sent, moved.received, moved.dropped):
            assert side.tolist() == [each] * pes
        assert moved.lacking == 2 * (n * n - pes * part * part)
        assert moved.rootward == 0
        back = transfer(col, row, pes)
        assert back.sent.tolist() == moved.sent.tolist()

    def test_uneven_row_to_col(self):
        """10 x 10 on 4 PEs: shares of 3, 3, 2, 2 rows keep 3 * 3, 3 * 3, 2 * 2, 2 * 2 elements."""
        moved = transfer(matrix(even(10, 4), whole(10, 4)), matrix(whole(10, 4), even(10, 4)), 4)
        assert moved.sent.tolist() == [2 * (30 - 9), 2 * (30 - 9), 2 * (20 - 4), 2 * (20 - 4)]

    def test_replicated_to_sharded_moves_nothing(self):
        moved = transfer(matrix(whole(8, 4), whole(8, 4)), matrix(even(8, 4), whole(8, 4)), 4)
        assert moved.is_empty
        assert not moved.received.any()
        assert moved.dropped.tolist() == [2 * (64 - 16)] * 4

    def test_sharded_to_replicated_is_sent_once(self):
        moved = transfer(matrix(even(8, 4), whole(8, 4)), matrix(whole(8, 4), whole(8, 4)), 4)
        assert moved.sent.tolist() == [2 * 16] * 4
        assert moved.received.tolist() == [2 * (64 - 16)] * 4
        assert moved.lacking == 2 * 64

    def test_of_several_holders_the_lowest_sends(self):
        """Two groups of two PEs hold a copy each; the second one's PEs send nothing."""
        halves = Spans(8, np.arange(4), np.array([0, 4, 0, 4]), np.array([4, 8, 4, 8]))
        moved = transfer(matrix(halves), matrix(whole(8, 4)), 4)
        assert moved.sent.tolist() == [8, 8, 0, 0]

    def test_what_nobody_holds_comes_from_the_root(self):
        moved = transfer(None, matrix(even(8, 4), whole(8, 4)), 4)
        assert (moved.sent.sum(), moved.rootward, moved.lacking) == (0, 128, 128)
        assert transfer(matrix(even(8, 4), whole(8, 4)), None, 4).is_empty

    def test_cache_by_head_to_cache_by_token(self):
        """4 heads of 16 on 4 PEs, 12 tokens: of its head each PE keeps a quarter of the tokens."""
        token = (whole(1, 4), whole(4, 4), Residues(12, 4, np.arange(4)), whole(16, 4))
        head = (whole(1, 4), even(4, 4), Residues(12, 1, np.zeros(4, dtype=np.int64)), whole(16, 4))
        moved = transfer(Holding("kv", head, BF16, 2), Holding("kv", token, BF16, 2), 4)
        assert moved.sent.tolist() == [2 * 2 * 16 * 9] * 4
        assert moved.received.tolist() == [2 * 2 * 16 * (3 * 4 - 3)] * 4

    def test_tokens_on_other_strides(self):
        """12 tokens from p mod 2 (twice) to p mod 4: PE 2 and 3 hold what they need; so do PE 0 and 1."""
        pair = Residues(12, 2, np.array([0, 1, 0, 1]))
        moved = transfer(matrix(pair), matrix(Residues(12, 4, np.arange(4))), 4)
        assert moved.is_empty
        back = transfer(matrix(Residues(12, 4, np.arange(4))), matrix(pair), 4)
        assert back.sent.tolist() == [6, 6, 6, 6]
        few = transfer(matrix(Residues(3, 2, np.arange(2))), matrix(Residues(3, 3, np.array([0, 1]))), 2)
        assert few.is_empty  # position 2 is on no PE any more

    def test_scales_travel_with_the_pieces(self):
        """int4 in groups of 8: a row of 16 has two scales, a quarter of it one."""
        dtype = Dtype("int4", group_size=8)
        row = matrix(even(16, 4), whole(16, 4), dtype=dtype)
        moved = transfer(row, matrix(whole(16, 4), even(16, 4), dtype=dtype), 4)
        pieces = 4 * 3  # rows of a PE, columns of the three others
        assert moved.sent.tolist() == [ceil(pieces * (4 * 4 + 16), 8)] * 4


# ------------------------------------------------------------------------------------- carried out on real arrays
def held_parameters(placed, num_pes):
    """{(layer, name): [index arrays along each dim of every PE]}, as the executor cuts its weights."""
    found = {}
    for run in placed.sequence:
        block = placed.blocks[run.block]
        geometry = Geometry(block.layouts)
        streams = {n.operator.name for n in block.nodes if isinstance(n, Move) and n.kind is MoveKind.WEIGHT_STREAM}
        for node in block.nodes:
            if not isinstance(node, Work) or run.lane or isinstance(node.outputs[0].placement, Root):
                continue
            operator, target = node.operator, node.outputs[0].placement
            if operator.name in streams:
                continue
            sides = []
            if isinstance(operator, Linear) and node.function == "matrix":
                sides.append((operator.out_dim, operator.out_size, target))
                sides.append((operator.in_dim, operator.in_size, node.inputs[0].placement))
            elif isinstance(operator, Norm) and node.function != "sum_of_squares":
                sides.append(("hidden", operator.size, target))
            else:
                continue
            cuts = [None] * num_pes
            for pe in geometry.members:
                cuts[pe] = [geometry.columns(*side, pe) for side in sides]
            found[run.layer, operator.name] = cuts
    return found


def carry_out(before, after, num_pes):
    """Executes the messages on arrays in which every element is another number; gives what each PE then has."""
    known = before or after
    shape = tuple(dim.size for dim in known.dims)
    truth = np.arange(1, 1 + np.prod(shape)).reshape(shape)
    axes = axes_of(before, after, num_pes)
    atoms = [
        np.arange(dim.size) % len(axis.sizes)
        if isinstance(dim, Residues)
        else np.repeat(range(len(axis.sizes)), axis.sizes)
        for dim, axis in zip(known.dims, axes, strict=True)
    ]
    memories = [
        np.where(outer([a.before[pe][at] for a, at in zip(axes, atoms, strict=True)]), truth, 0)
        for pe in range(num_pes)
    ]
    wanted = [outer([a.after[pe][at] for a, at in zip(axes, atoms, strict=True)]) for pe in range(num_pes)]
    lacking, sender = (each[np.ix_(*atoms)] for each in senders(axes))
    start = [memory.copy() for memory in memories]
    sizes = np.zeros(num_pes + 1, dtype=np.int64)
    for source in range(NOBODY, num_pes):
        in_message = lacking & (sender == source)
        message = truth if source == NOBODY else start[source]
        assert (message[in_message] > 0).all()  # it holds what it sends
        sizes[source] = in_message.sum()
        for pe in range(num_pes):
            mine = in_message & wanted[pe] & (start[pe] == 0)
            assert (memories[pe][mine] == 0).all()  # nothing comes twice
            memories[pe][mine] = message[mine]
    return truth, [np.where(want, memory, 0) for want, memory in zip(wanted, memories, strict=True)], sizes


def outer(masks):
    shape = tuple(len(mask) for mask in masks)
    result = np.ones(shape, dtype=bool)
    for axis, mask in enumerate(masks):
        result &= mask.reshape([-1 if each == axis else 1 for each in range(len(shape))])
    return result


def expected_memory(truth, indices):
    held = np.zeros_like(truth)
    if indices is not None and all(len(each) for each in indices):
        held[np.ix_(*indices)] = truth[np.ix_(*indices)]
    return held


PAIRS = [
    ("workflow-1", "workflow-2"),
    ("workflow-2", "workflow-1"),
    ("all-row", "all-col"),
    ("alternating", "megatron"),
    ("batch-block", "workflow-2"),
    ("batch-stream", "megatron"),
    ("megatron", "batch-block"),
    ("block-pipeline", "workflow-1"),
    ("workflow-2", "block-pipeline"),
]


@pytest.fixture(scope="module", params=list(itertools.product(CASES, PAIRS)), ids=str)
def sides(request):
    (num_pes, changes), names = request.param
    model, array = tiny_llama(**changes), small_array(num_pes)
    steps = ps.Prefill(BATCH, prompt_len=PROMPT), ps.Decode(BATCH, PROMPT)
    return [place(model, array, step, WORKFLOWS[name]) for step, name in zip(steps, names, strict=True)]


def test_after_the_switch_every_pe_has_the_weights_of_the_new_mapping(sides):
    num_pes = sides[0].array.num_pes
    old, new = (parameters_of(side) for side in sides)
    executed = held_parameters(sides[1], num_pes)
    checked = set()
    for layer in old | new:
        for name in {**old.get(layer, {}), **new.get(layer, {})}:
            before, after = old.get(layer, {}).get(name), new.get(layer, {}).get(name)
            truth, memories, sizes = carry_out(before, after, num_pes)
            moved = transfer(before, after, num_pes)
            assert moved.sent.tolist() == (2 * sizes[:-1]).tolist()
            assert moved.rootward == 2 * sizes[-1]
            if (layer, name) in executed:
                checked.add((layer, name))
                for memory, indices in zip(memories, executed[layer, name], strict=True):
                    np.testing.assert_array_equal(memory, expected_memory(truth, indices))
            elif after is None:
                assert not any(memory.any() for memory in memories)
    assert checked == set(executed)


def cache_of(placed, first, last, tokens):
    """By layer, {(sequence, token, kv column) of every PE}, as the executor's attention has it."""
    held = defaultdict(lambda: [set() for _ in range(placed.array.num_pes)])
    for run in placed.sequence:
        block = placed.blocks[run.block]
        geometry, shape = Geometry(block.layouts), block.layouts.shape
        size = shape.num_kv_heads * shape.head_dim
        for node in block.nodes:
            if not isinstance(node, Work) or not isinstance(node.operator, KvAppend):
                continue
            for pe in geometry.members:
                part: PeAttention = geometry.attention(node.distribution, pe, causal=True)
                if part.is_idle:
                    continue
                lone = geometry.groups.size == 1 or node.distribution != "head"
                columns = np.arange(size) if lone else geometry.columns("kv", size, Shard("head"), pe)
                stride, residue = part.split.token_stride, int(part.split.token_residue[pe])
                positions = [each for each in range(tokens) if each % stride == residue]
                owned = [each + run.lane for each in part.sequences if first <= each + run.lane < last]
                held[run.layer][pe].update(itertools.product(owned, positions, columns.tolist()))
    return held


def test_after_the_switch_every_pe_has_the_cache_of_the_new_mapping(sides):
    num_pes, shape = sides[0].array.num_pes, sides[0].graph.shape
    old, new = (caches_of(side) for side in sides)
    cuts = sorted({bound for side in (old, new) for part in side[0] for bound in (part.first, part.last)})
    for first, last in itertools.pairwise(cuts):
        executed = cache_of(sides[1], first, last, PROMPT)
        for layer in old:
            parts = [next(p for p in side[layer] if p.first <= first < p.last) for side in (old, new)]
            holdings = [cache_holding(part, first, last, PROMPT, BF16) for part in parts]
            _, memories, sizes = carry_out(*holdings, num_pes)
            moved = transfer(*holdings, num_pes)
            assert moved.sent.tolist() == (2 * 2 * sizes[:-1]).tolist()  # K and V
            assert moved.rootward == 0
            for memory, expected in zip(memories, executed[layer], strict=True):
                found = {
                    (int(s) + first, int(t), int(h) * shape.head_dim + int(d))
                    for s, h, t, d in zip(*np.nonzero(memory), strict=True)
                }
                assert found == expected


# --------------------------------------------------------------------------------- against what steps say they hold
GPT2 = {"model_type": "gpt2", "n_embd": 48, "n_head": 4, "n_layer": 2, "vocab_size": 51, "n_positions": 64}


@pytest.mark.parametrize("workflow", [name for name in WORKFLOWS if name != "batch-stream"])
@pytest.mark.parametrize("num_pes", [1, 3, 8, 33])
@pytest.mark.parametrize("model", [tiny_llama(num_key_value_heads=2), ps.load_model(GPT2)], ids=["llama", "gpt2"])
def test_holdings_are_what_the_footprint_counts(model, num_pes, workflow):
    """Biases, norms and tables too."""
    array = small_array(num_pes)
    placed = place(model, array, ps.Prefill(BATCH, prompt_len=PROMPT), WORKFLOWS[workflow])
    counted = footprint(placed, placed.graph.shape)
    parameters = [each for layer in parameters_of(placed).values() for each in layer.values()]
    held = sum(transfer(None, holding, num_pes).received for holding in parameters)
    assert held.tolist() == counted.weight_bytes_per_pe.tolist()
    parts = [part for layer in caches_of(placed).values() for part in layer]
    caches = [cache_holding(part, part.first, part.last, PROMPT, BF16) for part in parts]
    held = sum(transfer(None, holding, num_pes).received for holding in caches)
    assert held.tolist() == counted.kv_cache_bytes_per_pe.tolist()


@pytest.mark.parametrize("model", [tiny_llama(), ps.load_model({**GPT2, "n_inner": 64})], ids=["llama", "gpt2"])
@pytest.mark.parametrize("grid", ["grid-2", "grid-4"])
def test_tiles_of_a_grid(model, grid):
    """Matrices that are cut both ways: what is held is counted, and what a switch from rows to tiles moves."""
    (plan,) = WORKFLOWS["megatron"].pattern
    tiles = replace(WORKFLOWS["megatron"], pattern=(replace(plan, gate=grid, up=grid, down=grid),))
    steps = ps.Prefill(1, prompt_len=PROMPT), ps.Decode(1, PROMPT)
    sides = [
        place(model, small_array(8), steps[0], WORKFLOWS["megatron"]),
        place(model, small_array(8), steps[1], tiles),
    ]
    old, new = (parameters_of(side)[0] for side in sides)
    held = sum(
        transfer(None, each, 8).received for layer in parameters_of(sides[1]).values() for each in layer.values()
    )
    assert held.tolist() == footprint(sides[1], sides[1].graph.shape).weight_bytes_per_pe.tolist()
    executed = held_parameters(sides[1], 8)
    for name in ("up", "down"):
        truth, memories, _ = carry_out(old[name], new[name], 8)
        for memory, indices in zip(memories, executed[0, name], strict=True):
            np.testing.assert_array_equal(memory, expected_memory(truth, indices))
    ways = int(grid[-1])
    rows, tile = model.ffn_size // 8, (model.hidden_size // ways, model.ffn_size * ways // 8)
    kept = rows * tile[0]  # of its own rows of `up`, a PE's tile has one part in `ways`
    assert transfer(old["up"], new["up"], 8).received.tolist()[0] == 2 * (tile[0] * tile[1] - kept)
