"""When no plan fits: what the least hungry one needs, and the smallest changes that would help."""

from __future__ import annotations

from collections.abc import Sequence

from pe_sim.errors import InfeasibleError, InputError
from pe_sim.systems.search_space import Refused, Space
from pe_sim.units import ceil_div, format_bytes

_NARROWER = ((8, "int8"), (4, "int4"))
_SHOWN = 5  # refused candidates in the message


def nothing_fits(space: Space, refused: Sequence[Refused]) -> InputError:
    """The error that says why, and what helps."""
    short = [one for one in refused if one.needed is not None and one.available is not None]
    if not short:
        listed = "\n".join(f"  {_told(one)}" for one in refused[:_SHOWN])
        return InputError(f"no plan can do this step on {space.system.name}\n{listed}")
    least = min(short, key=lambda one: (one.needed or 0) / max(one.available or 1, 1))
    needed, available = least.needed or 0, least.available or 0
    return InfeasibleError(
        f"no plan fits the memories of {space.system.name}; the least hungry is {_told(least)},"
        f" {format_bytes(needed)} of {format_bytes(available)}",
        demand=needed,
        bound=available,
        unit="bytes",
        levers=_levers(space, least, needed, available),
    )


def _told(one: Refused) -> str:
    under = f" under {one.workflow}" if one.workflow else ""
    return f"{one.shape}{under} ({one.reason})"


def _levers(space: Space, least: Refused, needed: int, available: int) -> list[str]:
    where = "root" if "root" in least.reason else "pe"
    factor = needed / available
    levers = [f"memories of at least x{factor:.2f} (--set array.{where}.memory.capacity_bytes={needed})"]
    if where == "root":
        return levers
    arrays = ceil_div(len(space.system.alive) * needed, available)
    levers.append(f"at least {arrays:,} arrays like these")
    bits = space.system.arrays[0].dtypes.weight.bits
    for narrow, name in _NARROWER:
        if narrow < bits and needed * narrow <= available * bits:
            levers.append(
                f"weights and cache of {name} (--set array.dtypes.weight={name} --set array.dtypes.kv_cache={name})"
            )
            break
    levers.append("a smaller batch or a shorter context")
    return levers
