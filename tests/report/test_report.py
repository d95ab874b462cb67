"""The report's dictionary, JSON, files and small faces."""

import json
import os
import subprocess
import sys
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pe_sim import host_memory
from pe_sim._version import __version__
from pe_sim.api import simulate
from pe_sim.config.arrays.load import load_array
from pe_sim.config.models.load import load_model
from pe_sim.config.step import Decode
from pe_sim.engine.fast import block_pass, run
from pe_sim.errors import InputError, OutOfMemoryError
from pe_sim.mapping.workflow import WORKFLOWS as REGISTERED
from pe_sim.mapping_search.candidates import takes_groups
from pe_sim.report.analysis import causes
from pe_sim.report.report import Report
from pe_sim.schedule.stages import Tag
from tests.helpers import calls_in
from tests.report.samples import TINY, WORKFLOWS, array_of, simulate_tiny, tiny

ROOT = Path(__file__).resolve().parents[2]


def plain_types(value: Any) -> set[type]:
    if isinstance(value, dict):
        return {dict}.union(*(plain_types(item) | {type(key)} for key, item in value.items()))
    if isinstance(value, list):
        return {list}.union(*(plain_types(item) for item in value))
    return {type(value)}


def test_the_lengths_of_a_batch_are_added_up_once_and_not_for_every_row() -> None:
    def calls(batch: int) -> int:
        report = simulate_tiny("workflow-1", 8, Decode(context_len=[5, 6] * (batch // 2)))
        return calls_in(report.to_json)

    calls(20)  # imports
    assert calls(400) - calls(200) < 10 * 200


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("workflow", WORKFLOWS)
def test_rows_of_layers_that_repeat_are_what_the_spans_of_each_say(workflow: str, groups: int) -> None:
    chosen = REGISTERED[workflow]
    chosen = replace(chosen, groups=groups) if takes_groups(chosen) else chosen
    report = simulate(load_model(TINY, {"num_layers": 9}), array_of(8), Decode(context_len=[5, 9]), chosen)
    assert report.trace.runs is not None
    alone = replace(report, trace=replace(report.trace, blocks=None))
    assert report.operators == alone.operators
    assert report.to_json() == json.dumps(report.to_dict(), indent=2, allow_nan=False) + "\n"


def test_rows_of_operators_take_a_few_calls_each_and_their_json_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def calls(layers: int) -> int:
        report = simulate(load_model(TINY, {"num_layers": layers}), array_of(8), Decode(1, 5))
        assert len(report.operators) > 15 * layers
        return calls_in(lambda: report.operators)

    assert calls(400) - calls(200) < 5 * 200 * 17
    report = simulate(load_model(TINY), array_of(8), Decode(1, 5))
    assert report.operators
    monkeypatch.setattr(host_memory, "available_bytes", lambda: 10_000)
    monkeypatch.setattr(host_memory, "_WORTH_A_LOOK", 0)
    with pytest.raises(OutOfMemoryError, match=rf"the JSON of {len(report.operators)} operators"):
        report.to_json()


def test_layers_that_repeat_each_other_share_what_is_known_of_their_pes() -> None:
    def kept(layers: int) -> int:
        report = simulate(load_model(TINY, {"num_layers": layers}), array_of(8), Decode(1, 5))
        assert len(report.trace.spans) > 20 * layers
        return len({id(span.on_pes) for span in report.trace.spans})

    assert kept(40) == kept(80)


def test_the_dictionary_has_the_schema_of_the_interface() -> None:
    report = tiny()
    found = report.to_dict()
    assert list(found) == [
        "schema",
        "pe_sim_version",
        "model",
        "array",
        "step",
        "workflow",
        "engine",
        "notes",
        "overlap",
        "latency",
        "throughput",
        "accuracy",
        "traffic",
        "memory",
        "utilization",
        "bounds",
        "channels",
        "energy",
        "area",
        "operators",
    ]
    assert (found["schema"], found["pe_sim_version"]) == ("pe-sim.report/1", __version__)
    assert found["model"]["parameters"] == report.model.num_parameters
    assert load_array(found["array"]) == report.array
    assert found["step"] == {"phase": "decode", "batch_size": 1, "context_len": 40}
    assert (found["engine"], found["notes"], found["overlap"]) == ("fast", [], 1)
    assert found["latency"] == {"cycles": report.latency_cycles, "seconds": report.latency_cycles / 1e9}
    assert found["throughput"] == {"tokens_per_second": report.tokens_per_second}
    assert list(found["traffic"]) == [tag.value for tag in Tag]
    assert set(found["traffic"]["reduce"]) == {"messages", "bytes", "busy_cycles"}
    assert {"weight_bytes", "kv_cache_bytes", "bytes_read", "peak_bytes_per_pe"} <= set(found["memory"])
    assert {"bus", "tree", "pe_matrix", "pe_memory"} <= set(found["utilization"])
    cycles = ["compute_cycles", "memory_cycles", "bus_cycles", "tree_cycles", "network_cycles"]
    assert list(found["bounds"]) == [*cycles, "critical_path"]
    assert list(found["channels"]) == ["count", "by_level", "hottest"]
    basis = {"process": "7nm", "pe_memory": "dram_bank", "root_memory": "lpddr", "assumed": []}
    assert found["energy"] == {**report.energy, "by_component": dict(report.energy["by_component"]), "basis": basis}
    assert set(found["energy"]) == {"total_joules", "by_component", "per_token_joules", "average_watts", "basis"}
    assert found["area"] == {**report.area.to_dict(), "basis": basis}
    assert set(found["area"]) == {"total_mm2", "by_component", "pe_mm2", "pitch_mm2", "fits_pitch", "basis"}
    columns = ["layer", "name", "distribution", "flops", "bytes", "start", "end", "cycles", "bound_by"]
    assert list(found["operators"][0]) == columns


@pytest.mark.parametrize("workflow", WORKFLOWS)
def test_json_is_plain_and_comes_back_the_same(workflow: str) -> None:
    found = tiny(workflow).to_dict()
    assert plain_types(found) <= {dict, list, str, int, float, bool, type(None)}
    assert json.loads(tiny(workflow).to_json()) == found


def test_the_workflow_is_resolved_for_every_layer() -> None:
    layers = tiny("alternating").to_dict()["workflow"]["layers"]
    assert [(layer["layer"], layer["attention"]) for layer in layers] == [(0, "head"), (1, "token")]


def test_two_runs_give_the_same_bytes() -> None:
    first, second = (simulate_tiny("workflow-1", 16) for _ in range(2))
    assert first.to_json() == second.to_json()


def test_another_hash_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    code = (
        "import sys; from tests.report.samples import tiny; report = tiny('workflow-1', 16)\n"
        "report.save(sys.argv[1] + '.json'); report.save_trace(sys.argv[1] + '.trace')\n"
        "report.print(open(sys.argv[1] + '.txt', 'w', encoding='utf-8'))\n"
    )
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        subprocess.run([sys.executable, "-c", code, str(tmp_path / seed)], check=True, env=environment, cwd=ROOT)
    for suffix in (".json", ".trace", ".txt"):
        first = (tmp_path / "1").with_suffix(suffix).read_bytes()
        assert len(first) > 1000
        assert first == (tmp_path / "2").with_suffix(suffix).read_bytes()


def test_traffic_has_every_tag_and_is_the_traces() -> None:
    report = tiny("workflow-1", 16)
    assert list(report.traffic) == [tag.value for tag in Tag]
    assert {tag: use for tag, use in report.traffic.items() if use.messages} == report.trace.traffic
    assert (report.traffic["unicast"].messages, report.traffic["unicast"].bytes) == (0, 0)


def test_a_report_cannot_be_changed_from_outside() -> None:
    report = tiny()
    with pytest.raises(FrozenInstanceError):
        report.trace = None  # type: ignore[misc,assignment]
    with pytest.raises(TypeError):
        report.traffic["reduce"] = None  # type: ignore[index]
    before = report.to_json()
    report.traffic["reduce"].messages += 1
    report.bounds["critical_path"].clear()
    report.to_dict()["operators"].clear()
    assert report.to_json() == before


def test_memory_counts_weights_without_the_embedding_table_and_the_cache_with_the_new_token() -> None:
    model = load_model(TINY)
    memory = simulate_tiny("megatron", 4, Decode(batch_size=2, context_len=[10, 20])).memory
    assert memory["weight_bytes"] == 2 * (model.num_parameters - model.vocab_size * model.hidden_size)
    assert memory["kv_cache_bytes"] == (11 + 21) * model.kv_bytes_per_token("bf16")
    assert memory["capacity_bytes_per_pe"] == array_of(4).pe.memory.capacity_bytes
    assert 0 < memory["peak_bytes_per_pe"] <= memory["capacity_bytes_per_pe"]
    assert memory["longest_context_len"] > 20
    assert memory["largest_batch_size"] > 2


def test_save_writes_the_json(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text("old", encoding="utf-8")
    tiny().save(path)
    assert path.read_text(encoding="utf-8") == tiny().to_json()
    assert list(tmp_path.iterdir()) == [path]  # no temporary file stays


def test_save_refuses_a_directory_and_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a directory, not a file"):
        tiny().save(tmp_path)
    with pytest.raises(InputError, match=r"(?s)No such file or directory.*create the folder first"):
        tiny().save_trace(tmp_path / "missing" / "trace.json")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.json"
    path.write_text("old", encoding="utf-8")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(InputError, match="No space left on device"):
        tiny().save(path)
    assert path.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_to_frame_has_the_operators_rows() -> None:
    frame = tiny().to_frame()
    rows = tiny().to_dict()["operators"]
    assert list(frame.columns) == list(rows[0])
    assert frame["cycles"].tolist() == [row["cycles"] for row in rows]
    assert frame["name"].tolist() == [row["name"] for row in rows]
    assert frame["layer"].dropna().tolist() == [row["layer"] for row in rows if row["layer"] is not None]


def test_repr_is_one_line() -> None:
    report = tiny()
    assert repr(report).startswith("<Report tiny on bus-tree-64 (8 PEs), decode, workflow-1: ")
    assert f"{report.latency_cycles:,} cycles" in repr(report)
    assert "\n" not in repr(report)


def test_html_holds_the_summary_and_takes_no_name_for_a_tag() -> None:
    html = tiny()._repr_html_()
    assert f"{tiny().latency_cycles:,} cycles" in html
    named = simulate_tiny("megatron", 2, name="<script>")
    assert "<script>" not in named._repr_html_()
    assert "&lt;script&gt;" in named._repr_html_()


@pytest.mark.parametrize(("workflow", "overlap"), [("workflow-1", 1), ("all-row", 3), ("batch-stream", 2)])
def test_what_saves_memory_on_many_pes_changes_no_figure(
    workflow: str, overlap: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def report() -> Report:
        return simulate_tiny(workflow, 13, Decode(batch_size=2, context_len=40), overlap=overlap)

    usual = report()
    monkeypatch.setattr(block_pass, "_WORTH_A_LOOK", 1)
    monkeypatch.setattr(run, "_LARGE_STATE", 0)
    monkeypatch.setattr(causes, "_RECENT", 1)
    saving = report()
    starts = [span.parts.start for span in saving.trace.spans if span.on_pes]
    assert any(start.strides == (0,) for start in starts) or any(start.dtype == np.int32 for start in starts)
    assert saving.to_dict() == usual.to_dict()
    for mine, theirs in zip(saving.trace.spans, usual.trace.spans, strict=True):
        assert (mine.pe_start is None) == (theirs.pe_start is None)
        for ours, other in ((mine.pe_start, theirs.pe_start), (mine.pe_end, theirs.pe_end)):
            assert ours is None or np.array_equal(ours, other)


def test_cycles_that_32_bits_do_not_hold_stay_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_pass, "_WORTH_A_LOOK", 1)
    cycles = np.array([1, 2, 2**31 + 7], dtype=np.int64)
    working = np.array([True, True, False])
    assert block_pass._compact(cycles, None) is cycles
    assert block_pass._compact(cycles, working)[working].tolist() == [1, 2]
    assert block_pass._compact(cycles, working).dtype == np.int32
    assert block_pass._compact(cycles + 2**31, working).tolist() == (cycles + 2**31).tolist()


def test_a_walk_keeps_few_stages_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(causes, "_RECENT", 3)
    report = simulate_tiny("workflow-1", 8)
    held = causes.Arrivals(report.timeline)
    networks = [span.order for span in report.trace.spans if not span.on_pes]
    for order in reversed(networks):
        once = held.at_targets(order)
        assert len(held._recent) <= 3
        assert held.at_targets(order) is once
    assert len(networks) > 3
