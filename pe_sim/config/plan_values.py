"""What readers of foreign plans share: strict values, and what is written down of keys nobody needs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from itertools import accumulate
from typing import Final

from pe_sim.config.model_fields import KeyRules, sort_keys
from pe_sim.config.plan import Degrees, StagePlan
from pe_sim.errors import InputError

MAX_COUNT: Final = 2**20  # far above any real number of arrays, layers or parts
_LONGEST_VALUE: Final = 60


def whole(value: object, path: str, source: str, *, least: int = 1) -> int:
    """`value` as a whole number of at least `least`.

    Raises:
        InputError: another type (true is no number), or out of range.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputError("not a whole number", source=source, path=path, given=value, expected="a whole number")
    if not least <= value <= MAX_COUNT:
        problem = "too small" if value < least else "too large"
        raise InputError(
            problem, source=source, path=path, given=value, expected=f"a whole number from {least} to {MAX_COUNT}"
        )
    return value


def whole_list(value: object, path: str, source: str, *, least: int = 0) -> tuple[int, ...]:
    """`value` as whole numbers: a list, or a text with commas between.

    Raises:
        InputError: neither, or an entry that is none.
    """
    entries: object = value
    if isinstance(value, str):
        entries = [int(part) if part.strip().isdecimal() else part for part in value.split(",")]
    if not isinstance(entries, list | tuple):
        expected = "whole numbers: a list, or a text with commas between"
        raise InputError("not a list", source=source, path=path, given=value, expected=expected)
    return tuple(whole(entry, f"{path}.{index}", source, least=least) for index, entry in enumerate(entries))


def require(raw: Mapping[str, object], key: str, source: str, *, path: str = "") -> object:
    """What stands under `key`.

    Args:
        raw: the mapping.
        key: that has no default.
        source: what errors call the file.
        path: of the key in the file, where the mapping is not all of it.

    Raises:
        InputError: there is no such key.
    """
    if key not in raw:
        raise InputError("this key is missing", source=source, path=path or key, hint=f"state {key}; it has no default")
    return raw[key]


def distinct(ranks: Iterable[int], path: str, source: str, what: str = "rank") -> tuple[int, ...]:
    """The ranks themselves.

    Raises:
        InputError: one is named twice.
    """
    seen: set[int] = set()
    listed = tuple(ranks)
    for rank in listed:
        if rank in seen:
            problem = f"{what} {rank} is named twice"
            raise InputError(problem, source=source, path=path, given=list(listed), expected="each once")
        seen.add(rank)
    return listed


def flag(value: object, path: str, source: str) -> bool:
    """`value` as true or false, never a number.

    Raises:
        InputError: it is neither.
    """
    if isinstance(value, bool):
        return value
    raise InputError("not true or false", source=source, path=path, given=value, expected="true or false")


def ignored_line(key: str, value: object, reason: str = "") -> str:
    """`key: value`, cut short where it is long, and why nobody needs it where that is worth a word."""
    text = json.dumps(value, default=str)
    if len(text) > _LONGEST_VALUE:
        text = text[: _LONGEST_VALUE - 3] + "..."
    return f"{key}: {text}" + (f" ({reason})" if reason else "")


def sort_plan_keys(
    raw: Mapping[str, object], known: Iterable[str], rules: KeyRules, source: str
) -> tuple[dict[str, object], tuple[str, ...]]:
    """The entries that matter, and a line for each that does not; errors as in `sort_keys`."""
    values, ignored = sort_keys(raw, known, rules, source)
    return values, tuple(ignored_line(key, raw[key]) for key in ignored)


def bounds_of(counts: Iterable[int]) -> tuple[int, ...]:
    """Numbers of units, layers of each stage for instance, as bounds: (0, ..., number of units)."""
    return (0, *accumulate(counts))


def stage(arrays: Iterable[int], first_layer: int, num_layers: int, degrees: Degrees) -> StagePlan:
    """A stage whose layers all have the same degrees."""
    return StagePlan(tuple(arrays), first_layer, num_layers, (degrees,) * num_layers)
