"""Options for several arrays and for plans: what they mean, and the array or system that a command is for."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

import click
from click.core import ParameterSource

from pe_sim.cli.options import Overrides, add_options, whole_number
from pe_sim.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from pe_sim.config.plans.plan import ParallelPlan

_Command = TypeVar("_Command", bound=Callable[..., Any])

DEGREES: Final = ("dp", "tp", "pp", "cp")
_COMMAND_LINE: Final = "command line"
_BOUNDS: Final = re.compile(r"[+-]?[0-9]{1,9}(?:,[+-]?[0-9]{1,9})*")
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


def system_options(command: _Command) -> _Command:
    """Adds the options that name several arrays and a plan for them to a command."""
    return add_options(_SYSTEM_OPTIONS, command)


def check_arrays(arrays: str | None, given: Mapping[str, object]) -> None:
    """Checks that options for several arrays go with --arrays, and that --array is not given with it.

    Args:
        arrays: the value of --arrays.
        given: the options for several arrays that were given, with their values.

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
class PlanChoice:
    """The values of `system_options`; None where the user gave none."""

    arrays: str | None = None
    plan: str | None = None
    dp: int | None = None
    tp: int | None = None
    pp: int | None = None
    cp: int | None = None
    partition: str | None = None
    microbatches: int | None = None

    @classmethod
    def taken(cls, options: MutableMapping[str, Any]) -> Self:
        """The choice in a command's options, which are removed from them and checked to go together.

        Raises:
            InputError: both --array and --arrays, or a plan without --arrays.
        """
        choice = cls(*(options.pop(field.name) for field in fields(cls)))
        check_arrays(choice.arrays, {f"--{name}": value for name, value in choice._given().items()})
        return choice

    def load(self, array: str, overrides: Overrides) -> tuple[Any, ParallelPlan | None]:
        """The array or system that is simulated, with its overrides, and the plan for several arrays.

        Args:
            array: the value of --array.
            overrides: those of the array, or of the system.

        Returns:
            The ArrayConfig and None; or the SystemConfig and the plan: the file's with the changes of options, or that
            of the options alone, or None if neither is given.

        Raises:
            InputError: there is no such array, system or file, or it, an option, a path or a value is wrong.
        """
        if self.arrays is None:
            from pe_sim.config.arrays.load import load_array

            return load_array(array, overrides.array or None), None
        from pe_sim.config.systems.load import load_system

        try:
            system = load_system(self.arrays, overrides.array or None)
        except InputError as error:
            raise _with_paths(error) from None
        return system, self._load_plan(len(system.alive))

    def _load_plan(self, num_arrays: int) -> ParallelPlan | None:
        given = self._given()
        given.pop("plan", None)
        if self.plan is None and not given:
            return None
        from pe_sim.config.plans.load import load_plan
        from pe_sim.config.plans.plan import ParallelPlan

        if "partition" in given:
            given["partition"] = _partition(str(given["partition"]))
        if self.plan is not None:
            changes = {name: list(value) if isinstance(value, tuple) else value for name, value in given.items()}
            return load_plan(self.plan, changes or None, num_arrays=num_arrays)
        words = [f"{name} {given[name]}" for name in DEGREES if given.get(name, 1) != 1]
        return load_plan(ParallelPlan(name=" x ".join(words) or "one array", source=_COMMAND_LINE, **given))

    def _given(self) -> dict[str, Any]:
        """The values of the plan's options that were given, by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if name != "arrays" and value is not None}


def _with_paths(error: InputError) -> InputError:
    """The error, with a hint on how a path that only an array has is reached in a system."""
    path = (error.source or "").removeprefix("--set ")
    if error.problem != "unknown path" or path.startswith(("array.", "arrays.", "links.")):
        return error
    hint = f"of all arrays it is array.{path}, of one entry arrays.N.set.{path}"
    return InputError(error.problem, source=error.source, expected=error.expected, hint=f"{hint}; {error.hint}")


def _partition(text: str) -> str | tuple[int, ...]:
    """The name of a method of partitioning, or the bounds in a comma list."""
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
