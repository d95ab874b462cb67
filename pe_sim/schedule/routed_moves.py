"""Lowers a primitive move, or one collective alone, to messages along the routes of a graph of channels."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np

from pe_sim.config.arrays.array import ArrayConfig
from pe_sim.config.networks.network import GraphCollectives
from pe_sim.mapping.layouts import Layouts
from pe_sim.mapping.placed import BlockRun, Move, MoveKind
from pe_sim.mapping.placement import Root
from pe_sim.network.collectives.algorithms import choose
from pe_sim.network.collectives.direct import multicast, multicast_from_pes
from pe_sim.network.collectives.plans import Leg, Plan, Planner, Sizes, parts_of, wholes_of
from pe_sim.network.collectives.programs import Algorithm, Pattern, program_of
from pe_sim.network.interconnect import Interconnect, interconnect_of
from pe_sim.network.routing.hops import Program
from pe_sim.schedule.builders import STREAMING_OVERLAP, Labels
from pe_sim.schedule.moves import Payload
from pe_sim.schedule.stages import Block, CollectiveSchedule, RoutedStage, Schedule, Stage, Tag, terms_of
from pe_sim.units import BoolArray, IntArray, ceil_div

SERIAL = "serial"
_FORWARD = Algorithm("multicast", multicast_from_pes)
_STREAM = Algorithm("multicast", multicast)


def lower_routed_move(
    node: Move, inputs: tuple[int, ...], output: int, senders: BoolArray, array: ArrayConfig, layouts: Layouts
) -> RoutedStage:
    """The stage of a move; `senders` are the PEs that hold some of its input.

    Raises:
        InputError: the algorithm that the array names does not fit its topology.
    """
    labels = Labels(node.label, node.operator.name, inputs, output)
    routing = _Routing(node, labels, array, layouts, interconnect_of(array), Payload(node, layouts))
    match node.kind:
        case MoveKind.REDUCE:
            return routing.reduction(senders)
        case MoveKind.BROADCAST:
            return routing.broadcast()
        case MoveKind.SCATTER:
            return routing.scatter()
        case MoveKind.GATHER:
            return routing.gather(Tag.GATHER, "gather")
        case MoveKind.ALL_GATHER:
            return routing.gather(Tag.ALL_GATHER, "all_gather")
        case MoveKind.UNICAST:
            return routing.unicast()
        case MoveKind.FORWARD:
            return routing.forward()
        case MoveKind.WEIGHT_STREAM:
            return routing.weight_stream()
    raise ValueError(f"a {node.kind} move needs no stage")


@dataclass(frozen=True)
class _Routing:
    """Makes one move into a stage."""

    node: Move
    labels: Labels
    array: ArrayConfig
    layouts: Layouts
    interconnect: Interconnect
    payload: Payload

    def reduction(self, senders: BoolArray) -> RoutedStage:
        """Stage of reductions from every scope to its hub."""
        sent = self.payload.per_scope(partial=self.node.partial_dtype)
        pattern = self._pattern(self._to_root, senders, softmax=self.node.combine == "softmax")
        pattern = replace(pattern, sends=senders & self._in_scopes(pattern, sent > 0))
        _, program = self._choose("reduce", self._names.reduce, pattern, sent)
        stage = self._stage(Tag.REDUCE, program, sent, from_pe=True, to_pes=None, counted=sent)
        terms = terms_of(pattern.sends, pattern.first_pe, pattern.last_pe)
        combined = int((np.maximum(terms - 1, 0) * sent).sum())
        return replace(stage, combined_bytes=combined, softmax=self.node.combine == "softmax")

    def broadcast(self) -> RoutedStage:
        """Stage of broadcasts from every hub to its scope."""
        sent = self.payload.per_scope(partial=False)
        pattern = self._pattern(self._from_root, sent > 0)
        _, program = self._choose("broadcast", self._names.broadcast, pattern, sent)
        whole = int(pattern.last_pe[0] - pattern.first_pe[0]) == self.array.num_pes
        tag = Tag.BROADCAST if whole else Tag.MULTICAST
        to_pes = self._in_scopes(pattern, np.ones(len(sent), dtype=bool))
        return self._stage(tag, program, sent, from_pe=False, to_pes=to_pes, counted=sent)

    def scatter(self) -> RoutedStage:
        """Stage of messages from every hub to each PE of its scope."""
        sent = self.payload.per_pe(outputs=True)
        pattern = self._pattern(self._from_root, sent > 0)
        _, program = self._choose("scatter", SERIAL, pattern, sent)
        everyone = np.ones(self.array.num_pes, dtype=bool)
        return self._stage(Tag.SCATTER, program, sent, from_pe=False, to_pes=everyone, counted=sent)

    def gather(self, tag: Tag, kind: str) -> RoutedStage:
        """Stage of messages from every PE to its scope's hub, or to all PEs of its scope."""
        sent = self.payload.per_pe(outputs=False)
        pattern = self._pattern(self._to_root, sent > 0)
        _, program = self._choose(kind, SERIAL, pattern, sent)
        to_pes = None
        if tag is Tag.ALL_GATHER:
            to_pes = self._in_scopes(pattern, np.ones(pattern.num_scopes, dtype=bool))
        return self._stage(tag, program, sent, from_pe=True, to_pes=to_pes, counted=sent)

    def unicast(self) -> RoutedStage:
        """Stage of messages from the lowest PE of every scope to the root."""
        sent = np.zeros(self.array.num_pes, dtype=np.int64)
        sent[self.layouts.groups.lowest] = self.payload.per_scope(partial=False)
        pattern = self._pattern(True, sent > 0)
        _, program = self._choose("gather", SERIAL, pattern, sent)
        return self._stage(Tag.UNICAST, program, sent, from_pe=True, to_pes=None, counted=sent)

    def forward(self) -> RoutedStage:
        """Stage of one PE's message to the PEs of the next pipeline stage."""
        sent = self.payload.per_scope(partial=False)[:1]
        scopes = self.payload.scopes()
        hub = np.array([self.node.sender], dtype=np.int64)
        pattern = Pattern(scopes.first_pe[:1], scopes.last_pe[:1], hub, sent > 0)
        program = program_of(self.interconnect, _FORWARD, pattern)
        to_pes = self._in_scopes(pattern, np.ones(1, dtype=bool))
        return self._stage(Tag.UNICAST, program, sent, from_pe=True, to_pes=to_pes, counted=sent)

    def weight_stream(self) -> RoutedStage:
        """Stage of the root's message to all PEs, at its memory's rate or the channel's, whichever is less."""
        sent = np.array([self.node.operator.weight_bytes(self.array.dtypes)], dtype=np.int64)
        zero = np.zeros(1, dtype=np.int64)
        pattern = Pattern(zero, zero + self.array.num_pes, zero + self.interconnect.flows.root, sent > 0)
        program = program_of(self.interconnect, _STREAM, pattern)
        everyone = np.ones(self.array.num_pes, dtype=bool)
        stage = self._stage(Tag.WEIGHT_STREAM, program, sent, from_pe=False, to_pes=everyone, counted=sent)
        return replace(stage, source_rate=self.array.root.memory.bytes_per_cycle)

    @property
    def _names(self) -> GraphCollectives:
        return self.array.graph_network.collectives

    @property
    def _from_root(self) -> bool:
        return isinstance(self.node.inputs[0].placement, Root)

    @property
    def _to_root(self) -> bool:
        return isinstance(self.node.outputs[0].placement, Root)

    def _pattern(self, at_root: bool, sends: BoolArray, *, softmax: bool = False) -> Pattern:
        scopes = self.payload.scopes()
        bounds = (scopes.first_pe, scopes.last_pe)
        return Pattern.of_scopes(self.interconnect, *bounds, sends, at_root=at_root, softmax=softmax)

    def _choose(self, kind: str, name: str, pattern: Pattern, payload_bytes: IntArray) -> tuple[Algorithm, Program]:
        return choose(kind, name, self.interconnect, pattern, payload_bytes)

    def _in_scopes(self, pattern: Pattern, chosen: BoolArray) -> BoolArray:
        """(PEs,) whether each is in one of the chosen scopes."""
        inside = np.zeros(self.array.num_pes, dtype=bool)
        for scope in np.flatnonzero(chosen).tolist():
            inside[pattern.pes(scope)] = True
        return inside

    def _stage(
        self,
        tag: Tag,
        program: Program,
        payload_bytes: IntArray,
        *,
        from_pe: bool,
        to_pes: BoolArray | None,
        counted: IntArray,
    ) -> RoutedStage:
        return RoutedStage(
            *self.labels.fields(),
            tag=tag,
            hops=program.hops,
            from_pe=from_pe,
            to_pes=to_pes,
            num_bytes=program.message_bytes(payload_bytes),
            rank=program.rank,
            counted_bytes=counted[counted > 0],
        )


