"""The table of collectives against N: its columns, a look at it for a terminal, and what one reads from it."""

from __future__ import annotations

from typing import Final

import pandas as pd

from experiments import closed_forms as forms
from experiments.closed_forms import Series

# `bytes` are as `ps.collective` takes them: of the whole, or of each PE's part where the collective moves parts.
COLUMNS: Final = (
    "panel",
    "collective",
    "way",
    "pes",
    "bytes",
    "cycles",
    "closed_form_cycles",
    "formula",
    "flight_cycles",
)


def curve(table: pd.DataFrame, panel: str, series: Series) -> pd.DataFrame:
    """One series of one panel, by number of PEs."""
    mine = (table["panel"] == panel) & (table["collective"] == series.collective) & (table["way"] == series.way)
    return table[mine].sort_values("pes")


def panel_names(table: pd.DataFrame) -> list[str]:
    """In order."""
    return [str(name) for name in table["panel"].unique()]


def said(table: pd.DataFrame) -> str:
    """All that is printed."""
    return "\n".join([format_table(table), findings(table), verdict(table)])


def agrees(table: pd.DataFrame) -> bool:
    """Whether every point is what the contract says."""
    return bool((table["cycles"] == table["closed_form_cycles"]).all())


def verdict(table: pd.DataFrame) -> str:
    """Whether every point is what the contract says; else the first ones that are not."""
    wrong = table[table["cycles"] != table["closed_form_cycles"]]
    if wrong.empty:
        return f"All {len(table)} simulated points equal their closed form to the cycle."
    labels = {(series.collective, series.way): series.label for series in forms.SERIES}
    shown = [
        f"  {each.panel}, {labels[each.collective, each.way]}, {each.pes} PEs: {each.cycles},"
        f" not {each.closed_form_cycles}"
        for each in wrong.head(10).itertuples()
    ]
    return "\n".join([f"{len(wrong)} of {len(table)} points DIFFER from their closed form:", *shown])


def format_table(table: pd.DataFrame) -> str:
    """The table for a terminal: a line for each series, a column for each number of PEs."""
    numbers = sorted(table["pes"].unique())
    wide = max(len(series.label) for series in forms.SERIES)
    lines = []
    for panel in panel_names(table):
        heading = f"{panel + ', cycles at N =':<{wide + 2}}" + "".join(f"{pes:>8,}" for pes in numbers)
        lines += ["", heading, "-" * len(heading)]
        for series in forms.SERIES:
            cycles = "".join(f"{each:>8,}" for each in curve(table, panel, series)["cycles"])
            lines.append(f"  {series.label:<{wide}}{cycles}")
    return "\n".join([*lines[1:], ""])


def findings(table: pd.DataFrame) -> str:
    """What the figures say: how each way grows with N, and what serial costs beside what is done at once."""
    cut, each = panel_names(table)
    return f"{_growth(table, each)}\n{_against(table, cut)}"


def _growth(table: pd.DataFrame, panel: str) -> str:
    sent, added, spread = (curve(table, panel, one) for one in (forms.BROADCAST, forms.REDUCE, forms.SCATTER))
    (few, many), (first, last) = _ends(spread, "pes"), _ends(spread, "cycles")
    steps = added["cycles"].diff().dropna().astype(int)
    gained = f"{steps.min()} to {steps.max()} cycles" if steps.nunique() > 1 else f"{steps.max()} cycles"
    flat, flight, sums = _ends(sent, "cycles"), _ends(sent, "flight_cycles"), _ends(added, "cycles")
    return (
        f"{panel}, {few} to {many:,} PEs: a broadcast stays one message ({flat[0]} to {flat[1]} cycles, of which"
        f" {flight[0]} to {flight[1]} are time of flight over the growing array), a reduction gains {gained} with every"
        f" doubling ({sums[0]} to {sums[1]}), and a serial scatter {(last - first) / (many - few):.2f} cycles with"
        f" every PE ({first} to {last:,})."
    )


def _against(table: pd.DataFrame, panel: str) -> str:
    pes = int(table["pes"].max())
    serial, whole, gathered, up = (
        _ends(curve(table, panel, one), "cycles")[1]
        for one in (forms.SCATTER, forms.BROADCAST, forms.GATHER, forms.REDUCE)
    )
    ratio = f"{serial / whole:.1f} times a broadcast of the whole ({serial:,} : {whole:,})"
    back = f"{gathered / up:.1f} times a reduction ({gathered:,} : {up:,})"
    return f"{panel}: at {pes:,} PEs its scatter in {pes:,} messages takes {ratio}, its gather {back}."


def _ends(points: pd.DataFrame, column: str) -> tuple[int, int]:
    """At the fewest and at the most PEs."""
    return int(points[column].iloc[0]), int(points[column].iloc[-1])
