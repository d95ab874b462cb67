"""The report of several arrays: its parts add up, and one array alone is what its own report says."""

import json
from dataclasses import replace
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pe_sim as ps
from pe_sim.config.plans.plan import ParallelPlan
from pe_sim.config.step import Decode, Prefill
from pe_sim.config.systems.load import load_system
from pe_sim.config.systems.system import SystemConfig
from pe_sim.errors import InputError
from pe_sim.report.plots.system import plot_timeline
from pe_sim.report.system.table import describe_lines, ranks_words
from pe_sim.report.system.time import array_times, critical_path, stage_times, without_layer
from pe_sim.report.system.trace import trace_json
from pe_sim.schedule.system import ArrayPass, LinkTask, SystemProgram, SystemTimes
from pe_sim.systems.api import simulate_system
from pe_sim.systems.simulation import run_system, system_report
from tests.helpers import given_in_both, render_report
from tests.report.perfetto.chrome_trace import parse
from tests.report.samples import TINY, array_of, simulate_on, simulate_tiny
from tests.report.system_samples import DECODE, MODEL, PLANS, PREFILL, simulated, system_of
from tests.systems.draws import cases
from tests.test_notebook import Page

STEPS = (DECODE, PREFILL)


# ---------------------------------------------------------------------------------------------------------- one array
@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.phase)
@pytest.mark.parametrize("workflow", ["workflow-1", "megatron", "batch-stream"])
@pytest.mark.parametrize("kind", ["bus-tree", "mesh"])
def test_one_array_is_what_its_own_report_says(kind, workflow, step):
    if kind == "bus-tree":
        alone, array = simulate_tiny(workflow, 6, step), array_of(6)
    else:
        alone = simulate_on(kind, 9, workflow, step)
        array = alone.array
    report = simulate_system(ps.load_model(TINY), array, step, workflow=workflow, allow_overflow=True)
    assert report.latency_cycles == alone.latency_cycles
    assert report.latency_seconds == alone.latency_seconds
    assert report.tokens_per_second == alone.tokens_per_second
    assert dict(report.traffic) == dict(alone.traffic)
    assert {tag: use.busy_cycles for tag, use in report.traffic.items()} == {
        tag: use.busy_cycles for tag, use in alone.traffic.items()
    }
    inside = {name: value for name, value in report.utilization.items() if name != "arrays"}
    assert inside == pytest.approx(dict(alone.utilization))
    assert report.utilization["arrays"] == 1
    assert report.energy["by_component"] == pytest.approx(alone.energy["by_component"])
    assert report.memory["peak_bytes_per_pe"] == alone.memory["peak_bytes_per_pe"]
    assert report.memory["bytes_read"] == alone.memory["bytes_read"]
    assert report.envelope == alone.envelope
    assert report.bubble_share == 0
    assert report.links is None
    assert report.notes == alone.trace.notes


# ------------------------------------------------------------------------------------------------------- things add up
@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.phase)
@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_the_time_of_every_array_adds_up_to_the_step(plan, step):
    report = simulated(plan, step=step)
    assert {each.rank for each in report.arrays} == set(range(report.system.num_arrays))
    for each in report.arrays:
        parts = (each.busy, each.fill, each.drain, each.exchange, each.wait)
        assert min(parts) >= 0
        assert sum(parts) == report.latency_cycles
    for stage in report.bubbles:
        assert stage.busy + stage.exchange + stage.bubble == pytest.approx(report.latency_cycles)
    assert 0 <= report.bubble_share < 1


@pytest.mark.parametrize("kind", ["ring", "switch"])
@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.phase)
@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_the_critical_path_adds_up_to_the_step(plan, step, kind):
    report = simulated(plan, kind, step)
    path = report.critical_path()
    assert path[0].start == 0
    assert path[-1].end == report.latency_cycles
    assert all(before.end == after.start for before, after in pairwise(path))
    assert all(piece.end > piece.start for piece in path)
    entries = report.bounds["critical_path"]
    assert sum(entry["cycles"] for entry in entries) == report.latency_cycles
    assert sum(entry["share"] for entry in entries) == pytest.approx(1)
    assert [entry["cycles"] for entry in entries] == sorted((entry["cycles"] for entry in entries), reverse=True)


