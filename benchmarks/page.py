"""The page: takes the machine, the rows and the sections, writes Markdown and the pictures it shows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill

from benchmarks.curve import NOT_ONE_PASS
from benchmarks.figure import draw
from benchmarks.growth import REPEATS, Section
from benchmarks.promises import EVENT_REPEATS, PROCESS_REPEATS
from benchmarks.step import CONTEXT_LEN, MODEL, WARM_REPEATS, WORKFLOW
from benchmarks.sweeps import GENERATION_LIMIT, SWEEP_REPEATS
from benchmarks.table import Row, format_table

PICTURES = "performance"  # the folder beside the page
_COLUMNS = 120
HEADING = """\
<!-- Written by `make bench`; changes by hand are lost. -->
# Performance of the simulator

How fast pe-sim itself is, not what it simulates. Measured and written by one command; the times are of the machine
named here, yours will differ:

```console
$ make bench
```
"""

HOW = f"""\
- The step is one decode step of {MODEL} at a context of {CONTEXT_LEN} under {WORKFLOW}, as in `make demo`, unless a row
  says otherwise.
- `simulate` is the whole call with the fast engine, configs loaded: graph, placement, check of the memories, lowering,
  engine and report. "Caches empty", and the rows of its parts: nothing is kept from an earlier call. "Asked again": the
  same call as before, which finds its placed graph.
- Event engine / fast engine: of the same schedule, in the same process. The fast engine writes spans and messages out
  only when they are asked for, the event engine always.
- A sweep starts with empty caches. Each of its points is another array, loaded, checked and given to `simulate`, which
  lowers it anew and shares between arrays what it can.
- A whole sweep is timed once: the process, from its start over those it starts to the table.
- Peak memory is of a fresh process that does one step and prints its report. A whole process includes the interpreter's
  start and all imports.
- Medians: of {REPEATS} for parts and empty caches, of {WARM_REPEATS} for what is asked again or written out,
  of {EVENT_REPEATS} for the event engine, of {SWEEP_REPEATS} for sweeps and generations (of fewer generations once they
  took {GENERATION_LIMIT:g} seconds), of {PROCESS_REPEATS} for whole processes. Garbage of what ran before a series of
  measurements is collected before it.
"""

GROWTH = f"""\
## How each step's cost grows

Both axes of the pictures are logarithmic. A step's point is the fastest of up to {REPEATS} passes, and one run of the
event engine; a generation's is the median of up to {SWEEP_REPEATS}. Before each pass the caches are emptied: `place` is
what it costs when no placed graph is kept. `simulate` is all of it but the event engine; what it takes beyond place,
lower and fast engine is the check of the memories and the report.

"Exponent", in brackets in the text, is k of the least-squares fit t = c·x^k over the points above it, "at the end" of
that over the last three: 1 is in proportion, 0 no growth. Where "{NOT_ONE_PASS}" stands the fast engine went event by
event; a series with such points and others is not fitted. The last column is the ratio of the engines at that point, of
the same schedule.
"""

NOTES = """\
## What was tried and dropped

- `numpy.unique` over rows to find PEs with equal work: the sort cost more than the arithmetic it saved.
- Integer division by the widths: ten times slower than the shift it is for powers of two, which `ceil_div` takes.
- One request a message for collectives that send many: a sender's messages now wait as one train, five times faster
  for an all-to-all and a third of the memory.
"""


def section_text(section: Section) -> str:
    """Heading, picture, tables and sentences."""
    names = "; ".join(curve.title for curve in section.curves)
    sentences = "".join(_filled(f"- {curve.sentence()}", indent="  ") + "\n" for curve in section.curves)
    tables = "\n".join(
        (f"{curve.title}:\n\n" if len(section.curves) > 1 else "") + curve.table(section.ratio)
        for curve in section.curves
    )
    picture = f"![Wall time: {names.replace('`', '')}]({PICTURES}/{section.file}.png)"
    what, why = _filled(section.what), _filled(section.why)
    return f"### {section.heading}\n\n{what}\n\n{picture}\n\n{sentences}\n{why}\n\n{tables}"


def _filled(text: str, indent: str = "") -> str:
    return fill(text, _COLUMNS, subsequent_indent=indent, break_on_hyphens=False)


def make_page(machine: Sequence[str], rows: Sequence[Row], sections: Sequence[Section]) -> str:
    """The whole page."""
    listed = "".join(f"- {line}\n" for line in machine)
    grown = "\n".join(section_text(section) for section in sections)
    return "\n".join((HEADING, listed, format_table(rows), HOW, GROWTH, grown, NOTES))


def write_page(path: Path, machine: Sequence[str], rows: Sequence[Row], sections: Sequence[Section]) -> None:
    """The page, and its pictures in a folder beside it."""
    for section in sections:
        draw(section, path.parent / PICTURES / f"{section.file}.png")
    path.write_text(make_page(machine, rows, sections), encoding="utf-8")
