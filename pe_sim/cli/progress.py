"""A line on stderr that says how far something is: takes (what is done, how much, of how much)."""

from __future__ import annotations

import time
from collections.abc import Callable

from pe_sim.cli.outputs import standard_stream


class Progress:
    """From the first second on, where stderr is a terminal."""

    _AFTER = 1.0  # seconds

    def __init__(self, what: str) -> None:
        """`what` stands there until something is told."""
        self._what = what
        self._started = False

    def __enter__(self) -> Callable[[str, int, int], None]:
        """Gives what is to be called with news."""
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bar

        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            console=Console(file=standard_stream("stderr")),
            transient=True,
        )
        self._task = self._bar.add_task(self._what, total=None)
        begun, shows = time.monotonic(), self._bar.console.is_terminal

        def tell(what: str, done: int, of: int) -> None:
            if shows and not self._started and time.monotonic() - begun > self._AFTER:
                self._bar.start()
                self._started = True
            self._bar.update(self._task, description=what, completed=done, total=of)

        return tell

    def __exit__(self, *_: object) -> None:
        """Takes the line away."""
        if self._started:
            self._bar.stop()
