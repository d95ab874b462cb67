"""The pipeline for several arrays: plan -> deployment -> script -> program -> times -> report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from pe_sim.config.models.model import ModelConfig
from pe_sim.config.plans.plan import ParallelPlan, PipelinePlan
from pe_sim.config.step import Step
from pe_sim.config.systems.system import SystemConfig
from pe_sim.engine.system_engines import run_system_fast, system_engine_named
from pe_sim.errors import InputError
from pe_sim.graph.families import build_graph
from pe_sim.mapping.magnitudes import Magnitudes
from pe_sim.mapping.workflow import Workflow
from pe_sim.report.system.metrics import ArrayHolding, Pipeline
from pe_sim.report.system_report import SystemReport
from pe_sim.schedule.system import ArrayPass, SystemTimes
from pe_sim.systems.deployment import (
    Deployment,
    check_stages,
    checked_bounds,
    deployed,
    laid_out,
    layer_bounds,
    least_largest,
    parameter_bounds,
    uniform_bounds,
    uniform_ceil_bounds,
    uniform_floor_bounds,
)
from pe_sim.systems.memory import check_memory, memory_of
from pe_sim.systems.microbatches import Part, parts_of
from pe_sim.systems.pass_cache import Shop
from pe_sim.systems.script import LineWriter, Script, write_script
from pe_sim.systems.timing import TimedScript, Timer

Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False, slots=True)
class SystemRun:
    """A simulated step on several arrays.

    Args:
        timed: what the arrays did, and the program of it.
        times: when each task of the program began and ended.
        memory: what every array keeps in its memories.
    """

    timed: TimedScript
    times: SystemTimes
    memory: tuple[ArrayHolding, ...]


def prepared(
    model: ModelConfig, system: SystemConfig, step: Step, plan: ParallelPlan, workflow: Workflow
) -> tuple[Shop, Deployment]:
    """The shop that the script of a plan is written with, and the deployment of the plan.

    Raises:
        InputError: the plan does not fit the system, the model, the step or the workflow.
    """
    step.check_against(model)
    workflow.check(model.num_layers)
    whole = Magnitudes.of(build_graph(model, step))
    for array in {id(array): array for array in system.arrays}.values():
        whole.check(array)
    system = _with_overlap(system, plan)
    lines = laid_out(plan, system, model.num_layers)
    _check_workflow(plan, lines, workflow)
    if any(len(line.stages) > 1 or len(line.stages[0].arrays) > 1 for line in lines):
        workflow = replace(workflow, local_ends=False)  # the next token may be looked up on another array
    shop = Shop(model, step, workflow, system, plan.matrices)
    bounds = [_bounds(shop, plan, lines, at) for at in range(len(lines))]
    return shop, deployed(plan, model, step, lines, bounds)


def scripted(
    model: ModelConfig, system: SystemConfig, step: Step, plan: ParallelPlan, workflow: Workflow
) -> tuple[Shop, Script]:
    """The shop and the script of a step under a plan.

    Raises:
        InputError: as of `prepared`.
    """
    shop, deployment = prepared(model, system, step, plan, workflow)
    return shop, write_script(shop, deployment)


def run_system(
    model: ModelConfig,
    system: SystemConfig,
    step: Step,
    plan: ParallelPlan,
    workflow: Workflow,
    engine: str,
    *,
    allow_overflow: bool = False,
    progress: Progress | None = None,
    check: Callable[[], None] | None = None,
) -> SystemRun:
    """Simulates one step of a model on several arrays.

    Args:
        progress: called with (distinct passes simulated, of how many).
        check: called again and again; what it raises ends the simulation.

    Raises:
        InputError: as of `prepared`; InfeasibleError where an array's memories are too small.
    """
    shop, script = scripted(model, system, step, plan, workflow)
    memory = memory_of(shop, script.deployment)
    if not allow_overflow:
        check_memory(memory)
    timed = Timer(engine, progress, check).timed(script)
    return SystemRun(timed, system_engine_named(engine)(timed.program, timed.pass_cycles), memory)


def _with_overlap(system: SystemConfig, plan: ParallelPlan) -> SystemConfig:
    """The system with the plan's overlap level on every array; equal arrays stay one object."""
    if plan.overlap is None:
        return system
    changed = {id(array): replace(array, overlap=plan.overlap) for array in system.arrays}
    return replace(system, arrays=tuple(changed[id(array)] for array in system.arrays))


