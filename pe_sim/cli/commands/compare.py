"""`pe-sim compare`: a step under several workflows, on several arrays (made equal), beside known machines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

import click

from pe_sim.cli.options import (
    DEFAULT_ARRAY,
    StepChoice,
    html_option,
    json_option,
    read_overrides,
    simulation_options,
    split_names,
    step_options,
)
from pe_sim.cli.outputs import Outputs, to_json
from pe_sim.cli.progress import current_progress
from pe_sim.cli.situations import (
    Served,
    comparison_dict,
    comparison_text,
    refuse_files,
    simulate_all,
    step_title,
)
from pe_sim.errors import InputError

if TYPE_CHECKING:
    from pe_sim.api import Report, Workflow
    from pe_sim.config.arrays.array import ArrayConfig
    from pe_sim.config.models.model import ModelConfig
    from pe_sim.config.reference_machines import Machine
    from pe_sim.config.situations import Situation, WeightedStep
    from pe_sim.report.references import Reference


# ---- Several `--array` beside each other, made equal in one thing: takes their names, gives the arrays.


PES, AREA, WIRE = "pes", "area", "wire"
EQUALS: Final = (PES, AREA, WIRE)
_EQUAL: Final = 0.05  # so far off, area or wire count as equal: PEs and bytes are whole numbers

arrays_option = click.option(
    "--array",
    "array_names",
    metavar="ARRAY",
    multiple=True,
    default=(DEFAULT_ARRAY,),
    show_default=True,
    help="The machine: a preset (see `pe-sim arrays`) or a YAML file. Repeat it to compare machines.",
)
equal_option = click.option(
    "--equal",
    type=click.Choice(EQUALS),
    help="What the other arrays get as much of as the first one has. pes: PEs. area: as many PEs as fit its silicon."
    " wire: widths scaled to the wire of its interconnect. What is off by more than 5% is marked and not ranked.",
)


mixed_option = click.option(
    "--mixed-process",
    is_flag=True,
    help="With --equal area: compare areas also of arrays whose logic is of different processes.",
)


@dataclass(frozen=True, slots=True)
class Beside:
    """Arrays to compare, made equal as far as possible.

    Args:
        arrays: arrays by the names that the user gave.
        unequal: how far off those arrays are that could not be made equal, by name.
    """

    arrays: dict[str, ArrayConfig]
    unequal: dict[str, str]


def load_arrays(names: Sequence[str], equal: str | None, overrides: Mapping[str, object], *, mixed: bool) -> Beside:
    """The arrays by the names the user gave, with the overrides applied, made equal as far as possible.

    Raises:
        InputError: an array is named twice, is wrong or cannot be made equal; there is only one to make equal; or
            areas of different processes would be made equal, unless `mixed`.
    """
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError("this array is named twice", source="--array", given=twice)
    if equal is not None and len(names) == 1:
        raise InputError(
            "there is nothing to make equal to a single array",
            source="--equal",
            given=equal,
            hint=f"name the others too: --array {names[0]} --array ...",
        )
    from pe_sim.config.arrays.load import load_array

    arrays, unequal = {names[0]: load_array(names[0], overrides or None)}, dict[str, str]()
    first = arrays[names[0]]
    for name in names[1:]:
        if equal == AREA:
            if not mixed:
                _check_process(first, load_array(name, overrides or None))
            arrays[name], has, wanted = _at_area(first, name, overrides)
        elif equal == WIRE:
            arrays[name], has, wanted = _at_wire(first, load_array(name, overrides or None))
        else:
            like = {"num_pes": first.num_pes} if equal == PES else {}
            arrays[name], has, wanted = load_array(name, {**overrides, **like} or None), 1.0, 1.0
        if abs(has / wanted - 1) > _EQUAL:
            unit = "mm2" if equal == AREA else "bit mm"
            unequal[name] = f"NOT OF EQUAL {str(equal).upper()}: {has:,.0f} of {wanted:,.0f} {unit}, {has / wanted:.0%}"
    return Beside(arrays, unequal)


def _check_process(first: ArrayConfig, other: ArrayConfig) -> None:
    from pe_sim.report.table import process_words

    if first.process != other.process:
        raise InputError(
            "areas of different processes are not compared",
            source="--equal area",
            given=f"{first.name} {process_words(first)}, {other.name} {process_words(other)}",
            hint=f"give {other.name} the process {first.process}, or all of them one (--set process={first.process});"
            " --mixed-process compares them as they are",
        )


def _at_area(first: ArrayConfig, name: str, overrides: Mapping[str, object]) -> tuple[ArrayConfig, float, float]:
    """The array at the first one's area, the area it has, and that of the first one, in mm2."""
    from pe_sim.network.area import area_of, at_area

    wanted = area_of(first).total_mm2
    array = at_area(name, wanted, overrides)
    return array, area_of(array).total_mm2, wanted


