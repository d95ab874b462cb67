"""Checks a sweep before anything runs: every path must be one that the configs know, every name must be there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from itertools import product
from typing import Any, Final

from pe_sim.config.arrays import array_paths
from pe_sim.config.model_overrides import ModelOverrides, read_overrides
from pe_sim.config.overrides import nearest_path
from pe_sim.errors import InputError
from pe_sim.studies.grid import POINTS, Settings, Sweep
from pe_sim.studies.keys import canonical
from pe_sim.studies.resolve import CHOICES, IGNORE_KEYS, MODEL_PREFIX, Resolver

_NAMED: Final = ("model", "array", "workflow", "situation", "phase", "engine")
_NEEDED: Final = ("model", "array", "workflow")
_LENGTHS: Final = ("context", "prompt", "situation")
_CHANGE_THE_SCHEMA: Final = ("network", "network.kind", "pe", "pe.memory", "pe.memory.kind")


def check_sweep(sweep: Sweep, resolver: Resolver) -> None:
    """Asks the configs' own schemas about every path, and loads everything that is named, once.

    A path that only some of the sweep's arrays have passes: the points of the others will be rows with an error.

    Raises:
        InputError: an unknown path or name, with the nearest known one, or a model, array, workflow or length is
            nowhere given.
    """
    for name in _NEEDED:
        if name not in sweep.paths:
            raise InputError(
                f"nothing says which {name} to take",
                source=sweep.source,
                path=name,
                hint=_meant(sweep, (name,)) or f"give it in `base`, or sweep it: grid: {{{name}: [...]}}",
            )
    if not any(name in sweep.paths for name in _LENGTHS):
        raise InputError(
            "nothing says how long the sequences are",
            source=sweep.source,
            path="context",
            hint=_meant(sweep, _LENGTHS)
            or "give `context` (decode), `prompt` (prefill) or `situation`, in `base` or in the grid",
        )
    for name in _NAMED:
        for given in _distinct(sweep.values(name)):
            _blamed(sweep, name, given, resolver)
    _check_paths(sweep, resolver)


def _meant(sweep: Sweep, names: Sequence[str]) -> str | None:
    """A path of the sweep that looks like one of these names, none of which is there."""
    others = [path for path in sweep.paths if path not in CHOICES and "." not in path]
    for name in names:
        near = get_close_matches(name, others, n=1)
        if near:
            return f"is {where_of(sweep, near[0])} meant to be {name!r}?"
    return None


def _blamed(sweep: Sweep, name: str, given: Any, resolver: Resolver) -> None:
    """Loads what is named; a fault in a file is told of that file, an unknown name of the sweep."""
    try:
        resolver.load(name, given, sweep.base.get(IGNORE_KEYS))
    except InputError as error:
        if error.path is None or error.source is None:
            raise InputError(
                error.problem,
                source=sweep.source,
                path=where_of(sweep, name),
                given=given,
                expected=error.expected,
                hint=error.hint,
            ) from None
        raise


def where_of(sweep: Sweep, path: str) -> str:
    """Where in the sweep's file a path is set."""
    for axis in sweep.axes:
        if path in axis.paths:
            return f"{POINTS}: {path}" if axis.name == POINTS else f"grid.{path}"
    return f"base.{path}"


def _check_paths(sweep: Sweep, resolver: Resolver) -> None:
    of_arrays = {path for path in sweep.paths if path not in CHOICES and not path.startswith(MODEL_PREFIX)}
    known = _known_to_arrays(sweep, resolver) if of_arrays else frozenset()
    for path in sweep.paths:
        if path.startswith(MODEL_PREFIX):
            _check_model_path(sweep, path)
        elif path in of_arrays and path not in known:
            raise _unknown(
                sweep, path, {*known, *CHOICES, *(MODEL_PREFIX + name for name in ModelOverrides.model_fields)}
            )


def _check_model_path(sweep: Sweep, path: str) -> None:
    name = path.removeprefix(MODEL_PREFIX)
    if name not in ModelOverrides.model_fields:
        try:
            read_overrides({name: sweep.values(path)[0]})  # knows fields that cannot be set, and says why
        except InputError as error:
            where = where_of(sweep, path)
            raise InputError(error.problem, source=sweep.source, path=where, hint=error.hint) from None


def _known_to_arrays(sweep: Sweep, resolver: Resolver) -> frozenset[str]:
    """The paths that at least one array of the sweep has."""
    known: set[str] = set()
    refused: list[InputError] = []
    for given, changes in product(_distinct(sweep.values("array")), _changed_schemas(sweep)):
        try:
            known |= array_paths(resolver.place_of("arrays", given), changes)
        except InputError as error:
            refused.append(error)
    if refused and not known:
        raise refused[0]
    return frozenset(known)


def _changed_schemas(sweep: Sweep) -> Iterator[Settings]:
    """Every combination of the values that decide which paths an array has."""
    paths = [path for path in _CHANGE_THE_SCHEMA if path in sweep.paths]
    for values in product(*(_distinct(sweep.values(path)) for path in paths)):
        yield {path: value for path, value in zip(paths, values, strict=True) if value is not None}


def _unknown(sweep: Sweep, path: str, known: set[str]) -> InputError:
    bare = path.removeprefix("array.")
    hint = f"a path of the array stands without `array.`: {bare}" if bare != path and bare in known else None
    where = where_of(sweep, path)
    return InputError("unknown path", source=sweep.source, path=where, hint=hint or nearest_path(path, known))


def _distinct(values: list[Any]) -> list[Any]:
    """Each value once; None, which stands for left out, not at all."""
    return list({canonical(value): value for value in values if value is not None}.values())
