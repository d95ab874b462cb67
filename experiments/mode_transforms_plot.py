"""Heat maps of what transforms of placements cost: a row of panels for each tensor, a column for each number of PEs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import LogNorm

Panel = tuple[int, list[str], np.ndarray]  # PEs, placements, cycles from each to each
FREE_COLOUR, COLOURS = "0.9", "YlGnBu"
LEAST_RANGE = 3  # from the palest to the darkest, so that small differences look small


def draw(panels: Mapping[tuple[str, str], Sequence[Panel]], path: Path) -> None:
    """One scale of colours for a tensor, logarithmic, so that a row of panels can be compared."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.colors import LogNorm

    columns = max(len(row) for row in panels.values())
    figure, axes = plt.subplots(
        len(panels),
        columns,
        figsize=(3.5 * columns + 1.2, 3.6 * len(panels) + 1.0),
        squeeze=False,
        layout="constrained",
    )
    for row, ((name, what), mine) in zip(axes, panels.items(), strict=True):
        paid = np.concatenate([cycles[cycles > 0] for _, _, cycles in mine])
        norm = LogNorm(paid.min(), max(paid.max(), LEAST_RANGE * paid.min()))
        for each, (pes, names, cycles) in zip(row, mine, strict=True):
            _draw_panel(each, names, cycles, norm)
            each.set_title(f"{name} on {pes:,} PEs", fontsize=11)
        for each in row[1:]:
            each.set_yticklabels([])
        row[0].set_ylabel(f"{what}\nfrom", fontsize=8.5)
        image = plt.cm.ScalarMappable(norm=norm, cmap=COLOURS)
        bar = figure.colorbar(image, ax=list(row), pad=0.01, fraction=0.02, label="cycles", ticks=_ticks(norm))
        bar.ax.minorticks_off()
        bar.ax.yaxis.set_major_formatter(lambda cycles, place: short(round(cycles)))
    figure.suptitle(
        "Cycles from each placement (rows) to each other (columns), alone on the bus and the tree; grey: free",
        fontsize=14,
    )
    figure.savefig(path, dpi=90, metadata={"Software": None})
    plt.close(figure)


def _draw_panel(axes: Axes, names: Sequence[str], cycles: np.ndarray, norm: LogNorm) -> None:
    import matplotlib.pyplot as plt

    shown = np.ma.masked_less_equal(cycles, 0)
    colours = plt.get_cmap(COLOURS).with_extremes(bad=FREE_COLOUR)
    axes.imshow(shown, cmap=colours, norm=norm)
    for source in range(len(names)):
        for target in range(len(names)):
            value = int(cycles[source, target])
            if value < 0:
                axes.add_patch(plt.Rectangle((target - 0.5, source - 0.5), 1, 1, color="white"))
            dark = value > 0 and float(norm(value)) > 0.55
            axes.text(
                target, source, short(value), ha="center", va="center", fontsize=8, color="white" if dark else "0.15"
            )
    labels = [name.replace("(", "\n(") for name in names]
    axes.set_xticks(range(len(names)), labels, fontsize=7)
    axes.set_yticks(range(len(names)), labels, fontsize=7)
    axes.tick_params(length=0)
    axes.set_xlabel("to", fontsize=8.5, labelpad=1)
    for side in axes.spines.values():
        side.set_visible(False)


def _ticks(norm: LogNorm) -> list[float]:
    assert norm.vmin is not None
    assert norm.vmax is not None
    return np.geomspace(norm.vmin, norm.vmax, 4).tolist()


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
