"""The roofline of a step: ceilings from the array's numbers, points from what was read and how long it took."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.text import Text

import pe_sim as ps
from experiments.published_rooflines import a6000
from pe_sim.config.arrays.load import load_array
from pe_sim.config.step import Decode, Prefill
from pe_sim.errors import InputError
from pe_sim.graph.operators import Linear, Scores, Values
from pe_sim.report.plots.roofline import ceilings_of, roofline, save_roofline
from tests.report.samples import WORKFLOWS, simulate_on, simulate_tiny, tiny, tiny_on

pytestmark = pytest.mark.usefixtures("no_window")


def test_ceilings_of_a_preset():
    """256 PEs x 16 x 16 multipliers x 2 flops, 256 x 64 B, and one bus of 64 B, at 1 GHz."""
    ceilings = ceilings_of(load_array("bus-tree-256"))
    assert ceilings.flops_per_second == 131.072e12
    assert ceilings.memory_bytes_per_second == 16.384e12
    assert (ceilings.shared_bytes_per_second, ceilings.shared_name) == (64e9, "bus")
    assert ceilings.ridge == 8.0
    assert ceilings.roof(1.0) == 16.384e12
    assert ceilings.roof(8.0) == ceilings.roof(80.0) == 131.072e12


def test_ceilings_follow_the_clock_and_the_interconnect():
    assert ceilings_of(load_array("bus-tree-256", {"clock_ghz": 2.0})).flops_per_second == 262.144e12
    mesh = ceilings_of(load_array("mesh-256", {"network.link.bytes_per_cycle": 32}))
    assert (mesh.shared_bytes_per_second, mesh.shared_name) == (32e9, "one link")
    bank = ceilings_of(load_array("aim-gddr6-16"))
    assert bank.memory_bytes_per_second == pytest.approx(16 * 2048 / 226 * 2e9)  # whole rows of 226 cycles at 2 GHz


def test_the_published_roofline_table():
    """LLM-Viewer, table 1: on an A6000, q of Llama-2-7B attains 768 G a second in decode, 155 T in prefill."""
    ceilings = ceilings_of(a6000())
    assert ceilings.flops_per_second == pytest.approx(154.84e12)
    assert ceilings.memory_bytes_per_second == pytest.approx(768e9, rel=0.003)  # a whole number of bytes a cycle
    for step, rate in ((Decode(context_len=2048), 768e9), (Prefill(prompt_len=2048), 154.84e12)):
        report = ps.simulate("llama-2-7b", a6000(), step, workflow="megatron")
        point = next(point for point in roofline(report).points if point.name == "q")
        assert point.flops_per_second == pytest.approx(rate, rel=0.01)


@pytest.mark.parametrize("workflow", WORKFLOWS)
@pytest.mark.parametrize("overlap", [0, 1])
def test_no_point_is_above_the_roof(workflow, overlap):
    for step in (Decode(batch_size=4, context_len=40), Prefill(batch_size=4, prompt_len=12)):
        found = roofline(simulate_tiny(workflow, 8, step, overlap=overlap))
        assert found.points
        for point in found.points:
            assert point.flops_per_second <= found.ceilings.roof(point.intensity) * (1 + 1e-12), point.name


@pytest.mark.parametrize("workflow", WORKFLOWS)
def test_points_are_all_that_is_multiplied_and_read(workflow):
    report = tiny(workflow, 16)
    found = roofline(report)
    matrices = [op for _, op in report.graph.instances() if isinstance(op, Linear | Scores | Values)]
    assert sum(point.flops for point in found.points) == sum(op.flops for op in matrices)
    stages = [stage for _, stage in report.timeline.active() if getattr(stage, "matrix", None) is not None]
    read = sum(int(stage.matrix.read_bytes[stage.active].sum()) for stage in stages)
    assert sum(point.read_bytes for point in found.points) == read
    assert sum(point.share for point in found.points) + found.unplaced_share == pytest.approx(1)
    assert [point.share for point in found.points] == sorted((point.share for point in found.points), reverse=True)


def test_operators_that_differ_by_layer_are_apart():
    points = roofline(tiny("alternating", 8)).points
    assert {point.distribution for point in points if point.name == "gate"} == {"col", "row"}
    assert {point.distribution for point in points if point.name == "lm_head"} == {""}


@pytest.mark.parametrize("workflow", ["workflow-1", "alternating"])
def test_the_figure_has_a_marker_and_a_name_for_every_point(workflow):
    report = tiny(workflow, 16)
    found, ax = roofline(report), report.plot_roofline()
    markers = np.array([np.asarray(each.get_offsets())[0] for each in ax.collections])
    expected = [(point.intensity, point.flops_per_second) for point in found.points]
    np.testing.assert_allclose(sorted(markers.tolist()), sorted(expected))
    left, right = ax.get_xlim()
    bottom, top = ax.get_ylim()
    assert all(left < x < right and bottom < y < top for x, y in expected)
    texts = " ".join(text.get_text() for text in ax.texts).replace("\n", " ").replace("\u00a0", " ")
    words = set(texts.replace(",", " ").split())
    assert {point.name for point in found.points} <= words
    assert "all PEs' memories" in texts
    legend = {text.get_text() for text in ax.get_legend().get_texts()}
    assert {f"bound by {point.bound_by}" for point in found.points} <= legend


@pytest.mark.parametrize("report", [tiny("alternating", 16), tiny("workflow-2", 8), tiny_on("mesh")], ids=repr)
def test_texts_do_not_cover_each_other(report):
    ax = report.plot_roofline()
    ax.figure.draw_without_rendering()
    level = [Text.get_window_extent(text) for text in ax.texts if not text.get_rotation()]  # without the leader lines
    for index, box in enumerate(level):
        assert not any(box.overlaps(other) for other in level[index + 1 :])


def test_points_above_the_roof_are_explained():
    """At overlap 2 weights are there before their operator begins, and its span is shorter than its stream."""
    step, words = Decode(context_len=64), "above the roof"
    for overlap, above in ((1, False), (2, True)):
        array = load_array("bus-tree-64", {"overlap": overlap})
        report = ps.simulate("llama-3.2-1b", array, step, "megatron")
        found = roofline(report)
        high = [point for point in found.points if point.flops_per_second > found.ceilings.roof(point.intensity)]
        assert bool(high) is above
        assert (words in report.plot_roofline().get_xlabel()) is above


def test_the_figure_is_drawn_where_it_is_told():
    _, axes = plt.subplots(1, 2)
    assert tiny().plot_roofline(axes[1]) is axes[1]
    assert not axes[0].has_data()


@pytest.mark.parametrize("kind", ["mesh", "hier-bus", "crossbar"])
def test_on_other_interconnects(kind):
    assert tiny_on(kind).plot_roofline().get_legend() is not None


def test_a_step_that_multiplies_on_one_pe():
    assert simulate_on("line", 1).plot_roofline().collections


def test_files(tmp_path: Path):
    report = tiny()
    report.save_roofline(tmp_path / "a.png")
    report.save_roofline(tmp_path / "a.svg")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    text = (tmp_path / "a.svg").read_text(encoding="utf-8")
    assert "<svg" in text
    save_roofline(report, tmp_path / "b.svg")
    assert (tmp_path / "b.svg").read_text(encoding="utf-8") == text
    with pytest.raises(InputError, match="kind of picture"):
        save_roofline(report, tmp_path / "a.jpg")
    assert not (tmp_path / "a.jpg").exists()
