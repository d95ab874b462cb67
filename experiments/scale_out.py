"""How far does it pay to add arrays to one that is too small: 1 to 64 arrays of 1024 PEs, 70B and 405B parameters.

Strong scaling: the same decode step, or the same prompt, on more and more arrays. Weak scaling: a decode step with a
sequence for every array. At each number of arrays a search takes the best degrees (shares of the batch, operators,
layers and tokens) and the best distributions inside the arrays, and every array has a part; its time is its own work,
exchanges over the links, and waiting.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from typing import Any, Final

import pandas as pd

import pe_sim as ps
from experiments.options import whole_numbers
from experiments.parallel import in_order
from experiments.scale_out_plot import figures
from experiments.scale_out_table import COLUMNS, PREFILL, STRONG, WEAK, findings, with_efficiency
from experiments.study import Ask, Study, main
from pe_sim.config.systems.load import load_system
from pe_sim.config.systems.system import SystemConfig
from pe_sim.errors import InfeasibleError
from pe_sim.systems.search.search import search_system
from pe_sim.systems.search.space import Allowed

NAME: Final = "scale_out"
MODELS: Final = ("llama-2-70b", "llama-3.1-405b")
ARRAYS: Final = (1, 2, 4, 8, 16, 32, 64)
QUICK_ARRAYS: Final = (1, 2)
LINKS: Final = {"switch": "switch-of-64-bus-tree-1024", "ring": "ring-of-8-bus-tree-1024"}
LINKS_OF: Final = {STRONG: ("switch", "ring"), WEAK: ("switch", "ring"), PREFILL: ("switch",)}
BATCH: Final = 8  # of strong scaling
CONTEXT: Final = 2048
PROMPT: Final = 2048
# What the search may spend on a point: workflows beside those it searches, searches, and plans simulated whole.
WORKFLOWS: Final = ("workflow-2", "megatron")
SEARCHES: Final = 4
SIMULATIONS: Final = 4
MICROBATCHES: Final = {STRONG: (1, 2, 4, 8), WEAK: (1, 4, 16), PREFILL: (1, 8, 32)}
_PARTS: Final = "; ".join(f"{study} {', '.join(map(str, parts))}" for study, parts in MICROBATCHES.items())


def step_of(study: str, arrays: int) -> ps.Decode | ps.Prefill:
    """What is simulated on so many arrays."""
    if study == PREFILL:
        return ps.Prefill(1, prompt_len=PROMPT)
    return ps.Decode(BATCH if study == STRONG else arrays, CONTEXT)


def system_of(links: str, arrays: int) -> SystemConfig:
    """A preset with another number of arrays."""
    return load_system(LINKS[links], {"arrays.0.count": arrays})


def rows_of(study: str, model: str, arrays: int) -> list[dict[str, Any]]:
    """The rows of one number of arrays, one for each kind of links."""
    return [_row(study, model, links, arrays) for links in LINKS_OF[study]]


def _row(study: str, model_name: str, links: str, arrays: int) -> dict[str, Any]:
    step = step_of(study, arrays)
    allowed = Allowed(arrays=(arrays,), microbatches=MICROBATCHES[study])
    head = {"study": study, "model": model_name, "links": links, "arrays": arrays, "sequences": step.batch_size}
    try:
        found = search_system(
            model_name,
            system_of(links, arrays),
            step,
            workflows=WORKFLOWS,
            allowed=allowed,
            max_simulations=SIMULATIONS,
            varied=0,
            max_searches=SEARCHES,
            seconds=math.inf,  # its results depend on counts alone
        )
    except InfeasibleError as error:
        short = {"peak_bytes_per_pe": error.demand, "capacity_bytes_per_pe": error.bound}
        return {**head, **short, "error": str(error).partition("\n")[0]}
    best, plan = found.best, found.plan
    return {
        **head,
        **{name: getattr(plan, name) for name in ("dp", "tp", "pp", "cp", "microbatches")},
        "workflow": best.label,
        "cycles": best.cycles,
        "ms": found.report.latency_seconds * 1e3,
        "tokens_per_second": best.tokens_per_second,
        "tokens_per_second_per_array": best.tokens_per_second / arrays,
        "link_share": best.link_share,
        "bubble_share": best.bubble_share,
        "peak_bytes_per_pe": best.peak_bytes_per_pe,
        "capacity_bytes_per_pe": best.capacity_bytes_per_pe,
        "simulated": len(found.tried),
        "error": None,
    }


def compute(ask: Ask) -> pd.DataFrame:
    """A row for each study, model, kind of links and number of arrays."""
    models: Sequence[str] = MODELS[:1] if ask.quick else MODELS
    studies = (STRONG,) if ask.quick else tuple(LINKS_OF)
    counts: Sequence[int] = ask.options.arrays or (QUICK_ARRAYS if ask.quick else ARRAYS)
    cases = [(study, model, arrays) for study in studies for model in models for arrays in counts]
    largest_first = sorted(cases, key=lambda case: -case[2])
    tasks = {f"{study}, {model}, {arrays} arrays": (study, model, arrays) for study, model, arrays in largest_first}
    rows = [row for found in in_order(rows_of, tasks, ask) for row in found]
    table = pd.DataFrame(rows).reindex(columns=list(COLUMNS))
    order = {name: place for place, name in enumerate((*LINKS_OF, *MODELS, *LINKS))}
    place = [table[name].map(order) for name in ("study", "model", "links")]
    table = table.assign(a=place[0], b=place[1], c=place[2]).sort_values(["a", "b", "c", "arrays"], kind="stable")
    return with_efficiency(table.drop(columns=["a", "b", "c"]).reset_index(drop=True)).astype(COLUMNS)


def options(parser: argparse.ArgumentParser) -> None:
    """Other numbers of arrays."""
    parser.add_argument(
        "--arrays", type=whole_numbers, metavar="N,M", help=f"numbers of arrays ({','.join(map(str, ARRAYS))})"
    )


STUDY: Final = Study(
    NAME,
    __doc__,
    f"""Arrays are bus-tree-1024, 128 GiB each; links are those of the presets {LINKS["switch"]} (450 B/cycle
from every array into one switch) and {LINKS["ring"]} (225 B/cycle to either neighbour), with as many arrays
as the row says. Strong: a decode step of {BATCH} sequences at {CONTEXT:,} tokens; one prompt of {PROMPT:,} tokens, with
the switch alone. Weak: as many sequences as arrays. All arrays take part. Every point is a search of its own
(`pe-sim search --arrays`): workflows {", ".join(WORKFLOWS)} and up to {SEARCHES} searched for shares,
{SIMULATIONS} plans simulated whole, in so many parts: {_PARTS}.
It is the best of what was tried; nothing is proved.
Of an array's time, link_share is spent in exchanges that its next pass waits for, bubble_share otherwise idle.

For instance:
  python -m experiments.scale_out --quick
  python -m experiments.scale_out --arrays 8,16
  python -m experiments.scale_out --plot-only   (the pictures anew, from the table)""",
    compute,
    findings,
    figures,
    options,
)

if __name__ == "__main__":
    main(STUDY)
