"""Sweeps: takes a YAML file or its mapping, gives the points, each as settings by dotted path.

A sweep has a `base` that all points share, and over it `points` (a list of settings), `grid` (a list of values for each
of several paths, every combination a point), or both: then every point of the list meets every combination of the grid.
Nothing is loaded here and no path is looked up: `resolve.check_sweep` does that.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from pydantic import Field

from pe_sim._version import __version__
from pe_sim.config.files.loading import load_mapping
from pe_sim.config.files.schema import Section, validate
from pe_sim.errors import InputError, did_you_mean, printable
from pe_sim.mapping.workflow import Workflow
from pe_sim.units import IntArray

Settings = dict[str, Any]

ASK_ABOVE: Final = 10**6  # points; more are simulated only after a yes
MOST_POINTS: Final = 10**8  # their numbers alone take a GiB
POINTS: Final = "points"
_DEFAULT_NAME: Final = "sweep"
_PLAIN: Final = (bool, int, float, str, type(None))
_SLOWEST_FIRST: Final = ("model", "situation", "phase", "prompt", "context", "batch", "logits", "causal", "workflow")


class SweepFile(Section):
    """The schema of a sweep's file; the values of `base`, `grid` and `points` are checked where they are used."""

    schema_version: Literal[1] = Field(1, description="of this schema")
    name: str | None = Field(None, min_length=1, description="what summaries call it; the file's stem if left out")
    description: str = Field("", description="one line for people")
    base: dict[str, Any] = Field(default_factory=dict, description="what all points share: values by dotted path")
    grid: dict[str, Any] = Field(
        default_factory=dict, description="by dotted path a list or a range; every combination is a point"
    )
    points: Any = Field((), description="a list of points, each with values by dotted path")


@dataclass(frozen=True, slots=True)
class Axis:
    """An axis of a sweep: alternative settings, of which every point has one.

    Args:
        name: the path of a grid's list, or `points`.
        choices: the alternatives, at least one.
    """

    name: str
    choices: tuple[Settings, ...]

    @property
    def paths(self) -> tuple[str, ...]:
        """Every dotted path that any of the choices sets."""
        return tuple(dict.fromkeys(path for choice in self.choices for path in choice))


@dataclass(frozen=True, slots=True)
class Sweep:
    """A sweep with all its points, numbered from 0, the last axis fastest.

    Args:
        source: what error messages call it.
        folder: where files that it names are looked up; None: the working directory.
    """

    name: str
    description: str
    source: str
    folder: Path | None
    base: Settings
    axes: tuple[Axis, ...]

    def __len__(self) -> int:
        """Number of points."""
        return math.prod(self._lengths)

    @property
    def _lengths(self) -> tuple[int, ...]:
        return tuple(len(axis.choices) for axis in self.axes)

    @property
    def paths(self) -> tuple[str, ...]:
        """Every dotted path that some point sets, those of the base first."""
        return tuple(dict.fromkeys([*self.base, *(path for axis in self.axes for path in axis.paths)]))

    def settings(self, point: int) -> Settings:
        """The settings of one point."""
        found = dict(self.base)
        for axis, place in zip(self.axes, np.unravel_index(point, self._lengths), strict=True):
            found |= axis.choices[int(place)]
        return found

    def column(self, path: str, start: int, stop: int) -> list[Any]:
        """The values that points start .. stop - 1 give a path; None where they do not set it."""
        places = np.unravel_index(np.arange(start, stop), self._lengths)
        column = [self.base.get(path)] * (stop - start)
        for axis, place in zip(self.axes, places, strict=True):
            if path in axis.paths:
                values = [choice.get(path, self.base.get(path)) for choice in axis.choices]
                column = [values[index] for index in place.tolist()]
        return column

    def values(self, path: str) -> list[Any]:
        """Every value that a path is given, repeated as in the file; None where a choice leaves it out."""
        for axis in self.axes:
            if path in axis.paths:
                return [choice.get(path, self.base.get(path)) for choice in axis.choices]
        return [self.base.get(path)]

    def in_good_order(self) -> IntArray:
        """(points,) numbers of the points, ordered so that neighbours share what is costly: graph, then placement."""
        ranks = [_rank(axis) for axis in self.axes]
        order = sorted(range(len(self.axes)), key=lambda axis: ranks[axis])
        numbers = np.arange(len(self), dtype=np.int64).reshape(self._lengths)
        flat: IntArray = numbers.transpose(order).reshape(-1)
        return flat

    def to_dict(self) -> dict[str, Any]:
        """The sweep as a file's mapping, all ranges written out; `load_sweep` of it gives the same points."""
        told: dict[str, Any] = {"schema_version": 1, "name": self.name}
        if self.description:
            told["description"] = self.description
        told["base"] = self.base
        listed = [list(axis.choices) for axis in self.axes if axis.name == POINTS]
        grid = {axis.name: [choice[axis.name] for choice in axis.choices] for axis in self.axes if axis.name != POINTS}
        return told | ({"points": listed[0]} if listed else {}) | ({"grid": grid} if grid else {})


