"""What the comparison with the RTL says of a result: every level and every reason.

The cases run against `KNOWN`, so that what `make accuracy` measures does not change them.
"""

import json
import pickle
import subprocess
import sys
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import pytest

import pe_sim as ps
from pe_sim.config.arrays.array import ArrayConfig
from pe_sim.mapping.workflow import WORKFLOWS, LayerRule, Workflow
from pe_sim.report.analysis.envelope import (
    Compared,
    Envelope,
    collective_envelope,
    compared_phase,
    gemm_envelope,
    step_envelope,
    widest,
)
from tests.helpers import render_comparison, render_report, small_array
from tests.report.samples import GRAPHS, simulate_on, simulate_tiny, tiny

ROOT = Path(__file__).resolve().parents[3]
RAW: dict[str, Any] = {
    "schema_version": 1,
    "machine": {"networks": ["bus_tree"], "arbitrations": ["fifo"], "memories": ["flat"]},
    "collective": {
        "kinds": ["broadcast", "reduce"],
        "num_pes": [32, 2, 4],
        "arities": [2, 3, 4],
        "overlaps": [0, 1],
        "worst_percent": 0.0,
    },
    "gemm": {"overlaps": [0, 1], "worst_percent_whole_tiles": 0.0, "worst_percent_edge_tiles": 3.1},
    "step": {
        "families": ["llama"],
        "phases": ["decode"],
        "workflows": ["workflow-1", "megatron"],
        "batch_sizes": [1],
        "groups": [1],
        "num_pes": [4, 8, 16],
        "arities": [2, 3],
        "overlaps": [0, 1],
        "worst_percent": 0.5,
    },
}
KNOWN = Compared.model_validate_json(json.dumps(RAW))
ROUND_ROBIN = {"network.arbitration": "round_robin"}
NETWORK_REASONS = [
    ({"arity": 8}, None, "a tree of arity 8 (compared: {arities})"),
    ({"burst": 64}, None, "bursts of 64 bytes (compared: whole messages)"),
    ({"downlink": True}, None, "a tree with a downlink (compared: without)"),
    ({}, ROUND_ROBIN, "round_robin arbitration (compared: fifo)"),
    ({"overlap": 2}, None, "overlap 2 (compared: 0 and 1)"),
]


def known_with(section: str, **changes: Any) -> Compared:
    return Compared.model_validate_json(json.dumps({**RAW, section: {**RAW[section], **changes}}))


def of_step(
    array: ArrayConfig | None = None,
    *,
    model: str = "llama-2-7b",
    phase: str = "decode",
    batch_size: int = 1,
    workflow: str | Workflow = "megatron",
    known: Compared = KNOWN,
) -> Envelope:
    chosen = workflow if isinstance(workflow, Workflow) else WORKFLOWS[workflow]
    return step_envelope(ps.load_model(model), phase, batch_size, array or small_array(8), chosen, known)


def of_gemm(rows: int, inner: int, outer: int, known: Compared = KNOWN, **changes: Any) -> Envelope:
    array = small_array(1, changes.pop("overrides", None), **changes)
    return gemm_envelope(array, rows, inner, outer, ps.gemm(array, rows, inner, outer).cycles, known)


def bank_array(num_pes: int) -> ArrayConfig:
    return ps.load_array("aim-gddr6-16", {"num_pes": num_pes, "network.tree.arity": 2})


# ---- collectives


def test_a_collective_is_exact_where_no_cycle_differed() -> None:
    found = collective_envelope("broadcast", small_array(32), KNOWN)
    assert found == Envelope("exact", 0.0)
    assert found.one_line() == "exact against RTL"
    assert found.to_dict() == {"against": "RTL", "envelope": "exact", "percent": 0.0, "outside": []}


def test_a_collective_is_within_what_was_found() -> None:
    found = collective_envelope("broadcast", small_array(4), known_with("collective", worst_percent=1.25))
    assert found == Envelope("within", 1.25)


@pytest.mark.parametrize("num_pes", [2, 3, 5, 31, 32])
def test_numbers_of_pes_between_the_compared_ones_count_as_compared(num_pes: int) -> None:
    assert collective_envelope("reduce", small_array(num_pes), KNOWN).level == "exact"


@pytest.mark.parametrize(("num_pes", "what"), [(1, "1 PE"), (33, "33 PEs"), (1024, "1,024 PEs")])
def test_numbers_of_pes_beyond_them_do_not(num_pes: int, what: str) -> None:
    found = collective_envelope("reduce", small_array(num_pes), KNOWN)
    assert found == Envelope("outside", None, (f"{what} (compared: 2 to 32)",))
    assert found.one_line() == f"outside what was compared with RTL: {what} (compared: 2 to 32)"


