"""`pe-sim collective` and `pe-sim gemm`: one collective alone on an array, one GEMM alone on a PE."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TextIO

import click

from pe_sim.cli.options import (
    array_option,
    byte_sizes,
    json_option,
    overlap_option,
    read_overrides,
    set_option,
    whole_number,
)
from pe_sim.cli.outputs import Outputs, format_pairs, format_table, to_json
from pe_sim.errors import InputError
from pe_sim.units import format_seconds

if TYPE_CHECKING:
    from pe_sim.api import PartResult
    from pe_sim.config.arrays.array import ArrayConfig

_TITLES: Final = ("size", "total", "cycles", "time", "algbw", "busbw", "messages", "algorithm")
_UNITS: Final = ("bytes", "bytes", "", "", "GB/s", "GB/s", "", "")
_BEST: Final = "best"
_ALL: Final = "all"
# From algbw to busbw, as in nccl-tests (doc/PERFORMANCE.md); an all-to-all's size is there n times a pair's.
_FACTORS: Final[dict[str, Callable[[int], float]]] = {
    "all-reduce": lambda n: 2 * (n - 1) / n,
    "all-gather": lambda n: (n - 1) / n,
    "reduce-scatter": lambda n: (n - 1) / n,
    "all-to-all": lambda n: 1 / n,
}
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
@click.option(
    "--algorithm",
    metavar="NAME|best|all",
    help="How it is done on an interconnect that is a graph; all: a row for each that fits, the best one marked.",
)
@overlap_option
@set_option
@json_option
def collective(
    kind: str,
    array_name: str,
    sizes: tuple[int, ...],
    algorithm: str | None,
    overlap: int | None,
    settings: tuple[str, ...],
    json_target: str | None,
) -> None:
    """How long does one collective take when everything is ready and nothing else runs?

    KIND is broadcast, scatter, gather, reduce, all-reduce, all-gather, reduce-scatter or all-to-all. The size is per PE
    for scatter, gather, all-gather and the result of reduce-scatter, per pair for all-to-all, and of the whole
    otherwise (the partial sums of an all-reduce).

    algbw is total / time, total the size times the PEs or pairs it is for. busbw on one bus and one tree is what the
    bus carried / time, at most the bus's own rate; on a graph of channels it is what nccl-tests call so, the rate that
    the busiest end has to keep up whatever the algorithm: algbw times 2 (n - 1) / n for an all-reduce, (n - 1) / n for
    an all-gather or a reduce-scatter, 1 / n for an all-to-all and 1 for the others, n PEs.

    \b
    Examples:
      pe-sim collective all-reduce --array bus-tree-256 --bytes 16k
      pe-sim collective scatter --array bus-tree-1024 --bytes 32,1k,32k --set network.collectives.scatter=serial
      pe-sim collective all-reduce --array mesh-256 --bytes 1k,1M --algorithm all
    """
    outputs = Outputs({"--json": json_target})
    overrides = read_overrides(settings, overlap, has_model=False)

    from pe_sim import api

    array = api.load_array(array_name, overrides.array or None)
    rows = [row for size in sizes for row in _measured(kind, array, size, algorithm)]

    def make_json() -> str:
        plain: list[dict[str, Any]] = [row.result.to_dict() for row in rows]
        return to_json(plain[0] if len(plain) == 1 else plain)

    def show(stream: TextIO) -> None:
        cells = [_cells(kind, array, row) for row in rows]
        accuracy = f"# accuracy: {rows[0].result.envelope.one_line()}\n"  # the same for all sizes and algorithms
        stream.write(_heading(kind, array) + accuracy + format_table(_TITLES, _UNITS, cells))

    outputs.deliver(make_json, show)


@dataclass(frozen=True, slots=True)
class _Row:
    """The result for one size with one algorithm; `best` if it is the fastest of several that were tried."""

    size: int
    result: PartResult
    best: bool = False


def _measured(kind: str, array: ArrayConfig, size: int, algorithm: str | None) -> list[_Row]:
    from pe_sim import api
    from pe_sim.schedule.collectives import named_way, ways_of

    if algorithm is None or (algorithm in (_BEST, _ALL) and not array.network.is_graph):  # there is one way
        return [_Row(size, api.collective(kind, array, size))]
    names = ways_of(kind, array, size)
    if algorithm != _ALL:
        return [_Row(size, api.collective(kind, named_way(kind, array, algorithm), size))]
    results = [api.collective(kind, named_way(kind, array, name), size) for name in names]
    soonest = min(result.cycles for result in results)
    return [_Row(size, result, result.cycles == soonest) for result in results]


def _copies(kind: str, num_pes: int) -> int:
    """Number of living PEs, or pairs of them, that a size is given for; 1 if it is of the whole."""
    if kind == "all-to-all":
        return num_pes * (num_pes - 1)
    return num_pes if kind in _PER_PE else 1


def _heading(kind: str, array: ArrayConfig) -> str:
    scope = "per PE" if kind in _PER_PE else "per pair of PEs" if kind == "all-to-all" else "of the whole"
    dead = f" ({len(array.dead_pes)} of them dead)" if array.dead_pes else ""
    return (
        f"# {kind} on {array.name}: {array.num_pes} PEs{dead} at {array.clock_ghz:g} GHz, {_channels(array)};"
        f" size {scope}\n"
    )


def _channels(array: ArrayConfig) -> str:
    if array.network.is_graph:
        from pe_sim.network.topology.kinds import build_topology  # loads networkx

        channels = build_topology(array).channels
        widths = sorted(set(channels.bytes_per_cycle.tolist()))
        wide = f"{widths[0]} to {widths[-1]}" if len(widths) > 1 else f"{widths[0]}"
        return f"{array.network.kind} of {len(channels)} channels of {wide} B/cycle"
    bus = array.bus_tree.bus.bytes_per_cycle
    return f"bus {bus} B/cycle = {bus * array.clock_ghz:g} GB/s"


def _cells(kind: str, array: ArrayConfig, row: _Row) -> tuple[str, ...]:
    result, total = row.result, row.size * _copies(kind, array.num_living)
    messages = sum(use.messages for use in result.traffic.values())
    seconds = result.cycles / (array.clock_ghz * 1e9)
    carried = _carried(kind, array, total, result)
    return (
        str(row.size),
        str(total),
        str(result.cycles),
        format_seconds(seconds),
        _rate(total, seconds),
        _rate(carried, seconds) if carried else "-",
        str(messages),
        result.algorithm + (" <- best" if row.best else ""),
    )


def _carried(kind: str, array: ArrayConfig, total: int, result: PartResult) -> float:
    """The bytes that busbw (bus bandwidth) counts."""
    if not array.network.is_graph:
        return sum(use.bytes for tag, use in result.traffic.items() if tag != "reduce")
    return total * _FACTORS[kind](array.num_living) if kind in _FACTORS else total


def _rate(num_bytes: float, seconds: float) -> str:
    return f"{num_bytes / seconds / 1e9:.2f}" if seconds else "-"


# ---- `pe-sim gemm`: one matrix operator alone on one PE.


_MAX_MACS: Final = 2**56  # cycles and bits of so many still fit 64-bit integers


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
    from pe_sim.config.arrays.array import describe_rate

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
