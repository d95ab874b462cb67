"""What can go wrong: takes the facts of a fault, gives one message that says what to do about it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any, Final

_ABSENT: Final = object()
DOES_NOT_FIT: Final = "DOES NOT FIT"  # what tables, pages and figures say of it
_LISTED: Final = 10


class PeSimError(Exception):
    """Base of every error this package raises on purpose."""


class InputError(PeSimError):
    """What the user gave cannot be used; the command line exits with 2.

    Args:
        problem: one sentence that says what is wrong.
        source: the file, preset or flag it came from.
        path: the dotted path inside the source.
        given: the value that was found there.
        expected: what would have been accepted.
        hint: what to do about it.
    """

    def __init__(
        self,
        problem: str,
        *,
        source: str | None = None,
        path: str | None = None,
        given: Any = _ABSENT,
        expected: str | None = None,
        hint: str | None = None,
    ) -> None:
        self.problem = problem
        self.source = source
        self.path = path
        self.given = None if given is _ABSENT else given
        self.expected = expected
        self.hint = hint
        where = ": ".join(part for part in (source, path) if part)
        lines = [f"{where}: {problem}" if where else problem]
        if given is not _ABSENT:
            lines.append(f"  given:    {_short_repr(given)}")
        if expected:
            lines.append(f"  expected: {expected}")
        if hint:
            lines.append(f"  hint:     {hint}")
        super().__init__("\n".join(lines))


class InfeasibleError(InputError):
    """A demand does not fit a bound; names demand, bound, gap, unit and the levers.

    Args:
        problem: what does not fit where.
        demand, bound: the two sides of the broken inequality, in `unit`.
        levers: what the user can change, each a short phrase.
    """

    def __init__(self, problem: str, *, demand: int, bound: int, unit: str, levers: Iterable[str]) -> None:
        self.demand = demand
        self.bound = bound
        self.unit = unit
        self.levers = tuple(levers)
        super().__init__(
            f"{problem}: needs {demand:,} {unit}, has {bound:,} {unit}, {demand - bound:,} {unit} too many",
            hint="; ".join(self.levers),
        )

    @property
    def gap(self) -> int:
        """How far the demand exceeds the bound, in `unit`."""
        return self.demand - self.bound

    @property
    def times(self) -> str:
        """How many times the bound the demand is, in words: 20.1 times."""
        ratio = self.demand / self.bound
        return f"{ratio:,.{1 if ratio < 100 else 0}f} times"

    def to_dict(self) -> dict[str, Any]:
        """What reports have under `does_not_fit`, JSON-ready."""
        return {"problem": self.problem, "demand": self.demand, "bound": self.bound, "unit": self.unit}


class DeadlockError(PeSimError):
    """The simulation ran out of events before the step was done; lists who waits for what."""

    def __init__(self, waiting: Iterable[str]) -> None:
        self.waiting = tuple(waiting)
        listing = "\n".join(f"  {line}" for line in self.waiting)
        super().__init__(f"deadlock: no event is left but the step is not finished; waiting:\n{listing}")


def did_you_mean(name: str, options: Iterable[str]) -> str:
    """A hint that names the nearest option, or lists the options when none is near."""
    known = sorted(options)
    near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]!r}?"
    return "known: " + ", ".join(known)


def listed(words: Sequence[str]) -> str:
    """The words with commas between; of more than ten the first ten, and how many others there are."""
    others = f" and {len(words) - _LISTED:,} more" if len(words) > _LISTED else ""
    return ", ".join(words[:_LISTED]) + others


def _short_repr(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "..."
