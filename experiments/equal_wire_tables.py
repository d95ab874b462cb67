"""Tables and findings of the comparison of topologies; every number in a sentence is computed from the points."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from experiments.equal_wire_arrays import BUS_TREE, DOWNLINK, Wired
from experiments.equal_wire_steps import EVENTS, Point

COLUMNS = (
    "PEs",
    "workflow",
    "topology",
    "narrowest B/cycle",
    "widest B/cycle",
    "budget bit mm",
    "wire bit mm",
    "cycles",
    "tokens/s",
    "waiting",
    "hottest channel",
    "its level",
    "its utilization",
    "multicasts",
    "simulated",
)
FEW = 3  # how many of the narrowest and widest designs a sentence is about


def cells(point: Point) -> list[str]:
    """A row of the CSV."""
    wired = point.wired
    budget = "" if wired.budget_bits_mm is None else f"{wired.budget_bits_mm:.0f}"
    widths = [str(wired.narrowest), str(wired.widest), budget, f"{wired.reached_bits_mm:.0f}"]
    head = [str(point.pes), point.workflow, point.topology, *widths]
    if not point.cycles:
        return [*head, *[""] * 7, point.simulated]
    figures = [str(point.cycles), f"{point.tokens_per_second:.2f}", f"{point.waiting:.4f}"]
    hottest = [point.hottest, point.hottest_level, f"{point.utilization:.4f}"]
    return [*head, *figures, *hottest, str(point.multicasts), point.simulated]


def write_table(points: Iterable[Point], path: Path) -> None:
    """The CSV, in the order of the simulation."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(cells(point) for point in points)


def numbers_of(points: Iterable[Point]) -> list[int]:
    """The numbers of PEs, in order."""
    return sorted({point.pes for point in points})


def workflows_of(points: Iterable[Point]) -> list[str]:
    """The workflows, in order."""
    return list(dict.fromkeys(point.workflow for point in points))


def ranked(points: Iterable[Point], pes: int, workflow: str) -> list[Point]:
    """The points of one comparison, the fastest first, those left out last."""
    mine = [point for point in points if (point.pes, point.workflow) == (pes, workflow)]
    return sorted(mine, key=lambda point: point.cycles or float("inf"))


def format_wire(arrays: Sequence[Wired]) -> str:
    """What each design has of wire and width, number of PEs by number of PEs."""
    lines = []
    for pes in dict.fromkeys(each.pes for each in arrays):
        mine = [each for each in arrays if each.pes == pes]
        budget = mine[0].budget_bits_mm
        said = "widths as in the presets, wire as it comes" if budget is None else f"equal wire: {budget:,.0f} bit mm"
        heading = f"  {'topology':<20}{'wire at 64 B/cycle':>20}{'widths x':>10}{'B/cycle':>12}{'wire':>14}"
        heading += "" if budget is None else f"{'of budget':>11}"
        lines += [f"{pes} PEs, {said}", heading, "  " + "-" * (len(heading) - 2)]
        for each in mine:
            line = f"  {each.design.name:<20}{each.unscaled_bits_mm:>20,.0f}{each.factor:>10.4f}{each.width:>12}"
            share = "" if budget is None else f"{each.reached_bits_mm / budget:>11.1%}"
            lines.append(f"{line}{each.reached_bits_mm:>14,.0f}{share}")
        lines.append("")
    return "\n".join(lines)


def format_points(points: Sequence[Point], title: str) -> str:
    """The points, best first within each number of PEs and workflow."""
    lines = [title]
    for pes in numbers_of(points):
        for workflow in workflows_of(points):
            lines += ["", *_one_comparison(ranked(points, pes, workflow), f"{pes} PEs, {workflow}")]
    if any(point.simulated == EVENTS for point in points):
        lines += ["", "* simulated event by event: its messages overtake each other"]
    return "\n".join([*lines, ""])


def _one_comparison(ranking: Sequence[Point], heading: str) -> list[str]:
    head = f"{heading:<23}{'B/cycle':>10}{'cycles':>12}  {'x best':>6}{'tokens/s':>10}{'waiting':>9}"
    lines = [f"{head}   hottest channel", "-" * 104]
    for point in ranking:
        line = f"  {point.topology:<21}{point.wired.width:>10}"
        if not point.cycles:
            lines.append(f"{line}   {point.simulated}")
            continue
        mark = "*" if point.simulated == EVENTS else " "
        line += f"{point.cycles:>12,}{mark} {point.cycles / ranking[0].cycles:>6.3f}{point.tokens_per_second:>10,.1f}"
        lines.append(f"{line}{point.waiting:>9.1%}   {point.utilization:>5.1%} {point.hottest}")
    return lines


