"""Workflows: a distribution for every operator of every layer, and the table of named ones."""

from __future__ import annotations

from dataclasses import dataclass

from pe_sim.errors import InputError, did_you_mean

STREAM_PLACEMENTS = ("follow", "replicate", "shard")


@dataclass(frozen=True, slots=True)
class LayerPlan:
    """The distributions of one layer.

    Args:
        q, k, v, o, gate, up, down: distribution of each matrix.
        attention: head, token, batch or replicate, for RoPE to values.
        stream: what the stream becomes at the end of the layer: replicate, shard, or follow (left as it is).
    """

    q: str
    k: str
    v: str
    attention: str
    o: str
    gate: str
    up: str
    down: str
    stream: str = "follow"

    def matrix(self, operator: str) -> str:
        """The distribution of matrix `operator` of a layer."""
        distribution: str = getattr(self, operator)
        return distribution

    def to_dict(self) -> dict[str, str]:
        """Operator to distribution, JSON-ready."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Workflow:
    """Layer i runs under `pattern[i mod len(pattern)]`."""

    name: str
    summary: str
    pattern: tuple[LayerPlan, ...]
    groups: int = 1
    lm_head: str = "row"

    def plan(self, layer: int) -> LayerPlan:
        """The plan of one layer (0-based)."""
        return self.pattern[layer % len(self.pattern)]


def _plan(qkv: str, attention: str, o: str, gate_up: str, down: str, stream: str) -> LayerPlan:
    return LayerPlan(qkv, qkv, qkv, attention, o, gate_up, gate_up, down, stream)


# Machine model, section 7. A Shard stream is gathered before a norm whose matrices want it whole.
_WORKFLOW_1 = _plan("row", "head", "col", "col", "row", "follow")
_WORKFLOW_2 = _plan("col", "token", "col", "row", "col", "replicate")
_MEGATRON = _plan("row", "head", "col", "row", "col", "replicate")

WORKFLOWS: dict[str, Workflow] = {
    workflow.name: workflow
    for workflow in (
        Workflow("workflow-1", "qkv by row, attention by head, o col, FFN col + row; stream sharded", (_WORKFLOW_1,)),
        Workflow("workflow-2", "qkv by col, attention by token, o col, FFN row + col; stream whole", (_WORKFLOW_2,)),
        Workflow("alternating", "layers 1, 3, ... workflow-1; layers 2, 4, ... workflow-2", (_WORKFLOW_1, _WORKFLOW_2)),
        Workflow("megatron", "qkv by row, attention by head, o col, FFN row + col; two all-reduces", (_MEGATRON,)),
        Workflow(
            "all-row",
            "every matrix by row, attention by head; every input gathered",
            (_plan("row", "head", "row", "row", "row", "follow"),),
        ),
        Workflow(
            "all-col",
            "every matrix by col, attention by token; every output reduced",
            (_plan("col", "token", "col", "col", "col", "replicate"),),
        ),
    )
}


def load_workflow(name: str) -> Workflow:
    """The workflow called `name`.

    Raises:
        InputError: there is none of that name.
    """
    if name not in WORKFLOWS:
        raise InputError(
            f"no workflow is called {name!r}",
            source="workflow",
            given=name,
            expected="one of " + ", ".join(WORKFLOWS),
            hint=did_you_mean(name, WORKFLOWS),
        )
    return WORKFLOWS[name]
