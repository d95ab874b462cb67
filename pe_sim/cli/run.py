"""`pe-sim run`: one step of a model on an array under a workflow."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TextIO

import click

from pe_sim.cli.options import (
    DEFAULT_WORKFLOW,
    StepChoice,
    array_option,
    json_option,
    read_overrides,
    simulation_options,
    step_options,
)
from pe_sim.cli.outputs import Outputs, Writer, text_writer, to_json
from pe_sim.cli.situations import Served, print_served, refuse_files, simulate_all

_COLUMNS: Final = ("layer", "name", "distribution", "flops", "bytes", "start", "end", "cycles", "bound_by")


@click.command()
@click.argument("model_name", metavar="MODEL")
@array_option
@click.option(
    "--workflow",
    metavar="W",
    default=DEFAULT_WORKFLOW,
    show_default=True,
    help="How operators are distributed: a name (see `pe-sim workflows`) or a YAML file.",
)
@step_options
@simulation_options
@json_option
@click.option("--trace", metavar="FILE", help="Write the trace, for Perfetto (ui.perfetto.dev).")
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
def run(
    model_name: str,
    array_name: str,
    workflow: str,
    overlap: int | None,
    settings: tuple[str, ...],
    engine: str,
    allow_overflow: bool,
    json_target: str | None,
    trace: str | None,
    csv_target: str | None,
    channels_target: str | None,
    heat_target: str | None,
    **step: Any,
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
      pe-sim run llama-2-7b --workflow megatron --situation mixed
    """
    files = {"--trace": trace, "--csv": csv_target, "--channels": channels_target, "--heat": heat_target}
    outputs = Outputs({"--json": json_target, **files})
    overrides = read_overrides(settings, overlap)
    choice = StepChoice(**step)
    situation = choice.load_situation()
    if situation is not None:
        refuse_files(situation, files)
    steps = choice.weighted_steps()  # before the heavy imports: a wrong option is told at once

    from pe_sim import api
    from pe_sim.report.table import print_report

    model = api.load_model(model_name, overrides.model or None)
    array = api.load_array(array_name, overrides.array or None)
    mapping = api.load_workflow(workflow)
    if situation is not None:
        situation.check_against(model)
    reports = simulate_all(model, array, steps, mapping, engine, allow_overflow=allow_overflow)
    report = reports[0]

    def make_json() -> str:
        return to_json(Served(situation, reports).to_dict()) if situation else report.to_json()

    def show(stream: TextIO) -> None:
        if situation:
            print_served(Served(situation, reports), stream)
        else:
            print_report(report, stream)

    def write_csv(path: Path) -> None:
        text_writer(_to_csv([row.to_dict() for row in report.operators]))(path)

    def write_channels(path: Path) -> None:
        text_writer(_to_csv(report.channels.to_rows()))(path)

    writers: dict[str, Writer] = {
        "--trace": report.save_trace,
        "--csv": write_csv,
        "--channels": write_channels,
        "--heat": report.save_channel_heat,
    }
    outputs.deliver(make_json, show, writers)


def _to_csv(rows: Sequence[Mapping[str, object]]) -> str:
    """A header and one line an operator or a channel; empty where there is no value."""
    columns = list(dict.fromkeys(key for row in rows for key in row)) or list(_COLUMNS)
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
