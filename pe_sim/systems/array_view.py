"""What one array has of a part of a step under the degrees of some layers: its graph, its layouts, its segments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pe_sim.config.arrays.array import ArrayConfig
from pe_sim.config.models.model import ModelConfig
from pe_sim.config.plans.plan import Degrees
from pe_sim.config.step import Decode, Prefill, Step
from pe_sim.graph.families import build_graph
from pe_sim.graph.graph import OperatorGraph
from pe_sim.graph.operators import Argmax, AttentionOperator, AttentionShape, Linear, Operator
from pe_sim.graph.shares import OperatorShare, Segment, cut_layer, is_shared_sum, model_share
from pe_sim.mapping.layouts import Layouts
from pe_sim.mapping.mapper import divide
from pe_sim.mapping.workflow import Workflow
from pe_sim.systems.microbatches import OwnSpan, Part, Place, batch_share, offset_of


@dataclass(frozen=True, eq=False, slots=True)
class Local:
    """What one array has of a part of a step: its view.

    Args:
        array: the array.
        graph: of its share of the model, for its own rows; None where it has none.
        layouts: of its PEs and own rows; None where it has none.
        token_layouts: of its PEs and the rows of all arrays that share its sequences, with its own tokens; None where
            tokens are not shared, or it has none.
        segments: of a layer.
    """

    array: ArrayConfig
    graph: OperatorGraph
    layouts: Layouts | None
    token_layouts: Layouts | None
    segments: tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class View:
    """All that a `Local` depends on, beside the model and the workflow.

    Args:
        array: rank of an array like it.
        share: of the operators.
        own: (new rows, cached tokens) of its sequences.
        every: (new rows, cached tokens, offset) of the sequences whose tokens it shares; empty where it does not.
        stride: shares of the tokens.
    """

    array: int
    share: OperatorShare
    own: tuple[tuple[int, int], ...]
    every: tuple[tuple[int, int, int], ...] = ()
    stride: int = 1

    @property
    def has_tokens(self) -> bool:
        """Whether tokens are shared, and the array has one or more of those that its sequences have by now."""
        return any(new + cached > offset for new, cached, offset in self.every)


def view_of(array: int, degrees: Degrees, place: Place, part: Part, own: Sequence[OwnSpan]) -> View:
    """The view of an array; arrays whose shares are of the same sizes have equal views."""
    lengths = tuple((len(span.positions), span.cached_len) for span in own)
    share = OperatorShare(place.operators, degrees.tp)
    if degrees.cp == 1:
        return View(array, share, lengths)
    spans = batch_share(part, degrees.dp, place.batch)
    every = tuple(
        (span.new_len, span.context_len, offset_of(span.sequence, degrees.cp, place.tokens)) for span in spans
    )
    return View(array, share, lengths, every, degrees.cp)


def local_of(model: ModelConfig, step: Step, workflow: Workflow, array: ArrayConfig, view: View) -> Local:
    """The local view of an array.

    Raises:
        InputError: the model cannot be shared out so.
    """
    own = model_share(model, view.share, model.num_layers)
    graph = build_graph(own, own_step(step, view.own or ((1, 0),)))
    segments = _segments(graph, view.share, shares_operators=view.share.of > 1, shares_tokens=view.stride > 1)
    tokens = None
    if view.has_tokens:
        new_lens, context_lens, offsets = (tuple(column) for column in zip(*view.every, strict=True))
        shape = replace(
            graph.shape,
            new_lens=new_lens,
            context_lens=context_lens,
            token_stride=view.stride,
            token_offsets=offsets,
        )
        tokens = divide(array, workflow, shape, None)
        segments = tuple(_on_tokens(segment, shape) if segment.on_tokens else segment for segment in segments)
    layouts = divide(array, workflow, graph.shape, graph.selected_per_sequence) if view.own else None
    return Local(array, graph, layouts, tokens, segments)


def uncut_local(
    model: ModelConfig,
    step: Step,
    workflow: Workflow,
    array: ArrayConfig,
    share: OperatorShare,
    lengths: Sequence[tuple[int, int]],
) -> Local:
    """The view of an array as if it met no others: for what it keeps, not for what it does."""
    graph = build_graph(model_share(model, share, model.num_layers), own_step(step, lengths))
    segments = _segments(graph, share, shares_operators=False, shares_tokens=False)
    return Local(array, graph, divide(array, workflow, graph.shape, graph.selected_per_sequence), None, segments)


def end_local(model: ModelConfig, step: Step, workflow: Workflow, array: ArrayConfig, counts: Sequence[int]) -> Local:
    """The view of an array that has nothing but the end of the model, for so many rows of each sequence."""
    every = Prefill(prompt_len=counts, logits="all") if model.has_kv_cache else Prefill(prompt_len=counts)
    graph = build_graph(model, Decode(context_len=[0] * len(counts)) if isinstance(step, Decode) else every)
    return Local(array, graph, divide(array, workflow, graph.shape, graph.selected_per_sequence), None, ())


def own_step(step: Step, own: Sequence[tuple[int, int]]) -> Step:
    """A step with the rows of one array."""
    new_lens, context_lens = [new for new, _ in own], [cached for _, cached in own]
    if isinstance(step, Decode):
        return Decode(context_len=context_lens)
    return Prefill(prompt_len=new_lens, context_len=context_lens, logits=step.logits, causal=step.causal)


def _on_tokens(segment: Segment, shape: AttentionShape) -> Segment:
    rows = sum(shape.new_lens)
    operators = (
        replace(operator, num_rows=rows, shape=shape)
        for operator in segment.operators
        if isinstance(operator, AttentionOperator)
    )
    return replace(segment, operators=tuple(operators))


def _segments(
    graph: OperatorGraph, share: OperatorShare, *, shares_operators: bool, shares_tokens: bool
) -> tuple[Segment, ...]:
    """The segments of a layer; the first array that shares a sum adds the bias for all."""
    segments = cut_layer(graph.layer, shares_operators=shares_operators, shares_tokens=shares_tokens)
    if share.index == 0:
        return segments
    return tuple(replace(each, operators=tuple(map(_unbiased, each.operators))) for each in segments)


def _unbiased(operator: Operator) -> Operator:
    return replace(operator, bias=False) if is_shared_sum(operator) else operator


def end_of(graph: OperatorGraph, vocabulary: OperatorShare) -> tuple[Operator, ...]:
    """The epilogue of a graph for a share of the vocabulary."""
    if vocabulary.of == 1:
        return graph.epilogue
    return tuple(_narrowed(operator, vocabulary) for operator in graph.epilogue)


def _narrowed(operator: Operator, vocabulary: OperatorShare) -> Operator:
    if isinstance(operator, Linear) and operator.out_dim == "vocab":
        size = len(vocabulary.part(operator.out_size))
        return replace(operator, out_size=size, outputs=(replace(operator.outputs[0], size=size),))
    if isinstance(operator, Argmax):
        return replace(operator, size=len(vocabulary.part(operator.size)))
    return operator
