"""What does it cost to change how a tensor is placed: every placement to every other, as the array grows?

Vectors of activations go from each placement to each other by the moves a mapping would insert; K and V of a layer go
from each layout of attention to each other as in a switch of mappings. Every transform is simulated by itself with
everything ready at cycle 0, and those of vectors are held against the closed form the mapper chooses ways by.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import pandas as pd

import pe_sim as ps
from experiments.mode_transforms_plot import figures
from experiments.mode_transforms_table import COLUMNS, KINDS, Kind, agrees, said
from experiments.parallel import in_order
from experiments.study import Ask, Study, main
from pe_sim.config.arrays.array import ArrayConfig
from pe_sim.engine.engines import engine_named
from pe_sim.graph.operators import AttentionShape, Operator, Tensor
from pe_sim.mapping.groups import PeGroups
from pe_sim.mapping.layouts import Layouts
from pe_sim.mapping.placed import BlockRun, Move, MoveKind, Value
from pe_sim.mapping.placement import Partial, Placement, Replicate, Root, Shard
from pe_sim.mapping.transforms import Step, Transforms
from pe_sim.mapping_search.switch.holdings import CachePart, cache_holding, transfer
from pe_sim.mapping_search.switch.price import Leg, switch_schedule
from pe_sim.schedule.builders import streamed
from pe_sim.schedule.moves import lower_move
from pe_sim.schedule.stages import Block, MessageStage, Schedule, Stage

NAME: Final = "mode_transforms"
ARRAY, NUMBERS, QUICK = "bus-tree-256", (16, 64, 256, 1024, 4096), (16, 64)
PLACEMENTS: tuple[Placement, ...] = (
    Root(),
    Replicate(),
    Shard("hidden"),
    Shard("head"),
    Shard("batch"),
    Partial("sum"),
)
LAYOUTS = ("replicate", "head", "token", "batch")
FREE = "local"
CACHE_TOKENS = 128  # a sequence


def array_of(pes: int) -> ArrayConfig:
    """The preset with another number of PEs; its floor plan, and so its `auto` latencies, grow with it."""
    return ps.load_array(ARRAY, overrides={"num_pes": pes})


def layouts_of(kind: Kind, array: ArrayConfig) -> Layouts:
    """How the tensor is cut on the array."""
    cached = CACHE_TOKENS if kind.is_cache else 0
    lengths = ((0 if kind.is_cache else 1,) * kind.rows, (cached,) * kind.rows)
    shape = AttentionShape(kind.heads, kind.heads, kind.head_dim, *lengths, causal_skip=True)
    groups = PeGroups.of_array(array.num_pes, 1, array.network.arity, kind.rows)
    return Layouts.on(array, groups, shape, None)


def steps_of(transforms: Transforms, tensor: Tensor, source: Placement, target: Placement) -> tuple[Step, ...]:
    """The moves of a transform; where there is no way of its own, it goes through Replicate."""
    try:
        return transforms.steps([tensor], source, target)
    except ValueError:
        whole = Replicate()
        return (*transforms.steps([tensor], source, whole), *transforms.steps([tensor], whole, target))


def schedule_of(array: ArrayConfig, layouts: Layouts, tensor: Tensor, steps: Sequence[Step]) -> Schedule:
    """The moves one after another, the first one's senders ready at cycle 0."""
    operator = Operator("transform", (), (tensor,), tensor.size)
    stages: list[Stage] = []
    senders = layouts.is_member
    if steps and isinstance(steps[0].source, Shard):
        senders = layouts.pe_bytes(tensor, steps[0].source) > 0
    for key, step in enumerate(steps):
        if step.kind is MoveKind.LOCAL:
            continue
        ends = (Value(2 * key, tensor, step.source),), (Value(2 * key + 1, tensor, step.target),)
        move = Move(operator, step.kind, "group", *ends, step.partial_dtype, step.combine)
        inputs = (len(stages) - 1,) if stages else ()
        stage = lower_move(move, inputs, len(stages), senders, array, layouts)
        fed_by = stages[-1] if stages else None
        stages.append(streamed(stage, array, fed_by) if isinstance(stage, MessageStage) else stage)
    return Schedule(array, (Block(tuple(stages), len(stages)),), (BlockRun(0, None),))