@pytest.mark.parametrize(("short", "overrides", "reason"), NETWORK_REASONS)
def test_each_reason_of_a_collective(short: dict[str, Any], overrides: dict[str, Any] | None, reason: str) -> None:
    found = collective_envelope("reduce", small_array(8, overrides, **short), KNOWN)
    assert found == Envelope("outside", None, (reason.format(arities="2, 3 and 4"),))


def test_a_kind_of_collective_that_was_not_compared() -> None:
    found = collective_envelope("all-to-all", small_array(8), KNOWN)
    assert found.reasons == ("all-to-all (compared: broadcast and reduce)",)


@pytest.mark.parametrize("kind", GRAPHS)
def test_other_interconnects_are_outside(kind: str) -> None:
    found = simulate_on(kind, 16).envelope
    assert found.level == "outside"
    name = ps.load_array(f"{kind}-256").network.kind
    assert f"an interconnect of kind {name} (compared: bus_tree)" in found.reasons


def test_a_collective_does_not_ask_for_the_local_memory() -> None:
    assert collective_envelope("reduce", bank_array(16), KNOWN).level == "exact"


# ---- GEMMs


@pytest.mark.parametrize("overlap", [0, 1])
@pytest.mark.parametrize(("rows", "inner", "outer"), [(1, 4096, 16), (7, 16, 48), (2000, 4096, 256)])
def test_a_gemm_of_whole_tiles_is_exact(rows: int, inner: int, outer: int, overlap: int) -> None:
    assert of_gemm(rows, inner, outer, overlap=overlap) == Envelope("exact", 0.0)


@pytest.mark.parametrize(("inner", "outer"), [(16, 17), (17, 16), (1, 1)])
def test_a_gemm_with_edge_tiles_is_within_what_was_found(inner: int, outer: int) -> None:
    known = known_with("gemm", worst_percent_edge_tiles=12.0)
    found = of_gemm(1, inner, outer, known)
    assert found == Envelope("within", 12.0)
    assert found.one_line() == "within 12 % against RTL"


def test_edge_tiles_that_may_cost_more_than_was_found_are_outside() -> None:
    # Of 256 pairs of tiles of 8 and of 1 words, the formula rounds up none: 2304 words in place of 2176.
    found = of_gemm(1, 4096, 17)
    assert found.reasons == ("edge tiles that may cost 5.81 % (compared: up to 3.1 %)",)
    assert 100 * (2304 - 2176) / ps.gemm(small_array(1), 1, 4096, 17).cycles == pytest.approx(5.805, abs=1e-3)


def test_tiles_of_a_unit_that_is_not_square() -> None:
    tall = {"pe.matrix.outputs": 16, "pe.matrix.depth": 8}
    assert of_gemm(1, 5 * 8, 3 * 16, overrides=tall) == Envelope("exact", 0.0)
    # 512 pairs of tiles of 4 words (16 outputs) and of 1 (one output): 2560 words in place of 2176.
    found = of_gemm(1, 4096, 17, overrides=tall)
    cycles = ps.gemm(small_array(1, tall), 1, 4096, 17).cycles
    assert f"{100 * (2560 - 2176) / cycles:.1f}" in found.reasons[0]


def test_short_loads_of_edge_tiles_do_not_hide_computation() -> None:
    wide = {"pe.memory.bytes_per_cycle": 512}
    assert of_gemm(8, 4096, 17, overrides=wide).level == "within"  # one word a tile, 8 rows: nothing to lose
    # A tile takes 32 cycles to load or 17 to compute with: one by one 32 + 17 a pair, by the formula 2 * 17.
    slow = {"pe.memory.bytes_per_cycle": 16}
    found = of_gemm(17, 4096, 17, overrides=slow)
    assert found.level == "outside"
    cycles = ps.gemm(small_array(1, slow), 17, 4096, 17).cycles
    most = 100 * 256 * (32 + 17 - 34) / cycles
    assert f"{most:.1f}" in found.reasons[0]


def test_a_gemm_whose_tiles_are_no_whole_words_has_edge_tiles() -> None:
    odd = {"pe.matrix.outputs": 3, "pe.matrix.depth": 3}
    found = of_gemm(1, 300, 300, overlap=0, overrides=odd)
    assert found.level == "outside"
    assert found.reasons[0].startswith("edge tiles that may cost ")


def test_a_gemm_in_several_passes_counts_its_edges_in_each() -> None:
    small = {"pe.buffer.capacity_bytes": 4096}
    assert of_gemm(64, 1024, 16, overrides=small).level == "exact"
    assert of_gemm(64, 1024, 17).level == "within"  # one pass of 64 rows hides what 64 passes of one row do not
    assert of_gemm(64, 1024, 17, overrides=small).level == "outside"


