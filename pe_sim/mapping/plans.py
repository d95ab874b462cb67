"""From a workflow's plan of a layer to what the placer of a block wants."""

from __future__ import annotations

from pe_sim.mapping.placer import BlockPlan
from pe_sim.mapping.workflow import ACTIVATIONS, LayerPlan, Workflow


def layer_plan(workflow: Workflow, plan: LayerPlan) -> BlockPlan:
    """The plan of a layer's block."""
    matrices = {name: getattr(plan, name) for name in ("q", "k", "v", "o", "gate", "up", "down")}
    vectors = {name: getattr(plan, name) for name in ("attention_norm", "attention_add", "ffn_norm", "ffn_add")}
    vectors |= dict.fromkeys(ACTIVATIONS, plan.activation)
    return BlockPlan(
        matrices,
        plan.attention,
        vectors,
        plan.stream,
        workflow.source or workflow.name,
        stream_weights=workflow.stream_weights,
        local_ends=workflow.local_ends,
    )


def end_plan(workflow: Workflow, neighbour: LayerPlan, *, prologue: bool) -> BlockPlan:
    """The plan of what comes before the first layer or after the last; `neighbour` is that layer's plan."""
    stream = "follow"
    if prologue:
        stream = "batch" if neighbour.stream == "batch" else "replicate"
    return BlockPlan(
        {"lm_head": workflow.lm_head, "pooler": workflow.lm_head},
        neighbour.attention,
        {},
        stream,
        workflow.source or workflow.name,
        stream_weights=workflow.stream_weights,
        local_ends=workflow.local_ends,
    )
