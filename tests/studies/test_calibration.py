"""Calibration: known machines come back, the published profile has its golden figures, arrays take as long as it."""

import io
import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pe_sim as ps
from pe_sim.config.files.overrides import parse_override
from pe_sim.config.plans.galvatron_profiles import Kind
from pe_sim.errors import InputError
from pe_sim.studies.calibration import Calibration
from pe_sim.studies.calibration_fits import ARRAY, LINKS, ring_steps, wire_share

SAMPLES = Path(__file__).resolve().parents[1] / "data" / "foreign" / "galvatron" / "profiles"
KEYS = {Kind.ALL_REDUCE: "allreduce", Kind.ALL_TO_ALL: "all2all"}
MIB = 2**20


def times(seconds, devices=(2, 4, 8), sizes=(1, 4, 64, 1024), kind=Kind.ALL_REDUCE):
    """A profile of a machine that takes `seconds(bytes sent, steps)`."""
    return {
        f"{KEYS[kind]}_size_{n}_{size}MB_time": 1e3 * seconds(wire_share(kind, n) * size * MIB, ring_steps(kind, n))
        for n in devices
        for size in sizes
    }


@cache
def published() -> Calibration:
    return ps.calibrate(sorted(SAMPLES.glob("*.json")))


@settings(max_examples=40)
@given(
    kind=st.sampled_from(list(KEYS)),
    start=st.floats(1e-7, 1e-2),
    step=st.floats(0, 1e-3),
    rate=st.floats(1e8, 1e13),
)
def test_a_machine_without_noise_comes_back(kind, start, step, rate):
    found = ps.calibrate(times(lambda sent, steps: start + steps * step + sent / rate, kind=kind))
    for devices in (2, 4, 8):
        fit = found.fit(kind, devices)
        latency = start + ring_steps(kind, devices) * step
        assert max(abs(point.relative_error) for point in fit.points) < 1e-9
        if latency > 1e-6 * fit.points[-1].measured.value:
            assert fit.latency_seconds == pytest.approx(latency, rel=1e-4)
        if fit.points[-1].measured.value > (1 + 1e-6) * latency:
            assert fit.bytes_per_second == pytest.approx(rate, rel=1e-4)
    over_all = found.fit(kind)
    assert max(abs(point.relative_error) for point in over_all.points) < 1e-6
    assert over_all.seconds(3 * MIB, 4) == pytest.approx(
        start + ring_steps(kind, 4) * step + wire_share(kind, 4) * 3 * MIB / rate, rel=1e-6
    )


def test_known_figures():
    found = ps.calibrate(times(lambda sent, steps: 50e-6 + steps * 2e-6 + sent / 200e9))
    fit = found.fit("all-reduce", 8)
    assert fit.latency_seconds == pytest.approx(78e-6)
    assert fit.step_seconds is None
    assert fit.bytes_per_second == pytest.approx(200e9)
    assert fit.r_squared == pytest.approx(1.0)
    over_all = found.fit("all-reduce")
    assert (over_all.latency_seconds, over_all.step_seconds) == (pytest.approx(50e-6), pytest.approx(2e-6))


def test_least_squares_on_relative_errors():
    """Where both factors are above 0, the relative errors are orthogonal to both columns over the times."""
    for fit in published().fits:
        if fit.kind.is_rate or fit.devices is None:
            continue
        measured = np.array([point.measured.value for point in fit.points])
        sizes = np.array([point.measured.num_bytes for point in fit.points], dtype=float)
        errors = np.array([point.relative_error for point in fit.points])
        assert errors @ (1 / measured) == pytest.approx(0, abs=1e-9 * np.sum(1 / measured))
        assert errors @ (sizes / measured) == pytest.approx(0, abs=1e-9 * np.sum(sizes / measured))
        fitted = [fit.seconds(point.measured.num_bytes, fit.devices) for point in fit.points]
        assert [point.fitted for point in fit.points] == pytest.approx(fitted)
        assert errors == pytest.approx(np.array(fitted) / measured - 1)


