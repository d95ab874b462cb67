"""LLM-Viewer's roofline table of Llama-2-7B, and CENT's collectives over a CXL star, beside ours."""

from __future__ import annotations

from math import ceil

import pe_sim as ps
from experiments.comparison import Row, single_pe
from pe_sim.config.arrays.array import ArrayConfig
from pe_sim.config.reference_machines import load_machine
from pe_sim.report.analysis.metrics import OperatorRow

LLM_VIEWER, CENT = "LLM-Viewer", "CENT"

# arXiv 2402.16363, table 1: an NVIDIA A6000, 2048 tokens, batch 1, fp16.
A6000, TOKENS = load_machine("a6000"), 2048
A6000_BYTES_PER_S, A6000_FLOPS_PER_S = A6000.memory_bytes_per_second, A6000.peak_flops_per_second["fp16"]
HIDDEN_BYTES = 2 * 4096  # of one row of Llama-2-7B's stream, and of the gain of a norm
_ADD = "equal: one input and the output are counted there, in ours both inputs and the output"
SIDE = 256  # 65,536 multipliers at the clock that gives the published rate; a power of two, so that no tile is cut

# CENT, ASPLOS 2025: 144 lanes of 4 GiB/s among the devices, flits of 256 B for three times 64 B of values in 16 bits.
LANES, LANE_BYTES_PER_S, FLIT_BYTES, PAYLOAD_BYTES, LATENCY_NS = 144, 4 * 2**30, 256, 192, 180
CYCLES_PER_FLIT = 16


def a6000() -> ArrayConfig:
    """One PE with the published rates."""
    clock_ghz = A6000_FLOPS_PER_S / 2 / SIDE**2 / 1e9
    return single_pe(
        clock_ghz=clock_ghz,
        outputs=SIDE,
        depth=SIDE,
        pipeline_cycles=0,
        bytes_per_cycle=round(A6000_BYTES_PER_S / clock_ghz / 1e9),
    )


def roofline_flops_per_s(flops: float, num_bytes: float) -> float:
    """The smaller of the peak and what the memory feeds."""
    return min(A6000_FLOPS_PER_S, A6000_BYTES_PER_S * flops / num_bytes)


def operators(step: ps.Decode | ps.Prefill) -> dict[str, OperatorRow]:
    """The operators of the first layer, on one PE, by name."""
    report = ps.simulate("llama-2-7b", a6000(), step, workflow="megatron")
    return {row.name: row for row in report.operators if row.layer == 0}


def their_bytes(row: OperatorRow) -> int:
    """What LLM-Viewer counts for an operator of ours: of an add one input and the output, of a norm not its gain.

    Its model_analyzer.py: `load_act` and `store_act` of attn_add, mlp_add, attn_norm and mlp_norm are one tensor each.
    """
    if row.name.endswith("_add"):
        return row.bytes * 2 // 3
    return row.bytes - HIDDEN_BYTES if row.name.endswith("_norm") else row.bytes


def star(devices: int) -> ArrayConfig:
    """A star of CXL links as a bus: a flit of one link in 16 cycles, its payload in as many."""
    lanes = LANES // devices
    clock_ghz = lanes * LANE_BYTES_PER_S / FLIT_BYTES * CYCLES_PER_FLIT / 1e9
    overrides = {
        "name": "cxl-star",
        "num_pes": devices - 1,  # the root is the remaining device
        "clock_ghz": clock_ghz,
        "network.bus": {
            "bytes_per_cycle": PAYLOAD_BYTES // CYCLES_PER_FLIT,
            "latency_cycles": round(LATENCY_NS * clock_ghz),
            "overhead_cycles": 0,
        },
        "network.collectives": {"gather": "serial", "scatter": "serial"},
    }
    return ps.load_array("bus-tree-64", overrides=overrides)