@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_rows_and_traffic_count_every_task(plan):
    report = simulated(plan)
    passes = [task for task in report.program.tasks if isinstance(task, ArrayPass)]
    rows = [row for row in report.tasks if row.kind == "pass"]
    assert sum(row.count for row in rows) == len(passes)
    assert sum(row.total_cycles for row in rows) == sum(each.busy for each in report.arrays)
    exchanges = [row for row in report.tasks if row.kind == "exchange"]
    assert sum(row.count for row in exchanges) == len(report.program.tasks) - len(passes)
    for chosen, traffic in ((report.tasks, report.traffic), (exchanges, report.link_traffic)):
        assert sum(row.messages for row in chosen) == sum(use.messages for use in traffic.values())
        assert sum(row.bytes for row in chosen) == sum(use.bytes for use in traffic.values())
    stages = {(each.pipeline, each.stage): each for each in report.bubbles}
    for key, stage in stages.items():
        share = sum(row.share for row in rows if (row.pipeline, row.stage) == key)
        assert share == pytest.approx(stage.busy / report.latency_cycles)


@pytest.mark.parametrize("kind", ["ring", "switch"])
@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_channels_are_as_busy_as_the_exchanges_say(plan, kind):
    report = simulated(plan, kind)
    busy = dict.fromkeys(range(1000), 0)
    for task in report.program.tasks:
        if isinstance(task, LinkTask):
            operation = report.program.operations[task.operation]
            for channel, cycles in zip(operation.channels.tolist(), operation.busy_cycles.tolist(), strict=True):
                busy[channel] += cycles
    assert sorted(cycles for cycles in busy.values() if cycles) == sorted(
        cycles for cycles in report.links.busy_cycles.tolist() if cycles
    )
    assert sum(use.busy_cycles for use in report.link_traffic.values()) == sum(busy.values())
    assert report.bounds["busiest_channel_cycles"] == max(busy.values())
    assert report.utilization["links_max"] == max(busy.values()) / report.latency_cycles
    assert not any("root" in name for name in report.links.name)


@given_in_both(4, 20, cases())
def test_any_plan_adds_up(case):
    """Also where stages share arrays, layers are shared in different ways, and arrays are dead or unlike."""
    run = run_system(case.model, case.system, case.step, case.plan, case.workflow, "fast", allow_overflow=True)
    report = system_report(run)
    for each in report.arrays:
        parts = (each.busy, each.fill, each.drain, each.exchange, each.wait)
        assert min(parts) >= 0
        assert sum(parts) == report.latency_cycles
    path = report.critical_path()
    assert [path[0].start, path[-1].end] == [0, report.latency_cycles]
    assert all(before.end == after.start for before, after in pairwise(path))
    assert all(-1e-9 <= value <= 1 + 1e-9 for value in (*report.utilization.values(), report.bubble_share))
    assert sum(row.count for row in report.tasks) == len(report.program.tasks)
    assert sum(row.messages for row in report.tasks) == sum(use.messages for use in report.traffic.values())
    assert json.loads(report.to_json()) == report.to_dict()
    assert parse(trace_json(report)).other["latency_cycles"] == report.latency_cycles
    assert max(map(len, render_report(report).splitlines())) <= 100


def test_an_idle_pipeline_has_the_bubble_of_the_textbook():
    """P stages, one after the other for a part: (P - 1) / P of the time each waits."""
    report = simulated(ParallelPlan(pp=3, microbatches=1))
    used = sum(each.busy + each.exchange for each in report.arrays)
    assert used <= report.latency_cycles  # never two at a time
    assert report.bubble_share >= 2 / 3
    assert [each.wait for each in report.bubbles] == [0, 0, 0]
    fills = [each.fill for each in report.bubbles]
    assert fills[0] == 0
    assert fills == sorted(fills)
    assert report.bounds["fill_cycles"] == fills[-1]


# -------------------------------------------------------------------------------------------------- programs by hand
def by_hand(tasks, starts, ends) -> tuple[SystemProgram, SystemTimes]:
    operations = simulated(ParallelPlan(tp=2, pp=2)).program.operations
    system: SystemConfig = system_of(4)
    times = SystemTimes(np.array(starts, dtype=np.int64), np.array(ends, dtype=np.int64), "by hand")
    return SystemProgram(system, tuple(tasks), operations), times


def test_waits_are_told_from_exchanges():
    """A pass, an exchange that has to queue for 3 cycles and takes 5, another pass 2 cycles later by another array."""
    tasks = [
        ArrayPass(0, 0, (), "a", 0, 0),
        LinkTask(0, (0,), 0, 0),
        ArrayPass(1, 0, (), "b", 0, 1),
        ArrayPass(0, 0, (1, 2), "c", 0, 0),
    ]
    program, times = by_hand(tasks, [0, 13, 0, 20], [10, 18, 20, 30])
    first, second = array_times(program, times)
    assert (first.busy, first.fill, first.exchange, first.wait, first.drain) == (20, 0, 5, 5, 0)
    assert (second.busy, second.fill, second.exchange, second.wait, second.drain) == (20, 0, 0, 0, 10)
    assert [(piece.kind, piece.start, piece.end) for piece in critical_path(program, times)] == [
        ("pass", 0, 20),
        ("pass", 20, 30),
    ]
    assert [stage.busy for stage in stage_times((first, second))] == [20, 20]


