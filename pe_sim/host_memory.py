"""Checks of this machine's free memory, made before something large is built, so that it fails in time."""

from __future__ import annotations

import re
from pathlib import Path

from pe_sim.errors import OutOfMemoryError

_WORTH_A_LOOK = 1 << 20  # bytes; less is not checked, for even many such pieces take little


def require_memory(num_bytes: int, what: str, levers: str) -> None:
    """Raises if less memory than this is left; does nothing if the system does not say how much is.

    Args:
        num_bytes: lower bound of the bytes to be taken.
        what: that which takes them, as the subject of a sentence.
        levers: what the user can change to take less.

    Raises:
        OutOfMemoryError: less is left.
    """
    if num_bytes < _WORTH_A_LOOK:
        return
    there = available_bytes()
    if there is not None and num_bytes > there:
        problem = f"{what} takes at least {num_bytes:,} bytes of this machine's memory, of which {there:,} are left"
        raise OutOfMemoryError(problem, hint=levers)


def available_bytes() -> int | None:
    """Bytes that this process can still take: the least of machine, control group and own limit; None if unknown."""
    found = [1024 * int(free) for free in re.findall(r"MemAvailable:\s+(\d+) kB", _text("/proc/meminfo"))]
    most, used = (_text(f"/sys/fs/cgroup/memory.{name}").strip() for name in ("max", "current"))
    if most.isdigit() and used.isdigit():
        found.append(max(int(most) - int(used), 0))
    limits = re.findall(r"Max address space\s+(\d+)", _text("/proc/self/limits"))
    return min([*found, *map(int, limits)], default=None)


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""
