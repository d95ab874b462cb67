"""How wide a bus, how wide a tree of which arity, and how many PEs: which designs are worth their silicon and wire?

Llama-2-7B on arrays with the same memory in all, cut over few or many PEs: each design runs one decode step and one
prefill under its fastest named workflow. A design is on the front if no other one is both faster and smaller, once in
silicon and once in wire.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import pandas as pd

import pe_sim as ps
from experiments.cases import Case, best_of, swept
from experiments.interconnect_pareto_plot import figures, findings
from experiments.study import Ask, Study, main
from pe_sim.network.area import area_of
from pe_sim.network.metrics import wire_bits_mm

NAME = "interconnect_pareto"
MODEL, ARRAY = "llama-2-7b", "bus-tree-256"
MEMORY_GIB: Final = 20  # of all PEs together: 13.5 GB of weights, 1 GiB of cache, and what 2048 PEs cut unevenly
WORKFLOWS: Final = ("workflow-1", "workflow-2", "megatron", "all-row")
STEPS: Final[dict[str, dict[str, Any]]] = {
    "decode": {"phase": "decode", "batch": 1, "context": 2048},
    "prefill": {"phase": "prefill", "batch": 1, "prompt": 512},
}
PES, WIDTHS, ARITIES = (64, 128, 256, 512, 1024, 2048), (16, 32, 64, 128, 256, 512), (2, 4, 8, 16)
QUICK_PES, QUICK_WIDTHS, QUICK_ARITIES = (64, 512), (16, 128), (2, 8)
PITCH_STEP_MM: Final = 0.05
COSTS: Final = ("area_mm2", "wire_bit_mm")
DESIGN: Final = ("pes", "bytes_per_cycle", "arity")


def array_settings(pes: int, width: int, arity: int) -> dict[str, Any]:
    """An array by the dotted paths of a sweep; bus and tree are equally wide, and a PE just fits its pitch."""
    settings = {
        "num_pes": pes,
        "network.bus.bytes_per_cycle": width,
        "network.tree.bytes_per_cycle": width,
        "network.tree.arity": arity,
        "pe.memory.capacity_bytes": MEMORY_GIB * 2**30 // pes,
    }
    needed_mm = math.sqrt(area_of(ps.load_array(ARRAY, overrides=settings)).pe_mm2)
    return {**settings, "floorplan.pe_pitch_mm": round(math.ceil(needed_mm / PITCH_STEP_MM) * PITCH_STEP_MM, 2)}


def cases(quick: bool) -> Iterator[Case]:
    """Every design on both steps under every workflow."""
    several = (QUICK_PES, QUICK_WIDTHS, QUICK_ARITIES) if quick else (PES, WIDTHS, ARITIES)
    for pes in several[0]:
        for width in several[1]:
            for arity in several[2]:
                settings = array_settings(pes, width, arity)
                labels = {**dict(zip(DESIGN, (pes, width, arity), strict=True)), **_costs(settings)}
                for step in STEPS.values():
                    for workflow in WORKFLOWS:
                        chosen = {"model": MODEL, "array": ARRAY, "workflow": workflow, **settings, **step}
                        yield Case({"phase": step["phase"], **labels}, chosen)


def _costs(settings: dict[str, Any]) -> dict[str, float]:
    array = ps.load_array(ARRAY, overrides=settings)
    area = area_of(array)
    costs = (area.total_mm2, wire_bits_mm(array))
    return {**dict(zip(COSTS, costs, strict=True)), "pe_mm2": area.pe_mm2, "pe_pitch_mm": array.floorplan.pe_pitch_mm}


def compute(ask: Ask) -> pd.DataFrame:
    """A row for each design and phase: its fastest workflow, what it costs, and whether it is on the fronts."""
    points = list(cases(ask.quick))
    ask.tell(f"{len(points):,} points")
    columns = ("cycles", "seconds", "tokens_per_second", "energy_joules", "bounds.bus_cycles", "bounds.tree_cycles")
    rows = swept(points, ask, (*columns, "utilization.bus"))
    rows = rows.loc[best_of(rows, ("phase", *DESIGN))].reset_index(drop=True)
    tokens = rows["phase"].map({name: step.get("prompt", step["batch"]) for name, step in STEPS.items()})
    rows["joules_per_token"] = rows["energy_joules"] / tokens
    for cost in COSTS:
        rows[f"front.{cost}"] = False
        for _, mine in rows[rows["error"].isna()].groupby("phase"):
            rows.loc[mine.index, f"front.{cost}"] = on_front(mine[cost].to_numpy(), mine["seconds"].to_numpy())
    return rows


def on_front(cost: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """(designs,) whether no other is at most as dear and at most as slow; of equal ones the first is on the front."""
    order = np.lexsort((seconds, cost))
    best_before = np.minimum.accumulate(np.concatenate([[np.inf], seconds[order][:-1]]))
    front = np.zeros(len(cost), dtype=bool)
    front[order] = seconds[order] < best_before
    return front


STUDY: Final = Study(
    NAME,
    __doc__,
    f"""Arrays are {ARRAY} with {PES[0]} to {PES[-1]:,} PEs that share {MEMORY_GIB} GiB,
bus and tree of {WIDTHS[0]} to {WIDTHS[-1]} B/cycle (both the same), and arities {", ".join(map(str, ARITIES))}.
A PE keeps its multipliers and its port of 64 B/cycle, so more PEs are more silicon, and read and multiply faster
together. The pitch of the floor plan is what a PE takes, rounded up to
{PITCH_STEP_MM} mm; latencies that are `auto` follow. Workflows: {", ".join(WORKFLOWS)}.
Silicon: all of it, memory with every layer; in the presets wires run over the logic and take none. Wire: a wire for
each bit of a cycle's bytes, times its length under the floor plan. Silicon, wire and energy are first-order figures
(docs/energy-and-area.md).

For instance:
  python -m experiments.interconnect_pareto --quick
  python -m experiments.interconnect_pareto --jobs 2""",
    compute,
    findings,
    figures,
)

if __name__ == "__main__":
    main(STUDY)
