"""Dialects of files: takes a mapping, finds the dialect by the keys it has."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from pe_sim.errors import InputError

Read = TypeVar("Read")


@dataclass(frozen=True, slots=True)
class Dialect(Generic[Read]):
    """A form of file: its name, the keys it is known by, and how to recognise and read it."""

    name: str
    marks: str
    recognises: Callable[[Mapping[str, object]], bool]
    read: Read


def check_keys(raw: Mapping[str, object], source: str) -> None:
    """Raises InputError where a key is not a text."""
    for key in raw:
        if not isinstance(key, str):
            raise InputError("a key is not a text", source=source, given=key)


def detect(dialects: Sequence[Dialect[Read]], raw: Mapping[str, object], source: str, noun: str) -> Dialect[Read]:
    """The first dialect that recognises the keys.

    Args:
        dialects: in the order in which they are asked.
        raw: the mapping of the file.
        source: what errors call it.
        noun: what the dialects are of, for the error.

    Raises:
        InputError: none does.
    """
    for dialect in dialects:
        if dialect.recognises(raw):
            return dialect
    raise InputError(
        f"this is no {noun} of a known dialect",
        source=source,
        given=list(raw),
        expected="; ".join(f"{dialect.name} (has {dialect.marks})" for dialect in dialects),
    )
