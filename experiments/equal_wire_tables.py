"""Tables and findings of the comparison of topologies; every number in a sentence is computed from the points."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import pandas as pd

from experiments.equal_wire_arrays import BUS_TREE, DOWNLINK
from experiments.equal_wire_steps import EVENTS, Point

# budget_wire_bit_mm: none where the widths were left alone. widths_factor: what they were multiplied by, before
# rounding down to whole bytes. What was left out has no figures.
COLUMNS: Final = {
    "model": "string",
    "context": "int64",
    "pes": "int64",
    "workflow": "string",
    "topology": "string",
    "family": "string",
    "narrowest_bytes_per_cycle": "int64",
    "widest_bytes_per_cycle": "int64",
    "widths_factor": "float64",
    "unscaled_wire_bit_mm": "float64",
    "budget_wire_bit_mm": "float64",
    "wire_bit_mm": "float64",
    "cycles": "Int64",
    "tokens_per_second": "float64",
    "waiting": "float64",
    "hottest_channel": "string",
    "hottest_level": "string",
    "hottest_utilization": "float64",
    "multicasts": "Int64",
    "simulated": "string",
}
FEW: Final = 3  # how many of the narrowest and widest designs a sentence is about


def row_of(model: str, context: int, point: Point) -> dict[str, Any]:
    """A row of the table."""
    wired = point.wired
    hottest = (point.hottest, point.hottest_level, point.utilization)
    known = (point.cycles, point.tokens_per_second, point.waiting, *hottest, point.multicasts)
    figures = known if point.cycles else (None,) * len(known)
    point_names = (model, context, point.pes, point.workflow, point.topology, wired.design.family)
    widths = (wired.narrowest, wired.widest, wired.factor)
    wire = (wired.unscaled_bits_mm, wired.budget_bits_mm, wired.reached_bits_mm)
    return dict(zip(COLUMNS, (*point_names, *widths, *wire, *figures, point.simulated), strict=True))


def table_of(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """The table."""
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)


def numbers_of(table: pd.DataFrame) -> list[int]:
    """The numbers of PEs, in order."""
    return sorted(int(pes) for pes in table["pes"].unique())


def workflows_of(table: pd.DataFrame) -> list[str]:
    """The workflows, in order."""
    return [str(name) for name in table["workflow"].unique()]


def ranked(table: pd.DataFrame, pes: int, workflow: str) -> pd.DataFrame:
    """The points of one comparison, the fastest first, those left out last."""
    mine = table[(table["pes"] == pes) & (table["workflow"] == workflow)]
    return mine.sort_values("cycles", kind="stable", na_position="last")


def width_of(row: Any) -> str:
    """Bytes per cycle of a design's channels, of a row of the table."""
    narrow, wide = row["narrowest_bytes_per_cycle"], row["widest_bytes_per_cycle"]
    return str(narrow) if narrow == wide else f"{narrow} to {wide}"


def is_equal_wire(table: pd.DataFrame) -> bool:
    """Whether all had one budget; else the widths were left alone."""
    return bool(table["budget_wire_bit_mm"].notna().all())


def title_of(table: pd.DataFrame) -> str:
    """What was simulated."""
    first = table.iloc[0]
    return f"{first['model']}, one decode step at a context of {first['context']} tokens"


def said(table: pd.DataFrame) -> str:
    """All that is printed."""
    return "\n".join([format_wire(table), format_points(table), findings(table)])


def format_wire(table: pd.DataFrame) -> str:
    """What each design has of wire and width, number of PEs by number of PEs."""
    lines = []
    for pes, rows in table.groupby("pes", sort=False):
        mine, equal = rows.drop_duplicates("topology"), is_equal_wire(rows)
        budget = mine["budget_wire_bit_mm"].iloc[0]
        terms = f"equal wire: {budget:,.0f} bit mm" if equal else "widths as in the presets, wire as it comes"
        heading = f"  {'topology':<20}{'wire at 64 B/cycle':>20}{'widths x':>10}{'B/cycle':>12}{'wire':>14}"
        heading += f"{'of budget':>11}" if equal else ""
        lines += [f"{pes} PEs, {terms}", heading, "  " + "-" * (len(heading) - 2)]
        for each in mine.to_dict("records"):
            line = f"  {each['topology']:<20}{each['unscaled_wire_bit_mm']:>20,.0f}{each['widths_factor']:>10.4f}"
            share = f"{each['wire_bit_mm'] / budget:>11.1%}" if equal else ""
            lines.append(f"{line}{width_of(each):>12}{each['wire_bit_mm']:>14,.0f}{share}")
        lines.append("")
    return "\n".join(lines)


def format_points(table: pd.DataFrame) -> str:
    """The points, best first within each number of PEs and workflow."""
    lines = [title_of(table)]
    for pes in numbers_of(table):
        for workflow in workflows_of(table):
            lines += ["", *_one_comparison(ranked(table, pes, workflow), f"{pes} PEs, {workflow}")]
    if (table["simulated"] == EVENTS).any():
        lines += ["", "* simulated event by event: its messages overtake each other"]
    return "\n".join([*lines, ""])


