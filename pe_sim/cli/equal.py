"""Several `--array` beside each other, made equal in one thing: takes their names, gives the arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import click

from pe_sim.cli.options import DEFAULT_ARRAY
from pe_sim.errors import InputError

if TYPE_CHECKING:
    from pe_sim.config.array import ArrayConfig

PES, AREA, WIRE = "pes", "area", "wire"
EQUALS: Final = (PES, AREA, WIRE)

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
    " wire: widths scaled to the wire of its interconnect.",
)


def load_arrays(names: Sequence[str], equal: str | None, overrides: Mapping[str, object]) -> dict[str, ArrayConfig]:
    """The arrays by what the user called them, the overrides set in each.

    Raises:
        InputError: one is named twice, is wrong or cannot be made equal; or there is only one to make equal.
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

    first = load_array(names[0], overrides or None)
    return {names[0]: first} | {name: _like(first, name, equal, overrides) for name in names[1:]}


def _like(first: ArrayConfig, name: str, equal: str | None, overrides: Mapping[str, object]) -> ArrayConfig:
    from pe_sim.config.arrays import load_array

    if equal == AREA:
        from pe_sim.network.area import area_of, at_area

        return at_area(name, area_of(first).total_mm2, overrides)
    if equal == PES:
        return load_array(name, {**overrides, "num_pes": first.num_pes})
    array = load_array(name, overrides or None)
    if equal != WIRE:
        return array
    from pe_sim.network.wire import scale_to_wire, wire_bits_mm

    scaling = scale_to_wire(array, wire_bits_mm(first), source=f"--equal {WIRE}, as much as {first.name} has")
    click.echo(scaling, err=True)
    return scaling.array
