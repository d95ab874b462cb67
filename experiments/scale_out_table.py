"""The table of the scale-out study: its columns, efficiencies, and the findings in words."""

from __future__ import annotations

from typing import Final

import pandas as pd

from experiments.marks import MODEL_LABELS
from pe_sim.units import format_bytes

STRONG, WEAK, PREFILL = "decode, strong", "decode, weak", "prefill, strong"
COLUMNS: Final = {
    "study": "string",
    "model": "string",
    "links": "string",
    "arrays": "int64",
    "sequences": "int64",
    "dp": "Int64",
    "tp": "Int64",
    "pp": "Int64",
    "cp": "Int64",
    "microbatches": "Int64",
    "workflow": "string",
    "cycles": "Int64",
    "ms": "float64",
    "tokens_per_second": "float64",
    "tokens_per_second_per_array": "float64",
    "efficiency": "float64",
    "link_share": "float64",
    "bubble_share": "float64",
    "peak_bytes_per_pe": "int64",
    "capacity_bytes_per_pe": "int64",
    "simulated": "Int64",
    "error": "string",
}
LINE: Final = ["study", "model", "links"]


def with_efficiency(table: pd.DataFrame) -> pd.DataFrame:
    """Tokens/s an array, over those of the fewest arrays that hold the model."""
    first = table.groupby(LINE, sort=False)["tokens_per_second_per_array"].transform("first")
    return table.assign(efficiency=table["tokens_per_second_per_array"].astype(float) / first.astype(float))


def degrees(row: pd.Series, between: str = "\n") -> str:
    """Degrees of a row in short; those of 1 are left out, and parts where there are no stages."""
    said = [f"{name}{int(row[name])}" for name in ("dp", "tp", "pp", "cp") if row[name] > 1]
    if row["pp"] > 1:
        at = next(index for index, each in enumerate(said) if each.startswith("pp"))
        said[at] += f" / {int(row['microbatches'])}"
    return between.join(said) or "1"


def findings(table: pd.DataFrame) -> str:
    """A line for each study, model and kind of links, and the degrees at each number of arrays."""
    lines = ["Findings"]
    for (study, model, links), rows in table.groupby(LINE, sort=False):
        label = f"{MODEL_LABELS[str(model)]}, {study}, {links}"
        lines += [f"- {label}: {each}" for each in _lines(rows)]
    return "\n".join(lines)


def _lines(rows: pd.DataFrame) -> list[str]:
    short, fits = rows[rows["error"].notna()], rows[rows["error"].isna()]
    said = []
    if len(short):
        last = short.iloc[-1]
        needs, has = format_bytes(int(last["peak_bytes_per_pe"])), format_bytes(int(last["capacity_bytes_per_pe"]))
        on = ", ".join(map(str, short["arrays"]))
        said.append(f"does not fit on {on} (on {last['arrays']} at least {needs} a PE of {has}).")
    if len(fits):
        first, last = fits.iloc[0], fits.iloc[-1]
        best = fits.loc[fits["tokens_per_second"].idxmax()]
        said.append(
            f"{first['tokens_per_second']:,.0f} tokens/s on {first['arrays']} to {last['tokens_per_second']:,.0f} on"
            f" {last['arrays']}, efficiency {last['efficiency']:.0%}; most on {best['arrays']}; links take"
            f" {first['link_share']:.0%} to {last['link_share']:.0%} of the arrays' time, bubbles"
            f" {first['bubble_share']:.0%} to {last['bubble_share']:.0%}."
        )
        said.append(
            "best degrees: " + "; ".join(f"{row['arrays']}: {degrees(row, ' ')}" for _, row in fits.iterrows()) + "."
        )
    return said
