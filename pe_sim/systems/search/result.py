"""What a search over plans found: the best plan and workflow, what else was simulated, and what cannot be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pe_sim.config.plans.plan import ParallelPlan
from pe_sim.config.plans.schema import plan_to_dict
from pe_sim.mapping.workflow import Workflow
from pe_sim.mapping_search.result import Found, gap_of, workflow_text
from pe_sim.notebook import card, frame_table
from pe_sim.report.files import write_text
from pe_sim.report.system_report import SystemReport
from pe_sim.systems.search.space import Refused

if TYPE_CHECKING:
    from pandas import DataFrame

SCHEMA: Final = "pe-sim.system-search/1"
_NOTEBOOK_ROWS: Final = 10


@dataclass(frozen=True, slots=True)
class Tried:
    """A plan that was simulated.

    Args:
        plan, workflow: the plan, and the workflow inside the arrays.
        label: name of the workflow for people.
        cycles: of the step.
        period_cycles: least cycles a step where steps follow one another: those of the busiest array or channel, and
            in decode of the longest part, since its next token needs this one.
        figure: cycles that the objective makes least.
        tokens_per_second: of the step alone.
        link_share, bubble_share: shares of the arrays' time.
        peak_bytes_per_pe: of the fullest PE; `capacity_bytes_per_pe`: of a PE of that array.
        num_arrays: arrays that take part.
    """

    plan: ParallelPlan
    workflow: Workflow
    label: str
    cycles: int
    period_cycles: int
    figure: int
    tokens_per_second: float
    link_share: float
    bubble_share: float
    peak_bytes_per_pe: int
    capacity_bytes_per_pe: int
    num_arrays: int

    def row(self) -> dict[str, Any]:
        """The plan as a row of a table, JSON-ready, a value a column."""
        plan = self.plan
        cut = plan.partition if isinstance(plan.partition, str) else "bounds"
        return {
            "arrays": self.num_arrays,
            "dp": plan.dp,
            "tp": plan.tp,
            "pp": plan.pp,
            "cp": plan.cp,
            "microbatches": plan.microbatches,
            "partition": cut,
            "head": str(plan.head) if plan.head else "",
            "workflow": self.label,
            "cycles": self.cycles,
            "period_cycles": self.period_cycles,
            "tokens_per_second": self.tokens_per_second,
            "link_share": self.link_share,
            "bubble_share": self.bubble_share,
            "peak_bytes_per_pe": self.peak_bytes_per_pe,
        }


@dataclass(frozen=True, slots=True)
class Counts:
    """How much was looked at.

    Args:
        possible: plans times workflows that could be taken.
        estimated: those whose cycles were estimated.
        ruled_out: those that a lower bound says are no better than the best.
        searches: searches of a workflow for a share.
    """

    possible: int
    estimated: int
    ruled_out: int
    searches: int


@dataclass(frozen=True, eq=False, slots=True)
class SystemSearchResult(Found):
    """The best plan found.

    Args:
        best: the winner.
        report: the winner's report.
        objective: latency or throughput.
        tried: all that were simulated, the best first.
        refused: what cannot be done, and why.
        counts: how much was looked at.
        bound_cycles: no plan has a lower figure, tried or not.
        stopped, budget_seconds, used_seconds: as of `mapping_search.result.Found`.
    """

    best: Tried
    report: SystemReport
    objective: str
    tried: tuple[Tried, ...]
    refused: tuple[Refused, ...]
    counts: Counts
    bound_cycles: int
    stopped: str | None = None
    budget_seconds: float = math.inf
    used_seconds: float = 0.0

    @property
    def plan(self) -> ParallelPlan:
        """The best plan."""
        return self.best.plan

    @property
    def workflow(self) -> Workflow:
        """The workflow of the best plan, inside the arrays."""
        return self.best.workflow

    @property
    def gap(self) -> float:
        """How far the best is above the bound at most, as a fraction of the best."""
        return gap_of(self.bound_cycles, self.best.figure)

    @property
    def table(self) -> DataFrame:
        """What was simulated as a pandas.DataFrame, the best first."""
        from pandas import DataFrame  # heavy, and only needed here

        return DataFrame([one.row() for one in self.tried])

    def headline(self) -> str:
        """One line: what was found, and how sure it is."""
        report, best = self.report, self.best
        return (
            f"{report.model.name} on {report.system.name}, {report.step.phase}: {degrees_text(best.plan)} under"
            f" {best.label} takes {best.cycles:,} cycles, {self.proof_in_words()}"
        )

    def proof_in_words(self) -> str:
        """How much was looked at, and what a bound for all plans leaves open."""
        return (
            f"best of {len(self.tried):,} simulated ({self.counts.possible:,} possible,"
            f" {self.counts.estimated:,} estimated, {self.counts.ruled_out:,} ruled out by a bound,"
            f" {len(self.refused):,} refused), at most {self.gap:.2%} above the optimum{self.stopped_in_words()}"
        )

    def stopped_in_words(self) -> str:
        """When it was stopped, behind a semicolon; empty if it came to its end."""
        return f"; {self.stopped_after}" if self.stopped else ""

    def plan_text(self) -> str:
        """The best plan as a plan file."""
        import yaml

        text: str = yaml.safe_dump(plan_to_dict(self.plan), sort_keys=False, default_flow_style=False)
        return f"# {self.headline()}\n{text}"

    def save_plan(self, path: str | Path) -> None:
        """Writes `plan_text()`, whole or not at all.

        Raises:
            InputError: the file cannot be written.
        """
        write_text(path, self.plan_text())

    def workflow_text(self) -> str:
        """The best plan's workflow as a workflow file."""
        return workflow_text(self.workflow, self.report.model.num_layers, self.headline())

    def save_workflow(self, path: str | Path) -> None:
        """Writes `workflow_text()`, whole or not at all.

        Raises:
            InputError: the file cannot be written.
        """
        write_text(path, self.workflow_text())

    def to_dict(self, top: int | None = None) -> dict[str, Any]:
        """JSON-ready: the best plan and its report, and what was simulated (the `top` best)."""
        rows: Sequence[Tried] = self.tried[:top]
        return {
            "schema": SCHEMA,
            "objective": self.objective,
            "proof": f"best of {len(self.tried)} simulated",
            "simulated": len(self.tried),
            "possible": self.counts.possible,
            "estimated": self.counts.estimated,
            "ruled_out": self.counts.ruled_out,
            "workflow_searches": self.counts.searches,
            "bound_cycles": self.bound_cycles,
            "gap": self.gap,
            **self._time_to_dict(),
            "plan": plan_to_dict(self.plan),
            "workflow": self.workflow.name,
            "cycles": self.best.cycles,
            "report": self.report.to_dict(),
            "candidates": [one.row() for one in rows],
            "refused": [
                {
                    "degrees": one.shape,
                    "workflow": one.workflow,
                    "reason": one.reason,
                    "needed_bytes": one.needed,
                    "available_bytes": one.available,
                }
                for one in self.refused
            ],
        }

    def __repr__(self) -> str:
        """One line."""
        return f"<SystemSearchResult {self.headline()}>"

    def _repr_html_(self) -> str:
        """What was simulated as a notebook shows it, the best first and in bold."""
        return card(self.headline(), tables=[frame_table(self.table, text_columns=0, marked=0, most=_NOTEBOOK_ROWS)])


def degrees_text(plan: ParallelPlan) -> str:
    """Degrees and parts in a few words."""
    said = f"dp {plan.dp} x tp {plan.tp} x pp {plan.pp} x cp {plan.cp}"
    said += f" in {plan.microbatches} parts" if plan.pp > 1 and plan.microbatches else ""
    return said + (f", LM head {plan.head}" if plan.head else "")