def load_sweep(given: str | Path | Mapping[str, Any]) -> Sweep:
    """A sweep from a YAML or JSON file, or from such a file's mapping.

    Raises:
        InputError: the file cannot be read or has a fault, or there is nothing to sweep.
    """
    if isinstance(given, Mapping):
        return _resolved(validate(SweepFile, given, "sweep"), "sweep", _DEFAULT_NAME, None)
    if not isinstance(given, str | Path) or not str(given):
        raise InputError("not a sweep", given=given, expected="the path of a sweep's file, or its mapping")
    path = Path(given)
    file = validate(SweepFile, load_mapping(path), str(path))
    return _resolved(file, str(path), printable(path.stem), path.absolute().parent)


def _resolved(file: SweepFile, source: str, stem: str, folder: Path | None) -> Sweep:
    base = {path: _plain(value, source, f"base.{path}") for path, value in file.base.items()}
    axes = [*_points_axis(file.points, source), *_grid_axes(file.grid, source)]
    if not axes:
        raise InputError(
            "there is nothing to sweep",
            source=source,
            expected="a `grid` of lists by dotted path, or a list of `points`",
            hint="for instance grid: {num_pes: [64, 128, 256]}",
        )
    _refuse_twice(axes, source)
    sweep = Sweep(file.name or stem, file.description, source, folder, base, tuple(axes))
    if len(sweep) > MOST_POINTS:
        raise InputError(
            f"{len(sweep):,} points are too many for one sweep", source=source, expected=f"at most {MOST_POINTS:,}"
        )
    return sweep


def _points_axis(given: object, source: str) -> Iterator[Axis]:
    points = _as_list(given)
    if points is None:
        expected = "a list of points, each with values by dotted path"
        raise InputError("not a list of points", source=source, path=POINTS, given=given, expected=expected)
    choices = []
    for number, point in enumerate(points):
        where = f"{POINTS}.{number}"
        if not isinstance(point, Mapping) or not all(isinstance(path, str) for path in point):
            expected = "values by dotted path, for instance {num_pes: 64, context: 2048}"
            raise InputError("not a point", source=source, path=where, given=point, expected=expected)
        choices.append({path: _plain(value, source, f"{where}.{path}") for path, value in point.items()})
    if choices:
        yield Axis(POINTS, tuple(choices))


def _grid_axes(grid: Mapping[str, Any], source: str) -> Iterator[Axis]:
    for path, given in grid.items():
        where = f"grid.{path}"
        values = expand_range(given, source, where) if is_range(given) else _as_list(given)
        if values is None:
            raise InputError(
                "not a list of values",
                source=source,
                path=where,
                given=given,
                expected="a list, or a range such as {from: 16, to: 256, times: 2}",
                hint="what all points share belongs into `base`",
            )
        if not values:
            raise InputError("an empty list: the grid has no point", source=source, path=where)
        yield Axis(path, tuple({path: _plain(value, source, where)} for value in values))


def _refuse_twice(axes: Sequence[Axis], source: str) -> None:
    listed = next((axis.paths for axis in axes if axis.name == POINTS), ())
    for axis in axes:
        if axis.name in listed:
            raise InputError(
                f"{axis.name} is set by the grid and by `points`",
                source=source,
                path=f"grid.{axis.name}",
                hint="keep one of the two",
            )


def _as_list(given: object) -> list[Any] | None:
    """The value as a list if it is a list, tuple, range or NumPy array; else None."""
    if isinstance(given, np.ndarray):
        return list(given.tolist())
    return list(given) if isinstance(given, list | tuple | range) else None


def _plain(value: object, source: str, path: str) -> Any:
    """The value in the types of JSON: texts, numbers, booleans, null, and lists and mappings of them."""
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _plain(inner, source, f"{path}.{key}") for key, inner in value.items()}
    items = _as_list(value)
    if items is None:
        expected = "text, a number, true, false, or a list or mapping of them"
        raise InputError("not a value a file can hold", source=source, path=path, given=value, expected=expected)
    return [_plain(item, source, path) for item in items]


def _rank(axis: Axis) -> tuple[int, int]:
    """Sort key of an axis, slowest first: axes that change the graph, those that change its placement, then others."""
    for place, name in enumerate(_SLOWEST_FIRST):
        if any(path == name or path.startswith(f"{name}.") for path in axis.paths):
            return 0, place
    divides = ("array", "num_pes", "dead_pes", "dtypes", "network.tree.arity")
    return (1, 0) if any(path.startswith(divides) for path in axis.paths) else (2, 0)


# ---- Ranges of a grid: takes {from, to, step | times | num}, gives the list of values they stand for.


FORM: Final = "{from: 16, to: 256, times: 2}, or `step` or `num` in the place of `times`"
_WAYS: Final = ("step", "times", "num")
_ENDS: Final = ("from", "to")
_SLACK: Final = 1e-9  # tolerance in steps, so that 0.1 + 0.1 + 0.1 still reaches 0.3
MAX_VALUES: Final = 10**7  # of one range

