"""The trace as Chrome trace JSON for ui.perfetto.dev, with counters over time and arrows from results to consumers.

Four processes: "Step" with the critical path layer by layer, "Root" with its units, "Interconnect" with a track for
each channel, and "PEs" with a track of work and one of the memory port for each class of PEs, or for the PEs that were
asked for. Counters are of utilization and of bytes in flight; arrows lead from messages to what they feed. Of many
channels or classes only some have a track: the metadata say what was left out. Times are in microseconds; cycles are
in the arguments.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pe_sim.report.analysis.channels import channels_by_level
from pe_sim.report.analysis.timeline import port_accesses
from pe_sim.report.perfetto.tracks import (
    CHANNEL_NAMES,
    CLASSES,
    GROUPS,
    INTERCONNECT,
    LAYER,
    MAX_CHANNEL_TRACKS,
    MAX_CLASSES,
    PES,
    ROOT,
    PeChoice,
    Slice,
    Track,
    pe_tracks,
    shared_tracks,
)
from pe_sim.report.step import StepFigures
from pe_sim.schedule.stages import MessageStage, PeStage, Resource, Tag, TreeStage
from pe_sim.units import IntArray

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
    report: StepFigures,
    *,
    pes: PeChoice = CLASSES,
    max_classes: int = MAX_CLASSES,
    max_channel_tracks: int = MAX_CHANNEL_TRACKS,
) -> str:
    """The text of the trace file.

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


def _events(report: StepFigures, tracks: tuple[Track, ...]) -> Iterator[dict[str, Any]]:
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
    """A trace event that names or orders a process or a track."""
    return {"ph": "M", "pid": process, "tid": thread, "name": kind, "args": args}


@dataclass(frozen=True, slots=True)
class _Clock:
    """A clock that turns cycles into whole nanoseconds: both ends of a slice round alike, so neighbours still meet."""

    ghz: float

    def nanoseconds(self, cycle: float) -> int:
        return round(cycle / self.ghz)

    def slice(self, process: int, thread: int, piece: Slice) -> dict[str, Any]:
        """The event of one slice."""
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
        """Yields the two events of an arrow, each within its slice; none if a slice lasts no whole nanosecond."""
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
        """Yields the events of a counter: each mean at the start of its part of the step, and 0 at the end."""
        name = f"{counter.name} ({'%' if counter.unit == PERCENT else 'bytes'})"
        for edge, value in zip(counter.edges.tolist(), [*counter.values.tolist(), 0.0], strict=True):
            time = self.nanoseconds(edge) / 1000
            args = {counter.unit: round(value, 3)}
            yield {"ph": "C", "pid": _process(counter.group), "name": name, "ts": time, "args": args}


def _present(args: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in args.items() if value not in (None, "")}


# ---- What feeds what on a timeline: takes a report and its tracks, gives the arrows from results to their consumers.
#
# An arrow leads from a message, a reduction or a job at the root to each slice that waits for it, and from the PEs
# that finish last to the message or reduction that takes their result. Work that stays on its PE has none: it is on
# one track.


@dataclass(frozen=True, slots=True)
class Flow:
    """An arrow from `source`, on track number `source_track`, to `target`, which begins no earlier."""

    source: Slice
    source_track: int
    target: Slice
    target_track: int


def flows(report: StepFigures, tracks: Sequence[Track]) -> Iterator[Flow]:
    """Yields the arrows from results to their consumers, in the order of the consumers' tracks."""
    at = _places(tracks)
    spans, stages = report.trace.spans, report.timeline.stages
    for order, targets in at.items():
        targets_on_pes = isinstance(stages[order], PeStage)
        for source_order in spans[order].inputs:
            sources = at.get(source_order, [])
            if not sources or (targets_on_pes and isinstance(stages[source_order], PeStage)):
                continue
            for target_track, target in targets if targets_on_pes else targets[:1]:
                found = _feeding(sources, target)
                if found is not None:
                    yield Flow(found[1], found[0], target, target_track)


def _places(tracks: Sequence[Track]) -> dict[int, list[tuple[int, Slice]]]:
    """(track number, slice) of each stage's slices on channels, at the root and in PEs' work, by order and start."""
    found: dict[int, list[tuple[int, Slice]]] = {}
    for number, track in enumerate(tracks):
        if track.works or track.group in (ROOT, INTERCONNECT):
            for piece in track.slices:
                if piece.order is not None:
                    found.setdefault(piece.order, []).append((number, piece))
    for pieces in found.values():
        pieces.sort(key=lambda entry: (entry[1].start, entry[0]))
    return found


def _feeding(sources: Sequence[tuple[int, Slice]], target: Slice) -> tuple[int, Slice] | None:
    """The (track, slice) that the target waited for: the last that ended before it, else the last that had begun."""
    before = bisect_right(sources, target.start, key=lambda entry: entry[1].start)
    ended = [entry for entry in sources[:before] if entry[1].end <= target.start]
    if ended:
        return max(ended, key=lambda entry: entry[1].end)
    return sources[before - 1] if before else None


# ---- What goes on over time as numbers: takes a report, gives the mean of each counter in equal parts of the step.
#
# Utilization is busy over elapsed, as `Report.utilization` has it, and its mean over the step is that very number: of
# the PEs' units the mean over all PEs, of the tree over the paths of its leaves, of a level over its channels. Bytes
# are in flight from the grant of their channel until their last one arrives. The matrix and vector units' busy cycles
# are spread evenly over their operator; the memory ports' are where they stream.


FloatArray = npt.NDArray[np.float64]

BINS: Final = 500
PERCENT: Final = "percent"
BYTES: Final = "bytes"


