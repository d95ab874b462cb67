"""What it costs to go from one mapping of a model to another between prefill and decode, by a schedule of its moves.

Every PE keeps what both mappings give it. What it lacks comes over the bus: each element that somebody lacks is sent
once, by the lowest PE that holds it, in one message a sender and layer that all hear; or the root sends its own copy,
if its memory has room for one and that is faster.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np

from pe_sim.config.arrays.array import ArrayConfig
from pe_sim.config.networks.network import GraphNetwork
from pe_sim.engine.engines import DEFAULT_ENGINE, engine_named
from pe_sim.errors import InfeasibleError, InputError, did_you_mean
from pe_sim.graph.operators import Embedding, Linear, Norm
from pe_sim.mapping.footprint import Footprint, footprint
from pe_sim.mapping.placed import BlockRun, PlacedGraph
from pe_sim.mapping_search.switch.holdings import (
    CachePart,
    Holding,
    Transfer,
    cache_holding,
    caches_of,
    parameters_of,
    transfer,
)
from pe_sim.report.results import Switch
from pe_sim.schedule.memory_timing import memory_timing
from pe_sim.schedule.stages import Block, MessageStage, PeStage, Resource, Schedule, Stage, Tag
from pe_sim.trace import Trace
from pe_sim.units import BoolArray, IntArray, total

# ---- The schedule of a switch between two mappings: takes what moves layer by layer, gives stages for the engines.
#
# With overlap (level 1 and up) everything that can be is hidden behind the bus: memories give and take at the bus's
# rate, or the bus waits for them; the first access opens the first messages, later ones are opened while the bus
# carries another. Without overlap each layer's share is read, sent and written, one after the other.


_ROOT_RANK = -1
_NO_OVERLAP = 0


@dataclass(frozen=True, eq=False, slots=True)
class Leg:
    """What moves at one point of a switch; every sender joins all that it sends there into one message.

    Args:
        name: for people.
        sent: (PEs,) bytes of each PE's message; everybody hears it and keeps what it lacks.
        from_root: bytes of the root's message.
        lacking: bytes of the root's message if it sent everything from a copy of its own; 0: it can have no copy.
        received, dropped: (PEs,) bytes that each PE keeps, and that it then no longer needs.
    """

    name: str
    sent: IntArray
    from_root: int
    lacking: int
    received: IntArray
    dropped: IntArray

    @property
    def by_root(self) -> Leg:
        """The leg with the root as the only sender; unchanged where the root can have no copy."""
        if not self.lacking:
            return self
        return replace(self, sent=np.zeros_like(self.sent), from_root=self.lacking)

    @property
    def num_bytes(self) -> int:
        """Bytes that go over the bus."""
        return int(self.sent.sum()) + self.from_root


def switch_schedule(array: ArrayConfig, legs: Sequence[Leg]) -> Schedule:
    """The schedule of the legs in their order, with everything ready at cycle 0."""
    return _Builder(array).build([leg for leg in legs if leg.num_bytes])


@dataclass
class _Builder:
    array: ArrayConfig
    stages: list[Stage] = field(default_factory=list)

    def build(self, legs: Sequence[Leg]) -> Schedule:
        if self.array.overlap == _NO_OVERLAP:
            for leg in legs:
                self._one_after_the_other(leg)
        else:
            self._all_at_once(legs)
        block = Block(tuple(self.stages), len(self.stages))
        return Schedule(self.array, (block,), (BlockRun(0, None),))

    def _all_at_once(self, legs: Sequence[Leg]) -> None:
        first = memory_timing(self.array.pe.memory).latency_cycles
        senders = np.any([leg.sent > 0 for leg in legs], axis=0) if legs else np.zeros(0, dtype=bool)
        opened: tuple[int, ...] = ()
        if senders.any():
            opened = (self._at_ports("first access", senders, np.where(senders, first, 0), ()),)
        for leg in legs:
            self._messages(leg, opened, self._rate)

    def _one_after_the_other(self, leg: Leg) -> None:
        timing = memory_timing(self.array.pe.memory)
        read: tuple[int, ...] = ()
        if leg.sent.any():
            cycles = timing.read_cycles(leg.sent, _one_piece(leg.sent))
            read = (self._at_ports(f"read {leg.name}", leg.sent > 0, cycles, (), int(leg.sent.sum())),)
        heard = self._messages(leg, read, 0)
        cycles = timing.write_cycles(leg.received, _one_piece(leg.received))
        self._at_ports(f"write {leg.name}", leg.received > 0, cycles, heard)

    @property
    def _rate(self) -> int:
        """Bytes a cycle of the PEs' ports, if the bus is faster; 0: it is not."""
        rate = max(int(self.array.pe.memory.bytes_per_cycle), 1)
        return rate if rate < self.array.bus_tree.bus.bytes_per_cycle else 0

    def _at_ports(
        self, name: str, active: BoolArray, cycles: IntArray, inputs: tuple[int, ...], read_bytes: int = 0
    ) -> int:
        labels = (name, "switch", "", inputs, len(self.stages))
        self.stages.append(PeStage(*labels, Resource.PE_MEMORY, active, cycles, None, read_bytes))
        return len(self.stages) - 1

    def _messages(self, leg: Leg, ready: tuple[int, ...], rate: int) -> tuple[int, ...]:
        heard: list[int] = []
        if leg.from_root:
            rates = [each for each in (rate, self.array.root.memory.bytes_per_cycle) if each]
            sent = np.array([leg.from_root], dtype=np.int64)
            heard.append(self._on_bus(f"root {leg.name}", Tag.WEIGHT_STREAM, sent, (), min(rates)))
        if leg.sent.any():
            heard.append(self._on_bus(leg.name, Tag.MULTICAST, leg.sent, ready, rate))
        return tuple(heard)

    def _on_bus(self, name: str, tag: Tag, num_bytes: IntArray, inputs: tuple[int, ...], rate: int) -> int:
        """Adds a message of each sender, which all PEs hear, and returns the slot that it fills."""
        from_pe = tag is Tag.MULTICAST
        source = np.flatnonzero(num_bytes > 0)
        zero = np.zeros(1, dtype=np.int64)
        stage = MessageStage(
            name,
            "switch",
            "",
            inputs,
            len(self.stages),
            channel=Resource.BUS,
            tag=tag,
            from_pe=from_pe,
            source=source,
            rank=source if from_pe else np.full(1, _ROOT_RANK),
            num_bytes=num_bytes[source],
            target=np.zeros_like(source),
            to_root=False,
            first_pe=zero,
            last_pe=zero + self.array.num_pes,
            hop_cycles=zero,
            source_rate=rate,
        )
        self.stages.append(stage)
        return stage.output


