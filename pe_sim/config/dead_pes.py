"""PEs that do not work: takes what a file says of them, gives them checked and in order; and their names for people."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from pe_sim.errors import InputError

_NAMED: Final = 8  # in one line


def check_dead_pes(
    given: Sequence[int], num_pes: int, source: str | None = None, overridden: Sequence[str] = ()
) -> tuple[int, ...]:
    """The dead PEs in order.

    Args:
        given: their numbers.
        num_pes: of the array.
        source: what error messages call the file.
        overridden: dotted paths that `--set` changed, for the messages.

    Raises:
        InputError: there is no such PE, one is named twice, or none would be left.
    """
    flag = "--set dead_pes" if "dead_pes" in overridden else None

    def refuse(problem: str, expected: str) -> InputError:
        path = None if flag else "dead_pes"
        return InputError(problem, source=flag or source, path=path, given=list(given), expected=expected)

    beyond = [pe for pe in given if pe >= num_pes]
    if beyond:
        raise refuse(f"there is no PE {beyond[0]}: num_pes is {num_pes}", f"numbers from 0 to {num_pes - 1}")
    ordered = tuple(sorted(given))
    twice = next((pe for pe, after in pairwise(ordered) if pe == after), None)
    if twice is not None:
        raise refuse(f"PE {twice} is named twice", "each dead PE once")
    if len(given) == num_pes:
        most = f"at most {num_pes - 1} of the {num_pes} PEs" if num_pes > 1 else "[], for there is but one PE"
        raise refuse("no PE would be left", most)
    return ordered


def name_pes(pes: Sequence[int]) -> str:
    """The numbers of PEs; of many the first ones and how many more."""
    named = ", ".join(map(str, pes[:_NAMED]))
    return named if len(pes) <= _NAMED else f"{named} and {len(pes) - _NAMED} more"


def describe_dead_pes(dead_pes: Sequence[int], num_pes: int) -> str:
    """A few words: 2 of 64 PEs: 3, 17."""
    return f"{len(dead_pes):,} of {num_pes:,} PEs: {name_pes(dead_pes)}"
