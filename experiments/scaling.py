"""How far does it pay to add PEs, and what stops it: strong and weak scaling, 64 to 4096 PEs, 7B to 405B parameters.

Strong scaling: one model, one decode step (and one prefill) on more and more PEs. Weak scaling: the batch, the context
or the model grows with the PEs. At each point the fastest named workflow is taken, and its critical path says what the
time goes to: the PEs' memories, their multipliers, vector work, the root, the bus or the tree.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pandas as pd

from experiments.cases import CAUSES, SHARDED, Case, best_of, detailed, swept
from experiments.scaling_plot import figures
from experiments.scaling_table import MEMORY, STRONG, WEAK_BATCH, WEAK_CONTEXT, WEAK_MODEL, findings
from experiments.study import Ask, Study, main

NAME = "scaling"
Step = Mapping[str, Any]
ARRAY: Final = "bus-tree-256"
PES: Final = (64, 128, 256, 512, 1024, 2048, 4096)
QUICK_PES: Final = (64, 1024)
# What a PE has to hold of each model for 64 of them to run it, rounded up to a power of two. Data of the study: every
# row has it beside what was needed, and `fits_preset` says whether the 128 MiB of the preset would have done.
CAPACITY_MIB: Final = {"llama-2-7b": 512, "llama-2-13b": 1024, "llama-2-70b": 4096, "llama-3.1-405b": 16384}
PRESET_MIB: Final = 128
QUICK_MODELS: Final = ("llama-2-7b",)
STRONG_STEPS: Final[dict[str, Step]] = {
    "decode": {"phase": "decode", "batch": 1, "context": 2048},
    "prefill": {"phase": "prefill", "batch": 1, "prompt": 512},
}
# The model that grows with the array: about 100 million parameters a PE.
LADDER: Final = (("llama-2-7b", 64), ("llama-2-13b", 128), ("llama-2-70b", 640), ("llama-3.1-405b", 4096))
WEIGHTS: Final[dict[str, Any]] = {
    "bf16": "bf16",
    "int8": "int8",
    "int4": {"dtype": "int4", "group_size": 128},
}
BATCH_WORKFLOWS: Final = (*SHARDED, "batch-stream", "batch-block")
BY: Final = ("study", "model", "weights", "phase", "pes")


@dataclass(frozen=True, slots=True)
class Machine:
    """What a point runs on, and in which weights; memory of the model's `CAPACITY_MIB` where none is given."""

    model: str
    pes: int
    weights: str = "bf16"
    mib: int | None = None

    @property
    def capacity_bytes(self) -> int:
        """Of a PE."""
        return (self.mib or CAPACITY_MIB[self.model]) * 2**20


def _cases(study: str, machine: Machine, step: Step, workflows: Sequence[str] = SHARDED) -> Iterator[Case]:
    """One step under several workflows."""
    labels = {"study": study, "model": machine.model, "weights": machine.weights, "pes": machine.pes, **_sizes(step)}
    settings = {
        "model": machine.model,
        "array": ARRAY,
        "num_pes": machine.pes,
        "pe.memory.capacity_bytes": machine.capacity_bytes,
        "dtypes.weight": WEIGHTS[machine.weights],
        **step,
    }
    if study == WEAK_CONTEXT:
        settings["model.max_position_embeddings"] = 32 * PES[-1] + 1
    for workflow in workflows:
        yield Case(labels, {**settings, "workflow": workflow})


def _sizes(step: Step) -> dict[str, Any]:
    """The phase, sequences, and the tokens each has before the step and gets in it."""
    sizes = {"sequences": step["batch"], "context": step.get("context", 0), "new_tokens": step.get("prompt", 1)}
    return {"phase": step["phase"], **sizes}


def strong_cases(quick: bool) -> Iterator[Case]:
    """One step of one model on all numbers of PEs."""
    for model in _models(quick):
        for step in STRONG_STEPS.values():
            for pes in _pes(quick):
                yield from _cases(STRONG, Machine(model, pes), step)