def _check_workflow(plan: ParallelPlan, lines: Sequence[PipelinePlan], workflow: Workflow) -> None:
    """Refuses a workflow that has no meaning across arrays."""
    stages = [stage for line in lines for stage in line.stages]
    alone = all(len(line.stages) == 1 and len(line.stages[0].arrays) == 1 for line in lines)
    source = workflow.source or workflow.name
    if workflow.pipelined and not alone:
        raise InputError(
            "a pipeline of PEs inside an array needs whole layers, first to last, on that array",
            source=source,
            path="workflow",
            given=workflow.name,
            expected="another workflow, or a plan of dp alone",
            hint="stages of arrays are a pipeline already: take megatron inside them",
        )
    if workflow.pipelined and (plan.microbatches or 1) > 1:
        raise InputError(
            "a pipeline of PEs inside an array takes the sequences one by one, without microbatches",
            source=plan.source or plan.name,
            path="microbatches",
            given=plan.microbatches,
            expected="1",
        )
    shares_tokens = any(degrees.cp > 1 for stage in stages for degrees in (*stage.degrees, *plan.layers))
    if shares_tokens and workflow.groups > 1:
        raise InputError(
            "where arrays share tokens, all PEs of an array serve all its sequences",
            source=source,
            path="groups",
            given=workflow.groups,
            expected="1",
            hint="split the batch over arrays instead (dp)",
        )


def _bounds(shop: Shop, plan: ParallelPlan, lines: Sequence[PipelinePlan], at: int) -> list[int]:
    """First layers of a pipeline's stages, and the number of layers."""
    line, layers = lines[at], shop.model.num_layers
    stages = len(line.stages)
    named = layer_bounds(plan, line.stages)
    if named is not None:
        return checked_bounds(plan, named, layers, stages)
    if isinstance(plan.partition, tuple):
        return checked_bounds(plan, plan.partition, layers, stages)
    check_stages(plan, layers, stages)
    match plan.partition:
        case "uniform":
            return uniform_bounds(layers, stages)
        case "uniform_floor":
            return uniform_floor_bounds(layers, stages)
        case "uniform_ceil":
            hint = "uniform_ceil, which is Merak's `uniform`, leaves stages empty here: take uniform_floor, or bounds"
            return checked_bounds(plan, uniform_ceil_bounds(layers, stages), layers, stages, hint)
        case "parameters":
            return parameter_bounds(shop.model, stages)
    return balanced_bounds(shop, plan, lines, at)


def balanced_bounds(shop: Shop, plan: ParallelPlan, lines: Sequence[PipelinePlan], at: int) -> list[int]:
    """Bounds under which the slowest stage takes as little as can be, by simulated time of the last part."""
    layers, line = shop.model.num_layers, lines[at]
    stages = len(line.stages)
    rough = [uniform_bounds(layers, stages)] * len(lines)
    deployment = deployed(plan, shop.model, shop.step, lines, rough)
    timer, known = Timer("fast"), dict[tuple[object, ...], int]()
    pipeline = deployment.pipelines[at]
    part = parts_of(shop.model, shop.step, pipeline.sequences, pipeline.microbatches)[-1]

    def cost(stage: int, first: int, last: int) -> int:
        arrays = tuple(id(shop.system.arrays[rank]) for rank in line.stages[stage].arrays)
        key = (arrays, shop.plans(first, last), first == 0, last == layers, stage == stages - 1)
        if plan.layers or key not in known:
            cut = deployed(plan, shop.model, shop.step, [line], [_cut(stage, first, last, stages, layers)])
            own = replace(cut.pipelines[0], sequences=pipeline.sequences)
            known[key] = _stage_cycles(shop, deployment, own, stage, part, timer)
        return known[key]

    return least_largest(layers, stages, cost)


def _cut(stage: int, first: int, last: int, stages: int, layers: int) -> list[int]:
    """Bounds of which only those of one stage matter: the layers before and behind it go to its neighbours."""
    return [*(0,) * stage, first, last, *(layers,) * (stages - stage - 1)]


def _stage_cycles(shop: Shop, deployment: Deployment, line: Pipeline, stage: int, part: Part, timer: Timer) -> int:
    """Cycles from the beginning of a stage's first pass to the end of its last, alone."""
    actions = tuple(LineWriter(shop, deployment, line, 0).stage(stage, part))
    works, program, _ = timer.program(shop.system, actions)
    times = run_system_fast(program, [work.trace.makespan_cycles for work in works])
    passes = [at for at, task in enumerate(program.tasks) if isinstance(task, ArrayPass)]
    return int(times.end[passes].max(initial=0))


def system_report(run: SystemRun) -> SystemReport:
    """The report of a run; its figures are worked out when they are asked for."""
    script = run.timed.script
    parts = zip(script.deployment.pipelines, script.parts, strict=True)
    return SystemReport(
        model=script.model,
        system=script.system,
        plan=script.deployment.plan,
        step=script.step,
        workflow=script.workflow,
        lines=tuple(replace(line, microbatches=len(own)) for line, own in parts),
        program=run.timed.program,
        times=run.times,
        works=run.timed.works,
        holdings=run.memory,
    )
