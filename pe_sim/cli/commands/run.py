"""`pe-sim run`: one step of a model under a workflow, on one array or on several."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, TextIO, TypeVar

import click
from click.core import ParameterSource

from pe_sim.cli.options import (
    Overrides,
    StepChoice,
    array_option,
    html_option,
    json_option,
    pe_choice,
    picture,
    read_overrides,
    roofline_option,
    simulation_options,
    step_options,
    whole_number,
    workflow_option,
)
from pe_sim.cli.outputs import Outputs, Writer, to_json, write_csv
from pe_sim.cli.outputs import write_csv as save_csv
from pe_sim.cli.progress import current_progress
from pe_sim.cli.situations import Served, print_served, refuse_files, simulate_all
from pe_sim.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from pe_sim.api import Report
    from pe_sim.config.plans.plan import ParallelPlan
    from pe_sim.config.step import Step
    from pe_sim.config.systems.system import SystemConfig
    from pe_sim.numeric.proof import Proof
    from pe_sim.report.system_report import SystemReport


# ---- `pe-sim run` and `pe-sim verify` on several arrays: the options of systems and plans, and what is done with
# them.


_Command = TypeVar("_Command", bound=Callable[..., Any])

_DEGREES: Final = ("dp", "tp", "pp", "cp")
_COMMAND_LINE: Final = "command line"
_BOUNDS: Final = re.compile(r"[+-]?[0-9]{1,9}(?:,[+-]?[0-9]{1,9})*")
_OF_ONE_ARRAY: Final = ("--html", "--trace-pes", "--heat", "--roofline", "--situation")
_SYSTEM_COLUMNS: Final = ("pipeline", "stage", "kind", "name", "arrays", "count", "cycles")

_SYSTEM_OPTIONS: Final = (
    click.option(
        "--arrays",
        metavar="SYSTEM",
        help="Several arrays joined by links, in place of --array: a preset (see `pe-sim systems`) or a YAML file."
        " --set then takes its paths: array.num_pes for all arrays, arrays.0.count, links.link.latency_cycles.",
    ),
    click.option(
        "--plan",
        metavar="FILE",
        help="How the model is spread over the arrays: our own form, Hetu's ds_parallel_config, a Galvatron strategy,"
        " MerakArguments.  [default: the degrees below; without them the best that a search finds]",
    ),
    click.option("--dp", metavar="N", callback=whole_number, help="Shares of the batch.  [with --arrays; default: 1]"),
    click.option(
        "--tp", metavar="N", callback=whole_number, help="Shares of the operators: heads, FFN columns, vocabulary."
    ),
    click.option("--pp", metavar="N", callback=whole_number, help="Stages of layers."),
    click.option("--cp", metavar="N", callback=whole_number, help="Shares of the tokens."),
    click.option(
        "--partition",
        metavar="METHOD|0,L,...",
        help="How layers are cut into stages: uniform, uniform_floor, uniform_ceil, parameters, balanced, or bounds"
        " from 0 to the number of layers.  [default: uniform]",
    ),
    click.option(
        "--microbatches",
        metavar="N",
        callback=whole_number,
        help="Parts in which a step goes through the stages.  [default: as many as there are stages]",
    ),
)

timeline_option = click.option(
    "--timeline",
    "timeline_target",
    metavar="FILE.png|svg",
    callback=picture,
    help="Draw the stages over time, a colour a microbatch.  [with --arrays]",
)


def system_options(command: _Command) -> _Command:
    """Adds the options that name several arrays and a plan for them."""
    for option in reversed(_SYSTEM_OPTIONS):
        command = option(command)
    return command


def check_arrays(arrays: str | None, given: Mapping[str, object]) -> None:
    """Whether there are several arrays where something is said of them, and one array where not.

    Args:
        arrays: the value of --arrays.
        given: options for several arrays, with their values.

    Raises:
        InputError: both --array and --arrays, or a plan without --arrays.
    """
    if arrays is None and given:
        option, value = next(iter(given.items()))
        raise InputError(
            "a plan is for several arrays, and there is one",
            source=option,
            given=value,
            hint="add --arrays SYSTEM (see `pe-sim systems`)",
        )
    context = click.get_current_context()
    if arrays is not None and context.get_parameter_source("array_name") is ParameterSource.COMMANDLINE:
        raise InputError(
            "--array and --arrays exclude each other",
            source="--arrays",
            given=arrays,
            expected="one of the two: --array names one array, --arrays a system of several",
        )


@dataclass(frozen=True, slots=True)
class SystemChoice:
    """The values of `system_options`; None where the user said nothing."""

    arrays: str | None
    plan: str | None
    dp: int | None
    tp: int | None
    pp: int | None
    cp: int | None
    partition: str | None
    microbatches: int | None

    @classmethod
    def taken(cls, options: MutableMapping[str, Any]) -> Self:
        """Takes its own values out of those of a command, and checks that they go together.

        Raises:
            InputError: both --array and --arrays, or a plan without --arrays.
        """
        choice = cls(*(options.pop(field.name) for field in fields(cls)))
        check_arrays(choice.arrays, {f"--{name}": value for name, value in choice._given().items()})
        return choice

    def load_system(self, settings: tuple[str, ...], overlap: int | None = None) -> tuple[SystemConfig, Overrides]:
        """The system with what `--set` and `--overlap` change of it, and the overrides of the model.

        Raises:
            InputError: there is no such system, or a path or value is wrong.
        """
        from pe_sim.config.systems.load import load_system

        assert self.arrays is not None
        overrides = read_overrides(settings)
        if overlap is not None:
            _add_overlap(overrides.array, overlap)
        try:
            return load_system(self.arrays, overrides.array or None), overrides
        except InputError as error:
            raise _with_paths(error) from None

    def load_plan(self, system: SystemConfig) -> ParallelPlan | None:
        """The plan of the file with what options change of it, or that of the options; None: neither is given.

        Raises:
            InputError: there is no such file, or it or an option is wrong.
        """
        from pe_sim.config.plans.load import load_plan
        from pe_sim.config.plans.plan import ParallelPlan

        given = self._given()
        given.pop("plan", None)
        if "partition" in given:
            given["partition"] = _partition(str(given["partition"]))
        alive = len(system.alive)
        if self.plan is not None:
            changes = {name: list(value) if isinstance(value, tuple) else value for name, value in given.items()}
            return load_plan(self.plan, changes or None, num_arrays=alive)
        if not given:
            return None
        words = [f"{name} {given[name]}" for name in _DEGREES if given.get(name, 1) != 1]
        return load_plan(ParallelPlan(name=" x ".join(words) or "one array", source=_COMMAND_LINE, **given))

    def _given(self) -> dict[str, Any]:
        """What the user said of the plan."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if name != "arrays" and value is not None}


