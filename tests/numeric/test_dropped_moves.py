"""The proof bites: whichever move of a step is left out, verify fails."""

from dataclasses import replace
from functools import cache

import pytest

from pe_sim.config.step import Decode, Prefill
from pe_sim.mapping.mapper import place
from pe_sim.mapping.placed import Move, MoveKind
from pe_sim.mapping.workflow import WORKFLOWS, LayerPlan, Workflow
from pe_sim.numeric.proof import verify_placed
from tests.helpers import small_array, some_of
from tests.numeric.cases import FAMILIES, tokens_of, weights_of

# With every kind of move that the named workflows seldom have.
VECTORS = {"attention_norm": "shard", "attention_add": "root", "ffn_norm": "root", "ffn_add": "shard"}
MIXED = Workflow(
    "mixed",
    "",
    (
        LayerPlan(
            "col", "row", "replicate", "token", "row", "col", "row", "row", "shard", **VECTORS, activation="shard"
        ),
    ),
    lm_head="col",
)
GROUPS = {name: replace(WORKFLOWS[name], groups=2) for name in ("workflow-1", "workflow-2", "all-row")}
PROGRAMS = {**WORKFLOWS, "mixed": MIXED, **{f"groups-{name}": workflow for name, workflow in GROUPS.items()}}
STEPS = {"decode": Decode(3, context_len=[4, 0, 6]), "prefill": Prefill(3, prompt_len=[3, 1, 4])}
CASES = [
    *[("llama", workflow, phase, 4, "by_reduction") for workflow in PROGRAMS for phase in STEPS],
    *[("llama", workflow, phase, 10, "serial") for workflow in PROGRAMS for phase in STEPS],  # 10 > heads
    *[(family, workflow, "prefill", 6, "best") for workflow in PROGRAMS for family in ("gpt2", "bert")],
    *[("llama", workflow, "decode", 1, "best") for workflow in WORKFLOWS],
    *[("llama", workflow, "decode", 2, "best") for workflow in PROGRAMS],
]


@cache
def placed_case(family, workflow, phase, num_pes, gather):
    array = small_array(num_pes, gather=gather, scatter=gather)
    return place(FAMILIES[family](), array, STEPS[phase], PROGRAMS[workflow])


def moves_of(case):
    """(block, node) positions of every move that does something: one PE a group has nothing to do on its own."""
    placed = placed_case(*case)
    return [
        (at, position)
        for at, block in enumerate(placed.blocks)
        for position, node in enumerate(block.nodes)
        if isinstance(node, Move) and not (node.kind is MoveKind.LOCAL and block.layouts.groups.size == 1)
    ]


def without(placed, at, position, *, believed):
    """The graph without one move; where it is `believed` to have happened, readers take what was there before it."""
    block = placed.blocks[at]
    dropped = block.nodes[position]
    before = {output.key: value.key for value, output in zip(dropped.inputs, dropped.outputs, strict=True)}

    def redirect(values):
        return tuple(replace(value, key=before.get(value.key, value.key)) for value in values)

    nodes, exits = (*block.nodes[:position], *block.nodes[position + 1 :]), block.exits
    if believed:
        nodes = tuple(replace(node, inputs=redirect(node.inputs)) for node in nodes)
        exits = redirect(exits)
    changed = replace(block, nodes=nodes, exits=exits)
    return replace(placed, blocks=(*placed.blocks[:at], changed, *placed.blocks[at + 1 :]))


@pytest.mark.parametrize("case", some_of(CASES, 9), ids=lambda case: "-".join(map(str, case)))
def test_dropping_any_one_move_is_noticed(case):
    family, _, phase, *_ = case
    model, weights, placed = FAMILIES[family](), weights_of(family), placed_case(*case)
    tokens = tokens_of(model, STEPS[phase])
    assert verify_placed(placed, model, weights, tokens).computes_the_model
    for at, position in moves_of(case):
        for believed in (True, False):
            verdict = verify_placed(without(placed, at, position, believed=believed), model, weights, tokens)
            label = placed.blocks[at].nodes[position].label
            assert not verdict.computes_the_model, f"nobody missed {label} (believed: {believed})"


def test_the_cases_drop_every_kind_of_move():
    kinds = {
        str(placed_case(*case).blocks[at].nodes[position].kind) for case in CASES for at, position in moves_of(case)
    }
    free = {"unicast"} - kinds
    assert kinds | free == {
        "local",
        "reduce",
        "broadcast",
        "scatter",
        "gather",
        "all-gather",
        "unicast",
        "forward",
        "weight-stream",
    }
