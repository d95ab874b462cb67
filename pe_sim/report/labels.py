"""Labels of points that do not cover each other: takes markers and what is taken, gives a place for every text."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

_CHARACTER: Final = 0.58  # of the font's size: a little more than the mean
_LINE: Final = 1.25  # likewise, from one line to the next
_WIDTHS: Final = (34, 17, 11)  # characters of a line: the next where there is no room for the one before
_TOGETHER: Final = 3.0  # points: markers nearer than that share a label
_PADDING: Final = 2.0  # points around a text
_GAP: Final = 5.0  # points from a marker's edge to its label
_STEPS: Final = 80  # up and down, of half a line each


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle, in points."""

    left: float
    right: float
    bottom: float
    top: float

    def overlaps(self, other: Box) -> bool:
        """Whether they have an area in common."""
        beside = self.right <= other.left or other.right <= self.left
        return not (beside or self.top <= other.bottom or other.top <= self.bottom)

    def holds(self, other: Box) -> bool:
        """Whether the other lies inside."""
        across = self.left <= other.left and other.right <= self.right
        return across and self.bottom <= other.bottom and other.top <= self.top


@dataclass(frozen=True, slots=True)
class Marker:
    """What has a name: its middle and its radius, in points."""

    name: str
    x: float
    y: float
    radius: float

    @property
    def box(self) -> Box:
        """The square around it."""
        return Box(self.x - self.radius, self.x + self.radius, self.y - self.radius, self.y + self.radius)


@dataclass(frozen=True, slots=True)
class Label:
    """A text of one or several lines: the middle of its left or right end, and the marker it belongs to."""

    text: str
    of: Marker
    x: float
    y: float
    align: str
    box: Box


def place_labels(
    markers: Sequence[Marker],
    limits: Box,
    taken: Sequence[Box],
    font: float,
    joined: Callable[[Sequence[str]], str] = ", ".join,
) -> list[Label]:
    """Labels right or left of their markers, as near as there is room, those of markers that lie on each other as one.

    Args:
        markers: what to name.
        limits: where labels may be.
        taken: where they may not be, beside on the markers and on each other.
        font: its size, in points.
        joined: makes the text of several names; what a non-breaking space holds together stays on one line.
    """
    placed: list[Label] = []
    groups = _grouped(markers)
    for names, marker in groups:
        obstacles = [*taken, *(other.box for other in markers), *(label.box for label in placed)]
        texts = [textwrap.fill(joined(names), width, break_long_words=False) for width in _WIDTHS]
        placed.append(_place(texts, marker, limits, obstacles, font))
    return placed


def _grouped(markers: Sequence[Marker]) -> list[tuple[list[str], Marker]]:
    """Names by marker, from the top down; markers that lie on each other are the widest of them."""
    groups: list[tuple[list[str], Marker]] = []
    for marker in sorted(markers, key=lambda each: (-each.y, -each.radius)):
        near = next((i for i, (_, other) in enumerate(groups) if _distance(marker, other) < _TOGETHER), None)
        if near is None:
            groups.append(([marker.name], marker))
        else:
            names, other = groups[near]
            groups[near] = [*names, marker.name], max(other, marker, key=lambda each: each.radius)
    return groups


def _place(texts: Sequence[str], marker: Marker, limits: Box, obstacles: Sequence[Box], font: float) -> Label:
    """The first of ever farther places that is free for the first text that has one; if none has, the nearest one."""
    line = _LINE * font / 2
    shifts = [0.0, *(sign * step * line for step in range(1, _STEPS) for sign in (-1, 1))]
    sides = ((1, "left"), (-1, "right"))
    for text in dict.fromkeys(texts):
        for label in (_candidate(text, marker, shift, side, align, font) for shift in shifts for side, align in sides):
            if limits.holds(label.box) and not any(label.box.overlaps(other) for other in obstacles):
                return label
    return _candidate(texts[0], marker, shifts[0], *sides[0], font)


def _candidate(text: str, marker: Marker, shift: float, side: int, align: str, font: float) -> Label:
    lines = text.split("\n")
    width, height = _CHARACTER * font * max(map(len, lines)), _LINE * font * len(lines)
    x, y = marker.x + side * (marker.radius + _GAP + abs(shift) / 4), marker.y + shift
    left = x if side > 0 else x - width
    return Label(
        text, marker, x, y, align, Box(left - _PADDING, left + width + _PADDING, y - height / 2, y + height / 2)
    )


def _distance(first: Marker, second: Marker) -> float:
    return math.hypot(first.x - second.x, first.y - second.y)