def test_a_queue_before_the_links_is_a_piece_of_its_own():
    tasks = [ArrayPass(0, 0, (), "a"), LinkTask(0, (0,)), ArrayPass(1, 0, (1,), "b")]
    program, times = by_hand(tasks, [0, 14, 20], [10, 20, 25])
    path = critical_path(program, times)
    assert [(piece.kind, piece.start, piece.end) for piece in path] == [
        ("pass", 0, 10),
        ("queue", 10, 14),
        ("exchange", 14, 20),
        ("pass", 20, 25),
    ]
    assert path[1].name == path[2].name == program.operations[0].name


# ------------------------------------------------------------------------------------------------------------- exports
@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_json_is_plain_and_whole(plan):
    report = simulated(plan)
    told = json.loads(report.to_json())
    assert told == report.to_dict()
    assert told["schema"] == "pe-sim.report/1"
    own = set(simulate_tiny("megatron", 6).to_dict())
    assert own - set(told) == {"array", "area"}
    assert set(told) - own == {"system", "plan", "link_traffic", "bubbles"}
    assert load_system(told["system"]) == report.system
    assert len(told["plan"]["pipelines"]) == plan.dp
    lines = told["plan"]["pipelines"]
    assert [len(line["stages"]) for line in lines] == [plan.pp] * plan.dp
    assert sorted(rank for line in lines for stage in line["stages"] for rank in stage["arrays"]) == [
        *range(report.system.num_arrays)
    ]
    for line in lines:
        bounds = [stage["layers"] for stage in line["stages"]]
        assert [first for first, _ in bounds] == [0, *(last for _, last in bounds[:-1])]
        assert bounds[-1][1] == MODEL.num_layers
    assert told["memory"]["fullest_array"] in range(report.system.num_arrays)
    assert len(told["memory"]["arrays"]) == report.system.num_arrays


def test_a_report_is_the_same_on_every_run_and_by_both_engines():
    plan = ParallelPlan(tp=2, pp=2)
    again = simulate_system(MODEL, system_of(4), DECODE, plan, "megatron")
    assert again.to_json() == simulated(plan).to_json()
    event = simulated(plan, engine="event").to_dict()
    assert event.pop("engine") == "event"
    fast = simulated(plan).to_dict()
    assert fast.pop("engine") == "fast"
    assert event == fast


def test_frame_has_a_row_a_task_row():
    report = simulated(ParallelPlan(tp=2, pp=2))
    frame = report.to_frame()
    assert len(frame) == len(report.tasks)
    assert list(frame.columns) == list(report.tasks[0].to_dict())
    assert frame.attrs["accuracy"]["envelope"] == "outside"


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.phase)
@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_trace_is_one_that_viewers_read(plan, step):
    report = simulated(plan, step=step)
    trace = parse(trace_json(report))
    passes = [task for task in report.program.tasks if isinstance(task, ArrayPass)]
    for rank in range(report.system.num_arrays):
        slices = trace.track(f"array {rank}")
        assert len(slices) == sum(task.array == rank for task in passes)
        busy = sum(piece["args"]["cycles"] for piece in slices)
        assert busy == sum(each.busy for each in report.arrays if each.rank == rank)
    path = trace.track("critical path")
    assert sum(piece["args"]["cycles"] for piece in path) == report.latency_cycles
    hottest = [report.links.name[channel] for channel in report.links.hottest(1)]
    assert all(trace.track(name) for name in hottest)
    assert trace.other["latency_cycles"] == report.latency_cycles
    assert trace.other["channels_left_out"] == 0


def test_trace_says_what_it_leaves_out():
    report = simulated(ParallelPlan(tp=2, pp=2))
    trace = parse(trace_json(report, max_arrays=1, max_links=1))
    assert trace.other["arrays_left_out"] == 3
    assert len(trace.threads) == 3
    used = sum(cycles > 0 for cycles in report.links.busy_cycles.tolist())
    assert trace.other["channels_left_out"] == used - 1


