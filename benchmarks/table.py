"""The page: takes what was measured, gives the machine's description and one table in Markdown."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

LIBRARIES = ("numpy", "simpy", "networkx", "pydantic")
HEADING = """\
<!-- Written by `make bench`; changes by hand are lost. -->
# Performance of the simulator

How fast pe-sim itself is, not what it simulates. Measured and written by one command; the times are of the machine
named here, yours will differ:

```console
$ make bench
```
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement; `target` is in the same unit, None where nothing is promised.

    The target is an upper bound, or a lower one if `at_least`.
    """

    what: str
    value: float
    unit: str
    target: float | None = None
    at_least: bool = False

    def cells(self) -> tuple[str, str, str, str]:
        """What was measured, the value, the target, and value / target."""
        if self.target is None:
            return self.what, f"{self.value:.3g} {self.unit}", "", ""
        return self.what, f"{self.value:.3g} {self.unit}", f"{self.target:g} {self.unit}", self.ratio

    @property
    def ratio(self) -> str:
        """Value over target; above 1 the target is missed, or below it where it is a lower bound."""
        assert self.target is not None
        ratio = self.value / self.target
        return f"{ratio:.2f}" + (" (missed)" if (ratio < 1 if self.at_least else ratio > 1) else "")


def describe_machine() -> tuple[str, ...]:
    """A line for the processor, and one for the versions."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in LIBRARIES)
    return (
        f"{_cpu_model()}, {os.cpu_count()} cores, {platform.system()}",
        f"Python {platform.python_version()}, {versions}",
    )


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def format_table(rows: Sequence[Row]) -> str:
    """A Markdown table with aligned columns."""
    lines = [("what", "measured", "target", "measured / target"), *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(4)]
    ruler = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]

    def join(cells: Sequence[str]) -> str:
        first, *others = zip(cells, widths, strict=True)
        aligned = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
        return "| " + " | ".join(aligned) + " |\n"

    return join(lines[0]) + join(ruler) + "".join(join(line) for line in lines[1:])


def make_page(machine: Sequence[str], rows: Sequence[Row], notes: str) -> str:
    """The whole page."""
    listed = "".join(f"- {line}\n" for line in machine)
    return f"{HEADING}\n{listed}\n{format_table(rows)}\n{notes}"
