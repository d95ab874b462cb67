"""`pe_sim.compare`: takes workflows or arrays for one step, gives their reports side by side and what differs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

from pe_sim import api
from pe_sim.config.arrays.array import ArrayConfig
from pe_sim.config.arrays.load import as_array
from pe_sim.config.models.load import as_model
from pe_sim.config.models.model import ModelConfig
from pe_sim.errors import InputError, did_you_mean
from pe_sim.mapping.workflow import Workflow, as_workflow
from pe_sim.notebook import card, frame_table
from pe_sim.report.compare import Ranking, compare_table, cost_notes
from pe_sim.report.explain import Explanation, explain
from pe_sim.report.report import Report

if TYPE_CHECKING:
    from pandas import DataFrame

    from pe_sim.report.plots.time import Axes

_MOST_IN_GROUPS: Final = 2  # workflows, the fastest, that are tried in groups of PEs beside the comparison

WorkflowLike = Workflow | str | Path
ArrayLike = ArrayConfig | str | Path | Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class InGroups:
    """A workflow that in groups of PEs takes fewer cycles than the best of a comparison, which has it without.

    Args:
        workflow: its label in the comparison.
        groups: number of groups of PEs.
        cycles: cycles of the step, or the weighted sum over several steps.
        percent_fewer: by how many per cent that is fewer than the best has.
    """

    workflow: str
    groups: int
    cycles: float
    percent_fewer: float

    def to_dict(self) -> dict[str, Any]:
        """The finding as a JSON-ready dict."""
        return asdict(self)

    def __str__(self) -> str:
        """The finding in two lines of text, as all outputs have it."""
        faster = f"takes {self.cycles:,.0f} cycles, {self.percent_fewer:.1f}% fewer than the best above"
        how = "PEs in groups, each with sequences of its own; pe-sim search tries more of them"
        return f"{self.workflow} with groups: {self.groups} {faster}\n({how})."


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class Comparison:
    """The reports of one step by their labels.

    Args:
        reports: reports by label, in the order they were asked for.
        failed: why other cases could not be simulated, by label.
        in_groups: a workflow in groups of PEs that is faster than all of them; None: none was found.
    """

    reports: Mapping[str, Report]
    failed: Mapping[str, str]
    in_groups: InGroups | None = None

    def __getitem__(self, label: str) -> Report:
        """The report with this label.

        Raises:
            InputError: there is no such report.
        """
        if label not in self.reports:
            raise InputError(
                "there is no such report",
                given=label,
                expected=", ".join(self.reports),
                hint=self.failed.get(label) or did_you_mean(label, list(self.reports)),
            )
        return self.reports[label]

    @property
    def best(self) -> str:
        """The label of the best report: most tokens per second of those that fit the memories, the first of equals."""
        return list(self.reports)[self._ranking.best]

    @property
    def _ranking(self) -> Ranking:
        return Ranking.of(list(self.reports.values()), list(self.reports), {})

    def explain(self, first: str, other: str) -> Explanation:
        """The differences in cycles between the critical paths of `first` and `other`, operator by operator.

        Raises:
            InputError: there is no such report.
        """
        return explain(self[first], self[other])

    def to_frame(self) -> DataFrame:
        """A pandas.DataFrame of the main figures, a row a report, the fastest first, what does not fit last."""
        from pandas import DataFrame  # heavy, and only needed here

        rows = [
            {"name": label, **_figures(report, over)}
            for (label, report), over in zip(self.reports.items(), self._ranking.over_best, strict=True)
        ]
        order = [(bool(report.shortage), report.latency_seconds) for report in self.reports.values()]
        return DataFrame([rows[at] for at in sorted(range(len(rows)), key=order.__getitem__)])

    def print(self, file: TextIO | None = None) -> None:
        """Prints the tables of `pe-sim compare` to `file`, or to stdout."""
        compare_table(list(self.reports.values()), list(self.reports), file)
        if self.in_groups:
            print(f"\n{self.in_groups}", file=file)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draws where the time goes, a stacked bar for each report, into `ax` or a new figure; returns the axes."""
        from pe_sim.report.plots.time import plot_time

        return plot_time(self.reports, ax)

    def save_html(self, path: str | Path) -> None:
        """Writes the page of `pe-sim compare --html`, whole or not at all.

        Raises:
            InputError: the file cannot be written.
        """
        from pe_sim.report.html.page import save_comparison_html

        save_comparison_html(
            path, list(self.reports.values()), list(self.reports), self.failed, remarks=remarks_on(self.in_groups)
        )

    def __repr__(self) -> str:
        """One line with the labels and the fastest."""
        return f"<Comparison of {', '.join(self._ranking.marked)}: {self.best} is the fastest>"

    def _repr_html_(self) -> str:
        """HTML for a notebook: the main figures, the best in bold."""
        first = next(iter(self.reports.values()))
        title = f"{first.model.name}, {first.step.phase}: {self.best} is the fastest"
        notes = list(self._ranking.notes)
        notes += remarks_on(self.in_groups)
        notes += cost_notes(list(self.reports.values()))
        notes += [f"{label} cannot do this step: {reason}" for label, reason in self.failed.items()]
        return card(title, tables=[frame_table(self.to_frame(), text_columns=1, marked=0)], notes=notes)


