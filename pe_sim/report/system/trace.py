"""A step on several arrays as Chrome trace JSON for ui.perfetto.dev: takes a report, gives the text of the file.

A process "Step" with the critical path, one for every array with its passes, and "Links" with a track for every channel
that is used: from an exchange's first grant to its last release there. An array that works for several stages or
pipelines says so in its slices. Of many arrays or channels only some have tracks: the metadata say how many have none.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from pe_sim.network.interconnect import links_of
from pe_sim.report.perfetto.export import COLOURS, metadata
from pe_sim.report.system.figures import SystemFigures
from pe_sim.report.system.metrics import runs_of_operations
from pe_sim.report.system.time import PathPiece
from pe_sim.schedule.system import ArrayPass, LinkOperation, LinkTask

MAX_ARRAYS: Final = 256
MAX_LINK_TRACKS: Final = 64


@dataclass(frozen=True, slots=True)
class _Wording:
    """JSON that many slices have in common: name, kind and colour (`head`), and the beginning of their arguments."""

    head: str
    args: str

    @classmethod
    def of(cls, name: str, kind: str, **args: object) -> _Wording:
        """The wording of slices with one name, coloured by their kind."""
        colour = {"cname": COLOURS[kind]} if kind in COLOURS else {}
        return cls(_compact({"name": name, "cat": kind, **colour})[1:-1], _compact(args)[1:-1])


@dataclass(frozen=True, slots=True)
class _Slice:
    """Something that goes on from cycle `start` to `end`."""

    start: int
    end: int
    wording: _Wording


def trace_json(report: SystemFigures, *, max_arrays: int = MAX_ARRAYS, max_links: int = MAX_LINK_TRACKS) -> str:
    """The text of a trace file of a step on several arrays.

    Args:
        max_arrays: arrays with a track, lower ranks first.
        max_links: channels with a track, the hottest.
    """
    shown, left_out = _shown_links(report, max_links)
    other = {
        "model": report.model.name,
        "system": report.system.name,
        "plan": report.plan.name,
        "workflow": report.workflow.name,
        "step": report.step.to_dict(),
        "latency_cycles": report.latency_cycles,
        "clock_ghz": report.system.clock_ghz,
        "accuracy": report.envelope.one_line(),
        "arrays_left_out": max(0, len(report.holdings) - max_arrays),
        "channels_left_out": left_out,
    }
    lines = ",\n".join(_events(report, shown, max_arrays))
    return (
        f'{{"displayTimeUnit":"ns","otherData":{json.dumps(other, ensure_ascii=False)},"traceEvents":[\n{lines}\n]}}\n'
    )


def _events(report: SystemFigures, links: list[int], max_arrays: int) -> Iterator[str]:
    ghz, process, thread = report.system.clock_ghz, 1, 1
    title = f"{report.model.name} on {report.system.name}, {report.plan.name}, {report.step.phase}"
    yield from _process(process, f"Step: {title}")
    yield from _track(process, thread, "critical path")
    yield from _lines(ghz, process, thread, (_path_slice(report, piece) for piece in report.critical_path()))
    passes, places = _passes(report), _places(report)
    for rank in sorted(passes)[:max_arrays]:
        process, thread = process + 1, thread + 1
        yield from _process(process, f"Array {rank}: {places[rank]}")
        yield from _track(process, thread, f"array {rank}")
        yield from _lines(ghz, process, thread, passes[rank])
    if links:
        process += 1
        yield from _process(process, "Links")
        slices = _link_slices(report, links)
        names = links_of(report.system).topology.channels.name
        for channel in links:
            thread += 1
            yield from _track(process, thread, names[channel])
            yield from _lines(ghz, process, thread, slices[channel])


def _process(process: int, name: str) -> Iterator[str]:
    yield _compact(metadata("process_name", process, 0, name=name))
    yield _compact(metadata("process_sort_index", process, 0, sort_index=process))


def _track(process: int, thread: int, name: str) -> Iterator[str]:
    yield _compact(metadata("thread_name", process, thread, name=name))
    yield _compact(metadata("thread_sort_index", process, thread, sort_index=thread))


def _lines(ghz: float, process: int, thread: int, slices: Iterable[_Slice]) -> Iterator[str]:
    """Yields slices as JSON events, on whole nanoseconds like those of one array; formatted by hand for speed."""
    for piece in slices:
        start, end = round(piece.start / ghz), round(piece.end / ghz)
        yield (
            f'{{"ph":"X","pid":{process},"tid":{thread},{piece.wording.head},"ts":{start / 1000},'
            f'"dur":{(end - start) / 1000},"args":{{{piece.wording.args},"start_cycle":{piece.start},'
            f'"end_cycle":{piece.end},"cycles":{piece.end - piece.start}}}}}'
        )


def _compact(value: Mapping[str, object]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _places(report: SystemFigures) -> dict[int, str]:
    """The stages that each array works on, in words, by array."""
    several = len(report.lines) > 1
    found: dict[int, list[str]] = {}
    for each in report.arrays:
        name = f"pipeline {each.pipeline}, stage {each.stage}" if several else f"stage {each.stage}"
        found.setdefault(each.rank, []).append(name)
    return {rank: ", ".join(names) for rank, names in found.items()}


def _path_slice(report: SystemFigures, piece: PathPiece) -> _Slice:
    task = report.program.tasks[piece.task]
    where = {"pipeline": piece.pipeline, "stage": piece.stage, "microbatch": task.microbatch}
    if isinstance(task, ArrayPass):
        wording = _Wording.of(f"{task.label} · microbatch {task.microbatch}", "compute", **where, array=task.array)
    elif piece.kind == "queue":
        wording = _Wording.of(f"{piece.name} waits for links", "wait", **where)
    else:
        wording = _Wording.of(f"{piece.name} · microbatch {task.microbatch}", _tag(report, task), **where)
    return _Slice(piece.start, piece.end, wording)


def _passes(report: SystemFigures) -> dict[int, list[_Slice]]:
    """The slices of each array's passes in order, by array."""
    found: dict[int, list[_Slice]] = {}
    known: dict[tuple[str, int, int, int], _Wording] = {}
    times = zip(report.program.tasks, report.times.start.tolist(), report.times.end.tolist(), strict=True)
    for task, start, end in times:
        if isinstance(task, ArrayPass):
            key = (task.label, task.pipeline, task.stage, task.microbatch)
            if key not in known:
                where = {"pipeline": task.pipeline, "stage": task.stage, "microbatch": task.microbatch}
                known[key] = _Wording.of(f"{task.label} · microbatch {task.microbatch}", "compute", **where)
            found.setdefault(task.array, []).append(_Slice(start, end, known[key]))
    return found


