"""`pe-sim calibrate`: latency and bandwidth of a machine from measurements of its collectives."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

import click

from pe_sim.cli.options import json_option
from pe_sim.cli.outputs import Outputs, Writer, text_writer, to_json
from pe_sim.errors import InputError

if TYPE_CHECKING:
    from pe_sim.studies.calibration import Calibration


def _clock(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """The clock in GHz that was typed."""
    if value is None:
        return None
    try:
        clock = float(value)
    except ValueError:
        clock = math.nan
    if not 0 < clock <= 1000:  # as in an array file
        raise InputError("not a clock", source="--clock-ghz", given=value, expected="GHz above 0, at most 1000")
    return clock


@click.command(short_help="Latency and bandwidth from Galvatron's profiles of a machine.")
@click.argument("profiles", metavar="PROFILE...", nargs=-1)
@click.option(
    "--clock-ghz",
    "clock_ghz",
    metavar="GHZ",
    callback=_clock,
    help="Clock of the machine to be simulated, whose cycles are counted.  [default: the array's, or 1.0]",
)
@click.option(
    "--array",
    "array_name",
    metavar="ARRAY",
    help="The machine whose bus and tree are to take as long as was measured: a preset or a YAML file."
    "  [default: one with a PE for each device]",
)
@json_option
@click.option("--csv", "csv_target", metavar="FILE", help="Write a row a measurement, with its fit, as CSV.")
@click.option("--png", "png_target", metavar="FILE", help="Draw measurements and fits as a PNG picture.")
@click.option("--out", "out_target", metavar="FILE.yaml", help="Write the array with the fitted bus and tree.")
def calibrate(
    profiles: tuple[str, ...],
    clock_ghz: float | None,
    array_name: str | None,
    json_target: str | None,
    csv_target: str | None,
    png_target: str | None,
    out_target: str | None,
) -> None:
    """Which latency and bandwidth does a machine have whose collectives were measured?

    PROFILE is a JSON file that Galvatron's profilers wrote; several of one machine are taken as one. Known by their
    keys are rates (allreduce_size_8_consec_1, pp_size_2; GB/s), times (allreduce_size_8_1MB_time,
    all2all_size_8_1MB_time; ms), the overlap coefficient (overlap_coe) and times of whole models
    (layernum[2]_bsz1_seq2048; ms).

    For every number of devices n, and over all of them, the time is fitted as latency + bytes / bandwidth, the bytes
    those that each device has to send: 2 (n - 1) / n of an all-reduce, (n - 1) / n of an all-to-all. The residuals tell
    how far that goes. What comes out is printed as --set lines for an array's bus and tree and for the links of a
    system; --out writes ARRAY with them. At overlap 1 to 3 the bandwidth is divided by the overlap coefficient.

    \b
    Examples:
      pe-sim calibrate sp_time_1nodes_8gpus_per_node.json
      pe-sim calibrate hardware_configs/*.json --clock-ghz 1.4 --png fits.png --csv residuals.csv
      pe-sim calibrate hardware_configs/*.json --array bus-tree-256 --out measured.yaml
      pe-sim collective all-reduce --array measured.yaml --bytes 64M
    """
    targets = {"--json": json_target, "--csv": csv_target, "--png": png_target, "--out": out_target}
    outputs = Outputs(targets)
    _check(profiles, clock_ghz, array_name, out_target)

    from pe_sim.studies.calibration import calibrate as fit

    found = fit(profiles, clock_ghz, array_name)
    array = _array_text(found) if out_target is not None else ""
    writers: dict[str, Writer] = {
        "--csv": lambda path: found.to_frame().to_csv(path, index=False, lineterminator="\n"),
        "--png": found.save_plot,
        "--out": text_writer(array),
    }
    outputs.deliver(lambda: to_json(found.to_dict()), _shower(found), writers)


def _check(profiles: tuple[str, ...], clock_ghz: float | None, array_name: str | None, out: str | None) -> None:
    if not profiles:
        raise InputError(
            "no profile is given",
            source="PROFILE",
            expected="one or more JSON files of Galvatron's profilers",
            hint="see pe-sim calibrate --help",
        )
    if clock_ghz is not None and array_name is not None:
        raise InputError(
            "an array has its own clock", source="--clock-ghz", given=clock_ghz, hint="give --clock-ghz or --array"
        )
    if out is not None and array_name is None:
        raise InputError(
            "there is no array to write", source="--out", given=out, hint="add --array, for instance bus-tree-256"
        )


def _array_text(found: Calibration) -> str:
    from pe_sim.studies.calibration import array_text

    return array_text(found)


def _shower(found: Calibration) -> Callable[[TextIO], None]:
    def show(stream: TextIO) -> None:
        found.print(stream)

    return show
