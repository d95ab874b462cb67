"""A line on stderr that says how far something is, where stderr is a terminal: takes what is done, and of how much."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from pe_sim.cli.outputs import standard_stream

if TYPE_CHECKING:
    from rich.progress import ProgressColumn


class Line:
    """A description, a bar, and what else `columns` show of the fields; nothing where stderr is no terminal."""

    def __init__(
        self, what: str, columns: tuple[ProgressColumn, ...] = (), fields: Mapping[str, Any] | None = None
    ) -> None:
        """`what` stands there until something is told."""
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self.console = Console(file=standard_stream("stderr"))
        shown = (TextColumn("{task.description}"), BarColumn(), *columns)
        self._bar = Progress(*shown, console=self.console, transient=True)
        self._task = self._bar.add_task(what, total=None, **dict(fields or {}))
        self._stands = False

    def show(self) -> None:
        """Puts it there, once."""
        if self.console.is_terminal and not self._stands:
            self._bar.start()
            self._stands = True

    def update(self, done: int, of: int, what: str | None = None, fields: Mapping[str, Any] | None = None) -> None:
        """Tells it the news."""
        self._bar.update(self._task, completed=done, total=of, description=what, **dict(fields or {}))

    def take_away(self) -> None:
        """Leaves the terminal as it was."""
        if self._stands:
            self._bar.stop()
            self._stands = False


class Progress:
    """A line from the first second on; work that takes less shows none."""

    _AFTER = 1.0  # seconds

    def __init__(self, what: str) -> None:
        """`what` stands there until something is told."""
        self._what = what

    def __enter__(self) -> Callable[[str, int, int], None]:
        """Gives what is to be called with news: what is done, how much, and of how much."""
        self._line = Line(self._what)
        begun = time.monotonic()

        def tell(what: str, done: int, of: int) -> None:
            if time.monotonic() - begun > self._AFTER:
                self._line.show()
            self._line.update(done, of, what)

        return tell

    def __exit__(self, *_: object) -> None:
        """Takes the line away."""
        self._line.take_away()
