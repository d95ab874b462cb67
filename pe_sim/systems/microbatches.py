"""Which rows of a step go through the stages together, and which of them each array has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pe_sim.config.models.model import ModelConfig
from pe_sim.config.plans.plan import Degrees, StagePlan
from pe_sim.config.step import Decode, Step
from pe_sim.graph.shares import OperatorShare

Row = tuple[int, int]  # sequence of the batch, position in it


@dataclass(frozen=True, slots=True)
class Span:
    """New rows of one sequence: positions context_len .. context_len + new_len - 1.

    Args:
        sequence: of the batch.
        new_len, context_len: rows, and tokens in the cache before them.
    """

    sequence: int
    new_len: int
    context_len: int


@dataclass(frozen=True, slots=True)
class Part:
    """A microbatch: what a stage works on at a time.

    Args:
        index: in the order in which parts enter the first stage.
        sequences: those it is of, whether they have rows in it or not.
        spans: their new rows, in order of the sequences.
        is_last: whether its sequences' part of the step ends with it.
    """

    index: int
    sequences: tuple[int, ...]
    spans: tuple[Span, ...]
    is_last: bool = True

    def selected(self, *, every: bool, first: bool) -> tuple[Row, ...]:
        """The rows that the end of the model works on.

        Args:
            every: all of them; else one of each sequence, if the sequences end here.
            first: that is the sequence's first row (an encoder's); else its last.
        """
        if every:
            return tuple((span.sequence, span.context_len + row) for span in self.spans for row in range(span.new_len))
        ends = self.spans if self.is_last else ()
        return tuple((span.sequence, span.context_len + (0 if first else span.new_len - 1)) for span in ends)


@dataclass(frozen=True, slots=True)
class OwnSpan:
    """Rows of one sequence on one array.

    Args:
        sequence: of the batch.
        positions: those of the new rows that are the array's own.
        cached_len: tokens of the sequence that it has in its cache.
    """

    sequence: int
    positions: range
    cached_len: int


@dataclass(frozen=True, slots=True)
class Place:
    """Where an array stands in its stage: its share of the batch, of the tokens and of the operators."""

    batch: int
    tokens: int
    operators: int

    def index(self, degrees: Degrees) -> int:
        """Its position among the stage's arrays."""
        if degrees.consecutive:
            return (self.batch * degrees.cp + self.tokens) * degrees.tp + self.operators
        return (self.operators * degrees.dp + self.batch) * degrees.cp + self.tokens


def place_of(degrees: Degrees, index: int) -> Place:
    """Where array `index` of a stage stands."""
    if degrees.consecutive:
        rest, operators = divmod(index, degrees.tp)
        return Place(*divmod(rest, degrees.cp), operators)
    operators, rest = divmod(index, degrees.dp * degrees.cp)
    return Place(*divmod(rest, degrees.cp), operators)


def parts_of(model: ModelConfig, step: Step, sequences: range, wanted: int) -> tuple[Part, ...]:
    """The parts of a pipeline's share of a step.

    For decode and for an encoder they are up to `wanted` groups of whole sequences; for prefill up to `wanted` chunks
    of the prompts, of all sequences each, since a chunk attends to those before it.
    """
    spans = [Span(at, step.sequences[at].new_len, step.sequences[at].context_len) for at in sequences]
    if not spans:
        return ()
    if isinstance(step, Decode) or not model.has_kv_cache:
        shares = [OperatorShare(at, min(wanted, len(spans))).part(len(spans)) for at in range(min(wanted, len(spans)))]
        groups = [tuple(spans[at] for at in share) for share in shares]
        return tuple(Part(at, tuple(span.sequence for span in group), group) for at, group in enumerate(groups))
    count = min(wanted, max(span.new_len for span in spans))
    chunks = [[_chunk(span, at, count) for span in spans] for at in range(count)]
    return tuple(
        Part(at, tuple(sequences), tuple(span for span in chunk if span.new_len), at == count - 1)
        for at, chunk in enumerate(chunks)
    )


def _chunk(span: Span, at: int, count: int) -> Span:
    """Chunk `at` of a prompt; they differ by at most one row, and the last are the larger: all prompts end there."""
    part = OperatorShare(count - 1 - at, count).part(span.new_len)
    return Span(span.sequence, len(part), span.context_len + span.new_len - part.stop)


def rows_of(part: Part, degrees: Degrees, place: Place) -> tuple[OwnSpan, ...]:
    """The rows an array works on: those of its share of the sequences and of its positions.

    Position p of sequence s belongs to share (p + s) mod cp of the tokens, so that neither a prompt nor the newest
    tokens of many sequences are one array's alone.
    """
    own: list[OwnSpan] = []
    for span in batch_share(part, degrees.dp, place.batch):
        offset = offset_of(span.sequence, degrees.cp, place.tokens)
        first = span.context_len + (offset - span.context_len) % degrees.cp
        positions = range(first, span.context_len + span.new_len, degrees.cp)
        if len(positions):
            own.append(OwnSpan(span.sequence, positions, len(range(offset, span.context_len, degrees.cp))))
    return tuple(own)


def batch_share(part: Part, shares: int, index: int) -> tuple[Span, ...]:
    """The spans of share `index` of the part's sequences."""
    mine = {part.sequences[at] for at in OperatorShare(index, shares).part(len(part.sequences))}
    return tuple(span for span in part.spans if span.sequence in mine)


def next_rows(stage: StagePlan, part: Part) -> Iterator[tuple[int, Row]]:
    """(array, row) for the token that follows each sequence, of every array that will look it up in the next step.

    Args:
        stage: the first of the pipeline.
        part: with the sequences' last rows.
    """
    degrees = stage.degrees[0]
    for index, rank in enumerate(stage.arrays):
        place = place_of(degrees, index)
        for span in batch_share(part, degrees.dp, place.batch):
            row = (span.sequence, span.context_len + span.new_len)
            if tokens_share(row, degrees.cp) == place.tokens:
                yield rank, row


def tokens_share(row: Row, shares: int) -> int:
    """The share of the tokens that a row belongs to."""
    return sum(row) % shares


def offset_of(sequence: int, shares: int, index: int) -> int:
    """The first position of a sequence that belongs to share `index` of its tokens."""
    return (index - sequence) % shares


def listed(spans: tuple[OwnSpan, ...]) -> tuple[Row, ...]:
    """The rows in the order in which an array has them."""
    return tuple((span.sequence, position) for span in spans for position in span.positions)
