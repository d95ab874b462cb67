"""The whole pipeline on one screen: configs -> graph -> placed graph -> schedule -> trace -> report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pe_sim.config.array import ArrayConfig
from pe_sim.config.arrays import array_to_dict, load_array
from pe_sim.config.model import ModelConfig
from pe_sim.config.models import load_model
from pe_sim.config.step import Decode, Prefill
from pe_sim.engine.engines import DECODES, DEFAULT_ENGINE, ENGINES, engine_named
from pe_sim.errors import InputError
from pe_sim.mapping.footprint import footprint
from pe_sim.mapping.mapper import place
from pe_sim.mapping.placed import PlacedGraph
from pe_sim.mapping.workflow import WORKFLOWS, Workflow
from pe_sim.mapping.workflow_loading import load_workflow
from pe_sim.report.build import build_report
from pe_sim.report.generation import Generation, total_traffic
from pe_sim.report.report import Report
from pe_sim.schedule.collectives import KINDS as COLLECTIVE_KINDS
from pe_sim.schedule.collectives import collective_schedule
from pe_sim.schedule.gemm import gemm_schedule
from pe_sim.schedule.lowering import lower
from pe_sim.schedule.stages import Tag
from pe_sim.trace import TagTraffic, Trace

if TYPE_CHECKING:
    from pe_sim.numeric.proof import Proof
    from pe_sim.numeric.results import Execution
    from pe_sim.report.envelope import Envelope

Step = Decode | Prefill


def simulate(
    model: ModelConfig | str | Path | Mapping[str, Any],
    array: ArrayConfig | str | Path | Mapping[str, Any],
    step: Step,
    workflow: Workflow | str | Path = "workflow-1",
    engine: str = DEFAULT_ENGINE,
    *,
    allow_overflow: bool = False,
) -> Report:
    """Simulates one step of a model on an array under a workflow.

    Args:
        model, array: as loaded, or what `load_model` and `load_array` take.
        step: Decode(...) or Prefill(...).
        workflow: a name, a workflow file's path, or a Workflow.
        engine: one of `ENGINES`.
        allow_overflow: simulate even what does not fit the memories.

    Raises:
        InputError: something given is wrong; InfeasibleError where it does not fit the memories.
    """
    model = model if isinstance(model, ModelConfig) else load_model(model)
    array = array if isinstance(array, ArrayConfig) else load_array(array)
    workflow = workflow if isinstance(workflow, Workflow) else load_workflow(workflow)
    run = engine_named(engine)
    placed = place(model, array, step, workflow)
    memory = footprint(placed, placed.graph.shape)
    if not allow_overflow:
        memory.check()
    schedule = lower(placed)
    return build_report(model, array, step, workflow, placed.graph, schedule, run(schedule), memory)


def execute(
    model: ModelConfig | str | Path | Mapping[str, Any],
    array: ArrayConfig | str | Path | Mapping[str, Any],
    step: Step,
    workflow: Workflow | str | Path = "workflow-1",
    *,
    weights: Mapping[str, Any] | str | Path,
    tokens: Any,
    dtype: str = "float32",
    token_types: Any = None,
) -> Execution:
    """Runs one step with real numbers on the same placed graph that `simulate` times.

    Args:
        weights: Hugging Face state-dict names to arrays, a safetensors file, or a folder of them.
        tokens: ids of shape (batch, prompt_len), or (batch, context_len + 1) in decode, of which the last is the new
            one and the others fill the cache; one list a sequence where lengths differ.
        dtype: float32 or float64, of all values and sums.
        token_types: as `tokens`, for models that have them.

    Raises:
        InputError: something given is wrong; a tensor that is missing or misshapen is named with both shapes.
    """
    model = model if isinstance(model, ModelConfig) else load_model(model)
    array = array if isinstance(array, ArrayConfig) else load_array(array)
    workflow = workflow if isinstance(workflow, Workflow) else load_workflow(workflow)
    from pe_sim.numeric.executor import execute_placed  # timing alone does not need the numeric room

    placed = place(model, array, step, workflow)
    done = execute_placed(placed, model, weights, tokens, dtype=dtype, token_types=token_types)
    return replace(done, traffic={tag.value: done.traffic.get(tag.value, TagTraffic()) for tag in Tag})


def verify(
    model: ModelConfig | str | Path | Mapping[str, Any],
    array: ArrayConfig | str | Path | Mapping[str, Any],
    workflow: Workflow | str | Path = "workflow-1",
    *,
    weights: Mapping[str, Any] | str | Path | None = None,
    seed: int = 0,
) -> Proof:
    """Proves that a workflow on an array computes the model: executed against the unsharded reference.

    Without weights a scaled-down random model of the same family is taken, with uneven shards on purpose. Steps of
    prefill, prefill over a cache and decode are run, ragged batches among them, and their traffic is compared with
    the simulated one.

    Raises:
        InputError: something given is wrong.
    """
    model = model if isinstance(model, ModelConfig) else load_model(model)
    array = array if isinstance(array, ArrayConfig) else load_array(array)
    workflow = workflow if isinstance(workflow, Workflow) else load_workflow(workflow)
    from pe_sim.numeric.proof import prove

    def plan(chosen: ModelConfig, step: Step) -> tuple[PlacedGraph, Mapping[str, TagTraffic]]:
        placed = place(chosen, array, step, workflow)
        return placed, engine_named(DEFAULT_ENGINE)(lower(placed)).traffic

    return prove(model, array, workflow, plan, weights=weights, seed=seed)


def generate(
    model: ModelConfig | str | Path | Mapping[str, Any],
    array: ArrayConfig | str | Path | Mapping[str, Any],
    prompt_len: int,
    output_len: int,
    batch_size: int = 1,
    workflow: Workflow | str | Path = "workflow-1",
    engine: str = DEFAULT_ENGINE,
    *,
    allow_overflow: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Generation:
    """Prefill, then decode steps with growing context until each sequence has `output_len` new tokens.

    Args:
        prompt_len, output_len: tokens a sequence; the prefill gives the first output token.
        batch_size: sequences that go in step.
        progress: called with (steps done, steps in all) as they are done, several at a time where the engine takes
            decode steps together.

    Raises:
        InputError: as in `simulate`, checked for the longest context before the first step is simulated.
    """
    if type(prompt_len) is not int:
        raise InputError("all prompts have one length", path="prompt_len", given=prompt_len, expected="an int >= 1")
    if type(output_len) is not int or output_len < 1:
        raise InputError(
            "a generation has at least one token", path="output_len", given=output_len, expected="an int >= 1"
        )
    model = model if isinstance(model, ModelConfig) else load_model(model)
    array = array if isinstance(array, ArrayConfig) else load_array(array)
    workflow = workflow if isinstance(workflow, Workflow) else load_workflow(workflow)
    first = Prefill(batch_size, prompt_len=prompt_len)
    later = [Decode(batch_size, prompt_len + done) for done in range(output_len - 1)]
    if later:
        placed = place(model, array, later[-1], workflow)
        if not allow_overflow:
            footprint(placed, placed.graph.shape).check()
    prefill = simulate(model, array, first, workflow, engine, allow_overflow=allow_overflow)
    cycles: list[int] = []
    traffic: list[Mapping[str, TagTraffic]] = [prefill.traffic]
    for some_cycles, some_traffic in _decode(model, array, later, workflow, engine):
        if progress:
            progress(len(cycles) + 1, output_len)
        cycles += some_cycles
        traffic.append(some_traffic)
    if progress:
        progress(output_len, output_len)
    return Generation(prefill, prompt_len, output_len, batch_size, tuple(cycles), total_traffic(traffic))


def _decode(
    model: ModelConfig, array: ArrayConfig, steps: list[Decode], workflow: Workflow, engine: str
) -> Iterator[tuple[list[int], Mapping[str, TagTraffic]]]:
    """Cycles of the steps in order, and their traffic, as many at a time as the engine takes."""

    def alone(step: Decode) -> Trace:
        return engine_named(engine)(lower(place(model, array, step, workflow)))

    rest = iter(steps)
    if steps and engine in DECODES:
        for together in DECODES[engine](place(model, array, steps[0], workflow), len(steps)):
            if not together.traffic and not together.exact.any():
                break
            cycles = together.makespan_cycles.tolist()
            for index, step in enumerate(islice(rest, len(cycles))):
                if not together.exact[index]:
                    cycles[index] = alone(step).makespan_cycles
            yield cycles, together.traffic
    for step in rest:
        trace = alone(step)
        yield [trace.makespan_cycles], trace.traffic


@dataclass(frozen=True, slots=True)
class PartResult:
    """What one collective or one GEMM takes on an array.

    Args:
        cycles: from everything ready at 0 to the last event.
        traffic: messages, bytes and busy cycles by tag.
        algorithm: the way that was chosen.
        assumed: what the figures rest on, JSON-ready.
        judge: gives the envelope.
    """

    cycles: int
    traffic: Mapping[str, TagTraffic]
    algorithm: str
    assumed: Mapping[str, Any]
    judge: Callable[[], Envelope] = field(repr=False, compare=False)

    @property
    def envelope(self) -> Envelope:
        """How far the cycles are to be trusted: what the comparison with the RTL says of results like this."""
        return self.judge()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        counted = {
            tag: {"messages": use.messages, "bytes": use.bytes, "busy_cycles": use.busy_cycles}
            for tag, use in self.traffic.items()
        }
        return {
            "cycles": self.cycles,
            "traffic": counted,
            "algorithm": self.algorithm,
            "accuracy": self.envelope.to_dict(),
            "assumed": dict(self.assumed),
        }


def collective(
    kind: str, array: ArrayConfig | str | Path | Mapping[str, Any], num_bytes: int, engine: str = DEFAULT_ENGINE
) -> PartResult:
    """One collective alone on an array.

    Args:
        kind: one of `COLLECTIVE_KINDS`.
        num_bytes: per PE for scatter, gather, all-gather, the result of reduce-scatter and the pair of all-to-all;
            of the whole otherwise (the partial sums of an all-reduce, whose result has the activation dtype).

    Raises:
        InputError: no such kind or array, or no positive number of bytes.
    """
    array = array if isinstance(array, ArrayConfig) else load_array(array)
    planned = collective_schedule(kind, array, num_bytes)
    trace = engine_named(engine)(planned.schedule)
    assumed = {"kind": kind, "bytes": num_bytes, "ready_at_cycle": 0, "array": array_to_dict(array)}
    judge = partial(_collective_envelope, kind, array)
    return PartResult(trace.makespan_cycles, trace.traffic, planned.algorithm, assumed, judge)


def _collective_envelope(kind: str, array: ArrayConfig) -> Envelope:
    from pe_sim.report.envelope import collective_envelope  # only needed by those who ask

    return collective_envelope(kind, array)


def gemm(
    array: ArrayConfig | str | Path | Mapping[str, Any],
    rows: int,
    inner: int,
    outer: int,
    engine: str = DEFAULT_ENGINE,
) -> PartResult:
    """One GEMM alone on one PE: (rows, inner) activations by (outer, inner) weights.

    Raises:
        InputError: a size is not positive, or the array is wrong.
    """
    array = array if isinstance(array, ArrayConfig) else load_array(array)
    trace = engine_named(engine)(gemm_schedule(array, rows, inner, outer))
    assumed = {"m": rows, "k": inner, "n": outer, "prefetched_bytes": 0, "array": array_to_dict(array)}
    judge = partial(_gemm_envelope, array, rows, inner, outer, trace.makespan_cycles)
    return PartResult(trace.makespan_cycles, trace.traffic, f"overlap {array.overlap}", assumed, judge)


def _gemm_envelope(array: ArrayConfig, rows: int, inner: int, outer: int, cycles: int) -> Envelope:
    from pe_sim.report.envelope import gemm_envelope  # only needed by those who ask

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
    "collective",
    "execute",
    "gemm",
    "generate",
    "load_array",
    "load_model",
    "load_workflow",
    "simulate",
    "verify",
]
