"""A step as tracks of slices, as timelines draw them: takes a report, gives what goes on where and when.

Slices of a track nest or follow each other and never overlap: what does overlap (reductions in disjoint subtrees, jobs
of several groups) goes to further lanes. Times are cycles.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from pe_sim.config.network import GraphNetwork
from pe_sim.report.links import Link
from pe_sim.report.metrics import LINK_KINDS
from pe_sim.report.report import Report
from pe_sim.report.stage_names import stage_title
from pe_sim.report.timeline import tag_of
from pe_sim.schedule.stages import Resource, RootStage
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
    """Something that goes on from cycle `start` to `end`.

    Args:
        name: for people.
        kind: what it is coloured by: a tag of the traffic for messages; compute, memory, vector or root for work;
            else a kind of the critical path, or `layer` for what encloses others.
        start, end: cycles.
        order: of the stage it belongs to; None for several.
        args: what else there is to tell, JSON-ready.
    """

    name: str
    kind: str
    start: int
    end: int
    order: int | None = None
    args: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Track:
    """Slices by start, an enclosing one before those in it.

    Args:
        group: one of `GROUPS`.
        pe: the PE it is of, which stands for all that do the same; None off the PEs.
        works: whether it shows what the PE works on: where a message's consumers are.
    """

    group: str
    name: str
    slices: tuple[Slice, ...]
    pe: int | None = None
    works: bool = False


@dataclass(frozen=True, slots=True)
class SharedTracks:
    """Tracks of all but the PEs, and how many busy channels and lanes were left out."""

    tracks: tuple[Track, ...]
    channels_left_out: int
    lanes_left_out: int


def shared_tracks(report: Report, max_channels: int = MAX_CHANNEL_TRACKS) -> SharedTracks:
    """The critical path, the root's units, and the channels; of a graph of channels the hottest ones."""
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


def stage_args(report: Report, order: int) -> dict[str, Any]:
    """What every slice tells of its stage."""
    span = report.trace.spans[order]
    return {"layer": span.layer, "operator": span.operator}


def stage_titles(report: Report) -> list[str]:
    """What the slices of each stage are called, by its order."""
    return [stage_title(span, stage) for span, stage in zip(report.trace.spans, report.timeline.stages, strict=True)]


def _channel_slices(report: Report, titles: Sequence[str], channel: int) -> list[Slice]:
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
    return [_channel_slice(report, titles, *entry) for entry in merged]


def _channel_slice(
    report: Report, titles: Sequence[str], order: int, start: int, end: int, num_bytes: int, uses: int
) -> Slice:
    tag = tag_of(report.timeline.stages[order])
    label = tag.value if tag is not None else ""
    args = {**stage_args(report, order), "tag": label, "bytes": num_bytes, "uses": uses}
    return Slice(titles[order], label, start, end, order, args)


def _shown_channels(report: Report, most: int) -> tuple[list[int], int]:
    """Channels with a track as the trace numbers them, and how many others carried something."""
    if not isinstance(report.array.network, GraphNetwork):
        return list(range(len(report.trace.channel_use.channels))), 0
    used = int(np.count_nonzero(report.channels.busy_cycles))
    return sorted(report.channels.hottest(most)), max(used - most, 0)


def lanes_of(group: str, name: str, slices: list[Slice]) -> tuple[list[Track], int]:
    """The slices on as few tracks as hold them without an overlap, at most `MAX_LANES`; and how many more it takes."""
    lanes: list[list[Slice]] = []
    for piece in sorted(slices, key=lambda piece: (piece.start, piece.end)):
        lane = next((lane for lane in lanes if lane[-1].end <= piece.start), None)
        if lane is None:
            lanes.append(lane := [])
        lane.append(piece)
    names = [name] if len(lanes) == 1 else [f"{name}, lane {number}" for number in range(1, len(lanes) + 1)]
    tracks = [Track(group, its, tuple(lane)) for its, lane in zip(names, lanes, strict=True)]
    return tracks[:MAX_LANES], max(len(tracks) - MAX_LANES, 0)


def _root_slices(report: Report, titles: Sequence[str], resource: Resource) -> list[Slice]:
    return [
        Slice(titles[span.order], "root", span.start, span.end, span.order, stage_args(report, span.order))
        for span, stage in report.timeline.active()
        if isinstance(stage, RootStage) and stage.resource is resource
    ]


def _critical_path(report: Report, titles: Sequence[str]) -> Iterable[Slice]:
    """What the latency is made of, layer by layer: the links of one layer that follow each other are in one slice."""
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


def _links(report: Report, titles: Sequence[str]) -> Iterable[Slice]:
    """The links, those of one stage on one resource that follow each other taken together."""
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
