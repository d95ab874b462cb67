"""The registry of distributions: what placement an operator needs of its inputs and gives its outputs.

`row` is by rows of W in y = W x: outputs sharded, what Megatron calls column parallel; `col` is by columns of W:
inputs sharded, outputs partial sums, Megatron's row parallel.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

from pe_sim.errors import InputError
from pe_sim.graph.operators import (
    AttentionOperator,
    KvAppend,
    Linear,
    Operator,
    Scores,
    Values,
)
from pe_sim.mapping.groups import GRID, grid_name, grid_ways
from pe_sim.mapping.placement import Partial, Placement, Replicate, Shard
from pe_sim.registry import Registry


@dataclass(frozen=True, slots=True)
class OperatorPlacement:
    """Placements in the order of the operator's inputs and outputs."""

    inputs: tuple[Placement, ...]
    outputs: tuple[Placement, ...]


class Distribution(Protocol):
    """One way to place an operator with weights or a cache.

    `attention` is the distribution of the layer's attention, which decides how the heads' features are cut;
    `head_group_size` is how many PEs share one query head.
    """

    @property
    def name(self) -> str:
        """The name that users type."""
        ...

    @property
    def summary(self) -> str:
        """One line that says what is cut and what it costs."""
        ...

    def applies_to(self, operator: Operator) -> bool:
        """Whether the operator can have this distribution."""
        ...

    def place(self, operator: Operator, attention: str, head_group_size: int) -> OperatorPlacement:
        """The placements this distribution needs and gives."""
        ...


def feature_shard(dim: str, attention: str) -> Shard:
    """How a feature dim is cut: the heads' features follow attention by head, everything else is cut evenly."""
    return Shard("head") if attention == "head" and dim in ("query", "kv") else Shard(dim)


@dataclass(frozen=True, slots=True)
class Row:
    """W cut by rows: outputs sharded."""

    name: str = "row"
    summary: str = "outputs of W in y = W x sharded (Megatron: column parallel); input replicated, no reduction"

    def applies_to(self, operator: Operator) -> bool:
        """Whether the operator is linear."""
        return isinstance(operator, Linear)

    def place(self, operator: Operator, attention: str, head_group_size: int) -> OperatorPlacement:
        """The placements Replicate -> Shard(outputs)."""
        assert isinstance(operator, Linear)
        return OperatorPlacement((Replicate(),), (feature_shard(operator.out_dim, attention),))


@dataclass(frozen=True, slots=True)
class Col:
    """W cut by columns: inputs sharded."""

    name: str = "col"
    summary: str = "inputs of W in y = W x sharded (Megatron: row parallel); outputs are partial sums"

    def applies_to(self, operator: Operator) -> bool:
        """Whether the operator is linear."""
        return isinstance(operator, Linear)

    def place(self, operator: Operator, attention: str, head_group_size: int) -> OperatorPlacement:
        """The placements Shard(inputs) -> Partial(sum)."""
        assert isinstance(operator, Linear)
        return OperatorPlacement((feature_shard(operator.in_dim, attention),), (Partial("sum"),))


@dataclass(frozen=True, slots=True)
class Grid:
    """Both dims of an FFN's matrix cut: hidden `ways` ways along the rows of a grid of PEs, ffn over its rows.

    The registered one has X = 1; `distribution_for` makes those with other X from it.
    """

    ways: int = 1
    summary: str = "W of an FFN in tiles: hidden cut X ways over neighbours, ffn N / X ways (2-D weight-stationary)"

    @property
    def name(self) -> str:
        """The name that users type."""
        return GRID if self.ways == 1 else grid_name(self.ways)

    def applies_to(self, operator: Operator) -> bool:
        """Whether the operator is a matrix of an FFN: hidden to ffn, or back."""
        return isinstance(operator, Linear) and {operator.in_dim, operator.out_dim} == {"hidden", "ffn"}

    def place(self, operator: Operator, attention: str, head_group_size: int) -> OperatorPlacement:
        """To ffn Shard(hidden) by x -> Partial(sum) per row, back Shard(ffn) by y -> Partial(sum) of slices by x."""
        assert isinstance(operator, Linear)
        widens = operator.out_dim == "ffn"
        if self.ways == 1:
            return (Row() if widens else Col()).place(operator, attention, head_group_size)
        hidden, ffn = Shard("hidden", self.ways, "x"), Shard("ffn", self.ways, "y")
        if widens:
            return OperatorPlacement((hidden,), (Partial("sum", self.ways, ffn),))
        return OperatorPlacement((ffn,), (Partial("sum", held=hidden),))

    def place_on_one_row(self, operator: Operator) -> OperatorPlacement:
        """The placements where one row has all PEs of a group: only the hidden dim is cut."""
        assert isinstance(operator, Linear)
        return (Col() if operator.out_dim == "ffn" else Row()).place(operator, "", 1)


