"""Searches plans and workflows for a step on several arrays: degrees, parts, layers of stages, the LM head's degrees.

What could be taken is ordered by an estimate (two short models on the arrays of a stage), and what looks best is
simulated whole. What cannot fit the memories, or cannot beat the best by a lower bound, is not simulated. A bound for
all plans tells how much is left open at most.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal, cast

import numpy as np

from pe_sim.config.models.load import as_model
from pe_sim.config.models.model import ModelConfig
from pe_sim.config.plans.plan import Degrees, ParallelPlan
from pe_sim.config.step import Decode, Prefill, Step
from pe_sim.config.systems.load import System, as_system
from pe_sim.config.systems.system import SystemConfig
from pe_sim.errors import InfeasibleError, InputError
from pe_sim.mapping.workflow import AUTO, Workflow, as_workflow
from pe_sim.mapping_search.budget import (
    DEFAULT_SECONDS,
    Budget,
    OutOfTimeError,
    Progress,
    Telling,
    budget_of,
    check_asked,
)
from pe_sim.mapping_search.result import OUT_OF_TIME, best_so_far, stopped_by
from pe_sim.schedule.system import ArrayPass
from pe_sim.systems.search.order import Candidate, Estimator, Order
from pe_sim.systems.search.result import Counts, SystemSearchResult, Tried
from pe_sim.systems.search.space import Allowed, Refused, Shape, Space, nothing_fits
from pe_sim.systems.search.workflows import NAMED, Option, Workflows
from pe_sim.systems.simulation import SystemRun, run_system, system_report

Objective = Literal["latency", "throughput"]
OBJECTIVES: Final[tuple[Objective, ...]] = ("latency", "throughput")
SIMULATED_AT_MOST: Final = 16  # plans simulated whole
VARIED: Final = 3  # best plans that are tried with other ends, cuts and workflows
SEARCHES: Final = 8  # searches of workflows for shares, at most
_ALIKE: Final = 3  # candidates of the same degrees that are simulated whole, at most
_HOPELESS: Final = 1.25  # an estimate so many times the best cycles is not simulated
_ORDERING: Final = 0.5  # share of the time that putting candidates in order may take
_QUICK: Final = 8  # plans simulated where only a good plan is wanted


def search_system(
    model: ModelConfig | str | Path | Mapping[str, Any],
    system: System,
    step: Step,
    objective: str = "latency",
    *,
    workflow: Workflow | str | Path = AUTO.name,
    workflows: Sequence[str] = NAMED,
    allowed: Allowed | None = None,
    max_simulations: int = SIMULATED_AT_MOST,
    varied: int = VARIED,
    max_searches: int = SEARCHES,
    seconds: float = DEFAULT_SECONDS,
    progress: Progress | None = None,
) -> SystemSearchResult:
    """Searches degrees, parts, cuts and workflows of a step on several arrays, under each array's memory.

    When the time is used up, or Ctrl-C is pressed, it gives the best so far; the result says so (`stopped`).

    Args:
        model, system: as loaded, or what `load_model` and `load_system` take; a system can be one array.
        step: Decode(...) or Prefill(...).
        objective: latency: fewest cycles of the step; throughput: the least that steps take that follow one another
            (`Tried.period_cycles`), then latency.
        workflow: inside every array; "auto": `workflows`, and those searched for shares.
        workflows: names to try.
        allowed: degrees, numbers of arrays and parts that may be taken.
        max_simulations: most plans that are simulated whole.
        varied: how many of the best plans are tried with other degrees of the LM head, layers cut by time, and a
            workflow searched for exactly their share; on top of `max_simulations`.
        max_searches: most searches of workflows for shares, beside those of `varied`.
        seconds: the time it may take, as of `pe_sim.search`; one plan is simulated whatever that takes.
        progress: called with what is done, how much of it is, and of how much.

    Raises:
        InputError: something given is wrong; InfeasibleError where no plan fits the memories.
    """
    if not isinstance(step, Decode | Prefill):
        raise InputError(
            "this is no step", path="step", given=step, expected="pe_sim.Decode(...) or pe_sim.Prefill(...)"
        )
    check_asked(objective, OBJECTIVES, max_simulations, "plan")
    budget = budget_of(seconds)
    model, system, chosen = as_model(model), as_system(system), as_workflow(workflow)
    step.check_against(model)
    space = Space(model, system, step, allowed or Allowed())
    options = Workflows(model, system, chosen, tuple(workflows), max_simulations, budget)
    return _Search(
        space, options, cast(Objective, objective), max_simulations, varied, max_searches, budget, progress
    ).run()


def best_plan(
    model: ModelConfig, system: SystemConfig, step: Step, workflow: Workflow, progress: Progress | None = None
) -> ParallelPlan:
    """A good plan for a workflow, by a short search.

    Args:
        model, system, step, workflow, progress: as of `search_system`.

    Raises:
        InputError: as of `search_system`.
    """
    found = search_system(
        model, system, step, workflow=workflow, max_simulations=_QUICK, varied=1, max_searches=2, progress=progress
    )
    plan = found.uninterrupted.plan
    return replace(plan, name=f"{plan.name}{found.stopped_in_words()}")


def resolved_workflow(
    model: ModelConfig, system: SystemConfig, step: Step, plan: ParallelPlan, workflow: Workflow
) -> Workflow:
    """The workflow that a search finds, under a plan that is given, for one that is to be searched.

    The named workflows and one searched for an array's share of a part are simulated, and the best is taken.

    Raises:
        InputError: none of them can do it; InfeasibleError where none fits.
    """
    options = Workflows(model, system, workflow, budget=Budget(DEFAULT_SECONDS))
    inside = plan.layers[0] if plan.layers else Degrees(1, plan.cp, plan.tp)
    shape = Shape(plan.dp * inside.dp, inside.tp, plan.pp, inside.cp, plan.microbatches or plan.pp)
    if plan.pipelines:
        first = plan.pipelines[0].stages
        inside = first[0].degrees[0] if first[0].degrees else Degrees(1, 1, len(first[0].arrays))
        shape = Shape(
            len(plan.pipelines) * inside.dp, inside.tp, len(first), inside.cp, plan.microbatches or len(first)
        )
    searched = Estimator(Space(model, system, step, Allowed())).searched(shape, options)
    best: tuple[int, Workflow] | None = None
    error: InputError | None = None
    for option in (*options.named(), *([searched] if searched else [])):
        try:
            cycles = run_system(model, system, step, plan, option.workflow, "fast").times.makespan_cycles
        except InputError as refused:
            error = error or refused
            continue
        if best is None or cycles < best[0]:
            best = cycles, option.workflow
    if best is None:
        raise error or InputError("no workflow can do this step", source=plan.source or plan.name)
    return best[1]


@dataclass
class _Search(Telling):
    space: Space
    options: Workflows
    objective: Objective
    max_simulations: int
    varied: int
    max_searches: int
    budget: Budget
    progress: Progress | None
    tried: list[Tried] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    best_run: SystemRun | None = None
    ordering: Budget | None = None  # while candidates are put in order, the time for that
    ruled_out: int = 0
    _done: set[tuple[ParallelPlan, Workflow]] = field(default_factory=set)

    def run(self) -> SystemSearchResult:
        """The best plan.

        Raises:
            InputError: no plan can do the step; InfeasibleError where none fits.
        """
        by_period = self.objective == "throughput"
        order = Order(self.space, self.options, by_period, self.max_simulations, self.tell, self._check)
        self.budget.news = self.tell_again
        self.ordering = self.budget.part(_ORDERING)
        stopped = None
        try:
            try:
                candidates = order.candidates(self.max_searches)
            except OutOfTimeError:
                candidates, stopped = order.so_far(), OUT_OF_TIME
            self.ordering = None
            self.refused += order.refused
            self._simulate_best(candidates, every=order.is_whole and not stopped)
            self._vary(order.estimator)
        except (OutOfTimeError, KeyboardInterrupt) as end:
            if not self.tried:
                raise
            stopped = stopped_by(end)
        if self.options.cut_short:
            stopped = stopped or OUT_OF_TIME
        if not self.tried or self.best_run is None:
            raise nothing_fits(self.space, self.refused)
        self.tried.sort(key=_rank)
        counts = Counts(order.possible, order.estimated, self.ruled_out, self.options.num_searched)
        report = system_report(self.best_run)
        return SystemSearchResult(
            self.tried[0],
            report,
            self.objective,
            tuple(self.tried),
            tuple(self.refused),
            counts,
            self.space.bound_cycles,
            stopped,
            self.budget.seconds,
            self.budget.used_seconds,
        )

    def _check(self) -> None:
        """Raises OutOfTimeError if the time is used up, but not before a plan was simulated.

        While candidates are put in order, the time for that counts, even before a plan was simulated.
        """
        if self.tried or self.ordering:
            (self.ordering or self.budget).check()

    def _simulate_best(self, candidates: Sequence[Candidate], *, every: bool) -> None:
        """Simulates the most promising candidates whole; `every`: all of them."""
        of_degrees: dict[str, int] = {}
        for candidate in candidates:
            degrees = str(candidate.shape)
            if len(self.tried) >= self.max_simulations:
                return
            if not every and (of_degrees.get(degrees, 0) >= _ALIKE or self._is_hopeless(candidate)):
                continue
            self.tell("simulated", len(self.tried), min(len(candidates), self.max_simulations))
            if self._simulate(candidate.shape, candidate.shape.plan(self.space.system), candidate.option):
                of_degrees[degrees] = of_degrees.get(degrees, 0) + 1

    def _is_hopeless(self, candidate: Candidate) -> bool:
        """Whether the estimate is far beyond the best that was simulated."""
        return bool(self.tried) and candidate.estimate > _HOPELESS * min(one.figure for one in self.tried)

    # -------------------------------------------------------------------------------------------------- simulations
    def _simulate(self, shape: Shape, plan: ParallelPlan, option: Option) -> bool:
        """Simulates a plan, unless that was done or is no use; returns whether it was simulated."""
        if (plan, option.workflow) in self._done:
            return False
        self._done.add((plan, option.workflow))
        if self._cannot_win(shape, option):
            self.ruled_out += 1
            return False
        space = self.space
        try:
            run = run_system(space.model, space.system, space.step, plan, option.workflow, "fast", check=self._check)
        except InfeasibleError as error:
            where = "memory of a root" if "the root" in error.problem else "memory of a PE"
            self.refused.append(Refused(str(shape), option.label, where, error.demand, error.bound))
            return False
        except InputError as error:
            self.refused.append(Refused(str(shape), option.label, error.problem))
            return False
        one = self._tried(plan, option, run)
        if not self.tried or _rank(one) < min(map(_rank, self.tried)):
            self.best_run = run
        self.tried.append(one)
        return True

    def _cannot_win(self, shape: Shape, option: Option) -> bool:
        """Whether a lower bound says that the best is better; workflows that stream weights have none."""
        if not self.tried or option.workflow.stream_weights:
            return False
        least = self.space.least_period if self.objective == "throughput" else self.space.least_cycles
        return least(shape) > min(one.figure for one in self.tried)

    def _tried(self, plan: ParallelPlan, option: Option, run: SystemRun) -> Tried:
        report = system_report(run)
        cycles = report.latency_cycles
        period = period_cycles(run)
        fullest = max(run.memory, key=lambda each: each.peak_bytes_per_pe)
        ranks = len(run.memory)
        exchanging = sum(each.exchange for each in report.arrays) / max(1, cycles * ranks)
        return Tried(
            plan,
            option.workflow,
            option.label,
            cycles,
            period,
            period if self.objective == "throughput" else cycles,
            report.tokens_per_second,
            exchanging,
            report.bubble_share,
            fullest.peak_bytes_per_pe,
            fullest.capacity_bytes_per_pe,
            ranks,
        )

    # --------------------------------------------------------------------------------------------------- variations
    def _vary(self, estimator: Estimator) -> None:
        """Simulates the best plans with another LM head, layers cut by time, and a workflow of their own."""
        distinct: dict[str, Tried] = {}
        for one in sorted(self.tried, key=_rank):
            distinct.setdefault(str(degrees_of(one.plan)), one)
        best = list(distinct.values())[: self.varied]
        for index, one in enumerate(best):
            self.tell("varied", index, len(best))
            shape, option = degrees_of(one.plan), Option(one.label, one.workflow)
            part, layers = estimator.part_step(shape), estimator.stage_layers(shape)
            if self.options.is_searched and not self.options.knows(shape.tp, part, layers):
                own = self.options.of_share(shape.tp, part, layers)
                if own is not None:
                    self._simulate(shape, one.plan, own)
            for head in _heads(shape, self.space):
                self._simulate(shape, replace(one.plan, head=head), option)
            if shape.pp > 1 and index == 0:
                self._simulate(shape, replace(one.plan, partition="balanced"), option)

    def best_in_words(self) -> list[str]:
        """The figure of the best plan and its gap to the bound, in words; empty while there is none."""
        return best_so_far(min(self.tried, key=_rank).figure, self.space.bound_cycles) if self.tried else []


def _rank(one: Tried) -> tuple[int, int, int]:
    """Sort key of plans, the least is best: figure, cycles, and of equals the number of arrays."""
    return one.figure, one.cycles, one.num_arrays


def degrees_of(plan: ParallelPlan) -> Shape:
    """The shape of a plan that a search made."""
    return Shape(plan.dp, plan.tp, plan.pp, plan.cp, plan.microbatches or 1)


def _heads(shape: Shape, space: Space) -> Iterator[Degrees]:
    """Other degrees of the LM head on the arrays of the last stage: the vocabulary, or the rows, shared by all."""
    arrays = shape.tp * shape.cp
    if arrays == 1 or not space.model.has_lm_head:
        return
    own = Degrees(shape.cp, 1, shape.tp)
    rows = len(space.sequences(shape)) // max(1, shape.microbatches)
    for head in (Degrees(1, 1, arrays), Degrees(arrays, 1, 1)):
        if head != own and (head.dp == 1 or head.dp <= rows):
            yield head


# ---- Figures of a run that the search goes by.


def period_cycles(run: SystemRun) -> int:
    """Least cycles a step where alike steps follow one another.

    An array has the passes of each step to do, and a channel its messages. In decode a part's next token needs this
    one, so that the part's way through all stages counts, too; prompts of different steps need nothing of each other.
    """
    program, start, end = run.timed.program, run.times.start, run.times.end
    busy: Counter[int] = Counter()
    ways: dict[tuple[int, int], tuple[int, int]] = {}
    channels: dict[int, int] = {}
    for at, task in enumerate(program.tasks):
        first, last = int(start[at]), int(end[at])
        if isinstance(task, ArrayPass):
            busy[task.array] += last - first
            key = (task.pipeline, task.microbatch)
            begun, done = ways.get(key, (first, last))
            ways[key] = min(begun, first), max(done, last)
        else:
            channels[task.operation] = channels.get(task.operation, 0) + 1
    needs = [max(busy.values(), default=0), _busiest_channel(run, channels)]
    if isinstance(run.timed.script.step, Decode):
        needs.append(max((done - begun for begun, done in ways.values()), default=0))
    return max(needs)


def _busiest_channel(run: SystemRun, times: dict[int, int]) -> int:
    operations = [(run.timed.program.operations[index], count) for index, count in times.items()]
    if not operations:
        return 0
    size = 1 + max(int(operation.channels.max(initial=0)) for operation, _ in operations)
    busy = np.zeros(size, dtype=np.int64)
    for operation, count in operations:
        np.add.at(busy, operation.channels, count * operation.busy_cycles)
    return int(busy.max(initial=0))
