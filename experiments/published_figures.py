"""Published figures of other simulators and machines beside ours: what agrees, what does not, and why.

Writes a table (CSV) and a picture (PNG); both are committed as references under experiments/results.
"""

from __future__ import annotations

import argparse
import csv
import textwrap
from pathlib import Path

from experiments import aim_banks, other_simulators, published_rooflines
from experiments.comparison import Row

RESULTS = Path(__file__).parent / "results"
NAME = "published_figures"
SOURCES = {
    aim_banks.SOURCE: aim_banks.rows,
    "STONNE, SCALE-Sim": other_simulators.rows,
    "LLM-Viewer, CENT": published_rooflines.rows,
}
COLUMNS = ("source", "case", "unit", "published", "ours", "ours/published", "formula of theirs", "reason")
# Okabe and Ito's palette.
COLOURS = {
    aim_banks.SOURCE: "#0072B2",
    other_simulators.STONNE: "#D55E00",
    other_simulators.SCALE_SIM: "#E69F00",
    published_rooflines.LLM_VIEWER: "#009E73",
    published_rooflines.CENT: "#CC79A7",
}


def collect() -> list[Row]:
    """All rows, source by source."""
    return [row for rows in SOURCES.values() for row in rows()]


def cells(row: Row) -> list[str]:
    """A row of the CSV."""
    shown = (number(row.published), number(row.ours), f"{row.ratio:.4f}")
    return [row.source, row.case, row.unit, *shown, row.formula, row.reason]


def number(value: float) -> str:
    """Whole numbers in full, others and large ones with four digits."""
    return f"{value:.0f}" if float(value).is_integer() and value < 1e9 else f"{value:.4g}"


def write_table(rows: list[Row], path: Path) -> None:
    """The CSV."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(cells(row) for row in rows)


def format_rows(rows: list[Row]) -> str:
    """The table for a terminal, each reason below its first row."""
    lines, last = [], ""
    wide = max(len(row.case) for row in rows)
    for row in rows:
        if row.source != last:
            lines += ["", f"{row.source:<{wide + 2}} {'published':>12}   {'ours':>12}  ratio", "-" * (wide + 37)]
            last, reason = row.source, ""
        star = "*" if row.is_predicted else " "
        lines.append(f"  {row.case:<{wide}} {number(row.published):>12}{star} {number(row.ours):>12}  {row.ratio:5.3f}")
        if row.reason != reason:
            lines += textwrap.wrap(row.reason, 100, initial_indent="      ", subsequent_indent="      ")
            reason = row.reason
    note = "* predicted from the source's own constants, not published"
    return "\n".join([*lines[1:], "", note, ""])


def draw(rows: list[Row], path: Path) -> None:
    """Ours over theirs, a line a case."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.artist import Artist
    from matplotlib.lines import Line2D

    figure, axes = plt.subplots(figsize=(9.0, 0.21 * len(rows) + 1.2), layout="constrained")
    for place, row in enumerate(rows):
        colour = COLOURS[row.source]
        axes.plot([1.0, row.ratio], [place, place], color=colour, linewidth=1.2)
        filling = "white" if row.is_predicted else colour
        axes.plot(row.ratio, place, "o", color=colour, markerfacecolor=filling, markersize=5)
    axes.axvline(1.0, color="0.3", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_xlim(0.3, 1.25)
    ticks = [0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.2]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.set_yticks(range(len(rows)), [f"{row.case} ({row.unit})" for row in rows], fontsize=7)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(axis="x", color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_xlabel("ours / published")
    handles: list[Artist] = [
        Line2D([], [], marker="o", color=colour, label=source) for source, colour in COLOURS.items()
    ]
    handles.append(Line2D([], [], marker="o", color="0.3", markerfacecolor="white", label="predicted, not published"))
    axes.legend(handles=handles, loc="lower left", fontsize=8, frameon=True)
    axes.set_title("Published figures beside ours; every difference is explained in the table", fontsize=10)
    figure.savefig(path, dpi=130, metadata={"Software": None})
    plt.close(figure)


def main() -> None:
    """Prints the table and writes both files."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.published_figures",
        description=__doc__,
        epilog="""The sources: the SK hynix AiM simulator (bank-level timing), STONNE and SCALE-Sim (other dataflows),
        LLM-Viewer (roofline table of Llama-2-7B) and CENT (collectives over a CXL star). A figure whose formula says
        `predicted` was not published: it follows from the source's constants by the rule that gives the published ones.
        `python -m experiments.aim_banks --help` looks at one GEMV in AiM's banks.""",
    )
    parser.add_argument(
        "--out", type=Path, default=RESULTS, help="folder for the CSV and the PNG (experiments/results)"
    )
    parser.add_argument("--no-files", action="store_true", help="only print the table")
    options = parser.parse_args()
    rows = collect()
    print(format_rows(rows), end="")
    if not options.no_files:
        options.out.mkdir(parents=True, exist_ok=True)
        write_table(rows, options.out / f"{NAME}.csv")
        draw(rows, options.out / f"{NAME}.png")
        print(f"wrote {NAME}.csv and {NAME}.png in {options.out.name}")


if __name__ == "__main__":
    main()