def refuse_for_systems(targets: Mapping[str, object]) -> None:
    """Refuses options whose results only a report of one array has; those that are None were not given.

    Raises:
        InputError: one was given.
    """
    for option in _OF_ONE_ARRAY:
        if targets.get(option) is not None:
            raise InputError(
                "only a run on one array has this",
                source=option,
                given=targets[option],
                hint="leave it out, or run one array (--array); with --arrays there are --json, --trace, --csv,"
                " --channels and --timeline",
            )


def run_system(
    choice: SystemChoice,
    model_name: str,
    settings: tuple[str, ...],
    ignore_keys: tuple[str, ...],
    overlap: int | None,
    step: Step,
    workflow: str,
    engine: str,
    outputs: Outputs,
    *,
    allow_overflow: bool,
) -> None:
    """Simulates a step on several arrays and delivers what was asked for.

    Raises:
        InputError: something given is wrong; InfeasibleError where an array's memories are too small.
    """
    system, overrides = choice.load_system(settings, overlap)
    plan = choice.load_plan(system)

    from pe_sim.config.models.load import load_model
    from pe_sim.mapping.workflow import load_workflow
    from pe_sim.systems.api import simulate_system

    model, mapping = load_model(model_name, overrides.model or None, ignore_keys=ignore_keys), load_workflow(workflow)
    report = simulate_system(
        model, system, step, plan, mapping, engine, allow_overflow=allow_overflow, progress=current_progress()
    )

    def show(stream: TextIO) -> None:
        report.print(stream)

    outputs.deliver(report.to_json, show, _writers(report))