def cent_ns(devices: int, flits: int) -> float:
    """180 ns and the flits at the rate of the lanes of one device."""
    return LATENCY_NS + flits * FLIT_BYTES / (LANES // devices * LANE_BYTES_PER_S) * 1e9


def rows() -> list[Row]:
    """The roofline table, then the star."""
    return [*_llm_viewer(), *_cent()]


def _llm_viewer() -> list[Row]:
    table = []
    steps: tuple[tuple[str, ps.Decode | ps.Prefill, float, float, float], ...] = (
        ("decode", ps.Decode(context_len=TOKENS), 34e6, 34e6, 768e9),
        ("prefill", ps.Prefill(prompt_len=TOKENS), 69e9, 67e6, 155e12),
    )
    for phase, step, flops, num_bytes, rate in steps:
        found, clock = operators(step), a6000().clock_ghz * 1e9
        row = found["q"]
        case = f"{phase}, q of Llama-2-7B"
        rounded = "equal in the digits that are printed there"
        table.append(Row(LLM_VIEWER, case, "operations", flops, "2 m k n", row.flops, rounded))
        table.append(Row(LLM_VIEWER, case, "bytes", num_bytes, "2 (k n + m k + m n)", row.bytes, rounded))
        reason = (
            "ours reads the matrix alone from memory (activations are in a buffer) at a whole number of bytes a cycle,"
            " and ends one tile after the last byte"
            if phase == "decode"
            else "bound by the multipliers in both; ours ends with the last tile's fill"
        )
        formula = "min(154.84 T, 768 G * operations / bytes)"
        assert abs(roofline_flops_per_s(row.flops, row.bytes) / rate - 1) < 0.005
        table.append(Row(LLM_VIEWER, case, "operations/s", rate, formula, row.flops / row.cycles * clock, reason))
        table += _elementwise(phase, found, 1 if phase == "decode" else TOKENS)
    return table


def _elementwise(phase: str, found: dict[str, OperatorRow], num_rows: int) -> list[Row]:
    """Adds and norms, by LLM-Viewer's conventions."""
    table, elements = [], num_rows * HIDDEN_BYTES // 2
    for name, per_element, counted in (
        ("attention_add", 1, _ADD),
        ("ffn_add", 1, _ADD),
        ("attention_norm", 7, "equal: its two tensors are counted there, in ours the gain too"),
    ):
        row, case = found[name], f"{phase}, {name.replace('_', ' ')} of Llama-2-7B"
        formula = f"predicted: {per_element} an element"
        table.append(
            Row(
                LLM_VIEWER, case, "operations", per_element * elements, formula, row.flops, "equal: the same convention"
            )
        )
        formula = "predicted: 2 (m n + m n)"
        table.append(Row(LLM_VIEWER, case, "bytes", 4 * elements, formula, their_bytes(row), counted))
    return table


def _cent() -> list[Row]:
    table = []
    for devices, values in ((8, 12288), (32, 12288), (32, 4096)):
        array, whole = star(devices), values * 2
        cycle_ns = 1 / array.clock_ghz
        cut = (
            "equal but for 180 ns in whole cycles"
            if not whole % PAYLOAD_BYTES
            else "ours sends a last part of a flit as what it is"
        )
        formula = "180 + ceil(2n/64/3) * 256 / (lanes * 4 GiB/s)"
        ours = ps.collective("broadcast", array, whole).cycles * cycle_ns
        case = f"broadcast of {values} values, {devices} devices"
        table.append(Row(CENT, case, "ns", cent_ns(devices, ceil(whole / PAYLOAD_BYTES)), formula, ours, cut))
        part = whole // devices
        flits = ceil(part / PAYLOAD_BYTES) * (devices - 1)
        gathered = ps.collective("gather", array, part).cycles * cycle_ns
        cut = "equal but for 180 ns in whole cycles" if not part % PAYLOAD_BYTES else f"{cut}, of every device"
        case = f"gather of {values} values, {devices} devices"
        formula = "180 + ceil((n/d) 2/64/3) (d - 1) * 256 / (lanes * 4 GiB/s)"
        table.append(Row(CENT, case, "ns", cent_ns(devices, flits), formula, gathered, cut))
    return table
