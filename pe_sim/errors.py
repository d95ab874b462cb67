"""The errors of the package: each takes the facts of a fault, and gives one message that says what to do about it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

_ABSENT: Final = object()
DOES_NOT_FIT: Final = "DOES NOT FIT"  # the mark in tables, pages and figures
_LISTED: Final = 10
_LINE: Final = 2_000  # characters
_LINES: Final = 100
_UNPRINTABLE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


class PeSimError(Exception):
    """Base of every error this package raises on purpose."""


class InputError(PeSimError):
    """An input of the user cannot be used; the command line exits with 2.

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
        where = ": ".join(printable(part) for part in (source, path) if part)
        lines = [f"{where}: {problem}" if where else problem]
        if given is not _ABSENT:
            lines.append(f"  given:    {short_repr(given)}")
        if expected:
            lines.append(f"  expected: {expected}")
        if hint:
            lines.append(f"  hint:     {hint}")
        super().__init__("\n".join(shown_lines("\n".join(lines).split("\n"))))

    def of(self, source: str) -> InputError:
        """This error, after it was changed to name `source` as where the fault was found."""
        text = str(self)
        found = text.removeprefix(self.source) if self.source else f": {text}"
        self.args, self.source = (f"{source}{found}",), source
        return self


@contextmanager
def told_of(source: str) -> Iterator[None]:
    """Puts `source`, such as a file, before the source that input errors of the `with` block name themselves."""
    try:
        yield
    except InputError as error:
        raise error.of(f"{source}: {error.source}" if error.source else source) from None


class InfeasibleError(InputError):
    """A demand exceeds a bound; the message names demand, bound, gap, unit and levers.

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
        """The excess of the demand over the bound, in `unit`."""
        return self.demand - self.bound

    @property
    def times(self) -> str:
        """The ratio of demand to bound as text: 20.1 times."""
        ratio = self.demand / self.bound
        return f"{ratio:,.{1 if ratio < 100 else 0}f} times"

    def to_dict(self) -> dict[str, Any]:
        """The JSON-ready dict that reports have under `does_not_fit`."""
        return {"problem": self.problem, "demand": self.demand, "bound": self.bound, "unit": self.unit}


def worst(shortages: Iterable[InfeasibleError | None]) -> InfeasibleError | None:
    """The shortage whose demand is the most times its bound, the first of equals; None where nothing is short."""
    return max(filter(None, shortages), key=lambda shortage: shortage.demand / shortage.bound, default=None)


class OutOfMemoryError(InputError):
    """This machine cannot hold what was asked for, which says nothing of the array or the mapping."""


class DeadlockError(PeSimError):
    """The simulation ran out of events before the step was done; lists who waits for what."""

    def __init__(self, waiting: Iterable[str]) -> None:
        self.waiting = tuple(waiting)
        listing = "\n".join(f"  {line}" for line in self.waiting)
        super().__init__(f"deadlock: no event is left but the step is not finished; waiting:\n{listing}")


def did_you_mean(name: str, options: Iterable[str]) -> str:
    """A hint that names the nearest option, or lists the options when none is near."""
    known = sorted(options)
    near = difflib.get_close_matches(str(name)[:100], known, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]!r}?"
    return "known: " + ", ".join(known)


def listed(words: Sequence[str]) -> str:
    """The words joined by commas; of more than ten, the first ten and the number of the others."""
    others = f" and {len(words) - _LISTED:,} more" if len(words) > _LISTED else ""
    return ", ".join(words[:_LISTED]) + others


def short_repr(value: Any, width: int = 120) -> str:
    """`repr` of the value, cut to `width` characters."""
    try:
        text = repr(value)
    except ValueError:  # Python writes out no integer of thousands of digits
        text = f"a value of the type {type(value).__name__} that is too large to be shown"
    return printable(text if len(text) <= width else text[: width - 3] + "...")


def printable(text: str) -> str:
    """The text with escapes for characters that steer a terminal (controls, direction marks) or cannot be encoded."""
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def shown_lines(lines: Sequence[str]) -> list[str]:
    """The lines for a message: printable, long ones cut, and of very many the first ones."""
    shown = [printable(line if len(line) <= _LINE else f"{line[:_LINE]} ...") for line in lines[:_LINES]]
    return shown + ([f"... and {len(lines) - _LINES:,} more lines"] if len(lines) > _LINES else [])
