"""The search: named workflows, then shortest paths on every division of the PEs, those that promise most first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from pe_sim.config.arrays.array import ArrayConfig
from pe_sim.config.models.model import ModelConfig
from pe_sim.config.step import Decode, Prefill, Step
from pe_sim.errors import InputError
from pe_sim.graph.families import build_graph
from pe_sim.graph.graph import OperatorGraph
from pe_sim.graph.operators import Linear
from pe_sim.mapping.groups import groups_alive
from pe_sim.mapping.magnitudes import Magnitudes
from pe_sim.mapping.workflow import WORKFLOWS, Workflow
from pe_sim.mapping_search.budget import Budget, OutOfTimeError, Progress, check_asked
from pe_sim.mapping_search.candidates import OBJECTIVES, Objective, Wanted, reason_of, simulated
from pe_sim.mapping_search.division import SUMMARY, Division, SearchState
from pe_sim.mapping_search.infeasible import nothing_fits
from pe_sim.mapping_search.result import (
    EXACT,
    EXACT_ALIKE,
    INTERRUPTED,
    Excluded,
    SearchResult,
    stopped_by,
)
from pe_sim.schedule.builders import PREFETCHING_OVERLAP

_MOST_GROUPINGS = 12
_SIMULATED_A_PHASE = 16  # mappings at most for one phase alone, whose best is but a candidate for all steps
_TIME_A_PHASE = 0.25  # share of the time that is left


@dataclass(eq=False)
class Search(SearchState):
    """The search for the best mapping, over all divisions of the PEs into groups.

    Args:
        divisions: those in which a mapping fits the memories as far as is known.
    """

    divisions: list[Division] = field(default_factory=list)

    def run(self) -> SearchResult:
        """The best mapping, or the best so far when the time is used up or Ctrl-C is pressed.

        Raises:
            InputError: no mapping applies; InfeasibleError where none fits the memories; OutOfTimeError or
                KeyboardInterrupt: the search ended before there was any.
        """
        graphs = [build_graph(self.wanted.model, step) for step in self.wanted.steps]
        for graph in graphs:
            Magnitudes.of(graph).check(self.wanted.array)
        self.given.check(graphs[0].num_layers)
        stopped = None
        if self.progress:
            self.budget.news = self.tell_again
        try:
            self._search(graphs)
        except (OutOfTimeError, KeyboardInterrupt) as end:
            if not self.candidates:
                raise
            stopped = stopped_by(end)
        return self._result(stopped)

    def _search(self, graphs: Sequence[OperatorGraph]) -> None:
        every = [Division.of(self, groups, graphs) for groups in self._groupings(graphs)]
        capacity = self.wanted.array.pe.memory.capacity_bytes
        self.divisions = [division for division in every if division.held_bytes <= capacity]
        if self.is_free:
            self._try_named(graphs[0])
            for division in self.divisions:
                division.try_named()
        self._try_phases()
        for division in every[::-1]:
            if division.held_bytes > capacity:
                pe, held = division.scenes[0].watched_pe, division.held_bytes
                self._exclude(division.label, f"PE {pe} holds at least {held:,.0f} bytes, has {capacity:,}")
        if len(self.divisions) > 1:
            for division in sorted(self.divisions, key=Division.lowest):
                division.look()
        left = sorted((division for division in self.divisions if division.is_open), key=Division.lowest)
        for index, division in enumerate(left, start=1):
            self.allowance = math.ceil(self.max_simulations * index / len(left))
            division.search()
        if not self.candidates:
            raise nothing_fits(self.wanted, graphs, self.excluded)

    @property
    def bound(self) -> float | None:
        """Lower bound on the weighted cycles of every mapping; None where none is known."""
        bounds = [division.bound for division in self.divisions if division.is_open]
        known = [bound for bound in bounds if bound is not None]
        return None if self.unbounded or len(known) < len(bounds) else min([*known, self.best().cycles])

    def _result(self, stopped: str | None) -> SearchResult:
        best, bound = self.best(), self.bound
        exact = not self.unbounded and not any(division.is_open for division in self.divisions)
        name = self.given.name
        proven = EXACT_ALIKE if self.unmixed else EXACT
        count = len(self.candidates)
        proof = proven if exact else f"best of {count:,} simulated"
        result = SearchResult(
            best,
            tuple(self.candidates),
            tuple(self.excluded),
            proof,
            bound,
            stopped=stopped,
            budget_seconds=self.budget.seconds,
            used_seconds=self.budget.used_seconds,
        )
        note = f"; {result.stopped_in_words()}" if stopped else ""
        workflow = replace(best.workflow, name=name, summary=f"{SUMMARY} ({best.name}{note})", source=name)
        reports = tuple(replace(report, workflow=workflow) for report in best.reports)
        winner = replace(best, workflow=workflow, reports=reports)
        return replace(result, best=winner)

    @property
    def is_free(self) -> bool:
        """Whether nothing is given, so that every named workflow is allowed."""
        return not self.given.rules and self.given.groups == 1 and not self.given.lm_head

    def _try_named(self, graph: OperatorGraph) -> None:
        named = sorted(WORKFLOWS.items(), key=lambda entry: entry[1].pipelined)
        for index, (name, workflow) in enumerate(named):
            self.unbounded = len(named) - index
            self.tell("named workflows", index, len(WORKFLOWS))
            least_cycles = self._pipeline_bound(graph) if workflow.pipelined else 0.0
            if self.candidates and least_cycles > self.best().cycles:
                self._exclude(name, f"takes at least {least_cycles:,.0f} cycles: not simulated")
                continue
            try:
                self.candidates.append(simulated(name, workflow, self.wanted, self.check))
            except InputError as error:
                self._exclude(name, reason_of(error), error)
        self.unbounded = 0

    def _try_phases(self) -> None:
        """Tries the best mapping of each phase alone on all steps, if there are several."""
        heaviest: dict[str, tuple[float, Step]] = {}
        for step, weight in zip(self.wanted.steps, self.wanted.weights, strict=True):
            if weight > heaviest.get(step.phase, (0.0, step))[0]:
                heaviest[step.phase] = weight, step
        for phase, (_, step) in heaviest.items() if len(self.wanted.steps) > 1 else ():
            alone = replace(self.wanted, steps=(step,), weights=(1.0,))
            name = f"best for {phase} alone"
            most = min(self.max_simulations, _SIMULATED_A_PHASE)
            try:
                best = Search(alone, self.given, most, self.progress, self.budget.part(_TIME_A_PHASE)).run()
            except InputError as error:  # the needs of that step alone say nothing of the needs of all
                self._exclude(name, reason_of(error))
                continue
            except OutOfTimeError:
                self._exclude(name, "none was found in its share of the time")
                continue
            if best.stopped == INTERRUPTED:
                raise KeyboardInterrupt
            try:
                self.candidates.append(simulated(name, best.workflow, self.wanted, self.check))
            except InputError as error:
                self._exclude(name, reason_of(error), error)

    def _pipeline_bound(self, graph: OperatorGraph) -> float:
        """Least weighted cycles of a pipeline, where each layer's matrices are read on the PEs of one stage alone."""
        array = self.wanted.array
        if self.wanted.objective == "energy":
            return 0.0
        size = array.num_pes // min(array.num_pes, graph.num_layers)  # if no PE of it is dead
        matrices = [operator for operator in graph.layer if isinstance(operator, Linear)]
        layer_bytes = sum(operator.weight_bytes(array.dtypes) for operator in matrices)
        prefetched = len(matrices) * array.pe.buffer.prefetch_bytes if array.overlap >= PREFETCHING_OVERLAP else 0
        streamed = max(0.0, layer_bytes / size - prefetched)
        return math.fsum(self.wanted.weights) * graph.num_layers * streamed / array.pe.memory.bytes_per_cycle

    def _groupings(self, graphs: Sequence[OperatorGraph]) -> list[int]:
        """Numbers of groups worth a look: divisors of the PEs, no more than sequences; powers of the arity if many."""
        if self.given.groups > 1:
            return [self.given.groups]
        num_pes, arity = self.wanted.array.num_pes, self.wanted.array.network.arity
        most = min(min(len(graph.shape.new_lens) for graph in graphs), num_pes)
        divisors = [count for count in groups_alive(num_pes, self.wanted.array.dead_pes) if count <= most]
        if len(divisors) <= _MOST_GROUPINGS:
            return divisors
        powers = {arity**exponent for exponent in range(num_pes.bit_length())}
        return [count for count in divisors if count in powers]

    def _exclude(self, name: str, reason: str, error: InputError | None = None) -> None:
        self.excluded.append(Excluded(name, reason, error))


