"""`pe-sim collective`: one collective alone on an array."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TextIO

import click

from pe_sim.cli.options import array_option, json_option, overlap_option, read_overrides, set_option
from pe_sim.cli.outputs import Outputs, to_json
from pe_sim.cli.tables import format_table
from pe_sim.cli.values import byte_sizes
from pe_sim.units import format_seconds

if TYPE_CHECKING:
    from pe_sim.api import PartResult
    from pe_sim.config.array import ArrayConfig

_TITLES: Final = ("size", "total", "cycles", "time", "algbw", "busbw", "messages", "algorithm")
_UNITS: Final = ("bytes", "bytes", "", "", "GB/s", "GB/s", "", "")
_PER_PE: Final = ("scatter", "gather", "all-gather", "reduce-scatter")


@click.command(short_help="How long does one collective take on its own?")
@click.argument("kind", metavar="KIND")
@array_option
@click.option(
    "--bytes",
    "sizes",
    metavar="B[,B2,...]",
    callback=byte_sizes,
    required=True,
    help="Size of the payload in bytes; k, M, G and T are powers of 1024. A row for each size.",
)
@overlap_option
@set_option
@json_option
def collective(
    kind: str,
    array_name: str,
    sizes: tuple[int, ...],
    overlap: int | None,
    settings: tuple[str, ...],
    json_target: str | None,
) -> None:
    """How long does one collective take when everything is ready and nothing else runs?

    KIND is broadcast, scatter, gather, reduce, all-reduce, all-gather, reduce-scatter or all-to-all. The size is per PE
    for scatter, gather, all-gather and the result of reduce-scatter, per pair for all-to-all, and of the whole
    otherwise (the partial sums of an all-reduce).

    algbw is total / time, total the size times the PEs or pairs it is for; busbw is what the bus carried / time, at
    most the bus's own rate.

    \b
    Examples:
      pe-sim collective all-reduce --array bus-tree-256 --bytes 16k
      pe-sim collective scatter --array bus-tree-1024 --bytes 32,1k,32k --set network.collectives.scatter=serial
    """
    outputs = Outputs({"--json": json_target})
    overrides = read_overrides(settings, overlap, has_model=False)

    from pe_sim import api

    array = api.load_array(array_name, overrides.array or None)
    results = [api.collective(kind, array, size) for size in sizes]

    def make_json() -> str:
        plain: list[dict[str, Any]] = [result.to_dict() for result in results]
        return to_json(plain[0] if len(plain) == 1 else plain)

    def show(stream: TextIO) -> None:
        rows = [
            _row(array, size, size * _copies(kind, array.num_pes), result)
            for size, result in zip(sizes, results, strict=True)
        ]
        stream.write(_heading(kind, array) + format_table(_TITLES, _UNITS, rows))

    outputs.deliver(make_json, show)


def _copies(kind: str, num_pes: int) -> int:
    """How many PEs or pairs of PEs have the size each."""
    if kind == "all-to-all":
        return num_pes * (num_pes - 1)
    return num_pes if kind in _PER_PE else 1


def _heading(kind: str, array: ArrayConfig) -> str:
    scope = "per PE" if kind in _PER_PE else "per pair of PEs" if kind == "all-to-all" else "of the whole"
    bus = array.network.bus.bytes_per_cycle
    return (
        f"# {kind} on {array.name}: {array.num_pes} PEs at {array.clock_ghz:g} GHz,"
        f" bus {bus} B/cycle = {bus * array.clock_ghz:g} GB/s; size {scope}\n"
    )


def _row(array: ArrayConfig, size: int, total: int, result: PartResult) -> tuple[str, ...]:
    on_bus = sum(use.bytes for tag, use in result.traffic.items() if tag != "reduce")
    messages = sum(use.messages for use in result.traffic.values())
    seconds = result.cycles / (array.clock_ghz * 1e9)
    return (
        str(size),
        str(total),
        str(result.cycles),
        format_seconds(seconds),
        _rate(total, seconds),
        _rate(on_bus, seconds) if on_bus else "-",
        str(messages),
        result.algorithm,
    )


def _rate(num_bytes: int, seconds: float) -> str:
    return f"{num_bytes / seconds / 1e9:.2f}" if seconds else "-"
