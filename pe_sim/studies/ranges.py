"""Ranges of a grid: takes {from, to, step | times | num}, gives the list of values they stand for."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

from pe_sim.errors import InputError, did_you_mean

FORM: Final = "{from: 16, to: 256, times: 2}, or `step` or `num` in the place of `times`"
_WAYS: Final = ("step", "times", "num")
_ENDS: Final = ("from", "to")
_SLACK: Final = 1e-9  # of a step: so that 0.1 + 0.1 + 0.1 still reaches 0.3
MAX_VALUES: Final = 10**7  # of one range

Number = int | float


def is_range(value: object) -> bool:
    """Whether a mapping is meant as a range, and not as a section of a config."""
    return isinstance(value, Mapping) and ("from" in value or "to" in value)


def expand_range(given: Mapping[str, Any], source: str, path: str) -> list[Number]:
    """The values of a range; `to` is the last of them if it is met.

    Whole numbers stay whole where every value is one.

    Args:
        given: `from`, `to`, and one of `step` (added), `times` (multiplied) and `num` (that many, evenly spaced).
        source, path: what error messages call it.

    Raises:
        InputError: another key, something that is no number, or a range that holds no value or too many.
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