def vector_rows(kind: Kind, array: ArrayConfig) -> list[dict[str, Any]]:
    """Every placement of a vector to every other, a row each."""
    layouts = layouts_of(kind, array)
    transforms = Transforms(array, layouts)
    tensor = Tensor("vector", "query", kind.heads * kind.head_dim)
    rows = []
    for source in PLACEMENTS:
        for target in PLACEMENTS:
            if source == target:
                continue
            steps = steps_of(transforms, tensor, source, target)
            way = " + ".join(step.kind.value for step in steps)
            expected = transforms.cycles([tensor], steps)
            schedule = schedule_of(array, layouts, tensor, steps)
            rows.append(_row(kind, (str(source), str(target)), way, schedule, expected))
    return rows


def cache_rows(kind: Kind, array: ArrayConfig) -> list[dict[str, Any]]:
    """Every layout of K and V to every other, a row each."""
    layouts = layouts_of(kind, array)
    dtype = array.dtypes.kv_cache
    holdings = {
        name: cache_holding(CachePart(0, kind.rows, layouts.attention_split(name)), 0, kind.rows, CACHE_TOKENS, dtype)
        for name in LAYOUTS
    }
    rows = []
    for source in LAYOUTS:
        for target in LAYOUTS:
            if source != target:
                moved = transfer(holdings[source], holdings[target], array.num_pes)
                leg = Leg("cache", moved.sent, moved.rootward, 0, moved.received, moved.dropped)
                ends = tuple("Replicate" if name == "replicate" else f"Shard({name})" for name in (source, target))
                way = FREE if moved.is_empty else "multicasts"
                rows.append(_row(kind, (ends[0], ends[1]), way, switch_schedule(array, [leg]), None))
    return rows


def _row(kind: Kind, ends: tuple[str, str], way: str, schedule: Schedule, expected: int | None) -> dict[str, Any]:
    cycles = messages = num_bytes = 0
    if schedule.blocks[0].stages:
        trace = engine_named("fast")(schedule)
        cycles = trace.makespan_cycles
        messages = sum(use.messages for use in trace.traffic.values())
        num_bytes = sum(use.bytes for use in trace.traffic.values())
    point = (kind.name, schedule.array.num_pes, *ends, way)
    return dict(zip(COLUMNS, (*point, cycles, expected, messages, num_bytes), strict=True))


def rows_of(kind: Kind, pes: int) -> list[dict[str, Any]]:
    """Every transform of a tensor on one array."""
    return (cache_rows if kind.is_cache else vector_rows)(kind, array_of(pes))


def compute(ask: Ask) -> pd.DataFrame:
    """A row for each transform: its ends, the primitive moves, cycles, and what the mapper expects."""
    numbers = QUICK if ask.quick else NUMBERS
    tasks = {f"{kind.name}, {pes:,} PEs": (kind, pes) for kind in KINDS for pes in numbers}
    rows = [row for found in in_order(rows_of, tasks, ask) for row in found]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype({"closed_form_cycles": "Int64"})


STUDY: Final = Study(
    NAME,
    __doc__,
    """Shard(batch) of one row is one PE's; Shard(head) beyond one PE a head cuts the heads. What has no
way of its own goes through Replicate. Local: each PE already has what it needs (a slice, or zeros elsewhere).
Shard(token) is a layout of the cache alone: position p on PE p mod N.
Ends with exit code 1 if a transform of a vector takes other cycles than the mapper expects.

For instance:
  python -m experiments.mode_transforms --quick
  python -m experiments.mode_transforms --plot-only   (the picture anew, from the table)""",
    compute,
    said,
    figures,
    holds=agrees,
)

if __name__ == "__main__":
    main(STUDY)
