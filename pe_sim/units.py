"""Integer arithmetic, and numbers with units: takes plain numbers, gives numbers and short texts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import overload

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


@overload
def ceil_div(numerator: int, denominator: int) -> int: ...
@overload
def ceil_div(numerator: IntArray, denominator: int | IntArray) -> IntArray: ...
def ceil_div(numerator: int | IntArray, denominator: int | IntArray) -> int | IntArray:
    """The mathematical ceiling of numerator / denominator for integers or integer arrays."""
    if isinstance(numerator, np.ndarray) and isinstance(denominator, int):
        if denominator & (denominator - 1) == 0:
            return (numerator + (denominator - 1)) >> (denominator.bit_length() - 1)  # division is ten times slower
        return (numerator + (denominator - 1)) // denominator
    return -(-numerator // denominator)


def total(parts: Iterable[IntArray]) -> IntArray:
    """The element-wise sum of at least one array, all of one shape."""
    first, *others = parts
    for other in others:
        first = first + other
    return first


def exact_sum(values: IntArray) -> int:
    """The sum of non-negative integers, exact also beyond 2^63."""
    if values.size and int(values.max()) >= 2**63 // values.size:
        return sum(values.ravel().tolist())
    return int(values.sum())


def last_that_fits(fits: Callable[[int], bool], low: int, high: int) -> int:
    """The largest number that fits of `low` .. `high` - 1, by bisection; `low` fits, and all below one that fits."""
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def format_bytes(num_bytes: float) -> str:
    """Bytes with a binary prefix: 1536 -> '1.50 KiB'."""
    return _format_scaled(num_bytes, ("B", "KiB", "MiB", "GiB", "TiB", "PiB"), 1024.0)


def format_count(count: float) -> str:
    """A count with a decimal prefix: 6738415616 -> '6.74 G'."""
    return _format_scaled(count, ("", "k", "M", "G", "T", "P"), 1000.0).rstrip()


def format_seconds(seconds: float) -> str:
    """Seconds with the prefix that leaves one to three digits before the point: 0.0021 -> '2.10 ms'."""
    for scale, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns")):
        if seconds >= scale:
            return f"{seconds / scale:.2f} {unit}"
    return f"{seconds * 1e9:.2f} ns"


def time_unit(longest_seconds: float) -> tuple[float, str]:
    """The unit for an axis of times up to `longest_seconds`, in seconds, and its name: 0.0021 -> 1e-3, 'ms'."""
    units = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
    return next(((scale, name) for scale, name in units if longest_seconds >= scale), units[-1])


def _format_scaled(value: float, prefixes: tuple[str, ...], base: float) -> str:
    for prefix in prefixes[:-1]:
        if abs(value) < base:
            return f"{value:.0f} {prefix}" if prefix == prefixes[0] else f"{value:.2f} {prefix}"
        value /= base
    return f"{value:.2f} {prefixes[-1]}"
