"""A step as tracks of slices, as timelines draw them: what happens where and when, in the machine and on each PE.

Slices of a track nest or follow each other and never overlap: what does overlap (reductions in disjoint subtrees, jobs
of several groups) goes to further lanes. Times are cycles.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any, Final

import numpy as np

from pe_sim.errors import InputError, did_you_mean
from pe_sim.report.analysis.critical_path import Link, counted
from pe_sim.report.analysis.metrics import KIND_OF, LINK_KINDS
from pe_sim.report.analysis.timeline import SEPARATOR, PortAccess, port_accesses, stage_title
from pe_sim.report.step import StepFigures
from pe_sim.schedule.stages import PeStage, Resource, RootStage, tag_of
from pe_sim.units import IntArray

STEP: Final = "Step"
ROOT: Final = "Root"
INTERCONNECT: Final = "Interconnect"
PES: Final = "PEs"
GROUPS: Final = (STEP, ROOT, INTERCONNECT, PES)
LAYER: Final = "layer"
MAX_LANES: Final = 16
MAX_CHANNEL_TRACKS: Final = 32
_ROOT_UNITS: Final = ((Resource.ROOT_VECTOR, "root vector unit"), (Resource.ROOT_MEMORY, "root memory"))
CHANNEL_NAMES: Final = {
    Resource.BUS.value: "bus",
    Resource.TREE.value: "reduction tree",
    Resource.DOWNLINK.value: "tree downlink",
}


@dataclass(frozen=True, slots=True)
class Slice:
    """A slice of a track: something that lasts from cycle `start` to `end`.

    Args:
        name: title that people read.
        kind: what it is coloured by: a tag of the traffic for messages; compute, memory, vector or root for work;
            else a kind of the critical path, or `layer` for a slice that encloses others.
        start, end: cycles.
        order: of the stage it belongs to; None if there are several.
        args: further facts to show, JSON-ready.
    """

    name: str
    kind: str
    start: int
    end: int
    order: int | None = None
    args: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Track:
    """A track: its slices by start, an enclosing one before those inside it.

    Args:
        group: one of `GROUPS`.
        pe: the PE that it shows, for all PEs that do the same; None if it shows no PE.
        works: whether it shows the work of the PE, which is where arrows from messages end.
    """

    group: str
    name: str
    slices: tuple[Slice, ...]
    pe: int | None = None
    works: bool = False


@dataclass(frozen=True, slots=True)
class SharedTracks:
    """All tracks but those of PEs, and how many busy channels and lanes were left out."""

    tracks: tuple[Track, ...]
    channels_left_out: int
    lanes_left_out: int


def shared_tracks(report: StepFigures, max_channels: int = MAX_CHANNEL_TRACKS) -> SharedTracks:
    """Tracks of the critical path, the root's units and the channels (on a graph, the hottest ones)."""
    titles = stage_titles(report)
    tracks = [Track(STEP, "critical path", tuple(_critical_path(report, titles)))]
    left_out = 0
    for resource, name in _ROOT_UNITS:
        found, more = lanes_of(ROOT, name, _root_slices(report, titles, resource))
        tracks, left_out = [*tracks, *found], left_out + more
    shown, cooler = _shown_channels(report, max_channels)
    for channel in shown:
        name = report.trace.channel_use.channels[channel]
        found, more = lanes_of(INTERCONNECT, CHANNEL_NAMES.get(name, name), _channel_slices(report, titles, channel))
        tracks, left_out = [*tracks, *found], left_out + more
    return SharedTracks(tuple(tracks), cooler, left_out)


def stage_args(report: StepFigures, order: int) -> dict[str, Any]:
    """The facts that every slice shows of its stage, JSON-ready."""
    span = report.trace.spans[order]
    return {"layer": span.layer, "operator": span.operator}


def stage_titles(report: StepFigures) -> list[str]:
    """Titles for the slices of each stage, by the stage's order."""
    return [stage_title(span, stage) for span, stage in zip(report.trace.spans, report.timeline.stages, strict=True)]