def test_no_other_line_is_closer():
    fit = published().fit("all-reduce", 8)
    share = wire_share(Kind.ALL_REDUCE, 8)

    def cost(latency, rate):
        return sum(((latency + share * p.measured.num_bytes / rate) / p.measured.value - 1) ** 2 for p in fit.points)

    best = cost(fit.latency_seconds, fit.bytes_per_second)
    for factor in (0.99, 1.01):
        assert cost(fit.latency_seconds * factor, fit.bytes_per_second) > best
        assert cost(fit.latency_seconds, fit.bytes_per_second * factor) > best


def test_golden_figures_of_the_published_profile():
    """Of 8 GPUs in one node; regenerate: pe-sim calibrate tests/data/foreign/galvatron/profiles/*.json."""
    rows = [
        (fit.kind.value, fit.devices, fit.latency_seconds, fit.step_seconds, fit.bytes_per_second / 1e9)
        for fit in published().fits
    ]
    golden = [
        ("all-reduce", 2, 67.199e-6, None, 205.904),
        ("all-reduce", 4, 78.386e-6, None, 207.672),
        ("all-reduce", 8, 86.118e-6, None, 201.274),
        ("all-reduce", None, 65.094e-6, 1.637e-6, 204.837),
        ("all-to-all", 2, 78.770e-6, None, 162.772),
        ("all-to-all", 4, 64.709e-6, None, 180.278),
        ("all-to-all", 8, 104.344e-6, None, 196.691),
        ("all-to-all", None, 67.395e-6, 3.3885e-6, 180.022),
        ("all-reduce rate, neighbours", 2, None, None, 138.156),
        ("all-reduce rate, neighbours", 4, None, None, 159.119),
        ("all-reduce rate, neighbours", 8, None, None, 154.203),
        ("all-reduce rate, neighbours", None, None, None, 151.033),
        ("all-reduce rate, strided", 2, None, None, 151.344),
        ("all-reduce rate, strided", 4, None, None, 155.815),
        ("all-reduce rate, strided", None, None, None, 153.612),
        ("point-to-point rate", 2, None, None, 163.671),
        ("point-to-point rate", 4, None, None, 138.581),
        ("point-to-point rate", 8, None, None, 109.450),
        ("point-to-point rate", None, None, None, 140.814),
    ]
    assert [row[:2] for row in rows] == [row[:2] for row in golden]
    for row, expected in zip(rows, golden, strict=True):
        assert row[2:] == tuple(None if value is None else pytest.approx(value, rel=1e-4) for value in expected[2:])
    worst = published().fit("all-reduce", 8).worst
    assert (worst.measured.num_bytes, worst.relative_error) == (16 * MIB, pytest.approx(-0.21119, abs=1e-5))


def test_which_bandwidth_galvatron_means():
    """Rates are bus bandwidth: below what the times approach, where algorithm bandwidth would be above it."""
    found = published()
    for devices in (4, 8):
        rate = found.fit(Kind.NEIGHBOURS, devices).bytes_per_second
        limit = found.fit(Kind.ALL_REDUCE, devices).bytes_per_second
        assert rate < limit < rate * wire_share(Kind.ALL_REDUCE, devices)


def test_times_grow_with_the_size():
    for fit in published().fits:
        if not fit.kind.is_rate:
            curve = [fit.seconds(size * MIB, fit.devices or 8) for size in range(1, 1024, 31)]
            assert curve == sorted(curve)
            assert curve[0] < curve[-1]


@pytest.mark.parametrize(("kind", "factor"), [(Kind.ALL_REDUCE, 2), (Kind.ALL_TO_ALL, 1)])
def test_shares_and_steps(kind, factor):
    assert [wire_share(kind, n) for n in (2, 4, 8)] == [factor / 2, factor * 3 / 4, factor * 7 / 8]
    assert [ring_steps(kind, n) for n in (2, 4, 8)] == [factor, 3 * factor, 7 * factor]


