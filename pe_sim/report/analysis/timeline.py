"""A trace beside the schedule it ran: what limits each stage, what people call it, and when memory ports stream."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from pe_sim.schedule.builders import PREFETCHING_OVERLAP
from pe_sim.schedule.matrix import MatrixTiming, PeMatrixWork, works_of
from pe_sim.schedule.memory_timing import memory_timing
from pe_sim.schedule.stages import (
    MatrixWork,
    PeStage,
    Resource,
    RoutedStage,
    Schedule,
    Stage,
    Tag,
    TreeStage,
    resource_of,
    tag_of,
)
from pe_sim.trace import NOT_ACTIVE, StageSpan, Trace
from pe_sim.units import BoolArray, IntArray


@dataclass(frozen=True)
class Timeline:
    """A schedule and its trace; `trace.spans[i]` is the execution of `stages[i]`."""

    schedule: Schedule
    trace: Trace

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """The stages in program order; those of a repeated layer occur once for each layer."""
        blocks, sequence = self.schedule.blocks, self.schedule.sequence
        return tuple(stage for run in sequence for stage in blocks[run.block].stages)

    @cached_property
    def _streams_longer(self) -> dict[int, BoolArray]:
        return {}

    def active(self) -> Iterator[tuple[StageSpan, Stage]]:
        """Yields (span, stage) in program order, without the spans in which nothing happened."""
        for span, stage in zip(self.trace.spans, self.stages, strict=True):
            if span.start != NOT_ACTIVE:
                yield span, stage

    def resource_of(self, order: int, pe: int | None = None) -> Resource:
        """The resource that limits a stage; for a matrix stage the memory port if streaming takes no less time.

        Args:
            order: of the span.
            pe: whose work decides; None: that of the PE that works longest.
        """
        stage = self.stages[order]
        if isinstance(stage, PeStage) and stage.matrix is not None:
            at = pe if pe is not None else self.trace.spans[order].parts.longest
            return Resource.PE_MEMORY if self._memory_bound(stage)[at] else Resource.PE_MATRIX
        return resource_of(stage)

    def _memory_bound(self, stage: PeStage) -> BoolArray:
        """(PEs,) whether a matrix stage streams at least as long as it computes; cached for layers that repeat it."""
        matrix = stage.matrix
        assert matrix is not None
        if id(matrix) not in self._streams_longer:
            streaming = matrix.memory_cycles
            self._streams_longer[id(matrix)] = streaming >= matrix.compute_cycles
        return self._streams_longer[id(matrix)]


# ---- What people call the stages of a step: takes a span and its stage, gives "layer 3 · FFN down · ...".


SEPARATOR: Final = " · "
_OPERATORS: Final = {
    "embedding": "token embedding",
    "add_position": "position embedding",
    "add_token_type": "token type embedding",
    "attention_norm": "attention norm",
    "q": "query projection",
    "k": "key projection",
    "v": "value projection",
    "rope": "rotary embedding",
    "kv_append": "KV cache append",
    "scores": "attention scores",
    "softmax": "attention softmax",
    "values": "attention values",
    "o": "attention output",
    "attention_add": "residual add",
    "ffn_norm": "FFN norm",
    "gate": "FFN gate",
    "up": "FFN up",
    "silu_mul": "FFN SiLU and product",
    "gelu": "FFN GELU",
    "gelu_tanh": "FFN GELU",
    "down": "FFN down",
    "ffn_add": "residual add",
    "lm_head": "LM head",
    "argmax": "argmax",
}
_TENSORS: Final = {
    "stream": "residual stream",
    "middle": "residual stream",
    "q": "queries",
    "k": "keys",
    "v": "values",
    "gate": "gate",
    "up": "up",
    "activated": "FFN activations",
    "attended": "attention outputs",
    "attended_partial": "partial attention outputs",
    "best": "best token",
    "selected": "rows for the LM head",
    "embedded": "embeddings",
}
_SUFFIXES: Final = {"_statistic": "norm statistic", "_sum": "norm sum", "_weight": "weights"}
_ACTIONS: Final = {
    Tag.BROADCAST: "broadcast {what} to all PEs",
    Tag.MULTICAST: "multicast {what} to groups of PEs",
    Tag.SCATTER: "scatter {what} over the PEs",
    Tag.GATHER: "gather {what} at root",
    Tag.ALL_GATHER: "all-gather {what}",
    Tag.ALL_TO_ALL: "all-to-all {what}",
    Tag.REDUCE: "reduce {what} to root",
    Tag.UNICAST: "forward {what} to the next PEs",
    Tag.WEIGHT_STREAM: "stream {what} to all PEs",
}


def stage_title(span: StageSpan, stage: Stage) -> str:
    """Title of a stage: its layer, its operator and, for a message or one of several steps, what is done."""
    layer = [] if span.layer is None else [f"layer {span.layer}"]
    action = stage_action(span, stage)
    return SEPARATOR.join([*layer, operator_title(span.operator), *([action] if action else [])])


def stage_action(span: StageSpan, stage: Stage) -> str:
    """What a message carries and where to, or the name of a step of an operator; empty for the operator itself."""
    tag = tag_of(stage)
    if tag is None:
        return "" if span.name == span.operator else span.name.replace("_", " ")
    what = tensor_title(span.name.partition(" ")[2])
    if isinstance(stage, TreeStage | RoutedStage) and tag is Tag.REDUCE and not _ends_at_root(stage):
        return f"reduce {what} within groups of PEs"
    return _ACTIONS[tag].format(what=what)


def operator_title(operator: str) -> str:
    """The name of an operator of the graph in plain words."""
    return _OPERATORS.get(operator, operator.replace("_", " "))


def tensor_title(tensor: str) -> str:
    """The names of the tensors that a message carries, in plain words."""
    names = [_tensor(name) for name in tensor.split("+")]
    *others, last = dict.fromkeys(names)
    return f"{', '.join(others)} and {last}" if others else last


def _tensor(name: str) -> str:
    ending = next((text for suffix, text in _SUFFIXES.items() if name.endswith(suffix)), None)
    return ending or _TENSORS.get(name, name.replace("_", " "))


def _ends_at_root(stage: TreeStage | RoutedStage) -> bool:
    """Whether a reduction ends at the root; over a graph of channels, whether it has one hub (groups have several)."""
    return stage.at_root if isinstance(stage, TreeStage) else len(stage.counted_bytes) == 1


# ---- When the PEs' memory ports stream: takes a timeline, gives every access of every PE.
#
# A trace has the work of PEs, not of their ports. What a port does follows from the work and its start, as the machine
# model says (section 4): so the accesses of every PE are gone through once more, in program order.


@dataclass(frozen=True, slots=True)
class PortAccess:
    """The memory accesses of one stage; arrays are (PEs,), with no meaning for PEs that have no part in it.

    Args:
        order: of the stage.
        active: PEs that have a part in it.
        ahead_start, ahead_end: cycles between which operands were prefetched; equal where none were.
        start, end: cycles between which the rest was streamed, a pause between two passes included.
        busy: cycles of the port after `start`; all that the stage takes of it beside the prefetching.
    """

    order: int
    active: BoolArray
    ahead_start: IntArray
    ahead_end: IntArray
    start: IntArray
    end: IntArray
    busy: IntArray


def port_accesses(timeline: Timeline) -> Iterator[PortAccess]:
    """Yields the memory accesses of all stages in program order."""
    return _Replay(timeline).accesses()


class _Replay:
    """A pass over the stages in program order that keeps the cycle at which each memory port is free."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        array = timeline.schedule.array
        self._overlap = array.overlap
        self._timing, self._memory = MatrixTiming(array), memory_timing(array.pe.memory)
        self._free_at = np.zeros(array.num_pes, dtype=np.int64)
        self._works: dict[int, tuple[list[PeMatrixWork], IntArray]] = {}

    def accesses(self) -> Iterator[PortAccess]:
        """Yields what `port_accesses` yields."""
        for span, stage in self._timeline.active():
            if not isinstance(stage, PeStage):
                continue
            start, end, active = span.part_start, span.part_end, span.parts.working
            if stage.matrix is not None:
                access = self._matrix(span.order, stage.matrix, active, start)
            elif stage.resource is Resource.PE_MEMORY:
                begun = end - stage.cycles  # it may have waited for the port
                access = PortAccess(span.order, active & (stage.cycles > 0), begun, begun, begun, end, stage.cycles)
            else:
                continue
            self._free_at = np.where(active, access.end + self._memory.closing_cycles, self._free_at)
            yield access

    def _matrix(self, order: int, matrix: MatrixWork, active: BoolArray, start: IntArray) -> PortAccess:
        """The access of a matrix stage; PEs with equal work and equally long idle ports are worked out together."""
        works, number = self._works_of(matrix)
        idle = start - self._free_at
        pairs = np.where(active, idle, 0) * len(works) + number
        distinct, which = np.unique(pairs, return_inverse=True)
        spans = [self._timing.span(works[pair % len(works)], pair // len(works)) for pair in distinct.tolist()]
        columns = [(each.stream_end_cycles, each.memory_busy_cycles, each.ahead_cycles) for each in spans]
        ended, busy, spent = np.array(columns, dtype=np.int64).T[:, which]
        latency, opening = self._memory.latency_cycles, self._memory.busy_latency_cycles
        early = np.maximum(idle, 0) if self._overlap >= PREFETCHING_OVERLAP and matrix.static else np.zeros_like(idle)
        fetched = spent > 0
        ahead_start = self._free_at + latency - opening
        ahead_end = np.where(fetched, ahead_start + opening + spent, ahead_start)
        begun = np.where(fetched, start, start + np.maximum(-idle, 0) + latency - early - opening)
        busy = busy - np.where(fetched, opening + spent, 0)
        return PortAccess(order, active, ahead_start, ahead_end, begun, start + ended, busy)

    def _works_of(self, matrix: MatrixWork) -> tuple[list[PeMatrixWork], IntArray]:
        """The distinct works of a stage, and (PEs,) the index of each PE's; cached for layers that repeat the stage."""
        known = self._works.get(id(matrix))
        if known is None:
            each = works_of(matrix)
            distinct = {id(work): work for work in each}
            numbers = {identity: number for number, identity in enumerate(distinct)}
            column = np.array([numbers[id(work)] for work in each], dtype=np.int64)
            known = self._works[id(matrix)] = list(distinct.values()), column
        return known
