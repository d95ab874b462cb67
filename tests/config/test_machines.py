"""Known machines: the presets, and what a file of one's own is refused for."""

from pathlib import Path

import pytest

from pe_sim.config.files.loading import preset_names
from pe_sim.config.reference_machines import load_machine
from pe_sim.errors import InputError

MINE = {
    "description": "mine",
    "memory_technology": "DRAM",
    "memory_bytes": 1000,
    "memory_bytes_per_second": 10.0,
    "peak_flops_per_second": {"fp16": 100.0, "int8": 300.0},
    "source": "a datasheet",
    "confirmed": "no",
}


def test_the_presets():
    assert preset_names("machines") == ("a100", "a6000", "groq-lpu", "h100")


@pytest.mark.parametrize(
    ("name", "terabytes_per_second", "half_teraflops", "gigabytes"),
    [
        ("a100", 2.039, 312, 85.9),
        ("h100", 3.35, 989.4, 85.9),
        ("groq-lpu", 80, 188, 0.23),
        ("a6000", 0.768, 154.84, 51.5),
    ],
)
def test_what_the_vendors_say(name, terabytes_per_second, half_teraflops, gigabytes):
    machine = load_machine(name)
    assert machine.memory_bytes_per_second == pytest.approx(terabytes_per_second * 1e12)
    assert machine.peak_for("bf16")[1] == pytest.approx(half_teraflops * 1e12)
    assert machine.memory_bytes == pytest.approx(gigabytes * 1e9, rel=1e-3)
    assert machine.source
    assert machine.confirmed


def test_the_peak_is_that_of_the_dtype_or_of_the_fastest_that_holds_it():
    machine = load_machine(MINE)
    assert machine.peak_for("fp16") == ("fp16", 100.0)
    assert machine.peak_for("bf16") == ("fp16", 100.0)
    assert machine.peak_for("int4") == ("int8", 300.0)
    assert machine.peak_for("fp8") == ("fp16", 100.0)  # an integer of as many bits holds no float
    with pytest.raises(InputError, match="no peak is known for fp32"):
        machine.peak_for("fp32")


def test_a_file_of_ones_own(tmp_path: Path):
    path = tmp_path / "mine.yaml"
    lines = [f"{key}: {value}" for key, value in MINE.items() if key != "peak_flops_per_second"]
    path.write_text("\n".join([*lines, "peak_flops_per_second: {fp16: 1.0e+12}"]), encoding="utf-8")
    machine = load_machine(path)
    assert machine.name == "mine"
    assert machine.peak_flops_per_second == {"fp16": 1e12}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"memory_bytes": "80 GB"}, "memory_bytes: not a whole number"),
        ({"memory_bytes": 0}, "memory_bytes"),
        ({"memory_bytes_per_second": -1.0}, "memory_bytes_per_second"),
        ({"peak_flops_per_second": {}}, "a machine without a peak"),
        ({"peak_flops_per_second": {"fp17": 1.0}}, "fp17"),
        ({"source": ""}, "source: empty"),
        ({"bandwidth": 3}, "bandwidth"),
    ],
)
def test_refusals(changed, message):
    with pytest.raises(InputError, match=message):
        load_machine({**MINE, **changed})


def test_unknown_names():
    with pytest.raises(InputError, match="did you mean 'h100'"):
        load_machine("h10")
    with pytest.raises(InputError, match="not a machine"):
        load_machine(3)
    missing = {key: value for key, value in MINE.items() if key != "confirmed"}
    with pytest.raises(InputError, match="confirmed"):
        load_machine(missing)
