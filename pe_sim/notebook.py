"""The look of results in a notebook: takes texts and numbers, gives HTML in one style.

Styles are inline, since a page of many cells has no head to share; without them (GitHub drops styles) plain tables
remain. Colours are the page's own, so that dark themes work too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Final, Protocol

LINE: Final = "1px solid rgba(128,128,128,.45)"
_CELL: Final = "padding:.15em .7em .15em 0"
_DIGITS: Final = 4


@dataclass(frozen=True, slots=True)
class Table:
    """A table of texts.

    Args:
        columns: heads of the columns.
        rows: each a text for every column.
        text_columns: number of first columns that are words; those after them are numbers, flush right.
        marked: index of the row to set in bold; None: none.
        most: number of rows to show if at least two more would be hidden; None: all.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    text_columns: int = 1
    marked: int | None = None
    most: int | None = None


class Frame(Protocol):
    """The part of a pandas.DataFrame that is needed here."""

    @property
    def columns(self) -> Iterable[str]:
        """The names of the columns."""

    def itertuples(self, *, index: bool, name: None) -> Iterable[tuple[Any, ...]]:
        """The rows as tuples."""


class Traffic(Protocol):
    """The part of a trace's `TagTraffic` that is needed here."""

    messages: int
    bytes: int
    busy_cycles: int


def card(
    title: str,
    facts: Iterable[tuple[str, str]] = (),
    tables: Iterable[Table] = (),
    notes: Iterable[str] = (),
) -> str:
    """HTML of one result: a bold line, then names with values, tables, and notes; all texts are escaped."""
    parts = [f"<p><b>{escape(title)}</b></p>"]
    pairs = "".join(_fact(name, value) for name, value in facts)
    parts += [f'<table style="border-collapse:collapse"><tbody>{pairs}</tbody></table>'] if pairs else []
    parts += [_table(table) for table in tables]
    parts += ["<p>" + "<br>".join(escape(line) for line in note.splitlines()) + "</p>" for note in notes]
    return f'<div style="max-width:64em">{"".join(parts)}</div>'


def frame_table(frame: Frame, *, text_columns: int, marked: int | None = None, most: int | None = None) -> Table:
    """A table of a pandas.DataFrame, its numbers as readable text; the other arguments are those of `Table`."""
    rows = [[number_text(value) for value in row] for row in frame.itertuples(index=False, name=None)]
    return Table([str(name).replace("_", " ") for name in frame.columns], rows, text_columns, marked, most)


def traffic_table(traffic: Mapping[str, Traffic], *, busy: bool = True) -> Table:
    """A table of messages, bytes and (if `busy`) busy cycles of the tags that were used."""
    heads = ("tag", "messages", "bytes", "busy cycles")
    used = [(tag, use.messages, use.bytes, use.busy_cycles) for tag, use in traffic.items() if use.messages]
    count = len(heads) if busy else len(heads) - 1
    return Table(heads[:count], [[number_text(cell) for cell in row[:count]] for row in used])


def number_text(value: object) -> str:
    """A value as text: thousands separated in whole numbers, four digits of others, a dash for none."""
    if value is None or str(value) == "<NA>" or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, bool) or str(value) in ("True", "False"):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.{_DIGITS}g}" if abs(value) < 10**_DIGITS else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _fact(name: str, value: str) -> str:
    return (
        f'<tr><th style="text-align:left;white-space:nowrap;{_CELL}">{escape(name)}</th>'
        f'<td style="text-align:left;{_CELL}">{escape(value)}</td></tr>'
    )


def _table(table: Table) -> str:
    """HTML of a table; the last line says how many rows are not shown."""
    left, right = f"text-align:left;{_CELL}", f"text-align:right;{_CELL}"
    sides = [left if column < table.text_columns else right for column in range(len(table.columns))]
    head = "".join(
        f'<th style="{side};border-bottom:{LINE}">{escape(name)}</th>'
        for name, side in zip(table.columns, sides, strict=True)
    )
    all_fit = table.most is None or len(table.rows) <= table.most + 1
    shown = table.rows if all_fit else table.rows[: table.most]
    lines = [_row(row, sides, index == table.marked) for index, row in enumerate(shown)]
    if len(shown) < len(table.rows):
        more = f"and {len(table.rows) - len(shown):,} more"
        lines.append(f'<tr><td style="{left}" colspan="{len(sides)}">{more}</td></tr>')
    return (
        f'<table style="border-collapse:collapse;margin:.5em 0"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table>"
    )


def _row(cells: Sequence[str], sides: Sequence[str], marked: bool) -> str:
    texts = [f"<b>{escape(cell)}</b>" if marked else escape(cell) for cell in cells]
    return (
        "<tr>" + "".join(f'<td style="{side}">{text}</td>' for text, side in zip(texts, sides, strict=True)) + "</tr>"
    )
