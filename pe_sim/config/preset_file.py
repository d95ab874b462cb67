"""Checked files: takes a preset's name, a path or a file's mapping, gives the file by its schema and its name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pe_sim.config.loading import load_mapping
from pe_sim.config.presets import SINGULAR, PresetKind, is_preset, resolve
from pe_sim.config.schema import Section, validate
from pe_sim.errors import InputError, printable

_S = TypeVar("_S", bound=Section)


def checked_file(kind: PresetKind, given: str | Path | Mapping[str, Any], schema: type[_S]) -> tuple[_S, str]:
    """What was given as an instance of `schema`, and what to call it where it has no name of its own.

    Raises:
        InputError: no such preset or file, or a fault in it.
    """
    noun = SINGULAR[kind]
    if isinstance(given, Mapping):
        return validate(schema, given, noun), noun
    if not isinstance(given, str | Path):
        raise InputError(f"not a {noun}", given=given, expected="a preset's name, a path, or a file's mapping")
    path = resolve(kind, given)
    source = f"preset {given}" if is_preset(kind, given) else str(given)
    return validate(schema, load_mapping(path), source), printable(path.stem)