def _channel_slices(report: StepFigures, titles: Sequence[str], channel: int) -> list[Slice]:
    """Slices of a channel's uses; adjacent or coinciding uses of one stage are one slice."""
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
    return [_channel_slice(report, titles, *entry) for entry in merged]


def _channel_slice(
    report: StepFigures, titles: Sequence[str], order: int, start: int, end: int, num_bytes: int, uses: int
) -> Slice:
    tag = tag_of(report.timeline.stages[order])
    label = tag.value if tag is not None else ""
    args = {**stage_args(report, order), "tag": label, "bytes": num_bytes, "uses": uses}
    return Slice(titles[order], label, start, end, order, args)


def _shown_channels(report: StepFigures, most: int) -> tuple[list[int], int]:
    """Indices of the channels that get a track, and the number of other channels that carried something."""
    if not report.array.network.is_graph:
        return list(range(len(report.trace.channel_use.channels))), 0
    used = int(np.count_nonzero(report.channels.busy_cycles))
    return sorted(report.channels.hottest(most)), max(used - most, 0)


def lanes_of(group: str, name: str, slices: list[Slice]) -> tuple[list[Track], int]:
    """The slices on the fewest tracks without overlaps, at most `MAX_LANES`; and how many lanes were left out."""
    lanes: list[list[Slice]] = []
    for piece in sorted(slices, key=lambda piece: (piece.start, piece.end)):
        lane = next((lane for lane in lanes if lane[-1].end <= piece.start), None)
        if lane is None:
            lanes.append(lane := [])
        lane.append(piece)
    names = [name] if len(lanes) == 1 else [f"{name}, lane {number}" for number in range(1, len(lanes) + 1)]
    tracks = [Track(group, its, tuple(lane)) for its, lane in zip(names, lanes, strict=True)]
    return tracks[:MAX_LANES], max(len(tracks) - MAX_LANES, 0)


def _root_slices(report: StepFigures, titles: Sequence[str], resource: Resource) -> list[Slice]:
    return [
        Slice(titles[span.order], "root", span.start, span.end, span.order, stage_args(report, span.order))
        for span, stage in report.timeline.active()
        if isinstance(stage, RootStage) and stage.resource is resource
    ]


def _critical_path(report: StepFigures, titles: Sequence[str]) -> Iterable[Slice]:
    """Yields slices of the critical path, those of each stretch in one layer inside a slice of the layer."""
    layers: list[list[Slice]] = []
    labels: list[int | None] = []
    for piece in _links(report, titles):
        layer = piece.args["layer"]
        if not layers or labels[-1] != layer:
            layers.append([])
            labels.append(layer)
        layers[-1].append(piece)
    for layer, pieces in zip(labels, layers, strict=True):
        if layer is not None:
            yield Slice(f"layer {layer}", LAYER, pieces[0].start, pieces[-1].end, None, {"layer": layer})
        yield from pieces


def _links(report: StepFigures, titles: Sequence[str]) -> Iterable[Slice]:
    """Yields slices of the critical path's links; adjacent links of one stage on one resource are one slice."""
    merged: list[tuple[Link, int]] = []
    for link in report.critical_path():
        key = link.order, link.resource, link.pe
        if merged and (merged[-1][0].order, merged[-1][0].resource, merged[-1][0].pe) == key:
            merged[-1] = merged[-1][0], link.end
        else:
            merged.append((link, link.end))
    for link, end in merged:
        where = {"pe": link.pe} if link.pe is not None else {"channel": link.channel} if link.channel else {}
        args = {**stage_args(report, link.order), "limited_by": link.resource, **where}
        kind = link.tag or LINK_KINDS[link.resource]
        yield Slice(titles[link.order], kind, link.start, end, link.order, args)


def _rows(columns: Iterable[IntArray]) -> Iterable[tuple[int, ...]]:
    return zip(*(column.tolist() for column in columns), strict=True)


# ---- What PEs do, as tracks: takes a report and a choice of PEs, gives each a track of work and one of its port.
#
# PEs whose stages start, end and stream in the same cycles are one class, neighbours or not, and share their tracks.


PeChoice = str | Sequence[int]
CLASSES: Final = "classes"
ALL: Final = "all"
MAX_CLASSES: Final = 32
MAX_SLICES: Final = 500_000  # for PEs that are listed one by one
_NAMED_RANGES: Final = 3


