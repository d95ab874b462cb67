"""What one of several arrays works on: its share of the layers and operators, cut where the arrays meet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import pairwise
from typing import TypeGuard

from pe_sim.config.models.model import ModelConfig
from pe_sim.errors import InputError
from pe_sim.graph.graph import STREAM
from pe_sim.graph.operators import Element, KvAppend, Linear, MergedSoftmax, Operator, Scores, Values


@dataclass(frozen=True, slots=True)
class OperatorShare:
    """Share `index` of the `of` shares of a layer's heads and FFN columns, or of the vocabulary."""

    index: int = 0
    of: int = 1

    def part(self, size: int) -> range:
        """The units of `size` that belong to it; shares differ by at most one, lower ones get the larger."""
        base, extra = divmod(size, self.of)
        first = self.index * base + min(self.index, extra)
        return range(first, first + base + (self.index < extra))


@dataclass(frozen=True, slots=True)
class HeadShare:
    """Contiguous query heads, and the kv heads they read."""

    query: range
    kv: range


def head_share(model: ModelConfig, share: OperatorShare) -> HeadShare:
    """The heads of a share: whole kv heads with their query heads, or where shares outnumber kv heads parts of one.

    Raises:
        InputError: the heads cannot be shared out so that each share reads its kv heads evenly.
    """
    per_kv, kv_heads = model.heads_per_kv_head, model.num_kv_heads
    if share.of <= kv_heads:
        kv = share.part(kv_heads)
        return HeadShare(range(kv.start * per_kv, kv.stop * per_kv), kv)
    if share.of % kv_heads or share.of > model.num_heads:
        fitting = [ways for ways in range(1, model.num_heads + 1) if ways <= kv_heads or ways % kv_heads == 0]
        raise InputError(
            f"the heads of {model.name} cannot be shared out over {share.of} arrays",
            path="tp",
            given=share.of,
            expected=f"up to {kv_heads} (its kv heads), or a multiple of that up to {model.num_heads} (its heads)",
            hint=f"the nearest that fits is {min(fitting, key=lambda ways: abs(ways - share.of))}",
        )
    inside = share.of // kv_heads
    kv_head, index = divmod(share.index, inside)
    part = OperatorShare(index, inside).part(per_kv)
    first = kv_head * per_kv
    return HeadShare(range(first + part.start, first + part.stop), range(kv_head, kv_head + 1))


def model_share(model: ModelConfig, share: OperatorShare, num_layers: int) -> ModelConfig:
    """The model of `num_layers` layers that an array computes which has a share of their operators.

    Raises:
        InputError: heads or FFN columns are fewer than the shares.
    """
    if share.of == 1:
        return replace(model, num_layers=num_layers)
    heads, columns = head_share(model, share), share.part(model.ffn_size)
    if not columns:
        raise InputError(
            f"the FFN of {model.name} has {model.ffn_size} columns for {share.of} arrays",
            path="tp",
            given=share.of,
            expected=f"at most {model.ffn_size}",
        )
    return replace(
        model,
        num_layers=num_layers,
        num_heads=len(heads.query),
        num_kv_heads=len(heads.kv),
        ffn_size=len(columns),
    )


# ---- A layer cut where arrays that share it meet: takes its operators, gives the segments between the meetings.


class Meeting(StrEnum):
    """What arrays exchange."""

    QUERIES = "queries"  # arrays that have tokens of the same sequences: everybody gets all rows' queries
    ATTENTION = "attention"  # the same arrays: softmax partials, merged for the array whose rows they are
    SUM = "sum"  # arrays that share operators: terms of a matrix's outputs, added up for all of them
    STREAM = "stream"  # rows go to the arrays that work on them next


