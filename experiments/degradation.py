"""What do dead PEs cost: how much longer does a step take on the PEs that are left, and which of them hurts most?

The mapping goes around dead PEs: the others of a group share its work anew, head by head where PEs share heads. Some
PEs are dead at random, in several draws; or so many neighbours are; or one PE in each block of PEs that share a head,
block after block, and then around again.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any, Final

import pandas as pd

from experiments.cases import Case, swept
from experiments.degradation_plot import NEIGHBOURS, NONE, ONE_A_BLOCK, RANDOM, figures, findings
from experiments.study import Ask, Study, main

NAME = "degradation"
ARRAY: Final = "bus-tree-256"
NUM_PES: Final = 256
MODEL: Final = "llama-2-7b"
BLOCK: Final = 8  # PEs that share one of its 32 heads
CAPACITY_MIB: Final = 256  # of a PE, twice the preset's: a head with one PE alone has its cache there; data, no timing
DEAD: Final = (1, 2, 4, 8, 16, 32, 64)
QUICK_DEAD: Final = (1, 8)
DRAWS, QUICK_DRAWS = 15, 3
SEED: Final = 20
WORKFLOWS: Final = ("workflow-1", "workflow-2", "megatron")
STEPS: Final[dict[str, dict[str, Any]]] = {
    "decode": {"phase": "decode", "batch": 1, "context": 2048},
    "prefill of 512": {"phase": "prefill", "batch": 1, "prompt": 512},
}
KEYS: Final = ("step", "workflow", "placement", "dead", "draw")


def dead_sets(dead: int, draws: int) -> Iterator[tuple[str, int, list[int]]]:
    """How so many PEs can be dead: placement, number of the draw, and the PEs; the same ones on every run."""
    if not dead:
        yield NONE, 0, []
        return
    for draw in range(draws):
        yield RANDOM, draw, sorted(Random(f"{SEED} {dead} {draw}").sample(range(NUM_PES), dead))
    yield NEIGHBOURS, 0, list(range(dead))
    blocks = NUM_PES // BLOCK
    yield ONE_A_BLOCK, 0, sorted(each % blocks * BLOCK + each // blocks for each in range(dead))


def cases(quick: bool) -> Iterator[Case]:
    """Every set of dead PEs for every workflow and step, the set fastest."""
    for step, settings in list(STEPS.items())[:1] if quick else STEPS.items():
        for workflow in WORKFLOWS:
            for dead in (0, *(QUICK_DEAD if quick else DEAD)):
                for placement, draw, pes in dead_sets(dead, QUICK_DRAWS if quick else DRAWS):
                    yield Case(
                        {"step": step, "placement": placement, "dead": dead, "draw": draw},
                        {
                            "model": MODEL,
                            "array": ARRAY,
                            "workflow": workflow,
                            "dead_pes": pes,
                            "pe.memory.capacity_bytes": CAPACITY_MIB * 2**20,
                            **settings,
                        },
                    )


def compute(ask: Ask) -> pd.DataFrame:
    """A row for each set of dead PEs, with the cycles beside those with all PEs alive."""
    points = list(cases(ask.quick))
    ask.tell(f"{len(points):,} points")
    rows = swept(points, ask, ("cycles", "seconds", "tokens_per_second", "memory.peak_bytes_per_pe"))
    alive = rows.groupby(["step", "workflow"], sort=False)["cycles"].transform("first")
    rows["slowdown"] = (rows["cycles"] / alive).astype(float)
    return rows


STUDY: Final = Study(
    NAME,
    __doc__,
    f"""{MODEL} on {ARRAY}, {DRAWS} draws of each number of dead PEs. `slowdown` is the cycles over those with all PEs
alive under the same workflow. Dead PEs keep their places: floor plan, tree and bus are those of all {NUM_PES}.
The dotted line is {NUM_PES} over the living PEs: what it would cost if all work could be shared out evenly anew.

For instance:
  python -m experiments.degradation --quick
  python -m experiments.degradation --plot-only --out DIR
  pe-sim run {MODEL} --array {ARRAY} --set 'dead_pes=[3,17]' --context 2048""",
    compute,
    findings,
    figures,
)

if __name__ == "__main__":
    main(STUDY)
