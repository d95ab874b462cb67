"""What PEs do, as tracks: takes a report and a choice of PEs, gives a track of work and one of the memory port each.

PEs whose stages start, end and stream in the same cycles are one class, neighbours or not, and share their tracks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Final

import numpy as np

from pe_sim.errors import InputError, did_you_mean
from pe_sim.report.links import counted
from pe_sim.report.memory_ports import PortAccess, port_accesses
from pe_sim.report.metrics import KIND_OF
from pe_sim.report.report import Report
from pe_sim.report.stage_names import SEPARATOR
from pe_sim.report.tracks import PES, Slice, Track, stage_args, stage_titles
from pe_sim.schedule.stages import PeStage
from pe_sim.units import IntArray

PeChoice = str | Sequence[int]
CLASSES: Final = "classes"
ALL: Final = "all"
MAX_CLASSES: Final = 32
MAX_SLICES: Final = 500_000  # of PEs that were asked for one by one
_NAMED_RANGES: Final = 3


@dataclass(frozen=True, eq=False)
class PeTracks:
    """Tracks of PEs.

    Args:
        tracks: of work and of memory ports, by the lowest PE.
        left_out: what the classes without a track are called.
    """

    tracks: tuple[Track, ...]
    left_out: tuple[str, ...]


def pe_tracks(report: Report, pes: PeChoice = CLASSES, max_classes: int = MAX_CLASSES) -> PeTracks:
    """Tracks of classes of PEs, of all PEs, or of those that are listed.

    Args:
        pes: "classes", "all", or numbers of PEs.
        max_classes: of more classes those with the longest part of the critical path are shown, then the largest.

    Raises:
        InputError: another word, a number that no PE has, or more slices than a timeline can show.
    """
    if pes == CLASSES:
        classes = pe_classes(report)
        chosen = _most_telling(report, classes, max_classes)
        left_out = [class_name(each) for index, each in enumerate(classes) if index not in chosen]
        return PeTracks(_tracks(report, [classes[index] for index in chosen]), tuple(left_out))
    return PeTracks(_tracks(report, [np.array([pe]) for pe in _listed(report, pes)]), ())


def check_pes(report: Report, pes: PeChoice) -> None:
    """Whether tracks of these PEs can be had.

    Raises:
        InputError: as `pe_tracks`.
    """
    if pes != CLASSES:
        _listed(report, pes)


def pe_classes(report: Report) -> list[IntArray]:
    """The PEs of each class in ascending order, the classes by their lowest PE."""
    label = np.zeros(report.array.num_pes, dtype=np.int64)
    first = np.zeros(1, dtype=np.int64)  # of each class
    for column in _columns(report):
        if not np.array_equal(column, column[first][label]):
            distinct, number = np.unique(column, return_inverse=True)
            _, first, label = np.unique(label * len(distinct) + number, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")
    return [np.flatnonzero(label == number) for number in order.tolist()]


def class_name(pes: IntArray) -> str:
    """ "PE 3", "PEs 0-31", "PEs 0-3, 8-11"; of many ranges the first ones, and how many PEs there are."""
    if len(pes) == 1:
        return f"PE {pes[0]}"
    cuts = np.flatnonzero(np.diff(pes) > 1) + 1
    ranges = [(int(run[0]), int(run[-1])) for run in np.split(pes, cuts)]
    named = ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in ranges[:_NAMED_RANGES])
    return f"PEs {named}" if len(ranges) <= _NAMED_RANGES else f"PEs {named}, ... ({len(pes):,} PEs)"


def _columns(report: Report) -> Iterable[IntArray]:
    """(PEs,) whatever tells PEs apart: when they work, and what their ports do."""
    told: set[int] = set()
    for span, stage in report.timeline.active():
        if span.pe_start is None or span.pe_end is None or not isinstance(stage, PeStage):
            continue
        yield span.pe_start
        yield span.pe_end
        if id(stage) not in told:
            told.add(id(stage))
            matrix = stage.matrix
            yield from (stage.cycles,) if matrix is None else (matrix.memory_cycles, matrix.compute_cycles)


def _most_telling(report: Report, classes: Sequence[IntArray], most: int) -> list[int]:
    """Which classes have a track, in their order."""
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


def _listed(report: Report, pes: PeChoice) -> list[int]:
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
    stages = sum(span.on_pes is not None for span in report.trace.spans)
    if 2 * stages * len(listed) > MAX_SLICES:
        raise InputError(
            f"a timeline of {len(listed):,} PEs would have up to {2 * stages * len(listed):,} slices",
            path="pes",
            given=pes if isinstance(pes, str) else f"{len(listed):,} PEs",
            expected=f"at most {MAX_SLICES:,} slices, which are {MAX_SLICES // (2 * stages):,} of these PEs",
            hint=f"list some of them, or take {CLASSES}: PEs that do the same share a track",
        )
    return listed


def _tracks(report: Report, shown: Sequence[IntArray]) -> tuple[Track, ...]:
    titles = stage_titles(report)
    ports = _port_slices(report, titles, shown)
    tracks: list[Track] = []
    for pes, streams in zip(shown, ports, strict=True):
        name, pe = class_name(pes), int(pes[0])
        tracks.append(Track(PES, name, tuple(_work_slices(report, titles, pe)), pe, works=True))
        tracks.append(Track(PES, f"{name}: memory port", tuple(streams), pe))
    return tuple(tracks)


def _work_slices(report: Report, titles: Sequence[str], pe: int) -> list[Slice]:
    slices = []
    for span, _ in report.timeline.active():
        if span.on_pes is None or not span.on_pes.working[pe]:
            continue
        kind = KIND_OF[report.timeline.resource_of(span.order, pe)]
        args = {**stage_args(report, span.order), "distribution": span.distribution, "limited_by": kind}
        start, end = span.bounds_on(pe)
        slices.append(Slice(titles[span.order], kind, start, end, span.order, args))
    return sorted(slices, key=lambda piece: (piece.start, piece.end))


def _port_slices(report: Report, titles: Sequence[str], shown: Sequence[IntArray]) -> list[list[Slice]]:
    found: list[list[Slice]] = [[] for _ in shown]
    for access in port_accesses(report.timeline):
        for slices, pes in zip(found, shown, strict=True):
            if access.active[pes[0]]:
                slices += _port_slices_of(report, titles[access.order], access, pes)
    return [sorted(slices, key=lambda piece: (piece.start, piece.end)) for slices in found]


def _port_slices_of(report: Report, name: str, access: PortAccess, pes: IntArray) -> Iterable[Slice]:
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
    """What PEs of a class have in common: they may stream a few bytes more or less in the same cycles."""
    least, most = int(values.min()), int(values.max())
    return least if least == most else f"{least}-{most}"