def test_files_are_written(tmp_path):
    report = simulated(ParallelPlan(tp=2, pp=2))
    report.save(tmp_path / "report.json")
    assert (tmp_path / "report.json").read_text() == report.to_json()
    report.save_trace(tmp_path / "trace.json")
    assert parse((tmp_path / "trace.json").read_text()).other["system"] == report.system.name
    report.save_timeline(tmp_path / "stages.png")
    assert (tmp_path / "stages.png").read_bytes().startswith(b"\x89PNG")
    for name in ("once.svg", "again.svg"):
        report.save_timeline(tmp_path / name)
    assert (tmp_path / "once.svg").read_bytes() == (tmp_path / "again.svg").read_bytes()
    with pytest.raises(InputError, match="the ending does not say which kind of picture"):
        report.save_timeline(tmp_path / "stages.pdf")


# ---------------------------------------------------------------------------------------------------------- for people
def test_the_table_says_it_all():
    plan = replace(ParallelPlan(tp=2, pp=2), name="mine", ignored=("zero: true",))
    report = simulate_system(MODEL, system_of(4), DECODE, plan, "megatron")
    text = render_report(report)
    for words in (
        "plan        mine: 2 stages of tp 2, 2 microbatches",
        f"latency     {report.latency_cycles:,} cycles",
        "ignored: zero: true",
        "note: energy: without the links between arrays, of which no constant is given",
        "Critical path",
        "all-reduce down",
        "Hottest links",
        "ring 0->1",
    ):
        assert words in text
    assert max(map(len, text.splitlines())) <= 100


def test_the_table_of_one_array_has_no_links():
    text = render_report(simulate_system(MODEL, system_of(4).arrays[0], DECODE))
    assert "one array: 1 stage of one array, 1 microbatch" in text
    assert "Hottest links" not in text
    assert "embedding, whole layers" in text


def test_describing_lines():
    assert describe_lines(simulated(ParallelPlan(dp=2, pp=2, microbatches=1)).lines) == (
        "2 pipelines, each 2 stages of one array, 1 microbatch"
    )
    assert describe_lines(simulated(ParallelPlan(cp=2, tp=2)).lines) == "1 stage of tp 2 x cp 2, 1 microbatch"


@given(st.sets(st.integers(0, 40), min_size=1))
def test_ranks_as_ranges(ranks):
    words = ranks_words(ranks)
    found = set()
    for part in words.split(", "):
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    assert found == ranks


def test_labels_without_layers():
    labels = ("layer 12 behind o", "layer 3", "embedding", "layers 0-31", "embedding, layers 0-31", "end")
    expected = ["behind o", "begin of a stage", "embedding", "whole layers", "embedding, whole layers", "end"]
    assert [without_layer(label) for label in labels] == expected


def test_layers_are_counted_in_the_model():
    report = simulated(ParallelPlan(tp=2, pp=2))
    second = [row.name for row in report.tasks if row.stage == 1 and row.kind == "pass"]
    assert second[0] == f"layer {report.lines[0].stages[1].first_layer}"
    assert f"layer {MODEL.num_layers - 1} behind down" in second
    whole = [row.name for row in simulated(ParallelPlan(dp=2, pp=2, microbatches=1)).tasks if row.stage == 1]
    assert "layers 3-4" in whole


def test_notebook_card_is_well_formed():
    report = simulated(ParallelPlan(tp=2, pp=2))
    page = Page(report._repr_html_())
    assert f"{report.latency_cycles:,} cycles" in page.text
    assert "0-1" in page.text
    assert repr(report).startswith(f"<SystemReport {MODEL.name} on {report.system.name} (4 arrays), decode")


@pytest.mark.usefixtures("no_window")
@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_timeline_shows_every_stage(plan):
    report = simulated(plan)
    ax = plot_timeline(report)
    assert len(ax.get_yticks()) == len(report.bubbles)
    latency = report.latency_seconds / {"time (ms)": 1e-3, "time (µs)": 1e-6}[ax.get_xlabel()]
    assert ax.get_xlim() == pytest.approx((0, latency))
    numbers = {text.get_text() for text in ax.texts if text.get_text().isdigit()}
    assert numbers == {str(number) for number in range(report.lines[0].microbatches)}
    plt.close(ax.get_figure(root=True))


def test_encoders_and_several_lengths():
    """An encoder has no cache, and its prompts go through whole."""
    report = simulate_system("bert-base-uncased", system_of(4), Prefill(prompt_len=[3, 5]), ParallelPlan(tp=2, pp=2))
    assert report.num_tokens == 8
    assert sum(piece.end - piece.start for piece in report.critical_path()) == report.latency_cycles
    ragged = simulate_system(MODEL, system_of(4), Decode(context_len=[3, 90, 20]), ParallelPlan(tp=2, pp=2))
    assert "context_len 3..90" in render_report(ragged)
