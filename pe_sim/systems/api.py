"""The public face for several arrays: systems, plans and workflows as users give them, reports as they read them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pe_sim.config.models.load import as_model
from pe_sim.config.models.model import ModelConfig
from pe_sim.config.plans.load import load_plan
from pe_sim.config.plans.plan import ParallelPlan
from pe_sim.config.step import Step
from pe_sim.config.systems.load import System, as_system
from pe_sim.config.systems.system import SystemConfig
from pe_sim.engine.engines import DEFAULT_ENGINE
from pe_sim.errors import InputError
from pe_sim.mapping.workflow import Workflow, as_workflow
from pe_sim.mapping_search.budget import Progress
from pe_sim.report.system_report import SystemReport
from pe_sim.systems.simulation import run_system, scripted, system_report

if TYPE_CHECKING:
    from pe_sim.numeric.proof import Proof
    from pe_sim.numeric.results import Execution

Model = ModelConfig | str | Path | Mapping[str, Any]
Plan = ParallelPlan | str | Path | Mapping[str, Any] | list[Mapping[str, Any]]


def simulate_system(
    model: Model,
    system: System,
    step: Step,
    plan: Plan | None = None,
    workflow: Workflow | str | Path = "workflow-1",
    engine: str = DEFAULT_ENGINE,
    *,
    allow_overflow: bool = False,
    progress: Progress | None = None,
) -> SystemReport:
    """Simulates one step of a model on several arrays under a parallel plan.

    Args:
        model: as loaded, or what `load_model` takes.
        system: as loaded, what `load_system` takes, or one array.
        step: Decode(...) or Prefill(...).
        plan: as loaded, or what `load_plan` takes; None: with one array nothing is shared, with several it is the best
            plan that a search finds.
        workflow: inside every array: a name, a workflow file's path, or a Workflow; "auto": searched.
        engine: fast or event.
        allow_overflow: simulate even what does not fit the memories.
        progress: called with what is done, how much of it is, and of how much.

    Raises:
        InputError: something given is wrong, or the plan does not fit the system, the model or the step;
            InfeasibleError where an array's memories are too small.
    """
    model, system, workflow = as_model(model), as_system(system), as_workflow(workflow)
    chosen = _best_plan(model, system, step, workflow, progress) if plan is None else as_plan(plan, system)
    workflow = _resolved(model, system, step, chosen, workflow)

    def tell(done: int, of: int) -> None:
        if progress is not None:
            progress("passes", done, of)

    run = run_system(model, system, step, chosen, workflow, engine, allow_overflow=allow_overflow, progress=tell)
    return system_report(run)


def execute_system(
    model: Model,
    system: System,
    step: Step,
    plan: Plan | None,
    workflow: Workflow | str | Path = "workflow-1",
    *,
    weights: Mapping[str, Any] | str | Path,
    tokens: Any,
    dtype: str = "float32",
    token_types: Any = None,
) -> Execution:
    """Runs one step with real numbers on the same script that `simulate_system` times.

    Args:
        plan: as loaded, or what `load_plan` takes.
        model, system, step, workflow: as of `simulate_system`.
        weights, tokens, dtype, token_types: as of `pe_sim.execute`.

    Raises:
        InputError: something given is wrong; a tensor that is missing or misshapen is named with both shapes.
    """
    from pe_sim.systems.execution import execute_script  # timing alone does not need the numeric room

    model, system, workflow = as_model(model), as_system(system), as_workflow(workflow)
    chosen = as_plan(plan, system)
    _, script = scripted(model, system, step, chosen, _resolved(model, system, step, chosen, workflow))
    return execute_script(script, weights, tokens, dtype=dtype, token_types=token_types)


def verify_system(
    model: Model,
    system: System,
    plan: Plan | None,
    workflow: Workflow | str | Path = "workflow-1",
    *,
    weights: Mapping[str, Any] | str | Path | None = None,
    seed: int = 0,
) -> Proof:
    """Proves that a plan on a system computes the model: executed against the unsharded reference.

    Without weights a scaled-down random model of the same family is taken, whose heads, FFN and layers the plan still
    fits, with uneven shares where it can. Steps of prefill, prefill over a cache and decode are run, ragged batches
    among them, and their traffic, inside arrays and between them, is compared with the simulated one.

    Raises:
        InputError: something given is wrong.
    """
    from pe_sim.systems.execution import prove_system  # timing alone does not need the numeric room

    model, system, workflow = as_model(model), as_system(system), as_workflow(workflow)
    return prove_system(model, system, as_plan(plan, system), workflow, weights=weights, seed=seed)


def as_plan(given: Plan | None, system: SystemConfig) -> ParallelPlan:
    """The plan itself, checked, or what `load_plan` makes of it for the arrays that are alive.

    Raises:
        InputError: as of `load_plan`, or there is none.
    """
    if given is None:
        raise InputError("several arrays need a plan", path="plan", expected="a plan, or what load_plan takes")
    return load_plan(given, num_arrays=len(system.alive))


def _best_plan(
    model: ModelConfig, system: SystemConfig, step: Step, workflow: Workflow, progress: Progress | None
) -> ParallelPlan:
    """The plan of a single array, or for several arrays the one that a search finds."""
    if len(system.alive) == 1:
        return ParallelPlan(name="one array")
    from pe_sim.systems.search.search import best_plan  # a plan that is given needs no search

    return best_plan(model, system, step, workflow, progress)


def _resolved(model: ModelConfig, system: SystemConfig, step: Step, plan: ParallelPlan, workflow: Workflow) -> Workflow:
    """The workflow itself, or what the search makes of it."""
    if not workflow.searched:
        return workflow
    from pe_sim.systems.search.search import resolved_workflow  # as above

    return resolved_workflow(model, system, step, plan, workflow)