def _one_comparison(ranking: pd.DataFrame, heading: str) -> list[str]:
    head = f"{heading:<23}{'B/cycle':>10}{'cycles':>12}  {'x best':>6}{'tokens/s':>10}{'waiting':>9}"
    lines = [f"{head}   hottest channel", "-" * 104]
    for row in ranking.to_dict("records"):
        line = f"  {row['topology']:<21}{width_of(row):>10}"
        if pd.isna(row["cycles"]):
            lines.append(f"{line}   {row['simulated']}")
            continue
        mark = "*" if row["simulated"] == EVENTS else " "
        line += f"{int(row['cycles']):>12,}{mark} {row['cycles'] / ranking['cycles'].iloc[0]:>6.3f}"
        line += f"{row['tokens_per_second']:>10,.1f}{row['waiting']:>9.1%}"
        lines.append(f"{line}   {row['hottest_utilization']:>5.1%} {row['hottest_channel']}")
    return lines


def findings(table: pd.DataFrame) -> str:
    """What the figures say, number of PEs by number of PEs."""
    return "\n".join(["Findings", *(f"- {sentence}" for sentence in _sentences(table[table["cycles"].notna()]))])


def _sentences(done: pd.DataFrame) -> Iterator[str]:
    for pes in numbers_of(done):
        mine = done[done["pes"] == pes]
        yield _winners(mine)
        yield from _of_groups(mine)
        yield from _of_downlinks(mine)
        yield from _of_widths(mine)


def _winners(points: pd.DataFrame) -> str:
    best, worst = (points.loc[points["cycles"].astype(float).agg(end)] for end in ("idxmin", "idxmax"))
    firsts = [ranked(points, best["pes"], workflow).iloc[0] for workflow in workflows_of(points)]
    by_workflow = ", ".join(f"{first['topology']} under {first['workflow']}" for first in firsts)
    text = (
        f"{best['pes']} PEs: the fastest is {by_workflow}; of all, {best['topology']} under {best['workflow']} with"
        f" {int(best['cycles']):,} cycles, the slowest {worst['topology']} under {worst['workflow']} with"
        f" {worst['cycles'] / best['cycles']:.2f} times that."
    )
    own = points[points["topology"] == BUS_TREE].sort_values("cycles", kind="stable")
    if own.empty:
        return text
    first = own.iloc[0]
    times = first["cycles"] / best["cycles"]
    return f"{text} The bus and tree come to {times:.3f} times it, under {first['workflow']}."


def _of_widths(points: pd.DataFrame) -> list[str]:
    """How the narrowest and the widest designs fare, each under the workflow that suits it best."""
    best = points.sort_values("cycles", kind="stable").drop_duplicates("topology")
    if len(best) < 2 * FEW or not is_equal_wire(points):
        return []
    by_width = best.sort_values("narrowest_bytes_per_cycle", kind="stable")
    narrow, wide = by_width.head(FEW), by_width.tail(FEW)
    return [
        f"{points['pes'].iloc[0]} PEs, each under its best workflow: {_listed(narrow)} wait {_range(narrow)} of the"
        f" step, {_listed(wide)} {_range(wide)}."
    ]


def _of_groups(points: pd.DataFrame) -> list[str]:
    """How the bus and tree fare with and without results that go back to groups of PEs, one after the other."""
    own = points[points["topology"] == BUS_TREE]
    parts = []
    for how, mine in (
        ("without multicasts to groups of PEs", own[own["multicasts"] == 0]),
        ("with them", own[own["multicasts"] > 0]),
    ):
        if mine.empty:
            return []
        times = [
            f"{row['cycles'] / ranked(points, row['pes'], row['workflow'])['cycles'].iloc[0]:.3f} under"
            f" {row['workflow']}" + (f" ({int(row['multicasts']):,} of them)" if row["multicasts"] else "")
            for row in mine.to_dict("records")
        ]
        parts.append(f"{how} {' and '.join(times)}")
    pes = own["pes"].iloc[0]
    return [f"{pes} PEs, cycles of the bus and tree over those of the fastest: {', '.join(parts)}."]


def _of_downlinks(points: pd.DataFrame) -> list[str]:
    """What results on their way down the tree are worth to the bus and tree."""
    cycles = points.set_index(["topology", "workflow"])["cycles"]
    parts = [
        f"{cycles[DOWNLINK, workflow] / cycles[BUS_TREE, workflow] - 1:+.1%} under {workflow}"
        for workflow in workflows_of(points)
        if {(BUS_TREE, workflow), (DOWNLINK, workflow)} <= set(cycles.index)
    ]
    if not parts:
        return []
    paid = "paid for with narrower channels" if is_equal_wire(points) else "widths left alone"
    return [f"{points['pes'].iloc[0]} PEs: a downlink in the tree, {paid}, changes the cycles by {', '.join(parts)}."]


def _listed(rows: pd.DataFrame) -> str:
    return ", ".join(f"{row['topology']} ({width_of(row)} B/cycle)" for row in rows.to_dict("records"))


def _range(rows: pd.DataFrame) -> str:
    return f"{rows['waiting'].min():.0%} to {rows['waiting'].max():.0%}"