@pytest.mark.parametrize("num_pes", [1, 8, 1024])
def test_a_gemm_does_not_ask_for_the_interconnect(num_pes: int) -> None:
    assert gemm_envelope(small_array(num_pes, arity=8, burst=64), 1, 16, 16, 30, KNOWN).level == "exact"
    mesh = ps.load_array("mesh-256")
    assert gemm_envelope(mesh, 1, 16, 16, 30, KNOWN).level == "exact"


def test_each_reason_of_a_gemm() -> None:
    assert gemm_envelope(bank_array(16), 1, 16, 1, 30, KNOWN).reasons == (
        "local memory of kind dram_bank (compared: flat)",
    )
    assert of_gemm(1, 16, 16, overlap=3).reasons == ("overlap 3 (compared: 0 and 1)",)
    scaled = {"dtypes.weight": {"dtype": "int4", "group_size": 32}}
    assert of_gemm(1, 32, 16, overrides=scaled).reasons == ("weights with scales (compared: without)",)


# ---- steps


def test_a_step_is_within_what_was_found() -> None:
    found = of_step()
    assert found == Envelope("within", 0.5)
    assert found.one_line() == "within 0.5 % against RTL"
    assert found.to_dict() == {"against": "RTL", "envelope": "within", "percent": 0.5, "outside": []}
    assert of_step(known=known_with("step", worst_percent=0)) == Envelope("exact", 0.0)


@pytest.mark.parametrize(("short", "overrides", "reason"), NETWORK_REASONS)
def test_each_reason_of_a_steps_interconnect(
    short: dict[str, Any], overrides: dict[str, Any] | None, reason: str
) -> None:
    found = of_step(small_array(8, overrides, **short))
    assert found == Envelope("outside", None, (reason.format(arities="2 and 3"),))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model": "bert-base-uncased"}, "a model of family bert (compared: llama)"),
        ({"phase": "prefill"}, "prefill (compared: decode)"),
        ({"batch_size": 4}, "a batch of 4 sequences (compared: 1)"),
        ({"workflow": "all-row"}, "workflow all-row (compared: workflow-1 and megatron)"),
        ({"workflow": replace(WORKFLOWS["megatron"], groups=4)}, "4 groups of PEs (compared: 1)"),
        (
            {"workflow": replace(WORKFLOWS["megatron"], lm_head="col")},
            "another workflow called megatron (compared: workflow-1 and megatron)",
        ),
        (
            {"workflow": replace(WORKFLOWS["workflow-1"], rules=(LayerRule(0, None, (("q", "col"),), "x"),))},
            "another workflow called workflow-1 (compared: workflow-1 and megatron)",
        ),
        ({"array": small_array(17)}, "17 PEs (compared: 4 to 16)"),
        (
            {"array": small_array(8, {"pe.matrix.outputs": 5, "pe.matrix.depth": 10})},
            "tiles of 100 bytes, the memory's words 64 (compared: whole words)",
        ),
        (
            {"array": small_array(8, {"dtypes.weight": {"dtype": "int8", "group_size": 64}})},
            "weights with scales (compared: without)",
        ),
        (
            {"array": small_array(8, {"dtypes.kv_cache": {"dtype": "int8", "group_size": 64}})},
            "a cache with scales (compared: without)",
        ),
    ],
)
def test_each_reason_of_a_step(changes: dict[str, Any], reason: str) -> None:
    assert of_step(**changes) == Envelope("outside", None, (reason,))


def test_one_that_was_compared_is_no_span() -> None:
    found = of_step(small_array(8), known=known_with("step", num_pes=[4]))
    assert found.reasons == ("8 PEs (compared: 4)",)
    assert of_step(batch_size=1, known=known_with("step", batch_sizes=[2])).reasons == (
        "a batch of 1 sequence (compared: 2)",
    )
    assert of_step(known=known_with("step", groups=[2])).reasons == ("1 group of PEs (compared: 2)",)


def test_a_steps_local_memory() -> None:
    assert "local memory of kind dram_bank (compared: flat)" in of_step(bank_array(16)).reasons


def test_several_reasons_are_all_told() -> None:
    found = of_step(small_array(64, overlap=3), workflow="batch-block", batch_size=64)
    assert found.one_line() == (
        "outside what was compared with RTL: a batch of 64 sequences (compared: 1);"
        " workflow batch-block (compared: workflow-1 and megatron); 64 PEs (compared: 4 to 16);"
        " overlap 3 (compared: 0 and 1)"
    )


def test_a_workflow_that_does_the_same_counts_as_compared() -> None:
    assert of_step(workflow="batch-lockstep").level == "within"
    assert of_step(workflow=replace(WORKFLOWS["megatron"], name="mine", source="mine.yaml")).level == "within"


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "int8", "int4"])
def test_widths_of_dtypes_are_no_reason(dtype: str) -> None:
    dtypes = {f"dtypes.{role}": dtype for role in ("weight", "activation", "kv_cache")}
    assert of_step(small_array(8, dtypes)).level == "within"


