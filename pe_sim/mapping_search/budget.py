"""How long a search may take: says what is left, and ends what asks once it is used up."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from pe_sim.errors import InputError

DEFAULT_SECONDS: Final = 30.0
_EVERY: Final = 1.0  # seconds between two pieces of news


class OutOfTimeError(Exception):
    """The time is used up; whoever searches gives the best so far."""


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
        """Since it began."""
        return self.now() - self._begun

    @property
    def left_seconds(self) -> float:
        """Until it is used up; negative behind that."""
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
        """A share of what is left, from now on."""
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
