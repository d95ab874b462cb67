"""What feeds what on a timeline: takes a report and its tracks, gives the arrows from results to their consumers.

An arrow leads from a message, a reduction or a job at the root to each slice that waits for it, and from the PEs that
finish last to the message or reduction that takes their result. Work that stays on its PE has none: it is on one track.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pe_sim.report.report import Report
from pe_sim.report.tracks import INTERCONNECT, ROOT, Slice, Track
from pe_sim.schedule.stages import PeStage


@dataclass(frozen=True, slots=True)
class Flow:
    """From the slice `source` of track number `source_track` to `target`; it begins no earlier than the source."""

    source: Slice
    source_track: int
    target: Slice
    target_track: int


def flows(report: Report, tracks: Sequence[Track]) -> Iterator[Flow]:
    """The arrows in the order of their targets' tracks."""
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
    """By stage, its slices with the numbers of their tracks, by start: of the network, of the root, of PEs' work."""
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
    """The slice that the target waited for: of those that ended before it the last, else the last that had begun."""
    before = bisect_right(sources, target.start, key=lambda entry: entry[1].start)
    ended = [entry for entry in sources[:before] if entry[1].end <= target.start]
    if ended:
        return max(ended, key=lambda entry: entry[1].end)
    return sources[before - 1] if before else None
