"""A measured curve: takes wall times against one quantity, gives fitted exponents, a table and a sentence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

NOT_ONE_PASS = "*"
# Exponents by what they are called: up to which, and the words for it.
GROWTH_WORDS = (
    (-0.15, "It falls"),
    (0.15, "Hardly any growth"),
    (0.85, "Less than in proportion"),
    (1.15, "In proportion"),
    (float("inf"), "More than in proportion"),
)
_END = 3  # points that are the end of a curve
_TELLING = 0.15  # a difference of exponents that is worth a word


@dataclass(frozen=True, slots=True)
class Series:
    """Seconds at each point, None where it was not measured.

    `marked` are the points where the fast engine went event by event.
    """

    name: str
    seconds: tuple[float | None, ...]
    marked: tuple[bool, ...] = ()

    def is_marked(self, index: int) -> bool:
        """Whether the point is one that went event by event."""
        return bool(self.marked) and self.marked[index]


@dataclass(frozen=True, slots=True)
class Curve:
    """Series over the same points `x`, of which `quantity` is the name, as in "the number of PEs"."""

    title: str
    quantity: str
    unit: str
    x: tuple[int, ...]
    series: tuple[Series, ...]

    @property
    def label(self) -> str:
        """Of the axis."""
        name = self.quantity.removeprefix("the ")
        return name if self.unit == "" else f"{name} ({self.unit})"

    def exponent(self, series: Series, last: int | None = None) -> float | None:
        """k of the least-squares fit t = c·x^k over the measured points, or over the `last` of them.

        None for fewer than three, and where only some points went event by event: those are two curves.
        """
        points = [(x, seconds) for x, seconds in zip(self.x, series.seconds, strict=True) if seconds is not None]
        if len(points) < _END or 0 < sum(series.marked) < len(series.marked):
            return None
        logs = np.log(points[-last:] if last else points)
        return float(np.polyfit(logs[:, 0], logs[:, 1], 1)[0])

    def sentence(self) -> str:
        """How each series grows, by its fitted exponent; what cannot be fitted is left out."""
        said: dict[str, list[str]] = {words: [] for _, words in GROWTH_WORDS}
        for series in self.series:
            whole, end = self.exponent(series), self.exponent(series, _END)
            if whole is not None and end is not None:
                words = next(words for limit, words in GROWTH_WORDS if whole <= limit)
                at_end = f", at the end {_rounded(end)}" if abs(end - whole) > _TELLING else ""
                said[words].append(f"{series.name} ({_rounded(whole)}{at_end})")
        parts = [f"{words}: {', '.join(names)}." for words, names in said.items() if names]
        return " ".join((f"{self.title}, {self.x[0]:,} to {self.x[-1]:,}.", *parts))

    def table(self, ratio: tuple[str, str] | None = None) -> str:
        """In milliseconds; the last column is the ratio of the two series that are named."""
        header = [self.label, *(f"{series.name}, ms" for series in self.series)]
        lines = [[f"{x:,}", *(_cell(series, index) for series in self.series)] for index, x in enumerate(self.x)]
        fits = [
            ["exponent", *(_optional(self.exponent(series)) for series in self.series)],
            ["at the end", *(_optional(self.exponent(series, _END)) for series in self.series)],
        ]
        if ratio:
            header.append(" / ".join(ratio))
            for index, line in enumerate(lines):
                line.append(self._ratio(index, *ratio))
            for line in fits:
                line.append("")
        return markdown_table(header, [*lines, *fits])

    def _ratio(self, index: int, above: str, below: str) -> str:
        by_name = {series.name: series.seconds[index] for series in self.series}
        numerator, denominator = by_name[above], by_name[below]
        return "" if numerator is None or denominator is None else significant(numerator / denominator)


def _cell(series: Series, index: int) -> str:
    seconds = series.seconds[index]
    if seconds is None:
        return ""
    return significant(1e3 * seconds) + (NOT_ONE_PASS if series.is_marked(index) else "")


def _optional(exponent: float | None) -> str:
    return "" if exponent is None else _rounded(exponent)


def _rounded(exponent: float) -> str:
    return f"{round(exponent, 2) + 0.0:.2f}"  # no -0.00


def significant(value: float, digits: int = 3) -> str:
    """Rounded to so many digits, without powers of ten: 0.00123, 12.3, 1,230."""
    if value == 0:
        return "0"
    decimals = digits - 1 - int(np.floor(np.log10(abs(value))))
    rounded = round(value, decimals)
    decimals = digits - 1 - int(np.floor(np.log10(abs(rounded))))  # 9.996 has become 10.0
    return f"{rounded:,.{max(decimals, 0)}f}"


def markdown_table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """With aligned columns: the first to the left, the others to the right."""
    rows = [header, *lines]
    widths = [max(3, *(len(row[column]) for row in rows)) for column in range(len(header))]
    ruler = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]

    def join(cells: Sequence[str]) -> str:
        first, *others = zip(cells, widths, strict=True)
        aligned = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
        return "| " + " | ".join(aligned) + " |\n"

    return join(header) + join(ruler) + "".join(join(row) for row in rows[1:])
