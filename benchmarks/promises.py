"""What the project promises of its own speed, measured: a row for each."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.growth import REPEATS, Section
from benchmarks.interconnects import all_reduces, builds
from benchmarks.measure import process_mib, process_seconds
from benchmarks.search_run import search_seconds
from benchmarks.step import CONTEXT_LEN, MODEL, WORKFLOW, decode_step, time_again, time_step, time_written_out
from benchmarks.sweep_runs import sweep_rows
from benchmarks.sweeps import GENERATION_ARRAY, GENERATION_MODEL, PROMPT_LEN, SWEEP_ARRAY, SWEEPS
from benchmarks.sweeps import design_points_per_second as points_per_second
from benchmarks.systems import system_rows
from benchmarks.table import Row

EVENT_REPEATS = 3
PROCESS_REPEATS = 5

# By array: seconds, and event over fast.
EVENT_TARGETS = {"bus-tree-64": None, "bus-tree-256": 10.0, "bus-tree-1024": 45.0}
SIMULATE_TARGETS = {"bus-tree-1024": 0.005}
SPEEDUP_TARGETS = {"bus-tree-1024": 1000.0}
BIG_MODEL, BIG_ARRAY, BIG_TARGET = "llama-3-70b", "bus-tree-4096", 0.010
POINTS_TARGET, GENERATION_TARGET = 300.0, 1.0
SEARCH_ARRAY, SEARCH_TARGET = "bus-tree-1024", 2.0
MODELS_TARGET, RUN_TARGET = 0.4, 0.8
RUN = ("run", MODEL, "--workflow", WORKFLOW, "--phase", "decode", "--context", str(CONTEXT_LEN))
_MANY_PES = ("--array", BIG_ARRAY, "--allow-overflow", "--set")
LARGE = {  # what `pe-sim run` is given, and the most MiB it may take
    f"{MODEL} on bus-tree-1024, event engine": ((*RUN[1:], "--array", "bus-tree-1024", "--engine", "event"), 1024.0),
    f"{BIG_MODEL} on {BIG_ARRAY}": ((BIG_MODEL, "--array", BIG_ARRAY), 200.0),
    f"{MODEL} on 2^20 PEs": ((MODEL, *_MANY_PES, f"num_pes={2**20}"), 2048.0),
    "llama-3.2-1b with 100,000 layers on 4,096 PEs": (("llama-3.2-1b", *_MANY_PES, "model.num_layers=100000"), 2048.0),
    "llama-3.1-405b on 65,536 PEs": (("llama-3.1-405b", *_MANY_PES, "num_pes=65536"), 1024.0),
}
LARGE_BATCH, LARGE_BATCH_TARGET = 4000, 3.0
_ON_FOUR = ("llama-3.2-1b", "--arrays", "ring-of-4-bus-tree-1024", "--pp", "4", "--context", "10", "--allow-overflow")


def promised(generation: Section) -> Iterator[Row]:
    """Every row, as soon as it is there; the generations are the last points of their curves."""
    for array in EVENT_TARGETS:
        yield from _step_rows(array)
    yield from _simulate_rows(BIG_MODEL, BIG_ARRAY, BIG_TARGET)
    yield from large_rows()
    for name, (changes, values) in SWEEPS.items():
        what = f"{SWEEP_ARRAY}, {len(values)} points: {name} {values[0]} to {values[-1]}"
        yield Row(what, points_per_second(changes, values), "/s", POINTS_TARGET, at_least=True)
    yield from sweep_rows()
    seconds = search_seconds(MODEL, SEARCH_ARRAY, PROCESS_REPEATS)
    yield Row(f"{MODEL} on {SEARCH_ARRAY}: `search`, caches empty", seconds, "s", SEARCH_TARGET)
    yield from _generation_rows(generation)
    yield from builds()
    yield from all_reduces()
    yield from system_rows()
    yield Row("`pe-sim models`, whole process", process_seconds(("models",), PROCESS_REPEATS), "s", MODELS_TARGET)
    for array in EVENT_TARGETS:
        seconds = process_seconds((*RUN, "--array", array), PROCESS_REPEATS)
        yield Row(f"`pe-sim run` on {array}, whole process", seconds, "s", RUN_TARGET)


def large_rows() -> Iterator[Row]:
    """A row for the peak memory of each large step, and one for the time of a large batch."""
    for what, (arguments, target) in LARGE.items():
        yield Row(f"{what}: peak memory of `pe-sim run`", process_mib(("run", *arguments)), "MiB", target)
    seconds = process_seconds(("run", *_ON_FOUR, "--batch", str(LARGE_BATCH)), PROCESS_REPEATS)
    what = f"llama-3.2-1b on ring-of-4-bus-tree-1024, pp 4, batch {LARGE_BATCH:,}: `pe-sim run`, whole process"
    yield Row(what, seconds, "s", LARGE_BATCH_TARGET)


def _step_rows(array: str) -> Iterator[Row]:
    situation = decode_step(array=array)
    times = time_step(situation, REPEATS, EVENT_REPEATS)
    assert times.event is not None
    yield Row(f"{array}: place", times.place, "s")
    yield Row(f"{array}: lower", times.lower, "s")
    yield Row(f"{array}: fast engine, {times.cycles:,} cycles", times.fast, "s")
    yield Row(f"{array}: fast engine, every span written out", time_written_out(situation), "s")
    yield Row(f"{array}: event engine, the same cycles", times.event, "s", EVENT_TARGETS[array])
    speedup, target = times.event / times.fast, SPEEDUP_TARGETS.get(array)
    yield Row(f"{array}: event engine / fast engine", speedup, "x", target, at_least=True)
    yield Row(f"{array}: `simulate`, caches empty", times.simulate, "s", SIMULATE_TARGETS.get(array))
    yield Row(f"{array}: `simulate`, asked again", time_again(situation), "s", SIMULATE_TARGETS.get(array))


def _simulate_rows(model: str, array: str, target: float) -> Iterator[Row]:
    situation = decode_step(model, array)
    seconds = time_step(situation, REPEATS, event_repeats=0).simulate
    yield Row(f"{model} on {array}: `simulate`, caches empty", seconds, "s", target)
    yield Row(f"{model} on {array}: `simulate`, asked again", time_again(situation), "s", target)


def _generation_rows(generation: Section) -> Iterator[Row]:
    (curve,) = generation.curves
    for series in curve.series:
        seconds = series.seconds[-1]
        assert seconds is not None
        what = f"{GENERATION_MODEL} on {GENERATION_ARRAY}, {series.name}: {PROMPT_LEN} + {curve.x[-1]} tokens"
        yield Row(what, seconds, "s", GENERATION_TARGET)
