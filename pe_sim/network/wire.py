"""Comparisons at equal total wire: takes an array and a budget of wire, gives the array with scaled widths."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, is_dataclass, replace
from fractions import Fraction
from typing import Any, TypeVar

from pe_sim.config.array import ArrayConfig, Bus, Tree
from pe_sim.config.network_shapes import Link, UserGraphShape, user_graph
from pe_sim.errors import InputError
from pe_sim.network.topologies import build_topology

_T = TypeVar("_T")
_ROUNDING = 1e-12  # of sums of lengths


@dataclass(frozen=True, slots=True)
class WireScaling:
    """An array whose interconnect was scaled to a budget of wire.

    Args:
        array: with the new widths.
        factor: what the widths were multiplied by before they were rounded down, at least to 1.
        wanted_bits_mm: the budget.
        reached_bits_mm: what it came to, no more than the budget; what is left would not do for a byte more.
    """

    array: ArrayConfig
    factor: float
    wanted_bits_mm: float
    reached_bits_mm: float

    def __str__(self) -> str:
        """In a sentence."""
        share = self.reached_bits_mm / self.wanted_bits_mm
        return (
            f"{self.array.name}: widths x {self.factor:.4g}, wire {self.reached_bits_mm:,.0f} of"
            f" {self.wanted_bits_mm:,.0f} bit mm ({share:.1%})"
        )


def wire_bits_mm(array: ArrayConfig) -> float:
    """All wire of the interconnect: 8 wires a byte per cycle, times their length."""
    return build_topology(array).channels.wire_bits_mm


def scale_to_wire(array: ArrayConfig, budget_bits_mm: float, *, source: str | None = None) -> WireScaling:
    """The array with all widths of its network scaled by one factor so that its wire fits the budget.

    Widths keep their ratios as far as whole bytes allow: they are rounded down, at least to 1 byte per cycle. Lengths
    and latencies do not depend on widths and stay. `source` is what errors call the budget.

    Raises:
        InputError: the budget is not a positive number, or the array has no wire to scale, or too much of it even with
            widths of 1.
    """
    if not 0 < budget_bits_mm < math.inf:
        raise InputError("not an amount of wire", source=source, given=budget_bits_mm, expected="bit mm, above 0")
    has, most = wire_bits_mm(array), budget_bits_mm * (1 + _ROUNDING)
    if has == 0:
        problem = f"{array.name} has no wire, whatever its widths"
        raise InputError(problem, source=source, given=budget_bits_mm, expected="an array with channels between PEs")
    least = wire_bits_mm(replace(array, network=_scaled(array.network, Fraction(0))))
    if least > most:
        raise InputError(
            f"{array.name} takes more wire than that even with channels of 1 byte per cycle",
            source=source,
            given=budget_bits_mm,
            expected=f"at least {least:,.0f} bit mm",
        )
    factor = Fraction(budget_bits_mm) / Fraction(has)
    while True:
        scaled = replace(array, network=_scaled(array.network, factor))
        reached = wire_bits_mm(scaled)
        if reached <= most:
            return WireScaling(scaled, float(factor), budget_bits_mm, reached)
        # Widths of 1 that could not shrink, or a growth that rounded up: the others give way.
        factor *= min(Fraction(budget_bits_mm) / Fraction(reached), Fraction(999, 1000))


def scaled_to_wire(array: ArrayConfig, wire_bits_mm: float) -> ArrayConfig:
    """`scale_to_wire`'s array alone."""
    return scale_to_wire(array, wire_bits_mm).array


def _scaled(part: _T, factor: Fraction) -> _T:
    """A copy of a (nested) dataclass or tuple with every width in it scaled."""
    if isinstance(part, Bus | Tree | Link):
        return replace(part, bytes_per_cycle=max(1, math.floor(part.bytes_per_cycle * factor)))
    if isinstance(part, tuple):
        return tuple(_scaled(each, factor) for each in part)  # type: ignore[return-value]  # of the same type
    if isinstance(part, UserGraphShape):
        return user_graph(_scaled(part.nodes, factor), _scaled(part.edges, factor))  # type: ignore[return-value]
    if is_dataclass(part) and not isinstance(part, type):
        changes: dict[str, Any] = {}
        for each in fields(part):
            before = getattr(part, each.name)
            after = _scaled(before, factor)
            if after is not before and after != before:
                changes[each.name] = after
        return replace(part, **changes) if changes else part
    return part