def routed_stream(stage: RoutedStage, array: ArrayConfig, fed_by: Stage | None) -> RoutedStage:
    """The stage as overlap 3 runs it: receivers may start at its head, and the root does not wait for a tail."""
    if array.overlap < STREAMING_OVERLAP or stage.tag is Tag.WEIGHT_STREAM:
        return stage
    targets = np.concatenate([stage.hops.target, stage.hops.kept_target])
    alone = len(targets) == len(np.unique(targets))
    early = None
    if _is_at_root(fed_by, array) and not stage.from_pe and stage.tag in (Tag.BROADCAST, Tag.MULTICAST):
        assert isinstance(fed_by, RoutedStage)
        early = np.minimum(_beats_in(fed_by, array), _beats_out(stage, array))
    return replace(stage, streams=alone and stage.to_pes is not None, early_cycles=early)


def _is_at_root(stage: Stage | None, array: ArrayConfig) -> bool:
    """Whether a stage is a reduction whose results end at the root."""
    if not isinstance(stage, RoutedStage) or stage.tag is not Tag.REDUCE or not len(stage.hops):
        return False
    edges = interconnect_of(array).flows
    return edges.leads_to_root(stage.hops.channel[stage.hops.last_hop])


def _beats_in(stage: RoutedStage, array: ArrayConfig) -> IntArray:
    """(hubs,) fewest beats of the last hops to each hub."""
    return _fewest_beats(stage, array, stage.hops.last_hop, stage.hops.target, stage.hops.num_targets)


