"""The whole pipeline on one screen: configs -> graph -> placed graph -> schedule -> trace -> report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from pe_sim.config.arrays.array import ArrayConfig
from pe_sim.config.arrays.load import array_to_dict, as_array, load_array
from pe_sim.config.models.load import as_model, load_model
from pe_sim.config.models.model import ModelConfig
from pe_sim.config.situations import load_situation
from pe_sim.config.step import Decode, Prefill
from pe_sim.engine.engines import DEFAULT_ENGINE, ENGINES, decode_in_order, engine_named
from pe_sim.errors import worst
from pe_sim.mapping.footprint import footprint
from pe_sim.mapping.mapper import place
from pe_sim.mapping.placed import PlacedGraph
from pe_sim.mapping.workflow import AUTO, WORKFLOWS, Workflow, as_workflow, load_workflow
from pe_sim.mapping_search.budget import DEFAULT_SECONDS, Progress, budget_of
from pe_sim.report.report import Report
from pe_sim.report.results import Generation, PartResult
from pe_sim.schedule.collectives import KINDS as COLLECTIVE_KINDS
from pe_sim.schedule.collectives import collective_schedule
from pe_sim.schedule.lowering import lower
from pe_sim.schedule.matrix import gemm_schedule
from pe_sim.schedule.stages import Tag
from pe_sim.trace import TagTraffic, total_traffic

if TYPE_CHECKING:
    from typing_extensions import TypeIs

    from pe_sim.config.systems.system import SystemConfig
    from pe_sim.mapping_search.result import SearchResult
    from pe_sim.mapping_search.switch.pairs import BestSwitch, Phases
    from pe_sim.numeric.proof import Proof
    from pe_sim.numeric.results import Execution
    from pe_sim.report.analysis.envelope import Envelope
    from pe_sim.report.system_report import SystemReport
    from pe_sim.systems.api import Plan
    from pe_sim.systems.search.result import SystemSearchResult
    from pe_sim.systems.search.space import Allowed

Model = ModelConfig | str | Path | Mapping[str, Any]  # as loaded, or what load_model takes
Array = ArrayConfig | str | Path | Mapping[str, Any]  # as loaded, or what load_array takes
Step = Decode | Prefill
Steps = Step | Sequence[Step | tuple[Step, float]]
SEARCH_SECONDS = DEFAULT_SECONDS  # of a search that is given no other time
SIMULATED_AT_MOST = 64  # mappings that a search simulates in addition to the named ones
PROVEN_FROM = 8  # the same in `verify`, where the mapping need not be the best of all


def _are_several(array: Array | SystemConfig, plan: Plan | Allowed | None) -> TypeIs[SystemConfig]:
    """Whether `array` is a loaded system of arrays, or counts as one because a plan is given."""
    if plan is not None or isinstance(array, ArrayConfig | str | Path | Mapping):
        return plan is not None
    from pe_sim.config.systems.system import SystemConfig  # one array needs none of it

    return isinstance(array, SystemConfig)


@overload
def simulate(
    model: Model,
    array: Array,
    step: Step,
    workflow: Workflow | str | Path = "workflow-1",
    engine: str = DEFAULT_ENGINE,
    *,
    allow_overflow: bool = False,
) -> Report: ...


@overload
def simulate(
    model: Model,
    array: SystemConfig,
    step: Step,
    workflow: Workflow | str | Path = "workflow-1",
    engine: str = DEFAULT_ENGINE,
    *,
    plan: Plan | None = None,
    allow_overflow: bool = False,
    progress: Progress | None = None,
) -> SystemReport: ...


def simulate(
    model: Model,
    array: Array | SystemConfig,
    step: Step,
    workflow: Workflow | str | Path = "workflow-1",
    engine: str = DEFAULT_ENGINE,
    *,
    plan: Plan | None = None,
    allow_overflow: bool = False,
    progress: Progress | None = None,
) -> Report | SystemReport:
    """Simulates one step of a model under a workflow, on one array or on several.

    Args:
        model, array: as loaded, or what `load_model` and `load_array` take; or a system, as `load_system` gives it.
        step: Decode(...) or Prefill(...).
        workflow: a name, a workflow file's path, or a Workflow; "auto": the best one, searched for `SEARCH_SECONDS` at
            most (`search` takes another time). On a system it is the workflow inside every array.
        engine: one of `ENGINES`.
        plan: how several arrays share the model: as loaded, or what `load_plan` takes; None: the best degrees that a
            search finds.
        allow_overflow: simulate even what does not fit the memories.
        progress: on several arrays: called with a text, the amount of work done, and its total.

    Raises:
        InputError: something given is wrong, or the plan does not fit; InfeasibleError if the memories are too small.
    """
    if _are_several(array, plan):
        from pe_sim.systems.api import simulate_system  # one array needs none of it

        return simulate_system(
            model, array, step, plan, workflow, engine, allow_overflow=allow_overflow, progress=progress
        )
    model = as_model(model)
    array = as_array(array)
    workflow = as_workflow(workflow)
    run = engine_named(engine)
    workflow = _resolved(model, array, step, workflow)
    placed = place(model, array, step, workflow)
    memory = footprint(placed, placed.graph.shape)
    if not allow_overflow:
        memory.check()
    schedule = lower(placed)
    all_alive = partial(_cycles_all_alive, model, array, step, workflow) if array.dead_pes else None
    return Report(model, array, step, workflow, placed.graph, schedule, run(schedule), memory, all_alive)


def _cycles_all_alive(model: ModelConfig, array: ArrayConfig, step: Step, workflow: Workflow) -> int:
    """Cycles of the same step under the same mapping if no PE were dead."""
    placed = place(model, replace(array, dead_pes=()), step, workflow)
    return engine_named(DEFAULT_ENGINE)(lower(placed)).makespan_cycles


@overload
def search(
    model: Model,
    array: Array,
    step: Steps,
    objective: str = "latency",
    *,
    workflow: Workflow | str | Path = AUTO.name,
    allowed: None = None,
    max_simulations: int | None = None,
    seconds: float = SEARCH_SECONDS,
    progress: Progress | None = None,
) -> SearchResult: ...


@overload
def search(
    model: Model,
    array: SystemConfig,
    step: Step,
    objective: str = "latency",
    *,
    workflow: Workflow | str | Path = AUTO.name,
    allowed: Allowed | None = None,
    max_simulations: int | None = None,
    seconds: float = SEARCH_SECONDS,
    progress: Progress | None = None,
) -> SystemSearchResult: ...


def search(
    model: Model,
    array: Array | SystemConfig,
    step: Any,
    objective: str = "latency",
    *,
    workflow: Workflow | str | Path = AUTO.name,
    allowed: Allowed | None = None,
    max_simulations: int | None = None,
    seconds: float = SEARCH_SECONDS,
    progress: Progress | None = None,
) -> SearchResult | SystemSearchResult:
    """Searches the best distribution of every operator and all transforms between them; on several arrays, the plan.

    When the time is used up, or Ctrl-C is pressed, it returns the best so far; the result says so (`stopped`).

    Args:
        model, array: as for `simulate`.
        step: one step, or several that one mapping has to serve: steps, or (step, weight); their weighted sum counts.
        objective: latency or throughput (on one array the same: fewest cycles), or energy (on one array: least dynamic
            energy, which is that of the reports without static power, then fewest cycles).
        workflow: a workflow file whose base is auto, to give some operators and search the others.
        allowed: on several arrays: degrees, numbers of arrays and of microbatches that a plan may have.
        max_simulations: the most simulations of mappings (in addition to the named workflows) or of plans; more of
            them prove more. None: `SIMULATED_AT_MOST`, on several arrays `systems.search.search.SIMULATED_AT_MOST`.
        seconds: time limit; if infinite, the search runs to its end, and its result depends on no clock.
        progress: called with a text on what is done and known so far, the amount of work done, and its total.

    Raises:
        InputError: something given is wrong, or no mapping was found in time; InfeasibleError where none fits the
            memories.
    """
    if _are_several(array, allowed):
        from pe_sim.systems.search import search as systems  # one array needs none of it

        most = systems.SIMULATED_AT_MOST if max_simulations is None else max_simulations
        return systems.search_system(
            model,
            array,
            step,
            objective,
            workflow=workflow,
            allowed=allowed,
            max_simulations=most,
            seconds=seconds,
            progress=progress,
        )
    from pe_sim.mapping_search.search import search_for  # the pipeline does not need the search

    model = as_model(model)
    array = as_array(array)
    workflow = as_workflow(workflow)
    budget = budget_of(seconds)
    most = SIMULATED_AT_MOST if max_simulations is None else max_simulations
    return search_for(model, array, step, objective, workflow, max_simulations=most, budget=budget, progress=progress)


def _resolved(
    model: ModelConfig, array: ArrayConfig, step: Steps, workflow: Workflow, most: int = SIMULATED_AT_MOST
) -> Workflow:
    """The workflow itself, or if it is to be searched, the best that `most` simulations find in `SEARCH_SECONDS`."""
    if not workflow.searched:
        return workflow
    return search(model, array, step, workflow=workflow, max_simulations=most).uninterrupted.workflow


def execute(
    model: Model,
    array: Array | SystemConfig,
    step: Step,
    workflow: Workflow | str | Path = "workflow-1",
    *,
    plan: Plan | None = None,
    weights: Mapping[str, Any] | str | Path,
    tokens: Any,
    dtype: str = "float32",
    token_types: Any = None,
) -> Execution:
    """Executes one step with real numbers on the same placed graph that `simulate` times.

    Args:
        model, array, step, workflow, plan: as for `simulate`; several arrays need a plan.
        weights: Hugging Face state-dict names to arrays, a safetensors file, or a folder of them.
        tokens: ids of shape (batch, prompt_len), or (batch, context_len + 1) in decode, of which the last is the new
            one and the others fill the cache; one list a sequence where lengths differ.
        dtype: type of all values and sums: float32 or float64.
        token_types: ids in the form of `tokens`, for models that have token types.

    Raises:
        InputError: something given is wrong; a tensor that is missing or misshapen is named with both shapes.
    """
    if _are_several(array, plan):
        from pe_sim.systems.api import execute_system  # one array needs none of it

        return execute_system(
            model, array, step, plan, workflow, weights=weights, tokens=tokens, dtype=dtype, token_types=token_types
        )
    model = as_model(model)
    array = as_array(array)
    workflow = as_workflow(workflow)
    from pe_sim.numeric.executor import execute_placed  # timing alone does not need the numeric room

    placed = place(model, array, step, _resolved(model, array, step, workflow))
    done = execute_placed(placed, model, weights, tokens, dtype=dtype, token_types=token_types)
    return replace(done, traffic={tag.value: done.traffic.get(tag.value, TagTraffic()) for tag in Tag})


def verify(
    model: Model,
    array: Array | SystemConfig,
    workflow: Workflow | str | Path = "workflow-1",
    *,
    plan: Plan | None = None,
    weights: Mapping[str, Any] | str | Path | None = None,
    seed: int = 0,
) -> Proof:
    """Proves that a workflow on an array or a system computes the model, by comparison with an unsharded reference.

    Without weights it takes a scaled-down random model of the same family, with uneven shards on purpose. It runs
    steps of prefill, prefill over a cache and decode, ragged batches among them, and compares their traffic with the
    simulated one. Several arrays need a plan, which is proved too.

    Raises:
        InputError: something given is wrong.
    """
    if _are_several(array, plan):
        from pe_sim.systems.api import verify_system  # one array needs none of it

        return verify_system(model, array, plan, workflow, weights=weights, seed=seed)
    model = as_model(model)
    array = as_array(array)
    workflow = as_workflow(workflow)
    from pe_sim.numeric.proof import prove

    def made(chosen: ModelConfig, step: Step) -> tuple[PlacedGraph, Mapping[str, TagTraffic]]:
        placed = place(chosen, array, step, _resolved(chosen, array, step, workflow, PROVEN_FROM))
        return placed, engine_named(DEFAULT_ENGINE)(lower(placed)).traffic

    return prove(model, array, workflow, made, weights=weights, seed=seed)


def generate(
    model: Model,
    array: Array,
    prompt_len: int,
    output_len: int,
    batch_size: int = 1,
    workflow: Workflow | str | Path = "workflow-1",
    engine: str = DEFAULT_ENGINE,
    *,
    decode_workflow: Workflow | str | Path | None = None,
    switch_weights: str = "best",
    allow_overflow: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Generation:
    """Simulates a generation: the prefill, then decode steps until each sequence has `output_len` new tokens.

    Args:
        prompt_len, output_len: tokens of each sequence; the prefill gives the first output token.
        batch_size: number of sequences that are processed together.
        workflow: as for `simulate`; "auto" is the one mapping that is best for the prefill and all decode steps, each
            of which counts as long as the last.
        decode_workflow: workflow of the decode steps, if not the prefill's; the switch between them is counted.
        switch_weights: between two workflows: reshard the weights, hold both layouts, or best: both where they fit.
        progress: called with (steps done, steps in all), after several steps at once where the engine takes decode
            steps together.

    Raises:
        InputError: as in `simulate`, checked for the longest context before the first step is simulated.
    """
    from pe_sim.mapping_search.switch.pairs import Phases, Ways, switch_between  # steps alone need no switch

    model = as_model(model)
    phases, ways = Phases.of(model, prompt_len, output_len, batch_size), Ways(switch_weights, engine, allow_overflow)
    array = as_array(array)
    workflow = as_workflow(workflow)
    workflow, decoding = _of_phases(model, array, phases, workflow, decode_workflow)
    switch, longest = None, None
    if phases.decodes:
        placed = place(model, array, phases.decodes[-1], decoding)
        longest = footprint(placed, placed.graph.shape)
        if not allow_overflow:
            longest.check()
        if decoding != workflow:
            switch = switch_between(model, array, phases, workflow, decoding, ways)
    prefill = simulate(model, array, phases.prefill, workflow, engine, allow_overflow=allow_overflow)
    cycles: list[int] = []
    traffic = [(prefill.traffic, 1), *([(switch.traffic, 1)] if switch else [])]
    for some_cycles, some_traffic in decode_in_order(model, array, phases.decodes, decoding, engine):
        if progress:
            progress(len(cycles) + 1, output_len)
        cycles += some_cycles
        traffic.append((some_traffic, 1))
    if progress:
        progress(output_len, output_len)
    lacking = [prefill.shortage, longest.shortage if longest else None, switch.shortage if switch else None]
    return Generation(
        prefill,
        prompt_len,
        output_len,
        batch_size,
        tuple(cycles),
        total_traffic(traffic),
        decoding,
        switch,
        worst(lacking),
    )


def _of_phases(
    model: ModelConfig, array: ArrayConfig, phases: Phases, workflow: Workflow, other: Workflow | str | Path | None
) -> tuple[Workflow, Workflow]:
    """The workflows of prefill and decode; each is searched for its own phase where they may differ."""
    later = phases.decodes
    if other is None:
        last: list[Step | tuple[Step, float]] = [(later[-1], float(len(later)))] if later else []
        return (_resolved(model, array, [(phases.prefill, 1.0), *last], workflow),) * 2
    decoding = as_workflow(other)
    decoding = _resolved(model, array, later[-1], decoding) if later else decoding
    return _resolved(model, array, phases.prefill, workflow), decoding


def best_switch(
    model: Model,
    array: Array,
    prompt_len: int,
    output_len: int,
    batch_size: int = 1,
    candidates: Sequence[Workflow | str | Path] = tuple(WORKFLOWS),
    engine: str = DEFAULT_ENGINE,
    *,
    switch_weights: str = "best",
    progress: Callable[[str], None] | None = None,
) -> BestSwitch:
    """The best pair of workflows for a generation (prefill and decode), with the switch between them.

    Args:
        candidates: the workflows to pair; "auto" stands for two, the best for the prefill and the best for decoding.
        switch_weights: this and all other arguments as for `generate`.
        progress: called with a line of the table whenever a pair is done.

    Raises:
        InputError: something given is wrong; InfeasibleError where no pair fits the memories.
    """
    from pe_sim.mapping_search.switch.pairs import Phases, Ways, best_pair  # as in `generate`

    model = as_model(model)
    phases, ways = Phases.of(model, prompt_len, output_len, batch_size), Ways(switch_weights, engine)
    array = as_array(array)
    steps, chosen = phases.ends, list[Workflow]()
    for each in candidates:
        workflow = as_workflow(each)
        found = [_resolved(model, array, step, workflow) for step in (steps if workflow.searched else steps[:1])]
        named = [replace(one, name=f"{one.name} ({step.phase})") for one, step in zip(found, steps, strict=False)]
        chosen += named if workflow.searched else found
    return best_pair(model, array, phases, chosen, ways, progress)


def collective(kind: str, array: Array, num_bytes: int, engine: str = DEFAULT_ENGINE) -> PartResult:
    """Simulates one collective alone on an array.

    Args:
        kind: one of `COLLECTIVE_KINDS`.
        num_bytes: for scatter, gather and all-gather the bytes of each PE, for reduce-scatter those of each PE's
            result, for all-to-all those of each pair; otherwise those of the whole (for an all-reduce the partial
            sums, whose result has the activation dtype).

    Raises:
        InputError: no such kind or array, or no positive number of bytes.
    """
    array = as_array(array)
    planned = collective_schedule(kind, array, num_bytes)
    trace = engine_named(engine)(planned.schedule)
    assumed = {"kind": kind, "bytes": num_bytes, "ready_at_cycle": 0, "array": array_to_dict(array)}
    judge = partial(_collective_envelope, kind, array)
    return PartResult(trace.makespan_cycles, trace.traffic, planned.algorithm, assumed, judge)


def _collective_envelope(kind: str, array: ArrayConfig) -> Envelope:
    from pe_sim.report.analysis.envelope import collective_envelope  # only needed by those who ask

    return collective_envelope(kind, array)


def gemm(
    array: Array,
    rows: int,
    inner: int,
    outer: int,
    engine: str = DEFAULT_ENGINE,
) -> PartResult:
    """Simulates one GEMM alone on one PE: (rows, inner) activations by (outer, inner) weights.

    Raises:
        InputError: a size is not positive, or the array is wrong.
    """
    array = as_array(array)
    trace = engine_named(engine)(gemm_schedule(array, rows, inner, outer))
    assumed = {"m": rows, "k": inner, "n": outer, "prefetched_bytes": 0, "array": array_to_dict(array)}
    judge = partial(_gemm_envelope, array, rows, inner, outer, trace.makespan_cycles)
    return PartResult(trace.makespan_cycles, trace.traffic, f"overlap {array.overlap}", assumed, judge)


def _gemm_envelope(array: ArrayConfig, rows: int, inner: int, outer: int, cycles: int) -> Envelope:
    from pe_sim.report.analysis.envelope import gemm_envelope  # only needed by those who ask

    return gemm_envelope(array, rows, inner, outer, cycles)


__all__ = [
    "COLLECTIVE_KINDS",
    "DEFAULT_ENGINE",
    "ENGINES",
    "WORKFLOWS",
    "Decode",
    "Generation",
    "PartResult",
    "Prefill",
    "Report",
    "Step",
    "Workflow",
    "best_switch",
    "collective",
    "execute",
    "gemm",
    "generate",
    "load_array",
    "load_model",
    "load_situation",
    "load_workflow",
    "search",
    "simulate",
    "verify",
]
