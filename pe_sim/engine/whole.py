"""A schedule as one block, for where requests of different blocks overtake one another."""

from __future__ import annotations

from dataclasses import replace

from pe_sim.schedule.stages import Block, Schedule, Stage


def as_one_block(schedule: Schedule) -> Block:
    """The stages of all block runs in program order, each reading what its lane carries on."""
    stages: list[Stage] = []
    carried: dict[int, list[int]] = {}
    for run in schedule.sequence:
        block = schedule.blocks[run.block]
        slots = dict(zip(block.entries, carried.get(run.lane, []), strict=True)) if block.entries else {}
        for stage in block.stages:
            inputs = tuple(slots[slot] for slot in stage.inputs)
            slots[stage.output] = len(stages)
            stages.append(replace(stage, inputs=inputs, output=len(stages)))
        carried[run.lane] = [slots[slot] for slot in block.exits]
    return Block(tuple(stages), len(stages))
