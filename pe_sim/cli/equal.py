"""Several `--array` beside each other, made equal in one thing: takes their names, gives the arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import click

from pe_sim.cli.options import DEFAULT_ARRAY
from pe_sim.errors import InputError

if TYPE_CHECKING:
    from pe_sim.config.array import ArrayConfig

PES, AREA, WIRE = "pes", "area", "wire"
EQUALS: Final = (PES, AREA, WIRE)
_EQUAL: Final = 0.05  # so far off, area or wire count as equal: PEs and bytes are whole numbers

arrays_option = click.option(
    "--array",
    "array_names",
    metavar="ARRAY",
    multiple=True,
    default=(DEFAULT_ARRAY,),
    show_default=True,
    help="The machine: a preset (see `pe-sim arrays`) or a YAML file. Repeat it to compare machines.",
)
equal_option = click.option(
    "--equal",
    type=click.Choice(EQUALS),
    help="What the other arrays get as much of as the first one has. pes: PEs. area: as many PEs as fit its silicon."
    " wire: widths scaled to the wire of its interconnect. What is off by more than 5% is marked and not ranked.",
)


mixed_option = click.option(
    "--mixed-process",
    is_flag=True,
    help="With --equal area: compare areas also of arrays whose logic is of different processes.",
)


@dataclass(frozen=True, slots=True)
class Beside:
    """Arrays to compare.

    Args:
        arrays: by what the user called them.
        unequal: those that could not be made equal, and how far off they are.
    """

    arrays: dict[str, ArrayConfig]
    unequal: dict[str, str]


def load_arrays(names: Sequence[str], equal: str | None, overrides: Mapping[str, object], *, mixed: bool) -> Beside:
    """The arrays by what the user called them, the overrides set in each, made equal as far as that goes.

    Raises:
        InputError: one is named twice, is wrong or cannot be made equal; there is only one to make equal; or areas of
            different processes would be, unless `mixed`.
    """
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError("this array is named twice", source="--array", given=twice)
    if equal is not None and len(names) == 1:
        raise InputError(
            "there is nothing to make equal to a single array",
            source="--equal",
            given=equal,
            hint=f"name the others too: --array {names[0]} --array ...",
        )
    from pe_sim.config.arrays import load_array

    arrays, unequal = {names[0]: load_array(names[0], overrides or None)}, dict[str, str]()
    first = arrays[names[0]]
    for name in names[1:]:
        if equal == AREA:
            if not mixed:
                _check_process(first, load_array(name, overrides or None))
            arrays[name], has, wanted = _at_area(first, name, overrides)
        elif equal == WIRE:
            arrays[name], has, wanted = _at_wire(first, load_array(name, overrides or None))
        else:
            like = {"num_pes": first.num_pes} if equal == PES else {}
            arrays[name], has, wanted = load_array(name, {**overrides, **like} or None), 1.0, 1.0
        if abs(has / wanted - 1) > _EQUAL:
            unit = "mm2" if equal == AREA else "bit mm"
            unequal[name] = f"NOT OF EQUAL {str(equal).upper()}: {has:,.0f} of {wanted:,.0f} {unit}, {has / wanted:.0%}"
    return Beside(arrays, unequal)


def _check_process(first: ArrayConfig, other: ArrayConfig) -> None:
    from pe_sim.report.table import process_words

    if first.process != other.process:
        raise InputError(
            "areas of different processes are not compared",
            source="--equal area",
            given=f"{first.name} {process_words(first)}, {other.name} {process_words(other)}",
            hint=f"give {other.name} the process {first.process}, or all of them one (--set process={first.process});"
            " --mixed-process compares them as they are",
        )


def _at_area(first: ArrayConfig, name: str, overrides: Mapping[str, object]) -> tuple[ArrayConfig, float, float]:
    """The array, its area and that of the first one."""
    from pe_sim.network.area import area_of, at_area

    wanted = area_of(first).total_mm2
    array = at_area(name, wanted, overrides)
    return array, area_of(array).total_mm2, wanted


def _at_wire(first: ArrayConfig, array: ArrayConfig) -> tuple[ArrayConfig, float, float]:
    """The array, its wire and that of the first one."""
    from pe_sim.network.wire import scale_to_wire, wire_bits_mm

    wanted = wire_bits_mm(first)
    scaled = scale_to_wire(array, wanted, source=f"--equal {WIRE}, as much as {first.name} has")
    click.echo(scaled, err=True)
    return scaled.array, scaled.reached_bits_mm, wanted
