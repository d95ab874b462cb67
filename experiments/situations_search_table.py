"""The table of situations under named workflows and under the searched mapping, and a look at it for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import pandas as pd

from experiments.situations_map import WORKFLOWS

SEARCHED: Final = "searched"
# cycles: of all steps, each as often as it occurs. gain_of_searched: how many of them it saves, as a fraction. mapping,
# proof: of the searched one, what it is and how sure it is that nothing is better. reason: why it cannot serve it.
COLUMNS: Final = {
    "model": "string",
    "array": "string",
    "situation": "string",
    "workflow": "string",
    "prefill_cycles": "Int64",
    "decode_cycles": "Int64",
    "cycles": "Int64",
    "gain_of_searched": "float64",
    "mapping": "string",
    "proof": "string",
    "reason": "string",
}
Case = tuple[str, str, str]


def named_in(table: pd.DataFrame) -> list[str]:
    """The named workflows of the table, in their usual order."""
    return [name for name in WORKFLOWS if (table["workflow"] == name).any()]


def by_case(table: pd.DataFrame) -> Mapping[Case, pd.DataFrame]:
    """The rows of each model, array and situation, by workflow."""
    groups = table.groupby(["model", "array", "situation"], sort=False)
    return {(str(model), str(array), str(name)): rows.set_index("workflow") for (model, array, name), rows in groups}


def best_named(case: pd.DataFrame) -> str:
    """The named workflow that takes least of all for one case; empty where none fits."""
    named = case.drop(index=SEARCHED)["cycles"].dropna()
    return str(named.astype(float).idxmin()) if len(named) else ""


def format_table(table: pd.DataFrame) -> str:
    """The gains of the searched mapping, a line a situation and array."""
    names = named_in(table)
    lines = [
        "Fewer cycles of the searched mapping than each named workflow takes for the whole situation; -: does not fit"
    ]
    last = ""
    for (model, array, situation), case in by_case(table).items():
        if model != last:
            heading = f"{model:<14}{'situation':<13}{'cycles':>16}" + "".join(f"{name:>15}" for name in names)
            lines += ["", heading, "-" * len(heading)]
            last = model
        gains = "".join(f"{_gain(case, name):>15}" for name in names)
        found = case["cycles"][SEARCHED]
        cycles = "does not fit" if pd.isna(found) else f"{int(found):,}"
        lines.append(f"{array:<14}{situation:<13}{cycles:>16}{gains}")
    reasons = table.loc[table["workflow"] == SEARCHED, "reason"].dropna().unique()
    said = [f"does not fit: {reason}" for reason in sorted(reasons)]
    return "\n".join([*lines, "", "* the best of the named ones", *said, ""])


def _gain(case: pd.DataFrame, name: str) -> str:
    if name not in case.index or pd.isna(case["gain_of_searched"][name]):
        return "-"
    return f"{'* ' if name == best_named(case) else ''}{case['gain_of_searched'][name]:.1%}"
