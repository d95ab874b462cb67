"""Writes out spans and channel uses of the fast engine's blocks when a report asks for them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pe_sim.engine.block_pass import BlockRecord, StageRecord
from pe_sim.engine.block_plan import BlockPlan
from pe_sim.engine.recorder import CHANNELS, TAGS, resource_of
from pe_sim.engine.recurrences import NEVER
from pe_sim.mapping.placed import BlockRun
from pe_sim.schedule.stages import MessageStage, Resource, Stage, Tag, TreeStage
from pe_sim.trace import NOT_ACTIVE, ChannelUse, StageSpan
from pe_sim.units import IntArray


@dataclass(frozen=True, slots=True)
class Visit:
    """One run of a block: what its pass found, from cycle `base` on, (..., 1)."""

    plan: BlockPlan
    record: BlockRecord
    base: IntArray
    run: BlockRun


def write_details(visits: list[Visit]) -> tuple[tuple[StageSpan, ...], ChannelUse]:
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
            if record.use_start is not None and isinstance(stage, MessageStage | TreeStage):
                uses.append(_uses(order, int(visit.base[0]), stage, record))
            producers[stage.output] = order
        carried[visit.run.lane] = [producers[slot] for slot in block.exits]
    table = np.concatenate(uses, axis=1) if uses else np.empty((6, 0), dtype=np.int64)
    table = table[:, np.lexsort((table[2], table[3]))]
    return tuple(spans), ChannelUse(tuple(c.value for c in CHANNELS), tuple(t.value for t in TAGS), *table)


def _span(order: int, visit: Visit, stage: Stage, record: StageRecord, inputs: tuple[int, ...]) -> StageSpan:
    base = int(visit.base[0])
    on_pes = record.pe_start is not None
    return StageSpan(
        order,
        visit.run.layer,
        stage.name,
        stage.operator,
        stage.distribution,
        resource_of(stage),
        base + record.start if record.start > NEVER else NOT_ACTIVE,
        base + record.end if record.end > NEVER else NOT_ACTIVE,
        inputs,
        _absolute(record.pe_start, base) if on_pes else None,
        _absolute(record.pe_end, base) if on_pes else None,
    )


def _absolute(cycles: IntArray | None, base: int) -> IntArray | None:
    return None if cycles is None else np.where(cycles > NEVER, cycles + base, NOT_ACTIVE)


def _uses(order: int, base: int, stage: MessageStage | TreeStage, record: StageRecord) -> IntArray:
    """(6, uses) channel, tag, stage, start, end, bytes."""
    assert record.use_start is not None
    assert record.use_end is not None
    channel = Resource.TREE if isinstance(stage, TreeStage) else stage.channel
    tag = Tag.REDUCE if isinstance(stage, TreeStage) else stage.tag
    num_bytes = stage.num_bytes[stage.num_bytes > 0]
    fixed = (CHANNELS.index(channel), TAGS.index(tag), order)
    columns = [np.full(len(num_bytes), value, dtype=np.int64) for value in fixed]
    return np.stack([*columns, record.use_start + base, record.use_end + base, num_bytes])
