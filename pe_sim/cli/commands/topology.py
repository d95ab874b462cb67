"""`pe-sim topology`: what an interconnect is, in numbers and as a drawing."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from pe_sim.cli.options import json_option, read_overrides, set_option
from pe_sim.cli.outputs import Outputs, Writer, format_pairs, format_table, to_json

if TYPE_CHECKING:
    from pe_sim.config.arrays.array import ArrayConfig
    from pe_sim.network.metrics import TopologyMetrics


@click.command(short_help="What is the interconnect of an array: channels, diameter, bisection, wire?")
@click.argument("array_name", metavar="ARRAY")
@click.option("--png", "png_target", metavar="FILE", help="Draw it as a PNG picture.")
@set_option
@json_option
def topology(array_name: str, png_target: str | None, settings: tuple[str, ...], json_target: str | None) -> None:
    """What is the interconnect of an array, in numbers and as a drawing?

    ARRAY is a preset (see `pe-sim arrays`) or a YAML file. Diameter: channels on the longest of the shortest ways
    between two PEs. Bisection: the least width from one half of the PEs to the other, in one direction. Wire: lengths
    under the floor plan that is stated, times 8 wires a byte per cycle.

    \b
    Examples:
      pe-sim topology mesh-256 --png mesh.png
      pe-sim topology fat-tree-256 --set num_pes=64 --set network.growth=1.5
    """
    outputs = Outputs({"--json": json_target, "--png": png_target})
    overrides = read_overrides(settings, has_model=False)

    from pe_sim.config.arrays.load import load_array
    from pe_sim.network.metrics import topology_metrics

    array = load_array(array_name, overrides.array or None)
    metrics = topology_metrics(array)
    writers: dict[str, Writer] = {}
    if png_target is not None:
        writers["--png"] = _png_writer(array)

    def show(stream: TextIO) -> None:
        _show(stream, array, metrics)

    outputs.deliver(lambda: to_json(_result(array, metrics)), show, writers)


def _png_writer(array: ArrayConfig) -> Writer:
    # Imported here: matplotlib takes long to import, and only a picture needs it.
    from pe_sim.report.plots.topology import save_topology

    def write(path: Path) -> None:
        save_topology(array, path)

    return write


def _result(array: ArrayConfig, metrics: TopologyMetrics) -> dict[str, Any]:
    from pe_sim.config.arrays.load import array_to_dict

    resolved = array_to_dict(array)
    return {
        "schema": "pe-sim.topology/1",
        "array": {key: resolved[key] for key in ("name", "clock_ghz", "num_pes", "floorplan", "network")},
        **metrics.to_dict(),
        "notes": list(array.network.notes),
    }


def _show(stream: TextIO, array: ArrayConfig, metrics: TopologyMetrics) -> None:
    width = metrics.bisection_bytes_per_cycle
    bisection = f"{width:,} B/cycle = {width * array.clock_ghz:,.6g} GB/s one way ({metrics.bisection_how})"
    stream.write(f"{array.name}: {metrics.kind}, {metrics.num_pes:,} PEs at {array.clock_ghz:g} GHz\n")
    stream.write(
        format_pairs(
            [
                ("switches", f"{metrics.num_switches:,} (switches and joints; a router belongs to its PE)"),
                ("channels", f"{metrics.num_channels:,}"),
                ("diameter", f"{metrics.diameter_hops:,} hop{'' if metrics.diameter_hops == 1 else 's'}"),
                ("bisection", bisection),
                ("wire", f"{metrics.wire_mm:,.1f} mm, {metrics.wire_bits_mm:,.0f} bit mm"),
                ("floor plan", ("\n" + " " * 14).join(textwrap.wrap(metrics.floorplan, 92))),
                *(("note", ("\n" + " " * 14).join(textwrap.wrap(note, 92))) for note in array.network.notes),
            ]
        )
    )
    stream.write(
        format_table(
            ("level", "channels", "width", "latency", "overhead", "length", "wire"),
            ("", "", "B/cycle", "cycles", "cycles", "mm", "bit mm"),
            [
                (
                    level.level,
                    f"{level.channels:,}",
                    _span(level.bytes_per_cycle),
                    _span(level.latency_cycles),
                    _span(level.overhead_cycles),
                    f"{level.length_mm:,.1f}",
                    f"{level.wire_bits_mm:,.0f}",
                )
                for level in metrics.levels
            ],
        )
    )


def _span(pair: tuple[int, int]) -> str:
    return str(pair[0]) if pair[0] == pair[1] else f"{pair[0]}-{pair[1]}"
