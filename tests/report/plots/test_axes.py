"""Every picture of one pair of axes draws where it is told and returns the axes; the style changes nothing unasked."""

import importlib
import inspect
import pkgutil
import subprocess
import sys
from collections.abc import Callable

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

import pe_sim as ps
import pe_sim.report.plots
from pe_sim.config.plans.plan import ParallelPlan
from pe_sim.errors import InputError
from pe_sim.report.plots.studies import Bar, plot_lines, plot_tornado
from pe_sim.report.plots.style import STYLE
from pe_sim.report.plots.time import plot_time
from pe_sim.report.step import parts
from tests.report.samples import tiny, tiny_on
from tests.report.system_samples import simulated

pytestmark = pytest.mark.usefixtures("no_window")

FRAME = pd.DataFrame(
    {"pes": [1, 2, 4, 1, 2, 4], "speed": [1.0, 2.0, 3.5, 2.0, None, 9.0], "by": list("aaabbb"), "text": list("uvwxyz")}
)
PLOTS: dict[str, Callable[[Axes | None], Axes]] = {
    "plot_bus_utilization": lambda ax: tiny().plot_bus_utilization(ax),
    "plot_channel_heat": lambda ax: tiny_on("mesh").plot_channel_heat(ax),
    "plot_roofline": lambda ax: tiny().plot_roofline(ax),
    "plot_topology": lambda ax: ps.plot_topology(ps.load_array("mesh-256"), ax),
    "plot_tornado": lambda ax: plot_tornado([Bar("bus", -0.1, 0.2)], "title", ax),
    "plot_time": lambda ax: plot_time({"a": tiny(), "b": tiny("megatron")}, ax),
    "plot_timeline": lambda ax: simulated(ParallelPlan(tp=2, pp=2)).plot_timeline(ax),
    "plot_lines": lambda ax: plot_lines(FRAME, "pes", "speed", "by", ax),
}


def test_every_plot_of_the_room_is_tested_here() -> None:
    found = set()
    for module in pkgutil.iter_modules(pe_sim.report.plots.__path__, "pe_sim.report.plots."):
        members = inspect.getmembers(importlib.import_module(module.name), inspect.isfunction)
        mine = [
            function for name, function in members if name.startswith("plot_") and function.__module__ == module.name
        ]
        found |= {function.__name__ for function in mine if inspect.signature(function).return_annotation != "Figure"}
        assert all("ax" in inspect.signature(function).parameters for function in mine if function.__name__ in found)
    assert found == set(PLOTS)


@pytest.mark.parametrize("name", PLOTS)
def test_it_draws_into_the_axes_it_is_given(name: str) -> None:
    figure = Figure()
    first, second = figure.subplots(1, 2)
    assert PLOTS[name](second) is second
    assert second.has_data() or second.patches or second.collections
    assert not first.has_data()
    assert plt.get_fignums() == []


@pytest.mark.parametrize("name", PLOTS)
def test_it_makes_a_figure_of_its_own_otherwise(name: str) -> None:
    axes = PLOTS[name](None)
    assert len(plt.get_fignums()) == 1
    assert axes.figure.number == plt.get_fignums()[0]


@pytest.mark.parametrize("name", PLOTS)
def test_it_leaves_the_settings_alone(name: str) -> None:
    before = dict(mpl.rcParams)
    PLOTS[name](None)
    assert dict(mpl.rcParams) == before


class TestTime:
    def test_the_parts_add_up_to_the_latencies(self) -> None:
        reports = {"a": tiny(), "b": tiny("megatron")}
        ax = plot_time(reports)
        labels = [label.get_text() for label in ax.get_yticklabels()]
        assert labels == sorted(reports, key=lambda label: reports[label].latency_cycles)
        for row, label in enumerate(labels):
            mine = [patch for patch in ax.patches if round(patch.get_y() + patch.get_height() / 2) == row]
            assert len(mine) == len(parts(reports[label]))
            seconds = sum(patch.get_width() for patch in mine) * 1e-6
            assert seconds == pytest.approx(reports[label].latency_seconds)

    def test_communication_is_striped(self) -> None:
        ax = plot_time({"a": tiny()})
        striped = {patch.get_label() for patch in ax.get_legend().get_patches() if patch.get_hatch()}
        assert striped == {part.name for part in parts(tiny()) if part.communication}

    def test_nothing_to_draw_is_refused(self) -> None:
        with pytest.raises(InputError, match="no reports to draw"):
            plot_time({})


