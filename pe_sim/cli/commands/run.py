"""`pe-sim run`: one step of a model under a workflow, on one array or on several."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

import click

from pe_sim.cli.machines import PlanChoice, system_options
from pe_sim.cli.options import (
    StepChoice,
    array_option,
    html_option,
    json_option,
    pe_choice,
    read_overrides,
    refuse_given,
    roofline_option,
    simulation_options,
    step_options,
    timeline_option,
    workflow_option,
)
from pe_sim.cli.outputs import Outputs, to_json, write_csv
from pe_sim.cli.progress import current_progress
from pe_sim.cli.situations import Served, print_served, refuse_files, simulate_all
from pe_sim.errors import InputError

if TYPE_CHECKING:
    from pe_sim.api import Report

# Files of one step by their options: the names of their parameters.
_FILES: Final = {
    "--html": "html_target",
    "--trace": "trace",
    "--csv": "csv_target",
    "--channels": "channels_target",
    "--heat": "heat_target",
    "--roofline": "roofline_target",
    "--timeline": "timeline_target",
}
_OF_ONE_ARRAY: Final = ("--html", "--trace-pes", "--heat", "--roofline", "--situation")
_PICTURES: Final = {
    "--html": "save_html",
    "--heat": "save_channel_heat",
    "--roofline": "save_roofline",
    "--timeline": "save_timeline",
}


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
    trace_pes: str | tuple[int, ...] | None,
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
    plans = PlanChoice.taken(others)
    files: dict[str, str | None] = {option: others.pop(name) for option, name in _FILES.items()}
    outputs = Outputs({"--json": json_target, **files})
    choice, several = StepChoice(**others), plans.arrays is not None
    asked = {**files, "--trace-pes": trace_pes, "--situation": choice.situation}
    if several:
        refuse_given(
            {option: asked[option] for option in _OF_ONE_ARRAY},
            "only a run on one array has this",
            "leave it out, or run one array (--array); with --arrays there are --json, --trace, --csv, --channels and"
            " --timeline",
        )
    elif files["--timeline"] is not None:
        raise InputError(
            "only several arrays have a timeline of stages", source="--timeline", hint="add --arrays SYSTEM"
        )
    if trace_pes is not None and files["--trace"] is None:
        raise InputError("there is no trace to choose PEs for", source="--trace-pes", hint="add --trace FILE")
    overrides = read_overrides(settings, overlap, several=several)
    situation = choice.load_situation()
    if situation is not None:
        refuse_files(situation, files)
    steps = choice.weighted_steps()  # before the heavy imports: a wrong option is told at once

    from pe_sim import api

    model = api.load_model(model_name, overrides.model or None, ignore_keys=ignore_keys)
    machine, plan = plans.load(array_name, overrides)
    mapping = api.load_workflow(workflow)
    if situation is not None:
        situation.check_against(model)
    served: Served | None = None
    report: Any
    if several:
        tell, step = current_progress(), choice.build()
        report = api.simulate(
            model, machine, step, mapping, engine, plan=plan, allow_overflow=allow_overflow, progress=tell
        )
    else:
        reports = simulate_all(model, machine, steps, mapping, engine, allow_overflow=allow_overflow)
        report, served = reports[0], Served(situation, reports) if situation else None
    if trace_pes is not None:
        _check_pes(report, trace_pes)

    def make_json() -> str:
        return to_json(served.to_dict()) if served else str(report.to_json())

    def show(stream: TextIO) -> None:
        if served:
            print_served(served, stream)
        else:
            report.print(stream)

    def write_rows(path: Path) -> None:
        write_csv(path, [row.to_dict() for row in report.operators])

    def write_channels(path: Path) -> None:
        channels = report.links if several else report.channels
        write_csv(path, channels.to_rows() if channels else [], ("name", "level"))

    writers = {option: getattr(report, _PICTURES[option]) for option in _PICTURES if files[option] is not None}
    save_trace = report.save_trace if several else partial(report.save_trace, pes=trace_pes or "classes")
    writers |= {"--trace": save_trace, "--csv": write_rows, "--channels": write_channels}
    outputs.deliver(make_json, show, writers)


def _check_pes(report: Report, pes: str | Sequence[int]) -> None:
    """Checks that the PEs of --trace-pes exist, before a file is begun; an error names the option.

    Raises:
        InputError: as `Report.save_trace` raises it.
    """
    from pe_sim.report.perfetto.tracks import check_pes

    try:
        check_pes(report, pes)
    except InputError as error:
        raise InputError(
            error.problem, source="--trace-pes", given=error.given, expected=error.expected, hint=error.hint
        ) from None
