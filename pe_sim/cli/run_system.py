"""`pe-sim run` and `pe-sim verify` on several arrays: the options of systems and plans, and what is done with them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, TextIO, TypeVar

import click
from click.core import ParameterSource

from pe_sim.cli.options import Overrides, read_overrides
from pe_sim.cli.outputs import Outputs, Writer
from pe_sim.cli.pictures import picture
from pe_sim.cli.progress import current_progress
from pe_sim.cli.tables import write_csv
from pe_sim.cli.values import whole_number
from pe_sim.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from pe_sim.config.plan import ParallelPlan
    from pe_sim.config.step import Step
    from pe_sim.config.system import SystemConfig
    from pe_sim.numeric.proof import Proof
    from pe_sim.report.system_report import SystemReport

_Command = TypeVar("_Command", bound=Callable[..., Any])

_DEGREES: Final = ("dp", "tp", "pp", "cp")
_COMMAND_LINE: Final = "command line"
_BOUNDS: Final = re.compile(r"[+-]?[0-9]{1,9}(?:,[+-]?[0-9]{1,9})*")
_OF_ONE_ARRAY: Final = ("--html", "--trace-pes", "--heat", "--roofline", "--situation")
_COLUMNS: Final = ("pipeline", "stage", "kind", "name", "arrays", "count", "cycles")

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
        from pe_sim.config.systems import load_system

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
        from pe_sim.config.plan import ParallelPlan
        from pe_sim.config.plans import load_plan

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

    from pe_sim.config.models import load_model
    from pe_sim.mapping.workflow_loading import load_workflow
    from pe_sim.systems.face import simulate_system

    model, mapping = load_model(model_name, overrides.model or None, ignore_keys=ignore_keys), load_workflow(workflow)
    report = simulate_system(
        model, system, step, plan, mapping, engine, allow_overflow=allow_overflow, progress=current_progress()
    )

    def show(stream: TextIO) -> None:
        report.print(stream)

    outputs.deliver(report.to_json, show, _writers(report))


def _writers(report: SystemReport) -> dict[str, Writer]:
    def write_tasks(path: Path) -> None:
        write_csv(path, [row.to_dict() for row in report.tasks], _COLUMNS)

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

    from pe_sim.config.models import load_model
    from pe_sim.systems.face import verify_system

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
    from pe_sim.config.plan import PARTITIONS

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