def test_engines_do_not_matter() -> None:
    assert simulate_tiny("megatron", 8, engine="event").envelope == simulate_tiny("megatron", 8).envelope


# ---- what envelopes are


def test_the_widest_is_the_least_sure_with_the_reasons_of_all() -> None:
    exact, half, one = Envelope("exact", 0.0), Envelope("within", 0.5), Envelope("within", 1.0)
    outside, other = Envelope("outside", None, ("a", "b")), Envelope("outside", None, ("b", "c"))
    assert widest([exact]) == exact
    assert widest([half, exact]) == half
    assert widest([half, one, exact]) == one
    assert widest([outside, one]) == outside
    assert widest([outside, half, other]) == Envelope("outside", None, ("a", "b", "c"))


@pytest.mark.parametrize(("percent", "text"), [(0.5, "0.5"), (3.1, "3.1"), (0.3141, "0.32"), (1, "1"), (0.001, "0.01")])
def test_percentages_are_rounded_up(percent: float, text: str) -> None:
    assert Envelope("within", percent).one_line() == f"within {text} % against RTL"


def test_an_envelope_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        Envelope("exact", 0.0).level = "outside"


# ---- where they stand


def test_a_report_has_its_envelope_everywhere() -> None:
    report = tiny("all-row", 8)
    envelope = report.envelope
    assert envelope == step_envelope(report.model, "decode", 1, report.array, report.workflow)
    assert report.to_dict()["accuracy"] == envelope.to_dict()
    assert json.loads(report.to_json())["accuracy"] == json.loads(json.dumps(envelope.to_dict()))
    assert report.to_frame().attrs == {"accuracy": envelope.to_dict()}
    assert f"\naccuracy    {envelope.one_line()[:30]}" in render_report(report)
    assert envelope.one_line() in report._repr_html_()


def test_parts_have_theirs() -> None:
    array = small_array(8)
    reduced, product = ps.collective("reduce", array, 1024), ps.gemm(array, 1, 64, 17)
    assert reduced.envelope == collective_envelope("reduce", array)
    assert product.envelope == gemm_envelope(array, 1, 64, 17, product.cycles)
    for part in (reduced, product):
        assert part.to_dict()["accuracy"] == part.envelope.to_dict()
        assert pickle.loads(pickle.dumps(part)).envelope == part.envelope


def test_a_comparison_tells_it_once_or_for_those_that_share_it() -> None:
    reports = [tiny("megatron", 64), tiny("batch-lockstep", 64), tiny("all-row", 64)]
    shared, other = reports[0].envelope.one_line(), reports[2].envelope.one_line()
    assert shared != other
    assert render_comparison(reports[:2]).endswith(f"\n\naccuracy: {shared}\n")
    assert render_comparison(reports).endswith(
        f"\n\naccuracy of megatron, batch-lockstep: {shared}\naccuracy of all-row: {other}\n"
    )


def test_simulating_loads_none_of_it() -> None:
    code = (
        "import sys, pe_sim as ps; array = ps.load_array('bus-tree-64')\n"
        "ps.simulate('llama-3.2-1b', array, ps.Decode(context_len=4))\n"
        "ps.collective('reduce', array, 64); ps.gemm(array, 1, 16, 16)\n"
        "assert not [name for name in sys.modules if name.startswith('pe_sim.report.analysis.envelope')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, cwd=ROOT)


@pytest.mark.parametrize(
    ("step", "phase"),
    [
        (ps.Decode(1, 7), "decode"),
        (ps.Prefill(1, prompt_len=4), "causal prefill"),
        (ps.Prefill(1, prompt_len=4, causal="full"), "prefill"),
        (ps.Prefill(1, prompt_len=1), "prefill"),
        (ps.Prefill(2, prompt_len=[1, 4]), "causal prefill"),
    ],
)
def test_a_mask_is_a_phase_of_its_own(step: ps.Decode | ps.Prefill, phase: str) -> None:
    assert compared_phase(step) == phase
    both = known_with("step", phases=["decode", "prefill"])
    reasons = of_step(phase=compared_phase(step), known=both).reasons
    assert reasons == (("causal prefill (compared: decode and prefill)",) if phase == "causal prefill" else ())


@pytest.mark.parametrize(("workflow", "is_reason"), [("megatron", True), ("workflow-2", False)])
def test_heads_that_pes_share_were_not_compared(workflow: str, is_reason: bool) -> None:
    found = of_step(small_array(16), model="gpt2", workflow=workflow).reasons
    reason = "12 heads on 16 PEs (compared: whole heads on each)"
    assert (reason in found) == is_reason
    assert reason not in of_step(small_array(12), model="gpt2", workflow=workflow).reasons
