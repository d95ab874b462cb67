"""`pe-sim compare`: the same step under several workflows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TextIO

import click

from pe_sim.cli.options import (
    StepChoice,
    array_option,
    json_option,
    read_overrides,
    simulation_options,
    step_options,
)
from pe_sim.cli.outputs import Outputs, to_json
from pe_sim.cli.situations import Served, comparison_dict, comparison_text, simulate_all, step_title
from pe_sim.cli.values import split_names
from pe_sim.errors import InputError

if TYPE_CHECKING:
    from pe_sim.api import Report, Workflow
    from pe_sim.config.array import ArrayConfig
    from pe_sim.config.model import ModelConfig
    from pe_sim.config.situations import Situation, WeightedStep

SCHEMA: Final = "pe-sim.comparison/1"


@click.command()
@click.argument("model_name", metavar="MODEL")
@array_option
@click.option(
    "--workflows",
    "names",
    metavar="A,B,C",
    help="The workflows to compare, names or YAML files.  [default: all named ones]",
)
@step_options
@simulation_options
@json_option
def compare(
    model_name: str,
    array_name: str,
    names: str | None,
    overlap: int | None,
    settings: tuple[str, ...],
    engine: str,
    allow_overflow: bool,
    json_target: str | None,
    **step: Any,
) -> None:
    """Which workflow is fastest for this step, and why?

    One table, the best marked; of a situation one for all its steps first, each as often as it occurs. A workflow that
    this model or array rules out is named with its reason.

    \b
    Examples:
      pe-sim compare llama-2-7b --array bus-tree-256 --context 2048
      pe-sim compare llama-3-8b --workflows workflow-1,workflow-2,megatron --batch 8 --json comparison.json
      pe-sim compare llama-3-8b --workflows workflow-2,megatron --situation batch-long
    """
    outputs = Outputs({"--json": json_target})
    overrides = read_overrides(settings, overlap)
    choice = StepChoice(**step)
    situation, steps = choice.load_situation(), choice.weighted_steps()

    from pe_sim import api

    listed = split_names(names, "--workflows") if names is not None else tuple(api.WORKFLOWS)
    workflows = _labelled(listed, [api.load_workflow(name) for name in listed])
    model = api.load_model(model_name, overrides.model or None)
    array = api.load_array(array_name, overrides.array or None)
    if situation:
        situation.check_against(model)
    reports, reasons = _simulate_all(model, array, steps, workflows, engine, allow_overflow)

    def make_json() -> str:
        failed = [{"workflow": label, "reason": reason} for label, reason in reasons.items()]
        if situation:
            return to_json(comparison_dict(_served(situation, reports), failed))
        return to_json(_to_dict({label: of_steps[0] for label, of_steps in reports.items()}, failed))

    def show(stream: TextIO) -> None:
        if situation:
            stream.write(comparison_text(_served(situation, reports)))
        _show_steps(situation, reports, stream)
        stream.write(_reason_rows(reasons))

    outputs.deliver(make_json, show)


def _show_steps(situation: Situation | None, reports: Mapping[str, tuple[Report, ...]], stream: TextIO) -> None:
    """The comparison of every step."""
    from pe_sim.report.compare import compare_table

    for index, of_step in enumerate(zip(*reports.values(), strict=True)):
        if situation:
            stream.write(f"\n{step_title(situation, index)}\n")
        compare_table(list(of_step), list(reports), stream)


def _served(situation: Situation, reports: Mapping[str, tuple[Report, ...]]) -> dict[str, Served]:
    return {label: Served(situation, of_steps) for label, of_steps in reports.items()}


def _labelled(listed: Sequence[str], workflows: Sequence[Workflow]) -> dict[str, Workflow]:
    """The workflows by their names, or by what the user called them where two files give the same name."""
    names = [workflow.name for workflow in workflows]
    labels = [name if names.count(name) == 1 else given for name, given in zip(names, listed, strict=True)]
    return dict(zip(labels, workflows, strict=True))


def _simulate_all(
    model: ModelConfig,
    array: ArrayConfig,
    steps: Sequence[WeightedStep],
    workflows: Mapping[str, Workflow],
    engine: str,
    allow_overflow: bool,
) -> tuple[dict[str, tuple[Report, ...]], dict[str, str]]:
    """The reports of those that work, one a step, and why the others do not, by label.

    Raises:
        InputError: none works.
    """
    reports: dict[str, tuple[Report, ...]] = {}
    failures: dict[str, InputError] = {}
    for label, workflow in workflows.items():
        try:
            reports[label] = simulate_all(model, array, steps, workflow, engine, allow_overflow=allow_overflow)
        except InputError as error:
            failures[label] = error
    if not reports:
        raise _none_works(failures)
    return reports, {label: str(error) for label, error in failures.items()}


def _none_works(failures: Mapping[str, InputError]) -> InputError:
    """The one reason if all share it, else all reasons in one message."""
    errors = list(failures.values())
    if len({str(error) for error in errors}) == 1:
        return errors[0]
    reasons = _reason_rows({label: str(error) for label, error in failures.items()})
    return InputError("none of the workflows can do this step\n" + reasons.rstrip())


def _reason_rows(reasons: Mapping[str, str]) -> str:
    """A paragraph for each workflow that cannot do the step."""
    return "".join(
        f"\n{label} cannot do this step:\n{_indented(reason.splitlines())}" for label, reason in reasons.items()
    )


def _indented(lines: Iterable[str]) -> str:
    return "".join(f"  {line}\n" for line in lines)


def _to_dict(reports: Mapping[str, Report], failed: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    from pe_sim.report.compare import best_of

    return {
        "schema": SCHEMA,
        "best": list(reports)[best_of(list(reports.values()))],
        "reports": [report.to_dict() for report in reports.values()],
        "failed": list(failed),
    }