def _beats_out(stage: RoutedStage, array: ArrayConfig) -> IntArray:
    """(hubs,) fewest beats of the first hops from each hub."""
    return _fewest_beats(stage, array, stage.hops.first_hop, stage.hops.source, stage.hops.num_sources)


def _fewest_beats(stage: RoutedStage, array: ArrayConfig, hop: IntArray, hub: IntArray, num_hubs: int) -> IntArray:
    """(hubs,) fewest beats of the hops of each hub, so that the root never starves; 0 for a hub without hops."""
    hops, width = stage.hops, interconnect_of(array).topology.channels.bytes_per_cycle
    beats = ceil_div(stage.num_bytes[hops.message[hop]], width[hops.channel[hop]])
    fewest = np.full(num_hubs, np.iinfo(np.int64).max, dtype=np.int64)
    np.minimum.at(fewest, hub, beats)
    fewest[np.bincount(hub, minlength=num_hubs) == 0] = 0
    return fewest


# ---- Schedules of one collective alone on an interconnect that is a graph, everything ready at cycle 0.


_OF_WHOLES = ("broadcast", "reduce", "all-reduce")


def routed_collective(kind: str, array: ArrayConfig, num_bytes: int) -> CollectiveSchedule:
    """The schedule of collective `kind` on the whole array, in the way that the array names.

    Args:
        num_bytes: as of `collective_schedule`.

    Raises:
        InputError: the way that the array names does not fit its topology.
    """
    if array.num_pes == 1 and kind in ("all-reduce", "all-gather", "reduce-scatter", "all-to-all"):
        return CollectiveSchedule(_schedule(array, ()), "nothing to move")
    return planned_collective(array, collective_plan(kind, array, num_bytes))


