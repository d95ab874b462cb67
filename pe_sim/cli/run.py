"""`pe-sim run`: one step of a model on an array under a workflow."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

import click

from pe_sim.cli.options import (
    StepChoice,
    array_option,
    html_option,
    json_option,
    read_overrides,
    simulation_options,
    step_options,
    workflow_option,
)
from pe_sim.cli.outputs import Outputs, Writer, to_json
from pe_sim.cli.pictures import roofline_option
from pe_sim.cli.run_system import SystemChoice, refuse_for_systems, run_system, system_options, timeline_option
from pe_sim.cli.situations import Served, print_served, refuse_files, simulate_all
from pe_sim.cli.tables import write_csv as save_csv
from pe_sim.cli.values import pe_choice
from pe_sim.errors import InputError

if TYPE_CHECKING:
    from pe_sim.api import Report

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
    from pe_sim.report.pe_tracks import check_pes

    try:
        check_pes(report, pes)
    except InputError as error:
        raise InputError(
            error.problem, source="--trace-pes", given=error.given, expected=error.expected, hint=error.hint
        ) from None
