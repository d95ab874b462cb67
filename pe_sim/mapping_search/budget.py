"""What a search may take: checks what it is given, says what time is left and how far it is, and ends it in time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pe_sim.errors import InputError, did_you_mean

DEFAULT_SECONDS: Final = 30.0
_EVERY: Final = 1.0  # seconds between two pieces of news

Progress = Callable[[str, int, int], None]  # what is done, how much of it, of how much


class OutOfTimeError(Exception):
    """Raised when the time of a search is used up; the search then gives the best so far."""


@dataclass(eq=False, slots=True)
class Budget:
    """The time of one search, from now on.

    Args:
        seconds: that it may take; infinite: as long as it needs, and no clock changes what it finds.
        now: the clock, in seconds.
        news: called by `check` about once a second.
    """

    seconds: float = math.inf
    now: Callable[[], float] = time.monotonic
    news: Callable[[], None] | None = None
    _begun: float = field(init=False)
    _told: float = field(init=False)

    def __post_init__(self) -> None:
        """Starts the clock."""
        self._begun = self._told = self.now()

    @property
    def used_seconds(self) -> float:
        """Seconds since it began."""
        return self.now() - self._begun

    @property
    def left_seconds(self) -> float:
        """Seconds until it is used up; negative after that."""
        return self.seconds - self.used_seconds

    def check(self) -> None:
        """Tells the news from time to time; the searches and the engines call this in their long loops.

        Raises:
            OutOfTimeError: the time is used up.
        """
        now = self.now()
        if now - self._begun >= self.seconds:
            raise OutOfTimeError
        if self.news is not None and now - self._told >= _EVERY:
            self._told = now
            self.news()

    def part(self, share: float) -> Budget:
        """A budget of a share of the time that is left, from now on."""
        return Budget(max(0.0, share * self.left_seconds), self.now, self.news)


def budget_of(seconds: Any) -> Budget:
    """The budget of so many seconds.

    Raises:
        InputError: that is no time.
    """
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds > 0:
        raise InputError(
            "this is no time for a search",
            path="seconds",
            given=seconds,
            expected="seconds above 0; inf to search to the end",
        )
    return Budget(float(seconds))


def check_asked(objective: str, objectives: Sequence[str], max_simulations: object, simulated: str) -> None:
    """Checks what every search is asked for.

    Args:
        objective: one of `objectives`.
        max_simulations: at most so many of what is `simulated`, in a word.

    Raises:
        InputError: there is no such objective, or there are no simulations.
    """
    if objective not in objectives:
        raise InputError(
            "unknown objective",
            path="objective",
            given=objective,
            expected="one of " + ", ".join(objectives),
            hint=did_you_mean(str(objective), objectives),
        )
    if type(max_simulations) is not int or max_simulations < 1:
        raise InputError(
            f"a search simulates at least one {simulated}",
            path="max_simulations",
            given=max_simulations,
            expected="an int >= 1",
        )


class Telling:
    """A search that tells how far it is.

    Args:
        progress: called with what is done and what is known so far, how much of it is done, and of how much.
        budget: of time.
    """

    progress: Progress | None
    budget: Budget
    _doing = ("search", 0, 0)

    def best_in_words(self) -> list[str]:
        """The best so far, and how good it is at least where that is known; empty while there is none."""
        return []

    def tell(self, what: str, done: int, of: int) -> None:
        """Tells what is done, how much of it, of how much, the best so far, and the time that is left."""
        self._doing = what, done, of
        if self.progress:
            words = self.best_in_words()
            if self.budget.seconds < math.inf:
                words.append(f"{max(0.0, self.budget.left_seconds):.0f} s left")
            self.progress(f"{what}: {', '.join(words)}" if words else what, done, of)

    def tell_again(self) -> None:
        """Tells once more what is being done, with the time that is left now."""
        self.tell(*self._doing)
