"""`pe-sim gemm`: one matrix operator alone on one PE."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TextIO

import click

from pe_sim.cli.options import array_option, json_option, overlap_option, read_overrides, set_option
from pe_sim.cli.outputs import Outputs, to_json
from pe_sim.cli.tables import format_pairs
from pe_sim.cli.values import whole_number
from pe_sim.errors import InputError
from pe_sim.units import format_seconds

if TYPE_CHECKING:
    from pe_sim.api import PartResult
    from pe_sim.config.array import ArrayConfig

_MAX_MACS: Final = 2**56  # cycles and bits of so many still count inside 64-bit integers


@click.command(short_help="How long does one PE take for one GEMM?")
@array_option
@click.option("-m", "rows", metavar="M", callback=whole_number, required=True, help="Rows of the activations.")
@click.option(
    "-k", "inner", metavar="K", callback=whole_number, required=True, help="Inner size, inputs of the matrix."
)
@click.option("-n", "outer", metavar="N", callback=whole_number, required=True, help="Outputs of the matrix.")
@overlap_option
@set_option
@json_option
def gemm(
    array_name: str,
    rows: int,
    inner: int,
    outer: int,
    overlap: int | None,
    settings: tuple[str, ...],
    json_target: str | None,
) -> None:
    """How long does one PE take for one GEMM, weights streamed from its local memory?

    y = W x with W of N x K elements and M rows x. Sizes are elements; nothing was prefetched.

    \b
    Examples:
      pe-sim gemm --array bus-tree-256 -m 1 -k 4096 -n 16
      pe-sim gemm --array bus-tree-256 -m 512 -k 4096 -n 43 --overlap 0 --json -
    """
    outputs = Outputs({"--json": json_target})
    overrides = read_overrides(settings, overlap, has_model=False)
    if min(rows, inner, outer) > 0 and rows * inner * outer > _MAX_MACS:
        raise InputError(
            "too large a GEMM", source="-m, -k, -n", given=[rows, inner, outer], expected=f"m k n <= {_MAX_MACS:,}"
        )

    from pe_sim import api

    array = api.load_array(array_name, overrides.array or None)
    result = api.gemm(array, rows, inner, outer)

    def show(stream: TextIO) -> None:
        stream.write(f"GEMM m {rows}, k {inner}, n {outer} on one PE of {array.name}\n")
        stream.write(format_pairs(_figures(array, 2 * rows * inner * outer, result)))

    outputs.deliver(lambda: to_json(result.to_dict()), show)


def _figures(array: ArrayConfig, flops: int, result: PartResult) -> list[tuple[str, str]]:
    from pe_sim.config.arrays import describe_rate

    matrix, seconds = array.pe.matrix, result.cycles / (array.clock_ghz * 1e9)
    peak = 2 * matrix.outputs * matrix.depth  # a MAC is two
    rate = flops / result.cycles
    return [
        ("cycles", f"{result.cycles:,}"),
        ("time", f"{format_seconds(seconds)} at {array.clock_ghz:g} GHz"),
        ("rate", f"{rate:,.1f} of {peak:,} flop/cycle, {rate / peak:.1%} of the matrix unit's peak"),
        ("array", f"{matrix.outputs} x {matrix.depth} MACs, {describe_rate(array.pe.memory)} local memory"),
        ("weights", array.dtypes.weight.name),
        ("overlap", str(array.overlap)),
        ("accuracy", result.envelope.one_line()),
    ]