# ---- What is asked of the search: takes what users give, checks it, gives the result.


def search_for(
    model: ModelConfig,
    array: ArrayConfig,
    step: Any,
    objective: str,
    workflow: Workflow,
    *,
    max_simulations: int,
    budget: Budget | None = None,
    progress: Progress | None = None,
) -> SearchResult:
    """The best mapping, or the best so far when the time is used up or Ctrl-C is pressed.

    Raises:
        InputError: something given is wrong, or no mapping was found in time; InfeasibleError where no mapping fits the
            memories.
    """
    budget = budget or Budget()
    check_asked(objective, OBJECTIVES, max_simulations, "mapping")
    if not workflow.searched:
        raise InputError(
            "this workflow leaves nothing to search",
            path="workflow",
            given=workflow.name,
            expected="auto, or a workflow file with `base: auto`",
        )
    steps, weights = _weighted(step)
    wanted = Wanted(model, array, steps, weights, cast(Objective, objective))
    try:
        return Search(wanted, workflow, max_simulations, progress, budget).run()
    except OutOfTimeError:
        raise InputError(
            "no mapping was found in time, and no named workflow fits the memories",
            path="seconds",
            given=budget.seconds,
            hint="allow more seconds",
        ) from None


def _weighted(step: Any) -> tuple[tuple[Step, ...], tuple[float, ...]]:
    """Steps and their weights; a step alone counts once."""
    if isinstance(step, Decode | Prefill):
        return (step,), (1.0,)
    if not isinstance(step, Sequence) or isinstance(step, str) or not step:
        raise _no_step(step, "step")
    pairs = [_pair(entry, f"step[{index}]") for index, entry in enumerate(step)]
    return tuple(one for one, _ in pairs), tuple(weight for _, weight in pairs)


def _pair(entry: Any, path: str) -> tuple[Step, float]:
    if isinstance(entry, Decode | Prefill):
        return entry, 1.0
    if not isinstance(entry, tuple) or len(entry) != 2 or not isinstance(entry[0], Decode | Prefill):
        raise _no_step(entry, path)
    one, weight = entry
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < math.inf:
        raise InputError("a weight is a positive number", path=path, given=weight, expected="a number above 0")
    return one, float(weight)


def _no_step(given: Any, path: str) -> InputError:
    return InputError(
        "this is no step",
        path=path,
        given=given,
        expected="pe_sim.Decode(...) or pe_sim.Prefill(...), or a list of them or of (step, weight)",
    )
