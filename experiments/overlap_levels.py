"""What is each overlap level worth, over the number of PEs and kinds of step, and where is level 2 slower than level 1?

Level 0 does one thing at a time; 1 reads a matrix while it multiplies (double buffering); 2 also reads the beginning of
the next matrix ahead of its time (prefetch); 3 also works on a message while it still arrives (streaming). The same
steps run at all levels, workflow by workflow.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import pandas as pd

from experiments.cases import Case, swept
from experiments.overlap_levels_plot import LEVELS_STUDY, PREFETCH_STUDY, figures, findings
from experiments.study import Ask, Study, main

NAME = "overlap_levels"
ARRAY: Final = "bus-tree-256"
CAPACITY_MIB: Final = 1024  # of a PE, so that 64 of them hold the 7B model and 32 sequences; data, as the rows say
LEVELS: Final = (0, 1, 2, 3)
PES: Final = (64, 128, 256, 512, 1024, 2048, 4096)
QUICK_PES: Final = (64, 4096)
MODELS: Final = ("llama-2-7b", "llama-3.2-1b")
WORKFLOWS: Final = ("megatron", "workflow-2")
STEPS: Final[dict[str, dict[str, Any]]] = {
    "decode, 1 sequence": {"phase": "decode", "batch": 1, "context": 2048},
    "decode, 32 sequences": {"phase": "decode", "batch": 32, "context": 2048},
    "prefill of 512": {"phase": "prefill", "batch": 1, "prompt": 512},
}
# Where level 2 loses: a memory without a first-access latency (nothing to hide), a port whose width does not divide a
# tile, and a prefetch buffer for a fraction of a tile. Of 5,135 arrays drawn at random this was the only such one.
PREFETCH_POINT: Final[dict[str, Any]] = {
    "model": MODELS[0],
    "workflow": "workflow-2",
    "num_pes": 256,
    "dtypes.weight": "int8",
    "pe.matrix.outputs": 32,
    "pe.matrix.depth": 32,
    "pe.memory.bytes_per_cycle": 100,
    "phase": "decode",
    "batch": 8,
    "context": 100,
}
BUFFER_PATHS: Final = {
    "memory_latency_cycles": "pe.memory.latency_cycles",
    "prefetch_bytes": "pe.buffer.prefetch_bytes",
}
PRESET_BUFFER: Final = {"pe.memory.latency_cycles": 20, "pe.buffer.prefetch_bytes": 65536}  # what the preset has
PREFETCH_BYTES: Final = (64, 128, 256, 512, 1024, 4096, 65536)
LATENCIES: Final = (0, 2, 20)
QUICK_PREFETCH_BYTES: Final = (64, 1024)
ACROSS: Final = ("study", "model", "step", "workflow", "pes", "memory_latency_cycles", "prefetch_bytes")


def _cases(study: str, name: str, settings: Mapping[str, Any]) -> Iterator[Case]:
    """A step at all levels; the settings of a sweep, without the level."""
    shared = {"array": ARRAY, "pe.memory.capacity_bytes": CAPACITY_MIB * 2**20, **settings}
    labels = {"study": study, "model": shared["model"], "step": name, "pes": shared["num_pes"]}
    buffer = {label: shared[path] for label, path in BUFFER_PATHS.items()}
    for level in LEVELS:
        yield Case({**labels, **buffer, "overlap": level}, {**shared, "overlap": level})


def cases(quick: bool) -> Iterator[Case]:
    """Every level of every step, the level fastest."""
    for model in MODELS[:1] if quick else MODELS:
        for name, step in STEPS.items():
            for workflow in WORKFLOWS:
                for pes in QUICK_PES if quick else PES:
                    point = {"model": model, "workflow": workflow, "num_pes": pes}
                    yield from _cases(LEVELS_STUDY, name, {**point, **PRESET_BUFFER, **step})
    for latency in LATENCIES:
        for num_bytes in QUICK_PREFETCH_BYTES if quick else PREFETCH_BYTES:
            buffer = dict(zip(BUFFER_PATHS.values(), (latency, num_bytes), strict=True))
            yield from _cases(PREFETCH_STUDY, "decode, 8 sequences", {**PREFETCH_POINT, **buffer})


def compute(ask: Ask) -> pd.DataFrame:
    """A row for each step, workflow, array and level, with what it gains over level 0 and over the level below."""
    points = list(cases(ask.quick))
    ask.tell(f"{len(points):,} points")
    rows = swept(points, ask, ("cycles", "seconds", "memory.peak_bytes_per_pe", "memory.capacity_bytes_per_pe"))
    base = rows.groupby(list(ACROSS), sort=False)["cycles"]
    rows["speedup_over_0"] = base.transform("first") / rows["cycles"]
    rows["speedup_over_below"] = (base.shift(1) / rows["cycles"]).astype(float)
    return rows


STUDY: Final = Study(
    NAME,
    __doc__,
    f"""Models {", ".join(MODELS)}; workflows {", ".join(WORKFLOWS)}; arrays {ARRAY} with {PES[0]} to {PES[-1]:,} PEs of
{CAPACITY_MIB:,} MiB. The figure stacks what levels 1, 2 and 3 save, in per cent of the cycles of level 0.
The second figure is an array on which level 2 can lose (machine model, section 4): a matrix that is multiplied longer
than it is read gains nothing from what was fetched ahead, and then the rest of its first tile counts as fill, where
level 1 counts no more than the rows. A first access that fetching ahead hides makes up for that at once.

For instance:
  python -m experiments.overlap_levels --quick
  python -m experiments.overlap_levels --plot-only --out DIR""",
    compute,
    findings,
    figures,
)

if __name__ == "__main__":
    main(STUDY)