def _one_piece(num_bytes: IntArray) -> Callable[[Callable[[IntArray], IntArray]], IntArray]:
    """A function that asks a memory's timing for the cycles of all bytes as one piece."""
    return lambda cycles_of: cycles_of(num_bytes)


RESHARD, BOTH, BEST, KEPT = "reshard", "both", "best", "kept"
WEIGHTS = (BEST, RESHARD, BOTH)
Known = dict[tuple[Hashable, Hashable], Transfer]  # by the keys of two holdings
_LEVERS = (
    "weights resharded instead of kept in both layouts (weights='reshard')",
    "more PEs (--set num_pes=...)",
    "a smaller dtype (--set dtypes.weight=int8)",
    "more memory (--set pe.memory.capacity_bytes=...)",
)


@dataclass(frozen=True, eq=False)
class Side:
    """One side of a switch.

    Args:
        name: of the workflow.
        placed: before the switch the prefill, after it the first decode step.
        last: the last decode step, for what it holds; the same as `placed` before the switch.
    """

    name: str
    placed: PlacedGraph
    last: PlacedGraph

    @property
    def footprint(self) -> Footprint:
        """Footprint of the step next to the switch."""
        return footprint(self.placed, self.placed.graph.shape)

    @property
    def last_footprint(self) -> Footprint:
        """Footprint at the end of its phase."""
        return footprint(self.last, self.last.graph.shape)


def check_weights(choice: str) -> None:
    """Raises InputError if `choice` is none of `WEIGHTS`."""
    if choice not in WEIGHTS:
        raise InputError(
            "this is no way to have two layouts of the weights",
            path="switch_weights",
            given=choice,
            expected="one of " + ", ".join(WEIGHTS),
            hint=did_you_mean(choice, WEIGHTS),
        )