@dataclass(frozen=True, slots=True)
class Uniform:
    """Inputs and outputs in one and the same placement: replicate or batch."""

    name: str
    summary: str
    placement: Placement

    def applies_to(self, operator: Operator) -> bool:
        """Whether the operator is linear or belongs to attention."""
        return isinstance(operator, Linear | AttentionOperator)

    def place(self, operator: Operator, attention: str, head_group_size: int) -> OperatorPlacement:
        """The one placement for all inputs and outputs."""
        return OperatorPlacement((self.placement,) * len(operator.inputs), (self.placement,) * len(operator.outputs))


@dataclass(frozen=True, slots=True)
class Head:
    """Attention by query heads, by slices of a head where PEs outnumber heads."""

    name: str = "head"
    summary: str = "attention by query heads; slices of head_dim with reduced scores where PEs outnumber heads"

    def applies_to(self, operator: Operator) -> bool:
        """Whether the operator belongs to attention."""
        return isinstance(operator, AttentionOperator)

    def place(self, operator: Operator, attention: str, head_group_size: int) -> OperatorPlacement:
        """Everything Shard(head); scores are partial sums inside a head's group."""
        shard = Shard("head")
        outputs: tuple[Placement, ...] = (shard,) * len(operator.outputs)
        if isinstance(operator, Scores) and head_group_size > 1:
            outputs = (Partial("sum", scope="head"),)
        return OperatorPlacement((shard,) * len(operator.inputs), outputs)


@dataclass(frozen=True, slots=True)
class Token:
    """Attention by cached tokens (flash-decoding): each PE attends to its own, partial softmaxes are merged."""

    name: str = "token"
    summary: str = "attention by cached tokens (position p on PE p mod N); softmax partials merged by reduction"

    def applies_to(self, operator: Operator) -> bool:
        """Whether the operator belongs to attention."""
        return isinstance(operator, AttentionOperator)

    def place(self, operator: Operator, attention: str, head_group_size: int) -> OperatorPlacement:
        """q, k and v replicated, cache and scores by token, values a softmax partial."""
        on_tokens = {"cache", "scores", "probabilities"}
        inputs = tuple(Shard("token") if name in on_tokens else Replicate() for name in operator.inputs)
        if isinstance(operator, Values):
            return OperatorPlacement(inputs, (Partial("softmax"),))
        by_token = isinstance(operator, KvAppend | Scores) or "scores" in operator.inputs
        return OperatorPlacement(inputs, (Shard("token") if by_token else Replicate(),) * len(operator.outputs))


_BUILT_IN: tuple[Distribution, ...] = (
    Row(),
    Col(),
    Grid(),
    Head(),
    Token(),
    Uniform("batch", "each PE its own sequences and a whole copy of the weights", Shard("batch")),
    Uniform("replicate", "every PE computes all of it", Replicate()),
)
DISTRIBUTIONS: Registry[Distribution] = Registry(
    "pe_sim.distributions", {each.name: each for each in _BUILT_IN}, ("name", "summary", "applies_to", "place")
)


def distribution_for(operator: Operator, name: str, source: str, path: str) -> Distribution:
    """The distribution `name`, checked to fit `operator`.

    Raises:
        InputError: the operator cannot have it; names those it can.
    """
    ways = grid_ways(name)
    distribution = DISTRIBUTIONS.get(name) if ways is None else replace(Grid(), ways=ways)
    if distribution is None or not distribution.applies_to(operator):
        fitting = sorted(other.name for other in DISTRIBUTIONS.values() if other.applies_to(operator))
        raise InputError(
            f"operator {operator.name!r} cannot be distributed by {name!r}",
            source=source,
            path=path,
            given=name,
            expected="one of " + ", ".join(fitting),
        )
    return distribution
