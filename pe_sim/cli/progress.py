"""The progress of a command on stderr: a bar on a terminal, else a line now and then."""

from __future__ import annotations

import os
import sys
import time
from threading import Event, Thread
from types import TracebackType
from typing import Final, Self, TextIO

import click

_EVERY_SECONDS: Final = 10.0  # between two lines
_AFTER_SECONDS: Final = 1.0  # until a bar appears: shorter work shows none
_REDRAW_SECONDS: Final = 0.1


class Progress:
    """Shows how far `command` is, even while there is no news; call it to report news."""

    def __init__(self, command: str) -> None:
        """Prepares the display; nothing is shown yet."""
        self._command = command
        self._what, self._done, self._of = "", 0, 0
        self._over = Event()
        self._stream = standard_stream("stderr")

    def __enter__(self) -> Self:
        """Starts the clock and the display."""
        self._begun = time.monotonic()
        self._teller = Thread(target=self._tell, daemon=True)
        self._teller.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Ends the display and leaves the terminal as it was."""
        self._over.set()
        self._teller.join()

    def __call__(self, what: str, done: int = 0, of: int = 0) -> None:
        """Reports news: what is being done, how much of it is done, and of how much (0: unknown)."""
        self._what, self._done, self._of = what, done, of

    def clear_terminal(self) -> None:
        """Removes the bar for good, before results are shown in its place."""
        if self._stream.isatty():
            self.__exit__(None, None, None)

    def __str__(self) -> str:
        """One line: `pe-sim generate: tokens of every answer: 12 of 256, 20 s`."""
        count = f"{self._done:,} of {self._of:,}" if self._of else ""
        news = ": ".join(part for part in (self._command, self._what, count) if part)
        return f"{news}, {time.monotonic() - self._begun:,.0f} s"

    def _tell(self) -> None:
        try:
            if not self._stream.isatty():
                while not self._over.wait(_EVERY_SECONDS):
                    self._stream.write(f"{self}\n")
                    self._stream.flush()
            elif not self._over.wait(_AFTER_SECONDS):
                self._draw()
        except (OSError, ValueError):
            return  # nobody reads stderr any more, or it was closed: the work goes on

    def _draw(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeRemainingColumn())
        with Bar(*columns, console=Console(file=self._stream), transient=True, redirect_stdout=False) as bar:
            task = bar.add_task(str(self), total=None)
            while not self._over.wait(_REDRAW_SECONDS):
                bar.update(task, description=str(self), completed=self._done, total=self._of or None)


def current_progress() -> Progress:
    """The progress display of the running command."""
    progress = click.get_current_context().find_object(Progress)
    assert progress is not None
    return progress


def standard_stream(name: str) -> TextIO:
    """sys.stdout or sys.stderr by name, or a sink if the caller closed it."""
    stream: TextIO | None = getattr(sys, name)
    return stream if stream is not None else open(os.devnull, "w", encoding="utf-8")
