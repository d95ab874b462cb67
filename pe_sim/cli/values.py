"""Callbacks of options: take the text a user typed, give whole numbers; anything else is an InputError."""

from __future__ import annotations

import re
from typing import Final

import click

from pe_sim.errors import InputError, did_you_mean

PE_WORDS: Final = ("classes", "all")
MAX_PE: Final = 2**20  # in a list; no array is larger
MAX_MESSAGE_BYTES: Final = 2**40  # a TiB from each PE still counts inside 64-bit integers

_WHOLE: Final = re.compile(r"[+-]?[0-9]{1,30}")
_SIZE: Final = re.compile(r"([+-]?[0-9]{1,30})([kKmMgGtT]?)")
_FACTORS: Final = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


def whole_number(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """A whole number in decimal digits; its range is checked by whoever uses it."""
    return None if value is None else _whole(value, _name(param), value, "a whole number")


def lengths(ctx: click.Context, param: click.Parameter, value: str | None) -> int | tuple[int, ...] | None:
    """One whole number for all sequences, or the numbers of a comma list, one for each."""
    if value is None:
        return None
    expected = "a whole number, or a comma list with one for each sequence, for instance 100,200"
    numbers = tuple(_whole(part, _name(param), value, expected) for part in value.split(","))
    return numbers if "," in value else numbers[0]


def byte_sizes(ctx: click.Context, param: click.Parameter, value: str) -> tuple[int, ...]:
    """The sizes of a comma list, bytes; k, M, G and T stand for powers of 1024."""
    return tuple(_size(part, _name(param), value) for part in value.split(","))


def pe_choice(ctx: click.Context, param: click.Parameter, value: str | None) -> str | tuple[int, ...] | None:
    """`classes`, `all`, or the numbers of PEs in a comma list, ranges as 8-11; which there are the report knows."""
    if value is None or value in PE_WORDS:
        return value
    expected = "classes, all, or numbers of PEs as a comma list with ranges, for instance 0,5,8-11"
    if not re.fullmatch(r"[0-9,\s-]*", value):
        hint = did_you_mean(value, PE_WORDS)
        raise InputError("no such choice of PEs", source=_name(param), given=value, expected=expected, hint=hint)
    found: list[int] = []
    for part in value.split(","):
        ends = [_whole(end, _name(param), value, expected) for end in part.split("-")]
        if len(ends) > 2 or ends[-1] < ends[0] or ends[-1] > MAX_PE:
            raise InputError("not a range of PEs", source=_name(param), given=part.strip(), expected=expected)
        found += range(ends[0], ends[-1] + 1)
    return tuple(found)


def split_names(text: str, option: str) -> tuple[str, ...]:
    """The names of a comma list, each once, in their order.

    Raises:
        InputError: a name is empty.
    """
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise InputError("an empty name in the list", source=option, given=text, expected="names with commas between")
    return tuple(dict.fromkeys(names))


def _size(part: str, name: str, given: str) -> int:
    match = _SIZE.fullmatch(part.strip())
    if match is None:
        expected = "bytes as a whole number, also with k, M, G or T (powers of 1024), or a comma list of them"
        raise InputError("not a size", source=name, given=given, expected=expected)
    size = int(match[1]) * _FACTORS[match[2].lower()]
    if not 1 <= size <= MAX_MESSAGE_BYTES:
        problem = "too small" if size < 1 else "too large"
        raise InputError(problem, source=name, given=part, expected=f"1 to {MAX_MESSAGE_BYTES:,} bytes (1 TiB)")
    return size


def _whole(text: str, name: str, given: str, expected: str) -> int:
    if _WHOLE.fullmatch(text.strip()) is None:
        raise InputError("not a whole number", source=name, given=given, expected=expected)
    return int(text)


def _name(param: click.Parameter) -> str:
    return max(param.opts, key=len)
