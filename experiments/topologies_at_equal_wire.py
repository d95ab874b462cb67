"""Which interconnect is fastest for a whole decode step, if all of them are built from the same amount of wire?

Equal wire is the default of this comparison: the widths of every interconnect are scaled by one factor so that 8 wires
a byte per cycle, times their length under the floor plan, come to the same total as those of the bus and the tree of
the preset. A design of few or short links gets wide ones, a design of many or long links narrow ones. PEs, memories,
clock, floor plan and program are the same in all of them, so only the interconnect differs.

Writes a table (CSV) and a picture (PNG); both are committed as references under experiments/results.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pe_sim as ps
from experiments import equal_wire_tables as tables
from experiments.equal_wire_arrays import DESIGNS, Design, Wired, base_array, wired
from experiments.equal_wire_plot import draw
from experiments.equal_wire_steps import Point, simulate
from pe_sim.config.model import ModelConfig
from pe_sim.errors import InputError
from pe_sim.network.wire import wire_bits_mm

RESULTS = Path(__file__).parent / "results"
NAME, NAME_OF_WIDTHS = "topologies_at_equal_wire", "topologies_at_equal_width"
MODEL, CONTEXT, PES = "llama-2-7b", 2048, "64,256"
WORKFLOWS = "workflow-1,workflow-2,megatron"
EVENT_LIMIT = 256


def wirings(numbers: Sequence[int], designs: Sequence[Design], *, equal_wire: bool) -> list[Wired]:
    """Every design at every number of PEs."""
    found = []
    for pes in numbers:
        budget = wire_bits_mm(base_array(pes)) if equal_wire else None
        found += [wired(design, pes, budget) for design in designs]
    return found


def points(
    model: ModelConfig,
    step: ps.Decode,
    arrays: Sequence[Wired],
    workflows: Sequence[str],
    event_limit: int = EVENT_LIMIT,
    progress: Callable[[str], None] = lambda text: None,
) -> Iterator[Point]:
    """Every array under every workflow."""
    for each in arrays:
        for workflow in workflows:
            began = time.perf_counter()
            point = simulate(model, step, each, workflow, event_by_event=each.pes <= event_limit)
            done = f"{point.cycles:,} cycles" if point.cycles else "left out"
            how = f", {point.simulated}" if point.simulated != "fast" else ""
            progress(f"{each.label}, {workflow}: {done}{how} ({time.perf_counter() - began:.1f} s)")
            yield point


def read_options() -> argparse.Namespace:
    """What the user asks for, its lists split and checked."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.topologies_at_equal_wire",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"""The array of N PEs is that of the preset bus-tree-N if there is one, else bus-tree-256 with N PEs.
Its interconnect gives the budget; the others are those of the presets *-256, at N PEs and scaled to it.
"bus-tree-downlink" is the bus and tree with results that go down the tree to their group of PEs.
"waiting" is the share of the step in which neither the root nor the PE that works most does anything.
Where messages of different operators overtake each other, a step is simulated event by event, which takes
a minute rather than a second; the table says so, and above --event-limit PEs the step is left out.

Topologies: {", ".join(DESIGNS)}.

For instance:
  python -m experiments.topologies_at_equal_wire --pes 1024
  python -m experiments.topologies_at_equal_wire --topologies bus-tree,mesh --pes 256 --no-files
  python -m experiments.topologies_at_equal_wire --equal-width   (what each is at 64 B/cycle, whatever it costs)""",
    )
    parser.add_argument("--pes", default=PES, metavar="N,N", help="numbers of PEs (%(default)s)")
    parser.add_argument("--topologies", default=",".join(DESIGNS), metavar="A,B", help="of those below (all)")
    parser.add_argument("--workflows", default=WORKFLOWS, metavar="A,B", help="distributions (%(default)s)")
    parser.add_argument("--model", default=MODEL, help="a model (%(default)s)")
    parser.add_argument("--context", type=int, default=CONTEXT, metavar="T", help="tokens in the cache (%(default)s)")
    parser.add_argument("--equal-width", action="store_true", help="leave the widths as the presets have them")
    parser.add_argument(
        "--event-limit",
        type=int,
        default=EVENT_LIMIT,
        metavar="N",
        help="most PEs for which steps go event by event where they have to (%(default)s)",
    )
    parser.add_argument(
        "--out", type=Path, default=RESULTS, help="folder for the CSV and the PNG (experiments/results)"
    )
    parser.add_argument("--no-files", action="store_true", help="only print the tables")
    options = parser.parse_args()
    unknown = [name for name in options.topologies.split(",") if name not in DESIGNS]
    if unknown:
        parser.error(f"no topology {', '.join(unknown)}; there are {', '.join(DESIGNS)}")
    if not all(number.isdecimal() and int(number) > 1 for number in options.pes.split(",")):
        parser.error(f"--pes {options.pes}: numbers above 1, separated by commas")
    options.pes = [int(number) for number in options.pes.split(",")]
    options.designs = [DESIGNS[name] for name in options.topologies.split(",")]
    options.workflows = options.workflows.split(",")
    return options


def run(options: argparse.Namespace) -> None:
    """Simulates, prints and writes.

    Raises:
        InputError: a model, a workflow or a number of PEs that does not fit.
    """
    model, step = ps.load_model(options.model), ps.Decode(context_len=options.context)
    arrays = wirings(options.pes, options.designs, equal_wire=not options.equal_width)
    print(tables.format_wire(arrays), flush=True)

    def progress(text: str) -> None:
        print(f"  {text}", file=sys.stderr, flush=True)

    found = list(points(model, step, arrays, options.workflows, options.event_limit, progress))
    title = f"{model.name}, one decode step at a context of {options.context} tokens"
    print(tables.format_points(found, title), tables.findings(found), sep="\n")
    if not options.no_files:
        name = NAME_OF_WIDTHS if options.equal_width else NAME
        options.out.mkdir(parents=True, exist_ok=True)
        tables.write_table(found, options.out / f"{name}.csv")
        draw(found, title, options.out / f"{name}.png")
        print(f"wrote {name}.csv and {name}.png in {options.out.name}")


def main() -> None:
    """The command."""
    try:
        run(read_options())
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
