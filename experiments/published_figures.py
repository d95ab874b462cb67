"""Which figures of other simulators and machines do we reproduce, and why not the others?

Published figures beside ours: what agrees, what does not, and why.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import asdict
from typing import Final

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments import aim_banks, other_simulators, published_rooflines
from experiments.comparison import Row
from experiments.parallel import in_order
from experiments.study import WIDTH, Ask, Study, main

NAME: Final = "published_figures"
SOURCES: Final = {
    aim_banks.SOURCE: aim_banks.rows,
    "STONNE, SCALE-Sim": other_simulators.rows,
    "LLM-Viewer, CENT": published_rooflines.rows,
}
COLUMNS: Final = (
    "source",
    "case",
    "unit",
    "published",
    "ours",
    "ours_over_published",
    "predicted",
    "formula",
    "reason",
)
# Okabe and Ito's palette.
COLOURS: Final = {
    aim_banks.SOURCE: "#0072B2",
    other_simulators.STONNE: "#D55E00",
    other_simulators.SCALE_SIM: "#E69F00",
    published_rooflines.LLM_VIEWER: "#009E73",
    published_rooflines.CENT: "#CC79A7",
}
TICKS: Final = (0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.2)


def rows_of(source: str) -> list[Row]:
    """The comparisons of one entry of `SOURCES`."""
    return SOURCES[source]()


def compute(ask: Ask) -> pd.DataFrame:
    """A row for each published figure beside ours, source by source; all of them in a `--quick` run too."""
    found = in_order(rows_of, {source: (source,) for source in SOURCES}, ask)
    rows = [
        {**asdict(row), "ours_over_published": row.ratio, "predicted": row.is_predicted}
        for rows in found
        for row in rows
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(dict.fromkeys(("published", "ours"), float))


def number(value: float) -> str:
    """Whole numbers in full, others and large ones with four digits."""
    return f"{value:.0f}" if float(value).is_integer() and value < 1e9 else f"{value:.4g}"


def format_table(table: pd.DataFrame) -> str:
    """The table for a terminal, each reason below its first row."""
    lines, last = [], ""
    wide = int(table["case"].str.len().max())
    for row in table.to_dict("records"):
        if row["source"] != last:
            head = f"{row['source']:<{wide + 2}} {'published':>12}   {'ours':>12}  ratio"
            lines += ["", head, "-" * (wide + 37)]
            last, reason = row["source"], ""
        star = "*" if row["predicted"] else " "
        figures = f"{number(row['published']):>12}{star} {number(row['ours']):>12}  {row['ours_over_published']:5.3f}"
        lines.append(f"  {row['case']:<{wide}} {figures}")
        if row["reason"] != reason:
            lines += textwrap.wrap(row["reason"], 100, initial_indent="      ", subsequent_indent="      ")
            reason = row["reason"]
    equal = int((table["ours"] == table["published"]).sum())
    note = "* predicted from the source's own constants, not published"
    return "\n".join([*lines[1:], "", note, f"{equal} of {len(table)} figures are equal."])


def figures(table: pd.DataFrame) -> Mapping[str, Figure]:
    """Ours over theirs, a line a case."""
    figure, axes = plt.subplots(figsize=(WIDTH, 0.155 * len(table) + 0.9), layout="constrained")
    for place, row in enumerate(table.to_dict("records")):
        colour, ratio = COLOURS[row["source"]], row["ours_over_published"]
        axes.plot([1.0, ratio], [place, place], color=colour)
        filling = "white" if row["predicted"] else colour
        axes.plot(ratio, place, "o", color=colour, markerfacecolor=filling)
    axes.axvline(1.0, color="0.3", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_xlim(TICKS[0], TICKS[-1] * 1.04)
    axes.set_xticks(TICKS, [f"{tick:g}" for tick in TICKS])
    axes.set_xticks([], minor=True)
    axes.set_yticks(range(len(table)), (table["case"] + " (" + table["unit"] + ")").tolist(), fontsize=6)
    axes.set_ylim(len(table) - 0.5, -0.5)
    axes.grid(axis="x")
    axes.set_xlabel("ours / published")
    handles = [Line2D([], [], marker="o", color=colour, label=source) for source, colour in COLOURS.items()]
    handles.append(Line2D([], [], marker="o", color="0.3", markerfacecolor="white", label="predicted, not published"))
    axes.legend(handles=handles, loc="lower left", frameon=True)
    axes.set_title("Published figures beside ours; every difference is explained in the table")
    return {"ratios": figure}


STUDY: Final = Study(
    NAME,
    __doc__,
    """The sources: the SK hynix AiM simulator (bank-level timing), STONNE and SCALE-Sim (other dataflows),
LLM-Viewer (roofline table of Llama-2-7B) and CENT (collectives over a CXL star). A figure whose formula says
`predicted` was not published: it follows from the source's constants by the rule that gives the published ones.
All of it takes a second or two, so --quick leaves nothing out.

For instance:
  python -m experiments.published_figures --quick
  python -m experiments.published_figures --plot-only   (the picture anew, from the table)
  python -m experiments.aim_banks --help                (one GEMV in AiM's banks)""",
    compute,
    format_table,
    figures,
)

if __name__ == "__main__":
    main(STUDY)
