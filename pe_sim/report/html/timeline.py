"""The timeline of a page: takes a report, gives the tracks as columns for the script, and one layer as a drawing.

The columns hold the whole step up to `MAX_SLICES` slices: tracks beyond that are left out and named, and on a track
of very many slices those of one stage are taken together. The drawing is what readers see without the script, and
what is printed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Final

from pe_sim.report.analysis.timeline import SEPARATOR
from pe_sim.report.palette import KIND_COLOURS, TAG_COLOURS
from pe_sim.report.perfetto.export import PERCENT, counters
from pe_sim.report.perfetto.tracks import CLASSES, LAYER, STEP, Slice, Track, pe_tracks, shared_tracks
from pe_sim.report.step import StepFigures

MAX_SLICES: Final = 60_000  # of a page
MAX_TRACK_SLICES: Final = 8_000
MAX_CLASSES: Final = 8
COURSE_BINS: Final = 250
MAX_CHANNELS: Final = 12
WIDTH: Final = 1000.0  # of the drawing, in its own units
_LAYER_COLOUR: Final = "#E8ECF1"
_THINNEST: Final = 0.5
_CHARACTER: Final = 6.0  # width of a label's character
_GAP: Final = 0.2  # slices closer than this are drawn as one
COLOURS: Final = {LAYER: _LAYER_COLOUR, **KIND_COLOURS, **TAG_COLOURS}
_KIND_TITLES: Final = {
    "memory": "PE: streaming from memory",
    "compute": "PE: computing",
    "vector": "PE: vector unit",
    "root": "root",
    "wait": "wait",
}


@dataclass(frozen=True, slots=True)
class Box:
    """A slice of the drawing: x and width in its units, in row `row`; `label` is empty if there is no room for it."""

    x: float
    width: float
    row: int
    colour: str
    title: str
    label: str = ""


@dataclass(frozen=True, slots=True)
class Timeline:
    """The timeline of a page: all tracks for the script, and the drawing of one layer.

    Args:
        data: for the script, JSON-ready: names, kinds, and the columns of each track's slices.
        rows: names of the drawn tracks.
        boxes: the slices of the drawing, which goes from cycle `first` to `last`.
        title: name of the part that is drawn.
        legend: (title, colour) of the kinds that occur.
        left_out: names of tracks that are not on the page.
    """

    data: dict[str, Any]
    rows: tuple[str, ...]
    boxes: tuple[Box, ...]
    first: int
    last: int
    title: str
    legend: tuple[tuple[str, str], ...]
    left_out: tuple[str, ...]


def timeline(report: StepFigures, max_slices: int = MAX_SLICES, scale_cycles: int | None = None) -> Timeline:
    """The timeline of a report.

    Args:
        max_slices: the most slices of all tracks together.
        scale_cycles: the least width of the drawing in cycles, to give several drawings one scale.
    """
    of_pes = pe_tracks(report, CLASSES, MAX_CLASSES)
    tracks, left_out = _within([*_shared(report), *of_pes.tracks], max_slices)
    first, last, title = drawn_span(report)
    shown = [track for track in tracks if any(_overlaps(piece, first, last) for piece in track.slices)]
    scale = WIDTH / max(last - first, scale_cycles or 0, 1)
    boxes = [box for row, track in enumerate(shown) for box in _boxes(track, row, first, last, scale)]
    kinds = list(dict.fromkeys(piece.kind for track in tracks for piece in track.slices))
    legend = [(_KIND_TITLES.get(kind, kind), COLOURS[kind]) for kind in kinds if kind != LAYER]
    data = _columns(report, tracks, kinds) | {"focus": [first, first + max(last - first, scale_cycles or 0)]}
    names = tuple(track.name for track in shown)
    omitted = (*left_out, *of_pes.left_out)
    return Timeline(data, names, tuple(boxes), first, last, title, tuple(legend), omitted)


@dataclass(frozen=True, slots=True)
class Course:
    """How busy something was over the step: corners of a polygon, each 0..1 from the left and from the top."""

    name: str
    mean: float
    most: float
    points: tuple[tuple[float, float], ...]


def courses(report: StepFigures) -> tuple[Course, ...]:
    """The utilization of channels and of PEs' units over time, in `COURSE_BINS` equal parts of the step."""
    found = []
    for counter in counters(report, COURSE_BINS):
        if counter.unit == PERCENT:
            shares = [min(value / 100, 1.0) for value in counter.values.tolist()]
            steps = [(bin_ + side, 1.0 - share) for bin_, share in enumerate(shares) for side in (0, 1)]
            points = [(0.0, 1.0), *((x / COURSE_BINS, y) for x, y in steps), (1.0, 1.0)]
            name = counter.name.partition(":")[0]
            found.append(Course(name, float(counter.values.mean()) / 100, max(shares), tuple(points)))
    return tuple(found)


