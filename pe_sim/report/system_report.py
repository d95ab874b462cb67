"""The report of one simulated step on several arrays: its figures, with exports and pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from pe_sim.report.files import write_text
from pe_sim.report.system.figures import SystemFigures

if TYPE_CHECKING:
    from pe_sim.report.plots.bus import Axes


@dataclass(frozen=True, eq=False, repr=False)
class SystemReport(SystemFigures):
    """The report of one step on several arrays: figures that can be printed, drawn and saved."""

    def save_trace(self, path: str | Path) -> None:
        """Writes the trace for ui.perfetto.dev to a file, whole or not at all.

        Raises:
            InputError: the file cannot be written.
        """
        from pe_sim.report.system.trace import trace_json

        write_text(path, trace_json(self))

    def print(self, file: TextIO | None = None) -> None:
        """Prints the readable report to `file`, or to stdout."""
        from pe_sim.report.system.table import print_system_report

        print_system_report(self, file)

    def plot_timeline(self, ax: Axes | None = None) -> Axes:
        """Draws the stages over time, a colour a microbatch, into `ax` or a new figure; returns the axes."""
        from pe_sim.report.plots.system import plot_timeline

        return plot_timeline(self, ax)

    def save_timeline(self, path: str | Path) -> None:
        """Writes `plot_timeline()` as PNG or SVG, as the ending of `path` says.

        Raises:
            InputError: the path has another ending.
        """
        from pe_sim.report.plots.system import save_timeline

        save_timeline(self, path)

    def _repr_html_(self) -> str:
        """HTML for a notebook: the summary, and how every stage spends the step."""
        from pe_sim.report.system.table import system_card

        return system_card(self)