def _at_wire(first: ArrayConfig, array: ArrayConfig) -> tuple[ArrayConfig, float, float]:
    """The array at the first one's wire, the wire it has, and that of the first one, in bit mm."""
    from pe_sim.network.metrics import scale_to_wire, wire_bits_mm

    wanted = wire_bits_mm(first)
    scaled = scale_to_wire(array, wanted, source=f"--equal {WIRE}, as much as {first.name} has")
    click.echo(scaled, err=True)
    return scaled.array, scaled.reached_bits_mm, wanted


# ---- Bounds of `--reference`: takes names of known machines, gives their bounds for every step as a table and JSON.


NONE: Final = "none"

reference_option = click.option(
    "--reference",
    "machines",
    metavar="NAMES|none",
    default="a100,h100,groq-lpu",
    show_default=True,
    help="Known machines to set below the table at their roofline: presets (a100, h100, groq-lpu, a6000) or YAML files;"
    " as many devices of each as hold the model. Bounds, not measurements.",
)


@dataclass(frozen=True, slots=True)
class References:
    """The bounds of known machines, a tuple for each step; and (name, reason) of machines without a bound."""

    of_steps: tuple[tuple[Reference, ...], ...]
    without: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, names: str, model: ModelConfig, array: ArrayConfig, steps: Sequence[WeightedStep]) -> References:
        """The bounds of a comma list of machines (or `none`) with the array's dtypes.

        Raises:
            InputError: there is no such machine, its file has a fault, or a step does not fit the model.
        """
        listed = split_names(names, "--reference")
        if NONE in listed and len(listed) > 1:
            raise InputError("none stands alone", source="--reference", given=names, expected="none, or machines")
        if listed == (NONE,):
            return cls((), ())
        from pe_sim.config.reference_machines import load_machine

        able, without = [], []
        for machine in [load_machine(name) for name in listed]:
            reason = _without_peak(machine, array)
            if reason is None:
                able.append(machine)
            else:
                without.append((machine.name, reason))
        return cls(tuple(_bounds(able, model, array, step) for step, _ in steps), tuple(without))

    def show(self, step: int, best_seconds: float | None, stream: TextIO) -> None:
        """Prints the table of bounds for a step; nothing if no machine was asked for.

        Args:
            step: index of the step.
            best_seconds: the simulated time to compare with; None: nothing that was simulated fits.
            stream: where to print.
        """
        if not self.of_steps:
            return
        from pe_sim.report.compare import WIDTH
        from pe_sim.report.references import reference_parts
        from pe_sim.report.table import emit

        notes = [f"{name} is left out: {reason}" for name, reason in self.without]
        emit((*reference_parts(self.of_steps[step], best_seconds), *notes), stream, width=WIDTH)

    def to_dict(self) -> dict[str, Any]:
        """The bounds as a JSON-ready dict, a list for each step; empty if no machine was asked for."""
        if not self.of_steps:
            return {}
        return {"references": [[bound.to_dict() for bound in of_step] for of_step in self.of_steps]}


def _without_peak(machine: Machine, array: ArrayConfig) -> str | None:
    """Why a machine has no bound for the array's dtypes; None if it has one."""
    from pe_sim.report.references import computed_dtype

    try:
        machine.peak_for(computed_dtype(array.dtypes))
    except InputError as error:
        return error.problem
    return None


def _bounds(machines: Sequence[Machine], model: ModelConfig, array: ArrayConfig, step: Any) -> tuple[Reference, ...]:
    from pe_sim.report.references import reference

    return tuple(reference(machine, model, step, array.dtypes) for machine in machines)


SCHEMA: Final = "pe-sim.comparison/1"