def drawn_span(report: StepFigures) -> tuple[int, int, str]:
    """Start and end cycle of what is drawn, and its name: a layer in the middle, or without layers the whole step."""
    spans = [span for span in report.trace.spans if span.layer is not None and span.start >= 0]
    if not spans:
        return 0, max(report.latency_cycles, 1), "The whole step"
    layer = report.graph.num_layers // 2
    mine = [span for span in spans if span.layer == layer] or spans
    first, last = min(span.start for span in mine), max(span.end for span in mine)
    return first, max(last, first + 1), f"Layer {layer} of {report.graph.num_layers}"


def _shared(report: StepFigures) -> list[Track]:
    """All tracks but those of PEs, the most telling first, with the layers on a track of their own."""
    path, *others = shared_tracks(report, MAX_CHANNELS).tracks
    layers = tuple(piece for piece in path.slices if piece.kind == LAYER)
    links = tuple(piece for piece in path.slices if piece.kind != LAYER)
    return [Track(STEP, "layers", layers), Track(STEP, path.name, links), *others]


def _coalesced(slices: Sequence[Slice]) -> Iterable[Slice]:
    if len(slices) <= MAX_TRACK_SLICES:
        return slices
    runs = (list(run) for _, run in groupby(slices, key=lambda piece: piece.order))
    return [Slice(run[0].name, run[0].kind, run[0].start, run[-1].end, run[0].order, run[0].args) for run in runs]


def _within(tracks: Sequence[Track], most: int) -> tuple[list[Track], list[str]]:
    kept: list[Track] = []
    left_out: list[str] = []
    for track in tracks:
        slices = tuple(_coalesced(track.slices))
        if len(slices) > most:
            left_out.append(track.name)
        elif slices:
            kept.append(replace(track, slices=slices))
            most -= len(slices)
    return kept, left_out


def _columns(report: StepFigures, tracks: Sequence[Track], kinds: Sequence[str]) -> dict[str, Any]:
    """The tracks for the script, JSON-ready: a slice is five small numbers, as names without layers are few."""
    names: dict[str, int] = {}
    entries = []
    for track in tracks:
        columns: dict[str, list[int]] = {"start": [], "cycles": [], "name_of": [], "kind": [], "layer": []}
        for piece in track.slices:
            layer = piece.args.get("layer")
            name = piece.name.removeprefix(f"layer {layer}{SEPARATOR}")
            columns["start"].append(piece.start)
            columns["cycles"].append(piece.end - piece.start)
            columns["name_of"].append(names.setdefault(name, len(names)))
            columns["kind"].append(kinds.index(piece.kind))
            columns["layer"].append(-1 if layer is None or piece.kind == LAYER else layer)
        entries.append({"name": track.name, "group": track.group, **columns})
    return {
        "latency_cycles": report.latency_cycles,
        "clock_ghz": report.array.clock_ghz,
        "kinds": [[_KIND_TITLES.get(kind, kind), COLOURS[kind], kind in TAG_COLOURS] for kind in kinds],
        "names": list(names),
        "tracks": entries,
    }


def _overlaps(piece: Slice, first: int, last: int) -> bool:
    return piece.start < last and piece.end > first


def _boxes(track: Track, row: int, first: int, last: int, scale: float) -> Iterable[Box]:
    """The boxes of a track's slices; slices of one name that are too thin to tell apart share a box."""
    drawn: list[Box] = []
    for piece in track.slices:
        if not _overlaps(piece, first, last):
            continue
        start, end = max(piece.start, first), min(piece.end, last)
        x, width = (start - first) * scale, max((end - start) * scale, _THINNEST)
        before = drawn[-1] if drawn else None
        cycles = piece.end - piece.start
        title = f"{piece.name}: {cycles:,} {'cycle' if cycles == 1 else 'cycles'} from {piece.start:,}"
        alike = before is not None and before.title.partition(":")[0] == piece.name
        if before is not None and alike and x - before.x - before.width < _GAP:
            drawn[-1] = Box(before.x, x + width - before.x, row, before.colour, f"{piece.name}: several")
        else:
            drawn.append(Box(x, width, row, COLOURS[piece.kind], title, _label(piece, width)))
    return drawn


def _label(piece: Slice, width: float) -> str:
    """A slice's name without its layer, if too wide shortened (a message's to its action first); may be empty."""
    name = piece.name.removeprefix(f"layer {piece.args.get('layer')}{SEPARATOR}")
    room = int(width / _CHARACTER)
    if len(name) > room and piece.kind in TAG_COLOURS:
        name = name.rpartition(SEPARATOR)[2]
    return name if len(name) <= room else f"{name[: room - 1]}…" if room > 5 else ""