@dataclass(frozen=True, eq=False)
class PeTracks:
    """Tracks of the chosen PEs, and the classes that have none.

    Args:
        tracks: of work and of memory ports, by the lowest PE.
        left_out: names of the classes without a track.
    """

    tracks: tuple[Track, ...]
    left_out: tuple[str, ...]


def pe_tracks(report: StepFigures, pes: PeChoice = CLASSES, max_classes: int = MAX_CLASSES) -> PeTracks:
    """Tracks of classes of PEs, of all PEs, or of listed PEs.

    Args:
        pes: "classes", "all", or numbers of PEs.
        max_classes: if there are more classes, those with the most cycles of the critical path are shown, then the
            largest.

    Raises:
        InputError: an unknown word, a number that no PE has, or more slices than a timeline can show.
    """
    if pes == CLASSES:
        classes = pe_classes(report)
        chosen = _most_telling(report, classes, max_classes)
        left_out = [class_name(each) for index, each in enumerate(classes) if index not in chosen]
        return PeTracks(_tracks(report, [classes[index] for index in chosen]), tuple(left_out))
    return PeTracks(_tracks(report, [np.array([pe]) for pe in _listed(report, pes)]), ())


def check_pes(report: StepFigures, pes: PeChoice) -> None:
    """Checks that tracks of these PEs can be made.

    Raises:
        InputError: as `pe_tracks` raises it.
    """
    if pes != CLASSES:
        _listed(report, pes)


def pe_classes(report: StepFigures) -> list[IntArray]:
    """The PEs of each class in ascending order, classes in the order of their lowest PE."""
    label = np.zeros(report.array.num_pes, dtype=np.int64)
    first = np.zeros(1, dtype=np.int64)  # of each class
    for column in _columns(report):
        if not np.array_equal(column, column[first][label]):
            distinct, number = np.unique(column, return_inverse=True)
            _, first, label = np.unique(label * len(distinct) + number, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")
    return [np.flatnonzero(label == number) for number in order.tolist()]


def class_name(pes: IntArray) -> str:
    """Name of a class: "PE 3", "PEs 0-31", "PEs 0-3, 8-11"; of many ranges the first, and the number of PEs."""
    if len(pes) == 1:
        return f"PE {pes[0]}"
    cuts = np.flatnonzero(np.diff(pes) > 1) + 1
    ranges = [(int(run[0]), int(run[-1])) for run in np.split(pes, cuts)]
    named = ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in ranges[:_NAMED_RANGES])
    return f"PEs {named}" if len(ranges) <= _NAMED_RANGES else f"PEs {named}, ... ({len(pes):,} PEs)"


def _columns(report: StepFigures) -> Iterable[IntArray]:
    """Yields (PEs,) columns that tell PEs apart: when each stage works, and what memory ports do."""
    told: set[int] = set()
    for span, stage in report.timeline.active():
        if not isinstance(stage, PeStage):
            continue
        yield span.part_start
        yield span.part_end
        if id(stage) not in told:
            told.add(id(stage))
            matrix = stage.matrix
            yield from (stage.cycles,) if matrix is None else (matrix.memory_cycles, matrix.compute_cycles)


def _most_telling(report: StepFigures, classes: Sequence[IntArray], most: int) -> list[int]:
    """Indices of the classes that get a track, ascending."""
    if len(classes) <= most:
        return list(range(len(classes)))
    cycles: Counter[int] = Counter()
    for link, times in counted(report.critical_path()):
        if link.pe is not None:
            cycles[link.pe] += times * link.cycles
    critical = np.array([cycles[pe] for pe in range(report.array.num_pes)], dtype=np.int64)
    ranked = sorted(
        range(len(classes)), key=lambda each: (-int(critical[classes[each]].sum()), -len(classes[each]), each)
    )
    return sorted(ranked[:most])


