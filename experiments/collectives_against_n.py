"""What a collective costs as the array grows, on one broadcast bus and one reduction tree.

A broadcast is one message whatever the number of PEs is; a reduction passes one more level of joints with every
doubling; a scatter or a gather is a message for every PE. That is why a mapping should need only the first two. Every
point is simulated and held against the closed form of the machine model: they have to be equal to the cycle.

Writes a table (CSV) and a picture (PNG); both are committed as references under experiments/results.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import log10
from pathlib import Path
from typing import TYPE_CHECKING

import pe_sim as ps
from experiments import closed_forms as forms
from experiments.closed_forms import Machine, Series
from pe_sim.config.array import ArrayConfig
from pe_sim.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RESULTS = Path(__file__).parent / "results"
NAME = "collectives_against_n"
ARRAY, VECTOR_BYTES, PART_BYTES, UP_TO = "bus-tree-256", 8192, 32, 4096
COLUMNS = ("panel", "collective", "way", "PEs", "bytes", "cycles", "closed form", "formula")
LINE_HEIGHT = 0.125  # of a label, in decades
# Okabe and Ito's palette.
BLUE, RED, GREEN, ORANGE, PINK, SKY = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9"
# Colour, marker and its size, in the order they are drawn: where curves coincide the smaller lies on the larger.
LOOKS: dict[Series, tuple[str, str, float]] = {
    forms.ALL_GATHER: (PINK, "v", 11),
    forms.GATHER: (ORANGE, "s", 6.5),
    forms.SCATTER: (RED, "D", 3.5),
    forms.ALL_REDUCE: (SKY, "P", 6),
    forms.REDUCE: (GREEN, "D", 4.5),
    forms.BROADCAST: (BLUE, "o", 4.5),
    forms.ALL_GATHER_AT_ONCE: (PINK, "v", 8),
    forms.GATHER_AT_ONCE: (ORANGE, "s", 8.5),
    forms.SCATTER_AT_ONCE: (RED, "D", 7.5),
}


@dataclass(frozen=True, slots=True)
class Panel:
    """One question: what the collectives carry.

    Args:
        name: short, for the table.
        title: for the picture.
        vector, part: bytes of broadcasts and reductions, and of each PE's message; from the number of PEs.
    """

    name: str
    title: str
    vector: Callable[[int], int]
    part: Callable[[int], int]


@dataclass(frozen=True, slots=True)
class Point:
    """One simulated collective; `num_bytes` as `ps.collective` takes them."""

    panel: str
    series: Series
    machine: Machine
    num_bytes: int
    cycles: int

    @property
    def pes(self) -> int:
        """N."""
        return self.machine.pes

    @property
    def closed_form(self) -> int:
        """What the contract says it takes."""
        return self.series.closed_form(self.machine, self.num_bytes)

    def cells(self) -> list[str]:
        """A row of the CSV."""
        series = self.series
        numbers = (self.pes, self.num_bytes, self.cycles, self.closed_form)
        return [self.panel, series.collective, series.way, *map(str, numbers), series.formula]


def panels(vector_bytes: int, part_bytes: int) -> tuple[Panel, Panel]:
    """A vector that is cut into ever smaller parts; and messages of one size."""
    whole, part = sized(vector_bytes), sized(part_bytes)
    cut = f"One vector of {whole}; scatter and gather\ncut it into N parts of {whole} / N"
    each = f"Messages of {part}; scatter and gather\nmove {part} for each PE: more PEs, more bytes"
    return (
        Panel(f"vector of {whole}", cut, lambda pes: vector_bytes, lambda pes: vector_bytes // pes),
        Panel(f"messages of {part}", each, lambda pes: part_bytes, lambda pes: part_bytes),
    )


def sized(num_bytes: int) -> str:
    """Bytes for people."""
    return f"{num_bytes // 1024} KiB" if num_bytes % 1024 == 0 else f"{num_bytes} B"


def powers(up_to: int) -> list[int]:
    """2, 4, ... up to a number of PEs."""
    return [2**level for level in range(1, up_to.bit_length()) if 2**level <= up_to]


def array_of(name: str, pes: int, way: str = "") -> ArrayConfig:
    """The array with another number of PEs; its floor plan, and so its `auto` latencies, grow with it."""
    ways = {"gather": way or "best", "scatter": way or "best"}
    return ps.load_array(name, overrides={"num_pes": pes, "overlap": 1, "network.collectives": ways})


def simulate(name: str, panel: Panel, pes: int) -> list[Point]:
    """All series of a panel at one number of PEs."""
    points = []
    for series in forms.SERIES:
        array = array_of(name, pes, series.way)
        num_bytes = panel.part(pes) if series.per_pe else panel.vector(pes)
        cycles = ps.collective(series.collective, array, num_bytes).cycles
        points.append(Point(panel.name, series, Machine.of(array), num_bytes, cycles))
    return points


def collect(
    name: str = ARRAY,
    up_to: int = UP_TO,
    vector_bytes: int = VECTOR_BYTES,
    part_bytes: int = PART_BYTES,
    progress: Callable[[str], None] = lambda text: None,
) -> list[Point]:
    """All points, panel by panel."""
    points = []
    for panel in panels(vector_bytes, part_bytes):
        for pes in powers(up_to):
            progress(f"{panel.name}, {pes} PEs")
            points += simulate(name, panel, pes)
    return points


def verdict(points: Sequence[Point]) -> str:
    """Whether every point is what the contract says; else the first ones that are not."""
    wrong = [point for point in points if point.cycles != point.closed_form]
    if not wrong:
        return f"All {len(points)} simulated points equal their closed form to the cycle."
    shown = [
        f"  {each.panel}, {each.series.label}, {each.pes} PEs: {each.cycles}, not {each.closed_form}" for each in wrong
    ]
    return "\n".join([f"{len(wrong)} of {len(points)} points DIFFER from their closed form:", *shown[:10]])


def write_table(points: Iterable[Point], path: Path) -> None:
    """The CSV."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(point.cells() for point in points)


