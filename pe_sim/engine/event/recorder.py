"""The recorder, which collects the trace while the event engine runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pe_sim.schedule.stages import (
    TAGS,
    PeStage,
    Resource,
    RootStage,
    Schedule,
    Stage,
    Tag,
    bounds_of,
    parts_of,
    read_bytes_of,
    resource_of,
)
from pe_sim.trace import NOT_ACTIVE, ChannelUse, PartCycles, StageSpan, TagTraffic, Totals, Trace
from pe_sim.units import IntArray

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pe_sim.engine.event.pe import PeProgram, PeState


@dataclass(slots=True)
class _Entry:
    stage: Stage
    layer: int | None
    inputs: tuple[int, ...]
    starts: list[int]
    ends: list[int]


class Recorder:
    """Collects spans, traffic and channel uses; `order` is a stage's position in program order."""

    def __init__(self, channels: tuple[str, ...]) -> None:
        self._channels = channels
        self._entries: list[_Entry] = []
        self._traffic: dict[Tag, TagTraffic] = {}
        self._uses: list[tuple[int, int, int, int, int, int, int]] = []

    def announce(self, stage: Stage, layer: int | None, inputs: tuple[int, ...]) -> int:
        """Takes a stage in program order; returns its order."""
        count = 0 if isinstance(stage, PeStage) else len(parts_of(stage))
        self._entries.append(_Entry(stage, layer, inputs, [NOT_ACTIVE] * count, [NOT_ACTIVE] * count))
        return len(self._entries) - 1

    def keep(self, program: PeProgram) -> None:
        """Keeps the program into which PEs write start and end cycles of a stage, for the stage's span."""
        entry = self._entries[program.order]
        entry.starts, entry.ends = program.starts, program.ends

    def name_of(self, order: int) -> str:
        """A stage's name for error messages: layers.3.q."""
        entry = self._entries[order]
        return entry.stage.name if entry.layer is None else f"layers.{entry.layer}.{entry.stage.name}"

    def part(self, order: int, part: int, start: int, end: int) -> None:
        """Notes when a message, a hop, a reduction or a job ran; for a message in bursts, when one more burst did."""
        entry = self._entries[order]
        if entry.starts[part] == NOT_ACTIVE:
            entry.starts[part] = start
        entry.ends[part] = end

    def message(self, tag: Tag, num_bytes: int, busy_cycles: int) -> None:
        """Counts one message."""
        self._traffic.setdefault(tag, TagTraffic()).add(num_bytes, busy_cycles)

    def busy(self, tag: Tag, busy_cycles: int) -> None:
        """Counts the busy cycles of a burst that is not its message's last."""
        self._traffic.setdefault(tag, TagTraffic()).busy_cycles += busy_cycles

    def messages(self, tag: Tag, num_bytes: list[int], busy_cycles: int) -> None:
        """Counts the messages of a collective over several channels; `busy_cycles` are those of all channels."""
        if num_bytes:
            traffic = self._traffic.setdefault(tag, TagTraffic())
            traffic.messages += len(num_bytes)
            traffic.bytes += sum(num_bytes)
            traffic.busy_cycles += busy_cycles

    def channel_use(self, channel: int, tag: Tag, order: int, start: int, end: int, num_bytes: int, part: int) -> None:
        """Notes that a part of a stage held a channel during [start, end)."""
        self._uses.append((channel, TAGS.index(tag), order, start, end, num_bytes, part))

    def trace(self, engine: str, makespan: int, schedule: Schedule, states: Sequence[PeState]) -> Trace:
        """The finished trace."""
        in_order = sorted(self._uses, key=lambda use: (use[3], use[2], use[0], use[4], use[5], use[6]))
        uses = np.array(in_order, dtype=np.int64).reshape(-1, 7).T
        root_busy = {Resource.ROOT_VECTOR.value: 0, Resource.ROOT_MEMORY.value: 0}
        for entry in self._entries:
            if isinstance(entry.stage, RootStage):
                root_busy[entry.stage.resource.value] += int(entry.stage.cycles.sum())
        spans = tuple(self._span(order, entry) for order, entry in enumerate(self._entries))
        channel_use = ChannelUse(self._channels, tuple(t.value for t in TAGS), *uses)
        pe_busy = {
            "pe_matrix": _column([state.matrix_busy for state in states]),
            "pe_vector": _column([state.vector_busy for state in states]),
            "pe_memory": _column([state.memory_busy for state in states]),
        }
        totals = Totals(pe_busy, root_busy, sum(read_bytes_of(entry.stage) for entry in self._entries))
        return Trace(
            engine=engine,
            makespan_cycles=makespan,
            details=lambda: (spans, channel_use),
            counts=lambda: {tag.value: self._traffic[tag] for tag in TAGS if tag in self._traffic},
            totals=lambda: totals,
        )

    def _span(self, order: int, entry: _Entry) -> StageSpan:
        starts, ends, stage = _column(entry.starts), _column(entry.ends), entry.stage
        parts = PartCycles(starts != NOT_ACTIVE if isinstance(stage, PeStage) else parts_of(stage), starts, ends)
        return StageSpan(
            order,
            entry.layer,
            stage.name,
            stage.operator,
            stage.distribution,
            resource_of(stage).value,
            *(bounds_of(stage, parts) or (NOT_ACTIVE, NOT_ACTIVE)),
            entry.inputs,
            parts,
            isinstance(stage, PeStage),
        )


def _column(values: list[int]) -> IntArray:
    return np.array(values, dtype=np.int64)