def test_one_size_has_no_latency():
    found = ps.calibrate({"allreduce_size_4_8MB_time": 0.5})
    (fit,) = found.fits
    assert fit.latency_seconds is None
    assert fit.bytes_per_second == pytest.approx(1.5 * 8 * MIB / 0.5e-3)
    assert fit.r_squared is None
    assert fit.points[0].relative_error == pytest.approx(0, abs=1e-12)
    for machine in found.machines:
        assert not any("latency" in path or "request" in path for path in machine.overrides())


def test_noise_that_asks_for_a_negative_latency():
    found = ps.calibrate({"allreduce_size_2_1MB_time": 1.0, "allreduce_size_2_2MB_time": 3.0})
    (fit,) = found.fits
    assert fit.latency_seconds == 0
    assert fit.bytes_per_second == pytest.approx((1 + 4 / 9) / (1 + 2 / 3) * MIB / 1e-3)


def test_times_that_do_not_grow():
    with pytest.raises(InputError) as error:
        ps.calibrate({"allreduce_size_2_1MB_time": 3.0, "allreduce_size_2_2MB_time": 1.0})
    assert str(error.value) == (
        "profile 1: all-reduce over 2 devices: the times do not grow with the size, so that no bandwidth can be told"
        " from them\n  given:    [0.003, 0.001]"
    )


def test_rates_alone():
    found = ps.calibrate({"allreduce_size_8_consec_1": 140.0, "pp_size_2": 100.0, "pp_size_4": 50.0})
    assert found.fit(Kind.POINT_TO_POINT).bytes_per_second == pytest.approx(12500 / 150 * 1e9)
    array, links = found.machines
    assert array.overrides()["network.bus.bytes_per_cycle"] == 160
    assert links.overrides() == {"links.link.bytes_per_cycle": 83}
    only_links = ps.calibrate({"pp_size_2": 100.0}).machines
    assert [(machine.target, machine.overlaps) for machine in only_links] == [(LINKS, (0, 1, 2, 3))]


def test_settings_of_known_figures():
    """alpha 80 us and 200 GB/s over 8 devices: 40 us each way; widths 200 * 8 / 7, in a ring 14 steps."""
    raw = times(lambda sent, _: 80e-6 + sent / 200e9) | {"overlap_coe": 1.25}
    alone, overlapping, links, busy_links = ps.calibrate(raw, clock_ghz=2.0).machines
    assert alone.overrides() == {
        "num_pes": 8,
        "network.bus.overhead_cycles": 0,
        "network.tree.arity": 2,
        "network.tree.combine_cycles": 0,
        "network.bus.bytes_per_cycle": 114,
        "network.bus.latency_cycles": 80_000,
        "network.bus.request_cycles": 0,
        "network.tree.bytes_per_cycle": 114,
        "network.tree.latency_cycles": [26_666, 26_667, 26_667],
    }
    assert alone.overlaps == (0,)
    assert overlapping.overlaps == (1, 2, 3)
    changed = {"network.bus.bytes_per_cycle": 91, "network.tree.bytes_per_cycle": 91}
    assert overlapping.overrides() == alone.overrides() | changed
    assert links.overrides() == {"links.link.bytes_per_cycle": 100, "links.link.latency_cycles": 11_429}
    assert busy_links.overrides() == {"links.link.bytes_per_cycle": 80, "links.link.latency_cycles": 11_429}
    width = next(setting for setting in alone.settings if setting.path == "network.bus.bytes_per_cycle")
    assert width.asked == pytest.approx(800 / 7)
    assert width.rounding == pytest.approx(114 / (800 / 7) - 1)


def test_a_coefficient_of_one_changes_nothing():
    raw = times(lambda sent, _: 80e-6 + sent / 200e9)
    assert ps.calibrate(raw | {"overlap_coe": 1.0}).machines == ps.calibrate(raw).machines
    assert [machine.target for machine in ps.calibrate(raw).machines] == [ARRAY, LINKS]


