"""Writes out spans and channel uses of the fast engine's blocks when a report asks for them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pe_sim.engine.block_pass import BlockRecord, StageRecord
from pe_sim.engine.block_plan import BlockPlan
from pe_sim.engine.recorder import CHANNELS, TAGS, resource_of
from pe_sim.engine.recurrences import NEVER
from pe_sim.mapping.placed import BlockRun
from pe_sim.schedule.stages import MessageStage, Resource, RoutedStage, Stage, Tag, TreeStage
from pe_sim.trace import NOT_ACTIVE, ChannelUse, StageSpan
from pe_sim.units import BoolArray, IntArray


@dataclass(frozen=True, slots=True)
class Visit:
    """One run of a block: what its pass found, from cycle `base` on, (..., 1)."""

    plan: BlockPlan
    record: BlockRecord
    base: IntArray
    run: BlockRun


def write_details(visits: list[Visit], channels: tuple[str, ...]) -> tuple[tuple[StageSpan, ...], ChannelUse]:
    """Spans in program order, and channel uses in order of their start."""
    spans: list[StageSpan] = []
    uses: list[IntArray] = []
    carried: dict[int, list[int]] = {}
    for visit in visits:
        block = visit.plan.block
        producers = dict(zip(block.entries, carried.get(visit.run.lane, []), strict=True)) if block.entries else {}
        for stage, record in zip(block.stages, visit.record.stages, strict=True):
            order = len(spans)
            inputs = tuple(producers[slot] for slot in stage.inputs)
            spans.append(_span(order, visit, stage, record, inputs))
            if record.use_start is not None and isinstance(stage, MessageStage | TreeStage | RoutedStage):
                uses.append(_uses(order, int(visit.base[0]), stage, record))
            producers[stage.output] = order
        carried[visit.run.lane] = [producers[slot] for slot in block.exits]
    table = np.concatenate(uses, axis=1) if uses else np.empty((6, 0), dtype=np.int64)
    table = table[:, np.lexsort((table[5], table[4], table[0], table[2], table[3]))]
    return tuple(spans), ChannelUse(channels, tuple(t.value for t in TAGS), *table)


def _span(order: int, visit: Visit, stage: Stage, record: StageRecord, inputs: tuple[int, ...]) -> StageSpan:
    base = int(visit.base[0])
    start, end = record.bounds()
    happened = start > NEVER
    return StageSpan(
        order,
        visit.run.layer,
        stage.name,
        stage.operator,
        stage.distribution,
        resource_of(stage),
        base + start if happened else NOT_ACTIVE,
        base + end if happened else NOT_ACTIVE,
        inputs,
        _absolute(record.pe_start, record.working, base),
        _absolute(record.pe_end, record.working, base),
    )


def _absolute(cycles: IntArray | None, working: BoolArray | None, base: int) -> IntArray | None:
    if cycles is None or working is None:
        return None if cycles is None else cycles + base
    return np.where(working, cycles + base, NOT_ACTIVE)


def _uses(order: int, base: int, stage: MessageStage | TreeStage | RoutedStage, record: StageRecord) -> IntArray:
    """(6, uses) channel, tag, stage, start, end, bytes."""
    assert record.use_start is not None
    assert record.use_end is not None
    channel, tag, num_bytes = _carried(stage)
    columns = [np.broadcast_to(value, num_bytes.shape) for value in (channel, tag, order)]
    return np.stack([*columns, record.use_start + base, record.use_end + base, num_bytes])


def _carried(stage: MessageStage | TreeStage | RoutedStage) -> tuple[IntArray | int, int, IntArray]:
    """Channels, the tag, and (uses,) bytes of what is carried."""
    if isinstance(stage, RoutedStage):
        num_bytes = stage.num_bytes[stage.hops.message]
        return stage.hops.channel[num_bytes > 0], TAGS.index(stage.tag), num_bytes[num_bytes > 0]
    num_bytes = stage.num_bytes[stage.num_bytes > 0]
    if isinstance(stage, TreeStage):
        return CHANNELS.index(Resource.TREE), TAGS.index(Tag.REDUCE), num_bytes
    return CHANNELS.index(stage.channel), TAGS.index(stage.tag), num_bytes