def compare(
    model: ModelConfig | str | Path | Mapping[str, Any],
    array: ArrayLike | Sequence[ArrayLike],
    step: api.Step,
    workflows: WorkflowLike | Sequence[WorkflowLike] = tuple(api.WORKFLOWS),
    engine: str = api.DEFAULT_ENGINE,
    *,
    allow_overflow: bool = False,
) -> Comparison:
    """The comparison of one step of one model under several workflows, on one array or on several.

    Args:
        model, step, engine, allow_overflow: as of `simulate`.
        array: one array, or a list of arrays.
        workflows: one workflow, or a list; all named ones if left out. Those that the model, the array or the step
            rules out are in `failed`, with the reason.

    Raises:
        InputError: something given is wrong, two arrays have one name, or no workflow works.
    """
    model = as_model(model)
    given = [workflows] if isinstance(workflows, Workflow | str | Path) else list(workflows)
    loaded = [as_workflow(each) for each in given]
    named = labelled([str(getattr(each, "name", each)) for each in given], loaded)
    arrays = _arrays(array)
    for path, things in (("workflows", named), ("array", arrays)):
        if not things:
            raise InputError("there is nothing to compare", path=path, given=[], expected="at least one")
    cases = _cases(named, arrays)

    def simulated(on: ArrayConfig, workflow: Workflow) -> tuple[Report, ...]:
        return (api.simulate(model, on, step, workflow, engine, allow_overflow=allow_overflow),)

    reports, failed = each_case(cases, simulated)
    grouped = faster_in_groups(model, [(step, 1.0)], cases, reports)
    return Comparison({label: report for label, (report,) in reports.items()}, failed, grouped)


def each_case(
    cases: Mapping[str, tuple[ArrayConfig, Workflow]],
    simulated: Callable[[ArrayConfig, Workflow], tuple[Report, ...]],
    progress: Callable[[str, int, int], None] | None = None,
) -> tuple[dict[str, tuple[Report, ...]], dict[str, str]]:
    """The reports (one for each step) of the cases that work, and why the others do not, by label.

    Args:
        cases: array and workflow of each case, by label.
        simulated: a function that gives the reports of a case.
        progress: called with a label, the number of cases done, and their total.

    Raises:
        InputError: no case works.
    """
    reports: dict[str, tuple[Report, ...]] = {}
    failures: dict[str, InputError] = {}
    for index, (label, case) in enumerate(cases.items()):
        if progress:
            progress(label, index, len(cases))
        try:
            reports[label] = simulated(*case)
        except InputError as error:
            failures[label] = error
    if not reports:
        raise _none_works(failures)
    return reports, {label: str(error) for label, error in failures.items()}


