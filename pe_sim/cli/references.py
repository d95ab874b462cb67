"""What `--reference` gives: takes names of known machines, gives their bounds for every step as a table and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TextIO

import click

from pe_sim.cli.values import split_names
from pe_sim.errors import InputError

if TYPE_CHECKING:
    from pe_sim.config.array import ArrayConfig
    from pe_sim.config.machines import Machine
    from pe_sim.config.model import ModelConfig
    from pe_sim.config.situations import WeightedStep
    from pe_sim.report.references import Reference

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
    """The bounds of the machines that were asked for: a tuple a step; and the machines that have none, with why."""

    of_steps: tuple[tuple[Reference, ...], ...]
    without: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, names: str, model: ModelConfig, array: ArrayConfig, steps: Sequence[WeightedStep]) -> References:
        """Of a comma list of machines, or `none`, with the array's dtypes.

        Raises:
            InputError: there is no such machine, a fault in its file, or a step that does not fit the model.
        """
        listed = split_names(names, "--reference")
        if NONE in listed and len(listed) > 1:
            raise InputError("none stands alone", source="--reference", given=names, expected="none, or machines")
        if listed == (NONE,):
            return cls((), ())
        from pe_sim.config.machines import load_machine

        able, without = [], []
        for machine in [load_machine(name) for name in listed]:
            reason = _without_peak(machine, array)
            if reason is None:
                able.append(machine)
            else:
                without.append((machine.name, reason))
        return cls(tuple(_bounds(able, model, array, step) for step, _ in steps), tuple(without))

    def show(self, step: int, best_seconds: float | None, stream: TextIO) -> None:
        """Prints the table of a step, apart from what was simulated; nothing where no machine was asked for.

        Args:
            step: its number.
            best_seconds: what the bounds are set against; None: nothing, for what was simulated does not fit.
            stream: where to.
        """
        if not self.of_steps:
            return
        from pe_sim.report.compare import WIDTH
        from pe_sim.report.references import reference_parts
        from pe_sim.report.table import emit

        notes = [f"{name} is left out: {reason}" for name, reason in self.without]
        emit((*reference_parts(self.of_steps[step], best_seconds), *notes), stream, width=WIDTH)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: a list a step; nothing where no machine was asked for."""
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
