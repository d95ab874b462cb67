"""What the table of the scaling study says: its parts, efficiencies, and the findings in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import pandas as pd

from experiments.marks import MODEL_LABELS, grouped

STRONG, MEMORY = "strong", "memory"
WEAK_BATCH, WEAK_CONTEXT, WEAK_MODEL = "weak: batch", "weak: context", "weak: model"
THE: Final = {
    "memory": "PE memories",
    "compute": "multipliers",
    "vector": "vector units",
    "root": "the root's units",
    "bus": "messages on the bus",
    "tree": "reductions in the tree",
    "wait": "waits",
}
LADDER_TITLE: Final = "model grows with N"


def memory_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Those with the memories of the preset."""
    return table[table["study"] == MEMORY]


def _part(study: str, phase: str | None = None) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def select(table: pd.DataFrame) -> pd.DataFrame:
        rows = table[table["study"] == study]
        return rows if phase is None else rows[rows["phase"] == phase]

    return select


WEAK_STUDIES: Final[Mapping[str, Callable[[pd.DataFrame], pd.DataFrame]]] = {
    "batch N/16, decode": _part(WEAK_BATCH, "decode"),
    "batch N/64, prefill": _part(WEAK_BATCH, "prefill"),
    "context 32 N, decode": _part(WEAK_CONTEXT),
    LADDER_TITLE: _part(WEAK_MODEL),
}


def efficiency(rows: pd.DataFrame) -> pd.Series:
    """Strong scaling of one model: PEs times cycles of the first row, over those of each."""
    cost = rows["pes"] * rows["cycles"].astype(float)
    return cost.iloc[0] / cost


def share_of_peak(rows: pd.DataFrame) -> pd.Series:
    """What the PEs would take at their peaks, over what each row takes; 1 is the most there is.

    Work that grows with the PEs would have all rows alike. Cycles over cycles would not say that here: of a decode
    step's work the weights stay, so a PE has ever less of them to read.
    """
    return rows["ideal_cycles"].astype(float) / rows["cycles"].astype(float)


def findings(table: pd.DataFrame) -> str:
    """The table in words."""
    lines = [_strong_line(rows) for _, rows in table[table["study"] == STRONG].groupby(["model", "phase"], sort=False)]
    for title, select in WEAK_STUDIES.items():
        if title == LADDER_TITLE:
            lines += [_ladder_line(rows) for rows in grouped(select(table), "phase").values() if len(rows) > 1]
        else:
            lines += [_weak_line(title, rows) for rows in grouped(select(table), "model").values()]
    lines += [_memory_line(rows) for rows in grouped(memory_rows(table), "model").values()]
    return "\n".join(["Findings", *(f"- {line}" for line in lines)])


def _strong_line(rows: pd.DataFrame) -> str:
    first, last = rows.iloc[0], rows.iloc[-1]
    gain = first["cycles"] / last["cycles"]
    turns = rows["bound"].ne(rows["bound"].shift())
    bounds = ", then ".join(f"{THE[row.bound]} from {row.pes:,}" for row in rows[turns].itertuples())
    return (
        f"{MODEL_LABELS[first['model']]} {first['phase']}, {first['pes']} to {last['pes']:,} PEs: {gain:.1f} times the"
        f" speed ({first['tokens_per_second']:,.1f} to {last['tokens_per_second']:,.1f} tokens/s), efficiency"
        f" {efficiency(rows).iloc[-1]:.0%}; most of the time: {bounds}; energy a token x"
        f" {last['joules_per_token'] / first['joules_per_token']:.2f}."
    )


def _weak_line(title: str, rows: pd.DataFrame) -> str:
    last = rows.iloc[-1]
    return f"{MODEL_LABELS[last['model']]}, {title}: {_from_to(rows)}, where {THE[last['bound']]} take most."


def _ladder_line(rows: pd.DataFrame) -> str:
    first, last = rows.iloc[0], rows.iloc[-1]
    return (
        f"{MODEL_LABELS[first['model']]} on {first['pes']} to {MODEL_LABELS[last['model']]} on {last['pes']:,} PEs,"
        f" {first['phase']}: {int(first['cycles']):,} to {int(last['cycles']):,} cycles; {_from_to(rows)}."
    )


def _from_to(rows: pd.DataFrame) -> str:
    shares = share_of_peak(rows)
    first, last = rows["pes"].iloc[[0, -1]]
    return f"{shares.iloc[0]:.0%} of the PEs' peak on {first:,} PEs, {shares.iloc[-1]:.0%} on {last:,}"


def _memory_line(rows: pd.DataFrame) -> str:
    fits = rows[rows["error"].isna()]
    least = {weights: mine["pes"].min() for weights, mine in grouped(fits, "weights").items()}
    said = [f"{weights} from {least[weights]:,} PEs" if weights in least else f"{weights} on none"
            for weights in grouped(rows, "weights")]  # fmt: skip
    return f"{MODEL_LABELS[rows['model'].iloc[0]]} with 128 MiB a PE fits in {', '.join(said)}."