@click.command()
@click.argument("model_name", metavar="MODEL")
@arrays_option
@equal_option
@mixed_option
@click.option(
    "--workflows",
    "names",
    metavar="A,B,C",
    help="The workflows to compare, names or YAML files.  [default: all named ones]",
)
@step_options
@simulation_options
@json_option
@html_option
@reference_option
def compare(
    model_name: str,
    array_names: tuple[str, ...],
    equal: str | None,
    mixed_process: bool,
    names: str | None,
    overlap: int | None,
    settings: tuple[str, ...],
    ignore_keys: tuple[str, ...],
    engine: str,
    allow_overflow: bool,
    json_target: str | None,
    html_target: str | None,
    machines: str,
    **step: Any,
) -> None:
    """Which workflow, or which array, is fastest for this step, and why?

    One table, the best marked; of a situation one for all its steps first, each as often as it occurs. A workflow that
    this model or array rules out is named with its reason. Known machines stand below at their roofline, as bounds:
    what they cannot beat, not what they do.

    \b
    Examples:
      pe-sim compare llama-2-7b --array bus-tree-256 --context 2048
      pe-sim compare llama-3-8b --workflows workflow-1,workflow-2,megatron --batch 8 --json comparison.json
      pe-sim compare llama-3-8b --workflows workflow-2,megatron --situation batch-long
      pe-sim compare llama-3.2-1b --array bus-tree-1024 --html comparison.html
      pe-sim compare llama-2-70b --array bus-tree-4096 --reference h100,my-machine.yaml
      pe-sim compare llama-2-7b --array bus-tree-256 --array mesh-256 --equal area --workflows megatron
    """
    outputs = Outputs({"--json": json_target, "--html": html_target})
    overrides = read_overrides(settings, overlap)
    choice = StepChoice(**step)
    situation, steps = choice.load_situation(), choice.weighted_steps()
    if situation is not None:
        refuse_files(situation, {"--html": html_target})

    from pe_sim import api
    from pe_sim.studies.comparison import each_case, faster_in_groups, labelled, reason_rows, remarks_on

    listed = split_names(names, "--workflows") if names is not None else tuple(api.WORKFLOWS)
    workflows = [api.load_workflow(name) for name in listed]
    model = api.load_model(model_name, overrides.model or None, ignore_keys=ignore_keys)
    beside = load_arrays(array_names, equal, overrides.array, mixed=mixed_process)
    arrays = beside.arrays
    if situation:
        situation.check_against(model)
    known = References.of(machines, model, arrays[array_names[0]], steps)
    cases = _cases(labelled(listed, workflows), arrays)

    def simulated(array: ArrayConfig, workflow: Workflow) -> tuple[Report, ...]:
        return simulate_all(model, array, steps, workflow, engine, allow_overflow=allow_overflow)

    reports, reasons = each_case(cases, simulated, current_progress())
    grouped = faster_in_groups(model, steps, cases, reports)
    unequal = {label: why for label in reports for name, why in beside.unequal.items() if label.endswith(f" on {name}")}

    def make_json() -> str:
        failed = [{"workflow": label, "reason": reason} for label, reason in reasons.items()]
        if situation:
            told = comparison_dict(_served(situation, reports), failed, unequal)
        else:
            told = _to_dict({label: of_steps[0] for label, of_steps in reports.items()}, failed, unequal)
        return to_json(told | ({} if grouped is None else {"in_groups": grouped.to_dict()}) | known.to_dict())

    def show(stream: TextIO) -> None:
        if situation:
            stream.write(comparison_text(_served(situation, reports), unequal))
        _show_steps(situation, reports, unequal, known, stream)
        stream.write(reason_rows(reasons))
        if grouped is not None:
            stream.write(f"\n{grouped}\n")

    def write_html(path: Path) -> None:
        from pe_sim.report.html.page import save_comparison_html

        shown = [of_steps[0] for of_steps in reports.values()]
        save_comparison_html(path, shown, list(reports), reasons, unequal, remarks_on(grouped))

    outputs.deliver(make_json, show, {"--html": write_html})


def _show_steps(
    situation: Situation | None,
    reports: Mapping[str, tuple[Report, ...]],
    unequal: Mapping[str, str],
    known: References,
    stream: TextIO,
) -> None:
    """Prints the comparison of every step, with the bounds of known machines."""
    from pe_sim.report.compare import Ranking, compare_table

    for index, of_step in enumerate(zip(*reports.values(), strict=True)):
        if situation:
            stream.write(f"\n{step_title(situation, index)}\n")
        compare_table(list(of_step), list(reports), stream, unequal)
        best = of_step[Ranking.of(of_step, list(reports), unequal).best]
        known.show(index, None if best.shortage else best.latency_seconds, stream)


def _served(situation: Situation, reports: Mapping[str, tuple[Report, ...]]) -> dict[str, Served]:
    return {label: Served(situation, of_steps) for label, of_steps in reports.items()}


def _cases(
    workflows: Mapping[str, Workflow], arrays: Mapping[str, ArrayConfig]
) -> dict[str, tuple[ArrayConfig, Workflow]]:
    """Every workflow on every array, by label."""
    if len(arrays) == 1:
        return {label: (array, workflow) for array in arrays.values() for label, workflow in workflows.items()}
    return {
        f"{label} on {name}": (array, workflow)
        for name, array in arrays.items()
        for label, workflow in workflows.items()
    }


def _to_dict(
    reports: Mapping[str, Report], failed: Sequence[Mapping[str, str]], unequal: Mapping[str, str]
) -> dict[str, Any]:
    from pe_sim.report.compare import Ranking

    return {
        "schema": SCHEMA,
        "best": list(reports)[Ranking.of(list(reports.values()), list(reports), unequal).best],
        "labels": list(reports),
        "reports": [report.to_dict() for report in reports.values()],
        "failed": list(failed),
        **({"unequal": dict(unequal)} if unequal else {}),
    }
