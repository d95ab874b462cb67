"""The table: takes measurements with their targets, gives Markdown; and describes the machine."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.curve import markdown_table, significant

LIBRARIES = ("pe-sim", "numpy", "simpy", "networkx", "pydantic", "matplotlib")


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
        measured = f"{significant(self.value)} {self.unit}"
        if self.target is None:
            return self.what, measured, "", ""
        return self.what, measured, f"{'≥' if self.at_least else '≤'} {self.target:g} {self.unit}", self.ratio

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
    return markdown_table(("what", "measured", "target", "measured / target"), [row.cells() for row in rows])