def _listed(report: StepFigures, pes: PeChoice) -> list[int]:
    num_pes = report.array.num_pes
    expected = f"{CLASSES}, {ALL}, or numbers of PEs, 0 to {num_pes - 1}"
    if isinstance(pes, str) and pes != ALL:
        hint = did_you_mean(pes, (CLASSES, ALL))
        raise InputError("no such choice of PEs", path="pes", given=pes, expected=expected, hint=hint)
    given = range(num_pes) if isinstance(pes, str) else list(pes)
    wrong = [pe for pe in given if not isinstance(pe, Integral) or isinstance(pe, bool) or not 0 <= pe < num_pes]
    if wrong:
        raise InputError("there is no such PE", path="pes", given=wrong[0], expected=expected)
    listed = sorted({int(pe) for pe in given})
    if not listed:
        raise InputError("no PE is listed", path="pes", given=listed, expected=expected)
    stages = sum(span.on_pes for span in report.trace.spans)
    if 2 * stages * len(listed) > MAX_SLICES:
        raise InputError(
            f"a timeline of {len(listed):,} PEs would have up to {2 * stages * len(listed):,} slices",
            path="pes",
            given=pes if isinstance(pes, str) else f"{len(listed):,} PEs",
            expected=f"at most {MAX_SLICES:,} slices, which are {MAX_SLICES // (2 * stages):,} of these PEs",
            hint=f"list some of them, or take {CLASSES}: PEs that do the same share a track",
        )
    return listed


def _tracks(report: StepFigures, shown: Sequence[IntArray]) -> tuple[Track, ...]:
    titles = stage_titles(report)
    ports = _port_slices(report, titles, shown)
    tracks: list[Track] = []
    for pes, streams in zip(shown, ports, strict=True):
        name, pe = class_name(pes), int(pes[0])
        tracks.append(Track(PES, name, tuple(_work_slices(report, titles, pe)), pe, works=True))
        tracks.append(Track(PES, f"{name}: memory port", tuple(streams), pe))
    return tuple(tracks)


def _work_slices(report: StepFigures, titles: Sequence[str], pe: int) -> list[Slice]:
    slices = []
    for span, _ in report.timeline.active():
        if not span.on_pes or not span.parts.working[pe]:
            continue
        kind = KIND_OF[report.timeline.resource_of(span.order, pe)]
        args = {**stage_args(report, span.order), "distribution": span.distribution, "limited_by": kind}
        start, end = span.bounds_on(pe)
        slices.append(Slice(titles[span.order], kind, start, end, span.order, args))
    return sorted(slices, key=lambda piece: (piece.start, piece.end))


def _port_slices(report: StepFigures, titles: Sequence[str], shown: Sequence[IntArray]) -> list[list[Slice]]:
    found: list[list[Slice]] = [[] for _ in shown]
    for access in port_accesses(report.timeline):
        for slices, pes in zip(found, shown, strict=True):
            if access.active[pes[0]]:
                slices += _port_slices_of(report, titles[access.order], access, pes)
    return [sorted(slices, key=lambda piece: (piece.start, piece.end)) for slices in found]


def _port_slices_of(report: StepFigures, name: str, access: PortAccess, pes: IntArray) -> Iterable[Slice]:
    stage, order, pe = report.timeline.stages[access.order], access.order, int(pes[0])
    assert isinstance(stage, PeStage)
    matrix = stage.matrix
    args: dict[str, Any] = stage_args(report, order)
    start, end = int(access.ahead_start[pe]), int(access.ahead_end[pe])
    if end > start:
        yield Slice(f"{name}{SEPARATOR}prefetch", "memory", start, end, order, {**args, "busy_cycles": end - start})
    start, end = int(access.start[pe]), int(access.end[pe])
    if end > start:
        what = "read or write" if matrix is None else "stream weights" if matrix.static else "stream"
        args |= {"busy_cycles": int(access.busy[pe])}
        if matrix is not None:
            args |= {"bytes": _common(matrix.read_bytes[pes]), "passes": int(matrix.full_passes[pe]) + 1}
        yield Slice(f"{name}{SEPARATOR}{what}", "memory", start, end, order, args)


def _common(values: IntArray) -> int | str:
    """The value that PEs of a class share, or its range, as they may stream a few bytes more or less."""
    least, most = int(values.min()), int(values.max())
    return least if least == most else f"{least}-{most}"