def findings(points: Sequence[Point]) -> str:
    """What the figures say, number of PEs by number of PEs."""
    done = [point for point in points if point.cycles]
    sentences = []
    for pes in numbers_of(done):
        mine = [point for point in done if point.pes == pes]
        sentences += [_winners(mine), *_of_groups(mine), *_of_downlinks(mine), *_of_widths(mine)]
    return "\n".join(["Findings", *(f"- {sentence}" for sentence in sentences)])


def _winners(points: Sequence[Point]) -> str:
    best, worst = min(points, key=_cycles), max(points, key=_cycles)
    firsts = [ranked(points, best.pes, workflow)[0] for workflow in workflows_of(points)]
    by_workflow = ", ".join(f"{first.topology} under {first.workflow}" for first in firsts)
    text = (
        f"{best.pes} PEs: the fastest is {by_workflow}; of all, {best.topology} under {best.workflow} with"
        f" {best.cycles:,} cycles, the slowest {worst.topology} under {worst.workflow} with"
        f" {worst.cycles / best.cycles:.2f} times that."
    )
    own = [point for point in points if point.topology == BUS_TREE]
    if not own:
        return text
    fastest = min(own, key=_cycles)
    return f"{text} The bus and tree come to {fastest.cycles / best.cycles:.3f} times it, under {fastest.workflow}."


def _of_widths(points: Sequence[Point]) -> list[str]:
    """How the narrowest and the widest designs fare, each under the workflow that suits it best."""
    best: dict[str, Point] = {}
    for point in sorted(points, key=_cycles):
        best.setdefault(point.topology, point)
    by_width = sorted(best.values(), key=lambda point: point.wired.narrowest)
    if len(by_width) < 2 * FEW or points[0].wired.budget_bits_mm is None:
        return []
    narrow, wide = by_width[:FEW], by_width[-FEW:]
    return [
        f"{points[0].pes} PEs, each under its best workflow: {_listed(narrow)} wait {_range(narrow)} of the step,"
        f" {_listed(wide)} {_range(wide)}."
    ]


def _of_groups(points: Sequence[Point]) -> list[str]:
    """How the bus and tree fare with and without results that go back to groups of PEs, one after the other."""
    own = [point for point in points if point.topology == BUS_TREE]
    parts = []
    for how, mine in (
        ("without multicasts to groups of PEs", [point for point in own if not point.multicasts]),
        ("with them", [point for point in own if point.multicasts]),
    ):
        times = [
            f"{point.cycles / ranked(points, point.pes, point.workflow)[0].cycles:.3f} under {point.workflow}"
            + (f" ({point.multicasts:,} of them)" if point.multicasts else "")
            for point in mine
        ]
        parts.append(f"{how} {' and '.join(times)}")
        if not mine:
            return []
    return [f"{own[0].pes} PEs, cycles of the bus and tree over those of the fastest: {', '.join(parts)}."]


def _of_downlinks(points: Sequence[Point]) -> list[str]:
    """What results on their way down the tree are worth to the bus and tree."""
    cycles = {(point.topology, point.workflow): point for point in points}
    parts = []
    for workflow in workflows_of(points):
        plain, down = cycles.get((BUS_TREE, workflow)), cycles.get((DOWNLINK, workflow))
        if plain and down:
            parts.append(f"{down.cycles / plain.cycles - 1:+.1%} under {workflow}")
    if not parts:
        return []
    said = ", ".join(parts)
    paid = "widths left alone" if points[0].wired.budget_bits_mm is None else "paid for with narrower channels"
    return [f"{points[0].pes} PEs: a downlink in the tree, {paid}, changes the cycles by {said}."]


def _listed(points: Sequence[Point]) -> str:
    return ", ".join(f"{point.topology} ({point.wired.width} B/cycle)" for point in points)


def _range(points: Sequence[Point]) -> str:
    shares = [point.waiting for point in points]
    return f"{min(shares):.0%} to {max(shares):.0%}"


def _cycles(point: Point) -> int:
    return point.cycles
