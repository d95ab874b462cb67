"""`pe-sim sensitivity`: what one per cent of each parameter of the array is worth."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

import click

from pe_sim.cli.options import (
    StepChoice,
    array_option,
    json_option,
    read_overrides,
    simulation_options,
    split_names,
    step_options,
    workflow_option,
)
from pe_sim.cli.outputs import Outputs, Writer, to_json
from pe_sim.cli.progress import current_progress
from pe_sim.errors import InputError

if TYPE_CHECKING:
    from pe_sim.studies.sensitivity import Sensitivity

_PER_CENT: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?%")


def _change(ctx: click.Context, param: click.Parameter, value: str) -> float:
    """The relative change that was typed in per cent, for instance 1%."""
    match = _PER_CENT.fullmatch(value.strip())
    if match is None or float(match[1]) == 0:
        raise InputError(
            "not a change in per cent",
            source="--change",
            given=value,
            expected="a number above 0 with a per cent sign, for instance 1% or 12.5%; 100% doubles and halves",
        )
    return float(match[1]) / 100


@click.command(short_help="What is one per cent of bandwidth, width, latency, units or PEs worth?")
@click.argument("model_name", metavar="MODEL")
@array_option
@workflow_option
@click.option(
    "--change",
    metavar="P%",
    default="1%",
    show_default=True,
    callback=_change,
    help="How far each parameter is moved; what comes out is brought to one per cent. 100% doubles and halves.",
)
@click.option(
    "--parameters",
    metavar="A,B,C",
    help="Only these, by their names in the table, for instance bus-width,clock.  [default: all]",
)
@step_options
@simulation_options
@json_option
@click.option("--png", "png_target", metavar="FILE", help="Draw the tornado figure as a PNG picture.")
@click.option("--csv", "csv_target", metavar="FILE", help="Write a row a parameter as CSV.")
def sensitivity(
    model_name: str,
    array_name: str,
    workflow: str,
    change: float,
    parameters: str | None,
    overlap: int | None,
    settings: tuple[str, ...],
    ignore_keys: tuple[str, ...],
    engine: str,
    allow_overflow: bool,
    json_target: str | None,
    png_target: str | None,
    csv_target: str | None,
    **step: Any,
) -> None:
    """What is one per cent more, or less, of each parameter of the array worth, in per cent of the step's time?

    The machine's numbers are whole, and one per cent of 64 bytes a cycle is not: each parameter is moved up and down to
    the whole numbers nearest to --change, by one at least (64 to 63 and 65). The step is simulated in full at both, and
    the result is brought to one per cent along the line on which the timing contract has it: straight in cycles for
    latencies, straight in cycles per byte for rates. The values it was moved to stand beside it. Counts of units (PEs,
    lanes, outputs and depth of the matrix unit) cut work into tiles and shards: they are doubled and halved. `auto`
    latencies stay derived: with the number of PEs the wires grow. The clock scales everything. The workflow stays the
    same throughout.

    An elasticity of -0.8 means: one per cent more of it, 0.8 per cent less time. Those of all latencies less those of
    all rates come to 1, as a machine in which everything is one per cent faster takes one per cent less time.

    \b
    Examples:
      pe-sim sensitivity llama-2-7b --array bus-tree-256 --workflow workflow-1 --context 2048 --png tornado.png
      pe-sim sensitivity llama-3.2-1b --array bus-tree-1024 --workflow megatron --csv worth.csv
      pe-sim sensitivity llama-2-7b --array mesh-256 --workflow megatron --parameters link-width,link-latency
      pe-sim sensitivity llama-2-7b --phase prefill --prompt 512 --change 100%
    """
    outputs = Outputs({"--json": json_target, "--png": png_target, "--csv": csv_target})
    overrides = read_overrides(settings, overlap)
    steps = StepChoice(**step).weighted_steps()
    names = split_names(parameters, "--parameters") if parameters is not None else None

    from pe_sim import api
    from pe_sim.studies.sensitivity import sensitivity as measure

    model = api.load_model(model_name, overrides.model or None, ignore_keys=ignore_keys)
    found = measure(
        model,
        array_name,
        steps,
        workflow,
        engine,
        change=change,
        parameters=names,
        overrides=overrides.array,
        allow_overflow=allow_overflow,
        progress=current_progress(),
    )
    outputs.deliver(lambda: to_json(found.to_dict()), _shower(found), _writers(found, png_target is not None))


def _shower(found: Sensitivity) -> Callable[[TextIO], None]:
    def show(stream: TextIO) -> None:
        found.print(stream)

    return show


def _writers(found: Sensitivity, drawn: bool) -> dict[str, Writer]:
    def write_csv(path: Path) -> None:
        found.to_frame().to_csv(path, index=False, lineterminator="\n")

    writers: dict[str, Writer] = {"--csv": write_csv}
    if drawn:
        from pe_sim.studies.sensitivity import save_sensitivity

        writers["--png"] = lambda path: save_sensitivity(found, path)
    return writers