def weak_cases(quick: bool) -> Iterator[Case]:
    """Batch, context and model grow with the PEs."""
    for model in _models(quick):
        for pes in _pes(quick):
            sequences = {"phase": "decode", "batch": pes // 16, "context": 2048}
            prompts = {"phase": "prefill", "batch": pes // 64, "prompt": 512}
            longer = {"phase": "decode", "batch": 1, "context": 32 * pes}
            yield from _cases(WEAK_BATCH, Machine(model, pes), sequences, BATCH_WORKFLOWS)
            yield from _cases(WEAK_BATCH, Machine(model, pes), prompts, BATCH_WORKFLOWS)
            yield from _cases(WEAK_CONTEXT, Machine(model, pes), longer)
    for model, pes in LADDER:
        if model in _models(quick):
            for step in STRONG_STEPS.values():
                yield from _cases(WEAK_MODEL, Machine(model, pes), step)


def memory_cases(quick: bool) -> Iterator[Case]:
    """Decode with the preset's memories, in narrower and narrower weights: what fits, and what is it worth?"""
    for model in _models(quick):
        for weights in WEIGHTS:
            for pes in _pes(quick):
                yield from _cases(MEMORY, Machine(model, pes, weights, PRESET_MIB), STRONG_STEPS["decode"])


def _models(quick: bool) -> tuple[str, ...]:
    return QUICK_MODELS if quick else tuple(CAPACITY_MIB)


def _pes(quick: bool) -> tuple[int, ...]:
    return QUICK_PES if quick else PES


def compute(ask: Ask) -> pd.DataFrame:
    """A row for each study, model, weights, phase and number of PEs: the fastest named workflow, its critical path."""
    cases = [*strong_cases(ask.quick), *weak_cases(ask.quick), *memory_cases(ask.quick)]
    ask.tell(f"{len(cases):,} points under all workflows")
    found = swept(cases, ask, ("cycles",))
    best = [cases[index] for index in best_of(found, BY)]
    ask.tell(f"critical paths of the fastest, {len(best)} of them")
    return _arranged(detailed(best, ask))


def _arranged(rows: pd.DataFrame) -> pd.DataFrame:
    """The columns of the table: whole numbers where a row has none too."""
    tokens = rows["sequences"] * rows["new_tokens"]
    whole = ("cycles", "ideal_cycles", "memory.peak_bytes_per_pe", *(f"path.{cause}" for cause in CAUSES))
    rows = rows.astype(dict.fromkeys(whole, "Int64"))
    rows["joules_per_token"] = rows["energy_joules"] / tokens
    rows["bound"] = rows[[f"path.{cause}" for cause in CAUSES]].fillna(0).astype(float).idxmax(axis=1).str[5:]
    rows["bound"] = rows["bound"].where(rows["error"].isna(), None)
    rows["fits_preset"] = (rows["memory.peak_bytes_per_pe"] <= PRESET_MIB * 2**20).fillna(False).astype(bool)
    point = (*BY, "sequences", "context", "new_tokens", "workflow")
    figures = ("cycles", "seconds", "tokens_per_second", "ideal_cycles", "joules_per_token", "area_mm2")
    memory = ("memory.peak_bytes_per_pe", "memory.capacity_bytes_per_pe", "fits_preset")
    return rows[[*point, *figures, "bound", *(f"path.{cause}" for cause in CAUSES), *memory, "error"]]


STUDY: Final = Study(
    NAME,
    __doc__,
    f"""Arrays are {ARRAY} with another number of PEs; latencies of bus and tree follow from the floor plan. PEs have
{", ".join(f"{mib:,} MiB ({model})" for model, mib in CAPACITY_MIB.items())},
so that 64 PEs hold each model in bf16; the study "memory" leaves the preset's {PRESET_MIB} MiB, and also takes weights
of int8, and of int4 with a scale for 128.
Strong: a decode step after 2,048 tokens, a prefill of 512. Weak: N/16 sequences (decode) or N/64 prompts of 512; a
context of 32 N tokens (more positions than the models have, as data); about 100 million parameters a PE.
Workflows: {", ".join(SHARDED)};
with batches batch-stream and batch-block too, where they fit.
"PEs at their peak": what has to be read over all memory ports, or what has to be multiplied over all multipliers,
whichever takes longer. Speed a PE is that beside the first point's. Energy and area are first-order figures
(docs/energy-and-area.md).

For instance:
  python -m experiments.scaling --quick
  python -m experiments.scaling --jobs 2
  python -m experiments.scaling --plot-only   (the pictures anew, from the table)""",
    compute,
    findings,
    figures,
)

if __name__ == "__main__":
    main(STUDY)
