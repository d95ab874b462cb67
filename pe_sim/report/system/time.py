"""Where the time of a step on several arrays goes: takes what ran and when, gives bubbles and the critical path.

An array is busy while it has a pass. What is left of the step it spends before its first pass (fill), behind its last
(drain), during exchanges that its next pass waits for, and otherwise waiting: for other arrays, or for exchanges that
wait for links which others hold.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import groupby, pairwise
from typing import Any, Final, Literal

from pe_sim.schedule.system import ArrayPass, LinkTask, SystemProgram, SystemTimes

LinkKind = Literal["pass", "exchange", "queue"]
KINDS: Final[tuple[LinkKind, ...]] = ("pass", "exchange", "queue")
_LAYERS: Final = ((re.compile(r"^layer \d+ "), ""), (re.compile(r"^layer \d+$"), "begin of a stage"))
_WHOLE: Final = re.compile(r"\blayers \d+-\d+$")


@dataclass(frozen=True, slots=True)
class ArrayTime:
    """How one array spends the step in one stage, in cycles that add up to the step.

    Args:
        rank: of the array.
        pipeline, stage: where it works.
        passes: number of its passes.
        busy, fill, drain, exchange, wait: cycles, as the module defines them.
    """

    rank: int
    pipeline: int
    stage: int
    passes: int
    busy: int
    fill: int
    drain: int
    exchange: int
    wait: int

    def to_dict(self) -> dict[str, int]:
        """The times as a JSON-ready dict."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class StageTime:
    """How the arrays of one stage spend the step: means of their cycles; `arrays` is their number."""

    pipeline: int
    stage: int
    arrays: int
    busy: float
    fill: float
    drain: float
    exchange: float
    wait: float

    @property
    def bubble(self) -> float:
        """Mean cycles in which the stage's arrays are idle, waiting for no exchange of their own."""
        return self.fill + self.drain + self.wait

    def to_dict(self) -> dict[str, float]:
        """The times as a JSON-ready dict."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class PathPiece:
    """A part of the critical path; pieces follow one another from cycle 0 to the end of the step.

    Args:
        task: index of the task.
        kind: the pass or exchange itself, or the queue of an exchange before links that others hold.
        name: of the pass (without the number of its layer), or of the exchange.
        pipeline, stage: to which the task belongs.
        start, end: cycles.
    """

    task: int
    kind: LinkKind
    name: str
    pipeline: int
    stage: int
    start: int
    end: int


def array_times(program: SystemProgram, times: SystemTimes) -> tuple[ArrayTime, ...]:
    """How every array spends the step in every stage it works on, by pipeline, stage and rank."""
    start, end = times.start.tolist(), times.end.tolist()
    passes: dict[tuple[int, int, int], list[int]] = {}
    for index, task in enumerate(program.tasks):
        if isinstance(task, ArrayPass):
            passes.setdefault((task.pipeline, task.stage, task.array), []).append(index)
    return tuple(_array_time(program, start, end, key, passes[key]) for key in sorted(passes))


def _array_time(
    program: SystemProgram, start: list[int], end: list[int], key: tuple[int, int, int], passes: list[int]
) -> ArrayTime:
    pipeline, stage, rank = key
    busy = sum(end[index] - start[index] for index in passes)
    first, last = start[passes[0]], end[passes[-1]]
    idle = sum(start[after] - end[before] for before, after in pairwise(passes))
    exchange = sum(_exchanging(program, start, end, end[before], after) for before, after in pairwise(passes))
    makespan = max(end)
    return ArrayTime(rank, pipeline, stage, len(passes), busy, first, makespan - last, exchange, idle - exchange)


def _exchanging(program: SystemProgram, start: list[int], end: list[int], since: int, index: int) -> int:
    """Cycles, counted from `since`, in which the last exchange that a pass waits for is under way."""
    awaited = [each for each in program.tasks[index].after if isinstance(program.tasks[each], LinkTask)]
    if not awaited:
        return 0
    last = max(awaited, key=lambda each: end[each])
    return max(0, end[last] - max(start[last], since))


def stage_times(arrays: Sequence[ArrayTime]) -> tuple[StageTime, ...]:
    """How the arrays of every stage spend the step: means over the stage's arrays."""
    found = []
    for (pipeline, stage), members in groupby(arrays, key=lambda each: (each.pipeline, each.stage)):
        mine = list(members)
        means = [
            sum(getattr(each, name) for each in mine) / len(mine)
            for name in ("busy", "fill", "drain", "exchange", "wait")
        ]
        found.append(StageTime(pipeline, stage, len(mine), *means))
    return tuple(found)