@pytest.mark.parametrize("name", ["bus-tree-64", "bus-tree-256", "bus-tree-16-large"])
@pytest.mark.parametrize("overlap", [0, 1])
def test_a_calibrated_array_takes_as_long_as_was_fitted(name, overlap):
    """Of one dtype, as what was measured had; whatever the number of PEs."""
    same = {"dtypes.partial": "fp32", "dtypes.activation": "fp32", "overlap": overlap}
    found = ps.calibrate(sorted(SAMPLES.glob("*.json")), array=ps.load_array(name, same))
    array = found.calibrated_array()
    fit, slower = found.fit("all-reduce", 8), found.overlap_coefficient if overlap else 1.0
    for size in (MIB, 64 * MIB, 1024 * MIB):
        cycles = ps.collective("all-reduce", array, size).cycles
        asked = (fit.seconds(0, 8) + (fit.seconds(size, 8) - fit.seconds(0, 8)) * slower) * array.clock_ghz * 1e9
        assert cycles == pytest.approx(asked, rel=0.006)  # a byte of 178 to 230 a cycle
        assert cycles >= asked - 2
    assert array.name == f"{name}-calibrated"
    assert (array.pe, array.root, array.num_pes) == (found.array.pe, found.array.root, found.array.num_pes)


def test_a_saved_array_reads_back(tmp_path):
    found = ps.calibrate(sorted(SAMPLES.glob("*.json")), array="bus-tree-64")
    found.save_array(tmp_path / "measured.yaml")
    assert ps.load_array(tmp_path / "measured.yaml") == found.calibrated_array()


def test_without_an_array_the_settings_are_whole():
    found = published()
    changes = dict(parse_override(setting.text.removeprefix("--set ")) for setting in found.machines[0].settings)
    same = {"dtypes.partial": "fp32", "dtypes.activation": "fp32"}
    array = ps.load_array("bus-tree-256", changes | same)
    for size in (MIB, 256 * MIB):
        asked = found.fit("all-reduce", 8).seconds(size, 8) * 1e9
        assert ps.collective("all-reduce", array, size).cycles == pytest.approx(asked, rel=1e-3)


def test_an_array_too_slow_says_so():
    raw = times(lambda sent, _: 8e-9 + sent / 200e9)
    found = ps.calibrate(raw, array="bus-tree-256")
    text = printed(found)
    assert "network.tree.latency_cycles: -12 cycles remain of what was measured, fewer than the least, 8" in text
    assert found.calibrated_array().bus_tree.tree.level_latency_cycles == (1,) * 8


def test_a_rate_below_a_byte_a_cycle_says_so():
    found = ps.calibrate({"pp_size_2": 0.25})
    assert "links.link.bytes_per_cycle: 0.25 bytes a cycle are fewer than the least, 1" in printed(found)
    assert found.machines[0].overrides() == {"links.link.bytes_per_cycle": 1}


def printed(found):
    text = io.StringIO()
    found.print(text)
    return re.sub(r"\s+", " ", text.getvalue())


def test_a_latency_beyond_an_array_says_so():
    slow = times(lambda sent, _: 5e-3 + sent / 200e9)
    assert "bus.latency_cycles: a latency has at most 1,048,576 cycles: take a lower clock" in printed(
        ps.calibrate(slow)
    )
    with pytest.raises(InputError, match=r"network\.bus\.latency_cycles"):
        ps.calibrate(slow, array="bus-tree-64").calibrated_array()
    fast = printed(ps.calibrate({"pp_size_2": 1e9}, clock_ghz=0.001))
    assert "links.link.bytes_per_cycle: an array has at most 4,294,967,296 bytes a cycle" in fast


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"clock_ghz": 0.0}, "clock_ghz: not a clock"),
        ({"clock_ghz": float("nan")}, "clock_ghz: not a clock"),
        ({"clock_ghz": True}, "clock_ghz: not a clock"),
        ({"clock_ghz": "1"}, "clock_ghz: not a clock"),
        ({"clock_ghz": 1.0, "array": "bus-tree-64"}, "clock_ghz: an array has its own clock"),
        ({"array": "mesh-256"}, "network.kind: mesh-256 has no bus and no tree to calibrate"),
        ({"array": "bus-tree-65"}, "bus-tree-65"),
    ],
)
def test_what_is_refused(arguments, problem):
    with pytest.raises(InputError, match=problem):
        ps.calibrate(times(lambda sent, _: 80e-6 + sent / 200e9), **arguments)