def _link_slices(report: SystemFigures, links: Iterable[int]) -> dict[int, list[_Slice]]:
    """Slices by channel: each exchange that uses it, from its first grant to its last release."""
    found: dict[int, list[_Slice]] = {channel: [] for channel in links}
    uses = [_uses(operation, found) for operation in report.program.operations]
    for task, start in zip(report.program.tasks, report.times.start.tolist(), strict=True):
        if isinstance(task, LinkTask) and uses[task.operation]:
            operation = report.program.operations[task.operation]
            wording = _Wording.of(
                f"{operation.name} · microbatch {task.microbatch}",
                _tag(report, task),
                algorithm=operation.algorithm,
                members=len(operation.members),
                pipeline=task.pipeline,
                stage=task.stage,
                microbatch=task.microbatch,
            )
            for channel, first, last in uses[task.operation]:
                found[channel].append(_Slice(start + first, start + last, wording))
    return {channel: sorted(pieces, key=lambda piece: (piece.start, piece.end)) for channel, pieces in found.items()}


def _uses(operation: LinkOperation, links: Container[int]) -> list[tuple[int, int, int]]:
    """(channel, first grant, last release) for each channel of an exchange that has a track."""
    columns = (operation.channels, operation.first_cycles, operation.last_cycles)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return [(channel, first, last) for channel, first, last in rows if channel in links]


def _tag(report: SystemFigures, task: LinkTask) -> str:
    """The tag an exchange is coloured by: the first that it counts under."""
    return report.program.operations[task.operation].legs[0].counted[0][0]


def _shown_links(report: SystemFigures, most: int) -> tuple[list[int], int]:
    """Indices of the channels that get a track (the busiest), and the number of other channels in use."""
    busy: Counter[int] = Counter()
    for operation, repeats in runs_of_operations(report.program):
        for channel, cycles in zip(operation.channels.tolist(), operation.busy_cycles.tolist(), strict=True):
            busy[channel] += repeats * cycles
    hottest = sorted(busy, key=lambda channel: (-busy[channel], channel))
    return sorted(hottest[:most]), max(0, len(hottest) - most)
