"""The report of one simulated step: its figures, with exports and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from pe_sim.report.files import write_text
from pe_sim.report.step import StepFigures

if TYPE_CHECKING:
    from pe_sim.report.plots.bus import Axes, Figure


@dataclass(frozen=True, eq=False, repr=False)
class Report(StepFigures):
    """The report of one step: figures that can be printed, drawn and saved."""

    def save_trace(self, path: str | Path, *, pes: str | Sequence[int] = "classes") -> None:
        """Writes the trace for ui.perfetto.dev to a file, whole or not at all.

        Args:
            path: of the file.
            pes: "classes": PEs that do the same share a track; "all": each has its own; or the numbers of some PEs.

        Raises:
            InputError: the file cannot be written, there is no such PE, or they are too many for one file.
        """
        from pe_sim.report.perfetto.export import trace_json

        write_text(path, trace_json(self, pes=pes))

    def save_html(self, path: str | Path) -> None:
        """Writes the report as a page: one file that a browser opens without a network; whole or not at all.

        Raises:
            InputError: the file cannot be written.
        """
        from pe_sim.report.html.page import report_html

        write_text(path, report_html(self))

    def print(self, file: TextIO | None = None) -> None:
        """Prints the readable report to `file`, or to stdout."""
        from pe_sim.report.table import print_report

        print_report(self, file)

    def plot_bus_utilization(self, ax: Axes | None = None, *, bins: int = 200) -> Axes:
        """Draws how busy the bus was over time, by tag, into `ax` or a new figure; returns the axes.

        On a graph of channels it draws the hottest channel by tag, and the mean over the channels of each level.
        """
        from pe_sim.report.plots.bus import plot_bus_utilization

        return plot_bus_utilization(self, ax, bins=bins)

    def plot_channel_heat(self, ax: Axes | None = None, *, tag: str = "all") -> Axes:
        """Draws the interconnect, its channels coloured by utilization, into `ax` or a new figure; returns the axes.

        Args:
            tag: a tag of the machine model such as "broadcast", or "all" for all messages together.

        Raises:
            InputError: there is no such tag.
        """
        from pe_sim.report.plots.heat import plot_channel_heat

        return plot_channel_heat(self, ax, tag)

    def plot_channel_heats(self) -> Figure:
        """A figure with a channel heat panel for all messages, and one for each tag that was sent."""
        from pe_sim.report.plots.heat import plot_channel_heats

        return plot_channel_heats(self)

    def save_channel_heat(self, path: str | Path) -> None:
        """Writes `plot_channel_heats()` as a PNG file."""
        from pe_sim.report.plots.heat import save_channel_heat

        save_channel_heat(self, path)

    def plot_roofline(self, ax: Axes | None = None) -> Axes:
        """Draws every operator below the array's roofline into `ax` or a new figure; returns the axes.

        `pe_sim.report.plots.roofline` says what the points mean.
        """
        from pe_sim.report.plots.roofline import plot_roofline

        return plot_roofline(self, ax)

    def save_roofline(self, path: str | Path) -> None:
        """Writes `plot_roofline()` as PNG or SVG, as the ending of `path` says.

        Raises:
            InputError: the path has another ending.
        """
        from pe_sim.report.plots.roofline import save_roofline

        save_roofline(self, path)

    def _repr_html_(self) -> str:
        """HTML for a notebook: the summary, and where the time goes."""
        from pe_sim.report.html.page import summary_html

        return summary_html(self)