@dataclass(frozen=True, eq=False)
class Counter:
    """A counter: `values[i]` is its mean (in percent or bytes) between the cycles `edges[i]` and `edges[i + 1]`."""

    group: str
    name: str
    unit: str
    edges: FloatArray
    values: FloatArray


class _Means:
    """Means, in equal parts of the step, of a sum of rates that are each constant between two cycles."""

    def __init__(self, makespan: int, bins: int) -> None:
        self.edges = np.linspace(0.0, float(max(makespan, 1)), bins + 1)
        self._change, self._moment = np.zeros((2, bins + 1))

    def add(self, start: IntArray, end: IntArray, rate: FloatArray) -> None:
        """Adds rates that hold between `start` and `end`; the arrays have one shape."""
        times = np.concatenate([start, end]).astype(np.float64)
        change = np.concatenate([rate, -rate])
        where = np.searchsorted(self.edges, times, side="left")  # the first edge that it counts at
        inside = where < len(self.edges)
        size = len(self.edges)
        self._change += np.bincount(where[inside], change[inside], size)
        self._moment += np.bincount(where[inside], (change * times)[inside], size)

    def means(self) -> FloatArray:
        """(bins,) mean of the sum of all rates in each part of the step, at least 0."""
        until = self.edges * np.cumsum(self._change) - np.cumsum(self._moment)
        return np.maximum(np.diff(until) / np.diff(self.edges), 0.0)


def counters(report: StepFigures, bins: int = BINS) -> tuple[Counter, ...]:
    """All counters of a report."""
    return (*_of_interconnect(report, bins), *_of_pes(report, bins))


def _counter(group: str, name: str, unit: str, means: _Means) -> Counter:
    scale = 100.0 if unit == PERCENT else 1.0
    what = "utilization" if unit == PERCENT else "bytes in flight"
    return Counter(group, f"{name}: {what}", unit, means.edges, scale * means.means())


def _of_interconnect(report: StepFigures, bins: int) -> list[Counter]:
    """Counters of utilization and bytes in flight for bus, tree and downlink, or for each level of a graph."""
    uses, makespan = report.trace.channel_use, report.latency_cycles
    if report.array.network.is_graph:
        groups, by, (covered, travel) = channels_by_level(report.channels.level), uses.channel, _of_channels(report)
    else:
        known = [(channel, name) for channel, name in enumerate(uses.channels) if name in report.channels.name]
        groups = {CHANNEL_NAMES.get(name, name): [channel] for channel, name in known}
        by, (covered, travel) = uses.stage, _of_stages(report)
    found = []
    for name, channels in groups.items():
        mine = np.isin(uses.channel, channels)
        start, end, of_use = uses.start[mine], uses.end[mine], by[mine]
        busy, flying = _Means(makespan, bins), _Means(makespan, bins)
        busy.add(start, end, covered[of_use] / len(channels))
        flying.add(start, end + travel[of_use], uses.num_bytes[mine].astype(np.float64))
        found.append(_counter(INTERCONNECT, name, PERCENT, busy))
        found.append(_counter(INTERCONNECT, name, BYTES, flying))
    return found


def _of_stages(report: StepFigures) -> tuple[FloatArray, IntArray]:
    """(stages,) the share of PEs whose path a message or reduction occupies, and its cycles after the channel."""
    stages, network, num_pes = report.timeline.stages, report.array.bus_tree, report.array.num_pes
    covered, travel = np.ones(len(stages)), np.zeros(len(stages), dtype=np.int64)
    for order, stage in enumerate(stages):
        if isinstance(stage, TreeStage):
            travel[order] = stage.hop_cycles[0]
            covered[order] = 1.0 if stage.whole_tree else (stage.last_pe[0] - stage.first_pe[0]) / num_pes
        elif isinstance(stage, MessageStage) and stage.channel is Resource.DOWNLINK:
            travel[order] = stage.hop_cycles[0]
            covered[order] = (stage.last_pe[0] - stage.first_pe[0]) / num_pes
        elif isinstance(stage, MessageStage):
            travel[order] = network.bus.latency_cycles
    return covered, travel


def _of_channels(report: StepFigures) -> tuple[FloatArray, IntArray]:
    """(channels,) the covered share (1) and the latency in cycles of each channel of a graph."""
    from pe_sim.network.interconnect import interconnect_of  # loads networkx

    latency = interconnect_of(report.array).topology.channels.latency_cycles
    return np.ones(len(latency)), latency


def _of_pes(report: StepFigures, bins: int) -> list[Counter]:
    makespan, num_pes = report.latency_cycles, report.array.num_living
    matrix, vector, memory = (_Means(makespan, bins) for _ in range(3))
    for span, stage in report.timeline.active():
        if not isinstance(stage, PeStage) or stage.resource is Resource.PE_MEMORY:
            continue
        units, cycles = (vector, stage.cycles) if stage.matrix is None else (matrix, stage.matrix.compute_cycles)
        start, end = span.part_start, span.part_end
        worked = span.parts.working & (end > start)
        _spread(units, start[worked], end[worked], cycles[worked], num_pes)
    for access in port_accesses(report.timeline):
        ahead = access.active & (access.ahead_end > access.ahead_start)
        start, end = access.ahead_start[ahead], access.ahead_end[ahead]
        _spread(memory, start, end, end - start, num_pes)
        then = access.active & (access.end > access.start)
        _spread(memory, access.start[then], access.end[then], access.busy[then], num_pes)
    units_of = {"matrix units": matrix, "vector units": vector, "memory ports": memory}
    return [_counter(PES, name, PERCENT, means) for name, means in units_of.items()]


def _spread(means: _Means, start: IntArray, end: IntArray, busy: IntArray, num_pes: int) -> None:
    means.add(start, end, busy / (end - start) / num_pes)
