"""Which interconnect is fastest for a whole decode step, if all of them are built from the same amount of wire?

Equal wire is the default of this comparison: the widths of every interconnect are scaled by one factor so that 8 wires
a byte per cycle, times their length under the floor plan, come to the same total as those of the bus and the tree of
the preset. A design of few or short links gets wide ones, a design of many or long links narrow ones. PEs, memories,
clock, floor plan and program are the same in all of them, so only the interconnect differs.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import pandas as pd

import pe_sim as ps
from experiments.equal_wire_arrays import DESIGNS, Design, Wired, base_array, wired
from experiments.equal_wire_plot import figures
from experiments.equal_wire_steps import simulate
from experiments.equal_wire_tables import row_of, said, table_of
from experiments.options import names, positive, whole_numbers
from experiments.parallel import in_order
from experiments.study import Ask, Study, main
from pe_sim.errors import InputError, did_you_mean
from pe_sim.network.metrics import wire_bits_mm

NAME: Final = "topologies_at_equal_wire"
PES, QUICK_PES = (64, 256), (64,)
WORKFLOWS: Final = ("workflow-1", "workflow-2", "megatron")


@dataclass(frozen=True, slots=True)
class Setting:
    """What every design is to do.

    Args:
        model, context: one decode step of one sequence after so many tokens.
        workflows: under each of them.
        equal_wire: whether the widths are scaled.
        event_limit: most PEs for which steps go event by event where they have to.
    """

    model: str = "llama-2-7b"
    context: int = 2048
    workflows: Sequence[str] = WORKFLOWS
    equal_wire: bool = True
    event_limit: int = 256


def wiring(design: Design, pes: int, *, equal_wire: bool) -> Wired:
    """A design at a number of PEs."""
    return wired(design, pes, wire_bits_mm(base_array(pes)) if equal_wire else None)


def rows_of(setting: Setting, design: Design, pes: int) -> list[dict[str, Any]]:
    """A design under every workflow, a row each."""
    model, step = ps.load_model(setting.model), ps.Decode(context_len=setting.context)
    each = wiring(design, pes, equal_wire=setting.equal_wire)
    points = [
        simulate(model, step, each, workflow, event_by_event=pes <= setting.event_limit)
        for workflow in setting.workflows
    ]
    return [row_of(model.name, setting.context, point) for point in points]


def collect(setting: Setting, designs: Sequence[Design], numbers: Sequence[int], ask: Ask) -> pd.DataFrame:
    """Every design at every number of PEs under every workflow."""
    tasks = {f"{pes} PEs, {design.name}": (setting, design, pes) for pes in numbers for design in designs}
    return table_of([row for found in in_order(rows_of, tasks, ask) for row in found])


def compute(ask: Ask) -> pd.DataFrame:
    """A row for each design, number of PEs and workflow: its widths and wire, cycles, and what they wait for."""
    given, usual = ask.options, Setting()
    setting = Setting(
        given.model or usual.model,
        usual.context if given.context is None else given.context,
        given.workflows or usual.workflows,
        not given.equal_width,
        usual.event_limit if given.event_limit is None else given.event_limit,
    )
    ps.load_model(setting.model)
    for workflow in setting.workflows:
        ps.load_workflow(workflow)
    designs = designs_named(given.topologies or tuple(DESIGNS))
    return collect(setting, designs, given.pes or (QUICK_PES if ask.quick else PES), ask)


def designs_named(wanted: Sequence[str]) -> list[Design]:
    """The designs of these names.

    Raises:
        InputError: there is no such design.
    """
    for name in wanted:
        if name not in DESIGNS:
            raise InputError("no such topology", source="--topologies", given=name, expected=", ".join(DESIGNS),
                             hint=did_you_mean(name, DESIGNS))  # fmt: skip
    return [DESIGNS[name] for name in wanted]


def options(parser: argparse.ArgumentParser) -> None:
    """Other arrays, interconnects, workflows and steps."""
    usual = Setting()
    numbers, quick = (",".join(map(str, each)) for each in (PES, QUICK_PES))
    parser.add_argument(
        "--pes", type=whole_numbers, metavar="N,N", help=f"numbers of PEs ({numbers}; with --quick {quick})"
    )
    parser.add_argument("--topologies", type=names, metavar="A,B", help="of those below (all)")
    parser.add_argument("--workflows", type=names, metavar="A,B", help=f"distributions ({','.join(WORKFLOWS)})")
    parser.add_argument("--model", metavar="M", help=f"a model ({usual.model})")
    parser.add_argument("--context", type=positive, metavar="T", help=f"tokens in the cache ({usual.context})")
    parser.add_argument("--equal-width", action="store_true", help="leave the widths as the presets have them")
    parser.add_argument(
        "--event-limit",
        type=positive,
        metavar="N",
        help=f"most PEs for which steps go event by event where they have to ({usual.event_limit})",
    )


STUDY: Final = Study(
    NAME,
    __doc__,
    f"""The array of N PEs is that of the preset bus-tree-N if there is one, else bus-tree-256 with N PEs.
Its interconnect gives the budget; the others are those of the presets *-256, at N PEs and scaled to it.
"bus-tree-downlink" is the bus and tree with results that go down the tree to their group of PEs.
"waiting" is the share of the step in which neither the root nor the PE that works most does anything.
Where messages of different operators overtake each other, a step is simulated event by event, which takes
a minute rather than a second; the table says so, and above --event-limit PEs the step is left out.

Topologies: {", ".join(tuple(DESIGNS)[:6])},
{", ".join(tuple(DESIGNS)[6:])}.

For instance:
  python -m experiments.topologies_at_equal_wire --quick
  python -m experiments.topologies_at_equal_wire --pes 1024
  python -m experiments.topologies_at_equal_wire --topologies bus-tree,mesh --pes 256
  python -m experiments.topologies_at_equal_wire --equal-width   (what each is at 64 B/cycle, whatever it costs)
  python -m experiments.topologies_at_equal_wire --plot-only     (the picture anew, from the table)""",
    compute,
    said,
    figures,
    options,
)

if __name__ == "__main__":
    main(STUDY)
