"""`pe-sim search` on several arrays: its options, and the search of plans and workflows."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final, Self, TextIO, TypeVar

import click

from pe_sim.cli.faults import INTERRUPTED as INTERRUPTED_CODE
from pe_sim.cli.options import StepChoice
from pe_sim.cli.outputs import Outputs, to_json
from pe_sim.cli.progress import current_progress
from pe_sim.cli.run_system import SystemChoice, check_arrays
from pe_sim.errors import InputError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from pe_sim.systems.search_result import SystemSearchResult, Tried

_Command = TypeVar("_Command", bound=Callable[..., Any])
_WIDTH: Final = 150
_REASONS: Final = 8  # of what was refused
_DEGREES: Final = ("dp", "tp", "pp", "cp")


def _numbers(_: click.Context, option: click.Parameter, text: str | None) -> tuple[int, ...]:
    """Whole numbers from 1 on, with commas between."""
    if text is None:
        return ()
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdecimal() and 0 < int(part) < 2**31 for part in parts):
        raise InputError(
            "not degrees",
            source=f"--{option.name}",
            given=text,
            expected="whole numbers from 1 on with commas between, for instance 1,2,8",
        )
    return tuple(int(part) for part in parts)


def _seconds(_: click.Context, __: click.Parameter, text: str) -> float:
    """Seconds above 0, or inf."""
    match = re.fullmatch(r"(\d{1,15}(\.\d*)?|\.\d+|inf)", text.strip().lower(), re.ASCII)
    seconds = float(match[1]) if match else 0.0
    if not seconds > 0:
        raise InputError(
            "this is no time for a search",
            source="--seconds",
            given=text,
            expected="seconds above 0, for instance 30 or 0.5; inf to search to the end",
        )
    return seconds


seconds_option: Final = click.option(
    "--seconds",
    metavar="S",
    callback=_seconds,
    default="30",
    show_default=True,
    help="Time for the search; then it gives the best so far, with its gap. inf: it goes on to its end.",
)

_OPTIONS: Final = (
    click.option(
        "--arrays",
        metavar="SYSTEM",
        help="Search a plan for several arrays joined by links, in place of --array: a preset (see `pe-sim systems`)"
        " or a YAML file.",
    ),
    *(
        click.option(f"--{name}", metavar="N,M", callback=_numbers, help=f"Values of {name} that may be taken: {what}.")
        for name, what in zip(
            _DEGREES,
            ("shares of the batch", "shares of the operators", "stages of layers", "shares of the tokens"),
            strict=True,
        )
    ),
    click.option("--plan-out", metavar="FILE.yaml", help="Write the best plan as a plan file.  [with --arrays]"),
)


def search_system_options(command: _Command) -> _Command:
    """Adds the options of a search on several arrays."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@dataclass(frozen=True, slots=True)
