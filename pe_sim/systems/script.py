"""What the arrays do in a step, in program order: the one script that is timed and executed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from pe_sim.config.models.model import ModelConfig
from pe_sim.config.plans.plan import Degrees, StagePlan
from pe_sim.config.step import Decode, Step
from pe_sim.config.systems.system import SystemConfig
from pe_sim.graph.shares import Meeting, OperatorShare
from pe_sim.mapping.layouts import SOFTMAX_STATISTICS
from pe_sim.mapping.workflow import Workflow
from pe_sim.report.system.metrics import Pipeline
from pe_sim.systems.array_view import view_of
from pe_sim.systems.deployment import Deployment, LayerSpan, runs_of
from pe_sim.systems.microbatches import (
    OwnSpan,
    Part,
    Place,
    Row,
    batch_share,
    listed,
    next_rows,
    parts_of,
    place_of,
    rows_of,
    tokens_share,
)
from pe_sim.systems.pass_cache import Shop
from pe_sim.systems.passes import LayerRun, PassRun

CHOICES = "choices"  # candidates of the shares of a vocabulary
TOKENS = "tokens"  # the chosen tokens, to where they are looked up in the next step


@dataclass(frozen=True, eq=False, slots=True)
class PassAction:
    """A pass on an array.

    Args:
        array: rank.
        run: what it does.
        share: of the operators; `vocabulary`: of the LM head, where the pass has it.
        own: the array's own rows, in order.
        place, degrees: where it stands in its stage, and how that shares the layers.
        pipeline, stage, part: to which it belongs.
        first_layer: of the stage, from which the pass counts its own.
    """

    array: int
    run: PassRun
    share: OperatorShare
    vocabulary: OperatorShare
    own: tuple[OwnSpan, ...]
    place: Place
    degrees: Degrees
    pipeline: int
    stage: int
    part: int
    first_layer: int


@dataclass(frozen=True, slots=True)
class Move:
    """Rows that go from one array to another."""

    source: int
    target: int
    rows: tuple[Row, ...]


@dataclass(frozen=True, eq=False, slots=True)
class MeetingAction:
    """Something that arrays exchange.

    Args:
        kind: what is done.
        tensor: the tensor that it is done with.
        row_size: elements of a row.
        members: ranks that take part, in order; of choices the first gets them.
        rows: (members,) rows of each: of queries its own, of attention those that come back to it, of a sum all.
        moves: of rows from array to array.
    """

    kind: str
    tensor: str
    row_size: int
    members: tuple[int, ...]
    rows: tuple[tuple[Row, ...], ...]
    pipeline: int
    stage: int
    part: int
    moves: tuple[Move, ...] = ()


Action = PassAction | MeetingAction


@dataclass(frozen=True, eq=False, slots=True)
class Script:
    """All that the arrays do in a step.

    Args:
        model, step, system, workflow, deployment: what it was written for.
        actions: in program order.
        parts: of each pipeline.
    """

    model: ModelConfig
    step: Step
    system: SystemConfig
    workflow: Workflow
    deployment: Deployment
    actions: tuple[Action, ...]
    parts: tuple[tuple[Part, ...], ...]


@dataclass(frozen=True)
class _Seat:
    """An array in a run: its place, and the rows it works on."""

    rank: int
    place: Place
    own: tuple[OwnSpan, ...]

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        return listed(self.own)


def write_script(shop: Shop, deployment: Deployment) -> Script:
    """The script of a step under a deployment."""
    actions: list[Action] = []
    parts: list[tuple[Part, ...]] = []
    for number, line in enumerate(deployment.pipelines):
        own = parts_of(shop.model, shop.step, line.sequences, line.microbatches)
        parts.append(own)
        writer = LineWriter(shop, deployment, line, number)
        stages = len(line.stages)
        for wave in range(len(own) + stages - 1):
            for stage in range(min(wave, stages - 1), -1, -1):
                if wave - stage < len(own):
                    actions += writer.stage(stage, own[wave - stage])
    return Script(shop.model, shop.step, shop.system, shop.workflow, deployment, tuple(actions), tuple(parts))


@dataclass
class LineWriter:
    """Writes what one pipeline does."""

    shop: Shop
    deployment: Deployment
    line: Pipeline
    number: int

    def stage(self, stage: int, part: Part) -> Iterator[Action]:
        """All that the arrays of a stage do with a part."""
        plan = self.line.stages[stage]
        runs = runs_of(plan)
        is_last = stage == len(self.line.stages) - 1
        for at, run in enumerate(runs):
            seats = _seats(plan, run.degrees, part)
            following = None
            if at + 1 < len(runs):
                following = _seats(plan, runs[at + 1].degrees, part)
            elif not is_last:
                after = self.line.stages[stage + 1]
                following = _seats(after, runs_of(after)[0].degrees, part)
            yield from self._run(stage, part, run, seats, following)

    def _run(
        self, stage: int, part: Part, run: LayerSpan, seats: Sequence[_Seat], following: Sequence[_Seat] | None
    ) -> Iterator[Action]:
        plan, degrees = self.line.stages[stage], run.degrees
        selected = part.selected(every=self._every, first=not self.shop.model.has_kv_cache)
        ends = following is None and len(selected) > 0
        in_place = ends and self._ends_in_place(degrees)
        plans = self.shop.plans(plan.first_layer + run.first, plan.first_layer + run.last)
        walks: dict[int, tuple[PassRun | None, ...]] = {}
        for seat in seats:
            closes = self._vocabulary(degrees, seat.place) if in_place else None
            opens = plan.first_layer + run.first == 0
            goes_on = following is not None or (ends and not in_place)
            layers = LayerRun(run.first, plans, opens, closes, goes_on)
            view = view_of(seat.rank, degrees, seat.place, part, seat.own)
            walks[seat.rank] = self.shop.walk(view, layers)
        present = [seat for seat in seats if any(walks[seat.rank])]  # the other arrays have no rows and no tokens
        meetings = self.shop.meetings(degrees) * len(plans)
        for at in range(len(meetings) + 1):
            for seat in seats:
                does = walks[seat.rank][at]
                if does is not None:
                    closes = self._vocabulary(degrees, seat.place)
                    yield self._pass(stage, part, degrees, seat, does, closes)
            if at < len(meetings):
                yield from self._meeting(stage, part, degrees, present, *meetings[at])
        if following is not None:
            yield from self._hand_over(stage, part, seats, following)
        elif in_place:
            yield from self._choices(stage, part, degrees, seats, selected)
        elif ends:
            yield from self._head(stage, part, seats, selected)

    @property
    def _every(self) -> bool:
        step = self.shop.step
        return isinstance(step, Decode) or (step.logits == "all" and self.shop.model.has_kv_cache)

    def _ends_in_place(self, last: Degrees) -> bool:
        """Whether the arrays that have the last layer's rows go on with them to the end of the model."""
        return last.cp == 1 and self.deployment.head in (None, last)

    def _vocabulary(self, degrees: Degrees, place: Place) -> OperatorShare:
        return self.deployment.vocabulary(degrees, place.operators, self.shop.model)

    def _pass(
        self,
        stage: int,
        part: Part,
        degrees: Degrees,
        seat: _Seat,
        does: PassRun,
        vocabulary: OperatorShare,
    ) -> PassAction:
        return PassAction(
            seat.rank,
            does,
            OperatorShare(seat.place.operators, degrees.tp),
            vocabulary,
            seat.own,
            seat.place,
            degrees,
            self.number,
            stage,
            part.index,
            self.line.stages[stage].first_layer,
        )

    def _meeting(
        self, stage: int, part: Part, degrees: Degrees, seats: Sequence[_Seat], kind: Meeting, tensor: str
    ) -> Iterator[Action]:
        """A meeting for every set of arrays that share the operators, or the tokens, of the same rows."""
        shares_operators = kind is Meeting.SUM
        sets: dict[tuple[int, int], list[_Seat]] = {}
        for seat in seats:
            other = seat.place.tokens if shares_operators else seat.place.operators
            sets.setdefault((seat.place.batch, other), []).append(seat)
        for members in sets.values():
            size = self._row_size(kind, OperatorShare(members[0].place.operators, degrees.tp))
            rows = tuple(seat.rows for seat in members)
            if any(rows):
                ranks = tuple(seat.rank for seat in members)
                yield MeetingAction(kind.value, tensor, size, ranks, rows, self.number, stage, part.index)

    def _row_size(self, kind: Meeting, share: OperatorShare) -> int:
        own = self.shop.model_share(share)
        sizes = {
            Meeting.SUM: own.hidden_size,
            Meeting.STREAM: own.hidden_size,
            Meeting.QUERIES: own.q_size,
            Meeting.ATTENTION: own.num_heads * (own.head_dim + SOFTMAX_STATISTICS),
        }
        return sizes[kind]

    def _hand_over(
        self, stage: int, part: Part, seats: Sequence[_Seat], following: Sequence[_Seat]
    ) -> Iterator[Action]:
        size = self._row_size(Meeting.STREAM, OperatorShare())
        yield from self._moved(stage, part, Meeting.STREAM.value, "stream", size, _moves(seats, following))

    def _moved(
        self, stage: int, part: Part, kind: str, tensor: str, row_size: int, moves: tuple[Move, ...]
    ) -> Iterator[Action]:
        """One action for all the messages, if there are any."""
        if moves:
            ranks = tuple(sorted({rank for move in moves for rank in (move.source, move.target)}))
            yield MeetingAction(kind, tensor, row_size, ranks, (), self.number, stage, part.index, moves)

    def _head(self, stage: int, part: Part, seats: Sequence[_Seat], selected: tuple[Row, ...]) -> Iterator[Action]:
        """Actions at the end of the model, on arrays that share it in a way of their own."""
        plan = self.line.stages[stage]
        last = plan.degrees[-1]
        degrees = self.deployment.head or Degrees(last.dp * last.cp, 1, last.tp, last.consecutive)
        heads = _head_seats(plan, degrees, part, selected)
        yield from self._hand_over(stage, part, seats, heads)
        for seat in heads:
            vocabulary = self._vocabulary(degrees, seat.place)
            does = self.shop.end(seat.rank, _counts(seat.own), vocabulary) if seat.own else None
            if does is not None:
                yield self._pass(stage, part, degrees, seat, does, vocabulary)
        yield from self._choices(stage, part, degrees, heads, selected)

    def _choices(
        self, stage: int, part: Part, degrees: Degrees, seats: Sequence[_Seat], selected: tuple[Row, ...]
    ) -> Iterator[Action]:
        """Actions that find the best of the vocabulary's shares and send its tokens to where they are looked up."""
        if not self.shop.model.has_lm_head:
            return
        wanted, last = set(selected), dict(selected)
        sets: dict[tuple[int, int], list[_Seat]] = {}
        for seat in seats:
            sets.setdefault((seat.place.batch, seat.place.tokens), []).append(seat)
        knowing: dict[int, tuple[int, ...]] = {}
        for members in sets.values():
            rows = tuple(row for row in members[0].rows if row in wanted)
            if not rows:
                continue
            ranks = tuple(seat.rank for seat in members)
            if self._vocabulary(degrees, members[0].place).of > 1:
                every = (rows,) * len(ranks)
                yield MeetingAction(CHOICES, "best", 1, ranks, every, self.number, stage, part.index)
                ranks = ranks[:1]
            knowing.update({sequence: ranks for sequence, position in rows if last[sequence] == position})
        yield from self._moved(stage, part, TOKENS, "tokens", 1, self._token_moves(part, knowing))

    def _token_moves(self, part: Part, knowing: Mapping[int, tuple[int, ...]]) -> tuple[Move, ...]:
        """The messages of chosen tokens, one for any two arrays; `knowing`: who has chosen each sequence's."""
        first = self.line.stages[0]
        if not part.is_last or not first.degrees:
            return ()
        rows: dict[tuple[int, int], list[Row]] = {}
        for rank, row in next_rows(first, part):
            if rank not in knowing[row[0]]:
                rows.setdefault((knowing[row[0]][0], rank), []).append(row)
        return _as_moves(rows)


