"""What a search found: the best mapping, also as a workflow file, what else was tried, and how sure it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, overload

from pe_sim.errors import InputError
from pe_sim.mapping.workflow import WORKFLOWS, LayerPlan, Workflow, as_workflow
from pe_sim.mapping_search.budget import OutOfTimeError
from pe_sim.mapping_search.candidates import Candidate, nowhere_worse, simulated
from pe_sim.notebook import card, frame_table
from pe_sim.report.explain import NOTEBOOK_ROWS, Explanation, explain
from pe_sim.report.files import write_text
from pe_sim.report.report import Report

if TYPE_CHECKING:
    from pandas import DataFrame

SCHEMA: Final = "pe-sim.search/1"
EXACT: Final = "exact"
EXACT_ALIKE: Final = "exact where gate and up are cut alike"
OUT_OF_TIME: Final = "time"
INTERRUPTED: Final = "interrupted"


@dataclass(frozen=True, slots=True)
class Excluded:
    """A mapping, or all with one division of the PEs, that cannot be taken; `error` is what came of trying it."""

    name: str
    reason: str
    error: InputError | None = field(default=None, compare=False, repr=False)


class Found:
    """What a search found, and when it was stopped.

    Args:
        stopped: "time" if the time was used up, "interrupted" if Ctrl-C was pressed; None where it came to its end.
        budget_seconds: seconds that were allowed.
        used_seconds: seconds that it took; nothing else here depends on a clock unless it was stopped.
    """

    __slots__ = ()
    stopped: str | None
    budget_seconds: float
    used_seconds: float

    @property
    def uninterrupted(self) -> Self:
        """The result itself, for a caller that goes on with its best mapping.

        Raises:
            KeyboardInterrupt: Ctrl-C ended the search, and is meant to end the caller's work too.
        """
        if self.stopped == INTERRUPTED:
            raise KeyboardInterrupt
        return self

    @property
    def stopped_after(self) -> str:
        """When it was stopped, and by what; empty if it came to its end."""
        if self.stopped is None:
            return ""
        by_itself = self.stopped == OUT_OF_TIME
        return f"stopped after {f'{self.budget_seconds:g} s' if by_itself else f'{self.used_seconds:.0f} s by Ctrl-C'}"

    def _time_to_dict(self) -> dict[str, Any]:
        budget = self.budget_seconds if self.budget_seconds < math.inf else None
        return {"stopped": self.stopped, "budget_seconds": budget, "used_seconds": self.used_seconds}


@dataclass(frozen=True, eq=False, slots=True)
class SearchResult(Found):
    """The best mapping found.

    Args:
        best: the winner; its workflow is called auto.
        candidates: everything that was simulated, named workflows included.
        excluded: mappings that could not be simulated, and why.
        proof: "exact" if no mapping that a workflow file can say is better; "exact where gate and up are cut alike" if
            one might be that cuts one of these both ways and the other otherwise; else "best of N simulated".
        bound_cycles: no mapping takes less, weighted over the steps; None where no bound is known. With the objective
            energy the cycles of the mapping with the least energy.
        stopped, budget_seconds, used_seconds: as of `Found`.
    """

    best: Candidate
    candidates: tuple[Candidate, ...]
    excluded: tuple[Excluded, ...]
    proof: str
    bound_cycles: float | None
    stopped: str | None = None
    budget_seconds: float = math.inf
    used_seconds: float = 0.0

    @property
    def workflow(self) -> Workflow:
        """The best workflow: `simulate`, `execute` and the others take it."""
        return self.best.workflow

    @property
    def report(self) -> Report:
        """The report of the best mapping for the first step."""
        return self.best.reports[0]

    @property
    def reports(self) -> tuple[Report, ...]:
        """The reports of the best mapping, one a step."""
        return self.best.reports

    @property
    def num_simulated(self) -> int:
        """Number of mappings that were simulated."""
        return len(self.candidates)

    @property
    def gap(self) -> float | None:
        """How far the best is above the bound, as a fraction of the best: 0 where the proof is exact."""
        if self.proof in (EXACT, EXACT_ALIKE):
            return 0.0
        return gap_of(self.bound_cycles, self.best.cycles)

    @property
    def pareto(self) -> tuple[Candidate, ...]:
        """Candidates that no other one beats in cycles, energy and peak bytes of a PE at once, the fastest first."""
        return nowhere_worse(self.candidates)

    @property
    def table(self) -> DataFrame:
        """The candidates as a pandas.DataFrame, the best first."""
        from pandas import DataFrame  # heavy, and only needed here

        best_first = sorted(self.candidates, key=lambda one: one.figure)
        efficient = {id(one) for one in self.pareto}
        frame = DataFrame([_row(one) | {"pareto": id(one) in efficient} for one in best_first])
        frame.attrs["proof"] = self.proof
        return frame

    def to_yaml(self) -> str:
        """The best workflow as a workflow file.

        Raises:
            InputError: it is a named one that a file can only take as its base.
        """
        return workflow_text(self.workflow, self.report.graph.num_layers, self.headline())

    def save(self, path: str | Path) -> None:
        """Writes `to_yaml()`, whole or not at all.

        Raises:
            InputError: the file cannot be written.
        """
        write_text(path, self.to_yaml())

    def headline(self) -> str:
        """One line: what was found, and how sure it is."""
        report = self.report
        return (
            f"{report.model.name} on {report.array.name}, {report.step.phase}: {self.best.cycles:,.0f} cycles,"
            f" {self.proof_in_words()}"
        )

    def proof_in_words(self) -> str:
        """The proof, and what is left open."""
        if self.proof in (EXACT, EXACT_ALIKE):
            return f"{self.proof} ({self.num_simulated} simulated)"
        gap = "no bound" if self.gap is None else f"at most {self.gap:.2%} above the optimum"
        return f"{self.proof}, {gap}" + (f"; {self.stopped_after}" if self.stopped else "")

    def stopped_in_words(self) -> str:
        """When it was stopped, and what is sure; empty if it came to its end."""
        if self.stopped is None:
            return ""
        gap = "no bound" if self.gap is None else f"gap at most {self.gap:.1%}"
        return f"{self.stopped_after}, {gap}"

    def explain(self, other: str | Path | Workflow) -> Explanation:
        """Why the best mapping is faster than another one, for the first step.

        Args:
            other: one of the candidates by its name, or a workflow, or what `load_workflow` takes.

        Raises:
            InputError: there is no such workflow, or it is itself to be searched; InfeasibleError if it does not fit.
        """
        known = next((one for one in self.candidates if one.name == other), None)
        if known is not None:
            return explain(self.report, known.reports[0])
        workflow = as_workflow(other)
        check_explained(workflow)
        wanted = self.best.wanted
        first = replace(wanted, steps=wanted.steps[:1], weights=wanted.weights[:1])
        return explain(self.report, simulated(workflow.name, workflow, first).reports[0])

    def to_dict(self, top: int | None = None) -> dict[str, Any]:
        """JSON-ready: the best report, its workflow, and the candidates (the `top` best ones)."""
        best_first: Sequence[Candidate] = sorted(self.candidates, key=lambda one: one.figure)
        return {
            "schema": SCHEMA,
            "objective": self.best.wanted.objective,
            "proof": self.proof,
            "simulated": self.num_simulated,
            "cycles": self.best.cycles,
            "bound_cycles": self.bound_cycles,
            "gap": self.gap,
            **self._time_to_dict(),
            "reports": [report.to_dict() for report in self.reports],
            "candidates": [_row(one) for one in best_first[:top]],
            "pareto": [_row(one) for one in self.pareto],
            "excluded": [{"name": one.name, "reason": one.reason} for one in self.excluded],
        }

    def __repr__(self) -> str:
        """One line."""
        return f"<SearchResult {self.headline()}>"

    def _repr_html_(self) -> str:
        """The candidates as a notebook shows them, the best first and in bold."""
        table = frame_table(self.table, text_columns=1, marked=0, most=NOTEBOOK_ROWS)
        notes = [f"{one.name} left out: {one.reason}" for one in self.excluded]
        return card(self.headline(), tables=[table], notes=notes)


def stopped_by(end: BaseException) -> str:
    """What `Found.stopped` says of a search that this exception ended."""
    return OUT_OF_TIME if isinstance(end, OutOfTimeError) else INTERRUPTED


@overload
def gap_of(bound_cycles: float, cycles: float) -> float: ...
@overload
def gap_of(bound_cycles: None, cycles: float) -> None: ...
def gap_of(bound_cycles: float | None, cycles: float) -> float | None:
    """How far so many cycles are above a bound, as a fraction of them; None without a bound."""
    return None if bound_cycles is None else 1 - bound_cycles / cycles


def best_so_far(cycles: float, bound_cycles: float | None) -> list[str]:
    """The words with which a search that goes on tells its best result and the gap."""
    gap = gap_of(bound_cycles, cycles)
    return [f"best {cycles:,.0f} cycles", "no bound" if gap is None else f"gap at most {gap:.1%}"]


def check_explained(other: Workflow) -> None:
    """Raises InputError for a workflow that is itself still to be searched."""
    if other.searched:
        raise InputError(
            "this workflow has to be searched itself",
            path="other",
            given=other.name,
            expected="a named workflow, or a file that gives all operators",
        )


def _row(one: Candidate) -> dict[str, Any]:
    return {
        "name": one.name,
        "groups": one.workflow.groups,
        "cycles": one.cycles,
        "tokens_per_second": one.tokens_per_second,
        "joules": one.joules,
        "peak_bytes_per_pe": one.peak_bytes_per_pe,
    }


# ---- A workflow as the text of a workflow file: takes resolved plans, gives YAML that reads back as the same.


_BUNDLES = (("qkv", ("q", "k", "v")), ("gate_up", ("gate", "up")))


def workflow_text(workflow: Workflow, num_layers: int, comment: str) -> str:
    """The text of the workflow file; a base is named where only that can say it (pipelines, streamed weights)."""
    lines = [f"# {comment}", "schema_version: 1", f"name: {workflow.name}"]
    special = workflow.pipelined or workflow.stream_weights or workflow.local_ends
    if special:
        lines.append(f"base: {_base_of(workflow)}")
    if workflow.groups > 1:
        lines.append(f"groups: {workflow.groups}")
    lines.append(f"lm_head: {workflow.lm_head}")
    plans = [workflow.plan(layer) for layer in range(num_layers)]
    runs = runs_of(plans)
    if not special:
        lines.append("layers:")
        lines += [_entry(_range(first, last, len(plans)), plans[first]) for first, last in runs]
    return "\n".join(lines) + "\n"


def _base_of(workflow: Workflow) -> str:
    flags = (workflow.pipelined, workflow.stream_weights, workflow.local_ends)
    return next(
        name
        for name, base in WORKFLOWS.items()
        if (base.pipelined, base.stream_weights, base.local_ends) == flags and base.pattern == workflow.pattern
    )


def runs_of(plans: Sequence[LayerPlan]) -> list[tuple[int, int]]:
    """First and last layer of every run of equal plans."""
    starts = [layer for layer in range(len(plans)) if layer == 0 or plans[layer] != plans[layer - 1]]
    return [(first, after - 1) for first, after in zip(starts, [*starts[1:], len(plans)], strict=True)]


def _range(first: int, last: int, num_layers: int) -> str:
    if last - first == num_layers - 1:
        return "all"
    return f"{first}" if first == last else f"{first}-{last}"


def _entry(layers: str, plan: LayerPlan) -> str:
    given = plan.to_dict()
    fields: dict[str, str] = {}
    for name, value in given.items():
        bundle = next(((short, members) for short, members in _BUNDLES if name in members), None)
        if bundle is not None and len({given[member] for member in bundle[1]}) == 1:
            fields[bundle[0]] = value
        elif value != "follow" or name == "stream":
            fields[name] = value
    return "\n".join([f"  - layers: {layers}", *(f"    {name}: {value}" for name, value in fields.items())])