class SystemSearch:
    """The values of `search_system_options`."""

    arrays: str | None
    dp: tuple[int, ...]
    tp: tuple[int, ...]
    pp: tuple[int, ...]
    cp: tuple[int, ...]
    plan_out: str | None

    @classmethod
    def taken(cls, options: MutableMapping[str, Any]) -> Self:
        """Takes its own values out of those of a command, and checks that they go together.

        Raises:
            InputError: both --array and --arrays, or something for several arrays where there is one.
        """
        choice = cls(*(options.pop(field.name) for field in fields(cls)))
        given: dict[str, object] = {f"--{name}": getattr(choice, name) for name in _DEGREES if getattr(choice, name)}
        if choice.plan_out is not None:
            given["--plan-out"] = choice.plan_out
        check_arrays(choice.arrays, given)
        return choice

    def run(
        self,
        model_name: str,
        step: StepChoice,
        settings: tuple[str, ...],
        ignore_keys: tuple[str, ...],
        overlap: int | None,
        objective: str,
        workflow: str,
        simulations: int | None,
        seconds: float,
        top: int,
        outputs: Outputs,
    ) -> None:
        """Searches, and delivers what was asked for.

        Raises:
            InputError: something given is wrong; InfeasibleError where no plan fits the memories.
        """
        if step.situation is not None:
            raise InputError(
                "a plan is searched for one step",
                source="--situation",
                given=step.situation,
                hint="give the step itself: --phase, --batch, --context, --prompt",
            )
        built = step.build()
        choice = SystemChoice(self.arrays, None, None, None, None, None, None, None)
        system, overrides = choice.load_system(settings, overlap)

        from pe_sim.config.models import load_model
        from pe_sim.systems.search import SIMULATED_AT_MOST, search_system
        from pe_sim.systems.search_space import Allowed

        model = load_model(model_name, overrides.model or None, ignore_keys=ignore_keys)
        found = search_system(
            model,
            system,
            built,
            objective,
            workflow=workflow,
            allowed=Allowed(self.dp, self.tp, self.pp, self.cp),
            max_simulations=simulations or SIMULATED_AT_MOST,
            seconds=seconds,
            progress=current_progress(),
        )

        def show(stream: TextIO) -> None:
            from pe_sim.report.table import emit

            emit(_shown(found, top), stream, width=_WIDTH)

        def make_json() -> str:
            return to_json(found.to_dict(top))

        outputs.deliver(make_json, show, {"--write": found.save_workflow, "--plan-out": found.save_plan})
        end_as(found.stopped)


def end_as(stopped: str | None) -> None:
    """Ends the command as shells expect it after Ctrl-C, its results delivered all the same."""
    from pe_sim.mapping_search.result import INTERRUPTED

    if stopped == INTERRUPTED:
        click.echo("interrupted: this is the best so far", err=True)
        raise SystemExit(INTERRUPTED_CODE)


def refuse_on_systems(given: Mapping[str, object]) -> None:
    """Refuses what only a search on one array has; what is None or False was not given.

    Raises:
        InputError: one was given.
    """
    for option, value in given.items():
        if value:
            raise InputError(
                "only a search on one array has this",
                source=option,
                given=value,
                hint="leave it out, or search for one array (--array)",
            )


def _shown(found: SystemSearchResult, top: int) -> list[RenderableType]:
    from pe_sim.report.table import make_table

    best = found.best
    parts: list[RenderableType] = [found.headline()]
    parts.append(
        f"{best.tokens_per_second:,.2f} tokens/s on {best.num_arrays} arrays; of their time {best.link_share:.1%} in"
        f" exchanges, {best.bubble_share:.1%} otherwise idle"
    )
    heads = ("arrays", "dp", "tp", "pp", "cp", "parts", "cut", "LM head", "cycles", "tokens/s", "links", "idle", "a PE")
    rows = [_row(one, marked=one is best) for one in found.tried[:top]]
    parts.append(make_table("The best plans", "workflow", *heads, rows=rows))
    if found.refused:
        parts.append("\nRefused:")
        counts: dict[str, int] = {}
        for one in found.refused:
            counts[one.reason] = counts.get(one.reason, 0) + 1
        most = sorted(counts.items(), key=lambda entry: -entry[1])
        parts += [f"  {reason}: {count:,} plan{'s' if count > 1 else ''}" for reason, count in most[:_REASONS]]
    return parts


def _row(one: Tried, *, marked: bool) -> tuple[str, ...]:
    from pe_sim.units import format_bytes

    plan = one.plan
    cut = plan.partition if isinstance(plan.partition, str) else "bounds"
    head = f"{plan.head.dp} x {plan.head.tp}" if plan.head else "-"
    return (
        one.label + (" *" if marked else ""),
        str(one.num_arrays),
        *(str(getattr(plan, name)) for name in _DEGREES),
        str(plan.microbatches or 1),
        cut if plan.pp > 1 else "-",
        head,
        f"{one.cycles:,}",
        f"{one.tokens_per_second:,.1f}",
        f"{one.link_share:.1%}",
        f"{one.bubble_share:.1%}",
        format_bytes(one.peak_bytes_per_pe),
    )
