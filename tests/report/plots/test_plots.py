"""The picture of the bus: what it draws, not how it looks."""

from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.patches import StepPatch

from pe_sim.errors import InputError
from pe_sim.report.plots.bus import TAG_COLOURS, busy_fractions
from pe_sim.report.plots.topology import save_topology
from pe_sim.schedule.stages import Tag
from tests.report.samples import WORKFLOWS, tiny

pytestmark = pytest.mark.usefixtures("no_window")


@pytest.mark.parametrize("workflow", WORKFLOWS)
@pytest.mark.parametrize("bins", [1, 7, 200])
def test_fractions_are_a_histogram_of_the_uses(workflow: str, bins: int) -> None:
    report = tiny(workflow, 16)
    edges, fractions = busy_fractions(report.trace, [report.trace.channel_use.channels.index("bus")], bins)
    uses = report.trace.channel_use
    cycles = np.zeros((len(uses.tags), report.latency_cycles))
    for channel, tag, start, end in zip(uses.channel, uses.tag, uses.start, uses.end, strict=True):
        if uses.channels[channel] == "bus":
            cycles[tag, start:end] += 1.0
    assert (edges[0], edges[-1]) == (0.0, report.latency_cycles)
    assert (cycles.sum(axis=0) <= 1.0).all()
    np.testing.assert_allclose(fractions.mean(axis=1), cycles.mean(axis=1))
    whole = np.concatenate([np.zeros((len(uses.tags), 1)), cycles.cumsum(axis=1)], axis=1)
    for tag, until in enumerate(whole):
        expected = np.diff(np.interp(edges, np.arange(len(until)), until)) / np.diff(edges)
        np.testing.assert_allclose(fractions[tag], expected, atol=1e-12)


def test_the_plot_stacks_the_tags_that_were_used() -> None:
    report = tiny("workflow-1", 16)
    ax = report.plot_bus_utilization(bins=50)
    steps = [patch for patch in ax.patches if isinstance(patch, StepPatch)]
    used = [tag for tag, use in report.traffic.items() if use.messages and tag != "reduce"]
    assert [str(patch.get_label()).split(" (")[0] for patch in steps] == used
    top = steps[-1].get_data().values
    assert float(np.mean(top)) == pytest.approx(report.utilization["bus"])
    assert ax.get_xlabel().startswith("time (")
    assert ax.get_ylabel().startswith("bus utilization")
    assert report.model.name in ax.get_title(loc="left")


def test_the_plot_draws_where_it_is_told() -> None:
    _, axes = plt.subplots(1, 2)
    assert tiny().plot_bus_utilization(axes[1]) is axes[1]
    assert not axes[0].has_data()
    assert len(plt.get_fignums()) == 1


def test_every_tag_has_a_colour_of_its_own() -> None:
    assert set(TAG_COLOURS) == {tag.value for tag in Tag}
    assert len(set(TAG_COLOURS.values())) == len(TAG_COLOURS)


def test_no_bins_are_refused() -> None:
    with pytest.raises(InputError, match="no bins to draw"):
        tiny().plot_bus_utilization(bins=0)


def test_saved_pictures_do_not_take_the_looks_of_a_matplotlibrc(tmp_path: Path) -> None:
    """Nor need they what it asks for: here LaTeX, and a map of colours that does not exist."""
    report = tiny("workflow-1", 16)
    pictures: dict[str, Callable[[Path], object]] = {
        "heat.png": report.save_channel_heat,
        "roofline.png": report.save_roofline,
        "roofline.svg": report.save_roofline,
        "topology.png": lambda path: save_topology(report.array, path),
    }
    for folder in ("plain", "theirs"):
        (tmp_path / folder).mkdir()
    for name, save in pictures.items():
        save(tmp_path / "plain" / name)
    with plt.rc_context({"text.usetex": True, "font.size": 30, "axes.facecolor": "red"}):
        dict.__setitem__(plt.rcParams, "image.cmap", "nosuch")  # as a file may have it
        for name, save in pictures.items():
            save(tmp_path / "theirs" / name)
    for name in pictures:
        assert (tmp_path / "theirs" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()
