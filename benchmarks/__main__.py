"""`python -m benchmarks`: measures everything in one run, and writes docs/performance.md with its pictures."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.growth import OUTPUTS, generation_section, sections
from benchmarks.measure import ROOT
from benchmarks.page import write_page
from benchmarks.promises import promised
from benchmarks.table import Row, describe_machine, format_table

PAGE = ROOT / "docs" / "performance.md"


def main() -> None:
    """Prints the table, and writes the page unless asked not to."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--output", type=Path, default=PAGE, help="the page to write (default: docs/performance.md)")
    parser.add_argument("--no-output", action="store_true", help="only print")
    parser.add_argument(
        "--output-len", type=int, default=OUTPUTS[-1], help="longest generation, in tokens (default: %(default)s)"
    )
    options = parser.parse_args()
    machine = describe_machine()
    print(*machine, sep="\n", flush=True)
    generation = generation_section(options.output_len)
    rows: list[Row] = []
    for row in promised(generation):
        print("  " + ": ".join(row.cells()[:2]), file=sys.stderr, flush=True)
        rows.append(row)
    measured = [*sections(), generation]
    print(format_table(rows), end="")
    if not options.no_output:
        write_page(options.output, machine, rows, measured)
        print(f"wrote {options.output.relative_to(ROOT) if options.output.is_relative_to(ROOT) else options.output}")


if __name__ == "__main__":
    main()
