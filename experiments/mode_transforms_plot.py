"""Heat maps of what transforms of placements cost: a row of panels for each tensor, a column for each number of PEs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from experiments.mode_transforms_table import KINDS, matrix, numbers_of

FREE_COLOUR: Final = "0.9"
COLOURS: Final = "YlGnBu"
PANEL: Final = 2.3  # inches, for numbers in each cell that can be read; the picture is as wide as its panels need
SMALL, TINY = 6.5, 5.5
LEAST_RANGE: Final = 3  # from the palest to the darkest, so that small differences look small


def figures(table: pd.DataFrame) -> Mapping[str, Figure]:
    """One scale of colours for a tensor, logarithmic, so that a row of panels can be compared."""
    numbers = numbers_of(table)
    figure, axes = plt.subplots(
        len(KINDS),
        len(numbers),
        figsize=(PANEL * len(numbers) + 0.9, PANEL * len(KINDS) + 0.8),
        squeeze=False,
        layout="constrained",
    )
    for row, kind in zip(axes, KINDS, strict=True):
        panels = [(pes, *matrix(table, kind.name, pes)) for pes in numbers]
        paid = np.concatenate([cycles[cycles > 0] for _, _, cycles in panels])
        norm = LogNorm(paid.min(), max(paid.max(), LEAST_RANGE * paid.min()))
        for each, (pes, names, cycles) in zip(row, panels, strict=True):
            _draw_panel(each, names, cycles, norm)
            each.set_title(f"{kind.name} on {pes:,} PEs")
        for each in row[1:]:
            each.set_yticklabels([])
        row[0].set_ylabel(f"{kind.what}\nfrom", fontsize=SMALL)
        image = ScalarMappable(norm=norm, cmap=COLOURS)
        bar = figure.colorbar(image, ax=list(row), pad=0.01, fraction=0.02, label="cycles", ticks=_ticks(norm))
        bar.ax.minorticks_off()
        bar.ax.yaxis.set_major_formatter(lambda cycles, place: short(round(cycles)))
    figure.suptitle(
        "Cycles from each placement (rows) to each other (columns), alone on the bus and the tree; grey: free"
    )
    return {"cycles": figure}


def _draw_panel(axes: Axes, names: Sequence[str], cycles: np.ndarray, norm: LogNorm) -> None:
    shown = np.ma.masked_less_equal(cycles, 0)
    colours = plt.get_cmap(COLOURS).with_extremes(bad=FREE_COLOUR)
    axes.imshow(shown, cmap=colours, norm=norm)
    for source in range(len(names)):
        for target in range(len(names)):
            value = int(cycles[source, target])
            if value < 0:
                axes.add_patch(Rectangle((target - 0.5, source - 0.5), 1, 1, color="white"))
            dark = value > 0 and float(norm(value)) > 0.55
            axes.text(
                target, source, short(value), ha="center", va="center", fontsize=6, color="white" if dark else "0.15"
            )
    labels = [name.replace("(", "\n(") for name in names]
    axes.set_xticks(range(len(names)), labels, fontsize=TINY)
    axes.set_yticks(range(len(names)), labels, fontsize=TINY)
    axes.tick_params(length=0)
    axes.set_xlabel("to", fontsize=SMALL, labelpad=1)
    for side in axes.spines.values():
        side.set_visible(False)


def _ticks(norm: LogNorm) -> list[float]:
    assert norm.vmin is not None
    assert norm.vmax is not None
    return [float(tick) for tick in np.geomspace(norm.vmin, norm.vmax, 4)]


def short(cycles: int) -> str:
    """A number that fits a cell: three digits and a letter; nothing on the diagonal."""
    if cycles < 0:
        return ""
    if cycles < 1000:
        return str(cycles)
    for scale, letter in ((1e6, "M"), (1e3, "k")):
        if cycles >= scale * 0.9995:
            value = cycles / scale
            return f"{value:.{0 if value >= 99.95 else 1 if value >= 9.995 else 2}f}{letter}"
    return str(cycles)