@dataclass(frozen=True, slots=True)
class Segment:
    """Operators of one layer between two meetings.

    Args:
        operators: in program order.
        reads: tensors it needs that are there when it begins; the stream first.
        alive: tensors that live when it ends and are read later, other than what is sent; the stream first.
        sends: the tensor that leaves for the meeting at its end; empty: nothing does.
        meeting: what is done with that tensor there.
        on_tokens: whether it works on the rows of all arrays that share the sequences, with its own tokens.
    """

    operators: tuple[Operator, ...]
    reads: tuple[str, ...]
    alive: tuple[str, ...]
    sends: str = ""
    meeting: Meeting | None = None
    on_tokens: bool = False


def cut_layer(layer: Sequence[Operator], *, shares_operators: bool, shares_tokens: bool) -> tuple[Segment, ...]:
    """The segments of a layer for arrays that share its operators, its tokens, both or nothing."""
    operators = _with_merge(layer) if shares_tokens else list(layer)
    if shares_operators:
        operators = [_as_terms(operator) for operator in operators]
    cuts = _cuts(operators, shares_operators=shares_operators, shares_tokens=shares_tokens)
    bounds = [0, *(at + 1 for at in cuts), len(operators)]
    segments: list[Segment] = []
    for first, last in pairwise(bounds):
        sends, meeting = cuts.get(last - 1, ("", None))
        on_tokens = shares_tokens and any(isinstance(operator, Scores) for operator in operators[first:last])
        reads = _read_from_before(operators[first:last])
        alive = tuple(name for name in _read_from_before(operators[last:]) if name != sends) or (STREAM,)
        segments.append(Segment(tuple(operators[first:last]), reads, alive, sends, meeting, on_tokens))
    return tuple(segments)


def _cuts(
    operators: Sequence[Operator], *, shares_operators: bool, shares_tokens: bool
) -> Mapping[int, tuple[str, Meeting]]:
    """By index of the operators after which arrays meet, the tensor that they bring and what is done with it."""
    queries = next(operator.inputs[0] for operator in operators if isinstance(operator, Scores))
    cuts: dict[int, tuple[str, Meeting]] = {}
    for at, operator in enumerate(operators):
        if shares_tokens and isinstance(operator, KvAppend):
            cuts[at] = (queries, Meeting.QUERIES)
        elif shares_tokens and isinstance(operator, Values):
            cuts[at] = (partial_name(operator), Meeting.ATTENTION)
        elif shares_operators and is_shared_sum(operator):
            cuts[at] = (operator.outputs[0].name, Meeting.SUM)
    return cuts


def partial_name(values: Operator) -> str:
    """The tensor in which attention by token leaves its softmax partials."""
    return f"{values.outputs[0].name}_partial"


def _with_merge(layer: Sequence[Operator]) -> list[Operator]:
    """The layer's operators, with the division that follows the merge of all arrays' softmax partials."""
    operators: list[Operator] = []
    for operator in layer:
        operators.append(operator)
        if isinstance(operator, Values):
            name = partial_name(operator)
            operators.append(MergedSoftmax("softmax_merge", (name,), operator.outputs, operator.num_rows))
    return operators


def is_shared_sum(operator: Operator) -> TypeGuard[Linear]:
    """Whether a share of the operator gives a term of its outputs, as of the matrices that lead back to the stream."""
    return isinstance(operator, Linear) and operator.in_dim in ("query", "ffn")


def _as_terms(operator: Operator) -> Operator:
    if not is_shared_sum(operator):
        return operator
    return replace(operator, outputs=tuple(replace(tensor, element=Element.TERM) for tensor in operator.outputs))


def _read_from_before(operators: Sequence[Operator]) -> tuple[str, ...]:
    """Tensors that operators read and that none of them has written before; the stream first."""
    written: set[str] = set()
    found: list[str] = []
    for operator in operators:
        found += [name for name in operator.inputs if name not in written]
        written |= {tensor.name for tensor in operator.outputs}
        written |= {partial_name(operator)} if isinstance(operator, Values) else set()
    return tuple(sorted(dict.fromkeys(found), key=lambda name: name != STREAM))
