"""The map drawn: regions of the best workflow over context and batch, an array a column, and what they save."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.artist import Artist
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import BoundaryNorm, ListedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from scipy import ndimage

from experiments.situations_map import USUAL, WORKFLOWS, Spot
from experiments.situations_tables import areas
from pe_sim.config.situations import Situation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

# Okabe and Ito's palette, and Paul Tol's olive.
COLOURS = {
    "workflow-1": "#E69F00",
    "workflow-2": "#56B4E9",
    "alternating": "#CC79A7",
    "megatron": "#009E73",
    "all-row": "#F0E442",
    "all-col": "#0072B2",
    "batch-stream": "#D55E00",
    "batch-block": "#666666",
    "block-pipeline": "#999933",
}
NO_FIT, HATCH = "#EDEDED", "#BDBDBD"
NOTHING = -1
GAIN_STEPS = (0.0, 0.01, 0.02, 0.05, 0.10, 0.20, 0.40, 0.60, 0.80, 1.0)
SMALLEST_LABELLED = 3  # squares
LETTER = 0.25  # of a square's width
PANEL, LEAST_WIDTH = 2.2, 7.2  # inches
NAMES, SMALL, TINY = 6.5, 6.0, 5.5  # points


def draw(spots: Sequence[Spot], model: str, situations: Sequence[Situation]) -> Figure:
    """The picture of one model."""
    arrays = [array for of_model, array in areas(spots) if of_model == model]
    size = (max(PANEL * len(arrays) + 0.9, LEAST_WIDTH), 5.3)
    figure, panels = plt.subplots(
        2, len(arrays), figsize=size, sharex=True, sharey=True, squeeze=False, layout="constrained"
    )
    palette = plt.get_cmap("magma_r", len(GAIN_STEPS) + 3)
    colours = [palette(index) for index in range(len(GAIN_STEPS) - 1)]
    gains, norm = ListedColormap(colours), BoundaryNorm(GAIN_STEPS, len(colours))
    present: set[str] = set()
    for column, array in enumerate(arrays):
        grid = Grid([spot for spot in spots if (spot.model, spot.array) == (model, array)])
        present |= {spot.best for spot in grid.spots.values()} - {""}
        above, below = panels[0][column], panels[1][column]
        marks = [grid.place(middle_context(each), each.batch_sequences) for each in situations]
        _draw_winners(above, grid, marks)
        _draw_marks(above, marks)
        _draw_gains(below, grid, gains, norm)
        above.set_title(array)
        below.set_xlabel("context (tokens)")
    for row in panels:
        row[0].set_ylabel("batch (sequences)")
    bar = figure.colorbar(ScalarMappable(norm, gains), ax=panels[1], ticks=GAIN_STEPS, pad=0.01, aspect=28)
    bar.ax.set_yticklabels([f"{step:.0%}" for step in GAIN_STEPS], fontsize=SMALL)
    bar.set_label(f"fewer cycles than {USUAL} (numbers: percent)", fontsize=NAMES)
    handles: list[Artist] = [
        Patch(facecolor=COLOURS[name], edgecolor="0.2", label=name) for name in WORKFLOWS if name in present
    ]
    handles.append(
        Patch(facecolor=NO_FIT, edgecolor=HATCH, hatch="///", label="does not fit the memories under any workflow")
    )
    handles.append(Patch(facecolor="white", edgecolor="0.2", hatch="..", label=f"{USUAL} does not fit, others do"))
    columns = min(len(handles), 3 * len(arrays))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False)
    numbered = ", ".join(f"{index + 1} {each.name}" for index, each in enumerate(situations))
    figure.suptitle(
        f"{model}, one decode step: the fastest named workflow (above) and what it saves (below)\n"
        f"a square is a simulated step; circles are the situations at the middle of their answers: {numbered}"
    )
    return figure


class Grid:
    """The squares of one model on one array, by their places."""

    def __init__(self, spots: Sequence[Spot]) -> None:
        """Finds the axes."""
        self.contexts = sorted({spot.context for spot in spots})
        self.batches = sorted({spot.batch for spot in spots})
        self.spots = {(spot.batch, spot.context): spot for spot in spots}

    @property
    def winners(self) -> NDArray[np.int64]:
        """By batch and context, the index of the best workflow."""
        return np.array(
            [
                [WORKFLOWS.index(best) if (best := self.spots[b, c].best) else NOTHING for c in self.contexts]
                for b in self.batches
            ]
        )

    @property
    def gains(self) -> NDArray[np.float64]:
        """By batch and context, the gain over the usual workflow; NaN where there is none."""
        values = [[self.spots[b, c].gain_over(USUAL) if self.spots[b, c].cycles else None for c in self.contexts]
                  for b in self.batches]  # fmt: skip
        return np.array([[np.nan if value is None else value for value in row] for row in values])

    def place(self, context: float, batch: float) -> tuple[float, float]:
        """Where a step lies, in squares; the axes are logarithmic."""
        x = np.interp(np.log2(context), np.log2(self.contexts), np.arange(len(self.contexts)))
        y = np.interp(np.log2(batch), np.log2(self.batches), np.arange(len(self.batches)))
        return float(x), float(y)


def _draw_winners(axes: Axes, grid: Grid, marks: Sequence[tuple[float, float]]) -> None:
    winners = grid.winners
    colours = np.array([to_rgb(COLOURS[name]) for name in WORKFLOWS] + [to_rgb(NO_FIT)])
    axes.imshow(colours[winners], origin="lower", aspect="auto", interpolation="nearest")
    _finish(axes, grid)
    for index, name in enumerate(WORKFLOWS):
        for squares in regions(winners == index):
            if len(squares) >= SMALLEST_LABELLED:
                x, y, room = place_of_label(squares, name, marks)
                turned = 90 if room < LETTER * len(name) else 0
                axes.text(x, y, name, ha="center", va="center", fontsize=NAMES, rotation=turned, fontweight="bold")


def _draw_gains(axes: Axes, grid: Grid, colours: Any, norm: Any) -> None:
    gains = np.ma.masked_invalid(grid.gains)
    axes.imshow(gains, origin="lower", aspect="auto", interpolation="nearest", cmap=colours, norm=norm)
    _finish(axes, grid)
    for row, batch in enumerate(grid.batches):
        for column, context in enumerate(grid.contexts):
            spot = grid.spots[batch, context]
            gain = spot.gain_over(USUAL) if spot.cycles else None
            if gain:
                axes.text(column, row, f"{gain * 100:.0f}" if gain >= 0.01 else "<1", ha="center", va="center",
                          fontsize=TINY, color="white" if gain >= 0.4 else "black")  # fmt: skip
            elif spot.cycles and gain is None:
                _hatch(axes, column, row, "white", "0.4", "..")


def _finish(axes: Axes, grid: Grid) -> None:
    """Hatched where nothing fits, lines between regions, and the axes in tokens and sequences."""
    winners = grid.winners
    for row, column in zip(*np.nonzero(winners == NOTHING), strict=True):
        _hatch(axes, column, row, NO_FIT, HATCH, "///")
    axes.add_collection(LineCollection(boundaries(winners), colors="black", linewidths=1.0, capstyle="round"))
    contexts, batches = grid.contexts, grid.batches
    # Every second power, else they run into each other.
    axes.set_xticks(range(0, len(contexts), 2), [_short(value) for value in contexts[::2]])
    axes.set_yticks(range(0, len(batches), 2), [_short(value) for value in batches[::2]])
    axes.set_xlim(-0.5, len(contexts) - 0.5)
    axes.set_ylim(-0.5, len(batches) - 0.5)
    axes.tick_params(length=2, labelsize=NAMES)
    if (winners == NOTHING).sum() >= 2 * SMALLEST_LABELLED:
        x, y, _ = place_of_label(regions(winners == NOTHING)[0], "does not fit")
        box = {"facecolor": NO_FIT, "edgecolor": "none", "pad": 1.5}
        axes.text(x, y, "does not fit", ha="center", va="center", fontsize=NAMES, color="0.3", bbox=box)


def _hatch(axes: Axes, column: int, row: int, face: str, edge: str, hatch: str) -> None:
    square = Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=face, edgecolor=edge, hatch=hatch, linewidth=0)
    axes.add_patch(square)


def _draw_marks(axes: Axes, marks: Sequence[tuple[float, float]]) -> None:
    for index, (x, y) in enumerate(marks):
        axes.plot(x, y, marker="o", markersize=7.5, markerfacecolor="white", markeredgecolor="black", alpha=0.9)
        axes.text(x, y, str(index + 1), ha="center", va="center", fontsize=TINY)


def middle_context(situation: Situation) -> float:
    """The mean context of the sequences half way through their answers."""
    lengths = zip(situation.context_tokens, situation.prompt_tokens, situation.output_tokens, strict=True)
    middles = [context + prompt + (output - 1) / 2 for context, prompt, output in lengths]
    return sum(middles) / len(middles)


def boundaries(winners: NDArray[np.int64]) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """Lines between neighbours that differ."""
    lines = []
    rows, columns = winners.shape
    for row in range(rows):
        for column in range(columns):
            if column + 1 < columns and winners[row, column] != winners[row, column + 1]:
                lines.append(((column + 0.5, row - 0.5), (column + 0.5, row + 0.5)))
            if row + 1 < rows and winners[row, column] != winners[row + 1, column]:
                lines.append(((column - 0.5, row + 0.5), (column + 0.5, row + 0.5)))
    return lines


def regions(inside: NDArray[np.bool_]) -> list[list[tuple[int, int]]]:
    """The squares (row, column) of the connected regions, the largest first."""
    names, count = ndimage.label(inside)
    found = [
        [(int(row), int(column)) for row, column in zip(*np.nonzero(names == name), strict=True)]
        for name in range(1, count + 1)
    ]
    return sorted(found, key=len, reverse=True)


def place_of_label(
    squares: Sequence[tuple[int, int]], text: str, marks: Sequence[tuple[float, float]] = ()
) -> tuple[float, float, int]:
    """Where a name goes, and how many squares it has there: the middle of the widest row without a mark beneath it."""
    rows = sorted({row for row, _ in squares})
    middle = rows[len(rows) // 2]
    best: tuple[tuple[bool, int, int], tuple[float, float, int]] | None = None
    for row in rows:
        columns = [column for of_row, column in squares if of_row == row]
        x, room = (min(columns) + max(columns)) / 2, max(columns) - min(columns) + 1
        reach = LETTER * len(text) / 2 + 0.3
        free = not any(abs(row - at_y) < 0.8 and abs(x - at_x) < reach for at_x, at_y in marks)
        score = (free, min(room, round(2 * reach) + 1), -abs(row - middle))
        if best is None or score > best[0]:
            best = score, (x, float(row), room)
    assert best is not None, "a region has squares"
    return best[1]


def _short(value: int) -> str:
    return f"{value // 1024}k" if value >= 1024 and value % 1024 == 0 else str(value)