def _seats(plan: StagePlan, degrees: Degrees, part: Part) -> tuple[_Seat, ...]:
    seats = []
    for index, rank in enumerate(plan.arrays):
        place = place_of(degrees, index)
        seats.append(_Seat(rank, place, rows_of(part, degrees, place)))
    return tuple(seats)


def _head_seats(plan: StagePlan, degrees: Degrees, part: Part, selected: tuple[Row, ...]) -> tuple[_Seat, ...]:
    """The arrays with the selected rows: sequences go to the batch's shares, positions to those of the tokens."""
    seats = []
    for index, rank in enumerate(plan.arrays):
        place = place_of(degrees, index)
        mine = {span.sequence for span in batch_share(part, degrees.dp, place.batch)}
        spans: dict[int, list[int]] = {}
        for row in selected:
            sequence, position = row
            if sequence in mine and tokens_share(row, degrees.cp) == place.tokens:
                spans.setdefault(sequence, []).append(position)
        own = tuple(
            OwnSpan(sequence, range(first[0], first[-1] + 1, degrees.cp), 0) for sequence, first in spans.items()
        )
        seats.append(_Seat(rank, place, own))
    return tuple(seats)


def _counts(own: Sequence[OwnSpan]) -> tuple[int, ...]:
    return tuple(len(span.positions) for span in own)


def _moves(seats: Sequence[_Seat], following: Sequence[_Seat]) -> tuple[Move, ...]:
    """The messages of all rows, one for any two arrays; rows that an array has already stay there.

    Where several arrays have the same rows, the one sends whose share of the operators is like the receiver's.
    """
    holders: dict[Row, dict[int, int]] = {}
    held: dict[int, set[Row]] = {}
    for seat in seats:
        held[seat.rank] = set(seat.rows)
        for row in seat.rows:
            holders.setdefault(row, {})[seat.place.operators] = seat.rank
    rows: dict[tuple[int, int], list[Row]] = {}
    for seat in following:
        for row in seat.rows:
            if row not in held.get(seat.rank, ()):
                shares = holders[row]
                source = shares[sorted(shares)[seat.place.operators % len(shares)]]
                rows.setdefault((source, seat.rank), []).append(row)
    return _as_moves(rows)


def _as_moves(rows: Mapping[tuple[int, int], Sequence[Row]]) -> tuple[Move, ...]:
    """A message from each source to each target; `rows`: of (source, target)."""
    return tuple(Move(*ends, tuple(each)) for ends, each in sorted(rows.items()))
