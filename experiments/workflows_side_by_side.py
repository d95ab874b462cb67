"""Where does the time of every named workflow go, side by side: a 7B and a 70B model (GQA) on 256 PEs.

Decode at a short and a long context, decode of a batch, and prefill. The bars are the critical path: cycles of memory,
multipliers, vector work, the root, the bus and the tree add up to the latency. Beside them what each workflow sends, by
kind of message.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import pandas as pd

from experiments.cases import CAUSES, Case, detailed
from experiments.study import Ask, Study, main
from experiments.workflows_side_by_side_plot import figures, findings
from pe_sim.mapping.workflow import WORKFLOWS
from pe_sim.schedule.stages import Tag

NAME = "workflows_side_by_side"
ARRAY: Final = "bus-tree-256"
# llama-2-70b takes 138 GB of weights: 256 PEs of the preset's 128 MiB hold 34. What a workflow does not fit into is
# simulated all the same, and the rows say that it does not fit, what a PE has, and what it needs.
CAPACITY_MIB: Final = {"llama-2-7b": 128, "llama-2-70b": 1024}
STEPS: Final[dict[str, dict[str, Any]]] = {
    "decode, context 128": {"phase": "decode", "batch": 1, "context": 128},
    "decode, context 4,095": {"phase": "decode", "batch": 1, "context": 4095},
    "decode, 8 sequences of 512": {"phase": "decode", "batch": 8, "context": 512},
    "prefill of 512": {"phase": "prefill", "batch": 1, "prompt": 512},
}
QUICK_MODELS, QUICK_STEPS = ("llama-2-7b",), ("decode, context 128", "prefill of 512")


def cases(quick: bool) -> Iterator[Case]:
    """Every named workflow on every step of every model."""
    for model in QUICK_MODELS if quick else CAPACITY_MIB:
        for name in QUICK_STEPS if quick else STEPS:
            for workflow in WORKFLOWS:
                settings = {
                    "model": model,
                    "array": ARRAY,
                    "workflow": workflow,
                    "pe.memory.capacity_bytes": CAPACITY_MIB[model] * 2**20,
                    "allow_overflow": True,
                    **STEPS[name],
                }
                yield Case({"model": model, "step": name}, settings)


def compute(ask: Ask) -> pd.DataFrame:
    """A row for each model, step and workflow."""
    points = list(cases(ask.quick))
    ask.tell(f"{len(points)} steps, each with its critical path")
    rows = detailed(points, ask)
    paths = [f"path.{cause}" for cause in CAUSES]
    sent = [f"{what}.{tag.value}" for what in ("messages", "bytes") for tag in Tag]
    names = ("model", "step", "phase", "workflow", "cycles", "seconds", "tokens_per_second", "ideal_cycles")
    memory = ("memory.peak_bytes_per_pe", "memory.capacity_bytes_per_pe", "memory.root_bytes", "fits")
    return rows[[*names, *paths, *sent, "energy_joules", *memory]]


STUDY: Final = Study(
    NAME,
    __doc__,
    f"""PEs have {", ".join(f"{mib:,} MiB ({model})" for model, mib in CAPACITY_MIB.items())}, all else is {ARRAY}.
Workflows that need more are simulated all the same, and marked with what they need; the "best" is one that fits.
Bars beyond the axis are cut, with their length beside them: batch-block and batch-stream give whole sequences to PEs,
and have work for as many PEs as there are sequences.
What the critical path waits for is the unit that works, or the messages under way; a "wait" would be what nothing in
the trace explains. batch-lockstep is megatron under another name.

For instance:
  python -m experiments.workflows_side_by_side --quick
  python -m experiments.workflows_side_by_side --jobs 2""",
    compute,
    findings,
    figures,
)

if __name__ == "__main__":
    main(STUDY)