def critical_path(program: SystemProgram, times: SystemTimes) -> tuple[PathPiece, ...]:
    """The critical path in order of time: pieces without gap or overlap, from cycle 0 to the end of the step.

    It is followed back from the task that ends last. Where several tasks end just when a task becomes ready, it goes on
    with the one that is latest in program order.
    """
    start, end = times.start.tolist(), times.end.tolist()
    before = _pass_before(program)
    pieces: list[PathPiece] = []
    current: int | None = max(range(len(end)), key=lambda index: (end[index], index), default=None)
    while current is not None:
        task = program.tasks[current]
        awaited = [*task.after, *([before[current]] if current in before else [])]
        ready = max((end[each] for each in awaited), default=0)
        kind: LinkKind = "pass" if isinstance(task, ArrayPass) else "exchange"
        own = (current, name_of(program, current), task.pipeline, task.stage)
        pieces.append(_piece(kind, *own, start[current], end[current]))
        if start[current] > ready:
            pieces.append(_piece("queue", *own, ready, start[current]))
        current = max((each for each in awaited if end[each] == ready), default=None)
    return tuple(piece for piece in reversed(pieces) if piece.end > piece.start)


def _piece(kind: LinkKind, task: int, name: str, pipeline: int, stage: int, start: int, end: int) -> PathPiece:
    return PathPiece(task, kind, name, pipeline, stage, start, end)


def _pass_before(program: SystemProgram) -> dict[int, int]:
    """The previous pass on the same array, by the index of each pass that is not its array's first."""
    latest: dict[int, int] = {}
    found: dict[int, int] = {}
    for index, task in enumerate(program.tasks):
        if isinstance(task, ArrayPass):
            if task.array in latest:
                found[index] = latest[task.array]
            latest[task.array] = index
    return found


def name_of(program: SystemProgram, index: int) -> str:
    """The name of a task without the number of its layer."""
    task = program.tasks[index]
    return without_layer(task.label) if isinstance(task, ArrayPass) else program.operations[task.operation].name


def without_layer(label: str) -> str:
    """A pass's label without the numbers of its layers."""
    for pattern, words in _LAYERS:
        label = pattern.sub(words, label)
    return _WHOLE.sub("whole layers", label)


def aggregated(pieces: Sequence[PathPiece], makespan: int) -> list[dict[str, Any]]:
    """Rows of the critical path summed by pipeline, stage, kind and name, the longest first."""
    cycles: Counter[tuple[int, int, str, str]] = Counter()
    count: Counter[tuple[int, int, str, str]] = Counter()
    for piece in pieces:
        key = (piece.pipeline, piece.stage, piece.kind, piece.name)
        cycles[key] += piece.end - piece.start
        count[key] += 1
    ordered = sorted(cycles, key=lambda key: (-cycles[key], key))
    names = ("pipeline", "stage", "kind", "name")
    return [
        {
            **dict(zip(names, key, strict=True)),
            "cycles": cycles[key],
            "count": count[key],
            "share": cycles[key] / max(makespan, 1),
        }
        for key in ordered
    ]


def microbatch_spans(program: SystemProgram, times: SystemTimes) -> dict[tuple[int, int, int], tuple[int, int]]:
    """(start, end) of the first and last pass of a microbatch in a stage, by pipeline, stage and microbatch."""
    found: dict[tuple[int, int, int], tuple[int, int]] = {}
    for task, start, end in zip(program.tasks, times.start.tolist(), times.end.tolist(), strict=True):
        if isinstance(task, ArrayPass):
            key = (task.pipeline, task.stage, task.microbatch)
            first, last = found.get(key, (start, end))
            found[key] = (min(first, start), max(last, end))
    return found