def price_switch(
    before: Side,
    after: Side,
    *,
    weights: str = BEST,
    engine: str = DEFAULT_ENGINE,
    allow_overflow: bool = False,
    known: Known | None = None,
) -> Switch:
    """The cost of going from `before` to `after` once, with nothing else on the machine.

    Args:
        weights: `reshard` moves them; `both` keeps them in both layouts all the time, which takes room instead of
            time; `best` keeps both where they fit and reshards them elsewhere.
        allow_overflow: do not ask whether it fits the PEs' memories.
        known: what other switches on the same array found, added to.

    Raises:
        InputError: no such choice or engine, or the interconnect is no bus_tree; InfeasibleError where it does not fit.
    """
    check_weights(weights)
    array = before.placed.array
    if isinstance(array.network, GraphNetwork):
        raise InputError(
            "a switch of mappings is priced on one bus and one tree",
            path="network.kind",
            given=array.network.kind,
            expected="bus_tree",
            hint="generate with one workflow, or on a bus-tree array",
        )
    if not allow_overflow:
        before.footprint.check()
        after.last_footprint.check()
    known = {} if known is None else known
    moved = weight_legs(before.placed, after.placed, known)
    caches = cache_legs(before.placed, after.placed)
    held = _Room(before, after, moved, caches)
    choice = KEPT
    if _moves(moved):
        fits = held.peak(both=True) <= held.capacity
        choice = (BOTH if fits else RESHARD) if weights == BEST else weights
    peak = held.peak(both=choice == BOTH)
    shortage = None
    if peak > held.capacity:
        problem = f"a PE's memory is too small for the switch from {before.name} to {after.name}"
        levers = _LEVERS[choice != BOTH :]
        shortage = InfeasibleError(problem, demand=peak, bound=held.capacity, unit="bytes", levers=levers)
        if not allow_overflow:
            raise shortage
    sent = moved if choice == RESHARD else {}
    root_has_all = _root_has_room(before)
    by_root, trace = _fastest(array, _interleaved(sent, caches), root_has_all, engine)
    back = 0
    if choice == RESHARD:
        returned = weight_legs(after.placed, before.placed, known)
        back = _fastest(array, _interleaved(returned, {}), root_has_all, engine)[1].makespan_cycles
    return Switch(
        source=before.name,
        target=after.name,
        weights=choice,
        kv_cache="relaid" if _moves(caches) else KEPT,
        sender=_sender([leg.by_root if by_root else leg for leg in sent.values()]),
        cycles=trace.makespan_cycles,
        weight_bytes=sum(leg.num_bytes for leg in sent.values()),
        kv_bytes=sum(leg.num_bytes for leg in caches.values()),
        held_twice_bytes=sum(int(leg.received.sum()) for leg in moved.values()) if choice == BOTH else 0,
        peak_bytes_per_pe=peak,
        back_cycles=back,
        traffic=trace.traffic,
        shortage=shortage,
    )


def weight_legs(before: PlacedGraph, after: PlacedGraph, known: Known) -> dict[int | None, Leg]:
    """By layer, what moves of the parameters, and what PEs no longer need of them."""
    held, wanted = parameters_of(before), parameters_of(after)
    legs: dict[int | None, Leg] = {}
    for layer in held | wanted:
        old, new = held.get(layer, {}), wanted.get(layer, {})
        transfers = [_recalled(known, old.get(name), new.get(name), before.array.num_pes) for name in {**old, **new}]
        where = "ends" if layer is None else f"layer {layer}"
        legs[layer] = _leg(f"weights of {where}", transfers, root_can=True)
    return legs


def cache_legs(before: PlacedGraph, after: PlacedGraph) -> dict[int | None, Leg]:
    """By layer, what moves of the KV cache, with the tokens it has when the prefill is over."""
    shape, dtype, num_pes = after.graph.shape, before.array.dtypes.kv_cache, before.array.num_pes
    runs = _runs_of_equals(shape.context_lens)
    held, wanted = caches_of(before), caches_of(after)
    known: dict[tuple[int, ...], Transfer] = {}
    legs: dict[int | None, Leg] = {}
    for layer, parts in held.items():
        transfers: list[Transfer] = []
        for first, last, old, new in _meeting(parts, wanted[layer], runs):
            tokens = shape.context_lens[first]
            key = (id(old.split), id(new.split), old.first - first, new.first - first, last - first, tokens)
            if key not in known:
                held_part, wanted_part = (cache_holding(part, first, last, tokens, dtype) for part in (old, new))
                known[key] = transfer(held_part, wanted_part, num_pes)
            transfers.append(known[key])
        legs[layer] = _leg(f"cache of layer {layer}", transfers, root_can=False)
    return legs


def _moves(legs: dict[int | None, Leg]) -> bool:
    """Whether any PE lacks anything."""
    return any(leg.num_bytes for leg in legs.values())