class TestLines:
    def test_a_line_a_group_without_the_missing_points(self) -> None:
        lines = plot_lines(FRAME, "pes", "speed", "by").get_lines()
        assert [(line.get_label(), line.get_xdata().tolist(), line.get_ydata().tolist()) for line in lines] == [
            ("a", [1, 2, 4], [1.0, 2.0, 3.5]),
            ("b", [1, 4], [2.0, 9.0]),
        ]

    def test_lines_differ_in_colour_dashes_and_marker(self) -> None:
        frame = pd.DataFrame({"x": [1, 2] * 7, "y": range(14), "by": [group for group in range(7) for _ in range(2)]})
        lines = plot_lines(frame, "x", "y", "by").get_lines()
        assert len({line.get_color() for line in lines}) == 7
        assert len({(line.get_linestyle(), line.get_marker()) for line in lines}) == 7

    def test_a_wide_range_is_logarithmic_and_a_narrow_one_is_not(self) -> None:
        frame = pd.DataFrame({"num_pes": [64, 1024], "x.y": [5.0, 6.0]})
        ax = plot_lines(frame, "num_pes", "x.y")
        assert (ax.get_xscale(), ax.get_yscale()) == ("log", "linear")
        assert (ax.get_xlabel(), ax.get_ylabel()) == ("PEs", "x, y")
        ax.figure.draw_without_rendering()
        assert [label.get_text() for label in ax.get_xticklabels()] == ["64", "1,024"]

    @pytest.mark.parametrize(
        ("names", "words"),
        [
            (("pez", "speed", "by"), "did you mean 'pes'"),
            (("pes", "sped", "by"), "did you mean 'speed'"),
            (("pes", "speed", "buy"), "did you mean 'by'"),
            (("pes", "text", "by"), "not a column of numbers"),
            (("pes", "speed", None), "several points have one pes"),
        ],
    )
    def test_bad_columns_are_refused(self, names: tuple[str, str, str | None], words: str) -> None:
        with pytest.raises(InputError, match=words):
            plot_lines(FRAME, *names)

    def test_no_value_at_all_is_refused(self) -> None:
        with pytest.raises(InputError, match="no row has a value"):
            plot_lines(FRAME.assign(speed=float("nan")), "pes", "speed", "by")


class TestStyle:
    def test_importing_changes_nothing(self) -> None:
        code = (
            "import matplotlib as mpl; before = dict(mpl.rcParams)\n"
            "import pe_sim as ps; ps.style, ps.use_style, ps.plot_topology, ps.compare\n"
            "assert dict(mpl.rcParams) == before"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def test_it_is_set_when_asked_for(self) -> None:
        ps.use_style()
        assert mpl.rcParams["svg.hashsalt"] == "pe-sim"
        assert not mpl.rcParams["axes.spines.top"]

    def test_within_a_block_alone(self) -> None:
        before = dict(mpl.rcParams)
        with ps.style():
            assert mpl.rcParams["image.cmap"] == "cividis"
        assert dict(mpl.rcParams) == before

    def test_matplotlib_knows_it_by_its_name(self) -> None:
        with plt.style.context(STYLE):
            assert mpl.rcParams["figure.constrained_layout.use"]

    def test_its_lines_differ_without_colours(self) -> None:
        with ps.style():
            looks = list(mpl.rcParams["axes.prop_cycle"])
        red, green, blue = (0.2126, 0.7152, 0.0722)

        def lightness(colour: str) -> float:
            r, g, b = to_rgb(colour)
            return red * r + green * g + blue * b

        for index, one in enumerate(looks):
            for other in looks[:index]:
                differ = abs(lightness(one["color"]) - lightness(other["color"])) > 0.1
                assert differ or one["linestyle"] != other["linestyle"]