def collective_plan(kind: str, array: ArrayConfig, num_bytes: int) -> Plan:
    """The plan of a collective on the whole array, in the way that the array names.

    Raises:
        InputError: no such way, or it does not fit the topology.
    """
    own = kind.replace("-", "_")
    planner = collective_planner(kind, array, num_bytes)
    return planner.plan(own, planner.names[own])


def collective_planner(kind: str, array: ArrayConfig, num_bytes: int) -> Planner:
    """The planner of a collective on the whole array."""
    interconnect = interconnect_of(array)
    zero, every = np.zeros(1, dtype=np.int64), np.ones(array.num_pes, dtype=bool)
    root = zero + interconnect.flows.root
    pattern = Pattern(zero, zero + array.num_pes, root, every, interconnect.topology.combine_cycles)
    collectives = array.graph_network.collectives
    names = {each.name: getattr(collectives, each.name) for each in fields(collectives)}
    return Planner(interconnect, pattern, _sizes(kind, array, num_bytes, pattern), names)


def planned_collective(array: ArrayConfig, plan: Plan) -> CollectiveSchedule:
    """The schedule of a plan, with one stage for each of its programs."""
    stages: list[RoutedStage] = []
    for leg in plan.legs:
        stage = _stage(leg, array, len(stages))
        stages.append(routed_stream(stage, array, stages[-1] if stages else None))
    return CollectiveSchedule(_schedule(array, tuple(stages)), plan.name)


def _schedule(array: ArrayConfig, stages: tuple[RoutedStage, ...]) -> Schedule:
    return Schedule(array, (Block(stages, len(stages)),), (BlockRun(0, None),))


def _stage(leg: Leg, array: ArrayConfig, slot: int) -> RoutedStage:
    """Stage of one program of a plan, which waits for the stage before it."""
    tag = Tag(leg.counted.replace("_", "-"))
    inputs = (slot - 1,) if slot else ()
    return RoutedStage(
        *Labels(tag.value, tag.value, inputs, slot).fields(),
        tag=tag,
        hops=leg.program.hops,
        from_pe=leg.from_pes,
        to_pes=np.ones(array.num_pes, dtype=bool) if leg.to_pes else None,
        num_bytes=leg.program.message_bytes(leg.payload_bytes),
        rank=leg.program.rank,
        counted_bytes=leg.counted_bytes,
    )


def _sizes(kind: str, array: ArrayConfig, num_bytes: int, pattern: Pattern) -> Sizes:
    """Sizes of a collective whose `num_bytes` are of the whole, or per PE or pair, in the dtype that it starts with.

    In the other dtype there are as many elements.
    """
    partial, activation = array.dtypes.partial.bits, array.dtypes.activation.bits
    num_pes, given = array.num_pes, np.array([num_bytes], dtype=np.int64)
    if kind in _OF_WHOLES:
        result = given if kind == "broadcast" else ceil_div(given * activation, partial)
        return Sizes(given, result, parts_of(pattern, num_pes, given), parts_of(pattern, num_pes, result))
    parts: IntArray = np.full(num_pes, num_bytes, dtype=np.int64)
    whole = wholes_of(pattern, parts)
    sums = ceil_div(whole * partial, activation)  # the partial sums of a reduce-scatter
    return Sizes(sums, whole, parts_of(pattern, num_pes, sums), parts)
