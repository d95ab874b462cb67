"""Plain tables: takes column titles and rows, gives aligned lines in the manner of nccl-tests, or CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path


def format_table(titles: Sequence[str], units: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Right-aligned columns; titles and units are lines that start with `#`."""
    lines = [titles, [f"({unit})" if unit else "" for unit in units], *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(titles))]
    marks = ["# ", "# ", *["  "] * len(rows)]
    return "".join(
        mark + "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)).rstrip() + "\n"
        for mark, line in zip(marks, lines, strict=True)
    )


def format_pairs(pairs: Sequence[tuple[str, str]]) -> str:
    """`name  value` lines with the values below each other."""
    width = max(len(name) for name, _ in pairs)
    return "".join(f"  {name:<{width}}  {value}\n" for name, value in pairs)


def write_csv(path: Path, rows: Sequence[Mapping[str, object]], columns: Sequence[str]) -> None:
    """Writes a header and one line a row; empty where there is no value; `columns`: of no rows at all."""
    names = list(dict.fromkeys(key for row in rows for key in row)) or list(columns)
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    path.write_text(text.getvalue(), encoding="utf-8", errors="backslashreplace", newline="")