Number = int | float


def is_range(value: object) -> bool:
    """Whether a mapping is meant as a range, and not as a section of a config."""
    return isinstance(value, Mapping) and ("from" in value or "to" in value)


def expand_range(given: Mapping[str, Any], source: str, path: str) -> list[Number]:
    """The values of a range; `to` is the last of them if a step lands on it.

    If all numbers given and all values are whole, the values are ints.

    Args:
        given: `from`, `to`, and one of `step` (added), `times` (multiplied) and `num` (that many, evenly spaced).
        source, path: what error messages call the range.

    Raises:
        InputError: an unknown key, something that is no number, or a range with no value or too many.
    """
    for key in given:
        if key not in (*_ENDS, *_WAYS):
            raise InputError(
                "unknown key of a range",
                source=source,
                path=f"{path}.{key}",
                expected=FORM,
                hint=did_you_mean(str(key), (*_ENDS, *_WAYS)),
            )
    ways = [way for way in _WAYS if way in given]
    if len(ways) != 1 or any(end not in given for end in _ENDS):
        raise InputError("not a range", source=source, path=path, given=dict(given), expected=FORM)
    numbers = {key: _number(value, source, f"{path}.{key}") for key, value in given.items()}
    values = _MAKERS[ways[0]](numbers["from"], numbers["to"], numbers[ways[0]], source, path)
    whole = all(isinstance(number, int) for number in numbers.values())
    return [int(value) for value in values] if whole and all(value == int(value) for value in values) else values


def _number(value: object, source: str, path: str) -> Number:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < math.inf:
        raise InputError("not a number", source=source, path=path, given=value, expected="a finite number")
    if abs(value) > 2**63:
        raise InputError("too large", source=source, path=path, given=value, expected="a number within 2^63")
    return value


def _by_step(start: Number, end: Number, step: Number, source: str, path: str) -> list[Number]:
    if step == 0 or (end - start) / step < 0:
        raise _holds_nothing("step", step, start, end, source, path)
    count = math.floor((end - start) / step + _SLACK) + 1
    _check_count(count, source, path)
    return [start + index * step for index in range(count)]


def _by_times(start: Number, end: Number, times: Number, source: str, path: str) -> list[Number]:
    grows = times > 1 and 0 < start <= end
    shrinks = 0 < times < 1 and start >= end > 0
    if not (grows or shrinks):
        raise _holds_nothing("times", times, start, end, source, path)
    count = math.floor(math.log(end / start) / math.log(times) + _SLACK) + 1
    _check_count(count, source, path)
    return [start * times**index for index in range(count)]


def _by_num(start: Number, end: Number, num: Number, source: str, path: str) -> list[Number]:
    if not isinstance(num, int) or num < 2:
        raise InputError(
            "not a number of values", source=source, path=f"{path}.num", given=num, expected="a whole number above 1"
        )
    _check_count(num, source, path)
    return [_quotient((num - 1 - index) * start + index * end, num - 1) for index in range(num)]


def _quotient(numerator: Number, denominator: int) -> Number:
    if isinstance(numerator, int) and numerator % denominator == 0:
        return numerator // denominator
    return numerator / denominator


def _check_count(count: int, source: str, path: str) -> None:
    if count > MAX_VALUES:
        raise InputError(
            f"{count:,} values are too many for one range", source=source, path=path, expected=f"at most {MAX_VALUES:,}"
        )


def _holds_nothing(way: str, value: Number, start: Number, end: Number, source: str, path: str) -> InputError:
    return InputError(
        f"no values: this {way} does not lead from {start} to {end}", source=source, path=f"{path}.{way}", given=value
    )


_MAKERS: Final[Mapping[str, Callable[[Number, Number, Number, str, str], list[Number]]]] = {
    "step": _by_step,
    "times": _by_times,
    "num": _by_num,
}


# ---- Keys of points: takes a resolved config, gives a text that is the same for the same config and version only.


SCHEMA: Final = "pe-sim.sweep/1"
_LENGTH: Final = 32  # hexadecimal digits: 128 bits, beyond any chance of two points with one key


def canonical(value: object) -> str:
    """JSON text of a value that is equal for equal values: keys sorted, no blanks."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(*parts: str) -> str:
    """The key of texts in their order, which also depends on the versions of the program and of the table."""
    text = canonical([SCHEMA, __version__, *parts])
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_LENGTH]


def unresolved_key(settings: Mapping[str, Any], error: str) -> str:
    """The key of a point whose settings cannot be resolved; it depends on the error."""
    return digest("unresolved", canonical(settings), error)


def workflow_text(workflow: Workflow) -> str:
    """A workflow as canonical JSON, without its sources and summary, which do not change what it does."""
    told = asdict(workflow)
    for name in ("source", "summary"):
        told.pop(name)
    for rule in told["rules"]:
        rule.pop("source")
    return canonical(told)