def curve(points: Iterable[Point], panel: str, series: Series) -> list[Point]:
    """One series of one panel, by number of PEs."""
    mine = (point for point in points if point.panel == panel and point.series is series)
    return sorted(mine, key=lambda point: point.pes)


def panel_names(points: Iterable[Point]) -> list[str]:
    """In order."""
    return list(dict.fromkeys(point.panel for point in points))


def format_points(points: Sequence[Point]) -> str:
    """The table for a terminal: a line for each series, a column for each number of PEs."""
    numbers = sorted({point.pes for point in points})
    wide = max(len(series.label) for series in forms.SERIES)
    lines = []
    for panel in panel_names(points):
        heading = f"{panel + ', cycles at N =':<{wide + 2}}" + "".join(f"{pes:>8,}" for pes in numbers)
        lines += ["", heading, "-" * len(heading)]
        for series in forms.SERIES:
            cycles = "".join(f"{point.cycles:>8,}" for point in curve(points, panel, series))
            lines.append(f"  {series.label:<{wide}}{cycles}")
    return "\n".join([*lines[1:], ""])


def findings(points: Sequence[Point]) -> str:
    """What the figures say: how each way grows with N, and what serial costs beside what is done at once."""
    cut, each = panel_names(points)
    sent, added, spread = (curve(points, each, one) for one in (forms.BROADCAST, forms.REDUCE, forms.SCATTER))
    first, last = spread[0], spread[-1]
    steps = [after.cycles - before.cycles for before, after in pairwise(added)]
    slope = (last.cycles - first.cycles) / max(last.pes - first.pes, 1)
    gained = f"{min(steps)} to {max(steps)} cycles" if len(set(steps)) > 1 else f"{max(steps, default=0)} cycles"
    growth = (
        f"{each}, {first.pes} to {last.pes:,} PEs: a broadcast stays one message ({sent[0].cycles} to"
        f" {sent[-1].cycles} cycles, of which {sent[0].machine.flight} to {sent[-1].machine.flight} are time of flight"
        f" over the growing array), a reduction gains {gained} with every doubling ({added[0].cycles} to"
        f" {added[-1].cycles}), and a serial scatter {slope:.2f} cycles with every PE ({first.cycles} to"
        f" {last.cycles:,})."
    )
    serial, whole, up = (curve(points, cut, one)[-1] for one in (forms.SCATTER, forms.BROADCAST, forms.REDUCE))
    gathered = curve(points, cut, forms.GATHER)[-1]
    ratio = f"{serial.cycles / whole.cycles:.1f} times a broadcast of the whole ({serial.cycles:,} : {whole.cycles:,})"
    back = f"{gathered.cycles / up.cycles:.1f} times a reduction ({gathered.cycles:,} : {up.cycles:,})"
    against = f"{cut}: at {serial.pes:,} PEs its scatter in {serial.pes:,} messages takes {ratio}, its gather {back}."
    return growth + "\n" + against