def _writers(report: SystemReport) -> dict[str, Writer]:
    def write_tasks(path: Path) -> None:
        write_csv(path, [row.to_dict() for row in report.tasks], _SYSTEM_COLUMNS)

    def write_channels(path: Path) -> None:
        write_csv(path, [] if report.links is None else report.links.to_rows(), ("name", "level"))

    return {
        "--trace": report.save_trace,
        "--csv": write_tasks,
        "--channels": write_channels,
        "--timeline": report.save_timeline,
    }


def verify_system(
    choice: SystemChoice,
    model_name: str,
    settings: tuple[str, ...],
    ignore_keys: tuple[str, ...],
    workflow: str,
    weights: str | None,
    seed: int,
) -> Proof:
    """The proof of a plan on several arrays.

    Raises:
        InputError: something given is wrong, or there is no plan.
    """
    system, overrides = choice.load_system(settings)
    plan = choice.load_plan(system)
    if plan is None:
        raise InputError("a proof on several arrays needs a plan", source="--plan", hint="--plan FILE, or --tp 2")

    from pe_sim.config.models.load import load_model
    from pe_sim.systems.api import verify_system

    model = load_model(model_name, overrides.model or None, ignore_keys=ignore_keys)
    return verify_system(model, system, plan, workflow, weights=weights, seed=seed)


def _with_paths(error: InputError) -> InputError:
    """Of a path that only an array has, says how arrays are reached; any other error as it is."""
    path = (error.source or "").removeprefix("--set ")
    if error.problem != "unknown path" or path.startswith(("array.", "arrays.", "links.")):
        return error
    hint = f"of all arrays it is array.{path}, of one entry arrays.N.set.{path}"
    return InputError(error.problem, source=error.source, expected=error.expected, hint=f"{hint}; {error.hint}")


def _partition(text: str) -> str | tuple[int, ...]:
    """A method's name, or the bounds of a comma list."""
    from pe_sim.config.plans.plan import PARTITIONS

    if _BOUNDS.fullmatch(text):
        return tuple(int(part) for part in text.split(","))
    if text in PARTITIONS:
        return text
    raise InputError(
        "no such way to cut layers into stages",
        source="--partition",
        given=text,
        expected=f"{', '.join(PARTITIONS)}, or bounds with commas between, for instance 0,10,22",
        hint=did_you_mean(text, PARTITIONS),
    )


def _add_overlap(array: dict[str, object], overlap: int) -> None:
    path = "array.overlap"
    if array.get(path, overlap) != overlap:
        raise InputError(
            f"--overlap and --set {path} contradict each other",
            source="--overlap",
            given=overlap,
            expected=f"{array[path]!r}, as --set {path} says, or one of the two alone",
        )
    array[path] = overlap


_COLUMNS: Final = ("layer", "name", "distribution", "flops", "bytes", "start", "end", "cycles", "bound_by")


