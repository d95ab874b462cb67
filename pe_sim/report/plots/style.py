"""The style of figures: one that can be read in print and with any colour vision, for those who ask for it.

Nothing is set on import. The figures of pe_sim look the same with and without it but for sizes and fonts; what else is
drawn beside them takes its colours and dashes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Final

import matplotlib.style

STYLE: Final = "pe_sim.report.print"


def use_style() -> None:
    """Sets the style for all figures from now on, as `matplotlib.style.use("pe_sim.report.print")` does."""
    matplotlib.style.use(STYLE)


def style() -> AbstractContextManager[None]:
    """A context manager that sets the style within a `with` and restores what was set before."""
    return matplotlib.style.context(STYLE)


@contextmanager
def own_look() -> Iterator[None]:
    """A context manager or decorator that draws figures alike on every machine, whatever a matplotlibrc says."""
    with matplotlib.style.context(["default", {"svg.hashsalt": "pe-sim"}]):
        yield