def draw(points: Sequence[Point], titles: Sequence[str], path: Path) -> None:
    """Cycles over N, both logarithmic: a panel beside the other, simulated points on thin lines of closed forms."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.lines import Line2D

    figure, axes = plt.subplots(1, 2, figsize=(13.0, 6.4), sharey=True, layout="constrained")
    for each, panel, title in zip(axes, panel_names(points), titles, strict=True):
        shown = [curve(points, panel, series) for series in LOOKS]
        for mine in shown:
            _draw_curve(each, mine)
        flights = [(point.pes, point.machine.flight) for point in shown[0]]
        each.plot(*zip(*flights, strict=True), color="0.5", linestyle=":", linewidth=1.3)
        _decorate(each, title, [pes for pes, _ in flights])
        _label_ends(each, [(mine[-1].series.label, mine[-1].cycles, _look(mine)[0]) for mine in shown], flights[-1])
    axes[0].set_ylabel("cycles until everything has arrived")
    handles = [
        Line2D([], [], color="0.35", linestyle="", marker="s", label="simulated"),
        Line2D(
            [], [], color="0.35", linestyle="", marker="s", markerfacecolor="none", label="simulated, the whole at once"
        ),
        Line2D([], [], color="0.35", linewidth=0.8, label="closed form of the machine model"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=9.5, frameon=False)
    figure.suptitle(
        "On a bus and a tree a broadcast is flat, a reduction grows as log N, a message for each PE as N", fontsize=13
    )
    figure.savefig(path, dpi=120, metadata={"Software": None})
    plt.close(figure)


def _look(points: Sequence[Point]) -> tuple[str, str, float]:
    return LOOKS[points[0].series]


def _draw_curve(axes: Axes, points: Sequence[Point]) -> None:
    colour, marker, size = _look(points)
    numbers = [point.pes for point in points]
    axes.plot(numbers, [point.closed_form for point in points], color=colour, linewidth=0.8)
    axes.plot(
        numbers,
        [point.cycles for point in points],
        color=colour,
        linestyle="",
        marker=marker,
        markersize=size,
        markerfacecolor="none" if points[0].series.way == forms.AT_ONCE else colour,
    )


def _decorate(axes: Axes, title: str, numbers: Sequence[int]) -> None:
    axes.set_title(title, fontsize=10.5)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.margins(x=0.04, y=0.06)
    axes.set_xticks(numbers, [str(pes) for pes in numbers], fontsize=8.5)
    axes.yaxis.set_major_formatter(lambda cycles, place: f"{cycles:,.0f}")
    axes.set_xlabel("PEs, N")
    axes.grid(color="0.92", linewidth=0.6)
    axes.set_axisbelow(True)


def _label_ends(axes: Axes, ends: Sequence[tuple[str, int, str]], flight: tuple[int, int]) -> None:
    """The name of each curve right of its last point."""
    names = sorted([("time of flight λ", flight[1], "0.35"), *ends], key=lambda name: name[1])
    heights = apart([log10(cycles) for _, cycles, _ in names], LINE_HEIGHT)
    for (label, _, colour), height in zip(names, heights, strict=True):
        place = (1.01, 10**height)
        across = axes.get_yaxis_transform()  # x in parts of the panel, y in cycles
        axes.text(*place, label, transform=across, va="center", fontsize=9, color=colour)


def apart(heights: Sequence[float], gap: float) -> list[float]:
    """Ascending heights moved as little as needed for `gap` between neighbours: what is too close is spread evenly."""
    stacks: list[list[float]] = []
    for height in heights:
        stacks.append([height])
        while len(stacks) > 1 and _bottom(stacks[-1], gap) - _bottom(stacks[-2], gap) < gap * len(stacks[-2]) - 1e-12:
            stacks[-2:] = [stacks[-2] + stacks[-1]]
    return [_bottom(stack, gap) + gap * place for stack in stacks for place in range(len(stack))]


def _bottom(stack: Sequence[float], gap: float) -> float:
    return sum(stack) / len(stack) - gap * (len(stack) - 1) / 2


def read_options() -> argparse.Namespace:
    """What the user asks for, checked."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.collectives_against_n",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="""Two panels. In the first a vector of --bytes is broadcast or reduced whole, and scattered or gathered
in parts of --bytes / N. In the second every message has --part-bytes: more PEs share more bytes.
Serial is a message for each PE, network.collectives.*=serial. The other ways are =by_reduction: the root
sends the whole once and each PE keeps its slice; or slices, zero elsewhere, are summed in the tree.
The bytes of an all-reduce are those of its partial sums; its result has as many values of half the size.

For instance:
  python -m experiments.collectives_against_n
  python -m experiments.collectives_against_n --array bus-tree-16-large --up-to 256 --no-files""",
    )
    parser.add_argument("--array", default=ARRAY, help="an array with one bus and one tree (%(default)s)")
    parser.add_argument("--up-to", type=int, default=UP_TO, metavar="N", help="most PEs; 2, 4, 8, ... (%(default)s)")
    parser.add_argument(
        "--bytes", type=int, default=VECTOR_BYTES, metavar="B", help="of the vector; N divides it (%(default)s)"
    )
    parser.add_argument(
        "--part-bytes", type=int, default=PART_BYTES, metavar="B", help="of messages of one size (%(default)s)"
    )
    parser.add_argument(
        "--out", type=Path, default=RESULTS, help="folder for the CSV and the PNG (experiments/results)"
    )
    parser.add_argument("--no-files", action="store_true", help="only print the table")
    options = parser.parse_args()
    if min(options.bytes, options.part_bytes) < 1:
        parser.error("--bytes and --part-bytes are at least 1")
    if options.up_to < 4:
        parser.error("--up-to is at least 4: a curve has two points")
    if options.bytes % powers(options.up_to)[-1]:
        parser.error(f"--bytes {options.bytes} cannot be cut into {powers(options.up_to)[-1]} equal parts")
    try:
        kind = ps.load_array(options.array).network.kind
    except InputError as error:
        parser.error(str(error))
    if kind != "bus_tree":
        parser.error(f"{options.array} is a {kind}; the closed forms are those of a bus_tree")
    return options


def main() -> None:
    """Prints the table and the findings, and writes both files."""
    options = read_options()

    def progress(text: str) -> None:
        print(f"  {text}", file=sys.stderr, flush=True)

    points = collect(options.array, options.up_to, options.bytes, options.part_bytes, progress)
    print(format_points(points), findings(points), verdict(points), sep="\n")
    if not options.no_files:
        options.out.mkdir(parents=True, exist_ok=True)
        write_table(points, options.out / f"{NAME}.csv")
        titles = [panel.title for panel in panels(options.bytes, options.part_bytes)]
        draw(points, titles, options.out / f"{NAME}.png")
        print(f"wrote {NAME}.csv and {NAME}.png in {options.out.name}")
    if any(point.cycles != point.closed_form for point in points):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