def test_an_array_of_one_pe():
    with pytest.raises(InputError, match="num_pes: bus-tree-64 has no messages to calibrate"):
        ps.calibrate({"pp_size_2": 1.0}, array=ps.load_array("bus-tree-64", {"num_pes": 1}))


def test_arrays_that_cannot_be_calibrated():
    with pytest.raises(InputError, match="there is no array to calibrate"):
        published().calibrated_array()
    found = ps.calibrate({"pp_size_2": 1.0}, array="bus-tree-64")
    with pytest.raises(InputError, match="no all-reduce was measured"):
        found.calibrated_array()


def test_nothing_of_use():
    with pytest.raises(InputError, match="nothing that can be used was measured"):
        ps.calibrate({"layertype_0_bsz1_seq2048": 15.3})


def test_no_such_fit():
    with pytest.raises(InputError, match="there is no such fit"):
        published().fit("all-reduce", 16)


def test_layers_alone():
    found = ps.calibrate({"layernum[2]_bsz8_seq4096": 397.9, "layernum[4]_bsz8_seq4096": 577.5})
    assert (found.fits, found.machines) == ((), ())
    assert "8 4,096 2, 4 89.80 ms" in printed(found)
    assert found.to_dict()["layer_times"][0]["seconds_per_layer"] == pytest.approx(0.0898)
    assert len(found.to_frame()) == 0
    with pytest.raises(InputError, match="no collective was measured"):
        found.save_plot("never.png")


def test_rows():
    frame = published().to_frame()
    assert len(frame) == 74
    assert (frame["fitted"] / frame["measured"] - 1).tolist() == pytest.approx(frame["relative_error"].tolist())
    assert set(frame["unit"]) == {"s", "bytes/s"}
    assert frame[frame["unit"] == "bytes/s"]["bytes"].isna().all()


def test_the_dict_is_the_calibration():
    told = published().to_dict()
    assert told["schema"] == "pe-sim.calibration/1"
    assert told["fits"][2]["devices"] == 8
    assert told["fits"][2]["bytes_per_second"] == published().fit("all-reduce", 8).bytes_per_second
    assert told["fits"][2]["max_relative_error"] == pytest.approx(0.21119, abs=1e-5)
    assert [machine["overlap_levels"] for machine in told["machines"]] == [[0], [1, 2, 3], [0], [1, 2, 3]]


def test_the_array_file_reads_back(tmp_path):
    found = ps.calibrate(sorted(SAMPLES.glob("*.json")), array="bus-tree-256")
    found.save_array(tmp_path / "measured.yaml")
    assert ps.load_array(tmp_path / "measured.yaml") == found.calibrated_array()
    text = (tmp_path / "measured.yaml").read_text(encoding="utf-8")
    assert text.startswith("# bus-tree-256 with bus and tree as measured: ")
    assert "# all-reduce over 8 devices: 86.12 us + bytes sent / 201.27 GB/s\n" in text


def test_the_picture(tmp_path):
    published().save_plot(tmp_path / "a.png")
    ps.calibrate({"pp_size_2": 1.0}).save_plot(tmp_path / "b.png")
    ps.calibrate({"allreduce_size_4_8MB_time": 0.5}).save_plot(tmp_path / "c.png")
    for name in "abc":
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_in_a_notebook():
    html = published()._repr_html_()
    assert "205.90" in html
    assert "Links of a system, overlap 1 to 3: 178.82 GB/s" in html
