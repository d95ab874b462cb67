"""What is asked of the search: takes what users give, checks it, gives the result."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, cast

from pe_sim.config.array import ArrayConfig
from pe_sim.config.model import ModelConfig
from pe_sim.config.step import Decode, Prefill, Step
from pe_sim.errors import InputError, did_you_mean
from pe_sim.mapping.workflow import Workflow
from pe_sim.mapping_search.budget import Budget, OutOfTimeError
from pe_sim.mapping_search.candidates import OBJECTIVES, Objective, Wanted
from pe_sim.mapping_search.result import SearchResult
from pe_sim.mapping_search.search import Search


def search_for(
    model: ModelConfig,
    array: ArrayConfig,
    step: Any,
    objective: str,
    workflow: Workflow,
    *,
    max_simulations: int,
    budget: Budget | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> SearchResult:
    """The best mapping, or the best so far when the time is used up or Ctrl-C is pressed.

    Raises:
        InputError: something given is wrong, or no mapping was found in time; InfeasibleError where no mapping fits the
            memories.
    """
    budget = budget or Budget()
    if objective not in OBJECTIVES:
        raise InputError(
            "unknown objective",
            path="objective",
            given=objective,
            expected="one of " + ", ".join(OBJECTIVES),
            hint=did_you_mean(str(objective), OBJECTIVES),
        )
    if type(max_simulations) is not int or max_simulations < 1:
        raise InputError(
            "a search simulates at least one mapping",
            path="max_simulations",
            given=max_simulations,
            expected="an int >= 1",
        )
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
