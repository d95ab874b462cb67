"""A sensitivity for people: takes one, gives its table, its tornado figure and its rows in a notebook."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final, TextIO

from pe_sim.errors import DOES_NOT_FIT
from pe_sim.notebook import Table, card
from pe_sim.report.table import emit, make_table
from pe_sim.studies.parameters import Kind
from pe_sim.studies.sensitivity import Move, Sensitivity, Worth
from pe_sim.units import format_seconds

if TYPE_CHECKING:
    from pe_sim.report.tornado_plot import Axes, Bar

_HEAD: Final = ("parameter", "now", "moved to", "1% more", "1% less", "elasticity")
_HOW: Final = (
    "1% more, 1% less: of the parameter, in per cent of the step's time; simulated at the values it was moved to, and"
    " brought to one per cent. Elasticity: per cent of the time for one per cent, over both moves."
)


def print_sensitivity(found: Sensitivity, file: TextIO | None = None) -> None:
    """Prints the table to `file`, or to stdout."""
    rows = [_cells(row) for row in found.rows]
    heading = (
        f"{title_of(found)}: {found.cycles:,.0f} cycles ="
        f" {format_seconds(found.cycles / (found.array.clock_ghz * 1e9))}"
    )
    table = make_table("What one per cent of each parameter is worth", *_HEAD, rows=rows, text_columns=3)
    emit((heading, table, "", *_notes(found)), file)


def title_of(found: Sensitivity) -> str:
    """What was simulated, in one line."""
    phases = " and ".join(dict.fromkeys(step.phase for step, _ in found.steps))
    where = f"{found.array.name} ({found.array.num_pes:,} PEs)"
    lacks = f" ({DOES_NOT_FIT})" if found.shortage else ""
    return f"{found.model.name} on {where}, {found.workflow.name}, {phases}{lacks}"


def plot_sensitivity(found: Sensitivity, ax: Axes | None = None) -> Axes:
    """The tornado figure, drawn into `ax` or a new figure."""
    from pe_sim.report.tornado_plot import plot_tornado

    return plot_tornado(_bars(found), title_of(found), ax)


def save_sensitivity(found: Sensitivity, path: Path) -> None:
    """Writes the tornado figure as a PNG file."""
    from pe_sim.report.tornado_plot import save_tornado

    save_tornado(_bars(found), title_of(found), path)


def _bars(found: Sensitivity) -> list[Bar]:
    from pe_sim.report.tornado_plot import Bar

    return [
        Bar(f"{row.parameter}\n{_now(row)}", row.more.per_cent, row.less.per_cent if row.less else None)
        for row in found.rows
    ]


def html_of(found: Sensitivity) -> str:
    """The table as HTML."""
    return card(title_of(found), tables=[Table(_HEAD, [_cells(row) for row in found.rows])], notes=_notes(found))


def _cells(row: Worth) -> tuple[str, ...]:
    moves = [move for move in (row.less, row.more) if move is not None]
    moved = ", ".join(move.value for move in moves)
    return (row.parameter, _now(row), moved, _worth(row.more), _worth(row.less), _elasticity(row))


def _now(row: Worth) -> str:
    return f"{row.value} {row.unit.removesuffix('s') if row.value == '1' else row.unit}"


def _worth(move: Move | None) -> str:
    return "-" if move is None or move.per_cent is None else _signed(move.per_cent) + "%"


def _elasticity(row: Worth) -> str:
    return "-" if row.elasticity is None else _signed(row.elasticity)


def _signed(value: float) -> str:
    """Four decimals; no sign where they are all 0."""
    text = f"{value:+.4f}"
    return "0" if float(text) == 0 else text


def _notes(found: Sensitivity) -> list[str]:
    notes = [f"{DOES_NOT_FIT}: {found.shortage.problem}."] if found.shortage else []
    notes.append(_HOW)
    total = found.sum_of_elasticities
    if total is not None:
        notes.append(
            f"Sum of the elasticities, latency of everything less all rates: {total:.3f}"
            " (1 where every bound is smooth)."
        )
    if any(row.kind is Kind.COUNT for row in found.rows):
        notes.append(
            "Counts of units, which cut work into tiles and shards, and the wire speed, whose latencies are rounded up,"
            " are doubled and halved."
        )
    for row in found.rows:
        for move in (row.more, row.less):
            if move is not None and move.reason:
                notes.append(f"{row.parameter} at {move.value} cannot be simulated: {move.reason}.")
            if move is not None and move.shortage and not found.shortage:
                notes.append(f"{row.parameter} at {move.value} {DOES_NOT_FIT}: {move.shortage.problem}.")
    reasons: dict[str, list[str]] = {}
    for name, reason in found.left_out.items():
        reasons.setdefault(reason, []).append(name)
    notes += [f"note: {note}" for note in found.model.notes]
    notes += [f"Left out: {', '.join(names)}: {reason}." for reason, names in reasons.items()]
    return notes
