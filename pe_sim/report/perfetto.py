"""The trace as Chrome trace JSON for ui.perfetto.dev: takes a report, gives the text of the file.

Four processes: "Step" with the critical path layer by layer, "Root" with its units, "Interconnect" with a track for
each channel, and "PEs" with a track of work and one of the memory port for each class of PEs, or for the PEs that were
asked for. Counters are of utilization and of bytes in flight; arrows lead from messages to what they feed. Of many
channels or classes only some have a track: the metadata say what was left out. Times are in microseconds; cycles are
in the arguments.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pe_sim.report.pe_tracks import CLASSES, MAX_CLASSES, PeChoice, pe_tracks
from pe_sim.report.report import Report
from pe_sim.report.track_counters import PERCENT, Counter, counters
from pe_sim.report.track_flows import Flow, flows
from pe_sim.report.tracks import GROUPS, LAYER, MAX_CHANNEL_TRACKS, Slice, Track, shared_tracks
from pe_sim.schedule.stages import Tag

# Names of colours that Chrome's viewer knows; Perfetto colours by name.
COLOURS: Final = {
    Tag.BROADCAST.value: "rail_load",
    Tag.MULTICAST.value: "rail_animation",
    Tag.SCATTER.value: "good",
    Tag.GATHER.value: "rail_response",
    Tag.ALL_GATHER.value: "bad",
    Tag.ALL_TO_ALL.value: "terrible",
    Tag.REDUCE.value: "black",
    Tag.UNICAST.value: "yellow",
    Tag.WEIGHT_STREAM.value: "olive",
    "memory": "thread_state_iowait",
    "compute": "thread_state_running",
    "vector": "thread_state_runnable",
    "root": "rail_idle",
    "wait": "white",
    LAYER: "grey",
}


def trace_json(
    report: Report,
    *,
    pes: PeChoice = CLASSES,
    max_classes: int = MAX_CLASSES,
    max_channel_tracks: int = MAX_CHANNEL_TRACKS,
) -> str:
    """The file's text.

    Args:
        pes: "classes": PEs that do the same share a track; "all": each PE has one; or the numbers of PEs.
        max_classes: further classes are left out; the metadata say which.
        max_channel_tracks: of a graph of channels the hottest ones are shown; the metadata say how many are not.

    Raises:
        InputError: there is no such PE, or the PEs asked for are too many for one file.
    """
    of_pes, shared = pe_tracks(report, pes, max_classes), shared_tracks(report, max_channel_tracks)
    tracks = (*shared.tracks, *of_pes.tracks)
    other = {
        "model": report.model.name,
        "array": report.array.name,
        "workflow": report.workflow.name,
        "step": report.step.to_dict(),
        "latency_cycles": report.latency_cycles,
        "clock_ghz": report.array.clock_ghz,
        "accuracy": report.envelope.one_line(),
        "channels_left_out": shared.channels_left_out,
        "lanes_left_out": shared.lanes_left_out,
        "pes_left_out": list(of_pes.left_out),
    }
    lines = ",\n".join(
        json.dumps(event, ensure_ascii=False, separators=(",", ":")) for event in _events(report, tracks)
    )
    return (
        f'{{"displayTimeUnit":"ns","otherData":{json.dumps(other, ensure_ascii=False)},"traceEvents":[\n{lines}\n]}}\n'
    )


def _events(report: Report, tracks: tuple[Track, ...]) -> Iterator[dict[str, Any]]:
    clock = _Clock(report.array.clock_ghz)
    title = f"{report.model.name} on {report.array.name}, {report.workflow.name}, {report.step.phase}{report.fit_mark}"
    counted = counters(report)
    for process, group in enumerate(GROUPS, start=1):
        if group in {track.group for track in tracks} | {counter.group for counter in counted}:
            yield metadata("process_name", process, 0, name=f"{group}: {title}" if process == 1 else group)
            yield metadata("process_sort_index", process, 0, sort_index=process)
    for thread, track in enumerate(tracks, start=1):
        process = _process(track.group)
        yield metadata("thread_name", process, thread, name=track.name)
        yield metadata("thread_sort_index", process, thread, sort_index=thread)
        yield from (clock.slice(process, thread, piece) for piece in track.slices)
    for number, flow in enumerate(flows(report, tracks), start=1):
        yield from clock.arrow(number, flow, tracks)
    for counter in counted:
        yield from clock.values(counter)


def _process(group: str) -> int:
    return GROUPS.index(group) + 1


def metadata(kind: str, process: int, thread: int, **args: Any) -> dict[str, Any]:
    """An event that names or orders a process or a track."""
    return {"ph": "M", "pid": process, "tid": thread, "name": kind, "args": args}


@dataclass(frozen=True, slots=True)
class _Clock:
    """Cycles to microseconds, on whole nanoseconds: both ends of a slice round alike, so neighbours still meet."""

    ghz: float

    def nanoseconds(self, cycle: float) -> int:
        return round(cycle / self.ghz)

    def slice(self, process: int, thread: int, piece: Slice) -> dict[str, Any]:
        """One slice."""
        start, end = self.nanoseconds(piece.start), self.nanoseconds(piece.end)
        cycles = {"start_cycle": piece.start, "end_cycle": piece.end, "cycles": piece.end - piece.start}
        colour = {"cname": COLOURS[piece.kind]} if piece.kind in COLOURS else {}
        return {
            "ph": "X",
            "pid": process,
            "tid": thread,
            "name": piece.name,
            "cat": piece.kind,
            "ts": start / 1000,
            "dur": (end - start) / 1000,
            **colour,
            "args": {**_present(piece.args), **cycles},
        }

    def arrow(self, number: int, flow: Flow, tracks: tuple[Track, ...]) -> Iterator[dict[str, Any]]:
        """Its two ends, each within its slice; none where a slice takes no nanosecond that an end could be in."""
        sent, done = self.nanoseconds(flow.source.start), self.nanoseconds(flow.source.end)
        arrived, over = self.nanoseconds(flow.target.start), self.nanoseconds(flow.target.end)
        if done == sent or over == arrived or arrived < sent:
            return
        left = min(done - 1, arrived)
        for end, track, time in (("s", flow.source_track, left), ("f", flow.target_track, arrived)):
            place = {"pid": _process(tracks[track].group), "tid": track + 1}
            within = {"bp": "e"} if end == "f" else {}
            yield {"ph": end, "id": number, "name": "feeds", "cat": "flow", **place, "ts": time / 1000, **within}

    def values(self, counter: Counter) -> Iterator[dict[str, Any]]:
        """Every mean at the beginning of its part of the step, and 0 at the end."""
        name = f"{counter.name} ({'%' if counter.unit == PERCENT else 'bytes'})"
        for edge, value in zip(counter.edges.tolist(), [*counter.values.tolist(), 0.0], strict=True):
            time = self.nanoseconds(edge) / 1000
            args = {counter.unit: round(value, 3)}
            yield {"ph": "C", "pid": _process(counter.group), "name": name, "ts": time, "args": args}


def _present(args: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in args.items() if value not in (None, "")}