def _recalled(known: Known, before: Holding | None, after: Holding | None, num_pes: int) -> Transfer:
    """The transfer between two holdings, worked out once: most matrices, and all layers, are cut like another one."""
    key = (before.key if before else None, after.key if after else None)
    if key not in known:
        known[key] = transfer(before, after, num_pes)
    return known[key]


def _leg(name: str, transfers: Sequence[Transfer], *, root_can: bool) -> Leg:
    lacking = sum(each.lacking for each in transfers) if root_can else 0
    arrays = (total(getattr(each, side) for each in transfers) for side in ("sent", "received", "dropped"))
    sent, received, dropped = arrays
    return Leg(name, sent, sum(each.rootward for each in transfers), lacking, received, dropped)


def _interleaved(weights: dict[int | None, Leg], caches: dict[int | None, Leg]) -> list[Leg]:
    """The legs layer by layer, those outside the layers last."""
    layers = sorted(weights.keys() | caches.keys(), key=lambda layer: (layer is None, layer or 0))
    return [legs[layer] for layer in layers for legs in (weights, caches) if layer in legs]


def _runs_of_equals(lengths: Sequence[int]) -> list[int]:
    """Indices at which sequences of another length begin, and the number of sequences."""
    return [
        index for index in range(len(lengths) + 1) if index in (0, len(lengths)) or lengths[index] != lengths[index - 1]
    ]


def _meeting(
    before: Sequence[CachePart], after: Sequence[CachePart], cuts: Iterable[int]
) -> Iterable[tuple[int, int, CachePart, CachePart]]:
    """The longest runs of sequences that neither side divides, with the part of each side."""
    ends = sorted({*cuts, *(bound for part in (*before, *after) for bound in (part.first, part.last))})
    for first, last in pairwise(ends):
        old, new = (next(part for part in side if part.first <= first < part.last) for side in (before, after))
        yield first, last, old, new


def _sender(legs: Sequence[Leg]) -> str:
    """Who sends them, for people."""
    senders = {"PEs": any(leg.sent.any() for leg in legs), "root": any(leg.from_root for leg in legs)}
    return " and ".join(name for name, sends in senders.items() if sends)


def _fastest(array: ArrayConfig, legs: Sequence[Leg], root_has_all: bool, engine: str) -> tuple[bool, Trace]:
    """Whether the root sends the weights, and the trace of the faster way; ties go to the PEs, which need no copy."""
    run = engine_named(engine)
    by_pes = run(switch_schedule(array, legs))
    if root_has_all and any(leg.lacking for leg in legs):
        by_root = run(switch_schedule(array, [leg.by_root for leg in legs]))
        if by_root.makespan_cycles < by_pes.makespan_cycles:
            return True, by_root
    return False, by_pes


def _root_has_room(before: Side) -> bool:
    """Whether the root's memory holds all parameters beside its tables."""
    graph, dtypes = before.placed.graph, before.placed.array.dtypes
    layers = [operator for operator in graph.layer if isinstance(operator, Linear | Norm)]
    ends = [each for each in (*graph.prologue, *graph.epilogue) if isinstance(each, Linear | Norm | Embedding)]
    num_bytes = graph.num_layers * sum(operator.weight_bytes(dtypes) for operator in layers)
    num_bytes += sum(
        each.table_bytes(dtypes) if isinstance(each, Embedding) else each.weight_bytes(dtypes) for each in ends
    )
    return num_bytes <= before.placed.array.root.memory.capacity_bytes


@dataclass(frozen=True, eq=False)
class _Room:
    """How full the PEs' memories get."""

    before: Side
    after: Side
    weights: dict[int | None, Leg]
    caches: dict[int | None, Leg]

    @property
    def capacity(self) -> int:
        """Bytes of one PE's memory."""
        return self.before.placed.array.pe.memory.capacity_bytes

    def peak(self, *, both: bool) -> int:
        """Most bytes on any PE: while the switch runs, leg by leg, or when the last token is decoded."""
        held, end = self.before.footprint, self.after.last_footprint
        now = held.weight_bytes_per_pe + held.kv_cache_bytes_per_pe
        legs = _interleaved({} if both else self.weights, self.caches)
        twice = np.zeros_like(now)
        if both and self.weights:
            twice = total(leg.received for leg in self.weights.values())
        now = now + twice
        most = int(now.max())
        for leg in legs:
            most = max(most, int((now + leg.received).max()))
            now = now + leg.received - leg.dropped
        kept = held.weight_bytes_per_pe + twice + end.streamed_bytes if both else end.weight_bytes_per_pe
        return max(most, int((kept + end.kv_cache_bytes_per_pe).max()))
