"""What the templates draw: tables, stacked bars, heat maps and texts, without a word of HTML."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cell:
    """One entry of a table.

    Args:
        text: what is shown.
        value: what it is sorted by; None: by the text.
        share: 0..1, a bar behind the number; None: no bar.
        strong: whether it stands out.
    """

    text: str
    value: float | None = None
    share: float | None = None
    strong: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """A table that sorts by each column.

    Args:
        columns: heads; the first `text_columns` are of texts, the others of numbers.
        rows: a cell a column.
        foot: the last row, of sums, which stays where it is; empty: none.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    text_columns: int = 1
    foot: tuple[Cell, ...] = ()


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of a bar; `share` of the whole scale, 0..1; `striped` where it is communication."""

    name: str
    text: str
    share: float
    colour: str
    striped: bool = False


@dataclass(frozen=True, slots=True)
class Bar:
    """A stacked bar with its label and what is said behind it."""

    label: str
    text: str
    segments: tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class Bars:
    """Bars of one scale, and a legend of the segments' names in them."""

    bars: tuple[Bar, ...]

    @property
    def legend(self) -> tuple[Segment, ...]:
        """One segment of each name, in the order of their first appearance."""
        found: dict[str, Segment] = {}
        for bar in self.bars:
            for segment in bar.segments:
                found.setdefault(segment.name, segment)
        return tuple(found.values())


@dataclass(frozen=True, slots=True)
class Fact:
    """A figure that is shown large: what it is, its value, and a line below."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Source:
    """A text to copy, such as a resolved config."""

    title: str
    text: str


def number(value: float, text: str | None = None, share: float | None = None) -> Cell:
    """A cell that sorts by its value; whole numbers are grouped by thousands."""
    return Cell(text if text is not None else f"{value:,}", float(value), share)


def texts(cells: Iterable[str]) -> tuple[Cell, ...]:
    """Cells of plain text."""
    return tuple(Cell(text) for text in cells)


def percent(share: float) -> Cell:
    """A cell of a share, 0..1, with its bar."""
    return Cell(f"{share:.1%}", share, max(0.0, min(1.0, share)))
