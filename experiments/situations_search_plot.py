"""What the searched mapping saves, drawn: a panel a model, a line a situation and array, a column a named workflow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from experiments.marks import grouped, heading
from experiments.situations_search_table import best_named, by_case, named_in
from experiments.study import WIDTH

COLOURS: Final = "Blues"
NO_FIT: Final = "0.9"
SMALL: Final = 6.0
LEAST_HEIGHT: Final = 2.6  # inches


def figures(table: pd.DataFrame) -> Mapping[str, Figure]:
    """Fewer cycles in per cent; the best named workflow of each line has a frame."""
    models, names = grouped(table, "model"), named_in(table)
    most = max(len(by_case(rows)) for rows in models.values())
    figure, panels = plt.subplots(
        1, len(models), figsize=(WIDTH, max(0.17 * most + 1.6, LEAST_HEIGHT)), squeeze=False, layout="constrained"
    )
    image = None
    for axes, (model, rows) in zip(panels[0], models.items(), strict=True):
        cases = by_case(rows)
        gains = np.array([case["gain_of_searched"].reindex(names).astype(float) for case in cases.values()]) * 100
        image = axes.imshow(np.ma.masked_invalid(gains), cmap=_palette(), vmin=0, vmax=100, aspect="auto")
        _write(axes, gains)
        _frame(axes, [best_named(case) for case in cases.values()], names)
        heading(axes, model)
        axes.set_xticks(range(len(names)), names, rotation=60, ha="right", rotation_mode="anchor", fontsize=SMALL)
        lines = [f"{situation}, {array.removeprefix('bus-tree-')} PEs" for _, array, situation in cases]
        axes.set_yticks(range(len(lines)), lines, fontsize=SMALL)
        axes.tick_params(length=0)
    assert image is not None, "a table has a model"
    figure.colorbar(image, ax=list(panels[0]), label="fewer cycles, %", fraction=0.03, pad=0.01)
    figure.legend(
        handles=[
            Patch(facecolor="white", edgecolor="black", label="best of the named workflows"),
            Patch(facecolor=NO_FIT, label="does not fit, or was not tried"),
        ],
        loc="outside lower center", ncols=2, frameon=False,
    )  # fmt: skip
    figure.suptitle("What a searched mapping saves beside each named workflow, for whole situations")
    return {"gains": figure}


def _palette() -> object:
    return plt.get_cmap(COLOURS).with_extremes(bad=NO_FIT)


def _write(axes: Axes, gains: np.ndarray) -> None:
    for (row, column), gain in np.ndenumerate(gains):
        if not np.isnan(gain):
            colour = "white" if gain > 60 else "0.15"
            axes.text(column, row, f"{gain:.0f}", ha="center", va="center", fontsize=SMALL, color=colour)


def _frame(axes: Axes, best: list[str], names: list[str]) -> None:
    for row, name in enumerate(best):
        if name:
            column = names.index(name)
            axes.add_patch(Rectangle((column - 0.46, row - 0.44), 0.92, 0.88, fill=False, linewidth=0.9))