@click.command()
@click.argument("model_name", metavar="MODEL")
@array_option
@system_options
@workflow_option
@step_options
@simulation_options
@json_option
@html_option
@click.option("--trace", metavar="FILE", help="Write the trace, for Perfetto (ui.perfetto.dev).")
@click.option(
    "--trace-pes",
    metavar="classes|all|LIST",
    callback=pe_choice,
    help="PEs with a track in the trace: classes of PEs that do the same, all, or some, for instance 0,5,8-11."
    "  [default: classes]",
)
@click.option("--csv", "csv_target", metavar="FILE", help="Write the operators as CSV, times in cycles.")
@click.option(
    "--channels",
    "channels_target",
    metavar="FILE",
    help="Write what every channel of the interconnect carried as CSV, by tag.",
)
@click.option(
    "--heat", "heat_target", metavar="FILE", help="Draw the interconnect as a PNG picture, its channels by utilization."
)
@roofline_option
@timeline_option
def run(
    model_name: str,
    array_name: str,
    workflow: str,
    overlap: int | None,
    settings: tuple[str, ...],
    ignore_keys: tuple[str, ...],
    engine: str,
    allow_overflow: bool,
    json_target: str | None,
    html_target: str | None,
    trace: str | None,
    trace_pes: str | tuple[int, ...] | None,
    csv_target: str | None,
    channels_target: str | None,
    heat_target: str | None,
    roofline_target: str | None,
    timeline_target: str | None,
    **others: Any,
) -> None:
    """How long does one step take, and what bounds it?

    MODEL is a preset (see `pe-sim models`) or a model's config file: config.json of Hugging Face, params.json of Meta.
    Times are cycles of the array's clock.

    \b
    Examples:
      pe-sim run llama-2-7b --array bus-tree-256 --workflow workflow-1 --context 2048
      pe-sim run llama-3-8b --array bus-tree-256 --phase prefill --prompt 512 --workflow megatron
      pe-sim run llama-2-7b --context 100,2000 --overlap 2 --json - | jq .latency
      pe-sim run llama-2-7b --array mesh-256 --context 2048 --heat mesh.png --channels mesh.csv
      pe-sim run llama-2-7b --context 2048 --html report.html --trace step.json --trace-pes 0,17,100-103
      pe-sim run llama-2-7b --phase prefill --prompt 512 --roofline roofline.svg
      pe-sim run llama-2-7b --workflow megatron --situation mixed
      pe-sim run llama-3.1-405b --arrays switch-of-64-bus-tree-1024 --tp 8 --pp 8 --batch 8 --workflow megatron
      pe-sim run llama-2-70b --arrays ring-of-8-bus-tree-1024 --plan plan.yaml --timeline stages.png
    """
    system = SystemChoice.taken(others)
    tables = {"--csv": csv_target, "--channels": channels_target}
    pictures = {"--heat": heat_target, "--roofline": roofline_target, "--timeline": timeline_target}
    files = {"--html": html_target, "--trace": trace, **tables, **pictures}
    outputs = Outputs({"--json": json_target, **files})
    choice = StepChoice(**others)
    if system.arrays is not None:
        refuse_for_systems({**files, "--trace-pes": trace_pes, "--situation": choice.situation})
        run_system(
            system,
            model_name,
            settings,
            ignore_keys,
            overlap,
            choice.build(),
            workflow,
            engine,
            outputs,
            allow_overflow=allow_overflow,
        )
        return
    if timeline_target is not None:
        raise InputError(
            "only several arrays have a timeline of stages", source="--timeline", hint="add --arrays SYSTEM"
        )
    if trace_pes is not None and trace is None:
        raise InputError("there is no trace to choose PEs for", source="--trace-pes", hint="add --trace FILE")
    overrides = read_overrides(settings, overlap)
    situation = choice.load_situation()
    if situation is not None:
        refuse_files(situation, files)
    steps = choice.weighted_steps()  # before the heavy imports: a wrong option is told at once

    from pe_sim import api
    from pe_sim.report.table import print_report

    model = api.load_model(model_name, overrides.model or None, ignore_keys=ignore_keys)
    array = api.load_array(array_name, overrides.array or None)
    mapping = api.load_workflow(workflow)
    if situation is not None:
        situation.check_against(model)
    reports = simulate_all(model, array, steps, mapping, engine, allow_overflow=allow_overflow)
    report = reports[0]
    pes = trace_pes if trace_pes is not None else "classes"
    if trace is not None:
        _check_pes(report, pes)

    def make_json() -> str:
        return to_json(Served(situation, reports).to_dict()) if situation else report.to_json()

    def show(stream: TextIO) -> None:
        if situation:
            print_served(Served(situation, reports), stream)
        else:
            print_report(report, stream)

    def write_csv(path: Path) -> None:
        save_csv(path, [row.to_dict() for row in report.operators], _COLUMNS)

    def write_channels(path: Path) -> None:
        save_csv(path, report.channels.to_rows(), _COLUMNS)

    writers: dict[str, Writer] = {
        "--html": report.save_html,
        "--trace": partial(report.save_trace, pes=pes),
        "--csv": write_csv,
        "--channels": write_channels,
        "--heat": report.save_channel_heat,
        "--roofline": report.save_roofline,
    }
    outputs.deliver(make_json, show, writers)


def _check_pes(report: Report, pes: str | Sequence[int]) -> None:
    """Tells of the option what is wrong with it, before a file is begun.

    Raises:
        InputError: as `Report.save_trace`.
    """
    from pe_sim.report.perfetto.tracks import check_pes

    try:
        check_pes(report, pes)
    except InputError as error:
        raise InputError(
            error.problem, source="--trace-pes", given=error.given, expected=error.expected, hint=error.hint
        ) from None
