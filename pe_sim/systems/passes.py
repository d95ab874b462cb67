"""An array's way through its stage: one pass between every two meetings with other arrays."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from pe_sim.graph.graph import STREAM
from pe_sim.graph.operators import Element, Elementwise, Operator, Tensor, Values
from pe_sim.graph.shares import Meeting, OperatorShare, Segment
from pe_sim.mapping.layouts import Layouts, softmax_partial
from pe_sim.mapping.mapper import Arrival, Part, PassPlacer, PlacedPass, sent
from pe_sim.mapping.placement import Placement, Replicate, Shard
from pe_sim.mapping.placer import BlockPlan, end_plan, layer_plan
from pe_sim.mapping.workflow import LayerPlan, Workflow
from pe_sim.systems.array_view import Local, end_of

CACHE = "cache"


@dataclass(frozen=True, eq=False, slots=True)
class LocalPass:
    """What an array does in a pass, in whatever layers.

    Args:
        work: the placed pass; its layers count from the first one that it works on.
        local: the view it was placed in.
        layouts: for the rows it works on.
        received, kept: what it begins with, by name: from other arrays, and left by passes before it.
        sends: what leaves for other arrays, at the root in the end; empty: nothing does.
    """

    work: PlacedPass
    local: Local
    layouts: Layouts
    received: tuple[str, ...]
    kept: tuple[str, ...]
    sends: str


@dataclass(frozen=True, eq=False, slots=True)
class PassRun:
    """A pass in its place: `layer` is the first that it works on, `label` for people; layers count in the stage."""

    does: LocalPass
    layer: int
    label: str


@dataclass(frozen=True, slots=True)
class LayerRun:
    """Consecutive layers that a stage shares in the same way.

    Args:
        first: in the stage.
        plans: distributions of each.
        opens: whether the model begins here.
        closes: whether it ends here: the share of the vocabulary; None: it does not.
        goes_on: whether the stream goes to other arrays; if it neither goes on nor closes, nobody needs its rows.
    """

    first: int
    plans: tuple[LayerPlan, ...]
    opens: bool = False
    closes: OperatorShare | None = None
    goes_on: bool = False


@dataclass(slots=True)
class _Pending:
    """A pass that is being put together."""

    label: str
    layer: int
    arrivals: list[Arrival] = field(default_factory=list)
    received: list[str] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)
    on_tokens: bool = False


@dataclass(slots=True)
class Bench:
    """What walks of one array in one view have in common: plans, operators, and passes by what they are made of."""

    plans: dict[tuple[object, ...], BlockPlan] = field(default_factory=dict)
    operators: dict[object, tuple[Operator, ...]] = field(default_factory=dict)
    known: dict[tuple[object, ...], LocalPass] = field(default_factory=dict)


@dataclass
class Walker:
    """Walks one array through a run of layers; equal passes are one."""

    local: Local
    workflow: Workflow
    run: LayerRun
    bench: Bench = field(default_factory=Bench)
    _passes: list[PassRun | None] = field(default_factory=list)
    _places: dict[str, tuple[Tensor, Placement]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._pending = _Pending("", self.run.first)

    def passes(self) -> tuple[PassRun | None, ...]:
        """The passes: one before every meeting and one behind the last; None where the array has nothing to do."""
        self._open()
        for index, plan in enumerate(self.run.plans):
            for number, segment in enumerate(self.local.segments):
                self._add(segment, number, index, plan)
        self._close()
        return tuple(self._passes)

    def _open(self) -> None:
        graph = self.local.graph
        plan = self._end_plan(self.run.plans[0], prologue=True)
        self._pending.label = self._first_label()
        if self.run.opens:
            self._pending.parts.append(Part(graph.prologue, plan, None))
            return
        self._receive(Arrival(self._written(STREAM, graph.prologue)))
        self._pending.parts.append(Part((), plan, None))

    def _first_label(self) -> str:
        """The label of the first pass, which is the only one where there are no meetings in a layer."""
        first, last = self.run.first, self.run.first + len(self.run.plans) - 1
        if len(self.local.segments) == 1:
            return f"{'embedding, ' if self.run.opens else ''}layers {first}-{last}"
        return "embedding" if self.run.opens else f"layer {first}"

    def _add(self, segment: Segment, number: int, index: int, plan: LayerPlan) -> None:
        """Appends a segment to the pass that is being put together; a meeting behind it ends the pass."""
        is_last = number == len(self.local.segments) - 1
        if number:
            self._arrive(segment, number, plan)
        goes_on = is_last and index == len(self.run.plans) - 1 and self.run.closes is None
        block_plan = self._plan(plan, follows=goes_on)
        if number == 0 and is_last:
            self._pending.parts.append(Part(segment.operators, block_plan, index))
            return
        leaving = (*_touched(segment), segment.sends) if segment.sends else segment.alive
        ends = segment.operators[-1] if is_last else None
        self._pending.parts.append(Part(self._with_send(segment, number), block_plan, index, leaving, ends))
        self._pending.on_tokens = segment.on_tokens
        if segment.sends:
            self._end(segment.sends)
            self._pending = _Pending(f"layer {self.run.first + index} behind {segment.sends}", self.run.first + index)

    def _close(self) -> None:
        """Ends the last pass: with the end of the model, or with the stream at the root, from where it goes on."""
        last = self.run.plans[-1]
        plan = self._end_plan(last, prologue=False)
        if self.run.closes is not None:
            if self.run.closes not in self.bench.operators:
                self.bench.operators[self.run.closes] = end_of(self.local.graph, self.run.closes)
            self._pending.parts.append(Part(self.bench.operators[self.run.closes], plan, None))
        if not self.run.goes_on:
            self._end("")
            return
        rows = sum(self.local.graph.shape.new_lens)
        send = self.bench.operators.setdefault(STREAM, (sent(STREAM, rows),))
        self._pending.parts.append(Part(send, plan, None, (STREAM,)))
        self._end(STREAM)

    def _arrive(self, segment: Segment, number: int, plan: LayerPlan) -> None:
        """Notes what a segment reads as arrivals, which are there when its pass begins."""
        meeting = self.local.segments[number - 1]
        for name in segment.reads:
            if name != meeting.sends:
                tensor, placement = self._places.get(name) or self._own_cache()
                self._pending.arrivals.append(Arrival(tensor, placement))
            elif meeting.meeting is Meeting.SUM:
                to_all = not _is_added_at_root(name, segment, self._plan(plan, follows=False))
                tensor = replace(self._written(name, meeting.operators), element=Element.ACTIVATION)
                self._receive(Arrival(tensor, to_all=to_all))
            elif meeting.meeting is Meeting.QUERIES:
                self._receive(Arrival(self._written(name, meeting.operators)))
            else:
                values = next(operator for operator in meeting.operators if isinstance(operator, Values))
                self._receive(Arrival(softmax_partial(values.outputs[0], self.local.graph.shape)))

    def _own_cache(self) -> tuple[Tensor, Placement]:
        """The cache and its placement on an array that has tokens of the sequences, but none of their new rows."""
        layouts = self.local.token_layouts
        is_lone = layouts is not None and layouts.groups.is_lone
        return Tensor(CACHE, "kv", 0), Replicate() if is_lone else Shard("token")

    def _receive(self, arrival: Arrival) -> None:
        self._pending.arrivals.append(arrival)
        self._pending.received.append(arrival.tensor.name)

    def _written(self, name: str, operators: tuple[Operator, ...]) -> Tensor:
        return next(tensor for operator in operators for tensor in operator.outputs if tensor.name == name)

    def _end(self, sends: str) -> None:
        """Places the pass, if there is something to do."""
        pending, local = self._pending, self.local
        layouts = local.token_layouts if pending.on_tokens else local.layouts
        if layouts is None:
            self._passes.append(None)
            return
        first = min((part.layer for part in pending.parts if part.layer is not None), default=0)
        parts = [part if part.layer is None else replace(part, layer=part.layer - first) for part in pending.parts]
        key = (tuple(pending.arrivals), pending.on_tokens, *(_likeness(part) for part in parts))
        if key not in self.bench.known:
            work = PassPlacer(local.array, local.graph, layouts).place(pending.arrivals, parts)
            names = tuple(arrival.tensor.name for arrival in pending.arrivals)
            kept = tuple(name for name in names if name not in pending.received)
            self.bench.known[key] = LocalPass(work, local, layouts, tuple(pending.received), kept, sends)
        does = self.bench.known[key]
        self._places.update({name: (value.tensor, value.placement) for name, value in does.work.leaving.items()})
        self._passes.append(PassRun(does, self.run.first + first, pending.label))

    def _with_send(self, segment: Segment, number: int) -> tuple[Operator, ...]:
        if number not in self.bench.operators:
            rows = segment.operators[0].num_rows
            extra = (sent(segment.sends, rows),) if segment.sends else ()
            self.bench.operators[number] = (*segment.operators, *extra)
        return self.bench.operators[number]

    def _end_plan(self, plan: LayerPlan, *, prologue: bool) -> BlockPlan:
        key = (plan, "prologue" if prologue else "epilogue")
        if key not in self.bench.plans:
            self.bench.plans[key] = end_plan(self.workflow, plan, prologue=prologue)
        return self.bench.plans[key]

    def _plan(self, plan: LayerPlan, *, follows: bool) -> BlockPlan:
        """The plan of a layer's block; `follows`: the stream is left as it is, because it goes to the root."""
        key = (plan, follows)
        if key not in self.bench.plans:
            shares_tokens = self.local.token_layouts is not None
            chosen = replace(plan, attention="token") if shares_tokens else plan
            chosen = replace(chosen, stream="follow") if follows else chosen
            self.bench.plans[key] = replace(layer_plan(self.workflow, chosen), shares_tokens=shares_tokens)
        return self.bench.plans[key]


def walk_end(local: Local, workflow: Workflow, last: LayerPlan, vocabulary: OperatorShare) -> PassRun:
    """The pass of an array that works on the end of the model alone."""
    run = LayerRun(0, (last,), closes=vocabulary)
    (does,) = Walker(replace(local, segments=()), workflow, run).passes()
    assert does is not None
    return replace(does, label="end")


def _likeness(part: Part) -> tuple[object, ...]:
    return (id(part.operators), id(part.plan), part.layer, part.leaving)


def _touched(segment: Segment) -> tuple[str, ...]:
    """The tensors that live behind a segment and that it reads or writes; the others stay where they are."""
    there = {*segment.reads, *(tensor.name for operator in segment.operators for tensor in operator.outputs)}
    return tuple(name for name in segment.alive if name in there)


def _is_added_at_root(name: str, segment: Segment, plan: BlockPlan) -> bool:
    """Whether what comes to the root is needed there alone."""
    adds = (operator for operator in segment.operators if isinstance(operator, Elementwise))
    reader = next(operator for operator in adds if name in operator.inputs)
    return plan.vectors.get(reader.name) == "root"
