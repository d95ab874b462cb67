"""What do broadcast, reduce, scatter and gather cost as the array grows, on one broadcast bus and one reduction tree?

A broadcast is one message whatever the number of PEs is; a reduction passes one more level of joints with every
doubling; a scatter or a gather is a message for every PE. That is why a mapping should need only the first two. Every
point is simulated and held against the closed form of the machine model: they have to be equal to the cycle.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import pandas as pd

import pe_sim as ps
from experiments import closed_forms as forms
from experiments.closed_forms import Machine
from experiments.collectives_against_n_plot import figures
from experiments.collectives_against_n_table import COLUMNS, agrees, said
from experiments.parallel import in_order
from experiments.study import Ask, Study, main
from pe_sim.config.arrays.array import ArrayConfig
from pe_sim.errors import InputError

NAME: Final = "collectives_against_n"
ARRAY, VECTOR_BYTES, PART_BYTES = "bus-tree-256", 8192, 32
UP_TO, QUICK_UP_TO = 4096, 256


@dataclass(frozen=True, slots=True)
class Panel:
    """One question: what the collectives carry.

    Args:
        name: for the table and the picture.
        vector, part: bytes of broadcasts and reductions, and of each PE's message; from the number of PEs.
    """

    name: str
    vector: Callable[[int], int]
    part: Callable[[int], int]


@dataclass(frozen=True, slots=True)
class Setting:
    """What is simulated.

    Args:
        array: an array with one bus and one tree.
        up_to: most PEs.
        vector_bytes: of the vector that is cut.
        part_bytes: of messages of one size.
    """

    array: str = ARRAY
    up_to: int = UP_TO
    vector_bytes: int = VECTOR_BYTES
    part_bytes: int = PART_BYTES

    def check(self) -> None:
        """Raises InputError where the closed forms or the sizes do not hold."""
        for option, given in (("--bytes", self.vector_bytes), ("--part-bytes", self.part_bytes)):
            if given < 1:
                raise InputError("nothing to send", source=option, given=given, expected="at least 1")
        if self.up_to < 4:
            raise InputError("a curve has two points", source="--up-to", given=self.up_to, expected="at least 4")
        most = powers(self.up_to)[-1]
        if self.vector_bytes % most:
            raise InputError(
                f"cannot be cut into {most} equal parts", source="--bytes", given=self.vector_bytes,
                expected=f"a multiple of {most}", hint="--up-to takes fewer PEs",
            )  # fmt: skip
        kind = ps.load_array(self.array).network.kind
        if kind != "bus_tree":
            raise InputError(
                f"{self.array} is a {kind}; the closed forms are those of a bus_tree", source="--array",
                given=self.array, expected="an array with one bus and one tree",
            )  # fmt: skip


def panels(vector_bytes: int, part_bytes: int) -> tuple[Panel, Panel]:
    """A vector that is cut into ever smaller parts; and messages of one size."""
    return (
        Panel(f"vector of {sized(vector_bytes)}", lambda pes: vector_bytes, lambda pes: vector_bytes // pes),
        Panel(f"messages of {sized(part_bytes)}", lambda pes: part_bytes, lambda pes: part_bytes),
    )


def sized(num_bytes: int) -> str:
    """Bytes for people."""
    return f"{num_bytes // 1024} KiB" if num_bytes % 1024 == 0 else f"{num_bytes} B"


def powers(up_to: int) -> list[int]:
    """2, 4, ... up to a number of PEs."""
    return [2**level for level in range(1, up_to.bit_length()) if 2**level <= up_to]


def array_of(name: str, pes: int, way: str = "") -> ArrayConfig:
    """The array with another number of PEs; its floor plan, and so its `auto` latencies, grow with it."""
    ways = {"gather": way or "best", "scatter": way or "best"}
    return ps.load_array(name, overrides={"num_pes": pes, "overlap": 1, "network.collectives": ways})


def simulate(setting: Setting, pes: int) -> list[dict[str, Any]]:
    """All series of both panels at one number of PEs, a row each."""
    return [
        _row(setting.array, panel, pes, series)
        for panel in panels(setting.vector_bytes, setting.part_bytes)
        for series in forms.SERIES
    ]


def _row(name: str, panel: Panel, pes: int, series: forms.Series) -> dict[str, Any]:
    array = array_of(name, pes, series.way)
    machine = Machine.of(array)
    num_bytes = panel.part(pes) if series.per_pe else panel.vector(pes)
    cycles = ps.collective(series.collective, array, num_bytes).cycles
    expected = series.closed_form(machine, num_bytes)
    point = (panel.name, series.collective, series.way, pes, num_bytes)
    return dict(zip(COLUMNS, (*point, cycles, expected, series.formula, machine.flight), strict=True))


def collect(setting: Setting, ask: Ask) -> pd.DataFrame:
    """All points, panel by panel."""
    tasks = {f"{pes:,} PEs": (setting, pes) for pes in powers(setting.up_to)}
    rows = [row for found in in_order(simulate, tasks, ask) for row in found]
    order = [panel.name for panel in panels(setting.vector_bytes, setting.part_bytes)]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    return table.sort_values("panel", key=lambda names: names.map(order.index), kind="stable", ignore_index=True)


def compute(ask: Ask) -> pd.DataFrame:
    """A row for each panel, collective, way and number of PEs: cycles beside the closed form."""
    given = ask.options
    setting = Setting(
        given.array or ARRAY,
        given.up_to if given.up_to is not None else QUICK_UP_TO if ask.quick else UP_TO,
        given.bytes if given.bytes is not None else VECTOR_BYTES,
        given.part_bytes if given.part_bytes is not None else PART_BYTES,
    )
    setting.check()
    return collect(setting, ask)


def options(parser: argparse.ArgumentParser) -> None:
    """The array and the sizes."""
    parser.add_argument("--array", metavar="A", help=f"an array with one bus and one tree ({ARRAY})")
    parser.add_argument(
        "--up-to", type=int, metavar="N", help=f"most PEs; 2, 4, 8, ... ({UP_TO}; with --quick {QUICK_UP_TO})"
    )
    parser.add_argument("--bytes", type=int, metavar="B", help=f"of the vector; N divides it ({VECTOR_BYTES})")
    parser.add_argument("--part-bytes", type=int, metavar="B", help=f"of messages of one size ({PART_BYTES})")


STUDY: Final = Study(
    NAME,
    __doc__,
    """Two panels. In the first a vector of --bytes is broadcast or reduced whole, and scattered or gathered
in parts of --bytes / N. In the second every message has --part-bytes: more PEs share more bytes.
Serial is a message for each PE, network.collectives.*=serial. The other ways are =by_reduction: the root
sends the whole once and each PE keeps its slice; or slices, zero elsewhere, are summed in the tree.
The bytes of an all-reduce are those of its partial sums; its result has as many values of half the size.
Ends with exit code 1 if a point is not its closed form.

For instance:
  python -m experiments.collectives_against_n --quick
  python -m experiments.collectives_against_n --array bus-tree-16-large --up-to 256
  python -m experiments.collectives_against_n --plot-only   (the picture anew, from the table)""",
    compute,
    said,
    figures,
    options,
    agrees,
)

if __name__ == "__main__":
    main(STUDY)
