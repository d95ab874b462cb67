"""First-order energy: by hand for a small step, and what it must follow."""

import pytest

from pe_sim.config.step import Decode
from pe_sim.report.energy import matrix_macs
from tests.report.samples import WORKFLOWS, simulate_tiny, tiny

KV_WRITTEN = 2 * 2 * 2 * 16 * 2  # K and V, two layers, two kv heads of 16, bf16


def test_energy_by_hand() -> None:
    report = tiny("megatron", 1)
    weights = 2 * (64 * 64 + 2 * 64 * 32 + 64 * 64 + 3 * 64 * 160) + 64 * 128
    macs = weights + 2 * 2 * 4 * 16 * 41  # and, per layer, scores and values of 4 heads of 16 over 41 tokens
    assert matrix_macs(report.graph) == macs
    found = report.energy["by_component"]
    assert found["pe_matrix"] == pytest.approx(macs * 1.5e-12)
    read = 2 * weights + 2 * 41 * KV_WRITTEN // 2
    assert found["pe_memory"] == pytest.approx(8 * (read + KV_WRITTEN) * 0.55e-12)
    assert found["root_memory"] == pytest.approx(8 * (2 * 64) * 3.6e-12)
    assert report.energy["total_joules"] == pytest.approx(sum(found.values()))


@pytest.mark.parametrize(
    ("overrides", "component", "factor"),
    [
        ({"dtypes__activation": "fp32", "dtypes__weight": "fp32"}, "pe_matrix", 4.6 / 1.5),
        ({"dtypes__activation": "int8", "dtypes__weight": "int8"}, "pe_matrix", 0.23 / 1.5),
        ({"dtypes__weight": "int4"}, "pe_matrix", 1.0),  # widened to the activations' bf16
        ({"pe__memory__technology": "SRAM"}, "pe_memory", (100 / 64) / 0.55),
        ({"dtypes__weight": "fp32"}, "root_memory", 2.0),
    ],
)
def test_energy_follows_dtype_and_technology(overrides: dict[str, object], component: str, factor: float) -> None:
    before = tiny("megatron", 4).energy["by_component"][component]
    after = simulate_tiny("megatron", 4, **overrides).energy["by_component"][component]
    assert after == pytest.approx(factor * before)


@pytest.mark.parametrize("workflow", WORKFLOWS)
def test_macs_cost_the_same_however_they_are_distributed(workflow: str) -> None:
    assert (
        tiny(workflow, 8).energy["by_component"]["pe_matrix"] == tiny("megatron", 1).energy["by_component"]["pe_matrix"]
    )


def test_streamed_weights_are_read_at_the_root_and_written_on_every_pe() -> None:
    report = simulate_tiny("batch-stream", 4, Decode(batch_size=4, context_len=40))
    streamed = report.traffic["weight-stream"].bytes
    assert streamed > 0
    found = report.energy["by_component"]
    assert found["root_memory"] == pytest.approx(8 * (4 * 2 * 64 + streamed) * 3.6e-12)
    held = simulate_tiny("batch-block", 4, Decode(batch_size=4, context_len=40)).energy["by_component"]
    assert found["pe_memory"] - held["pe_memory"] == pytest.approx(8 * 4 * streamed * 0.55e-12)