def faster_in_groups(
    model: ModelConfig,
    steps: Sequence[tuple[api.Step, float]],
    cases: Mapping[str, tuple[ArrayConfig, Workflow]],
    reports: Mapping[str, Sequence[Report]],
) -> InGroups | None:
    """The fastest workflow in groups of PEs if it is faster than all that is compared; else None.

    Args:
        steps: (step, weight) pairs; `reports` has a report for each.
        cases: array and workflow that were simulated, by label; groups are tried on the array of the fastest, with
            the fastest workflows on it.
    """
    from pe_sim.mapping_search.candidates import Wanted, best_in_groups, takes_groups

    weights = tuple(weight for _, weight in steps)
    seconds = {
        label: sum(weight * report.latency_seconds for weight, report in zip(weights, of_steps, strict=True))
        for label, of_steps in reports.items()
        if not any(report.shortage for report in of_steps)
    }
    if not seconds or min(step.batch_size for step, _ in steps) == 1:
        return None
    first, *_ = order = sorted(seconds, key=seconds.__getitem__)
    array = cases[first][0]
    known = {
        cases[label][1].name: label for label in order if cases[label][0] is array and takes_groups(cases[label][1])
    }
    wanted = Wanted(model, array, tuple(step for step, _ in steps), weights, "latency")
    found = best_in_groups([cases[label][1] for label in list(known.values())[:_MOST_IN_GROUPS]], wanted)
    cycles = wanted.weighted([report.latency_cycles for report in reports[first]])
    if found is None or found.cycles >= cycles:
        return None
    label = known[found.reports[0].workflow.name]
    return InGroups(label, found.workflow.groups, found.cycles, 100 * (1 - found.cycles / cycles))


def remarks_on(grouped: InGroups | None) -> list[str]:
    """Remarks for pages and notebooks: `grouped` in one line, or none."""
    return [] if grouped is None else [" ".join(str(grouped).split("\n"))]


def labelled(listed: Sequence[str], workflows: Sequence[Workflow]) -> dict[str, Workflow]:
    """The workflows by name, or by what the user called them where several have the same name."""
    names = [workflow.name for workflow in workflows]
    labels = [name if names.count(name) == 1 else given for name, given in zip(names, listed, strict=True)]
    return dict(zip(labels, workflows, strict=True))


def _none_works(failures: Mapping[str, InputError]) -> InputError:
    """An error that tells why no workflow works: the one reason if all share it, else all reasons."""
    errors = list(failures.values())
    if len({str(error) for error in errors}) == 1:
        return errors[0]
    reasons = reason_rows({label: str(error) for label, error in failures.items()})
    return InputError("none of the workflows can do this step\n" + reasons.rstrip())


def reason_rows(reasons: Mapping[str, str]) -> str:
    """A paragraph for each workflow that cannot do the step; a hint that several share is given once."""
    said: set[str] = set()
    paragraphs = []
    for label, reason in reasons.items():
        lines = [line for line in reason.splitlines() if line not in said]
        said |= {line for line in lines if line.lstrip().startswith("hint:")}
        paragraphs.append(f"\n{label} cannot do this step:\n{_indented(lines)}")
    return "".join(paragraphs)


def _indented(lines: Iterable[str]) -> str:
    return "".join(f"  {line}\n" for line in lines)


def _arrays(given: ArrayLike | Sequence[ArrayLike]) -> dict[str, ArrayConfig]:
    """The arrays by name, with the number of PEs where several share a name."""
    listed = [given] if isinstance(given, ArrayConfig | str | Path | Mapping) else list(given)
    arrays = [as_array(each) for each in listed]
    names = [array.name for array in arrays]
    labels = [
        array.name if names.count(array.name) == 1 else f"{array.name} ({array.num_pes:,} PEs)" for array in arrays
    ]
    if len(set(labels)) < len(labels):
        raise InputError(
            "arrays that are compared need different names or numbers of PEs",
            path="array",
            given=", ".join(labels),
            hint="load_array(..., overrides={'name': ...}) names one",
        )
    return dict(zip(labels, arrays, strict=True))


def _cases(
    workflows: Mapping[str, Workflow], arrays: Mapping[str, ArrayConfig]
) -> dict[str, tuple[ArrayConfig, Workflow]]:
    """Every workflow on every array, by a label of what tells the cases apart."""

    def label(workflow: str, array: str) -> str:
        if len(arrays) == 1:
            return workflow
        return array if len(workflows) == 1 else f"{workflow} on {array}"

    return {label(workflow, array): (arrays[array], workflows[workflow]) for array in arrays for workflow in workflows}


def _figures(report: Report, over_best: float | None) -> dict[str, Any]:
    """The main figures of one report by column; `does_not_fit` is there only if it does not fit."""
    return {
        "cycles": report.latency_cycles,
        "microseconds": report.latency_seconds * 1e6,
        "tokens_per_second": report.tokens_per_second,
        "x_best": over_best,
        "messages": sum(use.messages for use in report.traffic.values()),
        "bytes": sum(use.bytes for use in report.traffic.values()),
        "joules_per_token": report.energy["per_token_joules"],
        **({"does_not_fit": report.shortage.problem} if report.shortage else {}),
    }
