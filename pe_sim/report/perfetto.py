"""The trace as Chrome trace JSON for ui.perfetto.dev: takes a report, gives the text of the file.

Process "array" has a track for each unit of the root, each channel, and each range of neighbouring PEs that do the
same at the same time. Of many channels or ranges of PEs only the hottest and the first have a track; the metadata say
what was left out. Slices of a track never overlap: what does overlap (reductions in disjoint subtrees, jobs of several
groups) goes to further lanes. Times are in microseconds; cycles are in the arguments.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pe_sim.config.network import GraphNetwork
from pe_sim.report.binning import busy_fractions
from pe_sim.report.channels import channels_by_level
from pe_sim.report.report import Report
from pe_sim.report.timeline import tag_of
from pe_sim.schedule.stages import Resource, RootStage
from pe_sim.trace import NOT_ACTIVE
from pe_sim.units import IntArray

MAX_PE_TRACKS = 128
MAX_CHANNEL_TRACKS = 32
COUNTER_BINS = 500
_PROCESS = 1


@dataclass(frozen=True, slots=True)
class _Slice:
    name: str
    category: str
    start: int
    end: int
    args: dict[str, Any] = field(default_factory=dict)


def trace_json(
    report: Report, *, max_pe_tracks: int = MAX_PE_TRACKS, max_channel_tracks: int = MAX_CHANNEL_TRACKS
) -> str:
    """The file's text.

    Args:
        max_pe_tracks: further ranges of PEs are left out; the metadata say which.
        max_channel_tracks: of a graph of channels the hottest ones are shown; the metadata say how many are not.
    """
    ranges = pe_ranges(report)
    tracks: list[tuple[str, list[_Slice]]] = []
    for resource, name in ((Resource.ROOT_VECTOR, "root vector"), (Resource.ROOT_MEMORY, "root memory")):
        tracks += _lanes(name, _root_slices(report, resource))
    shown, idle_or_cooler = _shown_channels(report, max_channel_tracks)
    for channel in shown:
        tracks += _lanes(report.trace.channel_use.channels[channel], _channel_slices(report, channel))
    for first, last in ranges[:max_pe_tracks]:
        tracks.append((_range_name(first, last), _pe_slices(report, first)))
    clock = _Clock(report.array.clock_ghz)
    title = f"{report.model.name} on {report.array.name}, {report.workflow.name}, {report.step.phase}"
    events: list[dict[str, Any]] = [_metadata("process_name", 0, name=title)]
    for thread, (name, slices) in enumerate(tracks, start=1):
        events.append(_metadata("thread_name", thread, name=name))
        events.append(_metadata("thread_sort_index", thread, sort_index=thread))
        events += (clock.event(thread, piece) for piece in slices)
    events += _utilization_counters(report, clock)
    other = {
        "model": report.model.name,
        "array": report.array.name,
        "workflow": report.workflow.name,
        "latency_cycles": report.latency_cycles,
        "clock_ghz": report.array.clock_ghz,
        "channels_left_out": idle_or_cooler,
        "pes_left_out": [_range_name(first, last) for first, last in ranges[max_pe_tracks:]],
    }
    lines = ",\n".join(json.dumps(event, separators=(",", ":")) for event in events)
    return f'{{"displayTimeUnit":"ns","otherData":{json.dumps(other)},"traceEvents":[\n{lines}\n]}}\n'


def _shown_channels(report: Report, most: int) -> tuple[list[int], int]:
    """Channels with a track as the trace numbers them, and how many others carried something."""
    if not isinstance(report.array.network, GraphNetwork):
        return list(range(len(report.trace.channel_use.channels))), 0
    used = int(np.count_nonzero(report.channels.busy_cycles))
    return sorted(report.channels.hottest(most)), max(used - most, 0)


def pe_ranges(report: Report) -> list[tuple[int, int]]:
    """Ranges [first, last) of neighbouring PEs whose stages all start and end in the same cycles."""
    columns = [span.pe_start for span in report.trace.spans if span.pe_start is not None]
    columns += [span.pe_end for span in report.trace.spans if span.pe_end is not None]
    num_pes = report.array.num_pes
    differs = np.zeros(num_pes, dtype=bool)
    for column in columns:
        differs[1:] |= column[1:] != column[:-1]
    firsts = [0, *np.flatnonzero(differs).tolist()]
    return list(zip(firsts, [*firsts[1:], num_pes], strict=True))


@dataclass(frozen=True, slots=True)
class _Clock:
    """Cycles to microseconds, on whole nanoseconds: both ends of a slice round alike, so neighbours still meet."""

    ghz: float

    def nanoseconds(self, cycle: int) -> int:
        return round(cycle / self.ghz)

    def event(self, thread: int, piece: _Slice) -> dict[str, Any]:
        start, end = self.nanoseconds(piece.start), self.nanoseconds(piece.end)
        cycles = {"start_cycle": piece.start, "end_cycle": piece.end, "cycles": piece.end - piece.start}
        return {
            "ph": "X",
            "pid": _PROCESS,
            "tid": thread,
            "name": piece.name,
            "cat": piece.category,
            "ts": start / 1000,
            "dur": (end - start) / 1000,
            "args": {**piece.args, **cycles},
        }


def _metadata(kind: str, thread: int, **args: Any) -> dict[str, Any]:
    return {"ph": "M", "pid": _PROCESS, "tid": thread, "name": kind, "args": args}


def _lanes(name: str, slices: list[_Slice]) -> list[tuple[str, list[_Slice]]]:
    """The slices on as few tracks as hold them without an overlap; none for none."""
    lanes: list[list[_Slice]] = []
    for piece in sorted(slices, key=lambda piece: (piece.start, piece.end)):
        lane = next((lane for lane in lanes if lane[-1].end <= piece.start), None)
        if lane is None:
            lanes.append(lane := [])
        lane.append(piece)
    return [(name if len(lanes) == 1 else f"{name} {number}", lane) for number, lane in enumerate(lanes)]


def _root_slices(report: Report, resource: Resource) -> list[_Slice]:
    return [
        _Slice(span.name, span.operator, span.start, span.end, {"layer": span.layer, "operator": span.operator})
        for span, stage in report.timeline.active()
        if isinstance(stage, RootStage) and stage.resource is resource
    ]


def _channel_slices(report: Report, channel: int) -> list[_Slice]:
    """Uses of a channel; those of one stage that follow each other at once, or coincide, are one slice."""
    uses = report.trace.channel_use
    chosen = np.flatnonzero(uses.channel == channel)
    columns = (uses.stage[chosen], uses.start[chosen], uses.end[chosen], uses.num_bytes[chosen])
    merged: list[list[int]] = []
    for order, start, end, num_bytes in _rows(columns):
        last = merged[-1] if merged else None
        if last is not None and last[0] == order and (last[2] == start or last[1:3] == [start, end]):
            last[2], last[3], last[4] = end, last[3] + num_bytes, last[4] + 1
        else:
            merged.append([order, start, end, num_bytes, 1])
    return [_channel_slice(report, *entry) for entry in merged]


def _channel_slice(report: Report, order: int, start: int, end: int, num_bytes: int, count: int) -> _Slice:
    span, tag = report.trace.spans[order], tag_of(report.timeline.stages[order])
    label = tag.value if tag is not None else ""
    args = {"layer": span.layer, "operator": span.operator, "tag": label, "bytes": num_bytes, "uses": count}
    return _Slice(span.name, label, start, end, args)


def _pe_slices(report: Report, pe: int) -> list[_Slice]:
    slices = []
    for span, _ in report.timeline.active():
        if span.pe_start is None or span.pe_end is None or span.pe_start[pe] == NOT_ACTIVE:
            continue
        limit = report.timeline.resource_of(span.order, pe).value
        args = {
            "layer": span.layer,
            "operator": span.operator,
            "distribution": span.distribution,
            "limited_by": limit,
        }
        slices.append(_Slice(span.name, span.resource, int(span.pe_start[pe]), int(span.pe_end[pe]), args))
    return sorted(slices, key=lambda piece: piece.start)


def _utilization_counters(report: Report, clock: _Clock) -> list[dict[str, Any]]:
    """Utilization in percent, a value for each of equal parts of the step: of the bus, or of each level's channels."""
    if isinstance(report.array.network, GraphNetwork):
        members = channels_by_level(report.channels.level)
    else:
        members = {Resource.BUS.value: [report.trace.channel_use.channels.index(Resource.BUS.value)]}
    events = []
    for level, channels in members.items():
        edges, fractions = busy_fractions(report.trace, channels, COUNTER_BINS)
        percent = [round(100 * float(value), 3) for value in fractions.sum(axis=0)] + [0.0]
        for edge, value in zip(edges.tolist(), percent, strict=True):
            time = round(edge / clock.ghz) / 1000
            counted = {"name": f"{level} utilization", "ts": time, "args": {"percent": value}}
            events.append({"ph": "C", "pid": _PROCESS, **counted})
    return events


def _range_name(first: int, last: int) -> str:
    return f"PE {first}" if last == first + 1 else f"PE {first}-{last - 1}"


def _rows(columns: Iterable[IntArray]) -> Iterable[tuple[int, ...]]:
    return zip(*(column.tolist() for column in columns), strict=True)
